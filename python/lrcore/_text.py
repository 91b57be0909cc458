"""Formats of results: counts, values, aligned tables, CSV, and HTML for notebooks.

Every optimizer imports this module, so rarely needed modules are imported where they are used.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# The size of a curve in pixels, and the most points that are drawn.
_WIDTH, _HEIGHT, _POINTS = 360, 60, 400


class TextStream(Protocol):
    """An object with a ``write`` for text."""

    def write(self, text: str, /) -> object:
        """Write text."""


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is 1."""
    return f"{count} {noun}{'s' * (count != 1)}"


def format_value(value: Any) -> str:
    """Format a value for tables and labels."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        return f"({', '.join(map(format_value, value))})"
    return str(value)


def aligned(lines: Sequence[Sequence[str]], *, last_left: bool = False) -> Iterator[str]:
    """Yield the lines of a table with right-aligned columns, the last one optionally left-aligned."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if last_left:
        widths[-1] = 0
    for line in lines:
        yield "  ".join(f"{text:>{width}}" for text, width in zip(line, widths, strict=True)).rstrip()


def write_csv(rows: Iterable[Mapping[str, Any]], path_or_stream: str | os.PathLike[str] | TextStream) -> None:
    """Write mappings as CSV: a header with all keys in the order of their first occurrence, and a line for each.

    Floats have enough digits to read the same numbers back; missing values and None are empty.
    """
    import csv
    import io

    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    if isinstance(path_or_stream, str | os.PathLike):
        with open(path_or_stream, "w", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())
    else:
        path_or_stream.write(text.getvalue())


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return an HTML table; the first column is aligned to the left."""
    from html import escape

    def line(tag: str, cells: Sequence[str]) -> str:
        sides = ["left", *["right"] * (len(cells) - 1)]
        columns = zip(cells, sides, strict=True)
        return "".join(f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>' for cell, side in columns)

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{line('th', head)}</tr></thead><tbody>{body}</tbody></table>"


def html_text(text: str) -> str:
    """Return preformatted text."""
    from html import escape

    return f'<pre style="margin:0">{escape(text)}</pre>'


def html_curve(*curves: tuple[Sequence[float], str], mark: float | None = None) -> str:
    """Return curves as an SVG image.

    Args:
        *curves: The values and the colour of each. Values that are not finite are gaps.
        mark: The position of a vertical line, in [0, 1].
    """
    finite = [value for values, _ in curves for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    span = high - low or 1.0
    lines = [] if mark is None else [f'<path d="M{mark * _WIDTH:.1f} 0V{_HEIGHT}" stroke="#888" stroke-dasharray="4"/>']
    for values, color in curves:
        path = _path([(value - low) / span if math.isfinite(value) else math.nan for value in values])
        lines.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 -2 {_WIDTH} {_HEIGHT + 4}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(lines)}</svg>'


def _path(heights: Sequence[float]) -> str:
    """Return the SVG path of heights in [0, 1]; long curves keep the least and the largest of each part."""
    last = max(1, len(heights) - 1)
    size = -(-2 * len(heights) // _POINTS) or 1
    chosen: list[int] = []
    for begin in range(0, len(heights), size):
        part = range(begin, min(begin + size, len(heights)))
        chosen += sorted({min(part, key=heights.__getitem__), max(part, key=heights.__getitem__)})
    pieces, pen = [], "M"
    for at in chosen:
        if math.isnan(heights[at]):
            pen = "M"
            continue
        pieces.append(f"{pen}{at / last * _WIDTH:.1f} {_HEIGHT - heights[at] * _HEIGHT:.1f}")
        pen = "L"
    return "".join(pieces)
