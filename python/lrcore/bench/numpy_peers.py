"""Optimizers in NumPy without temporary arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lrcore.bench.workloads import (
    ADAGRAD_EPS,
    ALPHA,
    BETA1,
    BETA2,
    DECAY,
    EPS,
    LR,
    MOMENTUM,
    Array,
    Competitor,
    Peer,
    Workload,
    copies,
    fill,
    only,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# `a` and `b` are scratch arrays, and scalars are folded.


def _add_scaled(w: Array, by: Array, factor: float, a: Array) -> None:
    np.multiply(by, factor, out=a)
    np.add(w, a, out=w)


def _average_squares(s: Array, g: Array, beta: float, a: Array) -> None:
    np.multiply(g, g, out=a)
    np.multiply(a, 1 - beta, out=a)
    np.multiply(s, beta, out=s)
    np.add(s, a, out=s)


def _divide_by_root(top: Array, square: Array, root: float, eps: float, a: Array) -> None:
    """``a ← top / (√square / root + eps)``."""
    np.sqrt(square, out=a)
    if root != 1:
        np.divide(a, root, out=a)
    np.add(a, eps, out=a)
    np.divide(top, a, out=a)


def sgd(w: Array, g: Array, _: int, a: Array, _b: Array) -> None:
    """SGD."""
    _add_scaled(w, g, -LR, a)


def momentum(w: Array, g: Array, _: int, a: Array, _b: Array, buffer: Array) -> None:
    """SGD with momentum."""
    np.multiply(buffer, MOMENTUM, out=buffer)
    np.add(buffer, g, out=buffer)
    _add_scaled(w, buffer, -LR, a)


def adam(w: Array, g: Array, t: int, a: Array, b: Array, m: Array, v: Array, top: Array) -> None:
    """Adam, with AMSGrad if ``top`` is an array of its own."""
    np.multiply(m, BETA1, out=m)
    _add_scaled(m, g, 1 - BETA1, a)
    _average_squares(v, g, BETA2, a)
    if top is not v:
        np.maximum(top, v, out=top)
    _divide_by_root(m, top, (1 - BETA2**t) ** 0.5, EPS, b)
    _add_scaled(w, b, -LR / (1 - BETA1**t), a)


def adamw(w: Array, g: Array, t: int, a: Array, b: Array, m: Array, v: Array) -> None:
    """AdamW."""
    np.multiply(w, 1 - LR * DECAY, out=w)
    adam(w, g, t, a, b, m, v, v)


def rmsprop(w: Array, g: Array, _: int, a: Array, b: Array, s: Array) -> None:
    """RMSprop."""
    _average_squares(s, g, ALPHA, a)
    _divide_by_root(g, s, 1, EPS, b)
    _add_scaled(w, b, -LR, a)


def rmsprop_centered(w: Array, g: Array, _: int, a: Array, b: Array, s: Array, mean: Array, buffer: Array) -> None:
    """Centered RMSprop with momentum."""
    _average_squares(s, g, ALPHA, a)
    np.multiply(mean, ALPHA, out=mean)
    _add_scaled(mean, g, 1 - ALPHA, a)
    np.multiply(mean, mean, out=b)
    np.subtract(s, b, out=b)
    _divide_by_root(g, b, 1, EPS, a)
    np.multiply(buffer, MOMENTUM, out=buffer)
    np.add(buffer, a, out=buffer)
    _add_scaled(w, buffer, -LR, a)


def adagrad(w: Array, g: Array, _: int, a: Array, b: Array, total: Array) -> None:
    """Adagrad."""
    np.multiply(g, g, out=a)
    np.add(total, a, out=total)
    _divide_by_root(g, total, 1, ADAGRAD_EPS, b)
    _add_scaled(w, b, -LR, a)


# By the name of the workload.
STEPS: dict[str, Callable[..., None]] = {
    "SGD": sgd,
    "SGD momentum": momentum,
    "AdamW": adamw,
    "AMSGrad": adam,
    "RMSprop": rmsprop,
    "RMSprop centered": rmsprop_centered,
    "Adagrad": adagrad,
}


def make(workload: Workload, weights: list[Array], grads: list[Array]) -> Competitor:
    """Return the step, which allocates nothing."""
    rule = STEPS[workload.name]
    weights, grads = copies(weights), copies(grads)
    # Two buffers for all arrays: a small array's scratch stays in cache.
    largest = max(w.size for w in weights)
    scratch = [np.full(largest, 0, weights[0].dtype) for _ in range(2)]
    rows = [
        [buffer[: w.size].reshape(w.shape) for buffer in scratch] + [np.full_like(w, 0) for _ in range(workload.states)]
        for w in weights
    ]
    t = 0

    def step() -> None:
        nonlocal t
        t += 1
        for w, g, row in zip(weights, grads, rows, strict=True):
            rule(w, g, t, *row)

    return Competitor(step, lambda: weights, lambda values: fill(grads, values))


PEERS = [Peer("NumPy out=", make, only(STEPS), temporaries=2)]
