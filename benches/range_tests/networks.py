"""Networks with hand-written gradients, for one run or for many runs at once.

An array of weights has the axes of the layer, and before them any number of axes of runs; a batch has the axes of runs
that its runs do not share, or 1. So ``x @ w`` is the same code for one run, ``(batch, in) @ (in, out)``, and for three
seeds at sixteen learning rates, ``(3, 1, batch, in) @ (3, 16, in, out)``, where it costs a few microseconds per run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
Params: TypeAlias = dict[str, Array]
# Returns the loss and its gradient with respect to the outputs.
Loss: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]


def transposed(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


class Layer:
    """A layer: a function of its input and its weights, and its backward pass."""

    def init(self, rng: np.random.Generator) -> Params:  # noqa: ARG002
        """Draw the weights, by name."""
        return {}

    def forward(self, params: Params, x: Array) -> Array:
        """Return the output."""
        raise NotImplementedError

    def backward(self, params: Params, x: Array, y: Array, d: Array) -> tuple[Array | None, Params]:
        """Return the gradients of the input and of the weights; ``d`` is the gradient of the output ``y``."""
        raise NotImplementedError


class Dense(Layer):
    """``x w + b``: from ``(batch, fan_in)`` to ``(batch, fan_out)``. Weights have the variance ``gain / fan_in``."""

    def __init__(self, fan_in: int, fan_out: int, gain: float = 1.0) -> None:
        self.shape, self.scale = (fan_in, fan_out), math.sqrt(gain / fan_in)

    def init(self, rng: np.random.Generator) -> Params:
        return {"w": self.scale * rng.standard_normal(self.shape), "b": np.zeros(self.shape[1])}

    def forward(self, params: Params, x: Array) -> Array:
        y: Array = x @ params["w"]
        y += params["b"][..., None, :]
        return y

    def backward(self, params: Params, x: Array, y: Array, d: Array) -> tuple[Array | None, Params]:  # noqa: ARG002
        return d @ transposed(params["w"]), {"w": transposed(x) @ d, "b": d.sum(-2)}


class First(Dense):
    """A first layer: the gradient of its input is not computed."""

    def backward(self, params: Params, x: Array, y: Array, d: Array) -> tuple[Array | None, Params]:  # noqa: ARG002
        return None, {"w": transposed(x) @ d, "b": d.sum(-2)}


class Shared(First):
    """A first layer that is the same at each position: a convolution of patches, or an embedding of one-hot vectors.

    From ``(batch, positions, fan_in)`` to ``(batch, positions · fan_out)``.
    """

    def forward(self, params: Params, x: Array) -> Array:
        y = super().forward(params, self._rows(x))
        return y.reshape(*y.shape[:-2], x.shape[-3], -1)

    def backward(self, params: Params, x: Array, y: Array, d: Array) -> tuple[Array | None, Params]:
        return super().backward(params, self._rows(x), y, d.reshape(*d.shape[:-2], -1, self.shape[1]))

    def _rows(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-3], -1, self.shape[0])


class MeanOverPositions(Layer):
    """The mean over positions: ``(batch, positions · channels)`` to ``(batch, channels)``."""

    def __init__(self, positions: int) -> None:
        self.positions = positions

    def forward(self, params: Params, x: Array) -> Array:  # noqa: ARG002
        y: Array = x.reshape(*x.shape[:-1], self.positions, -1).mean(-2)
        return y

    def backward(self, params: Params, x: Array, y: Array, d: Array) -> tuple[Array | None, Params]:  # noqa: ARG002
        shape = (*d.shape[:-1], self.positions, d.shape[-1])
        return np.broadcast_to((d / d.dtype.type(self.positions))[..., None, :], shape).reshape(x.shape), {}


class Relu(Layer):
    """``max(x, 0)``."""

    def forward(self, params: Params, x: Array) -> Array:  # noqa: ARG002
        return np.maximum(x, 0)

    def backward(self, params: Params, x: Array, y: Array, d: Array) -> tuple[Array | None, Params]:  # noqa: ARG002
        return d * (y > 0), {}


class Tanh(Layer):
    """``tanh(x)``."""

    def forward(self, params: Params, x: Array) -> Array:  # noqa: ARG002
        return np.tanh(x)

    def backward(self, params: Params, x: Array, y: Array, d: Array) -> tuple[Array | None, Params]:  # noqa: ARG002
        return d * (1 - y * y), {}


class Network:
    """Layers, one after the other. Weights are named ``"0.w"`` by the number of their layer."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)

    def init(self, rng: np.random.Generator) -> Params:
        """Draw the weights."""
        drawn = [layer.init(rng) for layer in self.layers]
        return {f"{i}.{name}": array for i, params in enumerate(drawn) for name, array in params.items()}

    def forward(self, params: Params, x: Array) -> list[Array]:
        """Return the input and the output of each layer."""
        values = [x]
        for i, layer in enumerate(self.layers):
            values.append(layer.forward(self._own(params, i), values[-1]))
        return values

    def backward(self, params: Params, values: list[Array], d: Array) -> Params:
        """Return the gradients of the weights; ``d`` is the gradient of the last output."""
        grads: Params = {}
        for i in reversed(range(len(self.layers))):
            by_input, own = self.layers[i].backward(self._own(params, i), values[i], values[i + 1], d)
            grads |= {f"{i}.{name}": grad for name, grad in own.items()}
            if by_input is None:
                break
            d = by_input
        return grads

    def _own(self, params: Params, i: int) -> Params:
        return {name: params[f"{i}.{name}"] for name in ("w", "b") if f"{i}.{name}" in params}


def mlp(sizes: Sequence[int], activation: type[Layer] = Relu) -> Network:
    """Return a multilayer perceptron, with He initialization for ReLU and LeCun's for tanh."""
    gain = 2.0 if activation is Relu else 1.0
    layers: list[Layer] = [First(sizes[0], sizes[1], gain)]
    for fan_in, fan_out in pairwise(sizes[1:]):
        layers += [activation(), Dense(fan_in, fan_out, gain)]
    return Network(layers)


def softmax(logits: Array) -> tuple[Array, Array]:
    """Return the probabilities and their logarithms."""
    shifted = logits - logits.max(-1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(-1, keepdims=True)
    return exponentials / sums, shifted - np.log(sums)


def cross_entropy(logits: Array, targets: Array) -> tuple[Array, Array]:
    """The mean cross-entropy of softmax probabilities; targets are one-hot."""
    probabilities, logarithms = softmax(logits)
    count = logits.dtype.type(logits.shape[-2])
    return -(targets * logarithms).sum((-1, -2)) / count, (probabilities - targets) / count


def squared_error(outputs: Array, targets: Array) -> tuple[Array, Array]:
    """The mean squared error over the batch and the outputs."""
    count = outputs.dtype.type(outputs.shape[-1] * outputs.shape[-2])
    errors = outputs - targets
    return (errors * errors).sum((-1, -2)) / count, errors * (2 / count)


def logistic_loss(logits: Array, targets: Array) -> tuple[Array, Array]:
    """The mean binary cross-entropy; targets are 0 or 1."""
    count = logits.dtype.type(logits.shape[-1] * logits.shape[-2])
    losses = np.logaddexp(0, logits) - targets * logits
    return losses.sum((-1, -2)) / count, (0.5 + 0.5 * np.tanh(logits / 2) - targets) / count
