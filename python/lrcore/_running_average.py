"""A running average."""

from __future__ import annotations

import math


class RunningAverage:
    """An exponential average of numbers, debiased exactly: after one number it is that number.

    ``m ← β m + (1 − β) x``, and the average is ``m / (1 − βᵏ)`` after ``k`` numbers.

    Attributes:
        total: ``m``.
        weight: ``1 − βᵏ``.
    """

    __slots__ = ("_keep", "total", "weight")

    def __init__(self, keep: float, total: float = 0.0, weight: float = 0.0) -> None:
        """Begin, or go on from what it had come to.

        Args:
            keep: ``β``, the share that is kept at each number, in [0, 1).
            total: ``m``.
            weight: ``1 − βᵏ``.
        """
        self._keep = keep
        self.total = total
        self.weight = weight

    def add(self, number: float) -> float:
        """Add a number and return the average."""
        self.total = self._keep * self.total + (1.0 - self._keep) * number
        self.weight = self._keep * self.weight + (1.0 - self._keep)
        return self.value

    @property
    def value(self) -> float:
        """The average, or NaN before the first number."""
        return self.total / self.weight if self.weight else math.nan
