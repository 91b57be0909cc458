"""How much other programs use the machine, which disturbs a benchmark."""

from __future__ import annotations

import os
import time

from lrcore import info

BUSY = 0.1
"""The share of all cores used by others from which on times are doubted."""

_SECONDS = 0.25


def share_of_others() -> float | None:
    """Return the share of the machine's cores in use while this process sleeps; None if it is unknown."""
    before = _ticks()
    time.sleep(_SECONDS)
    after = _ticks()
    if before and after:
        idle, total = (end - begin for begin, end in zip(before, after, strict=True))
        return 1.0 - idle / total if total > 0 else None
    if hasattr(os, "getloadavg"):
        return min(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    return None


def _ticks() -> tuple[int, int] | None:
    """Return the idle and the total time of all cores, on Linux."""
    fields = next(iter(info.read(info.PROCESS / "stat").splitlines()), "").split()
    if fields[:1] != ["cpu"] or len(fields) < 6:
        return None
    times = [int(field) for field in fields[1:9]]
    return times[3] + times[4], sum(times)
