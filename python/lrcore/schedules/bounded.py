"""Schedules that interpolate between two values and end at a given step."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import InitVar, dataclass, field, replace
from math import cos, pi
from typing import Any, Self

import numpy as np

from lrcore._messages import brief
from lrcore._ranges import NON_NEGATIVE
from lrcore.schedules import functions as fn
from lrcore.schedules.checks import Finite, Positive, Real, check_fields
from lrcore.schedules.compound import put
from lrcore.schedules.intervals import ends
from lrcore.schedules.schedule import Bounds, Floats, Schedule


class Bounded(Finite):
    """A schedule that ends after ``steps``; a dataclass with the fields ``start``, ``end`` and ``steps``."""

    __slots__ = ()

    start: float
    end: float

    @abstractmethod
    def _formula(self, step: Any) -> Any:
        """Return the value at a step, or an array of steps, before the end; rounding may exceed the two values."""

    def _value(self, step: float) -> Any:
        if step >= self.steps:
            return self.end
        return self._clamped(step)

    def _clamped(self, step: Any) -> Any:
        return fn.clamp(self._formula(step), self.start, self.end)

    def _values(self, steps: Any) -> Floats:
        if self.steps > fn.EXACT:
            return Schedule._values(self, steps)
        return fn.joined(steps, self.steps, self._clamped, lambda since: np.full(since.shape, self.end))

    def _bounds(self, first: float, last: float) -> Bounds:
        return ends(self, first, last, self.end)

    def _compressed(self, steps: int) -> Self:
        return replace(self, steps=self.steps - steps)  # type: ignore[type-var]


class Interpolation(Bounded):
    """``end + (start − end) · remaining``, with a remaining fraction that falls from 1 to 0."""

    __slots__ = ()

    @abstractmethod
    def _remaining(self, step: Any) -> Any:
        """Return the remaining fraction at a step, or an array of steps, before the end."""

    def _clamped(self, step: Any) -> Any:
        # A fraction of ``start`` cannot leave the interval from 0 to ``start``.
        return self.start * self._remaining(step) if self.end == 0.0 else Bounded._clamped(self, step)

    def _formula(self, step: Any) -> Any:
        remaining = self._remaining(step)
        return fn.where(remaining == 1.0, self.start, self.end + (self.start - self.end) * remaining)


@dataclass(frozen=True, slots=True, repr=False)
class Linear(Interpolation):
    """A straight line from one value to another.

    ``value(t) = start + (end − start) · min(t, steps) / steps``

    Args:
        start: The value at step 0, in [0, inf).
        end: The value from step ``steps`` on, in [0, inf).
        steps: The length in steps; 0 is at ``end`` at once.

    Raises:
        TypeError: If a value is not a number, or ``steps`` is not an integer.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> lr = schedules.Linear(0.1, 0.0, steps=4)
        >>> [lr(t) for t in (0, 1, 4, 100)]
        [0.1, 0.07500000000000001, 0.0, 0.0]

    Note:
        PyTorch's ``LinearLR`` takes factors of a base learning rate instead of values, and keeps the first one forever
        if ``total_iters`` is 0. optax' ``linear_schedule`` is the same; so is Keras' ``PolynomialDecay`` with power 1.
    """

    start: float
    end: float
    steps: int

    def _remaining(self, step: Any) -> Any:
        return (self.steps - step) / self.steps


@dataclass(frozen=True, slots=True, repr=False)
class Decay(Interpolation):
    """An interpolation that ends at 0 by default."""

    start: float
    steps: int
    end: float = 0.0


@dataclass(frozen=True, slots=True, repr=False)
class Polynomial(Decay):
    """A power of a straight line: with a power above 1 first steep, then flat.

    ``value(t) = end + (start − end) · (1 − min(t, steps) / steps)^power``

    Args:
        start: The value at step 0, in [0, inf).
        steps: The length in steps; 0 is at ``end`` at once.
        end: The value from step ``steps`` on, in [0, inf).
        power: The power, in (0, inf).

    Raises:
        TypeError: If a value is not a number, or ``steps`` is not an integer.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Polynomial(1.0, steps=10, power=2.0)(5)
        0.25

    References:
        Chen et al., *DeepLab* (2017), the "poly" policy.

    Note:
        PyTorch's ``PolynomialLR``, which ends at 0; Keras' ``PolynomialDecay``; optax' ``polynomial_schedule``;
        transformers' ``get_polynomial_decay_schedule_with_warmup``.
    """

    power: Positive = 1.0

    def _remaining(self, step: Any) -> Any:
        return fn.power((self.steps - step) / self.steps, self.power)


@dataclass(frozen=True, slots=True, repr=False)
class Cosine(Decay):
    """Half a cosine from one value to another: flat, steep, flat.

    ``value(t) = end + (start − end) · ((1 + cos(π · tᵏ / stepsᵏ)) / 2)^power`` with ``t`` at most ``steps``

    Args:
        start: The value at step 0, in [0, inf).
        steps: The length in steps; 0 is at ``end`` at once.
        end: The value from step ``steps`` on, in [0, inf).
        power: The exponent of the cosine, in (0, inf).
        k: The k of k-decay, in (0, inf): above 1 the values stay high for longer.
        end_share: Instead of ``end``: the final value as a fraction of ``start``, in [0, inf).

    Raises:
        TypeError: If a value is not a number, or ``steps`` is not an integer.
        ValueError: If one is out of range, or both ``end`` and ``end_share`` are given.

    Examples:
        >>> from lrcore import schedules
        >>> lr = schedules.Cosine(0.1, steps=100)
        >>> [round(lr(t), 3) for t in (0, 50, 100, 150)]
        [0.1, 0.05, 0.0, 0.0]
        >>> schedules.Cosine(0.1, steps=100, end_share=0.1).end
        0.010000000000000002

    References:
        Loshchilov & Hutter, *SGDR: Stochastic Gradient Descent with Warm Restarts* (2017), equation 5, one cycle. Zhang
        & Li, *k-decay* (2020).

    Note:
        PyTorch's ``CosineAnnealingLR`` and transformers' ``get_cosine_schedule_with_warmup`` rise again after the end;
        this schedule stays there, and :class:`CosineAnnealing` rises. Keras' ``CosineDecay`` and optax'
        ``cosine_decay_schedule`` take the end as a fraction of the start; optax' ``exponent`` is ``power``; timm's
        ``k_decay`` is ``k``.
    """

    power: Positive = 1.0
    k: Positive = 1.0
    end_share: InitVar[float | None] = None
    _plain: int = field(init=False, repr=False, compare=False)
    _plain_to_zero: int = field(init=False, repr=False, compare=False)

    def __post_init__(self, end_share: float | None) -> None:
        if end_share is not None:
            if self.end != 0.0:
                raise ValueError(f"Cosine: end or end_share, not both, got {brief(self.end)} and {end_share!r}")
            share = NON_NEGATIVE.check("Cosine: end_share", end_share)
            put(self, "end", share * NON_NEGATIVE.check("Cosine: start", self.start))
        check_fields(self)
        is_plain = self.power == self.k == 1.0 and self.steps <= fn.EXACT
        starts_exactly = self.end + (self.start - self.end) == self.start
        put(self, "_plain", self.steps if is_plain and starts_exactly else 0)
        put(self, "_plain_to_zero", self.steps if is_plain and self.end == 0.0 else 0)

    def _value(self, step: float) -> Any:
        # The most used schedule in its plainest form: the arithmetic of `_formula` without its function calls.
        if step < self._plain_to_zero:
            return self.start * ((1.0 + cos(pi * step / self.steps)) / 2.0)
        if step < self._plain:
            value = self.end + (self.start - self.end) * ((1.0 + cos(pi * step / self.steps)) / 2.0)
            if self.end < value < self.start:
                return value
        return Bounded._value(self, step)

    def _remaining(self, step: Any) -> Any:
        if self.k == 1.0:
            angle = math.pi * step / self.steps if self.steps <= fn.EXACT else math.pi * (step / self.steps)
        else:
            angle = math.pi * fn.power(step / self.steps, self.k)
        return fn.power((1.0 + fn.cos(angle)) / 2.0, self.power)


@dataclass(frozen=True, slots=True, repr=False)
class Tanh(Decay):
    """A hyperbolic tangent from one value to another: flat, steep, flat, as given by ``lower`` and ``upper``.

    ``value(t) = end + (start − end) · (1 − tanh(lower · (1 − p) + upper · p)) / 2`` with ``p = t / steps``

    At step 0 it is slightly below ``start``, and before the end slightly above ``end``.

    Args:
        start: The asymptote of the first values, in [0, inf).
        steps: The length in steps; 0 is at ``end`` at once.
        end: The value from step ``steps`` on, in [0, inf).
        lower: The argument of tanh at step 0.
        upper: The argument of tanh at the end, at least ``lower``.

    Raises:
        TypeError: If a value is not a number, or ``steps`` is not an integer.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> round(schedules.Tanh(1.0, steps=100)(70), 6)
        0.5

    References:
        Hsueh et al., *Stochastic Gradient Descent with Hyperbolic-Tangent Decay* (2019).

    Note:
        timm's ``TanhLRScheduler``, whose ``lb`` and ``ub`` are ``lower`` and ``upper``.
    """

    lower: Real = -7.0
    upper: Real = 3.0

    def __post_init__(self) -> None:
        check_fields(self)
        if not -math.inf < self.lower <= self.upper < math.inf:
            raise ValueError(f"Tanh: lower must be <= upper, got {brief(self.lower)} and {self.upper!r}")

    def _remaining(self, step: Any) -> Any:
        p = step / self.steps
        return 0.5 * (1.0 - fn.tanh(self.lower * (1.0 - p) + self.upper * p))


class REX(Decay):
    """Reflected exponential decay: first slow, then ever faster.

    ``value(t) = end + (start − end) · (1 − p) / (1 − p/2)`` with ``p = min(t, steps) / steps``

    Args:
        start: The value at step 0, in [0, inf).
        steps: The length in steps; 0 is at ``end`` at once.
        end: The value from step ``steps`` on, in [0, inf).

    Raises:
        TypeError: If a value is not a number, or ``steps`` is not an integer.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> round(schedules.REX(1.0, steps=100)(50), 6)
        0.666667

    References:
        Chen, Wolfe & Kyrillidis, *REX: Revisiting Budgeted Training with an Improved Schedule* (2022).
    """

    __slots__ = ()

    def _remaining(self, step: Any) -> Any:
        left = (self.steps - step) / self.steps
        return 2.0 * left / (1.0 + left)


class Sqrt(Decay):
    """One minus the square root: steep first, then ever flatter; a cool-down for long runs.

    ``value(t) = end + (start − end) · (1 − √(min(t, steps) / steps))``

    Args:
        start: The value at step 0, in [0, inf).
        steps: The length in steps; 0 is at ``end`` at once.
        end: The value from step ``steps`` on, in [0, inf).

    Raises:
        TypeError: If a value is not a number, or ``steps`` is not an integer.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Sqrt(1.0, steps=100)(25)
        0.5

    References:
        Hägele et al., *Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations* (2024).

    Note:
        transformers' ``get_wsd_schedule`` with ``decay_type="1-sqrt"``.
    """

    __slots__ = ()

    def _remaining(self, step: Any) -> Any:
        return 1.0 - fn.sqrt(step / self.steps)


@dataclass(frozen=True, slots=True, repr=False)
class LogLinear(Bounded):
    """An exponential from one value to another, linear in its logarithm: the same factor at every step.

    ``value(t) = start · (end / start)^(min(t, steps) / steps)``

    Args:
        start: The value at step 0, in (0, inf).
        end: The value from step ``steps`` on, in (0, inf).
        steps: The length in steps; 0 is at ``end`` at once.

    Raises:
        TypeError: If a value is not a number, or ``steps`` is not an integer.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.LogLinear(1.0, 0.25, steps=2)(1)
        0.5

    Note:
        fastai's ``SchedExp``; optax' ``exponential_decay`` from one value to another.
    """

    start: Positive
    end: Positive
    steps: int

    def _formula(self, step: Any) -> Any:
        ratio, p = self.end / self.start, step / self.steps
        if 1e-300 < ratio < 1e300:
            return self.start * fn.power_of(ratio, p)
        return fn.where(step == 0, self.start, fn.exp(math.log(self.start) * (1.0 - p) + math.log(self.end) * p))
