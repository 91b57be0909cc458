"""The names of ``timm.scheduler``: its classes, and the short names of ``create_scheduler_v2``.

A step is an epoch, or an update where ``t_in_epochs`` or ``step_on_epochs`` is false. A warm-up begins at a rate of its
own; it counts in the length, unless ``warmup_prefix`` puts it before.
"""

from __future__ import annotations

import inspect
import math
from functools import partial, wraps
from inspect import Parameter
from typing import TYPE_CHECKING, Any

from lrcore._messages import brief
from lrcore.schedules import (
    Constant,
    Cosine,
    InverseSqrt,
    Linear,
    MultiStep,
    Piecewise,
    Polynomial,
    Sqrt,
    Step,
    Table,
    Tanh,
)
from lrcore.schedules.compat import torch, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lrcore.schedules import Schedule
    from lrcore.schedules.compat import Maker


_LONGEST_TABLE = 10**6


def _without_noise(name: str, **silent: Any) -> Callable[[Maker], Maker]:
    """Let a function take the arguments of noise too, of which the first must be None, and others that do nothing.

    Args:
        name: The first.
        silent: The others, with their defaults.
    """
    silent = {"noise_pct": 0.67, "noise_std": 1.0, "noise_seed": 42, **silent}

    def taking(maker: Maker) -> Maker:
        @wraps(maker)
        def made(**given: Any) -> Schedule:
            if (noise := given.pop(name, None)) is not None:
                raise ValueError(f"noise must be None, got {brief(noise)}: it comes from a generator of torch")
            return maker(**{key: value for key, value in given.items() if key not in silent})

        signature = inspect.signature(maker)
        more = [Parameter(key, Parameter.KEYWORD_ONLY, default=value) for key, value in {name: None, **silent}.items()]
        made.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*signature.parameters.values(), *more]
        )
        return made

    return taking


@_without_noise("noise_range_t", t_in_epochs=True, initialize=True)
def cosine_lr_scheduler(
    *,
    lr: float,
    t_initial: int,
    lr_min: float = 0.0,
    cycle_mul: float = 1.0,
    cycle_decay: float = 1.0,
    cycle_limit: int = 1,
    warmup_t: int = 0,
    warmup_lr_init: float = 0.0,
    warmup_prefix: bool = False,
    k_decay: float = 1.0,
) -> Schedule:
    """Return a Cosine, or a Piecewise of them, and ``lr_min`` after them."""
    if k_decay == 1.0 and cycle_limit > 1:
        course = _cosines(lr, lr_min, t_initial, cycle_mul, cycle_decay, cycle_limit)
    else:
        shape = partial(_cosine, lr_min, k_decay)
        course = _cycles(shape, lr, lr_min, t_initial, cycle_mul, cycle_decay, cycle_limit)
    return _warmed_up(course, lr, warmup_t, warmup_lr_init, prefix=warmup_prefix)


@_without_noise("noise_range_t", t_in_epochs=True, initialize=True)
def tanh_lr_scheduler(
    *,
    lr: float,
    t_initial: int,
    lb: float = -7.0,
    ub: float = 3.0,
    lr_min: float = 0.0,
    cycle_mul: float = 1.0,
    cycle_decay: float = 1.0,
    cycle_limit: int = 1,
    warmup_t: int = 0,
    warmup_lr_init: float = 0.0,
    warmup_prefix: bool = False,
) -> Schedule:
    """Return a Tanh for each cycle, and ``lr_min`` after them."""
    if not lb < ub:
        raise ValueError(f"lb must be less than ub, got {brief(lb)} and {ub!r}")
    shape = partial(_tanh, lr_min, lb, ub)
    course = _cycles(shape, lr, lr_min, t_initial, cycle_mul, cycle_decay, cycle_limit)
    # Here, and in no other class, the warm-up rises to where the course then is.
    target = lr if warmup_prefix else course(whole("warmup_t", warmup_t))
    return _warmed_up(course, lr, warmup_t, warmup_lr_init, prefix=warmup_prefix, target=target)


@_without_noise("noise_range_t", t_in_epochs=True, initialize=True)
def poly_lr_scheduler(
    *,
    lr: float,
    t_initial: int,
    power: float = 0.5,
    lr_min: float = 0.0,
    cycle_mul: float = 1.0,
    cycle_decay: float = 1.0,
    cycle_limit: int = 1,
    warmup_t: int = 0,
    warmup_lr_init: float = 0.0,
    warmup_prefix: bool = False,
    k_decay: float = 1.0,
) -> Schedule:
    """Return a Polynomial for each cycle, and ``lr_min`` after them; with ``k_decay`` a Table."""
    shape = partial(_poly, lr_min, power, k_decay)
    at = partial(_poly_value, lr_min, power, k_decay)
    course = _cycles(shape, lr, lr_min, t_initial, cycle_mul, cycle_decay, cycle_limit, at)
    return _warmed_up(course, lr, warmup_t, warmup_lr_init, prefix=warmup_prefix)


@_without_noise("noise_range_t", t_in_epochs=True, initialize=True)
def step_lr_scheduler(
    *,
    lr: float,
    decay_t: float,
    decay_rate: float = 1.0,
    warmup_t: int = 0,
    warmup_lr_init: float = 0.0,
    warmup_prefix: bool = True,
) -> Schedule:
    """Return a Step, whose length need not be whole."""
    if not decay_t > 0:
        raise ValueError(f"decay_t must be > 0, got {brief(decay_t)}")
    is_whole = decay_t % 1 == 0
    course = Step(lr, int(decay_t), decay_rate) if is_whole else Step(lr, 1, decay_rate).stretch(decay_t)
    return _warmed_up(course, lr, warmup_t, warmup_lr_init, prefix=warmup_prefix)


@_without_noise("noise_range_t", t_in_epochs=True, initialize=True)
def multi_step_lr_scheduler(
    *,
    lr: float,
    decay_t: Sequence[float],
    decay_rate: float = 1.0,
    warmup_t: int = 0,
    warmup_lr_init: float = 0.0,
    warmup_prefix: bool = True,
) -> Schedule:
    """Return a MultiStep, whose milestones are one step earlier."""
    if list(decay_t) != sorted(decay_t):
        raise ValueError(f"decay_t must be sorted, got {list(decay_t)}: timm searches it by halves")
    course = MultiStep(lr, tuple(max(math.ceil(at) - 1, 0) for at in decay_t), decay_rate)
    return _warmed_up(course, lr, warmup_t, warmup_lr_init, prefix=warmup_prefix)


@_without_noise("noise_range_t", noise_type="normal", initialize=True)
def plateau_lr_scheduler(
    *,
    lr: float,
    decay_rate: float = 0.1,
    patience_t: int = 10,
    threshold: float = 1e-4,
    cooldown_t: int = 0,
    warmup_t: int = 0,
    warmup_lr_init: float = 0.0,
    lr_min: float = 0.0,
    mode: str = "max",
) -> Schedule:
    """Return torch's, after a Linear. timm passes by what is reported in the warm-up: report after it."""
    course = torch.reduce_lr_on_plateau(
        lr=lr,
        mode=mode,
        factor=decay_rate,
        patience=patience_t,
        threshold=threshold,
        cooldown=cooldown_t,
        min_lr=lr_min,
    )
    return _warmed_up(course, lr, warmup_t, warmup_lr_init, prefix=True)


@_without_noise("noise_range_t", t_in_epochs=True, initialize=True)
def wsd_lr_scheduler(
    *,
    lr: float,
    t_initial: int,
    decay_t: int,
    lr_min: float = 0.0,
    stable_fn: str = "constant",
    stable_timescale: float | None = None,
    stable_power: float = 0.5,
    decay_fn: str = "1-sqrt",
    decay_power: float = 0.5,
    decay_ratio: float = 0.1,
    warmup_t: int = 0,
    warmup_lr_init: float = 0.0,
) -> Schedule:
    """Return a Linear, a Constant or InverseSqrt, and a fall; a Table where a shape has no other name."""
    steps, decay = whole("t_initial", t_initial), whole("decay_t", decay_t)
    if not 0 < decay <= steps:
        raise ValueError(f"decay_t must be in [1, {t_initial}], t_initial, got {brief(decay_t)}")
    if not 0.0 < decay_ratio < 1.0 or not decay_power > 0.0:
        raise ValueError(
            f"decay_ratio must be in (0, 1) and decay_power > 0, got {brief(decay_ratio)} and {decay_power!r}"
        )
    fall = partial(_fall, decay, decay_fn, decay_power, decay_ratio)
    if stable_fn == "constant":
        top = max(lr, lr_min)
        course = Constant(top).then(fall(top, lr_min), at=steps - decay)
    else:
        timescale = warmup_t if stable_timescale is None else stable_timescale
        stable = _stable(stable_fn, lr, timescale, stable_power, steps)
        if lr_min:
            stable = stable.at_least(lr_min)
        end = stable.shift(decay - steps) * fall(1.0, 0.0)
        if lr_min:
            # lr_min + (stable − lr_min) · f is stable · f + lr_min · (1 − f).
            end = end + fall(0.0, 1.0) * lr_min
        course = stable.then(end, at=steps - decay)
    return _warmed_up(course, lr, warmup_t, warmup_lr_init, prefix=True)


@_without_noise("noise")
def create_scheduler_v2(
    *,
    lr: float,
    sched: str = "cosine",
    num_epochs: int = 300,
    decay_epochs: float | None = None,
    decay_milestones: Sequence[int] = (90, 180, 270),
    cooldown_epochs: int = 0,
    patience_epochs: int = 10,
    decay_rate: float = 0.1,
    min_lr: float = 0.0,
    warmup_lr: float = 1e-5,
    warmup_epochs: int = 0,
    warmup_prefix: bool = False,
    cycle_mul: float = 1.0,
    cycle_decay: float = 0.1,
    cycle_limit: int = 1,
    k_decay: float = 1.0,
    decay_fn: str | None = None,
    stable_timescale: float | None = None,
    plateau_mode: str = "max",
    step_on_epochs: bool = True,
    updates_per_epoch: int = 0,
) -> Schedule:
    """Return what the class does that ``sched`` stands for, with the arguments that it has."""
    del cooldown_epochs
    if not step_on_epochs and not updates_per_epoch > 0:
        raise ValueError(f"updates_per_epoch must be > 0 where step_on_epochs is false, got {brief(updates_per_epoch)}")
    unit = 1 if step_on_epochs else whole("updates_per_epoch", updates_per_epoch)
    steps, warmup = num_epochs * unit, warmup_epochs * unit
    after: dict[str, Any] = {"lr": lr, "warmup_t": warmup, "warmup_lr_init": warmup_lr}
    prefixed = {**after, "warmup_prefix": warmup_prefix}
    cycles: dict[str, Any] = {
        "lr_min": min_lr,
        "cycle_mul": cycle_mul,
        "cycle_decay": cycle_decay,
        "cycle_limit": cycle_limit,
    }
    if sched == "cosine":
        return cosine_lr_scheduler(t_initial=steps, k_decay=k_decay, **cycles, **prefixed)
    if sched == "tanh":
        return tanh_lr_scheduler(t_initial=steps, **cycles, **prefixed)
    if sched == "poly":
        return poly_lr_scheduler(t_initial=steps, power=decay_rate, k_decay=k_decay, **cycles, **prefixed)
    if sched == "step":
        every = 90 if decay_epochs is None else decay_epochs
        return step_lr_scheduler(decay_t=every * unit, decay_rate=decay_rate, **prefixed)
    if sched == "multistep":
        milestones = [at * unit for at in decay_milestones]
        return multi_step_lr_scheduler(decay_t=milestones, decay_rate=decay_rate, **prefixed)
    if sched == "constant":
        return step_lr_scheduler(decay_t=1, decay_rate=1.0, **prefixed)
    if sched == "plateau":
        if unit != 1:
            raise ValueError("plateau steps in epochs alone")
        return plateau_lr_scheduler(
            decay_rate=decay_rate, patience_t=patience_epochs, lr_min=min_lr, mode=plateau_mode, **after
        )
    if sched in ("wsd", "rsqrt"):
        steps -= 0 if warmup_prefix else warmup
        length = 0.2 if decay_epochs is None else decay_epochs
        return wsd_lr_scheduler(
            t_initial=steps,
            decay_t=round(length * (steps if 0 < length < 1 else unit)),
            lr_min=min_lr,
            stable_fn="rsqrt" if sched == "rsqrt" else "constant",
            stable_timescale=None if stable_timescale is None else stable_timescale * unit,
            decay_fn=decay_fn or ("linear" if sched == "rsqrt" else "1-sqrt"),
            **after,
        )
    if sched == "none":
        return Constant(lr)
    raise ValueError(f"there is no sched {sched!r}; there are {', '.join(_SHORT)}, none")


def _warmed_up(
    course: Schedule, lr: float, steps: int, init: float, *, prefix: bool, target: float | None = None
) -> Schedule:
    """Return the course after a warm-up, which counts in it unless it is a prefix."""
    warmup = whole("warmup_t", steps)
    if warmup:
        rest = course if prefix else course.shift(-warmup)
        return Linear(init, lr if target is None else target, warmup).then(rest, at=warmup)
    # timm asks for the rate of the next step after each, so the first one has the optimizer's.
    return course if course(0) == lr else Constant(lr).then(course.shift(-1), at=1)


def _cycles(
    shape: Callable[[float, int], Schedule],
    lr: float,
    lr_min: float,
    t_initial: int,
    cycle_mul: float,
    cycle_decay: float,
    cycle_limit: int,
    at: Callable[[float, float], float] | None = None,
) -> Schedule:
    """Return cycles one after the other; the shape stays at ``lr_min`` at its end.

    ``at`` is the value of a cycle by its peak and the share of it that is over, where the shape has none between steps.
    """
    if not t_initial > 0:
        raise ValueError(f"t_initial must be > 0, got {brief(t_initial)}")
    lengths = [t_initial * cycle_mul**i for i in range(whole("cycle_limit", cycle_limit))]
    if any(length % 1 for length in lengths):
        value = at or (lambda peak, share: shape(peak, 1)._value(share))
        return _fractional_cycles(value, lr, lr_min, lengths, cycle_decay)
    course: Schedule = Constant(lr_min)
    begin = 0
    for i, given in enumerate(lengths):
        length = whole(f"t_initial * cycle_mul**{i}", given)
        cycle = shape(lr * cycle_decay**i, length)
        course = course.then(cycle, at=begin) if i else cycle
        begin += length
    return course


def _fractional_cycles(
    value: Callable[[float, float], float], lr: float, lr_min: float, lengths: Sequence[float], cycle_decay: float
) -> Schedule:
    """Return a table of cycles that begin between steps, and ``lr_min`` after them."""
    if sum(lengths) > _LONGEST_TABLE:
        raise ValueError(f"cycles that begin between steps may have {_LONGEST_TABLE} steps, got {sum(lengths):g}")
    table: list[float] = []
    begin = 0.0
    for i, length in enumerate(lengths):
        peak = lr * cycle_decay**i
        table += [value(peak, (t - begin) / length) for t in range(len(table), math.ceil(begin + length))]
        begin += length
    return Table((*table, lr_min))


def _cosines(
    lr: float, lr_min: float, t_initial: float, cycle_mul: float, cycle_decay: float, cycle_limit: int
) -> Schedule:
    """Return cosines one after the other, each from its peak; their lengths need not be whole."""
    if not t_initial > 0:
        raise ValueError(f"t_initial must be > 0, got {brief(t_initial)}")
    points: list[tuple[float, float]] = []
    begin: float = 0
    for i in range(whole("cycle_limit", cycle_limit)):
        end = begin + t_initial * cycle_mul**i
        points += [(begin, lr * cycle_decay**i), (end, lr_min)]
        begin = end
    return Piecewise(tuple(points), "cosine")


def _cosine(lr_min: float, k_decay: float, peak: float, steps: int) -> Schedule:
    return Cosine(peak, steps, lr_min, k=k_decay)


def _tanh(lr_min: float, lb: float, ub: float, peak: float, steps: int) -> Schedule:
    return Tanh(peak, steps, lr_min, lb, ub)


def _poly(lr_min: float, power: float, k_decay: float, peak: float, steps: int) -> Schedule:
    if power == 0.0:
        return Constant(peak).then(lr_min, at=steps)
    if k_decay == 1.0:
        return Polynomial(peak, steps, lr_min, power)
    return Table(tuple(_poly_value(lr_min, power, k_decay, peak, t / steps) for t in range(steps + 1)))


def _poly_value(lr_min: float, power: float, k_decay: float, peak: float, share: float) -> float:
    return float(lr_min + (peak - lr_min) * (1 - share**k_decay) ** power)


def _stable(shape: str, lr: float, timescale: float, power: float, steps: int) -> Schedule:
    if shape not in ("rsqrt", "power"):
        raise ValueError(f"stable_fn must be 'constant', 'rsqrt' or 'power', got {brief(shape)}")
    if not timescale > 0:
        raise ValueError(f"stable_timescale, or else warmup_t, must be > 0, got {brief(timescale)}")
    if shape == "rsqrt" or power == 0.5:
        return InverseSqrt(lr, timescale)
    if not power > 0.0:
        raise ValueError(f"stable_power must be > 0, got {brief(power)}")
    return Table(tuple(lr * (1.0 + t / timescale) ** -power for t in range(steps + 1)))


def _fall(steps: int, shape: str, power: float, ratio: float, start: float, end: float) -> Schedule:
    """Return the decay from one value to another."""
    if shape == "linear" or (shape == "power" and power == 1.0):
        return Linear(start, end, steps)
    if shape == "1-sqrt" or (shape == "power" and power == 0.5):
        return Sqrt(start, steps, end)
    if shape == "cosine":
        return Cosine(start, steps, end)
    if shape not in ("power", "exp"):
        raise ValueError(f"decay_fn must be 'linear', '1-sqrt', 'cosine', 'power' or 'exp', got {brief(shape)}")
    done = [t / steps for t in range(steps + 1)]
    left = [1.0 - p**power if shape == "power" else (ratio**p - ratio) / (1.0 - ratio) for p in done]
    return Table(tuple(end + (start - end) * share for share in left))


_SHORT = ("cosine", "tanh", "step", "multistep", "poly", "plateau", "wsd", "rsqrt", "constant")

REFUSED: dict[str, str] = {}

NAMES: dict[str, Callable[..., Schedule]] = {
    "CosineLRScheduler": cosine_lr_scheduler,
    "TanhLRScheduler": tanh_lr_scheduler,
    "StepLRScheduler": step_lr_scheduler,
    "MultiStepLRScheduler": multi_step_lr_scheduler,
    "PolyLRScheduler": poly_lr_scheduler,
    "PlateauLRScheduler": plateau_lr_scheduler,
    "WSDLRScheduler": wsd_lr_scheduler,
    "create_scheduler_v2": create_scheduler_v2,
    # The short names have the arguments of `create_scheduler_v2`.
    **{name: partial(create_scheduler_v2, sched=name) for name in _SHORT},
}
