"""Which learning rate does a range test suggest, and is it a good one?

The range test trains the network of digits.py for a hundred steps, the rate a little higher at each, and looks what
becomes of the loss; then weights and state are put back. What it suggests is compared with a grid: trainings of some
hundred steps at each of eight rates, and at the suggested one.
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
class Recipe:
    """An optimizer, and the rates of a grid for it."""

    name: str
    make: Make
    grid: tuple[float, ...]


RECIPES = (
    Recipe(
        "SGD, momentum 0.9", lambda params, lr: lrcore.SGD(params, lr, momentum=0.9), tuple(np.geomspace(1e-3, 3, 8))
    ),
    Recipe("AdamW", lambda params, lr: lrcore.AdamW(params, lr), tuple(np.geomspace(3e-5, 0.1, 8))),
)


@dataclass
class Found:
    """What a range test suggests, and for each rate what trainings come to: test losses and accuracies."""

    recipe: Recipe
    result: lrcore.RangeTest
    suggested: float
    trained: dict[float, list[tuple[float, float]]]

    def loss(self, lr: float) -> float:
        """Return the median of the test losses at a rate; a loss that is no number counts as infinite."""
        return float(np.median([loss for loss, _ in self.trained[lr]]))

    def accuracy(self, lr: float) -> float:
        """Return the median of the accuracies at a rate."""
        return float(np.median([accuracy for _, accuracy in self.trained[lr]]))


# The range test


def batches(data: Data, seed: int) -> Iterator[tuple[Array, Labels]]:
    """Draw batches for ever."""
    rng = np.random.default_rng(seed)
    while True:
        rows = rng.integers(len(data.train_x), size=BATCH)
        yield data.train_x[rows], data.train_y[rows]


def find(opt: lrcore.Optimizer, data: Data) -> lrcore.RangeTest:
    """Run a range test on batches that the training will not see in this order."""
    with np.errstate(over="ignore", invalid="ignore"):  # it ends where the loss diverges
        return lrcore.find_lr(opt, loss_and_grads, batches(data, seed=1000), start=1e-6)


def bytes_of(opt: lrcore.Optimizer) -> bytes:
    """Return all weights and all state."""
    arrays = [*opt.params.values(), *(array for state in opt.state.values() for array in state.values())]
    return b"".join(array.tobytes() for array in arrays)


def is_put_back(recipe: Recipe, lr: float, data: Data, steps: int) -> str:
    """Run a range test in the middle of a training, and say how many bytes it changed."""
    opt = recipe.make(initial_params(np.random.default_rng(0)), lr)
    for batch, _ in zip(batches(data, seed=0), range(steps // 2), strict=False):
        opt.step(loss_and_grads(opt.params, *batch)[1])
    before = bytes_of(opt)
    advice = find(opt, data).suggest()
    after = bytes_of(opt)
    changed = sum(a != b for a, b in zip(before, after, strict=True))
    says = f"it suggests {advice.lr:.2g}" if advice.lr is not None else f"it gives {advice}"
    return f"Another one after {opt.steps} steps at that rate changes {changed} of {len(before):,} bytes; there {says}"


# The trainings


def train(recipe: Recipe, lr: float, data: Data, steps: int, seed: int) -> tuple[float, float]:
    """Train with a warm-up and a cosine, and return loss and accuracy on the test data."""
    params = initial_params(np.random.default_rng(seed))
    opt = recipe.make(params, schedules.Cosine(lr, steps).warmup(0.1))
    with np.errstate(over="ignore", invalid="ignore"):
        for batch, _ in zip(batches(data, seed), range(steps), strict=False):
            opt.step(loss_and_grads(params, *batch)[1])
        log_p = log_probabilities(forward(params, data.test_x)[2])
    loss = cross_entropy(log_p, data.test_y)
    accuracy = float(np.mean(log_p.argmax(axis=1) == data.test_y))
    return (loss if np.isfinite(loss) else np.inf), accuracy


def examined(recipe: Recipe, data: Data, steps: int, seeds: int) -> Found:
    """Run the range test, and train at the rates of the grid and at the suggested one."""
    opt = recipe.make(initial_params(np.random.default_rng(0)), 1.0)
    result = find(opt, data)
    suggested = result.suggest().lr
    if suggested is None:
        sys.exit(f"{recipe.name}: {result.suggest()}")
    runs = [(lr, seed) for lr in (*recipe.grid, suggested) for seed in range(seeds)]
    found = Found(recipe, result, suggested, {lr: [] for lr, _ in runs})
    for lr, seed in tqdm(runs, desc=recipe.name, unit="run"):
        found.trained[lr].append(train(recipe, lr, data, steps, seed))
    return found


# What is shown


def show(found: Found) -> None:
    """Print the suggestions, what each rate comes to, and how far the suggested one is from the best."""
    print(f"\n{found.recipe.name}\n\n{found.result}\n\n{'rate':>9} {'test loss':>10} {'accuracy':>9}")
    for lr in sorted(found.trained):
        mark = "   suggested" if lr == found.suggested else ""
        print(f"{lr:9.2e} {found.loss(lr):10.4f} {found.accuracy(lr):9.2%}{mark}")
    best = min(found.recipe.grid, key=found.loss)
    times = found.suggested / best
    if found.loss(found.suggested) <= found.loss(best):
        print(f"No rate of the grid gets lower. The suggested one is {times:.2g} times the best of them.")
        return
    more = found.loss(found.suggested) / found.loss(best) - 1
    lost = 100 * (found.accuracy(best) - found.accuracy(found.suggested))
    print(
        f"The suggested rate is {times:.2g} times the best of the grid, {best:.2g}: its test loss is "
        f"{more:.0%} higher, its accuracy {'lower' if lost > 0 else 'higher'} by {abs(lost):.1f} points."
    )


def draw(all_found: list[Found], steps: int, path: Path) -> None:
    """Draw each range test, and below it the trainings."""
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    grid = figure.subplots(2, len(all_found), sharex="col", height_ratios=(3, 2), squeeze=False)
    for (upper, lower), found in zip(grid.T, all_found, strict=True):
        found.result.plot(upper).set(title=f"{found.recipe.name}: the range test", xlabel="")
        rates = np.array(sorted(found.trained))
        losses = np.array([[loss for loss, _ in found.trained[lr]] for lr in rates])
        median = np.median(losses, axis=1)
        fine = median < 0.9 * CHANCE  # else it has learned nothing, and has no place on this axis
        lower.fill_between(
            rates[fine], losses[fine].min(axis=1), losses[fine].max(axis=1), color="0.9", label="all seeds"
        )
        lower.plot(rates[fine], median[fine], "o-", color="C0", label="median")
        lower.set(xlabel="learning rate", ylabel="test loss", yscale="log", title=f"Trainings of {steps} steps")
        lower.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
        lower.set_ylim(0.04, 3.0)
        lower.tick_params(axis="y", which="minor", left=False, labelleft=False)
        if not fine.all():
            lower.plot(rates[~fine], np.full((~fine).sum(), CHANCE), "x", color="C3", label="nothing learned")
        lower.axvline(found.suggested, color="black", linewidth=1.5, label=f"suggested: {found.suggested:.2g}")
        lower.legend(fontsize="small", loc="lower left")
        lower.grid(alpha=0.3)
    figure.savefig(path, dpi=90, metadata={"Software": None})


def main() -> int:
    """Examine both optimizers, print the tables and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="of a training (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings at each rate (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("find_lr.png"), help="the plot (default: %(default)s)")
    options = parser.parse_args()
    data = load_data(0)
    all_found = []
    # Products this small are slower on more than one core.
    with threadpool_limits(1):
        for recipe in RECIPES:
            found = examined(recipe, data, options.steps, options.seeds)
            show(found)
            print(is_put_back(recipe, found.suggested, data, options.steps))
            all_found.append(found)
    draw(all_found, options.steps, options.output)
    print(f"\n{options.output} shows the curves, and what trainings at each rate come to.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
