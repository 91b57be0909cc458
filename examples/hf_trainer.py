"""Hugging Face's Trainer with lrcore's AdamW: Trainer's parameter groups, a schedule, a checkpoint, a resumed run.

A small BERT learns which half of its vocabulary most words of a sentence are from. It is trained with Trainer's own
optimizer, with lrcore's, and with lrcore's again from the checkpoint half way. The first two differ by rounding; the
last two have the same bits.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, EvalPrediction, Trainer, TrainingArguments, set_seed
from transformers.trainer_pt_utils import get_parameter_names

import lrcore.torch
from lrcore import schedules

WORDS, LENGTH = 64, 15
LR, DECAY = 2e-3, 0.01
NO_DECAY = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]  # as in Trainer


def sentences(count: int, seed: int) -> list[dict[str, torch.Tensor]]:
    """Draw sentences; the label is whether most words are from the upper half of the vocabulary."""
    words = torch.randint(WORDS, (count, LENGTH), generator=torch.Generator().manual_seed(seed))
    labels = ((words >= WORDS // 2).sum(dim=1) > LENGTH // 2).long()
    return [{"input_ids": row, "labels": label} for row, label in zip(words, labels, strict=True)]


def make_model() -> BertForSequenceClassification:
    """Return the network, with the same weights each time."""
    set_seed(0)
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=LENGTH + 1,
    )
    return BertForSequenceClassification(config)


def make_optimizer(model: torch.nn.Module, **options: object) -> lrcore.torch.AdamW:
    """Return lrcore's AdamW with Trainer's two groups: weight decay for weights, none for biases and norms."""
    decaying = set(get_parameter_names(model, [torch.nn.LayerNorm], NO_DECAY))
    named = list(model.named_parameters())
    groups = [
        {"params": [(name, param) for name, param in named if name in decaying], "weight_decay": DECAY},
        {"params": [(name, param) for name, param in named if name not in decaying], "weight_decay": 0.0},
    ]
    return lrcore.torch.AdamW(groups, lr=LR, **options)


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Return the accuracy."""
    return {"accuracy": float((prediction.predictions.argmax(axis=1) == prediction.label_ids).mean())}


def make_trainer(folder: Path, steps: int, *, with_lrcore: bool) -> Trainer:
    """Return a Trainer with lrcore's optimizer or with its own."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=256,
        learning_rate=LR,
        weight_decay=DECAY,
        warmup_steps=steps // 10,
        lr_scheduler_type="linear",
        save_steps=steps // 2,
        logging_strategy="no",
        report_to=[],
        use_cpu=True,
        seed=0,
    )
    model, optimizers = make_model(), (None, None)
    if with_lrcore:
        warmup = {"num_warmup_steps": steps // 10, "num_training_steps": steps}
        lr = schedules.get("linear", source="transformers", lr=LR, **warmup)
        opt = make_optimizer(model, average=lrcore.EMA(0.98, warmup=True))
        optimizers = (opt, schedules.to_torch(lr, opt))
    data = {"train_dataset": sentences(2048, 1), "eval_dataset": sentences(512, 2)}
    return Trainer(model, arguments, optimizers=optimizers, compute_metrics=accuracy, **data)


def main() -> int:
    """Train three times and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="steps of each run (default: %(default)s)")
    steps = parser.parse_args().steps

    torch.set_num_threads(1)  # fast on a busy machine too
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = make_trainer(folder / "own", steps, with_lrcore=False)
        own.train()
        whole = make_trainer(folder / "lrcore", steps, with_lrcore=True)
        whole.train()
        resumed = make_trainer(folder / "resumed", steps, with_lrcore=True)
        resumed.train(resume_from_checkpoint=str(folder / "lrcore" / f"checkpoint-{steps // 2}"))

    results = [trainer.evaluate() for trainer in (own, whole, resumed)]
    # Trainer wraps the optimizers in those of accelerate.
    opts = [trainer.optimizer.optimizer for trainer in (whole, resumed)]
    with opts[0].averaged():
        results.append(whole.evaluate())
    names = ("Trainer's own optimizer", "lrcore's", "lrcore's, resumed half way", "lrcore's, the average of weights")
    for name, result in zip(names, results, strict=True):
        print(f"{name:34} loss {result['eval_loss']:.6f}, accuracy {result['eval_accuracy']:.2%}")
    one = [*whole.model.parameters(), *opts[0].average.values()]
    other = [*resumed.model.parameters(), *opts[1].average.values()]
    same = all(map(torch.equal, one, other))
    print(f"resumed, weights and averages end with the same bits: {'yes' if same else 'NO'}")
    return 0 if same and abs(results[0]["eval_loss"] - results[1]["eval_loss"]) < 1e-2 else 1


if __name__ == "__main__":
    sys.exit(main())
