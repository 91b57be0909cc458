"""The names of ``transformers.optimization``. A step is a call of ``scheduler.step()``, an update of its Trainer.

A warm-up begins at 0 and its steps count in ``num_training_steps``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrcore._messages import brief
from lrcore.schedules import Constant, Cosine, CosineRestarts, InverseSqrt, Linear, Polynomial, Sqrt
from lrcore.schedules.compat import check_first, wave, whole
from lrcore.schedules.compat.torch import reduce_lr_on_plateau

if TYPE_CHECKING:
    from collections.abc import Callable

    from lrcore.schedules import Schedule


def get_constant_schedule(*, lr: float, last_epoch: int = -1) -> Schedule:
    """Return a Constant."""
    check_first("last_epoch", last_epoch, -1)
    return Constant(lr)


def get_constant_schedule_with_warmup(*, lr: float, num_warmup_steps: int, last_epoch: int = -1) -> Schedule:
    """Return a Linear from 0, which stays at its end."""
    check_first("last_epoch", last_epoch, -1)
    return Linear(0.0, lr, whole("num_warmup_steps", num_warmup_steps))


def get_linear_schedule_with_warmup(
    *, lr: float, num_warmup_steps: int, num_training_steps: int, last_epoch: int = -1
) -> Schedule:
    """Return two Linear, up and down."""
    check_first("last_epoch", last_epoch, -1)
    warmup, steps = _steps(num_warmup_steps, num_training_steps)
    return _after(warmup, lr, Linear(lr, 0.0, max(steps, 0)))


def get_cosine_schedule_with_warmup(
    *, lr: float, num_warmup_steps: int, num_training_steps: int, num_cycles: float = 0.5, last_epoch: int = -1
) -> Schedule:
    """Return a Linear and a CosineAnnealing, which rises again after ``num_training_steps``."""
    check_first("last_epoch", last_epoch, -1)
    warmup, steps = _steps(num_warmup_steps, num_training_steps)
    return _after(warmup, lr, _cycles(lr, 0.0, steps, num_cycles))


def get_cosine_with_hard_restarts_schedule_with_warmup(
    *, lr: float, num_warmup_steps: int, num_training_steps: int, num_cycles: float = 1, last_epoch: int = -1
) -> Schedule:
    """Return a Linear, CosineRestarts, and 0 from ``num_training_steps`` on."""
    check_first("last_epoch", last_epoch, -1)
    warmup, steps = _steps(num_warmup_steps, num_training_steps)
    if not 0 <= num_cycles <= max(1, steps):
        raise ValueError(
            f"num_cycles must be in [0, {max(1, steps)}], the steps after the warm-up, got {brief(num_cycles)}"
        )
    course = CosineRestarts(lr, max(1, steps) / num_cycles) if num_cycles != 0 else Constant(lr)
    return _after(warmup, lr, course.then(0.0, at=max(1, steps)))


def get_polynomial_decay_schedule_with_warmup(
    *,
    lr: float,
    num_warmup_steps: int,
    num_training_steps: int,
    lr_end: float = 1e-7,
    power: float = 1.0,
    last_epoch: int = -1,
) -> Schedule:
    """Return a Linear and a Polynomial."""
    check_first("last_epoch", last_epoch, -1)
    if not lr > lr_end:
        raise ValueError(f"lr_end must be less than lr, {lr!r}, got {brief(lr_end)}")
    warmup, steps = _steps(num_warmup_steps, num_training_steps)
    if steps == 0:
        raise ValueError(f"num_warmup_steps must not be num_training_steps, got {warmup}: transformers divides by 0")
    if power == 0.0:
        # Nothing to the power 0 is 1, so the rate holds up to the last step itself.
        return _after(warmup, lr, Constant(lr).then(lr_end, at=max(steps + 1, 0)))
    return _after(warmup, lr, Polynomial(lr, max(steps, 0), lr_end, power))


def get_inverse_sqrt_schedule(
    *, lr: float, num_warmup_steps: int, timescale: float | None = None, last_epoch: int = -1
) -> Schedule:
    """Return a Linear and an InverseSqrt."""
    check_first("last_epoch", last_epoch, -1)
    warmup = whole("num_warmup_steps", num_warmup_steps)
    return _after(warmup, lr, InverseSqrt(lr, (warmup or 10_000) if timescale is None else timescale))


def get_cosine_with_min_lr_schedule_with_warmup(
    *,
    lr: float,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
) -> Schedule:
    """Return a Linear and a CosineAnnealing, which rises again after ``num_training_steps``."""
    check_first("last_epoch", last_epoch, -1)
    warmup, steps = _steps(num_warmup_steps, num_training_steps)
    return _after(warmup, lr, _cycles(lr, _least(lr, min_lr, min_lr_rate), steps, num_cycles))


def get_cosine_with_min_lr_schedule_with_warmup_lr_rate(
    *,
    lr: float,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
    warmup_lr_rate: float | None = None,
) -> Schedule:
    """Return a Linear and a CosineAnnealing, both one step further in their course."""
    check_first("last_epoch", last_epoch, -1)
    warmup, steps = _steps(num_warmup_steps, num_training_steps)
    course = _cycles(lr, _least(lr, min_lr, min_lr_rate), steps, num_cycles).shift(-1)
    if warmup == 0:
        return course
    if warmup_lr_rate is None:
        return Linear(0.0, lr, warmup).shift(-1).then(course, at=warmup)
    return Linear(lr * warmup_lr_rate, lr, max(1, warmup - 1)).then(course, at=warmup)


def get_wsd_schedule(
    *,
    lr: float,
    num_warmup_steps: int,
    num_decay_steps: int,
    num_training_steps: int | None = None,
    num_stable_steps: int | None = None,
    warmup_type: str = "linear",
    decay_type: str = "cosine",
    min_lr_ratio: float = 0.0,
    num_cycles: float = 0.5,
    last_epoch: int = -1,
) -> Schedule:
    """Return a rise, a Constant, and a fall. ``num_stable_steps`` counts if both lengths are given."""
    check_first("last_epoch", last_epoch, -1)
    warmup, decay = whole("num_warmup_steps", num_warmup_steps), whole("num_decay_steps", num_decay_steps)
    if num_stable_steps is not None:
        stable = whole("num_stable_steps", num_stable_steps)
    elif num_training_steps is not None:
        stable = whole("num_training_steps", num_training_steps) - warmup - decay
    else:
        raise ValueError("num_training_steps or num_stable_steps must be given")
    for name, shape in (("warmup_type", warmup_type), ("decay_type", decay_type)):
        if shape not in ("linear", "cosine", "1-sqrt"):
            raise ValueError(f"{name} must be 'linear', 'cosine' or '1-sqrt', got {brief(shape)}")
    low = lr * min_lr_ratio
    rise: Schedule = Linear(low, lr, warmup)
    if warmup_type != "linear":
        rise = Cosine(low, warmup, lr) if warmup_type == "cosine" else Polynomial(low, warmup, lr, power=0.5)
    fall = _wsd_fall(lr, low, decay, decay_type, num_cycles)
    # If the phases are longer than the training, the fall comes at the end of the warm-up and has begun before it.
    course = Constant(lr).then(fall, at=stable) if stable > 0 else fall.shift(stable) if stable < 0 else fall
    return rise.then(course, at=warmup) if warmup else course


def constant(*, lr: float, num_warmup_steps: int | None = None, num_training_steps: int | None = None) -> Schedule:
    """Return what ``get_scheduler`` does: all but the rate is ignored."""
    del num_warmup_steps, num_training_steps
    return Constant(lr)


def constant_with_warmup(*, lr: float, num_warmup_steps: int, num_training_steps: int | None = None) -> Schedule:
    """Return what ``get_scheduler`` does: the end of the training is ignored."""
    del num_training_steps
    return get_constant_schedule_with_warmup(lr=lr, num_warmup_steps=num_warmup_steps)


def inverse_sqrt(
    *, lr: float, num_warmup_steps: int, num_training_steps: int | None = None, timescale: float | None = None
) -> Schedule:
    """Return what ``get_scheduler`` does: the end of the training is ignored."""
    del num_training_steps
    return get_inverse_sqrt_schedule(lr=lr, num_warmup_steps=num_warmup_steps, timescale=timescale)


def reduce_on_plateau(
    *,
    lr: float,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    mode: str = "min",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: str = "rel",
    cooldown: int = 0,
    min_lr: float = 0.0,
    eps: float = 1e-8,
) -> Schedule:
    """Return what ``get_scheduler`` does: there is no warm-up, and the end of the training is ignored."""
    del num_warmup_steps, num_training_steps
    return reduce_lr_on_plateau(
        lr=lr,
        mode=mode,
        factor=factor,
        patience=patience,
        threshold=threshold,
        threshold_mode=threshold_mode,
        cooldown=cooldown,
        min_lr=min_lr,
        eps=eps,
    )


def _steps(num_warmup_steps: int, num_training_steps: int) -> tuple[int, int]:
    """Return the steps of the warm-up, and how many come after it."""
    warmup = whole("num_warmup_steps", num_warmup_steps)
    return warmup, whole("num_training_steps", num_training_steps) - warmup


def _after(warmup: int, lr: float, course: Schedule) -> Schedule:
    return Linear(0.0, lr, warmup).then(course, at=warmup) if warmup else course


def _cycles(lr: float, low: float, steps: int, num_cycles: float) -> Schedule:
    """Return a cosine that has made so many cycles after a number of steps, and goes on."""
    return wave(lr, low, max(1, steps) / abs(2.0 * num_cycles)) if num_cycles != 0 else Constant(lr)


def _least(lr: float, min_lr: float | None, min_lr_rate: float | None) -> float:
    """Return the least rate, which is given as it is or as a share."""
    if (min_lr is None) == (min_lr_rate is None):
        raise ValueError(f"min_lr or min_lr_rate must be given, and not both, got {brief(min_lr)} and {min_lr_rate!r}")
    return min_lr if min_lr is not None else lr * (min_lr_rate or 0.0)


def _wsd_fall(lr: float, low: float, steps: int, shape: str, num_cycles: float) -> Schedule:
    if shape == "1-sqrt":
        return Sqrt(lr, steps, low)
    if shape == "linear" or steps == 0:
        return Linear(lr, low, steps)
    return Cosine(lr, steps, low) if num_cycles == 0.5 else _cycles(lr, low, steps, num_cycles).then(low, at=steps)


_GREEDY = "its rate rises and falls with a metric; torch's ReduceLROnPlateau falls with one"

REFUSED = {"greedy": _GREEDY, "get_greedy_schedule": _GREEDY, "GreedyLR": _GREEDY}

# The functions, and their names for `get_scheduler` and the Trainer.
NAMES: dict[str, Callable[..., Schedule]] = {
    "get_constant_schedule": get_constant_schedule,
    "get_constant_schedule_with_warmup": get_constant_schedule_with_warmup,
    "get_linear_schedule_with_warmup": get_linear_schedule_with_warmup,
    "get_cosine_schedule_with_warmup": get_cosine_schedule_with_warmup,
    "get_cosine_with_hard_restarts_schedule_with_warmup": get_cosine_with_hard_restarts_schedule_with_warmup,
    "get_polynomial_decay_schedule_with_warmup": get_polynomial_decay_schedule_with_warmup,
    "get_inverse_sqrt_schedule": get_inverse_sqrt_schedule,
    "get_reduce_on_plateau_schedule": reduce_lr_on_plateau,
    "get_cosine_with_min_lr_schedule_with_warmup": get_cosine_with_min_lr_schedule_with_warmup,
    "get_cosine_with_min_lr_schedule_with_warmup_lr_rate": get_cosine_with_min_lr_schedule_with_warmup_lr_rate,
    "get_wsd_schedule": get_wsd_schedule,
    "linear": get_linear_schedule_with_warmup,
    "cosine": get_cosine_schedule_with_warmup,
    "cosine_with_restarts": get_cosine_with_hard_restarts_schedule_with_warmup,
    "polynomial": get_polynomial_decay_schedule_with_warmup,
    "constant": constant,
    "constant_with_warmup": constant_with_warmup,
    "inverse_sqrt": inverse_sqrt,
    "reduce_lr_on_plateau": reduce_on_plateau,
    "cosine_with_min_lr": get_cosine_with_min_lr_schedule_with_warmup,
    "cosine_warmup_with_min_lr": get_cosine_with_min_lr_schedule_with_warmup_lr_rate,
    "warmup_stable_decay": get_wsd_schedule,
}
