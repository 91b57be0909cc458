"""lrcore: the learning rate and everything that it multiplies.

Fused optimizer steps, written in Rust and applied in place to NumPy arrays, and schedules for every hyperparameter.

Examples:
    >>> import numpy as np
    >>> import lrcore
    >>> from lrcore import schedules
    >>> params = {"w": np.ones((3, 2), dtype=np.float32), "b": np.zeros(2, dtype=np.float32)}
    >>> opt = lrcore.AdamW(params, lr=schedules.Cosine(3e-4, steps=10_000).warmup(500), weight_decay=0.01)
    >>> grads = {"w": np.ones((3, 2), dtype=np.float32), "b": None}
    >>> opt.step(grads).step
    1
"""

import sys as _sys
import typing as _typing
from importlib import import_module as _import_module

from lrcore import optim, schedules
from lrcore._environment import apply as _apply_environment
from lrcore._lrcore import __version__, get_num_threads, get_simd_level, set_num_threads, set_simd_level, simd_levels
from lrcore.optim import *  # noqa: F403

if _typing.TYPE_CHECKING:
    from lrcore import checkpoint, finder, history, noise, scaling, sweeps
    from lrcore.checkpoint import latest, load, save
    from lrcore.finder import Finder, RangeTest, find_lr
    from lrcore.history import History
    from lrcore.noise import NoiseScale
    from lrcore.sweeps import logspace, sweep, tune, tune_lr

_apply_environment()
del _apply_environment

__all__ = [
    "Finder",
    "History",
    "NoiseScale",
    "RangeTest",
    "__version__",
    "checkpoint",
    "find_lr",
    "finder",
    "get_num_threads",
    "get_simd_level",
    "history",
    "latest",
    "load",
    "logspace",
    "noise",
    "optim",
    "save",
    "scaling",
    "schedules",
    "set_num_threads",
    "set_simd_level",
    "simd_levels",
    "sweep",
    "sweeps",
    "tune",
    "tune_lr",
]
if not _typing.TYPE_CHECKING:
    __all__ += optim.__all__

# What only some programs need is imported when it is first asked for: names with the module that has them, and modules.
_MODULES = {
    "Finder": "finder",
    "History": "history",
    "RangeTest": "finder",
    "find_lr": "finder",
    "latest": "checkpoint",
    "load": "checkpoint",
    "logspace": "sweeps",
    "NoiseScale": "noise",
    "save": "checkpoint",
    "sweep": "sweeps",
    "tune": "sweeps",
    "tune_lr": "sweeps",
}
_LAZY_MODULES = ("checkpoint", "finder", "history", "noise", "scaling", "sweeps")


def __getattr__(name: str) -> _typing.Any:
    if name in _LAZY_MODULES:
        return _import_module(f"lrcore.{name}")
    if name not in _MODULES:
        # With these Python says what was meant.
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=_sys.modules[__name__])
    return getattr(_import_module(f"lrcore.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
