"""The guardian: a process that kills the workers of a sweep, and their children, once the sweep's process is dead.

A killed process cannot end its children, a worker in a long C call does not notice that its parent died, and children
of workers (data loaders, shells) are orphans once the worker is dead. A sweep therefore runs this file as a process in
its own session, which waits on one pipe::

    while a line can be read from standard input:       # "+PID", "-PID": a worker started or ended
        update the set of workers
    (end of file: the sweep's process is dead)
    kill every process whose environment has LRCORE_SWEEP=MARK

The environment is inherited, also by processes in other sessions and by orphans, and Linux shows it in
``/proc/PID/environ``. On other systems each worker leads a process group (:func:`begin_group`), which is killed.

The file is run by path and isolated, so it imports only the standard library.
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
"""The environment variable that marks the processes of a worker; its value is ``SWEEP-WORKER``."""

PROC = Path("/proc")
# Seconds between checks of the parent: a copy of the pipe in a forked process can keep it open.
_POLL = 1.0
# Seconds in which processes that are just starting are looked for, and in which others have to die.
_STARTING, _DYING = 1.0, 60.0


def has_environments() -> bool:
    """Return whether the environment of other processes can be read."""
    return (PROC / "self" / "environ").exists()


def begin_group() -> None:
    """Make this process a group leader if processes cannot be found by their environment."""
    if os.name == "posix" and not has_environments():
        os.setpgid(0, 0)


def kill(mark: str, workers: Iterable[int]) -> bool:
    """Kill all processes of workers; return whether there were any.

    Args:
        mark: The prefix of their :data:`VARIABLE`.
        workers: Their process ids, which are also their process group ids.
    """
    if os.name != "posix":
        return False
    if not has_environments():
        return sum(_kill(os.killpg, worker) for worker in workers) > 0
    return sum(_kill(os.kill, pid) for pid in _marked(mark)) > 0


def _marked(mark: str) -> list[int]:
    """Return the ids of other processes whose environment has the mark."""
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
    """Wait until the parent is dead, then kill the marked processes."""
    parent = os.getppid()
    workers: set[int] = set()
    text = b""
    while os.getppid() == parent:
        if not select.select([0], [], [], _POLL)[0]:
            continue
        read = os.read(0, 4096)
        if not read:
            break
        *lines, text = (text + read).split(b"\n")
        for line in lines:
            (workers.add if line.startswith(b"+") else workers.discard)(int(line[1:]))
    start = time.monotonic()
    while time.monotonic() - start < (_DYING if kill(mark, workers) else _STARTING):
        time.sleep(0.05)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    main(sys.argv[1])
