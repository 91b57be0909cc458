"""The basic courses that a hyperparameter takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from lrcore._ranges import NON_NEGATIVE, check_count
from lrcore.schedules.schedule import Schedule


def _check_numbers(schedule: Schedule, *names: str) -> None:
    for name in names:
        where = f"{type(schedule).__name__}: {name}"
        object.__setattr__(schedule, name, NON_NEGATIVE.check(where, getattr(schedule, name)))


def _check_count(schedule: Schedule, name: str, *, least: int) -> None:
    where = f"{type(schedule).__name__}: {name}"
    object.__setattr__(schedule, name, check_count(where, getattr(schedule, name), least=least))


@dataclass(frozen=True, slots=True)
class Constant(Schedule):
    """The same value at every step.

    ``value(t) = value``

    Args:
        value: The value, in [0, inf).

    Raises:
        TypeError: If the value is not a number.
        ValueError: If it is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Constant(0.1).warmup(2)(0)
        0.05

    Note:
        A plain number serves wherever a schedule does; this one can be combined. PyTorch's ``ConstantLR`` is something
        else: a factor for the first steps.
    """

    value: float

    def __post_init__(self) -> None:
        _check_numbers(self, "value")

    def _value(self, step: int) -> float:
        del step
        return self.value

    def _peak(self) -> float:
        return self.value


class _Finite(Schedule):
    """A course that is over after a number of steps; a dataclass with the field ``steps``."""

    __slots__ = ()

    if TYPE_CHECKING:
        start: float
        end: float
        steps: int

    def _peak(self) -> float:
        return max(self._value(0), self.end)

    @property
    def length(self) -> int:
        """The number of steps."""
        return self.steps

    def _shortened(self, steps: int) -> Self:
        return replace(self, steps=self.steps - steps)  # type: ignore[type-var]


@dataclass(frozen=True, slots=True)
class Linear(_Finite):
    """A straight line from one value to another.

    ``value(t) = start + (end − start) · min(t, steps) / steps``

    Args:
        start: The value at step 0, in [0, inf).
        end: The value from step ``steps`` on, in [0, inf).
        steps: The length in steps; 0 is at ``end`` at once.

    Raises:
        TypeError: If a value is not a number, or ``steps`` is not whole.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> rate = schedules.Linear(0.1, 0.0, steps=4)
        >>> [rate(t) for t in (0, 1, 4, 100)]
        [0.1, 0.07500000000000001, 0.0, 0.0]

    Note:
        PyTorch's ``LinearLR`` takes factors of a base rate in place of values, and keeps its first one for ever when
        ``total_iters`` is 0. Keras' ``PolynomialDecay`` with power 1 is the same course.
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _check_numbers(self, "start", "end")
        _check_count(self, "steps", least=0)

    def _value(self, step: int) -> float:
        if step >= self.steps:
            return self.end
        return _clamped(self.start + (self.end - self.start) * (step / self.steps), self.start, self.end)


@dataclass(frozen=True, slots=True)
class Cosine(_Finite):
    """Half a cosine from one value to another: flat, steep, flat.

    ``value(t) = end + (start − end) · (1 + cos(π · min(t, steps) / steps)) / 2``

    Args:
        start: The value at step 0, in [0, inf).
        steps: The length in steps; 0 is at ``end`` at once.
        end: The value from step ``steps`` on, in [0, inf).

    Raises:
        TypeError: If a value is not a number, or ``steps`` is not whole.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> rate = schedules.Cosine(0.1, steps=100)
        >>> [round(rate(t), 3) for t in (0, 50, 100, 150)]
        [0.1, 0.05, 0.0, 0.0]

    References:
        Loshchilov & Hutter, *SGDR: Stochastic Gradient Descent with Warm Restarts* (2017), equation 5, one cycle.

    Note:
        PyTorch's ``CosineAnnealingLR`` and transformers' ``get_cosine_schedule_with_warmup`` rise again past the end;
        this stays. Keras' ``CosineDecay`` takes its end as a share of the start.
    """

    start: float
    steps: int
    end: float = 0.0

    def __post_init__(self) -> None:
        _check_numbers(self, "start", "end")
        _check_count(self, "steps", least=0)

    def _value(self, step: int) -> float:
        if step >= self.steps:
            return self.end
        if step == 0:
            return self.start
        share = 0.5 * (1.0 + math.cos(math.pi * (step / self.steps)))
        return _clamped(self.end + (self.start - self.end) * share, self.start, self.end)


@dataclass(frozen=True, slots=True)
class Exponential(Schedule):
    """The value times a factor, at every step.

    ``value(t) = start · gamma^t``

    Args:
        start: The value at step 0, in [0, inf).
        gamma: The factor, in [0, inf).

    Raises:
        TypeError: If a value is not a number.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Exponential(0.1, gamma=0.5)(3)
        0.0125

    Note:
        PyTorch's ``ExponentialLR``; Keras' ``ExponentialDecay`` with ``decay_steps=1``. A factor above 1 that exceeds
        the largest number stays there.
    """

    start: float
    gamma: float

    def __post_init__(self) -> None:
        _check_numbers(self, "start", "gamma")

    def _value(self, step: int) -> float:
        return _scaled(self.start, self.gamma, step)

    def _peak(self) -> float:
        return _first_of_falling(self, self.start, self.gamma)


@dataclass(frozen=True, slots=True)
class Step(Schedule):
    """The value times a factor, every so many steps.

    ``value(t) = start · gamma^⌊t / step_size⌋``

    Args:
        start: The value at step 0, in [0, inf).
        step_size: The number of steps for which a value holds, at least 1.
        gamma: The factor, in [0, inf).

    Raises:
        TypeError: If a value is not a number, or ``step_size`` is not whole.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> rate = schedules.Step(1.0, step_size=10, gamma=0.5)
        >>> [rate(t) for t in (0, 9, 10, 29)]
        [1.0, 1.0, 0.5, 0.25]

    Note:
        PyTorch's ``StepLR``; Keras' ``ExponentialDecay`` with ``staircase=True``.
    """

    start: float
    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _check_numbers(self, "start", "gamma")
        _check_count(self, "step_size", least=1)

    def _value(self, step: int) -> float:
        return _scaled(self.start, self.gamma, step // self.step_size)

    def _peak(self) -> float:
        return _first_of_falling(self, self.start, self.gamma)


def _first_of_falling(schedule: Schedule, start: float, gamma: float) -> float:
    if gamma > 1.0 and start > 0.0:
        raise ValueError(f"{schedule!r} has no largest value: its gamma is more than 1")
    return start


def _clamped(value: float, start: float, end: float) -> float:
    """Return the value, but not beyond an end of its course by rounding."""
    low, high = (start, end) if start < end else (end, start)
    if low < value < high:
        return value
    return low if value <= low else high


def _scaled(start: float, gamma: float, times: int) -> float:
    """Return ``start · gamma^times``, at most the largest number."""
    try:
        factor = gamma**times
    except OverflowError:
        factor = 1.0 if gamma == 1.0 else 0.0 if gamma < 1.0 else math.inf
    if start == 0.0 or gamma == 0.0 or _SMALLEST_NORMAL <= factor <= _LARGEST:
        return min(start * factor, _LARGEST) if factor < math.inf else 0.0
    # The factor is no number, but the value may be one.
    logarithm = math.log(start) + min(times, 2**1000) * math.log(gamma)
    return math.exp(logarithm) if logarithm < _LOG_LARGEST else _LARGEST


_SMALLEST_NORMAL = 2.2250738585072014e-308
_LARGEST = 1.7976931348623157e308
_LOG_LARGEST = 709.78
