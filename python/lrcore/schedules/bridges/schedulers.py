"""Schedulers of PyTorch as schedules."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any, cast

from lrcore._ranges import check_count
from lrcore.schedules.bridges import imported
from lrcore.schedules.bridges.torch import scheduler_class
from lrcore.schedules.elsewhere import get
from lrcore.schedules.schedule import settled

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


def _course(scheduler: Any, kind: str, group: int, lr: float | None = None) -> Schedule:
    """Return the schedule of a group; one that follows the rate that is there begins at another one if it is given."""
    if kind == "ScheduleLR":
        return _own(scheduler, group)
    if kind == "SequentialLR":
        return _sequence(scheduler, group)
    if kind == "ChainedScheduler":
        return _chain(scheduler, group)
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


def _sequence(scheduler: Any, group: int) -> Schedule:
    """Return the schedules of a SequentialLR, one after the other."""
    milestones = [check_count("from_torch: a milestone", at) for at in scheduler._milestones]
    if milestones != sorted(milestones):
        raise ValueError(f"from_torch: milestones of a SequentialLR must not fall, got {milestones}")
    kinds = _kinds(scheduler)
    # Torch begins with the last one whose milestone is 0, and with the rate that the group has for its first.
    first = bisect_right(milestones, 0)
    rate = float(scheduler.optimizer.param_groups[group]["initial_lr"])
    course = _course(scheduler._schedulers[first], kinds[first], group, rate)
    parts = zip(scheduler._schedulers, kinds, strict=True)
    for at, (part, kind) in list(zip(milestones, list(parts)[1:], strict=True))[first:]:
        # A MultiplicativeLR takes the rate that is there, all others their own.
        rates = {"lr": course(at - 1) * part.lr_lambdas[group](0)} if kind == "MultiplicativeLR" else {}
        course = course.then(_course(part, kind, group, **rates), at=at)
    return course


def _chain(scheduler: Any, group: int) -> Schedule:
    """Return the product of the schedules of a ChainedScheduler."""
    parts = list(zip(scheduler._schedulers, _kinds(scheduler), strict=True))
    if len(parts) > 1:
        _check_product(parts, group)
    course = _course(*parts[0], group)
    for part, kind in parts[1:]:
        course = course * _course(part, kind, group, lr=1.0)
    return course


def _check_product(parts: Sequence[tuple[Any, str]], group: int) -> None:
    """Raise if torch's rates are not the product of those of the parts."""
    cosines = [part for part, kind in parts if kind == "CosineAnnealingLR"]
    for part, kind in parts:
        if kind not in _RELATIVE:
            raise ValueError(
                f"from_torch: a ChainedScheduler with a {kind}, which overwrites rates, has no closed form"
            )
        if kind == "CosineAnnealingLR" and (len(cosines) > 1 or part.eta_min != 0.0):
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
            end = settled(factor)
            if end is None or end > cosines[0].T_max or factor(end) != 1.0:
                raise ValueError(
                    f"from_torch: a ChainedScheduler with a CosineAnnealingLR and a {kind} that is not back at 1 by "
                    f"T_max, {cosines[0].T_max}, has no closed form"
                )


def _kinds(scheduler: Any) -> list[str]:
    kinds = [_kind(part) for part in scheduler._schedulers]
    if nested := [kind for kind in kinds if kind in _COMPOSITES]:
        raise ValueError(
            f"from_torch: {nested[0]} within {type(scheduler).__name__} is no sequence or product in torch"
        )
    return kinds
