"""Schedules by the names and arguments of other libraries, so that a configuration carries over.

Each module has the names of one library, as functions with that library's arguments that return a schedule of
:mod:`lrcore.schedules`. None of those libraries is imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from inspect import Parameter
from types import MappingProxyType
from typing import Any

from lrcore._messages import brief
from lrcore._ranges import as_number
from lrcore.schedules import CosineAnnealing, Schedule

Maker = Callable[..., Schedule]
# The annotation of arguments that `get` converts to int, where a library also takes 1e4 for 10000.
Whole = int

# The most steps of a schedule that has no formula here and becomes a table: it has a number for each.
_LONGEST_TABLE = 10**6

SOURCES = ("torch", "transformers", "timm", "optax", "keras", "fastai")


def get(name: str, /, *, source: str, lr: float | None = None, **arguments: Any) -> Schedule:
    """Return the schedule for a name and arguments of another library.

    The values are those of that library at every step, including the first one and those past the end; deliberate
    differences are listed in docs/reference/schedules_compat.md. Missing arguments have that library's defaults.

    A step is what the library counts: a call of ``scheduler.step()`` for ``"torch"`` and ``"transformers"``, which can
    be an epoch or an update; an epoch for ``"timm"``, or an update if its arguments say so; an update for ``"optax"``
    and ``"keras"``; a batch for ``"fastai"``. :func:`per_epoch <lrcore.schedules.per_epoch>` converts epochs to
    updates.

    Args:
        name: The name of a class or function of that library, or its short name there.
        source: ``"torch"``, ``"transformers"``, ``"timm"``, ``"optax"``, ``"keras"`` or ``"fastai"``.
        lr: The learning rate of the optimizer. An error if the arguments contain it, as for all of ``"optax"``.
        **arguments: The arguments by that library's names, without the optimizer. Those without an effect on the
            learning rate (``name``, ``verbose``, a momentum) are accepted and ignored.

    Returns:
        The schedule. One that depends on a metric contains a
        :class:`ReduceOnPlateau <lrcore.schedules.ReduceOnPlateau>`.

    Raises:
        ValueError: If the source or name is unknown, an argument is out of range, or that library itself fails or has
            no learning rate for these arguments, for example because it divides by zero.
        TypeError: If an argument is unknown, missing, or has the wrong type.

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
        raise ValueError(f"{source}'s {name} is not supported: {module.REFUSED[name]}")
    if name not in makers:
        raise ValueError(f"{source} has no schedule {name!r}; there are {', '.join(sorted(makers))}")
    if lr is not None:
        arguments["lr"] = lr
    _check_arguments(f"{source}'s {name}", makers[name], arguments)
    return makers[name](**with_ints(makers[name], arguments))


def _check_arguments(where: str, maker: Maker, given: Mapping[str, Any]) -> None:
    """Raise if an argument is unknown or missing."""
    known = inspect.signature(maker).parameters
    takes = f"it takes {', '.join(known)}"
    unknown = [key for key in given if key not in known]
    if "lr" in unknown:
        raise TypeError(f"{where} takes no lr, since its own arguments hold the learning rate; {takes}")
    if unknown:
        raise TypeError(f"{where} has no argument {', '.join(map(repr, unknown))}; {takes}")
    missing = [key for key, value in known.items() if value.default is value.empty and key not in given]
    if missing:
        raise TypeError(f"{where} needs {', '.join(map(repr, missing))}; {takes}, got {', '.join(given) or 'none'}")


def with_ints(maker: Maker, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of a function with those annotated as Whole as ints."""
    known = inspect.signature(maker).parameters
    is_whole = {key for key, parameter in known.items() if str(parameter.annotation).startswith("Whole")}
    return {key: whole(key, value) if key in is_whole and value is not None else value for key, value in given.items()}


def whole(name: str, value: Any) -> int:
    """Return an integer number as an int, or raise a TypeError."""
    number = as_number(value)
    if number is None or number % 1 != 0:
        raise TypeError(f"{name} must be a whole number, got {brief(value)}")
    return int(number)


def check_table(what: str, steps: float) -> None:
    """Raise a ValueError if a schedule without a formula would be a table of too many steps."""
    if steps > _LONGEST_TABLE:
        raise ValueError(f"{what} may have {_LONGEST_TABLE} steps, since they become a table, got {steps:g}")


def check_positive(name: str, value: float) -> None:
    """Raise if a number is not above 0."""
    if not value > 0:
        raise ValueError(f"{name} must be > 0, got {brief(value)}")


# A schedule has no state to continue from: it can be called with any step.
_CONTINUES = "a schedule can be asked for any step, whatever it was"


def accepting(
    maker: Maker, *, fixed: Mapping[str, Any] = MappingProxyType({}), reason: str = _CONTINUES, **ignored: Any
) -> Maker:
    """Return a function that also accepts arguments without an effect.

    Args:
        maker: The function.
        fixed: Arguments that must have their default.
        reason: Why they must, for the message.
        ignored: Arguments that can have any value, with their defaults.
    """
    more = {**ignored, **fixed}

    @wraps(maker)
    def made(**given: Any) -> Schedule:
        for name, value in fixed.items():
            if given.get(name, value) != value:
                raise ValueError(f"{name} must be {value!r}, got {brief(given[name])}: {reason}")
        return maker(**{name: value for name, value in given.items() if name not in more})

    added = [Parameter(name, Parameter.KEYWORD_ONLY, default=value) for name, value in more.items()]
    parameters = [*inspect.signature(maker).parameters.values(), *added]
    made.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return made


def makers_in(module: Mapping[str, Any]) -> dict[str, Any]:
    """Return the public functions and classes that a module, of which these are the globals, has defined so far."""
    own = {name: value for name, value in module.items() if getattr(value, "__module__", "") == module["__name__"]}
    return {name: value for name, value in own.items() if not name.startswith("_")}


def then_after(warmup: Schedule, steps: int, schedule: Schedule) -> Schedule:
    """Return a schedule after a warm-up, if that has steps."""
    return warmup.then(schedule, at=steps) if steps else schedule


def wave(start: float, end: float, half_period: float) -> Schedule:
    """Return the cosine from one value to another and back, forever."""
    if start >= end:
        return CosineAnnealing(start, 2.0 * half_period, end)
    half = whole("half of a period that begins below", half_period)
    return CosineAnnealing(end, 2.0 * half_period, start).shift(-half)
