"""Warm-up: the rise to a schedule's first value, or of a factor to 1."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lrcore._messages import brief
from lrcore._ranges import FRACTION, SHARE
from lrcore._text import counted
from lrcore.schedules import functions as fn
from lrcore.schedules.checks import check_counts, check_depth, check_numbers, check_schedules, check_word, put
from lrcore.schedules.intervals import before, ends, hull, window
from lrcore.schedules.schedule import Compound, Schedule, phases_of, steps_of, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lrcore.schedules.schedule import Floats

SHAPES = ("linear", "cosine", "exponential")


def untuned(beta2: float, shape: str = "linear") -> int:
    """Return the length of the warm-up that Adam needs with that ``beta2``, without tuning.

    ``2 / (1 − beta2)`` for a linear warm-up, ``1 / (1 − beta2)`` for an exponential one, rounded.

    Args:
        beta2: How much of the second moment is kept, in [0, 1).
        shape: ``"linear"`` or ``"exponential"``.

    Raises:
        TypeError: If ``beta2`` is not a number.
        ValueError: If it is out of range, or the shape has no such rule.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.untuned(0.999), schedules.untuned(0.999, "exponential")
        (2000, 1000)

    References:
        Ma & Yarats, *On the Adequacy of Untuned Warmup for Adaptive Optimization* (2021).
    """
    beta2 = FRACTION.check("beta2", beta2)
    if shape not in ("linear", "exponential"):
        raise ValueError(f"untuned: shape must be 'linear' or 'exponential', got {brief(shape)}")
    return round((2.0 if shape == "linear" else 1.0) / (1.0 - beta2))


@dataclass(frozen=True, slots=True, repr=False)
class Warmup(Schedule):
    """A factor that rises to 1: ``Warmup(n) * schedule`` only multiplies, and moves nothing.

    With ``x = (t + 1) / steps`` the value is ``start + (1 − start) · rise(x)``, where ``rise`` is ``min(x, 1)``
    (linear), ``(1 − cos(π min(x, 1))) / 2`` (cosine), or ``1 − e⁻ˣ`` (exponential, which comes near 1 without an end).

    Picture: docs/gallery/Warmup.png

    Args:
        steps: The length of the rise, or its time constant if it is exponential; 0 is 1 at once.
        start: What it rises from, in [0, 1]; step 0 has already taken one stride.
        shape: ``"linear"``, ``"cosine"`` or ``"exponential"``.

    Raises:
        TypeError: If ``start`` is not a number, or ``steps`` is not whole.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> rate = schedules.Warmup(4) * schedules.Exponential(1.0, gamma=0.5)
        >>> [rate(t) for t in range(5)]
        [0.25, 0.25, 0.1875, 0.125, 0.0625]

    References:
        Ma & Yarats, *On the Adequacy of Untuned Warmup for Adaptive Optimization* (2021).

    Note:
        :meth:`Schedule.warmup <lrcore.schedules.Schedule.warmup>` puts a rise before a schedule.
    """

    steps: int
    start: float = 0.0
    shape: str = "linear"

    def __post_init__(self) -> None:
        check_counts(self, "steps")
        check_numbers(self, "start", allowed=SHARE)
        check_word(self, "shape", SHAPES)

    @classmethod
    def untuned(cls, beta2: float, shape: str = "linear") -> Self:
        """Return the warm-up that Adam needs with that ``beta2``; see :func:`untuned <lrcore.schedules.untuned>`."""
        return cls(untuned(beta2, shape), shape=shape)

    @property
    def length(self) -> int | None:
        """The number of steps, but of an exponential rise, which has no end."""
        return None if self.shape == "exponential" and self.steps else self.steps

    @property
    def _is_factor(self) -> bool:
        return True

    def _value(self, step: float) -> float:
        # Forty time constants on, the exponential is 1 too.
        if step >= (self.steps if self.shape != "exponential" else 40 * self.steps):
            return 1.0
        return float(self._course(step))

    def _course(self, step: Any) -> Any:
        x = (step + 1) / self.steps
        rise = 1.0 - fn.exp(-x) if self.shape == "exponential" else risen(fn.minimum(x, 1.0), self.shape)
        return self.start + (1.0 - self.start) * rise

    def _values(self, steps: Any) -> Floats:
        if self.steps > fn.EXACT:
            return super(Warmup, self)._values(steps)
        end = self.steps if self.shape != "exponential" else 40 * self.steps
        return fn.joined(steps, end, self._course, lambda since: np.ones(since.shape))

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        return ends(self, first, last, 1.0)


def risen(x: Any, shape: str) -> Any:
    """Return how much of the way is behind at a share of the time: 0 to 1, at which it is 1."""
    if shape == "linear":
        return x
    if shape == "cosine":
        return fn.where(x == 1.0, 1.0, (1.0 - fn.cos(math.pi * x)) / 2.0)
    return fn.where(x == 1.0, 1.0, (1.0 - fn.exp(-x)) / (1.0 - math.exp(-1.0)))


@dataclass(frozen=True, slots=True, repr=False)
class WithWarmup(Compound):
    """A schedule after a warm-up; made by :meth:`Schedule.warmup <lrcore.schedules.Schedule.warmup>`.

    ``value(t) = start + (first − start) · (t + 1) / steps`` for ``t < steps``, then the schedule.

    Picture: docs/gallery/WithWarmup.png

    Args:
        schedule: What follows the warm-up. One with a length is fitted into the steps that remain of it.
        steps: The length of the warm-up, or, as a float in [0, 1), its share of the schedule's length.
        start: What it rises from, in [0, inf).
        shape: ``"linear"``, ``"cosine"`` or ``"exponential"``.

    Raises:
        TypeError: If ``schedule`` is not a schedule, or ``steps`` is not whole.
        ValueError: If ``steps`` is negative, or more than the schedule's length.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Cosine(0.1, steps=100).warmup(10)
        Cosine(start=0.1, steps=100).warmup(10)
    """

    schedule: Schedule
    steps: int
    start: float = 0.0
    shape: str = "linear"
    # What follows the warm-up, and the first value: made when they are first needed, since a warm-up within another one
    # is fitted into the steps that the other leaves, and to make all forms at once would double the work with each.
    _fitted: Schedule | None = field(default=None, init=False, repr=False, compare=False)
    _peak: float | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_schedules(self, "schedule")
        check_depth(self, "schedule")
        length = self.schedule.length
        steps = steps_of("warmup: steps", self.steps, length)
        if length is not None and steps > length:
            raise ValueError(
                f"warmup: steps must be in [0, {length}], the length of {brief(self.schedule)}, got {steps}"
            )
        check_numbers(self, "start")
        check_word(self, "shape", SHAPES)
        put(self, "steps", steps)
        _fit(self)

    def __getstate__(self) -> list[Any]:
        # Without the fitted forms, whose number grows with the square of that of the warm-ups within each other.
        return [self.schedule, self.steps, self.start, self.shape, None, None]

    @property
    def _rest(self) -> Schedule:
        rest = self._fitted
        if rest is None:
            length = self.schedule.length
            if length is not None and self.steps > length:
                raise ValueError(
                    f"warmup: {brief(self)} has {counted(self.steps, 'step')} of warm-up in a length of {length}"
                )
            rest = self.schedule._shortened(self.steps)
            put(self, "_fitted", rest)
        return rest

    @property
    def _first(self) -> float:
        first = self._peak
        if first is None:
            first = self.schedule._value(0)
            put(self, "_peak", first)
        return first

    @property
    def _is_factor(self) -> bool:
        return self.schedule._is_factor

    @property
    def length(self) -> int | None:
        """The length of the schedule, warm-up included."""
        return self.schedule.length

    def __repr__(self) -> str:
        more = [repr(self.start), repr(self.shape)]
        while more and more[-1] == ("0.0", "'linear'")[len(more) - 1]:
            more.pop()
        return f"{wrapped(self.schedule)}.warmup({', '.join([str(self.steps), *more])})"

    def _value(self, step: float) -> float:
        if step >= self.steps:
            return self._rest._value(step - self.steps)
        x = (step + 1) / self.steps
        # Between whole steps the last stride would lead beyond the first value.
        value: float = self._risen(x if x < 1.0 else 1.0)
        return value

    def _risen(self, x: Any) -> Any:
        if self.start == 0.0 and self.shape == "linear":
            return self._first * x
        done = risen(x, self.shape)
        rise = fn.clamp(self.start + (self._first - self.start) * done, self.start, self._first)
        return fn.where(done == 1.0, self._first, rise)

    def _values(self, steps: Any) -> Floats:
        if self.steps > fn.EXACT:
            return super(WithWarmup, self)._values(steps)
        return fn.joined(
            steps,
            self.steps,
            lambda steps: self._risen(np.minimum((steps + 1) / self.steps, 1.0)),
            self._rest._values,
        )

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        parts = []
        if first < self.steps:
            end = before(self.steps, first, last)
            values = self._value(first), self._risen(min((end + 1) / self.steps, 1.0))
            parts.append((min(values), max(values)))
        if last >= self.steps:
            parts.append(self._rest._bounds(*window(first, last, self.steps)))
        return hull(*parts)

    def _shortened(self, steps: int) -> Schedule:
        shorter = self.schedule._shortened(steps)
        if self.steps and shorter._is_constant and not self.schedule._is_constant:
            raise ValueError(
                f"{self!r} can't be shortened by {counted(steps, 'step')}: no step would be left for its warm-up"
            )
        # Without the checks that fit it at once.
        made = object.__new__(WithWarmup)
        values = {"schedule": shorter, "steps": self.steps, "start": self.start, "shape": self.shape}
        for name, value in {**values, "_fitted": None, "_peak": None}.items():
            put(made, name, value)
        return made

    def _parts(self) -> Iterator[tuple[str, float]]:
        yield "warm-up", 0
        for name, at in phases_of(self._rest):
            yield name, at + self.steps


def _fit(schedule: Schedule) -> None:
    """Fit all warm-ups in a schedule, or raise."""
    if isinstance(schedule, WithWarmup):
        _fit(schedule._rest)
    elif isinstance(schedule, Compound):
        for part in fields(schedule):  # type: ignore[arg-type]
            value = getattr(schedule, part.name)
            if isinstance(value, Schedule):
                _fit(value)
