"""Random sequences of operations on an optimizer of PyTorch tensors; each step is compared with a fresh deep copy."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import random
from typing import Any

import torch

import lrcore
import lrcore.torch
from lrcore.optim import OPTIMIZERS
from soak import campaign

OPERATIONS = 40
COUNTS = ("averaged", "step")
SHAPES = [(), (1,), (7,), (5, 3), (2, 3, 4), (300,), (70, 90)]
CLASSES = [getattr(lrcore.torch, optimizer.__name__) for optimizer in OPTIMIZERS]


def params_of(opt: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Return the parameters of all groups."""
    return [param for group in opt.param_groups for param in group["params"]]


def bits(tensor: torch.Tensor) -> bytes:
    """Return the bytes of a tensor in the order of its axes."""
    real = torch.view_as_real(tensor.detach().resolve_conj()) if tensor.is_complex() else tensor.detach()
    return real.contiguous().numpy().tobytes()


def tensors_in(state: dict[str, Any]) -> list[tuple[str, torch.Tensor]]:
    """Return the tensors of a parameter's state by name."""
    return sorted((key, value) for key, value in state.items() if torch.is_tensor(value))


def everything(opt: torch.optim.Optimizer) -> list[tuple]:
    """Return all bits of an optimizer."""
    found: list[tuple] = [("steps", opt.steps)]
    for index, param in enumerate(params_of(opt)):
        found.append((index, tuple(param.shape), bits(param)))
        state = opt.state.get(param, {})
        # PyTorch casts counts to the dtype of their parameter when it loads a state.
        found += [(index, key, float(value) if key in COUNTS else bits(value)) for key, value in tensors_in(state)]
    return found


def make(rng: random.Random) -> torch.optim.Optimizer:
    """Return an optimizer of a random class, with random options and parameters."""
    torch.manual_seed(rng.randrange(1 << 30))
    dtypes = [torch.float32, torch.float32, torch.float64, torch.complex64]
    params = [torch.nn.Parameter(torch.randn(rng.choice(SHAPES), dtype=rng.choice(dtypes))) for _ in range(4)]
    options = {
        "clip_norm": rng.choice([None, None, 1.0]),
        "skip_nonfinite": rng.random() < 0.4,
        "average": rng.choice([None, lrcore.EMA(0.9), lrcore.SWA()]),
        "zero_grads": rng.random() < 0.2,
        "stats": rng.random() < 0.2,
    }
    lr = rng.choice([0.1, lrcore.schedules.Cosine(0.1, steps=50)])
    return rng.choice(CLASSES)(params, lr=lr, weight_decay=0.01, **options)


def twin_of(opt: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return a deep copy, with copies of the gradients."""
    other = copy.deepcopy(opt)
    for param, copied in zip(params_of(opt), params_of(other), strict=True):
        copied.grad = None if param.grad is None else param.grad.clone()
    return other


def give_gradients(rng: random.Random, opt: torch.optim.Optimizer) -> None:
    """Set gradients in various layouts, some lazily conjugated, missing or non-finite."""
    for param in params_of(opt):
        kind = rng.choice(["new", "new", "in place", "strided", "transposed", "none", "lazy"])
        grad = torch.randn(param.shape, dtype=param.dtype)
        if rng.random() < 0.03 and grad.numel():
            grad.view(-1)[0] = float("nan")
        if kind == "in place" and param.grad is not None:
            param.grad.copy_(grad)
            continue
        if kind == "strided" and grad.ndim:
            grad = torch.stack([grad, grad], -1)[..., 0]
        elif kind == "transposed" and grad.ndim > 1:
            grad = grad.transpose(0, 1).contiguous().transpose(0, 1)
        elif kind == "lazy" and grad.is_complex():
            grad = grad.conj()
        param.grad = None if kind == "none" else grad


def step(rng: random.Random, opt: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Step the optimizer and its twin, and compare them."""
    give_gradients(rng, opt)
    twin = twin_of(opt)
    outcomes = []
    for one in (opt, twin):
        try:
            one.step()
            outcomes.append(None)
        except (FloatingPointError, RuntimeError, TypeError, ValueError) as error:
            outcomes.append((type(error), str(error)))
    assert outcomes[0] == outcomes[1], f"the optimizer and its twin disagree: {outcomes}"
    assert everything(opt) == everything(twin), "the bits differ"
    return opt


def edit(rng: random.Random, opt: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Change a hyperparameter of a group."""
    group = rng.choice(opt.param_groups)
    name = rng.choice(["weight_decay", "momentum", "eps", "amsgrad", "maximize", "betas", "centered"])
    if name in group:
        group[name] = {
            "momentum": rng.choice([0.0, 0.9]),
            "betas": (0.8, 0.9),
            "amsgrad": rng.random() < 0.5,
            "maximize": rng.random() < 0.5,
            "centered": rng.random() < 0.5,
        }.get(name, 0.01)
    return opt


def move(rng: random.Random, opt: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Move a parameter or an array of its state to new memory, and free the old memory."""
    param = rng.choice(params_of(opt))
    state = opt.state.get(param, {})
    if rng.random() < 0.5 or not state:
        param.data = param.data.clone()
    else:
        key = rng.choice(sorted(state))
        state[key] = state[key].clone()
    gc.collect()
    torch.full((param.numel(),), 7.0)
    return opt


def forget(rng: random.Random, opt: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Remove a parameter's state or all gradients, or zero the gradients."""
    param, what = rng.choice(params_of(opt)), rng.choice(["state", "gradients", "set to zero"])
    if what == "state":
        opt.state.pop(param, None)
    else:
        opt.zero_grad(set_to_none=what == "gradients")
    return opt


def averages(rng: random.Random, opt: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Swap averages in and out."""
    del rng
    before = everything(opt)
    try:
        with opt.averaged():
            pass
    except ValueError:  # there are none
        pass
    assert everything(opt) == before, "averaged() left something behind"
    return opt


def go_on(rng: random.Random, opt: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Resume from a state dict, a file, a pickle or a copy."""
    how = rng.choice(["state dict", "file", "pickle", "deepcopy"])
    before = everything(opt)
    if how == "state dict":
        opt.load_state_dict(opt.state_dict())
    elif how == "file":
        file = io.BytesIO()
        torch.save(opt.state_dict(), file)
        file.seek(0)
        opt.load_state_dict(torch.load(file, weights_only=True))
    elif how == "pickle":
        opt = pickle.loads(pickle.dumps(opt))  # noqa: S301
    else:
        opt = copy.deepcopy(opt)
    # A step in which no parameter had a gradient is not part of PyTorch's state.
    assert everything(opt)[1:] == before[1:], f"a {how} changed bits"
    return opt


def grow(rng: random.Random, opt: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Add a group, with a new parameter or one that must be refused."""
    if rng.random() < 0.3:
        try:
            opt.add_param_group({"params": [rng.choice(params_of(opt))]})
        except ValueError:
            return opt
        raise AssertionError("a parameter was accepted twice")
    if len(opt.param_groups) < 4:
        opt.add_param_group({"params": [torch.nn.Parameter(torch.randn(rng.choice(SHAPES)))]})
    return opt


ACTIONS = [*[step] * 10, *[edit] * 2, *[move] * 3, forget, averages, *[go_on] * 2, grow]


def trial(seed: int) -> int:
    """Run a random sequence of operations; return their number."""
    rng = random.Random(seed)  # noqa: S311
    opt = make(rng)
    for _ in range(OPERATIONS):
        opt = rng.choice(ACTIONS)(rng, opt)
    return OPERATIONS


if __name__ == "__main__":
    campaign.main(trial)
