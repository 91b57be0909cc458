"""The work that is compared: optimizers with their hyperparameters, and what every competitor is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Array = np.ndarray[Any, Any]

LR = 1e-3
MOMENTUM = 0.9
BETA1, BETA2 = 0.9, 0.999
ALPHA = 0.99
EPS = 1e-8
ADAGRAD_EPS = 1e-10
DECAY = 1e-2


@dataclass(frozen=True)
class Work:
    """An optimizer under PyTorch's name, its options, and the number of its states."""

    name: str
    optimizer: str
    states: int
    options: dict[str, Any] = field(hash=False)

    def streams(self) -> int:
        """How often an array is read or written in a step: the gradient is only read."""
        return 3 + 2 * self.states


_ADAM = {"betas": (BETA1, BETA2), "eps": EPS}
WORKS = {
    work.name: work
    for work in (
        Work("SGD", "SGD", 0, {}),
        Work("SGD momentum", "SGD", 1, {"momentum": MOMENTUM}),
        Work("AdamW", "AdamW", 2, {**_ADAM, "weight_decay": DECAY}),
        Work("AMSGrad", "Adam", 3, {**_ADAM, "amsgrad": True}),
        Work("RMSprop", "RMSprop", 1, {"alpha": ALPHA, "eps": EPS}),
        Work("RMSprop centered", "RMSprop", 3, {"alpha": ALPHA, "eps": EPS, "momentum": MOMENTUM, "centered": True}),
        Work("Adagrad", "Adagrad", 1, {"eps": ADAGRAD_EPS}),
    )
}


@dataclass
class Contestant:
    """An optimizer on arrays of its own, ready to step."""

    step: Callable[[], object]
    weights: Callable[[], list[Array]]
    load: Callable[[list[Array]], None]  # takes other values for the gradients
    before: Callable[[], object] | None = None  # mends what a step leaves behind; not timed
    holds: object = None  # what must live as long as the pointers that a step uses


@dataclass(frozen=True)
class Peer:
    """A library in one of the forms that its documentation recommends."""

    name: str
    make: Callable[[Work, list[Array], list[Array]], Contestant]
    lacks: Callable[[Work, np.dtype[Any]], str] = lambda _work, _dtype: ""  # why it can't do a work, or nothing
    temporaries: int = 0  # arrays of the size of the weights that a step makes and drops
    product: Callable[[int], Callable[[], object]] | None = None  # its own matrix product, for the cold case
    set_threads: Callable[[int], object] | None = None


def copies(arrays: Sequence[Array]) -> list[Array]:
    """New arrays of the same values: every page of them is written."""
    return [array.copy() for array in arrays]


def fill(arrays: Sequence[Array], values: Sequence[Array]) -> None:
    for array, value in zip(arrays, values, strict=True):
        array[...] = value
