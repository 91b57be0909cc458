"""Trackers of reported metrics, and the factors of schedules that they determine.

A schedule that uses reports, such as ``ReduceOnPlateau``, has a tracker for each occurrence: a hyperparameter of a
group (or ``clip_norm``), and the position in its value. The instance of the schedule identifies the occurrence. A value
that is assigned gets new instances (:func:`with_trackers`), so equal schedules in other places have other trackers. A
value derived from the present one, such as ``group["lr"] *= 0.5``, contains the same instances and keeps the trackers.
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

# Every optimizer imports this module. lrcore.schedules.metrics is imported only where there is a schedule.


class Occurrence(NamedTuple):
    """The index of the group, or None for global options; the hyperparameter; and the position in its value."""

    group: int | None
    name: str
    part: int


def with_trackers(value: Any, trackers: Sequence[Tracker] = ()) -> tuple[Any, list[Tracker]]:
    """Return a value with new instances of the schedules that use reports, and the tracker of each, in order.

    Args:
        value: A hyperparameter: anything, a schedule, or a tuple with schedules.
        trackers: Trackers of the value before. Their instances are kept, with them.
    """
    if not any(isinstance(part, Schedule) for part in (value if isinstance(value, tuple) else (value,))):
        return value, []
    from lrcore.schedules.metrics import bind_trackers

    return bind_trackers(value, trackers)


def apply_factors(value: Any, trackers: Sequence[Tracker]) -> Any:
    """Return a value in which schedules that use reports are replaced by their present factors."""
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


def report_to(trackers: Iterable[Tracker], value: float) -> bool:
    """Report a value to trackers; return whether a factor changed."""
    changed = [tracker.report(value) for tracker in trackers]
    return any(changed)


def save(trackers: Iterable[tuple[Occurrence, Tracker]]) -> list[dict[str, Any]]:
    """Return trackers as plain entries: the occurrence, the schedule and the state of each."""
    return [{**place._asdict(), "schedule": tracker.rule, "state": tracker.state()} for place, tracker in trackers]


def check_saved(state: Any) -> dict[Occurrence, Tracker]:
    """Return trackers restored from the entries of :func:`save`, by occurrence.

    Raises:
        TypeError: If a part is of a wrong type.
        ValueError: If one is missing or out of range.
    """
    from lrcore.schedules.metrics import MetricFactor

    if not isinstance(state, Sequence) or isinstance(state, str):
        raise TypeError(f"reports must be a sequence, got {type(state).__name__}")
    saved: dict[Occurrence, Tracker] = {}
    for i, entry in enumerate(state):
        if not isinstance(entry, Mapping) or entry.keys() != {*Occurrence._fields, "schedule", "state"}:
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
        saved[Occurrence(group, entry["name"], check_count(f"reports[{i}]['part']", entry["part"]))] = tracker
    return saved


def restore(trackers: Iterable[tuple[Occurrence, Tracker]], saved: Mapping[Occurrence, Tracker]) -> None:
    """Restore trackers from saved ones of the same occurrence, and reset all others.

    The schedule may have other settings than the saved one, such as another patience; it must be of the same class.
    """
    for place, tracker in trackers:
        source = saved.get(place)
        if source is None or type(source) is not type(tracker):
            source = tracker.rule.tracker()
        tracker.restore(source.state())


def warn_of_lost(trackers: Iterable[tuple[Occurrence, Tracker]], saved: Any, stacklevel: int = 2) -> None:
    """Warn of entries of :func:`save` that no tracker was restored from."""
    present = dict(trackers)
    lost = [place for place, one in check_saved(saved).items() if type(present.get(place)) is not type(one)]
    for place in sorted(lost, key=str):
        where = place.name if place.group is None else f"param_groups[{place.group}][{place.name!r}]"
        warnings.warn(
            f"what was reported is not loaded for {where}: it has no schedule of the saved class that uses reports at "
            f"place {place.part}",
            stacklevel=stacklevel + 1,
        )
