"""What the drop-ins are compared with: PyTorch's optimizers, and its base class with reference functions."""

import inspect

import numpy as np
import torch

import lrcore.torch
from lrcore.optim import OPTIMIZERS
from lrcore.optim.hyperparameter import plain
from lrcore.optim.options import GROUP_OPTIONS, Options
from support import reference
from support.cases import RULES


class Reference(torch.optim.Optimizer):
    """An optimizer of PyTorch that takes the steps of an optimizer's reference functions."""

    def __init__(self, *args, **kwargs):
        bound = inspect.signature(type(self)).bind(*args, **kwargs)
        bound.apply_defaults()
        params = bound.arguments.pop("params")
        super().__init__(params, dict(bound.arguments))

    def __setstate__(self, state):
        super().__setstate__(state)
        for group in self.param_groups:
            for name in inspect.signature(type(self)).parameters.keys() - {"params"}:
                group.setdefault(name, self.defaults[name])

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self.move(param, group)
        return loss

    def move(self, param, group):
        values, numbers = {}, {}
        for name, kind in self.of._kinds().items():
            if name not in GROUP_OPTIONS:
                values[name] = plain(group[name])
                numbers |= kind.at(name, values[name], 0)
        rule = self.of._rule(values)
        names, states = RULES[rule]
        state = self.state[param]
        if not state:
            state |= {"step": torch.tensor(0.0), **{name: torch.zeros_like(param) for name in states}}
        if not torch.is_tensor(state["step"]):
            state["step"] = torch.tensor(float(state["step"]))
        state["step"] += 1
        moved, after = reference.move(
            rule, array(param), array(param.grad), [array(state[name]) for name in states], int(state["step"]),
            {name: numbers[name] for name in names}, lr=numbers["lr"], weight_decay=numbers["weight_decay"],
            decay=self.of._declaration.decay, maximize=values["maximize"],
        )  # fmt: skip
        for tensor, result in zip((param, *(state[name] for name in states)), (moved, *after), strict=True):
            (torch.view_as_real(tensor) if tensor.is_complex() else tensor).copy_(torch.from_numpy(np.asarray(result)))


def array(tensor):
    """Return the real numbers of a tensor."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).numpy()


def _reference(optimizer):
    signature = inspect.signature(optimizer)
    own = [one for name, one in signature.parameters.items() if name not in Options.__annotations__]
    body = {"of": optimizer, "__module__": __name__, "__signature__": signature.replace(parameters=own)}
    return type(optimizer.__name__, (Reference,), body)


_REFERENCES = {one.__name__: _reference(one) for one in OPTIMIZERS if one._declaration.in_torch is None}
globals().update(_REFERENCES)  # for pickles


def take_over(optimizer, **options):
    """Return a drop-in with the groups and state of an optimizer, as from_torch does, also where PyTorch lacks it."""
    name = type(optimizer).__name__
    if name in _REFERENCES:
        return getattr(lrcore.torch, name).taking_over(optimizer, options)
    return lrcore.torch.from_torch(optimizer, **options)


def counterpart(name):
    """Return the class that an optimizer is compared with."""
    return _REFERENCES.get(name) or getattr(torch.optim, name)


def for_loop(name):
    """Return the flags that make PyTorch's optimizer take its for-loop path, the one that is the specification."""
    flags = inspect.signature(counterpart(name)).parameters
    return {flag: False for flag in ("foreach", "fused") if flag in flags}
