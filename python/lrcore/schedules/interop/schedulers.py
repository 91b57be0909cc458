"""Schedulers of PyTorch as schedules."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, cast

from lrcore._ranges import check_count
from lrcore.schedules.compat import get
from lrcore.schedules.interop import imported
from lrcore.schedules.interop.torch import scheduler_class
from lrcore.schedules.schedule import constant_from
from lrcore.schedules.unbounded import Constant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lrcore.schedules.schedule import Schedule

# The arguments of torch's classes that they keep by their names, for all groups.
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "LambdaLR": (),
    "MultiplicativeLR": (),
    "StepLR": ("step_size", "gamma"),
    "MultiStepLR": ("gamma",),
    "ConstantLR": ("factor", "total_iters"),
    "LinearLR": ("start_factor", "end_factor", "total_iters"),
    "ExponentialLR": ("gamma",),
    "PolynomialLR": ("total_iters", "power"),
    "CosineAnnealingLR": ("T_max", "eta_min"),
    "CosineAnnealingWarmRestarts": ("T_0", "T_mult", "eta_min"),
    "CyclicLR": ("mode", "gamma", "scale_mode"),
    "OneCycleLR": ("total_steps",),
    "ReduceLROnPlateau": ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "eps"),
}
_COMPOSITES = ("ChainedScheduler", "SequentialLR")
_KNOWN = (*_ARGUMENTS, *_COMPOSITES)
# Those that multiply the rate that is there, by a factor that does not depend on it.
_FACTORS = (
    "MultiplicativeLR",
    "StepLR",
    "MultiStepLR",
    "ConstantLR",
    "LinearLR",
    "ExponentialLR",
    "PolynomialLR",
)
# Those that follow the rate that is there.
_RELATIVE = (*_FACTORS, "CosineAnnealingLR")
# A subclass that has one of its own is another schedule.
_COURSE = {"get_lr", "step", "_get_closed_form_lr", "_update_lr", "_initial_step", "scale_fn", "_reduce_lr"}


def schedule_of(scheduler: Any) -> Schedule | tuple[Schedule, ...]:
    """Return the schedule of a scheduler, or one for each group where they differ."""
    kind = _kind(scheduler)
    groups = range(len(scheduler.optimizer.param_groups))
    courses = tuple(_course(scheduler, kind, group) for group in groups)
    return courses[0] if all(course == courses[0] for course in courses) else courses


def _kind(scheduler: Any) -> str:
    """Return the name of the known class whose rates a scheduler has."""
    module = imported("torch.optim.lr_scheduler", "from_torch", "torch")
    for kind in type(scheduler).__mro__:
        name: str = kind.__name__
        if kind is scheduler_class() or (name in _KNOWN and kind is getattr(module, name, None)):
            return name
        if _COURSE & vars(kind).keys():
            break
    raise TypeError(
        f"from_torch: the scheduler must be one of {', '.join(_KNOWN)}, or of a subclass with the same rates, "
        f"got {type(scheduler).__qualname__}"
    )


def _course(scheduler: Any, kind: str, group: int, lr: float | None = None, taken: int = 0) -> Schedule:
    """Return the schedule of a group.

    Args:
        scheduler: The scheduler.
        kind: The name of its class.
        group: The index of the group.
        lr: The learning rate at which a scheduler that multiplies the present one begins; None is that of the group.
        taken: How often ``step()`` had been called on it before step 0, by the sequences that it is the first part of.
    """
    if kind == "ScheduleLR":
        return _own(scheduler, group)
    if kind == "SequentialLR":
        return _sequence(scheduler, group, taken)
    if kind == "ChainedScheduler":
        return _chain(scheduler, group, lr, taken)
    if taken:
        return _stepped(scheduler, kind, group, lr)
    arguments = {name: getattr(scheduler, name) for name in _ARGUMENTS[kind]}
    if kind == "CyclicLR":
        return get(kind, source="torch", **arguments, **_cyclic(scheduler, group))
    if kind == "OneCycleLR":
        return get(kind, source="torch", **arguments, **_one_cycle(scheduler, group))
    if kind in ("LambdaLR", "MultiplicativeLR"):
        arguments["lr_lambda"] = scheduler.lr_lambdas[group]
    elif kind == "MultiStepLR":
        arguments["milestones"] = list(scheduler.milestones.elements())
    if kind == "ReduceLROnPlateau":
        arguments["min_lr"] = scheduler.min_lrs[group]
        lr = float(scheduler.optimizer.param_groups[group]["lr"])
    elif lr is None or kind not in _RELATIVE:
        lr = float(scheduler.base_lrs[group])
    return get(kind, source="torch", lr=lr, **arguments)


def _own(scheduler: Any, group: int) -> Schedule:
    """Return what a ScheduleLR was made of."""
    if scheduler.name != "lr":
        raise ValueError(f"from_torch: the scheduler sets {scheduler.name!r}, not the rate")
    schedule = scheduler.schedule[group] if isinstance(scheduler.schedule, tuple) else scheduler.schedule
    return cast("Schedule", schedule * scheduler._ratios()[group] if scheduler.keep_ratios else schedule)


def _cyclic(scheduler: Any, group: int) -> dict[str, Any]:
    up = round(scheduler.total_size * scheduler.step_ratio, 9)
    down = round(scheduler.total_size - up, 9)
    return {
        "base_lr": float(scheduler.base_lrs[group]),
        "max_lr": float(scheduler.max_lrs[group]),
        "step_size_up": up,
        "step_size_down": down,
        "scale_fn": scheduler._scale_fn_custom,
    }


def _one_cycle(scheduler: Any, group: int) -> dict[str, Any]:
    rates = scheduler.optimizer.param_groups[group]
    first, top, last = (float(rates[name]) for name in ("initial_lr", "max_lr", "min_lr"))
    if not top > 0.0 or not last > 0.0:
        raise ValueError(f"from_torch: OneCycleLR must have rates > 0, got max_lr {top} and at the end {last}")
    phases = scheduler._schedule_phases
    return {
        "max_lr": top,
        "pct_start": (phases[0]["end_step"] + 1.0) / scheduler.total_steps,
        "anneal_strategy": scheduler._anneal_func_type,
        "div_factor": top / first,
        "final_div_factor": first / last,
        "three_phase": len(phases) == 3,
    }


def _stepped(scheduler: Any, kind: str, group: int, lr: float | None) -> Schedule:
    """Return the schedule of a scheduler whose step 0 was a call of ``step()``, which some multiply the rate at."""
    if kind == "CosineAnnealingLR":
        start, end, half = float(scheduler.base_lrs[group]) if lr is None else lr, scheduler.eta_min, scheduler.T_max
        rise = 2.0 / (1.0 + math.cos(math.pi / half)) if half > 1 else 2.0
        raised = _course(scheduler, kind, group, end + (start - end) * rise)
        # From the turn on, torch computes with the base rate again.
        return raised.then(_course(scheduler, kind, group, lr).shift(-half), at=half)
    course = _course(scheduler, kind, group, lr)
    if kind == "ExponentialLR":
        factor = scheduler.gamma
    elif kind == "MultiplicativeLR":
        factor = scheduler.lr_lambdas[group](0)
    elif kind == "PolynomialLR":
        factor = (scheduler.total_iters / (scheduler.total_iters + 1)) ** scheduler.power
    else:
        return course
    return course.scale(factor)


def _sequence(scheduler: Any, group: int, taken: int) -> Schedule:
    """Return the schedules of a SequentialLR, one after the other.

    Each sequence around it calls its ``step()`` once as it is made, and does not take that back: its milestones come
    as many steps earlier.
    """
    milestones = [check_count("from_torch: a milestone", at) for at in scheduler._milestones]
    if milestones != sorted(milestones):
        raise ValueError(f"from_torch: milestones of a SequentialLR must not fall, got {milestones}")
    parts = [(part, _kind(part)) for part in scheduler._schedulers]
    for _, kind in parts[bisect_right(milestones, 0) + 1 :]:
        if kind in _COMPOSITES:
            raise ValueError(
                f"from_torch: a {kind} within a SequentialLR must be its first part; PyTorch raises a "
                f"NotImplementedError where a later one begins"
            )
    # Torch begins with the last one whose milestone is 0, and with the rate that the group has for its first.
    first = bisect_right(milestones, taken)
    rate = float(scheduler.optimizer.param_groups[group]["initial_lr"])
    part, kind = parts[first]
    if 0 < taken == (milestones[first - 1] if first else 0):
        course = _begun(part, kind, group, rate)
    else:
        course = _course(part, kind, group, rate, taken + (kind in _COMPOSITES))
    for at, (part, kind) in list(zip(milestones, parts[1:], strict=True))[first:]:
        course = course.then(_begun(part, kind, group, course(at - taken - 1)), at=at - taken)
    return course


def _begun(part: Any, kind: str, group: int, rate: float) -> Schedule:
    """Return the schedule of a part that begins at its milestone: a MultiplicativeLR at the rate that is there."""
    if kind == "ConstantLR" and part.total_iters == 0:
        # It has no factor where it begins, and takes none later.
        return Constant(float(part.base_lrs[group]))
    lr = rate * part.lr_lambdas[group](0) if kind == "MultiplicativeLR" else None
    return _course(part, kind, group, lr)


def _chain(scheduler: Any, group: int, lr: float | None, taken: int) -> Schedule:
    """Return the product of the schedules of a ChainedScheduler."""
    parts = _links(scheduler)
    if len(parts) > 1:
        _check_product(parts, group, taken)
    course = _course(*parts[0], group, lr, taken)
    for part, kind in parts[1:]:
        course = course * _course(part, kind, group, lr=1.0, taken=taken)
    return course


def _links(scheduler: Any) -> list[tuple[Any, str]]:
    """Return the parts of a ChainedScheduler with their kinds, those of one within it in its place."""
    parts = [(part, _kind(part)) for part in scheduler._schedulers]
    return [link for part, kind in parts for link in (_links(part) if kind == "ChainedScheduler" else [(part, kind)])]


def _check_product(parts: Sequence[tuple[Any, str]], group: int, taken: int) -> None:
    """Raise if torch's rates are not the product of those of the parts."""
    cosines = [part for part, kind in parts if kind == "CosineAnnealingLR"]
    for part, kind in parts:
        if kind not in _RELATIVE:
            raise ValueError(
                f"from_torch: a ChainedScheduler with a {kind}, which overwrites rates, has no closed form"
            )
        if kind == "CosineAnnealingLR" and (len(cosines) > 1 or part.eta_min != 0.0 or (taken and part.T_max == 1)):
            raise ValueError(
                "from_torch: a ChainedScheduler with a CosineAnnealingLR that has an eta_min, or with two of them, has "
                "no closed form"
            )
    if not cosines:
        return
    # Where the cosine turns, torch begins anew at 0, and forgets what the others have done.
    for part, kind in parts:
        if kind in _FACTORS:
            factor = _course(part, kind, group, lr=1.0)
            end = constant_from(factor)
            if end is None or end > cosines[0].T_max or factor(end) != 1.0:
                raise ValueError(
                    f"from_torch: a ChainedScheduler with a CosineAnnealingLR and a {kind} that is not back at 1 by "
                    f"T_max, {cosines[0].T_max}, has no closed form"
                )
