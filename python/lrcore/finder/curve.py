"""A curve of losses over learning rates: smoothing, where it stops, and the rates that stand out in it."""

from __future__ import annotations

import math
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


def smooth(losses: Sequence[float], beta: float) -> Floats:
    """Return the running averages."""
    average, values = RunningAverages(beta, [0.0]), []
    for loss in losses:
        average.add(loss)
        values += average.values
    return np.array(values)


def centered(losses: Floats, beta: float) -> Floats:
    """Return averages that don't lag: the running ones forward and backward together.

    A running average is late by ``β / (1 − β)`` losses, and with it every rate that is read from it. What explodes at
    the end is cut off as high above the first losses as the least one lies below, so that it hides nothing before it.
    """
    first, least = float(np.max(losses[:3])), float(np.min(losses))
    losses = np.minimum(losses, first + max(first - least, 1e-300))
    forward, backward = smooth(list(losses), beta), smooth(list(losses[::-1]), beta)[::-1]
    return (forward + backward) / 2.0


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


def edge(lrs: Floats, losses: Floats, at: int, momentum: float = 0.0) -> tuple[float, str] | None:
    """Return the largest rate that is stable, and how it was found.

    The loss is least where the step that overshoots most no longer gains. It may be later than the edge, since what
    grows there must first outgrow the rest; how fast the loss grows at the end says where growth began: with a rate
    η a mode of curvature L grows by |1 − ηL| a step, the loss by its square, and so ``2/L = 2η / (1 + √growth)``.
    With momentum β a mode has ``ηL = (1 + β) + √growth + β/√growth``, and its edge is at ``2(1 + β)/L``.

    Args:
        lrs: The rates.
        losses: The loss at each.
        at: Where it is least.
        momentum: That of the training.
    """
    if at == len(losses) - 1:
        return None
    least, why = float(lrs[at]), f"the loss is least at {lrs[at]:.2g} and grows beyond"
    growths = losses[at + 1 :] / np.maximum(losses[at:-1], 1e-300)
    rising = np.flatnonzero(growths[-3:] > 1.0)
    if rising.size == min(3, growths.size) and rising.size:
        roots = np.sqrt(growths[-rising.size :])
        curvatures = ((1.0 + momentum) + roots + momentum / roots) / lrs[-rising.size - 1 : -1]
        grown = float(np.median(2.0 * (1.0 + momentum) / curvatures))
        if grown < least:
            return grown, f"the loss grows at the end as it does beyond {grown:.2g}"
    return least, why


def safe(found: tuple[float, str] | None, margin: float) -> Suggestion | None:
    """Return the edge divided by a margin."""
    if found is None:
        return None
    at, why = found
    return Suggestion("safe", at / margin, f"{at:.2g} divided by {margin:g}: {why}")


def _inner(length: int) -> tuple[int, int]:
    """Return where a curve begins and ends without its first tenth and the last five."""
    return length // 10, max(length - 5, 0)


def is_flat(losses: Floats, noise: float) -> bool:
    """Return whether a curve falls by no more than its noise, or by a hundredth of itself."""
    fall = float(losses[0] - losses.min())
    return fall <= max(2.0 * noise, 0.01 * abs(float(losses[0])), 1e-300)


def still_falls(losses: Floats, least: int) -> bool:
    """Return whether a curve is least in its last twentieth, and falls there by a quarter of its steepest slope."""
    end = max(len(losses) // 20, 1)
    before = len(losses) - end - 1
    steepest = float(np.max(-np.gradient(losses)))
    return least >= before and float(losses[before] - losses[least]) / end >= 0.25 * steepest


def noise_of(losses: Floats, smoothed: Floats) -> float:
    """Return how far losses lie from the smooth curve, the middle of all."""
    return float(np.median(np.abs(losses - smoothed))) if len(losses) else math.nan
