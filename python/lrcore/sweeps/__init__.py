"""Sweeps: run a function over a grid of settings and several seeds, on all cores or several machines; resumable.

Examples:
    >>> import lrcore
    >>> from lrcore import sweeps
    >>> def train(lr, seed):
    ...     return (lr - 0.01) ** 2
    >>> found = sweeps.sweep(train, {"lr": sweeps.logspace(1e-3, 1e-1, 3)}, seeds=2, workers=0, progress=False)
    >>> found.best.settings
    {'lr': 0.01}
"""

from lrcore.sweeps.results import Results, load
from lrcore.sweeps.sensitivity import Sensitivity
from lrcore.sweeps.space import LogUniform, Uniform, logspace, loguniform, uniform
from lrcore.sweeps.summary import SettingSummary
from lrcore.sweeps.sweeping import Interrupted, sweep
from lrcore.sweeps.tuned_lr import TunedLR, tune_lr
from lrcore.sweeps.tuning import tune

__all__ = [
    "Interrupted",
    "LogUniform",
    "Results",
    "Sensitivity",
    "SettingSummary",
    "TunedLR",
    "Uniform",
    "load",
    "logspace",
    "loguniform",
    "sweep",
    "tune",
    "tune_lr",
    "uniform",
]


def __dir__() -> list[str]:
    return sorted(__all__)
