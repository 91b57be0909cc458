"""Putting an optimizer back as it was: weights, state, counters, schedules, and random generators."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from lrcore.optim.reports import Reports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lrcore.optim import Optimizer


@contextmanager
def preserved(opt: Optimizer, generators: Iterable[Any] = ()) -> Iterator[None]:
    """Put the optimizer back at the end of a ``with`` block, bit for bit, also after an exception.

    It takes a copy of weights and state meanwhile. Generators are those of NumPy, Python or PyTorch.
    """
    with opt._lock:
        opt._refuse_if_swapped()
        if opt._stepper.waiting:
            raise RuntimeError("micro-batches are waiting for a step; take it first")
        restore = _of_optimizer(opt)
    with generators_preserved(generators):
        try:
            yield
        finally:
            restore()


@contextmanager
def generators_preserved(generators: Iterable[Any]) -> Iterator[None]:
    """Put random generators back at the end of a ``with`` block."""
    restores = [_of_generator(generator) for generator in generators]
    try:
        yield
    finally:
        for restore in restores:
            restore()


def _of_optimizer(opt: Optimizer) -> Callable[[], None]:
    weights = opt._stepper.weights()
    states = opt._stepper.states
    copies = [weight.copy(order="K") for weight in weights]
    state_copies = [{name: array.copy(order="K") for name, array in arrays.items()} for arrays in states]
    counts, averaged, steps = opt._stepper.counts, opt._stepper.averaged, opt.steps
    values = [group.hyperparameters for group in opt._groups]
    noise = opt.noise_scale
    heard, reports = None if noise is None else noise.state(), opt._reports.state()
    plain = (opt._skipped, opt._skipped_in_a_row, opt._lr)

    def restore() -> None:
        with opt._lock:
            opt._stepper.drop_accumulated()
            for weight, copy in zip(weights, copies, strict=True):
                weight[...] = copy
            for index, (arrays, saved) in enumerate(zip(states, state_copies, strict=True)):
                for name, copy in saved.items():
                    arrays[name][...] = copy
                opt._stepper.set_state(index, counts[index], averaged[index], arrays)
            opt._stepper.taken = steps
            for group, given in zip(opt._groups, values, strict=True):
                group.replace(given)
            opt._follow(Reports.of(reports))
            if noise is not None and heard is not None:
                noise.restore(heard)
            opt._skipped, opt._skipped_in_a_row, opt._lr = plain

    return restore


def _of_generator(generator: Any) -> Callable[[], None]:
    if isinstance(generator, np.random.Generator):
        bits, state = generator.bit_generator, generator.bit_generator.state
        return lambda: setattr(bits, "state", state)
    if isinstance(generator, random.Random):
        saved = generator.getstate()
        return lambda: generator.setstate(saved)
    if hasattr(generator, "get_state") and hasattr(generator, "set_state"):
        held = generator.get_state()
        return lambda: generator.set_state(held)
    raise TypeError(f"generators: a generator of NumPy, Python or PyTorch is needed, got {generator!r}")
