"""optax: update and apply_updates in one jitted function, with the old weights and state donated."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lrcore.bench.workloads import ADAGRAD_EPS, ALPHA, BETA1, BETA2, DECAY, EPS, LR, MOMENTUM, Competitor, Peer, only

if TYPE_CHECKING:
    from collections.abc import Callable

    from lrcore.bench.workloads import Array, Workload

jax.config.update("jax_enable_x64", True)  # noqa: FBT003

_RMS = {"decay": ALPHA, "eps": EPS, "eps_in_sqrt": False}
OPTIMIZERS = {
    "SGD": lambda: optax.sgd(LR),
    "SGD momentum": lambda: optax.sgd(LR, momentum=MOMENTUM),
    "AdamW": lambda: optax.adamw(LR, BETA1, BETA2, EPS, weight_decay=DECAY),
    "AMSGrad": lambda: optax.amsgrad(LR, BETA1, BETA2, EPS),
    "RMSprop": lambda: optax.rmsprop(LR, **_RMS),
    "RMSprop centered": lambda: optax.rmsprop(LR, **_RMS, centered=True, momentum=MOMENTUM),
    "Lion": lambda: optax.lion(LR, weight_decay=0.0),
    "Adagrad": lambda: optax.adagrad(LR, initial_accumulator_value=0.0, eps=ADAGRAD_EPS),
}


def make(workload: Workload, weights: list[Array], grads: list[Array]) -> Competitor:
    optimizer = OPTIMIZERS[workload.name]()
    # Copies, since JAX may alias a NumPy array and a donated buffer must be its own; it may copy asynchronously.
    params = jax.block_until_ready([jnp.array(weight, copy=True) for weight in weights])
    gradients = jax.block_until_ready([jnp.array(grad, copy=True) for grad in grads])
    state = optimizer.init(params)

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(params: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    def step() -> None:
        nonlocal params, state
        params, state = jax.block_until_ready(update(params, state, gradients))

    def load(values: list[Array]) -> None:
        gradients[:] = jax.block_until_ready([jnp.array(value, copy=True) for value in values])

    return Competitor(step, lambda: [np.asarray(p) for p in params], load)


def product(size: int) -> Callable[[], object]:
    left, right = jnp.ones((size, size), jnp.float32), jnp.ones((size, size), jnp.float32)
    multiply = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(multiply(left, right))


PEERS = [Peer("optax jit", make, only(OPTIMIZERS), temporaries=1, product=product)]
