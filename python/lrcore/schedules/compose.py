"""Schedules in sequence: one after another, with a cool-down, and warm-up-stable-decay."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from lrcore._messages import brief
from lrcore._ranges import NON_NEGATIVE, as_number, check_count
from lrcore._text import counted
from lrcore.schedules import functions as fn
from lrcore.schedules.bounded import Cosine, Interpolation, Linear, Sqrt
from lrcore.schedules.checks import Delegating, check_choice, check_fields
from lrcore.schedules.compound import (
    Compound,
    UnaryOperation,
    check_parts,
    parenthesized,
    phases_of,
    put,
)
from lrcore.schedules.intervals import split
from lrcore.schedules.schedule import Bounds, Floats, Phases, Schedule, as_schedule, constant_from, steps_of
from lrcore.schedules.unbounded import Constant

if TYPE_CHECKING:
    from collections.abc import Iterable


DECAYS = ("linear", "cosine", "sqrt")


def decay(start: float, end: float, steps: int, shape: str) -> Interpolation:
    """Return the schedule of a cool-down."""
    if shape == "linear":
        return Linear(start, end, steps)
    return (Cosine if shape == "cosine" else Sqrt)(start, steps, end)


@dataclass(frozen=True, slots=True, repr=False)
class Sequential(Compound):
    """One schedule after another: ``first.then(second, at)``.

    ``value(t) = first(t)`` for ``t < at``, then ``second(t − at)``

    Arguments and errors are those of :meth:`Schedule.then <lrcore.schedules.Schedule.then>`.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Linear(0.0, 1.0, steps=2).then(schedules.Linear(1.0, 0.0, steps=4)).length
        6
    """

    first: Schedule
    second: Schedule
    at: int = None  # type: ignore[assignment]  # None only as an argument

    def __post_init__(self) -> None:
        check_parts(self, "first", "second")
        length = self.first.length
        at = length if self.at is None else steps_of("then: at", self.at, length)
        if at is None:
            raise ValueError(f"then: {brief(self.first)} has no length; give at, where the next one begins")
        put(self, "at", at)

    @property
    def _is_factor(self) -> bool:
        return self.first._is_factor or self.second._is_factor

    @property
    def length(self) -> int | None:
        """``at`` plus the length of the second schedule."""
        length = constant_from(self.second)
        return None if length is None else self.at + length

    def __repr__(self) -> str:
        at = "" if self.at == self.first.length else f", at={self.at}"
        return f"{parenthesized(self.first)}.then({self.second!r}{at})"

    def _value(self, step: float) -> float:
        return self.first._value(step) if step < self.at else self.second._value(step - self.at)

    def _values(self, steps: Any) -> Floats:
        return fn.joined(steps, self.at, self.first._values, self.second._values)

    def _bounds(self, first: float, last: float) -> Bounds:
        return split(self.at, first, last, self.first._bounds, self.second._bounds)

    def _compressed(self, steps: int) -> Schedule:
        length = constant_from(self.second)
        if length is not None and steps <= length:
            return Sequential(self.first, self.second._compressed(steps), self.at)
        return Schedule._compressed(self, steps)

    def _phases(self) -> Phases:
        yield from takewhile(lambda phase: phase[1] < self.at, phases_of(self.first))
        for name, at in phases_of(self.second):
            yield name, at + self.at


def concat(parts: Iterable[Schedule | float]) -> Schedule:
    """Put schedules in sequence, each for its length. The last one does not need a length.

    Args:
        parts: At least one schedule.

    Raises:
        TypeError: If one is not a schedule or number.
        ValueError: If there is none, or one before the last has no length.

    Examples:
        >>> from lrcore import schedules
        >>> lr = schedules.concat([schedules.Linear(0.0, 1.0, steps=2), schedules.Cosine(1.0, steps=4)])
        >>> [round(lr(t), 3) for t in range(7)]
        [0.0, 0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    given = [as_schedule(f"concat: parts[{i}]", part) for i, part in enumerate(parts)]
    if not given:
        raise ValueError("concat: parts must be at least one schedule, got none")
    for i, part in enumerate(given[:-1]):
        if part.length is None:
            raise ValueError(f"concat: parts[{i}], {brief(part)}, has no length; only the last part can be without one")
    return _concatenated(given)


def _concatenated(parts: list[Schedule]) -> Schedule:
    # Split in the middle, so that the depth grows with the logarithm of the number of parts.
    middle = len(parts) // 2
    return _concatenated(parts[:middle]).then(_concatenated(parts[middle:])) if middle else parts[0]


@dataclass(frozen=True, slots=True, repr=False)
class WithCooldown(UnaryOperation):
    """A schedule that decays over its last steps: ``schedule.cooldown(steps, end, shape, at)``.

    Arguments and errors are those of :meth:`Schedule.cooldown <lrcore.schedules.Schedule.cooldown>`.

    Examples:
        >>> from lrcore import schedules
        >>> lr = schedules.Linear(1.0, 0.5, steps=10).cooldown(2)
        >>> [round(lr(t), 3) for t in (7, 8, 9, 10)]
        [0.65, 0.6, 0.3, 0.0]
    """

    steps: int
    end: float = 0.0
    shape: str = "linear"
    at: int | None = None
    _begin: int = field(init=False, repr=False, compare=False)
    # With a decay of 0 steps it is the schedule, from step 0.
    _decay: Schedule = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_parts(self, "schedule")
        length = self.schedule.length
        steps = steps_of("cooldown: steps", self.steps, length)
        check_fields(self, "end")
        check_choice(self, "shape", DECAYS)
        if self.at is not None:
            put(self, "at", steps_of("cooldown: at", self.at, length))
        elif length is None:
            raise ValueError(f"cooldown: {brief(self.schedule)} has no length; give at, where the decay begins")
        elif steps > length:
            raise ValueError(f"cooldown: steps must be in [0, {length}], the length of the schedule, got {steps}")
        begin = self.at if self.at is not None else (length or 0) - steps
        put(self, "steps", steps)
        put(self, "_begin", begin if steps else 0)
        top = NON_NEGATIVE.check(f"cooldown: the value at step {begin}, where the decay begins,", self.schedule(begin))
        put(self, "_decay", decay(top, self.end, steps, self.shape) if steps else self.schedule)

    @property
    def length(self) -> int | None:
        """The step at which the decay ends."""
        return self._begin + self.steps if self.steps else self.schedule.length

    def __repr__(self) -> str:
        # ReduceOnPlateau has a field named cooldown.
        return UnaryOperation.__repr__(self) if callable(self.schedule.cooldown) else Schedule.__repr__(self)

    def _call(self) -> str:
        optional = (("end", 0.0), ("shape", "linear"), ("at", None))
        given = [f"{name}={getattr(self, name)!r}" for name, default in optional if getattr(self, name) != default]
        return f"cooldown({', '.join([str(self.steps), *given])})"

    def _value(self, step: float) -> float:
        return self.schedule._value(step) if step < self._begin else self._decay._value(step - self._begin)

    def _values(self, steps: Any) -> Floats:
        return fn.joined(steps, self._begin, self.schedule._values, self._decay._values)

    def _bounds(self, first: float, last: float) -> Bounds:
        return split(self._begin, first, last, self.schedule._bounds, self._decay._bounds)

    def _compressed(self, steps: int) -> Schedule:
        if not self.steps:
            return self.schedule._compressed(steps)
        if steps > self._begin or (self.schedule.length is not None and steps > self.schedule.length):
            return Schedule._compressed(self, steps)
        at = None if self.at is None else self.at - steps
        return WithCooldown(self.schedule._compressed(steps), self.steps, self.end, self.shape, at)

    def _phases(self) -> Phases:
        yield from takewhile(lambda phase: phase[1] < self._begin or not self.steps, phases_of(self.schedule))
        if self.steps:
            yield "cool-down", self._begin


@dataclass(frozen=True, slots=True, repr=False)
class WSD(Delegating):
    """Warm-up, stable, decay: a trapezoid whose decay can begin whenever the run is to end.

    ``value(t) = peak · (t + 1) / warmup_steps`` for ``t < warmup_steps``, then ``peak``, and over the last
    ``decay_steps`` steps with ``p`` from 0 to 1 ``end + (peak − end) · (1 − p)`` (linear), ``· (1 + cos πp) / 2``
    (cosine), or ``· (1 − √p)`` (sqrt).

    Args:
        peak: The value of the stable phase, in [0, inf).
        steps: The total length.
        warmup_steps: The steps of the warm-up, or, as a float in [0, 1), a fraction of the length.
        decay_steps: The steps of the decay, or, as a float in [0, 1), a fraction of the length.
        end: The final value, in [0, inf).
        shape: The shape of the decay: ``"linear"``, ``"cosine"`` or ``"sqrt"``.

    Raises:
        TypeError: If a value is not a number.
        ValueError: If one is out of range, or warm-up and decay are together longer than ``steps``.

    Examples:
        >>> from lrcore import schedules
        >>> lr = schedules.WSD(1.0, steps=10, warmup_steps=2, decay_steps=4)
        >>> [lr(t) for t in range(11)]
        [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
        >>> lr.branch(4, decay_steps=2)
        WSD(peak=1.0, steps=6, warmup_steps=2, decay_steps=2)

    References:
        Hu et al., *MiniCPM* (2024); Hägele et al. (2024) for the shape ``1 − √p``. Xing et al., *A Walk with SGD*
        (2018), for the trapezoid.

    Note:
        transformers' ``get_wsd_schedule``, whose warm-up begins at 0.
    """

    peak: float
    steps: int
    warmup_steps: int = 0
    decay_steps: int = 0
    end: float = 0.0
    shape: str = "linear"
    _schedule: Schedule = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_fields(self, "peak", "end", "steps")
        given = as_number(self.warmup_steps), as_number(self.decay_steps)
        fits = all(isinstance(part, float) for part in given) and self.warmup_steps + self.decay_steps <= 1.0
        for name in ("warmup_steps", "decay_steps"):
            put(self, name, steps_of(f"WSD: {name}", getattr(self, name), self.steps))
        if fits:  # two rounded fractions can add up to one step too many
            put(self, "decay_steps", min(self.decay_steps, self.steps - self.warmup_steps))
        check_choice(self, "shape", DECAYS)
        if self.warmup_steps + self.decay_steps > self.steps:
            raise ValueError(
                f"WSD: warmup_steps and decay_steps must be at most steps, {self.steps}, together, "
                f"got {self.warmup_steps} and {self.decay_steps}"
            )
        schedule = Constant(self.peak).warmup(self.warmup_steps)
        if self.decay_steps:
            last = decay(self.peak, self.end, self.decay_steps, self.shape)
            schedule = schedule.then(last, at=self.steps - self.decay_steps)
        put(self, "_schedule", schedule)

    def branch(self, at: int, decay_steps: int | float, end: float | None = None, shape: str | None = None) -> WSD:
        """Return the schedule that decays from an earlier step, to continue from a checkpoint of that step.

        Args:
            at: The step at which the decay begins, from the end of the warm-up to the begin of the present decay.
            decay_steps: The steps of the decay, or, as a float in [0, 1), a fraction of the new length.
            end: The final value; None keeps it.
            shape: The shape of the decay; None keeps it.

        Raises:
            TypeError: If an argument is not a number.
            ValueError: If the step is not in the stable phase, or a number is out of range.
        """
        at = check_count("branch: at", at)
        last = self.steps - self.decay_steps
        if not self.warmup_steps <= at <= last:
            raise ValueError(f"branch: at must be in [{self.warmup_steps}, {last}], the stable phase, got {at}")
        share = as_number(decay_steps)
        if isinstance(share, float):
            if not 0.0 <= share < 1.0:
                raise ValueError(
                    f"branch: decay_steps must be a whole number, or a share in [0, 1), got {brief(decay_steps)}"
                )
            decay_steps = round(at * share / (1.0 - share))
        steps = check_count("branch: decay_steps", decay_steps)
        end, shape = self.end if end is None else end, self.shape if shape is None else shape
        return replace(self, steps=at + steps, decay_steps=steps, end=end, shape=shape)

    def _compressed(self, steps: int) -> Schedule:
        if steps + self.warmup_steps + self.decay_steps > self.steps:
            raise ValueError(f"{brief(self)} can't be fitted into {counted(self.steps - steps, 'step')}")
        return replace(self, steps=self.steps - steps)

    def _phases(self) -> Phases:
        begins = {"warm-up": 0, "stable": self.warmup_steps, "decay": self.steps - self.decay_steps}
        ends = [*list(begins.values())[1:], self.steps]
        for (name, at), end in zip(begins.items(), ends, strict=True):
            if at < end:
                yield name, at
