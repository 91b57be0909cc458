"""Schedules by the names and arguments that other libraries have for them, so that a configuration carries over.

Each module has the names of one library, and makes schedules of :mod:`lrcore.schedules` of them. None of those
libraries is imported.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lrcore._messages import brief
from lrcore._ranges import as_number
from lrcore.schedules import CosineAnnealing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lrcore.schedules import Schedule

    Maker = Callable[..., Schedule]

SOURCES = ("torch", "transformers", "timm", "optax", "keras", "fastai")


def get(name: str, /, *, source: str, lr: float | None = None, **arguments: Any) -> Schedule:
    """Make a schedule from the name and the arguments that another library has for it.

    The values are those of that library at every step, the first one and those past the end included; where they differ
    on purpose docs/reference/schedules_compat.md says so. What is not given has that library's default.

    A step is what the library counts: a call of ``scheduler.step()`` in ``"torch"`` and ``"transformers"``, where it
    may be an epoch or an update; an epoch in ``"timm"``, or an update where its arguments say so; an update in
    ``"optax"`` and ``"keras"``; a batch in ``"fastai"``. :func:`per_epoch <lrcore.schedules.per_epoch>` makes updates
    of epochs.

    Args:
        name: The name of a class or function of that library, or the short name that the library itself has for it.
        source: ``"torch"``, ``"transformers"``, ``"timm"``, ``"optax"``, ``"keras"`` or ``"fastai"``.
        lr: The rate of the optimizer, for what scales it. Where the arguments hold the rate themselves, as in all of
            ``"optax"``, it is left out, and an error to give.
        **arguments: Those of that library by its names, without the optimizer. What changes no rate (``name``,
            ``verbose``, a momentum) may be there and does nothing.

    Returns:
        The schedule. Those that look at a metric take it as a
        :class:`ReduceOnPlateau <lrcore.schedules.ReduceOnPlateau>` does.

    Raises:
        ValueError: If there is no such source or name, if an argument is out of range, or if that library itself fails
            or has no rate for these arguments, as where it divides by zero.
        TypeError: If an argument is unknown, missing, or of a wrong type.

    Examples:
        >>> from lrcore import schedules
        >>> schedules.get("CosineAnnealingLR", source="torch", lr=0.1, T_max=50, eta_min=1e-3)
        CosineAnnealing(high=0.1, period=100.0, low=0.001)
        >>> schedules.get("cosine_with_restarts", source="transformers", lr=1.0, num_warmup_steps=10,
        ...               num_training_steps=110, num_cycles=2).values(range(0, 120, 30))
        array([0.       , 0.6545085, 1.       , 0.3454915])
        >>> schedules.get("exponential_decay", source="optax", init_value=0.1, transition_steps=10, decay_rate=0.5)
        Exponential(start=0.1, gamma=0.5, steps=10.0)
    """
    if source not in SOURCES:
        raise ValueError(f"there is no source {source!r}; there are {', '.join(SOURCES)}")
    module = import_module(f"{__name__}.{source}")
    makers: Mapping[str, Maker] = module.NAMES
    if name in module.REFUSED:
        raise ValueError(f"{source}'s {name} can't be had: {module.REFUSED[name]}")
    if name not in makers:
        raise ValueError(f"{source} has no schedule {name!r}; there are {', '.join(sorted(makers))}")
    if lr is not None:
        arguments["lr"] = lr
    _check_arguments(f"{source}'s {name}", makers[name], arguments)
    return makers[name](**arguments)


def _check_arguments(where: str, maker: Maker, given: Mapping[str, Any]) -> None:
    """Raise if an argument is unknown or missing."""
    known = inspect.signature(maker).parameters
    takes = f"it takes {', '.join(known)}"
    unknown = [key for key in given if key not in known]
    if "lr" in unknown:
        raise TypeError(f"{where} takes no lr, since its own arguments hold the rate; {takes}")
    if unknown:
        raise TypeError(f"{where} has no argument {', '.join(map(repr, unknown))}; {takes}")
    missing = [key for key, value in known.items() if value.default is value.empty and key not in given]
    if missing:
        raise TypeError(f"{where} needs {', '.join(map(repr, missing))}; {takes}, got {', '.join(given) or 'none'}")


def whole(name: str, value: Any) -> int:
    """Return a number of steps as an int, where a library also takes 1e4 for 10000."""
    number = as_number(value)
    if number is None or number % 1 != 0:
        raise TypeError(f"{name} must be a whole number, got {brief(value)}")
    return int(number)


def check_first(name: str, value: Any, first: int) -> None:
    """Raise if an argument tells a scheduler to go on from somewhere: a schedule has no place of its own."""
    if value != first:
        raise ValueError(
            f"{name} must be {first}, got {brief(value)}: a schedule can be asked for any step, whatever it was"
        )


def wave(start: float, end: float, half_period: float) -> Schedule:
    """Return the cosine that comes from one value to another, and back, for ever."""
    if start >= end:
        return CosineAnnealing(start, 2.0 * half_period, end)
    return CosineAnnealing(end, 2.0 * half_period, start).shift(
        -whole("half of a period that begins below", half_period)
    )
