"""What holds an optimizer at a fork and at the interpreter's end: locks are free in a child, steps are waited for."""

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
    """Return a lock for the attribute ``_lock`` of an object, which a forked child replaces by a free one."""
    _OWNERS.add(owner)
    return threading.RLock()


def _renew_locks() -> None:
    """Replace, in a forked child, the locks: threads of its parent that hold one don't exist there."""
    for owner in _OWNERS:
        owner._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    # No thread of a child would end a step that was under way.
    os.register_at_fork(
        before=_lrcore.before_fork,
        after_in_parent=_lrcore.after_fork_in_parent,
        after_in_child=_lrcore.after_fork_in_child,
    )
    os.register_at_fork(after_in_child=_renew_locks)

# Whether the interpreter is about to end.
_ends = False
# Seconds: until threads that were just let through are in the step, and how long one that is kept waits at most.
_PASSAGE, _PATIENCE = 0.02, 10.0


def wait_at_end() -> None:
    """Keep a thread from beginning what calls Python code from compiled code, once the interpreter is about to end.

    The interpreter ends a thread by unwinding its stack when it asks for the interpreter lock again. In compiled code
    that aborts the process; in this sleep it does not. A thread that somebody still waits for goes on after a while.
    """
    if _ends and threading.current_thread() is not threading.main_thread():
        time.sleep(_PATIENCE)


def _at_exit() -> None:
    """Wait for steps that are under way: a thread in one can't be ended with the interpreter."""
    global _ends
    _ends = True
    if threading.active_count() > 1:
        time.sleep(_PASSAGE)
    _lrcore.at_exit()


atexit.register(_at_exit)
