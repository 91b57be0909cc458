"""Which learning rate does a range test recommend, and is it a good one?

The network of digits.py is trained with a growing learning rate, and in short runs around the minimum of its loss; then
weights and state are restored. The recommendation is compared with a grid: runs of some hundred steps at each of
eight learning rates, and at the recommended one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import lrcore
from digits import (
    Array,
    Data,
    Labels,
    Params,
    cross_entropy,
    forward,
    initial_params,
    load_data,
    log_probabilities,
    loss_and_grads,
)
from lrcore import schedules

BATCH = 64
CHANCE = float(np.log(10))  # the loss of ten equal probabilities
TICKS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

Make = Callable[[Params, float | schedules.Schedule], lrcore.Optimizer]


@dataclass(frozen=True)
class Setup:
    """An optimizer and a grid of learning rates."""

    name: str
    make: Make
    grid: tuple[float, ...]


SETUPS = (
    Setup(
        "SGD, momentum 0.9", lambda params, lr: lrcore.SGD(params, lr, momentum=0.9), tuple(np.geomspace(1e-3, 3, 8))
    ),
    Setup("AdamW", lambda params, lr: lrcore.AdamW(params, lr), tuple(np.geomspace(3e-5, 0.1, 8))),
)


@dataclass
class Found:
    """A range test, and the test loss and accuracy of each run by learning rate."""

    setup: Setup
    result: lrcore.RangeTest
    recommended_lr: float
    trained: dict[float, list[tuple[float, float]]]

    def loss(self, lr: float) -> float:
        """Return the median test loss at a learning rate; NaN counts as infinite."""
        return float(np.median([loss for loss, _ in self.trained[lr]]))

    def accuracy(self, lr: float) -> float:
        """Return the median accuracy at a learning rate."""
        return float(np.median([accuracy for _, accuracy in self.trained[lr]]))


# The range test


def batches(data: Data, seed: int) -> Iterator[tuple[Array, Labels]]:
    """Yield random batches."""
    rng = np.random.default_rng(seed)
    while True:
        rows = rng.integers(len(data.train_x), size=BATCH)
        yield data.train_x[rows], data.train_y[rows]


def find(opt: lrcore.Optimizer, data: Data, steps: int) -> lrcore.RangeTest:
    """Run a range test on other batches than the runs."""
    with np.errstate(over="ignore", invalid="ignore"):  # the test ends when the loss diverges
        return lrcore.find_lr(opt, loss_and_grads, batches(data, seed=1000), start=1e-6, run_length=steps)


def bytes_of(opt: lrcore.Optimizer) -> bytes:
    """Return all weights and all state."""
    arrays = [*opt.params.values(), *(array for state in opt.state.values() for array in state.values())]
    return b"".join(array.tobytes() for array in arrays)


def restore_report(setup: Setup, lr: float, data: Data, steps: int) -> str:
    """Run a range test in the middle of a run and report how many bytes it changed."""
    opt = setup.make(initial_params(np.random.default_rng(0)), lr)
    for batch, _ in zip(batches(data, seed=0), range(steps // 2), strict=False):
        opt.step(loss_and_grads(opt.params, *batch)[1])
    before = bytes_of(opt)
    recommended = find(opt, data, steps).suggest()
    after = bytes_of(opt)
    changed = sum(a != b for a, b in zip(before, after, strict=True))
    text = f"a range test after {opt.steps} steps changes {changed} of {len(before):,} bytes"
    return f"At this learning rate {text}; it recommends {recommended}"


# The runs


def train(setup: Setup, lr: float, data: Data, steps: int, seed: int) -> tuple[float, float]:
    """Train with a warm-up and a cosine; return loss and accuracy on the test data."""
    params = initial_params(np.random.default_rng(seed))
    opt = setup.make(params, schedules.Cosine(lr, steps).warmup(0.1))
    with np.errstate(over="ignore", invalid="ignore"):
        for batch, _ in zip(batches(data, seed), range(steps), strict=False):
            opt.step(loss_and_grads(params, *batch)[1])
        log_p = log_probabilities(forward(params, data.test_x)[2])
    loss = cross_entropy(log_p, data.test_y)
    accuracy = float(np.mean(log_p.argmax(axis=1) == data.test_y))
    return (loss if np.isfinite(loss) else np.inf), accuracy


def evaluate(setup: Setup, data: Data, steps: int, seeds: int) -> Found:
    """Run the range test; train at the learning rates of the grid and at the recommended one."""
    opt = setup.make(initial_params(np.random.default_rng(0)), 1.0)
    result = find(opt, data, steps)
    recommended_lr = result.suggest().lr
    if recommended_lr is None:
        sys.exit(f"{setup.name}: {result.suggest()}")
    runs = [(lr, seed) for lr in (*setup.grid, recommended_lr) for seed in range(seeds)]
    found = Found(setup, result, recommended_lr, {lr: [] for lr, _ in runs})
    for lr, seed in tqdm(runs, desc=setup.name, unit="run"):
        found.trained[lr].append(train(setup, lr, data, steps, seed))
    return found


# Output


def show(found: Found) -> None:
    """Print the range test, the result at each learning rate, and the distance from the best."""
    print(f"\n{found.setup.name}\n\n{found.result}\n\n{'lr':>9} {'test loss':>10} {'accuracy':>9}")
    for lr in sorted(found.trained):
        mark = "   recommended" if lr == found.recommended_lr else ""
        print(f"{lr:9.2e} {found.loss(lr):10.4f} {found.accuracy(lr):9.2%}{mark}")
    best = min(found.setup.grid, key=found.loss)
    times = found.recommended_lr / best
    if found.loss(found.recommended_lr) <= found.loss(best):
        print(f"No learning rate of the grid is better. The recommended one is {times:.2g} times the best of them.")
        return
    more = found.loss(found.recommended_lr) / found.loss(best) - 1
    lost = 100 * (found.accuracy(best) - found.accuracy(found.recommended_lr))
    print(
        f"The recommended learning rate is {times:.2g} times the best of the grid, {best:.2g}: its test loss is "
        f"{more:.0%} higher, its accuracy {'lower' if lost > 0 else 'higher'} by {abs(lost):.1f} points."
    )


def draw(all_found: list[Found], steps: int, path: Path) -> None:
    """Draw each range test, and below it the runs."""
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    grid = figure.subplots(2, len(all_found), sharex="col", height_ratios=(3, 2), squeeze=False)
    for (upper, lower), found in zip(grid.T, all_found, strict=True):
        found.result.plot(upper).set(title=f"{found.setup.name}: the range test", xlabel="")
        lrs = np.array(sorted(found.trained))
        losses = np.array([[loss for loss, _ in found.trained[lr]] for lr in lrs])
        median = np.median(losses, axis=1)
        fine = median < 0.9 * CHANCE  # otherwise it has learned nothing
        lower.fill_between(
            lrs[fine], losses[fine].min(axis=1), losses[fine].max(axis=1), color="0.9", label="all seeds"
        )
        lower.plot(lrs[fine], median[fine], "o-", color="C0", label="median")
        lower.set(xlabel="learning rate", ylabel="test loss", yscale="log", title=f"Runs of {steps} steps")
        lower.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
        lower.set_ylim(0.04, 3.0)
        lower.tick_params(axis="y", which="minor", left=False, labelleft=False)
        if not fine.all():
            lower.plot(lrs[~fine], np.full((~fine).sum(), CHANCE), "x", color="C3", label="nothing learned")
        label = f"recommended: {found.recommended_lr:.2g}"
        lower.axvline(found.recommended_lr, color="black", linewidth=1.5, label=label)
        lower.legend(fontsize="small", loc="lower left")
        lower.grid(alpha=0.3)
    figure.savefig(path, dpi=90, metadata={"Software": None})


def main() -> int:
    """Evaluate both optimizers, print the tables and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="steps of a run (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="runs at each learning rate (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("find_lr.png"), help="the plot (default: %(default)s)")
    options = parser.parse_args()
    data = load_data(0)
    all_found = []
    # Matrix products of this size are slower on several cores.
    with threadpool_limits(1):
        for setup in SETUPS:
            found = evaluate(setup, data, options.steps, options.seeds)
            show(found)
            print(restore_report(setup, found.recommended_lr, data, options.steps))
            all_found.append(found)
    draw(all_found, options.steps, options.output)
    print(f"\n{options.output} shows the curves, and the results at each learning rate.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
