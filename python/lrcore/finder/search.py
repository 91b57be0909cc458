"""The range test of any training: raise the rate step by step, look what becomes of the loss, put everything back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lrcore.finder.result import RangeTest
from lrcore.schedules import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from lrcore.finder.loop import Finder


class Trial(Protocol):
    """A training in which rates are tried."""

    def loss(self, batch: Sequence[Any]) -> float:
        """Return the loss of a batch, and keep its gradients for the step."""

    def validation(self) -> float | None:
        """Return the loss to look at in the place of the batches', if there is one."""

    def step(self, lr: float) -> None:
        """Take a step with the gradients of the batches since the last one, at a rate of the first group."""


def search(
    finders: list[Finder],
    trial: Trial,
    preserved: Callable[[], AbstractContextManager[None]],
    batches: Iterable[Any],
    accumulate: int,
    momentum: float | None,
    *,
    progress: bool,
) -> RangeTest:
    """Run a range test with each finder, everything put back after each, and return the mean of them."""
    feed = _Feed(batches)
    results: list[RangeTest] = []
    for number, finder in enumerate(finders, start=1):
        with preserved():
            title = f"range test {number}/{len(finders)}" if len(finders) > 1 else "range test"
            _run(trial, feed, _shown(finder, title, progress), finder, accumulate)
        result = finder.result(momentum)
        if results and result.stopped == "batches":
            break
        results.append(result)
    return results[0] if len(results) == 1 else _together(results)


def _run(trial: Trial, feed: _Feed, rates: Iterable[float], finder: Finder, accumulate: int) -> None:
    for lr in rates:
        losses = []
        for _ in range(accumulate):
            batch = feed.next()
            if batch is None:
                finder.end("batches")
                return
            losses.append(trial.loss(batch))
        loss = sum(losses) / len(losses)
        # A loss that is no number ends the test, whatever the validation says.
        instead = trial.validation() if math.isfinite(loss) else None
        if not finder.report(loss if instead is None else instead):
            return
        trial.step(lr)


def ratios_of(lrs: Sequence[float | Schedule], step: int) -> list[float]:
    """Return the ratios of rates at a step to the first one that is not 0; where a schedule is 0, of its highest."""
    rates = [lr(step) or lr.maximum or 0.0 if isinstance(lr, Schedule) else float(lr) for lr in lrs]
    first = next((rate for rate in rates if rate), None)
    return [1.0] * len(rates) if first is None else [rate / first for rate in rates]


# What iterators are asked to end with: a batch may be None, where a function needs none.
_END: Any = object()


class _Feed:
    """Batches, begun again when they are over and can be."""

    def __init__(self, batches: Iterable[Any]) -> None:
        if not isinstance(batches, Iterable):
            raise TypeError(f"batches must be iterable, got {type(batches).__name__}")
        self._again = None if isinstance(batches, Iterator) else batches
        self._batches = iter(batches)
        first = next(self._batches, _END)
        if first is _END:
            raise ValueError("batches must be at least one, got none")
        self._batches = itertools.chain([first], self._batches)

    def next(self) -> Sequence[Any] | None:
        batch = next(self._batches, _END)
        if batch is _END and self._again is not None:
            self._batches = iter(self._again)
            batch = next(self._batches, _END)
        if batch is _END:
            return None
        return batch if isinstance(batch, tuple | list) else (batch,)


def _shown(finder: Finder, title: str, progress: bool) -> Iterable[float]:  # noqa: FBT001
    if not progress:
        return finder
    try:
        from tqdm import tqdm
    except ImportError:
        return finder
    bar: Iterable[float] = tqdm(finder, total=len(finder), desc=title, unit="rate", leave=False, disable=None)
    return bar


def _together(results: list[RangeTest]) -> RangeTest:
    """Return the mean of several tests, as far as all of them went."""
    length = min(len(result.losses) for result in results)
    losses = np.array([result.losses[:length] for result in results])
    shortest = min(results, key=lambda result: len(result.losses))
    with np.errstate(over="ignore", invalid="ignore"):  # the last one may be infinite
        means, spreads = losses.mean(axis=0), losses.std(axis=0, ddof=1)
    return RangeTest(
        shortest.lrs,
        tuple(means.tolist()),
        tuple(spreads.tolist()),
        shortest.stopped,
        shortest.smoothing,
        momentum=shortest.momentum,
    )
