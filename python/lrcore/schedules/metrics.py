"""Factors that follow what a training reports: a loss that no longer falls.

A schedule is a pure function of the step, and stays one here: what was reported is kept by the optimizer, which puts
the present factor in the place of each occurrence of such a schedule. So all that it does is part of the state dict.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import abc
from copy import copy
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lrcore._messages import brief
from lrcore._ranges import FRACTION, NON_NEGATIVE, SHARE, check_count
from lrcore.schedules.checks import check_counts, check_flags, check_numbers, check_word
from lrcore.schedules.schedule import Schedule
from lrcore.schedules.unbounded import Constant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from lrcore.schedules.schedule import Floats


class Feedback(Schedule):
    """A factor that follows reports; 1 by itself. Multiply it with a schedule and give that to an optimizer."""

    __slots__ = ()

    # Whether it follows what is reported; if not, the noise of the gradient.
    _hears_reports: ClassVar[bool] = True

    @property
    def _is_constant(self) -> bool:
        return True

    @property
    def _is_factor(self) -> bool:
        return True

    @abstractmethod
    def tracker(self) -> Tracker:
        """Return a new tracker, which takes reports and knows the present factor."""

    def _value(self, step: float) -> float:
        del step
        return 1.0

    def _values(self, steps: Any) -> Floats:
        return np.ones(steps.shape)

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        del first, last
        return 1.0, 1.0


class Tracker:
    """What a factor that follows reports has come to, at one occurrence of a schedule."""

    rule: Feedback
    factor: float

    @abstractmethod
    def report(self, value: float) -> bool:
        """Take a report; return whether the factor changed."""

    @abstractmethod
    def state(self) -> dict[str, float]:
        """Return all of it as numbers."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from numbers that :meth:`state` returned, or raise TypeError or ValueError and change nothing."""


@dataclass(frozen=True, slots=True, repr=False)
class ReduceOnPlateau(Feedback):
    """A factor that is reduced when what is reported gets no better: ``schedule * ReduceOnPlateau(…)``.

    Every ``opt.report(loss)`` is compared with the best so far. One that is no better by more than the margin is bad.
    After more than ``patience`` bad ones in a row the factor is multiplied by ``factor``, and ``cooldown`` reports are
    not counted. What was reported belongs to the occurrence: each hyperparameter of each group has a tracker of its
    own, which begins when the schedule is assigned and ends when it is replaced.

    Picture: docs/gallery/ReduceOnPlateau.png

    Args:
        factor: What the rate is multiplied by, in [0, 1).
        patience: How many bad reports in a row change nothing.
        mode: Whether a better report is smaller, ``"min"``, or larger, ``"max"``.
        threshold: The margin, in [0, inf).
        relative: Whether the margin is a share of the best report's magnitude, so that it is right for negative ones
            too; else it is absolute.
        cooldown: How many reports after a reduction are not counted as bad.
        floor: The least that the factor comes to, in [0, 1]. For a least rate: ``(a * ReduceOnPlateau()).at_least(x)``.
        convention: ``"torch"``, as above, or ``"keras"``: the ``patience``-th bad report reduces already, one earlier,
            and the last report of a cool-down counts.

    Raises:
        TypeError: If a number is none.
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
        PyTorch's ``ReduceLROnPlateau`` writes rates into groups, so that nothing else can, and its relative margin has
        the wrong sign for negative reports. A NaN is bad, here as there.
    """

    factor: float = 0.1
    patience: int = 10
    mode: str = "min"
    threshold: float = 1e-4
    relative: bool = True
    # Its name everywhere; a factor of 1 has nothing to cool down from.
    cooldown: int = 0  # type: ignore[assignment]
    floor: float = 0.0
    convention: str = "torch"

    def __post_init__(self) -> None:
        check_numbers(self, "factor", allowed=FRACTION)
        check_counts(self, "patience", "cooldown")
        check_word(self, "mode", ("min", "max"))
        check_numbers(self, "threshold")
        check_flags(self, "relative")
        check_numbers(self, "floor", allowed=SHARE)
        check_word(self, "convention", ("torch", "keras"))

    def tracker(self) -> PlateauTracker:
        """Return a new tracker, which takes reports and knows the present factor."""
        return PlateauTracker(self)


class PlateauTracker(Tracker):
    """What the reports to a :class:`ReduceOnPlateau` have come to.

    Attributes:
        factor: What the schedule is multiplied by at present.
        best: The best report so far, or NaN before the first.
        bad: How many in a row were bad.
        cooling: How many more are not counted.
    """

    __slots__ = ("bad", "best", "cooling", "factor", "rule")

    rule: ReduceOnPlateau

    def __init__(self, rule: ReduceOnPlateau) -> None:
        self.rule = rule
        self.factor = 1.0
        self.best = math.nan
        self.bad = 0
        self.cooling = 0

    def report(self, value: float) -> bool:
        """Take a loss or another metric; return whether the factor was reduced."""
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
            # Nothing is as bad as what the others begin with.
            return value < math.inf if self.rule.mode == "min" else value > -math.inf
        margin = self.rule.threshold
        if self.rule.relative:
            margin = margin * abs(self.best) if math.isfinite(self.best) else 0.0
        return value < self.best - margin if self.rule.mode == "min" else value > self.best + margin

    def state(self) -> dict[str, float]:
        """Return all of it as numbers."""
        return {"factor": self.factor, "best": self.best, "bad": self.bad, "cooling": self.cooling}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from numbers that :meth:`state` returned, or raise TypeError or ValueError and change nothing."""
        known = self.state()
        if not isinstance(state, abc.Mapping) or state.keys() != known.keys():
            raise ValueError(f"the state of a plateau has {', '.join(known)}, got {brief(state)}")
        factor = NON_NEGATIVE.check("factor", state["factor"])
        best = state["best"]
        if isinstance(best, bool) or not isinstance(best, int | float):
            raise TypeError(f"best must be a number, got {brief(best)}")
        bad, cooling = check_count("bad", state["bad"]), check_count("cooling", state["cooling"])
        self.factor, self.best, self.bad, self.cooling = factor, float(best), bad, cooling


@dataclass(frozen=True, slots=True, repr=False)
class AdaScale(Feedback):
    """A factor that says how many steps of a micro-batch a step is worth: ``schedule * AdaScale()``.

    With the covariance ``σ²`` of a micro-batch's gradient and the squared norm ``μ²`` of the true one, a step on ``S``
    micro-batches has the factor ``(σ² + μ²) / (σ²/S + μ²)``: near S where gradients are mostly noise, near 1 where they
    are not. So a schedule for single micro-batches serves for any number of them. The optimizer needs the option
    ``noise_scale``, and steps of two micro-batches or more; until then the factor is 1.

    Picture: docs/gallery/AdaScale.png

    Examples:
        >>> import lrcore, numpy as np
        >>> from lrcore import schedules
        >>> rate = schedules.Constant(0.1) * schedules.AdaScale()
        >>> opt = lrcore.SGD(np.zeros(2), lr=rate, noise_scale=lrcore.NoiseScale(batch=8))
        >>> for grad in ([1.0, 1.0], [3.0, 1.0]):
        ...     count = opt.accumulate(np.array(grad))
        >>> info = opt.step()
        >>> round(opt.lr, 4)
        0.12

    References:
        Johnson, Agrawal, Gu & Guestrin, *AdaScale SGD* (2020), equation 4.

    Note:
        The paper also advances the schedule by the factor at every step. Here it goes on by one: make it shorter.
    """

    _hears_reports: ClassVar[bool] = False

    def tracker(self) -> GainTracker:
        """Return a new tracker, which is told gains."""
        return GainTracker(self)


class GainTracker(Tracker):
    """The present gain of :class:`AdaScale`."""

    __slots__ = ("factor", "rule")

    def __init__(self, rule: AdaScale) -> None:
        self.rule = rule
        self.factor = 1.0

    def report(self, value: float) -> bool:
        """Take a gain; return whether it differs from the last."""
        before, self.factor = self.factor, value
        return value != before

    def state(self) -> dict[str, float]:
        """Return the gain."""
        return {"factor": self.factor}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` returned, or raise TypeError or ValueError and change nothing."""
        if not isinstance(state, abc.Mapping) or state.keys() != {"factor"}:
            raise ValueError(f"the state of a gain has factor, got {brief(state)}")
        self.factor = NON_NEGATIVE.check("factor", state["factor"])


def listeners(value: Any) -> Iterator[Feedback]:
    """Yield the schedules within a value that use reports, in the order of :func:`mapped`."""
    found: list[Feedback] = []

    def note(part: Feedback) -> Feedback:
        found.append(part)
        return part

    mapped(value, note)
    yield from found


def mapped(value: Any, function: Callable[[Feedback], Schedule]) -> Any:
    """Return the value with what a function returns in the place of each schedule that uses reports.

    The order is that of the fields, depth first. A part in which nothing changes stays the same object.
    """
    if isinstance(value, Feedback):
        return function(value)
    if isinstance(value, tuple):
        return tuple([mapped(part, function) for part in value])
    if not isinstance(value, Schedule) or not is_dataclass(value):
        return value
    changed: dict[str, Any] = {}
    for field in fields(value):
        part = getattr(value, field.name) if field.init else None
        if isinstance(part, Schedule):
            new = mapped(part, function)
            if new is not part:
                changed[field.name] = new
    return replace(value, **changed) if changed else value


def occupied(value: Any, trackers: Sequence[Tracker]) -> tuple[Any, list[Tracker]]:
    """Return a value with instances of its own for schedules that use reports, and the tracker of each, in order.

    An instance that one of the given trackers belongs to keeps it. Where it occurs again, as in ``lr + lr``, the
    tracker of the second begins as a copy.
    """
    known = {id(tracker.rule): tracker for tracker in trackers}
    taken: list[Tracker] = []

    def own(rule: Feedback) -> Feedback:
        tracker = known.get(id(rule))
        if tracker is None or any(tracker is other for other in taken):
            state = None if tracker is None else tracker.state()
            rule = copy(rule)
            tracker = rule.tracker()
            if state is not None:
                tracker.restore(state)
        taken.append(tracker)
        return tracker.rule

    return mapped(value, own), taken


def resolved(value: Any, factors: Iterable[float]) -> Any:
    """Return the value with the present factors, in order, in the place of schedules that use reports."""
    present = iter(factors)
    return mapped(value, lambda _: Constant(next(present)))
