"""Base classes of schedules that are made of numbers, and the checks of their fields.

The checks run in ``__post_init__`` and store plain Python numbers.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from lrcore._messages import brief
from lrcore._ranges import FRACTION, NON_NEGATIVE, POSITIVE, REAL, SHARE, Range, check_count
from lrcore.schedules.compound import put
from lrcore.schedules.schedule import Bounds, Floats, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Check = Callable[[str, Any], Any]

# Annotations of fields with other ranges than `float`, at least 0 and finite, and `int`, at least 0.
Real = float
Positive = float
Fraction = float
Share = float
OneOrMore = float
PositiveInt = int
# At least 1 and at most 2⁶³: the steps of a formula that converts them to a float.
FloatableInt = int


def _check_flag(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{where} must be True or False, got {brief(value)}")
    return value


_CHECKS: dict[str, Check] = {
    "float": NON_NEGATIVE.check,
    "Real": REAL.check,
    "Positive": POSITIVE.check,
    "Fraction": FRACTION.check,
    "Share": SHARE.check,
    "OneOrMore": Range(1.0).check,
    "int": check_count,
    "PositiveInt": partial(check_count, least=1),
    "FloatableInt": partial(check_count, least=1, most=2**63),
    "bool": _check_flag,
}


class Checked(Schedule):
    """A dataclass whose fields are checked by their annotations."""

    __slots__ = ()

    def __post_init__(self) -> None:
        check_fields(self)


class Finite(Checked):
    """A schedule that ends after its field ``steps``."""

    __slots__ = ()

    steps: int

    @property
    def length(self) -> int:
        """The number of steps."""
        return self.steps


class Delegating(Finite):
    """A schedule of ``steps`` steps whose values are those of another one, ``_schedule``; a dataclass with both."""

    __slots__ = ()

    _schedule: Schedule

    def _value(self, step: float) -> float:
        return self._schedule._value(step)

    def _values(self, steps: Any) -> Floats:
        return self._schedule._values(steps)

    def _bounds(self, first: float, last: float) -> Bounds:
        return self._schedule._bounds(first, last)


def check_fields(schedule: Schedule, *names: str) -> None:
    """Convert all fields, or those with the given names, to numbers in the ranges of their annotations, or raise."""
    kind = type(schedule)
    for name, check, is_optional in _checks_of(kind):
        value = getattr(schedule, name)
        if not ((names and name not in names) or (is_optional and value is None)):
            put(schedule, name, check(f"{kind.__name__}: {name}", value))


@cache
def _checks_of(kind: Any) -> list[tuple[str, Check, bool]]:
    """Return the names of the fields with a range, the check of each, and whether it can be None."""
    annotated = [(field, str(field.type).removesuffix(" | None")) for field in fields(kind) if field.init]
    return [(field.name, _CHECKS[kind], field.default is None) for field, kind in annotated if kind in _CHECKS]


def check_choice(schedule: Schedule, name: str, choices: Sequence[str]) -> None:
    """Raise if a field is not one of the strings."""
    value = getattr(schedule, name)
    if not isinstance(value, str) or value not in choices:
        known = ", ".join(map(repr, choices))
        raise ValueError(f"{type(schedule).__name__}: {name} must be one of {known}, got {brief(value)}")
