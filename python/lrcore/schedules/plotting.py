"""Schedules to look at: as curves, as a line of characters, as a table of all values."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex

import numpy as np

from lrcore._messages import brief
from lrcore._optional import matplotlib
from lrcore._ranges import check_count
from lrcore._text import html_curve, html_text
from lrcore.schedules.functions import EXACT
from lrcore.schedules.schedule import Schedule, as_schedule

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes

    from lrcore.schedules.schedule import Floats

    Steps = np.ndarray[Any, np.dtype[np.int64]]

BLOCKS = "▁▂▃▄▅▆▇█"

# How many steps are shown where no schedule has a length.
STEPS = 1000
# The most steps that are looked at, and the parts that a curve of more points is drawn in.
_LOOKED_AT = 2**16
_DRAWN = 1000
# The most phases of a kind that are marked, and the most that are asked for: a repeat has no end of them.
_MARKED = 12
_ASKED_FOR = 256
# The longest label that is made of a schedule's own text.
_LABEL = 60
# The labels of phases, in points: the size of the letters, the width of one, the height of a row; and the most rows.
_SIZE, _LETTER, _ROW, _ROWS = 7.0, 4.0, 9.0, 3
_WIDEST = 1000
_TILE = 2**14


class _Stream(Protocol):
    def write(self, text: str, /) -> object: ...


def plot(
    *schedules: Schedule | float | Mapping[str, Schedule | float],
    steps: SupportsIndex | None = None,
    ax: Axes | None = None,
    labels: Sequence[str] | None = None,
    log: bool = False,
) -> Axes:
    """Draw the course of schedules with matplotlib.

    Of one schedule the phases are marked, as those of a warm-up, a cool-down and of parts that follow each other; of
    several there is a legend. A long course is drawn with a few thousand points, and none of its jumps is lost.

    Args:
        *schedules: Schedules, or mappings of names to schedules.
        steps: How many steps are drawn; None is a tenth more than the largest length among them, or 1000.
        ax: The axes to draw on; None makes a figure with ``matplotlib.pyplot``.
        labels: A name for each schedule; None is its name in a mapping, or else what it is printed as.
        log: Whether values have a logarithmic axis, on which there is no 0.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If an argument is of a wrong type.
        ValueError: If there is no schedule, or the labels are not as many.

    Examples:
        >>> from matplotlib.figure import Figure
        >>> from lrcore import schedules
        >>> rate = schedules.Cosine(0.1, steps=100)
        >>> ax = schedules.plot({"plain": rate, "warm": rate.warmup(10)}, ax=Figure().subplots())
        >>> ax.get_xlabel(), [line.get_label() for line in ax.get_lines()]
        ('step', ['plain', 'warm'])

        Without ``ax`` there is a figure to show or to save: ``rate.plot().figure.savefig("rate.png")``.
    """
    named = list(_named(schedules))
    if not named:
        raise ValueError("plot: at least one schedule is needed")
    if labels is not None:
        if isinstance(labels, str) or len(labels) != len(named):
            raise ValueError(f"plot: labels must be one for each of {len(named)} schedules, got {brief(labels)}")
        named = [(label, schedule) for label, (_, schedule) in zip(labels, named, strict=True)]
    count = span("plot", [schedule for _, schedule in named], steps)
    if ax is None:
        ax = matplotlib("matplotlib.pyplot").subplots(layout="constrained")[1]
    if log:
        ax.set_yscale("log", nonpositive="mask")
    for label, schedule in named:
        at, values = _thinned(*_looked_at(schedule, count))
        ax.plot(at, values, label=label or _cut(repr(schedule)))
    ax.set_xlabel(ax.get_xlabel() or "step")
    ax.set_ylabel(ax.get_ylabel() or "value")
    if len(named) > 1 or named[0][0]:
        ax.legend(fontsize="small")
    if len(named) == 1:
        _mark(ax, phases(named[0][1], count), count)
    return ax


def preview(schedule: Schedule, steps: SupportsIndex | None = None, width: SupportsIndex = 60) -> str:
    """Return the course as a line of characters for a terminal, with its first, last and largest value.

    Each character is as high as the largest value of its steps. They rise from 0, but where all values are more than
    half of the largest, or one is below 0, they rise from the least, and the line says so.

    Args:
        schedule: The schedule.
        steps: How many steps it shows; None is the schedule's length and a tenth more, or 1000.
        width: The number of characters, at most 1000; there are no more than steps.

    Raises:
        TypeError: If a number is not whole.
        ValueError: If it is less than 1.

    Examples:
        >>> from lrcore import schedules
        >>> print(schedules.Linear(0.0, 1.0, steps=8).then(0.5).preview(steps=12))
        ▁▂▃▄▅▆▇█▅▅▅▅  0 … 11: 0 → 0.5, largest 0.875
    """
    width = check_count("preview: width", width, least=1, most=_WIDEST)
    count = span("preview", [schedule], steps)
    at, values = _looked_at(schedule, count)
    values = np.nan_to_num(values, posinf=sys.float_info.max)
    heights = np.full(min(width, count), -np.inf)
    np.maximum.at(heights, at * len(heights) // count, values)
    least, largest = float(values.min()), float(values.max())
    # What differs by less can't be told apart in the numbers beside the line.
    base = least if least < 0.0 or largest / 2.0 < least < 0.999 * largest else 0.0
    shares = (heights - base) / ((largest - base) or 1.0)
    line = "".join(BLOCKS[min(int(share * len(BLOCKS)), len(BLOCKS) - 1)] for share in shares.tolist())
    drawn_from = f", drawn from {base:.4g}" if base else ""
    return f"{line}  0 … {count - 1}: {values[0]:.4g} → {values[-1]:.4g}, largest {largest:.4g}{drawn_from}"


def to_html(schedule: Schedule) -> str:
    """Return a schedule's text, its curve, and its first and last value, for notebooks."""
    count = span("preview", [schedule], None)
    at, values = _looked_at(schedule, count)
    heights = np.interp(np.linspace(0, count - 1, _DRAWN), at, np.nan_to_num(values, posinf=sys.float_info.max))
    ends = f"0 … {count - 1}: {values[0]:.4g} → {values[-1]:.4g}, largest {values.max():.4g}"
    picture = html_curve(([0.0] * 2, "none"), (heights.tolist(), "#1f77b4"))
    return f"{html_text(_cut(repr(schedule)))}<div>{picture}</div>{html_text(ends)}"


def to_csv(schedule: Schedule, path_or_stream: str | os.PathLike[str] | _Stream, steps: SupportsIndex) -> None:
    """Write the values of the first steps as CSV, with digits enough to read the same numbers back.

    Args:
        schedule: The schedule.
        path_or_stream: A file's path, or what has a ``write`` for text.
        steps: How many steps.

    Raises:
        OSError: If the file can't be written.
        TypeError: If ``steps`` is not a whole number.
        ValueError: If it is negative.

    Examples:
        >>> import sys
        >>> from lrcore import schedules
        >>> from lrcore.schedules.plotting import to_csv
        >>> to_csv(schedules.Linear(0.1, 0.0, steps=4), sys.stdout, steps=3)
        step,value
        0,0.1
        1,0.07500000000000001
        2,0.05
    """
    count = check_count("to_csv: steps", steps)
    if not isinstance(path_or_stream, str) and hasattr(path_or_stream, "write"):
        path_or_stream.write("step,value\n")
        for lines in _lines(schedule, count):
            path_or_stream.write(lines)
        return
    with Path(path_or_stream).open("w", encoding="utf-8", newline="\n") as stream:
        to_csv(schedule, stream, count)


def phases(schedule: Schedule, steps: int) -> list[tuple[str, int]]:
    """Return the phases that begin before a step, in order; none where there are too many of a kind to tell apart."""
    begun = [(name, max(math.ceil(at), 0)) for name, at in islice(schedule._phases(), _ASKED_FOR)]
    first = {at: name for name, at in reversed(begun) if at < steps}
    kinds = Counter(name.rstrip(" 0123456789") for name in first.values())
    return [(first[at], at) for at in sorted(first) if kinds[first[at].rstrip(" 0123456789")] <= _MARKED]


def _named(given: Iterable[Any]) -> Iterator[tuple[str, Schedule]]:
    for value in given:
        if isinstance(value, Mapping):
            yield from ((str(name), as_schedule(f"plot: {name}", part)) for name, part in value.items())
        else:
            yield "", as_schedule("plot", value)


def span(where: str, schedules: Sequence[Schedule], steps: SupportsIndex | None) -> int:
    """Return how many steps are shown."""
    if steps is not None:
        return check_count(f"{where}: steps", steps, least=1, most=EXACT)
    length = max(schedule.length or 0 for schedule in schedules)
    return min(length + -(-length // 10), EXACT) or STEPS


def _looked_at(schedule: Schedule, steps: int) -> tuple[Steps, Floats]:
    """Return steps among the first, all of them if they are not too many, and the values there."""
    if steps <= _LOOKED_AT:
        at = np.arange(steps)
    else:
        begins = np.array([begin for _, begin in phases(schedule, steps)], np.int64)
        even = np.linspace(0, steps - 1, _LOOKED_AT).astype(np.int64)
        at = np.unique(np.concatenate([even, begins, np.maximum(begins - 1, 0)]))
    return at, schedule.values(at)


def _thinned(at: Steps, values: Floats) -> tuple[Steps, Floats]:
    """Return enough of the points for the same picture: of each small part the ends, the least and the largest."""
    size = -(-len(at) // _DRAWN)
    if size <= 4:
        return at, values
    kept: list[int] = []
    for begin in range(0, len(at), size):
        part = values[begin : begin + size]
        kept += (begin, begin + int(part.argmin()), begin + int(part.argmax()), begin + len(part) - 1)
    chosen = np.unique(kept)
    return at[chosen], values[chosen]


def _mark(ax: Axes, begins: Sequence[tuple[str, int]], steps: int) -> None:
    """Draw a line where each phase begins, with its name beside it at the top, in a row that has room."""
    if len(begins) < 2:
        return
    points = 72.0 / ax.figure.dpi
    width, height = max(ax.bbox.width * points, 1.0), max(ax.bbox.height * points, 1.0)
    taken = [-math.inf] * _ROWS
    used = 0
    for name, at in begins:
        if at:
            ax.axvline(at, color="0.6", linewidth=0.8, linestyle=":", zorder=0.5)
        place, size = (at / steps + 0.05) / 1.1 * width, _LETTER * (len(name) + 1)
        is_left = place + size > width
        left = place - size if is_left else place
        row = next((row for row in range(_ROWS) if taken[row] <= left), None)
        if row is None:
            continue
        taken[row] = left + size
        used = max(used, row + 1)
        where: Any = {"xycoords": ax.get_xaxis_transform(), "textcoords": "offset points", "va": "top"}
        patch: Any = {"facecolor": ax.get_facecolor(), "edgecolor": "none", "pad": 0.5}
        offset = (-3.0 if is_left else 3.0, -2.0 - row * _ROW)
        side = "right" if is_left else "left"
        ax.annotate(name, (at, 1.0), offset, fontsize=_SIZE, color="0.35", ha=side, bbox=patch, **where)
    # Room for the names above the curve.
    low, high = ax.dataLim.y0, ax.dataLim.y1
    room = used * _ROW / height
    top = high + room * (high - low)
    if ax.get_yscale() == "log":
        low = ax.dataLim.minposy
        top = high * (high / low) ** room if low > 0.0 and high > 0.0 else high
    ax.update_datalim([(0.0, top)], updatex=False)
    ax.autoscale_view()


def _lines(schedule: Schedule, steps: int) -> Iterator[str]:
    for begin in range(0, steps, _TILE):
        at = range(begin, min(begin + _TILE, steps))
        yield "".join(f"{k},{value!r}\n" for k, value in zip(at, schedule.values(at).tolist(), strict=True))


def _cut(text: str) -> str:
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 1]}…"
