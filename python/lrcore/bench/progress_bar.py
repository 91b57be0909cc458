"""A progress bar on a terminal, and nothing anywhere else."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WIDTH = 30  # characters to the bar


@contextmanager
def progress_bar(stream: TextIO) -> Iterator[Callable[[float, str], None]]:
    """Yield a function that shows a share from 0 to 1 and what is being measured; erase the bar at the end."""

    def write(line: str, end: str = "") -> None:
        if stream.isatty():
            width = max(1, shutil.get_terminal_size().columns - 1)
            stream.write(f"\r{line[:width]:{width}}{end}")
            stream.flush()

    def show(done: float, doing: str) -> None:
        full = round(done * WIDTH)
        write(f"[{'#' * full}{'.' * (WIDTH - full)}] {done:4.0%}  {doing}")

    try:
        yield show
    finally:
        write("", end="\r")
