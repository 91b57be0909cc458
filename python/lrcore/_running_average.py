"""Exponential moving averages with exact debiasing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class RunningAverages:
    """Moving averages of several numbers: ``m ← β m + (1 − β) x``, divided by ``1 − βᵏ`` after ``k`` numbers.

    Attributes:
        totals: Each ``m``.
        weight: ``1 − βᵏ``.
    """

    __slots__ = ("_keep", "totals", "weight")

    def __init__(self, keep: float, totals: Iterable[float], weight: float = 0.0) -> None:
        """Start with zeros, or resume.

        Args:
            keep: ``β``, in [0, 1).
            totals: Each ``m``; zeros at the start.
            weight: ``1 − βᵏ``.
        """
        self._keep = keep
        self.totals = list(totals)
        self.weight = weight

    def add(self, *numbers: float) -> None:
        """Add one number to each average."""
        keep, take = self._keep, 1.0 - self._keep
        self.totals = [keep * total + take * number for total, number in zip(self.totals, numbers, strict=True)]
        self.weight = keep * self.weight + take

    @property
    def values(self) -> list[float]:
        """The averages; NaN before the first numbers."""
        return [total / self.weight if self.weight else math.nan for total in self.totals]
