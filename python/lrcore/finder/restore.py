"""Putting an optimizer back as it was: weights, state, counters, schedules, and random generators."""

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
    """Put the optimizer back at the end of a ``with`` block, bit for bit, also after an exception.

    It takes a copy of weights and state meanwhile.
    """
    with opt._lock:
        opt._refuse_if_swapped()
        if opt._stepper.waiting:
            raise RuntimeError("micro-batches are waiting for a step; take it first")
        restore = _of_optimizer(opt)
    try:
        yield
    finally:
        put_back([restore])


def all_of(generators: Any) -> list[Any]:
    """Return generators as a list, also a single one, or none."""
    if generators is None:
        return []
    return list(generators) if isinstance(generators, Iterable) else [generators]


@contextmanager
def generators_preserved(generators: Iterable[Any]) -> Iterator[None]:
    """Put random generators back at the end of a ``with`` block.

    They are those of NumPy, Python or PyTorch, or these modules, which stand for their global ones.
    """
    restores: list[Callable[[], object]] = [_of_generator(generator) for generator in generators]
    try:
        yield
    finally:
        put_back(restores)


def _of_optimizer(opt: Optimizer) -> Callable[[], None]:
    state = export_state(opt)
    arrays = [*opt._stepper.weights(), *state.all_arrays()]
    copies = [array.copy(order="K") for array in arrays]

    def restore() -> None:
        with opt._lock:
            for array, copy in zip(arrays, copies, strict=True):
                array[...] = copy
            import_state(opt, state)

    return restore


# How generators of Python, NumPy's older ones, those of PyTorch, and PyTorch itself are read and set.
_METHODS = (("getstate", "setstate"), ("get_state", "set_state"), ("get_rng_state", "set_rng_state"))


def _of_generator(generator: Any) -> Callable[[], None]:
    if isinstance(generator, np.random.Generator):
        bits, state = generator.bit_generator, generator.bit_generator.state
        return lambda: setattr(bits, "state", state)
    for get, put in _METHODS:
        if hasattr(generator, get) and hasattr(generator, put):
            return partial(getattr(generator, put), getattr(generator, get)())
    raise TypeError(f"generators: a generator of NumPy, Python or PyTorch is needed, got {brief(generator)}")
