"""A curve of losses over learning rates: smoothing, where it stops, and the rates that stand out in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lrcore._running_average import RunningAverages

if TYPE_CHECKING:
    from collections.abc import Sequence

    Floats = np.ndarray[Any, np.dtype[np.float64]]


class Suggestion(NamedTuple):
    """A rate that stands out in a range test.

    Attributes:
        name: Which: ``"steepest"``, ``"valley"``, ``"slide"``, ``"minimum / 10"`` or ``"safe"``.
        lr: The rate.
        reason: Why it stands out.
    """

    name: str
    lr: float
    reason: str

    def __float__(self) -> float:
        """Return the rate."""
        return self.lr


def smooth(losses: Sequence[float], beta: float) -> Floats:
    """Return the running averages."""
    average, values = RunningAverages(beta, [0.0]), []
    for loss in losses:
        average.add(loss)
        values += average.values
    return np.array(values)


def capped(losses: Floats) -> Floats:
    """Return losses cut off as high above the first ones as the least one lies below.

    So what explodes at the end hides nothing before it where averages are taken.
    """
    first, least = float(np.max(losses[:3])), float(np.min(losses))
    return np.minimum(losses, first + max(first - least, 1e-300))


def centered(losses: Floats, beta: float) -> Floats:
    """Return averages that don't lag: the running ones forward and backward together.

    A running average is late by ``β / (1 − β)`` losses, and with it every rate that is read from it.
    """
    forward, backward = smooth(list(losses), beta), smooth(list(losses[::-1]), beta)[::-1]
    return (forward + backward) / 2.0


def is_smooth(losses: Floats) -> bool:
    """Return whether losses have no noise, as on whole batches: while rates move little they lie on a line."""
    first = losses[: len(losses) // 5]
    fall = float(first[0] - np.min(losses)) if len(first) else 0.0
    return len(first) >= 4 and float(np.median(np.abs(np.diff(first, 2)))) <= 1e-3 * fall


def steepest(lrs: Floats, losses: Floats, least: int) -> Suggestion | None:
    """Return the rate at which the loss falls fastest by the logarithm of the rate, before it is least."""
    first, last = _inner(len(lrs))
    last = min(last, least + 1)
    if last - first < 3:
        return None
    slopes = np.gradient(losses, np.log(lrs))
    at = first + int(np.argmin(slopes[first:last]))
    if slopes[at] >= 0.0:
        return None
    reason = f"the loss falls fastest by the logarithm of the rate: {slopes[at]:.3g} for a factor of e"
    return Suggestion("steepest", float(lrs[at]), reason)


def valley(lrs: Floats, losses: Floats) -> Suggestion | None:
    """Return the rate in the middle of the longest stretch in which losses fall, though not each below the last."""
    length, before = np.ones(len(losses), int), np.full(len(losses), -1)
    for i in range(1, len(losses)):
        lower = np.flatnonzero((losses[:i] > losses[i]) & (length[:i] + 1 > length[i]))
        if lower.size:
            best = lower[np.argmax(length[lower])]
            length[i], before[i] = length[best] + 1, best
    end = int(np.argmax(length))
    begin = end
    while before[begin] >= 0:
        begin = int(before[begin])
    if length[end] < 4:
        return None
    third = (end - begin) / 3.0
    at = begin + int(third) + int(third / 2.0)
    reason = f"the middle of the longest falling stretch, from {lrs[begin]:.2g} to {lrs[end]:.2g}"
    return Suggestion("valley", float(lrs[at]), reason)


def slide(lrs: Floats, losses: Floats, apart: int = 15, threshold: float = 0.005) -> Suggestion | None:
    """Return the rate before the last steep rise: from the end back, where slopes no longer differ."""
    if len(losses) <= apart + 1:
        return None
    slopes = np.gradient(losses)
    right = -1
    left = right - apart
    at = left
    while left >= -len(losses) and abs(slopes[right] - slopes[left]) > threshold:
        at = left
        right, left = right - 1, left - 1
    return Suggestion(
        "slide", float(lrs[at]), f"before it, slopes {apart} rates apart differ by no more than {threshold}"
    )


def minimum_over_ten(lrs: Floats, least: int) -> Suggestion | None:
    """Return a tenth of the rate of the least loss."""
    if least == 0:
        return None
    return Suggestion("minimum / 10", float(lrs[least]) / 10.0, f"a tenth of {lrs[least]:.2g}, where the loss is least")


class Edge(NamedTuple):
    """The largest rate that is stable.

    Attributes:
        lr: The rate.
        reason: How it was found.
        is_sure: Whether nothing speaks against it.
    """

    lr: float
    reason: str
    is_sure: bool


def edge(
    lrs: Floats, losses: Floats, least: int, momentum: float | None, *, smooth: bool, diverged: bool
) -> Edge | None:
    """Return the edge of stability, or None if the test did not come as far.

    Where the loss is least, the step that overshoots most no longer gains. If the curve has no noise, how fast the loss
    grows at the end tells more, since what grows there must first outgrow the rest: with a rate η a mode of curvature L
    grows by |1 − ηL| a step, the loss by its square, and so ``2/L = 2η / (1 + √growth)``. With momentum β a mode has
    ``ηL = (1 + β) + √growth + β/√growth``, and its edge is at ``2(1 + β)/L``.

    Args:
        lrs: The rates.
        losses: The loss at each.
        least: Where it is least, of an average if losses have noise.
        momentum: That of the training; None for rules that divide by what gradients come to.
        smooth: Whether losses have no noise.
        diverged: Whether that ended the test.
    """
    if smooth and momentum:
        # A loss swings, up to the edge: what counts is where it last fell, before it came above where it began.
        if losses[-1] <= losses[0]:
            return None
        falls = np.flatnonzero(np.diff(losses) <= 0.0)
        least = int(falls[-1]) + 1 if falls.size else 0
    rises = len(losses) - 1 - least
    if smooth and momentum and rises > 1:
        rises -= 1  # the first is a swing's for a part
    rises = min(rises, 3)
    if rises == 0 or (smooth and rises < 3 and not diverged):
        return None
    at, agree = float(lrs[least]), False
    growths = losses[-rises:] / np.maximum(losses[-rises - 1 : -1], 1e-300)
    if smooth and (growths > 1.0).all():
        beta, roots = momentum or 0.0, np.sqrt(growths)
        curvatures = ((1.0 + beta) + roots + beta / roots) / lrs[-rises - 1 : -1]
        grown = float(np.median(2.0 * (1.0 + beta) / curvatures))
        agree = rises == 3 and bool(np.ptp(curvatures) < 0.3 * np.median(curvatures))
        if grown < at or (agree and momentum is not None):
            return Edge(grown, f"the loss grows at the end as it does beyond {grown:.2g}", agree or not momentum)
    return Edge(at, f"the loss is least at {at:.2g} and grows beyond", agree or not (smooth and momentum))


def safe(edge: Edge | None, margin: float) -> Suggestion | None:
    """Return the edge divided by a margin."""
    if edge is None:
        return None
    return Suggestion("safe", edge.lr / margin, f"{edge.lr:.2g} divided by {margin:g}: {edge.reason}")


def _inner(length: int) -> tuple[int, int]:
    """Return where a curve begins and ends without its first tenth and the last five."""
    return length // 10, max(length - 5, 0)


def is_flat(losses: Floats, beta: float) -> bool:
    """Return whether losses fall by no more than their noise, or by a hundredth of themselves."""
    averages = centered(losses, beta)
    # The average of those that follow: the centered one rests for half on the first loss alone.
    first = smooth(list(losses[::-1]), beta)[-1]
    noise = float(np.median(np.abs(losses - averages)))
    return float(first - averages.min()) <= max(2.0 * noise, 0.01 * abs(float(first)), 1e-300)


def still_falls(losses: Floats) -> bool:
    """Return whether a smooth curve falls at its end by a quarter of its steepest slope, over a fifth of its length."""
    width = max(len(losses) // 5, 1)
    falls = losses[:-width] - losses[width:]
    return bool(falls[-1] >= 0.25 * falls.max() > 0.0)
