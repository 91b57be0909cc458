"""The five optimizers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, Unpack

import torch

from lrcore.optim.hyperparameter import plain
from lrcore.torch.engine import AdagradEngine, AdamEngine, RMSpropEngine, SGDEngine, make_count, make_state
from lrcore.torch.optimizer import DropIn

if TYPE_CHECKING:
    from lrcore.schedules import Schedule
    from lrcore.torch.optimizer import TorchOptions

    Rate: TypeAlias = float | torch.Tensor | Schedule


class SGD(DropIn, torch.optim.SGD):
    """:class:`torch.optim.SGD`, with lrcore's step: the same arguments, state and numbers.

    Args:
        params: Parameters, pairs of a name and a parameter, or groups of either.
        lr: The learning rate, in [0, inf).
        momentum: How much of the buffer is kept, in [0, inf).
        dampening: How much of a gradient is left out of the buffer.
        weight_decay: The L2 penalty, in [0, inf).
        nesterov: Look ahead along the buffer; needs momentum, and no dampening.
        maximize: Ascend.
        foreach: Taken, and without meaning here.
        differentiable: False.
        fused: Taken, and without meaning here.
        options: See :class:`AdamW`.

    See :class:`lrcore.SGD` for the formula. The first step of a momentum buffer is the gradient itself, as in PyTorch.

    Examples:
        >>> import torch, lrcore.torch
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> opt = lrcore.torch.SGD([weight], lr=0.1, momentum=0.9)
        >>> weight.sum().backward()
        >>> opt.step()
        >>> weight.tolist()
        [0.8999999761581421, 0.8999999761581421]
    """

    _engine_class = SGDEngine
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


class Adam(DropIn, torch.optim.Adam):
    """:class:`torch.optim.Adam`, with lrcore's step: the same arguments, state and numbers.

    Args:
        params: Parameters, pairs of a name and a parameter, or groups of either.
        lr: The learning rate, in [0, inf).
        betas: How much of the first and of the second moment is kept, each in [0, 1).
        eps: What keeps the denominator from 0, in [0, inf).
        weight_decay: The L2 penalty, in [0, inf).
        amsgrad: Divide by the largest second moment so far.
        foreach: Taken, and without meaning here.
        maximize: Ascend.
        capturable: False.
        differentiable: False.
        fused: Taken, and without meaning here.
        decoupled_weight_decay: Decay as :class:`AdamW` does.
        options: See :class:`AdamW`.

    See :class:`lrcore.Adam` for the formula.

    Examples:
        >>> import torch, lrcore.torch
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> opt = lrcore.torch.Adam([weight], lr=0.1)
        >>> weight.sum().backward()
        >>> opt.step()
        >>> sorted(opt.state[weight])
        ['exp_avg', 'exp_avg_sq', 'step']
    """

    _engine_class = AdamEngine

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


class AdamW(DropIn, torch.optim.AdamW):
    """:class:`torch.optim.AdamW`, with lrcore's step: the same arguments, state and numbers, in a fraction of the time.

    Tensors are stepped where they lie, without a copy, and their version counters go up, so that autograd still notices
    a stale read. State is in :attr:`state`, in PyTorch's form, and what is put there holds.

    Args:
        params: Parameters, pairs of a name and a parameter, or groups of either. Those that have a gradient are float32
            or float64 or complex of these, of any strides, on the CPU, and don't share memory.
        lr: The learning rate, in [0, inf).
        betas: How much of the first and of the second moment is kept, each in [0, 1).
        eps: What keeps the denominator from 0, in [0, inf).
        weight_decay: The decay, in [0, inf); a step multiplies weights by ``1 − lr · weight_decay``.
        amsgrad: Divide by the largest second moment so far.
        maximize: Ascend. Weights still shrink.
        foreach: Taken, and without meaning here.
        capturable: False: it is for CUDA graphs.
        differentiable: False.
        fused: Taken, and without meaning here.
        options: ``clip_norm``, ``clip_value``, ``skip_nonfinite``, ``average``, ``stats``, ``zero_grads`` and the other
            :class:`Options <lrcore.optim.options.Options>` of every optimizer, all in the pass of the step. Those for
            one group stand under its key ``"lrcore"``, as in ``{"params": …, "lrcore": {"clip_value": 1.0}}``; its
            other keys are PyTorch's and the program's.

    Every number may be a schedule of lrcore. ``param_groups`` then has its value for the next step, as with a scheduler
    of PyTorch that has been stepped, and :attr:`info` the learning rate of the last one; a scheduler of PyTorch for the
    same number is an error.

    Raises:
        TypeError: If an argument or a parameter is of a wrong type.
        ValueError: If one is out of range or on another device; for ``capturable`` and ``differentiable``.

    See :class:`lrcore.AdamW` for the formula.

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

    _engine_class = AdamEngine

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


class RMSprop(DropIn, torch.optim.RMSprop):
    """:class:`torch.optim.RMSprop`, with lrcore's step: the same arguments, state and numbers.

    Args:
        params: Parameters, pairs of a name and a parameter, or groups of either.
        lr: The learning rate, in [0, inf).
        alpha: How much of the squared average is kept, in [0, 1).
        eps: What keeps the denominator from 0, in [0, inf).
        weight_decay: The L2 penalty, in [0, inf).
        momentum: How much of the buffer is kept, in [0, inf).
        centered: Divide by an estimate of the deviation.
        capturable: False.
        foreach: Taken, and without meaning here.
        maximize: Ascend.
        differentiable: False.
        options: See :class:`AdamW`.

    See :class:`lrcore.RMSprop` for the formula. Where a centered average falls below 0 by rounding PyTorch's weights
    become NaN; here it is taken as 0.

    Examples:
        >>> import torch, lrcore.torch
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> opt = lrcore.torch.RMSprop([weight])
        >>> weight.sum().backward()
        >>> opt.step()
        >>> sorted(opt.state[weight])
        ['square_avg', 'step']
    """

    _engine_class = RMSpropEngine

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


class Adagrad(DropIn, torch.optim.Adagrad):
    """:class:`torch.optim.Adagrad`, with lrcore's step: the same arguments, state and numbers.

    Args:
        params: Parameters, pairs of a name and a parameter, or groups of either.
        lr: The learning rate, in [0, inf).
        lr_decay: How the rate falls with the steps of a parameter, in [0, inf).
        weight_decay: The L2 penalty, in [0, inf).
        initial_accumulator_value: What the sum of squares starts from, in [0, inf).
        eps: What keeps the denominator from 0, in [0, inf).
        foreach: Taken, and without meaning here.
        maximize: Ascend.
        differentiable: False.
        fused: Taken, and without meaning here.
        options: See :class:`AdamW`.

    See :class:`lrcore.Adagrad` for the formula. Sparse gradients are refused; PyTorch's Adagrad takes them.

    Examples:
        >>> import torch, lrcore.torch
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> opt = lrcore.torch.Adagrad([weight], lr=0.5)
        >>> weight.sum().backward()
        >>> opt.step()
        >>> weight.tolist()
        [0.5, 0.5]
    """

    _engine_class = AdagradEngine

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
            # PyTorch's Adagrad has its state from the start, and who saves or loads it in pieces looks at no step.
            for param, state in self.state.items():
                if param.requires_grad:
                    state |= {"average": make_state(param, 0.0), "averaged": make_count(0.0)}

    def _own(self, values: dict[str, Any]) -> dict[str, Any]:
        # PyTorch's accumulators start from the constructor's value, whatever a group says.
        return values | {"initial_accumulator_value": self.defaults["initial_accumulator_value"]}
