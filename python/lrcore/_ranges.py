"""Ranges of allowed numbers, and the one way in which a number outside of one is refused."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np


class Range:
    """The numbers from ``low``, included unless ``opened``, to ``high``, included only if ``closed``."""

    __slots__ = ("closed", "high", "low", "opened")

    def __init__(self, low: float = 0.0, high: float = math.inf, *, opened: bool = False, closed: bool = False) -> None:
        self.low = low
        self.high = high
        self.opened = opened
        self.closed = closed

    def __str__(self) -> str:
        """Return the range as mathematics writes it: ``[0, 1)``."""
        return f"{'(' if self.opened else '['}{self.low:g}, {self.high:g}{']' if self.closed else ')'}"

    def __contains__(self, value: float) -> bool:
        above = self.low < value if self.opened else self.low <= value
        return above and (value <= self.high if self.closed else value < self.high)

    def check(self, name: str, value: Any, *, otherwise: str = "") -> float:
        """Return the number as a float, or raise.

        Args:
            name: What it is called in the message.
            value: A Python or NumPy real number.
            otherwise: What else than a number is allowed there, for the message.

        Raises:
            TypeError: If it is not a number.
            ValueError: If it is outside of the range, or NaN.
        """
        if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
            raise TypeError(f"{name} must be a number in {self}{otherwise}, got {value!r}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if number not in self:
            raise ValueError(f"{name} must be in {self}, got {value!r}")
        return number + 0.0  # which makes 0 of -0


NON_NEGATIVE = Range()
POSITIVE = Range(opened=True)
FRACTION = Range(high=1.0)
SHARE = Range(high=1.0, closed=True)
REAL = Range(-math.inf, math.inf, closed=True)


def check_count(name: str, value: Any, *, least: int = 0, most: int | None = None) -> int:
    """Return a whole number of steps as an int, or raise.

    Raises:
        TypeError: If it is not a whole number.
        ValueError: If it is less than ``least``, or more than ``most``.
    """
    try:
        count = operator.index(value)
    except TypeError:
        count = None
    if count is None or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number >= {least}, got {value!r}")
    if count < least:
        raise ValueError(f"{name} must be >= {least}, got {value!r}")
    if most is not None and count > most:
        raise ValueError(f"{name} must be <= {most}, got {value!r}")
    return count
