"""Settings from the environment, read once when the package is imported."""

import os

from lrcore import _lrcore


def apply() -> None:
    """Use ``LRCORE_NUM_THREADS`` and ``LRCORE_SIMD`` where they are set.

    Raises:
        ValueError: If one has a value that is not allowed on this machine.
    """
    if threads := os.environ.get("LRCORE_NUM_THREADS"):
        try:
            count: int | str = int(threads)
        except ValueError:
            count = threads
        try:
            _lrcore.set_num_threads(count)  # type: ignore[arg-type]  # it says what is wrong
        except (TypeError, ValueError) as error:
            raise ValueError(f"LRCORE_NUM_THREADS={threads!r}: {error}") from None
    if level := os.environ.get("LRCORE_SIMD"):
        try:
            _lrcore.set_simd_level(level)
        except ValueError as error:
            raise ValueError(f"LRCORE_SIMD={level!r}: {error}") from None
