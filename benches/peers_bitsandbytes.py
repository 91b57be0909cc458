"""bitsandbytes' 32-bit optimizers; its 8-bit ones compute another update."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bitsandbytes
import numpy as np
import torch

from lrcore.bench.torch_peers import competitor, product
from lrcore.bench.workloads import LR, Peer

if TYPE_CHECKING:
    from lrcore.bench.workloads import Array, Competitor, Workload

LACKING = {
    "SGD": "bitsandbytes has no SGD without momentum",
    "AMSGrad": "bitsandbytes has no AMSGrad",
    "RMSprop centered": "bitsandbytes has no centered RMSprop",
}


def make(workload: Workload, weights: list[Array], grads: list[Array]) -> Competitor:
    optimizer = getattr(bitsandbytes.optim, workload.optimizer)
    # `min_8bit_size` has no effect: all state has 32 bits.
    return competitor(lambda p: optimizer(p, lr=LR, **workload.options, optim_bits=32), weights, grads)


def lacks(workload: Workload, dtype: np.dtype[Any]) -> str:
    if dtype != np.float32:
        return f"bitsandbytes keeps the state of {dtype} in float32"
    return LACKING.get(workload.name, "")


PEERS = [Peer("bitsandbytes", make, lacks, 3, product, torch.set_num_threads)]
