"""Train a small network on handwritten digits with each optimizer of lrcore, and with the same step in NumPy.

The network and its gradients are plain NumPy, and both runs start from the same weights and use the same batches, so
they differ only in the optimizer. Prints a table of accuracies and of the time in the optimizer, and draws the losses.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import lrcore
from lrcore import schedules

Array = NDArray[np.float32]
Labels = NDArray[np.int64]
Params = dict[str, Array]

LAYERS = (64, 512, 128, 10)
BATCH = 64
WARMUP_SHARE = 0.1

MOMENTUM = 0.9
BETA1, BETA2 = 0.9, 0.999
ALPHA = 0.99
EPS = 1e-8
ADAGRAD_EPS = 1e-10
WEIGHT_DECAY = 0.01


# The data and the network


@dataclass(frozen=True)
class Data:
    """Images of 8 × 8 pixels in [0, 1], one per row, and their digits."""

    train_x: Array
    train_y: Labels
    test_x: Array
    test_y: Labels


def load_data(seed: int) -> Data:
    """Load the digits; a fifth of them are test data."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    split = train_test_split(images, labels, test_size=0.2, random_state=seed, stratify=labels)
    train_x, test_x, train_y, test_y = split
    return Data(train_x, train_y, test_x, test_y)


def initial_params(rng: np.random.Generator) -> Params:
    """Draw weights with He initialization."""
    params: Params = {}
    for layer, (fan_in, fan_out) in enumerate(pairwise(LAYERS), start=1):
        scale = np.float32(math.sqrt(2 / fan_in))
        params[f"w{layer}"] = scale * rng.standard_normal((fan_in, fan_out), dtype=np.float32)
        params[f"b{layer}"] = np.zeros(fan_out, dtype=np.float32)
    return params


def forward(params: Params, x: Array) -> tuple[Array, Array, Array]:
    """Return both hidden layers and the logits."""
    hidden1 = np.maximum(x @ params["w1"] + params["b1"], 0)
    hidden2 = np.maximum(hidden1 @ params["w2"] + params["b2"], 0)
    return hidden1, hidden2, hidden2 @ params["w3"] + params["b3"]


def log_probabilities(logits: Array) -> Array:
    """Return the log-softmax; the maximum is subtracted first to avoid overflow."""
    shifted: Array = logits - logits.max(axis=1, keepdims=True)
    normalizer: Array = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted - normalizer


def cross_entropy(log_p: Array, y: Labels) -> float:
    """Return the mean loss."""
    return -float(log_p[np.arange(len(y)), y].mean())


def loss_and_grads(params: Params, x: Array, y: Labels) -> tuple[float, Params]:
    """Return the mean loss of a batch and its gradients."""
    hidden1, hidden2, logits = forward(params, x)
    log_p = log_probabilities(logits)

    d_logits = np.exp(log_p)
    d_logits[np.arange(len(y)), y] -= 1
    d_logits /= np.float32(len(y))
    d_hidden2 = (d_logits @ params["w3"].T) * (hidden2 > 0)
    d_hidden1 = (d_hidden2 @ params["w2"].T) * (hidden1 > 0)

    grads = {
        "w1": x.T @ d_hidden1,
        "b1": d_hidden1.sum(axis=0),
        "w2": hidden1.T @ d_hidden2,
        "b2": d_hidden2.sum(axis=0),
        "w3": hidden2.T @ d_logits,
        "b3": d_logits.sum(axis=0),
    }
    return cross_entropy(log_p, y), grads


# The same steps in NumPy, with scalars computed first.

Rule = Callable[[Array, Array, tuple[Array, Array], float, int], None]


def numpy_sgd(weight: Array, grad: Array, state: tuple[Array, Array], lr: float, t: int) -> None:
    """Step once with momentum, in place."""
    del t
    buffer, _ = state
    buffer *= MOMENTUM
    buffer += grad
    weight -= lr * buffer


def numpy_adam(weight: Array, grad: Array, state: tuple[Array, Array], lr: float, t: int) -> None:
    """Step once with Adam, in place."""
    mean, square = state
    mean += (1 - BETA1) * (grad - mean)
    square *= BETA2
    square += (1 - BETA2) * grad * grad
    step_size = lr / (1 - BETA1**t)
    unbias = 1 / math.sqrt(1 - BETA2**t)
    weight -= step_size * mean / (np.sqrt(square) * unbias + EPS)


def numpy_adamw(weight: Array, grad: Array, state: tuple[Array, Array], lr: float, t: int) -> None:
    """Step once with AdamW, in place."""
    weight *= 1 - lr * WEIGHT_DECAY
    numpy_adam(weight, grad, state, lr, t)


def numpy_rmsprop(weight: Array, grad: Array, state: tuple[Array, Array], lr: float, t: int) -> None:
    """Step once with RMSprop, in place."""
    del t
    square, _ = state
    square *= ALPHA
    square += (1 - ALPHA) * grad * grad
    weight -= lr * grad / (np.sqrt(square) + EPS)


def numpy_adagrad(weight: Array, grad: Array, state: tuple[Array, Array], lr: float, t: int) -> None:
    """Step once with Adagrad, in place."""
    del t
    total, _ = state
    total += grad * grad
    weight -= lr * grad / (np.sqrt(total) + ADAGRAD_EPS)


class NumpyOptimizer:
    """One of the rules above for all parameters."""

    def __init__(self, params: Params, lr: schedules.Schedule, rule: Rule) -> None:
        self.params = params
        self.lr = lr
        self.rule = rule
        self.steps = 0
        self.state = {name: (np.zeros_like(weight), np.zeros_like(weight)) for name, weight in params.items()}

    def step(self, grads: Params) -> None:
        """Update every parameter."""
        lr = self.lr(self.steps)
        self.steps += 1
        for name, weight in self.params.items():
            self.rule(weight, grads[name], self.state[name], lr, self.steps)


# The comparison


@dataclass(frozen=True)
class Recipe:
    """An optimizer, the peak learning rate of its schedule, and the same rule in NumPy."""

    name: str
    peak: float
    make: Callable[[Params, schedules.Schedule], lrcore.Optimizer]
    rule: Rule


RECIPES = (
    Recipe("SGD", 0.1, lambda params, lr: lrcore.SGD(params, lr, momentum=MOMENTUM), numpy_sgd),
    Recipe("Adam", 2e-3, lambda params, lr: lrcore.Adam(params, lr, (BETA1, BETA2), EPS), numpy_adam),
    Recipe("AdamW", 4e-3, lambda params, lr: lrcore.AdamW(params, lr, (BETA1, BETA2), EPS, WEIGHT_DECAY), numpy_adamw),
    Recipe("RMSprop", 1e-3, lambda params, lr: lrcore.RMSprop(params, lr, ALPHA, EPS), numpy_rmsprop),
    Recipe("Adagrad", 2e-2, lambda params, lr: lrcore.Adagrad(params, lr, eps=ADAGRAD_EPS), numpy_adagrad),
)


@dataclass(frozen=True)
class Run:
    """The results of a run."""

    params: Params
    losses: list[float]
    final_loss: float
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """The same run with lrcore and with NumPy."""

    recipe: Recipe
    schedule: schedules.Schedule
    fused: Run
    plain: Run

    @property
    def largest_difference(self) -> float:
        """The largest difference between weights of the two runs."""
        pairs = zip(self.fused.params.values(), self.plain.params.values(), strict=True)
        return max(float(np.abs(a - b).max()) for a, b in pairs)


def draw_batches(rng: np.random.Generator, count: int, epochs: int) -> list[Labels]:
    """Shuffle the rows for each epoch and cut them into batches; the remainder is dropped."""
    whole = count // BATCH * BATCH
    return [batch for _ in range(epochs) for batch in rng.permutation(count)[:whole].reshape(-1, BATCH)]


def train(
    params: Params,
    optimizer: lrcore.Optimizer | NumpyOptimizer,
    data: Data,
    batches: Sequence[Labels],
    bar: tqdm,
) -> Run:
    """Train on the batches and measure the time in the optimizer."""
    losses = []
    seconds = 0.0
    for batch in batches:
        loss, grads = loss_and_grads(params, data.train_x[batch], data.train_y[batch])
        start = time.perf_counter()
        optimizer.step(grads)
        seconds += time.perf_counter() - start
        losses.append(loss)
        bar.update()
    *_, train_logits = forward(params, data.train_x)
    *_, test_logits = forward(params, data.test_x)
    final_loss = cross_entropy(log_probabilities(train_logits), data.train_y)
    accuracy = float((test_logits.argmax(axis=1) == data.test_y).mean())
    return Run(params, losses, final_loss, accuracy, seconds)


def compare(recipe: Recipe, start: Params, data: Data, batches: Sequence[Labels], bar: tqdm) -> Comparison:
    """Train twice from the same start, with lrcore and with NumPy."""
    steps = len(batches)
    schedule = schedules.Cosine(recipe.peak, steps=steps).warmup(round(WARMUP_SHARE * steps))

    bar.set_description(f"{recipe.name}, lrcore")
    params = {name: weight.copy() for name, weight in start.items()}
    fused = train(params, recipe.make(params, schedule), data, batches, bar)

    bar.set_description(f"{recipe.name}, NumPy")
    params = {name: weight.copy() for name, weight in start.items()}
    plain = train(params, NumpyOptimizer(params, schedule, recipe.rule), data, batches, bar)
    return Comparison(recipe, schedule, fused, plain)


# Output


def print_table(comparisons: Sequence[Comparison]) -> None:
    """Print accuracies, losses and the time in the optimizer."""
    sides = f"{'lrcore':>10}{'NumPy':>10}"
    print(f"{'':8} │{'test accuracy':^26} │{'final loss':^20} │{'ms in the optimizer':^27} │{'weights':^10}")
    print(f"{'':8} │{sides}{'same':>6} │{sides} │{sides}{'ratio':>7} │{'differ by':>10}")
    for c in comparisons:
        fused, plain = c.fused, c.plain
        same = "yes" if fused.accuracy == plain.accuracy else "NO"
        print(
            f"{c.recipe.name:8} │{fused.accuracy:>10.2%}{plain.accuracy:>10.2%}{same:>6}"
            f" │{fused.final_loss:>10.5f}{plain.final_loss:>10.5f}"
            f" │{1e3 * fused.seconds:>10.1f}{1e3 * plain.seconds:>10.1f}{fused.seconds / plain.seconds:>7.2f}"
            f" │{c.largest_difference:>10.1g}"
        )


def by_window(losses: Sequence[float], window: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the middle step of each window, and its mean loss."""
    means: NDArray[np.float64] = np.reshape(losses, (-1, window)).mean(axis=1)
    steps = (np.arange(len(means), dtype=np.float64) + 0.5) * window
    return steps, means


def plot(comparisons: Sequence[Comparison], steps_per_epoch: int, path: Path) -> None:
    """Draw the losses and the learning rates over the steps."""
    figure = Figure(figsize=(9, 7.5), layout="constrained")
    losses, lrs = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for i, c in enumerate(comparisons):
        steps, means = by_window(c.fused.losses, steps_per_epoch)
        losses.plot(steps, means, color=f"C{i}", linewidth=2.5, alpha=0.7, label=c.recipe.name)
        steps, means = by_window(c.plain.losses, steps_per_epoch)
        label = "the same step in NumPy" if c is comparisons[-1] else None
        losses.plot(steps, means, color="black", linewidth=0.8, linestyle=(0, (1, 3)), label=label)
        values = [c.schedule(step) for step in range(len(c.fused.losses))]
        lrs.plot(values, color=f"C{i}", linewidth=2, label=f"{c.recipe.name}, peak {c.recipe.peak:g}")

    losses.set(
        yscale="log", ylabel="training loss, mean of an epoch", title="A network of three layers on handwritten digits"
    )
    lrs.set(yscale="log", ylabel="learning rate", xlabel="step")
    # A cosine ends at 0, which a logarithmic axis cannot show.
    lrs.set_ylim(bottom=min(c.recipe.peak for c in comparisons) / 100)
    losses.legend(loc="upper right")
    lrs.legend(loc="lower center", ncols=2, fontsize="small")
    for axes in (losses, lrs):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20, help="passes over the training data (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("demo.png"), help="the plot (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.epochs < 1:
        parser.error(f"--epochs must be at least 1, got {arguments.epochs}")
    if not arguments.output.parent.is_dir():
        parser.error(f"--output must be in an existing folder, got {arguments.output}")
    return arguments


def main() -> None:
    """Compare all optimizers, print the table and draw the plot."""
    arguments = parse_arguments()
    rng = np.random.default_rng(arguments.seed)
    data = load_data(arguments.seed)
    start = initial_params(rng)
    batches = draw_batches(rng, len(data.train_y), arguments.epochs)

    weights = sum(weight.size for weight in start.values())
    print(f"{weights:,} weights, {len(data.train_y):,} images; for each optimizer {len(batches):,} steps, twice")
    # The matrices are too small for BLAS threads, which would disturb the timing while they spin.
    with threadpool_limits(1, user_api="blas"), tqdm(total=2 * len(RECIPES) * len(batches), unit=" steps") as bar:
        comparisons = [compare(recipe, start, data, batches, bar) for recipe in RECIPES]
    print_table(comparisons)
    plot(comparisons, len(batches) // arguments.epochs, arguments.output)
    print(f"The curves are in {arguments.output}.")


if __name__ == "__main__":
    main()
