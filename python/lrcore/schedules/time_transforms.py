"""Schedules as functions of another step: delayed, stretched, repeated, or updated every few steps."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from lrcore._messages import brief
from lrcore._ranges import check_count
from lrcore.schedules import functions as fn
from lrcore.schedules.checks import Positive, PositiveInt, check_fields
from lrcore.schedules.compound import UnaryOperation, check_parts, put
from lrcore.schedules.intervals import before, hull, largest, span
from lrcore.schedules.schedule import Bounds, Floats, Phases, Schedule


class TimeTransform(UnaryOperation):
    """The values of a schedule at other steps: ``value(t) = schedule(_inner(t))``."""

    __slots__ = ()

    # The field that `_inner` computes with; from 2⁵³ on arrays of steps are not exact.
    _operand: ClassVar[str] = "steps"

    @abstractmethod
    def _inner(self, step: Any) -> Any:
        """Return the step of the inner schedule, for a number or an array."""

    def _value(self, step: float) -> float:
        return self.schedule._value(self._inner(step))

    def _values(self, steps: Any) -> Floats:
        if abs(getattr(self, self._operand)) >= fn.EXACT:
            return Schedule._values(self, steps)
        return self.schedule._values(self._inner(steps))

    def _bounds(self, first: float, last: float) -> Bounds:
        return self.schedule._bounds(self._inner(first), last if last == math.inf else self._inner(last))


@dataclass(frozen=True, slots=True, repr=False)
class Shifted(TimeTransform):
    """A schedule that is delayed, or without its first steps: ``schedule.shift(steps)``.

    ``value(t) = schedule(max(t − steps, 0))``

    Args:
        schedule: The schedule.
        steps: The delay; a negative number skips as many steps.

    Raises:
        TypeError: If an argument has the wrong type.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Linear(1.0, 0.0, steps=4).shift(2).length
        6
    """

    steps: int

    def __post_init__(self) -> None:
        put(self, "steps", check_count("shift: steps", self.steps, least=-(2**63)))
        inner = self.schedule
        if isinstance(inner, Shifted) and (inner.steps >= 0 or self.steps <= 0):
            put(self, "steps", inner.steps + self.steps)
            put(self, "schedule", inner.schedule)
        check_parts(self, "schedule")

    @property
    def length(self) -> int | None:
        """The length of the schedule plus the delay."""
        length = self.schedule.length
        return None if length is None else max(length + self.steps, 0)

    def _call(self) -> str:
        return f"shift({self.steps})"

    def _inner(self, step: Any) -> Any:
        return fn.maximum(step - self.steps, step * 0)

    def _value(self, step: float) -> float:
        return self.schedule._value(step - self.steps if step > self.steps else 0)

    def _compressed(self, steps: int) -> Schedule:
        # A schedule without its first steps would start at another value if it were compressed.
        length = self.schedule.length
        if self.steps < 0 or (length is not None and steps > length):
            return Schedule._compressed(self, steps)
        return Shifted(self.schedule._compressed(steps), self.steps)

    def _phases(self) -> Phases:
        return ((name, max(at + self.steps, 0)) for name, at in self.schedule._phases())


@dataclass(frozen=True, slots=True, repr=False)
class Stretched(TimeTransform):
    """A schedule that takes longer: ``schedule.stretch(factor)``.

    ``value(t) = schedule(t / factor)``

    Args:
        schedule: The schedule.
        factor: The factor of its length, in (0, inf).

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the factor is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Linear(1.0, 0.0, steps=2).stretch(2.0)(1)
        0.75
    """

    factor: Positive

    def __post_init__(self) -> None:
        check_fields(self)
        inner = self.schedule
        if isinstance(inner, Stretched):
            # Only if dividing once gives the same bits as dividing twice.
            factor = inner.factor * self.factor
            if inner.factor.is_integer() and self.factor.is_integer() and factor < fn.EXACT:
                put(self, "factor", factor)
                put(self, "schedule", inner.schedule)
        check_parts(self, "schedule")
        if (self.schedule.length or 0) > 2**1000:
            raise ValueError(f"stretch: {brief(self.schedule)} is too long to be stretched")

    @property
    def length(self) -> int | None:
        """The length of the schedule times the factor, rounded up."""
        length = self.schedule.length
        return None if length is None else _times(length, self.factor)

    def _call(self) -> str:
        return f"stretch({self.factor!r})"

    def _inner(self, step: Any) -> Any:
        if step == math.inf:
            return step
        inner = step / self.factor if step < fn.EXACT else math.inf
        return inner if inner < fn.EXACT else _divided(step, self.factor)

    def _values(self, steps: Any) -> Floats:
        inner = steps / self.factor
        if inner.max(initial=0.0) >= fn.EXACT:
            return Schedule._values(self, steps)
        return self.schedule._values(inner)

    def _phases(self) -> Phases:
        return ((name, at * self.factor) for name, at in self.schedule._phases())


@dataclass(frozen=True, slots=True, repr=False)
class Repeated(TimeTransform):
    """A schedule that starts again: ``schedule.repeat(times, period)``.

    ``value(t) = schedule(t mod period)``; after ``times`` periods, ``schedule(period)``

    Arguments and errors are those of :meth:`Schedule.repeat <lrcore.schedules.Schedule.repeat>`.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Linear(1.0, 0.0, steps=2).repeat()(100)
        1.0
    """

    times: PositiveInt | None = None
    period: PositiveInt = None  # type: ignore[assignment]  # None only as an argument

    _operand: ClassVar[str] = "period"

    def __post_init__(self) -> None:
        check_fields(self)
        inner, period = self.schedule, self.period
        if isinstance(inner, Repeated) and inner.times is not None and self.period in (None, inner.length):
            # x.repeat(3).repeat(2) is x.repeat(6).
            put(self, "times", None if self.times is None else self.times * inner.times)
            put(self, "schedule", inner.schedule)
            period = inner.period
        check_parts(self, "schedule")
        if period is None and not self.schedule.length:
            raise ValueError(f"repeat: {brief(self.schedule)} has no length; give a period")
        put(self, "period", self.schedule.length if period is None else period)

    @property
    def length(self) -> int | None:
        """The steps of all runs together."""
        return None if self.times is None else self.times * self.period

    def _call(self) -> str:
        period = "" if self.period == self.schedule.length else f"period={self.period}"
        times = "" if self.times is None else str(self.times)
        return f"repeat({', '.join(filter(None, [times, period]))})"

    def _inner(self, step: Any) -> Any:
        within = step % self.period
        return within if self.times is None else fn.where(step // self.period >= self.times, self.period, within)

    def _value(self, step: float) -> float:
        length, period = self.length, self.period
        if length is not None and step >= length:
            return self.schedule._value(period)
        return self.schedule._value(step if step < period else step % period)

    def _bounds(self, first: float, last: float) -> Bounds:
        period, length = self.period, self.length
        parts = []
        if length is None or first < length:
            end = last if length is None else before(length, first, last)
            latest = before(period, first, math.inf)
            begin, stop = (first * 0, latest) if span(first, end) >= period else (first % period, end % period)
            if begin <= stop:
                parts.append(self.schedule._bounds(begin, stop))
            else:
                parts += self.schedule._bounds(begin, latest), self.schedule._bounds(first * 0, stop)
        if length is not None and last >= length:
            parts.append(self.schedule._bounds(period, period))
        return hull(*parts)

    def _maximum(self) -> float:
        # One period is enough: a search over all of them would visit each.
        best = largest(self.schedule, self.period - 1)
        return best if self.times is None else max(best, self.schedule._value(self.period))

    def _phases(self) -> Phases:
        count = 0
        while self.times is None or count < self.times:
            yield f"run {count + 1}", count * self.period
            count += 1


@dataclass(frozen=True, slots=True, repr=False)
class Staircase(TimeTransform):
    """A schedule whose value changes only every few steps: ``schedule.every(steps)``.

    ``value(t) = schedule(t − t mod steps)``

    Args:
        schedule: The schedule.
        steps: The number of steps for which a value stays, at least 1.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the number is less than 1.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Linear(1.0, 0.0, steps=4).every(3)(2)
        1.0
    """

    steps: int

    def __post_init__(self) -> None:
        put(self, "steps", check_count("every: steps", self.steps, least=1))
        if isinstance(self.schedule, Staircase) and self.steps % self.schedule.steps == 0:
            put(self, "schedule", self.schedule.schedule)
        check_parts(self, "schedule")

    @property
    def length(self) -> int | None:
        """The length of the schedule, rounded up to a multiple of ``steps``."""
        length = self.schedule.length
        return None if length is None else -(-length // self.steps) * self.steps

    def _call(self) -> str:
        return f"every({self.steps})"

    def _inner(self, step: Any) -> Any:
        return step - step % self.steps

    def _compressed(self, steps: int) -> Schedule:
        length, inner = self.length, self.schedule.length
        if length is not None and inner is not None and steps <= inner:
            shorter = Staircase(self.schedule._compressed(steps), self.steps)
            if shorter.length == length - steps:
                return shorter
        return Schedule._compressed(self, steps)


def per_epoch(schedule: Schedule, steps_per_epoch: int) -> Schedule:
    """Convert a schedule that counts epochs to one that counts steps. Its value changes only between epochs.

    ``value(t) = schedule(⌊t / steps_per_epoch⌋)``

    Args:
        schedule: The schedule over epochs.
        steps_per_epoch: The steps of an epoch, at least 1.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the number is less than 1.

    Examples:
        >>> from lrcore import schedules
        >>> lr = schedules.per_epoch(schedules.Step(0.1, step_size=30), steps_per_epoch=100)
        >>> lr(2999), round(lr(3000), 3)
        (0.1, 0.01)

    Note:
        ``schedule.stretch(steps_per_epoch)`` also changes the value within epochs.
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(f"per_epoch: schedule must be a schedule, got {brief(schedule)}")
    steps = check_count("per_epoch: steps_per_epoch", steps_per_epoch, least=1)
    return schedule.stretch(steps).every(steps)


def _times(length: int, factor: float) -> int:
    """Return the first step that, divided by the factor, is at least the length."""
    numerator, denominator = factor.as_integer_ratio()
    steps = -(-length * numerator // denominator)
    # The floating-point division can round up to the length one step earlier.
    return steps - 1 if 0 < steps < fn.EXACT and (steps - 1) / factor >= length else steps


def _divided(step: float, factor: float) -> float:
    """Return the quotient of a step beyond float64's exact integers, as an int if it is beyond them too."""
    numerator, denominator = factor.as_integer_ratio()
    whole, rest = divmod(int(step) * denominator, numerator)
    return whole if whole >= fn.EXACT or not rest else whole + rest / numerator
