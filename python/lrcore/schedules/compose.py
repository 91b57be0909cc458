"""Schedules of schedules, one after the other: then, cool-down, and warm-up, stable, decay."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from lrcore._messages import brief
from lrcore._ranges import NON_NEGATIVE, as_number, check_count
from lrcore._text import counted
from lrcore.schedules import functions as fn
from lrcore.schedules.bounded import Cosine, Linear, Ramp, Sqrt
from lrcore.schedules.checks import check_counts, check_depth, check_numbers, check_schedules, check_word, put
from lrcore.schedules.intervals import before, hull, window
from lrcore.schedules.schedule import (
    Composed,
    Compound,
    Schedule,
    as_schedule,
    phases_of,
    settled,
    steps_of,
    wrapped,
)
from lrcore.schedules.unbounded import Constant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lrcore.schedules.schedule import Floats

FALLS = ("linear", "cosine", "sqrt")


def fall(start: float, end: float, steps: int, shape: str) -> Ramp:
    """Return the ramp of a cool-down."""
    if shape == "linear":
        return Linear(start, end, steps)
    return (Cosine if shape == "cosine" else Sqrt)(start, steps, end)


@dataclass(frozen=True, slots=True, repr=False)
class Sequential(Compound):
    """One schedule after another: ``first.then(second, at)``.

    ``value(t) = first(t)`` for ``t < at``, then ``second(t − at)``

    Picture: docs/gallery/Sequential.png

    Args:
        first: The schedule up to step ``at``.
        second: That from there on, from its own step 0.
        at: The step, or, as a float in [0, 1), the share of the length of the first; None is its length.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If ``at`` is negative, or left out and the first has no length.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Linear(0.0, 1.0, steps=2).then(schedules.Linear(1.0, 0.0, steps=4)).length
        6
    """

    first: Schedule
    second: Schedule
    at: int | None = None

    def __post_init__(self) -> None:
        check_schedules(self, "first", "second")
        check_depth(self, "first", "second")
        length = self.first.length
        if self.at is None and length is None:
            raise ValueError(f"then: {brief(self.first)} has no length; say at which step the next takes over")
        put(self, "at", length if self.at is None else steps_of("then: at", self.at, length))

    @property
    def _at(self) -> int:
        at: Any = self.at
        return at  # type: ignore[no-any-return]

    @property
    def _is_factor(self) -> bool:
        return self.first._is_factor or self.second._is_factor

    @property
    def length(self) -> int | None:
        """Where the second begins, and its length."""
        length = settled(self.second)
        return None if length is None else self._at + length

    def __repr__(self) -> str:
        at = "" if self.at == self.first.length else f", at={self.at}"
        return f"{wrapped(self.first)}.then({self.second!r}{at})"

    def _value(self, step: float) -> float:
        at = self._at
        return self.first._value(step) if step < at else self.second._value(step - at)

    def _values(self, steps: Any) -> Floats:
        if self._at > fn.EXACT:
            return self.first._values(steps)
        return fn.joined(steps, self._at, self.first._values, self.second._values)

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        parts = []
        if first < self._at:
            parts.append(self.first._bounds(first, before(self._at, first, last)))
        if last >= self._at:
            parts.append(self.second._bounds(*window(first, last, self._at)))
        return hull(*parts)

    def _shortened(self, steps: int) -> Schedule:
        length = settled(self.second)
        if length is not None and steps <= length:
            return Sequential(self.first, self.second._shortened(steps), self.at)
        return super(Sequential, self)._shortened(steps)

    def _parts(self) -> Iterator[tuple[str, float]]:
        yield from takewhile(lambda part: part[1] < self._at, phases_of(self.first))
        for name, at in phases_of(self.second):
            yield name, at + self._at


def concat(parts: Iterable[Schedule | float]) -> Schedule:
    """Put schedules one after the other, each for its length; the last need not have one.

    Args:
        parts: At least one schedule.

    Raises:
        TypeError: If one is no schedule or number.
        ValueError: If there is none, or one before the last has no length.

    Examples:
        >>> from lrcore import schedules
        >>> rate = schedules.concat([schedules.Linear(0.0, 1.0, steps=2), schedules.Cosine(1.0, steps=4)])
        >>> [round(rate(t), 3) for t in range(7)]
        [0.0, 0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    given = [as_schedule(f"concat: parts[{i}]", part) for i, part in enumerate(parts)]
    if not given:
        raise ValueError("concat: parts must be at least one schedule, got none")
    for i, part in enumerate(given[:-1]):
        if part.length is None:
            raise ValueError(f"concat: parts[{i}], {brief(part)}, has no length, and must be the last then")
    return _concatenated(given)


def _concatenated(parts: list[Schedule]) -> Schedule:
    # By halves, so that many don't lie too deep within each other.
    middle = len(parts) // 2
    return _concatenated(parts[:middle]).then(_concatenated(parts[middle:])) if middle else parts[0]


@dataclass(frozen=True, slots=True, repr=False)
class WithCooldown(Compound):
    """A schedule with a fall over its last steps; made by :meth:`~lrcore.schedules.Schedule.cooldown`.

    Picture: docs/gallery/WithCooldown.png

    Args:
        schedule: The schedule.
        steps: The length of the fall, or, as a float in [0, 1), its share of the schedule's length.
        end: What it falls to, in [0, inf).
        shape: ``"linear"``, ``"cosine"`` or ``"sqrt"``.
        at: Where it begins; None is ``length − steps``.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If one is out of range, or ``at`` is left out and the schedule has no length.

    Examples:
        >>> from lrcore import schedules
        >>> rate = schedules.Linear(1.0, 0.5, steps=10).cooldown(2)
        >>> [round(rate(t), 3) for t in (7, 8, 9, 10)]
        [0.65, 0.6, 0.3, 0.0]
    """

    schedule: Schedule
    steps: int
    end: float = 0.0
    shape: str = "linear"
    at: int | None = None
    _begin: int = field(init=False, repr=False, compare=False)
    _fall: Ramp = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_schedules(self, "schedule")
        check_depth(self, "schedule")
        length = self.schedule.length
        steps = steps_of("cooldown: steps", self.steps, length)
        check_numbers(self, "end")
        check_word(self, "shape", FALLS)
        if self.at is not None:
            put(self, "at", steps_of("cooldown: at", self.at, length))
        elif length is None:
            raise ValueError(f"cooldown: {brief(self.schedule)} has no length; say at which step the fall begins")
        elif steps > length:
            raise ValueError(f"cooldown: steps must be in [0, {length}], the length of the schedule, got {steps}")
        begin = self.at if self.at is not None else (length or 0) - steps
        put(self, "steps", steps)
        put(self, "_begin", begin)
        top = NON_NEGATIVE.check(f"cooldown: the value at step {begin}, where the fall begins,", self.schedule(begin))
        put(self, "_fall", fall(top, self.end, steps, self.shape))

    @property
    def _is_factor(self) -> bool:
        return self.schedule._is_factor

    @property
    def length(self) -> int | None:
        """The step at which the fall ends."""
        return self._begin + self.steps if self.steps else self.schedule.length

    def __repr__(self) -> str:
        if not callable(self.schedule.cooldown):  # as that of a plateau is not
            return Schedule.__repr__(self)
        given = [str(self.steps)]
        given += [f"{name}={getattr(self, name)!r}" for name in ("end", "shape", "at") if not self._is_default(name)]
        return f"{wrapped(self.schedule)}.cooldown({', '.join(given)})"

    def _is_default(self, name: str) -> bool:
        return bool(getattr(self, name) == {"end": 0.0, "shape": "linear", "at": None}[name])

    def _value(self, step: float) -> float:
        if step < self._begin or not self.steps:
            return self.schedule._value(step)
        return self._fall._value(step - self._begin)

    def _values(self, steps: Any) -> Floats:
        if not self.steps or self._begin > fn.EXACT:
            return self.schedule._values(steps)
        return fn.joined(steps, self._begin, self.schedule._values, self._fall._values)

    def _shortened(self, steps: int) -> Schedule:
        if not self.steps:
            return self.schedule._shortened(steps)
        if steps > self._begin or (self.schedule.length is not None and steps > self.schedule.length):
            return super(WithCooldown, self)._shortened(steps)
        at = None if self.at is None else self.at - steps
        return WithCooldown(self.schedule._shortened(steps), self.steps, self.end, self.shape, at)

    def _parts(self) -> Iterator[tuple[str, float]]:
        yield from takewhile(lambda part: part[1] < self._begin, phases_of(self.schedule))
        yield "cool-down", self._begin

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        if not self.steps:
            return self.schedule._bounds(first, last)
        parts = []
        if first < self._begin:
            parts.append(self.schedule._bounds(first, before(self._begin, first, last)))
        if last >= self._begin:
            parts.append(self._fall._bounds(*window(first, last, self._begin)))
        return hull(*parts)


@dataclass(frozen=True, slots=True, repr=False)
class WSD(Composed):
    """Warm-up, stable, decay: a trapezoid, whose decay may begin whenever the training is to end.

    ``value(t) = peak · (t + 1) / warmup_steps`` for ``t < warmup_steps``, then ``peak``, and over the last
    ``decay_steps`` steps with ``p`` from 0 to 1 ``end + (peak − end) · (1 − p)`` (linear), ``· (1 + cos πp) / 2``
    (cosine), or ``· (1 − √p)`` (sqrt).

    Picture: docs/gallery/WSD.png

    Args:
        peak: The value between, in [0, inf).
        steps: The length of all.
        warmup_steps: The steps of the rise, or, as a float in [0, 1), their share of the length.
        decay_steps: The steps of the fall, or, as a float in [0, 1), their share of the length.
        end: What it falls to, in [0, inf).
        shape: That of the fall: ``"linear"``, ``"cosine"`` or ``"sqrt"``.

    Raises:
        TypeError: If a value is not a number.
        ValueError: If one is out of range, or the warm-up and the decay are longer than all.

    Examples:
        >>> from lrcore import schedules
        >>> rate = schedules.WSD(1.0, steps=10, warmup_steps=2, decay_steps=4)
        >>> [rate(t) for t in range(11)]
        [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
        >>> rate.branch(4, decay_steps=2)
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
    _course: Schedule = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_numbers(self, "peak", "end")
        check_counts(self, "steps")
        given = as_number(self.warmup_steps), as_number(self.decay_steps)
        fits = all(isinstance(part, float) for part in given) and self.warmup_steps + self.decay_steps <= 1.0
        for name in ("warmup_steps", "decay_steps"):
            put(self, name, steps_of(f"WSD: {name}", getattr(self, name), self.steps))
        if fits:  # but for rounding
            put(self, "decay_steps", min(self.decay_steps, self.steps - self.warmup_steps))
        check_word(self, "shape", FALLS)
        if self.warmup_steps + self.decay_steps > self.steps:
            raise ValueError(
                f"WSD: warmup_steps and decay_steps must be at most steps, {self.steps}, together, "
                f"got {self.warmup_steps} and {self.decay_steps}"
            )
        stable = Constant(self.peak).warmup(self.warmup_steps)
        whole = stable.then(fall(self.peak, self.end, self.decay_steps, self.shape), at=self.steps - self.decay_steps)
        put(self, "_course", whole if self.decay_steps else stable)

    def branch(self, at: int, decay_steps: int | float, end: float | None = None, shape: str | None = None) -> WSD:
        """Return the same run up to a step, and a decay from there: what a checkpoint of that step goes on with.

        Args:
            at: The step at which the decay begins; the warm-up must be over, and the decay of this not begun.
            decay_steps: The steps of the decay, or the share that they are to be of the whole new length.
            end: What it falls to; None is as here.
            shape: The shape of the fall; None is as here.

        Raises:
            TypeError: If a number is none.
            ValueError: If the step is not within the stable phase, or a number is out of range.
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
        decay_steps = check_count("branch: decay_steps", decay_steps)
        changes = {"end": self.end if end is None else end, "shape": self.shape if shape is None else shape}
        return replace(self, steps=at + decay_steps, decay_steps=decay_steps, **changes)  # type: ignore[arg-type]

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        return self._course._bounds(first, last)

    def _shortened(self, steps: int) -> Schedule:
        if steps + self.warmup_steps + self.decay_steps > self.steps:
            raise ValueError(f"{brief(self)} can't be fitted into {counted(self.steps - steps, 'step')}")
        return replace(self, steps=self.steps - steps)

    def _parts(self) -> Iterator[tuple[str, float]]:
        begins = {"warm-up": 0, "stable": self.warmup_steps, "decay": self.steps - self.decay_steps}
        ends = [*list(begins.values())[1:], self.steps]
        for (name, at), end in zip(begins.items(), ends, strict=True):
            if at < end:
                yield name, at
