"""lrcore.torch beside PyTorch's own optimizers: the step alone, clipping with it, and whole training steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lrcore.bench.timing import Entrant, interleave
from models import MODELS
from sections import Bench, compare, progress
from works import LR

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from sections import Make

CLIP = 1.0
# A model, and what the step may take of the time of PyTorch's fused one.
STEPS = [("MLP", 0.25), ("actor-critic", 0.35), ("ResNet-50", 0.92), ("GPT-2 small", 0.97)]
CLIPPED = 0.70
FORMS: dict[str, dict[str, bool]] = {"fused": {"fused": True}, "default": {}, "foreach": {"foreach": True}}


def dropin(bench: Bench) -> None:
    """Print the drop-in's time beside that of each form of PyTorch's AdamW."""
    columns = f"{'ms':>9} {'torch':>9}   ratio [middle half]"
    print(f"\nlrcore.torch.AdamW, the step\n  {'':34} {columns}     goal")
    for model, most in STEPS:
        if model not in bench.plan.models:
            continue
        for form, flags in FORMS.items():
            pair = (_step("lrcore", {}), _step("torch", flags))
            goal = most if form == "fused" else math.inf
            compare(bench, f"{model}, torch {form}", MODELS[model], pair, goal, "dropin")
    print(f"\nclip_norm and step, beside clip_grad_norm_ and the fused step\n  {'':34} {columns}     goal")
    for model, _ in STEPS:
        if model in bench.plan.models:
            goal = CLIPPED if model == "GPT-2 small" else math.inf
            compare(bench, model, MODELS[model], (_step("lrcore", {"clip_norm": CLIP}), _clipped), goal, "dropin")
    print(f"\na whole training step: forward, backward and optimizer\n  {'':34} {columns}")
    for name, make in (("CNN", _cnn), ("transformer", _transformer)):
        for form, flags in FORMS.items():
            pair = (_training(make, "lrcore", {}), _training(make, "torch", flags))
            compare(bench, f"{name}, torch {form}", [(1,)], pair, math.inf, "dropin")

    _threads(bench)


def _threads(bench: Bench) -> None:
    """Print what threads of each library take off a training step of the CNN."""
    import torch

    import lrcore

    everything = bench.plan.threads
    counts = sorted({1, everything})
    progress("dropin: threads")
    step = _training(_cnn, "lrcore", {})([])
    fused = _training(_cnn, "torch", {"fused": True})([])

    def enter(torchs: int, ours: int) -> Callable[[], object]:
        return lambda: (torch.set_num_threads(torchs), lrcore.set_num_threads(ours))

    entrants = {}
    for torchs in counts:
        for ours in counts:
            entrants[f"{torchs} of PyTorch, {ours} of lrcore"] = Entrant(step, enter(torchs, ours))
        entrants[f"{torchs} of PyTorch, fused"] = Entrant(fused, enter(torchs, everything))
    times = interleave(entrants, bench.plan.seconds * 2, bench.plan.rounds)
    enter(everything, everything)()
    progress("")
    print(f"\nthreads: a whole training step of the CNN\n  {'':34} {'ms':>9}   [middle half]")
    for name, of_name in times.items():
        low, high = (1e3 * quartile for quartile in of_name.quartiles)
        print(f"  {name:34} {1e3 * of_name.median:9.3f}   [{low:.3f}, {high:.3f}]")
        found = {"work": name, "case": "dropin threads", "seconds": of_name.median, "quartiles": of_name.quartiles}
        bench.results.goals.append(found)


def _optimizer(library: str, parameters: list[Any], options: dict[str, Any]) -> Any:
    import torch

    import lrcore.torch

    kind = lrcore.torch.AdamW if library == "lrcore" else torch.optim.AdamW
    return kind(parameters, lr=LR, **options)


def _parameters(values: list[np.ndarray[Any, Any]]) -> list[Any]:
    import torch

    parameters = [torch.nn.Parameter(torch.from_numpy(array).clone()) for array in values]
    for parameter, array in zip(parameters, values, strict=True):
        parameter.grad = torch.from_numpy(array).clone()
    return parameters


def _step(library: str, options: dict[str, Any]) -> Make:
    def make(values: list[np.ndarray[Any, Any]]) -> Callable[[], object]:
        step: Callable[[], object] = _optimizer(library, _parameters(values), options).step
        return step

    return make


def _clipped(values: list[np.ndarray[Any, Any]]) -> Callable[[], object]:
    import torch

    parameters = _parameters(values)
    optimizer = _optimizer("torch", parameters, {"fused": True})

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()

    return step


def _training(make: Callable[[], tuple[Any, Callable[[], Any]]], library: str, options: dict[str, Any]) -> Make:
    def made(_: list[np.ndarray[Any, Any]]) -> Callable[[], object]:
        model, loss = make()
        optimizer = _optimizer(library, list(model.parameters()), options)

        def step() -> None:
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()

        return step

    return made


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
    model = nn.Sequential(
        nn.Embedding(8192, 256),
        nn.TransformerEncoder(layer, 4, enable_nested_tensor=False),
        nn.Linear(256, 8192),
    )
    words = torch.randint(8192, (8, 64))
    return model, lambda: nn.functional.cross_entropy(model(words).flatten(0, 1), words.flatten())
