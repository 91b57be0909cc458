"""Stochastic gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from lrcore.optim.declaration import Declaration
from lrcore.optim.hyperparameter import FLAG, NUMBER
from lrcore.optim.optimizer import Optimizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lrcore.optim.options import Options
    from lrcore.optim.reference import Array, States
    from lrcore.schedules import Schedule


def sgd(w: Array, g: Array, state: States, t: int, *, lr: float) -> tuple[Array, States]:
    """Reference of the rule without momentum."""
    return w - w.dtype.type(lr) * g, state


def sgd_momentum(
    w: Array, g: Array, state: States, t: int, *, lr: float, momentum: float, dampening: float, nesterov: bool = False
) -> tuple[Array, States]:
    """Reference of the rule with momentum."""
    f = w.dtype.type
    (b,) = state
    b = g if t == 1 else f(momentum) * b + f(1 - dampening) * g
    direction = g + f(momentum) * b if nesterov else b
    return w - f(lr) * direction, [b]


def sgd_nesterov(w: Array, g: Array, state: States, t: int, **hyperparameters: float) -> tuple[Array, States]:
    """Reference of the rule with Nesterov momentum."""
    return sgd_momentum(w, g, state, t, nesterov=True, **hyperparameters)


class SGD(Optimizer):
    """Stochastic gradient descent, optionally with momentum.

    With gradient ``g`` (negated if ``maximize``), weight ``θ`` and buffer ``b``::

        g ← g + weight_decay · θ
        b ← momentum · b + (1 − dampening) · g        (b ← g when the buffer is new)
        θ ← θ − lr · b                                (θ ← θ − lr · (g + momentum · b) if nesterov)

    Without momentum ``b`` is ``g``, and there is no state.

    Args:
        params: An array, a sequence or mapping of arrays, these nested, or a sequence of groups: mappings with
            ``"params"``, optionally ``"name"``, and hyperparameters that differ. Arrays are float32 or float64, of any
            shape and strides, writable, and do not share memory.
        lr: The learning rate, in [0, inf).
        momentum: The factor of the buffer, in [0, inf).
        dampening: The share of the gradient that is left out of the buffer, in [0, inf).
        weight_decay: The L2 penalty, in [0, inf).
        nesterov: Nesterov momentum. Needs ``momentum > 0`` and ``dampening = 0``.
        maximize: Ascend the gradient.
        options: The :class:`Options <lrcore.optim.options.Options>` of every optimizer, by name.

    Every number may be a schedule.

    Raises:
        TypeError: If an argument or an array is of a wrong type.
        ValueError: If one is out of range, arrays share memory, or ``nesterov`` is without momentum.

    Examples:
        >>> import lrcore, numpy as np
        >>> w = np.array([1.0, 2.0], dtype=np.float32)
        >>> opt = lrcore.SGD([w], lr=0.1, momentum=0.9)
        >>> opt.step([np.array([1.0, 1.0], dtype=np.float32)])
        StepInfo(applied=True, step=1, lr=0.1, grad_norm=None)
        >>> w
        array([0.9, 1.9], dtype=float32)

    State:
        ``momentum_buffer``, with momentum. It is kept while momentum is set to 0.

    References:
        Sutskever, Martens, Dahl & Hinton, *On the importance of initialization and momentum in deep learning* (2013).

    Note:
        The numbers are PyTorch's. Keras and the paper keep the learning rate inside the buffer, so that a change of it
        does not affect past gradients. A scheduled momentum keeps its buffer also at steps where it is 0.
    """

    _declaration = Declaration(
        rules={"sgd": sgd, "sgd_momentum": sgd_momentum, "sgd_nesterov": sgd_nesterov},
        hyperparameters={"momentum": NUMBER, "dampening": NUMBER, "nesterov": FLAG},
        is_adaptive=False,
        in_torch="SGD",
        long_run=(-0.1, 0.0),
        formula="θ ← θ − ηg; with momentum b ← μb + (1−τ)g, at the first step b ← g, and θ ← θ − ηb; with `nesterov` "
        "θ ← θ − η(g + μb)",
        state="`momentum_buffer` (b), only with momentum",
        source="Sutskever et al. 2013",
        differences="PyTorch: none in the formula. Keras keeps η inside the buffer, so a change of it acts late.",
        cases=(
            ("sgd", {}),
            ("sgd", {"lr": 0.1, "weight_decay": 0.01}),
            ("sgd", {"lr": 0.1, "maximize": True, "weight_decay": 0.5}),
            ("sgd", {"lr": 0.0}),
            ("sgd_momentum", {"lr": 0.1, "momentum": 0.9}),
            ("sgd_momentum", {"lr": 0.1, "momentum": 0.5, "dampening": 0.3, "weight_decay": 0.1}),
            ("sgd_momentum", {"lr": 0.1, "momentum": 0.9, "dampening": 1.0, "maximize": True}),
            ("sgd_nesterov", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}),
        ),
        benchmarks={"SGD": {}, "SGD momentum": {"momentum": 0.9}},
    )

    def __init__(
        self,
        params: Any,
        lr: float | Schedule = 1e-3,
        momentum: float | Schedule = 0.0,
        dampening: float | Schedule = 0.0,
        weight_decay: float | Schedule = 0.0,
        nesterov: bool = False,  # noqa: FBT001, FBT002
        *,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, locals(), options)

    @classmethod
    def _rule(cls, group: Mapping[str, Any]) -> str:
        if group["momentum"] == 0.0:
            return "sgd"
        return "sgd_nesterov" if group["nesterov"] else "sgd_momentum"

    @staticmethod
    def _check(group: Mapping[str, Any]) -> None:
        if group["nesterov"] and (group["momentum"] == 0.0 or group["dampening"] != 0.0):
            given = f"momentum={group['momentum']!r}, dampening={group['dampening']!r}"
            raise ValueError(f"nesterov needs momentum > 0 and dampening = 0, got {given}")
