"""Forks and the end of the interpreter: locks are released in a forked child, and running steps are awaited."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from typing import Any

from lrcore import _lrcore

_OWNERS: weakref.WeakSet[Any] = weakref.WeakSet()


def live_lock(owner: Any) -> threading.RLock:
    """Return a lock for the attribute ``_lock`` of an object. A forked child replaces it by a new one."""
    _OWNERS.add(owner)
    return threading.RLock()


def _renew_locks() -> None:
    """Replace the locks in a forked child, where the threads of the parent that hold them do not exist."""
    for owner in _OWNERS:
        owner._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    # In the child no thread would complete a running step.
    os.register_at_fork(
        before=_lrcore.before_fork,
        after_in_parent=_lrcore.after_fork_in_parent,
        after_in_child=_lrcore.after_fork_in_child,
    )
    os.register_at_fork(after_in_child=_renew_locks)

# Whether the interpreter is about to end.
_ends = False
# In seconds: the time for threads past the check to enter the step, and the longest wait of a thread that is stopped.
_PASSAGE, _PATIENCE = 0.02, 10.0


def wait_at_end() -> None:
    """Stop a thread, once the interpreter ends, before it calls compiled code that calls Python code.

    The interpreter ends a thread by unwinding its stack when it requests the interpreter lock again. In compiled code
    that aborts the process; in this sleep it does not. A thread that another one joins continues after a while.
    """
    if _ends and threading.current_thread() is not threading.main_thread():
        time.sleep(_PATIENCE)


def _at_exit() -> None:
    """Wait for running steps: a thread within one can't be ended with the interpreter."""
    global _ends
    _ends = True
    if threading.active_count() > 1:
        time.sleep(_PASSAGE)
    _lrcore.at_exit()


atexit.register(_at_exit)
