"""Base classes of the schedules that are made of other schedules, and the limits on their nesting."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from lrcore._messages import brief
from lrcore.schedules.schedule import Phases, Schedule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


# Each level of nesting takes a few frames of Python's stack to evaluate, print, compare or save; the default is 1000.
DEEPEST = 100
# A schedule that is used twice, as in x * x, counts twice: it is evaluated, printed and saved twice.
MOST_PARTS = 10**6


class Compound(Schedule):
    """A dataclass with other schedules among its fields."""

    # The depth and the number of parts, computed once.
    __slots__ = ("_extent",)


def extent_of(schedule: Schedule) -> tuple[int, int]:
    """Return the depth of the nesting and the number of schedules in it, itself included."""
    if not isinstance(schedule, Compound):
        return 1, 1
    extent: tuple[int, int] | None = getattr(schedule, "_extent", None)
    if extent is None:  # as after unpickling
        extent = _set_extent(schedule, [part for _, part in parts_of(schedule)])
    return extent


def _set_extent(schedule: Compound, parts: Sequence[Schedule]) -> tuple[int, int]:
    extents = [extent_of(part) for part in parts]
    extent = 1 + max(depth for depth, _ in extents), 1 + sum(count for _, count in extents)
    put(schedule, "_extent", extent)
    return extent


def parts_of(schedule: Schedule) -> Iterator[tuple[str, Schedule]]:
    """Yield the names and values of the fields that are schedules."""
    names: list[str] = [field.name for field in fields(schedule) if field.init] if is_dataclass(schedule) else []
    for name in names:
        if isinstance(part := getattr(schedule, name), Schedule):
            yield name, part


def check_parts(schedule: Compound, *names: str) -> None:
    """Raise if a field is not a schedule, or the schedules are nested too deeply or too many."""
    kind, parts = type(schedule).__name__, [getattr(schedule, name) for name in names]
    for name, part in zip(names, parts, strict=True):
        if not isinstance(part, Schedule):
            raise TypeError(f"{kind}: {name} must be a schedule, got {brief(part)}")
    depth, count = _set_extent(schedule, parts)
    if depth > DEEPEST:
        raise ValueError(
            f"{kind}: schedules can be nested {DEEPEST} deep, got {depth}; "
            f"concat([…]) puts many one after the other, and numbers that multiply or are added take no depth"
        )
    if count > MOST_PARTS:
        raise ValueError(f"{kind}: a schedule may have {MOST_PARTS:,} parts, got {count:,}")


def put(schedule: Schedule, name: str, value: Any) -> None:
    """Set a field of a frozen schedule during its construction."""
    object.__setattr__(schedule, name, value)


@dataclass(frozen=True, slots=True, repr=False)
class UnaryOperation(Compound):
    """An operation on one schedule, printed as a method call."""

    schedule: Schedule

    @property
    def _is_factor(self) -> bool:
        return self.schedule._is_factor

    @property
    def length(self) -> int | None:
        """The length of the schedule."""
        return self.schedule.length

    def _phases(self) -> Phases:
        return self.schedule._phases()

    def _call(self) -> str:
        """Return the method call that makes it, without the schedule."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{parenthesized(self.schedule)}.{self._call()}"


def parenthesized(schedule: Schedule) -> str:
    """Return the repr, in parentheses if a method call could not follow it."""
    return f"({schedule!r})" if schedule._prints_operator else repr(schedule)


def phases_of(schedule: Schedule) -> Phases:
    """Yield the phases of a schedule, or the schedule itself as the only one."""
    phases = schedule._phases()
    yield next(phases, (type(schedule).__name__, 0))
    yield from phases
