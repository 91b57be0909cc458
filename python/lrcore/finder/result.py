"""The result of a range test: its losses, the recommended learning rate, a table and a plot."""

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
# The edge is divided by this margin, since later steps may meet more curvature than the test did. It is the middle of
# the values that did well on five problems: a smaller margin is too close to the edge for convolutions, a
# larger one too far from it for a network that predicts characters.
MARGIN = 2.4


class Recommendation(NamedTuple):
    """The recommendation of a range test.

    Attributes:
        lr: The learning rate to start with, or None if the curve shows none.
        confidence: ``"high"``, ``"medium"``, ``"low"`` or ``"none"``.
        reason: Why this learning rate, or why none and what to try.
    """

    lr: float | None
    confidence: str
    reason: str

    def __float__(self) -> float:
        """Return the learning rate.

        Raises:
            ValueError: If there is none.
        """
        if self.lr is None:
            raise ValueError(str(self))
        return self.lr

    def __str__(self) -> str:
        """Return the recommendation on one line."""
        if self.lr is None:
            return f"no recommendation: {self.reason}"
        return f"{self.lr:.3g} (confidence {self.confidence}): {self.reason}"


@dataclass(frozen=True, repr=False)
class RangeTest:
    """The losses of a range test, and the learning rates that they suggest.

    Attributes:
        lrs: The learning rates, of the first group.
        losses: The loss before the step at each; the mean if there were repeats.
        spreads: The standard deviation over repeats; empty without.
        stopped: Why the test ended: ``"end"``, ``"diverged"``, ``"nan"``, ``"batches"``, or ``"left"`` by the loop.
        smoothing: The decay of the moving average.
        momentum: The momentum of SGD, 0 without; None for adaptive optimizers, and where it is unknown.
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    spreads: tuple[float, ...] = ()
    stopped: str = "end"
    smoothing: float = 0.9
    momentum: float | None = None

    def __post_init__(self) -> None:
        """Replace every NaN by ``math.nan``, since tuples compare by identity: a result read back equals this one."""
        for name in ("losses", "spreads"):
            object.__setattr__(self, name, tuple(math.nan if x != x else x for x in getattr(self, name)))

    @cached_property
    def smoothed(self) -> Floats:
        """The debiased moving average of the finite losses."""
        return curve.smooth(self._finite[1].tolist(), self.smoothing)

    @cached_property
    def _finite(self) -> tuple[Floats, Floats]:
        lrs, losses = np.array(self.lrs, np.float64), np.array(self.losses, np.float64)
        finite = np.isfinite(losses)
        return lrs[finite], losses[finite]

    @cached_property
    def _centered(self) -> Floats:
        return curve.centered(curve.clipped(self._finite[1]), self.smoothing)

    @cached_property
    def suggestions(self) -> dict[str, Suggestion]:
        """The learning rates that stand out, by name: those of the five that the curve shows."""
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
        """The index of the minimum."""
        return int(np.argmin(self._finite[1] if self._is_smooth else self._centered))

    @cached_property
    def _edge(self) -> curve.Edge | None:
        lrs, raw = self._finite
        return curve.find_edge(lrs, raw, self._least, self.momentum, noiseless=self._is_smooth, diverged=self._diverged)

    def suggest(self) -> Recommendation:
        """Return one learning rate to start with, the confidence in it, and why; or why there is none.

        For SGD it is ``safe``: the edge of stability limits its steps, and larger steps are better up to the edge.

        Adaptive optimizers such as Adam have no such edge. Their steps are as long as the learning rate, so the loss
        keeps falling at learning rates at which it will not converge. For them, and for unknown optimizers, it is the
        geometric mean of ``steepest`` and ``safe``, at most 1.5 times ``steepest`` and at most ``safe``.

        The confidence is high if ``safe`` is 1 to 30 times ``steepest`` and the loss diverged; with momentum and losses
        without noise, only if the last steps agree on the edge.
        """
        refusal = self._refusal()
        if refusal is not None:
            return Recommendation(None, "none", refusal)
        found = self.suggestions
        most = 1.5 * found["steepest"].lr
        if "safe" not in found:
            third = found["minimum / 10"].lr * 10.0 / 3.0
            lr, why = (third, "a third of where the loss is least") if third < most else (most, "1.5 times steepest")
            return Recommendation(lr, "low", f"{why}; the test ended before the edge of stability")
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
        """Return why there is no recommendation, or None if there is one."""
        lrs, raw = self._finite
        if len(lrs) < 8:
            if self._diverged:
                return (
                    f"the loss exploded within {counted(len(self.lrs), 'step')}; try start={self.lrs[0] / 1000.0:.1g}"
                )
            return f"a curve needs 8 losses, got {len(lrs)}; try steps=100"
        lower = f"try start={lrs[0] / 1000.0:.1g}"
        if (raw == raw[0]).all():
            return (
                f"the loss is {raw[0]:.6g} at every learning rate, to the last bit: it is not computed from the "
                "weights that the optimizer updates"
            )
        if curve.is_flat(curve.clipped(raw), self.smoothing):
            if self._diverged or raw[-1] > raw[0] + 0.5 * abs(raw[0]):
                return f"the loss never falls, and explodes below {lrs[-1]:.2g}; {lower}, unless it is at its minimum"
            end = f"try end={lrs[-1] * 1000.0:.1g}, or larger batches"
            return f"the loss is flat from {lrs[0]:.2g} to {lrs[-1]:.2g}; {end}"
        if not self._diverged and curve.still_falls(self._centered):
            return f"the loss still falls at {lrs[-1]:.2g}, where the test ended; try end={lrs[-1] * 100.0:.1g}"
        if self._least < 3:
            return f"the loss grows from the first learning rates on; {lower}"
        if not {"steepest", "minimum / 10"} <= self.suggestions.keys():
            return "the loss hardly falls; try more steps, or larger batches"
        return None

    def table(self) -> str:
        """Return the suggestions as a table."""
        rows = [f"{one.name:14} {one.lr:10.3g}  {one.reason}" for one in self.suggestions.values()]
        return "\n".join([f"{'suggestion':14} {'lr':>10}  reason", *rows, "", f"recommended: {self.suggest()}"])

    def __str__(self) -> str:
        """Return the range of learning rates, why the test ended, and the table."""
        if not self.lrs:
            return f"no learning rates\n{self.table()}"
        ended = {
            "end": "all were tried", "diverged": "the loss diverged", "nan": "the loss was not finite",
            "batches": "there were no more batches", "left": "the loop ended early",
        }  # fmt: skip
        return f"{self._extent()}; {ended.get(self.stopped, self.stopped)}\n{self.table()}"

    def _extent(self) -> str:
        if not self.lrs:
            return "no learning rates"
        return f"{counted(len(self.lrs), 'learning rate')} from {self.lrs[0]:.2g} to {self.lrs[-1]:.2g}"

    def __repr__(self) -> str:
        """Return one line."""
        lr = self.suggest().lr
        recommended = "no recommendation" if lr is None else f"recommended {lr:.3g}"
        return f"<RangeTest: {self._extent()}, stopped: {self.stopped}, {recommended}>"

    def _repr_html_(self) -> str:
        """Return the curve with the recommendation marked, and the table, for notebooks."""
        rows = [[one.name, f"{one.lr:.3g}", one.reason] for one in self.suggestions.values()]
        recommended = self.suggest()
        lrs, losses = self._finite
        mark = None
        if recommended.lr is not None and lrs[-1] > lrs[0] > 0.0:
            mark = math.log(recommended.lr / lrs[0]) / math.log(lrs[-1] / lrs[0])
        # Clipped, since a diverging tail would flatten the rest.
        curves = [(curve.clipped(losses).tolist(), "#bbb"), (self._centered.tolist(), "#1f77b4")] if len(losses) else []
        picture = html_curve(*curves, mark=mark)
        table = html_table(["suggestion", "lr", "reason"], rows)
        return f"{html_text(self._extent())}<div>{picture}</div>{table}{html_text(f'recommended: {recommended}')}"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the losses, raw and smoothed, over the learning rates, with each suggestion marked.

        Args:
            ax: The axes to draw on; None creates a figure.

        Returns:
            The axes.

        Raises:
            ImportError: If matplotlib is not installed.
            TypeError: If ``ax`` is not an axes object.
            ValueError: If no loss is finite.
        """
        lrs, losses = self._finite
        if not losses.size:
            raise ValueError("nothing to draw: no loss is finite")
        if ax is None:
            ax = matplotlib("matplotlib.pyplot").subplots(figsize=(8, 4.5), layout="constrained")[1]
        elif not hasattr(ax, "axvline"):
            raise TypeError(
                f"ax must be matplotlib axes, got {brief(ax)}; to write a file: result.plot().figure.savefig(file)"
            )
        ax.plot(lrs, losses, color="0.75", linewidth=1, label="loss")
        ax.plot(lrs, self._centered, color="C0", linewidth=2, label="smoothed")
        if self.spreads:
            spread = np.array(self.spreads)[: len(lrs)]
            ax.fill_between(lrs, losses - spread, losses + spread, color="0.9", label="spread of repeats")
        styles = ((0, (1, 1)), (0, (4, 2)), (0, (1, 3)), "dashdot", (0, (6, 1)))
        for i, (one, style) in enumerate(zip(self.suggestions.values(), styles, strict=False), start=1):
            ax.axvline(one.lr, color=f"C{i}", linestyle=style, linewidth=1.5, label=f"{one.name}: {one.lr:.2g}")
        recommended = self.suggest()
        if recommended.lr is not None:
            ax.axvline(recommended.lr, color="black", linewidth=1.5, label=f"recommended: {recommended.lr:.2g}")
        least, first = float(np.min(losses)), float(losses[0])
        top = first + 0.6 * max(first - least, 1e-12)
        ax.set_ylim(least - 0.05 * (top - least), top)
        ax.set(xscale="log", xlabel="learning rate", ylabel="loss")
        ax.legend(fontsize="small", loc="best")
        return ax

    def to_json(self) -> str:
        """Return JSON with the version of its format; NaN is null and infinities are strings."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("losses", "spreads"):
            values[name] = [None if math.isnan(x) else x if math.isfinite(x) else str(x) for x in values[name]]
        return json.dumps({"range_test": VERSION, **values}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> RangeTest:
        """Return the range test that :meth:`to_json` wrote.

        Raises:
            ValueError: If the text is not JSON of a range test, or of another version.
        """
        try:
            given = json.loads(text)
        except ValueError as error:
            raise ValueError(f"text must be JSON of a range test: {error}") from None
        names = {field.name for field in fields(cls)}
        if not isinstance(given, dict) or given.keys() != names | {"range_test"}:
            raise ValueError(f"text must be a JSON object of range_test, {', '.join(sorted(names))}")
        if (version := given.pop("range_test")) != VERSION:
            raise ValueError(f"range_test must be version {VERSION}, got {brief(version)}")
        for name in ("lrs", "losses", "spreads"):
            given[name] = tuple(math.nan if value is None else float(value) for value in given[name])
        return cls(**given)
