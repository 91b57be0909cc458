"""thinc's kernel for Adam, with the bias correction that thinc's Optimizer puts into the learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from thinc.api import NumpyOps

from lrcore.bench.workloads import BETA1, BETA2, DECAY, EPS, LR, Competitor, Peer, copies, fill

if TYPE_CHECKING:
    from lrcore.bench.workloads import Array, Workload


def make(_: Workload, weights: list[Array], grads: list[Array]) -> Competitor:
    ops = NumpyOps()
    values_of_grads = copies(grads)
    weights, grads = copies(weights), copies(grads)
    rows = [
        (w.reshape(-1), g.reshape(-1), ops.alloc1f(w.size), ops.alloc1f(w.size))
        for w, g in zip(weights, grads, strict=True)
    ]
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        lr = LR * (1 - BETA2**steps) ** 0.5 / (1 - BETA1**steps)
        for w, g, m, v in rows:
            w *= 1 - LR * DECAY
            ops.adam(w, g, m, v, BETA1, BETA2, EPS, lr, 1.0)

    def load(values: list[Array]) -> None:
        fill(values_of_grads, values)

    # The kernel clears the gradient: without new ones the state would decay to subnormal numbers, which are slow.
    return Competitor(step, lambda: weights, load, before=lambda: fill(grads, values_of_grads))


def lacks(workload: Workload, dtype: np.dtype[Any]) -> str:
    if workload.name != "AdamW":
        return "NumpyOps has a kernel for Adam only"
    return "" if dtype == np.float32 else "NumpyOps.adam takes float32 only"


PEERS = [Peer("thinc", make, lacks, 2)]
