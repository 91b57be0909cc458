"""The steps in NumPy, as one writes them who cares for speed: in place, with ``out=`` and a buffer that is kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, np.dtype[np.float32]]
    Call = Callable[[], object]


def adamw(w: Array, g: Array, lr: float, weight_decay: float) -> Call:
    """AdamW."""
    beta1, beta2, eps = 0.9, 0.999, 1e-8
    m, v, buffer = np.zeros_like(w), np.zeros_like(w), np.empty_like(w)
    t = 0

    def step() -> None:
        nonlocal t
        t += 1
        np.multiply(w, 1 - lr * weight_decay, out=w)
        np.multiply(m, beta1, out=m)
        np.multiply(g, 1 - beta1, out=buffer)
        np.add(m, buffer, out=m)
        np.multiply(v, beta2, out=v)
        np.multiply(g, g, out=buffer)
        np.multiply(buffer, 1 - beta2, out=buffer)
        np.add(v, buffer, out=v)
        np.sqrt(v, out=buffer)
        np.divide(buffer, math.sqrt(1 - beta2**t), out=buffer)
        np.add(buffer, eps, out=buffer)
        np.divide(m, buffer, out=buffer)
        np.multiply(buffer, lr / (1 - beta1**t), out=buffer)
        np.subtract(w, buffer, out=w)

    return step


def sgd(w: Array, g: Array, lr: float, momentum: float) -> Call:
    """SGD with momentum."""
    b, buffer = np.zeros_like(w), np.empty_like(w)

    def step() -> None:
        np.multiply(b, momentum, out=b)
        np.add(b, g, out=b)
        np.multiply(b, lr, out=buffer)
        np.subtract(w, buffer, out=w)

    return step


def rmsprop(w: Array, g: Array, lr: float) -> Call:
    """RMSprop."""
    alpha, eps = 0.99, 1e-8
    v, buffer = np.zeros_like(w), np.empty_like(w)

    def step() -> None:
        np.multiply(v, alpha, out=v)
        np.multiply(g, g, out=buffer)
        np.multiply(buffer, 1 - alpha, out=buffer)
        np.add(v, buffer, out=v)
        np.sqrt(v, out=buffer)
        np.add(buffer, eps, out=buffer)
        np.divide(g, buffer, out=buffer)
        np.multiply(buffer, lr, out=buffer)
        np.subtract(w, buffer, out=w)

    return step


STEPS: dict[str, Callable[..., Call]] = {"AdamW": adamw, "SGD": sgd, "RMSprop": rmsprop}
