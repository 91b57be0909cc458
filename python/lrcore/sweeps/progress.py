"""The progress of a sweep and the best result so far: a tqdm bar, or lines without tqdm."""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lrcore._text import counted, format_value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lrcore.sweeps.objective import Outcome, Run
    from lrcore.sweeps.store import Row

# Seconds between lines without a bar.
_PAUSE = 2.0


class SweepProgress:
    """Shows progress on standard error, on a terminal or in a notebook.

    Args:
        total: The number of runs.
        shown: Whether to show anything.
        minimize: Whether a smaller objective is better.
    """

    def __init__(self, total: int, *, shown: bool, minimize: bool) -> None:
        self._total = total
        self._minimize = minimize
        self._before = self._done = 0
        self._best: tuple[tuple[int, float], float, dict[str, Any]] | None = None  # its rank, objective and setting
        self._troubled = 0
        self._printed = 0.0
        self._shown = shown and (sys.stderr.isatty() or "ipykernel" in sys.modules)
        self._bar: Any = None
        if self._shown and find_spec("tqdm") is not None:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, unit="run", file=sys.stderr, dynamic_ncols=True)

    def begin(self, rows: Iterable[Row]) -> None:
        """Count the runs of a round that have already ended."""
        self._before = self._done
        for row in rows:
            if row.status not in ("pending", "running"):
                self._count(row.settings, row.budget, row.status, row.objective)

    def add(self, run: Run, outcome: Outcome) -> None:
        """Count a run that has ended."""
        self._count(run.settings, run.budget, outcome.status, outcome.objective)
        self._show()

    def show(self, settled: int) -> None:
        """Show how many runs of the round have ended, in any process."""
        if self._before + settled > self._done:
            self._done = self._before + settled
            self._show()

    def close(self) -> None:
        """Show the final state."""
        if self._bar is not None:
            self._bar.close()
        elif self._shown and self._done:
            print(self._line(), file=sys.stderr)  # noqa: T201

    def _count(self, settings: dict[str, Any], budget: int | None, status: str, objective: float | None) -> None:
        self._done += 1
        if objective is None:
            self._troubled += status != "finished"
            return
        # A larger budget ranks first.
        order = (-(budget or 0), objective if self._minimize else -objective)
        if self._best is None or order < self._best[0]:
            self._best = (order, objective, settings)

    def _show(self) -> None:
        if not self._shown:
            return
        if self._bar is not None:
            self._bar.set_postfix_str(self._note(), refresh=False)
            self._bar.update(self._done - self._bar.n)
        elif time.monotonic() - self._printed >= _PAUSE:
            self._printed = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)  # noqa: T201

    def _line(self) -> str:
        return f"{self._done} of {counted(self._total, 'run')}, {self._note()}"

    def _note(self) -> str:
        parts = []
        if self._best is not None:
            where = " ".join(f"{name}={format_value(value)}" for name, value in self._best[2].items())
            parts.append(f"best {self._best[1]:.4g} at {where}")
        if self._troubled:
            parts.append(f"{self._troubled} diverged or failed")
        return ", ".join(parts) or "none finished yet"
