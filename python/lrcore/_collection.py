"""Pauses of Python's cyclic garbage collector where many objects are created that all stay."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def without_collections() -> Iterator[None]:
    """Disable the collector, which would traverse all new objects repeatedly and find no garbage.

    With 100,000 parameters that is half of the time to load a checkpoint. Cycles of other threads are collected later.
    """
    was_enabled = gc.isenabled()
    try:
        gc.disable()
        yield
    finally:
        if was_enabled:
            gc.enable()
