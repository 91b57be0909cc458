"""The names of ``transformers.optimization``. A step is a call of ``scheduler.step()``, an update of its Trainer.

A warm-up begins at 0, and ``num_training_steps`` includes it.
"""

from __future__ import annotations

from lrcore._messages import brief
from lrcore.schedules import Constant, Cosine, CosineRestarts, InverseSqrt, Linear, Polynomial, Schedule, Sqrt
from lrcore.schedules.compat import Maker, Whole, accepting, makers_in, then_after, wave
from lrcore.schedules.compat.torch import ReduceLROnPlateau


def get_constant_schedule(*, lr: float) -> Schedule:
    """Return a Constant."""
    return Constant(lr)


def get_constant_schedule_with_warmup(*, lr: float, num_warmup_steps: Whole) -> Schedule:
    """Return a Linear from 0."""
    return Linear(0.0, lr, num_warmup_steps)


def get_linear_schedule_with_warmup(*, lr: float, num_warmup_steps: Whole, num_training_steps: Whole) -> Schedule:
    """Return two Linear: warm-up and decay."""
    return _after(num_warmup_steps, lr, Linear(lr, 0.0, max(num_training_steps - num_warmup_steps, 0)))


def get_cosine_schedule_with_warmup(
    *, lr: float, num_warmup_steps: Whole, num_training_steps: Whole, num_cycles: float = 0.5
) -> Schedule:
    """Return a Linear and a CosineAnnealing, which rises again after ``num_training_steps``."""
    return _after(num_warmup_steps, lr, _cycles(lr, 0.0, num_training_steps - num_warmup_steps, num_cycles))


def get_cosine_with_hard_restarts_schedule_with_warmup(
    *, lr: float, num_warmup_steps: Whole, num_training_steps: Whole, num_cycles: float = 1
) -> Schedule:
    """Return a Linear, CosineRestarts, and 0 from ``num_training_steps`` on."""
    warmup, steps = num_warmup_steps, num_training_steps - num_warmup_steps
    if not 0 <= num_cycles <= max(1, steps):
        raise ValueError(
            f"num_cycles must be in [0, {max(1, steps)}], the steps after the warm-up, got {brief(num_cycles)}"
        )
    schedule = CosineRestarts(lr, max(1, steps) / num_cycles) if num_cycles != 0 else Constant(lr)
    return _after(warmup, lr, schedule.then(0.0, at=max(1, steps)))


def get_polynomial_decay_schedule_with_warmup(
    *,
    lr: float,
    num_warmup_steps: Whole,
    num_training_steps: Whole,
    lr_end: float = 1e-7,
    power: float = 1.0,
) -> Schedule:
    """Return a Linear and a Polynomial."""
    if not lr > lr_end:
        raise ValueError(f"lr_end must be less than lr, {lr!r}, got {brief(lr_end)}")
    warmup, steps = num_warmup_steps, num_training_steps - num_warmup_steps
    if steps == 0:
        raise ValueError(f"num_warmup_steps must not be num_training_steps, got {warmup}: transformers divides by 0")
    if power == 0.0:
        # 0 to the power 0 is 1, so the last step itself still has the full learning rate.
        return _after(warmup, lr, Constant(lr).then(lr_end, at=max(steps + 1, 0)))
    return _after(warmup, lr, Polynomial(lr, max(steps, 0), lr_end, power))


def get_inverse_sqrt_schedule(*, lr: float, num_warmup_steps: Whole, timescale: float | None = None) -> Schedule:
    """Return a Linear and an InverseSqrt."""
    timescale = (num_warmup_steps or 10_000) if timescale is None else timescale
    return _after(num_warmup_steps, lr, InverseSqrt(lr, timescale))


def get_cosine_with_min_lr_schedule_with_warmup(
    *,
    lr: float,
    num_warmup_steps: Whole,
    num_training_steps: Whole,
    num_cycles: float = 0.5,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
) -> Schedule:
    """Return a Linear and a CosineAnnealing, which rises again after ``num_training_steps``."""
    warmup, steps = num_warmup_steps, num_training_steps - num_warmup_steps
    return _after(warmup, lr, _cycles(lr, _smallest_lr(lr, min_lr, min_lr_rate), steps, num_cycles))


def get_cosine_with_min_lr_schedule_with_warmup_lr_rate(
    *,
    lr: float,
    num_warmup_steps: Whole,
    num_training_steps: Whole,
    num_cycles: float = 0.5,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
    warmup_lr_rate: float | None = None,
) -> Schedule:
    """Return a Linear and a CosineAnnealing, both one step ahead."""
    warmup, steps = num_warmup_steps, num_training_steps - num_warmup_steps
    schedule = _cycles(lr, _smallest_lr(lr, min_lr, min_lr_rate), steps, num_cycles).shift(-1)
    if warmup == 0:
        return schedule
    if warmup_lr_rate is None:
        return Linear(0.0, lr, warmup).shift(-1).then(schedule, at=warmup)
    return Linear(lr * warmup_lr_rate, lr, max(1, warmup - 1)).then(schedule, at=warmup)


def get_wsd_schedule(
    *,
    lr: float,
    num_warmup_steps: Whole,
    num_decay_steps: Whole,
    num_training_steps: Whole | None = None,
    num_stable_steps: Whole | None = None,
    warmup_type: str = "linear",
    decay_type: str = "cosine",
    min_lr_ratio: float = 0.0,
    num_cycles: float = 0.5,
) -> Schedule:
    """Return a warm-up, a Constant and a decay. ``num_stable_steps`` takes precedence over the total length."""
    warmup, stable = num_warmup_steps, num_stable_steps
    if stable is None:
        if num_training_steps is None:
            raise ValueError("num_training_steps or num_stable_steps must be given")
        stable = num_training_steps - warmup - num_decay_steps
    for name, shape in (("warmup_type", warmup_type), ("decay_type", decay_type)):
        if shape not in ("linear", "cosine", "1-sqrt"):
            raise ValueError(f"{name} must be 'linear', 'cosine' or '1-sqrt', got {brief(shape)}")
    low = lr * min_lr_ratio
    rise: Schedule = Linear(low, lr, warmup)
    if warmup_type != "linear":
        rise = Cosine(low, warmup, lr) if warmup_type == "cosine" else Polynomial(low, warmup, lr, power=0.5)
    decay = _wsd_decay(lr, low, num_decay_steps, decay_type, num_cycles)
    # If the phases are longer than the run, the decay begins during the warm-up and is visible after it.
    schedule = Constant(lr).then(decay, at=stable) if stable > 0 else decay.shift(stable) if stable < 0 else decay
    return then_after(rise, warmup, schedule)


def _after(warmup: int, lr: float, schedule: Schedule) -> Schedule:
    return then_after(Linear(0.0, lr, warmup), warmup, schedule)


def _cycles(lr: float, low: float, steps: int, num_cycles: float) -> Schedule:
    """Return a cosine with ``num_cycles`` cycles in a number of steps, which continues after them."""
    return wave(lr, low, max(1, steps) / abs(2.0 * num_cycles)) if num_cycles != 0 else Constant(lr)


def _smallest_lr(lr: float, min_lr: float | None, min_lr_rate: float | None) -> float:
    """Return the smallest learning rate, given as a value or as a fraction."""
    if (min_lr is None) == (min_lr_rate is None):
        raise ValueError(f"min_lr or min_lr_rate must be given, and not both, got {brief(min_lr)} and {min_lr_rate!r}")
    return min_lr if min_lr is not None else lr * (min_lr_rate or 0.0)


def _wsd_decay(lr: float, low: float, steps: int, shape: str, num_cycles: float) -> Schedule:
    if shape == "1-sqrt":
        return Sqrt(lr, steps, low)
    if shape == "linear" or steps == 0:
        return Linear(lr, low, steps)
    return Cosine(lr, steps, low) if num_cycles == 0.5 else _cycles(lr, low, steps, num_cycles).then(low, at=steps)


_GREEDY = "its learning rate rises and falls with a metric; torch's ReduceLROnPlateau falls with one"

REFUSED = {"greedy": _GREEDY, "get_greedy_schedule": _GREEDY, "GreedyLR": _GREEDY}


# The names of `get_scheduler` and the Trainer.
_SHORT = {
    "linear": "get_linear_schedule_with_warmup",
    "cosine": "get_cosine_schedule_with_warmup",
    "cosine_with_restarts": "get_cosine_with_hard_restarts_schedule_with_warmup",
    "polynomial": "get_polynomial_decay_schedule_with_warmup",
    "cosine_with_min_lr": "get_cosine_with_min_lr_schedule_with_warmup",
    "cosine_warmup_with_min_lr": "get_cosine_with_min_lr_schedule_with_warmup_lr_rate",
    "warmup_stable_decay": "get_wsd_schedule",
}
_RESUMABLE = {name: accepting(maker, fixed={"last_epoch": -1}) for name, maker in makers_in(globals()).items()}

NAMES: dict[str, Maker] = {
    **_RESUMABLE,
    **{short: _RESUMABLE[name] for short, name in _SHORT.items()},
    "get_reduce_on_plateau_schedule": ReduceLROnPlateau,
    # For these `get_scheduler` ignores the length of the run, and for two the warm-up.
    "constant": accepting(get_constant_schedule, num_warmup_steps=None, num_training_steps=None),
    "constant_with_warmup": accepting(get_constant_schedule_with_warmup, num_training_steps=None),
    "inverse_sqrt": accepting(get_inverse_sqrt_schedule, num_training_steps=None),
    "reduce_lr_on_plateau": accepting(ReduceLROnPlateau, num_warmup_steps=None, num_training_steps=None),
}
