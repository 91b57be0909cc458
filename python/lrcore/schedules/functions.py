"""Elementary functions of a number or an array, with the same bits for both, so that a formula is written once.

NumPy's own functions differ from :mod:`math` in the last digit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lrcore._lrcore import map_

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, np.dtype[Any]]

# All integers up to this are exact in float64.
EXACT = 2**53


def cos(x: Any) -> Any:
    """Return the cosine."""
    return _mapped("cos", x) if isinstance(x, np.ndarray) else math.cos(x)


def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent."""
    return _mapped("tanh", x) if isinstance(x, np.ndarray) else math.tanh(x)


def exp(x: Any) -> Any:
    """Return e to the power ``x``."""
    return _mapped("exp", x) if isinstance(x, np.ndarray) else math.exp(x)


def sqrt(x: Any) -> Any:
    """Return the square root."""
    return np.sqrt(x) if isinstance(x, np.ndarray) else math.sqrt(x)


def power(x: Any, exponent: float) -> Any:
    """Return ``x`` to the power ``exponent``."""
    if exponent == 1.0:
        return x
    return _mapped("pow", x, exponent) if isinstance(x, np.ndarray) else math.pow(x, exponent)


def power_of(base: float, exponent: Any) -> Any:
    """Return ``base`` to the power ``exponent``."""
    return _mapped("rpow", exponent, base) if isinstance(exponent, np.ndarray) else math.pow(base, exponent)


def minimum(a: Any, b: Any) -> Any:
    """Return the smaller of two."""
    return np.minimum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else min(a, b)


def maximum(a: Any, b: Any) -> Any:
    """Return the larger of two."""
    return np.maximum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else max(a, b)


def where(condition: Any, chosen: Any, otherwise: Any) -> Any:
    """Return one of two values, which are both evaluated."""
    if isinstance(condition, np.ndarray):
        return np.where(condition, chosen, otherwise)
    return chosen if condition else otherwise


def clamp(x: Any, a: float, b: float) -> Any:
    """Return ``x`` limited to the interval of two numbers in any order, so that rounding does not leave it."""
    low, high = (a, b) if a < b else (b, a)
    if isinstance(x, np.ndarray):
        return np.clip(x, low, high)
    return low if x <= low else high if x >= high else x


def remainder(step: Any, period: float) -> Any:
    """Return the exact remainder of a step modulo a period."""
    if isinstance(step, np.ndarray) or step < EXACT:
        return step % period
    numerator, denominator = float(period).as_integer_ratio()
    return int(step) * denominator % numerator / denominator


def joined(steps: Array, at: int, first: Callable[[Array], Array], rest: Callable[[Array], Array]) -> Array:
    """Return the values of one function at steps before ``at``, and of another, of the steps since, from there on."""
    is_first = steps < min(at, EXACT)
    if is_first.all():
        return first(steps)
    if not is_first.any():
        return rest(steps - at)
    values = np.empty(steps.shape)
    values[is_first] = first(steps[is_first])
    values[~is_first] = rest(steps[~is_first] - at)
    return values


def _mapped(function: str, x: Array, operand: float = 0.0) -> Array:
    result = np.array(x, dtype=np.float64, order="C")
    map_(function, result.reshape(-1), operand)
    return result
