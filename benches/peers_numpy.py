"""Optimizers as people write them in NumPy: from the textbook, and again without a temporary array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from works import ADAGRAD_EPS, ALPHA, BETA1, BETA2, DECAY, EPS, LR, MOMENTUM, Contestant, Peer, copies, fill

if TYPE_CHECKING:
    from collections.abc import Callable

    from works import Array, Work

# From the textbook: new arrays from old ones, formula by formula.


def sgd(w, g, _):
    return w - LR * g, ()


def momentum(w, g, _, b):
    b = MOMENTUM * b + g
    return w - LR * b, (b,)


def adamw(w, g, t, m, v):
    w = w * (1 - LR * DECAY)
    m = BETA1 * m + (1 - BETA1) * g
    v = BETA2 * v + (1 - BETA2) * g * g
    m_hat = m / (1 - BETA1**t)
    v_hat = v / (1 - BETA2**t)
    return w - LR * m_hat / (np.sqrt(v_hat) + EPS), (m, v)


def amsgrad(w, g, t, m, v, top):
    m = BETA1 * m + (1 - BETA1) * g
    v = BETA2 * v + (1 - BETA2) * g * g
    top = np.maximum(top, v)
    m_hat = m / (1 - BETA1**t)
    v_hat = top / (1 - BETA2**t)
    return w - LR * m_hat / (np.sqrt(v_hat) + EPS), (m, v, top)


def rmsprop(w, g, _, s):
    s = ALPHA * s + (1 - ALPHA) * g * g
    return w - LR * g / (np.sqrt(s) + EPS), (s,)


def rmsprop_centered(w, g, _, s, mean, b):
    s = ALPHA * s + (1 - ALPHA) * g * g
    mean = ALPHA * mean + (1 - ALPHA) * g
    b = MOMENTUM * b + g / (np.sqrt(s - mean * mean) + EPS)
    return w - LR * b, (s, mean, b)


def adagrad(w, g, _, total):
    total = total + g * g
    return w - LR * g / (np.sqrt(total) + ADAGRAD_EPS), (total,)


# In place: every result has its place, `a` and `b` are scratch, and what can be folded into a scalar is.


def scaled_onto(w, by, factor, a):
    np.multiply(by, factor, out=a)
    np.add(w, a, out=w)


def square_into(s, g, beta, a):
    np.multiply(g, g, out=a)
    np.multiply(a, 1 - beta, out=a)
    np.multiply(s, beta, out=s)
    np.add(s, a, out=s)


def quotient(top, square, root, eps, a):
    """``a ← top / (√square / root + eps)``."""
    np.sqrt(square, out=a)
    if root != 1:
        np.divide(a, root, out=a)
    np.add(a, eps, out=a)
    np.divide(top, a, out=a)


def in_sgd(w, g, _, a, _b):
    scaled_onto(w, g, -LR, a)


def in_momentum(w, g, _, a, _b, buffer):
    np.multiply(buffer, MOMENTUM, out=buffer)
    np.add(buffer, g, out=buffer)
    scaled_onto(w, buffer, -LR, a)


def in_adam(w, g, t, a, b, m, v, top):
    np.multiply(m, BETA1, out=m)
    scaled_onto(m, g, 1 - BETA1, a)
    square_into(v, g, BETA2, a)
    if top is not v:
        np.maximum(top, v, out=top)
    quotient(m, top, (1 - BETA2**t) ** 0.5, EPS, b)
    scaled_onto(w, b, -LR / (1 - BETA1**t), a)


def in_adamw(w, g, t, a, b, m, v):
    np.multiply(w, 1 - LR * DECAY, out=w)
    in_adam(w, g, t, a, b, m, v, v)


def in_rmsprop(w, g, _, a, b, s):
    square_into(s, g, ALPHA, a)
    quotient(g, s, 1, EPS, b)
    scaled_onto(w, b, -LR, a)


def in_rmsprop_centered(w, g, _, a, b, s, mean, buffer):
    square_into(s, g, ALPHA, a)
    np.multiply(mean, ALPHA, out=mean)
    scaled_onto(mean, g, 1 - ALPHA, a)
    np.multiply(mean, mean, out=b)
    np.subtract(s, b, out=b)
    quotient(g, b, 1, EPS, a)
    np.multiply(buffer, MOMENTUM, out=buffer)
    np.add(buffer, a, out=buffer)
    scaled_onto(w, buffer, -LR, a)


def in_adagrad(w, g, _, a, b, total):
    np.multiply(g, g, out=a)
    np.add(total, a, out=total)
    quotient(g, total, 1, ADAGRAD_EPS, b)
    scaled_onto(w, b, -LR, a)


Rules = dict[str, "Callable[..., Any]"]
NAMES = ("SGD", "SGD momentum", "AdamW", "AMSGrad", "RMSprop", "RMSprop centered", "Adagrad")
TEXTBOOK: Rules = dict(zip(NAMES, (sgd, momentum, adamw, amsgrad, rmsprop, rmsprop_centered, adagrad), strict=True))
IN_PLACE: Rules = dict(
    zip(NAMES, (in_sgd, in_momentum, in_adamw, in_adam, in_rmsprop, in_rmsprop_centered, in_adagrad), strict=True)
)


def make_textbook(work: Work, weights: list[Array], grads: list[Array]) -> Contestant:
    rule = TEXTBOOK[work.name]
    weights, grads = copies(weights), copies(grads)
    states = [tuple(np.full_like(w, 0) for _ in range(work.states)) for w in weights]
    t = 0

    def step() -> None:
        nonlocal t
        t += 1
        for i, grad in enumerate(grads):
            weights[i], states[i] = rule(weights[i], grad, t, *states[i])

    return Contestant(step, lambda: weights, lambda values: fill(grads, values))


def make_in_place(work: Work, weights: list[Array], grads: list[Array]) -> Contestant:
    rule = IN_PLACE[work.name]
    weights, grads = copies(weights), copies(grads)
    # Two buffers for all arrays: a small array's scratch stays in cache.
    largest = max(w.size for w in weights)
    scratch = [np.full(largest, 0, weights[0].dtype) for _ in range(2)]
    rows = [
        (*(buffer[: w.size].reshape(w.shape) for buffer in scratch), *(np.full_like(w, 0) for _ in range(work.states)))
        for w in weights
    ]
    t = 0

    def step() -> None:
        nonlocal t
        t += 1
        for w, g, row in zip(weights, grads, rows, strict=True):
            rule(w, g, t, *row)

    return Contestant(step, lambda: weights, lambda values: fill(grads, values))


PEERS = [Peer("NumPy textbook", make_textbook, temporaries=5), Peer("NumPy out=", make_in_place, temporaries=2)]
