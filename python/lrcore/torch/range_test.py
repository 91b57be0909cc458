"""The learning-rate range test for a model and a loader of PyTorch."""

from __future__ import annotations

import random
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lrcore._messages import type_and_shape, warn
from lrcore._restoring import put_back
from lrcore.finder.finder import Plan, Traits, as_number, check_callable, check_start, ratios_of, search, traits_of
from lrcore.finder.restore import all_of, generators_preserved
from lrcore.optim import OPTIMIZERS
from lrcore.torch.module_state import copy_of, restore, restore_entries, restore_of, restores_of
from lrcore.torch.optimizer import DropIn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from lrcore.finder import RangeTest


def find_lr(
    model: torch.nn.Module,
    opt: torch.optim.Optimizer,
    loss: Callable[[Any, Any], torch.Tensor] | None,
    loader: Iterable[Any],
    start: float = 1e-7,
    end: float = 10.0,
    steps: int | None = None,
    mode: str = "exp",
    *,
    budget: int | None = None,
    run_length: int | None = None,
    smoothing: float = 0.9,
    stop: float = 4.0,
    validation: Callable[[torch.nn.Module], float] | None = None,
    accumulate: int = 1,
    repeats: int = 1,
    generators: Any = (),
    progress: bool = True,
) -> RangeTest:
    """Find a learning rate by a range test, and short runs at the learning rates that it leaves.

    The form of :func:`lrcore.find_lr` for a PyTorch model and any optimizer. Parameters, buffers, gradients, the
    optimizer's state and groups, and random generators are restored at the end, bit for bit, also after an exception or
    Ctrl-C; those of a loss that is a module too. The test takes a copy of them.

    Args:
        model: The model, in training or evaluation mode.
        opt: Its optimizer, of PyTorch or lrcore, whose step needs no closure. The ratios of the groups' learning rates
            stay.
        loss: ``loss(model(inputs), targets)`` returns the loss of a batch ``(inputs, targets)``; for a batch that is a
            mapping, ``loss(model(**batch), batch)``. None if the model returns the loss: as ``model(**batch).loss``,
            like those of transformers, or as ``model(*batch)``.
        loader: The batches. A loader or a list is repeated; an iterator ends the test when it is exhausted.
        start: The first learning rate, of the first group whose learning rate is not 0, in (0, inf).
        end: The last learning rate, above ``start``.
        steps: How many learning rates in the range test, at least 2; 60 by default.
        mode: ``"exp"``, a constant factor between learning rates, or ``"linear"``, a constant difference.
        budget: The most steps in the range test and the short runs; 300 by default, and none if ``steps`` is given:
            then the range test alone is made. With less than 115 after the range test there are no short runs.
        run_length: The number of steps of the run to come; 1,000 by default.
        smoothing: The decay of the running average of losses, in [0, 1).
        stop: The test stops when the average exceeds this many times the smallest one, or a loss is not finite.
        validation: ``validation(model)`` returns the loss to record in place of the batch's.
        accumulate: How many batches make a step; gradients are their mean.
        repeats: How often the test is run, each time on the next batches; the result has the mean and its spread. A
            repeat without enough batches is left out.
        generators: Random generators to restore, besides the global ones of PyTorch, NumPy and Python and those of the
            loader and its samplers.
        progress: Whether to show a progress bar on a terminal, where tqdm is installed.

    Returns:
        The losses, with ``result.suggest()``, ``result.table()`` and ``result.plot()``.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If a number is out of range, there is no batch, or ``opt`` has no parameter of the model.

    Warns:
        UserWarning: If ``opt`` also has trainable parameters of neither ``model`` nor ``loss``.

    Examples:
        >>> import torch, lrcore.torch
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> opt = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> batch = torch.eye(2), torch.zeros(2, 1)  # a mean of squares: of curvature 1, stable below 2
        >>> result = lrcore.torch.find_lr(model, opt, torch.nn.functional.mse_loss, [batch], start=1e-4)
        >>> 2 / 3 < result.suggestions["safe"].lr < 2, opt.param_groups[0]["lr"]
        (True, 0.1)

    References:
        Smith, *Cyclical Learning Rates for Training Neural Networks* (2017), section 3.3.

    Note:
        torch-lr-finder and Lightning's ``lr_find`` write one learning rate into every group, and compute slopes by the
        learning rate; here groups keep their ratios, and slopes are by its logarithm. Buffers of batch norms are
        restored too.
    """
    check_start(start)
    plan = Plan.checked(start, end, steps, mode, budget, run_length, accumulate, repeats, smoothing, stop)
    if not isinstance(opt, torch.optim.Optimizer):
        raise TypeError(f"opt must be an optimizer of PyTorch, got {type(opt).__name__}")
    if isinstance(opt, DropIn):
        opt._refuse_if_averaged()
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a module of PyTorch, got {type_and_shape(model)}")
    _check_parameters(model, opt, loss)
    check_callable("loss", loss, optional=True)
    check_callable("validation", validation, optional=True)
    given = [torch.default_generator, random._inst, np.random.mtrand._rand, *all_of(generators)]
    drawn = list({id(generator): generator for generator in (*given, *_generators_of(loader))}.values())
    trained = torch.nn.ModuleList([model, loss]) if isinstance(loss, torch.nn.Module) else model
    with ExitStack() as stack:
        stack.enter_context(generators_preserved(drawn))  # a loader draws when its iteration starts
        if isinstance(opt, DropIn):
            ratios = ratios_of(stack.enter_context(opt.without_schedules("lr")), opt.steps)
        else:
            ratios = ratios_of([group["lr"] for group in opt.param_groups], 0)
        trainer = _ModuleTrainer(model, opt, loss, validation, plan.accumulate, ratios)

        @contextmanager
        def restoring() -> Iterator[None]:
            with _preserved(trained, opt):
                trainer.begin()
                yield

        return search(plan, trainer, restoring, loader, _traits(opt), progress=progress)


def _generators_of(loader: Any) -> list[Any]:
    """Return the generators of a loader and its samplers."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = [loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None)]
    found = [getattr(owner, "generator", None) for owner in owners]
    return [generator for generator in found if isinstance(generator, torch.Generator)]


def _check_parameters(model: torch.nn.Module, opt: torch.optim.Optimizer, loss: Any) -> None:
    """Raise a ValueError if an optimizer steps none of a model's parameters; warn if it steps others too."""
    own = {id(param) for param in model.parameters()}
    stepped = [param for group in opt.param_groups for param in group["params"]]
    if stepped and not any(id(param) in own for param in stepped):
        raise ValueError(
            f"opt has {len(stepped)} parameters, and none of them is one of the model's {len(own)}: make the optimizer "
            "of model.parameters(), after the model has got its last ones"
        )
    if isinstance(loss, torch.nn.Module):
        own.update(map(id, loss.parameters()))
    others = sum(id(param) not in own and param.requires_grad for param in stepped)
    if others:
        warn(
            f"find_lr: {others} of the {len(stepped)} parameters of opt are not the model's: the range test trains "
            "them only where the loss gives them gradients"
        )


@dataclass
class _ModuleTrainer:
    """Trains a model, for :func:`search <lrcore.finder.finder.search>`."""

    _model: torch.nn.Module
    _opt: torch.optim.Optimizer
    _loss: Callable[[Any, Any], torch.Tensor] | None
    _validation: Callable[[torch.nn.Module], float] | None
    _accumulate: int
    _ratios: list[float]
    _has_grads: bool = False

    def begin(self) -> None:
        """Begin again, after the gradients from before the test were put back."""
        self._has_grads = False

    def loss(self, batch: Sequence[Any]) -> float:
        if not self._has_grads:
            self._opt.zero_grad()
            self._has_grads = True
        with torch.enable_grad():
            loss = self._loss_of(batch)
        number: float = loss.item()
        # A loss that is not finite ends the test.
        if np.isfinite(number):
            (loss / self._accumulate if self._accumulate > 1 else loss).backward()
        return number

    def _loss_of(self, batch: Sequence[Any]) -> torch.Tensor:
        mapping: Mapping[str, Any] | None = batch[0] if len(batch) == 1 and hasattr(batch[0], "keys") else None
        if mapping is not None:
            output = self._model(**mapping)
            loss = output.loss if self._loss is None else self._loss(output, mapping)
        elif self._loss is None:
            loss = self._model(*batch)
        elif len(batch) == 2:
            loss = self._loss(self._model(batch[0]), batch[1])
        else:
            raise ValueError(
                f"a batch must be (inputs, targets) or a mapping, got {len(batch)} parts; or give loss=None"
            )
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise TypeError(f"the loss must be a tensor of one number, got {type(loss).__name__}")
        return loss

    def validation(self) -> float | None:
        return None if self._validation is None else as_number("validation: the loss", self._validation(self._model))

    def step(self, lr: float) -> None:
        for group, ratio in zip(self._opt.param_groups, self._ratios, strict=True):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(lr * ratio)
            else:
                group["lr"] = lr * ratio
        self._opt.step()
        self._has_grads = False


@contextmanager
def _preserved(model: torch.nn.Module, opt: torch.optim.Optimizer) -> Iterator[None]:
    """Restore model and optimizer at the end of a ``with`` block; an error in one part does not keep the others."""
    restores = restores_of(model, "_buffers", "_parameters")
    own = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    stepped = {id(param): param for group in opt.param_groups for param in group["params"]}
    restores.extend(partial(restore, param, copy_of(param)) for key, param in stepped.items() if key not in own)
    for tensor in {**own, **stepped}.values():
        restores.append(partial(_restore_grad, tensor, tensor.grad, copy_of(tensor.grad)))
    restores.append(partial(restore_entries, opt.state, dict(opt.state)))
    restores.extend(restore_of(state) for state in opt.state.values() if isinstance(state, dict))
    restores.extend(restore_of(group) for group in opt.param_groups)
    if isinstance(opt, DropIn):
        restores.append(partial(opt.restore_progress, opt.progress()))
    try:
        yield
    finally:
        put_back(restores)


def _restore_grad(tensor: torch.Tensor, grad: torch.Tensor | None, copy: torch.Tensor | None) -> None:
    tensor.grad = grad
    if grad is not None and copy is not None:
        restore(grad, copy)


def _traits(opt: torch.optim.Optimizer) -> Traits:
    """Return the traits of an optimizer of lrcore, or of PyTorch if lrcore has it too."""
    engine = getattr(opt, "_engine_class", None)
    for one in OPTIMIZERS:
        name = one._declaration.in_torch
        if engine is None and name is not None and isinstance(opt, getattr(torch.optim, name)):
            engine = one
    return traits_of(None if engine is None else engine._declaration, opt.param_groups[0])
