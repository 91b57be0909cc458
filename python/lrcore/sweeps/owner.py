"""Who works on a run: a process that can be told from all others, and found to be gone."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from pathlib import Path

# Seconds between signs of life, and without one until an owner that can't be looked at counts as gone.
BEAT = 10.0
LEASE = 120.0


def current() -> str:
    """Return a text that names this process, here and now, and one sweep in it."""
    pid = os.getpid()
    return json.dumps({"host": _host(), "pid": pid, "started": _started(pid), "sweep": uuid.uuid4().hex})


def is_gone(owner: str, beat: float) -> bool:
    """Return whether an owner works no more.

    Of a process on this machine the system knows. Any other has gone when it gave no sign of life for :data:`LEASE`
    seconds.

    Args:
        owner: What :func:`current` returned there.
        beat: When it last gave a sign of life, in seconds since 1970.
    """
    known = json.loads(owner)
    if known["host"] == _host() and os.name == "posix":
        if not _exists(known["pid"]):
            return True
        started = _started(known["pid"])
        if started is not None:
            return bool(started != known["started"])
    return time.time() - beat > LEASE


def _host() -> str:
    """Return a name of this machine since it was started; of a container, where processes have numbers of their own."""
    parts = [socket.gethostname()]
    for read in (_boot, _namespace):
        try:
            parts.append(read())
        except OSError:
            continue
    return "/".join(parts)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _started(pid: int) -> int | None:
    """Return when a process was started, in ticks since the machine was, or None where that can't be known.

    A number of a process is used again; with the time of its start it is not. One that is dead and only waits to be
    collected by its parent counts as never started.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return -1 if fields[0] in "ZX" else int(fields[19])
