"""Hyperparameters for another batch size.

In a PyTorch optimizer the learning rates that schedulers keep in its groups are scaled too. Schedulers also keep
``base_lrs`` of their own, which some, such as ``LambdaLR``, write back at their next step: create them after scaling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lrcore._messages import brief
from lrcore._ranges import FRACTION, NON_NEGATIVE, check_count
from lrcore.optim import Optimizer
from lrcore.optim.hyperparameter import plain
from lrcore.schedules.schedule import Schedule, refuse_factor

__all__ = ["adam_sde", "linear", "sqrt"]


def __dir__() -> list[str]:
    return sorted(__all__)


T = TypeVar("T")
# Keys of a PyTorch group: hyperparameters that a rule may change, and learning rates of schedulers.
_HYPERPARAMETERS = ("lr", "betas", "alpha", "eps")
_SCHEDULER_LRS = ("initial_lr", "max_lr", "min_lr")

_Rule = Callable[[Mapping[str, Any], float], dict[str, Any]]


def linear(hyperparameters: T, old_batch: int, new_batch: int) -> T:
    """Scale the learning rate linearly with the batch: ``lr ← κ · lr`` with ``κ = new_batch / old_batch``.

    One step on κ times as many samples is then about as long as κ steps. This holds for SGD, also with momentum, while
    the gradient changes little over κ steps: up to about the gradient noise scale, and after a warm-up.

    Args:
        hyperparameters: A learning rate, as a number or a schedule; a mapping with ``"lr"``; or an optimizer of lrcore
            or PyTorch, whose groups are changed. Create PyTorch schedulers afterwards, since they keep ``base_lrs``.
        old_batch: The old number of samples per step.
        new_batch: The new number of samples per step.

    Returns:
        The scaled number, schedule or dict, or the optimizer itself.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If a number is out of range; no group of an optimizer is changed then.

    Examples:
        >>> import lrcore
        >>> lrcore.scaling.linear(0.1, old_batch=256, new_batch=1024)
        0.4
        >>> lrcore.scaling.linear({"lr": 0.1, "momentum": 0.9}, 256, 1024)
        {'lr': 0.4, 'momentum': 0.9}

    References:
        Goyal et al., *Accurate, Large Minibatch SGD* (2017), section 2.1.
    """
    scaled: T = _scaled(hyperparameters, old_batch, new_batch, _linear)
    return scaled


def sqrt(hyperparameters: T, old_batch: int, new_batch: int) -> T:
    """Scale the learning rate with the root of the batch: ``lr ← √κ · lr`` with ``κ = new_batch / old_batch``.

    This keeps the variance of SGD's steps, and is the usual rule for adaptive optimizers with noisy gradients. Adam's
    moving averages then span κ times as many samples: see :func:`adam_sde`.

    Args:
        hyperparameters: A learning rate, as a number or a schedule; a mapping with ``"lr"``; or an optimizer of lrcore
            or PyTorch, whose groups are changed. Create PyTorch schedulers afterwards, since they keep ``base_lrs``.
        old_batch: The old number of samples per step.
        new_batch: The new number of samples per step.

    Returns:
        The scaled number, schedule or dict, or the optimizer itself.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If a number is out of range; no group of an optimizer is changed then.

    Examples:
        >>> import lrcore
        >>> lrcore.scaling.sqrt(0.001, old_batch=256, new_batch=1024)
        0.002

    References:
        Krizhevsky, *One Weird Trick for Parallelizing Convolutional Neural Networks* (2014); Hoffer, Hubara & Soudry,
        *Train Longer, Generalize Better* (2017).
    """
    scaled: T = _scaled(hyperparameters, old_batch, new_batch, _sqrt)
    return scaled


def adam_sde(hyperparameters: T, old_batch: int, new_batch: int) -> T:
    """Scale Adam as a stochastic differential equation: the same trajectory in fewer, larger steps.

    With ``κ = new_batch / old_batch``: ``lr ← √κ · lr``, ``1 − βᵢ ← κ (1 − βᵢ)``, ``eps ← eps / √κ``. It holds for
    Adam, AdamW and RMSprop (whose ``alpha`` is treated as a beta) with noisy gradients, while every
    ``κ (1 − β)`` is well below 1. Divide the steps of a warm-up by κ yourself.

    Args:
        hyperparameters: A mapping with ``"lr"`` and, if the optimizer has them, ``"betas"`` or ``"alpha"`` and
            ``"eps"``; or an optimizer of lrcore or PyTorch, whose groups are changed. Create PyTorch schedulers
            afterwards, since they keep ``base_lrs``. The learning rate may be a schedule, the others are numbers.
        old_batch: The old number of samples per step.
        new_batch: The new number of samples per step.

    Returns:
        The scaled dict, or the optimizer itself.

    Raises:
        TypeError: If an argument is of a wrong type, or a beta is a schedule.
        ValueError: If a number is out of range, or a beta becomes negative; no group of an optimizer is changed then.

    Examples:
        >>> import lrcore
        >>> new = lrcore.scaling.adam_sde({"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}, 64, 256)
        >>> round(new["lr"], 6), tuple(round(beta, 6) for beta in new["betas"]), new["eps"]
        (0.002, (0.6, 0.996), 5e-09)

    References:
        Malladi, Lyu, Panigrahi & Arora, *On the SDEs and Scaling Rules for Adaptive Gradient Algorithms* (2022),
        definition 5.4.
    """
    scaled: T = _scaled(hyperparameters, old_batch, new_batch, _adam_sde)
    return scaled


def _linear(values: Mapping[str, Any], factor: float) -> dict[str, Any]:
    return {**values, "lr": _times(values["lr"], factor)}


def _sqrt(values: Mapping[str, Any], factor: float) -> dict[str, Any]:
    return {**values, "lr": _times(values["lr"], math.sqrt(factor))}


def _adam_sde(values: Mapping[str, Any], factor: float) -> dict[str, Any]:
    if "betas" not in values and "alpha" not in values:
        raise ValueError(f"adam_sde: hyperparameters must have betas or alpha, got {', '.join(values)}")
    changed = _sqrt(values, factor)
    if "betas" in values:
        changed["betas"] = tuple(_beta(f"betas[{i}]", beta, factor) for i, beta in enumerate(values["betas"]))
    if "alpha" in values:
        changed["alpha"] = _beta("alpha", values["alpha"], factor)
    if "eps" in values:
        changed["eps"] = _times(values["eps"], 1.0 / math.sqrt(factor))
    return changed


def _beta(name: str, beta: Any, factor: float) -> float:
    if isinstance(beta, Schedule):
        raise TypeError(f"adam_sde: {name} must be a number, got {brief(beta)}")
    new = 1.0 - factor * (1.0 - FRACTION.check(f"adam_sde: {name}", beta))
    if new < 0.0:
        raise ValueError(
            f"adam_sde: {name} must be >= {1 - 1 / factor:.3g} for {factor:g} times the batch, got {beta!r}"
        )
    return new


def _times(value: Any, factor: float) -> Any:
    if isinstance(value, Schedule):
        refuse_factor("lr", value)
        return value * factor
    return NON_NEGATIVE.check("lr", value) * factor


def _scaled(given: Any, old_batch: int, new_batch: int, rule: _Rule) -> Any:
    factor = check_count("new_batch", new_batch, least=1) / check_count("old_batch", old_batch, least=1)
    if isinstance(given, Optimizer):
        changes = [rule(group.hyperparameters, factor) for group in given.param_groups]
        for group, values in zip(given.param_groups, changes, strict=True):
            group.replace(group.validate(values))
        return given
    if isinstance(given, Mapping):
        if "lr" not in given:
            raise ValueError(f"hyperparameters must have 'lr', got {', '.join(map(str, given)) or 'none'}")
        return rule(given, factor)
    groups = getattr(given, "param_groups", None)
    if isinstance(groups, list) and all(isinstance(group, dict) for group in groups):
        _scale_torch(given, factor, rule)
        return given
    if rule is _adam_sde:
        raise TypeError(f"adam_sde: hyperparameters must be a mapping or an optimizer, got {brief(given)}")
    return rule({"lr": given}, factor)["lr"]


def _scale_torch(optimizer: Any, factor: float, rule: _Rule) -> None:
    """Scale the groups of a PyTorch optimizer, or raise and change none."""
    groups = optimizer.param_groups
    # Groups of lrcore.torch hold the current values of schedules.
    take_schedules: Callable[[], list[dict[str, Any]]]
    take_schedules = getattr(optimizer, "take_schedules", lambda: [{} for _ in groups])
    changes = []
    for index, (group, scheduled) in enumerate(zip(groups, take_schedules(), strict=True)):
        if "lr" not in group:
            raise ValueError(f"param_groups[{index}] must have 'lr', got {', '.join(map(str, group)) or 'none'}")
        values = {name: plain((group | scheduled)[name]) for name in _HYPERPARAMETERS if name in group}
        lrs = {
            name: rule({**values, "lr": plain(group[name])}, factor)["lr"] for name in _SCHEDULER_LRS if name in group
        }
        changes.append(rule(values, factor) | lrs)
    for group, new in zip(groups, changes, strict=True):
        group.update({name: _put(group[name], value) for name, value in new.items()})
    take_schedules()


def _put(old: Any, new: Any) -> Any:
    """Return the new value, written into the old one if that is a tensor, as PyTorch schedulers do."""
    if isinstance(old, tuple | list) and isinstance(new, tuple):
        return tuple(map(_put, old, new))
    if hasattr(old, "fill_"):
        old.detach().fill_(new)
        return old
    return new
