"""The problems: one declaration each, of sixteen kinds, every kind once in each half.

The constants of ``find_lr`` may be chosen on the problems of the half ``chosen``. Those of the half ``held out`` are
for the figures alone. Which is which was decided by kind before anything was measured. ``waveforms`` and ``deep_sine``
got less noise when the losses of their seeds differed by up to 70 %, before any recommendation was computed.

A problem's functions work for one run and for many at once; see ``networks.py``. All arrays are float32. Samples are
drawn independently, from a generator, or with replacement from a data set, mostly with noise added to the inputs, so
that no run can learn its samples by heart and the best loss is not 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from networks import (
    Array,
    Dense,
    First,
    Loss,
    MeanOverPositions,
    Network,
    Params,
    Relu,
    Shared,
    Tanh,
    cross_entropy,
    logistic_loss,
    mlp,
    softmax,
    squared_error,
    transposed,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Callable

Rng: TypeAlias = np.random.Generator
Batch: TypeAlias = tuple[Array, ...]
EVALUATED = 2000  # samples of the evaluation batch


@dataclass(frozen=True)
class Parts:
    """What a problem computes.

    Attributes:
        init: Draws the weights.
        draw: ``draw(rng, count)`` draws that many samples, along the first axis of each array.
        loss_and_grads: Returns the mean loss of a batch, and its gradients.
        evaluate: Returns the figure of a run, from its weights; None for the loss of a large fixed batch.
    """

    init: Callable[[Rng], Params]
    draw: Callable[[Rng, int], Batch]
    loss_and_grads: Callable[..., tuple[Array, Params]]
    evaluate: Callable[[Params], Array] | None = None


@dataclass(frozen=True)
class Problem:
    """A declared problem."""

    name: str
    kind: str
    half: str
    build: Callable[[], Parts]

    @property
    def parts(self) -> Parts:
        """What it computes, built once."""
        return _built(self.build)

    def init(self, seed: int) -> Params:
        """Return the weights at the start of a run."""
        return as_float32(self.parts.init(np.random.default_rng([seed, 1])))

    def evaluate(self, params: Params) -> Array:
        """Return the loss of weights on the fixed evaluation batch."""
        if self.parts.evaluate is not None:
            return self.parts.evaluate(params)
        loss, _ = self.parts.loss_and_grads(params, *_evaluation_batch(self.build))
        return loss


def as_float32(params: Params) -> Params:
    return {name: np.asarray(array, np.float32) for name, array in params.items()}


@cache
def _built(build: Callable[[], Parts]) -> Parts:
    return build()


@cache
def _evaluation_batch(build: Callable[[], Parts]) -> Batch:
    return _built(build).draw(np.random.default_rng(20), EVALUATED)


PROBLEMS: dict[str, Problem] = {}


def problem(kind: str, half: str) -> Callable[[Callable[[], Parts]], Callable[[], Parts]]:
    """Declare a problem, with the words of the function's name as its own."""

    def declare(build: Callable[[], Parts]) -> Callable[[], Parts]:
        name = build.__name__.replace("_", " ")
        PROBLEMS[name] = Problem(name, kind, half, build)
        return build

    return declare


CHOSEN, HELD_OUT = "chosen", "held out"


def supervised(
    network: Network, loss: Loss, draw: Callable[[Rng, int], Batch], penalty: float = 0.0, shrink: float = 1.0
) -> Parts:
    """Return the parts of a network that maps inputs to targets, with an L2 penalty on all weights in the loss."""

    def loss_and_grads(params: Params, x: Array, targets: Array) -> tuple[Array, Params]:
        values = network.forward(params, x)
        value, d = loss(values[-1], targets)
        grads = network.backward(params, values, d)
        if penalty:
            value = value.copy()
            for name, array in params.items():
                axes = (-1,) if name.endswith("b") else (-1, -2)
                value += np.float32(0.5 * penalty) * (array * array).sum(axes)
                grads[name] = grads[name] + np.float32(penalty) * array
        return value, grads

    def init(rng: Rng) -> Params:
        return {name: shrink * array for name, array in network.init(rng).items()}

    return Parts(init, float32s(draw), loss_and_grads)


def float32s(draw: Callable[[Rng, int], Batch]) -> Callable[[Rng, int], Batch]:
    def drawn(rng: Rng, count: int) -> Batch:
        return tuple(np.asarray(array, np.float32) for array in draw(rng, count))

    return drawn


def resampled(x: Array, targets: Array, noise: float = 0.0) -> Callable[[Rng, int], Batch]:
    """Return a function that draws rows with replacement, with Gaussian noise added to the inputs."""

    def draw(rng: Rng, count: int) -> Batch:
        rows = rng.integers(len(x), size=count)
        inputs = x[rows]
        return (inputs + noise * rng.standard_normal(inputs.shape, np.float32) if noise else inputs), targets[rows]

    return draw


def standardised(x: Array) -> Array:
    result: Array = (x - x.mean(0)) / np.maximum(x.std(0), 1e-9)
    return result.astype(np.float32)


def one_hot(labels: Array, count: int) -> Array:
    return np.eye(count, dtype=np.float32)[labels]


def loaded(name: str) -> tuple[Array, Array]:
    """Return a data set of scikit-learn: inputs as they are, and targets or labels."""
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return x.astype(np.float32), y


# Quadratics


@problem("quadratic", CHOSEN)
def quadratic() -> Parts:
    """Curvatures from 0.04 to 4; each sample has a minimum of its own."""
    curvatures = np.geomspace(0.04, 4.0, 30).astype(np.float32)

    def draw(rng: Rng, count: int) -> Batch:
        return (0.15 * rng.standard_normal((count, 30), np.float32),)

    def loss_and_grads(params: Params, minima: Array) -> tuple[Array, Params]:
        w, mean = params["w"], minima.mean(-2)
        squares = w * (w - 2 * mean) + (minima * minima).mean(-2)
        return 0.5 * (squares * curvatures).sum(-1), {"w": curvatures * (w - mean)}

    return Parts(lambda rng: {"w": rng.standard_normal(30)}, draw, loss_and_grads)


@problem("quadratic", HELD_OUT)
def rotated_quadratic() -> Parts:
    """Curvatures from 0.003 to 10 along random directions, with the same gradient noise in all."""
    rotation = np.linalg.qr(np.random.default_rng(7).standard_normal((20, 20)))[0]
    hessian = ((rotation * np.geomspace(0.003, 10.0, 20)) @ rotation.T).astype(np.float32)

    def draw(rng: Rng, count: int) -> Batch:
        return (rng.standard_normal((count, 20), np.float32),)

    def excess(w: Array, product: Array) -> Array:
        result: Array = 0.5 * (w * product).sum(-1) + np.float32(0.2)
        return result

    def loss_and_grads(params: Params, noise: Array) -> tuple[Array, Params]:
        w, mean = params["w"], noise.mean(-2)
        product = w @ hessian
        return excess(w, product) + (w * mean).sum(-1), {"w": product + mean}

    def evaluate(params: Params) -> Array:
        return excess(params["w"], params["w"] @ hessian)

    return Parts(lambda rng: {"w": 2.0 * rng.standard_normal(20)}, draw, loss_and_grads, evaluate)


# Linear models


@problem("linear regression", CHOSEN)
def diabetes_linear() -> Parts:
    """Diabetes, standardised inputs and target."""
    x, y = loaded("diabetes")
    targets = standardised(y[:, None])
    return supervised(Network([First(10, 1)]), squared_error, resampled(standardised(x), targets))


@problem("linear regression", HELD_OUT)
def correlated_regression() -> Parts:
    """Fifty correlated inputs with skewed distributions, like a table of counts and prices."""
    fixed = np.random.default_rng(11)
    mixing = fixed.standard_normal((12, 50)) / np.sqrt(12)
    effects = fixed.standard_normal((50, 1)) * (fixed.random((50, 1)) < 0.3)

    def draw(rng: Rng, count: int) -> Batch:
        x = rng.standard_normal((count, 12)) @ mixing + 0.2 * rng.standard_normal((count, 50))
        x[:, :20] = np.exp(x[:, :20]) - 1.6
        return x, x @ effects + 1.5 + rng.standard_normal((count, 1))

    return supervised(Network([First(50, 1)]), squared_error, draw, shrink=0.1)


@problem("softmax regression", CHOSEN)
def breast_cancer_logistic() -> Parts:
    """Breast cancer, with an L2 penalty."""
    x, y = loaded("breast_cancer")
    draw = resampled(standardised(x), one_hot(y, 2))
    return supervised(Network([First(30, 2, 0.3)]), cross_entropy, draw, penalty=0.01)


@problem("softmax regression", HELD_OUT)
def digits_softmax() -> Parts:
    """Digits with pixel noise, inputs from 0 to 1."""
    x, y = loaded("digits")
    return supervised(Network([First(64, 10, 0.1)]), cross_entropy, resampled(x / 16, one_hot(y, 10), 0.2))


# Tables


@problem("tabular regression", CHOSEN)
def friedman_1() -> Parts:
    """Friedman-1 with its usual noise, target divided by 5."""

    def draw(rng: Rng, count: int) -> Batch:
        x = rng.random((count, 10))
        y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
        return 2 * x - 1, ((y + rng.standard_normal(count) - 14.4) / 5)[:, None]

    return supervised(mlp([10, 32, 1]), squared_error, draw)


@problem("tabular regression", HELD_OUT)
def product_of_three() -> Parts:
    """The product of three of six inputs: flat until the network finds it."""

    def draw(rng: Rng, count: int) -> Batch:
        x = rng.uniform(-1.7, 1.7, (count, 6))
        return x, x[:, :3].prod(1, keepdims=True) + 0.2 * rng.standard_normal((count, 1))

    return supervised(mlp([6, 32, 16, 1], Tanh), squared_error, draw)


@problem("raw targets", CHOSEN)
def diabetes_raw_target() -> Parts:
    """Diabetes, whose target of 25 to 346 is as it comes; standardised inputs with noise."""
    x, y = loaded("diabetes")
    return supervised(mlp([10, 32, 1]), squared_error, resampled(standardised(x), y[:, None], 0.3))


@problem("raw targets", HELD_OUT)
def friedman_2_raw_target() -> Parts:
    """Friedman-2, whose target of 0 to 1,800 is as it comes; standardised inputs."""
    low, high = np.array([0.0, 40 * np.pi, 0.0, 1.0]), np.array([100.0, 560 * np.pi, 1.0, 11.0])

    def draw(rng: Rng, count: int) -> Batch:
        u = rng.random((count, 4))
        a, b, c, d = (low + u * (high - low)).T
        y = np.sqrt(a * a + (b * c - 1 / (b * d)) ** 2) + 125 * rng.standard_normal(count)
        return (u - 0.5) * np.sqrt(12), y[:, None]

    return supervised(mlp([4, 24, 1]), squared_error, draw)


@problem("tabular classification", CHOSEN)
def moons() -> Parts:
    """Two interleaved half circles with noise of 0.25."""

    def draw(rng: Rng, count: int) -> Batch:
        labels, angles = rng.integers(2, size=count), np.pi * rng.random(count)
        signs = 1 - 2 * labels
        x = np.stack([labels + signs * np.cos(angles), 0.5 * labels + signs * np.sin(angles) - 0.25], 1)
        return x + 0.25 * rng.standard_normal((count, 2)), one_hot(labels, 2)

    return supervised(mlp([2, 16, 16, 2]), cross_entropy, draw)


@problem("tabular classification", HELD_OUT)
def informative_and_redundant() -> Parts:
    """Scikit-learn's ``make_classification``: 20 inputs, 6 of them informative, 3 classes, 3 % wrong labels."""
    from sklearn.datasets import make_classification

    x, y = make_classification(
        20_000, 20, n_informative=6, n_redundant=6, n_classes=3, n_clusters_per_class=3, flip_y=0.03, random_state=4
    )
    return supervised(mlp([20, 32, 3], Tanh), cross_entropy, resampled(standardised(x), one_hot(y, 3)))


@problem("small table", CHOSEN)
def wine() -> Parts:
    """Wine, 178 rows, standardised inputs with noise."""
    x, y = loaded("wine")
    return supervised(mlp([13, 16, 3]), cross_entropy, resampled(standardised(x), one_hot(y, 3), 0.7))


@problem("small table", HELD_OUT)
def iris() -> Parts:
    """Iris, 150 rows, inputs as they are with noise."""
    x, y = loaded("iris")
    return supervised(mlp([4, 16, 3], Tanh), cross_entropy, resampled(x, one_hot(y, 3), 0.3))


@problem("badly scaled inputs", CHOSEN)
def scales_of_thirty() -> Parts:
    """Linear regression with inputs of standard deviations from 0.1 to 3."""
    scales = np.geomspace(0.1, 3.0, 12)
    effects = np.random.default_rng(3).standard_normal((12, 1))

    def draw(rng: Rng, count: int) -> Batch:
        z = rng.standard_normal((count, 12))
        return z * scales, z @ effects + 0.5 * rng.standard_normal((count, 1))

    return supervised(Network([First(12, 1)]), squared_error, draw)


@problem("badly scaled inputs", HELD_OUT)
def raw_wine() -> Parts:
    """Wine with inputs as they are, from 0.1 to 1,700, and multiplicative noise."""
    x, y = loaded("wine")
    targets = one_hot(y, 3)

    def draw(rng: Rng, count: int) -> Batch:
        rows = rng.integers(len(x), size=count)
        return x[rows] * (1 + 0.15 * rng.standard_normal((count, 13))), targets[rows]

    return supervised(mlp([13, 16, 3]), cross_entropy, draw)


@problem("label noise", CHOSEN)
def flipped_labels() -> Parts:
    """Two Gaussian clusters in 20 dimensions with 30 % wrong labels."""
    center = np.random.default_rng(5).standard_normal(20) / 3

    def draw(rng: Rng, count: int) -> Batch:
        labels = rng.integers(2, size=count)
        x = rng.standard_normal((count, 20)) + (2 * labels - 1)[:, None] * center
        return x, one_hot(np.where(rng.random(count) < 0.3, 1 - labels, labels), 2)

    return supervised(mlp([20, 32, 2]), cross_entropy, draw)


@problem("label noise", HELD_OUT)
def heavy_tailed_targets() -> Parts:
    """Regression on a sine of a projection, with noise of Student's t with 3 degrees of freedom."""
    direction = np.random.default_rng(6).standard_normal(8) / 2

    def draw(rng: Rng, count: int) -> Batch:
        x = rng.standard_normal((count, 8))
        return x, (2 * np.sin(x @ direction) + rng.standard_t(3, count))[:, None]

    return supervised(mlp([8, 32, 1]), squared_error, draw)


# Images and text


@problem("digits", CHOSEN)
def digits_mlp() -> Parts:
    """Digits with pixel noise."""
    x, y = loaded("digits")
    return supervised(mlp([64, 32, 10]), cross_entropy, resampled(x / 16, one_hot(y, 10), 0.3))


@problem("digits", HELD_OUT)
def digits_autoencoder() -> Parts:
    """Digits through a bottleneck of 12, standardised by the mean scale of all pixels."""
    x, _ = loaded("digits")
    images = (x - x.mean(0)) / x.std()
    return supervised(mlp([64, 12, 64], Tanh), squared_error, resampled(images, images))


def patches(images: Array, size: int, stride: int) -> Array:
    """Return the patches of images padded with a row of zeros: ``(count, positions, size²)``."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    return np.ascontiguousarray(windows.reshape(len(images), -1, size * size))


@problem("convolution", CHOSEN)
def digits_convolution() -> Parts:
    """Digits with pixel noise: eight 3 × 3 filters at every second pixel, then a dense layer."""
    x, y = loaded("digits")
    images, labels = x.reshape(-1, 8, 8) / 16, one_hot(y, 10)

    def draw(rng: Rng, count: int) -> Batch:
        rows = rng.integers(len(images), size=count)
        noisy = images[rows] + 0.2 * rng.standard_normal((count, 8, 8), np.float32)
        return patches(noisy, 3, 2), labels[rows]

    return supervised(Network([Shared(9, 8, 2.0), Relu(), Dense(128, 10)]), cross_entropy, draw)


@problem("convolution", HELD_OUT)
def waveforms() -> Parts:
    """Which of four short waves is hidden in a noisy signal: filters of width 6, and their mean over positions."""
    waves = np.random.default_rng(8).standard_normal((4, 6))

    def draw(rng: Rng, count: int) -> Batch:
        labels, places = rng.integers(4, size=count), rng.integers(11, size=count)
        signal = rng.standard_normal((count, 16))
        signal[np.arange(count)[:, None], places[:, None] + np.arange(6)] += 1.5 * waves[labels]
        return np.lib.stride_tricks.sliding_window_view(signal, 6, axis=1), one_hot(labels, 4)

    network = Network([Shared(6, 8, 2.0), Relu(), MeanOverPositions(11), Dense(8, 4)])
    return supervised(network, cross_entropy, draw)


def text_windows(text: str, context: int) -> tuple[Array, int]:
    """Return windows of ``context + 1`` letters as numbers from 0 to 26, where 0 is all that is not a letter."""
    codes = np.frombuffer(text.lower().encode("ascii", "replace"), np.uint8).astype(int) - 96
    codes = np.where((codes >= 1) & (codes <= 26), codes, 0)
    codes = codes[np.concatenate([[True], (codes[1:] != 0) | (codes[:-1] != 0)])]
    return np.lib.stride_tricks.sliding_window_view(codes, context + 1), 27


def next_letter(text: str, context: int, network: Network) -> Parts:
    windows, count = text_windows(text, context)

    def draw(rng: Rng, size: int) -> Batch:
        rows = windows[rng.integers(len(windows), size=size)]
        return one_hot(rows[:, :-1], count), one_hot(rows[:, -1], count)

    return supervised(network, cross_entropy, draw)


@problem("characters", CHOSEN)
def manual_letters() -> Parts:
    """The next letter of Python's manual, from the four before: an embedding and a hidden layer."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))[:200_000]
    return next_letter(text, 4, Network([Shared(27, 6), Dense(24, 32), Tanh(), Dense(32, 27)]))


@problem("characters", HELD_OUT)
def description_letters() -> Parts:
    """The next letter of scikit-learn's descriptions of its data sets, from the two before: a log-bilinear model."""
    from sklearn import datasets

    names = ("breast_cancer", "diabetes", "digits", "iris", "linnerud", "wine")
    text = "\n".join(getattr(datasets, f"load_{name}")().DESCR for name in names)
    return next_letter(text, 2, Network([Shared(27, 10), Dense(20, 27)]))


# Embeddings and factors


@problem("embedding", CHOSEN)
def categories() -> Parts:
    """Four categorical columns of 12 levels, with interactions, and a binary target."""
    fixed = np.random.default_rng(9)
    single, pairs = fixed.standard_normal((4, 12)), fixed.standard_normal((12, 12))
    weights = 1 / np.arange(1, 13)

    def draw(rng: Rng, count: int) -> Batch:
        levels = rng.choice(12, size=(count, 4), p=weights / weights.sum())
        score = single[np.arange(4), levels].sum(1) + 2 * pairs[levels[:, 0], levels[:, 1]]
        labels = (rng.random(count) < 1 / (1 + np.exp(-score))).astype(int)
        return one_hot(levels, 12), one_hot(labels, 2)

    return supervised(Network([Shared(12, 4), Dense(16, 16, 2.0), Relu(), Dense(16, 2)]), cross_entropy, draw)


@problem("embedding", HELD_OUT)
def skip_gram() -> Parts:
    """A word's neighbour, from a vocabulary of 60 words of very different frequencies, in five topics."""
    fixed = np.random.default_rng(10)
    topics = fixed.dirichlet(np.full(60, 0.2), size=5) + 0.3 / np.arange(1, 61)
    cumulative = np.cumsum(topics / topics.sum(1, keepdims=True), axis=1)

    def draw(rng: Rng, count: int) -> Batch:
        chosen = cumulative[rng.integers(5, size=count)]
        words = [(rng.random((count, 1)) > chosen[:, :-1]).sum(1) for _ in range(2)]
        return one_hot(words[0], 60), one_hot(words[1], 60)

    return supervised(Network([First(60, 8, 6.0), Dense(8, 60)]), cross_entropy, draw)


def factorisation(loss: Loss, ratings: Callable[[Rng, Array, Array], Array], scale: float, rank: int = 4) -> Parts:
    """A matrix of 40 × 30 as the product of two factors plus biases, from single entries."""
    users, items = 40, 30

    def draw(rng: Rng, count: int) -> Batch:
        i, j = rng.integers(users, size=count), rng.integers(items, size=count)
        return one_hot(i, users), one_hot(j, items), ratings(rng, i, j)[:, None]

    def init(rng: Rng) -> Params:
        # The last column of each factor is its bias.
        u, v = scale * rng.standard_normal((users, rank + 1)), scale * rng.standard_normal((items, rank + 1))
        u[:, -1] = v[:, -1] = 0.0
        return {"u": u, "v": v}

    def loss_and_grads(params: Params, i: Array, j: Array, targets: Array) -> tuple[Array, Params]:
        u, v = i @ params["u"], j @ params["v"]
        outputs = (u[..., :-1] * v[..., :-1]).sum(-1) + u[..., -1] + v[..., -1]
        value, d = loss(outputs[..., None], targets)
        by_u, by_v = d * v, d * u
        by_u[..., -1:] = by_v[..., -1:] = d
        return value, {"u": transposed(i) @ by_u, "v": transposed(j) @ by_v}

    return Parts(init, float32s(draw), loss_and_grads)


@problem("matrix factorisation", CHOSEN)
def ratings() -> Parts:
    """Ratings of rank 3 with noise, around 0."""
    fixed = np.random.default_rng(12)
    matrix = fixed.standard_normal((40, 3)) @ fixed.standard_normal((3, 30)) / 1.7

    def rated(rng: Rng, i: Array, j: Array) -> Array:
        return matrix[i, j] + 0.4 * rng.standard_normal(len(i))

    return factorisation(squared_error, rated, 0.3)


@problem("matrix factorisation", HELD_OUT)
def likes() -> Parts:
    """Whether a user likes an item: a logistic model from small initial factors."""
    fixed = np.random.default_rng(13)
    matrix = 1.5 * fixed.standard_normal((40, 2)) @ fixed.standard_normal((2, 30)) + fixed.standard_normal(30)

    def liked(rng: Rng, i: Array, j: Array) -> Array:
        return (rng.random(len(i)) < 1 / (1 + np.exp(-matrix[i, j]))).astype(np.float32)

    return factorisation(logistic_loss, liked, 0.1)


# Deep narrow networks


@problem("deep and narrow", CHOSEN)
def spirals() -> Parts:
    """Two noisy spirals, through six layers of ten tanh units."""

    def draw(rng: Rng, count: int) -> Batch:
        labels, radii = rng.integers(2, size=count), np.sqrt(rng.random(count))
        angles = 1.5 * np.pi * radii + np.pi * labels
        x = 2 * radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        return x + 0.25 * rng.standard_normal((count, 2)), one_hot(labels, 2)

    return supervised(mlp([2, *[10] * 6, 2], Tanh), cross_entropy, draw)


@problem("deep and narrow", HELD_OUT)
def deep_sine() -> Parts:
    """A sine of a sum of three inputs, through six layers of sixteen ReLUs."""

    def draw(rng: Rng, count: int) -> Batch:
        x = rng.uniform(-1, 1, (count, 3))
        return x, np.sin(1.8 * x.sum(1, keepdims=True)) + 0.4 * rng.standard_normal((count, 1))

    return supervised(mlp([3, *[16] * 6, 1]), squared_error, draw)


# Reinforcement learning: losses are costs from 0 to 1, so that their ratios have a meaning.


def sampled(probabilities: Array, uniform: Array) -> Array:
    """Return the index that each uniform number draws: ``(…, batch)``."""
    found: Array = (uniform[..., None] > np.cumsum(probabilities, -1)[..., :-1]).sum(-1)
    return found


@problem("reinforcement learning", CHOSEN)
def bandit_policy_gradient() -> Parts:
    """A contextual bandit of four arms: REINFORCE with a constant baseline."""
    network = mlp([6, 16, 4], Tanh)
    preferences = np.random.default_rng(14).standard_normal((6, 4)).astype(np.float32)

    def costs(x: Array) -> Array:
        return 0.5 - 0.5 * np.tanh(x @ preferences)

    def draw(rng: Rng, count: int) -> Batch:
        return rng.standard_normal((count, 6), np.float32), rng.random(count, np.float32)

    def loss_and_grads(params: Params, x: Array, uniform: Array) -> tuple[Array, Params]:
        values = network.forward(params, x)
        probabilities, _ = softmax(values[-1])
        actions = one_hot(sampled(probabilities, uniform), 4)
        paid = (costs(x) * actions).sum(-1, keepdims=True)
        d = (paid - np.float32(0.5)) * (actions - probabilities) / np.float32(x.shape[-2])
        return paid.mean((-1, -2)), network.backward(params, values, d)

    batch, _ = draw(np.random.default_rng(20), EVALUATED)

    def evaluate(params: Params) -> Array:
        expected: Array = (softmax(network.forward(params, batch)[-1])[0] * costs(batch)).sum(-1).mean(-1)
        return expected

    return Parts(network.init, draw, loss_and_grads, evaluate)


@problem("reinforcement learning", HELD_OUT)
def actor_critic() -> Parts:
    """A random decision process of 20 states and 3 actions: one-step advantages, an entropy bonus, a shared layer.

    The loss of a batch is the usual sum of policy, value and entropy losses. The figure of a run is the expected
    discounted cost of its policy, from 0 to 1.
    """
    states, choices, discount, bonus = 20, 3, 0.8, 0.01
    fixed = np.random.default_rng(15)
    features = fixed.standard_normal((states, 8)).astype(np.float32)
    following = fixed.integers(states, size=(states, choices, 2))
    rewards = (fixed.random((states, choices)) ** 3).astype(np.float32)
    network = Network([First(8, 24), Tanh(), Dense(24, choices + 1, 0.1)])
    transitions = np.stack([one_hot(following[:, action], states).mean(1) for action in range(choices)], 1)

    def draw(rng: Rng, count: int) -> Batch:
        state = rng.integers(states, size=count)
        return state, rng.random(count, np.float32), rng.integers(2, size=count)

    def loss_and_grads(params: Params, state: Array, uniform: Array, branch: Array) -> tuple[Array, Params]:
        values = network.forward(params, features[state])
        probabilities, logarithms = softmax(values[-1][..., :-1])
        action = sampled(probabilities, uniform)
        actions = one_hot(action, choices)
        after = network.forward(params, features[following[state, action, branch]])[-1][..., -1]
        delta = rewards[state, action] + np.float32(discount) * after - values[-1][..., -1]
        entropy = -(probabilities * logarithms).sum(-1)
        losses = 0.5 * delta * delta - delta * (actions * logarithms).sum(-1) - np.float32(bonus) * entropy
        by_logits = -delta[..., None] * (actions - probabilities)
        by_logits += np.float32(bonus) * probabilities * (logarithms + entropy[..., None])
        d = np.concatenate([by_logits, -delta[..., None]], -1) / np.float32(state.shape[-1])
        return losses.mean(-1), network.backward(params, values, d)

    def evaluate(params: Params) -> Array:
        policy = softmax(network.forward(params, features)[-1][..., :-1])[0].astype(np.float64)
        moves = np.einsum("...sa,sat->...st", policy, transitions)
        gains = (policy * rewards).sum(-1)[..., None]
        worth = np.linalg.solve(np.eye(states) - discount * moves, gains)[..., 0]
        result: Array = 1 - (1 - discount) * worth.mean(-1)
        return result

    return Parts(network.init, draw, loss_and_grads, evaluate)
