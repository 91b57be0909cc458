"""The names of ``keras.optimizers.schedules``, and the callback ReduceLROnPlateau.

A step is an update, counted from 0 by ``optimizer.iterations``; for the callback it is an epoch. The rate is in the
arguments, so there is no ``lr`` but for the callback. A warm-up does not count in ``decay_steps``.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from lrcore._messages import brief
from lrcore.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Exponential,
    InverseSqrt,
    InverseTime,
    Linear,
    Piecewise,
    Polynomial,
    ReduceOnPlateau,
    Step,
)
from lrcore.schedules.compat import whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lrcore.schedules import Schedule


def exponential_decay(
    *,
    initial_learning_rate: float,
    decay_steps: int,
    decay_rate: float,
    staircase: bool = False,
    name: str | None = None,
) -> Schedule:
    """Return an Exponential, or a Step."""
    del name
    _check_positive("decay_steps", decay_steps)
    if staircase:
        return Step(initial_learning_rate, whole("decay_steps", decay_steps), decay_rate)
    return Exponential(initial_learning_rate, decay_rate, decay_steps)


def piecewise_constant_decay(
    *, boundaries: Sequence[float], values: Sequence[float], name: str | None = None
) -> Schedule:
    """Return a Piecewise that changes at the step after each boundary."""
    del name
    if not boundaries or len(boundaries) != len(values) - 1:
        raise ValueError(
            f"boundaries must be at least one, and values one more, got {len(boundaries)} and {len(values)}"
        )
    if any(later < earlier for earlier, later in pairwise(boundaries)):
        raise ValueError(f"boundaries must rise, got {list(boundaries)}: in Keras the values of a step would add up")
    changes = (max(math.floor(boundary) + 1, 0) for boundary in boundaries)
    return Piecewise(tuple(zip((0, *changes), values, strict=True)), "constant")


def polynomial_decay(
    *,
    initial_learning_rate: float,
    decay_steps: int,
    end_learning_rate: float = 0.0001,
    power: float = 1.0,
    cycle: bool = False,
    name: str | None = None,
) -> Schedule:
    """Return a Polynomial; with ``cycle`` one that rises at every multiple of its length, and grows longer."""
    del name
    _check_positive("decay_steps", decay_steps)
    steps = whole("decay_steps", decay_steps)
    if power == 0.0:
        return Constant(initial_learning_rate)
    if not cycle:
        return Polynomial(initial_learning_rate, steps, end_learning_rate, power)
    height = initial_learning_rate - end_learning_rate
    if height < 0.0 or 2.0 * power % 1.0:
        raise ValueError("with cycle, power must be a multiple of 0.5, and end_learning_rate at most the initial one")
    # In the n-th cycle of d steps it is 1 − t/(n·d) = (1 − s/d) / n, where s counts from 1 to d.
    tooth = Polynomial(1.0, steps, power=power)
    teeth = tooth.then(tooth.shift(-1).repeat(period=steps), at=1)
    heights: Schedule = Constant(height)
    for _ in range(int(power)):
        heights = heights * InverseTime(1.0, 1.0, steps)
    if power % 1.0:
        heights = heights * InverseSqrt(1.0, steps)
    return heights.every(steps).shift(1) * teeth + end_learning_rate


def inverse_time_decay(
    *,
    initial_learning_rate: float,
    decay_steps: int,
    decay_rate: float,
    staircase: bool = False,
    name: str | None = None,
) -> Schedule:
    """Return an InverseTime, which ``staircase`` holds for as many steps."""
    del name
    _check_positive("decay_steps", decay_steps)
    course = InverseTime(initial_learning_rate, decay_rate, decay_steps)
    return course.every(whole("decay_steps", decay_steps)) if staircase else course


def cosine_decay(
    *,
    initial_learning_rate: float,
    decay_steps: int,
    alpha: float = 0.0,
    name: str | None = None,
    warmup_target: float | None = None,
    warmup_steps: int = 0,
) -> Schedule:
    """Return a Cosine to a share of its start, after a Linear if there is a ``warmup_target``."""
    del name
    _check_positive("decay_steps", decay_steps)
    steps = whole("decay_steps", decay_steps)
    if warmup_target is None:
        return Cosine(initial_learning_rate, steps, initial_learning_rate * alpha)
    warmup = whole("warmup_steps", warmup_steps)
    course = Cosine(warmup_target, steps, warmup_target * alpha)
    return Linear(initial_learning_rate, warmup_target, warmup).then(course, at=warmup) if warmup else course


def cosine_decay_restarts(
    *,
    initial_learning_rate: float,
    first_decay_steps: float,
    t_mul: float = 2.0,
    m_mul: float = 1.0,
    alpha: float = 0.0,
    name: str | None = None,
) -> Schedule:
    """Return CosineRestarts upon a constant, ``alpha`` of the start, that does not fall with the peaks."""
    del name
    _check_positive("first_decay_steps", first_decay_steps)
    if t_mul < 1.0:
        raise ValueError(f"t_mul must be >= 1, got {brief(t_mul)}: Keras has no number after ever shorter cycles")
    low = initial_learning_rate * alpha
    if m_mul == 1.0:
        return CosineRestarts(initial_learning_rate, first_decay_steps, low, factor=t_mul)
    course = CosineRestarts(initial_learning_rate - low, first_decay_steps, factor=t_mul, decay=m_mul)
    return course + low if low else course


def reduce_lr_on_plateau(
    *,
    lr: float,
    monitor: str = "val_loss",
    factor: float = 0.1,
    patience: int = 10,
    verbose: int = 0,
    mode: str = "auto",
    min_delta: float = 1e-4,
    cooldown: int = 0,
    min_lr: float = 0.0,
) -> Schedule:
    """Return the rate times a ReduceOnPlateau, at least ``min_lr``."""
    del verbose
    if not factor < 1.0:
        raise ValueError(f"factor must be < 1, got {brief(factor)}")
    if mode == "auto":
        if monitor.removeprefix("val_") != "loss":
            raise ValueError(f"mode must be 'min' or 'max' for {monitor!r}: Keras asks the model for the metric")
        mode = "min"
    plateau = ReduceOnPlateau(
        factor, patience, mode, threshold=abs(min_delta), relative=False, cooldown=cooldown, convention="keras"
    )
    return (Constant(lr) * plateau).at_least(min(lr, min_lr))


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be > 0, got {brief(value)}")


REFUSED: dict[str, str] = {
    "LearningRateScheduler": "it is made of a function, not of numbers; schedules.Lambda takes one",
}

NAMES: dict[str, Callable[..., Schedule]] = {
    "ExponentialDecay": exponential_decay,
    "PiecewiseConstantDecay": piecewise_constant_decay,
    "PolynomialDecay": polynomial_decay,
    "InverseTimeDecay": inverse_time_decay,
    "CosineDecay": cosine_decay,
    "CosineDecayRestarts": cosine_decay_restarts,
    "ReduceLROnPlateau": reduce_lr_on_plateau,
}
