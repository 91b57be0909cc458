"""lrcore.torch relative to PyTorch's own optimizers: the step, clipping with it, and whole training steps."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from lrcore.bench.timing import TimedCall, interleave
from lrcore.bench.workloads import LR
from models import MODELS
from sections import HEAD, Bench, apart, compare, micro, progress
from stages import CLIP, torch_clip_and_step

if TYPE_CHECKING:
    from collections.abc import Callable

    from sections import Call, Values

# A model, and the largest ratio of the step to PyTorch's fused one.
STEPS = [("MLP", 0.25), ("actor-critic", 0.35), ("ResNet-50", 0.92), ("GPT-2 small", 0.97)]
CLIPPED = 0.70
FORMS: dict[str, dict[str, bool]] = {"fused": {"fused": True}, "default": {}, "foreach": {"foreach": True}}


def dropin(bench: Bench) -> None:
    """Print lrcore.torch's time relative to each form of PyTorch's AdamW."""
    head = HEAD.format("torch")
    print(f"\nlrcore.torch.AdamW, the step\n  {'':34} {head}")
    for model, goal in STEPS:
        for form, flags in FORMS.items():
            if model in bench.plan.models:
                make = apart(partial(_step, "lrcore", {}), partial(_step, "torch", flags))
                most = goal if form == "fused" else math.inf
                compare(bench, f"{model}, torch {form}", MODELS[model], make, most, "dropin")
    print(f"\nclip_norm and step, relative to clip_grad_norm_ and the fused step\n  {'':34} {head}")
    for model, _ in STEPS:
        if model in bench.plan.models:
            make = apart(partial(_step, "lrcore", {"clip_norm": CLIP}), torch_clip_and_step)
            compare(bench, model, MODELS[model], make, CLIPPED if model == "GPT-2 small" else math.inf, "dropin")
    print(f"\na whole training step: forward, backward and optimizer\n  {'':34} {head}")
    for name, model_and_loss in (("CNN", _cnn), ("transformer", _transformer)):
        for form, flags in FORMS.items():
            make = apart(partial(_train, model_and_loss, "lrcore", {}), partial(_train, model_and_loss, "torch", flags))
            compare(bench, f"{name}, torch {form}", [(1,)], make, math.inf, "dropin")
    _threads(bench)


def _threads(bench: Bench) -> None:
    """Print a training step of the CNN by the threads of each library."""
    import torch

    import lrcore

    all_threads = bench.plan.threads
    counts = sorted({1, all_threads})
    progress("dropin: threads")
    step, fused = _train(_cnn, "lrcore", {}, []), _train(_cnn, "torch", {"fused": True}, [])

    def enter(torchs: int, ours: int) -> Call:
        return lambda: (torch.set_num_threads(torchs), lrcore.set_num_threads(ours))

    timed_calls = {}
    for torchs in counts:
        for ours in counts:
            timed_calls[f"{torchs} of PyTorch, {ours} of lrcore"] = TimedCall(step, enter(torchs, ours))
        timed_calls[f"{torchs} of PyTorch, fused"] = TimedCall(fused, enter(torchs, all_threads))
    times = interleave(timed_calls, bench.plan.seconds * 2, bench.plan.rounds)
    enter(all_threads, all_threads)()
    progress("")
    print(f"\nthreads: a whole training step of the CNN\n  {'':34} {'µs':>10}   [middle half]")
    for name, of_name in times.items():
        low, high = (1e6 * quartile for quartile in of_name.quartiles)
        print(f"  {name:34} {micro(of_name)}   [{low:.0f}, {high:.0f}]")
        found = {"work": name, "case": "dropin threads", "seconds": of_name.median, "quartiles": of_name.quartiles}
        bench.results.goals.append(found)


def _optimizer(library: str, parameters: list[Any], options: dict[str, Any]) -> Any:
    import torch

    import lrcore.torch

    kind = lrcore.torch.AdamW if library == "lrcore" else torch.optim.AdamW
    return kind(parameters, lr=LR, **options)


def _step(library: str, options: dict[str, Any], values: Values) -> Call:
    from lrcore.bench.torch_peers import parameters_of

    step: Call = _optimizer(library, parameters_of(values, values), options).step
    return step


def _train(make: Callable[[], tuple[Any, Callable[[], Any]]], library: str, options: dict[str, Any], _: Values) -> Call:
    model, loss = make()
    optimizer = _optimizer(library, list(model.parameters()), options)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def _cnn() -> tuple[Any, Callable[[], Any]]:
    """Three convolutions and a layer, 0.4 M weights, on 32 images of 32 × 32."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers: list[Any] = []
    for into, out in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(into, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, 128), nn.ReLU(), nn.Linear(128, 10))
    images, labels = torch.randn(32, 3, 32, 32), torch.randint(10, (32,))
    return model, lambda: nn.functional.cross_entropy(model(images), labels)


def _transformer() -> tuple[Any, Callable[[], Any]]:
    """Four layers of width 256, an embedding of 8192 words, 7.4 M weights, on 8 sequences of 64."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    model = nn.Sequential(nn.Embedding(8192, 256), encoder, nn.Linear(256, 8192))
    words = torch.randint(8192, (8, 64))
    return model, lambda: nn.functional.cross_entropy(model(words).flatten(0, 1), words.flatten())
