"""Schedules given piece by piece: factors at milestones, points, tables and functions."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lrcore._messages import brief
from lrcore._ranges import NON_NEGATIVE, Range, as_number, check_count
from lrcore._text import counted
from lrcore.schedules import functions as fn
from lrcore.schedules.checks import Finite, FloatableInt, Positive, PositiveInt, check_choice, check_fields
from lrcore.schedules.compound import put
from lrcore.schedules.intervals import ends
from lrcore.schedules.schedule import Bounds, Floats, Phases, Schedule
from lrcore.schedules.unbounded import LARGEST, Unbounded, limit_of, scaled


@dataclass(frozen=True, slots=True, repr=False)
class Step(Unbounded):
    """Multiplication by a factor every ``step_size`` steps.

    ``value(t) = start · gamma^⌊t / step_size⌋``

    Args:
        start: The value at step 0, in [0, inf).
        step_size: The number of steps between two multiplications, at least 1.
        gamma: The factor, in [0, inf).

    Raises:
        TypeError: If a value is not a number, or ``step_size`` is not an integer.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> lr = schedules.Step(1.0, step_size=10, gamma=0.5)
        >>> [lr(t) for t in (0, 9, 10, 29)]
        [1.0, 1.0, 0.5, 0.25]

    Note:
        PyTorch's ``StepLR``; Keras' ``ExponentialDecay`` with ``staircase=True``.
    """

    start: float
    step_size: PositiveInt
    gamma: float = 0.1

    def _value(self, step: Any) -> Any:
        return scaled(self.start, self.gamma, step // self.step_size)

    def _values(self, steps: Any) -> Floats:
        return np.full(steps.shape, self.start) if self.step_size > fn.EXACT else Unbounded._values(self, steps)

    def _bounds(self, first: float, last: float) -> Bounds:
        return ends(self, first, last, limit_of(self.start, self.gamma))


@dataclass(frozen=True, slots=True, repr=False)
class MultiStep(Schedule):
    """Multiplication by a factor at given steps.

    ``value(t) = start · gamma^(number of milestones ≤ t)``

    Args:
        start: The value before the first milestone, in [0, inf).
        milestones: Steps, in any order; a duplicate counts twice. A :meth:`~Schedule.warmup` does not move them.
        gamma: The factor, in [0, inf).

    Raises:
        TypeError: If a value is not a number, or a milestone is not an integer.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> lr = schedules.MultiStep(1.0, milestones=[30, 60], gamma=0.5)
        >>> [lr(t) for t in (0, 29, 30, 60)]
        [1.0, 1.0, 0.5, 0.25]

    References:
        He et al., *Deep Residual Learning* (2016).

    Note:
        PyTorch's ``MultiStepLR``; optax' ``piecewise_constant_schedule``, with a factor for each boundary.
    """

    start: float
    milestones: tuple[int, ...]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        check_fields(self)
        if isinstance(self.milestones, str) or not isinstance(self.milestones, Iterable):
            raise TypeError(f"MultiStep: milestones must be whole numbers, got {brief(self.milestones)}")
        counts = [check_count(f"MultiStep: milestones[{i}]", at) for i, at in enumerate(self.milestones)]
        put(self, "milestones", tuple(sorted(counts)))

    @property
    def length(self) -> int:
        """The last milestone."""
        return self.milestones[-1] if self.milestones else 0

    def _value(self, step: float) -> Any:
        return scaled(self.start, self.gamma, bisect_right(self.milestones, step))

    def _values(self, steps: Any) -> Any:
        levels = np.array([self.start, *(self._value(milestone) for milestone in self.milestones)])
        past = [min(milestone, fn.EXACT) for milestone in self.milestones]
        return levels[np.searchsorted(np.array(past, np.int64), steps, side="right")]

    def _bounds(self, first: float, last: float) -> Bounds:
        return ends(self, first, last)

    def _compressed(self, steps: int) -> Schedule:
        if self.milestones and self.milestones[0] < steps:
            raise ValueError(f"{brief(self)} has a milestone within a warm-up of {counted(steps, 'step')}")
        return MultiStep(self.start, tuple(milestone - steps for milestone in self.milestones), self.gamma)


_SHAPES = ("linear", "cosine", "constant")


@dataclass(frozen=True, slots=True, repr=False)
class Piecewise(Schedule):
    """Interpolation between points.

    Between the points ``(t₀, v₀)`` and ``(t₁, v₁)``, with ``p = (t − t₀) / (t₁ − t₀)``, the value is
    ``v₀ + (v₁ − v₀) · p`` (linear), ``v₁ + (v₀ − v₁) · (1 + cos πp) / 2`` (cosine), or ``v₀`` (constant). Before the
    first point it is the first value, from the last on the last.

    Args:
        points: Pairs of a step and a value, or a mapping, in ascending order. Steps can be fractional. Two points at
            one step are a jump to the second. A :meth:`~Schedule.warmup` does not move them.
        shape: ``"linear"``, ``"cosine"`` or ``"constant"``.

    Raises:
        TypeError: If a point is not a pair of numbers.
        ValueError: If there is no point, steps are not ascending, or a value is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> lr = schedules.Piecewise([(0, 0.0), (10, 1.0), (30, 0.5)])
        >>> [lr(t) for t in (0, 5, 10, 20, 99)]
        [0.0, 0.5, 1.0, 0.75, 0.5]

    Note:
        optax' ``piecewise_interpolate_schedule`` takes factors. Keras' ``PiecewiseConstantDecay`` changes one step
        after its boundary.
    """

    points: tuple[tuple[float, float], ...]
    shape: str = "linear"
    _at: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice(self, "shape", _SHAPES)
        put(self, "points", _points(self.points))
        put(self, "_at", tuple(at for at, _ in self.points))

    @property
    def length(self) -> int:
        """The first integer step at or after the last point."""
        return max(math.ceil(self._at[-1]), 0)

    def _value(self, step: float) -> float:
        after = bisect_right(self._at, step)
        if after == 0 or after == len(self._at) or self.shape == "constant":
            return self.points[max(after - 1, 0)][1]
        (begin, first), (end, last) = self.points[after - 1], self.points[after]
        return float(fn.clamp(self._between((step - begin) / (end - begin), first, last), first, last))

    def _between(self, p: Any, first: Any, last: Any) -> Any:
        if self.shape == "cosine":
            return last + (first - last) / 2.0 * (1.0 + fn.cos(math.pi * p))
        return first + (last - first) * p

    def _values(self, steps: Any) -> Floats:
        at, heights = np.array(self._at), np.array([height for _, height in self.points])
        if max(map(abs, self._at)) > fn.EXACT:
            return Schedule._values(self, steps)
        after = np.searchsorted(at, steps, side="right")
        values: Floats = heights[np.maximum(after - 1, 0)]
        if self.shape != "constant":
            between = (after > 0) & (after < len(at))
            after = after[between]
            first, last, begin, end = heights[after - 1], heights[after], at[after - 1], at[after]
            values_between = self._between((steps[between] - begin) / (end - begin), first, last)
            values[between] = np.clip(values_between, np.minimum(first, last), np.maximum(first, last))
        return values

    def _bounds(self, first: float, last: float) -> Bounds:
        within = [height for at, height in self.points if first <= at <= last]
        values = [self._value(first), *within]
        if self.shape != "constant" or last < self._at[-1]:
            values.append(self._value(last))
        return min(values), max(values)

    def _phases(self) -> Phases:
        for at in self._at:
            yield "point", at

    def _compressed(self, steps: int) -> Schedule:
        if any(0 < at < steps for at in self._at):
            raise ValueError(f"{brief(self)} has a point within a warm-up of {counted(steps, 'step')}")
        if self._at[0] < 0 < self._at[-1]:
            return Schedule._compressed(self, steps)
        return Piecewise(tuple((at - steps if at > 0 else at, height) for at, height in self.points), self.shape)


@dataclass(frozen=True, slots=True, repr=False)
class Table(Schedule):
    """A list of values, one for each step. The last one stays.

    ``value(t) = table[min(t, len(table) − 1)]``

    Args:
        table: The values, each in [0, inf): a sequence or a one-dimensional array, at least one.

    Raises:
        TypeError: If a value is not a number.
        ValueError: If one is out of range, or there is none.

    Examples:
        >>> from lrcore import schedules
        >>> lr = schedules.Table([0.1, 0.2, 0.05])
        >>> [lr(t) for t in (0, 1, 2, 3)]
        [0.1, 0.2, 0.05, 0.05]
    """

    table: tuple[float, ...]

    def __post_init__(self) -> None:
        table: Any = self.table
        if isinstance(table, np.ndarray):
            if table.ndim != 1:
                raise ValueError(f"Table: table must be an array of one dimension, got the shape {table.shape}")
            table = table.tolist()
        if isinstance(table, str | bytes) or not isinstance(table, Iterable):
            raise TypeError(f"Table: table must be numbers, got {brief(table)}")
        put(self, "table", tuple(NON_NEGATIVE.check(f"Table: table[{i}]", value) for i, value in enumerate(table)))
        if not self.table:
            raise ValueError("Table: table must be at least one number, got none")

    def __repr__(self) -> str:
        return f"Table({list(self.table)!r})"

    @property
    def length(self) -> int:
        """The number of values."""
        return len(self.table)

    def _value(self, step: float) -> float:
        return self.table[min(int(step), len(self.table) - 1)]

    def _values(self, steps: Any) -> Any:
        return np.array(self.table)[np.minimum(steps.astype(np.int64), len(self.table) - 1)]

    def _bounds(self, first: float, last: float) -> Bounds:
        end = len(self.table) - 1
        values = self.table[min(int(first), end) : (end if last >= end else int(last)) + 1]
        return min(values), max(values)


# A function of at most this many steps is evaluated to bound it.
_MOST_EVALUATED = 10**5


@dataclass(frozen=True, slots=True, repr=False)
class Lambda(Schedule):
    """Any function of the step.

    ``value(t) = function(t)``

    The function must be pure: the same value for the same step. The schedule can be pickled if the function can. It has
    no JSON, since nothing in a file is ever executed.

    Args:
        function: Takes the step as an int and returns a number in [0, inf).
        steps: The step from which on the value is constant, if there is one; the function is not called beyond it.

    Raises:
        TypeError: If it is not a function, or does not return a number.
        ValueError: If it returns a number that is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> lr = schedules.Lambda(lambda step: 0.1 / (1 + step), steps=9)
        >>> [lr(0), lr(1), lr(9), lr(99)]
        [0.1, 0.05, 0.01, 0.01]

    Note:
        PyTorch's ``LambdaLR`` multiplies the base learning rate by the result: ``Lambda(f) * lr``.
    """

    function: Callable[[int], float]
    steps: int | None = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"Lambda: function must be callable, got {brief(self.function)}")
        check_fields(self)

    @property
    def length(self) -> int | None:
        """The step from which on the value is constant."""
        return self.steps

    def _bounds(self, first: float, last: float) -> Bounds:
        if self.steps is None or self.steps - first > _MOST_EVALUATED:
            return Schedule._bounds(self, first, last)
        end = min(last, self.steps)
        values = [self._value(step) for step in range(int(min(first, end)), int(end) + 1)]
        return min(values), max(values)

    def _value(self, step: float) -> float:
        at = int(step) if self.steps is None else min(int(step), self.steps)
        return NON_NEGATIVE.check(f"Lambda: the value at step {at}", self.function(at))


@dataclass(frozen=True, slots=True, repr=False)
class Chebyshev(Finite):
    """The optimal step sizes of gradient descent on a quadratic, in an order that is stable.

    ``lr_j = 1 / ((largest + smallest)/2 − (largest − smallest)/2 · cos(π (j − ½) / steps))`` for ``j = 1 … steps``

    Together they minimise the worst-case error over all curvatures between the two, although most of them are larger
    than ``2 / largest``. In the fractal order large and small ones alternate, at every scale.

    Args:
        smallest: The smallest curvature of the loss, in (0, inf).
        largest: The largest curvature, at least ``smallest``.
        steps: The number of steps, at least 1; a power of 2 for the fractal order. Later values are ``1 / largest``.
        order: ``"fractal"``, ``"rising"`` or ``"falling"``.

    Raises:
        TypeError: If a value is not a number, or ``steps`` is not an integer.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Chebyshev(0.1, 1.0, steps=4).values(4).round(3).tolist()
        [7.449, 1.035, 2.647, 1.385]

    References:
        Young, *On Richardson's Method* (1953). Agarwal, Goel & Zhang, *Acceleration via Fractal Learning Rate
        Schedules* (2021).
    """

    smallest: Positive
    largest: Positive
    steps: FloatableInt
    order: str = "fractal"

    def __post_init__(self) -> None:
        check_fields(self)
        check_choice(self, "order", ("fractal", "rising", "falling"))
        if self.smallest > self.largest:
            raise ValueError(f"Chebyshev: largest must be >= smallest, {self.smallest!r}, got {brief(self.largest)}")
        if self.order == "fractal" and self.steps & (self.steps - 1):
            raise ValueError(f"Chebyshev: steps must be a power of 2 for the fractal order, got {self.steps}")

    def _value(self, step: float) -> float:
        if step >= self.steps:
            return 1.0 / self.largest
        angle = math.pi * (self._rank(int(step)) + 0.5) / self.steps
        return self._step_size(angle)

    def _step_size(self, angle: float) -> float:
        return min(1.0 / (self.smallest + (self.largest - self.smallest) * ((1.0 - math.cos(angle)) / 2.0)), LARGEST)

    def _rank(self, step: int) -> int:
        """Return the rank of a step's value, from the largest."""
        if self.order != "fractal":
            return step if self.order == "falling" else self.steps - 1 - step
        # Each doubling puts next to each rank its mirror image.
        rank, size = 0, 1
        for bit in reversed(range(self.steps.bit_length() - 1)):
            size *= 2
            if step >> bit & 1:
                rank = size - 1 - rank
        return rank

    def _bounds(self, first: float, last: float) -> Bounds:
        least = 1.0 / self.largest
        if first >= self.steps:
            return least, least
        if self.order == "fractal":
            return least, max(self._step_size(math.pi * 0.5 / self.steps), least)
        low, high = ends(self, first, min(last, self.steps - 1) if first <= self.steps - 1 else first)
        return (least if last > self.steps - 1 else low), high


def _points(given: Any) -> tuple[tuple[float, float], ...]:
    points: list[tuple[float, float]] = []
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"Piecewise: points must be pairs of a step and a value, got {brief(given)}")
    for i, point in enumerate(given.items() if isinstance(given, dict) else given):
        try:
            at, height = point
        except (TypeError, ValueError):
            raise TypeError(f"Piecewise: points[{i}] must be a step and a value, got {brief(point)}") from None
        place, number = _SPAN.check(f"Piecewise: points[{i}][0]", at), as_number(at)
        at = number if isinstance(number, int) else place
        if points and at < points[-1][0]:
            raise ValueError(f"Piecewise: points[{i}] is at step {at}, before the one that precedes it")
        points.append((at, NON_NEGATIVE.check(f"Piecewise: points[{i}][1]", height)))
    if not points:
        raise ValueError("Piecewise: points must be at least one, got none")
    return tuple(points)


# Within these steps the difference of two does not overflow.
_SPAN = Range(-(2.0**1000), 2.0**1000, closed=True)
