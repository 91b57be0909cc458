"""DeepSpeed's CPU optimizers, compiled at first use, which needs a C++ compiler and a minute or two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from deepspeed.ops.adagrad import DeepSpeedCPUAdagrad
from deepspeed.ops.adam import DeepSpeedCPUAdam

from lrcore.bench.torch_peers import competitor, product
from lrcore.bench.workloads import BETA1, BETA2, DECAY, EPS, LR, Peer

if TYPE_CHECKING:
    from lrcore.bench.workloads import Array, Competitor, Workload


def optimizer_of(workload: Workload, parameters: list[torch.Tensor]) -> Any:
    if workload.name == "AdamW":
        return DeepSpeedCPUAdam(parameters, lr=LR, betas=(BETA1, BETA2), eps=EPS, weight_decay=DECAY, adamw_mode=True)
    return DeepSpeedCPUAdagrad(parameters, lr=LR, **workload.options)


def make(workload: Workload, weights: list[Array], grads: list[Array]) -> Competitor:
    return competitor(lambda parameters: optimizer_of(workload, parameters), weights, grads)


def lacks(workload: Workload, dtype: np.dtype[Any]) -> str:
    if workload.name not in ("AdamW", "Adagrad"):
        return f"DeepSpeed has no {workload.name} for the CPU"
    return "" if dtype == np.float32 else f"DeepSpeed's CPU optimizers don't take {dtype}"


# Compiles at import, so that a failure is the reason why the peer is missing.
for _optimizer in (DeepSpeedCPUAdam, DeepSpeedCPUAdagrad):
    _optimizer([torch.nn.Parameter(torch.zeros(1))])

PEERS = [Peer("DeepSpeed", make, lacks, 0, product, torch.set_num_threads)]
