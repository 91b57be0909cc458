"""Adagrad."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from lrcore.optim.hyperparameter import RATE
from lrcore.optim.optimizer import Optimizer

if TYPE_CHECKING:
    from lrcore.optim.options import Options
    from lrcore.schedules import Schedule


class Adagrad(Optimizer):
    """Adagrad: the gradient over the root of the sum of all its squares, for sparse features.

    With gradient ``g`` (negated if ``maximize``), weight ``θ`` and the parameter's own step count ``t`` from 1::

        g ← g + weight_decay · θ
        sum ← sum + g²
        θ ← θ − lr / (1 + (t − 1) · lr_decay) · g / (√sum + eps)

    Args:
        params: An array, a sequence or mapping of arrays, these nested, or a sequence of groups: mappings with
            ``"params"``, optionally ``"name"``, and hyperparameters that differ. Arrays are float32 or float64, of any
            shape and strides, writable, and don't share memory.
        lr: The learning rate, in [0, inf).
        lr_decay: How fast the learning rate falls with the steps of a parameter, in [0, inf).
        weight_decay: The L2 penalty, in [0, inf).
        initial_accumulator_value: What ``sum`` starts from, in [0, inf).
        eps: What keeps the denominator from 0, in [0, inf). It is outside the root.
        maximize: Ascend.
        options: Those of every optimizer, by name: clipping, forms of decay, averages, statistics. See
            :class:`Options <lrcore.optim.options.Options>`.

    Every number may be a schedule.

    Raises:
        TypeError: If an argument or an array is of a wrong type.
        ValueError: If one is out of range, or arrays share memory.

    Examples:
        >>> import lrcore, numpy as np
        >>> w = np.array([1.0, 2.0])
        >>> opt = lrcore.Adagrad([w], lr=0.1)
        >>> _ = opt.step([np.array([5.0, -3.0])])
        >>> w.round(3)
        array([0.9, 2.1])

    State:
        ``sum``, made at a parameter's first step.

    References:
        Duchi, Hazan & Singer, *Adaptive Subgradient Methods for Online Learning and Stochastic Optimization* (2011).

    Note:
        The numbers are PyTorch's; it makes ``sum`` when the optimizer is made. Keras has ``eps`` inside the root and
        starts from 0.1.
    """

    _rules = ("adagrad",)
    _hyperparameters: ClassVar = {"lr_decay": RATE, "initial_accumulator_value": RATE, "eps": RATE}

    def __init__(
        self,
        params: Any,
        lr: float | Schedule = 1e-2,
        lr_decay: float | Schedule = 0.0,
        weight_decay: float | Schedule = 0.0,
        initial_accumulator_value: float | Schedule = 0.0,
        eps: float | Schedule = 1e-10,
        *,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "eps": eps,
                "maximize": maximize,
            },
            options,
        )
