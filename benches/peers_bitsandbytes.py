"""bitsandbytes' 32-bit optimizers. Its 8-bit ones compute another update."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bitsandbytes
import numpy as np
import torch

from peers_torch import contestant, product
from works import LR, Peer

if TYPE_CHECKING:
    from works import Array, Contestant, Work

LACKING = {
    "SGD": "bitsandbytes has no SGD without momentum",
    "AMSGrad": "bitsandbytes has no AMSGrad",
    "RMSprop centered": "bitsandbytes has no centered RMSprop",
}


def make(work: Work, weights: list[Array], grads: list[Array]) -> Contestant:
    optimizer = getattr(bitsandbytes.optim, work.optimizer)
    # Arrays of fewer elements than `min_8bit_size` are no matter: all state has 32 bits.
    return contestant(lambda p: optimizer(p, lr=LR, **work.options, optim_bits=32), weights, grads)


def lacks(work: Work, dtype: np.dtype[Any]) -> str:
    if dtype != np.float32:
        return f"bitsandbytes keeps its state in float32, for {dtype} too"
    return LACKING.get(work.name, "")


PEERS = [Peer("bitsandbytes", make, lacks, 3, product, torch.set_num_threads)]
