"""Plots of a sweep, with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lrcore._messages import brief
from lrcore._optional import matplotlib
from lrcore._text import format_value
from lrcore.sweeps.sensitivity import Sensitivity, best_of, by_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from lrcore.sweeps.summary import SettingSummary

# The most cells with numbers, and the most labels of an axis.
_WRITTEN = 150
_LABELS = 16
# The total length of labels that fit side by side.
_LETTERS = 44
# The ratio of values from which on colours are logarithmic.
_WIDE = 20.0


def draw_sensitivity(found: Sensitivity, log: bool | None, ax: Axes | None) -> Axes:  # noqa: FBT001  # of Results
    """Draw the sensitivity to a hyperparameter."""
    ax = ax if ax is not None else matplotlib("matplotlib.pyplot").subplots(layout="constrained")[1]
    numeric = found.is_numeric
    values = [point.value if numeric else i for i, point in enumerate(found.points)]
    if log is None:
        log = numeric and min(values) > 0 and max(values) / min(values) >= 10
    if log:
        ax.set_xscale("log")
    finished = [(x, point.best) for x, point in zip(values, found.points, strict=True) if point.best is not None]
    xs, means, spread = zip(*((x, best.mean, best.std) for x, best in finished), strict=True)
    ax.errorbar(xs, means, yerr=spread, marker="o", capsize=3, label="mean, ± std over seeds")
    _shade(ax, found, values, log=log)
    _mark_failed(ax, [x for x, point in zip(values, found.points, strict=True) if point.best is None])
    if not numeric:
        ax.set_xticks(values, [format_value(point.value) for point in found.points])
    elif len(values) <= 6:
        ax.set_xticks(values, [format_value(value) for value in values], minor=False)
        ax.minorticks_off()
    ax.set_xlabel(found.name)
    ax.set_ylabel("objective, the others at their best" if found.points[0].others > 1 else "objective")
    ax.grid(alpha=0.3)
    ax.legend(fontsize="small")
    return ax


def _shade(ax: Axes, found: Sensitivity, values: Sequence[Any], *, log: bool) -> None:
    """Shade the range of good values; a single value, and each that is not a number, gets its own band."""
    label: str | None = f"within {found.within:.3g} of the best"
    inside = [x for x, point in zip(values, found.points, strict=True) if point.value in found.good]
    if len(inside) == 1:
        label = f"{label}: {format_value(found.low)} alone"
    elif found.is_numeric:
        label = f"{label}: {format_value(found.low)} to {format_value(found.high)}"
    if found.is_numeric and len(inside) > 1:
        bands = [(inside[0], inside[-1])]
    else:
        width = _gap(values, log=log) / 8 if found.is_numeric else 0.4
        is_log = found.is_numeric and log
        bands = [(x / 10**width, x * 10**width) if is_log else (x - width, x + width) for x in inside]
    for band in bands:
        ax.axvspan(*band, color="C2", alpha=0.15, lw=0, label=label)
        label = None  # the legend has one entry


def _gap(values: Sequence[float], *, log: bool) -> float:
    """Return the least distance between two values, on the scale of the axis."""
    gaps = np.diff(np.log10(values) if log else np.asarray(values, np.float64))
    return float(gaps.min()) if len(gaps) else 0.5


def _mark_failed(ax: Axes, xs: Sequence[float]) -> None:
    """Mark values without a finished setting at the bottom."""
    if xs:
        at: Any = ax.get_xaxis_transform()
        zeros = [0.03] * len(xs)
        ax.plot(xs, zeros, "x", color="C3", transform=at, label="a seed diverged or failed in every setting")


def draw_heatmap(settings: Sequence[SettingSummary], x: str, y: str, ax: Axes | None, *, minimize: bool) -> Axes:
    """Draw the objective over two hyperparameters."""
    if x == y:
        raise ValueError(f"x and y must be two different names, got {brief(x)} twice")
    columns = [value for value, _ in by_value(settings, x)]
    rows = by_value(settings, y)
    means = np.full((len(rows), len(columns)), np.nan)
    for i, (_, of_row) in enumerate(rows):
        for value, of_cell in by_value(of_row, x):
            if (best := best_of(of_cell)) is not None:
                means[i, columns.index(value)] = best.mean
    if np.isnan(means).all():
        raise ValueError(f"{x}, {y}: no setting has finished with all its seeds")
    if ax is None:
        size = (max(4.8, 0.75 * len(columns) + 2.0), max(3.2, 0.5 * len(rows) + 1.6))
        ax = matplotlib("matplotlib.pyplot").subplots(figsize=size, layout="constrained")[1]
    mesh = _mesh(ax, means, minimize=minimize)
    for axis, values in ((ax.xaxis, columns), (ax.yaxis, [value for value, _ in rows])):
        every = -(-len(values) // _LABELS)
        axis.set_ticks(range(0, len(values), every), [format_value(value) for value in values[::every]])
    if sum(len(label.get_text()) + 1 for label in ax.get_xticklabels()) > _LETTERS:
        ax.tick_params(axis="x", labelrotation=45)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    rest = len(settings) > means.size
    ax.figure.colorbar(mesh, ax=ax, label="mean objective" + (", the rest at their best" if rest else ""))
    return ax


def _mesh(ax: Axes, means: np.ndarray[Any, Any], *, minimize: bool) -> Any:
    """Draw cells with their numbers; those without a finished setting are crossed out."""
    colors = matplotlib("matplotlib.colors")
    low, high = float(np.nanmin(means)), float(np.nanmax(means))
    norm = colors.LogNorm(low, high) if low > 0 and high > _WIDE * low else colors.Normalize(low, high)
    # Better is lighter.
    colormap = matplotlib("matplotlib").colormaps["viridis_r" if minimize else "viridis"].with_extremes(bad="0.85")
    mesh = ax.imshow(np.ma.masked_invalid(means), cmap=colormap, norm=norm, origin="lower", aspect="auto")
    if means.size <= _WRITTEN:
        for (i, j), mean in np.ndenumerate(means):
            red, green, blue, _ = colormap(norm(mean)) if np.isfinite(mean) else (0.85, 0.85, 0.85, 1.0)
            color = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
            ax.text(
                j, i, f"{mean:.3g}" if np.isfinite(mean) else "×", ha="center", va="center", color=color, fontsize=8
            )
    return mesh
