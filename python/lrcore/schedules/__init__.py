"""Schedules: hyperparameters as pure functions of the step.

Every hyperparameter of every optimizer takes a number or a schedule. A schedule is a frozen value, ``schedule(step) ->
float`` with steps from 0, that stays at its last value past its end.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lrcore.schedules.schedule import Schedule

if TYPE_CHECKING:
    from lrcore.schedules.curves import Constant, Cosine, Exponential, Linear, Step
    from lrcore.schedules.warmup import WarmedUp

__all__ = ["Constant", "Cosine", "Exponential", "Linear", "Schedule", "Step", "WarmedUp"]

# Dataclasses take their time to be made, so each module is imported when a class of it is first asked for.
_MODULES = {
    "Constant": "curves",
    "Cosine": "curves",
    "Exponential": "curves",
    "Linear": "curves",
    "Step": "curves",
    "WarmedUp": "warmup",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
