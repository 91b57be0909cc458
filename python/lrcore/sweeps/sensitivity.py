"""How the objective depends on each value of one hyperparameter."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lrcore._ranges import NON_NEGATIVE
from lrcore._text import aligned, counted, format_value, html_table, html_text
from lrcore.sweeps.space import canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lrcore.sweeps.summary import SettingSummary


@dataclass(frozen=True)
class Point:
    """One value, with the other hyperparameters at their best for it.

    Attributes:
        value: The value.
        best: The best setting with it; None if no setting finished with all seeds.
        over_rest: The mean over all settings with it that finished with all seeds; NaN if none did.
        complete: The number of these settings.
        others: The number of settings with it.
    """

    value: Any
    best: SettingSummary | None
    over_rest: float
    complete: int
    others: int


@dataclass(frozen=True, repr=False)
class Sensitivity:
    """The objective by the values of one hyperparameter, and the values that are nearly as good as the best.

    Attributes:
        name: The hyperparameter.
        points: One point per value, in order.
        within: The tolerance of the good values, as a share of the best objective.
        good: The good values: of numbers the contiguous range around the best, otherwise all within the tolerance.
        limit: The objective at the tolerance.
    """

    name: str
    points: tuple[Point, ...]
    within: float
    good: tuple[Any, ...]
    limit: float

    @property
    def low(self) -> Any:
        """The first good value."""
        return self.good[0]

    @property
    def high(self) -> Any:
        """The last good value."""
        return self.good[-1]

    @property
    def is_numeric(self) -> bool:
        """Whether all values are numbers."""
        return _numeric([point.value for point in self.points])

    def __str__(self) -> str:
        """Return a table of the values, and the good ones."""
        return "\n".join([*aligned(self._cells()), self._range()])

    def __repr__(self) -> str:
        return f"<Sensitivity to {self.name}: {counted(len(self.points), 'value')}, {self._range()}>"

    def _repr_html_(self) -> str:
        head, *rows = self._cells()
        return html_table(head, rows) + html_text(self._range())

    def _cells(self) -> list[list[str]]:
        lines = [[self.name, "mean", "std", "least", "largest", "over the rest", "complete"]]
        for point in self.points:
            best = point.best
            numbers = [best.mean, best.std, best.least, best.largest, point.over_rest] if best else []
            texts = [f"{number:.4g}" for number in numbers] or [""] * 5
            lines.append([format_value(point.value), *texts, f"{point.complete} of {point.others}"])
        return lines

    def _range(self) -> str:
        if self.is_numeric:
            where = f"from {format_value(self.low)} to {format_value(self.high)}"
        else:
            where = f"for {', '.join(map(format_value, self.good))}"
        return f"within {self.within:.3g} of the best {where}"


def measure(settings: Sequence[SettingSummary], name: str, within: Any, *, minimize: bool) -> Sensitivity:
    """Return the sensitivity to a hyperparameter; see ``Results.sensitivity``."""
    within = NON_NEGATIVE.check("within", within)
    points = [_point(value, group) for value, group in by_value(settings, name)]
    sign = 1.0 if minimize else -1.0
    losses = [math.inf if point.best is None else sign * point.best.mean for point in points]
    best = min(losses)
    if best == math.inf:
        raise ValueError(f"{name}: no setting has finished with all its seeds")
    limit = best + within * abs(best)
    good = [i for i, loss in enumerate(losses) if loss <= limit]
    if _numeric([point.value for point in points]):
        at = losses.index(best)
        first = max((i + 1 for i in range(at) if i not in good), default=0)
        end = min((i for i in range(at, len(points)) if i not in good), default=len(points))
        good = list(range(first, end))
    return Sensitivity(name, tuple(points), within, tuple(points[i].value for i in good), sign * limit)


def by_value(settings: Sequence[SettingSummary], name: str) -> list[tuple[Any, list[SettingSummary]]]:
    """Return settings grouped by one of their values, sorted.

    Raises:
        KeyError: If no setting has the name.
    """
    groups: dict[str, tuple[Any, list[SettingSummary]]] = {}
    for summary in settings:
        if name in summary.settings:
            value = summary.settings[name]
            groups.setdefault(canonical(value), (value, []))[1].append(summary)
    if not groups:
        known = sorted({key for summary in settings for key in summary.settings})
        raise KeyError(f"name must be one of {known}, got {name!r}")
    numeric = _numeric([value for value, _ in groups.values()])
    return sorted(groups.values(), key=lambda group: group[0] if numeric else str(group[0]))


def best_of(settings: Sequence[SettingSummary]) -> SettingSummary | None:
    """Return the first setting of a sorted list that finished with all seeds."""
    return next((summary for summary in settings if summary.complete), None)


def _point(value: Any, settings: Sequence[SettingSummary]) -> Point:
    means = [summary.mean for summary in settings if summary.complete]
    over_rest = statistics.fmean(means) if means else math.nan
    return Point(value, best_of(settings), over_rest, len(means), len(settings))


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
