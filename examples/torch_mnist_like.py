"""A small CNN of PyTorch on handwritten digits: the same training with PyTorch's AdamW and with lrcore's.

One line differs. The trainings take turns, epoch by epoch in an order that changes, so that what else the machine does
falls on all of them. At the end stand the accuracy of each and the median time of its steps; half way it is seen what
the average of the weights would get.
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

# This is the line.
OPTIMIZERS: dict[str, Make] = {
    "torch.optim": lambda params, lr: torch.optim.AdamW(params, lr=lr, weight_decay=DECAY),
    "torch.optim, fused": lambda params, lr: torch.optim.AdamW(params, lr=lr, weight_decay=DECAY, fused=True),
    "lrcore": lambda params, lr: lrcore.torch.AdamW(params, lr=lr, weight_decay=DECAY),
    "lrcore with EMA": lambda params, lr: lrcore.torch.AdamW(
        params, lr=lr, weight_decay=DECAY, average=lrcore.EMA(0.98, warmup=True)
    ),
}


def make_model() -> nn.Module:
    """Return the network, with the same weights at each call."""
    torch.manual_seed(0)
    # With the kinks of ReLU and the choices of a maximum, a rounding decides now and then for another course.
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.GELU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(32 * 4 * 4, 128), nn.GELU(),
        nn.Linear(128, 10),
    )  # fmt: skip


def load_data(batch: int) -> tuple[DataLoader, DataLoader]:
    """Return loaders of four fifths of the images for training, and of the others for the test."""
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16).float().reshape(-1, 1, 8, 8), torch.tensor(labels))
    train, test = random_split(data, [0.8, 0.2], torch.Generator().manual_seed(0))
    shuffling = torch.Generator().manual_seed(0)
    return DataLoader(train, batch, shuffle=True, drop_last=True, generator=shuffling), DataLoader(test, 512)


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader) -> float:
    """Return the share of images whose digit is recognised."""
    return torch.cat([model(x).argmax(dim=1) == y for x, y in loader]).float().mean().item()


class Training:
    """A model with its optimizer and schedule, and the seconds that its steps took."""

    def __init__(self, name: str, rate: schedules.Schedule) -> None:
        self.name = name
        self.model = make_model()
        self.opt = OPTIMIZERS[name](self.model.parameters(), 0.0)
        self.scheduler = schedules.to_torch(rate, self.opt)
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


def find_rate(loader: DataLoader) -> float:
    """Ask a range test for the rate. It puts model, optimizer and the loader's generator back."""
    model = make_model()
    opt = lrcore.torch.AdamW(model.parameters(), weight_decay=DECAY)
    advice = lrcore.torch.find_lr(model, opt, nn.functional.cross_entropy, loader, start=1e-5).suggest()
    rate = advice.lr or 1e-3
    print(f"the rate is {rate:.1e}; find_lr says: {advice.reason}")
    return rate


def print_table(trainings: list[Training], test: DataLoader) -> None:
    """Print what was learned, and the medians of the times with their ratio to the first."""
    first = trainings[0]
    print(f"{'':18} │{'test':>9}{'weights':>12} │{'whole step':>13}{'ratio':>7} │{'optimizer':>13}{'ratio':>7}")
    print(f"{'':18} │{'accuracy':>9}{'differ by':>12} │{'µs':>13}{'':7} │{'µs':>13}")
    for training in trainings:
        pairs = zip(training.model.parameters(), first.model.parameters(), strict=True)
        difference = max((a - b).abs().max().item() for a, b in pairs)
        whole, in_optimizer = median(training.whole), median(training.in_optimizer)
        print(
            f"{training.name:18} │{accuracy(training.model, test):>9.2%}{difference:>12.0e}"
            f" │{1e6 * whole:>13.0f}{whole / median(first.whole):>7.2f}"
            f" │{1e6 * in_optimizer:>13.0f}{in_optimizer / median(first.in_optimizer):>7.2f}"
        )


def main() -> int:
    """Train with each optimizer and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10, help="passes over the training data (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="images to a step (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch and of lrcore (default: %(default)s)")
    options = parser.parse_args()
    # With one thread each, times depend less on what else the machine does.
    torch.set_num_threads(options.threads)
    lrcore.set_num_threads(options.threads)

    train, test = load_data(options.batch)
    steps = options.epochs * len(train)
    rate = schedules.Cosine(find_rate(train), steps=steps).warmup(steps // 10)
    trainings = [Training(name, rate) for name in OPTIMIZERS]
    averaging = trainings[-1]
    with tqdm(total=steps * len(trainings), unit=" steps") as bar:
        for epoch in range(1, options.epochs + 1):
            batches = list(train)
            first = epoch % len(trainings)
            for training in trainings[first:] + trainings[:first]:
                bar.set_description(f"epoch {epoch}, {training.name}")
                for x, y in batches:
                    training.step(x, y)
                    bar.update()
            if epoch == (options.epochs + 1) // 2:
                own = accuracy(averaging.model, test)
                with averaging.opt.averaged():
                    averaged = accuracy(averaging.model, test)
    print(f"half way, with EMA: test accuracy {own:.2%}, of the average {averaged:.2%}")
    print_table(trainings, test)
    accuracies = [accuracy(training.model, test) for training in trainings]
    return 0 if max(accuracies) - min(accuracies) < 0.01 else 1


if __name__ == "__main__":
    sys.exit(main())
