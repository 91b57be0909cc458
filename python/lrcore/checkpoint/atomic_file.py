"""Atomic writes of files: under another name in the same folder first, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
import warnings
import weakref
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from lrcore import _process_identity
from lrcore._process_identity import Identity
from lrcore._restoring import put_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# The name of a partial file has the identity of its writer and a token of the write. It does not contain the name of
# the file, which may have the longest length that the file system allows.
_SUFFIX = ".partial"
_NAME = re.compile(r"\.lrcore\.([0-9a-f]{16})\.([0-9]{1,20})\.([0-9]{1,20}|x)\.[0-9a-f]{8}\.partial")


class _Partial:
    """A partial file, named for the process that writes it."""

    def __init__(self, folder: Path, writer: Identity) -> None:
        host, pid, started = writer
        begun = "x" if started is None else started
        self.path = folder / f".lrcore.{_digest(host)}.{pid}.{begun}.{secrets.token_hex(4)}{_SUFFIX}"
        _LIVE[self.path.name] = self

    def remove(self) -> None:
        """Delete the file unless it was renamed."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


# An entry lives as long as the frame that writes the file, so it disappears even if interrupts stop the clean-up.
_LIVE: weakref.WeakValueDictionary[str, _Partial] = weakref.WeakValueDictionary()


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that replaces the one at a path when the block ends. On an error the old file is unchanged.

    Missing folders are created. The target of a symbolic link is replaced. The new file has the mode of the old one,
    and its owner where that is allowed.

    Raises:
        OSError: If the file can't be written. Failures after it was renamed are warnings.
    """
    place = _followed(path)
    make_folder(place.parent)
    remove_left_over(place.parent)
    partial = _Partial(place.parent, _process_identity.current())
    clean_up: list[Callable[[], object]] = [partial.remove]
    try:
        with partial.path.open("xb") as file:
            _keep_mode(place, file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.path.replace(place)
    finally:
        # If Ctrl-C interrupts the first call, the second completes it; otherwise the list is empty by then.
        try:
            put_back(clean_up)
        finally:
            put_back(clean_up)
    sync_folder(place.parent)


def unfinished(folder: Path) -> list[Path]:
    """Return the partial files of a folder, of running writes and of processes that were killed."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [folder / name for name in sorted(names) if name.startswith(".") and name.endswith(_SUFFIX)]


def remove_left_over(folder: Path) -> None:
    """Delete the partial files whose writer has ended, as far as this process can determine."""
    me = _process_identity.current()
    digest = _digest(me.host)
    for partial in unfinished(folder):
        match = _NAME.fullmatch(partial.name)
        if match and match[1] == digest:
            writer = Identity(me.host, int(match[2]), None if match[3] == "x" else int(match[3]))
            gone = _LIVE.get(partial.name) is None if writer == me else _process_identity.is_gone(writer)
            if gone:
                with suppress(OSError):
                    partial.unlink()


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, and flush their names to the disk."""
    made = [new for new in (folder, *folder.parents) if not new.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for new in made:
        sync_folder(new.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system supports it; a failure is a warning."""
    if os.name != "posix":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        message = f"the names in {folder} could not be flushed to the disk, and may be lost in a power cut: {error}"
        warnings.warn(message, stacklevel=2)


def _digest(host: str) -> str:
    return hashlib.sha256(host.encode(errors="surrogateescape")).hexdigest()[:16]


def _followed(path: Path) -> Path:
    """Return the path without symbolic links, or raise an OSError if no file can be written there."""
    place = path.parent / os.path.realpath(path)
    try:
        mode = place.lstat().st_mode
    except FileNotFoundError:
        return place
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EEXIST, "is there and is no regular file, so it is not replaced", str(path))
    return place


def _keep_mode(place: Path, file: int) -> None:
    """Set the mode of the file that is replaced, and its owner where that is allowed."""
    try:
        old = place.stat()
    except FileNotFoundError:
        return
    new = os.fstat(file)
    if os.name != "posix":
        return
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        with suppress(OSError):
            os.fchown(file, old.st_uid, old.st_gid)
    if stat.S_IMODE(old.st_mode) != stat.S_IMODE(new.st_mode):
        os.fchmod(file, stat.S_IMODE(old.st_mode))
