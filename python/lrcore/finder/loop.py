"""The range test of a loop of one's own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lrcore._messages import brief
from lrcore._ranges import FRACTION, POSITIVE, Range, check_count
from lrcore._running_average import RunningAverages
from lrcore.finder.given import as_number
from lrcore.finder.result import RangeTest

if TYPE_CHECKING:
    from collections.abc import Iterator

MODES = ("exp", "linear")


class Finder:
    """A range test of a training loop of one's own: rates to train at, and reports of their losses.

    ``for lr in finder`` yields rates from ``start`` to ``end``, until the loss diverges. In each turn take the loss at
    the present weights, tell it to :meth:`report`, and take one step at that rate. What the loop changes stays changed:
    :func:`find_lr` puts everything back, for optimizers of lrcore.

    Args:
        start: The first rate, in (0, inf).
        end: The last one, above ``start``.
        steps: How many, at least 2.
        mode: ``"exp"``, the same factor between two, or ``"linear"``, the same difference.
        smoothing: The share of the running average of losses that is kept at each, in [0, 1).
        stop: It stops when the average is more than this many times the best one, in (1, inf].

    Raises:
        TypeError: If a number is none.
        ValueError: If one is out of range.

    Examples:
        >>> import lrcore
        >>> w, finder = 1.0, lrcore.Finder(start=1e-3, end=10.0, steps=60)
        >>> for lr in finder:
        ...     goes_on = finder.report(2.0 * w * w)  # of curvature 4: stable below 0.5
        ...     w -= lr * 4.0 * w
        >>> result = finder.result()
        >>> result.stopped, 0.1 < result.suggestions["safe"].lr < 0.5
        ('diverged', True)
    """

    def __init__(
        self,
        start: float = 1e-7,
        end: float = 10.0,
        steps: int = 100,
        mode: str = "exp",
        *,
        smoothing: float = 0.9,
        stop: float = 4.0,
    ) -> None:
        start, end = POSITIVE.check("start", start), POSITIVE.check("end", end)
        if end <= start:
            raise ValueError(f"end must be more than start, {start!r}, got {brief(end)}")
        steps = check_count("steps", steps, least=2)
        if mode not in MODES:
            raise ValueError(f"mode must be 'exp' or 'linear', got {brief(mode)}")
        self._smoothing = FRACTION.check("smoothing", smoothing)
        self._stop = Range(1.0, math.inf, opened=True, closed=True).check("stop", stop)
        rates = np.geomspace(start, end, steps) if mode == "exp" else np.linspace(start, end, steps)
        self._rates: list[float] = rates.tolist()
        self._lrs: list[float] = []
        self._losses: list[float] = []
        self._average = RunningAverages(self._smoothing, [0.0])
        self._best = math.inf
        self._stopped: str | None = None

    def __len__(self) -> int:
        """Return how many rates there are."""
        return len(self._rates)

    def __iter__(self) -> Iterator[float]:
        """Yield the rates, until the loss diverges."""
        for lr in self._rates[len(self._lrs) :]:
            if self._stopped is not None:
                return
            if len(self._lrs) != len(self._losses):
                raise RuntimeError(f"no loss was reported for the rate {self._lrs[-1]!r}")
            self._lrs.append(lr)
            yield lr
        self._stopped = self._stopped or "end"

    def report(self, loss: float) -> bool:
        """Tell the loss at the present rate, before the step; return whether to take it and go on.

        Raises:
            RuntimeError: If no rate is waiting for its loss.
            TypeError: If the loss is no number.
        """
        if len(self._losses) >= len(self._lrs):
            raise RuntimeError("report one loss for each rate that the finder yields")
        number = as_number("report: loss", loss)
        self._losses.append(number)
        if not math.isfinite(number):
            self._stopped = "nan"
            return False
        self._average.add(number)
        (average,) = self._average.values
        self._best = min(self._best, average)
        # Measured from the best one, so that it means the same for losses below 0.
        if len(self._losses) > 1 and average - self._best > (self._stop - 1.0) * abs(self._best):
            self._stopped = "diverged"
            return False
        return True

    def end(self, reason: str) -> None:
        """End the test early: ``"batches"`` says that there were no more."""
        if len(self._lrs) > len(self._losses):
            self._lrs.pop()
        self._stopped = reason

    def result(self, momentum: float | None = None) -> RangeTest:
        """Return what was found so far.

        Args:
            momentum: That of the training with SGD, 0 without any: the edge of stability lies higher with it. None for
                rules that divide by what gradients come to, such as Adam.
        """
        lrs, losses = self._lrs[: len(self._losses)], self._losses
        stopped = self._stopped or ("end" if len(losses) == len(self) else "left")
        return RangeTest(tuple(lrs), tuple(losses), (), stopped, self._smoothing, momentum=momentum)
