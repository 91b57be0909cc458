"""numba: one parallel loop per optimizer, over one array.

numba recommends ``error_model="numpy"`` for vectorised divisions. Hyperparameters have the array's dtype: with Python
floats, float32 would be computed in float64.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numba import prange

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

loop = numba.njit(parallel=True, fastmath=False, error_model="numpy")


@loop
def sgd(w, g, lr):
    for i in prange(w.size):
        w[i] -= lr * g[i]


@loop
def momentum(w, g, b, lr, mu):
    for i in prange(w.size):
        b[i] = mu * b[i] + g[i]
        w[i] -= lr * b[i]


@loop
def adamw(w, g, m, v, keep, rest1, beta2, rest2, step_size, root, eps):
    for i in prange(w.size):
        m[i] += rest1 * (g[i] - m[i])
        v[i] = beta2 * v[i] + rest2 * g[i] * g[i]
        w[i] = keep * w[i] - step_size * m[i] / (sqrt(v[i]) / root + eps)


@loop
def amsgrad(w, g, m, v, top, rest1, beta2, rest2, step_size, root, eps):
    for i in prange(w.size):
        m[i] += rest1 * (g[i] - m[i])
        v[i] = beta2 * v[i] + rest2 * g[i] * g[i]
        top[i] = max(top[i], v[i])
        w[i] -= step_size * m[i] / (sqrt(top[i]) / root + eps)


@loop
def rmsprop(w, g, s, alpha, rest, lr, eps):
    for i in prange(w.size):
        s[i] = alpha * s[i] + rest * g[i] * g[i]
        w[i] -= lr * g[i] / (sqrt(s[i]) + eps)


@loop
def rmsprop_centered(w, g, s, mean, b, alpha, rest, lr, eps, mu):
    for i in prange(w.size):
        s[i] = alpha * s[i] + rest * g[i] * g[i]
        mean[i] += rest * (g[i] - mean[i])
        b[i] = mu * b[i] + g[i] / (sqrt(s[i] - mean[i] * mean[i]) + eps)
        w[i] -= lr * b[i]


@loop
def adagrad(w, g, total, lr, eps):
    for i in prange(w.size):
        total[i] += g[i] * g[i]
        w[i] -= lr * g[i] / (sqrt(total[i]) + eps)


def adam_numbers(t: int) -> tuple[float, ...]:
    return 1 - BETA1, BETA2, 1 - BETA2, LR / (1 - BETA1**t), (1 - BETA2**t) ** 0.5, EPS


KERNELS: dict[str, tuple[Any, Any]] = {
    "SGD": (sgd, lambda _: (LR,)),
    "SGD momentum": (momentum, lambda _: (LR, MOMENTUM)),
    "AdamW": (adamw, lambda t: (1 - LR * DECAY, *adam_numbers(t))),
    "AMSGrad": (amsgrad, adam_numbers),
    "RMSprop": (rmsprop, lambda _: (ALPHA, 1 - ALPHA, LR, EPS)),
    "RMSprop centered": (rmsprop_centered, lambda _: (ALPHA, 1 - ALPHA, LR, EPS, MOMENTUM)),
    "Adagrad": (adagrad, lambda _: (LR, ADAGRAD_EPS)),
}


def make(workload: Workload, weights: list[Array], grads: list[Array]) -> Competitor:
    kernel, numbers = KERNELS[workload.name]
    scalar = weights[0].dtype.type
    weights, grads = copies(weights), copies(grads)
    rows = [
        (w.reshape(-1), g.reshape(-1), *(np.full(w.size, 0, w.dtype) for _ in range(workload.states)))
        for w, g in zip(weights, grads, strict=True)
    ]
    t = 0

    def step() -> None:
        nonlocal t
        t += 1
        scalars = [scalar(number) for number in numbers(t)]
        for row in rows:
            kernel(*row, *scalars)

    return Competitor(step, lambda: weights, lambda values: fill(grads, values))


PEERS = [Peer("numba", make, only(KERNELS), set_threads=numba.set_num_threads)]
