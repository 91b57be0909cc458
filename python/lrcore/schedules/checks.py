"""Checks of a schedule's arguments, in its ``__post_init__``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lrcore._messages import brief
from lrcore._ranges import NON_NEGATIVE, Range, check_count
from lrcore.schedules.schedule import DEEPEST, Compound, Schedule, depth_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_numbers(schedule: Schedule, *names: str, allowed: Range = NON_NEGATIVE) -> None:
    """Make plain floats of fields, or raise."""
    for name in names:
        put(schedule, name, allowed.check(_where(schedule, name), getattr(schedule, name)))


# The most steps where a formula needs them as floats.
MOST_STEPS = 2**63


def check_counts(schedule: Schedule, *names: str, least: int = 0, most: int | None = None) -> None:
    """Make plain ints of fields, or raise."""
    for name in names:
        put(schedule, name, check_count(_where(schedule, name), getattr(schedule, name), least=least, most=most))


def check_flags(schedule: Schedule, *names: str) -> None:
    """Raise if a field is neither True nor False."""
    for name in names:
        if not isinstance(getattr(schedule, name), bool):
            raise TypeError(f"{_where(schedule, name)} must be True or False, got {brief(getattr(schedule, name))}")


def check_word(schedule: Schedule, name: str, words: Sequence[str]) -> None:
    """Raise if a field is none of the words."""
    value = getattr(schedule, name)
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{_where(schedule, name)} must be one of {', '.join(map(repr, words))}, got {brief(value)}")


def check_schedules(schedule: Schedule, *names: str) -> None:
    """Raise if a field is no schedule."""
    for name in names:
        value = getattr(schedule, name)
        if not isinstance(value, Schedule):
            raise TypeError(f"{_where(schedule, name)} must be a schedule, got {brief(value)}")


def check_depth(schedule: Compound, *names: str) -> None:
    """Raise if the schedules in fields lie too deep within each other."""
    depth = 1 + max(depth_of(getattr(schedule, name)) for name in names)
    if depth > DEEPEST:
        raise ValueError(
            f"{type(schedule).__name__}: schedules may lie {DEEPEST} deep within each other, got {depth}; "
            f"concat([…]) puts many one after the other, and numbers that multiply or are added take no depth"
        )
    put(schedule, "_depth", depth)


def put(schedule: Schedule, name: str, value: Any) -> None:
    """Set a field of a frozen schedule that is being made."""
    object.__setattr__(schedule, name, value)


def _where(schedule: Schedule, name: str) -> str:
    return f"{type(schedule).__name__}: {name}"
