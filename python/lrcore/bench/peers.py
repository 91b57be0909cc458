"""The competitors: lrcore, the roofline, and the other libraries where they can be imported.

A library that is missing, can't do a workload or computes another update is listed with the reason.
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
from lrcore.bench.workloads import LR, Array, Competitor, Peer, Workload, copies, fill
from lrcore.optim.allocation import make_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OURS, ROOFLINE = "lrcore", "roofline"
NUMPY_AND_TORCH = {
    "lrcore.bench.torch_peers": ("torch for-loop", "torch foreach", "torch fused"),
    "lrcore.bench.numpy_peers": ("NumPy out=",),
}
# As a share of the largest update of a weight. Formulas round in different orders, and float32 weights near 0.1 have an
# ulp of 7e-9, where an update is 1e-3.
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
CHECKED = [(1000,), (33, 7), (16,)]
NO_PROBES = "this build has no bandwidth probes; `make bench`, in the source tree, builds them"


def make_lrcore(workload: Workload, weights: list[Array], grads: list[Array]) -> Competitor:
    """Return lrcore's step."""
    weights, grads = copies(weights), copies(grads)
    optimizer = getattr(lrcore, workload.optimizer)(weights, lr=LR, **workload.options)
    return Competitor(lambda: optimizer.step(grads), lambda: weights, lambda values: fill(grads, values))


def make_roofline(workload: Workload, weights: list[Array], grads: list[Array]) -> Competitor:
    """Return a step that reads and writes as many arrays with the same engine and threads, and only adds."""
    weights, grads = copies(weights), copies(grads)
    stepper = _lrcore.Stepper(grouped=False, make_state=make_state)
    stepper.add_group(weights, "")
    stepper.set_group(0, f"bandwidth_{workload.states}", [])
    return Competitor(lambda: stepper.step(grads), lambda: weights, lambda values: fill(grads, values))


@cache
def has_probes() -> bool:
    """Return whether the extension was built with the cargo feature ``probes``, and so the roofline can be measured."""
    try:
        make_roofline(Workload("", "", 0, {}), [np.zeros(1)], [np.zeros(1)])
    except ValueError:
        return False
    return True


LRCORE = Peer(OURS, make_lrcore, set_threads=lrcore.set_num_threads)
ROOFLINE_PEER = Peer(ROOFLINE, make_roofline, set_threads=lrcore.set_num_threads)


@dataclass(frozen=True)
class Peers:
    """The libraries that can be imported, by name, and why others can't."""

    found: dict[str, Peer]
    missing: dict[str, str]


def find(
    sources: Mapping[str, tuple[str, ...]], wanted: list[str] | None = None, say: Callable[[str], None] | None = None
) -> Peers:
    """Import the modules of libraries.

    Args:
        sources: Modules with a list ``PEERS``, and the names of these.
        wanted: The names to import; None imports all.
        say: Is called before an import.
    """
    peers = Peers({}, {} if has_probes() else {ROOFLINE: NO_PROBES})
    for module, names in sources.items():
        if wanted and not set(names) & set(wanted):
            peers.missing.update(dict.fromkeys(names, "left out by --peers"))
            continue
        if say:
            say(f"importing {', '.join(names)}")
        logging.disable(logging.WARNING)  # other libraries' warnings are about devices and kernels that are not used
        try:
            imported = importlib.import_module(module).PEERS
        except (Exception, SystemExit) as error:  # whatever goes wrong in somebody's build
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else ''}"
            peers.missing.update(dict.fromkeys(names, reason[:300]))
            continue
        finally:
            logging.disable(logging.NOTSET)
        for peer in imported:
            if wanted and peer.name not in wanted:
                peers.missing[peer.name] = "left out by --peers"
            else:
                peers.found[peer.name] = peer
    return peers


def objection(peer: Peer, workload: Workload, dtype: np.dtype[Any]) -> str:
    """Return why a peer does not take part in a workload, or an empty string."""
    if peer is ROOFLINE_PEER:  # computes another update by design
        return "" if has_probes() else NO_PROBES
    return peer.lacks(workload, dtype) or _disagreement(peer, workload, dtype)


@cache
def _disagreement(peer: Peer, workload: Workload, dtype: np.dtype[Any]) -> str:
    """Return how far a library is from lrcore after three steps with three gradients, if it is too far."""
    try:
        ours, theirs = _after_three_steps(LRCORE, workload, dtype), _after_three_steps(peer, workload, dtype)
    except Exception as error:
        return f"fails: {type(error).__name__}: {str(error)[:200]}"
    start = np.concatenate([w.ravel() for w in _values(dtype)[0]])
    if theirs.dtype != dtype:
        return f"turns {dtype} into {theirs.dtype}"
    distance = float(np.abs(ours - theirs).max() / np.abs(ours - start).max())
    if distance <= TOLERANCE[dtype.name]:
        return ""
    return f"computes another update: {distance:.1e} of an update away, {TOLERANCE[dtype.name]:.0e} is allowed"


def _after_three_steps(peer: Peer, workload: Workload, dtype: np.dtype[Any]) -> Array:
    weights, *grads = _values(dtype)
    competitor = peer.make(workload, weights, grads[0])
    for values in grads:
        competitor.load(values)
        if competitor.before:
            competitor.before()
        competitor.step()
    return np.concatenate([np.asarray(w).ravel() for w in competitor.weights()])


def _values(dtype: np.dtype[Any]) -> list[list[Array]]:
    """Return weights and three gradients, none near 0, where the position of eps in a formula matters."""
    rng = np.random.default_rng(0)

    def away_from_zero(shape: tuple[int, ...]) -> Array:
        return (rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 1.5, shape)).astype(dtype)

    weights = [(0.1 * rng.standard_normal(shape)).astype(dtype) for shape in CHECKED]
    return [weights, *([away_from_zero(shape) for shape in CHECKED] for _ in range(3))]
