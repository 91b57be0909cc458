"""Locks that a forked child does not inherit as held."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

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
    os.register_at_fork(after_in_child=_renew_locks)
