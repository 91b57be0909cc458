"""Who works on a run: a process that can be told from all others, and found to be gone."""

from __future__ import annotations

import json
import time
import uuid

from lrcore import _process_identity
from lrcore._process_identity import Identity

# Seconds between signs of life, and without one until an owner that can't be looked at counts as gone.
HEARTBEAT = 10.0
LEASE = 120.0


def current() -> str:
    """Return a text that names this process, here and now, and one sweep in it."""
    me = _process_identity.current()
    return json.dumps({"host": me.host, "pid": me.pid, "started": me.started, "sweep": uuid.uuid4().hex})


def is_gone(holder: str, heartbeat: float) -> bool:
    """Return whether an owner works no more.

    Of a process on this machine the system knows. Any other has gone when it gave no sign of life for :data:`LEASE`
    seconds.

    Args:
        holder: What :func:`current` returned there.
        heartbeat: When it last gave a sign of life, in seconds since 1970.
    """
    known = json.loads(holder)
    gone = _process_identity.is_gone(Identity(known["host"], known["pid"], known["started"]))
    return time.time() - heartbeat > LEASE if gone is None else gone
