"""The steps that are compared, and what every competitor consists of."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lrcore.optim import OPTIMIZERS
from lrcore.optim.declaration import RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from lrcore.optim import Optimizer

    Call = Callable[[], object]

Array = np.ndarray[Any, Any]

LR = 1e-3
MOMENTUM = 0.9
BETA1, BETA2 = 0.9, 0.999
ALPHA = 0.99
EPS = 1e-8
ADAGRAD_EPS = 1e-10
DECAY = 1e-2


@dataclass(frozen=True)
class Workload:
    """An optimizer under PyTorch's name, its options besides ``lr``, and its number of state arrays per weight."""

    name: str
    optimizer: str
    states: int
    options: dict[str, Any] = field(hash=False)

    def streams(self) -> int:
        """Return how many arrays a step reads or writes: it only reads the gradient."""
        return 3 + 2 * self.states


def _workload(optimizer: type[Optimizer], name: str, options: Mapping[str, Any]) -> Workload:
    defaults = {key: parameter.default for key, parameter in inspect.signature(optimizer).parameters.items()}
    _, states = RULES[optimizer._rule({**defaults, **options})]
    return Workload(name, optimizer.__name__, len(states), dict(options))


# The workloads of the declarations.
WORKLOADS = {
    name: _workload(optimizer, name, options)
    for optimizer in OPTIMIZERS
    for name, options in optimizer._declaration.benchmarks.items()
}


def only(names: Collection[str]) -> Callable[[Workload, np.dtype[Any]], str]:
    """Return why a peer with these workloads can't do another one."""
    return lambda workload, _: "" if workload.name in names else f"it has no {workload.name}"


@dataclass
class Competitor:
    """An optimizer on its own arrays, ready to step.

    Attributes:
        step: One step.
        weights: Returns the weights.
        load: Replaces the values of the gradients.
        before: Undoes what a step leaves behind; it is not timed.
        holds: Objects that must live as long as the pointers that a step uses.
    """

    step: Call
    weights: Callable[[], list[Array]]
    load: Callable[[list[Array]], None]
    before: Call | None = None
    holds: object = None


@dataclass(frozen=True)
class Peer:
    """A library in one of the forms that its documentation recommends.

    Attributes:
        name: Its name in tables.
        make: Makes a competitor from values for weights and gradients, which it copies.
        lacks: Returns why it can't do a workload in a dtype, or an empty string.
        temporaries: The number of arrays of the size of the weights that it needs besides weights, gradients and state.
        product: Makes a call of its own matrix product, for steps after other work.
        set_threads: Sets its number of threads.
    """

    name: str
    make: Callable[[Workload, list[Array], list[Array]], Competitor]
    lacks: Callable[[Workload, np.dtype[Any]], str] = lambda _workload, _dtype: ""
    temporaries: int = 0
    product: Callable[[int], Call] | None = None
    set_threads: Callable[[int], object] | None = None


def copies(arrays: Sequence[Array]) -> list[Array]:
    """Return copies, every page of which is written."""
    return [array.copy() for array in arrays]


def fill(arrays: Sequence[Array], values: Sequence[Array]) -> None:
    """Copy values into arrays."""
    for array, value in zip(arrays, values, strict=True):
        array[...] = value
