"""A small network, trained with PyTorch's optimizer and with the drop-in.

Whatever imports this is skipped where PyTorch is not installed.
"""

import pytest

from support.optimizer_pairs import FULL, counterpart, drop_ins, for_loop

torch = pytest.importorskip("torch", minversion="2.10")


def network(dtype=torch.float64, *, batch_norm=False):
    torch.manual_seed(0)
    normalisation = [torch.nn.BatchNorm1d(8)] if batch_norm else []
    return torch.nn.Sequential(torch.nn.Linear(4, 8), *normalisation, torch.nn.Tanh(), torch.nn.Linear(8, 2)).to(dtype)


def network_with_layer_norm():
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))


def backward(model):
    model.zero_grad()
    x = torch.linspace(-1, 1, 12, dtype=next(model.parameters()).dtype).reshape(3, 4)
    model(x).square().mean().backward()


def train_network(model, opt, steps):
    for _ in range(steps):
        backward(model)
        opt.step()


def train_with_both(name, act):
    """Do the same with PyTorch's optimizer and the drop-in, and return both networks."""
    models = []
    for kind, flags in ((counterpart(name), for_loop(name)), (getattr(drop_ins, name), {})):
        model = network()
        act(model, kind(model.parameters(), **FULL[name], **flags))
        models.append(model)
    return models


def assert_same_weights(first, second, rtol=1e-12, atol=1e-13):
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=rtol, atol=atol)


def vector(*values):
    return torch.nn.Parameter(torch.tensor(values or (1.0, 2.0, 3.0)))


def take_step(opt, grad=1.0):
    """Take a step with gradients that are this number everywhere."""
    for group in opt.param_groups:
        for param in group["params"]:
            param.grad = torch.full_like(param, grad)
    opt.step()


def assert_libraries_agree(act):
    """Do the same with both libraries, and compare what it returns."""
    torch.testing.assert_close(act(drop_ins), act(torch.optim))
