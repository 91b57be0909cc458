"""Does the recommended learning rate train as well as the best of a grid? `python benches/range_tests/report.py`.

Runs ``lrcore.find_lr`` as a new user would, with its default arguments, on each cell of ``truth.jsonl``, and looks up
how the recommended learning rate trains. Prints the figures of the half on which constants may be chosen beside those
of the held-out half; see ``problems.py``.

* The loss at a learning rate between two of the grid is interpolated: the logarithm of the loss, linearly over that of
  the learning rate. Beyond the grid it is that of its end. Between a learning rate that trains and one that diverges it
  is infinite.
* A run is diverged if its loss at the end is not finite, or larger than that of the untrained weights.
* Where there is no recommendation, none of the goals is met.
* The peers read the same losses off ``find_lr``'s curve, and also that of a test of their own: 100 learning rates from
  1e-7 to 10, one batch each, until a loss is not finite.
* The constant is one learning rate per optimizer: the one that is most often within 5 % on the chosen half.
* The best learning rate of another seed shows the limit that noise sets: it is judged by the two other seeds.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import truth
from peers import PEERS, Curve
from problems import PROBLEMS, Batch, Params, Problem
from truth import Cell

import lrcore

TOLERANCES = (0.05, 0.20)
FACTOR = 3.0
# Batches of one are reported apart.
LEAST_BATCH = 16
HALVES = ("chosen", "held out")


class Truth:
    """How the learning rates of a cell train: their losses at the end, the mean over seeds."""

    def __init__(self, lrs: Sequence[float], losses: Sequence[Sequence[float]], start: float) -> None:
        self.lrs, self.start = np.array(lrs), start
        self.losses = np.mean(losses, axis=1)
        self.agreement = agreement(np.array(losses))
        self.best_lr, self.best = float(self.lrs[np.argmin(self.losses)]), float(np.min(self.losses))

    def loss(self, lr: float) -> float:
        """Return the loss at a learning rate."""
        with np.errstate(invalid="ignore"):
            logarithm = np.interp(math.log(lr), np.log(self.lrs), np.log(self.losses))
        return math.inf if np.isnan(logarithm) else float(np.exp(logarithm))

    def is_within(self, lr: float | None, tolerance: float) -> bool:
        """Return whether a learning rate comes within a share of the best loss."""
        return lr is not None and self.loss(lr) <= (1 + tolerance) * self.best

    def is_near(self, lr: float | None) -> bool:
        """Return whether a learning rate is within a factor 3 of the best."""
        return lr is not None and 1 / FACTOR <= lr / self.best_lr <= FACTOR

    def diverges(self, lr: float | None) -> bool:
        """Return whether a run diverges; without a learning rate there is no run."""
        return lr is not None and self.loss(lr) > self.start


@cache
def start_loss(problem: Problem) -> float:
    """Return the loss of untrained weights, the mean over seeds."""
    return float(np.mean([problem.evaluate(problem.init(seed)) for seed in truth.SEEDS]))


def agreement(losses: np.ndarray[Any, Any]) -> float:
    """Return the share of seeds whose best learning rate is within 5 % of the best of the others, on their mean."""
    good = []
    for seed in range(losses.shape[1]):
        others = np.delete(losses, seed, axis=1).mean(axis=1)
        good.append(others[np.argmin(losses[:, seed])] <= (1 + TOLERANCES[0]) * others.min())
    return float(np.mean(good))


@dataclass(frozen=True)
class Outcome:
    """What a range test recommends in a cell.

    Attributes:
        cell: The cell.
        truth: How its learning rates train.
        lr: The recommended learning rate, or None.
        stated: The stated probability at each tolerance.
        cost: How often the loss and gradients of a batch were computed.
        changed: The number of bytes that differ afterwards.
        peers: What the peers read off its curve, and those with a test of their own.
    """

    cell: Cell
    truth: Truth
    lr: float | None
    stated: Mapping[float, float]
    cost: int
    changed: int
    peers: Mapping[str, float | None]


def feed(cell: Cell, seed: int, stream: int) -> Iterator[Batch]:
    """Yield batches without end."""
    rng = np.random.default_rng([seed, stream])
    while True:
        yield from truth.batches(cell.problem, cell.batch, 100, rng)


class LossFunction:
    """The loss and the gradients of a cell; counts its calls."""

    def __init__(self, cell: Cell) -> None:
        self._compute, self.calls = cell.problem.parts.loss_and_grads, 0

    def __call__(self, params: Params, *batch: Any) -> tuple[float, Params]:
        self.calls += 1
        loss, grads = self._compute(params, *batch)
        return float(loss), grads


def tested(cell: Cell, known: Truth, seed: int) -> tuple[Outcome, dict[str, Any]]:
    """Run the range test in a cell; return its outcome, and arrays of what it saw."""
    params = cell.problem.init(seed)
    opt = truth.OPTIMIZERS[cell.optimizer].make(params, 1e-3)
    before = contents((params, opt.state_dict()))
    compute = LossFunction(cell)
    result = lrcore.find_lr(opt, compute, feed(cell, seed, 3), progress=False, run_length=cell.steps)
    changed = difference(before, contents((params, opt.state_dict())))
    recommended = result.suggest()
    recorded = np.array(result.lrs), np.array(result.losses)
    own = own_test(cell, seed)
    read = {name: peer(recorded) for name, peer in PEERS.items()}
    read |= {f"{name}, own test": peer(own) for name, peer in PEERS.items()}
    stated = {tolerance: recommended.probability(tolerance) for tolerance in TOLERANCES}
    outcome = Outcome(cell, known, recommended.lr, stated, compute.calls, changed, read)
    seen = {"lrs": recorded[0], "losses": recorded[1], "own lrs": own[0], "own losses": own[1], **noise(cell, seed)}
    return outcome, seen


def own_test(cell: Cell, seed: int) -> Curve:
    """Return the curve of a plain range test, until a loss is not finite."""
    params, compute = cell.problem.init(seed), LossFunction(cell)
    opt = truth.OPTIMIZERS[cell.optimizer].make(params, 1e-3)
    lrs, losses = np.geomspace(1e-7, 10.0, 100), []
    for lr, batch in zip(lrs.tolist(), feed(cell, seed, 4), strict=False):
        loss, grads = compute(params, *batch)
        if not math.isfinite(loss):
            break
        losses.append(loss)
        opt.param_groups[0]["lr"] = lr
        opt.step(grads)
    return lrs[: len(losses)], np.array(losses)


def noise(cell: Cell, seed: int, count: int = 32) -> dict[str, Any]:
    """Return losses of batches at the start, and the squared norms of the mean gradient and of single ones."""
    params, compute = cell.problem.init(seed), LossFunction(cell)
    pairs = [compute(params, *batch) for batch in itertools.islice(feed(cell, seed, 5), count)]
    flat = np.array([np.concatenate([grad.ravel() for grad in grads.values()]) for _, grads in pairs], np.float64)
    norms = np.array([(flat.mean(0) ** 2).sum(), (flat**2).sum(1).mean()])
    return {"start losses": np.array([loss for loss, _ in pairs]), "start norms": norms}


def contents(value: Any) -> list[bytes]:
    """Return what nested containers hold, in order: the bytes of arrays, and the representation of the rest."""
    if isinstance(value, Mapping):
        return [leaf for key, one in value.items() for leaf in [repr(key).encode(), *contents(one)]]
    if isinstance(value, list | tuple):
        return [leaf for one in value for leaf in contents(one)]
    return [value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()]


def difference(before: list[bytes], after: list[bytes]) -> int:
    """Return the number of bytes that differ."""
    pairs = itertools.zip_longest(b"".join(before), b"".join(after))
    return 0 if before == after else sum(a != b for a, b in pairs)


# The figures


def share(values: Iterable[bool]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else math.nan


def percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.0f} %"


def best_constants(outcomes: list[Outcome]) -> dict[str, float]:
    """Return the learning rate of each optimizer that is most often within 5 % of the best, on the chosen half."""
    found = {}
    for name, optimizer in truth.OPTIMIZERS.items():
        known = [o.truth for o in outcomes if o.cell.optimizer == name and o.cell.problem.half == "chosen"]
        grid = [truth.rounded(optimizer.start * truth.RATIO**k) for k in range(truth.RATES)]
        found[name] = max(grid, key=lambda lr: sum(one.is_within(lr, TOLERANCES[0]) for one in known))
    return found


def figures(outcomes: list[Outcome], constants: Mapping[str, float]) -> dict[str, str]:
    """Return the figures of the summary by their names."""
    ratios = [o.lr / o.truth.best_lr for o in outcomes if o.lr is not None]
    by_peer = {
        name: share(o.truth.is_within(o.peers[name], TOLERANCES[0]) for o in outcomes) for name in outcomes[0].peers
    }
    same = [name for name in by_peer if not name.endswith("own test")]
    best, best_own = (max(names, key=by_peer.__getitem__) for names in (same, by_peer.keys() - set(same)))
    within = share(o.truth.is_within(o.lr, TOLERANCES[0]) for o in outcomes)
    fixed = [o.truth.is_within(constants[o.cell.optimizer], TOLERANCES[0]) for o in outcomes]
    costs = [o.cost for o in outcomes]
    return {
        "cells": str(len(outcomes)),
        "recommendations": percent(len(ratios) / len(outcomes)),
        "loss within 5 % of the best": percent(within),
        "loss within 20 %": percent(share(o.truth.is_within(o.lr, TOLERANCES[1]) for o in outcomes)),
        "learning rate within a factor 3 of the best": percent(share(o.truth.is_near(o.lr) for o in outcomes)),
        "median of recommended / best learning rate": f"{np.median(ratios):.2g}" if ratios else "–",
        "diverged runs": percent(share(o.truth.diverges(o.lr) for o in outcomes)),
        "within 5 %: best peer, same curves": f"{percent(by_peer[best])} {best}",
        "within 5 %: best peer, own test": f"{percent(by_peer[best_own])} {best_own.removesuffix(', own test')}",
        "within 5 %: best learning rate of another seed": percent(
            float(np.mean([o.truth.agreement for o in outcomes]))
        ),
        "within 5 %: a constant per optimizer": percent(share(fixed)),
        "gradients computed: median, most": f"{np.median(costs):.0f}, {max(costs)}",
        "bytes changed afterwards": str(sum(o.changed for o in outcomes)),
    }


def print_columns(title: str, columns: Mapping[str, Mapping[str, str]]) -> None:
    """Print figures side by side."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    widths = {head: max(len(head), *(len(value) for value in column.values())) for head, column in columns.items()}
    first = max(len(title), *(len(name) for name in names))
    print(f"{title:{first}}  " + "  ".join(f"{head:{widths[head]}}" for head in columns))
    for name in names:
        values = (f"{column.get(name, ''):{widths[head]}}" for head, column in columns.items())
        print(f"{name:{first}}  " + "  ".join(values).rstrip())
    print()


def calibration(outcomes: list[Outcome], tolerance: float) -> dict[str, str]:
    """Return by bins of the stated probability what was observed, where there was a recommendation."""
    found = {}
    given = [(o.stated[tolerance], o.truth.is_within(o.lr, tolerance)) for o in outcomes if o.lr is not None]
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        inside = [(stated, good) for stated, good in given if low <= stated < low + 0.2 or stated == low + 0.2 == 1.0]
        stated, observed = np.mean([s for s, _ in inside] or [math.nan]), share(good for _, good in inside)
        found[f"{low:.1f} to {low + 0.2:.1f}"] = f"{percent(stated)}, {percent(observed)} of {len(inside)}"
    return found


def breakdown(outcomes: list[Outcome], key: Callable[[Cell], Any]) -> dict[str, dict[str, str]]:
    """Return the main figures of each group of cells, as columns."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(str(key(outcome.cell)), []).append(outcome)
    heads: dict[str, Callable[[Outcome], bool]] = {
        "within 5 %": lambda o: o.truth.is_within(o.lr, TOLERANCES[0]),
        "20 %": lambda o: o.truth.is_within(o.lr, TOLERANCES[1]),
        "factor 3": lambda o: o.truth.is_near(o.lr),
        "diverged": lambda o: o.truth.diverges(o.lr),
        "none": lambda o: o.lr is None,
    }
    columns = {
        head: {name: percent(share(map(is_so, group))) for name, group in groups.items()}
        for head, is_so in heads.items()
    }
    ratios = {n: [o.lr / o.truth.best_lr for o in group if o.lr is not None] for n, group in groups.items()}
    return {**columns, "median ratio": {name: f"{np.median(r):.2g}" if r else "–" for name, r in ratios.items()}}


def print_report(outcomes: list[Outcome]) -> None:
    """Print all tables."""
    large = [o for o in outcomes if o.cell.batch >= LEAST_BATCH]
    constants = best_constants(large)
    for title, chosen in (
        ("batches of 16 or more", large),
        ("batches of 1", [o for o in outcomes if o.cell.batch == 1]),
    ):
        halves = {half: [o for o in chosen if o.cell.problem.half == half] for half in HALVES}
        halves = {half: group for half, group in halves.items() if group}
        if halves:
            print_columns(title, {half: figures(group, constants) for half, group in halves.items()})
            for tolerance in TOLERANCES:
                columns = {half: calibration(group, tolerance) for half, group in halves.items()}
                print_columns(f"within {tolerance:.0%}: stated, observed", columns)
    keys: dict[str, Callable[[Cell], Any]] = {
        "optimizer": lambda cell: cell.optimizer,
        "batch": lambda cell: cell.batch,
        "steps": lambda cell: cell.steps,
        "problem": lambda cell: cell.problem.name,
    }
    for half in HALVES:
        for name, key in keys.items():
            group = [o for o in (outcomes if name == "batch" else large) if o.cell.problem.half == half]
            if group:
                print_columns(f"{half}, by {name}", breakdown(group, key))
    print("constants: " + ", ".join(f"{name} {lr:g}" for name, lr in constants.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, default=truth.FILE, help="the results of the grid; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the batches of the range test")
    parser.add_argument("--half", choices=HALVES, help="only this half")
    parser.add_argument("--problems", nargs="*", choices=list(PROBLEMS), default=list(PROBLEMS), metavar="NAME")
    parser.add_argument("--curves", type=Path, help="write what the range tests saw to this .npz file")
    parser.add_argument("--list", action="store_true", help="also print each cell")
    options = parser.parse_args()
    known = truth.read(options.truth)
    cells = [cell for cell in truth.cells() if str(cell) in known and cell.problem.name in options.problems]
    cells = [cell for cell in cells if options.half in (None, cell.problem.half)]
    outcomes, curves = [], {}
    with np.errstate(all="ignore"):
        for number, cell in enumerate(cells, start=1):
            outcome, seen = tested(cell, Truth(**known[str(cell)], start=start_loss(cell.problem)), options.seed)
            outcomes.append(outcome)
            curves.update({f"{cell} | {name}": array for name, array in seen.items()})
            if options.list:
                print_cell(outcome)
            elif sys.stderr.isatty():
                print(f"\r{number} of {len(cells)}", end="", file=sys.stderr)
    print_report(outcomes)
    if options.curves is not None:
        np.savez_compressed(options.curves, **curves)
    return 0


def print_cell(outcome: Outcome) -> None:
    """Print a line about a cell."""
    known, lr = outcome.truth, outcome.lr
    found = "no recommendation" if lr is None else f"{lr:8.2g} {lr / known.best_lr:8.2g} of the best learning rate"
    loss = "" if lr is None else f", {known.loss(lr) / known.best:.3g} of the best loss"
    print(f"{outcome.cell!s:46} {found}{loss}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
