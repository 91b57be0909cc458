"""Optimizers as people write them in NumPy: as in the textbook, and again without temporary arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

    # The new weights, and the new states.
    New = tuple[Array, tuple[Array, ...]]

# From the textbook: new arrays from old ones, formula by formula.


def sgd(w: Array, g: Array, _: int) -> New:
    """SGD."""
    return w - LR * g, ()


def momentum(w: Array, g: Array, _: int, b: Array) -> New:
    """SGD with momentum."""
    b = MOMENTUM * b + g
    return w - LR * b, (b,)


def adamw(w: Array, g: Array, t: int, m: Array, v: Array) -> New:
    """AdamW."""
    w = w * (1 - LR * DECAY)
    m = BETA1 * m + (1 - BETA1) * g
    v = BETA2 * v + (1 - BETA2) * g * g
    m_hat = m / (1 - BETA1**t)
    v_hat = v / (1 - BETA2**t)
    return w - LR * m_hat / (np.sqrt(v_hat) + EPS), (m, v)


def amsgrad(w: Array, g: Array, t: int, m: Array, v: Array, top: Array) -> New:
    """Adam with AMSGrad."""
    m = BETA1 * m + (1 - BETA1) * g
    v = BETA2 * v + (1 - BETA2) * g * g
    top = np.maximum(top, v)
    m_hat = m / (1 - BETA1**t)
    v_hat = top / (1 - BETA2**t)
    return w - LR * m_hat / (np.sqrt(v_hat) + EPS), (m, v, top)


def rmsprop(w: Array, g: Array, _: int, s: Array) -> New:
    """RMSprop."""
    s = ALPHA * s + (1 - ALPHA) * g * g
    return w - LR * g / (np.sqrt(s) + EPS), (s,)


def rmsprop_centered(w: Array, g: Array, _: int, s: Array, mean: Array, b: Array) -> New:
    """Centered RMSprop with momentum."""
    s = ALPHA * s + (1 - ALPHA) * g * g
    mean = ALPHA * mean + (1 - ALPHA) * g
    b = MOMENTUM * b + g / (np.sqrt(s - mean * mean) + EPS)
    return w - LR * b, (s, mean, b)


def adagrad(w: Array, g: Array, _: int, total: Array) -> New:
    """Adagrad."""
    total = total + g * g
    return w - LR * g / (np.sqrt(total) + ADAGRAD_EPS), (total,)


# In place: `a` and `b` are scratch arrays, and scalars are folded.


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


def sgd_in_place(w: Array, g: Array, _: int, a: Array, _b: Array) -> None:
    """SGD."""
    _add_scaled(w, g, -LR, a)


def momentum_in_place(w: Array, g: Array, _: int, a: Array, _b: Array, buffer: Array) -> None:
    """SGD with momentum."""
    np.multiply(buffer, MOMENTUM, out=buffer)
    np.add(buffer, g, out=buffer)
    _add_scaled(w, buffer, -LR, a)


def adam_in_place(w: Array, g: Array, t: int, a: Array, b: Array, m: Array, v: Array, top: Array) -> None:
    """Adam, with AMSGrad if ``top`` is an array of its own."""
    np.multiply(m, BETA1, out=m)
    _add_scaled(m, g, 1 - BETA1, a)
    _average_squares(v, g, BETA2, a)
    if top is not v:
        np.maximum(top, v, out=top)
    _divide_by_root(m, top, (1 - BETA2**t) ** 0.5, EPS, b)
    _add_scaled(w, b, -LR / (1 - BETA1**t), a)


def adamw_in_place(w: Array, g: Array, t: int, a: Array, b: Array, m: Array, v: Array) -> None:
    """AdamW."""
    np.multiply(w, 1 - LR * DECAY, out=w)
    adam_in_place(w, g, t, a, b, m, v, v)


def rmsprop_in_place(w: Array, g: Array, _: int, a: Array, b: Array, s: Array) -> None:
    """RMSprop."""
    _average_squares(s, g, ALPHA, a)
    _divide_by_root(g, s, 1, EPS, b)
    _add_scaled(w, b, -LR, a)


def rmsprop_centered_in_place(
    w: Array, g: Array, _: int, a: Array, b: Array, s: Array, mean: Array, buffer: Array
) -> None:
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


def adagrad_in_place(w: Array, g: Array, _: int, a: Array, b: Array, total: Array) -> None:
    """Adagrad."""
    np.multiply(g, g, out=a)
    np.add(total, a, out=total)
    _divide_by_root(g, total, 1, ADAGRAD_EPS, b)
    _add_scaled(w, b, -LR, a)


# By the name of the workload: the textbook's form, and the one in place.
STEPS: dict[str, tuple[Callable[..., Any], Callable[..., None]]] = {
    "SGD": (sgd, sgd_in_place),
    "SGD momentum": (momentum, momentum_in_place),
    "AdamW": (adamw, adamw_in_place),
    "AMSGrad": (amsgrad, adam_in_place),
    "RMSprop": (rmsprop, rmsprop_in_place),
    "RMSprop centered": (rmsprop_centered, rmsprop_centered_in_place),
    "Adagrad": (adagrad, adagrad_in_place),
}


def make_textbook(workload: Workload, weights: list[Array], grads: list[Array]) -> Competitor:
    """Return the step that allocates new arrays."""
    rule, _ = STEPS[workload.name]
    weights, grads = copies(weights), copies(grads)
    states = [tuple(np.full_like(w, 0) for _ in range(workload.states)) for w in weights]
    t = 0

    def step() -> None:
        nonlocal t
        t += 1
        for i, grad in enumerate(grads):
            weights[i], states[i] = rule(weights[i], grad, t, *states[i])

    return Competitor(step, lambda: weights, lambda values: fill(grads, values))


def make_in_place(workload: Workload, weights: list[Array], grads: list[Array]) -> Competitor:
    """Return the step that allocates nothing."""
    _, rule = STEPS[workload.name]
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


PEERS = [
    Peer("NumPy textbook", make_textbook, only(STEPS), temporaries=5),
    Peer("NumPy out=", make_in_place, only(STEPS), temporaries=2),
]
