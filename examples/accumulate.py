"""Gradient accumulation: the same run with a quarter of the activations in memory.

The network of digits.py is trained twice, with whole batches and with each batch in four micro-batches. One batch has
NaN inputs on purpose: a step with gradients that are not finite is skipped and changes nothing.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from tqdm import tqdm

import lrcore
from digits import forward, initial_params, load_data, loss_and_grads
from lrcore import schedules

BATCH = 256
SPOILED = 40  # the batch with NaN inputs


def train(micro_batches: int, steps: int) -> tuple[lrcore.AdamW, float, lrcore.StepStats | None]:
    """Train with micro-batches; return the optimizer, the accuracy and the statistics of the last step."""
    data = load_data(0)
    rng = np.random.default_rng(0)
    params = initial_params(rng)
    opt = lrcore.AdamW(
        params,
        lr=schedules.Cosine(2e-3, steps=steps).warmup(steps // 10),
        no_decay=["b*"],
        clip_norm=1.0,
        skip_nonfinite=True,
        stats=True,
    )
    stats = None
    for number in tqdm(range(steps), desc=f"{micro_batches} per batch", unit="step"):
        batch = rng.integers(len(data.train_x), size=BATCH)
        for part in np.split(batch, micro_batches):
            x = data.train_x[part]
            if number == SPOILED:
                x = np.where(x > 0.99, np.float32(np.nan), x)
            _, grads = loss_and_grads(params, x, data.train_y[part])
            opt.accumulate(grads)
        stats = opt.step().stats or stats
    predicted = forward(params, data.test_x)[2].argmax(axis=1)
    return opt, float(np.mean(predicted == data.test_y)), stats


def main() -> int:
    """Train both ways and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    accuracies = []
    for micro_batches in (1, 4):
        opt, accuracy, stats = train(micro_batches, options.steps)
        accuracies.append(accuracy)
        print(
            f"{micro_batches} per batch: test accuracy {accuracy:.2%}, {opt.skipped} of {options.steps} steps skipped"
        )
    print(f"\nThe last step:\n{stats}")
    # The sums are rounded in another order, so the runs differ slightly.
    return 0 if abs(accuracies[0] - accuracies[1]) < 0.03 else 1


if __name__ == "__main__":
    sys.exit(main())
