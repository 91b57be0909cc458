"""An Accelerate loop with lrcore's AdamW: gradient accumulation, clipping, and a state saved and loaded half way.

The network of torch_mnist_like.py is trained with a step for every two micro-batches. A second run starts with other
weights, loads the state that the first run saved half way, and ends with the same bits.
"""

from __future__ import annotations

import argparse
import sys
import tempfile

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from torch import nn
from tqdm import tqdm

import lrcore.torch
from lrcore import schedules
from torch_mnist_like import accuracy, load_data, make_model

MICRO_BATCHES = 2


class Run:
    """A model, its optimizer and its schedule, as Accelerate wraps them."""

    def __init__(self, epochs: int) -> None:
        # The order of the batches depends only on the epoch, so a resumed run sees the same batches.
        loading = DataLoaderConfiguration(use_seedable_sampler=True, data_seed=0)
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=MICRO_BATCHES, dataloader_config=loading)
        train, self.test = load_data(32)
        steps = epochs * -(-len(train) // MICRO_BATCHES)
        model = make_model()
        # The average of the weights is part of the optimizer's state.
        self.opt = lrcore.torch.AdamW(model.parameters(), lr=5e-3, average=lrcore.EMA(0.95, warmup=True))
        scheduler = schedules.to_torch(schedules.Cosine(5e-3, steps=steps).warmup(steps // 10), self.opt)
        self.model, self.wrapped, self.loader, self.scheduler = self.accelerator.prepare(
            model, self.opt, train, scheduler
        )

    def train_epoch(self, number: int) -> None:
        """Train on all micro-batches."""
        self.loader.set_epoch(number)
        for x, y in tqdm(self.loader, desc=f"epoch {number}", unit=" micro-batches"):
            with self.accelerator.accumulate(self.model):
                loss = nn.functional.cross_entropy(self.model(x), y)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    # The optimizer option clip_norm=1.0 does the same within its step.
                    self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
                self.wrapped.step()
                self.scheduler.step()
                self.wrapped.zero_grad()

    def report(self, name: str) -> None:
        """Print the test accuracies."""
        with self.opt.averaged():
            averaged = accuracy(self.model, self.test)
        own = accuracy(self.model, self.test)
        print(f"{name:8} {self.opt.steps} steps, test accuracy {own:.2%}, of the average {averaged:.2%}")


def main() -> int:
    """Train, then train the second half again from the saved state."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6, help="epochs of the whole run (default: %(default)s)")
    epochs = parser.parse_args().epochs
    torch.set_num_threads(1)  # fast on a busy machine too
    with tempfile.TemporaryDirectory() as folder:
        whole = Run(epochs)
        for number in range(epochs):
            if number == epochs // 2:
                whole.accelerator.save_state(folder)
            whole.train_epoch(number)

        resumed = Run(epochs)
        with torch.no_grad():
            for param in resumed.model.parameters():
                param.zero_()
        resumed.accelerator.load_state(folder)
        for number in range(epochs // 2, epochs):
            resumed.train_epoch(number)

    whole.report("whole")
    resumed.report("resumed")
    one, other = ([*run.model.parameters(), *run.opt.average.values()] for run in (whole, resumed))
    same = all(map(torch.equal, one, other))
    print(f"weights and averages end with the same bits: {'yes' if same else 'NO'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
