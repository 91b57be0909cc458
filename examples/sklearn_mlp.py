"""scikit-learn's network on handwritten digits: its own Adam, lrcore's Adam, and lrcore's AdamW with a schedule.

Data, network, batches, epochs and seeds are the same; only the optimizer differs.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
import warnings
from typing import Any

import numpy as np
from sklearn import neural_network
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import lrcore
from lrcore import schedules
from lrcore.sklearn import MLPClassifier

LAYERS = (512, 128)
BATCH = 64


def models(epochs: int, samples: int) -> dict[str, Any]:
    """Return the networks to compare, by name."""
    # The schedule has a fixed length, so scikit-learn does not test for convergence.
    same = {"hidden_layer_sizes": LAYERS, "batch_size": BATCH, "max_iter": epochs, "n_iter_no_change": epochs}
    steps = epochs * -(-samples // BATCH)
    lr = schedules.Cosine(3e-3, steps=steps).warmup(steps // 10)
    adamw = functools.partial(lrcore.AdamW, lr=lr, no_decay=["intercepts_*"], clip_norm=1.0)
    return {
        "scikit-learn's adam": neural_network.MLPClassifier(**same),
        "lrcore.Adam": MLPClassifier(optimizer="adam", **same),
        "lrcore.AdamW, cosine": MLPClassifier(optimizer=adamw, alpha=0.0, **same),
    }


def main() -> int:
    """Train each network with each seed; print accuracies and times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    candidates = models(options.epochs, len(train_x))
    accuracies: dict[str, list[float]] = {name: [] for name in candidates}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for seed, name in tqdm([(seed, name) for seed in range(options.seeds) for name in candidates], unit="fit"):
        model = candidates[name].set_params(random_state=seed)
        start = time.perf_counter()
        with threadpool_limits(1, user_api="blas"):  # the matrices are too small for several threads
            model.fit(train_x, train_y)
        seconds[name].append(time.perf_counter() - start)
        accuracies[name].append(model.score(test_x, test_y))
    print(f"{'':22}test accuracy   seconds to fit")
    for name in candidates:
        print(f"{name:22}{np.mean(accuracies[name]):13.2%}   {min(seconds[name]):14.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
