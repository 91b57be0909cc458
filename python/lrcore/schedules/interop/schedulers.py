"""Learning-rate schedulers of PyTorch as schedules."""

from __future__ import annotations

import inspect
import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, cast

from lrcore._ranges import check_count
from lrcore.schedules.compat import get
from lrcore.schedules.compat.torch import NAMES
from lrcore.schedules.interop import imported
from lrcore.schedules.interop.torch import scheduler_class
from lrcore.schedules.schedule import Schedule, constant_from
from lrcore.schedules.unbounded import Constant

if TYPE_CHECKING:
    from collections.abc import Sequence


_COMPOSITES = ("ChainedScheduler", "SequentialLR")
_KNOWN = (*NAMES, *_COMPOSITES)
# Classes that multiply the present learning rate by a factor that does not depend on it.
_FACTORS = (
    "MultiplicativeLR",
    "StepLR",
    "MultiStepLR",
    "ConstantLR",
    "LinearLR",
    "ExponentialLR",
    "PolynomialLR",
)
# Classes that compute from the present learning rate.
_RELATIVE = (*_FACTORS, "CosineAnnealingLR")
# A subclass that overrides one of these has other learning rates.
_OVERRIDES = {"get_lr", "step", "_get_closed_form_lr", "_update_lr", "_initial_step", "scale_fn", "_reduce_lr"}


def schedule_of(scheduler: Any) -> Schedule | tuple[Schedule, ...]:
    """Return the schedule of a scheduler, or a tuple with one for each group if they differ."""
    kind = _kind(scheduler)
    groups = range(len(scheduler.optimizer.param_groups))
    made = tuple(_schedule(scheduler, kind, group) for group in groups)
    return made[0] if all(schedule == made[0] for schedule in made) else made


def _kind(scheduler: Any) -> str:
    """Return the name of the supported class whose learning rates a scheduler has."""
    module = imported("torch.optim.lr_scheduler", "from_torch", "torch")
    for kind in type(scheduler).__mro__:
        name: str = kind.__name__
        if kind is scheduler_class() or (name in _KNOWN and kind is getattr(module, name, None)):
            return name
        if _OVERRIDES & vars(kind).keys():
            break
    raise TypeError(
        f"from_torch: the scheduler must be one of {', '.join(_KNOWN)}, or of a subclass with the same learning rates, "
        f"got {type(scheduler).__qualname__}"
    )


def _schedule(scheduler: Any, kind: str, group: int, lr: float | None = None, taken: int = 0) -> Schedule:
    """Return the schedule of a group.

    Args:
        scheduler: The scheduler.
        kind: The name of its class.
        group: The index of the group.
        lr: The initial learning rate of a scheduler that multiplies the present one; None is the group's.
        taken: The number of ``step()`` calls before step 0, by the sequences of which it is the first part.
    """
    if kind == "ScheduleLR":
        return _own(scheduler, group)
    if kind == "SequentialLR":
        return _sequence(scheduler, group, taken)
    if kind == "ChainedScheduler":
        return _chain(scheduler, group, lr, taken)
    if taken:
        return _stepped(scheduler, kind, group, lr)
    # The arguments that torch's class keeps as attributes of the same names, for all groups.
    names = [name for name in inspect.signature(NAMES[kind]).parameters if name != "last_epoch"]
    arguments = {name: getattr(scheduler, name) for name in names if hasattr(scheduler, name)}
    if kind == "CyclicLR":
        return get(kind, source="torch", **{**arguments, **_cyclic(scheduler, group)})
    if kind == "OneCycleLR":
        return get(kind, source="torch", **{**arguments, **_one_cycle(scheduler, group)})
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
    """Return the schedule of a ScheduleLR."""
    if scheduler.name != "lr":
        raise ValueError(f"from_torch: the scheduler sets {scheduler.name!r}, not the learning rate")
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
    values = scheduler.optimizer.param_groups[group]
    first, top, last = (float(values[name]) for name in ("initial_lr", "max_lr", "min_lr"))
    if not top > 0.0 or not last > 0.0:
        raise ValueError(f"from_torch: OneCycleLR must have learning rates > 0, got max_lr {top} and at the end {last}")
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
    """Return the schedule of a scheduler whose step 0 is a call of ``step()``, which multiplies some learning rates."""
    if kind == "CosineAnnealingLR":
        start, end, half = float(scheduler.base_lrs[group]) if lr is None else lr, scheduler.eta_min, scheduler.T_max
        rise = 2.0 / (1.0 + math.cos(math.pi / half)) if half > 1 else 2.0
        raised = _schedule(scheduler, kind, group, end + (start - end) * rise)
        # After the minimum, torch computes from the base learning rate again.
        return raised.then(_schedule(scheduler, kind, group, lr).shift(-half), at=half)
    schedule = _schedule(scheduler, kind, group, lr)
    if kind == "ExponentialLR":
        factor = scheduler.gamma
    elif kind == "MultiplicativeLR":
        factor = scheduler.lr_lambdas[group](0)
    elif kind == "PolynomialLR":
        factor = (scheduler.total_iters / (scheduler.total_iters + 1)) ** scheduler.power
    else:
        return schedule
    return schedule.scale(factor)


def _sequence(scheduler: Any, group: int, taken: int) -> Schedule:
    """Return the schedule of a SequentialLR.

    Each enclosing sequence calls its ``step()`` once on construction without undoing it: its milestones come as many
    steps earlier.
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
    # Torch begins with the last part whose milestone is 0, and with the group's initial learning rate.
    first = bisect_right(milestones, taken)
    lr = float(scheduler.optimizer.param_groups[group]["initial_lr"])
    part, kind = parts[first]
    if 0 < taken == (milestones[first - 1] if first else 0):
        schedule = _begun(part, kind, group, lr)
    else:
        schedule = _schedule(part, kind, group, lr, taken + (kind in _COMPOSITES))
    for at, (part, kind) in list(zip(milestones, parts[1:], strict=True))[first:]:
        schedule = schedule.then(_begun(part, kind, group, schedule(at - taken - 1)), at=at - taken)
    return schedule


def _begun(part: Any, kind: str, group: int, present: float) -> Schedule:
    """Return the schedule of a part from its milestone on; a MultiplicativeLR begins at the present learning rate."""
    if kind == "ConstantLR" and part.total_iters == 0:
        # Its factor is neither applied nor removed.
        return Constant(float(part.base_lrs[group]))
    lr = present * part.lr_lambdas[group](0) if kind == "MultiplicativeLR" else None
    return _schedule(part, kind, group, lr)


def _chain(scheduler: Any, group: int, lr: float | None, taken: int) -> Schedule:
    """Return the product of the schedules of a ChainedScheduler."""
    parts = _links(scheduler)
    if len(parts) > 1:
        _check_product(parts, group, taken)
    schedule = _schedule(*parts[0], group, lr, taken)
    for part, kind in parts[1:]:
        schedule = schedule * _schedule(part, kind, group, lr=1.0, taken=taken)
    return schedule


def _links(scheduler: Any) -> list[tuple[Any, str]]:
    """Return the parts of a ChainedScheduler with their kinds, those of nested ones included."""
    parts = [(part, _kind(part)) for part in scheduler._schedulers]
    return [link for part, kind in parts for link in (_links(part) if kind == "ChainedScheduler" else [(part, kind)])]


def _check_product(parts: Sequence[tuple[Any, str]], group: int, taken: int) -> None:
    """Raise if torch's learning rates are not the product of those of the parts."""
    cosines = [part for part, kind in parts if kind == "CosineAnnealingLR"]
    for part, kind in parts:
        if kind not in _RELATIVE:
            raise ValueError(
                f"from_torch: a ChainedScheduler with a {kind}, which overwrites learning rates, has no closed form"
            )
        if kind == "CosineAnnealingLR" and (len(cosines) > 1 or part.eta_min != 0.0 or (taken and part.T_max == 1)):
            raise ValueError(
                "from_torch: a ChainedScheduler with a CosineAnnealingLR that has an eta_min, or with two of them, has "
                "no closed form"
            )
    if not cosines:
        return
    # At its minimum the cosine restarts from 0, which discards the factors of the others.
    for part, kind in parts:
        if kind in _FACTORS:
            factor = _schedule(part, kind, group, lr=1.0)
            end = constant_from(factor)
            if end is None or end > cosines[0].T_max or factor(end) != 1.0:
                raise ValueError(
                    f"from_torch: a ChainedScheduler with a CosineAnnealingLR and a {kind} that is not back at 1 by "
                    f"T_max, {cosines[0].T_max}, has no closed form"
                )
