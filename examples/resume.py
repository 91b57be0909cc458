"""A killed run resumes from its checkpoint and ends with the same bits as an uninterrupted one.

A process trains the network of digits.py and saves a checkpoint every few steps. It is killed at random moments and
restarted, and resumes from the latest complete checkpoint. Its final weights are compared with those of an
uninterrupted run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

import lrcore
from digits import BATCH, cross_entropy, forward, initial_params, load_data, log_probabilities, loss_and_grads
from lrcore import schedules


def train(folder: Path, steps: int, every: int) -> None:
    """Train from the latest checkpoint of the folder, or from the start."""
    data = load_data(0)
    rng = np.random.default_rng(0)
    params = initial_params(rng)
    lr = schedules.Cosine(2e-3, steps=steps).warmup(steps // 10)
    opt = lrcore.AdamW(params, lr=lr, clip_norm=1.0, average=lrcore.EMA(0.98, warmup=True), skip_nonfinite=True)
    checkpoint = lrcore.latest(folder)
    if checkpoint:
        # The generator draws the batches, so it is part of the state.
        rng.bit_generator.state = lrcore.load(checkpoint, opt)["rng"]
    while opt.steps < steps:
        batch = rng.integers(len(data.train_x), size=BATCH)
        _, grads = loss_and_grads(params, data.train_x[batch], data.train_y[batch])
        opt.step(grads)
        if opt.steps % every == 0 or opt.steps == steps:
            lrcore.save(folder, opt, keep=2, rng=rng.bit_generator.state)


def steps_of(folder: Path) -> int:
    """Return the largest step of the checkpoints in a folder."""
    return max((int(path.stem.split("-")[1]) for path in folder.glob("step-*.safetensors")), default=0)


def train_with_kills(folder: Path, steps: int, every: int, kills: int) -> None:
    """Train in processes that are killed and restarted until the run is complete."""
    context = multiprocessing.get_context("spawn")
    moments = random.Random(0)  # noqa: S311
    with tqdm(total=steps, desc="killed", unit="step") as progress:
        for kill in range(kills + 1):
            process = context.Process(target=train, args=(folder, steps, every))
            process.start()
            if kill < kills:
                # At a random moment after the next checkpoint.
                before = steps_of(folder)
                while process.is_alive() and steps_of(folder) == before:
                    time.sleep(0.01)
                time.sleep(moments.uniform(0, 0.3))
                process.kill()
                progress.set_postfix_str(f"{kill + 1} times")
            process.join()
            progress.update(steps_of(folder) - progress.n)


def read(folder: Path) -> tuple[dict[str, np.ndarray], lrcore.AdamW]:
    """Read the weights and the optimizer of the last checkpoint."""
    params = initial_params(np.random.default_rng(0))
    opt = lrcore.AdamW(params, average=lrcore.EMA())
    path = lrcore.latest(folder)
    if path is None:
        raise FileNotFoundError(f"{folder} has no checkpoint")
    lrcore.load(path, opt)
    return params, opt


def main() -> int:
    """Train both ways and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--every", type=int, default=25, help="steps between checkpoints (default 25)")
    parser.add_argument("--kills", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Path(folder) / "whole", Path(folder) / "parts"
        train(whole, options.steps, options.every)
        train_with_kills(parts, options.steps, options.every, options.kills)
        (params, opt), (other_params, _) = read(whole), read(parts)
        data = load_data(0)

        def report(name: str) -> None:
            log_p = log_probabilities(forward(params, data.test_x)[2])
            accuracy = np.mean(log_p.argmax(axis=1) == data.test_y)
            print(f"{name:14} test accuracy {accuracy:.2%}, loss {cross_entropy(log_p, data.test_y):.4f}")

        report("weights")
        with opt.averaged():
            report("their average")
    same = all(np.array_equal(params[name], other_params[name]) for name in params)
    print(f"killed {options.kills} times, the run ends with the same bits: {'yes' if same else 'no'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
