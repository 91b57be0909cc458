"""The base class of all schedules, with the methods that combine them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, SupportsIndex

import numpy as np

from lrcore import schedules
from lrcore._messages import brief
from lrcore._ranges import POSITIVE, as_number, check_count
from lrcore.schedules.functions import EXACT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = np.ndarray[Any, np.dtype[np.float64]]
# A lower and an upper bound of values.
Bounds = tuple[float, float]
# The names and first steps of phases.
Phases = Iterator[tuple[str, float]]

# Values are computed in arrays of this many steps, so that intermediate results stay in the cache.
_TILE = 2**15


class Schedule(ABC):
    """A hyperparameter as a pure function of the step.

    A schedule is immutable: it can be compared, hashed, printed, pickled and written as JSON, needs no optimizer, and
    is the same function after a restart. Step ``k`` of an optimizer, from 0, uses ``schedule(k)``.

    Schedules combine in sequence (:meth:`then`, :meth:`warmup`, :meth:`cooldown`), by arithmetic (``a * b``,
    ``a * 0.1``, ``a / 2``, ``a + b``, ``a - b``), by limits (:meth:`at_least`, :meth:`at_most`), and by a change of
    time (:meth:`shift`, :meth:`stretch`, :meth:`repeat`, :meth:`every`). If a schedule has a length, a number of steps
    can be given as a fraction of it: ``a.warmup(0.1)`` takes a tenth of the steps.

    A subclass implements ``_value(step)``, and ``length`` if the schedule has one.
    """

    __slots__ = ()

    # Makes NumPy return NotImplemented for ``array_scalar * schedule`` instead of building an object array.
    __array_ufunc__: ClassVar[None] = None

    # Whether the repr needs parentheses before a method call.
    _prints_operator: ClassVar[bool] = False

    # Values

    def __call__(self, step: SupportsIndex) -> float:
        """Return the value at a step.

        Args:
            step: The step, from 0. Past its end a schedule keeps its last value.

        Raises:
            TypeError: If the step is not an integer.
            ValueError: If the step is negative.
        """
        if type(step) is not int or step < 0:
            step = check_count("step", step)
        return self._value(step)

    def values(self, steps: SupportsIndex | Iterable[int]) -> Floats:
        """Return the values at many steps: bitwise equal to one call for each, and much faster.

        Args:
            steps: The number of first steps, or a range, array or sequence of integer steps.

        Returns:
            A float64 array with the shape of the steps.

        Raises:
            TypeError: If the steps are not integers.
            ValueError: If a step is negative or above 2⁶³ − 1.

        Examples:
            >>> from lrcore import schedules
            >>> schedules.Linear(1.0, 0.0, steps=4).values(6)
            array([1.  , 0.75, 0.5 , 0.25, 0.  , 0.  ])
            >>> schedules.Linear(1.0, 0.0, steps=4).values(range(0, 5, 2))
            array([1. , 0.5, 0. ])
        """
        array = _as_steps(steps)
        flat = array.ravel()
        # From 2⁵³ on float64 cannot represent every step, while scalar evaluation uses Python's integers.
        evaluate = self._values if flat.size == 0 or flat.max() < EXACT else partial(Schedule._values, self)
        values = np.empty(flat.shape)
        with np.errstate(all="ignore"):
            for k in range(0, flat.size, _TILE):
                values[k : k + _TILE] = evaluate(flat[k : k + _TILE])
        return values.reshape(array.shape)

    @property
    def length(self) -> int | None:
        """The step from which on the value is constant, or None if there is none."""
        return None

    @property
    def maximum(self) -> float:
        """The largest value at integer steps.

        It is found from bounds of the parts, at any length, and equals the maximum of all values up to rounding. If the
        search does not converge, it is the largest value found, or the bound if that is more than twice as large: the
        peak of waves with incommensurable periods may be missed by a little, and that of a difference overestimated.

        Raises:
            ValueError: If the values grow without bound, or a part is a function without a length.
        """
        return self._maximum()

    @property
    def _is_constant(self) -> bool:
        """Whether the value is the same at every step."""
        return False

    @property
    def _is_factor(self) -> bool:
        """Whether it consists of factors only, such as ``Warmup(10)``, which have to multiply a value."""
        return False

    @abstractmethod
    def _value(self, step: float) -> float:
        """Return the value at a checked step. Within :meth:`stretch` the step can be fractional."""

    def _values(self, steps: Any) -> Floats:
        """Return the values at an array of steps below 2⁵³, bitwise equal to ``_value``."""
        return np.array([self._value(step) for step in steps.ravel().tolist()], np.float64).reshape(steps.shape)

    def _bounds(self, first: float, last: float) -> Bounds:
        """Return a lower and an upper bound of the values from ``first`` to ``last``, which can be infinite."""
        if first == last:
            value = self._value(first)
            return value, value
        return -math.inf, math.inf

    def _maximum(self) -> float:
        """Return the largest value, or raise."""
        from lrcore.schedules.intervals import largest

        last = constant_from(self)
        return largest(self, math.inf if last is None else last)

    def _compressed(self, steps: int) -> Schedule:
        """Return the schedule compressed by ``steps`` steps, at most its length. Without a length it is unchanged."""
        length = self.length
        if steps == 0 or length is None:
            return self
        if steps == length:
            return as_schedule("warmup", self._value(length))
        return self.stretch((length - steps) / length)

    # In sequence

    def warmup(self, steps: SupportsIndex | float, start: float = 0.0, shape: str = "linear") -> Schedule:
        """Rise to the first value over a number of steps, then run the schedule.

        The linear warm-up has ``start + (first − start) · (k + 1) / steps`` at step ``k``, so no step has a learning
        rate of 0. A schedule with a length keeps its length: it is compressed into the remaining steps. A schedule
        without a length is delayed. ``Warmup(steps) * schedule`` multiplies without compressing or delaying.

        Args:
            steps: The length of the warm-up in steps, or, as a float in [0, 1), a fraction of the schedule's length; 0
                changes nothing. So ``warmup(1)`` is one step, and ``warmup(1.0)`` is an error.
            start: The value that the warm-up rises from, in [0, inf). Step 0 is already one increment above it.
            shape: ``"linear"``; ``"cosine"``, ``(1 − cos πx) / 2``; or ``"exponential"``,
                ``(1 − e⁻ˣ) / (1 − e⁻¹)``, with ``x = (k + 1) / steps``.

        Raises:
            TypeError: If an argument is not a number.
            ValueError: If the warm-up is negative or longer than the schedule, or the shape is unknown.

        Examples:
            >>> from lrcore import schedules
            >>> lr = schedules.Cosine(0.1, steps=100).warmup(10)
            >>> [round(lr(step), 3) for step in (0, 1, 9, 10, 100)]
            [0.01, 0.02, 0.1, 0.1, 0.0]

        References:
            Goyal et al., *Accurate, Large Minibatch SGD* (2017), section 2.2.

        Note:
            optax and transformers also count the warm-up in the length; Keras does not. PyTorch's ``LinearLR`` starts
            at a factor instead of a value.
        """
        return schedules.WithWarmup(self, steps, start, shape)  # type: ignore[arg-type]

    def cooldown(
        self,
        steps: SupportsIndex | float,
        end: float = 0.0,
        shape: str = "linear",
        at: SupportsIndex | float | None = None,
    ) -> Schedule:
        """Decay to an end value over the last steps, from the value that the schedule has there.

        Args:
            steps: The length of the decay in steps, or, as a float in [0, 1), a fraction of the schedule's length; 0
                changes nothing.
            end: The final value, in [0, inf).
            shape: ``"linear"``, ``"cosine"``, or ``"sqrt"``, ``1 − √p``.
            at: The step at which the decay begins; None is ``length − steps``.

        Raises:
            TypeError: If an argument is not a number.
            ValueError: If the decay is negative or longer than the schedule, or ``at`` is None without a length.

        Examples:
            >>> from lrcore import schedules
            >>> lr = schedules.InverseSqrt(1.0, timescale=1.0).cooldown(2, at=8)
            >>> [round(lr(step), 3) for step in (7, 8, 9, 10)]
            [0.354, 0.333, 0.167, 0.0]

        References:
            Zhai et al., *Scaling Vision Transformers* (2022), section 3.5; Hägele et al., *Scaling Laws and
            Compute-Optimal Training Beyond Fixed Training Durations* (2024), for ``1 − √p``.
        """
        return schedules.WithCooldown(self, steps, end, shape, at)  # type: ignore[arg-type]

    def then(self, other: Schedule | float, at: SupportsIndex | float | None = None) -> Schedule:
        """Continue with another schedule, from its step 0.

        Args:
            other: The schedule or number from step ``at`` on.
            at: The step, or, as a float in [0, 1), the fraction of this schedule's length, at which ``other`` begins;
                None is the length.

        Raises:
            TypeError: If ``other`` is not a schedule or number.
            ValueError: If ``at`` is negative, or None and this schedule has no length.

        Examples:
            >>> from lrcore import schedules
            >>> lr = schedules.Constant(1.0).then(schedules.Linear(1.0, 0.0, steps=2), at=3)
            >>> [lr(step) for step in range(6)]
            [1.0, 1.0, 1.0, 1.0, 0.5, 0.0]

        Note:
            PyTorch's ``SequentialLR`` and optax' ``join_schedules``.
        """
        return schedules.Sequential(self, as_schedule("then", other), at)  # type: ignore[arg-type]

    # Arithmetic

    def __mul__(self, other: Schedule | float) -> Schedule:
        return _combined("*", self, other) if isinstance(other, Schedule) else self.__rmul__(other)

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
        return _combined("+", self, other)

    def __radd__(self, other: float) -> Schedule:
        return _combined("+", other, self)

    def __sub__(self, other: Schedule | float) -> Schedule:
        return _combined("-", self, other)

    def __rsub__(self, other: float) -> Schedule:
        return _combined("-", other, self)

    def __neg__(self) -> Schedule:
        return 0.0 - self

    def __pos__(self) -> Schedule:
        return self

    def scale(self, factor: float) -> Schedule:
        """Multiply every value by a factor in [0, inf), as ``schedule * factor`` does.

        Factors are merged into one, so a million of ``group["lr"] *= 0.999`` leave a schedule as small and fast as one.

        Examples:
            >>> from lrcore import schedules
            >>> schedules.Constant(0.5).scale(0.5)(0)
            0.25
        """
        from lrcore.schedules.arithmetic import simplified

        return simplified(schedules.Scaled(self, factor))

    def at_least(self, floor: Schedule | float) -> Schedule:
        """Return the larger of this schedule and a floor, a number or another schedule.

        Examples:
            >>> from lrcore import schedules
            >>> schedules.Exponential(1.0, gamma=0.5).at_least(0.2)(9)
            0.2
        """
        return _combined("at_least", self, as_schedule("at_least", floor))

    def at_most(self, cap: Schedule | float) -> Schedule:
        """Return the smaller of this schedule and a cap, a number or another schedule.

        Examples:
            >>> from lrcore import schedules
            >>> schedules.Constant(1.0).at_most(0.2)(0)
            0.2
        """
        return _combined("at_most", self, as_schedule("at_most", cap))

    # Time

    def shift(self, steps: int) -> Schedule:
        """Delay the schedule, or with a negative number skip its first steps.

        ``value(t) = schedule(max(t − steps, 0))``

        Examples:
            >>> from lrcore import schedules
            >>> lr = schedules.Linear(1.0, 0.0, steps=4)
            >>> [lr.shift(1)(0), lr.shift(1)(2), lr.shift(-2)(0)]
            [1.0, 0.75, 0.5]
        """
        return schedules.Shifted(self, steps)

    def stretch(self, factor: float) -> Schedule:
        """Take ``factor`` times as many steps: ``value(t) = schedule(t / factor)``.

        Between steps most schedules interpolate by their formula; piecewise-constant ones and tables keep the value of
        the step before.

        Args:
            factor: The factor, in (0, inf).

        Examples:
            >>> from lrcore import schedules
            >>> schedules.Linear(1.0, 0.0, steps=4).stretch(2.5).length
            10
        """
        return schedules.Stretched(self, factor)

    def repeat(self, times: int | None = None, period: int | None = None) -> Schedule:
        """Start again at the end, a number of times or forever.

        Args:
            times: The number of runs, at least 1; None repeats forever. After the last run the value stays.
            period: The steps of a run, at least 1; None is the schedule's length.

        Raises:
            ValueError: If there is no period, or a number is less than 1.

        Examples:
            >>> from lrcore import schedules
            >>> lr = schedules.Linear(1.0, 0.0, steps=2).repeat(2)
            >>> [lr(step) for step in range(6)]
            [1.0, 0.5, 1.0, 0.5, 0.0, 0.0]
        """
        return schedules.Repeated(self, times, period)  # type: ignore[arg-type]

    def every(self, steps: int) -> Schedule:
        """Update the value only every ``steps`` steps, for instance once an epoch.

        ``value(t) = schedule(t − t mod steps)``. For a schedule that counts epochs see
        :func:`per_epoch <lrcore.schedules.per_epoch>`.

        Examples:
            >>> from lrcore import schedules
            >>> lr = schedules.Linear(1.0, 0.0, steps=4).every(2)
            >>> [lr(step) for step in range(5)]
            [1.0, 1.0, 0.5, 0.5, 0.0]
        """
        return schedules.Staircase(self, steps)

    # Conversions

    def to_json(self) -> str:
        """Return the schedule as JSON: names and numbers, with the version of the format.

        Raises:
            TypeError: If it contains a function, or a class that is not in :mod:`lrcore.schedules`.

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
        """Return the schedule that :meth:`to_json` wrote. Nothing in the text is executed.

        Raises:
            ValueError: If the text is not the JSON of a schedule, or has an unknown version, name or argument.
        """
        from lrcore.schedules.serialization import from_json

        return from_json(text)

    def plot(self, steps: int | None = None, ax: Axes | None = None, **options: Any) -> Axes:
        """Plot the values with matplotlib, with its phases marked. See :func:`plot <lrcore.schedules.plot>`."""
        from lrcore.schedules.plotting import plot

        return plot(self, steps=steps, ax=ax, **options)

    def preview(self, steps: int | None = None, width: int = 60) -> str:
        """Return a one-line plot for a terminal, with the first, the last and the largest value.

        Args:
            steps: The number of steps; None is the schedule's length plus a tenth, or 1000 without a length.
            width: The number of characters.

        Examples:
            >>> from lrcore import schedules
            >>> print(schedules.Linear(1.0, 0.0, steps=100).preview(steps=100, width=20))
            ███▇▇▇▆▆▅▅▅▄▄▃▃▃▂▂▁▁  0 … 99: 1 → 0.01, largest 1
        """
        from lrcore.schedules.plotting import preview

        return preview(self, steps, width)

    def _repr_html_(self) -> str:
        """Return the repr and the curve, for notebooks."""
        from lrcore.schedules.plotting import to_html

        return to_html(self)

    def _phases(self) -> Phases:
        """Yield the name and the first step of each phase, if there are several. The iterator can be infinite."""
        return iter(())

    def __repr__(self) -> str:
        """Return the constructor call, without arguments that have their defaults."""
        if not is_dataclass(self):
            return object.__repr__(self)
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.init and field.repr}
        defaults = {field.name: field.default for field in fields(self)}
        shown = [f"{name}={value!r}" for name, value in given.items() if value != defaults[name]]
        return f"{type(self).__name__}({', '.join(shown)})"


def _combined(operation: str, a: Any, b: Any) -> Schedule:
    """Return the simplified result of an operation on schedules or numbers, or NotImplemented for other operands."""
    from lrcore.schedules.arithmetic import OPERATIONS, simplified

    if not all(isinstance(part, Schedule) or is_number(part) for part in (a, b)):
        return NotImplemented  # type: ignore[no-any-return]
    return simplified(OPERATIONS[operation](as_schedule(operation, a), as_schedule(operation, b)))


def is_number(value: Any) -> bool:
    """Return whether a value is a real scalar; a bool is not."""
    return as_number(value) is not None


def as_schedule(where: str, value: Any) -> Schedule:
    """Return the schedule, or a number as a Constant."""
    if isinstance(value, Schedule):
        return value
    if not is_number(value):
        raise TypeError(f"{where}: a schedule or a number is needed, got {brief(value)}{remedy_for(value)}")
    return schedules.Constant(value)


def remedy_for(value: Any) -> str:
    """Return the end of an error message that says how to make a schedule of a function; empty for other values."""
    is_function = callable(value) and not isinstance(value, Schedule | type) and not hasattr(value, "shape")
    return "; make a schedule of a function: schedules.Lambda(function)" if is_function else ""


def refuse_factor(name: str, schedule: Schedule) -> None:
    """Raise a ValueError if a schedule consists of factors only where a value is needed."""
    if schedule._is_factor:
        is_class = type(schedule).__name__ in ("Warmup", "ReduceOnPlateau", "AdaScale")
        shown = f"schedules.{schedule!r}" if is_class else f"({schedule!r})"
        raise ValueError(
            f"{name} must be a value, got {brief(schedule)}, which is a factor and 1 by itself; multiply a value by it"
            f": 0.1 * {shown}"
        )


def constant_from(schedule: Schedule) -> int | None:
    """Return the step from which on the value is constant, if there is one."""
    return 0 if schedule._is_constant else schedule.length


def steps_of(where: str, given: Any, length: int | None, *, least: int = 0) -> int:
    """Return a number of steps: an int as it is, a float in [0, 1) as a fraction of a length.

    The type decides: 1 is one step, 0.1 a tenth of the length. 1.0 is ambiguous and an error.
    """
    number = as_number(given)
    if not isinstance(number, float):
        return check_count(where, given, least=least)
    if number >= 1.0 and number.is_integer():
        raise ValueError(
            f"{where} must be an int, a number of steps, or a float in [0, 1), a share of the length, "
            f"got {brief(given)}: {_correction(number, length)}"
        )
    if length is None:
        raise TypeError(
            f"{where} must be a whole number >= {least}, got {brief(given)}: a share is of a length, and there is none"
        )
    if not 0.0 <= number < 1.0:
        raise ValueError(f"{where} must be a whole number, or a share in [0, 1) of the length, got {brief(given)}")
    numerator, denominator = number.as_integer_ratio()
    return round(number * length) if length < EXACT else length * numerator // denominator


def _correction(number: float, length: int | None) -> str:
    """Return what to write instead of a float such as 1.0 or 500.0."""
    count = f"{number:.0f}"
    text = f"write {count} for {count} step{'s' * (number != 1.0)}"
    if length is None:
        return text
    return f"{text}, or {length} for the whole length" if number == 1.0 else f"{text}, or a share such as 0.1"


def _as_steps(steps: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return a number of first steps, a range or a sequence of steps as an int64 array."""
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
