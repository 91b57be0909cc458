"""Schedules: hyperparameters as pure functions of the step.

Every hyperparameter of every optimizer takes a number or a schedule. A schedule is an immutable function,
``schedule(step) -> float``, with steps from 0. It keeps its last value past its end.
docs/gallery has a picture of each class, named for the class.
"""

import sys as _sys
import typing as _typing
from importlib import import_module as _import_module

from lrcore.schedules.schedule import Schedule

if _typing.TYPE_CHECKING:
    from lrcore.schedules.arithmetic import AtLeast, AtMost, Difference, Product, Scaled, Sum
    from lrcore.schedules.bounded import REX, Cosine, Linear, LogLinear, Polynomial, Sqrt, Tanh
    from lrcore.schedules.compat import get
    from lrcore.schedules.compose import WSD, Sequential, WithCooldown, concat
    from lrcore.schedules.cycles import CosineRestarts, Cyclic, OneCycle
    from lrcore.schedules.interop import from_torch, to_keras, to_optax, to_torch
    from lrcore.schedules.metrics import AdaScale, ReduceOnPlateau
    from lrcore.schedules.piecewise import Chebyshev, Lambda, MultiStep, Piecewise, Step, Table
    from lrcore.schedules.plotting import plot
    from lrcore.schedules.steps import steps_in
    from lrcore.schedules.time_transforms import Repeated, Shifted, Staircase, Stretched, per_epoch
    from lrcore.schedules.unbounded import Constant, CosineAnnealing, Exponential, InverseSqrt, InverseTime, Noam
    from lrcore.schedules.warmup import Warmup, WithWarmup, untuned

# Creating dataclasses takes time, so a module is imported when one of its names is first used.
_NAMES = {
    "arithmetic": ("AtLeast", "AtMost", "Difference", "Product", "Scaled", "Sum"),
    "time_transforms": ("Staircase", "Repeated", "Shifted", "Stretched", "per_epoch"),
    "cycles": ("CosineRestarts", "Cyclic", "OneCycle"),
    "unbounded": ("Constant", "CosineAnnealing", "Exponential", "InverseSqrt", "InverseTime", "Noam"),
    "metrics": ("AdaScale", "ReduceOnPlateau"),
    "compose": ("WSD", "WithCooldown", "Sequential", "concat"),
    "bounded": ("REX", "Cosine", "LogLinear", "Linear", "Polynomial", "Sqrt", "Tanh"),
    "piecewise": ("Chebyshev", "Lambda", "MultiStep", "Piecewise", "Step", "Table"),
    "warmup": ("WithWarmup", "Warmup", "untuned"),
    "interop": ("from_torch", "to_keras", "to_optax", "to_torch"),
    "compat": ("get",),
    "plotting": ("plot",),
    "steps": ("steps_in",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

# The classes of schedules, by name.
CLASSES = tuple(sorted(name for name in _MODULES if name[0].isupper()))

__all__ = [
    "REX", "WSD", "AdaScale", "AtLeast", "AtMost", "Chebyshev", "Constant", "Cosine", "CosineAnnealing",
    "CosineRestarts", "Cyclic", "Difference", "Exponential", "InverseSqrt", "InverseTime", "Lambda", "Linear",
    "LogLinear", "MultiStep", "Noam", "OneCycle", "Piecewise", "Polynomial", "Product", "ReduceOnPlateau", "Repeated",
    "Scaled", "Schedule", "Sequential", "Shifted", "Sqrt", "Staircase", "Step", "Stretched", "Sum", "Table", "Tanh",
    "Warmup", "WithCooldown", "WithWarmup", "concat", "from_torch", "get", "per_epoch", "plot", "steps_in",
    "to_keras", "to_optax", "to_torch", "untuned",
]  # fmt: skip


def __getattr__(name: str) -> _typing.Any:
    if name not in _MODULES:
        # Python suggests similar names for an error with these arguments.
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=_sys.modules[__name__])
    value = getattr(_import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
