"""What a range test found."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lrcore._messages import brief
from lrcore._optional import matplotlib
from lrcore._text import counted, html_curve, html_table, html_text
from lrcore.finder import curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lrcore.finder.curve import Floats, Suggestion

VERSION = 1
# At the edge divided by this a rate is stable also where later steps meet more curvature than the test did. It is in
# the middle of those that did well in benches/range_tests.py: less is too near to the edge for convolutions, more too
# far from it for a network that predicts characters.
MARGIN = 2.4


class Recommendation(NamedTuple):
    """What a range test comes to.

    Attributes:
        lr: The rate to begin with, or None if the curve says none.
        confidence: ``"high"``, ``"medium"``, ``"low"``, or ``"none"``.
        reason: Why this rate, or why none and what to try.
    """

    lr: float | None
    confidence: str
    reason: str

    def __float__(self) -> float:
        """Return the rate.

        Raises:
            ValueError: If there is none.
        """
        if self.lr is None:
            raise ValueError(str(self))
        return self.lr

    def __str__(self) -> str:
        """Return all in a line."""
        if self.lr is None:
            return f"no suggestion: {self.reason}"
        return f"{self.lr:.3g} (confidence {self.confidence}): {self.reason}"


@dataclass(frozen=True, repr=False)
class RangeTest:
    """The losses of a range test, and the rates that they suggest.

    Attributes:
        lrs: The rates that were tried, of the first group.
        losses: The loss at each, before the step with that rate; of several repeats the mean.
        spreads: The standard deviation over repeats, empty of a single one.
        stopped: Why it ended: ``"end"``, ``"diverged"``, ``"nan"``, ``"batches"``, or ``"left"`` by the loop.
        smoothing: The share of the running average that is kept at each loss.
        momentum: That of the optimizer at the test where its steps are as large as gradients are, 0 without any; None
            for rules that divide by what gradients come to, and where it is not known.
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    spreads: tuple[float, ...] = ()
    stopped: str = "end"
    smoothing: float = 0.9
    momentum: float | None = None

    def __post_init__(self) -> None:
        """Have one NaN for all, so that a result with one is equal to itself read back."""
        for name in ("losses", "spreads"):
            object.__setattr__(self, name, tuple(math.nan if x != x else x for x in getattr(self, name)))

    # Curves

    @cached_property
    def smoothed(self) -> Floats:
        """The running average of the losses, debiased exactly."""
        return curve.smooth(self._finite[1].tolist(), self.smoothing)

    @cached_property
    def _finite(self) -> tuple[Floats, Floats]:
        lrs, losses = np.array(self.lrs, np.float64), np.array(self.losses, np.float64)
        finite = np.isfinite(losses)
        return lrs[finite], losses[finite]

    @cached_property
    def _centered(self) -> Floats:
        return curve.centered(curve.capped(self._finite[1]), self.smoothing)

    # Suggestions

    @cached_property
    def suggestions(self) -> dict[str, Suggestion]:
        """The rates that stand out, each with its reason, by name; fewer where the curve does not show one."""
        lrs, _ = self._finite
        if len(lrs) < 2:
            return {}
        losses, least = self._centered, self._least
        found = [
            curve.steepest(lrs, losses, least),
            curve.valley(lrs, losses),
            curve.slide(lrs, losses),
            curve.minimum_over_ten(lrs, least),
            curve.safe(self._edge, MARGIN),
        ]
        return {one.name: one for one in found if one is not None}

    @property
    def _diverged(self) -> bool:
        return self.stopped in ("diverged", "nan")

    @cached_property
    def _is_smooth(self) -> bool:
        return curve.is_smooth(self._finite[1])

    @cached_property
    def _least(self) -> int:
        """Where the loss is least."""
        return int(np.argmin(self._finite[1] if self._is_smooth else self._centered))

    @cached_property
    def _edge(self) -> curve.Edge | None:
        lrs, raw = self._finite
        return curve.edge(lrs, raw, self._least, self.momentum, smooth=self._is_smooth, diverged=self._diverged)

    def suggest(self) -> Recommendation:
        """Return one rate to begin with, how sure that is, and why; or why there is none.

        For SGD it is ``safe``: the edge of stability limits its steps, and as far as that they gain with the rate.

        Rules that divide by what gradients come to, such as Adam, have no such edge: their steps are as long as the
        rate, so that the loss goes on falling at rates at which it will not settle. For them, and where the rule is not
        known, it is the geometric mean of ``steepest`` and ``safe``, at most 1.5 times ``steepest``, and at most
        ``safe``.

        The confidence is high where these two lie within a factor of 30, and the test went until the loss diverged;
        with momentum, for losses without noise, only where the last steps agree on the edge.
        """
        refusal = self._refusal()
        if refusal is not None:
            return Recommendation(None, "none", refusal)
        found = self.suggestions
        if "steepest" not in found or "minimum / 10" not in found:
            return Recommendation(None, "none", "the loss falls nowhere for long; try more steps, or larger batches")
        most = 1.5 * found["steepest"].lr
        if "safe" not in found:
            third = found["minimum / 10"].lr * 10.0 / 3.0
            lr, why = (third, "a third of the rate of the least loss") if third < most else (most, "1.5 times steepest")
            return Recommendation(lr, "low", f"{why}; the test did not come to an edge")
        safe = found["safe"].lr
        if self.momentum is not None:
            return Recommendation(safe, self._confidence(), f"safe: {found['safe'].reason}")
        between = f"steepest ({found['steepest'].lr:.2g}) and safe ({safe:.2g})"
        lr, why = min(
            (math.sqrt(found["steepest"].lr * safe), f"between {between}"),
            (most, f"1.5 times steepest, which is below the middle of {between}"),
            (safe, f"safe, which is below the middle of {between}"),
        )
        return Recommendation(lr, self._confidence(), why)

    def _confidence(self) -> str:
        factor = self.suggestions["safe"].lr / self.suggestions["steepest"].lr
        is_sure = self._edge is not None and self._edge.is_sure
        if 1.0 <= factor <= 30.0 and self._diverged and is_sure:
            return "high"
        return "medium" if factor <= 300.0 else "low"

    def _refusal(self) -> str | None:
        """Return why the curve suggests nothing, or None if it does."""
        lrs, raw = self._finite
        if len(lrs) < 8:
            if self._diverged:
                return (
                    f"the loss exploded within {counted(len(self.lrs), 'step')}; try start={self.lrs[0] / 1000.0:.1g}"
                )
            there = "is 1 loss" if len(lrs) == 1 else f"are {len(lrs)} losses"
            return f"there {there}, and a curve needs 8; try steps=100"
        lower = f"try start={lrs[0] / 1000.0:.1g}"
        if (raw == raw[0]).all():
            return (
                f"the loss is {raw[0]:.6g} at every learning rate, to the last bit: it is not computed from the "
                "weights that the optimizer moves"
            )
        if curve.is_flat(curve.capped(raw), self.smoothing):
            if self._diverged or raw[-1] > raw[0] + 0.5 * abs(raw[0]):
                return f"the loss falls nowhere, and explodes before {lrs[-1]:.2g}; {lower}, unless it is at its least"
            end = f"try end={lrs[-1] * 1000.0:.1g}, or larger batches"
            return f"the loss is flat from {lrs[0]:.2g} to {lrs[-1]:.2g}; {end}"
        if not self._diverged and curve.still_falls(self._centered):
            return f"the loss still falls at {lrs[-1]:.2g}, where the test ended; try end={lrs[-1] * 100.0:.1g}"
        if self._least < 3:
            return f"the loss grows from the first rates on; {lower}"
        return None

    # Other forms

    def table(self) -> str:
        """Return the suggestions as a table."""
        rows = [f"{one.name:14} {one.lr:10.3g}  {one.reason}" for one in self.suggestions.values()]
        return "\n".join([f"{'suggestion':14} {'rate':>10}  why", *rows, "", f"suggested: {self.suggest()}"])

    def __str__(self) -> str:
        """Return the table, and what was tried."""
        if not self.lrs:
            return f"no rates\n{self.table()}"
        ended = {
            "end": "it went to the end", "diverged": "the loss had diverged", "nan": "the loss was no number",
            "batches": "there were no more batches", "left": "the loop was left",
        }  # fmt: skip
        why = ended.get(self.stopped, self.stopped)
        return f"{self._extent()}; {why}\n{self.table()}"

    def _extent(self) -> str:
        if not self.lrs:
            return "no rates"
        return f"{counted(len(self.lrs), 'rate')} from {self.lrs[0]:.2g} to {self.lrs[-1]:.2g}"

    def __repr__(self) -> str:
        """Return a line: the losses are in :attr:`losses`, the whole in :meth:`to_json`."""
        lr = self.suggest().lr
        suggested = "no suggestion" if lr is None else f"suggested {lr:.3g}"
        return f"<RangeTest: {self._extent()}, stopped: {self.stopped}, {suggested}>"

    def _repr_html_(self) -> str:
        """Return the curve with the suggested rate marked, and the table, for notebooks."""
        rows = [[one.name, f"{one.lr:.3g}", one.reason] for one in self.suggestions.values()]
        advice = self.suggest()
        lrs, losses = self._finite
        mark = None
        if advice.lr is not None and lrs[-1] > lrs[0] > 0.0:
            mark = math.log(advice.lr / lrs[0]) / math.log(lrs[-1] / lrs[0])
        # What explodes at the end would flatten all that comes before it.
        curves = [(curve.capped(losses).tolist(), "#bbb"), (self._centered.tolist(), "#1f77b4")] if len(losses) else []
        picture = html_curve(*curves, mark=mark)
        table = html_table(["suggestion", "rate", "why"], rows)
        return f"{html_text(self._extent())}<div>{picture}</div>{table}{html_text(f'suggested: {advice}')}"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the losses, raw and smoothed, over the rates, with each suggestion marked.

        Args:
            ax: Where to draw; None makes a figure.

        Returns:
            The axes.

        Raises:
            ImportError: If matplotlib is not installed.
            TypeError: If ``ax`` are no axes.
            ValueError: If no loss is finite.
        """
        return _draw(self, ax)

    def to_json(self) -> str:
        """Return it as JSON, with the version of the format; NaN is null, and an infinity a string."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("losses", "spreads"):
            values[name] = [None if math.isnan(x) else x if math.isfinite(x) else str(x) for x in values[name]]
        return json.dumps({"range_test": VERSION, **values}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> RangeTest:
        """Return what :meth:`to_json` wrote.

        Raises:
            ValueError: If it is no JSON of a range test, or of another version.
        """
        try:
            given = json.loads(text)
        except ValueError as error:
            raise ValueError(f"this is no JSON: {error}") from None
        names = {field.name for field in fields(cls)}
        if not isinstance(given, dict) or given.keys() != names | {"range_test"}:
            raise ValueError(f"a range test must be a dict of range_test, {', '.join(sorted(names))}")
        if given.pop("range_test") != VERSION:
            raise ValueError(f"the range test is of another version; known is {VERSION}")
        for name in ("lrs", "losses", "spreads"):
            given[name] = tuple(math.nan if value is None else float(value) for value in given[name])
        return cls(**given)


def _draw(result: RangeTest, ax: Axes | None) -> Axes:
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
