"""The names of ``fastai.callback.schedule``. A step is a batch.

fastai's phases are functions of the share of the training that is done, ``t / steps``, so they also need ``steps``.
What fits a learner counts ``n_epoch`` epochs of ``n_iter`` batches. The training ends with the course; here the last
value stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lrcore._messages import brief
from lrcore.schedules import Constant, Cosine, Linear, LogLinear, Piecewise, Table
from lrcore.schedules.compat import check_first, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from lrcore.schedules import Schedule


def sched_lin(*, start: float, end: float, steps: int) -> Schedule:
    """Return a Linear."""
    return Linear(start, end, whole("steps", steps))


def sched_cos(*, start: float, end: float, steps: int) -> Schedule:
    """Return a Cosine."""
    return Cosine(start, whole("steps", steps), end)


def sched_no(*, start: float, end: float, steps: int) -> Schedule:
    """Return a Constant: the end is ignored."""
    del end, steps
    return Constant(start)


def sched_exp(*, start: float, end: float, steps: int) -> Schedule:
    """Return a LogLinear."""
    return LogLinear(start, end, whole("steps", steps))


def sched_poly(*, start: float, end: float, power: float, steps: int) -> Schedule:
    """Return the start and a power of the share of the way to the end."""
    last = whole("steps", steps)
    return Table((*(start + (end - start) * (t / last) ** power for t in range(last)), end))


def combined_cos(*, pct: float, start: float, middle: float, end: float, steps: int) -> Schedule:
    """Return a Piecewise of two cosines."""
    if not 0.0 <= pct <= 1.0:
        raise ValueError(f"the share of the first phase must be in [0, 1], got {brief(pct)}")
    length = whole("steps", steps)
    return Piecewise(((0, start), (pct * length, middle), (length, end)), "cosine")


def fit_one_cycle(
    *,
    n_epoch: int,
    n_iter: int,
    lr_max: float | None = None,
    lr: float | None = None,
    div: float = 25.0,
    div_final: float = 1e5,
    pct_start: float = 0.25,
    wd: Any = None,
    moms: Any = None,
    cbs: Any = None,
    reset_opt: bool = False,
    start_epoch: int = 0,
) -> Schedule:
    """Return a Piecewise of two cosines, up to the peak and down; ``lr`` is that of the learner."""
    del wd, moms, cbs, reset_opt
    check_first("start_epoch", start_epoch, 0)
    peak = _rate(lr_max, lr)
    return combined_cos(
        pct=pct_start, start=peak / div, middle=peak, end=peak / div_final, steps=_batches(n_epoch, n_iter)
    )


def fit_flat_cos(
    *,
    n_epoch: int,
    n_iter: int,
    lr: float,
    div_final: float = 1e5,
    pct_start: float = 0.75,
    wd: Any = None,
    cbs: Any = None,
    reset_opt: bool = False,
    start_epoch: int = 0,
) -> Schedule:
    """Return a Piecewise: flat, and down a cosine."""
    del wd, cbs, reset_opt
    check_first("start_epoch", start_epoch, 0)
    return combined_cos(pct=pct_start, start=lr, middle=lr, end=lr / div_final, steps=_batches(n_epoch, n_iter))


def fit_sgdr(
    *,
    n_cycles: int,
    cycle_len: int,
    n_iter: int,
    lr_max: float | None = None,
    lr: float | None = None,
    cycle_mult: int = 2,
    cbs: Any = None,
    reset_opt: bool = False,
    wd: Any = None,
    start_epoch: int = 0,
) -> Schedule:
    """Return a Cosine for each cycle, each ``cycle_mult`` times as long; ``lr`` is that of the learner."""
    del wd, cbs, reset_opt
    check_first("start_epoch", start_epoch, 0)
    if cycle_mult == 1:
        raise ValueError("cycle_mult must not be 1: fastai divides by 0")
    peak, length = _rate(lr_max, lr), _batches(cycle_len, n_iter)
    course: Schedule = Cosine(peak, length)
    begin = 0
    for _ in range(1, whole("n_cycles", n_cycles)):
        begin, length = begin + length, length * whole("cycle_mult", cycle_mult)
        course = course.then(Cosine(peak, length), at=begin)
    return course


def _rate(lr_max: float | None, lr: float | None) -> float:
    if lr_max is None and lr is None:
        raise TypeError("lr_max, or lr for that of the learner, must be given")
    rate = lr if lr_max is None else lr_max
    assert rate is not None  # noqa: S101 (for the type checker)
    return rate


def _batches(epochs: int, n_iter: int) -> int:
    return whole("a number of epochs", epochs) * whole("n_iter", n_iter)


REFUSED = {"combine_scheds": "it is made of functions, not of numbers; combine schedules with then()"}

NAMES: dict[str, Callable[..., Schedule]] = {
    "SchedLin": sched_lin,
    "SchedCos": sched_cos,
    "SchedNo": sched_no,
    "SchedExp": sched_exp,
    "SchedPoly": sched_poly,
    "combined_cos": combined_cos,
    "fit_one_cycle": fit_one_cycle,
    "fit_flat_cos": fit_flat_cos,
    "fit_sgdr": fit_sgdr,
}
