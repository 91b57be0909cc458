"""What the options of a step cost: beside the plain step, and beside the passes of PyTorch that do the same."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import loops
import lrcore
from models import MODELS
from sections import MI, Bench, compare
from works import LR, copies

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np


# Where arrays lie can make more than an option costs: what a group can be told is measured on the same arrays as the
# plain step, and all options in many places.
SITTINGS = 9
CLIP = 1.0
DECAY = 0.9
# What is measured, its options, what it may take of the plain step's time, and the divisor of the gradients.
OPTIONS: list[tuple[str, dict[str, Any], float, float]] = [
    ("clip_norm", {"clip_norm": CLIP}, 1.20, 1.0),
    ("EMA", {"average": lrcore.EMA(DECAY)}, 1.35, 1.0),
    ("zero_grads", {"zero_grads": True}, 1.20, 1.0),
    ("all three", {"clip_norm": CLIP, "average": lrcore.EMA(DECAY), "zero_grads": True}, 1.65, 1.0),
    ("grad_scale", {}, 1.03, 3.0),
    ("clip_value", {"clip_value": CLIP}, 1.03, 1.0),
    ("coupled decay", {"decay": "coupled"}, 1.03, 1.0),
    ("independent decay", {"decay": "independent"}, 1.03, 1.0),
    ("cautious decay", {"decay": "cautious"}, 1.03, 1.0),
    ("stats", {"stats": True}, 1.15, 1.0),
]
GROUP_OPTIONS = {"decay", "clip_value", "zero_grads"}
LISTS = [("MLP", 0.08), ("actor-critic", 0.15), ("GPT-2 small", 0.68)]


def stages(bench: Bench) -> None:
    """Print each option's cost, beside what it may be."""
    print(f"\nAdamW, float32, 32 Mi\n  {'':34} {'ms':>9} {'plain':>9}   ratio [middle half]     goal")
    size = min(32 * MI, max(bench.plan.sizes))
    for name, options, most, divisor in OPTIONS:
        apart = (partial(_ours, options, divisor), partial(_ours, {}, 1.0))
        pair = partial(_of_group, options, divisor) if options.keys() <= GROUP_OPTIONS else apart
        compare(bench, name, [(size,)], pair, most, sittings=SITTINGS, rest=0.0)
    print(f"\nclip_norm and step\n  {'':34} {'ms':>9} {'torch':>9}   ratio [middle half]     goal")
    for model, most in LISTS:
        if model in bench.plan.models:
            pair = (partial(_ours, {"clip_norm": CLIP}, 1.0), _torch_clip_and_step)
            compare(bench, model, MODELS[model], pair, most, sittings=SITTINGS)
    _noise(bench)


def _noise(bench: Bench) -> None:
    """Print what the noise scale costs, of a step with its four micro-batches."""
    print(
        f"\nfour micro-batches and step, with the noise scale\n  {'':34} {'ms':>9} {'without':>9}   ratio [middle half]"
    )
    size = min(32 * MI, max(bench.plan.sizes))
    pair = (partial(_accumulated, {"noise_scale": lrcore.NoiseScale(batch=1)}), partial(_accumulated, {}))
    for name, shapes in (("AdamW 1 Mi", [(1 * MI,)]), ("AdamW 32 Mi", [(size,)]), ("MLP", MODELS["MLP"])):
        compare(bench, name, shapes, pair, 1.02, sittings=SITTINGS, rest=0.0)
    trained = (partial(_trained, measures=True), partial(_trained, measures=False))
    compare(bench, "training on digits", [(1,)], trained, 1.02, sittings=SITTINGS, rest=0.0)


def _accumulated(options: dict[str, Any], values: list[np.ndarray[Any, Any]]) -> Callable[[], object]:
    weights, grads = copies(values), copies(values)
    optimizer = lrcore.AdamW(weights, lr=LR, **options)

    def step() -> None:
        for _ in range(4):
            optimizer.accumulate(grads)
        optimizer.step()

    return step


def _trained(values: list[np.ndarray[Any, Any]], *, measures: bool) -> Callable[[], object]:
    """A training step with its forward and backward passes, of the network of the loops."""
    del values
    images, labels, _ = loops.digits()
    weights = loops.initial()
    optimizer = lrcore.AdamW(weights, lr=LR, noise_scale=lrcore.NoiseScale(batch=16) if measures else None)

    def step() -> None:
        for part in range(4):
            chosen = slice(16 * part, 16 * (part + 1))
            optimizer.accumulate(loops.numpy_grads(weights, images[chosen], labels[chosen]))
        optimizer.step()

    return step


def _ours(options: dict[str, Any], divisor: float, values: list[np.ndarray[Any, Any]]) -> Callable[[], object]:
    weights, grads = copies(values), copies(values)
    optimizer = lrcore.AdamW(weights, lr=LR, **options)
    return lambda: optimizer.step(grads, grad_scale=divisor)


def _of_group(
    options: dict[str, Any], divisor: float, values: list[np.ndarray[Any, Any]]
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Make steps with the options and without them, of one optimizer."""
    weights, grads = copies(values), copies(values)
    optimizer = lrcore.AdamW(weights, lr=LR)
    group = optimizer.param_groups[0]
    usual = {name: group[name] for name in options}
    present = usual

    def step(wanted: dict[str, Any], divisor: float) -> None:
        nonlocal present
        if wanted is not present:
            group.update(wanted)
            present = wanted
        optimizer.step(grads, grad_scale=divisor)

    return partial(step, options, divisor), partial(step, usual, 1.0)


def _torch_clip_and_step(values: list[np.ndarray[Any, Any]]) -> Callable[[], object]:
    import torch

    parameters = [torch.nn.Parameter(torch.from_numpy(array).clone()) for array in values]
    for parameter, array in zip(parameters, values, strict=True):
        parameter.grad = torch.from_numpy(array).clone()
    optimizer = torch.optim.AdamW(parameters, lr=LR, fused=True)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()

    return step
