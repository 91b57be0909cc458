"""A drop-in and PyTorch's own optimizer side by side: equal parameters, equal arguments, equal gradients.

Whatever imports this is skipped where PyTorch is not installed.
"""

import copy
import inspect
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import lrcore.torch as drop_ins  # noqa: E402
from support.cases import FULL, NAMES  # noqa: E402
from support.counterparts import counterpart, for_loop  # noqa: E402

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
STEPS = 20
# In units of the last place of a tensor's scale: what rounding in another order may add up to in that many steps.
ULPS = 16
WIDE = {torch.float64, torch.complex128}
# A claim that is made of PyTorch's classes too does not ask for more than they do.
BOTH = [kind for find in (partial(getattr, drop_ins), counterpart) for kind in map(find, NAMES)]


def label(kind):
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__}"


each = pytest.mark.parametrize("kind", BOTH, ids=label)
named = pytest.mark.parametrize("name", NAMES)


def copied(tensor):
    """Return a leaf of the same numbers and strides, in memory of its own, that is trained if the tensor is."""
    own = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype).copy_(tensor.detach())
    return own.requires_grad_(tensor.requires_grad)


def copied_groups(params):
    """Return parameters, pairs of a name and a parameter, or groups of either, with a copy of each parameter."""
    if isinstance(params, dict):
        return {key: copied_groups(value) if key == "params" else copy.deepcopy(value) for key, value in params.items()}
    if isinstance(params, tuple):
        return params[0], copied(params[1])
    return copied(params) if isinstance(params, torch.Tensor) else [copied_groups(one) for one in params]


def weights_of(opt):
    return [param for group in opt.param_groups for param in group["params"]]


def parameter(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.Parameter(torch.randn(shape, dtype=dtype, generator=generator))


def parameters(dtype=torch.float64):
    return [parameter(3, 2, dtype=dtype), parameter(4, dtype=dtype, seed=1), parameter(dtype=dtype, seed=2)]


def named_parameters():
    return [(f"layer.{i}", param) for i, param in enumerate(parameters())]


def full(kind, params=None):
    return kind(parameters() if params is None else params, **FULL[kind.__name__])


def values_of(opt):
    """Return a copy of the weights as they are now."""
    return [param.detach().clone() for param in weights_of(opt)]


def gradients(opt, seed):
    """Return a random gradient for each parameter, in a memory order that differs from step to step."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for param in weights_of(opt):
        grad = torch.randn(param.shape, dtype=param.dtype, generator=generator)
        if seed % 4 == 1:
            grad = torch.empty_like(param.detach()).copy_(grad)
        elif seed % 4 == 2:
            grad = grad.movedim(0, -1).contiguous().movedim(-1, 0) if grad.dim() else grad
        elif seed % 4 == 3:
            grad = grad[:1].expand(param.shape) if grad.dim() and grad.shape[0] else grad
        made.append(grad)
    return made


def give(opt, grads):
    for param, grad in zip(weights_of(opt), grads, strict=True):
        param.grad = None if grad is None else grad.clone(memory_format=torch.preserve_format)


def train(opt, steps):
    for seed in steps:
        give(opt, gradients(opt, seed))
        opt.step()


class Pair:
    """A drop-in, ``ours``, and PyTorch's optimizer, ``theirs``."""

    def __init__(self, name, params, /, **arguments):
        """Make both of them. Flags among the arguments are for the drop-in: the other one keeps to its for-loop."""
        known = inspect.signature(counterpart(name)).parameters
        plain = {key: value for key, value in arguments.items() if key in known}
        self.ours = getattr(drop_ins, name)(copied_groups(params), **copy.deepcopy(arguments))
        self.theirs = counterpart(name)(copied_groups(params), **copy.deepcopy(plain) | for_loop(name))
        # A running mean or a weight may come close to 0, and then has the rounding of what it was.
        self._scales = {}
        self._note_scales()

    @property
    def both(self):
        return self.ours, self.theirs

    def step(self, grads):
        for opt in self.both:
            give(opt, grads)
            opt.step()
        self._note_scales()

    def train(self, steps):
        for seed in steps:
            self.step(gradients(self.theirs, seed))

    def assert_agree(self):
        """Raise if weights or states differ: by name, dtype, shape, strides, or value."""
        for place, (own, other) in self._tensors().items():
            assert (own.dtype, own.shape) == (other.dtype, other.shape)
            # The buffers of PyTorch's SGD begin as copies of gradients, and have their strides.
            assert own.stride() == other.stride() or isinstance(self.theirs, torch.optim.SGD)
            if own.dtype in WIDE:
                assert largest(own - other) <= ULPS * np.spacing(self._scales[place])
            else:
                torch.testing.assert_close(own, other)

    def _note_scales(self):
        for place, (_, other) in self._tensors().items():
            self._scales[place] = max(self._scales.get(place, 0.0), largest(other))

    def _tensors(self):
        """Return pairs of tensors, ours and theirs, by parameter and name."""
        found = {}
        for i, (own, other) in enumerate(zip(*map(weights_of, self.both), strict=True)):
            found[i, "weight"] = own.detach(), other.detach()
            state, expected = self.ours.state.get(own, {}), self.theirs.state.get(other, {})
            assert state.keys() == expected.keys()
            found |= {(i, key): (state[key], expected[key]) for key in state}
        return found


def largest(tensor):
    """Return the largest magnitude of a number, be it a part of a complex one; 0 without any."""
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return float(tensor.abs().max()) if tensor.numel() else 0.0


def assert_same(opt, other):
    """Raise if weights or state of two optimizers differ in a bit."""
    for param, twin in zip(weights_of(opt), weights_of(other), strict=True):
        torch.testing.assert_close(param, twin, rtol=0, atol=0)
        torch.testing.assert_close(opt.state.get(param, {}), other.state.get(twin, {}), rtol=0, atol=0)
