"""The names of ``torch.optim.lr_scheduler``. A step is a call of ``scheduler.step()``."""

# The functions have the names and arguments of torch's classes.
# ruff: noqa: N802, N803

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from lrcore import schedules
from lrcore._messages import brief
from lrcore.schedules.compat import Maker, Whole, accepting, check_positive, makers_in, wave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lrcore.schedules.schedule import Schedule


def LambdaLR(*, lr: float, lr_lambda: Callable[[int], float]) -> Schedule:
    """Return the learning rate times a Lambda."""
    return schedules.Lambda(lr_lambda) * lr


def MultiplicativeLR(*, lr: float, lr_lambda: Callable[[int], float]) -> Schedule:
    """Return the learning rate times the product of a function's values from step 1 on."""
    return schedules.Lambda(_Products(lr_lambda)) * lr


def StepLR(*, lr: float, step_size: Whole, gamma: float = 0.1) -> Schedule:
    """Return a Step."""
    return schedules.Step(lr, step_size, gamma)


def MultiStepLR(*, lr: float, milestones: Iterable[int], gamma: float = 0.1) -> Schedule:
    """Return a MultiStep. Torch never reaches fractional or negative milestones."""
    return schedules.MultiStep(lr, tuple(sorted(int(at) for at in milestones if at >= 0 and at % 1 == 0)), gamma)


def ConstantLR(*, lr: float, factor: float = 1.0 / 3, total_iters: Whole = 5) -> Schedule:
    """Return two Constant: the scaled, then the full learning rate. With 0 steps torch keeps the scaled one."""
    if not 0.0 < factor <= 1.0:
        raise ValueError(f"factor must be in (0, 1], got {brief(factor)}: torch divides by it to undo it")
    scaled = schedules.Constant(lr * factor)
    return scaled.then(lr, at=total_iters) if total_iters > 0 else scaled


def LinearLR(*, lr: float, start_factor: float = 1.0 / 3, end_factor: float = 1.0, total_iters: Whole = 5) -> Schedule:
    """Return a Linear between two fractions of the learning rate. With 0 steps torch keeps the first one."""
    if not 0.0 < start_factor <= 1.0 or not 0.0 <= end_factor <= 1.0:
        raise ValueError(f"start_factor must be in (0, 1] and end_factor in [0, 1], got {start_factor}, {end_factor}")
    if total_iters <= 0:
        return schedules.Constant(lr * start_factor)
    return schedules.Linear(lr * start_factor, lr * end_factor, total_iters)


def ExponentialLR(*, lr: float, gamma: float) -> Schedule:
    """Return an Exponential."""
    return schedules.Exponential(lr, gamma)


def PolynomialLR(*, lr: float, total_iters: Whole = 5, power: float = 1.0) -> Schedule:
    """Return a Polynomial to 0. With 0 steps or power 0 torch keeps the learning rate."""
    if total_iters <= 0 or power == 0.0:
        return schedules.Constant(lr)
    return schedules.Polynomial(lr, total_iters, power=power)


def CosineAnnealingLR(*, lr: float, T_max: float, eta_min: float = 0.0) -> Schedule:
    """Return a CosineAnnealing, which rises again after ``T_max``."""
    check_positive("T_max", T_max)
    return wave(lr, eta_min, T_max)


def CosineAnnealingWarmRestarts(*, lr: float, T_0: Whole, T_mult: Whole = 1, eta_min: float = 0.0) -> Schedule:
    """Return CosineRestarts."""
    return schedules.CosineRestarts(lr, T_0, eta_min, factor=T_mult)


def CyclicLR(
    *,
    base_lr: float,
    max_lr: float,
    step_size_up: Whole = 2000,
    step_size_down: Whole | None = None,
    mode: str = "triangular",
    gamma: float = 1.0,
    scale_fn: Callable[[float], float] | None = None,
    scale_mode: str = "cycle",
) -> Schedule:
    """Return a Cyclic. Torch overwrites the optimizer's learning rate with ``base_lr``."""
    up, down = step_size_up, step_size_up if step_size_down is None else step_size_down
    if scale_fn is None:
        return schedules.Cyclic(base_lr, max_lr, up, down, mode, gamma if mode == "exp_range" else 1.0)
    scale = partial(_of_cycle, scale_fn, up + down) if scale_mode == "cycle" else scale_fn
    return schedules.Cyclic(0.0, max_lr - base_lr, up, down) * schedules.Lambda(scale) + base_lr


def OneCycleLR(
    *,
    max_lr: float,
    total_steps: Whole | None = None,
    epochs: Whole | None = None,
    steps_per_epoch: Whole | None = None,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Schedule:
    """Return a OneCycle. Torch overwrites the optimizer's learning rate with the first value."""
    if total_steps is None:
        if epochs is None or steps_per_epoch is None:
            raise ValueError("total_steps, or both epochs and steps_per_epoch, must be given")
        total_steps = epochs * steps_per_epoch
    if anneal_strategy not in ("cos", "linear"):
        raise ValueError(f"anneal_strategy must be 'cos' or 'linear', got {brief(anneal_strategy)}")
    if pct_start * total_steps == 1.0:
        raise ValueError(
            f"pct_start * total_steps must not be 1, got {brief(pct_start)} and {total_steps}: torch divides by 0"
        )
    shape = "cosine" if anneal_strategy == "cos" else "linear"
    if pct_start == 1.0 and not three_phase:
        return schedules.Piecewise(((0, max_lr / div_factor), (total_steps - 1, max_lr)), shape)
    return schedules.OneCycle(max_lr, total_steps, pct_start, shape, div_factor, final_div_factor, three_phase)


def ReduceLROnPlateau(
    *,
    lr: float,
    mode: str = "min",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: str = "rel",
    cooldown: int = 0,
    min_lr: float = 0.0,
    eps: float = 1e-8,
) -> Schedule:
    """Return the learning rate times a ReduceOnPlateau, at least the value at which torch stops reducing."""
    if not factor < 1.0:
        raise ValueError(f"factor must be < 1, got {brief(factor)}")
    if threshold_mode not in ("rel", "abs"):
        raise ValueError(f"threshold_mode must be 'rel' or 'abs', got {brief(threshold_mode)}")
    plateau = schedules.ReduceOnPlateau(
        factor, patience, mode, threshold=threshold, relative=threshold_mode == "rel", cooldown=cooldown
    )
    return (schedules.Constant(lr) * plateau).at_least(_smallest_lr(lr, factor, min_lr, eps))


def _smallest_lr(lr: float, factor: float, min_lr: float, eps: float) -> float:
    """Return the learning rate after which a reduction would be less than ``eps``, which torch skips."""
    if eps <= 0.0:
        return min(lr, min_lr)
    while lr - max(lr * factor, min_lr) > eps:
        lr = max(lr * factor, min_lr)
    return lr


def _of_cycle(function: Callable[[float], float], period: int, step: int) -> float:
    """Return the function of the cycle of a step, counted from 1."""
    return function(1 + step // period)


class _Products:
    """The cumulative product of a function's values, from step 1 on."""

    def __init__(self, function: Callable[[int], float]) -> None:
        if not callable(function):
            raise TypeError(f"lr_lambda must be callable, got {brief(function)}")
        self._function = function
        self._products = [1.0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Products) and self._function == other._function

    def __hash__(self) -> int:
        return hash(self._function)

    def __call__(self, step: int) -> float:
        for k in range(len(self._products), step + 1):
            self._products.append(self._products[-1] * self._function(k))
        return self._products[step]


_LIVE = "it is made of schedulers, not of numbers; combine schedules with then() and *"

REFUSED = {"SequentialLR": _LIVE, "ChainedScheduler": _LIVE}

_IGNORED: dict[str, dict[str, Any]] = {
    "CyclicLR": {"cycle_momentum": True, "base_momentum": 0.8, "max_momentum": 0.9},
    "OneCycleLR": {"cycle_momentum": True, "base_momentum": 0.85, "max_momentum": 0.95},
}

NAMES: dict[str, Maker] = {
    name: accepting(maker, **_IGNORED.get(name, {}), fixed={"last_epoch": -1})
    for name, maker in makers_in(globals()).items()
}
NAMES["ReduceLROnPlateau"] = ReduceLROnPlateau
