"""Warm-up: a rise to a schedule's first value, or of a factor to 1."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from lrcore._messages import brief
from lrcore._ranges import FRACTION
from lrcore._text import counted
from lrcore.schedules import functions as fn
from lrcore.schedules.checks import Share, check_choice, check_fields
from lrcore.schedules.compound import UnaryOperation, check_parts, parts_of, phases_of, put
from lrcore.schedules.intervals import ends, split
from lrcore.schedules.schedule import Bounds, Floats, Phases, Schedule, steps_of

SHAPES = ("linear", "cosine", "exponential")


def untuned(beta2: float, shape: str = "linear") -> int:
    """Return the warm-up length for Adam that depends on ``beta2`` only.

    ``2 / (1 − beta2)`` for a linear warm-up, ``1 / (1 − beta2)`` for an exponential one, rounded.

    Args:
        beta2: Adam's ``betas[1]``, in [0, 1).
        shape: ``"linear"`` or ``"exponential"``.

    Raises:
        TypeError: If ``beta2`` is not a number.
        ValueError: If it is out of range, or the shape is another one.

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
    """A factor that rises to 1: ``Warmup(n) * schedule`` multiplies, without compressing or delaying the schedule.

    With ``x = (t + 1) / steps`` the value is ``start + (1 − start) · rise(x)``, where ``rise`` is ``min(x, 1)``
    (linear), ``(1 − cos(π min(x, 1))) / 2`` (cosine), or ``1 − e⁻ˣ`` (exponential, which approaches 1).

    Args:
        steps: The length of the rise, or the time constant of an exponential one; 0 is 1 at once.
        start: The value that the factor rises from, in [0, 1]. Step 0 is already one increment above it.
        shape: ``"linear"``, ``"cosine"`` or ``"exponential"``.

    Raises:
        TypeError: If ``start`` is not a number, or ``steps`` is not an integer.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> lr = schedules.Warmup(4) * schedules.Exponential(1.0, gamma=0.5)
        >>> [lr(t) for t in range(5)]
        [0.25, 0.25, 0.1875, 0.125, 0.0625]

    References:
        Ma & Yarats, *On the Adequacy of Untuned Warmup for Adaptive Optimization* (2021).

    Note:
        :meth:`Schedule.warmup <lrcore.schedules.Schedule.warmup>` puts a warm-up before a schedule instead.
    """

    steps: int
    start: Share = 0.0
    shape: str = "linear"

    _is_factor: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self)
        check_choice(self, "shape", SHAPES)

    @classmethod
    def untuned(cls, beta2: float, shape: str = "linear") -> Self:
        """Return the warm-up of the length :func:`untuned <lrcore.schedules.untuned>`."""
        return cls(untuned(beta2, shape), shape=shape)

    @property
    def length(self) -> int | None:
        """The number of steps; None for an exponential rise, which never ends."""
        return None if self.shape == "exponential" and self.steps else self.steps

    @property
    def _end(self) -> int:
        # After 40 time constants the exponential rounds to 1.
        return self.steps if self.shape != "exponential" else 40 * self.steps

    def _value(self, step: float) -> float:
        return 1.0 if step >= self._end else float(self._formula(step))

    def _formula(self, step: Any) -> Any:
        x = (step + 1) / self.steps
        rise = 1.0 - fn.exp(-x) if self.shape == "exponential" else risen(fn.minimum(x, 1.0), self.shape)
        return self.start + (1.0 - self.start) * rise

    def _values(self, steps: Any) -> Floats:
        if self.steps > fn.EXACT:
            return Schedule._values(self, steps)
        return fn.joined(steps, self._end, self._formula, lambda since: np.ones(since.shape))

    def _bounds(self, first: float, last: float) -> Bounds:
        return ends(self, first, last, 1.0)


def risen(x: Any, shape: str) -> Any:
    """Return the fraction of the rise at a fraction ``x`` of its time; exactly 1 at 1."""
    if shape == "linear":
        return x
    if shape == "cosine":
        return fn.where(x == 1.0, 1.0, (1.0 - fn.cos(math.pi * x)) / 2.0)
    return fn.where(x == 1.0, 1.0, (1.0 - fn.exp(-x)) / (1.0 - math.exp(-1.0)))


@dataclass(frozen=True, slots=True, repr=False)
class WithWarmup(UnaryOperation):
    """A schedule after a warm-up: ``schedule.warmup(steps, start, shape)``.

    ``value(t) = start + (first − start) · (t + 1) / steps`` for ``t < steps``, then the schedule, compressed into the
    remaining steps if it has a length. Its length is that of the schedule, and includes the warm-up.

    Arguments and errors are those of :meth:`Schedule.warmup <lrcore.schedules.Schedule.warmup>`.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Cosine(0.1, steps=100).warmup(10)
        Cosine(start=0.1, steps=100).warmup(10)
    """

    steps: int
    start: float = 0.0
    shape: str = "linear"
    # The compressed schedule and the first value, computed when they are first needed: a warm-up within another one is
    # itself compressed, and computing every form at once would double the work with each.
    _compressed_schedule: Schedule | None = field(default=None, init=False, repr=False, compare=False)
    _first_value: float | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_parts(self, "schedule")
        length = self.schedule.length
        steps = steps_of("warmup: steps", self.steps, length)
        if length is not None and steps > length:
            raise ValueError(
                f"warmup: steps must be in [0, {length}], the length of {brief(self.schedule)}, got {steps}"
            )
        check_fields(self, "start")
        check_choice(self, "shape", SHAPES)
        put(self, "steps", steps)
        _check_fit(self)

    def __getstate__(self) -> list[Any]:
        # Without the compressed forms, whose number grows with the square of the number of nested warm-ups.
        return [self.schedule, self.steps, self.start, self.shape, None, None]

    @property
    def _rest(self) -> Schedule:
        rest = self._compressed_schedule
        if rest is None:
            length = self.schedule.length
            if length is not None and self.steps > length:
                raise ValueError(
                    f"warmup: {brief(self)} has {counted(self.steps, 'step')} of warm-up in a length of {length}"
                )
            rest = self.schedule._compressed(self.steps)
            put(self, "_compressed_schedule", rest)
        return rest

    @property
    def _first(self) -> float:
        first = self._first_value
        if first is None:
            first = self.schedule._value(0)
            put(self, "_first_value", first)
        return first

    def _call(self) -> str:
        more = [repr(self.start), repr(self.shape)]
        while more and more[-1] == ("0.0", "'linear'")[len(more) - 1]:
            more.pop()
        return f"warmup({', '.join([str(self.steps), *more])})"

    def _value(self, step: float) -> Any:
        if step >= self.steps:
            return self._rest._value(step - self.steps)
        x = (step + 1) / self.steps
        # At a fractional step the last increment would exceed the first value.
        return self._rise(x if x < 1.0 else 1.0)

    def _rise(self, x: Any) -> Any:
        if self.start == 0.0 and self.shape == "linear":
            return self._first * x
        done = risen(x, self.shape)
        rise = fn.clamp(self.start + (self._first - self.start) * done, self.start, self._first)
        return fn.where(done == 1.0, self._first, rise)

    def _values(self, steps: Any) -> Floats:
        if self.steps > fn.EXACT:
            return Schedule._values(self, steps)
        return fn.joined(
            steps, self.steps, lambda steps: self._rise(np.minimum((steps + 1) / self.steps, 1.0)), self._rest._values
        )

    def _bounds(self, first: float, last: float) -> Bounds:
        def rise(first: float, last: float) -> Bounds:
            values = self._value(first), self._rise(min((last + 1) / self.steps, 1.0))
            return min(values), max(values)

        return split(self.steps, first, last, rise, lambda first, last: self._rest._bounds(first, last))

    def _compressed(self, steps: int) -> Schedule:
        shorter = self.schedule._compressed(steps)
        if self.steps and shorter._is_constant and not self.schedule._is_constant:
            raise ValueError(
                f"{self!r} can't be shortened by {counted(steps, 'step')}: no step would be left for its warm-up"
            )
        # Without the checks of the constructor.
        made = copy(self)
        put(made, "schedule", shorter)
        return made

    def _phases(self) -> Phases:
        yield "warm-up", 0
        for name, at in phases_of(self._rest):
            yield name, at + self.steps


def _check_fit(schedule: Schedule) -> None:
    """Raise if a schedule cannot be compressed by all warm-ups around it.

    Chained warm-ups compress the innermost schedule one after the other, the outermost first. Only that schedule is
    built: to build the chain again in each compressed form would take cubic time in the number of warm-ups.
    """
    chain: list[WithWarmup] = []
    inner = schedule
    while isinstance(inner, WithWarmup):
        chain.append(inner)
        inner = inner.schedule
    for warmup in chain:
        length = inner.length
        if length is not None and warmup.steps > length:
            _raise_misfit(schedule)
        shorter = inner._compressed(warmup.steps)
        if warmup is not chain[-1] and chain[-1].steps and shorter._is_constant and not inner._is_constant:
            _raise_misfit(schedule)
        inner = shorter
    for _, part in parts_of(inner):
        _check_fit(part)


def _raise_misfit(schedule: Schedule) -> None:
    """Raise the error of the warm-up that does not fit, by building the compressed schedules."""
    while isinstance(schedule, WithWarmup):
        schedule = schedule._rest
