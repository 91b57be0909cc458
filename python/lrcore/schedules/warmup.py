"""Warm-up: the rise to a schedule's first value."""

from __future__ import annotations

from dataclasses import dataclass, field

from lrcore._ranges import check_count
from lrcore.schedules.schedule import Schedule


@dataclass(frozen=True, slots=True, repr=False)
class WarmedUp(Schedule):
    """A schedule after a warm-up; made by :meth:`Schedule.warmup <lrcore.schedules.Schedule.warmup>`.

    ``value(t) = first · (t + 1) / steps`` for ``t < steps``, then the schedule.

    Args:
        schedule: What follows the warm-up. One with a length is fitted into the steps that remain of it.
        steps: The length of the warm-up.

    Raises:
        TypeError: If ``schedule`` is not a schedule, or ``steps`` is not whole.
        ValueError: If ``steps`` is negative, or more than the schedule's length.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Cosine(0.1, steps=100).warmup(10)
        Cosine(start=0.1, steps=100, end=0.0).warmup(10)
    """

    schedule: Schedule
    steps: int
    _rest: Schedule = field(init=False, repr=False, compare=False)
    _first: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.schedule, Schedule):
            raise TypeError(f"warmup: schedule must be a schedule, got {self.schedule!r}")
        steps = check_count("warmup: steps", self.steps)
        length = self.schedule.length
        if length is not None and steps > length:
            raise ValueError(f"warmup: steps must be in [0, {length}], the length of {self.schedule!r}, got {steps}")
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "_rest", self.schedule._shortened(steps))
        object.__setattr__(self, "_first", self.schedule(0))

    @property
    def length(self) -> int | None:
        """The length of the schedule, warm-up included."""
        return self.schedule.length

    def __repr__(self) -> str:
        return f"{self.schedule!r}.warmup({self.steps})"

    def _value(self, step: int) -> float:
        if step < self.steps:
            return self._first * ((step + 1) / self.steps)
        return self._rest._value(step - self.steps)

    def _peak(self) -> float:
        return max(self._value(0), self._first, self._rest.peak) if self.steps else self._rest.peak

    def _shortened(self, steps: int) -> Schedule:
        return WarmedUp(self.schedule._shortened(steps), self.steps)
