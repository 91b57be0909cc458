"""All peers, each where it can be imported, and the check that they compute the same update.

A peer that is missing, can't do a work or computes something else is listed with the reason.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

import lrcore
from lrcore import _lrcore
from lrcore.optim.optimizer import make_state
from works import LR, Array, Contestant, Peer, Work, copies, fill

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCES = {
    "peers_torch": ("torch for-loop", "torch foreach", "torch fused"),
    "peers_deepspeed": ("DeepSpeed",),
    "peers_numba": ("numba",),
    "peers_numpy": ("NumPy textbook", "NumPy out="),
    "peers_optax": ("optax jit",),
    "peers_thinc": ("thinc",),
    "peers_bitsandbytes": ("bitsandbytes",),
}
NAMES = tuple(name for names in SOURCES.values() for name in names)
# A share of the largest movement of a weight. The formulas round in different orders, and float32 weights near 0.1 have
# an ulp of 7e-9, where they move by 1e-3 a step.
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
CHECKED = [(1000,), (33, 7), (16,)]


def make_lrcore(work: Work, weights: list[Array], grads: list[Array]) -> Contestant:
    weights, grads = copies(weights), copies(grads)
    optimizer = getattr(lrcore, work.optimizer)(weights, lr=LR, **work.options)
    return Contestant(lambda: optimizer.step(grads), lambda: weights, lambda values: fill(grads, values))


def make_roof(work: Work, weights: list[Array], grads: list[Array]) -> Contestant:
    """As many arrays read and written, by the same engine and threads, with additions alone."""
    weights, grads = copies(weights), copies(grads)
    stepper = _lrcore.Stepper(False, make_state)  # noqa: FBT003
    stepper.add_group(weights, "")
    rule = f"roof_{work.states}"
    stepper.set_group(0, rule, [])
    return Contestant(lambda: stepper.step(grads), lambda: weights, lambda values: fill(grads, values))


LRCORE = Peer("lrcore", make_lrcore, set_threads=lrcore.set_num_threads)
ROOF = Peer("roof", make_roof, set_threads=lrcore.set_num_threads)


@dataclass(frozen=True)
class Found:
    """The peers that can be imported, and why others can't."""

    peers: dict[str, Peer]
    missing: dict[str, str]


def find(wanted: list[str] | None, say: Callable[[str], None]) -> Found:
    """Import peers, those wanted, or all."""
    found = Found({}, {})
    for module, names in SOURCES.items():
        if wanted and not set(names) & set(wanted):
            found.missing.update(dict.fromkeys(names, "left out by --peers"))
            continue
        say(f"importing {', '.join(names)}")
        # Their warnings are about what isn't used here: devices, other kernels.
        logging.disable(logging.WARNING)
        try:
            peers = importlib.import_module(module).PEERS
        # Anything may go wrong in a build at import; SystemExit too.
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else ''}"
            found.missing.update(dict.fromkeys(names, reason[:300]))
            continue
        finally:
            logging.disable(logging.NOTSET)
        for peer in peers:
            if wanted and peer.name not in wanted:
                found.missing[peer.name] = "left out by --peers"
            else:
                found.peers[peer.name] = peer
    return found


def objection(peer: Peer, work: Work, dtype: np.dtype[Any]) -> str:
    """Why a peer doesn't take part in a work, or nothing."""
    return peer.lacks(work, dtype) or _disagreement(peer, work, dtype)


@cache
def _disagreement(peer: Peer, work: Work, dtype: np.dtype[Any]) -> str:
    """How far a peer is from lrcore after three steps with three gradients, if too far."""
    try:
        ours, theirs = _after_three_steps(LRCORE, work, dtype), _after_three_steps(peer, work, dtype)
    except Exception as error:
        return f"fails: {type(error).__name__}: {str(error)[:200]}"
    start = np.concatenate([w.ravel() for w in _values(dtype)[0]])
    if theirs.dtype != dtype:
        return f"turns {dtype} into {theirs.dtype}"
    distance = float(np.abs(ours - theirs).max() / np.abs(ours - start).max())
    if distance <= TOLERANCE[dtype.name]:
        return ""
    return f"computes another update: {distance:.1e} of a movement away, {TOLERANCE[dtype.name]:.0e} allowed"


def _after_three_steps(peer: Peer, work: Work, dtype: np.dtype[Any]) -> Array:
    weights, *grads = _values(dtype)
    contestant = peer.make(work, weights, grads[0])
    for values in grads:
        contestant.load(values)
        if contestant.before:
            contestant.before()
        contestant.step()
    return np.concatenate([np.asarray(w).ravel() for w in contestant.weights()])


def _values(dtype: np.dtype[Any]) -> list[list[Array]]:
    """Weights and three gradients, none near zero, where the place of eps would tell: that costs no time."""
    rng = np.random.default_rng(0)

    def away_from_zero(shape: tuple[int, ...]) -> Array:
        return (rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 1.5, shape)).astype(dtype)

    weights = [(0.1 * rng.standard_normal(shape)).astype(dtype) for shape in CHECKED]
    return [weights, *([away_from_zero(shape) for shape in CHECKED] for _ in range(3))]
