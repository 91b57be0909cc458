"""Plots and previews of schedules, and their values as CSV."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from lrcore._messages import brief
from lrcore._optional import matplotlib
from lrcore._ranges import check_count
from lrcore._text import html_curve, html_text
from lrcore.schedules.functions import EXACT
from lrcore.schedules.schedule import Floats, Schedule, as_schedule

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes

    from lrcore._text import TextStream

    Steps = np.ndarray[Any, np.dtype[np.int64]]

BLOCKS = "▁▂▃▄▅▆▇█"

# The number of steps that are shown if no schedule has a length.
STEPS = 1000
# The most steps that are evaluated, and the number of segments of a curve with more points.
_MOST_EVALUATED = 2**16
_SEGMENTS = 1000
# The most phases with one name that are marked, and the most that are read: `repeat` has infinitely many.
_MOST_MARKED = 12
_MOST_PHASES = 256
# The longest label made of a repr.
_LONGEST_LABEL = 60
# The labels of phases, in points: the font size, the width of a letter, the height of a row; and the number of rows.
_SIZE, _LETTER, _ROW, _ROWS = 7.0, 4.0, 9.0, 3
_WIDEST = 1000
_TILE = 2**14


def plot(
    *schedules: Schedule | float | Mapping[str, Schedule | float],
    steps: SupportsIndex | None = None,
    ax: Axes | None = None,
    labels: Sequence[str] | None = None,
    log: bool = False,
) -> Axes:
    """Plot schedules with matplotlib.

    For one schedule the phases are marked, such as warm-up and cool-down; for several there is a legend. A long
    schedule is drawn with a few thousand points that include all jumps.

    Args:
        *schedules: Schedules, or mappings of names to schedules.
        steps: The number of steps; None is the largest length plus a tenth, or 1000 without a length.
        ax: The axes to draw on; None makes a figure with ``matplotlib.pyplot``.
        labels: A name for each schedule; None is its name in a mapping, or else its repr.
        log: Whether the axis of values is logarithmic, which leaves out zeros.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If an argument has the wrong type.
        ValueError: If there is no schedule, or the number of labels differs.

    Examples:
        >>> from matplotlib.figure import Figure
        >>> from lrcore import schedules
        >>> lr = schedules.Cosine(0.1, steps=100)
        >>> ax = schedules.plot({"plain": lr, "warm": lr.warmup(10)}, ax=Figure().subplots())
        >>> ax.get_xlabel(), [line.get_label() for line in ax.get_lines()]
        ('step', ['plain', 'warm'])

        Without ``ax`` there is a new figure: ``lr.plot().figure.savefig("lr.png")``.
    """
    named = list(_named(schedules))
    if not named:
        raise ValueError("plot: at least one schedule is needed")
    if labels is not None:
        if isinstance(labels, str) or len(labels) != len(named):
            raise ValueError(f"plot: labels must be one for each of {len(named)} schedules, got {brief(labels)}")
        named = [(label, schedule) for label, (_, schedule) in zip(labels, named, strict=True)]
    count = shown_steps("plot", [schedule for _, schedule in named], steps)
    if ax is None:
        ax = matplotlib("matplotlib.pyplot").subplots(layout="constrained")[1]
    if log:
        ax.set_yscale("log", nonpositive="mask")
    for label, schedule in named:
        at, values = _thinned(*_sampled(schedule, count))
        ax.plot(at, values, label=label or _cut(repr(schedule)))
    ax.set_xlabel(ax.get_xlabel() or "step")
    ax.set_ylabel(ax.get_ylabel() or "value")
    if len(named) > 1 or named[0][0]:
        ax.legend(fontsize="small")
    if len(named) == 1:
        _mark(ax, phases(named[0][1], count), count)
    return ax


def preview(schedule: Schedule, steps: SupportsIndex | None = None, width: SupportsIndex = 60) -> str:
    """Return a one-line plot for a terminal, with the first, the last and the largest value.

    The height of a character is the largest value of its steps. Heights start at 0, or at the smallest value if it is
    negative or above half of the largest one; the line then says so.

    Args:
        schedule: The schedule.
        steps: The number of steps; None is the schedule's length plus a tenth, or 1000 without a length.
        width: The number of characters, at most 1000 and at most the number of steps.

    Raises:
        TypeError: If a number is not an integer.
        ValueError: If it is out of range.

    Examples:
        >>> from lrcore import schedules
        >>> print(schedules.Linear(0.0, 1.0, steps=8).then(0.5).preview(steps=12))
        ▁▂▃▄▅▆▇█▅▅▅▅  0 … 11: 0 → 0.5, largest 0.875
    """
    width = check_count("preview: width", width, least=1, most=_WIDEST)
    count = shown_steps("preview", [schedule], steps)
    at, values = _sampled(schedule, count)
    values = np.nan_to_num(values, posinf=sys.float_info.max)
    heights = np.full(min(width, count), -np.inf)
    np.maximum.at(heights, at * len(heights) // count, values)
    least, largest = float(values.min()), float(values.max())
    # Smaller differences are not visible in the numbers next to the line.
    base = least if least < 0.0 or largest / 2.0 < least < 0.999 * largest else 0.0
    shares = (heights - base) / ((largest - base) or 1.0)
    line = "".join(BLOCKS[min(int(share * len(BLOCKS)), len(BLOCKS) - 1)] for share in shares.tolist())
    drawn_from = f", drawn from {base:.4g}" if base else ""
    return f"{line}  {_summary(values, count)}{drawn_from}"


def to_html(schedule: Schedule) -> str:
    """Return a schedule's repr, curve, and first and last value, for notebooks."""
    count = shown_steps("preview", [schedule], None)
    at, values = _sampled(schedule, count)
    heights = np.interp(np.linspace(0, count - 1, _SEGMENTS), at, np.nan_to_num(values, posinf=sys.float_info.max))
    picture = html_curve(([0.0] * 2, "none"), (heights.tolist(), "#1f77b4"))
    return f"{html_text(_cut(repr(schedule)))}<div>{picture}</div>{html_text(_summary(values, count))}"


def _summary(values: Floats, steps: int) -> str:
    return f"0 … {steps - 1}: {values[0]:.4g} → {values[-1]:.4g}, largest {values.max():.4g}"


def to_csv(schedule: Schedule, path_or_stream: str | os.PathLike[str] | TextStream, steps: SupportsIndex) -> None:
    """Write the values of the first steps as CSV, with enough digits to read back the same numbers.

    Args:
        schedule: The schedule.
        path_or_stream: The path of a file, or a text stream.
        steps: The number of steps.

    Raises:
        OSError: If the file can't be written.
        TypeError: If ``steps`` is not an integer.
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
    if isinstance(path_or_stream, str) or not hasattr(path_or_stream, "write"):
        with Path(path_or_stream).open("w", encoding="utf-8", newline="\n") as stream:
            to_csv(schedule, stream, count)
        return
    path_or_stream.write("step,value\n")
    for begin in range(0, count, _TILE):
        at = range(begin, min(begin + _TILE, count))
        lines = zip(at, schedule.values(at).tolist(), strict=True)
        path_or_stream.write("".join(f"{step},{value!r}\n" for step, value in lines))


def phases(schedule: Schedule, steps: int) -> list[tuple[str, int]]:
    """Return the phases that begin before a step, in order, without those of which there are too many."""
    begun = [(name, max(math.ceil(at), 0)) for name, at in islice(schedule._phases(), _MOST_PHASES)]
    first = {at: name for name, at in reversed(begun) if at < steps}
    kinds = Counter(name.rstrip(" 0123456789") for name in first.values())
    return [(first[at], at) for at in sorted(first) if kinds[first[at].rstrip(" 0123456789")] <= _MOST_MARKED]


def _named(given: Iterable[Any]) -> Iterator[tuple[str, Schedule]]:
    for value in given:
        if isinstance(value, Mapping):
            yield from ((str(name), as_schedule(f"plot: {name}", part)) for name, part in value.items())
        else:
            yield "", as_schedule("plot", value)


def shown_steps(where: str, schedules: Sequence[Schedule], steps: SupportsIndex | None) -> int:
    """Return the number of steps that are shown."""
    if steps is not None:
        return check_count(f"{where}: steps", steps, least=1, most=EXACT)
    length = max(schedule.length or 0 for schedule in schedules)
    return min(length + -(-length // 10), EXACT) or STEPS


def _sampled(schedule: Schedule, steps: int) -> tuple[Steps, Floats]:
    """Return the first steps, or a sample if there are many, and the values there."""
    if steps <= _MOST_EVALUATED:
        at = np.arange(steps)
    else:
        begins = np.array([begin for _, begin in phases(schedule, steps)], np.int64)
        even = np.linspace(0, steps - 1, _MOST_EVALUATED).astype(np.int64)
        at = np.unique(np.concatenate([even, begins, np.maximum(begins - 1, 0)]))
    return at, schedule.values(at)


def _thinned(at: Steps, values: Floats) -> tuple[Steps, Floats]:
    """Return the points of a curve that looks the same: each segment's ends, minimum and maximum."""
    size = -(-len(at) // _SEGMENTS)
    if size <= 4:
        return at, values
    kept: list[int] = []
    for begin in range(0, len(at), size):
        part = values[begin : begin + size]
        kept += (begin, begin + int(part.argmin()), begin + int(part.argmax()), begin + len(part) - 1)
    chosen = np.unique(kept)
    return at[chosen], values[chosen]


def _mark(ax: Axes, begins: Sequence[tuple[str, int]], steps: int) -> None:
    """Draw a line where each phase begins, with its name at the top, in a row that has room."""
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


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"
