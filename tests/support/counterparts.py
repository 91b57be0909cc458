"""What the drop-ins are compared with: PyTorch's optimizers, and its base class with reference functions."""

import inspect

import numpy as np
import torch

import lrcore.torch
from lrcore.optim import OPTIMIZERS
from lrcore.optim.hyperparameter import plain
from lrcore.optim.options import GROUP_OPTIONS
from support import reference
from support.cases import RULES


class Reference(torch.optim.Optimizer):
    """An optimizer of PyTorch that takes the steps of an optimizer's reference functions."""

    def __init__(self, params, *args, **kwargs):
        kwargs.pop("foreach", None)  # which tests give to PyTorch's
        bound = inspect.signature(self.of).bind(params, *args, **kwargs)
        bound.apply_defaults()
        self.names = [name for name in self.of._kinds() if name not in GROUP_OPTIONS]
        defaults = {name: bound.arguments[name] for name in self.names}
        defaults["decoupled_weight_decay"] = self.of._declaration.decay == "decoupled"
        super().__init__(params, defaults)

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
        values = {name: plain(group[name]) for name in self.names}
        numbers = {}
        for name, kind in self.of._kinds().items():
            if name in values:
                numbers |= kind.at(name, values[name], 0)
        rule = self.of._rule(values)
        names, states = RULES[rule]
        state = self.state[param]
        if not state:
            state |= {"step": torch.tensor(0.0), **{name: torch.zeros_like(param) for name in states}}
        state["step"] += 1
        moved, after = reference.move(
            rule, array(param), array(param.grad), [array(state[name]) for name in states], int(state["step"]),
            {name: numbers[name] for name in names}, lr=numbers["lr"], weight_decay=numbers["weight_decay"],
            decay="decoupled" if group["decoupled_weight_decay"] else "coupled", maximize=values["maximize"],
        )  # fmt: skip
        for tensor, result in zip((param, *(state[name] for name in states)), (moved, *after), strict=True):
            (torch.view_as_real(tensor) if tensor.is_complex() else tensor).copy_(torch.from_numpy(np.asarray(result)))


def array(tensor):
    """Return the real numbers of a tensor."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).numpy()


_REFERENCES = {
    one.__name__: type(one.__name__, (Reference,), {"of": one, "__module__": __name__})
    for one in OPTIMIZERS
    if one._declaration.in_torch is None
}
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
