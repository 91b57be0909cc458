"""The identity of a process: it differs from that of every other process, on this machine and on others.

A process number alone is not enough. It is reused after the process ends, and containers that share a host name, and
perhaps a file system, count their processes separately. So an identity is the host name, the boot, the PID namespace,
the process number in it, and the time at which the process started.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import NamedTuple


class Identity(NamedTuple):
    """The identity of a process.

    Attributes:
        host: The machine since it was booted, and the PID namespace: where process numbers have one meaning.
        pid: The process number.
        started: When the process started, in clock ticks since the boot, or None where the system does not say.
    """

    host: str
    pid: int
    started: int | None


def current() -> Identity:
    """Return the identity of this process."""
    pid = os.getpid()
    return Identity(host(), pid, _started(pid))


def is_gone(process: Identity) -> bool | None:
    """Return whether a process has ended, or None if this process can't tell.

    It can't tell of processes of another host, and, where the system does not say when a process started, of a number
    that is in use.
    """
    if process.host != host() or os.name != "posix":  # elsewhere a signal of number 0 ends a process
        return None
    if not _exists(process.pid):
        return True
    started = _started(process.pid)
    return None if started is None or process.started is None else started != process.started


def host() -> str:
    """Return a name of this machine since its boot, and of the PID namespace that this process is in."""
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
    """Return when a process started. A zombie, which only waits for its parent to collect it, counts as ended: -1."""
    try:
        # In a PID namespace of its own whose /proc is still that of the outer one, numbers there are of others.
        if os.readlink("/proc/self") != str(os.getpid()):
            return None
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return -1 if fields[0] in "ZX" else int(fields[19])
