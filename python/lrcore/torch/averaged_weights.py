"""The weights that hold the values of their averages at present, in an ``averaged`` block of any optimizer.

Within the block no optimizer may step them, lrcore's or PyTorch's, and none may be made of them.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch.optim.optimizer import register_optimizer_step_pre_hook

from lrcore.optim.averages import AVERAGES_NOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import torch

# By identity.
_AVERAGED: dict[int, torch.Tensor] = {}


@contextmanager
def locked(params: Iterable[torch.Tensor]) -> Iterator[None]:
    """Make every optimizer refuse these weights for the length of a ``with`` block."""
    own = {id(param): param for param in params}
    hook = register_optimizer_step_pre_hook(_refuse_step)  # optimizers of PyTorch call it before their steps
    try:
        _AVERAGED.update(own)
        yield
    finally:
        for key in own:
            _AVERAGED.pop(key, None)
        hook.remove()


def refuse_averaged(group: Mapping[str, Any]) -> None:
    """Raise a RuntimeError if a weight of a group holds its average."""
    if _AVERAGED and any(id(param) in _AVERAGED for param in group["params"]):
        raise RuntimeError(AVERAGES_NOW)


def _refuse_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        refuse_averaged(group)
