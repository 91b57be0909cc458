"""The arithmetic of the reference functions.

The file of an optimizer has each of its rules as a function in plain NumPy: the readable specification, which the
compiled rule matches bit for bit. A reference function takes the weight, the gradient, the state arrays in order, the
parameter's step count ``t`` from 1 and the hyperparameters of the rule, and returns the new weight and state. What
depends on the step alone is computed in Python's floats and rounded to the dtype of the arrays once, as ``f(number)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
States: TypeAlias = list[Array]
Reference: TypeAlias = Callable[..., tuple[Array, States]]


def lerp(a: Array, b: Array, weight: float) -> Array:
    """Return ``a + weight · (b − a)``, computed from the nearer end."""
    f = a.dtype.type
    point: Array = a + f(weight) * (b - a) if abs(weight) < 0.5 else b - (b - a) * f(1 - weight)
    return point


def power(base: float, exponent: int) -> float:
    """Return ``base ** exponent``, correctly rounded."""
    from fractions import Fraction  # only tests call this, and it takes milliseconds to import

    return float(Fraction(base) ** exponent)


# State below its floor is stored as 0. The floor is the smallest normal number, or 0 where flushing could be seen: a
# moment whose additions are all flushed lacks up to the smallest normal number over `take`, the share of each addition.
# That, or its root, must vanish beside eps.


def floors(count: int, dtype: np.dtype[Any], **_: float) -> list[float]:
    """Return the floor of each state array, where nothing is divided by it: the smallest normal number."""
    return [float(np.finfo(dtype).tiny)] * count


def floor_of_mean(dtype: np.dtype[Any], take: float, eps: float) -> float:
    """Return the floor of a running mean that is divided by eps where the squares are 0."""
    tiny = float(np.finfo(dtype).tiny)
    return tiny if eps == 0.0 or eps >= tiny / take * _digits(dtype) else 0.0


def floor_of_squares(dtype: np.dtype[Any], take: float, eps: float) -> float:
    """Return the floor of a running mean of squares whose root is added to eps."""
    tiny = float(np.finfo(dtype).tiny)
    return tiny if take > 0 and eps >= math.sqrt(tiny / take) * _digits(dtype) else 0.0


def _digits(dtype: np.dtype[Any]) -> float:
    return 4.0 / float(np.finfo(dtype).eps)
