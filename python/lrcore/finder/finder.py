"""The range test: raise the learning rate step by step, watch the loss, and restore everything."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lrcore import _ranges
from lrcore._messages import brief, described
from lrcore._ranges import FRACTION, POSITIVE, Range, check_count
from lrcore._running_average import RunningAverages
from lrcore.finder.restore import all_of, generators_preserved, preserved
from lrcore.finder.result import RangeTest
from lrcore.schedules import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from lrcore.optim import Optimizer

MODES = ("exp", "linear")


class Finder:
    """A range test of a training loop of one's own: rates to train at, and reports of their losses.

    ``for lr in finder`` yields rates from ``start`` to ``end``, until the loss diverges. In each turn take the loss at
    the present weights, tell it to :meth:`report`, and take one step at that rate. What the loop changes stays changed:
    :func:`find_lr` puts everything back, for optimizers of lrcore.

    Args:
        start: The first rate, in (0, inf).
        end: The last one, above ``start``.
        steps: How many, at least 2.
        mode: ``"exp"``, the same factor between two, or ``"linear"``, the same difference.
        smoothing: The share of the running average of losses that is kept at each, in [0, 1).
        stop: It stops when the average is more than this many times the best one, in (1, inf].

    Raises:
        TypeError: If a number is none.
        ValueError: If one is out of range.

    Examples:
        >>> import lrcore
        >>> w, finder = 1.0, lrcore.Finder(start=1e-3, end=10.0, steps=60)
        >>> for lr in finder:
        ...     goes_on = finder.report(2.0 * w * w)  # of curvature 4: stable below 0.5
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
        rates = np.geomspace(start, end, steps) if mode == "exp" else np.linspace(start, end, steps)
        self._rates: list[float] = rates.tolist()
        self._lrs: list[float] = []
        self._losses: list[float] = []
        self._average = RunningAverages(self._smoothing, [0.0])
        self._best = math.inf
        self._stopped: str | None = None

    def __len__(self) -> int:
        """Return how many rates there are."""
        return len(self._rates)

    def __iter__(self) -> Iterator[float]:
        """Yield the rates, until the loss diverges."""
        for lr in self._rates[len(self._lrs) :]:
            if self._stopped is not None:
                return
            if len(self._lrs) != len(self._losses):
                raise RuntimeError(f"no loss was reported for the rate {self._lrs[-1]!r}")
            self._lrs.append(lr)
            yield lr
        self._stopped = self._stopped or "end"

    def report(self, loss: float) -> bool:
        """Tell the loss at the present rate, before the step; return whether to take it and go on.

        Raises:
            RuntimeError: If no rate is waiting for its loss.
            TypeError: If the loss is no number.
        """
        if len(self._losses) >= len(self._lrs):
            raise RuntimeError("report one loss for each rate that the finder yields")
        number = as_number("report: loss", loss)
        self._losses.append(number)
        if not math.isfinite(number):
            self._stopped = "nan"
            return False
        self._average.add(number)
        (average,) = self._average.values
        self._best = min(self._best, average)
        # Measured from the best one, so that it means the same for losses below 0.
        if len(self._losses) > 1 and average - self._best > (self._stop - 1.0) * abs(self._best):
            self._stopped = "diverged"
            return False
        return True

    def end(self, reason: str) -> None:
        """End the test early: ``"batches"`` says that there were no more."""
        if len(self._lrs) > len(self._losses):
            self._lrs.pop()
        self._stopped = reason

    def result(self, momentum: float | None = None) -> RangeTest:
        """Return what was found so far.

        Args:
            momentum: That of the training with SGD, 0 without any: the edge of stability lies higher with it. None for
                rules that divide by what gradients come to, such as Adam.
        """
        lrs, losses = self._lrs[: len(self._losses)], self._losses
        stopped = self._stopped or ("end" if len(losses) == len(self) else "left")
        return RangeTest(tuple(lrs), tuple(losses), (), stopped, self._smoothing, momentum=momentum)

    from lrcore.finder.result import RangeTest
    from lrcore.optim import Optimizer


def find_lr(
    opt: Optimizer,
    loss_and_grads: Callable[..., tuple[float, Any]],
    batches: Iterable[Any],
    start: float = 1e-7,
    end: float = 10.0,
    steps: int = 100,
    mode: str = "exp",
    *,
    smoothing: float = 0.9,
    stop: float = 4.0,
    validation: Callable[[Any], float] | None = None,
    accumulate: int = 1,
    repeats: int = 1,
    generators: Any = (),
    progress: bool = True,
) -> RangeTest:
    """Find a learning rate by a range test: train at rates that rise from step to step, and look at the loss.

    A multiplier of all rates is raised, so that groups keep their ratios. Afterwards weights, state, averages,
    counters, schedules and the generators are as they were, bit for bit, also after an exception or Ctrl-C; meanwhile
    there is a copy of weights and state.

    Args:
        opt: The optimizer. Its state at the time of the test counts too.
        loss_and_grads: ``loss_and_grads(params, *batch)`` returns the mean loss of a batch and the gradients, in the
            structure of ``opt.params``.
        batches: The batches, each a tuple of arguments, or a single one. A list or a loader is begun again when it is
            over; an iterator ends the test.
        start: The first rate, of the first group whose rate is not 0, in (0, inf).
        end: The last rate, above ``start``.
        steps: How many rates, at least 2.
        mode: ``"exp"``, the same factor between two rates, or ``"linear"``, the same difference.
        smoothing: The share of the running average of losses that is kept at each, in [0, 1).
        stop: The test stops when the average is more than this many times the best one, or a loss is no number.
        validation: ``validation(params)`` returns the loss to look at in the place of the batches'.
        accumulate: How many batches make a step.
        repeats: How often the test is run, on the batches that follow; the result has the mean and its spread. One for
            which there are not enough batches is left out.
        generators: Random generators of NumPy, Python or PyTorch that the training draws from, to be put back at the
            end: one, several, or these modules, for their global ones.
        progress: Whether to show a progress bar on a terminal, where tqdm is installed.

    Returns:
        The losses, with ``result.suggest()``, ``result.table()`` and ``result.plot()``.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If a number is out of range, there is no batch, or a step refuses its gradients.
        RuntimeError: If micro-batches are waiting for a step.

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
        Lightning's ``lr_find`` takes slopes by the rate, here they are by its logarithm; it and torch-lr-finder write
        one rate into every group, here groups keep their ratios. torch-lr-finder does not stop at NaN.
    """
    from lrcore.optim import Optimizer

    if not isinstance(opt, Optimizer):
        hint = "; for those of PyTorch there is lrcore.torch.find_lr(model, opt, loss, loader)"
        raise TypeError(f"opt must be an optimizer of lrcore, got {type(opt).__name__}{hint}")
    check_callable("loss_and_grads", loss_and_grads)
    check_callable("validation", validation, optional=True)
    check_start(start)
    accumulate, repeats = check_count("accumulate", accumulate, least=1), check_count("repeats", repeats, least=1)
    finders = [Finder(start, end, steps, mode, smoothing=smoothing, stop=stop) for _ in range(repeats)]
    trainer = _OptimizerTrainer(opt, loss_and_grads, validation, whole=accumulate == 1)
    with generators_preserved(all_of(generators)):
        return search(finders, trainer, lambda: preserved(opt), batches, accumulate, _momentum(opt), progress=progress)


class _OptimizerTrainer:
    """The training of an optimizer of lrcore."""

    def __init__(
        self,
        opt: Optimizer,
        loss_and_grads: Callable[..., tuple[float, Any]],
        validation: Callable[[Any], float] | None,
        *,
        whole: bool,
    ) -> None:
        self._opt, self._loss_and_grads, self._validation, self._whole = opt, loss_and_grads, validation, whole
        self._ratios = ratios_of([group["lr"] for group in opt.param_groups], opt.steps)
        self._grads: Any = None

    def loss(self, batch: Sequence[Any]) -> float:
        returned = self._loss_and_grads(self._opt.params, *batch)
        if not isinstance(returned, tuple | list) or len(returned) != 2:
            raise TypeError(f"loss_and_grads must return a pair of loss and gradients, got {described(returned)}")
        loss, grads = returned
        number = as_number("loss_and_grads: the loss", loss)
        if self._whole:
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
        self._opt.step(self._grads if self._whole else None)


def _momentum(opt: Optimizer) -> float | None:
    """Return the momentum of the first group, 0 with Nesterov's correction; None for adaptive optimizers."""
    if opt._declaration.is_adaptive:
        return None
    values = opt.param_groups[0].present(opt.steps)
    return 0.0 if values.get("nesterov") else float(values.get("momentum", 0.0))


class Trainer(Protocol):
    """A training in which rates are tried."""

    def loss(self, batch: Sequence[Any]) -> float:
        """Return the loss of a batch, and keep its gradients for the step."""

    def validation(self) -> float | None:
        """Return the loss to look at in the place of the batches', if there is one."""

    def step(self, lr: float) -> None:
        """Take a step with the gradients of the batches since the last one, at a rate of the first group."""


def search(
    finders: list[Finder],
    trainer: Trainer,
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
            _run(trainer, feed, _shown(finder, title, progress), finder, accumulate)
        result = finder.result(momentum)
        if results and result.stopped == "batches":
            break
        results.append(result)
    return results[0] if len(results) == 1 else _together(results)


def _run(trainer: Trainer, feed: _Feed, rates: Iterable[float], finder: Finder, accumulate: int) -> None:
    for lr in rates:
        losses = []
        for _ in range(accumulate):
            batch = feed.next()
            if batch is None:
                finder.end("batches")
                return
            losses.append(trainer.loss(batch))
        loss = sum(losses) / len(losses)
        # A loss that is no number ends the test, whatever the validation says.
        instead = trainer.validation() if math.isfinite(loss) else None
        if not finder.report(loss if instead is None else instead):
            return
        trainer.step(lr)


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


def as_number(name: str, value: Any) -> float:
    """Return a real scalar, or the one element of an array or a tensor, as a float.

    Raises:
        TypeError: If it is none.
    """
    # A loss may have a dimension of 1, which is no scalar elsewhere.
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape and all(size == 1 for size in shape):
        value = value.reshape(())
    number = _ranges.as_number(value)
    if number is None:
        raise TypeError(f"{name} must be a number, got {described(value)}")
    return float(number)


def check_callable(name: str, value: Any, *, optional: bool = False) -> None:
    """Raise a TypeError unless the value can be called."""
    if not callable(value) and not (optional and value is None):
        raise TypeError(f"{name} must be a function{' or None' if optional else ''}, got {brief(value)}")


def check_start(start: Any) -> None:
    """Raise a TypeError if the inputs and the targets of a batch were given as ``batches`` and ``start``."""
    if getattr(start, "shape", ()) or isinstance(start, list | tuple):
        raise TypeError(
            f"start must be a number, the first learning rate, got {described(start)}; the batches are one argument: "
            "[(inputs, targets)]"
        )
