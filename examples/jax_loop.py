"""A network in JAX, trained twice: with lrcore in a loop on the host, and with optax within jit.

With lrcore the jitted gradient and the step alternate. With optax both are one jitted function, as usual there. Both
runs have the same initial weights, batches and schedule.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import lrcore.jax
from lrcore import schedules

BATCH = 64


def initial_params(rng: np.random.Generator) -> dict[str, jax.Array]:
    """Draw weights with He initialization."""
    drawn = {"w1": rng.normal(0, (2 / 64) ** 0.5, (64, 512)), "w2": rng.normal(0, (2 / 512) ** 0.5, (512, 10))}
    return {name: jnp.array(array, jnp.float32) for name, array in {**drawn, "b1": [0] * 512, "b2": [0] * 10}.items()}


def logits(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Return the logits of images, one per row."""
    return jax.nn.relu(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def loss(params: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the mean cross-entropy of a batch."""
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


def main() -> int:
    """Train both ways; print accuracies and times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    steps = parser.parse_args().steps
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    x, test_x, y, test_y = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    rng = np.random.default_rng(0)
    lr = schedules.Cosine(4e-3, steps=steps).warmup(steps // 10)

    params = initial_params(rng)
    opt = lrcore.jax.AdamW(params, lr=lr, no_decay=["b*"])
    gradient = jax.jit(jax.grad(loss))

    def with_lrcore(params: Any, *batch: Any) -> Any:
        params, _ = opt.step(gradient(params, *batch))
        return params

    tx = optax.adamw(schedules.to_optax(lr), weight_decay=1e-2, mask={"w1": True, "b1": False, "w2": True, "b2": False})
    # Donated buffers must not be those that lrcore's loop starts with.
    carry = jax.tree.map(jnp.copy, params)
    carry = carry, tx.init(carry)

    @partial(jax.jit, donate_argnums=0)
    def with_optax(carry: Any, *batch: Any) -> Any:
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, *batch), state, params)
        return optax.apply_updates(params, updates), state

    times = np.zeros((steps, 2))
    for k in range(steps):
        rows = rng.integers(len(x), size=BATCH)
        start = time.perf_counter()
        params = with_lrcore(params, x[rows], y[rows])
        middle = time.perf_counter()
        carry = jax.block_until_ready(with_optax(carry, x[rows], y[rows]))
        times[k] = middle - start, time.perf_counter() - middle
    accuracies = [float((logits(trained, test_x).argmax(axis=1) == test_y).mean()) for trained in (params, carry[0])]
    # The median, since the first steps compile.
    for name, accuracy, seconds in zip(("lrcore.jax", "optax"), accuracies, np.median(times, axis=0), strict=True):
        print(f"{name:10} test accuracy {accuracy:.2%}, {1e6 * seconds:.0f} µs for gradient and step")
    return 0 if abs(accuracies[0] - accuracies[1]) < 0.02 else 1


if __name__ == "__main__":
    sys.exit(main())
