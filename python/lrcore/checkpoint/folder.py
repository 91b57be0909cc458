"""The checkpoints of a folder: their names, the order in which they were saved, and the deletion of old ones."""

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
# Names that keep counts and deletes.
_NUMBERED = re.compile(rf"step-[0-9]+{re.escape(SUFFIX)}")
# The largest plausible time of saving, in nanoseconds since 1970: in the year 2116.
_LAST_TIME = 2**62


def files(folder: Path) -> list[Path]:
    """Return the files of a folder that are named like checkpoints."""
    try:
        return [folder / name for name in os.listdir(folder) if name.endswith(SUFFIX)]
    except FileNotFoundError:
        return []


def peek(path: Path, *, whole: bool = False) -> dict[str, Any] | None:
    """Return the description of a checkpoint without reading its arrays, or None if it can't be read.

    Args:
        path: The file.
        whole: Whether the header must be valid and the file complete.
    """
    try:
        with safetensors.opened(path) as file:
            if whole:
                file.names()
            description = safetensors.from_json(file.metadata[safetensors.TEXT]) if file.has_checksum else None
    except (OSError, ValueError, KeyError, RecursionError):
        return None
    return description if isinstance(description, dict) else None


def age(path: Path, description: dict[str, Any] | None) -> tuple[int, int, str]:
    """Return a sort key: the stored time of saving, or else the time of the last change."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        changed = 0
    saved = None if description is None else description.get("saved")
    return saved if type(saved) is int and 0 <= saved <= _LAST_TIME else changed, changed, path.name


def time_of_save(folder: Path) -> int:
    """Return the present time, or a later one than that of every checkpoint in the folder if the clock was set back."""
    changed = [(age(path, None), path) for path in files(folder)]
    last = max(changed, default=None)
    return max(time.time_ns(), 0 if last is None else min(age(last[1], peek(last[1]))[0] + 1, _LAST_TIME))


def delete_old(target: Path, keep: int) -> None:
    """Delete all but the newest checkpoints of the folder of a new one. Failures are warnings."""
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
