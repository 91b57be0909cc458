"""How should the learning rate change when the batch grows?

The network of digits.py is trained with batches of 32, at the best learning rate of a grid. Then the batch is 256 with
the same number of samples, an eighth of the steps: with the same hyperparameters, with those of each scaling rule, and
at the best learning rate of a grid again. The last of these runs measures the gradient noise scale, the batch size up
to which more samples save steps.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import lrcore
from digits import Array, Data, Labels, cross_entropy, forward, initial_params, load_data, log_probabilities
from digits import loss_and_grads as gradients
from lrcore import scaling, schedules

SMALL, LARGE = 32, 256
CHANCE = float(np.log(10))  # the loss of ten equal probabilities
TICKS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

Values = dict[str, Any]
Rule = Callable[[Values, int, int], Values]
RULES: dict[str, Rule] = {"linear": scaling.linear, "sqrt": scaling.sqrt, "adam_sde": scaling.adam_sde}


@dataclass(frozen=True)
class Recipe:
    """An optimizer, its other hyperparameters, the grid of learning rates at the small batch, and its scaling rules."""

    name: str
    make: Callable[..., lrcore.Optimizer]
    values: Values
    grid: tuple[float, ...]
    rules: tuple[str, ...]

    def grid_at(self, batch: int) -> list[float]:
        """Return the grid, at a larger batch scaled by the root of the factor."""
        return [lr * float(np.sqrt(batch / SMALL)) for lr in self.grid]


# Steps of 8 ** 0.25: the linear rule is four steps up, and the square root two.
FACTORS = 8.0 ** (np.arange(7) / 4)
SGD = Recipe("SGD", lrcore.SGD, {"momentum": 0.9}, tuple((0.02 * FACTORS).tolist()), ("linear", "sqrt"))
ADAMW = Recipe(
    "AdamW",
    lrcore.AdamW,
    {"betas": (0.9, 0.999), "eps": 1e-8},
    tuple((1.5e-3 * FACTORS).tolist()),
    ("linear", "sqrt", "adam_sde"),
)


@dataclass
class Row:
    """The runs of all seeds with one setting."""

    recipe: Recipe
    batch: int
    rule: str
    values: Values
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """The median test loss; NaN counts as infinite."""
        return float(np.median(self.losses))

    def __str__(self) -> str:
        """Return a line of the table."""
        betas = ", ".join(f"{beta:.3g}" for beta in self.values.get("betas", ()))
        return (
            f"{self.recipe.name:6} {self.batch:5}   {self.rule:18} {self.values['lr']:8.2g}   {betas:10} "
            f"{self.loss:10.4f} {np.median(self.accuracies):9.2%}"
        )


# The runs


def batches(data: Data, size: int, rng: np.random.Generator) -> Iterator[tuple[Array, Labels]]:
    """Yield random batches."""
    while True:
        rows = rng.integers(len(data.train_x), size=size)
        yield data.train_x[rows], data.train_y[rows]


def begin(recipe: Recipe, values: Values, steps: int, seed: int, **options: Any) -> lrcore.Optimizer:
    """Return an optimizer of new weights, with a warm-up and a cosine."""
    lr = schedules.Cosine(values["lr"], steps).warmup(0.1)
    return recipe.make(initial_params(np.random.default_rng(seed)), **{**values, "lr": lr}, **options)


def train(row: Row, data: Data, samples: int, seed: int) -> None:
    """Train on this many samples and record loss and accuracy on the test data."""
    steps = samples // row.batch
    opt = begin(row.recipe, row.values, steps, seed)
    drawn = batches(data, row.batch, np.random.default_rng(seed))
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            opt.step(gradients(opt.params, *next(drawn))[1])
        log_p = log_probabilities(forward(opt.params, data.test_x)[2])
    loss = cross_entropy(log_p, data.test_y)
    row.losses.append(loss if np.isfinite(loss) else np.inf)
    row.accuracies.append(float(np.mean(log_p.argmax(axis=1) == data.test_y)))


def tuned(recipe: Recipe, batch: int, rule: str, run: Callable[[Row], Row]) -> Row:
    """Return the best run of the grid."""
    rows = [run(Row(recipe, batch, rule, {**recipe.values, "lr": lr})) for lr in recipe.grid_at(batch)]
    return min(rows, key=lambda row: row.loss)


def compared(recipe: Recipe, run: Callable[[Row], Row]) -> list[Row]:
    """Train at the small batch, and at the large one with each rule."""
    first = tuned(recipe, SMALL, "tuned", run)
    rows = [first, run(Row(recipe, LARGE, "unchanged", first.values))]
    rows += [run(Row(recipe, LARGE, name, RULES[name](first.values, SMALL, LARGE))) for name in recipe.rules]
    return [*rows, tuned(recipe, LARGE, "retuned", run)]


# The noise


@dataclass
class Measured:
    """The noise scale after each step, its relative standard error, and the recommended batch size."""

    row: Row
    values: list[float] = field(default_factory=list)
    uncertainties: list[float] = field(default_factory=list)
    recommended: list[str] = field(default_factory=list)


def measured(row: Row, data: Data, samples: int) -> Measured:
    """Train again with each batch in micro-batches, and record the noise scale."""
    steps = samples // LARGE
    # The gradient shrinks fast here: a longer average would contain much larger ones.
    opt = begin(row.recipe, row.values, steps, seed=0, noise_scale=lrcore.NoiseScale(batch=SMALL, smoothing=0.9))
    drawn = batches(data, SMALL, np.random.default_rng(0))
    found = Measured(row)
    for _ in range(steps):
        for _ in range(LARGE // SMALL):
            opt.accumulate(gradients(opt.params, *next(drawn))[1])
        opt.step()
        noise = opt.noise_scale
        found.values.append(noise.value)
        found.uncertainties.append(noise.uncertainty)
        recommended = noise.suggest(row.values["lr"]) if noise.value > 0 else None
        found.recommended.append(f"{recommended.batch:5} at {recommended.lr:.2g}" if recommended else "not known")
    return found


# Output


def show(found: Measured) -> None:
    """Print the noise scale at a few steps."""
    steps = len(found.values)
    for number in sorted({max(round(share * steps), 1) for share in (0.05, 0.125, 0.25, 0.5, 0.75, 1.0)}):
        value, uncertainty = found.values[number - 1], found.uncertainties[number - 1]
        print(
            f"{found.row.recipe.name:6} {number:4} {value:11.0f} {uncertainty:11.0%}   "
            f"{found.recommended[number - 1]:>16}   {found.row.values['lr']:.2g}"
        )


def draw(rows: list[Row], noises: list[Measured], path: Path) -> None:
    """Draw the result of each rule, and the noise scale over the steps."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(6, 5))
    names = [f"batch {SMALL},\ntuned", "unchanged", *RULES, "retuned"]
    top = 1.5 * max(max(row.losses) for row in rows if row.loss < 0.9 * CHANCE)
    for i, noise in enumerate(noises):
        recipe = noise.row.recipe
        for row in (row for row in rows if row.recipe is recipe):
            at = names.index(row.rule if row.rule in names else names[0]) + 0.16 * (i - (len(noises) - 1) / 2)
            label = recipe.name if row.rule == "tuned" else None
            left.plot([at, at], np.minimum([min(row.losses), max(row.losses)], top), color=f"C{i}", linewidth=1.5)
            left.plot(at, min(row.loss, top), "o" if row.loss < top else "x", color=f"C{i}", markersize=8, label=label)
        values, shares = np.array(noise.values), np.array(noise.uncertainties)
        steps = np.arange(1, len(values) + 1)
        right.plot(steps, values, color=f"C{i}", label=recipe.name)
        known = np.isfinite(values) & np.isfinite(shares)
        low, high = values * np.maximum(1 - shares, 1e-3), values * (1 + shares)
        right.fill_between(steps[known], low[known], high[known], color=f"C{i}", alpha=0.15, linewidth=0)
    left.set_xticks(range(len(names)), names)
    left.axvline(0.5, color="0.7", linewidth=1)
    left.set(
        ylabel="test loss: median and all seeds", yscale="log", title=f"From batch {SMALL} to {LARGE}, by each rule"
    )
    left.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
    left.tick_params(axis="y", which="minor", left=False, labelleft=False)
    left.set_ylim(0.04, 1.1 * top)
    for batch, style in ((SMALL, ":"), (LARGE, "--")):
        right.axhline(batch, color="0.4", linewidth=1, linestyle=style, label=f"batch {batch}")
    right.set(xlabel=f"step of {LARGE} samples", ylabel="noise scale in samples", yscale="log", ylim=(8, 2000))
    right.set_title("Noise scale, ± its standard error")
    for axes in (left, right):
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3, axis="y")
    figure.savefig(path, dpi=100, metadata={"Software": None})


def main() -> int:
    """Compare the rules, measure the noise, print both and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=15_360, help="samples of a run (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="runs with each setting (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("batch_size.png"), help="the plot (default: %(default)s)")
    options = parser.parse_args()
    if options.samples < 2 * LARGE:
        parser.error(f"--samples must be at least {2 * LARGE}, got {options.samples}")
    data = load_data(0)
    rows: list[Row] = []
    noises = []
    total = options.seeds * sum(2 * len(recipe.grid) + 1 + len(recipe.rules) for recipe in (SGD, ADAMW))
    # Matrix products of this size are slower on several cores.
    with threadpool_limits(1), tqdm(total=total, unit="run") as bar:

        def run(row: Row) -> Row:
            bar.set_description(f"{row.recipe.name}, batch {row.batch}, {row.rule}")
            for seed in range(options.seeds):
                train(row, data, options.samples, seed)
                bar.update()
            return row

        for recipe in (SGD, ADAMW):
            of_recipe = compared(recipe, run)
            rows += of_recipe
            noises.append(measured(of_recipe[-1], data, options.samples))

    small, large = options.samples // SMALL, options.samples // LARGE
    print(f"\n{options.samples:,} samples: {small} steps of {SMALL}, {large} of {LARGE}")
    print(f"\n{'':6} batch   {'hyperparameters':18} {'lr':>8}   {'betas':10} {'test loss':>10} {'accuracy':>9}")
    print("\n".join(str(row) for row in rows))
    print(f"\n{'':6} step noise scale uncertainty   batch, lr   lr at {LARGE}")
    for noise in noises:
        show(noise)
    draw(rows, noises, options.output)
    print(f"\n{options.output} shows the result of each rule, and the noise scale over the steps.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
