"""Training loops: a network on digits in NumPy with lrcore, in PyTorch and in JAX, each with its own optimizer.

Epochs take turns. The share of the optimizer is its part of the time of an epoch. JAX computes gradients and update in
one jitted function, so an epoch of gradients alone is timed too and subtracted.
"""

from __future__ import annotations

import time
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

import lrcore
from lrcore.bench.timing import REST, Times
from lrcore.bench.workloads import BETA1, BETA2, DECAY, EPS, LR

if TYPE_CHECKING:
    from collections.abc import Callable

    from lrcore.bench.workloads import Array
    from sections import Bench

    # Returns the seconds of an epoch, and those of the optimizer in it.
    Epoch = Callable[[], tuple[float, float]]

LAYERS = (64, 512, 128, 10)
BATCH = 64
IMAGES = 1437


def digits() -> tuple[Array, Array, str]:
    """Return the handwritten digits if scikit-learn is installed; otherwise noise of the same shapes."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        rng = np.random.default_rng(0)
        return rng.random((IMAGES, 64), np.float32), rng.integers(0, 10, IMAGES), "noise in the shape of digits"
    images, labels = load_digits(return_X_y=True)
    return (images[:IMAGES] / 16).astype(np.float32), labels[:IMAGES], "digits"


def batches(x: Array, y: Array) -> list[tuple[Array, Array]]:
    """Return batches, the same in every epoch: shuffling is not part of the comparison."""
    whole = len(x) // BATCH * BATCH
    return [(x[i : i + BATCH].copy(), y[i : i + BATCH].astype(np.int64)) for i in range(0, whole, BATCH)]


def initial() -> list[Array]:
    rng = np.random.default_rng(0)
    params: list[Array] = []
    for fan_in, fan_out in pairwise(LAYERS):
        params += [rng.standard_normal((fan_in, fan_out), np.float32) * np.float32((2 / fan_in) ** 0.5)]
        params += [np.zeros(fan_out, np.float32)]
    return params


def numpy_grads(params: list[Array], x: Array, y: Array) -> list[Array]:
    w1, b1, w2, b2, w3, b3 = params
    hidden1 = np.maximum(x @ w1 + b1, 0)
    hidden2 = np.maximum(hidden1 @ w2 + b2, 0)
    logits = hidden2 @ w3 + b3
    d_logits = np.exp(logits - logits.max(axis=1, keepdims=True))
    d_logits /= d_logits.sum(axis=1, keepdims=True)
    d_logits[np.arange(len(y)), y] -= 1
    d_logits /= np.float32(len(y))
    d_hidden2 = (d_logits @ w3.T) * (hidden2 > 0)
    d_hidden1 = (d_hidden2 @ w2.T) * (hidden1 > 0)
    backward = ((x, d_hidden1), (hidden1, d_hidden2), (hidden2, d_logits))
    return [grad for layer, d in backward for grad in (layer.T @ d, d.sum(axis=0))]


def lrcore_epoch(data: list[tuple[Array, Array]]) -> Epoch:
    params = initial()
    optimizer = lrcore.AdamW(params, LR, (BETA1, BETA2), EPS, DECAY)

    def epoch() -> tuple[float, float]:
        spent, begin = 0.0, time.perf_counter()
        for x, y in data:
            grads = numpy_grads(params, x, y)
            start = time.perf_counter()
            optimizer.step(grads)
            spent += time.perf_counter() - start
        return time.perf_counter() - begin, spent

    return epoch


def torch_epoch(data: list[tuple[Array, Array]], **form: bool) -> Epoch:
    import torch
    from torch.nn.functional import cross_entropy

    linear = [torch.nn.Linear(a, b) for a, b in pairwise(LAYERS)]
    model = torch.nn.Sequential(linear[0], torch.nn.ReLU(), linear[1], torch.nn.ReLU(), linear[2])
    optimizer = torch.optim.AdamW(model.parameters(), LR, (BETA1, BETA2), EPS, DECAY, **form)
    tensors = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in data]

    def epoch() -> tuple[float, float]:
        spent, begin = 0.0, time.perf_counter()
        for x, y in tensors:
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            start = time.perf_counter()
            optimizer.step()
            spent += time.perf_counter() - start
        return time.perf_counter() - begin, spent

    return epoch


def jax_epoch(data: list[tuple[Array, Array]]) -> Epoch:
    import jax
    import jax.numpy as jnp
    import optax

    optimizer = optax.adamw(LR, BETA1, BETA2, EPS, weight_decay=DECAY)
    params: Any = [jnp.array(p, copy=True) for p in initial()]
    state: Any = optimizer.init(params)
    arrays = [(jnp.array(x), jnp.array(y)) for x, y in data]

    def loss(params: Any, x: Any, y: Any) -> Any:
        w1, b1, w2, b2, w3, b3 = params
        hidden = jax.nn.relu(jax.nn.relu(x @ w1 + b1) @ w2 + b2)
        return optax.softmax_cross_entropy_with_integer_labels(hidden @ w3 + b3, y).mean()

    gradients = jax.jit(jax.grad(loss))

    @partial(jax.jit, donate_argnums=(0, 1))
    def train(params: Any, state: Any, x: Any, y: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(jax.grad(loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    def epoch() -> tuple[float, float]:
        nonlocal params, state
        start = time.perf_counter()
        for x, y in arrays:
            params, state = train(params, state, x, y)
        jax.block_until_ready(params)
        middle = time.perf_counter()
        for x, y in arrays:
            last = gradients(params, x, y)
        jax.block_until_ready(last)
        alone = time.perf_counter() - middle
        return middle - start, (middle - start) - alone

    return epoch


def loops(bench: Bench) -> None:
    x, y, title = digits()
    data = batches(x, y)
    makers: dict[str, tuple[str, Callable[[], Epoch]]] = {
        "NumPy + lrcore": ("", lambda: lrcore_epoch(data)),
        "torch, default": ("torch for-loop", lambda: torch_epoch(data)),
        "torch, fused": ("torch fused", lambda: torch_epoch(data, fused=True)),
        "JAX + optax": ("optax jit", lambda: jax_epoch(data)),
    }
    epochs = {name: make() for name, (needs, make) in makers.items() if not needs or needs in bench.peers.found}
    for name in makers.keys() - epochs.keys():
        print(f"  missing: {name}")
    weights = sum(p.size for p in initial())
    print(f"\ntraining loops: {title}, a network of {weights:,} weights, AdamW, batches of {BATCH}")
    print(f"  {'':16} {'ms an epoch':>24}   {'in the optimizer':>24}")
    for name, (whole, spent) in _interleaved(epochs, max(bench.plan.rounds, 5)).items():
        share = spent.median / whole.median
        low, high = (1e3 * q for q in whole.quartiles)
        epoch = f"{1e3 * whole.median:8.2f} [{low:.2f}, {high:.2f}]"
        print(f"  {name:16} {epoch:>24}   {1e3 * spent.median:13.2f} ms  {share:6.1%}")
        found = {"name": name, "threads": bench.plan.threads, "seconds": whole.median, "quartiles": whole.quartiles}
        bench.results.loops.append(found | {"optimizer_seconds": spent.median, "share": share})


def _interleaved(epochs: dict[str, Epoch], rounds: int) -> dict[str, tuple[Times, Times]]:
    """Return the seconds of an epoch and of its optimizer: epochs take turns, each after one that is not counted."""
    seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in epochs}
    for _ in range(rounds):
        for name, epoch in epochs.items():
            time.sleep(REST)
            epoch()
            for values, value in zip(seconds[name], epoch(), strict=True):
                values.append(value)
    return {name: (Times(tuple(whole)), Times(tuple(spent))) for name, (whole, spent) in seconds.items()}
