"""Files that are written whole or not at all: beside their place first, flushed to the disk, then renamed."""

from __future__ import annotations

import os
import re
import secrets
import socket
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What is beside its place is ".<file>.<host>.<process>.<one save>.partial": two threads that save to one path write
# two files, and what a process left is known from what one on another host, or in another container, is writing now.
_HOST = re.sub(r"[^\w-]", "_", socket.gethostname())
_OF_THIS_HOST = re.compile(rf"\..+\.{_HOST}\.(\d+)\.[0-9a-f]+\.partial")


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes its place when all is written. On an error what was there is there still."""
    partial = path.with_name(f".{path.name}.{_HOST}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def unfinished(folder: Path, suffix: str) -> list[Path]:
    """Return what is being written in a folder, or was when its process was stopped."""
    return sorted(folder.glob(f".*{suffix}.*.partial"))


def remove_left_over(folder: Path, suffix: str) -> None:
    """Delete what processes of this host that are gone left when they were stopped."""
    if os.name != "posix":  # elsewhere a signal of number 0 is no question, but ends a process
        return
    for partial in unfinished(folder, suffix):
        if match := _OF_THIS_HOST.fullmatch(partial.name):
            try:
                os.kill(int(match[1]), 0)
            except ProcessLookupError:
                partial.unlink(missing_ok=True)
            except (OSError, OverflowError):
                continue


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, and flush their names to the disk."""
    made = [new for new in (folder, *folder.parents) if not new.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for new in made:
        sync_folder(new.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can do that."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
