"""What holds an optimizer at a fork and at the interpreter's end: locks are free in a child, steps are waited for."""

from __future__ import annotations

import atexit
import os
import threading
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
# A thread in a step can't be ended with the interpreter.
atexit.register(_lrcore.at_exit)
