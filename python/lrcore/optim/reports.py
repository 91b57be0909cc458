"""What a run reported, and the factors that schedules make of it.

A tracker belongs to an occurrence of a schedule: a hyperparameter of a group (or ``clip_norm``), and the place within
its value. The instance of the schedule is the identity of the occurrence: a value that is assigned gets instances of
its own (:func:`occupy`), so that equal schedules elsewhere, or assigned later, have trackers of their own; and what a
program makes of the present value, such as ``group["lr"] *= 0.5``, holds the same instances and keeps its trackers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lrcore._messages import brief
from lrcore._ranges import check_count
from lrcore.schedules.schedule import Schedule

if TYPE_CHECKING:
    from lrcore.schedules.metrics import Tracker

# This module is part of every optimizer and that of feedback is not: it is imported where there is a schedule.


class Place(NamedTuple):
    """Where an occurrence is: the group's index, or None for options of all; the name; the number within the value."""

    group: int | None
    name: str
    part: int


def occupy(value: Any, trackers: Sequence[Tracker] = ()) -> tuple[Any, list[Tracker]]:
    """Return a value with instances of its own for schedules that use reports, and the tracker of each, in order.

    Args:
        value: A hyperparameter: anything, a schedule, or a tuple with schedules.
        trackers: Those of the value before. An instance that one of them belongs to keeps it.
    """
    if not any(isinstance(part, Schedule) for part in (value if isinstance(value, tuple) else (value,))):
        return value, []
    from lrcore.schedules.metrics import bind_trackers

    return bind_trackers(value, trackers)


def resolve(value: Any, trackers: Sequence[Tracker]) -> Any:
    """Return a value with the present factors in the places of schedules that use reports."""
    if not trackers:
        return value
    from lrcore.schedules.metrics import apply_factors

    return apply_factors(value, [tracker.factor for tracker in trackers])


def check_report(value: Any) -> float:
    """Return a reported metric as a float.

    Raises:
        TypeError: If it is no number.
    """
    if isinstance(value, str | bytes | bool):
        raise TypeError(f"report: value must be a number, got {brief(value)}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"report: value must be a number, got {brief(value)}") from None


def tell(trackers: Iterable[Tracker], value: float) -> bool:
    """Give trackers a value; return whether a factor changed."""
    changed = [tracker.report(value) for tracker in trackers]
    return any(changed)


def save(trackers: Iterable[tuple[Place, Tracker]]) -> list[dict[str, Any]]:
    """Return what is saved of trackers: the place of each, its schedule, and its numbers."""
    return [{**place._asdict(), "schedule": tracker.rule, "state": tracker.state()} for place, tracker in trackers]


def check_saved(state: Any) -> dict[Place, Tracker]:
    """Return trackers that go on from what :func:`save` returned, by their places.

    Raises:
        TypeError: If a part is of a wrong type.
        ValueError: If one is missing or out of range.
    """
    from lrcore.schedules.metrics import MetricFactor

    if not isinstance(state, Sequence) or isinstance(state, str):
        raise TypeError(f"reports must be a sequence, got {type(state).__name__}")
    saved: dict[Place, Tracker] = {}
    for i, entry in enumerate(state):
        if not isinstance(entry, Mapping) or entry.keys() != {*Place._fields, "schedule", "state"}:
            known = "group, name, part, schedule and state"
            raise ValueError(f"reports[{i}] must be a mapping of {known}, got {brief(entry)}")
        rule = entry["schedule"]
        if not isinstance(rule, MetricFactor):
            raise TypeError(f"reports[{i}]['schedule'] must be one that uses reports, got {brief(rule)}")
        if not isinstance(entry["name"], str):
            raise TypeError(f"reports[{i}]['name'] must be a string, got {brief(entry['name'])}")
        group = None if entry["group"] is None else check_count(f"reports[{i}]['group']", entry["group"])
        tracker = rule.tracker()
        tracker.restore(entry["state"])
        saved[Place(group, entry["name"], check_count(f"reports[{i}]['part']", entry["part"]))] = tracker
    return saved


def restore(trackers: Iterable[tuple[Place, Tracker]], saved: Mapping[Place, Tracker]) -> None:
    """Let trackers go on from saved ones at the same places, and all others begin.

    The schedule may have other settings than the saved one, such as another patience; it must be of the same class.
    """
    for place, tracker in trackers:
        source = saved.get(place)
        if source is None or type(source) is not type(tracker):
            source = tracker.rule.tracker()
        tracker.restore(source.state())


def warn_of_lost(trackers: Iterable[tuple[Place, Tracker]], saved: Any, stacklevel: int = 2) -> None:
    """Warn of saved trackers, as :func:`save` returned them, that none of the optimizer's goes on from."""
    present = dict(trackers)
    lost = [place for place, one in check_saved(saved).items() if type(present.get(place)) is not type(one)]
    for place in sorted(lost, key=str):
        where = place.name if place.group is None else f"param_groups[{place.group}][{place.name!r}]"
        warnings.warn(
            f"what was reported is not loaded for {where}: it has no schedule of the saved class that uses reports at "
            f"place {place.part}",
            stacklevel=stacklevel + 1,
        )
