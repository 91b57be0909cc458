"""DeepSpeed's CPU optimizers. They are compiled when first used: it needs a C++ compiler and a minute or two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from deepspeed.ops.adagrad import DeepSpeedCPUAdagrad
from deepspeed.ops.adam import DeepSpeedCPUAdam

from peers_torch import contestant, product
from works import BETA1, BETA2, DECAY, EPS, LR, Peer

if TYPE_CHECKING:
    from works import Array, Contestant, Work


def optimizer_of(work: Work, parameters: list[torch.Tensor]) -> Any:
    if work.name == "AdamW":
        return DeepSpeedCPUAdam(parameters, lr=LR, betas=(BETA1, BETA2), eps=EPS, weight_decay=DECAY, adamw_mode=True)
    return DeepSpeedCPUAdagrad(parameters, lr=LR, **work.options)


def make(work: Work, weights: list[Array], grads: list[Array]) -> Contestant:
    return contestant(lambda parameters: optimizer_of(work, parameters), weights, grads)


def lacks(work: Work, dtype: np.dtype[Any]) -> str:
    if work.name not in ("AdamW", "Adagrad"):
        return f"DeepSpeed has no {work.name} for the CPU"
    return "" if dtype == np.float32 else f"DeepSpeed's CPU optimizers take no {dtype}"


# Compiles, or says here why it can't.
for _optimizer in (DeepSpeedCPUAdam, DeepSpeedCPUAdagrad):
    _optimizer([torch.nn.Parameter(torch.zeros(1))])

PEERS = [Peer("DeepSpeed", make, lacks, 0, product, torch.set_num_threads)]
