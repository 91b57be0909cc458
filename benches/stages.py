"""The cost of a step's options: relative to the plain step, and to PyTorch's passes that do the same."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import loops
import lrcore
from lrcore.bench.workloads import LR, copies
from models import MODELS
from sections import HEAD, MI, Bench, apart, compare, together

if TYPE_CHECKING:
    from sections import Call, Values

# The place of arrays can change a time more than an option does. Options that a group may change are measured on the
# same arrays as the plain step, and all in many places.
REPEATS = 9
CLIP = 1.0
DECAY = 0.9
# The title, the options, the largest ratio to the plain step, and the divisor of the gradients.
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
    """Print the cost of each option and its goal."""
    print(f"\nAdamW, float32, 32 Mi\n  {'':34} {HEAD.format('plain')}")
    size = min(32 * MI, max(bench.plan.sizes))
    for title, options, goal, divisor in OPTIONS:
        if options.keys() <= GROUP_OPTIONS:
            make = together(partial(_of_one_group, options, divisor))
        else:
            make = apart(partial(_step, options, divisor), partial(_step, {}, 1.0))
        compare(bench, title, [(size,)], make, goal, repeats=REPEATS, rest=0.0)
    print(f"\nclip_norm and step\n  {'':34} {HEAD.format('torch')}")
    for model, goal in LISTS:
        if model in bench.plan.models:
            make = apart(partial(_step, {"clip_norm": CLIP}, 1.0), torch_clip_and_step)
            compare(bench, model, MODELS[model], make, goal, repeats=REPEATS)
    _noise(bench)


def _noise(bench: Bench) -> None:
    """Print the cost of the noise scale, relative to a step with its four micro-batches."""
    print(f"\nfour micro-batches and step, with the noise scale\n  {'':34} {HEAD.format('without')}")
    size = min(32 * MI, max(bench.plan.sizes))
    make = apart(partial(_accumulated, {"noise_scale": lrcore.NoiseScale(batch=1)}), partial(_accumulated, {}))
    for title, shapes in (("AdamW 1 Mi", [(1 * MI,)]), ("AdamW 32 Mi", [(size,)]), ("MLP", MODELS["MLP"])):
        compare(bench, title, shapes, make, 1.02, repeats=REPEATS, rest=0.0)
    make = apart(partial(_trained, measures=True), partial(_trained, measures=False))
    compare(bench, "training on digits", [(1,)], make, 1.02, repeats=REPEATS, rest=0.0)


def _accumulated(options: dict[str, Any], values: Values) -> Call:
    weights, grads = copies(values), copies(values)
    optimizer = lrcore.AdamW(weights, lr=LR, **options)

    def step() -> None:
        for _ in range(4):
            optimizer.accumulate(grads)
        optimizer.step()

    return step


def _trained(_: Values, *, measures: bool) -> Call:
    """Return a training step, forward and backward passes included, of the network of the loops."""
    images, labels, _title = loops.digits()
    weights = loops.initial()
    optimizer = lrcore.AdamW(weights, lr=LR, noise_scale=lrcore.NoiseScale(batch=16) if measures else None)

    def step() -> None:
        for part in range(4):
            chosen = slice(16 * part, 16 * (part + 1))
            optimizer.accumulate(loops.numpy_grads(weights, images[chosen], labels[chosen]))
        optimizer.step()

    return step


def _step(options: dict[str, Any], divisor: float, values: Values) -> Call:
    weights, grads = copies(values), copies(values)
    optimizer = lrcore.AdamW(weights, lr=LR, **options)
    return lambda: optimizer.step(grads, grad_scale=divisor)


def _of_one_group(options: dict[str, Any], divisor: float, values: Values) -> tuple[Call, Call]:
    """Return steps of one optimizer with the options and without them."""
    weights, grads = copies(values), copies(values)
    optimizer = lrcore.AdamW(weights, lr=LR)
    group = optimizer.param_groups[0]
    usual = {name: group[name] for name in options}
    current = usual

    def step(wanted: dict[str, Any], divisor: float) -> None:
        nonlocal current
        if wanted is not current:
            group.update(wanted)
            current = wanted
        optimizer.step(grads, grad_scale=divisor)

    return partial(step, options, divisor), partial(step, usual, 1.0)


def torch_clip_and_step(values: Values) -> Call:
    """Return PyTorch's clipping by the norm and its fused step."""
    import torch

    from lrcore.bench.torch_peers import parameters_of

    parameters = parameters_of(values, values)
    optimizer = torch.optim.AdamW(parameters, lr=LR, fused=True)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()

    return step
