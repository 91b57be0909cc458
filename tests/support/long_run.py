"""A thousand steps of a real training under lrcore.torch, with all that goes on around it; prints the memory as JSON.

Run with ``-W error``: a DataLoader of two workers, a scheduler of PyTorch, a GradScaler, clipping, an average, and
eight checkpoints, from each of which a new model and a new optimizer go on.
"""

import ctypes
import gc
import io
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

import lrcore
import lrcore.torch

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
# Allocators have what they need by then, checkpoints included.
SETTLED = STEPS // 2
EVERY = STEPS // 8


class Rings(torch.utils.data.Dataset):
    """Small pictures of rings and of crosses, with noise."""

    def __len__(self):
        return 1 << 20

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        x, y = np.mgrid[-1:1:16j, -1:1:16j]
        label = index % 2
        picture = np.hypot(x, y) < 0.6 if label else np.abs(x * y) < 0.05
        return torch.from_numpy((picture + rng.normal(0, 0.5, (16, 16))).astype(np.float32))[None], label


def resident():
    """Bytes of memory that are this process's, without those that its allocator keeps back."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of the GNU C library
    if trim is not None:
        trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def make():
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(128, 2)
    )
    opt = lrcore.torch.AdamW(model.named_parameters(), lr=1e-3, clip_norm=1.0, no_decay=["*bias"], average=lrcore.EMA())
    scheduler = torch.optim.lr_scheduler.OneCycleLR(opt, 1e-2, total_steps=STEPS + 1)
    return model, opt, scheduler, torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=200)


def main():
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(Rings(), batch_size=16, num_workers=2, persistent_workers=True)
    parts = make()
    memory, losses = [], []
    for number, (x, y) in enumerate(loader):
        if number == STEPS:
            break
        model, opt, scheduler, scaler = parts
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
        scheduler.step()
        losses.append(loss.item())
        if number % EVERY == EVERY - 1:
            file = io.BytesIO()
            torch.save([part.state_dict() for part in parts], file)
            file.seek(0)
            parts = make()
            for part, state in zip(parts, torch.load(file, weights_only=True), strict=True):
                part.load_state_dict(state)
        if number >= SETTLED and number % 10 == 0:
            memory.append(resident())
    print(  # noqa: T201
        json.dumps(
            {
                "steps": parts[1].steps,
                "first": float(np.median(memory[:5])),
                "last": float(np.median(memory[-5:])),
                "loss": [float(np.mean(losses[:20])), float(np.mean(losses[-20:]))],
            }
        )
    )


if __name__ == "__main__":
    main()
