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
from lrcore._ranges import POSITIVE
from lrcore._text import counted, html_curve, html_table, html_text
from lrcore.finder import curve
from lrcore.finder.short_runs import ShortRun, estimate, multiple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lrcore.finder.curve import Floats, Suggestion

VERSION = 2
# The edge is divided by this margin, since later steps may meet more curvature than the test did. It is the middle of
# the values that did well on five problems: a smaller margin is too close to the edge for convolutions, a
# larger one too far from it for a network that predicts characters.
MARGIN = 2.4


# The relation of the best learning rates of long and short runs for unknown optimizers; see Declaration.long_run.
LONG_RUN = (0.0, -0.2)
_LEAST = 8  # losses of a curve
FEW = 10  # losses at the first learning rates, which train little
TOLERANCES = (0.05, 0.2)
# Above this error of all differences between the best run and others, as a share of the decrease, noise decides.
NOISY = 0.1
# Below this share of batches on which the loss falls it may fall by chance: of 15 batches one in 50 times.
CLEAR = 0.75


class _Certainty(NamedTuple):
    """How good recommendations of one kind were on the problems of benches/range_tests that constants are chosen on.

    Attributes:
        within: How many came within each of the tolerances of the best loss.
        factor: Four of five of the best learning rates were at most this factor away.
    """

    within: tuple[float, float]
    factor: float


_SURE = _Certainty((0.73, 0.89), 4.0)
_AT_EDGE = _Certainty((0.65, 0.8), 6.0)
_AMID_NOISE = _Certainty((0.36, 0.56), 10.0)
_CURVE = _Certainty((0.35, 0.55), 10.0)
_UNSURE_CURVE = _Certainty((0.2, 0.4), 20.0)


class Recommendation(NamedTuple):
    """The recommendation of a range test.

    Attributes:
        lr: The learning rate to start with, or None if the test shows none.
        interval: The learning rates between which the best one lies with a probability of 80 %, or None.
        within: The probabilities that the loss at the end of the run is at most 5 % and at most 20 % above that of the
            best learning rate; 0 without a recommendation. :meth:`probability` has them for any tolerance.
        reason: Why this learning rate, or why none and what to try.
    """

    lr: float | None
    interval: tuple[float, float] | None
    within: tuple[float, float]
    reason: str

    def probability(self, tolerance: float = 0.05) -> float:
        """Return the probability that the loss of the run is at most this share above that of the best learning rate.

        It is known for 5 % and 20 %; in between and beyond, log-odds are linear in the logarithm of the tolerance.

        Raises:
            TypeError: If the tolerance is not a number.
            ValueError: If it is not above 0.

        Examples:
            >>> Recommendation(0.1, (0.03, 0.3), (0.5, 0.8), "").probability(0.2)
            0.8
        """
        tolerance = POSITIVE.check("tolerance", tolerance)
        if self.lr is None:
            return 0.0
        if tolerance in TOLERANCES:
            return self.within[TOLERANCES.index(tolerance)]
        low, high = (math.log(share / (1.0 - share)) for share in self.within)
        slope = (high - low) / math.log(TOLERANCES[1] / TOLERANCES[0])
        return 1.0 / (1.0 + math.exp(-low - slope * math.log(tolerance / TOLERANCES[0])))

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
        if self.lr is None or self.interval is None:
            return f"no recommendation: {self.reason}"
        low, high = self.interval
        likely = f"{100.0 * self.within[0]:.0f} % likely to come within 5 % of the best loss"
        return f"{self.lr:.3g} ({low:.2g} to {high:.2g}; {likely}): {self.reason}"


def _none(reason: str) -> Recommendation:
    return Recommendation(None, None, (0.0, 0.0), reason)


def _certain(certainty: _Certainty, lr: float, reason: str) -> Recommendation:
    interval = lr / certainty.factor, lr * certainty.factor
    return Recommendation(lr, interval, certainty.within, reason)


@dataclass(frozen=True, repr=False)
class RangeTest:
    """The losses of a range test, and the learning rates that they suggest.

    Attributes:
        lrs: The learning rates, of the first group.
        losses: The loss before the step at each; the mean if there were repeats.
        spreads: The standard deviation over repeats; empty without.
        stopped: Why the test ended: ``"end"``, ``"diverged"``, ``"nan"``, ``"batches"``, ``"left"`` by the loop, or
            ``"data"``: the loss of a batch is not finite even before the test.
        smoothing: The decay of the moving average.
        momentum: The momentum of SGD, 0 without; None for adaptive optimizers, and where it is unknown.
        long_run: How the best learning rate of a long run relates to that of a short one, for this optimizer.
        untrained: The losses of the weights before the test on the batches of short runs.
        runs: The short runs.
        run_length: The number of steps of the run to come, or None.
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    spreads: tuple[float, ...] = ()
    stopped: str = "end"
    smoothing: float = 0.9
    momentum: float | None = None
    long_run: tuple[float, float] = LONG_RUN
    untrained: tuple[float, ...] = ()
    runs: tuple[ShortRun, ...] = ()
    run_length: int | None = None

    def __post_init__(self) -> None:
        """Replace every NaN by ``math.nan``, since tuples compare by identity: a result read back equals this one."""
        for name in ("losses", "spreads", "untrained"):
            object.__setattr__(self, name, _with_one_nan(getattr(self, name)))
        object.__setattr__(self, "runs", tuple(map(_comparable, self.runs)))

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

    @property
    def center(self) -> float | None:
        """The learning rate at which short runs begin, a third of the one above which the loss is above the first ones.

        None without learning rates.
        """
        lrs, losses = self._finite
        if not len(lrs):
            return self.lrs[0] if self.lrs else None
        averages, first = self._centered, float(losses[:FEW].mean())
        # The standard error of averages with this decay, from a median of half-normal deviations.
        noise = 1.48 * curve.noise_of(curve.clipped(losses), averages)
        error = noise * math.sqrt((1.0 - self.smoothing) / (1.0 + self.smoothing))
        stable = np.flatnonzero(averages <= first + 2.0 * error)
        return float(lrs[stable[-1] if stable.size else 0]) / 3.0

    def suggest(self) -> Recommendation:
        """Return one learning rate to start with, an interval, the probability that it is as good as the best, and why.

        With short runs it is their best learning rate, an average of those whose losses can't be told from the best,
        times the multiple of a run of ``run_length`` steps.

        Without, it is read off the curve, which is much less certain. For SGD it is ``safe``: the edge of stability
        limits its steps, and larger steps are better up to the edge. For adaptive optimizers, whose steps are as long
        as the learning rate, the loss keeps falling at learning rates at which it will not converge. For them, and for
        unknown optimizers, it is the geometric mean of ``steepest`` and ``safe``, at most 1.5 times ``steepest`` and at
        most ``safe``.

        Probabilities and intervals are frequencies on the problems of ``benches/range_tests``.
        """
        fault = self.fault
        if self.runs and fault is None:
            return self._of_runs()
        refusal = fault or self._refusal()
        if refusal is not None:
            return _none(refusal)
        found = self.suggestions
        most = 1.5 * found["steepest"].lr
        if "safe" not in found:
            third = found["minimum / 10"].lr * 10.0 / 3.0
            lr, why = (third, "a third of where the loss is least") if third < most else (most, "1.5 times steepest")
            return _certain(_UNSURE_CURVE, lr, f"{why}; the test ended before the edge of stability")
        safe = found["safe"].lr
        if self.momentum is not None:
            return _certain(self._of_curve(), safe, f"safe: {found['safe'].reason}")
        between = f"steepest ({found['steepest'].lr:.2g}) and safe ({safe:.2g})"
        lr, why = min(
            (math.sqrt(found["steepest"].lr * safe), f"between {between}"),
            (most, f"1.5 times steepest, which is below the middle of {between}"),
            (safe, f"safe, which is below the middle of {between}"),
        )
        return _certain(self._of_curve(), lr, why)

    def _of_curve(self) -> _Certainty:
        """Return how sure a learning rate is that is read off the curve: its features must be where others are."""
        factor = self.suggestions["safe"].lr / self.suggestions["steepest"].lr
        is_sure = self._edge is not None and self._edge.is_sure
        return _CURVE if 1.0 <= factor <= 30.0 and self._diverged and is_sure else _UNSURE_CURVE

    def _of_runs(self) -> Recommendation:
        """Return the recommendation of the short runs."""
        found = estimate(self.runs, self.untrained)
        if found is None:
            lrs = [run.lr for run in self.runs]
            if all(run.exploded for run in self.runs):
                return _none(f"the loss explodes at every learning rate from {min(lrs):.2g} to {max(lrs):.2g}")
            return _none(
                f"the loss falls in no short run from {min(lrs):.2g} to {max(lrs):.2g}: it is at its minimum, or the "
                "noise of single batches hides the curve: try accumulate=4 or a larger batch"
            )
        factor = multiple(self.long_run, self.run_length)
        length = "of unknown length" if self.run_length is None else f"of {self.run_length:,} steps"
        reason = (
            f"the best of {counted(len(self.runs), 'short run')} is {found.lr:.2g}, multiplied by {factor:.2g} for a "
            f"run {length}"
        )
        certainty = _SURE
        if found.falling < CLEAR or found.error > NOISY:
            certainty = _AMID_NOISE
            reason += "; the noise of single batches hides the curve: accumulate=4 or a larger batch would tell more"
        elif not found.is_inside:
            certainty = _AT_EDGE
            reason += "; the best run was the last one that the budget allowed: try a larger budget"
        return _certain(certainty, found.lr * factor, reason)

    @property
    def fault(self) -> str | None:
        """What is wrong with the data or the loss function, or None."""
        _, raw = self._finite
        if self.stopped == "data":
            return (
                f"the loss of batch {len(self.losses)} is {self.losses[-1]}, also with the weights before the test: "
                "look for values in the data that are not finite"
            )
        if len(raw) >= _LEAST and (raw == raw[0]).all():
            return (
                f"the loss is {raw[0]:.6g} at every learning rate, to the last bit: it is not computed from the "
                "weights that the optimizer updates"
            )
        return None

    def _refusal(self) -> str | None:
        """Return why the curve shows no learning rate, or None if it shows one."""
        lrs, raw = self._finite
        if len(lrs) < _LEAST:
            if self._diverged:
                return (
                    f"the loss exploded within {counted(len(self.lrs), 'step')}; try start={self.lrs[0] / 1000.0:.1g}"
                )
            return f"a curve needs {_LEAST} losses, got {len(lrs)}; try steps=100"
        lower = f"try start={lrs[0] / 1000.0:.1g}"
        if curve.is_noisy(curve.clipped(raw), self.smoothing):
            return "the noise of single batches hides the curve; try accumulate=4 or a larger batch"
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
            "batches": "there were no more batches", "left": "the loop ended early", "data": "a batch has a bad loss",
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
        if recommended.lr is not None and len(lrs) and lrs[-1] > lrs[0] > 0.0:
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
        if recommended.lr is not None and recommended.interval is not None:
            ax.axvspan(*recommended.interval, color="0.5", alpha=0.12, linewidth=0, label="interval of the best")
            ax.axvline(recommended.lr, color="black", linewidth=1.5, label=f"recommended: {recommended.lr:.2g}")
        least, first = float(np.min(losses)), float(losses[0])
        top = first + 0.6 * max(first - least, 1e-12)
        ax.set_ylim(least - 0.05 * (top - least), top)
        ax.set(xscale="log", xlabel="learning rate", ylabel="loss")
        ax.legend(fontsize="small", loc="best")
        return ax

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`to_json` writes, as dicts, lists, strings and numbers."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("losses", "spreads", "untrained"):
            values[name] = list(map(_encoded, values[name]))
        values["runs"] = [
            [lr, steps, list(map(_encoded, losses)), end if end is None or math.isfinite(end) else str(end)]
            for lr, steps, losses, end in self.runs
        ]
        return {"range_test": VERSION, **values}

    def to_json(self) -> str:
        """Return JSON with the version of its format; NaN is null and infinities are strings."""
        return json.dumps(self.to_dict(), allow_nan=False)

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
        for name in ("lrs", "losses", "spreads", "untrained"):
            given[name] = tuple(map(_decoded, given[name]))
        given["long_run"] = tuple(given["long_run"])
        given["runs"] = tuple(
            ShortRun(lr, steps, tuple(map(_decoded, losses)), None if end is None else float(end))
            for lr, steps, losses, end in given["runs"]
        )
        return cls(**given)


def _encoded(x: float) -> float | str | None:
    """Return a number as JSON can have it."""
    return None if math.isnan(x) else x if math.isfinite(x) else str(x)


def _decoded(value: float | str | None) -> float:
    return math.nan if value is None else float(value)


def _with_one_nan(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(math.nan if x != x else x for x in values)


def _comparable(run: ShortRun) -> ShortRun:
    """Return a run that is equal to itself after a copy."""
    end = None if run.validation is None else _with_one_nan((run.validation,))[0]
    return run._replace(losses=_with_one_nan(run.losses), validation=end)
