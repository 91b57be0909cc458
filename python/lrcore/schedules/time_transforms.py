"""Schedules of schedules, in time: delayed, stretched, repeated, held."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lrcore._messages import brief
from lrcore._ranges import POSITIVE, check_count
from lrcore.schedules import functions as fn
from lrcore.schedules.checks import check_counts, check_depth, check_numbers, check_schedules, put
from lrcore.schedules.intervals import before, hull, largest, span, window
from lrcore.schedules.schedule import Compound, Schedule, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lrcore.schedules.schedule import Floats


@dataclass(frozen=True, slots=True, repr=False)
class Shifted(Compound):
    """A schedule that is delayed, or begins later in its course: ``schedule.shift(steps)``.

    ``value(t) = schedule(max(t − steps, 0))``

    Picture: docs/gallery/Shifted.png

    Args:
        schedule: The schedule.
        steps: The delay; a negative number skips as many steps.

    Raises:
        TypeError: If an argument is of a wrong type.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Linear(1.0, 0.0, steps=4).shift(2).length
        6
    """

    schedule: Schedule
    steps: int

    def __post_init__(self) -> None:
        check_schedules(self, "schedule")
        put(self, "steps", check_count("shift: steps", self.steps, least=-(2**63)))
        inner = self.schedule
        if isinstance(inner, Shifted) and (inner.steps >= 0 or self.steps <= 0):
            put(self, "steps", inner.steps + self.steps)
            put(self, "schedule", inner.schedule)
        check_depth(self, "schedule")

    @property
    def _is_factor(self) -> bool:
        return self.schedule._is_factor

    @property
    def length(self) -> int | None:
        """That of the schedule, and the delay."""
        length = self.schedule.length
        return None if length is None else max(length + self.steps, 0)

    def __repr__(self) -> str:
        return f"{wrapped(self.schedule)}.shift({self.steps})"

    def _value(self, step: float) -> float:
        return self.schedule._value(step - self.steps if step > self.steps else 0)

    def _values(self, steps: Any) -> Floats:
        if abs(self.steps) >= fn.EXACT:
            return super(Shifted, self)._values(steps)
        return self.schedule._values(np.maximum(steps - self.steps, 0))

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        return self.schedule._bounds(*window(first, last, self.steps))

    def _shortened(self, steps: int) -> Schedule:
        # One that begins within its course would begin elsewhere in a shorter one.
        length = self.schedule.length
        if self.steps < 0 or (length is not None and steps > length):
            return super(Shifted, self)._shortened(steps)
        return Shifted(self.schedule._shortened(steps), self.steps)

    def _parts(self) -> Iterator[tuple[str, float]]:
        return ((name, max(at + self.steps, 0)) for name, at in self.schedule._parts())


@dataclass(frozen=True, slots=True, repr=False)
class Stretched(Compound):
    """A schedule that takes longer: ``schedule.stretch(factor)``.

    ``value(t) = schedule(t / factor)``

    Picture: docs/gallery/Stretched.png

    Args:
        schedule: The schedule.
        factor: How many times as long it takes, in (0, inf).

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If the factor is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Linear(1.0, 0.0, steps=2).stretch(2.0)(1)
        0.75
    """

    schedule: Schedule
    factor: float

    def __post_init__(self) -> None:
        check_schedules(self, "schedule")
        check_numbers(self, "factor", allowed=POSITIVE)
        inner = self.schedule
        if isinstance(inner, Stretched):
            # Only where both ways are the same division: what was rounded up before is to stay so.
            factor = inner.factor * self.factor
            if inner.factor.is_integer() and self.factor.is_integer() and factor < fn.EXACT:
                put(self, "factor", factor)
                put(self, "schedule", inner.schedule)
        check_depth(self, "schedule")
        if (self.schedule.length or 0) > 2**1000:
            raise ValueError(f"stretch: {brief(self.schedule)} is too long to be stretched")

    @property
    def _is_factor(self) -> bool:
        return self.schedule._is_factor

    @property
    def length(self) -> int | None:
        """That of the schedule times the factor, rounded up."""
        length = self.schedule.length
        return None if length is None else _times(length, self.factor)

    def __repr__(self) -> str:
        return f"{wrapped(self.schedule)}.stretch({self.factor!r})"

    def _value(self, step: float) -> float:
        return self.schedule._value(self._inner(step))

    def _inner(self, step: float) -> float:
        if step == math.inf:
            return step
        inner = step / self.factor if step < fn.EXACT else math.inf
        return inner if inner < fn.EXACT else _divided(step, self.factor)

    def _values(self, steps: Any) -> Floats:
        inner = steps / self.factor
        if inner.max(initial=0.0) >= fn.EXACT:
            return super(Stretched, self)._values(steps)
        return self.schedule._values(inner)

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        return self.schedule._bounds(self._inner(first), self._inner(last))

    def _parts(self) -> Iterator[tuple[str, float]]:
        return ((name, at * self.factor) for name, at in self.schedule._parts())


@dataclass(frozen=True, slots=True, repr=False)
class Repeated(Compound):
    """A schedule that begins again: ``schedule.repeat(times, period)``.

    ``value(t) = schedule(t mod period)``; after ``times`` periods, ``schedule(period)``

    Picture: docs/gallery/Repeated.png

    Args:
        schedule: The schedule.
        times: How often it runs, at least 1; None is for ever.
        period: After how many steps it begins again, at least 1; None is its length.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If a number is less than 1, or there is no period.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Linear(1.0, 0.0, steps=2).repeat()(100)
        1.0
    """

    schedule: Schedule
    times: int | None = None
    period: int | None = None

    def __post_init__(self) -> None:
        check_schedules(self, "schedule")
        if self.times is not None:
            check_counts(self, "times", least=1)
        if self.period is not None:
            check_counts(self, "period", least=1)
        self._fold()
        if self.period is None:
            if not self.schedule.length:
                raise ValueError(f"repeat: {brief(self.schedule)} has no length; give a period")
            put(self, "period", self.schedule.length)
        check_counts(self, "period", least=1)

    @property
    def _is_factor(self) -> bool:
        return self.schedule._is_factor

    def _fold(self) -> None:
        """Make one of repeats of whole repeats: ``x.repeat(3).repeat(2)`` is ``x.repeat(6)``."""
        inner = self.schedule
        if isinstance(inner, Repeated) and inner.times is not None and self.period in (None, inner.length):
            put(self, "times", None if self.times is None else self.times * inner.times)
            put(self, "period", inner.period)
            put(self, "schedule", inner.schedule)
        check_depth(self, "schedule")

    @property
    def length(self) -> int | None:
        """That of all times together."""
        assert self.period is not None  # noqa: S101 (for the type checker)
        return None if self.times is None else self.times * self.period

    def __repr__(self) -> str:
        period = "" if self.period == self.schedule.length else f"period={self.period}"
        times = "" if self.times is None else str(self.times)
        return f"{wrapped(self.schedule)}.repeat({', '.join(filter(None, [times, period]))})"

    def _value(self, step: float) -> float:
        length, period = self.length, self.period
        assert period is not None  # noqa: S101 (for the type checker)
        if length is not None and step >= length:
            return self.schedule._value(period)
        return self.schedule._value(step if step < period else step % period)

    def _values(self, steps: Any) -> Floats:
        period = self.period
        assert period is not None  # noqa: S101 (for the type checker)
        if period >= fn.EXACT:
            return super(Repeated, self)._values(steps)
        within = steps % period
        if self.times is not None:
            within = np.where(steps // period >= self.times, period, within)
        return self.schedule._values(within)

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        period, length = self.period or 1, self.length
        parts = []
        if length is None or first < length:
            end = last if length is None else before(length, first, last)
            latest = before(period, first, math.inf)
            if span(first, end) >= period:
                parts.append(self.schedule._bounds(first * 0, latest))
            else:
                begin, stop = first % period, end % period
                parts += (
                    [self.schedule._bounds(begin, stop)]
                    if begin <= stop
                    else [self.schedule._bounds(begin, latest), self.schedule._bounds(first * 0, stop)]
                )
        if length is not None and last >= length:
            parts.append(self.schedule._bounds(period, period))
        return hull(*parts)

    def _maximum(self) -> float:
        # That of one period: a search in all of them would look at each.
        period = self.period or 1
        best = largest(self.schedule, period - 1)
        return best if self.times is None else max(best, self.schedule._value(period))

    def _parts(self) -> Iterator[tuple[str, float]]:
        period, count = self.period or 1, 0
        while self.times is None or count < self.times:
            yield f"run {count + 1}", count * period
            count += 1


@dataclass(frozen=True, slots=True, repr=False)
class Staircase(Compound):
    """A schedule whose values are held for a number of steps: ``schedule.every(steps)``.

    ``value(t) = schedule(t − t mod steps)``

    Picture: docs/gallery/Staircase.png

    Args:
        schedule: The schedule.
        steps: For how many steps, at least 1.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If the number is less than 1.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Linear(1.0, 0.0, steps=4).every(3)(2)
        1.0
    """

    schedule: Schedule
    steps: int

    def __post_init__(self) -> None:
        check_schedules(self, "schedule")
        put(self, "steps", check_count("every: steps", self.steps, least=1))
        if isinstance(self.schedule, Staircase) and self.steps % self.schedule.steps == 0:
            put(self, "schedule", self.schedule.schedule)
        check_depth(self, "schedule")

    @property
    def _is_factor(self) -> bool:
        return self.schedule._is_factor

    @property
    def length(self) -> int | None:
        """That of the schedule, rounded up to where the last value begins."""
        length = self.schedule.length
        return None if length is None else -(-length // self.steps) * self.steps

    def __repr__(self) -> str:
        return f"{wrapped(self.schedule)}.every({self.steps})"

    def _value(self, step: float) -> float:
        return self.schedule._value(step - step % self.steps)

    def _values(self, steps: Any) -> Floats:
        if self.steps >= fn.EXACT:
            return super(Staircase, self)._values(steps)
        return self.schedule._values(steps - steps % self.steps)

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        return self.schedule._bounds(first - first % self.steps, last if last == math.inf else last - last % self.steps)

    def _shortened(self, steps: int) -> Schedule:
        length, inner = self.length, self.schedule.length
        if length is not None and inner is not None and steps <= inner:
            shorter = Staircase(self.schedule._shortened(steps), self.steps)
            if shorter.length == length - steps:
                return shorter
        return super(Staircase, self)._shortened(steps)

    def _parts(self) -> Iterator[tuple[str, float]]:
        return self.schedule._parts()


def per_epoch(schedule: Schedule, steps_per_epoch: int) -> Schedule:
    """Turn a schedule that counts in epochs into one that counts in steps; its values change between epochs alone.

    ``value(t) = schedule(⌊t / steps_per_epoch⌋)``

    Args:
        schedule: The schedule of epochs.
        steps_per_epoch: The steps of an epoch, at least 1.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If the number is less than 1.

    Examples:
        >>> from lrcore import schedules
        >>> rate = schedules.per_epoch(schedules.Step(0.1, step_size=30), steps_per_epoch=100)
        >>> rate(2999), round(rate(3000), 3)
        (0.1, 0.01)

    Note:
        ``schedule.stretch(steps_per_epoch)`` follows the course within epochs too.
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(f"per_epoch: schedule must be a schedule, got {brief(schedule)}")
    steps = check_count("per_epoch: steps_per_epoch", steps_per_epoch, least=1)
    return schedule.stretch(steps).every(steps)


def _times(length: int, factor: float) -> int:
    """Return the first step that, divided by the factor, is not before the length."""
    numerator, denominator = factor.as_integer_ratio()
    steps = -(-length * numerator // denominator)
    # The division may round up to it one step earlier.
    return steps - 1 if 0 < steps < fn.EXACT and (steps - 1) / factor >= length else steps


def _divided(step: float, factor: float) -> float:
    """Return a quotient of a step that is no number of float64, as a whole step where it is none either."""
    numerator, denominator = factor.as_integer_ratio()
    whole, rest = divmod(int(step) * denominator, numerator)
    return whole if whole >= fn.EXACT or not rest else whole + rest / numerator
