"""The optimizers.

One that ``torch.optim`` has too is a subclass of PyTorch's, and has its signature. Docstrings are completed by those of
the NumPy forms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, Unpack

import torch

from lrcore import optim
from lrcore.optim.hyperparameter import plain
from lrcore.torch.engine import make_count, make_state
from lrcore.torch.optimizer import DropIn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lrcore.schedules import Schedule
    from lrcore.torch.optimizer import TorchOptions

    Rate: TypeAlias = float | torch.Tensor | Schedule
else:
    __all__ = [one.__name__ for one in optim.OPTIMIZERS]


class SGD(DropIn, torch.optim.SGD, of=optim.SGD):
    """:class:`torch.optim.SGD`, with lrcore's step: the same arguments, state and numbers."""

    # PyTorch's SGD knows a parameter's first step by its missing buffer.
    _counts_steps: ClassVar = False

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        momentum: float | Schedule = 0,
        dampening: float | Schedule = 0,
        weight_decay: Rate = 0,
        nesterov: bool = False,  # noqa: FBT001, FBT002
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[TorchOptions],
    ) -> None:
        given = self._start(options, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay)
        super().__init__(
            params,
            nesterov=nesterov,
            maximize=maximize,
            foreach=foreach,
            differentiable=differentiable,
            fused=fused,
            **given,
        )


class Adam(DropIn, torch.optim.Adam, of=optim.Adam):
    """:class:`torch.optim.Adam`, with lrcore's step: the same arguments, state and numbers."""

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: tuple[Rate, Rate] = (0.9, 0.999),
        eps: float | Schedule = 1e-8,
        weight_decay: float | Schedule = 0,
        amsgrad: bool = False,  # noqa: FBT001, FBT002
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        **options: Unpack[TorchOptions],
    ) -> None:
        given = self._start(options, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        super().__init__(
            params,
            amsgrad=amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=decoupled_weight_decay,
            **given,
        )


class AdamW(DropIn, torch.optim.AdamW, of=optim.AdamW):
    """:class:`torch.optim.AdamW`, with lrcore's step: the same arguments, state and numbers, in a fraction of the time.

    Tensors are stepped where they lie, without a copy, and their version counters go up, so that autograd still notices
    a stale read. State is in :attr:`state`, in PyTorch's form, and what is put there holds.

    Examples:
        >>> import torch, lrcore.torch
        >>> from lrcore import schedules
        >>> model = torch.nn.Linear(3, 1)
        >>> opt = lrcore.torch.AdamW(model.parameters(), lr=schedules.Cosine(0.1, steps=100).warmup(10), clip_norm=1.0)
        >>> for _ in range(5):
        ...     opt.zero_grad()
        ...     model(torch.ones(2, 3)).square().mean().backward()
        ...     opt.step()
        >>> opt.info.step, round(opt.info.lr, 3), round(opt.param_groups[0]["lr"], 3)
        (5, 0.05, 0.06)

    Note:
        The count of a parameter's steps goes on beyond 2²⁴, where PyTorch's stops: from there it is float64.
        Subnormal moments are stored as 0.
    """

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: tuple[Rate, Rate] = (0.9, 0.999),
        eps: float | Schedule = 1e-8,
        weight_decay: float | Schedule = 1e-2,
        amsgrad: bool = False,  # noqa: FBT001, FBT002
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[TorchOptions],
    ) -> None:
        given = self._start(options, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        super().__init__(
            params,
            amsgrad=amsgrad,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            **given,
        )


class RMSprop(DropIn, torch.optim.RMSprop, of=optim.RMSprop):
    """:class:`torch.optim.RMSprop`, with lrcore's step: the same arguments, state and numbers."""

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-2,
        alpha: float | Schedule = 0.99,
        eps: float | Schedule = 1e-8,
        weight_decay: float | Schedule = 0,
        momentum: float | Schedule = 0,
        centered: bool = False,  # noqa: FBT001, FBT002
        capturable: bool = False,  # noqa: FBT001, FBT002
        foreach: bool | None = None,  # noqa: FBT001
        maximize: bool = False,  # noqa: FBT001, FBT002
        differentiable: bool = False,  # noqa: FBT001, FBT002
        **options: Unpack[TorchOptions],
    ) -> None:
        given = self._start(options, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
        super().__init__(
            params,
            centered=centered,
            capturable=capturable,
            foreach=foreach,
            maximize=maximize,
            differentiable=differentiable,
            **given,
        )


class Adagrad(DropIn, torch.optim.Adagrad, of=optim.Adagrad):
    """:class:`torch.optim.Adagrad`, with lrcore's step: the same arguments, state and numbers.

    State is made with the optimizer, as PyTorch does. Sparse gradients are refused; PyTorch's Adagrad takes them.
    """

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-2,
        lr_decay: float | Schedule = 0,
        weight_decay: float | Schedule = 0,
        initial_accumulator_value: float = 0,
        eps: float | Schedule = 1e-10,
        foreach: bool | None = None,  # noqa: FBT001
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[TorchOptions],
    ) -> None:
        given = self._start(options, lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, eps=eps)
        super().__init__(
            params,
            initial_accumulator_value=plain(initial_accumulator_value),
            foreach=foreach,
            maximize=maximize,
            differentiable=differentiable,
            fused=fused,
            **given,
        )
        if self._of_all.get("average") is not None:
            # PyTorch's Adagrad has its state from the start, and programs save or load it in pieces before any step.
            for param, state in self.state.items():
                if param.requires_grad:
                    state |= {"average": make_state(param, 0.0), "averaged": make_count(0.0)}

    def _own(self, values: dict[str, Any]) -> dict[str, Any]:
        # PyTorch's accumulators start from the constructor's value, whatever a group says.
        return values | {"initial_accumulator_value": self.defaults["initial_accumulator_value"]}


class WithoutCounterpart(DropIn):
    """An optimizer that ``torch.optim`` lacks: PyTorch's base class, with lrcore's step. Use one of its subclasses."""

    def __init__(self, params: Any, values: dict[str, Any], options: Mapping[str, Any]) -> None:
        """Make an optimizer of parameters, from a value for each hyperparameter and the options that were given."""
        super().__init__(params, self._start(options, **values))

    @property
    def _group_options(self) -> Mapping[str, Any]:
        return {"decay": self._engine_class._declaration.decay, **self._of_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # As in PyTorch: a state that was saved elsewhere may lack hyperparameters.
        defaults = state.get("defaults") or self.defaults
        for group in state.get("param_groups", ()):
            for name in self._engine_class.hyperparameter_names():
                group.setdefault(name, defaults[name])
        super().__setstate__(state)


# A class a line: what torch.optim lacks.
# fmt: off
class Lion(optim.lion.LionArguments, WithoutCounterpart, of=optim.Lion): """Lion, with PyTorch's base class."""
# fmt: on
