"""How other libraries read a learning rate off the curve of a range test.

A function takes the learning rates of a test and the loss before each step, smooths and cuts them as its library
does, and returns the suggested learning rate, or None where the library raises an error. Sources, read in 2026:

* fastai, ``Recorder``, ``LRFinder``, ``Learner.lr_find`` and the suggestion functions:
  https://github.com/fastai/fastai/blob/main/fastai/callback/schedule.py and
  https://github.com/fastai/fastai/blob/main/fastai/learner.py (``AvgSmoothLoss``)
* torch-lr-finder: https://github.com/davidtvs/pytorch-lr-finder/blob/master/torch_lr_finder/lr_finder.py
* Lightning: https://github.com/Lightning-AI/pytorch-lightning/blob/master/src/lightning/pytorch/tuner/lr_finder.py

Each library records its curve in such a loop, from 1e-7 to 10 in fastai and from 1e-8 to 1 in Lightning. They differ in
when they stop, so a curve can be longer than theirs would be: it is cut where they would have stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Curve: TypeAlias = tuple[Floats, Floats]


def moving_average(losses: Floats, beta: float, *, debias: bool) -> Floats:
    """Return the moving average; without debiasing it starts at the first loss."""
    average, found = 0.0 if debias else float(losses[:1].sum()), []
    for i, loss in enumerate(losses.tolist(), start=1):
        average = beta * average + (1.0 - beta) * loss
        found.append(average / (1.0 - beta**i) if debias else average)
    return np.array(found)


def until_diverged(smoothed: Floats, times: float, first: int = 0) -> int:
    """Return the number of losses up to and with the first above ``times`` the best so far; all if there is none."""
    best = np.minimum.accumulate(smoothed)
    above = np.flatnonzero(smoothed[first:] > times * best[first:])
    return first + int(above[0]) + 1 if len(above) else len(smoothed)


def fastai(curve: Curve) -> Curve:
    """Smooth with 0.98, stop at 4 times the best, drop the first tenth, the last five and all after a NaN."""
    lrs, losses = curve
    smoothed = moving_average(losses, 0.98, debias=True)
    stop = until_diverged(smoothed, 4.0)
    first = len(lrs) // 10
    lrs, smoothed = lrs[first : max(stop - 5, first)], smoothed[first : max(stop - 5, first)]
    nans = np.flatnonzero(~np.isfinite(smoothed))
    end = int(nans[0]) if len(nans) else len(lrs)
    return lrs[:end], smoothed[:end]


def valley(curve: Curve) -> float | None:
    """Return fastai's default: halfway through the longest decreasing subsequence, counted back from its end."""
    lrs, losses = fastai(curve)
    if len(lrs) == 0:
        return None
    lengths, end, start = [1] * len(lrs), 0, 0
    for i in range(1, len(lrs)):
        for j in range(i):
            if losses[i] < losses[j] and lengths[i] < lengths[j] + 1:
                lengths[i] = lengths[j] + 1
            if lengths[end] < lengths[i]:
                end = i
                start = end - lengths[end]
    third = (end - start) / 3
    return float(lrs[start + int(third) + int(third / 2)])


def slide(curve: Curve) -> float | None:
    """Return fastai's slide: from the end back, the first slopes 15 steps apart that differ by at most 0.005."""
    lrs, losses = fastai(curve)
    if len(lrs) < 16:
        return None
    slopes = np.gradient(losses)
    right, left = -1, -16
    found = float(lrs[left])
    while left >= -len(losses) and abs(slopes[right] - slopes[left]) > 0.005:
        found = float(lrs[left])
        right, left = right - 1, left - 1
    return found


def minimum(curve: Curve) -> float | None:
    """Return fastai's minimum: a tenth of the learning rate of the least loss."""
    lrs, losses = fastai(curve)
    return float(lrs[int(np.argmin(losses))]) / 10 if len(lrs) else None


def steep(curve: Curve) -> float | None:
    """Return fastai's steep: the steepest slope over the logarithm of the learning rate."""
    lrs, losses = fastai(curve)
    if len(lrs) < 2:
        return None
    return float(lrs[int(np.argmin(np.diff(losses) / np.diff(np.log(lrs))))])


def torch_lr_finder(curve: Curve) -> float | None:
    """Return torch-lr-finder's: the steepest slope by the step, smoothed with 0.95, without the first 10 and last 5."""
    lrs, losses = curve
    smoothed = moving_average(losses, 0.95, debias=False)
    end = max(until_diverged(smoothed, 5.0) - 5, 0)
    lrs, smoothed = lrs[10:end], smoothed[10:end]
    return float(lrs[int(np.argmin(np.gradient(smoothed)))]) if len(lrs) >= 2 else None


def lightning(curve: Curve) -> float | None:
    """Return Lightning's: the steepest slope over the learning rate itself, smoothed with 0.98, after the first 10.

    It measures divergence from the best loss since the second step.
    """
    lrs, losses = curve
    smoothed = moving_average(losses, 0.98, debias=True)
    end = max(until_diverged(smoothed, 4.0, first=1) - 1, 0)
    lrs, smoothed = lrs[10:end], smoothed[10:end]
    finite = np.isfinite(smoothed)
    lrs, smoothed = lrs[finite], smoothed[finite]
    return float(lrs[int(np.argmin(np.gradient(smoothed, lrs)))]) if len(lrs) >= 2 else None


PEERS: dict[str, Callable[[Curve], float | None]] = {
    "fastai valley": valley,
    "fastai slide": slide,
    "fastai minimum / 10": minimum,
    "fastai steep": steep,
    "torch-lr-finder": torch_lr_finder,
    "Lightning": lightning,
}
