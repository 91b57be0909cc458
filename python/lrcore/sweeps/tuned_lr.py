"""``lrcore.tune_lr``: successive halving over learning rates around a recommendation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lrcore._messages import brief
from lrcore._ranges import POSITIVE, Range, check_count
from lrcore.sweeps.results import Results
from lrcore.sweeps.space import logspace
from lrcore.sweeps.sweeping import sweep

if TYPE_CHECKING:
    import os
    from concurrent.futures import Executor
    from typing import SupportsIndex

    from lrcore.finder import Recommendation
    from lrcore.sweeps.objective import Train
    from lrcore.sweeps.sensitivity import Sensitivity

_EXTENSIONS = 2  # how often learning rates are added where the best one is at an end
_SPAN = 10.0


class TunedLR(NamedTuple):
    """The best learning rate of training runs.

    Attributes:
        lr: The learning rate.
        sensitivity: The objective by learning rate, at the largest budget that all of them ran with, and the range
            within 5 % of the best.
        results: All runs.
        is_inside: Whether worse learning rates were tried on both sides.
    """

    lr: float
    sensitivity: Sensitivity
    results: Results
    is_inside: bool

    def __float__(self) -> float:
        """Return the learning rate."""
        return self.lr

    def __str__(self) -> str:
        """Return the learning rate and the table of the sensitivity."""
        where = "" if self.is_inside else "; it is the last one that was tried on its side"
        return f"best learning rate: {self.lr:.3g}{where}\n{self.sensitivity}"


def tune_lr(
    train: Train,
    around: float | Recommendation,
    *,
    budget: SupportsIndex | tuple[SupportsIndex, SupportsIndex],
    rates: SupportsIndex = 7,
    span: float | None = None,
    seeds: SupportsIndex = 3,
    factor: float = 3.0,
    results: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    workers: SupportsIndex | None = None,
    minimize: bool = True,
    seed: SupportsIndex = 0,
    progress: bool = True,
) -> TunedLR:
    """Find the best learning rate by training: at several around a recommendation, the better ones for longer.

    A :func:`sweep <lrcore.sweep>` by successive halving over learning rates with equal ratios. If the best one is at an
    end, learning rates beyond it are added, at most twice.

    :func:`find_lr <lrcore.find_lr>` takes 300 steps and extrapolates to the run. This function trains, so it also knows
    what only shows in long runs, on validation data or with other hyperparameters, at the cost of several runs.

    Args:
        train: Called as ``train(lr=…, seed=…, budget=…)``; returns the objective. As for ``sweep``.
        around: A learning rate in (0, inf), or the result of ``find_lr(…).suggest()``.
        budget: The length of a run, such as its number of steps: the smallest and the largest, or a whole number for
            runs of one length.
        rates: The number of learning rates to begin with, at least 3.
        span: The largest learning rate relative to ``around``, and ``around`` relative to the smallest, in (1, inf). By
            default 10, or as far as the recommendation's interval reaches.
        seeds: The number of seeds for each learning rate.
        factor: The ratio between budgets, and the share of the learning rates that continues, in (1, inf).
        results: As for ``sweep``: a file, from which the search resumes.
        executor: As for ``sweep``.
        workers: As for ``sweep``.
        minimize: Whether a smaller objective is better.
        seed: As for ``sweep``.
        progress: As for ``sweep``.

    Returns:
        The best learning rate, the sensitivity to it, and all runs.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If an argument is out of range, the recommendation has no learning rate, or no learning rate
            finished with all its seeds.

    Examples:
        >>> import lrcore
        >>> def train(lr, seed, budget):
        ...     w = 1.0
        ...     for _ in range(budget):
        ...         w -= lr * 4.0 * w  # the gradient of 2 w²
        ...     return 2.0 * w * w
        >>> found = lrcore.tune_lr(train, 0.01, budget=(2, 20), seeds=1, workers=0, progress=False)
        >>> 0.1 < found.lr < 0.5, found.is_inside
        (True, True)

    References:
        Jamieson & Talwalkar, *Non-stochastic Best Arm Identification and Hyperparameter Optimization* (2016).
    """
    center, span = _center_and_span(around, span)
    count = check_count("rates", rates, least=3)
    found, lrs = Results([], minimize=minimize), logspace(center / span, center * span, count).tolist()
    method: Literal["grid", "halving"] = "halving" if isinstance(budget, tuple | list) else "grid"
    ratio = lrs[1] / lrs[0]
    tried: list[float] = []
    for _ in range(1 + _EXTENSIONS):
        added = sweep(
            train, {"lr": lrs}, seeds, method=method, budget=budget, factor=factor, results=results,
            executor=executor, workers=workers, minimize=minimize, seed=seed, progress=progress,
        )  # fmt: skip
        tried = sorted([*tried, *lrs])
        found = Results([*found._rows, *added._rows], minimize=minimize)
        best = found.best.settings["lr"]
        if best not in (tried[0], tried[-1]):
            break
        lrs = [best * ratio**place if best == tried[-1] else best / ratio**place for place in range(1, 1 + count // 2)]
    return TunedLR(best, found.sensitivity("lr"), found, best not in (tried[0], tried[-1]))


def _center_and_span(around: Any, span: Any) -> tuple[float, float]:
    """Return the learning rate in the middle, and the ratio of the ends to it."""
    from lrcore.finder import Recommendation

    reach = _SPAN
    if isinstance(around, Recommendation):
        if around.lr is None or around.interval is None:
            raise ValueError(f"around must have a learning rate, got {brief(str(around))}")
        low, high = around.interval
        around, reach = around.lr, max(around.lr / low, high / around.lr)
    center = POSITIVE.check("around", around)
    return center, reach if span is None else Range(1.0, float("inf"), opened=True).check("span", span)
