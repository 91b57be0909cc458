"""Schedules without an end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lrcore._messages import brief
from lrcore.schedules import functions as fn
from lrcore.schedules.checks import Checked, FloatableInt, Positive, check_fields
from lrcore.schedules.intervals import crosses, ends

if TYPE_CHECKING:
    from lrcore.schedules.schedule import Bounds, Floats


class Fixed(Checked):
    """A schedule with the same value at every step, its attribute ``value``."""

    __slots__ = ()

    _is_constant: ClassVar[bool] = True
    value: float

    def _value(self, step: float) -> float:
        del step
        return self.value

    def _values(self, steps: Any) -> Floats:
        return np.full(steps.shape, self.value)

    def _bounds(self, first: float, last: float) -> Bounds:
        del first, last
        return self.value, self.value


@dataclass(frozen=True, slots=True, repr=False)
class Constant(Fixed):
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
        A plain number works wherever a schedule does; a Constant can be combined. PyTorch's ``ConstantLR`` is a factor
        for the first steps.
    """

    value: float


class Unbounded(Checked):
    """A schedule with one formula for every step, whose ``_value`` also takes an array."""

    __slots__ = ()

    def _values(self, steps: Any) -> Any:
        return np.asarray(self._value(steps), np.float64)


@dataclass(frozen=True, slots=True, repr=False)
class GammaDecay(Unbounded):
    """A decay by a factor or divisor ``gamma`` every ``steps`` steps."""

    start: float
    gamma: float
    steps: Positive = 1.0


class Exponential(GammaDecay):
    """Multiplication by a factor, at every step or smoothly over several.

    ``value(t) = start · gamma^(t / steps)``

    Args:
        start: The value at step 0, in [0, inf).
        gamma: The factor, in [0, inf).
        steps: The number of steps for one multiplication, in (0, inf).

    Raises:
        TypeError: If a value is not a number.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Exponential(0.1, gamma=0.5)(3)
        0.0125

    Note:
        PyTorch's ``ExponentialLR``; Keras' ``ExponentialDecay``, whose ``decay_steps`` is ``steps``; optax'
        ``exponential_decay``. Values are limited to the largest finite number.
    """

    __slots__ = ()

    def _value(self, step: Any) -> Any:
        return scaled(self.start, self.gamma, step if self.steps == 1.0 else _over(step, self.steps))

    def _bounds(self, first: float, last: float) -> Bounds:
        return ends(self, first, last, limit_of(self.start, self.gamma))


class InverseTime(GammaDecay):
    """Inverse-time decay: the value is divided by a number that grows linearly with the step.

    ``value(t) = start / (1 + gamma · t / steps)``

    Args:
        start: The value at step 0, in [0, inf).
        gamma: The increment of the divisor, in [0, inf).
        steps: The number of steps for one increment, in (0, inf).

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

    __slots__ = ()

    def _value(self, step: Any) -> Any:
        return self.start / (1.0 + self.gamma * fn.minimum(_over(step, self.steps), LARGEST))

    def _bounds(self, first: float, last: float) -> Bounds:
        return ends(self, first, last, 0.0 if self.gamma else self.start)


@dataclass(frozen=True, slots=True, repr=False)
class InverseSqrt(Unbounded):
    """Division by the square root of the step.

    ``value(t) = start · √timescale / √(t + timescale)``

    Args:
        start: The value at step 0, in [0, inf).
        timescale: The number of steps after which the square of the value has halved, in (0, inf).

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
        transformers' ``get_inverse_sqrt_schedule`` begins with a warm-up from 0, whose steps are included in ``t``.
    """

    start: float
    timescale: Positive

    def _value(self, step: Any) -> Any:
        return self.start / fn.sqrt(1.0 + _over(step, self.timescale))

    def _bounds(self, first: float, last: float) -> Bounds:
        return ends(self, first, last, 0.0)


@dataclass(frozen=True, slots=True, repr=False)
class Noam(Unbounded):
    """The schedule of the original transformer: a linear warm-up, then an inverse square root.

    ``value(t) = factor · d_model^−½ · min((t + 1)^−½, (t + 1) · warmup_steps^−1.5)``

    Args:
        d_model: The width of the model, in (0, inf).
        warmup_steps: The steps of the warm-up, at least 1.
        factor: A factor of all values, in [0, inf).

    Raises:
        TypeError: If a value is not a number, or ``warmup_steps`` is not an integer.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> lr = schedules.Noam(512, warmup_steps=4000)
        >>> f"{lr(3999):.3e}", lr.maximum == lr(3999)
        ('6.988e-04', True)

    References:
        Vaswani et al., *Attention Is All You Need* (2017), equation 3, whose first step is 1.
    """

    d_model: Positive
    warmup_steps: FloatableInt
    factor: float = 1.0

    def _value(self, step: Any) -> Any:
        t = step + 1
        rise, fall = _over(t, float(self.warmup_steps)) / math.sqrt(self.warmup_steps), 1.0 / fn.sqrt(_over(t, 1.0))
        return self.factor / math.sqrt(self.d_model) * fn.minimum(rise, fall)

    def _bounds(self, first: float, last: float) -> Bounds:
        low, high = ends(self, first, last, 0.0)
        return low, max(high, self._value(min(max(self.warmup_steps - 1, first), last)))


@dataclass(frozen=True, slots=True, repr=False)
class CosineAnnealing(Unbounded):
    """A cosine between two values, forever.

    ``value(t) = low + (high − low) · (1 + cos(2π · t / period)) / 2``

    Args:
        high: The value at step 0 and after every period, in [0, inf).
        period: The steps of a period, in (0, inf); can be fractional.
        low: The value in the middle of a period, in [0, high].

    Raises:
        TypeError: If a value is not a number.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> lr = schedules.CosineAnnealing(1.0, period=4)
        >>> [round(lr(t), 6) for t in range(6)]
        [1.0, 0.5, 0.0, 0.5, 1.0, 0.5]

    Note:
        PyTorch's ``CosineAnnealingLR``, whose ``T_max`` is half a period, and transformers' cosine, past their end.
        :class:`Cosine` stays at its end, :class:`CosineRestarts` jumps back to the top.
    """

    high: float
    period: Positive
    low: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.low > self.high:
            raise ValueError(
                f"CosineAnnealing: low must be in [0, {self.high!r}], the high value, got {brief(self.low)}"
            )

    def _value(self, step: Any) -> Any:
        angle = math.pi * fn.remainder(step, self.period) / (self.period / 2.0)
        return fn.clamp(self.low + (self.high - self.low) * ((1.0 + fn.cos(angle)) / 2.0), self.low, self.high)

    def _bounds(self, first: float, last: float) -> Bounds:
        low, high = ends(self, first, last, self.low)
        top = self.high if crosses(first, last, self.period, 0.0) else high
        return self.low if crosses(first, last, self.period, self.period / 2.0) else low, top


def limit_of(start: float, gamma: float) -> float:
    """Return the limit of ``start · gamma^t``."""
    if start == 0.0 or gamma == 1.0:
        return start
    return math.inf if gamma > 1.0 else 0.0


def scaled(start: float, gamma: float, times: Any) -> Any:
    """Return ``start · gamma^times``, limited to the largest finite number."""
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
    # The factor overflows or underflows, but the value may not.
    logarithm = math.log(start) + min(times, 2**1000) * math.log(gamma)
    return math.exp(logarithm) if logarithm < _LOG_LARGEST else LARGEST


def _scaled_array(start: float, gamma: float, times: Any) -> Any:
    if start == 0.0 or gamma == 0.0:
        return np.where(times == 0, start, 0.0)
    factor = fn.power_of(gamma, times)
    is_normal = (factor >= SMALLEST_NORMAL) & (factor <= LARGEST)
    values = np.minimum(start * np.where(is_normal, factor, 0.0), LARGEST)
    if not is_normal.all():
        logarithm = math.log(start) + times[~is_normal] * math.log(gamma)
        values[~is_normal] = np.where(logarithm < _LOG_LARGEST, fn.exp(np.minimum(logarithm, _LOG_LARGEST)), LARGEST)
    return np.where(times == 0, start, values)


def _over(step: Any, steps: float) -> Any:
    """Return the quotient, or inf if the step is too large for a float."""
    if isinstance(step, int) and step > _LARGEST_INT:
        return math.inf
    return step / steps


SMALLEST_NORMAL = 2.2250738585072014e-308
LARGEST = 1.7976931348623157e308
_LARGEST_INT = int(LARGEST)
_LOG_LARGEST = 709.78
