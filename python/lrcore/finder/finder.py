"""The learning-rate range test of Smith (2017), section 3.3.

Train while the learning rate grows from step to step, record the loss before each step, and restore everything::

    for lr in geomspace(start, end, steps):
        loss, grads = loss_and_grads(params, batch)
        stop if the moving average of the losses diverges
        step(grads, lr)

:class:`Finder` yields the learning rates and decides when to stop. :func:`search` drives any :class:`Trainer` with it,
and then makes short runs near the learning rate at which the loss rises (``short_runs.py``); the recommendation comes
from them.
:func:`find_lr` does so with an optimizer of lrcore, and ``lrcore.torch.find_lr`` with a model of PyTorch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from lrcore import _ranges
from lrcore._messages import brief, type_and_shape
from lrcore._ranges import FRACTION, POSITIVE, Range, check_count
from lrcore._running_average import RunningAverages
from lrcore.finder.restore import all_of, generators_preserved, preserved
from lrcore.finder.result import FEW, LONG_RUN, RangeTest
from lrcore.finder.short_runs import (
    COUNTED,
    LONGEST,
    SMALLEST_BUDGET,
    ShortRun,
    explore,
    has_exploded,
    learning_rates,
    limit_of,
)
from lrcore.schedules import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from lrcore.optim import Optimizer
    from lrcore.optim.declaration import Declaration

MODES = ("exp", "linear")
BUDGET, STEPS = 300, 60
_MOST_BYTES = 1 << 29  # of the batches that are kept for short runs


class Finder:
    """A range test for your own training loop: yields learning rates and takes their losses.

    ``for lr in finder`` yields learning rates from ``start`` to ``end`` until the loss diverges. In each iteration
    compute the loss at the current weights, pass it to :meth:`report`, and take one step with ``lr``. The loop's
    changes to the weights stay; :func:`find_lr` restores everything, for optimizers of lrcore.

    Args:
        start: The first learning rate, in (0, inf).
        end: The last learning rate, greater than ``start``.
        steps: The number of learning rates, at least 2.
        mode: ``"exp"`` for a constant ratio between learning rates, ``"linear"`` for a constant difference.
        smoothing: The decay of the losses' moving average, in [0, 1).
        stop: Stop when the average is more than this many times the best one, in (1, inf].

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is out of range.

    Examples:
        >>> import lrcore
        >>> w, finder = 1.0, lrcore.Finder(start=1e-3, end=10.0, steps=60)
        >>> for lr in finder:
        ...     goes_on = finder.report(2.0 * w * w)  # curvature 4: stable below 0.5
        ...     w -= lr * 4.0 * w
        >>> result = finder.result()
        >>> result.stopped, 0.1 < result.suggestions["safe"].lr < 0.5
        ('diverged', True)
    """

    def __init__(
        self,
        start: float = 1e-7,
        end: float = 10.0,
        steps: int = 100,
        mode: str = "exp",
        *,
        smoothing: float = 0.9,
        stop: float = 4.0,
    ) -> None:
        start, end = POSITIVE.check("start", start), POSITIVE.check("end", end)
        if end <= start:
            raise ValueError(f"end must be more than start, {start!r}, got {brief(end)}")
        steps = check_count("steps", steps, least=2)
        if mode not in MODES:
            raise ValueError(f"mode must be 'exp' or 'linear', got {brief(mode)}")
        self._smoothing = FRACTION.check("smoothing", smoothing)
        self._stop = Range(1.0, math.inf, opened=True, closed=True).check("stop", stop)
        spaced = np.geomspace if mode == "exp" else np.linspace
        self._planned: list[float] = spaced(start, end, steps).tolist()
        self._lrs: list[float] = []
        self._losses: list[float] = []
        self._average = RunningAverages(self._smoothing, [0.0])
        self._best, self._highest = math.inf, -math.inf
        self._stopped: str | None = None

    def __len__(self) -> int:
        """Return the number of learning rates."""
        return len(self._planned)

    def __iter__(self) -> Iterator[float]:
        """Yield the learning rates until the loss diverges."""
        for lr in self._planned[len(self._lrs) :]:
            if self._stopped is not None:
                return
            if len(self._lrs) != len(self._losses):
                raise RuntimeError(f"no loss was reported for the learning rate {self._lrs[-1]!r}")
            self._lrs.append(lr)
            yield lr
        self._stopped = self._stopped or "end"

    def report(self, loss: float) -> bool:
        """Record the loss at the current learning rate, before its step; return whether to take the step.

        Raises:
            RuntimeError: If the current learning rate already has a loss, or there is none yet.
            TypeError: If the loss is not a number.
        """
        if len(self._losses) >= len(self._lrs):
            raise RuntimeError("report one loss for each learning rate that the finder yields")
        number = as_number("report: loss", loss)
        self._losses.append(number)
        if not math.isfinite(number):
            self._stopped = "nan"
            return False
        self._average.add(number)
        (average,) = self._average.values
        # An average of a few losses is mostly noise, and later ones are compared with the largest of them too.
        if len(self._losses) < max(FEW, len(self) // 5):
            self._highest = max(self._highest, number)
            return True
        self._best = min(self._best, average)
        # The distance from the best average means the same for negative losses.
        if average - self._best > (self._stop - 1.0) * abs(self._best) and average > self._highest:
            self._stopped = "diverged"
            return False
        return True

    def end(self, reason: str) -> None:
        """End the test early, for example with ``"batches"`` when there are no more batches."""
        if len(self._lrs) > len(self._losses):
            self._lrs.pop()
        self._stopped = reason

    def result(self, momentum: float | None = None, long_run: tuple[float, float] = LONG_RUN) -> RangeTest:
        """Return the result so far.

        Args:
            momentum: The momentum of SGD, 0 without: the edge of stability depends on it. None for adaptive optimizers
                such as Adam.
            long_run: The relation of the best learning rates of long and short runs, as in
                :class:`lrcore.optim.declaration.Declaration`.
        """
        lrs, losses = self._lrs[: len(self._losses)], self._losses
        stopped = self._stopped or ("end" if len(losses) == len(self) else "left")
        return RangeTest(tuple(lrs), tuple(losses), (), stopped, self._smoothing, momentum, long_run)


def find_lr(
    opt: Optimizer,
    loss_and_grads: Callable[..., tuple[float, Any]],
    batches: Iterable[Any],
    start: float = 1e-7,
    end: float = 10.0,
    steps: int | None = None,
    mode: str = "exp",
    *,
    budget: int | None = None,
    run_length: int | None = None,
    smoothing: float = 0.9,
    stop: float = 4.0,
    validation: Callable[[Any], float] | None = None,
    accumulate: int = 1,
    repeats: int = 1,
    generators: Any = (),
    progress: bool = True,
) -> RangeTest:
    """Find a learning rate by a range test, and short runs at the learning rates that it leaves.

    First the learning rate grows at each step while the loss is recorded. Then come runs of 20 and 40 steps, each with
    warm-up and decay, on the same batches and from the same weights. ``result.suggest()`` has the learning rate for a
    run of ``run_length`` steps, an interval, and the probability that it is as good as the best one.

    All groups keep the ratio of their learning rates. Afterwards weights, state, averages, counters, schedules and the
    generators are restored bit for bit, also after an exception or Ctrl-C; the test holds a copy of weights and state.

    Args:
        opt: The optimizer, new or in the middle of a run; its state affects the result.
        loss_and_grads: ``loss_and_grads(params, *batch)`` returns the mean loss of a batch and the gradients, in the
            structure of ``opt.params``.
        batches: The batches, each a tuple of arguments or a single argument. A list or a loader restarts when it is
            exhausted; an iterator ends the test.
        start: The first learning rate, in (0, inf), of the first group whose learning rate is not 0.
        end: The last learning rate, greater than ``start``.
        steps: The number of learning rates in the range test, at least 2; 60 by default.
        mode: ``"exp"`` for a constant ratio between learning rates, ``"linear"`` for a constant difference.
        budget: The most steps in the range test and the short runs. The short runs get what the range test leaves, and
            with less than 115 there are none. By default 300, or none if ``steps`` is given: then the range test alone
            is made.
        run_length: The number of steps of the run to come: long runs with adaptive optimizers want lower learning
            rates. By default the recommendation is for 1,000.
        smoothing: The decay of the losses' moving average, in [0, 1).
        stop: The test stops when the average is more than this many times the best one and above the first losses, or a
            loss is not finite.
        validation: ``validation(params)`` returns the loss to record in place of the batch's, also at the end of each
            short run.
        accumulate: The number of batches per step.
        repeats: The number of tests, on consecutive batches; the result is their mean and standard deviation. A repeat
            for which the batches do not suffice is dropped.
        generators: Random generators of NumPy, Python or PyTorch to restore afterwards: one, several, or these modules
            for their global ones.
        progress: Whether to show a progress bar on a terminal, if tqdm is installed.

    Returns:
        The losses, with ``result.suggest()``, ``result.table()`` and ``result.plot()``.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If a number is out of range, there is no batch, or a step rejects its gradients.
        RuntimeError: If accumulated micro-batches are pending.

    Examples:
        >>> import lrcore, numpy as np
        >>> params = {"w": np.array([1.0, -2.0])}
        >>> opt = lrcore.SGD(params)
        >>> def loss_and_grads(params):  # a quadratic of curvatures 1 and 4: stable below 0.5
        ...     curvature = np.array([1.0, 4.0])
        ...     return 0.5 * float(curvature @ params["w"] ** 2), {"w": curvature * params["w"]}
        >>> result = lrcore.find_lr(opt, loss_and_grads, [()], start=1e-4)
        >>> result.stopped, bool(0.5 / 3 < result.suggestions["safe"].lr < 0.5), params["w"]
        ('diverged', True, array([ 1., -2.]))

    References:
        Smith, *Cyclical Learning Rates for Training Neural Networks* (2017), section 3.3.

    Note:
        Lightning's ``lr_find`` takes slopes over the learning rate, lrcore over its logarithm. Lightning and
        torch-lr-finder set one learning rate in all groups, lrcore keeps their ratios. torch-lr-finder does not stop at
        NaN.
    """
    from lrcore.optim import Optimizer

    if not isinstance(opt, Optimizer):
        hint = "; for those of PyTorch there is lrcore.torch.find_lr(model, opt, loss, loader)"
        raise TypeError(f"opt must be an optimizer of lrcore, got {type(opt).__name__}{hint}")
    check_callable("loss_and_grads", loss_and_grads)
    check_callable("validation", validation, optional=True)
    check_start(start)
    plan = Plan.checked(start, end, steps, mode, budget, run_length, accumulate, repeats, smoothing, stop)
    trainer = _OptimizerTrainer(opt, loss_and_grads, validation, accumulates=plan.accumulate > 1)
    with generators_preserved(all_of(generators)):
        return search(
            plan,
            trainer,
            lambda: preserved(opt),
            batches,
            traits_of(opt._declaration, opt.param_groups[0].present(opt.steps)),
            progress=progress,
        )


class Plan(NamedTuple):
    """What :func:`search` does.

    Attributes:
        finders: The range tests, one after the other.
        accumulate: The number of batches per step.
        budget: The most steps.
        run_length: The number of steps of the run to come, or None.
    """

    finders: list[Finder]
    accumulate: int
    budget: int
    run_length: int | None

    @classmethod
    def checked(
        cls,
        start: float,
        end: float,
        steps: int | None,
        mode: str,
        budget: int | None,
        run_length: int | None,
        accumulate: int,
        repeats: int,
        smoothing: float,
        stop: float,
    ) -> Plan:
        """Return the plan of arguments of :func:`find_lr`, or raise if one is out of range."""
        accumulate, repeats = check_count("accumulate", accumulate, least=1), check_count("repeats", repeats, least=1)
        if budget is not None:
            budget = check_count("budget", budget, least=2)
        elif steps is None:
            budget = BUDGET
        run_length = None if run_length is None else check_count("run_length", run_length, least=1)
        steps = min(STEPS, budget or STEPS) if steps is None else steps
        finders = [Finder(start, end, steps, mode, smoothing=smoothing, stop=stop) for _ in range(repeats)]
        return cls(finders, accumulate, budget or 0, run_length)


class Traits(NamedTuple):
    """What the recommendation has to know of an optimizer.

    Attributes:
        momentum: The momentum of SGD, 0 without or with Nesterov's correction; None for adaptive optimizers.
        long_run: As in :class:`lrcore.optim.declaration.Declaration`.
    """

    momentum: float | None
    long_run: tuple[float, float]


# What momentum adds to the relation of SGD.
_OF_MOMENTUM = (-0.05, -0.2)


def traits_of(declaration: Declaration | None, group: Mapping[str, Any]) -> Traits:
    """Return the traits of an optimizer from its declaration, if it has one, and the hyperparameters of a group."""
    if declaration is None or declaration.is_adaptive:
        return Traits(None, LONG_RUN if declaration is None else declaration.long_run)
    momentum = float(group.get("momentum", 0.0))
    pairs = zip(declaration.long_run, _OF_MOMENTUM, strict=True)
    first, second = (own + more if momentum else own for own, more in pairs)
    return Traits(0.0 if group.get("nesterov") else momentum, (first, second))


class Trainer(Protocol):
    """What a range test needs of a training loop."""

    def loss(self, batch: Sequence[Any]) -> float:
        """Return the loss of a batch and keep its gradients for the step."""

    def validation(self) -> float | None:
        """Return the loss to record in place of the batches', or None."""

    def step(self, lr: float) -> None:
        """Take a step with the gradients kept since the last one; ``lr`` is the learning rate of the first group."""


class _OptimizerTrainer:
    """The :class:`Trainer` of an optimizer of lrcore."""

    def __init__(
        self,
        opt: Optimizer,
        loss_and_grads: Callable[..., tuple[float, Any]],
        validation: Callable[[Any], float] | None,
        *,
        accumulates: bool,
    ) -> None:
        self._opt, self._loss_and_grads, self._validation = opt, loss_and_grads, validation
        self._accumulates = accumulates
        self._ratios = ratios_of([group["lr"] for group in opt.param_groups], opt.steps)
        self._grads: Any = None

    def loss(self, batch: Sequence[Any]) -> float:
        returned = self._loss_and_grads(self._opt.params, *batch)
        if not isinstance(returned, tuple | list) or len(returned) != 2:
            raise TypeError(f"loss_and_grads must return a pair of loss and gradients, got {type_and_shape(returned)}")
        loss, grads = returned
        number = as_number("loss_and_grads: the loss", loss)
        if not self._accumulates:
            self._grads = grads
        elif math.isfinite(number):
            self._opt.accumulate(grads)
        return number

    def validation(self) -> float | None:
        if self._validation is None:
            return None
        return as_number("validation: the loss", self._validation(self._opt.params))

    def step(self, lr: float) -> None:
        for group, ratio in zip(self._opt.param_groups, self._ratios, strict=True):
            group["lr"] = lr * ratio
        self._opt.step(self._grads)


def ratios_of(lrs: Sequence[float | Schedule], step: int) -> list[float]:
    """Return the ratios of learning rates to the first one that is not 0; a schedule at 0 counts with its maximum."""
    values = [lr(step) or lr.maximum or 0.0 if isinstance(lr, Schedule) else float(lr) for lr in lrs]
    first = next((value for value in values if value), None)
    return [1.0] * len(values) if first is None else [value / first for value in values]


def search(
    plan: Plan,
    trainer: Trainer,
    restoring: Callable[[], AbstractContextManager[None]],
    batches: Iterable[Any],
    traits: Traits,
    *,
    progress: bool,
) -> RangeTest:
    """Make the range tests, take their mean, and make short runs; everything is restored after each."""
    feed = _feed(batches)
    results: list[RangeTest] = []
    left = plan.budget
    for number, finder in enumerate(plan.finders, start=1):
        title = f"range test {number}/{len(plan.finders)}" if len(plan.finders) > 1 else "range test"
        with restoring():
            last = _run(trainer, feed, finder, plan.accumulate, title if progress else None)
        result = finder.result(*traits)
        if result.stopped == "nan":
            with restoring():  # the same batches at the weights before the test
                if not all(math.isfinite(trainer.loss(batch)) for batch in last):
                    result = replace(result, stopped="data")
        left -= len(result.losses)
        if results and result.stopped == "batches":
            break
        results.append(result)
    result = results[0] if len(results) == 1 else _mean(results)
    untrained, runs = _short_runs(trainer, restoring, feed, result, plan.accumulate, left, progress=progress)
    return replace(result, runs=tuple(runs), untrained=tuple(untrained), run_length=plan.run_length)


def _short_runs(
    trainer: Trainer,
    restoring: Callable[[], AbstractContextManager[None]],
    feed: Iterator[Sequence[Any]],
    result: RangeTest,
    accumulate: int,
    budget: int,
    *,
    progress: bool,
) -> tuple[list[float], list[ShortRun]]:
    """Make short runs around the center of a range test, unless the budget or the batches do not suffice.

    Returns:
        The losses of the untrained weights, and the runs.
    """
    if result.center is None or result.fault is not None or budget < SMALLEST_BUDGET:
        return [], []
    batches = _kept(feed, LONGEST * accumulate)
    if not batches:
        return [], []

    def mean_loss(step: int) -> float:
        bar.update()
        own = batches[step * accumulate : (step + 1) * accumulate]
        return sum(trainer.loss(batch) for batch in own) / accumulate

    def run(lr: float, steps: int) -> ShortRun:
        losses: list[float] = []
        with restoring():
            for step, rate in enumerate(learning_rates(lr, steps)):
                losses.append(mean_loss(step))
                if has_exploded(losses, limit):
                    return ShortRun(lr, steps, tuple(losses))
                trainer.step(rate)
            return ShortRun(lr, steps, tuple(losses), trainer.validation())

    with _bar(budget, "short runs" if progress else None) as bar:
        with restoring():
            validation = trainer.validation()
            untrained = [mean_loss(step) for step in range(LONGEST - COUNTED, LONGEST)]
        limit = limit_of(untrained)
        return untrained if validation is None else [validation], explore(run, result.center, budget - COUNTED)


def _kept(feed: Iterator[Sequence[Any]], count: int) -> list[Sequence[Any]]:
    """Return the next batches, or none if there are fewer. Those above a size in bytes are the first ones again."""
    batches: list[Sequence[Any]] = []
    for batch in itertools.islice(feed, count):
        batches.append(batch)
        if sum(_size(part) for kept in batches for part in kept) > _MOST_BYTES:
            return list(itertools.islice(itertools.cycle(batches), count))
    return batches if len(batches) == count else []


def _size(part: Any) -> int:
    """Return the size in bytes of an array, or of the arrays in a mapping."""
    parts = part.values() if hasattr(part, "keys") else [part]
    return sum(size for part in parts if isinstance(size := getattr(part, "nbytes", 0), int))


def _run(
    trainer: Trainer, feed: Iterator[Sequence[Any]], finder: Finder, accumulate: int, title: str | None
) -> list[Sequence[Any]]:
    """Run a range test, with a progress bar if it has a title; return the batches of the last step."""
    batches: list[Sequence[Any]] = []
    with _bar(len(finder), title) as bar:
        for lr in finder:
            batches = list(itertools.islice(feed, accumulate))
            if len(batches) < accumulate:
                finder.end("batches")
                break
            loss = sum(map(trainer.loss, batches)) / accumulate
            # A training loss that is not finite ends the test whatever the validation loss is.
            validation = trainer.validation() if math.isfinite(loss) else None
            if not finder.report(loss if validation is None else validation):
                break
            trainer.step(lr)
            bar.update()
    return batches


def _bar(total: int, title: str | None) -> Any:
    """Return a progress bar, which shows on terminals only and does nothing without a title or tqdm."""
    try:
        from tqdm import tqdm
    except ImportError:
        return nullcontext(SimpleNamespace(update=int))
    return tqdm(total=total, desc=title, unit="step", leave=False, disable=None if title else True)


def _feed(batches: Iterable[Any]) -> Iterator[Sequence[Any]]:
    """Return the batches of as many passes as are needed, or raise if there are none."""
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches must be iterable, got {type(batches).__name__}")
    feed = _passes(batches)
    first = next(feed, None)
    if first is None:
        raise ValueError("batches must be at least one, got none")
    return itertools.chain([first], feed)


def _passes(batches: Iterable[Any]) -> Iterator[Sequence[Any]]:
    """Yield batches as tuples of arguments until a pass has none, as has the second pass over an iterator."""
    is_exhausted = False
    while not is_exhausted:
        is_exhausted = True
        for batch in batches:
            is_exhausted = False
            yield batch if isinstance(batch, tuple | list) else (batch,)


def _mean(results: list[RangeTest]) -> RangeTest:
    """Return the mean of several tests, cut to the shortest."""
    shortest = min(results, key=lambda result: len(result.losses))
    losses = np.array([result.losses[: len(shortest.losses)] for result in results])
    with np.errstate(over="ignore", invalid="ignore"):  # the last loss may be infinite
        means, spreads = losses.mean(axis=0), losses.std(axis=0, ddof=1)
    return replace(shortest, losses=tuple(means.tolist()), spreads=tuple(spreads.tolist()))


def as_number(name: str, value: Any) -> float:
    """Return a real scalar, or the element of an array or a tensor with one, as a float.

    Raises:
        TypeError: If the value is neither.
    """
    # Losses often have the shape (1,), which is not a scalar anywhere else in lrcore.
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape and all(size == 1 for size in shape):
        value = value.reshape(())
    number = _ranges.as_number(value)
    if number is None:
        raise TypeError(f"{name} must be a number, got {type_and_shape(value)}")
    return float(number)


def check_callable(name: str, value: Any, *, optional: bool = False) -> None:
    """Raise a TypeError unless the value can be called."""
    if not callable(value) and not (optional and value is None):
        raise TypeError(f"{name} must be a function{' or None' if optional else ''}, got {brief(value)}")


def check_start(start: Any) -> None:
    """Raise a TypeError if the inputs and targets of a batch were passed as ``batches`` and ``start``."""
    if getattr(start, "shape", ()) or isinstance(start, list | tuple):
        raise TypeError(
            f"start must be a number, the first learning rate, got {type_and_shape(start)}; the batches are one "
            "argument: [(inputs, targets)]"
        )
