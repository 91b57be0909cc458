"""Cyclic schedules: warm restarts, triangles, and one cycle."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lrcore._messages import brief
from lrcore.schedules import functions as fn
from lrcore.schedules.checks import Delegating, FloatableInt, OneOrMore, PositiveInt, Share, check_choice, check_fields
from lrcore.schedules.compound import put
from lrcore.schedules.intervals import crosses, ends, span
from lrcore.schedules.piecewise import Piecewise
from lrcore.schedules.schedule import Bounds, Phases, Schedule
from lrcore.schedules.unbounded import Unbounded

_FAR = 2**1000


@dataclass(frozen=True, slots=True, repr=False)
class CosineRestarts(Schedule):
    """Cosine decays with warm restarts; each cycle can be longer and lower than the one before.

    In cycle ``i``, of ``Tᵢ = period · factorⁱ`` steps, the value after ``s`` of them is
    ``end + (start · decayⁱ − end) · (1 + cos(π · s / Tᵢ)) / 2``. With a warm-up of ``w`` steps each cycle first rises
    from ``end``, by a fraction ``(s + 1) / w``, and its cosine takes the remaining steps.

    Args:
        start: The peak of the first cycle, in [0, inf).
        period: The steps of the first cycle, in [1, inf); can be fractional.
        end: The value at the end of each cycle, in [0, inf).
        factor: The factor of the length from one cycle to the next, in [1, inf); can be fractional.
        decay: The factor of the peak from one cycle to the next, in [0, 1]; no peak is below ``end``.
        warmup_steps: The steps of the warm-up in each cycle, less than the period.

    Raises:
        TypeError: If a value is not a number.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> lr = schedules.CosineRestarts(1.0, period=2, factor=2, decay=0.5)
        >>> [round(lr(t), 3) for t in range(7)]
        [1.0, 0.5, 0.5, 0.427, 0.25, 0.073, 0.25]

    References:
        Loshchilov & Hutter, *SGDR: Stochastic Gradient Descent with Warm Restarts* (2017).

    Note:
        PyTorch's ``CosineAnnealingWarmRestarts``, whose ``T_mult`` is an integer; Keras' ``CosineDecayRestarts``,
        whose ``alpha`` is a fraction; timm's ``cycle_mul`` and ``cycle_decay``.
    """

    start: float
    period: OneOrMore
    end: float = 0.0
    factor: OneOrMore = 1.0
    decay: Share = 1.0
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.warmup_steps >= self.period:
            raise ValueError(
                f"CosineRestarts: warmup_steps must be less than the period, {self.period:g}, got {self.warmup_steps}"
            )

    def _value(self, step: float) -> float:
        cycle, since, length = self._cycle(step)
        return float(self._formula(since, self._peak(cycle), length))

    def _peak(self, cycle: float) -> float:
        return max(self.start * math.pow(self.decay, cycle), min(self.start, self.end))

    def _formula(self, since: Any, peak: Any, length: Any) -> Any:
        height = peak - self.end
        if self.warmup_steps:
            rise = self.end + height * fn.minimum((since + 1) / self.warmup_steps, 1.0)
            angle = math.pi * fn.maximum(since - self.warmup_steps, 0.0) / (length - self.warmup_steps)
        else:
            rise, angle = 0.0, math.pi * since / length
        fall = self.end + height * ((1.0 + fn.cos(angle)) / 2.0)
        return fn.where(since < self.warmup_steps, rise, fall)

    def _cycle(self, step: float) -> tuple[float, float, float]:
        """Return the index of a step's cycle, the steps since its begin, and its length."""
        step = min(step, _FAR)
        if self.factor == 1.0:
            return step // self.period, fn.remainder(step, self.period), self.period
        # Inverts the sum of a geometric series. The logarithm gives an estimate, the exact begins decide.
        cycle = max(int(math.log1p(step / self.period * (self.factor - 1.0)) / math.log(self.factor)) - 1, 0)
        while self._begin(cycle + 1) <= step:
            cycle += 1
        return cycle, step - self._begin(cycle), self.period * math.pow(self.factor, cycle)

    def _begin(self, cycle: int) -> float:
        begin = self.period * (math.pow(self.factor, cycle) - 1.0) / (self.factor - 1.0)
        # An integer step, such as 28 + 1.3 · 28, is hit despite rounding.
        return float(round(begin)) if abs(begin - round(begin)) <= 1e-12 * begin else begin

    def _values(self, steps: Any) -> Any:
        if self.factor == 1.0:
            cycle, since, length = steps // self.period, steps % self.period, np.full(steps.shape, self.period)
        else:
            last = int(self._cycle(steps.max(initial=0))[0])
            if last > steps.size + 1000:
                return Schedule._values(self, steps)
            begins = np.array([self._begin(cycle) for cycle in range(last + 1)])
            cycle = np.searchsorted(begins, steps, side="right") - 1
            since = steps - begins[cycle]
            length = self.period * fn.power_of(self.factor, cycle)
        peak = np.maximum(self.start * fn.power_of(self.decay, cycle), min(self.start, self.end))
        return self._formula(since, peak, length)

    def _bounds(self, first: float, last: float) -> Bounds:
        low, high = ends(self, first, last, self.end)
        # Rounding can put the first value of a cycle below a start that is far below the end.
        low = min(low, self.end, self.start, self.end + (self.start - self.end))
        cycle, since, length = self._cycle(first)
        top = max(self.warmup_steps - 1, 0)
        if self.start < self.end:
            return low, self.end if span(first, last) >= length - since else high
        if since <= top and span(first, last) >= top - since:
            return low, max(high, self._peak(cycle))
        return low, max(high, self._peak(cycle + 1)) if span(first, last) >= length - since else high


@dataclass(frozen=True, slots=True, repr=False)
class Cyclic(Unbounded):
    """Triangles between a low and a high value, of constant or decreasing height.

    In cycle ``c = ⌊t / (up + down)⌋``, with ``x`` from 0 up to 1 and down to 0 again,
    ``value = low + (high − low) · x · scale``, where ``scale`` is 1 (triangular), ``2^−c`` (triangular2) or ``gammaᵗ``
    (exp_range).

    Args:
        low: The lowest value, in [0, high].
        high: The highest value of the first triangle, in [0, inf).
        up: The steps of the rise, at least 1.
        down: The steps of the fall, at least 1; None is ``up``.
        mode: ``"triangular"``, ``"triangular2"`` or ``"exp_range"``.
        gamma: The factor per step of ``"exp_range"``, in [0, 1].

    For another scale, multiply by any schedule: ``Cyclic(0, 1, up) * scale + low``.

    Raises:
        TypeError: If a value is not a number, or a number of steps is not an integer.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> lr = schedules.Cyclic(0.1, 0.5, up=2, mode="triangular2")
        >>> [round(lr(t), 3) for t in range(7)]
        [0.1, 0.3, 0.5, 0.3, 0.1, 0.2, 0.3]

    References:
        Smith, *Cyclical Learning Rates for Training Neural Networks* (2017).

    Note:
        PyTorch's ``CyclicLR``, with ``base_lr``, ``max_lr``, ``step_size_up`` and ``step_size_down``.
    """

    low: float
    high: float
    up: PositiveInt
    down: PositiveInt | None = None
    mode: str = "triangular"
    gamma: Share = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        check_choice(self, "mode", ("triangular", "triangular2", "exp_range"))
        if self.low > self.high:
            raise ValueError(f"Cyclic: low must be in [0, {self.high!r}], the high value, got {brief(self.low)}")

    @property
    def _period(self) -> int:
        return self.up + (self.down or self.up)

    def _values(self, steps: Any) -> Any:
        return (Schedule if self._period > fn.EXACT else Unbounded)._values(self, steps)

    def _value(self, step: Any) -> Any:
        down, period = self.down or self.up, self._period
        cycle, since = step // period, step % period
        x = fn.where(since <= self.up, since / self.up, (period - since) / down)
        if self.mode == "triangular2":
            x = x * fn.power_of(0.5, fn.minimum(cycle, 2000))
        elif self.mode == "exp_range":
            x = x * fn.power_of(self.gamma, fn.minimum(step, fn.EXACT))
        return fn.clamp(self.low + (self.high - self.low) * x, self.low, self.high)

    def _bounds(self, first: float, last: float) -> Bounds:
        period = self._period
        low, high = ends(self, first, last, self.low)
        if crosses(first, last, period, 0):
            low = self.low
        top: float = self.up
        if self.mode == "exp_range" and 0.0 < self.gamma < 1.0:
            # The maximum of x · gammaˣ on the rise.
            top = min(top, -1.0 / math.log(self.gamma))
        if crosses(first, last, period, top):
            # Later maxima are not higher.
            high = max(high, self._value(max(-((int(top) - int(first)) // period), 0) * period + top))
        return low, high


@dataclass(frozen=True, slots=True, repr=False)
class OneCycle(Delegating):
    """One cycle: from a low value up to the peak, and down to a much lower value.

    The rise, from ``peak / div_factor`` to ``peak``, ends at step ``pct_start · steps − 1``; the fall, to
    ``peak / (div_factor · final_div_factor)``, at step ``steps − 1``. With three phases the fall first mirrors the
    rise, until ``2 · pct_start · steps − 2``. These ends can be fractional. The last value stays.

    Args:
        peak: The highest value, in [0, inf).
        steps: The length in steps, at least 1.
        pct_start: The fraction of the steps in the rise, in [0, 1]; at most 0.5 with three phases.
        shape: ``"cosine"`` or ``"linear"``.
        div_factor: The peak over the first value, in [1, inf).
        final_div_factor: The first value over the last one, in [1, inf).
        three_phase: Whether the fall has two phases.

    Raises:
        TypeError: If a value is not a number, or ``steps`` is not an integer.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> lr = schedules.OneCycle(1.0, steps=100)
        >>> [round(lr(t), 4) for t in (0, 29, 99, 500)]
        [0.04, 1.0, 0.0, 0.0]
        >>> momentum = lr.momentum(0.85, 0.95)
        >>> [round(momentum(t), 4) for t in (0, 29, 99)]
        [0.95, 0.85, 0.95]

    References:
        Smith & Topin, *Super-Convergence* (2019).

    Note:
        PyTorch's ``OneCycleLR``, which raises an error past its end, and divides by zero for ``total_steps=1`` and
        other short cycles. optax' ``cosine_onecycle_schedule`` has other ends.
    """

    peak: float
    steps: FloatableInt
    pct_start: Share = 0.3
    shape: str = "cosine"
    div_factor: OneOrMore = 25.0
    final_div_factor: OneOrMore = 1e4
    three_phase: bool = False
    _schedule: Piecewise = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_fields(self)
        check_choice(self, "shape", ("cosine", "linear"))
        if self.three_phase and self.pct_start > 0.5:
            raise ValueError(f"OneCycle: pct_start must be in [0, 0.5] with three phases, got {brief(self.pct_start)}")
        low = self.peak / self.div_factor
        put(self, "_schedule", self._through(low, self.peak, low, low / self.final_div_factor))

    def momentum(self, low: float = 0.85, high: float = 0.95) -> Schedule:
        """Return the schedule for the momentum: high where the learning rate is low, and low at its peak.

        Args:
            low: The value at the peak of the learning rate, in [0, inf).
            high: The value at step 0 and at the end, in [0, inf).
        """
        return self._through(high, low, high, high)

    def _through(self, first: float, middle: float, again: float, last: float) -> Piecewise:
        rise = self.pct_start * self.steps - 1.0
        points = [(0.0, first), (rise, middle)] if rise > 0.0 else [(rise, middle)]
        if self.three_phase:
            fall = 2.0 * self.pct_start * self.steps - 2.0
            points = [*points, (fall, again)] if fall >= rise else [(fall, again)]
        # A phase without steps is left out.
        end = self.steps - 1.0
        return Piecewise((*points, (end, last)) if end > points[-1][0] else tuple(points), self.shape)

    def _phases(self) -> Phases:
        return ((f"phase {i}", max(at, 0.0)) for i, (at, _) in enumerate(self._schedule.points[:-1], start=1))

    def _compressed(self, steps: int) -> Schedule:
        # If the rise would have no step left, all values are compressed instead.
        if self.pct_start * (self.steps - steps) <= 1.0:
            return Schedule._compressed(self, steps)
        return replace(self, steps=self.steps - steps)
