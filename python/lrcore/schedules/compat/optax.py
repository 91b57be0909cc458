"""The names of ``optax.schedules``. A step is an update, counted from 0.

There is no ``lr``, since the arguments contain the learning rate. ``decay_steps`` includes the warm-up.
"""

from __future__ import annotations

import math
from itertools import accumulate
from operator import mul
from typing import TYPE_CHECKING, Any

from lrcore._messages import brief
from lrcore.schedules import Constant, Cosine, Exponential, Linear, Piecewise, Polynomial, Schedule, Step
from lrcore.schedules.compat import Whole, check_positive, makers_in, then_after, whole, with_ints

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def constant_schedule(*, value: float) -> Schedule:
    """Return a Constant."""
    return Constant(value)


def linear_schedule(
    *, init_value: float, end_value: float, transition_steps: Whole, transition_begin: Whole = 0
) -> Schedule:
    """Return a Linear. With 0 steps optax keeps the first value."""
    if transition_steps <= 0:
        return Constant(init_value)
    return _delayed(Linear(init_value, end_value, transition_steps), transition_begin)


def polynomial_schedule(
    *, init_value: float, end_value: float, power: float, transition_steps: Whole, transition_begin: Whole = 0
) -> Schedule:
    """Return a Polynomial. With 0 steps or power 0 optax keeps the first value."""
    if transition_steps <= 0 or power == 0.0:
        return Constant(init_value)
    return _delayed(Polynomial(init_value, transition_steps, end_value, power), transition_begin)


def exponential_decay(
    *,
    init_value: float,
    transition_steps: Whole,
    decay_rate: float,
    transition_begin: Whole = 0,
    staircase: bool = False,
    end_value: float | None = None,
) -> Schedule:
    """Return an Exponential or a Step, limited by ``end_value``. With 0 steps or rate optax keeps ``init_value``."""
    if transition_steps <= 0 or decay_rate == 0.0:
        return Constant(init_value)
    schedule: Schedule = Exponential(init_value, decay_rate, transition_steps)
    if staircase:
        schedule = Step(init_value, transition_steps, decay_rate)
    delayed = _delayed(schedule, transition_begin)
    if end_value is None:
        return delayed
    return delayed.at_least(end_value) if decay_rate < 1.0 else delayed.at_most(end_value)


def cosine_decay_schedule(
    *, init_value: float, decay_steps: Whole, alpha: float = 0.0, exponent: float = 1.0
) -> Schedule:
    """Return a Cosine to a fraction of its start."""
    check_positive("decay_steps", decay_steps)
    # 0 to the power 0 is 1.
    if exponent == 0.0:
        return Constant(init_value)
    return Cosine(init_value, decay_steps, init_value * alpha, exponent)


def cosine_onecycle_schedule(
    *,
    transition_steps: Whole,
    peak_value: float,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    """Return a Piecewise of two cosines, up and down."""
    check_positive("transition_steps", transition_steps)
    scales = {int(pct_start * transition_steps): div_factor, transition_steps: 1.0 / (div_factor * final_div_factor)}
    return piecewise_interpolate_schedule(
        interpolate_type="cosine", init_value=peak_value / div_factor, boundaries_and_scales=scales
    )


def linear_onecycle_schedule(
    *,
    transition_steps: Whole,
    peak_value: float,
    pct_start: float = 0.3,
    pct_final: float = 0.85,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    """Return a Piecewise of three lines: up to the peak, down to the start, and further down."""
    check_positive("transition_steps", transition_steps)
    up, down = int(pct_start * transition_steps), int(pct_final * transition_steps)
    # As in optax, a later boundary replaces an equal one.
    scales = {up: div_factor} | {down: 1.0 / div_factor} | {transition_steps: 1.0 / final_div_factor}
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
    """Return a Piecewise of lines or cosines between cumulative products of the scales."""
    if interpolate_type not in ("linear", "cosine"):
        raise ValueError(f"interpolate_type must be 'linear' or 'cosine', got {brief(interpolate_type)}")
    for boundary in boundaries_and_scales or ():
        if boundary < 0:
            raise ValueError(f"boundaries must be >= 0, got {brief(boundary)}: in optax the pieces would overlap")
        whole("a boundary", boundary)
    return Piecewise(_points(init_value, boundaries_and_scales), interpolate_type)


def warmup_constant_schedule(*, init_value: float, peak_value: float, warmup_steps: Whole) -> Schedule:
    """Return a Linear. With a warm-up of 0 steps optax keeps ``init_value``."""
    return linear_schedule(init_value=init_value, end_value=peak_value, transition_steps=warmup_steps)


def warmup_cosine_decay_schedule(
    *,
    init_value: float,
    peak_value: float,
    warmup_steps: Whole,
    decay_steps: Whole,
    end_value: float = 0.0,
    exponent: float = 1.0,
) -> Schedule:
    """Return a Linear and a Cosine of together ``decay_steps``."""
    alpha = 0.0 if peak_value == 0.0 else end_value / peak_value
    steps = decay_steps - warmup_steps
    if not steps > 0:
        raise ValueError(f"decay_steps, warm-up included, must be > warmup_steps, got {decay_steps}, {warmup_steps}")
    schedule = cosine_decay_schedule(init_value=peak_value, decay_steps=steps, alpha=alpha, exponent=exponent)
    return then_after(Linear(init_value, peak_value, warmup_steps), warmup_steps, schedule)


def warmup_exponential_decay_schedule(
    *,
    init_value: float,
    peak_value: float,
    warmup_steps: Whole,
    transition_steps: Whole,
    decay_rate: float,
    transition_begin: Whole = 0,
    staircase: bool = False,
    end_value: float | None = None,
) -> Schedule:
    """Return a Linear and an exponential_decay."""
    schedule = exponential_decay(
        init_value=peak_value,
        transition_steps=transition_steps,
        decay_rate=decay_rate,
        transition_begin=transition_begin,
        staircase=staircase,
        end_value=end_value,
    )
    return then_after(Linear(init_value, peak_value, warmup_steps), warmup_steps, schedule)


def sgdr_schedule(*, cosine_kwargs: Iterable[Mapping[str, Any]]) -> Schedule:
    """Return a sequence of warmup_cosine_decay_schedule."""
    schedule: Schedule | None = None
    begin = 0
    for arguments in cosine_kwargs:
        given = with_ints(warmup_cosine_decay_schedule, arguments)
        cycle = warmup_cosine_decay_schedule(**given)
        schedule = cycle if schedule is None else schedule.then(cycle, at=begin)
        begin += given["decay_steps"]
    if schedule is None:
        raise ValueError("cosine_kwargs must have at least one cycle, got none")
    return schedule


def _delayed(schedule: Schedule, begin: int) -> Schedule:
    return schedule.shift(begin) if begin > 0 else schedule


def _points(init: float, scales: Mapping[int, float] | None) -> tuple[tuple[int, float], ...]:
    """Return the value from each boundary on. A fractional boundary counts from the next step."""
    steps = sorted((scales or {}).items())
    for boundary, scale in steps:
        if not scale >= 0.0:
            raise ValueError(f"scales must be >= 0, got {brief(scale)} at {boundary!r}")
    values = accumulate((scale for _, scale in steps), mul, initial=init)
    return tuple(zip((0, *(max(math.ceil(boundary), 0) for boundary, _ in steps)), values, strict=True))


REFUSED = {
    "join_schedules": "it is made of schedules, not of numbers; combine them with then()",
}

NAMES = makers_in(globals())
