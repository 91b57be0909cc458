"""The range test of a training with an optimizer of lrcore."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lrcore._messages import described
from lrcore._ranges import check_count
from lrcore.finder.given import as_number, check_callable, check_start
from lrcore.finder.loop import Finder
from lrcore.finder.preserving import all_of, generators_preserved, preserved
from lrcore.finder.search import ratios_of, search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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
    trial = _Trial(opt, loss_and_grads, validation, whole=accumulate == 1)
    with generators_preserved(all_of(generators)):
        return search(finders, trial, lambda: preserved(opt), batches, accumulate, _momentum(opt), progress=progress)


class _Trial:
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
    """Return the momentum of the first group of SGD, 0 with Nesterov's correction; None for other rules."""
    if type(opt).__name__ != "SGD":
        return None
    values = opt.param_groups[0].present(opt.steps)
    return 0.0 if values.get("nesterov") else float(values.get("momentum", 0.0))
