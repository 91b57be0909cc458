"""The checkpoints of a folder: which are there, in what order they were saved, and which are deleted."""

from __future__ import annotations

import os
import re
import stat
import time
import warnings
from typing import TYPE_CHECKING, Any

from lrcore.checkpoint import safetensors
from lrcore.checkpoint.description import is_readable

if TYPE_CHECKING:
    from pathlib import Path

SUFFIX = ".safetensors"
# What keep counts, and deletes.
_NUMBERED = re.compile(rf"step-[0-9]+{re.escape(SUFFIX)}")
# The last time, in nanoseconds since 1970, that a file is believed to have been saved at: in the year 2116.
_LAST_TIME = 2**62


def files(folder: Path) -> list[Path]:
    """Return what has the name of a checkpoint in a folder."""
    try:
        return [folder / name for name in os.listdir(folder) if name.endswith(SUFFIX)]
    except FileNotFoundError:
        return []


def peek(path: Path, *, whole: bool = False) -> dict[str, Any] | None:
    """Return the description of a checkpoint, without a look at its arrays; or None if it has none, or is not whole."""
    try:
        with safetensors.opened(path) as file:
            if whole:
                file.names()
            description = safetensors.from_json(file.metadata[safetensors.TEXT]) if file.has_checksum else None
    except (OSError, ValueError, KeyError, RecursionError):
        return None
    return description if isinstance(description, dict) else None


def age(path: Path, description: dict[str, Any] | None) -> tuple[int, int, str]:
    """Return what puts files in the order in which they were saved; where one does not say it, when it was changed."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        changed = 0
    saved = None if description is None else description.get("saved")
    return saved if type(saved) is int and 0 <= saved <= _LAST_TIME else changed, changed, path.name


def time_of_save(folder: Path) -> int:
    """Return when a checkpoint is saved: in one folder the later one is of a later time, whatever the clock says."""
    changed = [(age(path, None), path) for path in files(folder)]
    last = max(changed, default=None)
    return max(time.time_ns(), 0 if last is None else min(age(last[1], peek(last[1]))[0] + 1, _LAST_TIME))


def delete_old(target: Path, keep: int) -> None:
    """Delete all but the newest checkpoints of a folder, of which one was just written. Failures are warnings."""
    try:
        if not is_readable(peek(target, whole=True)):
            warnings.warn(f"{target} can't be read again, so nothing was deleted", stacklevel=3)
            return
        others = []
        for path in files(target.parent):
            if path.name != target.name and _NUMBERED.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
                description = peek(path, whole=True)
                if is_readable(description):
                    others.append((age(path, description), path))
        for _, old in sorted(others, reverse=True)[keep - 1 :]:
            old.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(f"{target} was saved, but not all old checkpoints were deleted: {error}", stacklevel=3)
