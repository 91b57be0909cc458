"""Lion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from lrcore.optim.declaration import Declaration
from lrcore.optim.hyperparameter import BETAS
from lrcore.optim.optimizer import Optimizer

if TYPE_CHECKING:
    from lrcore.optim.options import Options
    from lrcore.optim.reference import Array, States
    from lrcore.schedules import Schedule


def lion(w: Array, g: Array, state: States, t: int, *, lr: float, beta1: float, beta2: float) -> tuple[Array, States]:
    """Reference of the rule."""
    f = w.dtype.type
    (m,) = state
    u = f(beta1) * m + f(1 - beta1) * g
    m = f(beta2) * m + f(1 - beta2) * g
    return w - f(lr) * np.sign(u), [m]


class LionArguments:
    """The constructor of Lion, for arrays and for PyTorch's tensors."""

    def __init__(
        self,
        params: Any,
        lr: float | Schedule = 1e-4,
        betas: tuple[float | Schedule, float | Schedule] = (0.9, 0.99),
        weight_decay: float | Schedule = 0.0,
        *,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, locals(), options)  # type: ignore[call-arg] # the optimizer's


class Lion(LionArguments, Optimizer):
    """Lion: steps of exactly the learning rate, in the direction of the sign of a running mean of the gradient.

    With gradient ``g`` (negated if ``maximize``) and weight ``θ``::

        θ ← θ · (1 − lr · weight_decay)
        u ← β₁ m + (1 − β₁) g
        θ ← θ − lr · sign(u)
        m ← β₂ m + (1 − β₂) g

    Args:
        params: An array, a sequence or mapping of arrays, these nested, or a sequence of groups: mappings with
            ``"params"``, optionally ``"name"``, and hyperparameters that differ. Arrays are float32 or float64, of any
            shape and strides, writable, and do not share memory.
        lr: The learning rate, in [0, inf). The paper recommends a third to a tenth of AdamW's.
        betas: The decay rates of ``m`` in the direction and in the running mean, each in [0, 1).
        weight_decay: The decay, in [0, inf); a step multiplies weights by ``1 − lr · weight_decay``.
        maximize: Ascend the gradient. Weights still shrink.
        options: The :class:`Options <lrcore.optim.options.Options>` of every optimizer, by name.

    Every number may be a schedule; the decay follows the learning rate's.

    Raises:
        TypeError: If an argument or an array is of a wrong type.
        ValueError: If one is out of range, or arrays share memory.

    Examples:
        >>> import lrcore, numpy as np
        >>> w = np.array([1.0, 2.0, 3.0])
        >>> opt = lrcore.Lion([w], lr=0.1)
        >>> _ = opt.step([np.array([5.0, -3.0, 0.0])])
        >>> w.round(3)
        array([0.9, 2.1, 3. ])

    State:
        ``exp_avg`` (m).

    References:
        Chen et al., *Symbolic Discovery of Optimization Algorithms* (2023).

    Note:
        PyTorch has no Lion. In Keras and optax the formula is the same, with other defaults: 1e-3 for ``lr`` in Keras,
        and for ``weight_decay`` in optax. The sign of 0 is 0. Subnormal values of ``m`` are stored as 0, so a weight
        whose gradient stays 0 stops after some thousand steps.
    """

    _declaration = Declaration(
        rules={"lion": lion},
        hyperparameters={"betas": BETAS},
        decay="decoupled",
        long_run=(-0.65, -0.4),
        formula="θ ← θ(1 − ηλ); u ← β₁m + (1−β₁)g; θ ← θ − η·sign(u); m ← β₂m + (1−β₂)g",
        state="`exp_avg` (m)",
        source="Chen et al. 2023",
        differences="PyTorch has none. Keras, optax: other defaults.",
        cases=(
            ("lion", {}),
            ("lion", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
            ("lion", {"lr": 0.1, "betas": (0.0, 0.0)}),
        ),
        benchmarks={"Lion": {}},
    )
