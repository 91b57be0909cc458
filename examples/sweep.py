"""Which learning rate and batch size are best for the network of digits.py, and how much do they matter?

Runs a grid of both with several seeds, on all cores. The table shows the best settings and those that diverge; the plot
shows how wide the range of good learning rates is, and that a larger batch needs a larger learning rate.

With --results an interrupted sweep resumes when it is started again.
"""

from __future__ import annotations

import argparse
import sys
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import lrcore
from digits import Data, cross_entropy, forward, initial_params, load_data, log_probabilities, loss_and_grads
from lrcore import schedules, sweeps

MOMENTUM = 0.9


@cache
def data() -> Data:
    """Return the digits, loaded once per process and the same for all runs."""
    return load_data(0)


def train(lr: float, batch: int, budget: int, seed: int) -> dict[str, float]:
    """Train for some epochs; the objective is the loss on the test data."""
    digits, rng = data(), np.random.default_rng(seed)
    params = initial_params(rng)
    steps = budget * (len(digits.train_x) // batch)
    opt = lrcore.SGD(params, lr=schedules.Cosine(lr, steps=steps).warmup(0.1), momentum=MOMENTUM)
    with np.errstate(over="ignore", invalid="ignore"):  # divergence is recorded
        for _ in range(steps):
            rows = rng.integers(len(digits.train_x), size=batch)
            opt.step(loss_and_grads(params, digits.train_x[rows], digits.train_y[rows])[1])
        log_p = log_probabilities(forward(params, digits.test_x)[2])
    accuracy = float(np.mean(log_p.argmax(axis=1) == digits.test_y))
    return {"objective": cross_entropy(log_p, digits.test_y), "accuracy": accuracy}


def draw(results: sweeps.Results, path: Path) -> None:
    """Draw the sensitivity to the learning rate, and both hyperparameters together."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    results.plot_sensitivity("lr", within=0.25, ax=left)
    left.set(ylabel="test loss, the batch at its best", yscale="log", title="Sensitivity to the learning rate")
    results.heatmap("lr", "batch", ax=right).set_title("Test loss, mean over seeds; ×: a seed diverged")
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main() -> int:
    """Sweep, print the table and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3, help="epochs of a run (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="runs for each setting (default: %(default)s)")
    parser.add_argument("--lrs", type=int, default=9, help="number of learning rates (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="a file from which an interrupted sweep resumes")
    parser.add_argument("--output", type=Path, default=Path("sweep.png"), help="the plot (default: %(default)s)")
    given = parser.parse_args()
    space = {"lr": sweeps.logspace(1e-3, 10.0, given.lrs), "batch": [16, 64, 256]}
    results = sweeps.sweep(train, space, given.seeds, budget=given.epochs, results=given.results)
    print(results)
    print(f"\nbest: {results.best}")
    print(f"\n{results.sensitivity('lr', within=0.25)}")
    draw(results, given.output)
    print(f"\n{given.output} shows the sensitivity to the learning rate.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
