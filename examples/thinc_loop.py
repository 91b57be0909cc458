"""lrcore as the optimizer of a thinc model.

``model.finish_update(optimizer)`` calls an optimizer with the key of each parameter, its weights and its gradient, all
NumPy arrays, which lrcore updates in place. The same network is trained on handwritten digits with both.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from thinc.api import Adam, NumpyOps, Relu, Softmax, chain, fix_random_seed, set_current_ops

import lrcore
from lrcore import schedules

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 64


class Stepper:
    """A thinc optimizer: one of lrcore's for each parameter, since thinc clips and counts steps per parameter.

    Args:
        make: Creates an optimizer of ``[weights]`` that zeroes gradients, since thinc adds to them.
    """

    def __init__(self, make: Callable[[Any], lrcore.Optimizer]) -> None:
        self._make = make
        self._optimizers: dict[Any, lrcore.Optimizer] = {}

    def __call__(self, key: Any, weights: Any, gradient: Any, *, lr_scale: float = 1.0) -> tuple[Any, Any]:
        """Step one parameter; return it with its zeroed gradient."""
        if key not in self._optimizers:
            self._optimizers[key] = self._make([weights])
        opt = self._optimizers[key]
        opt.params[0] = weights  # thinc may have replaced the array
        if lr_scale != opt.param_groups[0]["lr_scale"]:
            opt.param_groups[0]["lr_scale"] = lr_scale
        opt.step([gradient])
        return weights, gradient

    def step_schedules(self) -> None:
        """Do nothing: schedules of lrcore use the step count."""


def main() -> int:
    """Train with both; print accuracies and times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    steps = parser.parse_args().steps
    set_current_ops(NumpyOps())
    images, labels = load_digits(return_X_y=True)
    images, targets = (images / 16).astype(np.float32), np.eye(10, dtype=np.float32)[labels]
    x, test_x, y, test_y = train_test_split(images, targets, test_size=0.2, random_state=0, stratify=labels)
    lr = schedules.Cosine(2e-3, steps=steps).warmup(steps // 10)
    mine = Stepper(lambda weights: lrcore.AdamW(weights, lr=lr, weight_decay=0.0, clip_norm=1.0, zero_grads=True))
    theirs = Adam([lr(step) for step in range(steps)], L2=0.0, grad_clip=1.0, use_averages=False)
    accuracies = []
    for name, optimizer in (("lrcore", mine), ("thinc", theirs)):
        fix_random_seed(0)
        model = chain(Relu(nO=512), Relu(nO=128), Softmax())
        model.initialize(X=x[:2], Y=y[:2])
        rng, seconds = np.random.default_rng(0), 0.0
        for _ in range(steps):
            rows = rng.integers(len(x), size=BATCH)
            predicted, backprop = model.begin_update(x[rows])
            backprop((predicted - y[rows]) / BATCH)
            start = time.perf_counter()
            model.finish_update(optimizer)
            seconds += time.perf_counter() - start
            optimizer.step_schedules()
        accuracies.append(float((model.predict(test_x).argmax(axis=1) == test_y.argmax(axis=1)).mean()))
        print(f"{name:7} test accuracy {accuracies[-1]:.2%}, {1e6 * seconds / steps:.0f} µs for the updates of a step")
    return 0 if abs(accuracies[0] - accuracies[1]) < 0.02 else 1


if __name__ == "__main__":
    sys.exit(main())
