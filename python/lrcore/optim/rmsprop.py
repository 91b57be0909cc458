"""RMSprop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from lrcore._ranges import SHARE
from lrcore.optim.declaration import Declaration
from lrcore.optim.hyperparameter import FLAG, NUMBER, Number
from lrcore.optim.optimizer import Optimizer
from lrcore.optim.reference import floor_of_squares, lerp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lrcore.optim.options import Options
    from lrcore.optim.reference import Array, States
    from lrcore.schedules import Schedule


def rmsprop(
    w: Array,
    g: Array,
    state: States,
    t: int,
    *,
    lr: float,
    alpha: float,
    eps: float,
    momentum: float,
    centered: bool = False,
) -> tuple[Array, States]:
    """Reference of the rule; with one more state array, of momentum."""
    f = w.dtype.type
    s, *rest = state
    s = f(alpha) * s + (f(1 - alpha) * g) * g
    variance, after = s, [s]
    if centered:
        mean = lerp(rest.pop(0), g, 1 - alpha)
        # Where both overflow, the variance is infinite, and not NaN.
        square = np.minimum(mean * mean, np.finfo(f).max)
        variance = np.where(s - square < 0, f(0), s - square)
        after.append(mean)
    a = np.sqrt(variance) + f(eps)
    if not rest:
        return w - (f(lr) * g) / a, after
    b = f(momentum) * rest[0] + g / a
    return w - f(lr) * b, [*after, b]


def rmsprop_centered(w: Array, g: Array, state: States, t: int, **hyperparameters: float) -> tuple[Array, States]:
    """Reference of the centered rule."""
    return rmsprop(w, g, state, t, centered=True, **hyperparameters)


def floors(count: int, dtype: np.dtype[Any], *, alpha: float, eps: float, **_: float) -> list[float]:
    """Return the floor of each state array: the running square, and those that nothing is divided by."""
    return [floor_of_squares(dtype, 1 - alpha, eps), *[float(np.finfo(dtype).tiny)] * (count - 1)]


class RMSprop(Optimizer):
    """RMSprop: the gradient divided by its running root mean square.

    With gradient ``g`` (negated if ``maximize``) and weight ``θ``::

        g ← g + weight_decay · θ
        s ← alpha · s + (1 − alpha) g²
        a ← √s + eps                   (centered: ḡ ← alpha · ḡ + (1 − alpha) g, a ← √(s − ḡ²) + eps)
        θ ← θ − lr · g / a             (with momentum: b ← momentum · b + g / a, θ ← θ − lr · b)

    Args:
        params: An array, a sequence or mapping of arrays, these nested, or a sequence of groups: mappings with
            ``"params"``, optionally ``"name"``, and hyperparameters that differ. Arrays are float32 or float64, of any
            shape and strides, writable, and do not share memory.
        lr: The learning rate, in [0, inf).
        alpha: The decay rate of the running mean square, in [0, 1].
        eps: Added to the denominator, outside the root, in [0, inf).
        weight_decay: The L2 penalty, in [0, inf).
        momentum: The factor of the buffer, in [0, inf).
        centered: Divide by the standard deviation: subtract the square of the running mean.
        maximize: Ascend the gradient.
        options: The :class:`Options <lrcore.optim.options.Options>` of every optimizer, by name.

    Every number may be a schedule.

    Raises:
        TypeError: If an argument or an array is of a wrong type.
        ValueError: If one is out of range, or arrays share memory.

    Examples:
        >>> import lrcore, numpy as np
        >>> w = np.array([1.0, 2.0])
        >>> opt = lrcore.RMSprop([w], lr=0.01)
        >>> _ = opt.step([np.array([5.0, -3.0])])
        >>> w.round(3)
        array([0.9, 2.1])

    State:
        ``square_avg`` (s), with ``centered`` also ``grad_avg`` (ḡ), with momentum also ``momentum_buffer`` (b). The
        last two are kept while they are off.

    References:
        Tieleman & Hinton, *Lecture 6.5: rmsprop* (2012). Centered: Graves, *Generating Sequences With Recurrent Neural
        Networks* (2013).

    Note:
        The numbers are PyTorch's, with one exception: where rounding makes ``s − ḡ²`` negative, PyTorch has NaN and
        lrcore has 0. Keras and TensorFlow have ``eps`` inside the root, and the learning rate inside the buffer.
    """

    _declaration = Declaration(
        rules={
            "rmsprop": rmsprop,
            "rmsprop_momentum": rmsprop,
            "rmsprop_centered": rmsprop_centered,
            "rmsprop_centered_momentum": rmsprop_centered,
        },
        hyperparameters={"alpha": Number(SHARE), "eps": NUMBER, "momentum": NUMBER, "centered": FLAG},
        in_torch="RMSprop",
        floors=floors,
        long_run=(0.2, -0.1),
        formula="s ← αs + (1−α)g²; a ← √s + ε; θ ← θ − ηg/a; with `centered` ḡ ← αḡ + (1−α)g and a ← √(s − ḡ²) + ε; "
        "with momentum b ← μb + g/a and θ ← θ − ηb",
        state="`square_avg` (s), with `centered` `grad_avg` (ḡ), with momentum `momentum_buffer` (b)",
        source="Tieleman & Hinton 2012; centered: Graves 2013",
        differences="PyTorch: NaN where rounding makes s − ḡ² negative, here 0. Keras: ε inside the root, η inside the "
        "buffer.",
        cases=(
            ("rmsprop", {}),
            ("rmsprop", {"lr": 0.1, "alpha": 0.3, "eps": 0.0, "weight_decay": 0.1, "maximize": True}),
            ("rmsprop", {"lr": 0.1, "alpha": 1.0}),
            ("rmsprop_momentum", {"lr": 0.1, "momentum": 0.9}),
            ("rmsprop_centered", {"lr": 0.1, "centered": True, "weight_decay": 0.1}),
            ("rmsprop_centered_momentum", {"lr": 0.1, "centered": True, "momentum": 0.5, "alpha": 0.5}),
        ),
        benchmarks={
            "RMSprop": {"alpha": 0.99, "eps": 1e-8},
            "RMSprop centered": {"alpha": 0.99, "eps": 1e-8, "momentum": 0.9, "centered": True},
        },
    )

    def __init__(
        self,
        params: Any,
        lr: float | Schedule = 1e-2,
        alpha: float | Schedule = 0.99,
        eps: float | Schedule = 1e-8,
        weight_decay: float | Schedule = 0.0,
        momentum: float | Schedule = 0.0,
        centered: bool = False,  # noqa: FBT001, FBT002
        *,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(params, locals(), options)

    @classmethod
    def _rule(cls, group: Mapping[str, Any]) -> str:
        centered = "_centered" if group["centered"] else ""
        momentum = "" if group["momentum"] == 0.0 else "_momentum"
        return f"rmsprop{centered}{momentum}"
