"""Adagrad."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from lrcore.optim.declaration import Declaration
from lrcore.optim.hyperparameter import NUMBER
from lrcore.optim.optimizer import Optimizer

if TYPE_CHECKING:
    from lrcore.optim.options import Options
    from lrcore.optim.reference import Array, States
    from lrcore.schedules import Schedule


def adagrad(
    w: Array,
    g: Array,
    state: States,
    t: int,
    *,
    lr: float,
    lr_decay: float,
    eps: float,
    initial_accumulator_value: float,
) -> tuple[Array, States]:
    """Reference of the rule."""
    f = w.dtype.type
    (total,) = state
    total = total + g * g
    return w - (f(lr / (1 + (t - 1) * lr_decay)) * g) / (np.sqrt(total) + f(eps)), [total]


def floors(count: int, dtype: np.dtype[Any], **_: float) -> list[float]:
    """Return 0: the sum does not decay, so what is flushed would stay missing."""
    return [0.0] * count


class Adagrad(Optimizer):
    """Adagrad: the gradient divided by the root of the sum of its squares, for sparse features.

    With gradient ``g`` (negated if ``maximize``), weight ``θ`` and the parameter's own step count ``t`` from 1::

        g ← g + weight_decay · θ
        sum ← sum + g²
        θ ← θ − lr / (1 + (t − 1) · lr_decay) · g / (√sum + eps)

    Args:
        params: An array, a sequence or mapping of arrays, these nested, or a sequence of groups: mappings with
            ``"params"``, optionally ``"name"``, and hyperparameters that differ. Arrays are float32 or float64, of any
            shape and strides, writable, and do not share memory.
        lr: The learning rate, in [0, inf).
        lr_decay: The inverse-time decay of the learning rate over the steps of a parameter, in [0, inf).
        weight_decay: The L2 penalty, in [0, inf).
        initial_accumulator_value: The initial value of ``sum``, in [0, inf).
        eps: Added to the denominator, outside the root, in [0, inf).
        maximize: Ascend the gradient.
        options: The :class:`Options <lrcore.optim.options.Options>` of every optimizer, by name.

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

    _declaration = Declaration(
        rules={"adagrad": adagrad},
        hyperparameters={"lr_decay": NUMBER, "initial_accumulator_value": NUMBER, "eps": NUMBER},
        in_torch="Adagrad",
        initial="initial_accumulator_value",
        floors=floors,
        long_run=(0.2, 0.25),
        formula="sum ← sum + g²; θ ← θ − η/(1 + (t−1)·`lr_decay`) · g/(√sum + ε)",
        state="`sum`",
        source="Duchi et al. 2011",
        differences="PyTorch: makes `sum` with the optimizer, here at a parameter's first step. Keras: ε inside the "
        "root, and `sum` starts from 0.1.",
        cases=(
            ("adagrad", {}),
            ("adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "maximize": True}),
            ("adagrad", {"lr": 0.1, "initial_accumulator_value": 0.5, "eps": 0.0}),
        ),
        benchmarks={"Adagrad": {"eps": 1e-10}},
    )

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
        super().__init__(params, locals(), options)
