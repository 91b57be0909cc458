"""The names of ``optax.schedules``. A step is an update, counted from 0.

The rate is in the arguments, so there is no ``lr``. A warm-up counts in ``decay_steps``.
"""

from __future__ import annotations

import math
from itertools import accumulate
from operator import mul
from typing import TYPE_CHECKING, Any

from lrcore._messages import brief
from lrcore.schedules import Constant, Cosine, Exponential, Linear, Piecewise, Polynomial, Step
from lrcore.schedules.compat import whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lrcore.schedules import Schedule


def constant_schedule(*, value: float) -> Schedule:
    """Return a Constant."""
    return Constant(value)


def linear_schedule(
    *, init_value: float, end_value: float, transition_steps: int, transition_begin: int = 0
) -> Schedule:
    """Return a Linear; with no steps optax keeps the first value."""
    steps = whole("transition_steps", transition_steps)
    return _delayed(Linear(init_value, end_value, steps) if steps > 0 else Constant(init_value), transition_begin)


def polynomial_schedule(
    *, init_value: float, end_value: float, power: float, transition_steps: int, transition_begin: int = 0
) -> Schedule:
    """Return a Polynomial; with no steps or the power 0 optax keeps the first value."""
    steps = whole("transition_steps", transition_steps)
    if steps <= 0 or power == 0.0:
        return Constant(init_value)
    return _delayed(Polynomial(init_value, steps, end_value, power), transition_begin)


def exponential_decay(
    *,
    init_value: float,
    transition_steps: int,
    decay_rate: float,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: float | None = None,
) -> Schedule:
    """Return an Exponential or a Step, within ``end_value``; with no steps or no rate optax keeps the first value."""
    steps = whole("transition_steps", transition_steps)
    if steps <= 0 or decay_rate == 0.0:
        return Constant(init_value)
    course = Step(init_value, steps, decay_rate) if staircase else Exponential(init_value, decay_rate, steps)
    delayed = _delayed(course, transition_begin)
    if end_value is None:
        return delayed
    return delayed.at_least(end_value) if decay_rate < 1.0 else delayed.at_most(end_value)


def cosine_decay_schedule(
    *, init_value: float, decay_steps: int, alpha: float = 0.0, exponent: float = 1.0
) -> Schedule:
    """Return a Cosine to a share of its start."""
    if not decay_steps > 0:
        raise ValueError(f"decay_steps must be > 0, got {brief(decay_steps)}")
    # Nothing to the power 0 is 1.
    if exponent == 0.0:
        return Constant(init_value)
    return Cosine(init_value, whole("decay_steps", decay_steps), init_value * alpha, exponent)


def cosine_onecycle_schedule(
    *,
    transition_steps: int,
    peak_value: float,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    """Return a Piecewise of cosines: up to the peak and down."""
    steps = _positive(transition_steps)
    scales = {int(pct_start * steps): div_factor, steps: 1.0 / (div_factor * final_div_factor)}
    return piecewise_interpolate_schedule(
        interpolate_type="cosine", init_value=peak_value / div_factor, boundaries_and_scales=scales
    )


def linear_onecycle_schedule(
    *,
    transition_steps: int,
    peak_value: float,
    pct_start: float = 0.3,
    pct_final: float = 0.85,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    """Return a Piecewise of lines: up to the peak, down to the start, and further down."""
    steps = _positive(transition_steps)
    up, down = int(pct_start * steps), int(pct_final * steps)
    # As in optax a later boundary takes the place of an equal one before it.
    scales = {up: div_factor} | {down: 1.0 / div_factor} | {steps: 1.0 / final_div_factor}
    return piecewise_interpolate_schedule(
        interpolate_type="linear", init_value=peak_value / div_factor, boundaries_and_scales=scales
    )


def piecewise_constant_schedule(
    *, init_value: float, boundaries_and_scales: Mapping[int, float] | None = None
) -> Schedule:
    """Return a Piecewise of constants."""
    return Piecewise(_points(init_value, boundaries_and_scales), "constant")


def piecewise_interpolate_schedule(
    *, interpolate_type: str, init_value: float, boundaries_and_scales: Mapping[int, float] | None = None
) -> Schedule:
    """Return a Piecewise of lines or cosines between values that the scales multiply one after the other."""
    if interpolate_type not in ("linear", "cosine"):
        raise ValueError(f"interpolate_type must be 'linear' or 'cosine', got {brief(interpolate_type)}")
    for boundary in boundaries_and_scales or ():
        if boundary < 0:
            raise ValueError(f"boundaries must be >= 0, got {brief(boundary)}: in optax the pieces would overlap")
        whole("a boundary", boundary)
    return Piecewise(_points(init_value, boundaries_and_scales), interpolate_type)


def warmup_constant_schedule(*, init_value: float, peak_value: float, warmup_steps: int) -> Schedule:
    """Return a Linear; with no warm-up optax keeps ``init_value``."""
    return linear_schedule(init_value=init_value, end_value=peak_value, transition_steps=warmup_steps)


def warmup_cosine_decay_schedule(
    *,
    init_value: float,
    peak_value: float,
    warmup_steps: int,
    decay_steps: int,
    end_value: float = 0.0,
    exponent: float = 1.0,
) -> Schedule:
    """Return a Linear and a Cosine, together of ``decay_steps``."""
    alpha = 0.0 if peak_value == 0.0 else end_value / peak_value
    steps = whole("decay_steps", decay_steps) - whole("warmup_steps", warmup_steps)
    if not steps > 0:
        raise ValueError(f"decay_steps, warm-up included, must be > warmup_steps, got {decay_steps}, {warmup_steps}")
    course = cosine_decay_schedule(init_value=peak_value, decay_steps=steps, alpha=alpha, exponent=exponent)
    return _warmed_up(init_value, peak_value, warmup_steps, course)


def warmup_exponential_decay_schedule(
    *,
    init_value: float,
    peak_value: float,
    warmup_steps: int,
    transition_steps: int,
    decay_rate: float,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: float | None = None,
) -> Schedule:
    """Return a Linear and what exponential_decay is."""
    course = exponential_decay(
        init_value=peak_value,
        transition_steps=transition_steps,
        decay_rate=decay_rate,
        transition_begin=transition_begin,
        staircase=staircase,
        end_value=end_value,
    )
    return _warmed_up(init_value, peak_value, warmup_steps, course)


def sgdr_schedule(*, cosine_kwargs: Iterable[Mapping[str, Any]]) -> Schedule:
    """Return warmup_cosine_decay_schedule one after the other."""
    course: Schedule | None = None
    begin = 0
    for arguments in cosine_kwargs:
        cycle = warmup_cosine_decay_schedule(**arguments)
        course = cycle if course is None else course.then(cycle, at=begin)
        begin += whole("decay_steps", arguments["decay_steps"])
    if course is None:
        raise ValueError("cosine_kwargs must have at least one cycle, got none")
    return course


def _delayed(course: Schedule, begin: int) -> Schedule:
    steps = whole("transition_begin", begin)
    return course.shift(steps) if steps > 0 else course


def _warmed_up(init: float, peak: float, warmup_steps: int, course: Schedule) -> Schedule:
    steps = whole("warmup_steps", warmup_steps)
    return Linear(init, peak, steps).then(course, at=steps) if steps else course


def _points(init: float, scales: Mapping[int, float] | None) -> tuple[tuple[int, float], ...]:
    """Return the value from each boundary on. A boundary that is no step counts from the next one."""
    steps = sorted((scales or {}).items())
    for boundary, scale in steps:
        if not scale >= 0.0:
            raise ValueError(f"scales must be >= 0, got {brief(scale)} at {boundary!r}")
    values = accumulate((scale for _, scale in steps), mul, initial=init)
    return tuple(zip((0, *(max(math.ceil(boundary), 0) for boundary, _ in steps)), values, strict=True))


def _positive(transition_steps: int) -> int:
    if not transition_steps > 0:
        raise ValueError(f"transition_steps must be > 0, got {brief(transition_steps)}")
    return whole("transition_steps", transition_steps)


REFUSED = {
    "join_schedules": "it is made of schedules, not of numbers; combine them with then()",
}

NAMES: dict[str, Callable[..., Schedule]] = {
    "constant_schedule": constant_schedule,
    "linear_schedule": linear_schedule,
    "polynomial_schedule": polynomial_schedule,
    "exponential_decay": exponential_decay,
    "cosine_decay_schedule": cosine_decay_schedule,
    "cosine_onecycle_schedule": cosine_onecycle_schedule,
    "linear_onecycle_schedule": linear_onecycle_schedule,
    "piecewise_constant_schedule": piecewise_constant_schedule,
    "piecewise_interpolate_schedule": piecewise_interpolate_schedule,
    "warmup_constant_schedule": warmup_constant_schedule,
    "warmup_cosine_decay_schedule": warmup_cosine_decay_schedule,
    "warmup_exponential_decay_schedule": warmup_exponential_decay_schedule,
    "sgdr_schedule": sgdr_schedule,
}
