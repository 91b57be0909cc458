"""Compares six schedules and a constant learning rate on the same network.

The network of digits.py is trained on handwritten digits by SGD with momentum, from the same weights and on the same
batches: with a constant learning rate, the best of a grid from 0.03 to 0.5, and with six schedules whose peak is twice
that. The runs are short on purpose: a schedule makes the best of a given number of steps.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import lrcore
from digits import Data, cross_entropy, forward, initial_params, load_data, log_probabilities, loss_and_grads
from lrcore import schedules

CONSTANT, PEAK = 0.1, 0.2
BATCH = 64
MOMENTUM = 0.9


def schedules_by_name(steps: int) -> dict[str, schedules.Schedule]:
    """Return the schedules, by name."""
    rise = round(0.05 * steps)
    return {
        "constant": schedules.Constant(CONSTANT),
        "linear": schedules.Linear(PEAK, 0.0, steps).warmup(0.05),
        "cosine": schedules.Cosine(PEAK, steps).warmup(0.05),
        "one cycle": schedules.OneCycle(PEAK, steps, final_div_factor=100),
        "WSD": schedules.WSD(PEAK, steps, warmup_steps=0.05, decay_steps=0.2, shape="sqrt"),
        "restarts": schedules.CosineRestarts(PEAK, period=steps / 7, factor=2.0).warmup(rise),
        "plateau": schedules.Constant(PEAK).warmup(rise) * schedules.ReduceOnPlateau(0.5, patience=3, threshold=1e-2),
    }


@dataclass
class Run:
    """The learning rate of every step, and loss and accuracy on the test data at some steps."""

    lrs: list[float]
    steps: list[int]
    losses: list[float]
    accuracies: list[float]


def train(schedule: schedules.Schedule, data: Data, steps: int, seed: int, *, reports: bool = False) -> Run:
    """Train once, and report the loss on the training data if the schedule uses it."""
    rng = np.random.default_rng(seed)
    params = initial_params(rng)
    opt = lrcore.SGD(params, lr=schedule, momentum=MOMENTUM)
    run = Run([], [], [], [])
    for number in range(steps):
        batch = rng.integers(len(data.train_x), size=BATCH)
        _, grads = loss_and_grads(params, data.train_x[batch], data.train_y[batch])
        run.lrs.append(opt.step(grads).lr)
        if (number + 1) % max(steps // 40, 1) == 0 or number + 1 == steps:
            log_p = log_probabilities(forward(params, data.test_x)[2])
            run.steps.append(number + 1)
            run.losses.append(cross_entropy(log_p, data.test_y))
            run.accuracies.append(float(np.mean(log_p.argmax(axis=1) == data.test_y)))
            if reports:
                opt.report(cross_entropy(log_probabilities(forward(params, data.train_x)[2]), data.train_y))
    return run


def draw(runs: dict[str, list[Run]], path: Path) -> None:
    """Draw the learning rates and the losses."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for i, (name, of_seeds) in enumerate(runs.items()):
        left.plot(of_seeds[0].lrs, label=name, color=f"C{i}")
        losses = np.median([run.losses for run in of_seeds], axis=0)
        right.plot(of_seeds[0].steps, losses, label=name, color=f"C{i}")
    left.set(xlabel="step", ylabel="learning rate", title="Schedules")
    right.set(xlabel="step", ylabel="test loss, median over seeds", yscale="log", title="Losses")
    right.legend()
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main() -> int:
    """Train with each schedule, and print and draw the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("schedules.png"))
    options = parser.parse_args()
    runs: dict[str, list[Run]] = {name: [] for name in schedules_by_name(options.steps)}
    # Products this small are slower on more than one core.
    with threadpool_limits(1):
        for seed in tqdm(range(options.seeds), desc="seeds", unit="seed"):
            data = load_data(seed)
            for name, schedule in schedules_by_name(options.steps).items():
                runs[name].append(train(schedule, data, options.steps, seed, reports=name == "plateau"))

    print(f"\n{'schedule':10} {'test loss':>10} {'accuracy':>9}   90 % of the images from step   schedule")
    for name, of_seeds in sorted(runs.items(), key=lambda item: np.median([run.losses[-1] for run in item[1]])):
        loss, accuracy = (np.median([getattr(run, key)[-1] for run in of_seeds]) for key in ("losses", "accuracies"))
        firsts = [
            next((s for s, a in zip(run.steps, run.accuracies, strict=True) if a >= 0.9), None) for run in of_seeds
        ]
        reached = [first for first in firsts if first is not None]
        first = f"{np.median(reached):.0f}" if len(reached) == len(of_seeds) else "not in every run"
        line = schedules.Table(of_seeds[0].lrs).preview(steps=options.steps, width=24).split("  ")[0]
        print(f"{name:10} {loss:10.4f} {accuracy:9.2%}   {first:>28}   {line}")
    draw(runs, options.output)
    print(f"\n{options.output} shows the learning rates and the losses.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
