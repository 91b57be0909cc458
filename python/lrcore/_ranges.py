"""Ranges of allowed numbers, and the check of a number against one."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from lrcore._messages import brief


def as_number(value: Any) -> int | float | None:
    """Return a real scalar as a Python int or float, or None for anything else.

    Accepts Python and NumPy numbers, and 0-d arrays and tensors (NumPy, JAX, PyTorch, and others with ``.item()``).
    Booleans, fractions, complex numbers, dates, masked values and arrays with a dimension are not real scalars.

    Examples:
        >>> import numpy as np
        >>> as_number(np.float32(0.5)), as_number(np.array(3)), as_number(np.array([3])), as_number(True)
        (0.5, 3, None, None)
    """
    kind = type(value)
    if kind is float or kind is int:
        return value  # type: ignore[no-any-return]
    if getattr(value, "shape", None) == ():
        value = _item(value)
    if isinstance(value, bool | np.bool_ | str | bytes | complex):
        return None
    if isinstance(value, int):
        return int(value)
    # Python has no number for scalars of NumPy's extended dtypes, such as longdouble and bfloat16.
    if isinstance(value, float) or (isinstance(value, np.generic) and value.dtype.kind in "fV"):
        try:
            return float(value)
        except (TypeError, ValueError):
            return None
    return None


def _item(array: Any) -> Any:
    """Return the element of a 0-d array or tensor; None if it can't be read."""
    kind = getattr(getattr(array, "dtype", None), "kind", "")
    if kind in ("M", "m") or (isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array)):
        return None
    try:
        return array.item() if hasattr(array, "item") else np.asarray(array).item()
    except RuntimeError:  # such as a tensor on PyTorch's meta device
        return None


class Range:
    """An interval from ``low``, included unless ``opened``, to ``high``, excluded unless ``closed``."""

    __slots__ = ("closed", "high", "low", "opened")

    def __init__(self, low: float = 0.0, high: float = math.inf, *, opened: bool = False, closed: bool = False) -> None:
        self.low = low
        self.high = high
        self.opened = opened
        self.closed = closed

    def __str__(self) -> str:
        """Return the range in mathematical notation: ``[0, 1)``."""
        return f"{'(' if self.opened else '['}{self.low:g}, {self.high:g}{']' if self.closed else ')'}"

    def __contains__(self, value: float) -> bool:
        above = self.low < value if self.opened else self.low <= value
        return above and (value <= self.high if self.closed else value < self.high)

    def check(self, name: str, value: Any, *, otherwise: str = "") -> float:
        """Return the number as a float, or raise.

        Args:
            name: The argument's name, for the message.
            value: A real scalar, see :func:`as_number`.
            otherwise: The other types that are allowed, for the message.

        Raises:
            TypeError: If it is not a number.
            ValueError: If it is outside of the range, or NaN.
        """
        scalar = as_number(value)
        if scalar is None:
            raise TypeError(f"{name} must be a number in {self}{otherwise}, got {brief(value)}")
        try:
            number = float(scalar)
        except OverflowError:
            number = math.inf if scalar > 0 else -math.inf
        if number not in self:
            raise ValueError(f"{name} must be in {self}, got {brief(value)}")
        return number + 0.0  # which makes 0 of -0


NON_NEGATIVE = Range()
POSITIVE = Range(opened=True)
FRACTION = Range(high=1.0)
SHARE = Range(high=1.0, closed=True)
REAL = Range(-math.inf, math.inf, closed=True)


def check_count(name: str, value: Any, *, least: int = 0, most: int | None = None) -> int:
    """Return an integer as an int, or raise.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is less than ``least``, or more than ``most``.
    """
    count = as_number(value)
    if count is None and not isinstance(value, bool) and not hasattr(value, "dtype"):
        try:
            count = operator.index(value)
        except TypeError:
            count = None
    if not isinstance(count, int):
        raise TypeError(f"{name} must be a whole number >= {least}, got {brief(value)}")
    if count < least:
        raise ValueError(f"{name} must be >= {least}, got {brief(value)}")
    if most is not None and count > most:
        raise ValueError(f"{name} must be <= {most}, got {brief(value)}")
    return count
