"""Factors that depend on a reported metric or on the gradient noise, such as :class:`ReduceOnPlateau`.

The schedule itself is still a pure function of the step, with a constant factor of 1. The optimizer keeps a tracker for
each occurrence of such a factor, and evaluates the schedule with the trackers' present factors in their places. So all
state is in the optimizer's state dict.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import abc
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from lrcore._messages import brief
from lrcore._ranges import NON_NEGATIVE, check_count
from lrcore.schedules.checks import Fraction, Share, check_choice, check_fields
from lrcore.schedules.compound import parts_of
from lrcore.schedules.schedule import Schedule
from lrcore.schedules.unbounded import Constant, Fixed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


class MetricFactor(Fixed):
    """A factor that a tracker updates; 1 by itself. It multiplies a schedule that is given to an optimizer."""

    __slots__ = ()

    # Whether it uses reported metrics, or else the gradient noise.
    _uses_reports: ClassVar[bool] = True

    _is_factor: ClassVar[bool] = True
    value = 1.0

    @abstractmethod
    def tracker(self) -> Tracker:
        """Return a new tracker, which takes the metric and computes the factor."""

    def _value(self, step: float) -> float:
        del step
        return 1.0  # which takes less time than to look up the class's value


class Tracker(ABC):
    """The present factor at one occurrence of a :class:`MetricFactor`, and the state that it is computed from."""

    __slots__ = ("factor", "rule")

    # For messages, and the attributes that are saved.
    _kind: ClassVar[str]
    _saved: ClassVar[tuple[str, ...]] = ("factor",)

    rule: MetricFactor

    def __init__(self, rule: MetricFactor) -> None:
        self.rule = rule
        self.factor = 1.0

    @abstractmethod
    def report(self, value: float) -> bool:
        """Take a value of the metric; return whether the factor changed."""

    def state(self) -> dict[str, float]:
        """Return the state as numbers."""
        return {name: getattr(self, name) for name in self._saved}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the state that :meth:`state` returned, or raise TypeError or ValueError and change nothing."""
        if not isinstance(state, abc.Mapping) or state.keys() != {*self._saved}:
            raise ValueError(f"the state of a {self._kind} has {', '.join(self._saved)}, got {brief(state)}")
        checked = {name: self._check(name, state[name]) for name in self._saved}
        for name, value in checked.items():
            setattr(self, name, value)

    def _check(self, name: str, value: Any) -> float:
        """Return a number of a saved state, or raise."""
        return NON_NEGATIVE.check(name, value)


@dataclass(frozen=True, slots=True, repr=False)
class ReduceOnPlateau(MetricFactor):
    """A factor that is reduced when a metric stops improving: ``schedule * ReduceOnPlateau(…)``.

    Every ``opt.report(loss)`` is compared with the best value so far. It is bad unless it is better by more than the
    threshold. After more than ``patience`` bad values in a row, the factor is multiplied by ``factor``, and the next
    ``cooldown`` values are not counted. Each hyperparameter of each group has a tracker of its own, from when the
    schedule is assigned until it is replaced.

    Args:
        factor: The factor of a reduction, in [0, 1).
        patience: The number of bad values in a row without a reduction.
        mode: ``"min"`` if a better metric is smaller, ``"max"`` if it is larger.
        threshold: The minimum improvement, in [0, inf).
        relative: Whether the threshold is relative to the magnitude of the best value, or else absolute.
        cooldown: The number of values after a reduction that are not counted as bad.
        floor: The smallest factor, in [0, 1]. For a smallest learning rate: ``(a * ReduceOnPlateau()).at_least(x)``.
        convention: ``"torch"``, as above, or ``"keras"``: the ``patience``-th bad value already reduces, one earlier,
            and the last value of a cool-down counts.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is out of range.

    Examples:
        >>> import lrcore, numpy as np
        >>> from lrcore import schedules
        >>> opt = lrcore.SGD(np.zeros(2), lr=schedules.Constant(0.5) * schedules.ReduceOnPlateau(0.5, patience=1))
        >>> for loss in (1.0, 0.8, 0.8, 0.8):
        ...     changed = opt.report(loss)
        >>> opt.lr
        0.25

        Without an optimizer:

        >>> tracker = schedules.ReduceOnPlateau(0.5, patience=0).tracker()
        >>> tracker.report(1.0), tracker.report(1.0), tracker.factor
        (False, True, 0.5)

    Note:
        PyTorch's ``ReduceLROnPlateau`` overwrites the learning rate of the groups, so it does not combine with another
        schedule, and its relative threshold has the wrong sign for negative metrics. A NaN is bad in both.
    """

    factor: Fraction = 0.1
    patience: int = 10
    mode: str = "min"
    threshold: float = 1e-4
    relative: bool = True
    # The common name, although it hides the method: a factor of 1 has nothing to cool down from.
    cooldown: int = 0  # type: ignore[assignment]
    floor: Share = 0.0
    convention: str = "torch"

    def __post_init__(self) -> None:
        check_fields(self)
        check_choice(self, "mode", ("min", "max"))
        check_choice(self, "convention", ("torch", "keras"))

    def tracker(self) -> PlateauTracker:
        """Return a new tracker, which takes the metric and computes the factor."""
        return PlateauTracker(self)


class PlateauTracker(Tracker):
    """The state of a :class:`ReduceOnPlateau`.

    Attributes:
        factor: The present factor of the schedule.
        best: The best value so far, or NaN before the first.
        bad: The number of bad values in a row.
        cooling: The number of values that will not be counted.
    """

    __slots__ = ("bad", "best", "cooling")

    _kind = "plateau"
    _saved = ("factor", "best", "bad", "cooling")

    rule: ReduceOnPlateau

    def __init__(self, rule: ReduceOnPlateau) -> None:
        super().__init__(rule)
        self.best = math.nan
        self.bad = 0
        self.cooling = 0

    def report(self, value: float) -> bool:
        """Take a value of the metric; return whether the factor was reduced."""
        rule = self.rule
        keras = rule.convention == "keras"
        if keras and self.cooling:
            self.cooling, self.bad = self.cooling - 1, 0
        if self._is_better(value):
            self.best, self.bad = value, 0
        elif not (keras and self.cooling):
            self.bad += 1
        if not keras and self.cooling:
            self.cooling, self.bad = self.cooling - 1, 0
        if self.bad < rule.patience + (not keras) or not self.bad:
            return False
        before = self.factor
        self.factor = max(before * rule.factor, min(before, rule.floor))
        self.cooling, self.bad = rule.cooldown, 0
        return self.factor != before

    def _is_better(self, value: float) -> bool:
        if math.isnan(self.best):
            # PyTorch and Keras begin with an infinite best value.
            return value < math.inf if self.rule.mode == "min" else value > -math.inf
        margin = self.rule.threshold
        if self.rule.relative:
            margin = margin * abs(self.best) if math.isfinite(self.best) else 0.0
        return value < self.best - margin if self.rule.mode == "min" else value > self.best + margin

    def _check(self, name: str, value: Any) -> float:
        if name in ("bad", "cooling"):
            return check_count(name, value)
        if name == "best":
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"best must be a number, got {brief(value)}")
            return float(value)
        return super()._check(name, value)


@dataclass(frozen=True, slots=True, repr=False)
class AdaScale(MetricFactor):
    """The gain of a step on several micro-batches over a step on one: ``schedule * AdaScale()``.

    With the variance ``σ²`` of a micro-batch's gradient and the squared norm ``μ²`` of the true gradient, a step on
    ``S`` micro-batches has the factor ``(σ² + μ²) / (σ²/S + μ²)``: close to S if gradients are mostly noise, close to 1
    if they are not. So a schedule for single micro-batches works for any number of them. The optimizer needs the option
    ``noise_scale``, and steps of at least two micro-batches; until then the factor is 1.

    Examples:
        >>> import lrcore, numpy as np
        >>> from lrcore import schedules
        >>> lr = schedules.Constant(0.1) * schedules.AdaScale()
        >>> opt = lrcore.SGD(np.zeros(2), lr=lr, noise_scale=lrcore.NoiseScale(batch=8))
        >>> for grad in ([1.0, 1.0], [3.0, 1.0]):
        ...     count = opt.accumulate(np.array(grad))
        >>> info = opt.step()
        >>> round(opt.lr, 4)
        0.12

    References:
        Johnson, Agrawal, Gu & Guestrin, *AdaScale SGD* (2020), equation 4.

    Note:
        In the paper a step advances the schedule by the factor. Here it advances by one: use a shorter schedule.
    """

    _uses_reports: ClassVar[bool] = False

    def tracker(self) -> GainTracker:
        """Return a new tracker, which takes gains."""
        return GainTracker(self)


class GainTracker(Tracker):
    """The present gain of :class:`AdaScale`."""

    __slots__ = ()

    _kind = "gain"

    def report(self, value: float) -> bool:
        """Take a gain; return whether it changed."""
        before, self.factor = self.factor, value
        return value != before


def metric_factors(value: Any) -> list[MetricFactor]:
    """Return the metric factors in a hyperparameter, in the order of :func:`replace_factors`."""
    found: list[MetricFactor] = []

    def note(part: MetricFactor) -> MetricFactor:
        found.append(part)
        return part

    replace_factors(value, note)
    return found


def replace_factors(value: Any, function: Callable[[MetricFactor], Schedule]) -> Any:
    """Return a hyperparameter with the result of a function in the place of each metric factor.

    The order is that of the fields, depth first. A part without changes stays the same object.
    """
    if isinstance(value, MetricFactor):
        return function(value)
    if isinstance(value, tuple):
        return tuple([replace_factors(part, function) for part in value])
    if not isinstance(value, Schedule):
        return value
    replaced = [(name, part, replace_factors(part, function)) for name, part in parts_of(value)]
    changed = {name: new for name, part, new in replaced if new is not part}
    return replace(value, **changed) if changed else value  # type: ignore[type-var]


def bind_trackers(value: Any, trackers: Sequence[Tracker]) -> tuple[Any, list[Tracker]]:
    """Return a hyperparameter whose metric factors are instances of its own, and the tracker of each, in order.

    An instance that one of the given trackers belongs to keeps it. If it occurs again, the second occurrence gets a
    copy of the tracker.
    """
    known = {id(tracker.rule): tracker for tracker in trackers}
    bound: list[Tracker] = []

    def bind(rule: MetricFactor) -> MetricFactor:
        tracker = known.get(id(rule))
        if tracker is None or any(tracker is other for other in bound):
            state = None if tracker is None else tracker.state()
            rule = copy(rule)
            tracker = rule.tracker()
            if state is not None:
                tracker.restore(state)
        bound.append(tracker)
        return tracker.rule

    return replace_factors(value, bind), bound


def apply_factors(value: Any, factors: Iterable[float]) -> Any:
    """Return a hyperparameter with the present factors, in order, in the places of its metric factors."""
    present = iter(factors)
    return replace_factors(value, lambda _: Constant(next(present)))
