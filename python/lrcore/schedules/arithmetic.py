"""Schedules of schedules, value by value: multiplied, added, subtracted, held within limits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from lrcore.schedules import functions as fn
from lrcore.schedules.checks import check_depth, check_numbers, check_schedules, put
from lrcore.schedules.intervals import products
from lrcore.schedules.schedule import Compound, Schedule, settled, wrapped
from lrcore.schedules.unbounded import LARGEST, SMALLEST_NORMAL, Constant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lrcore.schedules.schedule import Floats


@dataclass(frozen=True, slots=True, repr=False)
class Scaled(Compound):
    """A schedule times a number: ``schedule * factor`` or ``schedule.scale(factor)``.

    Picture: docs/gallery/Scaled.png

    Args:
        schedule: The schedule.
        factor: The number, in [0, inf).

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If the factor is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> (schedules.Linear(1.0, 0.0, steps=4) * 0.5)(2)
        0.25
    """

    schedule: Schedule
    factor: float

    _is_sum_or_product: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_schedules(self, "schedule")
        check_numbers(self, "factor")
        inner = self.schedule
        if isinstance(inner, Scaled):
            factor = product(inner.factor, self.factor)
            if factor is None and isinstance(inner.schedule, Scaled):
                # No number times all three is but 0 or the largest.
                factor = min(inner.factor * self.factor, LARGEST)
            if factor is not None:
                put(self, "factor", factor)
                put(self, "schedule", inner.schedule)
        check_depth(self, "schedule")

    @property
    def length(self) -> int | None:
        """That of the schedule."""
        return self.schedule.length

    def __repr__(self) -> str:
        return f"{_term(self.schedule)} * {self.factor!r}"

    @property
    def _is_constant(self) -> bool:
        return self.schedule._is_constant

    def _value(self, step: float) -> float:
        value: float = finite(self.schedule._value(step) * self.factor)
        return value

    def _values(self, steps: Any) -> Floats:
        values: Floats = finite(self.schedule._values(steps) * self.factor)
        return values

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        low, high = products(self.schedule._bounds(first, last), (self.factor, self.factor))
        return capped(low, high)

    def _maximum(self) -> float:
        # Rounding keeps the order of products.
        value: float = finite(self.schedule._maximum() * self.factor) if self.factor else 0.0
        return value

    def _shortened(self, steps: int) -> Schedule:
        return Scaled(self.schedule._shortened(steps), self.factor)

    def _parts(self) -> Iterator[tuple[str, float]]:
        return self.schedule._parts()


class Pair(Compound):
    """Two schedules at the same steps; a dataclass with the fields ``a``, ``b`` and ``_length``.

    A subclass has ``_joined(x, y)``, the same for numbers and arrays.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        a: Schedule
        b: Schedule
        _length: int | None

        def _joined(self, x: Any, y: Any) -> Any: ...

        @staticmethod
        def _merged(first: float, second: float) -> float | None: ...

    def __post_init__(self) -> None:
        check_schedules(self, "a", "b")
        self._fold()
        check_depth(self, "a", "b")
        a, b = settled(self.a), settled(self.b)
        put(self, "_length", None if a is None or b is None or self._is_constant else max(a, b))

    def _fold(self) -> None:
        """Merge a number with that of the same operation within: ``(x + 1) + 2`` becomes ``x + 3``."""
        for name, other in (("a", "b"), ("b", "a")):
            number, inner = getattr(self, name), getattr(self, other)
            if type(number) is not Constant or type(inner) is not type(self):
                continue
            for place, rest in (("a", "b"), ("b", "a")):
                known = getattr(inner, place)
                if type(known) is Constant:
                    merged = self._merged(known.value, number.value)
                    if merged is not None:
                        put(self, place, Constant(merged))
                        put(self, rest, getattr(inner, rest))
                        return

    @property
    def _is_constant(self) -> bool:
        return self.a._is_constant and self.b._is_constant

    @property
    def _is_factor(self) -> bool:
        return self.a._is_factor and self.b._is_factor

    @property
    def length(self) -> int | None:
        """The longer length of both, if both have one."""
        return self._length

    def _value(self, step: float) -> float:
        value: float = self._joined(self.a._value(step), self.b._value(step))
        return value

    def _values(self, steps: Any) -> Floats:
        values: Floats = self._joined(self.a._values(steps), self.b._values(steps))
        return values

    def _shortened(self, steps: int) -> Schedule:
        if self._length is None:
            return self
        # What would not be over by then is fitted; what is stays as it is.
        left = self._length - steps
        return type(self)(*(part._shortened(max((settled(part) or 0) - left, 0)) for part in (self.a, self.b)))

    def _parts(self) -> Iterator[tuple[str, float]]:
        yield from self.a._parts()
        yield from self.b._parts()


@dataclass(frozen=True, slots=True, repr=False)
class Product(Pair):
    """The product of two schedules: ``a * b``.

    Picture: docs/gallery/Product.png

    Args:
        a: A schedule.
        b: Another.

    Raises:
        TypeError: If one is no schedule.

    Examples:
        >>> from lrcore import schedules
        >>> rate = schedules.Linear(1.0, 0.0, steps=4) * schedules.Step(1.0, step_size=2, gamma=0.5)
        >>> rate(2)
        0.25
    """

    a: Schedule
    b: Schedule
    _length: int | None = field(init=False, repr=False, compare=False)

    _is_sum_or_product: ClassVar[bool] = True

    def __repr__(self) -> str:
        return f"{_term(self.a)} * {wrapped(self.b)}"

    def _joined(self, x: Any, y: Any) -> Any:
        return finite(x * y)

    @staticmethod
    def _merged(first: float, second: float) -> float | None:
        return product(first, second)

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        low, high = products(self.a._bounds(first, last), self.b._bounds(first, last))
        return capped(low, high)


@dataclass(frozen=True, slots=True, repr=False)
class Sum(Pair):
    """The sum of two schedules: ``a + b``.

    Picture: docs/gallery/Sum.png

    Args:
        a: A schedule.
        b: Another.

    Raises:
        TypeError: If one is no schedule.

    Examples:
        >>> from lrcore import schedules
        >>> (schedules.Linear(1.0, 0.0, steps=4) + 0.5)(2)
        1.0
    """

    a: Schedule
    b: Schedule
    _length: int | None = field(init=False, repr=False, compare=False)

    _is_sum_or_product: ClassVar[bool] = True

    def __repr__(self) -> str:
        return f"{self.a!r} + {_term(self.b)}"

    def _joined(self, x: Any, y: Any) -> Any:
        return finite(x + y)

    @staticmethod
    def _merged(first: float, second: float) -> float | None:
        return min(first + second, LARGEST)

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        (a, b), (c, d) = self.a._bounds(first, last), self.b._bounds(first, last)
        return capped(a + c, b + d)


@dataclass(frozen=True, slots=True, repr=False)
class Difference(Pair):
    """The difference of two schedules: ``a - b``. Its values may be below 0.

    Picture: docs/gallery/Difference.png

    Args:
        a: A schedule.
        b: What is subtracted from it.

    Raises:
        TypeError: If one is no schedule.

    Examples:
        >>> from lrcore import schedules
        >>> fall = schedules.Linear(1.0, 0.0, steps=4)
        >>> (1.0 - fall)(1), (fall - 0.5)(4), (fall - 0.5).at_least(0.0)(4)
        (0.25, -0.5, 0.0)

    Note:
        An optimizer refuses a value outside of a hyperparameter's range at the step that would use it, so a learning
        rate below 0. ``at_least(0.0)`` keeps values from falling below.
    """

    a: Schedule
    b: Schedule
    _length: int | None = field(init=False, repr=False, compare=False)

    _is_sum_or_product: ClassVar[bool] = True

    def __repr__(self) -> str:
        return f"{self.a!r} - {_term(self.b)}"

    def _fold(self) -> None:
        """Merge numbers that are subtracted on end: ``(x - 1) - 2`` becomes ``x - 3``."""
        inner, number = self.a, self.b
        if type(inner) is Difference and type(inner.b) is Constant and type(number) is Constant:
            put(self, "a", inner.a)
            put(self, "b", Constant(min(inner.b.value + number.value, LARGEST)))

    def _joined(self, x: Any, y: Any) -> Any:
        return finite(x - y)

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        (a, b), (c, d) = self.a._bounds(first, last), self.b._bounds(first, last)
        return capped(a - d, b - c)


@dataclass(frozen=True, slots=True, repr=False)
class AtLeast(Pair):
    """The larger of two schedules: ``a.at_least(b)``, where ``b`` may be a number.

    Picture: docs/gallery/AtLeast.png

    Args:
        a: A schedule.
        b: The floor.

    Raises:
        TypeError: If one is no schedule.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Linear(1.0, 0.0, steps=4).at_least(0.3)(4)
        0.3
    """

    a: Schedule
    b: Schedule
    _length: int | None = field(init=False, repr=False, compare=False)

    @property
    def _is_factor(self) -> bool:
        # A floor is no height.
        return any(
            part._is_factor and (other._is_factor or isinstance(other, Constant))
            for part, other in ((self.a, self.b), (self.b, self.a))
        )

    def __repr__(self) -> str:
        return f"{wrapped(self.a)}.at_least({self.b!r})"

    def _joined(self, x: Any, y: Any) -> Any:
        return fn.maximum(x, y)

    @staticmethod
    def _merged(first: float, second: float) -> float | None:
        return max(first, second)

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        (a, b), (c, d) = self.a._bounds(first, last), self.b._bounds(first, last)
        return max(a, c), max(b, d)


@dataclass(frozen=True, slots=True, repr=False)
class AtMost(Pair):
    """The smaller of two schedules: ``a.at_most(b)``, where ``b`` may be a number.

    Picture: docs/gallery/AtMost.png

    Args:
        a: A schedule.
        b: The cap.

    Raises:
        TypeError: If one is no schedule.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Linear(0.0, 1.0, steps=4).at_most(0.3)(4)
        0.3
    """

    a: Schedule
    b: Schedule
    _length: int | None = field(init=False, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"{wrapped(self.a)}.at_most({self.b!r})"

    def _joined(self, x: Any, y: Any) -> Any:
        return fn.minimum(x, y)

    @staticmethod
    def _merged(first: float, second: float) -> float | None:
        return min(first, second)

    def _bounds(self, first: float, last: float) -> tuple[float, float]:
        (a, b), (c, d) = self.a._bounds(first, last), self.b._bounds(first, last)
        return min(a, c), min(b, d)


def product(first: float, second: float) -> float | None:
    """Return the product of two factors, rounded once, or None where it has no exponent that both have."""
    both = first * second
    return both if SMALLEST_NORMAL <= both <= LARGEST or 0.0 in (first, second) else None


# Numbers on end that are multiplied, added or limited by; more are merged.
_LONGEST_CHAIN = 4
_LARGEST_EXPONENT = 1024


def merged(schedule: Schedule) -> Schedule:
    """Return a schedule with few numbers, where many were multiplied, added and limited by in turn.

    ``x * f``, ``x + n``, ``x - n``, ``.at_most(n)`` and ``.at_least(n)`` in any order are one
    ``(x * f + n).at_most(n).at_least(n)``, where ``n`` may be subtracted, but for rounding. So an edit at each epoch,
    such as ``group["lr"] = (group["lr"] * 0.9).at_least(1e-5)``, leaves a schedule as small and fast as the first one.
    """
    core, steps = schedule, list[tuple[str, float]]()
    while (step := _outermost(core)) is not None:
        kind, number, core = step
        steps.append((kind, number))
    if len(steps) <= _LONGEST_CHAIN:
        return schedule
    # The factor as a mantissa and an exponent, since it may be no number on the way.
    mantissa, exponent, added, most, least = 1.0, 0, 0.0, math.inf, -math.inf
    for kind, number in reversed(steps):
        if kind == "*":
            mantissa, more = math.frexp(mantissa * number)
            exponent, added = exponent + more, added * number
            most, least = (most * number, least * number) if number else (math.inf, -math.inf)
        elif kind == "+":
            added, most, least = added + number, most + number, least + number
        elif kind == "least":
            most, least = max(most, number), max(least, number)
        else:
            most, least = min(most, number), min(least, number)
    if exponent > _LARGEST_EXPONENT or max(abs(added), least) > LARGEST or most < 0.0 or -math.inf < least < 0.0:
        return schedule
    factor = math.ldexp(mantissa, exponent)
    made = core if factor == 1.0 else Scaled(core, factor)
    if added:
        made = Sum(made, Constant(added)) if added > 0.0 else Difference(made, Constant(-added))
    made = AtMost(made, Constant(most)) if most <= LARGEST else made
    return made if least == -math.inf else AtLeast(made, Constant(least))


def _outermost(schedule: Schedule) -> tuple[str, float, Schedule] | None:
    """Return what is done with a number last, the number, and the schedule it is done to."""
    if isinstance(schedule, Scaled):
        return "*", schedule.factor, schedule.schedule
    if isinstance(schedule, Difference):
        return ("+", -schedule.b.value, schedule.a) if type(schedule.b) is Constant else None
    if isinstance(schedule, Pair):
        kind = {Product: "*", Sum: "+", AtLeast: "least", AtMost: "most"}.get(type(schedule))
        for number, rest in ((schedule.b, schedule.a), (schedule.a, schedule.b)):
            if kind is not None and type(number) is Constant:
                return kind, number.value, rest
    return None


def _term(schedule: Schedule) -> str:
    """Return the schedule as it is printed as a factor, or on the right of a sum or difference."""
    return f"({schedule!r})" if isinstance(schedule, Sum | Difference) else repr(schedule)


def finite(value: Any) -> Any:
    """Return the number, or the array, no larger than the largest number."""
    return fn.clamp(value, -LARGEST, LARGEST)


def capped(low: float, high: float) -> tuple[float, float]:
    """Return bounds of values that are at most the largest number; an infinite one says that values grow."""
    return min(low, LARGEST), max(high if high == math.inf else min(high, LARGEST), -LARGEST)
