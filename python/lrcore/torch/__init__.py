"""Drop-in replacements of PyTorch's optimizers on the CPU, with lrcore's step.

A program replaces ``torch.optim.AdamW`` by ``lrcore.torch.AdamW``. Numbers, state, hooks, schedulers and checkpoints
stay PyTorch's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from lrcore._optional import INSTALL_TORCH, imported

imported("torch", f"lrcore.torch needs PyTorch 2.10 or later, which is not installed: {INSTALL_TORCH}")

import torch  # noqa: E402

if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
    raise ImportError(
        f"lrcore.torch needs PyTorch 2.10 or later, and {torch.__version__} is installed: {INSTALL_TORCH}"
    )

from lrcore.optim import OPTIMIZERS  # noqa: E402
from lrcore.optim.option_docs import described, expand  # noqa: E402
from lrcore.torch import classes  # noqa: E402
from lrcore.torch.classes import *  # noqa: E402, F403
from lrcore.torch.distributed import OPTION  # noqa: E402
from lrcore.torch.range_test import find_lr  # noqa: E402

if TYPE_CHECKING:
    from lrcore.torch.optimizer import DropIn, TorchOptions

if not TYPE_CHECKING:
    __all__ = [*classes.__all__, "find_lr", "from_torch"]

    def __dir__() -> list[str]:
        return sorted(__all__)


# By PyTorch's classes, and by the names of those that PyTorch lacks.
_COUNTERPARTS: dict[type[torch.optim.Optimizer], type[DropIn]] = {
    getattr(torch.optim, one._declaration.in_torch): getattr(classes, one.__name__)
    for one in OPTIMIZERS
    if one._declaration.in_torch
}
_WITHOUT_COUNTERPART = {one.__name__ for one in OPTIMIZERS if one._declaration.in_torch is None}


def from_torch(optimizer: torch.optim.Optimizer, **options: Unpack[TorchOptions]) -> DropIn:
    """Convert a live PyTorch optimizer to lrcore's, with its groups, state and hooks, without a copy.

    Both share groups and state: schedulers of the first also set the learning rates of the second, and either may take
    the next step.

    Args:
        optimizer: An optimizer of :mod:`torch.optim` that lrcore has too.
        options: The options of every optimizer, such as clipping, averages and statistics. See
            :class:`Options <lrcore.optim.options.Options>`.

    Returns:
        The optimizer of the same name.

    Raises:
        TypeError: If lrcore has no optimizer of that name, there is no such option, or a parameter has another dtype.
        ValueError: If a parameter is on another device; for ``capturable`` and ``differentiable``.

    Examples:
        >>> import torch, lrcore.torch
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> before = torch.optim.Adam([weight], lr=0.1)
        >>> weight.grad = torch.ones(2)
        >>> before.step()
        >>> opt = lrcore.torch.from_torch(before, clip_norm=1.0)
        >>> opt.step()
        >>> opt.info.step, opt.state[weight]["step"].item()
        (2, 2.0)
    """
    kind = type(optimizer)
    found = _COUNTERPARTS.get(kind)
    if found is None:
        known = ", ".join(f"torch.optim.{one.__name__}" for one in _COUNTERPARTS)
        hint = f"; torch.optim has no {kind.__name__}" if kind.__name__ in _WITHOUT_COUNTERPART else ""
        raise TypeError(f"from_torch takes {known}, got {kind.__module__}.{kind.__name__}{hint}")
    for name in options:
        if name in optimizer.defaults:
            raise TypeError(f"from_torch: {name} stays as it is in the optimizer; set it in the groups of either one")
    return found.taking_over(optimizer, options)


expand(from_torch, decay=None, without=("noise_scale",), more=OPTION)
from_torch.__doc__ = described(from_torch, more=OPTION)
