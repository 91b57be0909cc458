"""Analysis of a range test's curve: losses over learning rates on a logarithmic axis.

Two kinds of features are read off the curve. Suggestions are learning rates at which its shape stands out: the
steepest descent, the longest descent, the last steep rise, a tenth of the minimum. The edge of stability is the largest
stable learning rate, 2/λ for a mode of curvature λ, or 2(1 + β)/λ with momentum β (Polyak 1964; Cohen et al. 2021).

Noisy losses are averaged, forward and backward so that the average does not lag. Losses without noise, as on full
batches, are used as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lrcore._running_average import RunningAverages

if TYPE_CHECKING:
    from collections.abc import Sequence

    Floats = np.ndarray[Any, np.dtype[np.float64]]


class Suggestion(NamedTuple):
    """A learning rate that stands out in a range test.

    Attributes:
        name: ``"steepest"``, ``"valley"``, ``"slide"``, ``"minimum / 10"`` or ``"safe"``.
        lr: The learning rate.
        reason: Why it stands out.
    """

    name: str
    lr: float
    reason: str

    def __float__(self) -> float:
        """Return the learning rate."""
        return self.lr


def smooth(losses: Sequence[float], beta: float) -> Floats:
    """Return the debiased exponential moving average at each loss."""
    average, values = RunningAverages(beta, [0.0]), []
    for loss in losses:
        average.add(loss)
        values += average.values
    return np.array(values)


def clipped(losses: Floats) -> Floats:
    """Clip losses at ``first + (first − min)`` so that a diverging tail does not dominate the averages."""
    first, least = float(np.max(losses[:3])), float(np.min(losses))
    return np.minimum(losses, first + max(first - least, 1e-300))


def centered(losses: Floats, beta: float) -> Floats:
    """Return averages without lag: the mean of a forward and a backward moving average.

    A moving average lags by ``β / (1 − β)`` losses, and so does every learning rate that is read off it.
    """
    forward, backward = smooth(list(losses), beta), smooth(list(losses[::-1]), beta)[::-1]
    return (forward + backward) / 2.0


def is_smooth(losses: Floats) -> bool:
    """Return whether losses have no noise: in the first fifth, where learning rates are tiny, they lie on a line."""
    first = losses[: len(losses) // 5]
    fall = float(first[0] - np.min(losses)) if len(first) else 0.0
    return len(first) >= 4 and float(np.median(np.abs(np.diff(first, 2)))) <= 1e-3 * fall


def is_flat(losses: Floats, beta: float) -> bool:
    """Return whether losses fall by no more than twice their noise, or by no more than 1 %."""
    fall, noise, first = _fall(losses, beta)
    return fall <= max(2.0 * noise, 0.01 * abs(first), 1e-300)


def is_noisy(losses: Floats, beta: float) -> bool:
    """Return whether losses fall by no more than twice their noise: single losses rise and fall in turns."""
    fall, noise, first = _fall(losses, beta)
    signs = np.sign(np.diff(losses[: len(losses) // 2]))
    turns = float(np.mean(signs[1:] != signs[:-1])) if len(signs) > 1 else 0.0
    return fall <= 2.0 * noise and noise > 0.01 * abs(first) and turns > 0.25


def _fall(losses: Floats, beta: float) -> tuple[float, float, float]:
    """Return by how much averages fall, the noise of single losses, and the first average."""
    averages = centered(losses, beta)
    # The backward average alone: half of the centered one is the first loss, noise included.
    first = float(smooth(list(losses[::-1]), beta)[-1])
    return first - float(averages.min()), noise_of(losses, averages), first


def noise_of(losses: Floats, averages: Floats) -> float:
    """Return the median distance of losses from their averages."""
    return float(np.median(np.abs(losses - averages)))


def still_falls(losses: Floats) -> bool:
    """Return whether the last fifth of a smooth curve falls by a quarter of the steepest fifth or more."""
    width = max(len(losses) // 5, 1)
    falls = losses[:-width] - losses[width:]
    return bool(falls[-1] >= 0.25 * falls.max() > 0.0)


def steepest(lrs: Floats, losses: Floats, least: int) -> Suggestion | None:
    """Return the learning rate at which ``dL / d ln(lr)`` is most negative, before the minimum.

    The first tenth of the curve and the last five points do not count.
    """
    first, last = len(lrs) // 10, min(max(len(lrs) - 5, 0), least + 1)
    if last - first < 3:
        return None
    slopes = np.gradient(losses, np.log(lrs))
    at = first + int(np.argmin(slopes[first:last]))
    if slopes[at] >= 0.0:
        return None
    reason = f"the loss falls fastest over ln(lr): by {-slopes[at]:.3g} per factor of e"
    return Suggestion("steepest", float(lrs[at]), reason)


def valley(lrs: Floats, losses: Floats) -> Suggestion | None:
    """Return the learning rate halfway through the longest decreasing subsequence of losses."""
    length, before = np.ones(len(losses), int), np.full(len(losses), -1)
    for i in range(1, len(losses)):
        lower = np.flatnonzero((losses[:i] > losses[i]) & (length[:i] + 1 > length[i]))
        if lower.size:
            best = lower[np.argmax(length[lower])]
            length[i], before[i] = length[best] + 1, best
    begin = end = int(np.argmax(length))
    while before[begin] >= 0:
        begin = int(before[begin])
    if length[end] < 4:
        return None
    third = (end - begin) / 3.0
    at = begin + int(third) + int(third / 2.0)
    reason = f"the middle of the longest descent, from {lrs[begin]:.2g} to {lrs[end]:.2g}"
    return Suggestion("valley", float(lrs[at]), reason)


def slide(lrs: Floats, losses: Floats, apart: int = 15, threshold: float = 0.005) -> Suggestion | None:
    """Return the learning rate before the last steep rise: from the end back, the first where slopes agree."""
    if len(losses) <= apart + 1:
        return None
    slopes = np.gradient(losses)
    right = -1
    at = left = right - apart
    while left >= -len(losses) and abs(slopes[right] - slopes[left]) > threshold:
        at = left
        right, left = right - 1, left - 1
    reason = f"before it, slopes {apart} steps apart differ by at most {threshold}"
    return Suggestion("slide", float(lrs[at]), reason)


def minimum_over_ten(lrs: Floats, least: int) -> Suggestion | None:
    """Return a tenth of the learning rate at the minimum."""
    if least == 0:
        return None
    return Suggestion("minimum / 10", float(lrs[least]) / 10.0, f"a tenth of {lrs[least]:.2g}, where the loss is least")


class Edge(NamedTuple):
    """The edge of stability.

    Attributes:
        lr: The largest stable learning rate.
        reason: How it was found.
        is_sure: Whether the estimates agree.
    """

    lr: float
    reason: str
    is_sure: bool


def find_edge(
    lrs: Floats, losses: Floats, least: int, momentum: float | None, *, noiseless: bool, diverged: bool
) -> Edge | None:
    """Return the edge of stability, or None if the test ended before it.

    The first estimate is the learning rate of the minimum: beyond it the mode of largest curvature grows. On curves
    without noise the growth at the end is a better one, since that mode must first outgrow the rest of the loss. At
    learning rate η a mode of curvature λ grows by ``|1 − ηλ|`` per step and the loss by the square g of that, so
    ``2/λ = 2η / (1 + √g)``. With momentum β, ``ηλ = (1 + β) + √g + β/√g`` and the edge is ``2(1 + β)/λ``.

    Args:
        lrs: The learning rates.
        losses: The loss at each.
        least: The index of the minimum, of the averages if losses are noisy.
        momentum: The momentum of SGD; None for adaptive optimizers.
        noiseless: Whether losses have no noise.
        diverged: Whether divergence ended the test.
    """
    if noiseless and momentum:
        # With momentum the loss oscillates up to the edge, so what counts is where it fell last, not its minimum.
        if losses[-1] <= losses[0]:
            return None
        falls = np.flatnonzero(np.diff(losses) <= 0.0)
        least = int(falls[-1]) + 1 if falls.size else 0
    rises = len(losses) - 1 - least
    if noiseless and momentum and rises > 1:
        rises -= 1  # the first rise is partly an oscillation
    rises = min(rises, 3)
    if rises == 0 or (noiseless and rises < 3 and not diverged):
        return None
    at, agree = float(lrs[least]), False
    growths = losses[-rises:] / np.maximum(losses[-rises - 1 : -1], 1e-300)
    if noiseless and (growths > 1.0).all():
        beta, roots = momentum or 0.0, np.sqrt(growths)
        curvatures = ((1.0 + beta) + roots + beta / roots) / lrs[-rises - 1 : -1]
        grown = float(np.median(2.0 * (1.0 + beta) / curvatures))
        agree = rises == 3 and bool(np.ptp(curvatures) < 0.3 * np.median(curvatures))
        if grown < at or (agree and momentum is not None):
            return Edge(grown, f"the loss grows at the end as it does above {grown:.2g}", agree or not momentum)
    return Edge(at, f"the loss is least at {at:.2g} and grows above it", agree or not (noiseless and momentum))


def safe(edge: Edge | None, margin: float) -> Suggestion | None:
    """Return the edge divided by a margin."""
    if edge is None:
        return None
    return Suggestion("safe", edge.lr / margin, f"{edge.lr:.2g} divided by {margin:g}: {edge.reason}")
