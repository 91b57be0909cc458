"""How well each learning rate trains: `python benches/range_tests/truth.py`.

Each cell, a problem with an optimizer, a batch size and a number of steps, is trained from a grid of sixteen learning
rates and three seeds, with a linear warm-up over 5 % of the steps and a cosine to 0. The figure of a run is the loss of
a large fixed batch at the end. The grid is extended until the best learning rate is not at its edge. It is refined
between the last one that trains and the first that diverges if the best one is close to them. For 2,000 steps it starts
at a fortieth of what was best for 300, or lower until the loss is 1.5 times the best.

The results are in ``truth.jsonl``, a line per cell; cells that are there are not computed again. To add a problem,
declare it and run this again; to compute one again, delete its lines.

It takes two hours of one core; the environment variables ``MALLOC_MMAP_THRESHOLD_=1000000000`` and
``MALLOC_TRIM_THRESHOLD_=1000000000`` make it up to three times faster with glibc, which otherwise returns the memory of
temporary arrays to the system and gets it back at each operation.

All runs of a cell are trained at once, as arrays of runs, with the updates of lrcore's optimizers written for one
learning rate per run; ``tests/finder/test_range_benchmark.py`` compares the two.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # matrices are too small for a second thread

import numpy as np
from problems import PROBLEMS, Batch, Problem

import lrcore
from lrcore import schedules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from networks import Array, Params

FILE = Path(__file__).with_name("truth.jsonl")
SEEDS = (0, 1, 2)
RATIO = 10 ** (1 / 3)
RATES = 16
WARMUP = 0.05
# Learning rates that are all too small or all too large are extended in this many at a time.
EXTENSION = 4
EXTENSIONS = 5
# Long runs are best at the learning rates of short ones or somewhat lower ones.
BELOW = 5


@dataclass(frozen=True)
class Optimizer:
    """An optimizer in the benchmark.

    Attributes:
        start: The first learning rate of its grid.
        make: Creates it for one run.
        states: The number of state arrays.
        update: ``update(w, g, state, scratch, t, lr)`` takes step ``t``, from 1, of many runs in place.
    """

    start: float
    make: Callable[..., lrcore.Optimizer]
    states: int
    update: Callable[..., None]


def sgd(w: Array, g: Array, state: list[Array], scratch: Array, t: int, lr: Array) -> None:  # noqa: ARG001
    w -= np.multiply(g, lr, out=scratch)


def momentum(w: Array, g: Array, state: list[Array], scratch: Array, t: int, lr: Array) -> None:  # noqa: ARG001
    (buffer,) = state
    buffer *= 0.9
    buffer += g
    w -= np.multiply(buffer, lr, out=scratch)


def adamw(w: Array, g: Array, state: list[Array], scratch: Array, t: int, lr: Array) -> None:
    mean, squares = state
    np.subtract(g, mean, out=scratch)
    scratch *= 1 - 0.9
    mean += scratch
    add_square(squares, g, scratch, 0.999)
    np.sqrt(squares, out=scratch)
    scratch *= 1 / math.sqrt(1 - 0.999**t)
    scratch += 1e-8
    np.divide(mean, scratch, out=scratch)
    scratch *= lr * (1 / (1 - 0.9**t))
    w *= 1 - lr * 0.01
    w -= scratch


def rmsprop(w: Array, g: Array, state: list[Array], scratch: Array, t: int, lr: Array) -> None:  # noqa: ARG001
    (squares,) = state
    add_square(squares, g, scratch, 0.99)
    step_by_root(w, g, squares, scratch, 1e-8, lr)


def adagrad(w: Array, g: Array, state: list[Array], scratch: Array, t: int, lr: Array) -> None:  # noqa: ARG001
    (total,) = state
    total += np.multiply(g, g, out=scratch)
    step_by_root(w, g, total, scratch, 1e-10, lr)


def lion(w: Array, g: Array, state: list[Array], scratch: Array, t: int, lr: Array) -> None:  # noqa: ARG001
    (mean,) = state
    np.multiply(mean, 0.9, out=scratch)
    scratch += (1 - 0.9) * g
    np.sign(scratch, out=scratch)
    scratch *= lr
    w -= scratch
    mean *= 0.99
    mean += np.multiply(g, 1 - 0.99, out=scratch)


def add_square(squares: Array, g: Array, scratch: Array, decay: float) -> None:
    np.multiply(g, g, out=scratch)
    scratch *= 1 - decay
    squares *= decay
    squares += scratch


def step_by_root(w: Array, g: Array, squares: Array, scratch: Array, eps: float, lr: Array) -> None:
    np.sqrt(squares, out=scratch)
    scratch += eps
    np.divide(g, scratch, out=scratch)
    scratch *= lr
    w -= scratch


OPTIMIZERS = {
    "SGD": Optimizer(1e-4, lambda params, lr: lrcore.SGD(params, lr=lr), 0, sgd),
    "momentum": Optimizer(1e-5, lambda params, lr: lrcore.SGD(params, lr=lr, momentum=0.9), 1, momentum),
    "AdamW": Optimizer(1e-5, lambda params, lr: lrcore.AdamW(params, lr=lr), 2, adamw),
    "RMSprop": Optimizer(1e-5, lambda params, lr: lrcore.RMSprop(params, lr=lr), 1, rmsprop),
    "Adagrad": Optimizer(1e-4, lambda params, lr: lrcore.Adagrad(params, lr=lr), 1, adagrad),
    "Lion": Optimizer(1e-6, lambda params, lr: lrcore.Lion(params, lr=lr), 1, lion),
}
BATCHES = (1, 16, 64, 256)
STEPS = (300, 2000)
# Rounds over all problems and optimizers, the most informative first: the file is balanced whenever it ends.
ROUNDS = ((16, 300), (64, 300), (16, 2000), (64, 2000), (1, 300), (256, 300), (1, 2000), (256, 2000))


@dataclass(frozen=True)
class Cell:
    """A problem with an optimizer, a batch size and a number of steps."""

    problem: Problem
    optimizer: str
    batch: int
    steps: int

    def __str__(self) -> str:
        """Return its key in the file of results."""
        return f"{self.problem.name} | {self.optimizer} | {self.batch} | {self.steps}"


def cells() -> list[Cell]:
    """Return all cells in the order in which they are computed: the halves alternate."""
    halves = [[one for one in PROBLEMS.values() if one.half == half] for half in ("chosen", "held out")]
    problems = [one for pair in zip(*halves, strict=True) for one in pair]
    return [Cell(p, name, *size) for size, name, p in product(ROUNDS, OPTIMIZERS, problems)]


def batches(problem: Problem, size: int, steps: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Yield batches; many are drawn at once."""
    while steps > 0:
        count = min(max(1, 4096 // size), steps)
        drawn = problem.parts.draw(rng, count * size)
        reshaped = [array.reshape(count, size, *array.shape[1:]) for array in drawn]
        yield from zip(*reshaped, strict=True)
        steps -= count


def learning_rates(steps: int) -> list[float]:
    """Return the learning rate of each step relative to the peak: a linear warm-up, then a cosine to 0."""
    schedule = schedules.Cosine(1.0, steps).warmup(round(WARMUP * steps))
    return [schedule(t) for t in range(steps)]


def views(flat: Array, like: Params) -> Params:
    """Return the weights of all runs by name, as views of ``(seeds, rates, weights)``."""
    found, end = {}, 0
    for name, array in like.items():
        start, end = end, end + array.size
        found[name] = flat[..., start:end].reshape(*flat.shape[:-1], *array.shape)
    return found


def train(cell: Cell, lrs: list[float]) -> Array:
    """Train with each seed and learning rate; return the losses at the end, ``(seeds, rates)``, inf where diverged."""
    problem, optimizer = cell.problem, OPTIMIZERS[cell.optimizer]
    starts = [problem.init(seed) for seed in SEEDS]
    flat = np.stack([np.concatenate([array.ravel() for array in start.values()]) for start in starts])
    w = np.repeat(flat[:, None], len(lrs), axis=1)
    found = np.full(w.shape[:2], np.inf)
    alive, lr = np.arange(len(lrs)), np.array(lrs, np.float32)[:, None]
    state = [np.zeros_like(w) for _ in range(optimizer.states)]
    g, scratch = np.empty_like(w), np.empty_like(w)
    params, grads = views(w, starts[0]), views(g, starts[0])
    feeds = [batches(problem, cell.batch, cell.steps, np.random.default_rng([seed, 2])) for seed in SEEDS]
    for t, factor in enumerate(learning_rates(cell.steps), start=1):
        batch = [np.stack(arrays)[:, None] for arrays in zip(*map(next, feeds), strict=True)]
        loss, computed = problem.parts.loss_and_grads(params, *batch)
        for name, grad in computed.items():
            grads[name][...] = grad
        optimizer.update(w, g, state, scratch, t, lr * np.float32(factor))
        if t % 20 == 0:
            # A learning rate at which any seed diverged counts as diverged.
            finite = np.isfinite(loss).all(0)
            if not finite.any():
                return found
            if not finite.all():
                alive, lr, w = alive[finite], lr[finite], np.ascontiguousarray(w[:, finite])
                state = [np.ascontiguousarray(array[:, finite]) for array in state]
                g, scratch = np.empty_like(w), np.empty_like(w)
                params, grads = views(w, starts[0]), views(g, starts[0])
    for i, rate in enumerate(alive):
        loss = problem.evaluate({name: array[:, i : i + 1] for name, array in params.items()})[:, 0]
        found[:, rate] = np.where(np.isfinite(loss) & np.isfinite(w[:, i]).all(-1), loss, np.inf)
    return found


def measure(cell: Cell, likely: float | None = None) -> dict[float, list[float]]:
    """Return the losses of each seed by learning rate.

    Args:
        cell: The cell.
        likely: The best learning rate of a shorter run. The grid starts ``BELOW`` rates below it, and lower if it must.
    """
    start = OPTIMIZERS[cell.optimizer].start
    first = 0 if likely is None else max(round(math.log(likely / start) / math.log(RATIO)) - BELOW, 0)
    exponents = list(range(first, RATES))
    losses: dict[float, list[float]] = {}

    def add(lrs: list[float]) -> None:
        losses.update(zip(lrs, train(cell, lrs).T.tolist(), strict=True))

    add([rounded(start * RATIO**k) for k in exponents])
    for _ in range(EXTENSIONS):
        ordered = sorted(losses)
        means = [np.mean(losses[lr]) for lr in ordered]
        best = int(np.argmin(means))
        # The loss of lower rates is that of the lowest, which must be known to be bad.
        is_cut = exponents[0] > 0 and means[0] < 1.5 * means[best]
        if best <= 1 or is_cut or not math.isfinite(means[best]):
            exponents = [*range(exponents[0] - EXTENSION, exponents[0]), *exponents]
            add([rounded(start * RATIO**k) for k in exponents[:EXTENSION]])
        elif best >= len(ordered) - 2 and math.isfinite(means[-1]):
            exponents = [*exponents, *range(exponents[-1] + 1, exponents[-1] + 1 + EXTENSION)]
            add([rounded(start * RATIO**k) for k in exponents[-EXTENSION:]])
        else:
            break
    ordered = sorted(losses)
    means = [np.mean(losses[lr]) for lr in ordered]
    finite = int(np.argmin(means)) + 1
    while finite < len(ordered) and math.isfinite(means[finite]):
        finite += 1
    if finite < len(ordered) and finite - int(np.argmin(means)) <= 2:
        add([rounded(lr) for lr in np.geomspace(ordered[finite - 1], ordered[finite], 5)[1:-1]])
    return {lr: losses[lr] for lr in sorted(losses)}


def best_lr(known: dict[str, list[Any]]) -> float:
    """Return the best learning rate of a cell that was read."""
    return float(known["lrs"][int(np.argmin(np.mean(known["losses"], axis=1)))])


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def read(path: Path = FILE) -> dict[str, dict[str, list[Any]]]:
    """Return the stored results: for each cell its learning rates ``lrs`` and the ``losses`` of its seeds, by key."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        given = json.loads(line)
        losses = [[math.inf if loss is None else loss for loss in row] for row in given["losses"]]
        found[given["cell"]] = {"lrs": given["lrs"], "losses": losses}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="*", default=list(PROBLEMS), help="the names of problems; default: all")
    parser.add_argument("--file", type=Path, default=FILE, help="where to write; default: %(default)s")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this time")
    options = parser.parse_args()
    begin, done = time.monotonic(), read(options.file)
    remaining = [one for one in cells() if str(one) not in done and one.problem.name in options.problems]
    for number, cell in enumerate(remaining, start=1):
        if time.monotonic() - begin > 60 * options.minutes:
            break
        started = time.monotonic()
        with np.errstate(all="ignore"):
            short = done.get(str(replace(cell, steps=STEPS[0])))
            losses = measure(cell, None if short is None else best_lr(short))
        done[str(cell)] = {"lrs": list(losses), "losses": list(losses.values())}
        values = [[rounded(loss) if math.isfinite(loss) else None for loss in row] for row in losses.values()]
        with options.file.open("a") as file:
            file.write(json.dumps({"cell": str(cell), "lrs": list(losses), "losses": values}) + "\n")
        print(f"{number}/{len(remaining)} {cell}: {time.monotonic() - started:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
