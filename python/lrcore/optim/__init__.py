"""Optimizers: update rules applied to NumPy arrays in place."""

from typing import TYPE_CHECKING

from lrcore.optim.adagrad import Adagrad as Adagrad
from lrcore.optim.adam import Adam as Adam
from lrcore.optim.adam import AdamW as AdamW
from lrcore.optim.averages import EMA as EMA
from lrcore.optim.averages import SWA as SWA
from lrcore.optim.declaration import RULES as _RULES
from lrcore.optim.hyperparameter import GroupAttribute as _GroupAttribute
from lrcore.optim.layers import layerwise as layerwise
from lrcore.optim.lion import Lion as Lion
from lrcore.optim.matching import LoadReport as LoadReport
from lrcore.optim.optimizer import Optimizer as Optimizer
from lrcore.optim.param_group import ParamGroup as ParamGroup
from lrcore.optim.rmsprop import RMSprop as RMSprop
from lrcore.optim.sgd import SGD as SGD
from lrcore.optim.stats import ParamStats as ParamStats
from lrcore.optim.stats import StepInfo as StepInfo
from lrcore.optim.stats import StepStats as StepStats
from lrcore.optim.summary import Memory as Memory
from lrcore.optim.summary import Summary as Summary
from lrcore.optim.summary import SummaryRow as SummaryRow


def _declared() -> tuple[type[Optimizer], ...]:
    """Return the optimizers of this module, in the order in which their rules are registered."""
    order = list(_RULES)
    found = [value for value in globals().values() if isinstance(value, type) and issubclass(value, Optimizer)]
    found.remove(Optimizer)
    return tuple(sorted(found, key=lambda one: order.index(next(iter(one._declaration.rules)))))


# Every optimizer: what the integrations, the tests and the benchmarks go through.
OPTIMIZERS = _declared()

# Hyperparameters that are set in groups alone; ``opt.lr = …`` works.
OF_GROUPS = {name for one in OPTIMIZERS for name in one._hyperparameter_names()} - {"lr"}
for _name in OF_GROUPS:
    setattr(Optimizer, _name, _GroupAttribute(_name))

if not TYPE_CHECKING:
    __all__ = sorted(
        name
        for name, value in globals().items()
        if name[0] != "_" and getattr(value, "__module__", "").startswith("lrcore.optim.")
    )

    def __dir__() -> list[str]:
        return __all__
