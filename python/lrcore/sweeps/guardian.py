"""A small process that ends the workers of a sweep, and whatever they started, once the sweep's process is gone.

A process that was killed cannot end its children, a worker inside a long C call does not look whether its parent lives,
and what a worker started (data loaders, shells) belongs to nobody once the worker is dead. So a sweep starts this file
as a process of its own, in a session of its own, that waits for one pipe::

    while a line can be read from standard input:       # "+PID", "-PID": a worker began, a worker ended
        note it
    (end of file: the sweep's process is gone)
    kill every process whose environment has LRCORE_SWEEP=MARK

The environment is inherited, also by processes that moved to another session or whose parent is dead, and Linux shows
it in ``/proc/PID/environ``. Elsewhere each worker leads a process group (:func:`begin_group`), and the group is killed.

It is run by its path, isolated, so it imports nothing but the standard library.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

VARIABLE = "LRCORE_SWEEP"
"""Environment variable by which the processes of a worker are recognised: ``SWEEP-WORKER``."""

PROC = Path("/proc")
# Seconds between looks whether the parent lives: a copy of the pipe in a forked process can hold it open.
_LOOK = 1.0
# Seconds for which processes that were just being started are looked for, and for which others may take to die.
_LATE, _LONGEST = 1.0, 60.0


def has_environments() -> bool:
    """Return whether the environment of other processes can be read here."""
    return (PROC / "self" / "environ").exists()


def begin_group() -> None:
    """Make this process the leader of a process group where processes cannot be found by their environment."""
    if os.name == "posix" and not has_environments():
        os.setpgid(0, 0)


def kill(mark: str, workers: Iterable[int]) -> bool:
    """Kill all processes of workers; return whether there were any.

    Args:
        mark: How the values of their :data:`VARIABLE` begin.
        workers: Their process numbers, which are those of their groups too.
    """
    if os.name != "posix":
        return False
    if not has_environments():
        return sum(_kill(os.killpg, worker) for worker in workers) > 0
    return sum(_kill(os.kill, pid) for pid in _marked(mark)) > 0


def _marked(mark: str) -> list[int]:
    """Return the numbers of processes whose environment has the mark, without this one."""
    entry = f"{VARIABLE}={mark}".encode()
    found = []
    for folder in PROC.iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            with suppress(OSError):
                if any(value.startswith(entry) for value in (folder / "environ").read_bytes().split(b"\0")):
                    found.append(int(folder.name))
    return found


def _kill(send: Callable[[int, int], None], number: int) -> bool:
    try:
        send(number, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def main(mark: str) -> None:
    """Wait until the parent is gone, then kill what is marked."""
    parent = os.getppid()
    workers: set[int] = set()
    text = b""
    while os.getppid() == parent:
        if not select.select([0], [], [], _LOOK)[0]:
            continue
        read = os.read(0, 4096)
        if not read:
            break
        *lines, text = (text + read).split(b"\n")
        for line in lines:
            (workers.add if line.startswith(b"+") else workers.discard)(int(line[1:]))
    start = time.monotonic()
    while time.monotonic() - start < (_LONGEST if kill(mark, workers) else _LATE):
        time.sleep(0.05)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    main(sys.argv[1])
