"""The names of ``keras.optimizers.schedules``, and the callback ReduceLROnPlateau.

A step is an update, counted from 0 by ``optimizer.iterations``; for the callback it is an epoch. Only the callback
takes ``lr``, since the other arguments contain the learning rate. ``decay_steps`` does not include the warm-up.
"""

# The functions have the names of Keras' classes.
# ruff: noqa: N802

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from lrcore import schedules
from lrcore._messages import brief
from lrcore.schedules.compat import Maker, Whole, accepting, check_positive, makers_in, then_after, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lrcore.schedules.schedule import Schedule


def ExponentialDecay(
    *, initial_learning_rate: float, decay_steps: float, decay_rate: float, staircase: bool = False
) -> Schedule:
    """Return an Exponential or a Step."""
    check_positive("decay_steps", decay_steps)
    if staircase:
        return schedules.Step(initial_learning_rate, whole("decay_steps", decay_steps), decay_rate)
    return schedules.Exponential(initial_learning_rate, decay_rate, decay_steps)


def PiecewiseConstantDecay(*, boundaries: Sequence[float], values: Sequence[float]) -> Schedule:
    """Return a Piecewise that changes one step after each boundary."""
    if not boundaries or len(boundaries) != len(values) - 1:
        raise ValueError(
            f"boundaries must be at least one, and values one more, got {len(boundaries)} and {len(values)}"
        )
    if any(later < earlier for earlier, later in pairwise(boundaries)):
        raise ValueError(f"boundaries must rise, got {list(boundaries)}: in Keras the values of a step would add up")
    changes = (max(math.floor(boundary) + 1, 0) for boundary in boundaries)
    return schedules.Piecewise(tuple(zip((0, *changes), values, strict=True)), "constant")


def PolynomialDecay(
    *,
    initial_learning_rate: float,
    decay_steps: Whole,
    end_learning_rate: float = 0.0001,
    power: float = 1.0,
    cycle: bool = False,
) -> Schedule:
    """Return a Polynomial; with ``cycle`` one that restarts at each multiple of ``decay_steps``, ever slower."""
    check_positive("decay_steps", decay_steps)
    if power == 0.0:
        return schedules.Constant(initial_learning_rate)
    if not cycle:
        return schedules.Polynomial(initial_learning_rate, decay_steps, end_learning_rate, power)
    height = initial_learning_rate - end_learning_rate
    if height < 0.0 or 2.0 * power % 1.0:
        raise ValueError("with cycle, power must be a multiple of 0.5, and end_learning_rate at most the initial one")
    # In the n-th cycle of d steps it is 1 − t/(n·d) = (1 − s/d) / n, where s runs from 1 to d.
    tooth = schedules.Polynomial(1.0, decay_steps, power=power)
    teeth = tooth.then(tooth.shift(-1).repeat(period=decay_steps), at=1)
    heights: Schedule = schedules.Constant(height)
    for _ in range(int(power)):
        heights = heights * schedules.InverseTime(1.0, 1.0, decay_steps)
    if power % 1.0:
        heights = heights * schedules.InverseSqrt(1.0, decay_steps)
    return heights.every(decay_steps).shift(1) * teeth + end_learning_rate


def InverseTimeDecay(
    *, initial_learning_rate: float, decay_steps: float, decay_rate: float, staircase: bool = False
) -> Schedule:
    """Return an InverseTime, with ``staircase`` only updated every ``decay_steps``."""
    check_positive("decay_steps", decay_steps)
    schedule = schedules.InverseTime(initial_learning_rate, decay_rate, decay_steps)
    return schedule.every(whole("decay_steps", decay_steps)) if staircase else schedule


def CosineDecay(
    *,
    initial_learning_rate: float,
    decay_steps: Whole,
    alpha: float = 0.0,
    warmup_target: float | None = None,
    warmup_steps: Whole = 0,
) -> Schedule:
    """Return a Cosine to a fraction of its start, after a Linear if there is a ``warmup_target``."""
    check_positive("decay_steps", decay_steps)
    if warmup_target is None:
        return schedules.Cosine(initial_learning_rate, decay_steps, initial_learning_rate * alpha)
    schedule = schedules.Cosine(warmup_target, decay_steps, warmup_target * alpha)
    return then_after(schedules.Linear(initial_learning_rate, warmup_target, warmup_steps), warmup_steps, schedule)


def CosineDecayRestarts(
    *,
    initial_learning_rate: float,
    first_decay_steps: float,
    t_mul: float = 2.0,
    m_mul: float = 1.0,
    alpha: float = 0.0,
) -> Schedule:
    """Return CosineRestarts plus a constant, ``alpha`` of the start, which does not fall with the peaks."""
    check_positive("first_decay_steps", first_decay_steps)
    if t_mul < 1.0:
        raise ValueError(f"t_mul must be >= 1, got {brief(t_mul)}: Keras has no number after ever shorter cycles")
    low = initial_learning_rate * alpha
    if m_mul == 1.0:
        return schedules.CosineRestarts(initial_learning_rate, first_decay_steps, low, factor=t_mul)
    schedule = schedules.CosineRestarts(initial_learning_rate - low, first_decay_steps, factor=t_mul, decay=m_mul)
    return schedule + low if low else schedule


def ReduceLROnPlateau(
    *,
    lr: float,
    monitor: str = "val_loss",
    factor: float = 0.1,
    patience: int = 10,
    mode: str = "auto",
    min_delta: float = 1e-4,
    cooldown: int = 0,
    min_lr: float = 0.0,
) -> Schedule:
    """Return the learning rate times a ReduceOnPlateau, at least ``min_lr``."""
    if not factor < 1.0:
        raise ValueError(f"factor must be < 1, got {brief(factor)}")
    if mode == "auto":
        if monitor.removeprefix("val_") != "loss":
            raise ValueError(f"mode must be 'min' or 'max' for {monitor!r}: Keras asks the model for the metric")
        mode = "min"
    plateau = schedules.ReduceOnPlateau(
        factor, patience, mode, threshold=abs(min_delta), relative=False, cooldown=cooldown, convention="keras"
    )
    return (schedules.Constant(lr) * plateau).at_least(min(lr, min_lr))


REFUSED: dict[str, str] = {
    "LearningRateScheduler": "it is made of a function, not of numbers; schedules.Lambda takes one",
}

NAMES: dict[str, Maker] = {
    name: accepting(maker, **({"verbose": 0} if maker is ReduceLROnPlateau else {"name": None}))
    for name, maker in makers_in(globals()).items()
}
