"""Schedules as plain values for JSON, and back. Nothing of a file is ever executed."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from lrcore import schedules
from lrcore.schedules.schedule import Schedule

VERSION = 1


def encode(schedule: Schedule) -> dict[str, Any]:
    """Return the schedule as nested dicts of numbers.

    Raises:
        TypeError: If it is of no class of :mod:`lrcore.schedules`.
    """
    name = type(schedule).__name__
    if getattr(schedules, name, None) is not type(schedule) or not is_dataclass(schedule):
        raise TypeError(f"{schedule!r} can't be saved: {name} is no class of lrcore.schedules")
    values = {field.name: getattr(schedule, field.name) for field in fields(schedule) if field.init}
    arguments = {key: encode(value) if isinstance(value, Schedule) else value for key, value in values.items()}
    return {"schedule": name, "version": VERSION, "arguments": arguments}


def decode(given: Any) -> Schedule:
    """Return the schedule that :func:`encode` made a dict of.

    Raises:
        ValueError: If it is of another version, or has an unknown name or argument.
    """
    if not isinstance(given, dict) or given.keys() != {"schedule", "version", "arguments"}:
        raise ValueError(f"a schedule must be a dict of schedule, version and arguments, got {given!r}")
    name, version, arguments = given["schedule"], given["version"], given["arguments"]
    if version != VERSION:
        raise ValueError(f"the schedule {name!r} was saved in version {version!r}, known is {VERSION}")
    if name not in schedules.__all__ or name == "Schedule":
        raise ValueError(f"there is no schedule {name!r}; there are {', '.join(schedules.__all__)}")
    kind = getattr(schedules, name)
    known = {field.name for field in fields(kind) if field.init}
    if not isinstance(arguments, dict) or arguments.keys() != known:
        raise ValueError(f"{name} has the arguments {sorted(known)}, got {arguments!r}")
    made = kind(**{key: decode(value) if isinstance(value, dict) else value for key, value in arguments.items()})
    assert isinstance(made, Schedule)  # noqa: S101 (for the type checker)
    return made
