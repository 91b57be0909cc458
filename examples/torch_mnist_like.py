"""A small PyTorch CNN on handwritten digits, trained with PyTorch's AdamW and with lrcore's.

One line differs. The runs take turns, epoch by epoch in alternating order, so that other programs disturb all of them
alike. Prints the accuracy of each and the median time of its steps, and half way the accuracy of the average of the
weights.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split
from tqdm import tqdm

import lrcore.torch
from lrcore import schedules

DECAY = 0.01
Make = Callable[[Iterator[nn.Parameter], float], torch.optim.Optimizer]

# The only change.
OPTIMIZERS: dict[str, Make] = {
    "torch.optim": lambda params, lr: torch.optim.AdamW(params, lr=lr, weight_decay=DECAY),
    "torch.optim, fused": lambda params, lr: torch.optim.AdamW(params, lr=lr, weight_decay=DECAY, fused=True),
    "lrcore": lambda params, lr: lrcore.torch.AdamW(params, lr=lr, weight_decay=DECAY),
    "lrcore with EMA": lambda params, lr: lrcore.torch.AdamW(
        params, lr=lr, weight_decay=DECAY, average=lrcore.EMA(0.98, warmup=True)
    ),
}


def make_model() -> nn.Module:
    """Return the network, with the same weights each time."""
    torch.manual_seed(0)
    # Smooth: at kinks of ReLU and in max-pooling a rounding difference can change the whole run.
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.GELU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(32 * 4 * 4, 128), nn.GELU(),
        nn.Linear(128, 10),
    )  # fmt: skip


def load_data(batch: int) -> tuple[DataLoader, DataLoader]:
    """Return loaders of four fifths of the images for training, and of the rest for testing."""
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16).float().reshape(-1, 1, 8, 8), torch.tensor(labels))
    train, test = random_split(data, [0.8, 0.2], torch.Generator().manual_seed(0))
    shuffling = torch.Generator().manual_seed(0)
    return DataLoader(train, batch, shuffle=True, drop_last=True, generator=shuffling), DataLoader(test, 512)


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader) -> float:
    """Return the accuracy."""
    return torch.cat([model(x).argmax(dim=1) == y for x, y in loader]).float().mean().item()


class TimedRun:
    """A model with its optimizer and schedule, and the times of its steps."""

    def __init__(self, name: str, lr: schedules.Schedule) -> None:
        self.name = name
        self.model = make_model()
        self.opt = OPTIMIZERS[name](self.model.parameters(), 0.0)
        self.scheduler = schedules.to_torch(lr, self.opt)
        self.whole: list[float] = []
        self.in_optimizer: list[float] = []

    def step(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Train on a batch."""
        start = time.perf_counter()
        self.opt.zero_grad()
        nn.functional.cross_entropy(self.model(x), y).backward()
        before = time.perf_counter()
        self.opt.step()
        after = time.perf_counter()
        self.scheduler.step()
        self.whole.append(time.perf_counter() - start)
        self.in_optimizer.append(after - before)


def recommended_lr(loader: DataLoader) -> float:
    """Return the learning rate of a range test, which restores model, optimizer and the loader's generator."""
    model = make_model()
    opt = lrcore.torch.AdamW(model.parameters(), weight_decay=DECAY)
    recommended = lrcore.torch.find_lr(model, opt, nn.functional.cross_entropy, loader, start=1e-5).suggest()
    lr = recommended.lr or 1e-3
    print(f"the learning rate is {lr:.1e}; find_lr: {recommended.reason}")
    return lr


def print_table(runs: list[TimedRun], test: DataLoader) -> None:
    """Print accuracies, and the median times with their ratio to the first."""
    first = runs[0]
    print(f"{'':18} │{'test':>9}{'weights':>12} │{'whole step':>13}{'ratio':>7} │{'optimizer':>13}{'ratio':>7}")
    print(f"{'':18} │{'accuracy':>9}{'differ by':>12} │{'µs':>13}{'':7} │{'µs':>13}")
    for run in runs:
        pairs = zip(run.model.parameters(), first.model.parameters(), strict=True)
        difference = max((a - b).abs().max().item() for a, b in pairs)
        whole, in_optimizer = median(run.whole), median(run.in_optimizer)
        print(
            f"{run.name:18} │{accuracy(run.model, test):>9.2%}{difference:>12.0e}"
            f" │{1e6 * whole:>13.0f}{whole / median(first.whole):>7.2f}"
            f" │{1e6 * in_optimizer:>13.0f}{in_optimizer / median(first.in_optimizer):>7.2f}"
        )


def main() -> int:
    """Train with each optimizer and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10, help="passes over the training data (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="images per step (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch and lrcore (default: %(default)s)")
    options = parser.parse_args()
    # One thread each: times depend less on other programs.
    torch.set_num_threads(options.threads)
    lrcore.set_num_threads(options.threads)

    train, test = load_data(options.batch)
    steps = options.epochs * len(train)
    lr = schedules.Cosine(recommended_lr(train), steps=steps).warmup(steps // 10)
    runs = [TimedRun(name, lr) for name in OPTIMIZERS]
    averaging = runs[-1]
    with tqdm(total=steps * len(runs), unit=" steps") as bar:
        for epoch in range(1, options.epochs + 1):
            batches = list(train)
            first = epoch % len(runs)
            for run in runs[first:] + runs[:first]:
                bar.set_description(f"epoch {epoch}, {run.name}")
                for x, y in batches:
                    run.step(x, y)
                    bar.update()
            if epoch == (options.epochs + 1) // 2:
                own = accuracy(averaging.model, test)
                with averaging.opt.averaged():
                    averaged = accuracy(averaging.model, test)
    print(f"half way, with EMA: test accuracy {own:.2%}, of the average {averaged:.2%}")
    print_table(runs, test)
    accuracies = [accuracy(run.model, test) for run in runs]
    return 0 if max(accuracies) - min(accuracies) < 0.01 else 1


if __name__ == "__main__":
    sys.exit(main())
