"""Courses without an end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lrcore._messages import brief
from lrcore._ranges import POSITIVE
from lrcore.schedules import functions as fn
from lrcore.schedules.checks import MOST_STEPS, check_counts, check_numbers
from lrcore.schedules.intervals import crosses, ends
from lrcore.schedules.schedule import Schedule

if TYPE_CHECKING:
    from lrcore.schedules.schedule import Floats


@dataclass(frozen=True, slots=True, repr=False)
class Constant(Schedule):
    """The same value at every step.

    ``value(t) = value``

    Picture: docs/gallery/Constant.png

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

    @property
    def _is_constant(self) -> bool:
        return True

    def __post_init__(self) -> None:
        check_numbers(self, "value")

    def _value(self, step: float) -> float:
        del step
        return self.value

    def _values(self, steps: Any) -> Floats:
        return np.full(steps.shape, self.value)

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        del first, last
        return self.value, self.value


class Endless(Schedule):
    """A course by one formula for every step, the same for a number and an array."""

    __slots__ = ()

    def _values(self, steps: Any) -> Floats:
        values: Floats = np.asarray(self._value(steps), np.float64)
        return values


@dataclass(frozen=True, slots=True, repr=False)
class Exponential(Endless):
    """The value times a factor, at every step or smoothly over so many.

    ``value(t) = start · gamma^(t / steps)``

    Picture: docs/gallery/Exponential.png

    Args:
        start: The value at step 0, in [0, inf).
        gamma: The factor, in [0, inf).
        steps: After how many steps it has been applied once, in (0, inf).

    Raises:
        TypeError: If a value is not a number.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Exponential(0.1, gamma=0.5)(3)
        0.0125

    Note:
        PyTorch's ``ExponentialLR``; Keras' ``ExponentialDecay``, whose ``decay_steps`` is ``steps``; optax'
        ``exponential_decay``. A factor above 1 that exceeds the largest number stays there.
    """

    start: float
    gamma: float
    steps: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self, "start", "gamma")
        check_numbers(self, "steps", allowed=POSITIVE)

    def _value(self, step: Any) -> Any:
        return scaled(self.start, self.gamma, step if self.steps == 1.0 else _over(step, self.steps))

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        return ends(self, first, last, limit_of(self.start, self.gamma))


@dataclass(frozen=True, slots=True, repr=False)
class InverseTime(Endless):
    """The value divided by one more after every so many steps.

    ``value(t) = start / (1 + gamma · t / steps)``

    Picture: docs/gallery/InverseTime.png

    Args:
        start: The value at step 0, in [0, inf).
        gamma: How much is added to the divisor, in [0, inf).
        steps: After how many steps it is added once, in (0, inf).

    Raises:
        TypeError: If a value is not a number.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.InverseTime(1.0, gamma=1.0, steps=10)(30)
        0.25

    References:
        Robbins & Monro, *A Stochastic Approximation Method* (1951).

    Note:
        Keras' ``InverseTimeDecay``, whose ``decay_rate`` is ``gamma``.
    """

    start: float
    gamma: float
    steps: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self, "start", "gamma")
        check_numbers(self, "steps", allowed=POSITIVE)

    def _value(self, step: Any) -> Any:
        return self.start / (1.0 + self.gamma * fn.minimum(_over(step, self.steps), LARGEST))

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        return ends(self, first, last, 0.0 if self.gamma else self.start)


@dataclass(frozen=True, slots=True, repr=False)
class InverseSqrt(Endless):
    """The value over the square root of the time.

    ``value(t) = start · √timescale / √(t + timescale)``

    Picture: docs/gallery/InverseSqrt.png

    Args:
        start: The value at step 0, in [0, inf).
        timescale: After how many steps the square has halved, in (0, inf).

    Raises:
        TypeError: If a value is not a number.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.InverseSqrt(1.0, timescale=100)(300)
        0.5

    References:
        Raffel et al., *T5* (2020); Zhai et al., *Scaling Vision Transformers* (2022).

    Note:
        transformers' ``get_inverse_sqrt_schedule`` begins with a warm-up from 0, whose steps count in ``t``.
    """

    start: float
    timescale: float

    def __post_init__(self) -> None:
        check_numbers(self, "start")
        check_numbers(self, "timescale", allowed=POSITIVE)

    def _value(self, step: Any) -> Any:
        return self.start / fn.sqrt(1.0 + _over(step, self.timescale))

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        return ends(self, first, last, 0.0)


@dataclass(frozen=True, slots=True, repr=False)
class Noam(Endless):
    """The schedule of the first transformer: up on a line, down by the inverse square root.

    ``value(t) = factor · d_model^−½ · min((t + 1)^−½, (t + 1) · warmup_steps^−1.5)``

    Picture: docs/gallery/Noam.png

    Args:
        d_model: The width of the model, in (0, inf).
        warmup_steps: The steps of the rise, at least 1.
        factor: What all is multiplied by, in [0, inf).

    Raises:
        TypeError: If a value is not a number, or ``warmup_steps`` is not whole.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> rate = schedules.Noam(512, warmup_steps=4000)
        >>> f"{rate(3999):.3e}", rate.maximum == rate(3999)
        ('6.988e-04', True)

    References:
        Vaswani et al., *Attention Is All You Need* (2017), equation 3, whose first step is 1.
    """

    d_model: float
    warmup_steps: int
    factor: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self, "d_model", allowed=POSITIVE)
        check_counts(self, "warmup_steps", least=1, most=MOST_STEPS)
        check_numbers(self, "factor")

    def _value(self, step: Any) -> Any:
        t = step + 1
        rise, fall = _over(t, float(self.warmup_steps)) / math.sqrt(self.warmup_steps), 1.0 / fn.sqrt(_over(t, 1.0))
        return self.factor / math.sqrt(self.d_model) * fn.minimum(rise, fall)

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        low, high = ends(self, first, last, 0.0)
        return low, max(high, self._value(min(max(self.warmup_steps - 1, first), last)))


@dataclass(frozen=True, slots=True, repr=False)
class CosineAnnealing(Endless):
    """A cosine between two values, for ever.

    ``value(t) = low + (high − low) · (1 + cos(2π · t / period)) / 2``

    Picture: docs/gallery/CosineAnnealing.png

    Args:
        high: The value at step 0 and after every period, in [0, inf).
        period: The steps from one to the next, in (0, inf); need not be whole.
        low: The value between, in [0, high].

    Raises:
        TypeError: If a value is not a number.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> rate = schedules.CosineAnnealing(1.0, period=4)
        >>> [round(rate(t), 6) for t in range(6)]
        [1.0, 0.5, 0.0, 0.5, 1.0, 0.5]

    Note:
        What PyTorch's ``CosineAnnealingLR`` does past ``T_max``, which is half a period, and transformers' cosine.
        :class:`Cosine` stays at its end, :class:`CosineRestarts` jumps back.
    """

    high: float
    period: float
    low: float = 0.0

    def __post_init__(self) -> None:
        check_numbers(self, "high", "low")
        check_numbers(self, "period", allowed=POSITIVE)
        if self.low > self.high:
            raise ValueError(
                f"CosineAnnealing: low must be in [0, {self.high!r}], the high value, got {brief(self.low)}"
            )

    def _value(self, step: Any) -> Any:
        angle = math.pi * fn.remainder(step, self.period) / (self.period / 2.0)
        return fn.clamp(self.low + (self.high - self.low) * ((1.0 + fn.cos(angle)) / 2.0), self.low, self.high)

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        low, high = ends(self, first, last, self.low)
        top = self.high if crosses(first, last, self.period, 0.0) else high
        return self.low if crosses(first, last, self.period, self.period / 2.0) else low, top


def limit_of(start: float, gamma: float) -> float:
    """Return what ``start · gamma^t`` tends to."""
    if start == 0.0 or gamma == 1.0:
        return start
    return math.inf if gamma > 1.0 else 0.0


def scaled(start: float, gamma: float, times: Any) -> Any:
    """Return ``start · gamma^times``, at most the largest number."""
    if isinstance(times, np.ndarray):
        return _scaled_array(start, gamma, times)
    if times == 0 or start == 0.0 or gamma == 0.0:
        return start if times == 0 else 0.0
    try:
        factor = math.pow(gamma, times)
    except OverflowError:
        factor = 1.0 if gamma == 1.0 else math.inf
    if SMALLEST_NORMAL <= factor <= LARGEST:
        return min(start * factor, LARGEST)
    # The factor is no number, but the value may be one.
    logarithm = math.log(start) + min(times, 2**1000) * math.log(gamma)
    return math.exp(logarithm) if logarithm < _LOG_LARGEST else LARGEST


def _scaled_array(start: float, gamma: float, times: Any) -> Any:
    if start == 0.0 or gamma == 0.0:
        return np.where(times == 0, start, 0.0)
    factor = fn.power_of(gamma, times)
    is_number = (factor >= SMALLEST_NORMAL) & (factor <= LARGEST)
    values = np.minimum(start * np.where(is_number, factor, 0.0), LARGEST)
    if not is_number.all():
        logarithm = math.log(start) + times[~is_number] * math.log(gamma)
        values[~is_number] = np.where(logarithm < _LOG_LARGEST, fn.exp(np.minimum(logarithm, _LOG_LARGEST)), LARGEST)
    return np.where(times == 0, start, values)


def _over(step: Any, steps: float) -> Any:
    """Return a quotient, infinite where the step is too large for a number."""
    if isinstance(step, int) and step > _LARGEST_INT:
        return math.inf
    return step / steps


SMALLEST_NORMAL = 2.2250738585072014e-308
LARGEST = 1.7976931348623157e308
_LARGEST_INT = int(LARGEST)
_LOG_LARGEST = 709.78
