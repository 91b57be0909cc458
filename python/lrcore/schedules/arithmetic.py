"""Arithmetic of schedules, step by step: products, sums, differences, floors and caps."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lrcore.schedules import functions as fn
from lrcore.schedules.checks import check_fields
from lrcore.schedules.compound import Compound, UnaryOperation, check_parts, parenthesized, put
from lrcore.schedules.intervals import products
from lrcore.schedules.schedule import Bounds, Phases, Schedule, constant_from
from lrcore.schedules.unbounded import LARGEST, SMALLEST_NORMAL, Constant


@dataclass(frozen=True, slots=True, repr=False)
class Scaled(UnaryOperation):
    """A schedule times a number: ``schedule * factor`` or ``schedule.scale(factor)``.

    Args:
        schedule: The schedule.
        factor: The number, in [0, inf).

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the factor is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> (schedules.Linear(1.0, 0.0, steps=4) * 0.5)(2)
        0.25
    """

    factor: float

    # The number is the value that is multiplied.
    _is_factor: ClassVar[bool] = False
    _prints_operator: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self)
        inner = self.schedule
        if isinstance(inner, Scaled):
            factor = _product(inner.factor, self.factor)
            if factor is None and isinstance(inner.schedule, Scaled):
                # The product of all three factors is 0 or overflows.
                factor = min(inner.factor * self.factor, LARGEST)
            if factor is not None:
                put(self, "factor", factor)
                put(self, "schedule", inner.schedule)
        check_parts(self, "schedule")

    @property
    def _is_constant(self) -> bool:
        return self.schedule._is_constant

    def __repr__(self) -> str:
        return f"{_term(self.schedule)} * {self.factor!r}"

    def _value(self, step: float) -> Any:
        return finite(self.schedule._value(step) * self.factor)

    def _values(self, steps: Any) -> Any:
        return finite(self.schedule._values(steps) * self.factor)

    def _bounds(self, first: float, last: float) -> Bounds:
        return _capped(*products(self.schedule._bounds(first, last), (self.factor, self.factor)))

    def _maximum(self) -> float:
        # Rounding keeps the order of products.
        value: float = finite(self.schedule._maximum() * self.factor) if self.factor else 0.0
        return value

    def _compressed(self, steps: int) -> Schedule:
        return Scaled(self.schedule._compressed(steps), self.factor)


@dataclass(frozen=True, slots=True, repr=False)
class BinaryOperation(Compound):
    """An operation on the values of two schedules at the same step."""

    a: Schedule
    b: Schedule
    _length: int | None = field(init=False, repr=False, compare=False)

    # The operator or method.
    _operation: ClassVar[str]
    _is_commutative: ClassVar[bool] = True

    @abstractmethod
    def _apply(self, x: Any, y: Any) -> Any:
        """Return the result for two values or two arrays."""

    def _merged(self, inner: float, outer: float) -> float | None:
        """Return the number that has the effect of two applied in turn, if there is one."""
        return self._apply(inner, outer)  # type: ignore[no-any-return]

    def __post_init__(self) -> None:
        self._fold()
        check_parts(self, "a", "b")
        a, b = constant_from(self.a), constant_from(self.b)
        put(self, "_length", None if a is None or b is None or self._is_constant else max(a, b))

    def _fold(self) -> None:
        """Merge a number with that of the same operation inside: ``(x + 1) + 2`` becomes ``x + 3``."""
        sides = (("a", "b"), ("b", "a")) if self._is_commutative else (("b", "a"),)
        for outer, other in sides:
            number, inner = getattr(self, outer), getattr(self, other)
            if type(number) is not Constant or type(inner) is not type(self):
                continue
            for place, rest in sides:
                known = getattr(inner, place)
                merged = self._merged(known.value, number.value) if type(known) is Constant else None
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
        """The larger length, if both have one."""
        return self._length

    def __repr__(self) -> str:
        if self._prints_operator:
            return f"{self.a!r} {self._operation} {_term(self.b)}"
        return f"{parenthesized(self.a)}.{self._operation}({self.b!r})"

    def _value(self, step: float) -> Any:
        return self._apply(self.a._value(step), self.b._value(step))

    def _values(self, steps: Any) -> Any:
        return self._apply(self.a._values(steps), self.b._values(steps))

    def _bounds(self, first: float, last: float) -> Bounds:
        (a, b), (c, d) = self.a._bounds(first, last), self.b._bounds(first, last)
        return self._apply(a, c), self._apply(b, d)

    def _compressed(self, steps: int) -> Schedule:
        if self._length is None:
            return self
        # Compress what would end later; what ends before stays.
        left = self._length - steps
        return type(self)(*(part._compressed(max((constant_from(part) or 0) - left, 0)) for part in (self.a, self.b)))

    def _phases(self) -> Phases:
        yield from self.a._phases()
        yield from self.b._phases()


class Product(BinaryOperation):
    """The product of two schedules: ``a * b``.

    Args:
        a: A schedule.
        b: A schedule.

    Raises:
        TypeError: If one is not a schedule.

    Examples:
        >>> from lrcore import schedules
        >>> lr = schedules.Linear(1.0, 0.0, steps=4) * schedules.Step(1.0, step_size=2, gamma=0.5)
        >>> lr(2)
        0.25
    """

    __slots__ = ()
    _operation: ClassVar[str] = "*"
    _prints_operator: ClassVar[bool] = True

    def __repr__(self) -> str:
        return f"{_term(self.a)} * {parenthesized(self.b)}"

    def _apply(self, x: Any, y: Any) -> Any:
        return finite(x * y)

    def _merged(self, inner: float, outer: float) -> float | None:
        return _product(inner, outer)

    def _bounds(self, first: float, last: float) -> Bounds:
        return _capped(*products(self.a._bounds(first, last), self.b._bounds(first, last)))


class Sum(BinaryOperation):
    """The sum of two schedules: ``a + b``.

    Args:
        a: A schedule.
        b: A schedule.

    Raises:
        TypeError: If one is not a schedule.

    Examples:
        >>> from lrcore import schedules
        >>> (schedules.Linear(1.0, 0.0, steps=4) + 0.5)(2)
        1.0
    """

    __slots__ = ()
    _operation: ClassVar[str] = "+"
    _prints_operator: ClassVar[bool] = True

    def _apply(self, x: Any, y: Any) -> Any:
        return finite(x + y)

    def _bounds(self, first: float, last: float) -> Bounds:
        (a, b), (c, d) = self.a._bounds(first, last), self.b._bounds(first, last)
        return _capped(a + c, b + d)


class Difference(BinaryOperation):
    """The difference of two schedules: ``a - b``. Its values can be negative.

    Args:
        a: A schedule.
        b: The schedule that is subtracted.

    Raises:
        TypeError: If one is not a schedule.

    Examples:
        >>> from lrcore import schedules
        >>> decay = schedules.Linear(1.0, 0.0, steps=4)
        >>> (1.0 - decay)(1), (decay - 0.5)(4), (decay - 0.5).at_least(0.0)(4)
        (0.25, -0.5, 0.0)

    Note:
        An optimizer refuses a value outside a hyperparameter's range, such as a negative learning rate, at the step
        that would use it. ``at_least(0.0)`` prevents that.
    """

    __slots__ = ()
    _operation: ClassVar[str] = "-"
    _prints_operator: ClassVar[bool] = True
    _is_commutative: ClassVar[bool] = False

    def _apply(self, x: Any, y: Any) -> Any:
        return finite(x - y)

    def _merged(self, inner: float, outer: float) -> float:
        return min(inner + outer, LARGEST)

    def _bounds(self, first: float, last: float) -> Bounds:
        (a, b), (c, d) = self.a._bounds(first, last), self.b._bounds(first, last)
        return _capped(a - d, b - c)


class AtLeast(BinaryOperation):
    """The larger of two schedules: ``a.at_least(b)``, where ``b`` can be a number.

    Args:
        a: A schedule.
        b: The floor.

    Raises:
        TypeError: If one is not a schedule.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Linear(1.0, 0.0, steps=4).at_least(0.3)(4)
        0.3
    """

    __slots__ = ()
    _operation: ClassVar[str] = "at_least"

    @property
    def _is_factor(self) -> bool:
        # A constant floor under a factor is no value.
        return any(
            part._is_factor and (other._is_factor or isinstance(other, Constant))
            for part, other in ((self.a, self.b), (self.b, self.a))
        )

    def _apply(self, x: Any, y: Any) -> Any:
        return fn.maximum(x, y)


class AtMost(BinaryOperation):
    """The smaller of two schedules: ``a.at_most(b)``, where ``b`` can be a number.

    Args:
        a: A schedule.
        b: The cap.

    Raises:
        TypeError: If one is not a schedule.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.Linear(0.0, 1.0, steps=4).at_most(0.3)(4)
        0.3
    """

    __slots__ = ()
    _operation: ClassVar[str] = "at_most"

    def _apply(self, x: Any, y: Any) -> Any:
        return fn.minimum(x, y)


def _product(first: float, second: float) -> float | None:
    """Return the product of two factors, or None if it overflows or underflows although both do not."""
    both = first * second
    return both if SMALLEST_NORMAL <= both <= LARGEST or 0.0 in (first, second) else None


# More operations with a number in a row are merged.
_LONGEST_CHAIN = 4
_LARGEST_EXPONENT = 1024


def simplified(schedule: Schedule) -> Schedule:
    """Return an equivalent schedule without redundant operations.

    ``x + x`` is ``x * 2``, which has the same bits; so repeated doubling does not double the work. A chain of
    ``x * f``, ``x + n``, ``x - n``, ``.at_most(n)`` and ``.at_least(n)``, in any order, is up to rounding one
    ``(x * f + n).at_most(n).at_least(n)``. So an edit at each epoch, such as
    ``group["lr"] = (group["lr"] * 0.9).at_least(1e-5)``, leaves a schedule as small and fast as the first one.
    """
    if isinstance(schedule, Sum) and schedule.a is schedule.b:
        return Scaled(schedule.a, 2.0)
    if isinstance(schedule, AtLeast | AtMost) and schedule.a is schedule.b:
        return schedule.a
    core, steps = schedule, list[tuple[str, float]]()
    while (step := _outermost(core)) is not None:
        kind, number, core = step
        steps.append((kind, number))
    return _affine(core, steps[::-1]) or schedule if len(steps) > _LONGEST_CHAIN else schedule


def _affine(core: Schedule, steps: list[tuple[str, float]]) -> Schedule | None:
    """Return ``(core * factor + added).at_most(most).at_least(least)`` for a chain, or None if a number overflows."""
    # A mantissa and an exponent, since intermediate products can overflow.
    mantissa, exponent, added, most, least = 1.0, 0, 0.0, math.inf, -math.inf
    for kind, number in steps:
        if kind == "*":
            mantissa, more = math.frexp(mantissa * number)
            exponent, added = exponent + more, added * number if number else 0.0  # an overflow times 0 is no NaN
            most, least = (most * number, least * number) if number else (math.inf, -math.inf)
        elif kind == "+":
            added, most, least = added + number, most + number, least + number
        elif kind == "at_least":
            most, least = max(most, number), max(least, number)
        else:
            most, least = min(most, number), min(least, number)
    if exponent > _LARGEST_EXPONENT or max(abs(added), least) > LARGEST or most < 0.0 or -math.inf < least < 0.0:
        return None
    factor = math.ldexp(mantissa, exponent)
    made = core if factor == 1.0 else Scaled(core, factor)
    if added:
        made = Sum(made, Constant(added)) if added > 0.0 else Difference(made, Constant(-added))
    made = AtMost(made, Constant(most)) if most <= LARGEST else made
    return made if least == -math.inf else AtLeast(made, Constant(least))


OPERATIONS = {kind._operation: kind for kind in (Product, Sum, Difference, AtLeast, AtMost)}


def _outermost(schedule: Schedule) -> tuple[str, float, Schedule] | None:
    """Return the outermost operation with a number: its kind, the number, and the other operand."""
    if isinstance(schedule, Scaled):
        return "*", schedule.factor, schedule.schedule
    if isinstance(schedule, Difference):
        return ("+", -schedule.b.value, schedule.a) if type(schedule.b) is Constant else None
    if isinstance(schedule, BinaryOperation):
        for number, rest in ((schedule.b, schedule.a), (schedule.a, schedule.b)):
            if type(number) is Constant:
                return schedule._operation, number.value, rest
    return None


def _term(schedule: Schedule) -> str:
    """Return the repr as a factor, or as the right operand of a sum or difference."""
    return f"({schedule!r})" if isinstance(schedule, Sum | Difference) else repr(schedule)


def finite(value: Any) -> Any:
    """Return the number or array, limited to the largest finite number."""
    return fn.clamp(value, -LARGEST, LARGEST)


def _capped(low: float, high: float) -> Bounds:
    """Return bounds of values limited to the largest finite number; an upper bound of inf means unbounded growth."""
    return min(low, LARGEST), max(high if high == math.inf else min(high, LARGEST), -LARGEST)
