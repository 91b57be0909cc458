"""A range test as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lrcore._messages import brief
from lrcore._optional import matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lrcore.finder.result import RangeTest


def draw(result: RangeTest, ax: Axes | None) -> Axes:
    """Draw the losses over the rates, and mark the suggestions."""
    lrs, losses = result._finite
    if not losses.size:
        raise ValueError("there is nothing to draw: no loss is finite")
    if ax is None:
        ax = matplotlib("matplotlib.pyplot").subplots(figsize=(8, 4.5), layout="constrained")[1]
    elif not hasattr(ax, "axvline"):
        raise TypeError(
            f"ax must be axes of matplotlib, got {brief(ax)}; to write a file: result.plot().figure.savefig(file)"
        )
    ax.plot(lrs, losses, color="0.75", linewidth=1, label="loss")
    ax.plot(lrs, result._centered, color="C0", linewidth=2, label="smoothed")
    if result.spreads:
        spread = np.array(result.spreads)[: len(lrs)]
        ax.fill_between(lrs, losses - spread, losses + spread, color="0.9", label="spread of repeats")
    styles = ((0, (1, 1)), (0, (4, 2)), (0, (1, 3)), "dashdot", (0, (6, 1)))
    for i, (one, style) in enumerate(zip(result.suggestions.values(), styles, strict=False), start=1):
        ax.axvline(one.lr, color=f"C{i}", linestyle=style, linewidth=1.5, label=f"{one.name}: {one.lr:.2g}")
    advice = result.suggest()
    if advice.lr is not None:
        ax.axvline(advice.lr, color="black", linewidth=1.5, label=f"suggested: {advice.lr:.2g}")
    least, first = float(np.min(losses)), float(losses[0])
    top = first + 0.6 * max(first - least, 1e-12)
    ax.set_ylim(least - 0.05 * (top - least), top)
    ax.set(xscale="log", xlabel="learning rate", ylabel="loss")
    ax.legend(fontsize="small", loc="best")
    return ax
