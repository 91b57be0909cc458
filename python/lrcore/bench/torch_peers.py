"""PyTorch's optimizers, and what is shared with libraries whose optimizers take PyTorch's parameters.

Parameters are tensors that PyTorch allocated, as in its users' programs.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from lrcore.bench.workloads import LR, Array, Competitor, Peer, Workload

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np


def parameters_of(weights: list[Array], grads: list[Array]) -> list[Any]:
    """Return parameters with these values and gradients."""
    parameters: list[Any] = [torch.nn.Parameter(torch.from_numpy(weight).clone()) for weight in weights]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = torch.from_numpy(grad).clone()
    return parameters


def competitor(make: Callable[[list[Any]], Any], weights: list[Array], grads: list[Array]) -> Competitor:
    """Return the competitor of an optimizer that ``make`` makes for parameters with these values."""
    parameters = parameters_of(weights, grads)
    optimizer = make(parameters)

    def load(values: list[Array]) -> None:
        for parameter, value in zip(parameters, values, strict=True):
            parameter.grad.copy_(torch.from_numpy(value))

    return Competitor(optimizer.step, lambda: [p.detach().numpy() for p in parameters], load, holds=parameters)


def product(size: int) -> Callable[[], object]:
    """Return PyTorch's product of two square matrices."""
    left, right, out = torch.ones(size, size), torch.ones(size, size), torch.empty(size, size)
    return lambda: torch.mm(left, right, out=out)


def peer(name: str, temporaries: int, **form: bool) -> Peer:
    """Return a form of PyTorch's optimizers."""

    def make(workload: Workload, weights: list[Array], grads: list[Array]) -> Competitor:
        optimizer = getattr(torch.optim, workload.optimizer)
        # Optimizers without a fused form have no such argument.
        known = {key: value for key, value in form.items() if key in inspect.signature(optimizer).parameters}
        return competitor(lambda p: optimizer(p, lr=LR, **workload.options, **known), weights, grads)

    def lacks(workload: Workload, _: np.dtype[Any]) -> str:
        optimizer = getattr(torch.optim, workload.optimizer, None)
        if optimizer is None:
            return f"torch has no {workload.optimizer}"
        missing = form.get("fused") and "fused" not in inspect.signature(optimizer).parameters
        return f"torch has no fused {workload.optimizer}" if missing else ""

    return Peer(name, make, lacks, temporaries, product, torch.set_num_threads)


PEERS = [
    peer("torch for-loop", 3, foreach=False, fused=False),
    peer("torch foreach", 3, foreach=True),
    peer("torch fused", 0, fused=True),
]
