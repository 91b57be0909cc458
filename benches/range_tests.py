"""Does the recommended learning rate train as well as the best of a grid? `python benches/range_tests.py`.

Each problem is trained with a cosine schedule, once from the recommended learning rate and once from each of a grid of
twelve. A recommendation is good if it comes within 1 % of the best accuracy, or within 5 % of the best loss.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import lrcore
from lrcore import schedules

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

import digits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Array = np.ndarray[Any, Any]
GRID = np.geomspace(3e-5, 3.0, 12)
OPTIMIZERS: dict[str, Callable[..., lrcore.Optimizer]] = {
    "SGD momentum": lambda params, lr: lrcore.SGD(params, lr=lr, momentum=0.9),
    "AdamW": lambda params, lr: lrcore.AdamW(params, lr=lr),
}


@dataclass
class Problem:
    """Parameters, gradients, batches, and the test metric after ``steps`` steps."""

    params: Any
    loss_and_grads: Callable[..., tuple[float, Any]]
    batches: Callable[[np.random.Generator], Iterator[tuple[Any, ...]]]
    measure: Callable[[Any], float]
    steps: int
    is_loss: bool


def drawn(data: tuple[Array, ...], size: int) -> Callable[[np.random.Generator], Iterator[tuple[Any, ...]]]:
    def batches(rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
        while True:
            chosen = rng.integers(len(data[0]), size=size)
            yield tuple(part[chosen] for part in data)

    return batches


def digits_mlp(seed: int) -> Problem:
    data = digits.load_data(seed)
    params = digits.initial_params(np.random.default_rng(seed))

    def accuracy(params: Any) -> float:
        return float(np.mean(digits.forward(params, data.test_x)[2].argmax(axis=1) == data.test_y))

    batches = drawn((data.train_x, data.train_y), 64)
    return Problem(params, digits.loss_and_grads, batches, accuracy, 1000, is_loss=False)


def quadratic(seed: int) -> Problem:
    """A quadratic of curvatures from 0.04 to 4 with noisy gradients."""
    rng = np.random.default_rng(seed)
    curvatures = np.geomspace(0.04, 4.0, 30)
    params = {"w": rng.standard_normal(30)}

    def loss_and_grads(params: Any, noise: Array) -> tuple[float, Any]:
        grads = curvatures * params["w"] + noise
        return 0.5 * float(curvatures @ params["w"] ** 2 + 2 * noise @ params["w"]), {"w": grads}

    def batches(rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
        while True:
            yield (0.1 * rng.standard_normal(30),)

    def loss(params: Any) -> float:
        # 0.05 is the loss that the noise leaves.
        return 0.05 + 0.5 * float(curvatures @ params["w"] ** 2)

    return Problem(params, loss_and_grads, batches, loss, 1000, is_loss=True)


def characters(seed: int) -> Problem:
    """The next character of Python's manual, from the eight before."""
    from pydoc_data.topics import topics

    text = "\n".join(topics.values()).encode("ascii", "replace")[:200_000]
    symbols, codes = np.unique(np.frombuffer(text, np.uint8), return_inverse=True)
    count, context, width, hidden = len(symbols), 8, 12, 64
    rng = np.random.default_rng(seed)
    params = {
        "embedding": rng.standard_normal((count, width), np.float32),
        "w1": rng.standard_normal((context * width, hidden), np.float32) / np.float32(np.sqrt(context * width)),
        "b1": np.zeros(hidden, np.float32),
        "w2": rng.standard_normal((hidden, count), np.float32) / np.float32(np.sqrt(hidden)),
        "b2": np.zeros(count, np.float32),
    }
    windows = np.lib.stride_tricks.sliding_window_view(codes, context + 1)
    x, y = windows[:-5000, :-1], windows[:-5000, -1]
    test_x, test_y = windows[-2000:, :-1], windows[-2000:, -1]

    def forward(params: Any, x: Array) -> tuple[Array, Array, Array]:
        embedded = params["embedding"][x].reshape(len(x), -1)
        middle = np.tanh(embedded @ params["w1"] + params["b1"])
        return embedded, middle, digits.log_probabilities(middle @ params["w2"] + params["b2"])

    def loss_and_grads(params: Any, x: Array, y: Array) -> tuple[float, Any]:
        embedded, middle, log_p = forward(params, x)
        d_logits = np.exp(log_p)
        d_logits[np.arange(len(y)), y] -= 1
        d_logits /= np.float32(len(y))
        d_middle = (d_logits @ params["w2"].T) * (1 - middle * middle)
        d_embedding = np.zeros_like(params["embedding"])
        np.add.at(d_embedding, x, (d_middle @ params["w1"].T).reshape(*x.shape, width))
        grads = {"embedding": d_embedding, "w1": embedded.T @ d_middle, "b1": d_middle.sum(axis=0)}
        grads |= {"w2": middle.T @ d_logits, "b2": d_logits.sum(axis=0)}
        return digits.cross_entropy(log_p, y), grads

    def loss(params: Any) -> float:
        return digits.cross_entropy(forward(params, test_x)[2], test_y)

    return Problem(params, loss_and_grads, drawn((x, y), 64), loss, 4000, is_loss=True)


def logistic_regression(seed: int) -> Problem:
    """Breast cancer from 30 measurements of 569 patients; the metric is the loss on all, with an L2 penalty."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)
    params = {"w": 0.1 * np.random.default_rng(seed).standard_normal((30, 2), np.float32), "b": np.zeros(2, np.float32)}
    penalty = np.float32(0.01)

    def loss_and_grads(params: Any, x: Array, y: Array) -> tuple[float, Any]:
        log_p = digits.log_probabilities(x @ params["w"] + params["b"])
        d_logits = np.exp(log_p)
        d_logits[np.arange(len(y)), y] -= 1
        d_logits /= np.float32(len(y))
        loss = digits.cross_entropy(log_p, y) + 0.5 * float(penalty) * float((params["w"] ** 2).sum())
        return loss, {"w": x.T @ d_logits + penalty * params["w"], "b": d_logits.sum(axis=0)}

    def loss(params: Any) -> float:
        return loss_and_grads(params, x, y)[0]

    return Problem(params, loss_and_grads, drawn((x, y), 32), loss, 600, is_loss=True)


def convolutions(seed: int) -> Problem:
    """A small convolutional network on digits, in PyTorch, whose weights lrcore updates in place."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    data = digits.load_data(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    named = dict(model.named_parameters())
    images = {"train": torch.from_numpy(data.train_x), "test": torch.from_numpy(data.test_x)}
    labels = torch.from_numpy(data.train_y)

    def loss_and_grads(_: Any, chosen: Array) -> tuple[float, Any]:
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(images["train"][chosen].view(-1, 1, 8, 8)), labels[chosen])
        loss.backward()
        return float(loss.detach()), {name: parameter.grad.numpy() for name, parameter in named.items()}

    def accuracy(_: Any) -> float:
        with torch.no_grad():
            return float(np.mean(model(images["test"].view(-1, 1, 8, 8)).argmax(1).numpy() == data.test_y))

    params = {name: parameter.detach().numpy() for name, parameter in named.items()}
    batches = drawn((np.arange(len(data.train_x)),), 64)
    return Problem(params, loss_and_grads, batches, accuracy, 800, is_loss=False)


PROBLEMS = {
    "digits MLP": digits_mlp,
    "quadratic": quadratic,
    "characters": characters,
    "logistic regression": logistic_regression,
    "convolutions (torch)": convolutions,
}


def trained(problem: Problem, start: dict[str, Array], make: Callable[..., Any], lr: float, seed: int) -> float:
    """Train from the start and return the metric."""
    for name, array in problem.params.items():
        array[...] = start[name]
    opt = make(problem.params, schedules.Cosine(lr, problem.steps))
    batches = problem.batches(np.random.default_rng(1000 + seed))
    with np.errstate(all="ignore"):
        for _ in range(problem.steps):
            loss, grads = problem.loss_and_grads(problem.params, *next(batches))
            if not np.isfinite(loss):
                return np.inf if problem.is_loss else 0.0
            opt.step(grads)
        found = problem.measure(problem.params)
    return found if np.isfinite(found) else (np.inf if problem.is_loss else 0.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="the number of seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--problems", nargs="*", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--all", action="store_true", help="also train at each suggestion")
    options = parser.parse_args()
    print(f"{'problem':21} {'optimizer':13} seed {'lr':>9} {'best lr':>9}   {'metric':>8} {'best':>8}   good")
    total: dict[tuple[str, str], int] = {}
    for name in options.problems:
        for optimizer, make in OPTIMIZERS.items():
            for seed in range(options.first, options.first + options.seeds):
                good = one(name, optimizer, make, seed, every=options.all)
                total[name, optimizer] = total.get((name, optimizer), 0) + good
    print()
    for (name, optimizer), good in total.items():
        print(f"{name:21} {optimizer:13} {good} of {options.seeds}")
    return 0


def one(name: str, optimizer: str, make: Callable[..., Any], seed: int, *, every: bool) -> bool:
    """Test one seed of a problem, print the result, and return whether the recommendation is good."""
    problem = PROBLEMS[name](seed)
    start = {key: array.copy() for key, array in problem.params.items()}
    batches = problem.batches(np.random.default_rng(seed))
    opt = make(problem.params, 1e-3)
    with np.errstate(all="ignore"):
        result = lrcore.find_lr(opt, problem.loss_and_grads, batches, start=1e-6, repeats=3, progress=False)
    changed = sum(int((array != start[key]).sum()) for key, array in problem.params.items())
    recommended = result.suggest()
    at_grid = {lr: trained(problem, start, make, float(lr), seed) for lr in GRID}
    best_lr = (min if problem.is_loss else max)(at_grid, key=at_grid.__getitem__)
    best = at_grid[best_lr]

    def is_good(value: float) -> bool:
        return value <= 1.05 * best if problem.is_loss else value >= best - 0.01

    value = np.nan if recommended.lr is None else trained(problem, start, make, recommended.lr, seed)
    good = recommended.lr is not None and is_good(value)
    lr = "none" if recommended.lr is None else f"{recommended.lr:.2e}"
    print(
        f"{name:21} {optimizer:13} {seed:4} {lr:>9} {best_lr:9.2e}   {value:8.4f} {best:8.4f}   "
        f"{'yes' if good else 'no':4} {recommended.confidence if good else recommended}"
        f"{f'   {changed} WEIGHTS CHANGED' if changed else ''}",
        flush=True,
    )
    if every:
        within = [f"{lr:.1e}" for lr, value in at_grid.items() if is_good(value)]
        print(f"    good on the grid: {' '.join(within)}")
        for one in result.suggestions.values():
            value = trained(problem, start, make, one.lr, seed)
            print(f"    {one.name:13} {one.lr:9.2e} {value:8.4f} {'yes' if is_good(value) else 'no'}")
    return good


if __name__ == "__main__":
    sys.exit(main())
