"""Putting a model's tensors back as they were, and what its batch norms keep computed anew for a while."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def copy_of(value: Any) -> Any:
    """Return a copy of a tensor, and anything else as it is."""
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def restore(tensor: torch.Tensor, copy: torch.Tensor) -> torch.Tensor:
    """Give a tensor the values that it had, and return it."""
    # What has not changed may be what could not be written to, such as an expanded buffer.
    if not _has_bits_of(tensor, copy):
        with torch.no_grad():
            tensor.copy_(copy)
    return tensor


def _has_bits_of(tensor: torch.Tensor, copy: torch.Tensor) -> bool:
    """Return whether values are the same, zeros with their signs; a NaN never is."""
    real, own = (torch.view_as_real(one) if one.is_complex() else one for one in (tensor, copy))
    return bool(torch.equal(real, own) and torch.equal(real.signbit(), own.signbit()))


def restore_entries(entries: dict[str, Any], held: dict[str, Any]) -> None:
    """Give a dictionary the entries that it had."""
    entries.clear()
    entries.update(held)


def buffers_kept(model: torch.nn.Module) -> list[Callable[[], object]]:
    """Return what puts back the buffers of a model: the tensors that they are now, with their values."""
    held = {id(buffer): buffer for buffer in model.buffers()}
    restores: list[Callable[[], object]] = [partial(restore, tensor, copy_of(tensor)) for tensor in held.values()]
    # A forward pass may put other tensors in the place of buffers.
    entries = (module._buffers for module in model.modules())
    return [*restores, *(partial(restore_entries, own, dict(own)) for own in entries)]


@contextmanager
def modes_kept(model: torch.nn.Module) -> Iterator[None]:
    """Give every module its mode, training or evaluation, and every batch norm its momentum back."""
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
    """Compute the running statistics of a model's batch norms as :func:`torch.optim.swa_utils.update_bn` does.

    Raises:
        ValueError: If there is no batch.
    """
    count = 0

    def batches() -> Iterator[Any]:
        nonlocal count
        for batch in loader:
            count += 1
            yield batch

    with modes_kept(model):
        torch.optim.swa_utils.update_bn(batches(), model)
    has_statistics = any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in model.modules())
    if has_statistics and not count:
        raise ValueError("averaged: update_bn has no batch to compute statistics of")
