"""Settings from environment variables, read when the package is imported."""

import os
import sys

from lrcore import _lrcore


def apply() -> None:
    """Apply ``LRCORE_NUM_THREADS`` and ``LRCORE_SIMD``.

    Raises:
        ValueError: If one has a value that is not allowed on this machine.
        SystemExit: In place of the ValueError if ``python -m lrcore`` imports the package.
    """
    try:
        _apply_threads()
        _apply_simd()
    except ValueError as error:
        if not _is_command():
            raise
        sys.stderr.write(f"python -m lrcore: error: {error}\n")
        raise SystemExit(2) from None


def _apply_threads() -> None:
    threads = os.environ.get("LRCORE_NUM_THREADS")
    if not threads:
        return
    try:
        count: int | str = int(threads)
    except ValueError:
        count = threads
    try:
        _lrcore.set_num_threads(count)  # type: ignore[arg-type]  # it checks the type
    except (TypeError, ValueError) as error:
        raise ValueError(f"LRCORE_NUM_THREADS={threads!r}: {error}") from None


def _apply_simd() -> None:
    level = os.environ.get("LRCORE_SIMD")
    if not level:
        return
    try:
        _lrcore.set_simd_level(level)
    except ValueError as error:
        raise ValueError(f"LRCORE_SIMD={level!r}: {error}") from None


def _is_command() -> bool:
    """Return whether Python was started with ``-m lrcore`` and is importing that module."""
    if sys.argv[:1] != ["-m"]:
        return False
    return any(
        word.startswith("-mlrcore") or (word == "-m" and follows.partition(".")[0] == "lrcore")
        for word, follows in zip(sys.orig_argv, [*sys.orig_argv[1:], ""], strict=True)
    )
