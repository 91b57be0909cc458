"""Schedules to and from JSON. Nothing in a file is ever executed."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from lrcore import schedules
from lrcore._messages import brief
from lrcore.schedules.schedule import Schedule

VERSION = 1


def encode(schedule: Schedule) -> dict[str, Any]:
    """Return the schedule as nested dicts, or raise a TypeError if it contains a function or another class."""
    name = type(schedule).__name__
    if getattr(schedules, name, None) is not type(schedule) or not is_dataclass(schedule):
        raise TypeError(f"{brief(schedule)} can't be saved: {name} is not a class of lrcore.schedules")
    values = {field.name: getattr(schedule, field.name) for field in fields(schedule) if field.init}
    for key, value in values.items():
        if callable(value) and not isinstance(value, Schedule):
            raise TypeError(f"{brief(schedule)} can't be saved: its {key} is a function, and files hold no code")
    arguments = {key: encode(value) if isinstance(value, Schedule) else _listed(value) for key, value in values.items()}
    return {"schedule": name, "version": VERSION, "arguments": arguments}


def decode(given: Any) -> Schedule:
    """Return the schedule of the dict that :func:`encode` returned.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the version, a name or an argument is unknown, or an argument is missing or out of range.
    """
    if not isinstance(given, dict) or given.keys() != {"schedule", "version", "arguments"}:
        raise ValueError(f"a schedule must be a dict of schedule, version and arguments, got {brief(given)}")
    name, version, arguments = given["schedule"], given["version"], given["arguments"]
    if type(version) is not int or version != VERSION:
        raise ValueError(f"the schedule {name!r} was saved in version {version!r}, known is {VERSION}")
    if name not in schedules.CLASSES:
        raise ValueError(f"there is no schedule {name!r}; there are {', '.join(schedules.CLASSES)}")
    kind = getattr(schedules, name)
    known = {field.name: field.default is MISSING for field in fields(kind) if field.init}
    needed = {key for key, is_needed in known.items() if is_needed}
    if not isinstance(arguments, dict) or not needed <= arguments.keys() <= known.keys():
        raise ValueError(f"{name} has the arguments {sorted(known)}, got {brief(arguments)}")
    made = kind(**{key: decode(value) if isinstance(value, dict) else value for key, value in arguments.items()})
    assert isinstance(made, Schedule)  # noqa: S101 (for the type checker)
    return made


def to_json(schedule: Schedule) -> str:
    """Return the schedule as JSON."""
    import json  # here, since optimizers import this module for encode and decode

    return json.dumps(encode(schedule), allow_nan=False)


def from_json(text: str) -> Schedule:
    """Return the schedule that :func:`to_json` wrote."""
    import json

    if not isinstance(text, str | bytes):
        raise TypeError(f"the JSON of a schedule must be a string, got {type(text).__name__}")
    try:
        given = json.loads(text)
    except ValueError as error:
        raise ValueError(f"this is not JSON: {error}") from None
    except RecursionError:
        raise ValueError("this JSON is nested too deeply for a schedule") from None
    return decode(given)


def _listed(value: Any) -> Any:
    return [_listed(part) for part in value] if isinstance(value, tuple) else value
