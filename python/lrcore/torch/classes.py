"""The optimizers.

One that ``torch.optim`` has too is a subclass of PyTorch's, and has its signature. Docstrings are completed by those of
the NumPy forms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, Unpack

import torch

from lrcore import optim
from lrcore.torch.optimizer import DropIn

if TYPE_CHECKING:
    from lrcore.schedules import Schedule
    from lrcore.torch.optimizer import TorchOptions

    Scalar: TypeAlias = float | torch.Tensor | Schedule
else:
    __all__ = [one.__name__ for one in optim.OPTIMIZERS]


class SGD(DropIn, torch.optim.SGD, of=optim.SGD):
    """:class:`torch.optim.SGD`, with lrcore's step: the same arguments, state and numbers."""

    # PyTorch's SGD knows a parameter's first step by its missing buffer.
    _counts_steps: ClassVar = False

    def __init__(
        self,
        params: Any,
        lr: Scalar = 1e-3,
        momentum: float | Schedule = 0,
        dampening: float | Schedule = 0,
        weight_decay: Scalar = 0,
        nesterov: bool = False,  # noqa: FBT001, FBT002
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[TorchOptions],
    ) -> None:
        super().__init__(params, locals(), options)


class Adam(DropIn, torch.optim.Adam, of=optim.Adam):
    """:class:`torch.optim.Adam`, with lrcore's step: the same arguments, state and numbers."""

    def __init__(
        self,
        params: Any,
        lr: Scalar = 1e-3,
        betas: tuple[Scalar, Scalar] = (0.9, 0.999),
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
        super().__init__(params, locals(), options)


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
        lr: Scalar = 1e-3,
        betas: tuple[Scalar, Scalar] = (0.9, 0.999),
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
        super().__init__(params, locals(), options)


class RMSprop(DropIn, torch.optim.RMSprop, of=optim.RMSprop):
    """:class:`torch.optim.RMSprop`, with lrcore's step: the same arguments, state and numbers."""

    def __init__(
        self,
        params: Any,
        lr: Scalar = 1e-2,
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
        super().__init__(params, locals(), options)


class Adagrad(DropIn, torch.optim.Adagrad, of=optim.Adagrad):
    """:class:`torch.optim.Adagrad`, with lrcore's step: the same arguments, state and numbers.

    State is made with the optimizer, as PyTorch does. Sparse gradients are refused; PyTorch's Adagrad takes them.
    """

    def __init__(
        self,
        params: Any,
        lr: Scalar = 1e-2,
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
        super().__init__(params, locals(), options)


# A class a line: what torch.optim lacks.
# fmt: off
class Lion(optim.lion.LionArguments, DropIn, of=optim.Lion): """Lion, with PyTorch's base class."""
# fmt: on
