"""PyTorch Lightning with lrcore's AdamW: gradients clipped by the Trainer or by the optimizer, and a resumed run.

The network of torch_mnist_like.py is trained three times: with Lightning's gradient_clip_val;
with lrcore's clip_norm instead; and from the checkpoint half way. The first two differ by rounding; the last two
have the same bits.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

# Elsewhere this may be "import lightning as pl". Python looks into the folder of a script first, and in this one that
# name is the present file.
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

import lrcore.torch
from lrcore import schedules
from torch_mnist_like import accuracy, load_data, make_model

CLIP = 0.5


class Digits(pl.LightningModule):
    """The network, its loss and its optimizer."""

    def __init__(self, steps: int, clip_norm: float | None) -> None:
        super().__init__()
        self.model = make_model()
        self.steps, self.clip_norm = steps, clip_norm

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Return the loss of a batch."""
        x, y = batch
        loss = nn.functional.cross_entropy(self.model(x), y)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict[str, object]:
        """Return the optimizer and a scheduler that advances each step."""
        # The optimizer option clip_norm replaces gradient_clip_val of the Trainer.
        opt = lrcore.torch.AdamW(self.named_parameters(), lr=5e-3, no_decay=["*bias"], clip_norm=self.clip_norm)
        scheduler = schedules.to_torch(schedules.Cosine(5e-3, steps=self.steps).warmup(self.steps // 10), opt)
        return {"optimizer": opt, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def train(folder: Path, epochs: int, *, fused: bool, checkpoint: Path | None = None) -> nn.Module:
    """Train, from a checkpoint if there is one, with a checkpoint after each epoch; return the network."""
    data = load_data(32)[0].dataset
    # The order of the batches depends only on the epoch, so a resumed run sees the same batches.
    sampler = DistributedSampler(data, num_replicas=1, rank=0)
    loader = DataLoader(data, 32, sampler=sampler, drop_last=True)
    module = Digits(epochs * len(loader), CLIP if fused else None)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        gradient_clip_val=None if fused else CLIP,
        callbacks=[ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)],
        default_root_dir=folder,
        logger=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    return module.model


def main() -> int:
    """Train three times and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each run (default: %(default)s)")
    epochs = parser.parse_args().epochs
    torch.set_num_threads(1)  # fast on a busy machine too
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = {
            "gradient_clip_val": train(folder / "trainer", epochs, fused=False),
            "clip_norm": train(folder / "fused", epochs, fused=True),
        }
        half_way = folder / "fused" / f"epoch={epochs // 2 - 1}.ckpt"
        models["clip_norm, resumed"] = train(folder / "resumed", epochs, fused=True, checkpoint=half_way)

    test = load_data(32)[1]
    by_trainer, by_optimizer, resumed = (list(model.parameters()) for model in models.values())
    for name, model in models.items():
        print(f"{name:20} test accuracy {accuracy(model, test):.2%}")
    difference = max((a - b).abs().max().item() for a, b in zip(by_trainer, by_optimizer, strict=True))
    print(f"clipped by the Trainer or by the optimizer, weights differ by {difference:.0e}")
    same = all(map(torch.equal, by_optimizer, resumed))
    print(f"the resumed run ends with the same bits: {'yes' if same else 'NO'}")
    return 0 if same and difference < 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
