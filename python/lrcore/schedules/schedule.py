"""What a schedule is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, SupportsIndex

import numpy as np

from lrcore._messages import brief
from lrcore._ranges import POSITIVE, as_number, check_count
from lrcore.schedules.functions import EXACT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

    Floats = np.ndarray[Any, np.dtype[np.float64]]

# How many values are worked out together: what lies between stays in the cache.
_TILE = 2**15


class Schedule(ABC):
    """A hyperparameter as a pure function of the step.

    A schedule is a frozen value: it can be compared, hashed, printed, pickled and written as JSON, needs no optimizer,
    and is the same function after a restart. The ``k``-th step of an optimizer, from 0, uses ``schedule(k)``.

    Schedules combine into schedules: one after the other (:meth:`then`, :meth:`warmup`, :meth:`cooldown`), multiplied,
    added and subtracted (``a * b``, ``a * 0.1``, ``a / 2``, ``a + b``, ``a - b``), held within limits
    (:meth:`at_least`, :meth:`at_most`), and with another time (:meth:`shift`, :meth:`stretch`, :meth:`repeat`,
    :meth:`every`). Where a schedule has a length, a fraction may stand for a number of steps: ``a.warmup(0.1)`` takes a
    tenth of it.

    A subclass has ``_value(step)``, and ``length`` if it has one.
    """

    __slots__ = ()

    # NumPy leaves ``number * schedule`` to the schedule, in place of making an array of objects.
    __array_ufunc__: ClassVar[None] = None

    # Whether it is printed with an operator.
    _is_sum_or_product: ClassVar[bool] = False

    # Values

    def __call__(self, step: SupportsIndex) -> float:
        """Return the value at a step.

        Args:
            step: The number of the step, from 0. Past the end of the schedule its last value stays.

        Raises:
            TypeError: If the step is not a whole number.
            ValueError: If the step is negative.
        """
        if type(step) is not int or step < 0:
            step = check_count("step", step)
        return self._value(step)

    def values(self, steps: SupportsIndex | Iterable[int]) -> Floats:
        """Return the values at many steps, the same as one call for each, to the bit, in much less time.

        Args:
            steps: How many of the first steps, or a range, or whole numbers in an array or another sequence.

        Returns:
            An array of float64, of the shape of the steps.

        Raises:
            TypeError: If the steps are not whole numbers.
            ValueError: If one is negative, or more than 2⁶³ − 1.

        Examples:
            >>> from lrcore import schedules
            >>> schedules.Linear(1.0, 0.0, steps=4).values(6)
            array([1.  , 0.75, 0.5 , 0.25, 0.  , 0.  ])
            >>> schedules.Linear(1.0, 0.0, steps=4).values(range(0, 5, 2))
            array([1. , 0.5, 0. ])
        """
        array = _as_steps(steps)
        flat = array.ravel()
        # Beyond, steps are not numbers of float64, and the arithmetic of arrays is not that of whole numbers.
        evaluate = self._values if flat.size == 0 or flat.max() < EXACT else partial(Schedule._values, self)
        values = np.empty(flat.shape)
        with np.errstate(all="ignore"):
            for k in range(0, flat.size, _TILE):
                values[k : k + _TILE] = evaluate(flat[k : k + _TILE])
        return values.reshape(array.shape)

    @property
    def length(self) -> int | None:
        """How many steps the schedule lays out, if it does: from that step on the value stays the same."""
        return None

    @property
    def maximum(self) -> float:
        """The largest value at whole steps.

        It is composed from the parts, whatever their length, and the same as that of all values but for rounding. The
        peak of a product or a sum of several waves whose periods have no common multiple may be missed by a little.

        Raises:
            ValueError: If there is none, since the values grow without an end, or if it is not known, since a function
                without a length is a part.
        """
        return self._maximum()

    @property
    def _is_constant(self) -> bool:
        """Whether it has the same value at every step."""
        return False

    @property
    def _is_factor(self) -> bool:
        """Whether it is made of factors alone, such as ``Warmup(10)``, which need a value to multiply."""
        return False

    @abstractmethod
    def _value(self, step: float) -> float:
        """Return the value at a step that has been checked. Within :meth:`stretch` there are steps between steps."""

    def _values(self, steps: Any) -> Floats:
        """Return the values at an array of steps below 2⁵³, equal to those of ``_value``."""
        return np.array([self._value(step) for step in steps.ravel().tolist()], np.float64).reshape(steps.shape)

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        """Return numbers that no value from one step to another, which may be infinite, lies outside of."""
        if first == last:
            value = self._value(first)
            return value, value
        return -math.inf, math.inf

    def _maximum(self) -> float:
        """Return the largest value, or raise."""
        from lrcore.schedules.intervals import largest

        last = settled(self)
        return largest(self, math.inf if last is None else last)

    def _shortened(self, steps: int) -> Schedule:
        """Return the same course in that many steps fewer, of a schedule with a length at least as long."""
        length = self.length
        if steps == 0 or length is None:
            return self
        if steps == length:
            return as_schedule("warmup", self._value(length))
        return self.stretch((length - steps) / length)

    # One after the other

    def warmup(self, steps: SupportsIndex | float, start: float = 0.0, shape: str = "linear") -> Schedule:
        """Rise to the first value over a number of steps, then go on from there.

        With a linear shape, step ``k`` of the warm-up is ``start + (first − start) · (k + 1) / steps``, so that no step
        is wasted at a rate of 0. A schedule with a length keeps it: what follows is fitted into the steps that remain.
        One without a length is delayed. ``Warmup(steps) * schedule`` only multiplies, and moves nothing.

        Args:
            steps: The length of the warm-up, or, as a float, the share of the schedule's length in [0, 1); 0 changes
                nothing. So ``warmup(1)`` is one step, and ``warmup(1.0)`` is refused.
            start: What it rises from, in [0, inf); step 0 has already taken one stride.
            shape: ``"linear"``; ``"cosine"``, ``(1 − cos πx) / 2``; or ``"exponential"``,
                ``(1 − e⁻ˣ) / (1 − e⁻¹)``, with ``x = (k + 1) / steps``.

        Raises:
            TypeError: If a number is none.
            ValueError: If the warm-up is negative, or longer than the schedule, or there is no such shape.

        Examples:
            >>> from lrcore import schedules
            >>> rate = schedules.Cosine(0.1, steps=100).warmup(10)
            >>> [round(rate(step), 3) for step in (0, 1, 9, 10, 100)]
            [0.01, 0.02, 0.1, 0.1, 0.0]

        References:
            Goyal et al., *Accurate, Large Minibatch SGD* (2017), section 2.2.

        Note:
            optax and transformers also count the warm-up in the length; Keras does not. PyTorch's ``LinearLR`` starts
            at a factor of its own.
        """
        from lrcore.schedules.warmup import WithWarmup

        return WithWarmup(self, steps, start, shape)  # type: ignore[arg-type]

    def cooldown(
        self,
        steps: SupportsIndex | float,
        end: float = 0.0,
        shape: str = "linear",
        at: SupportsIndex | float | None = None,
    ) -> Schedule:
        """Fall to an end value over the last steps of the length, from the value that is reached there.

        Args:
            steps: The length of the fall, or, as a float, the share of the schedule's length in [0, 1); 0 changes
                nothing. So ``warmup(1)`` is one step, and ``warmup(1.0)`` is refused.
            end: What it falls to, in [0, inf).
            shape: ``"linear"``, ``"cosine"``, or ``"sqrt"``, ``1 − √p``.
            at: The step at which the fall begins, where it is not ``length − steps``.

        Raises:
            TypeError: If a number is none.
            ValueError: If the fall is negative, or longer than the schedule, or the schedule has no length.

        Examples:
            >>> from lrcore import schedules
            >>> rate = schedules.InverseSqrt(1.0, timescale=1.0).cooldown(2, at=8)
            >>> [round(rate(step), 3) for step in (7, 8, 9, 10)]
            [0.354, 0.333, 0.167, 0.0]

        References:
            Zhai et al., *Scaling Vision Transformers* (2022), section 3.5; Hägele et al., *Scaling Laws and
            Compute-Optimal Training Beyond Fixed Training Durations* (2024), for ``1 − √p``.
        """
        from lrcore.schedules.compose import WithCooldown

        return WithCooldown(self, steps, end, shape, at)  # type: ignore[arg-type]

    def then(self, other: Schedule | float, at: SupportsIndex | float | None = None) -> Schedule:
        """Go on with another schedule, from its own step 0.

        Args:
            other: The schedule, or number, from step ``at`` on.
            at: The step at which it takes over, or, as a float in [0, 1), the share of this schedule's
                length; None is its whole length.

        Raises:
            TypeError: If ``other`` is no schedule or number.
            ValueError: If ``at`` is negative, or left out and this schedule has no length.

        Examples:
            >>> from lrcore import schedules
            >>> rate = schedules.Constant(1.0).then(schedules.Linear(1.0, 0.0, steps=2), at=3)
            >>> [rate(step) for step in range(6)]
            [1.0, 1.0, 1.0, 1.0, 0.5, 0.0]

        Note:
            PyTorch's ``SequentialLR`` and optax' ``join_schedules``.
        """
        from lrcore.schedules.compose import Sequential

        return Sequential(self, as_schedule("then", other), at)  # type: ignore[arg-type]

    # Another height

    def __mul__(self, other: Schedule | float) -> Schedule:
        from lrcore.schedules.arithmetic import Product, merged

        if isinstance(other, Schedule):
            return merged(Product(self, other))
        return self.scale(other) if is_number(other) else NotImplemented

    def __rmul__(self, other: float) -> Schedule:
        return self.scale(other) if is_number(other) else NotImplemented

    def __truediv__(self, other: float) -> Schedule:
        if isinstance(other, Schedule):
            raise TypeError(f"/: the divisor must be a number, got {brief(other)}, whose values may be 0")
        divisor = as_number(other)
        if divisor is None:
            return NotImplemented
        return self.scale(1.0 / POSITIVE.check("/: the divisor", divisor))

    def __add__(self, other: Schedule | float) -> Schedule:
        from lrcore.schedules.arithmetic import Sum, merged

        if isinstance(other, Schedule) or is_number(other):
            return merged(Sum(self, as_schedule("+", other)))
        return NotImplemented

    def __radd__(self, other: float) -> Schedule:
        return as_schedule("+", other) + self if is_number(other) else NotImplemented

    def __sub__(self, other: Schedule | float) -> Schedule:
        from lrcore.schedules.arithmetic import Difference, merged

        if isinstance(other, Schedule) or is_number(other):
            return merged(Difference(self, as_schedule("-", other)))
        return NotImplemented

    def __rsub__(self, other: float) -> Schedule:
        return as_schedule("-", other) - self if is_number(other) else NotImplemented

    def __neg__(self) -> Schedule:
        return 0.0 - self

    def __pos__(self) -> Schedule:
        return self

    def scale(self, factor: float) -> Schedule:
        """Multiply every value by a factor in [0, inf), as ``schedule * factor`` does.

        A schedule that was multiplied before is multiplied by the product of both factors, rounded once. So a million
        of ``group["lr"] *= 0.999`` make no deeper and no slower a schedule.

        Examples:
            >>> from lrcore import schedules
            >>> schedules.Constant(0.5).scale(0.5)(0)
            0.25
        """
        from lrcore.schedules.arithmetic import Scaled, merged

        return merged(Scaled(self, factor))

    def at_least(self, floor: Schedule | float) -> Schedule:
        """Take the larger of this and a floor, a number or another schedule.

        Examples:
            >>> from lrcore import schedules
            >>> schedules.Exponential(1.0, gamma=0.5).at_least(0.2)(9)
            0.2
        """
        from lrcore.schedules.arithmetic import AtLeast, merged

        return merged(AtLeast(self, as_schedule("at_least", floor)))

    def at_most(self, cap: Schedule | float) -> Schedule:
        """Take the smaller of this and a cap, a number or another schedule.

        Examples:
            >>> from lrcore import schedules
            >>> schedules.Constant(1.0).at_most(0.2)(0)
            0.2
        """
        from lrcore.schedules.arithmetic import AtMost, merged

        return merged(AtMost(self, as_schedule("at_most", cap)))

    # Another time

    def shift(self, steps: int) -> Schedule:
        """Delay by a number of steps, at the first value; a negative number begins later in the course.

        ``value(t) = schedule(max(t − steps, 0))``. So ``schedule.shift(-n)`` is what is left of it after n steps.

        Examples:
            >>> from lrcore import schedules
            >>> rate = schedules.Linear(1.0, 0.0, steps=4)
            >>> [rate.shift(1)(0), rate.shift(1)(2), rate.shift(-2)(0)]
            [1.0, 0.75, 0.5]
        """
        from lrcore.schedules.time_transforms import Shifted

        return Shifted(self, steps)

    def stretch(self, factor: float) -> Schedule:
        """Take that many times as long for the same course: ``value(t) = schedule(t / factor)``.

        Courses have values between steps; stairs and tables hold the one before.

        Args:
            factor: The factor, in (0, inf).

        Examples:
            >>> from lrcore import schedules
            >>> schedules.Linear(1.0, 0.0, steps=4).stretch(2.5).length
            10
        """
        from lrcore.schedules.time_transforms import Stretched

        return Stretched(self, factor)

    def repeat(self, times: int | None = None, period: int | None = None) -> Schedule:
        """Begin again at the end, a number of times or for ever.

        Args:
            times: How often the course is run in all, at least 1; None is for ever. Then the last value stays.
            period: After how many steps it begins again, at least 1; None is the schedule's length.

        Raises:
            ValueError: If there is no period, or a number is less than 1.

        Examples:
            >>> from lrcore import schedules
            >>> rate = schedules.Linear(1.0, 0.0, steps=2).repeat(2)
            >>> [rate(step) for step in range(6)]
            [1.0, 0.5, 1.0, 0.5, 0.0, 0.0]
        """
        from lrcore.schedules.time_transforms import Repeated

        return Repeated(self, times, period)

    def every(self, steps: int) -> Schedule:
        """Hold each value for a number of steps, as where a rate changes between epochs alone.

        ``value(t) = schedule(t − t mod steps)``. For a schedule that counts in epochs itself see
        :func:`per_epoch <lrcore.schedules.per_epoch>`.

        Examples:
            >>> from lrcore import schedules
            >>> rate = schedules.Linear(1.0, 0.0, steps=4).every(2)
            >>> [rate(step) for step in range(5)]
            [1.0, 1.0, 0.5, 0.5, 0.0]
        """
        from lrcore.schedules.time_transforms import Staircase

        return Staircase(self, steps)

    # In other forms

    def to_json(self) -> str:
        """Return the schedule as JSON: names and numbers, with the version of the format.

        Raises:
            TypeError: If there is a function in it, or a class that is not of :mod:`lrcore.schedules`.

        Examples:
            >>> from lrcore import schedules
            >>> text = schedules.Constant(0.1).to_json()
            >>> text
            '{"schedule": "Constant", "version": 1, "arguments": {"value": 0.1}}'
            >>> schedules.Schedule.from_json(text)
            Constant(value=0.1)
        """
        from lrcore.schedules.serialization import to_json

        return to_json(self)

    @staticmethod
    def from_json(text: str) -> Schedule:
        """Return the schedule that :meth:`to_json` wrote. Nothing in the text is ever executed.

        Raises:
            ValueError: If it is no JSON of a schedule, is of another version, or has an unknown name or argument.
        """
        from lrcore.schedules.serialization import from_json

        return from_json(text)

    def plot(self, steps: int | None = None, ax: Axes | None = None, **options: Any) -> Axes:
        """Draw the course with matplotlib; its phases are marked. See :func:`plot <lrcore.schedules.plot>`."""
        from lrcore.schedules.plotting import plot

        return plot(self, steps=steps, ax=ax, **options)

    def preview(self, steps: int | None = None, width: int = 60) -> str:
        """Return the course as a line of characters for a terminal, with its largest value and its end.

        Args:
            steps: How many steps it shows; None is the schedule's length and a tenth more, or 1000.
            width: The number of characters.

        Examples:
            >>> from lrcore import schedules
            >>> print(schedules.Linear(1.0, 0.0, steps=100).preview(steps=100, width=20))
            ███▇▇▇▆▆▅▅▅▄▄▃▃▃▂▂▁▁  0 … 99: 1 → 0.01, largest 1
        """
        from lrcore.schedules.plotting import preview

        return preview(self, steps, width)

    def _repr_html_(self) -> str:
        """Return the text and the curve, for notebooks."""
        from lrcore.schedules.plotting import to_html

        return to_html(self)

    def _parts(self) -> Iterator[tuple[str, float]]:
        """Yield the phases, each with the step at which it begins, where there is more than one. It may have no end."""
        return iter(())

    def __repr__(self) -> str:
        """Return the call that makes it, without arguments that are left at their defaults."""
        from dataclasses import fields, is_dataclass

        if not is_dataclass(self):
            return object.__repr__(self)
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.init and field.repr}
        defaults = {field.name: field.default for field in fields(self)}
        shown = [f"{name}={value!r}" for name, value in given.items() if value != defaults[name]]
        return f"{type(self).__name__}({', '.join(shown)})"


# How many schedules may lie within each other. Each level takes a few frames of Python's stack to evaluate, print,
# compare or save, of which there are 1000 by default.
DEEPEST = 100


class Compound(Schedule):
    """A schedule of other schedules, its fields. How deep they lie within each other is limited."""

    __slots__ = ("_depth",)


def depth_of(schedule: Any) -> int:
    """Return how many schedules lie within each other, itself included."""
    if not isinstance(schedule, Compound):
        return 1
    depth: int | None = getattr(schedule, "_depth", None)
    if depth is None:  # one that came out of a pickle
        from dataclasses import fields

        parts = [getattr(schedule, field.name) for field in fields(schedule) if field.init]  # type: ignore[arg-type]
        depth = 1 + max(depth_of(part) for part in parts if isinstance(part, Schedule))
        object.__setattr__(schedule, "_depth", depth)
    return depth


class Composed(Schedule):
    """A schedule of ``steps`` steps that another one, ``_course``, computes; a dataclass with these fields."""

    __slots__ = ()

    if TYPE_CHECKING:
        steps: int
        _course: Schedule

    @property
    def length(self) -> int:
        """The number of steps."""
        return self.steps

    def _value(self, step: float) -> float:
        return self._course._value(step)

    def _values(self, steps: Any) -> Floats:
        return self._course._values(steps)


def wrapped(schedule: Schedule) -> str:
    """Return the schedule as it is printed, in parentheses where a method could not follow."""
    return f"({schedule!r})" if schedule._is_sum_or_product else repr(schedule)


def phases_of(schedule: Schedule) -> Iterator[tuple[str, float]]:
    """Yield the phases of a schedule, or itself as the only one."""
    parts = schedule._parts()
    yield next(parts, (type(schedule).__name__, 0))
    yield from parts


def is_number(value: Any) -> bool:
    """Return whether a value is a real scalar, not a flag."""
    return as_number(value) is not None


def as_schedule(where: str, value: Any) -> Schedule:
    """Return the schedule, or a number as one that stays."""
    if isinstance(value, Schedule):
        return value
    if not is_number(value):
        raise TypeError(f"{where}: a schedule or a number is needed, got {brief(value)}{remedy_for(value)}")
    from lrcore.schedules.unbounded import Constant

    return Constant(value)


def remedy_for(value: Any) -> str:
    """Return how a function becomes a schedule, as the end of a message; nothing for anything else."""
    is_function = callable(value) and not isinstance(value, Schedule | type) and not hasattr(value, "shape")
    return "; make a schedule of a function: schedules.Lambda(function)" if is_function else ""


def refuse_factor(name: str, schedule: Schedule) -> None:
    """Raise if a schedule is made of factors alone where a value is needed.

    Raises:
        ValueError: If it is.
    """
    if schedule._is_factor:
        shown = (
            f"schedules.{schedule!r}"
            if type(schedule).__name__ in ("Warmup", "ReduceOnPlateau", "AdaScale")
            else (f"({schedule!r})")
        )
        raise ValueError(
            f"{name} must be a value, got {brief(schedule)}, which is a factor and 1 by itself; multiply a value by it"
            f": 0.1 * {shown}"
        )


def settled(schedule: Schedule) -> int | None:
    """Return the step from which on the value stays the same, if there is one."""
    return 0 if schedule._is_constant else schedule.length


def steps_of(where: str, given: Any, length: int | None, *, least: int = 0) -> int:
    """Return a number of steps, where a float in [0, 1) stands for a share of a length.

    The type decides: 1 is one step, 0.1 a tenth of the length. 1.0 could be meant as either, and is refused.
    """
    number = as_number(given)
    if not isinstance(number, float):
        return check_count(where, given, least=least)
    if number >= 1.0 and number.is_integer():
        count = f"{number:.0f}"
        share = (
            ""
            if length is None
            else f", or {length} for the whole length"
            if number == 1.0
            else ", or a share such as 0.1"
        )
        raise ValueError(
            f"{where} must be an int, a number of steps, or a float in [0, 1), a share of the length, "
            f"got {brief(given)}: write {count} for {count} step{'s' * (number != 1.0)}{share}"
        )
    if length is None:
        raise TypeError(
            f"{where} must be a whole number >= {least}, got {brief(given)}: a share is of a length, and there is none"
        )
    if not 0.0 <= number < 1.0:
        raise ValueError(f"{where} must be a whole number, or a share in [0, 1) of the length, got {brief(given)}")
    numerator, denominator = number.as_integer_ratio()
    return round(number * length) if length < EXACT else length * numerator // denominator


def _as_steps(steps: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    if isinstance(steps, range):
        if not steps:
            return np.empty(0, np.int64)
        array = np.arange(steps.start, steps.stop, steps.step)
    elif isinstance(steps, Iterable) and not isinstance(steps, str | bytes):
        array = np.asarray(steps if hasattr(steps, "__array__") else list(steps))
    else:
        return np.arange(check_count("steps", steps), dtype=np.int64)
    if array.size == 0:
        return np.empty(array.shape, np.int64)
    if array.dtype == object and all(isinstance(step, int) for step in array.flat):
        raise ValueError(f"steps must be in [0, 2**63), got {min(array.flat)} to {max(array.flat)}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"steps must be whole numbers below 2**63, got an array of {array.dtype}")
    if array.min() < 0 or array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"steps must be in [0, 2**63), got {array.min()} to {array.max()}")
    return array.astype(np.int64, copy=False)
