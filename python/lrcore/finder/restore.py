"""Restores an optimizer (weights, state, counters, schedules) and random generators after a range test."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lrcore._messages import brief
from lrcore._restoring import put_back
from lrcore.optim.state import export_state, import_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lrcore.optim import Optimizer


@contextmanager
def preserved(opt: Optimizer) -> Iterator[None]:
    """Restore an optimizer bit for bit at the end of a ``with`` block, also after an exception.

    Holds a copy of weights and state.
    """
    with opt._lock:
        opt._refuse_if_swapped()
        if opt._stepper.pending_batches:
            raise RuntimeError("accumulated micro-batches are pending; take a step first")
        restore = _restorer(opt)
    try:
        yield
    finally:
        put_back([restore])


def all_of(generators: Any) -> list[Any]:
    """Return a list of generators from one, several or None."""
    if generators is None:
        return []
    return list(generators) if isinstance(generators, Iterable) else [generators]


@contextmanager
def generators_preserved(generators: Iterable[Any]) -> Iterator[None]:
    """Restore random generators at the end of a ``with`` block.

    Args:
        generators: Generators of NumPy, Python or PyTorch, or these modules for their global ones.
    """
    restores: list[Callable[[], object]] = [_generator_restorer(generator) for generator in generators]
    try:
        yield
    finally:
        put_back(restores)


def _restorer(opt: Optimizer) -> Callable[[], None]:
    state = export_state(opt)
    arrays = [*opt._stepper.weights(), *state.all_arrays()]
    copies = [array.copy(order="K") for array in arrays]

    def restore() -> None:
        with opt._lock:
            for array, copy in zip(arrays, copies, strict=True):
                array[...] = copy
            import_state(opt, state)

    return restore


# Getters and setters of Python's random, NumPy's RandomState and PyTorch's generators, and the torch module.
_METHODS = (("getstate", "setstate"), ("get_state", "set_state"), ("get_rng_state", "set_rng_state"))


def _generator_restorer(generator: Any) -> Callable[[], None]:
    if isinstance(generator, np.random.Generator):
        bits, state = generator.bit_generator, generator.bit_generator.state
        return lambda: setattr(bits, "state", state)
    for get, put in _METHODS:
        if hasattr(generator, get) and hasattr(generator, put):
            return partial(getattr(generator, put), getattr(generator, get)())
    raise TypeError(f"generators must be of NumPy, Python or PyTorch, got {brief(generator)}")
