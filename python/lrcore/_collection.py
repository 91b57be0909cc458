"""Python's cyclic garbage collector, where many objects are made that all stay."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def without_collections() -> Iterator[None]:
    """Let the collector rest, if it runs: it would look at all new objects again and again, and find nothing.

    For 100,000 parameters that is half of the time to load a checkpoint. Other threads only have their cycles
    collected later.
    """
    was_enabled = gc.isenabled()
    try:
        gc.disable()
        yield
    finally:
        if was_enabled:
            gc.enable()
