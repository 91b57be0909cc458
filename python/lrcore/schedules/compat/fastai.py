"""The names of ``fastai.callback.schedule``. A step is a batch.

fastai's phases are functions of the fraction of the run, ``t / steps``, so they also need ``steps``. The ``fit``
methods of a learner run ``n_epoch`` epochs of ``n_iter`` batches. A run ends with the schedule; here the last value
stays.
"""

# The functions have the names of fastai's.
# ruff: noqa: N802

from __future__ import annotations

from typing import Any

from lrcore._messages import brief
from lrcore.schedules import Constant, Cosine, Linear, LogLinear, Piecewise, Schedule, Table
from lrcore.schedules.compat import Maker, Whole, accepting, check_table, makers_in


def SchedLin(*, start: float, end: float, steps: Whole) -> Schedule:
    """Return a Linear."""
    return Linear(start, end, steps)


def SchedCos(*, start: float, end: float, steps: Whole) -> Schedule:
    """Return a Cosine."""
    return Cosine(start, steps, end)


def SchedNo(*, start: float, end: float, steps: Whole) -> Schedule:
    """Return a Constant; the end is ignored."""
    del end, steps
    return Constant(start)


def SchedExp(*, start: float, end: float, steps: Whole) -> Schedule:
    """Return a LogLinear."""
    return LogLinear(start, end, steps)


def SchedPoly(*, start: float, end: float, power: float, steps: Whole) -> Schedule:
    """Return a Table of a power function."""
    check_table("SchedPoly", steps)
    return Table((*(start + (end - start) * (t / steps) ** power for t in range(steps)), end))


def combined_cos(*, pct: float, start: float, middle: float, end: float, steps: Whole) -> Schedule:
    """Return a Piecewise of two cosines."""
    if not 0.0 <= pct <= 1.0:
        raise ValueError(f"the share of the first phase must be in [0, 1], got {brief(pct)}")
    return Piecewise(((0, start), (pct * steps, middle), (steps, end)), "cosine")


def fit_one_cycle(
    *,
    n_epoch: Whole,
    n_iter: Whole,
    lr_max: float | None = None,
    lr: float | None = None,
    div: float = 25.0,
    div_final: float = 1e5,
    pct_start: float = 0.25,
) -> Schedule:
    """Return a Piecewise of two cosines, up and down. ``lr`` is the learner's."""
    peak = _peak(lr_max, lr)
    return combined_cos(pct=pct_start, start=peak / div, middle=peak, end=peak / div_final, steps=n_epoch * n_iter)


def fit_flat_cos(
    *, n_epoch: Whole, n_iter: Whole, lr: float, div_final: float = 1e5, pct_start: float = 0.75
) -> Schedule:
    """Return a Piecewise of a constant and a cosine."""
    return combined_cos(pct=pct_start, start=lr, middle=lr, end=lr / div_final, steps=n_epoch * n_iter)


def fit_sgdr(
    *,
    n_cycles: Whole,
    cycle_len: Whole,
    n_iter: Whole,
    lr_max: float | None = None,
    lr: float | None = None,
    cycle_mult: Whole = 2,
) -> Schedule:
    """Return a Cosine for each cycle, each ``cycle_mult`` times as long. ``lr`` is the learner's."""
    if cycle_mult == 1:
        raise ValueError("cycle_mult must not be 1: fastai divides by 0")
    peak, length = _peak(lr_max, lr), cycle_len * n_iter
    schedule: Schedule = Cosine(peak, length)
    begin = 0
    for _ in range(1, n_cycles):
        begin, length = begin + length, length * cycle_mult
        schedule = schedule.then(Cosine(peak, length), at=begin)
    return schedule


def _peak(lr_max: float | None, lr: float | None) -> float:
    peak = lr if lr_max is None else lr_max
    if peak is None:
        raise TypeError("lr_max, or lr for that of the learner, must be given")
    return peak


def _fitting(maker: Maker, **ignored: Any) -> Maker:
    """Return a method of a learner that also accepts the arguments without an effect on the learning rate."""
    return accepting(maker, fixed={"start_epoch": 0}, wd=None, cbs=None, reset_opt=False, **ignored)


REFUSED = {"combine_scheds": "it is made of functions, not of numbers; combine schedules with then()"}

NAMES: dict[str, Maker] = {
    **makers_in(globals()),
    "fit_one_cycle": _fitting(fit_one_cycle, moms=None),
    "fit_flat_cos": _fitting(fit_flat_cos),
    "fit_sgdr": _fitting(fit_sgdr),
}
