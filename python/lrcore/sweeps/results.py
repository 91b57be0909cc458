"""The results of a sweep: a table, the best setting, and sensitivities."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, overload

from lrcore._messages import brief
from lrcore._optional import imported
from lrcore._text import aligned, counted, format_value, html_table, html_text, write_csv
from lrcore.sweeps.store import Row, Store
from lrcore.sweeps.summary import SettingSummary, summaries

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes

    from lrcore._text import TextStream
    from lrcore.sweeps.sensitivity import Sensitivity

# The most settings that are printed.
_LINES = 40


class Results(Sequence[dict[str, Any]]):
    """The runs of a sweep; printed as a table of the settings, the best first.

    Attributes:
        rows: A mapping for each run, in the order of the sweep: the setting, ``budget`` if runs have one,
            ``seed_index``, ``seed``, ``status``, ``objective`` (None unless finished), the other metrics, ``reason``,
            ``seconds``, and ``attempts``, the number of starts.
        minimize: Whether a smaller objective is better.
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
        """The names of the hyperparameters."""
        return list(dict.fromkeys(name for row in self._rows for name in row.settings))

    @property
    def statuses(self) -> dict[str, int]:
        """The number of runs by status."""
        return dict(Counter(row.status for row in self._rows))

    @property
    def settings(self) -> list[SettingSummary]:
        """Each setting at its largest budget: the best first, then those with seeds that did not finish."""
        return summaries(self._rows, minimize=self.minimize)

    @property
    def best(self) -> SettingSummary:
        """The setting with the best mean over seeds.

        Only settings whose seeds all finished count, since a mean without diverged runs would favour settings that
        diverge; with budgets, only those at the largest budget with such settings.

        Raises:
            ValueError: If there are none.
        """
        for summary in self.settings:
            if summary.complete:
                return summary
        raise ValueError(f"no setting has finished with all its seeds: {self._counts() or 'no runs'}")

    def sensitivity(self, name: str, *, within: float = 0.05, budget: int | None = None) -> Sensitivity:
        """Return the objective by the values of one hyperparameter, with the others at their best for each value.

        Args:
            name: The hyperparameter.
            within: The tolerance of good values, as a share of the best objective, in [0, inf).
            budget: The budget; None is the largest that all settings ran with.

        Raises:
            KeyError: If the name is unknown.
            ValueError: If no setting has finished.
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
        """Draw :meth:`sensitivity` with matplotlib: means, standard deviations over seeds, and the good range shaded.

        Args:
            name: As for :meth:`sensitivity`.
            within: As for :meth:`sensitivity`.
            budget: As for :meth:`sensitivity`.
            log: Whether the axis is logarithmic; None if the values span a factor of 10 or more.
            ax: The axes to draw on; None creates a figure with ``matplotlib.pyplot``.

        Raises:
            ImportError: If matplotlib is not installed.
            KeyError: If the name is unknown.
            ValueError: If no setting has finished.
        """
        from lrcore.sweeps.plot import draw_sensitivity

        return draw_sensitivity(self.sensitivity(name, within=within, budget=budget), log, ax)

    def heatmap(self, x: str, y: str, *, budget: int | None = None, ax: Axes | None = None) -> Axes:
        """Draw the mean objective over two hyperparameters with matplotlib, the others at their best for each pair.

        Args:
            x: The hyperparameter of the horizontal axis.
            y: The hyperparameter of the vertical axis.
            budget: As for :meth:`sensitivity`.
            ax: The axes to draw on; None creates a figure with ``matplotlib.pyplot``.

        Raises:
            ImportError: If matplotlib is not installed.
            KeyError: If a name is unknown.
            ValueError: If no setting has finished, or both names are the same.
        """
        from lrcore.sweeps.plot import draw_heatmap

        return draw_heatmap(self._at(budget), x, y, ax, minimize=self.minimize)

    def to_dataframe(self) -> Any:
        """Return the rows as a pandas DataFrame.

        Raises:
            ImportError: If pandas is not installed.
        """
        pandas = imported("pandas", "to_dataframe needs pandas, which is not installed: pip install pandas")
        return pandas.DataFrame(self.rows)

    def to_csv(self, path_or_stream: str | os.PathLike[str] | TextStream) -> None:
        """Write the rows as CSV, with enough digits to read the same numbers back.

        Args:
            path_or_stream: A path, or an object with a ``write`` for text.

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
        """Return the best 40 settings, one per line, and the 8 most frequent reasons."""
        settings = self.settings
        lines = list(aligned(_cells(settings, self.names), last_left=True))
        return "\n".join([*lines[: _LINES + 1], *self._notes(len(settings))])

    def _notes(self, count: int) -> list[str]:
        """Return the lines below the table of so many settings."""
        hidden = count - _LINES
        reasons = Counter(row.reason for row in self._rows if row.reason)
        return [f"and {counted(hidden, 'more setting')}"] * (hidden > 0) + [
            f"{count} ×  {_first_line(reason)}" for reason, count in reasons.most_common(8)
        ]

    def _repr_html_(self) -> str:
        """Return the table, for notebooks."""
        settings = self.settings
        head, *rows = _cells(settings, self.names)
        return html_table(head, rows[:_LINES]) + html_text("\n".join([repr(self), *self._notes(len(settings))]))

    def __str__(self) -> str:
        """Return the table."""
        return self.table()

    def __repr__(self) -> str:
        return f"<Results: {counted(len(self), 'run')}, {self._counts() or 'none'}>"

    def _counts(self) -> str:
        return ", ".join(f"{count} {status}" for status, count in self.statuses.items())

    def _at(self, budget: int | None) -> list[SettingSummary]:
        """Return the settings at a budget; None is the largest of the budgets that most settings ran with."""
        counts = Counter(row.budget for row in self._rows)
        if not counts:
            raise ValueError("no setting has finished: there are no runs")
        if budget is None:
            budget = max(counts, key=lambda known: (counts[known], known or 0))
        elif budget not in counts:
            known = sorted(counts, key=lambda known: known or 0)
            raise ValueError(f"budget must be one of {known}, got {brief(budget)}")
        return summaries([row for row in self._rows if row.budget == budget], minimize=self.minimize)


def load(path: str | os.PathLike[str]) -> Results:
    """Return all runs of a results file, also while a sweep is writing it.

    Args:
        path: The file.

    Raises:
        OSError: If it does not exist.
        ValueError: If it is not a results file.

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
        return Results(store.rows(selected=False), minimize=store["minimize"] != "no")
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
    """Return the table with its head as texts."""
    budgeted = any(summary.budget is not None for summary in settings)
    head = [*names, *(["budget"] if budgeted else []), "objective", "std", "seeds", "seconds", "status"]
    lines = [head]
    for each in settings:
        values = [format_value(each.settings.get(name, "")) for name in names]
        if budgeted:
            values.append(format_value(each.budget or ""))
        numbers = [f"{each.mean:.4g}", f"{each.std:.2g}"] if each.seeds else ["", ""]
        lines.append([*values, *numbers, str(each.seeds), _seconds(each.seconds), each.status])
    return lines


def _seconds(seconds: float) -> str:
    return "" if math.isnan(seconds) else f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}"


def _first_line(text: str, most: int = 120) -> str:
    line = next(iter(text.splitlines()), "")
    return line if len(line) <= most else f"{line[: most - 1]}…"
