"""Checks of a schedule's fields, called in its ``__post_init__``; they store plain Python numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrcore._messages import brief
from lrcore._ranges import NON_NEGATIVE, Range, check_count
from lrcore.schedules.compound import put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lrcore.schedules.schedule import Schedule

# The most steps of a formula that converts them to floats.
MOST_STEPS = 2**63


def check_numbers(schedule: Schedule, *names: str, allowed: Range = NON_NEGATIVE) -> None:
    """Convert fields to floats within a range, or raise."""
    for name in names:
        put(schedule, name, allowed.check(_where(schedule, name), getattr(schedule, name)))


def check_counts(schedule: Schedule, *names: str, least: int = 0, most: int | None = None) -> None:
    """Convert fields to ints of at least ``least``, or raise."""
    for name in names:
        put(schedule, name, check_count(_where(schedule, name), getattr(schedule, name), least=least, most=most))


def check_flags(schedule: Schedule, *names: str) -> None:
    """Raise if a field is not a bool."""
    for name in names:
        if not isinstance(getattr(schedule, name), bool):
            raise TypeError(f"{_where(schedule, name)} must be True or False, got {brief(getattr(schedule, name))}")


def check_choice(schedule: Schedule, name: str, choices: Sequence[str]) -> None:
    """Raise if a field is not one of the strings."""
    value = getattr(schedule, name)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{_where(schedule, name)} must be one of {', '.join(map(repr, choices))}, got {brief(value)}")


def _where(schedule: Schedule, name: str) -> str:
    return f"{type(schedule).__name__}: {name}"
