"""NumPy as in a textbook: formula by formula, new arrays from old ones."""

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
    Competitor,
    Peer,
    copies,
    fill,
    only,
)

if TYPE_CHECKING:
    from lrcore.bench.workloads import Array, Workload

    # The new weights, and the new states.
    New = tuple[Array, tuple[Array, ...]]


def sgd(w: Array, g: Array, _: int) -> New:
    return w - LR * g, ()


def momentum(w: Array, g: Array, _: int, b: Array) -> New:
    b = MOMENTUM * b + g
    return w - LR * b, (b,)


def adamw(w: Array, g: Array, t: int, m: Array, v: Array) -> New:
    w = w * (1 - LR * DECAY)
    m = BETA1 * m + (1 - BETA1) * g
    v = BETA2 * v + (1 - BETA2) * g * g
    m_hat = m / (1 - BETA1**t)
    v_hat = v / (1 - BETA2**t)
    return w - LR * m_hat / (np.sqrt(v_hat) + EPS), (m, v)


def amsgrad(w: Array, g: Array, t: int, m: Array, v: Array, top: Array) -> New:
    m = BETA1 * m + (1 - BETA1) * g
    v = BETA2 * v + (1 - BETA2) * g * g
    top = np.maximum(top, v)
    m_hat = m / (1 - BETA1**t)
    v_hat = top / (1 - BETA2**t)
    return w - LR * m_hat / (np.sqrt(v_hat) + EPS), (m, v, top)


def rmsprop(w: Array, g: Array, _: int, s: Array) -> New:
    s = ALPHA * s + (1 - ALPHA) * g * g
    return w - LR * g / (np.sqrt(s) + EPS), (s,)


def rmsprop_centered(w: Array, g: Array, _: int, s: Array, mean: Array, b: Array) -> New:
    s = ALPHA * s + (1 - ALPHA) * g * g
    mean = ALPHA * mean + (1 - ALPHA) * g
    b = MOMENTUM * b + g / (np.sqrt(s - mean * mean) + EPS)
    return w - LR * b, (s, mean, b)


def adagrad(w: Array, g: Array, _: int, total: Array) -> New:
    total = total + g * g
    return w - LR * g / (np.sqrt(total) + ADAGRAD_EPS), (total,)


# By the name of the workload.
STEPS = {
    "SGD": sgd,
    "SGD momentum": momentum,
    "AdamW": adamw,
    "AMSGrad": amsgrad,
    "RMSprop": rmsprop,
    "RMSprop centered": rmsprop_centered,
    "Adagrad": adagrad,
}


def make(workload: Workload, weights: list[Array], grads: list[Array]) -> Competitor:
    rule = STEPS[workload.name]
    weights, grads = copies(weights), copies(grads)
    states = [tuple(np.full_like(w, 0) for _ in range(workload.states)) for w in weights]
    t = 0

    def step() -> None:
        nonlocal t
        t += 1
        for i, grad in enumerate(grads):
            weights[i], states[i] = rule(weights[i], grad, t, *states[i])

    return Competitor(step, lambda: weights, lambda values: fill(grads, values))


PEERS = [Peer("NumPy textbook", make, only(STEPS), temporaries=5)]
