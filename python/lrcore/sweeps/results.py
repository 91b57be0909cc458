"""What became of the runs of a sweep: a table, the best settings, and what each value is worth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from lrcore._messages import brief
from lrcore._optional import imported
from lrcore._text import counted, html_table, html_text, write_csv
from lrcore.sweeps.progress import shown
from lrcore.sweeps.store import Row, Store
from lrcore.sweeps.summary import SettingSummary, summaries

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes

    from lrcore._text import TextStream
    from lrcore.sweeps.sensitivity import Sensitivity

# How many settings are printed.
_LINES = 40


class Results(Sequence[dict[str, Any]]):
    """The runs of a sweep. Printed, it is a table of the settings, the best first.

    Attributes:
        rows: A mapping for each run, in the order of the sweep: the settings, ``budget`` if runs have one,
            ``seed_index``, ``seed``, ``status``, ``objective`` (None unless finished), the other metrics, ``reason``,
            ``seconds`` and ``attempts``, how often it was begun.
        minimize: Whether less is better.
    """

    def __init__(self, rows: Iterable[Row], *, minimize: bool) -> None:
        self._rows = list(rows)
        self.minimize = minimize
        self.rows = [_as_mapping(row) for row in self._rows]

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def names(self) -> list[str]:
        """The names of the settings."""
        return list(dict.fromkeys(name for row in self._rows for name in row.settings))

    @property
    def statuses(self) -> dict[str, int]:
        """How many runs there are of each status."""
        return dict(Counter(row.status for row in self._rows))

    @property
    def settings(self) -> list[SettingSummary]:
        """Each setting at the largest budget that it ran with: the best first, then those with seeds that failed."""
        return summaries(self._rows, minimize=self.minimize)

    @property
    def best(self) -> SettingSummary:
        """The settings with the best mean over seeds.

        Only settings whose seeds have all finished count, since a mean without the runs that diverged would favour
        what diverges; and with budgets only the largest at which there are such.

        Raises:
            ValueError: If there are none.
        """
        for summary in self.settings:
            if summary.complete:
                return summary
        counts = ", ".join(f"{count} {status}" for status, count in self.statuses.items()) or "no runs"
        raise ValueError(f"no setting has finished with all its seeds: {counts}")

    def sensitivity(self, name: str, *, within: float = 0.05, budget: int | None = None) -> Sensitivity:
        """Return what each value of a setting is worth, with the other settings at their best for it.

        Args:
            name: The name of the setting.
            within: How much worse than the best a value may be to belong to the range, as a share of it, in [0, inf).
            budget: Of which budget; None is the largest that all settings ran with.

        Raises:
            KeyError: If there is no such setting.
            ValueError: If nothing has finished.
        """
        from lrcore.sweeps.sensitivity import measure

        return measure(self._at(budget), name, within, minimize=self.minimize)

    def plot_sensitivity(
        self,
        name: str,
        *,
        within: float = 0.05,
        budget: int | None = None,
        log: bool | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw :meth:`sensitivity` with matplotlib: means with the spread over seeds, and the range shaded.

        Args:
            name: The name of the setting.
            within: As for :meth:`sensitivity`.
            budget: As for :meth:`sensitivity`.
            log: Whether its values have a logarithmic axis; None is where they span a factor of 10.
            ax: The axes to draw on; None makes a figure with ``matplotlib.pyplot``.

        Raises:
            ImportError: If matplotlib is not installed.
            KeyError: If there is no such setting.
            ValueError: If nothing has finished.
        """
        from lrcore.sweeps.plot import draw_sensitivity

        return draw_sensitivity(self.sensitivity(name, within=within, budget=budget), log, ax)

    def heatmap(self, x: str, y: str, *, budget: int | None = None, ax: Axes | None = None) -> Axes:
        """Draw the mean objective over two settings with matplotlib, the others at their best for each pair.

        Args:
            x: The setting from left to right.
            y: The setting from bottom to top.
            budget: Of which budget; None is the largest that all settings ran with.
            ax: The axes to draw on; None makes a figure with ``matplotlib.pyplot``.

        Raises:
            ImportError: If matplotlib is not installed.
            KeyError: If there is no such setting.
            ValueError: If nothing has finished, or both are the same.
        """
        from lrcore.sweeps.plot import draw_heatmap

        return draw_heatmap(self._at(budget), x, y, ax, minimize=self.minimize)

    def to_dataframe(self) -> Any:
        """Return the rows as a pandas DataFrame.

        Raises:
            ImportError: If pandas is not installed.
        """
        message = "to_dataframe needs pandas, which is not installed: pip install pandas"
        pandas = imported("pandas", message)
        return pandas.DataFrame(self.rows)

    def to_csv(self, path_or_stream: str | os.PathLike[str] | TextStream) -> None:
        """Write the rows as CSV, with digits enough to read the same numbers back.

        Args:
            path_or_stream: A file's path, or what has a ``write`` for text.

        Raises:
            OSError: If the file can't be written.

        Examples:
            >>> import sys
            >>> from lrcore import sweeps
            >>> def train(lr, seed):
            ...     return lr
            >>> found = sweeps.sweep(train, {"lr": [0.1, 0.2]}, seeds=1, workers=0, progress=False)
            >>> found.to_csv("sweep.csv")  # doctest: +SKIP
        """
        write_csv(self.rows, path_or_stream)

    def table(self) -> str:
        """Return what is printed: a line for each of the best 40 settings, and the most frequent 8 reasons of runs."""
        lines = list(_aligned(_cells(self.settings, self.names)))
        return "\n".join([*lines[: _LINES + 1], *self._notes()])

    def _notes(self) -> list[str]:
        """Return what stands below the table: how many settings are not in it, and the most frequent reasons."""
        hidden = len(self.settings) - _LINES
        reasons = Counter(row.reason for row in self._rows if row.reason)
        return [f"and {counted(hidden, 'more setting')}"] * (hidden > 0) + [
            f"{count} ×  {_first_line(reason)}" for reason, count in reasons.most_common(8)
        ]

    def _repr_html_(self) -> str:
        """Return the table, for notebooks."""
        head, *rows = _cells(self.settings, self.names)
        return html_table(head, rows[:_LINES]) + html_text("\n".join([repr(self), *self._notes()]))

    def __str__(self) -> str:
        """Return the table."""
        return self.table()

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.statuses.items())
        return f"<Results: {counted(len(self), 'run')}, {counts or 'none'}>"

    def _at(self, budget: int | None) -> list[SettingSummary]:
        """Return the settings at a budget, or at the largest that as many ran with as with any."""
        counts = Counter(row.budget for row in self._rows)
        if budget is None and counts:
            most = max(counts.values())
            budget = max((known for known, count in counts.items() if count == most), key=lambda known: known or 0)
        elif budget not in counts:
            raise ValueError(
                f"budget must be one of {sorted(counts, key=lambda known: known or 0)}, got {brief(budget)}"
            )
        return summaries([row for row in self._rows if row.budget == budget], minimize=self.minimize)


def load(path: str | os.PathLike[str]) -> Results:
    """Return all runs that a results file has, also while a sweep is writing it.

    Args:
        path: The file.

    Raises:
        OSError: If it is not there.
        ValueError: If it is no results file.

    Examples:
        >>> import pathlib, tempfile
        >>> from lrcore import sweeps
        >>> def train(lr, seed):
        ...     return lr
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "sweep.sqlite")
        ...     _ = sweeps.sweep(train, {"lr": [0.1, 0.2]}, results=file, workers=0)
        ...     sweeps.load(file)
        <Results: 6 runs, 6 finished>
    """
    store = Store(path, None)
    try:
        return Results(store.rows(wanted=False), minimize=store["minimize"] != "no")
    finally:
        store.close()


def _as_mapping(row: Row) -> dict[str, Any]:
    budget = {} if row.budget is None else {"budget": row.budget}
    return {
        **row.settings, **budget, "seed_index": row.seed_index, "seed": row.seed, "status": row.status,
        "objective": row.objective, **row.metrics, "reason": row.reason, "seconds": row.seconds,
        "attempts": row.attempts,
    }  # fmt: skip


def _cells(settings: Sequence[SettingSummary], names: Sequence[str]) -> list[list[str]]:
    """Return the lines of a table as texts, the first with the names of the columns."""
    budgeted = any(summary.budget is not None for summary in settings)
    head = [*names, *(["budget"] if budgeted else []), "objective", "std", "seeds", "seconds", "status"]
    lines = [head]
    for each in settings:
        values = [shown(each.settings[name]) if name in each.settings else "" for name in names]
        if budgeted:
            values.append(shown(each.budget or ""))
        numbers = [f"{each.mean:.4g}", f"{each.std:.2g}"] if each.seeds else ["", ""]
        lines.append([*values, *numbers, str(each.seeds), _seconds(each.seconds), each.status])
    return lines


def _aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield lines with their columns aligned to the right, the last to the left."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]) - 1)]
    for line in lines:
        cells = [f"{text:>{width}}" for text, width in zip(line, widths, strict=False)]
        yield "  ".join([*cells, line[-1]]).rstrip()


def _seconds(seconds: float) -> str:
    return "" if math.isnan(seconds) else f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}"


def _first_line(text: str, most: int = 120) -> str:
    line = next(iter(text.splitlines()), "")
    return line if len(line) <= most else f"{line[: most - 1]}…"
