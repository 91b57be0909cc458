"""A progress bar on a terminal, and nothing anywhere else."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from types import TracebackType

WIDTH = 30  # characters to the bar


class ProgressBar:
    """A bar on one line, erased at the end of its `with` block."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = stream.isatty()

    def show(self, done: float, doing: str) -> None:
        """Show a share from 0 to 1 and what is being measured."""
        full = round(done * WIDTH)
        self._write(f"[{'#' * full}{'.' * (WIDTH - full)}] {done:4.0%}  {doing}")

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write("")

    def _write(self, line: str) -> None:
        if self._shown:
            width = max(1, shutil.get_terminal_size().columns - 1)
            self._stream.write(f"\r{line[:width]:{width}}" if line else f"\r{'':{width}}\r")
            self._stream.flush()
