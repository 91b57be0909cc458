"""Leases of runs: which process holds a run, and whether it is still alive.

The system tells whether a process on this machine lives. A process on another machine counts as dead if its last
heartbeat is older than :data:`LEASE`.
"""

from __future__ import annotations

import json
import time
import uuid

from lrcore import _process_identity
from lrcore._process_identity import Identity

# Seconds between heartbeats, and without one until a holder on another machine counts as dead.
HEARTBEAT = 10.0
LEASE = 120.0


def current() -> str:
    """Return a text that identifies this process and one sweep in it."""
    me = _process_identity.current()
    return json.dumps({"host": me.host, "pid": me.pid, "started": me.started, "sweep": uuid.uuid4().hex})


def is_gone(holder: str, heartbeat: float) -> bool:
    """Return whether the holder of a lease is dead.

    Args:
        holder: What :func:`current` returned in its process.
        heartbeat: The time of its last heartbeat, in seconds since 1970.
    """
    known = json.loads(holder)
    gone = _process_identity.is_gone(Identity(known["host"], known["pid"], known["started"]))
    return time.time() - heartbeat > LEASE if gone is None else gone
