"""The results of each setting over its seeds."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lrcore._text import counted, format_value
from lrcore.sweeps.space import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lrcore.sweeps.store import Row


@dataclass(frozen=True)
class SettingSummary:
    """One setting, and the objective over its seeds.

    Attributes:
        settings: The setting, by name.
        budget: Its largest budget; None without budgets.
        mean: The mean objective of the finished seeds; NaN without any.
        std: Its standard deviation (with n − 1); 0 for one seed.
        least: The smallest objective.
        largest: The largest objective.
        seeds: The number of finished seeds.
        statuses: The number of runs by status.
        reasons: Why runs did not finish, and which metrics were dropped, each once.
        seconds: The mean duration of a run.
    """

    settings: dict[str, Any]
    budget: int | None
    mean: float
    std: float
    least: float
    largest: float
    seeds: int
    statuses: dict[str, int]
    reasons: tuple[str, ...]
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether all seeds finished."""
        return set(self.statuses) == {"finished"}

    @property
    def status(self) -> str:
        """``"finished"``, or the number of runs by status."""
        if self.complete:
            return "finished"
        return ", ".join(f"{count} {status}" for status, count in sorted(self.statuses.items()))

    def __str__(self) -> str:
        """Return the setting and its objective on one line."""
        where = " ".join(f"{name}={format_value(value)}" for name, value in self.settings.items())
        at = "" if self.budget is None else f" budget={self.budget}"
        return f"{where}{at}: {self.mean:.4g} ± {self.std:.2g} over {counted(self.seeds, 'seed')}"


def summaries(rows: Iterable[Row], *, minimize: bool) -> list[SettingSummary]:
    """Return the summary of each setting at its largest budget, sorted by budget, completeness and mean."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(canonical(row.settings), []).append(row)
    found = [_summary(group) for group in groups.values()]

    def order(summary: SettingSummary) -> tuple[int, bool, float]:
        mean = math.inf if math.isnan(summary.mean) else summary.mean if minimize else -summary.mean
        return -(summary.budget or 0), not summary.complete, mean

    return sorted(found, key=order)


def _summary(rows: Sequence[Row]) -> SettingSummary:
    budget = max((row.budget or 0 for row in rows), default=0) or None
    rows = [row for row in rows if row.budget == budget]
    values = [row.objective for row in rows if row.status == "finished" and row.objective is not None]
    seconds = [row.seconds for row in rows if row.seconds is not None]
    return SettingSummary(
        settings=rows[0].settings,
        budget=budget,
        mean=statistics.fmean(values) if values else math.nan,
        std=statistics.stdev(values) if len(values) > 1 else 0.0,
        least=min(values, default=math.nan),
        largest=max(values, default=math.nan),
        seeds=len(values),
        statuses=dict(Counter(row.status for row in rows)),
        reasons=tuple(dict.fromkeys(row.reason for row in rows if row.reason)),
        seconds=statistics.fmean(seconds) if seconds else math.nan,
    )
