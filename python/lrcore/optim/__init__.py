"""Optimizers: update rules applied to NumPy arrays in place."""

from lrcore.optim.adagrad import Adagrad
from lrcore.optim.adam import Adam, AdamW
from lrcore.optim.averages import EMA, SWA
from lrcore.optim.layers import layerwise
from lrcore.optim.optimizer import Optimizer, StepInfo
from lrcore.optim.param_group import ParamGroup
from lrcore.optim.rmsprop import RMSprop
from lrcore.optim.sgd import SGD
from lrcore.optim.state_dict import LoadReport
from lrcore.optim.stats import ParamStats, StepStats
from lrcore.optim.summary import Memory, Summary, SummaryRow

__all__ = [
    "EMA",
    "SGD",
    "SWA",
    "Adagrad",
    "Adam",
    "AdamW",
    "LoadReport",
    "Memory",
    "Optimizer",
    "ParamGroup",
    "ParamStats",
    "RMSprop",
    "StepInfo",
    "StepStats",
    "Summary",
    "SummaryRow",
    "layerwise",
]


def __dir__() -> list[str]:
    return sorted(__all__)
