"""Short training runs around the useful learning rates of a range test, and what they say about the run to come.

A range test changes the learning rate at each step, so its loss at one learning rate depends on the steps before. A
short run has one peak learning rate, with warm-up and decay as in a whole run, and starts from the weights before the
test. :func:`explore` makes two rounds, each from a center outwards until the best run has a worse one on each side::

    runs of 20 steps, a factor of 4.6 apart, from a third of the learning rate at which the loss rises above the first
    runs of 40 steps, a factor of 2.2 apart, from the best of them

All runs see the same batches, so the noise of the batches is mostly the same in all of them, and in the losses of the
untrained weights on these batches. Two runs are compared loss by loss: the error of their mean difference is that of
its samples, and not that of a single loss.

The best learning rate of a long run is a multiple of that of a short one. The multiple depends on the optimizer and the
number of steps; ``benches/range_tests`` measures it, and how far it scatters.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lrcore.schedules import Cosine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Floats = np.ndarray[Any, np.dtype[np.float64]]

# The steps of the runs of each round, and the factor between their learning rates.
ROUNDS = ((20, 10 ** (2 / 3)), (40, 10 ** (1 / 3)))
LONGEST = ROUNDS[-1][0]
_TAIL = 0.375  # the share of the losses that count, from the end
COUNTED = round(_TAIL * LONGEST)  # their number in the longest runs
SMALLEST_BUDGET = COUNTED + ROUNDS[0][0] + 2 * LONGEST
_LEAP = 2  # places from the best run to the next one outwards, after the first
_EXPLODED = 10.0  # the limit is this many times the untrained losses above them
_IN_A_ROW = 3  # a run stops after so many losses above the limit
# A learning rate counts by exp(−x / (0.02 + e)): x is how much less its loss falls than the best one, as a share of the
# latter's fall, and e is the standard error of x.
_SHARE = 0.02
_SHORTEST, _USUAL = 300, 1000  # the shortest run that was measured, and the run length if it is not given


class ShortRun(NamedTuple):
    """A short training run.

    Attributes:
        lr: The peak of its learning rates, of the first group.
        steps: The number of steps to take.
        losses: The loss before each step; fewer if the loss exploded.
        validation: The validation loss at the end, if there is one.
    """

    lr: float
    steps: int
    losses: tuple[float, ...]
    validation: float | None = None

    @property
    def exploded(self) -> bool:
        """Whether the run stopped early."""
        ends = self.losses if self.validation is None else (*self.losses, self.validation)
        return len(self.losses) < self.steps or not all(map(math.isfinite, ends))

    @property
    def last(self) -> Floats:
        """The losses that count, of the last steps."""
        if self.validation is not None:
            return np.array([self.validation])
        return np.array(self.losses[-round(_TAIL * self.steps) :])

    @property
    def loss(self) -> float:
        """The mean of the losses that count, infinite if the run exploded."""
        return math.inf if self.exploded else float(self.last.mean())


class Estimate(NamedTuple):
    """The best learning rate of short runs.

    Attributes:
        lr: The learning rate.
        falling: The share of batches on which the loss of the best run is below that of the untrained weights.
        error: The smallest standard error of the difference between the best run and another, as a share of the
            decrease.
        is_inside: Whether there is a worse run on each side.
    """

    lr: float
    falling: float
    error: float
    is_inside: bool


def explore(run: Callable[[float, int], ShortRun], center: float, budget: int) -> list[ShortRun]:
    """Make short runs around a learning rate.

    Args:
        run: ``run(lr, steps)`` makes a run.
        center: The learning rate to begin with.
        budget: The most steps in all runs.

    In each round places outwards are left out until the best run is inside, and then those beside it are made up for.
    """
    runs: list[ShortRun] = []
    for number, (steps, ratio) in enumerate(ROUNDS):
        reserved = sum(2 * later for later, _ in ROUNDS[number + 1 :])
        found: dict[int, ShortRun] = {}
        following: int | None = 0
        while following is not None and budget >= steps + reserved:
            made = found[following] = run(center * ratio**following, steps)
            budget -= len(made.losses)
            following = _next(found)
        if found:
            runs += found.values()
            center = min(found.values(), key=_order).lr
    return runs


def _order(run: ShortRun) -> tuple[float, float]:
    """Order runs by loss; of two that exploded the one with the lower learning rate is the better one."""
    return run.loss, run.lr


def _next(found: Mapping[int, ShortRun]) -> int | None:
    """Return the place of the next run, or None if the best is between its neighbours: see :func:`explore`."""
    best = min(found, key=lambda place: _order(found[place]))
    below = max((place for place in found if place < best), default=None)
    above = min((place for place in found if place > best), default=None)
    if above is None and not found[best].exploded:
        return best + (1 if below is None else _LEAP)
    if below is None:
        return best - (1 if above is None else _LEAP)
    if above is not None and above - best > 1:
        return (best + above) // 2
    return (below + best) // 2 if best - below > 1 else None


def learning_rates(lr: float, steps: int) -> list[float]:
    """Return the learning rates of a run: a linear warm-up over 5 % of the steps, then a cosine to 0."""
    schedule = Cosine(lr, steps).warmup(round(0.05 * steps))
    return [schedule(step) for step in range(steps)]


def limit_of(untrained: Sequence[float]) -> float:
    """Return the loss above which a run has exploded: far above the losses of the untrained weights."""
    mean = float(np.mean(untrained))
    return mean + _EXPLODED * max(abs(mean), float(np.ptp(untrained)))


def has_exploded(losses: Sequence[float], limit: float) -> bool:
    """Return whether to stop a run after these losses: single ones may be large by chance."""
    return not math.isfinite(losses[-1]) or (
        len(losses) >= _IN_A_ROW and all(loss > limit for loss in losses[-_IN_A_ROW:])
    )


def estimate(runs: Sequence[ShortRun], untrained: Sequence[float]) -> Estimate | None:
    """Return the best learning rate of short runs, or None if the loss falls in none of them.

    Args:
        runs: The runs; the longest count.
        untrained: The losses of the untrained weights on the batches whose losses count.
    """
    longest = max((run.steps for run in runs), default=0)
    known = sorted((run for run in runs if run.steps == longest), key=lambda run: run.lr)
    trained = [run for run in known if not run.exploded]
    if longest < LONGEST or not trained:
        return None
    best = min(trained, key=_order)
    falls = np.array(untrained) - best.last
    fall, falling = float(falls.mean()), float(np.mean(falls > 0.0))
    if not math.isfinite(fall) or fall <= 0.0 or falling < 0.5:
        return None
    excesses, errors = np.array([_mean_and_error(run.last - best.last) for run in trained]).T / fall
    weights = np.exp(-excesses / (_SHARE + errors))
    logarithm = float(weights @ np.log([run.lr for run in trained]) / weights.sum())
    others = np.delete(errors, trained.index(best))
    error = float(min(others, default=0.0))
    return Estimate(math.exp(logarithm), falling, error, best not in (known[0], known[-1]))


def _mean_and_error(differences: Floats) -> tuple[float, float]:
    """Return the mean and its standard error, 0 for a single difference."""
    return float(differences.mean()), float(differences.std()) / math.sqrt(max(len(differences) - 1, 1))


def multiple(relation: tuple[float, float], run_length: int | None) -> float:
    """Return the best learning rate of a long run as a multiple of that of a run of 40 steps.

    Args:
        relation: The decimal logarithm of the multiple for 300 steps, and its change for 10 times as many.
        run_length: The number of steps; None if it is unknown. Below 300 it counts as 300.
    """
    decades = math.log10(max(run_length or _USUAL, _SHORTEST) / _SHORTEST)
    return float(10 ** (relation[0] + relation[1] * decades))
