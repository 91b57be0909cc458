"""Adam and AdamW."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from lrcore.optim import reference
from lrcore.optim.declaration import Declaration
from lrcore.optim.hyperparameter import BETAS, FLAG, NUMBER
from lrcore.optim.optimizer import Optimizer
from lrcore.optim.reference import floor_of_mean, floor_of_squares, lerp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lrcore.optim.options import Options
    from lrcore.optim.reference import Array, States
    from lrcore.schedules import Schedule


def adam(
    w: Array, g: Array, state: States, t: int, *, lr: float, beta1: float, beta2: float, eps: float
) -> tuple[Array, States]:
    """Reference of the rule; with a third state array, of AMSGrad."""
    f = w.dtype.type
    m, v, *largest = state
    m = lerp(m, g, 1 - beta1)
    v = v * f(beta2) + (f(1 - beta2) * g) * g
    largest = [np.maximum(largest[0], v)] if largest else []
    root = np.sqrt(largest[0] if largest else v)
    denominator = root * f(1 / math.sqrt(1 - reference.power(beta2, t))) + f(eps)
    return w - (f(lr / (1 - reference.power(beta1, t))) * m) / denominator, [m, v, *largest]


def floors(count: int, dtype: np.dtype[Any], *, beta1: float, beta2: float, eps: float, **_: float) -> list[float]:
    """Return the floor of each moment."""
    return [floor_of_mean(dtype, 1 - beta1, eps), *[floor_of_squares(dtype, 1 - beta2, eps)] * (count - 1)]


class Adam(Optimizer):
    """Adam: steps of about the learning rate, from running moments of the gradient.

    With gradient ``g`` (negated if ``maximize``), weight ``θ`` and the parameter's own step count ``t`` from 1::

        g ← g + weight_decay · θ
        m ← β₁ m + (1 − β₁) g
        v ← β₂ v + (1 − β₂) g²                         (amsgrad: v̂ ← max(v̂, v), in the place of v below)
        θ ← θ − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + eps)

    Args:
        params: An array, a sequence or mapping of arrays, these nested, or a sequence of groups: mappings with
            ``"params"``, optionally ``"name"``, and hyperparameters that differ. Arrays are float32 or float64, of any
            shape and strides, writable, and do not share memory.
        lr: The learning rate, in [0, inf).
        betas: The decay rates of the first and of the second moment, each in [0, 1).
        eps: Added to the denominator, outside the root, in [0, inf).
        weight_decay: The L2 penalty, in [0, inf); it enters the moments. See :class:`AdamW`.
        amsgrad: Divide by the largest second moment so far.
        maximize: Ascend the gradient.
        options: The :class:`Options <lrcore.optim.options.Options>` of every optimizer, by name.

    Every number may be a schedule.

    Raises:
        TypeError: If an argument or an array is of a wrong type.
        ValueError: If one is out of range, or arrays share memory.

    Examples:
        >>> import lrcore, numpy as np
        >>> w = np.array([1.0, 2.0], dtype=np.float32)
        >>> opt = lrcore.Adam({"w": w}, lr=0.1)
        >>> opt.step({"w": np.array([5.0, -3.0], dtype=np.float32)}).lr
        0.1
        >>> w.round(3)
        array([0.9, 2.1], dtype=float32)

    State:
        ``exp_avg`` (m), ``exp_avg_sq`` (v), with ``amsgrad`` also ``max_exp_avg_sq``, which is kept while it is off.

    References:
        Kingma & Ba, *Adam: A Method for Stochastic Optimization* (2015). Reddi, Kale & Kumar, *On the Convergence of
        Adam and Beyond* (2018).

    Note:
        The numbers are PyTorch's, with ``foreach=False, fused=False``; its step count stops at 2²⁴, this one does not.
        Keras' ``epsilon`` is the paper's "epsilon hat", inside the bias correction. The paper takes AMSGrad's maximum
        after bias correction, PyTorch and lrcore before. Subnormal moments are stored as 0, unless ``eps`` is so
        small that this could be seen.
    """

    _declaration = Declaration(
        rules={"adam": adam, "adam_amsgrad": adam},
        hyperparameters={"betas": BETAS, "eps": NUMBER, "amsgrad": FLAG},
        in_torch="Adam",
        floors=floors,
        long_run=(-0.05, -0.3),
        formula="m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; θ ← θ − η/(1−β₁ᵗ) · m/(√v/√(1−β₂ᵗ) + ε)",
        state="`exp_avg` (m), `exp_avg_sq` (v), with `amsgrad` `max_exp_avg_sq`",
        source="Kingma & Ba 2015; Reddi et al. 2018",
        differences="PyTorch: none in the formula; its step count is a float32 that ends at 2²⁴. Keras: ε is inside "
        "the bias correction, and 1e-7. Paper of AMSGrad: maximum after the bias correction, here before.",
        cases=(
            ("adam", {}),
            ("adam", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
            ("adam", {"lr": 0.1, "betas": (0.0, 0.0), "eps": 0.0}),
            ("adam", {"lr": 0.1, "betas": (0.3, 0.5), "eps": 1e-3}),
            ("adam", {"lr": 0.1, "betas": (0.5, 0.9999999), "eps": 1e-30}),
            ("adam_amsgrad", {"lr": 0.1, "amsgrad": True, "weight_decay": 0.1}),
        ),
        benchmarks={"AMSGrad": {"betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": True}},
    )

    def __init__(
        self,
        params: Any,
        lr: float | Schedule = 1e-3,
        betas: tuple[float | Schedule, float | Schedule] = (0.9, 0.999),
        eps: float | Schedule = 1e-8,
        weight_decay: float | Schedule = 0.0,
        amsgrad: bool = False,  # noqa: FBT001, FBT002
        *,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, locals(), options)

    @classmethod
    def _rule(cls, group: Mapping[str, Any]) -> str:
        return "adam_amsgrad" if group["amsgrad"] else "adam"


class AdamW(Adam):
    """Adam with decoupled weight decay, which does not enter the moments.

    ::

        θ ← θ · (1 − lr · weight_decay)

    and then the step of :class:`Adam` without the penalty.

    Args:
        params: As for :class:`Adam`.
        lr: The learning rate, in [0, inf).
        betas: The decay rates of the first and of the second moment, each in [0, 1).
        eps: Added to the denominator, outside the root, in [0, inf).
        weight_decay: The decay, in [0, inf); a step multiplies weights by ``1 − lr · weight_decay``.
        amsgrad: Divide by the largest second moment so far.
        maximize: Ascend the gradient. Weights still shrink.
        options: The :class:`Options <lrcore.optim.options.Options>` of every optimizer, by name.

    Every number may be a schedule; the decay follows the learning rate's.

    Raises:
        TypeError: If an argument or an array is of a wrong type.
        ValueError: If one is out of range, or arrays share memory.

    Examples:
        >>> import lrcore, numpy as np
        >>> from lrcore import schedules
        >>> w = np.ones(4, dtype=np.float32)
        >>> opt = lrcore.AdamW(w, lr=schedules.Cosine(0.1, steps=100).warmup(10), weight_decay=0.01)
        >>> round(opt.step(np.full(4, 0.5, dtype=np.float32)).lr, 3)
        0.01

    State:
        As for :class:`Adam`.

    References:
        Loshchilov & Hutter, *Decoupled Weight Decay Regularization* (2019).

    Note:
        The numbers are PyTorch's. The paper multiplies by ``1 − η_t · weight_decay`` with a schedule multiplier η_t
        that does not contain the base learning rate. Keras' ``AdamW`` decays like lrcore's.
    """

    _declaration = replace(
        Adam._declaration,
        decay="decoupled",
        in_torch="AdamW",
        long_run=(-0.05, -0.3),
        formula="θ ← θ(1 − ηλ), then `Adam`",
        source="Loshchilov & Hutter 2019",
        differences="PyTorch, Keras: as for `Adam`. Paper: the decay follows the schedule's multiplier without the "
        "base learning rate.",
        cases=(
            ("adam", {}),
            ("adam_amsgrad", {"lr": 0.1, "amsgrad": True, "maximize": True}),
        ),
        benchmarks={"AdamW": {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2}},
    )

    def __init__(
        self,
        params: Any,
        lr: float | Schedule = 1e-3,
        betas: tuple[float | Schedule, float | Schedule] = (0.9, 0.999),
        eps: float | Schedule = 1e-8,
        weight_decay: float | Schedule = 1e-2,
        amsgrad: bool = False,  # noqa: FBT001, FBT002
        *,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, **options)
