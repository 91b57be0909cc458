"""Adam and AdamW."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from lrcore.optim.hyperparameter import BETAS, FLAG, RATE
from lrcore.optim.optimizer import Optimizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lrcore.optim.options import Options
    from lrcore.schedules import Schedule


class Adam(Optimizer):
    """Adam: a step of about the learning rate for every weight, by running moments of its gradient.

    With gradient ``g`` (negated if ``maximize``), weight ``θ`` and the parameter's own step count ``t`` from 1::

        g ← g + weight_decay · θ
        m ← β₁ m + (1 − β₁) g
        v ← β₂ v + (1 − β₂) g²                         (amsgrad: v̂ ← max(v̂, v), in the place of v below)
        θ ← θ − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + eps)

    Args:
        params: An array, a sequence or mapping of arrays, these nested, or a sequence of groups: mappings with
            ``"params"``, optionally ``"name"``, and hyperparameters that differ. Arrays are float32 or float64, of any
            shape and strides, writable, and don't share memory.
        lr: The learning rate, in [0, inf).
        betas: How much of the first and of the second moment is kept, each in [0, 1).
        eps: What keeps the denominator from 0, in [0, inf). It is outside the root.
        weight_decay: The L2 penalty, in [0, inf); it enters the moments. See :class:`AdamW`.
        amsgrad: Divide by the largest second moment so far.
        maximize: Ascend.
        options: Those of every optimizer, by name: clipping, forms of decay, averages, statistics. See
            :class:`Options <lrcore.optim.options.Options>`.

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
        ``exp_avg`` (m), ``exp_avg_sq`` (v), with ``amsgrad`` also ``max_exp_avg_sq``, which stays as it is while it is
        turned off.

    References:
        Kingma & Ba, *Adam: A Method for Stochastic Optimization* (2015). Reddi, Kale & Kumar, *On the Convergence of
        Adam and Beyond* (2018).

    Note:
        The numbers are PyTorch's, with ``foreach=False, fused=False``; its step count stops at 2²⁴, this one does not.
        Keras' ``epsilon`` is the paper's "epsilon hat", inside the bias correction. The paper takes AMSGrad's maximum
        after bias correction, PyTorch and this before. Subnormal moments are stored as 0, unless ``eps`` is so small
        that this would be seen.
    """

    _rules = ("adam", "adam_amsgrad")
    _hyperparameters: ClassVar = {"betas": BETAS, "eps": RATE, "amsgrad": FLAG}

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
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
            },
            options,
        )

    @classmethod
    def _rule(cls, group: Mapping[str, Any]) -> str:
        return "adam_amsgrad" if group["amsgrad"] else "adam"


class AdamW(Adam):
    """Adam with decoupled weight decay: weights shrink by themselves, and the moments see the gradient alone.

    ::

        θ ← θ · (1 − lr · weight_decay)

    and then the step of :class:`Adam` without the penalty.

    Args:
        params: As for :class:`Adam`.
        lr: The learning rate, in [0, inf).
        betas: How much of the first and of the second moment is kept, each in [0, 1).
        eps: What keeps the denominator from 0, in [0, inf). It is outside the root.
        weight_decay: The decay, in [0, inf); a step multiplies weights by ``1 − lr · weight_decay``.
        amsgrad: Divide by the largest second moment so far.
        maximize: Ascend. Weights still shrink.
        options: Those of every optimizer, by name: clipping, forms of decay, averages, statistics. See
            :class:`Options <lrcore.optim.options.Options>`.

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
        that does not contain the base rate. Keras' ``AdamW`` decays like this.
    """

    _decay = "decoupled"

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
