"""Whether other programs use the machine, which a benchmark then measures too."""

from __future__ import annotations

import os
import time

from lrcore import info

BUSY = 0.1
"""The share of all cores that others may use before the times are doubted."""

_LOOK = 0.25  # seconds, over which it is taken


def share_of_others() -> float | None:
    """Return which share of the machine's cores is in use while this process sleeps; None if that is not known."""
    before = _ticks()
    time.sleep(_LOOK)
    after = _ticks()
    if before and after:
        idle, total = (end - begin for begin, end in zip(before, after, strict=True))
        return 1.0 - idle / total if total > 0 else None
    if hasattr(os, "getloadavg"):
        return min(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    return None


def _ticks() -> tuple[int, int] | None:
    """Return the time that all cores were idle, and all of it, where Linux tells."""
    fields = next(iter(info.read(info.PROCESS / "stat").splitlines()), "").split()
    if fields[:1] != ["cpu"] or len(fields) < 6:
        return None
    times = [int(field) for field in fields[1:9]]
    return times[3] + times[4], sum(times)
