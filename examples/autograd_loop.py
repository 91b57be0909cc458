"""Train a NumPy network with gradients from autograd.

autograd differentiates plain NumPy code. Its gradients have the structure of the parameters, so the step is one line.
The example compares lrcore with autograd's Adam, which flattens the parameters into a vector and allocates a new vector
in each step.
"""

from __future__ import annotations

import argparse
import sys
import time

import autograd.numpy as anp
import numpy as np
from autograd import grad
from autograd.misc.optimizers import adam
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import lrcore

BATCH = 64
LR = 1e-3

Params = dict[str, np.ndarray]


def initial_params() -> Params:
    """Draw weights with He initialization."""
    rng = np.random.default_rng(0)
    w1, w2 = rng.normal(0, (2 / 64) ** 0.5, (64, 512)), rng.normal(0, (2 / 512) ** 0.5, (512, 10))
    return {"w1": w1, "b1": np.zeros(512), "w2": w2, "b2": np.zeros(10)}


def logits(params: Params, x: np.ndarray) -> np.ndarray:
    """Return the logits of a batch of images, which are the rows of ``x``."""
    return anp.maximum(x @ params["w1"] + params["b1"], 0.0) @ params["w2"] + params["b2"]


def loss(params: Params, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the mean cross-entropy of a batch."""
    scores = logits(params, x)
    shifted = scores - anp.max(scores, axis=1, keepdims=True)
    log_p = shifted - anp.log(anp.sum(anp.exp(shifted), axis=1, keepdims=True))
    return -anp.mean(log_p[anp.arange(len(y)), y])


def main() -> int:
    """Train with lrcore and with autograd's Adam; print test accuracies and times per step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    steps = parser.parse_args().steps
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images / 16, labels, test_size=0.2, random_state=0, stratify=labels)
    x, test_x, y, test_y = split
    batches = np.random.default_rng(0).integers(len(x), size=(steps, BATCH))
    gradient = grad(loss)

    start = time.perf_counter()
    params = initial_params()
    opt = lrcore.Adam(params, lr=LR)
    for rows in batches:
        opt.step(gradient(params, x[rows], y[rows]))
    middle = time.perf_counter()
    theirs = adam(lambda params, k: gradient(params, x[batches[k]], y[batches[k]]), initial_params(), None, steps, LR)
    end = time.perf_counter()

    accuracies = []
    for name, trained, seconds in (("lrcore", params, middle - start), ("autograd", theirs, end - middle)):
        accuracies.append(float((logits(trained, test_x).argmax(axis=1) == test_y).mean()))
        print(f"{name:9} test accuracy {accuracies[-1]:.2%}, {1e6 * seconds / steps:.0f} µs for gradient and step")
    return 0 if abs(accuracies[0] - accuracies[1]) < 0.02 else 1


if __name__ == "__main__":
    sys.exit(main())
