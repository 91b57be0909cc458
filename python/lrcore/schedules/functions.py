"""Functions of one number, or of each number of an array, with the same bits.

A formula is written once, for both. NumPy's own functions differ from those of :mod:`math` in the last digit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lrcore._lrcore import map_

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, np.dtype[Any]]

# Whole numbers up to this are numbers of float64 too.
EXACT = 2**53


def cos(x: Any) -> Any:
    """Return the cosine."""
    return _mapped("cos", x) if isinstance(x, np.ndarray) else math.cos(x)


def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent."""
    return _mapped("tanh", x) if isinstance(x, np.ndarray) else math.tanh(x)


def exp(x: Any) -> Any:
    """Return e to that power."""
    return _mapped("exp", x) if isinstance(x, np.ndarray) else math.exp(x)


def sqrt(x: Any) -> Any:
    """Return the square root."""
    return np.sqrt(x) if isinstance(x, np.ndarray) else math.sqrt(x)


def power(x: Any, exponent: float) -> Any:
    """Return ``x`` to that power; 1 changes nothing."""
    if exponent == 1.0:
        return x
    return _mapped("pow", x, exponent) if isinstance(x, np.ndarray) else math.pow(x, exponent)


def power_of(base: float, exponent: Any) -> Any:
    """Return the base to that power."""
    return _mapped("rpow", exponent, base) if isinstance(exponent, np.ndarray) else math.pow(base, exponent)


def minimum(a: Any, b: Any) -> Any:
    """Return the smaller of two."""
    return np.minimum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else min(a, b)


def maximum(a: Any, b: Any) -> Any:
    """Return the larger of two."""
    return np.maximum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else max(a, b)


def where(condition: Any, chosen: Any, otherwise: Any) -> Any:
    """Return one or the other. Both are worked out, so neither may raise."""
    if isinstance(condition, np.ndarray):
        return np.where(condition, chosen, otherwise)
    return chosen if condition else otherwise


def clamp(x: Any, a: float, b: float) -> Any:
    """Return the nearest number between two, in whichever order: a course does not leave its ends by rounding."""
    low, high = (a, b) if a < b else (b, a)
    if isinstance(x, np.ndarray):
        return np.clip(x, low, high)
    return low if x <= low else high if x >= high else x


def remainder(step: Any, period: float) -> Any:
    """Return what is left of a step after whole periods, exactly."""
    if isinstance(step, np.ndarray) or step < EXACT:
        return step % period
    numerator, denominator = float(period).as_integer_ratio()
    return int(step) * denominator % numerator / denominator


def joined(steps: Array, at: int, before: Callable[[Array], Array], after: Callable[[Array], Array]) -> Array:
    """Return the values of one function at steps before a given one, and those of another from there on.

    The other one is asked for the steps since then.
    """
    is_before = steps < at
    if is_before.all():
        return before(steps)
    if not is_before.any():
        return after(steps - at)
    values = np.empty(steps.shape)
    values[is_before] = before(steps[is_before])
    values[~is_before] = after(steps[~is_before] - at)
    return values


def _mapped(function: str, x: Array, operand: float = 0.0) -> Array:
    result = np.array(x, dtype=np.float64, order="C")
    map_(function, result.reshape(-1), operand)
    return result
