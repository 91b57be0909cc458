"""Copies of a model's tensors, to restore them, and recomputed statistics of its batch norms."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def copy_of(value: Any) -> Any:
    """Return a copy of a tensor; another value is returned as it is."""
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def restore(tensor: torch.Tensor, copy: torch.Tensor) -> torch.Tensor:
    """Restore the values of a tensor, and return it."""
    # An unchanged tensor may be one that can't be written to, such as an expanded buffer.
    if not _has_bits_of(tensor, copy):
        with torch.no_grad():
            tensor.copy_(copy)
    return tensor


def _has_bits_of(tensor: torch.Tensor, copy: torch.Tensor) -> bool:
    """Return whether the values are equal, with the signs of zeros; NaN never is."""
    real, own = (torch.view_as_real(one) if one.is_complex() else one for one in (tensor, copy))
    return bool(torch.equal(real, own) and torch.equal(real.signbit(), own.signbit()))


def restore_entries(entries: dict[Any, Any], before: dict[Any, Any]) -> None:
    """Restore the entries of a dictionary."""
    entries.clear()
    entries.update(before)


def restore_of(entries: dict[str, Any]) -> Callable[[], object]:
    """Return a function that restores the entries of a dictionary, and the values of the tensors among them."""
    before = {name: (value, copy_of(value)) for name, value in entries.items()}

    def restore_all() -> None:
        pairs = before.items()
        restore_entries(
            entries, {name: restore(v, copy) if isinstance(v, torch.Tensor) else v for name, (v, copy) in pairs}
        )

    return restore_all


def restores_of(model: torch.nn.Module, *kinds: str) -> list[Callable[[], object]]:
    """Return functions that restore ``"_buffers"`` or ``"_parameters"``: the present tensors, with their values."""
    # A forward pass may assign other tensors.
    entries = [getattr(module, kind) for module in model.modules() for kind in kinds]
    unique = {id(tensor): tensor for own in entries for tensor in own.values() if tensor is not None}
    restores: list[Callable[[], object]] = [partial(restore, tensor, copy_of(tensor)) for tensor in unique.values()]
    return [*restores, *(partial(restore_entries, own, dict(own)) for own in entries)]


@contextmanager
def restored_modes(model: torch.nn.Module) -> Iterator[None]:
    """Restore the training mode of every module, and the momentum of every batch norm, at the end of the block."""
    modes = [(module, module.training) for module in model.modules()]
    momenta = [(module, module.momentum) for module, _ in modes if hasattr(module, "momentum")]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for module, momentum in momenta:
            module.momentum = momentum


def recompute_statistics(model: torch.nn.Module, loader: Iterable[Any]) -> None:
    """Recompute the running statistics of a model's batch norms by :func:`torch.optim.swa_utils.update_bn`.

    Raises:
        ValueError: If there is no batch.
    """
    count = 0

    def batches() -> Iterator[Any]:
        nonlocal count
        for batch in loader:
            count += 1
            yield batch

    with restored_modes(model):
        torch.optim.swa_utils.update_bn(batches(), model)
    has_statistics = any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in model.modules())
    if has_statistics and not count:
        raise ValueError("averaged: update_bn has no batch to compute statistics of")
