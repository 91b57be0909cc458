"""How far a sweep is, and the best so far: a bar of tqdm, or lines without it."""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lrcore._text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lrcore.sweeps.objective import Outcome, Run
    from lrcore.sweeps.store import Row

# Seconds between lines where there is no bar.
_PAUSE = 2.0


class SweepProgress:
    """Shows on the standard error, if somebody looks at it: on a terminal or in a notebook.

    Args:
        shown: Whether it shows anything at all.
        total: How many runs there are.
        minimize: Whether less is better.
    """

    def __init__(self, total: int, *, shown: bool, minimize: bool) -> None:
        self._total = total
        self._minimize = minimize
        self._before = self._done = 0
        self._best: tuple[int, float, dict[str, Any]] | None = None
        self._troubled = 0
        self._printed = 0.0
        self._shown = shown and (sys.stderr.isatty() or "ipykernel" in sys.modules)
        self._bar: Any = None
        if self._shown and find_spec("tqdm") is not None:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, unit="run", file=sys.stderr, dynamic_ncols=True)

    def begin(self, rows: Iterable[Row]) -> None:
        """Take note of the runs of a round, of which some may have ended before."""
        self._before = self._done
        for row in rows:
            if row.status not in ("pending", "running"):
                self._count(row.settings, row.budget, row.status, row.objective)

    def note(self, run: Run, outcome: Outcome) -> None:
        """Take note of a run that has ended."""
        self._count(run.settings, run.budget, outcome.status, outcome.objective)
        self._show()

    def show(self, settled: int) -> None:
        """Take note of how many runs of the round have ended, those of other processes too."""
        if self._before + settled > self._done:
            self._done = self._before + settled
            self._show()

    def close(self) -> None:
        """Show the last state, and no more."""
        if self._bar is not None:
            self._bar.close()
        elif self._shown and self._done:
            print(self._line(), file=sys.stderr)  # noqa: T201

    def _count(self, settings: dict[str, Any], budget: int | None, status: str, objective: float | None) -> None:
        self._done += 1
        if objective is None:
            self._troubled += status != "finished"
            return
        # What ran longer counts for more.
        order = (-(budget or 0), objective if self._minimize else -objective)
        if self._best is None or order < (self._best[0], self._best[1] if self._minimize else -self._best[1]):
            self._best = (order[0], objective, settings)

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
            where = " ".join(f"{name}={shown(value)}" for name, value in self._best[2].items())
            parts.append(f"best {self._best[1]:.4g} at {where}")
        if self._troubled:
            parts.append(f"{self._troubled} diverged or failed")
        return ", ".join(parts) or "none finished yet"


def shown(value: Any) -> str:
    """Return a value as tables and labels show it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))})"
    return str(value)
