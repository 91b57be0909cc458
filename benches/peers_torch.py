"""PyTorch's optimizers, and those that are called like them: DeepSpeed's and bitsandbytes'.

Parameters are tensors that PyTorch allocated itself, as they are in its programs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from works import LR, Array, Contestant, Peer, Work

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

FUSED = {"SGD", "Adam", "AdamW", "Adagrad"}


def contestant(make: Callable[[list[torch.Tensor]], Any], weights: list[Array], grads: list[Array]) -> Contestant:
    """An optimizer of tensors that hold these values."""
    parameters = [torch.nn.Parameter(torch.from_numpy(weight).clone()) for weight in weights]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = torch.from_numpy(grad).clone()
    optimizer = make(parameters)

    def load(values: list[Array]) -> None:
        for parameter, value in zip(parameters, values, strict=True):
            parameter.grad.copy_(torch.from_numpy(value))

    return Contestant(optimizer.step, lambda: [p.detach().numpy() for p in parameters], load, holds=parameters)


def product(size: int) -> Callable[[], object]:
    left, right = torch.ones(size, size), torch.ones(size, size)
    out = torch.empty(size, size)
    return lambda: torch.mm(left, right, out=out)


def torch_peer(name: str, temporaries: int, **form: bool) -> Peer:
    def make(work: Work, weights: list[Array], grads: list[Array]) -> Contestant:
        optimizer = getattr(torch.optim, work.optimizer)
        # Optimizers that have no fused form don't know the word.
        known = {key: value for key, value in form.items() if key != "fused" or work.optimizer in FUSED}
        return contestant(lambda p: optimizer(p, lr=LR, **work.options, **known), weights, grads)

    def lacks(work: Work, _: np.dtype[Any]) -> str:
        return f"torch has no fused {work.optimizer}" if form.get("fused") and work.optimizer not in FUSED else ""

    return Peer(name, make, lacks, temporaries, product, torch.set_num_threads)


PEERS = [
    torch_peer("torch for-loop", 3, foreach=False, fused=False),
    torch_peer("torch foreach", 3, foreach=True),
    torch_peer("torch fused", 0, fused=True),
]
