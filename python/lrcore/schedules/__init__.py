"""Schedules: hyperparameters as pure functions of the step.

Every hyperparameter of every optimizer takes a number or a schedule. A schedule is a frozen value, ``schedule(step) ->
float`` with steps from 0, that stays at its last value past its end.
"""

from lrcore.schedules.curves import Constant, Cosine, Exponential, Linear, Step
from lrcore.schedules.schedule import Schedule
from lrcore.schedules.warmup import WarmedUp

__all__ = ["Constant", "Cosine", "Exponential", "Linear", "Schedule", "Step", "WarmedUp"]
