"""find_lr: the range test of a model and a loader."""

import copy

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from support.networks import backward, network, network_with_layer_norm
from support.optimizer_pairs import torch


class Counted(torch.utils.data.Dataset):
    """Points on a plane."""

    def __len__(self):
        return 64

    def __getitem__(self, index):
        x = torch.tensor([index % 8, index // 8, 1.0, 0.5], dtype=torch.float64) / 8
        return x, torch.stack([x.sum(), x[0] - x[1]])


def test_repeats_of_find_lr_are_trained_on_other_batches():
    order = []

    class Seen(Counted):
        def __getitem__(self, index):
            order.append(index)
            return super().__getitem__(index)

    model = network(batch_norm=True)
    loader = torch.utils.data.DataLoader(Seen(), batch_size=16, shuffle=True)
    opt = torch.optim.SGD(model.parameters(), 0.1)
    lrcore.torch.find_lr(model, opt, torch.nn.functional.mse_loss, loader, end=1e-3, steps=4, repeats=3)
    repeats = [tuple(order[64 * k : 64 * (k + 1)]) for k in range(3)]
    assert len(set(repeats)) == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda params: torch.optim.SGD(params, 0.1, 0.9),
        lambda params: torch.optim.AdamW(params),
        lambda params: lrcore.torch.SGD(params, schedules.Linear(0.1, 0.0, steps=100), 0.9),
        lambda params: lrcore.torch.AdamW(params, clip_norm=1.0, average=lrcore.EMA(0.9)),
    ],
)
def test_find_lr_puts_everything_back(make):
    model = network(batch_norm=True)
    opt = make(model.parameters())
    loader = torch.utils.data.DataLoader(Counted(), batch_size=16, shuffle=True, num_workers=0)
    for _ in range(2):
        backward(model)
        opt.step()

    def all_of_it():
        saved = copy.deepcopy(opt.state_dict())
        return (model.state_dict(), saved), [group.pop("lrcore_state", None) for group in saved["param_groups"]]

    before, texts = copy.deepcopy(all_of_it())
    grads = [param.grad.clone() for param in model.parameters()]
    generators = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    result = lrcore.torch.find_lr(
        model, opt, torch.nn.functional.mse_loss, loader, start=1e-4, end=1e3, steps=40, repeats=2, accumulate=2
    )
    assert result.losses
    assert result.stopped == "diverged"
    assert result.momentum == (0.9 if isinstance(opt, torch.optim.SGD) else None)

    def fails(output, target):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lrcore.torch.find_lr(model, opt, fails, loader)
    torch.testing.assert_close(all_of_it()[0], before, rtol=0, atol=0)
    assert all_of_it()[1] == texts
    assert all(torch.equal(param.grad, grad) for param, grad in zip(model.parameters(), grads, strict=True))
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert np.random.get_state()[1].tolist() == generators[1]  # noqa: NPY002
    rate = opt.param_groups[0]["lr"]
    backward(model)
    opt.step()
    assert not hasattr(opt, "info") or opt.info.lr == rate
    assert rate == (1e-3 if isinstance(opt, torch.optim.AdamW) else 0.098 if hasattr(opt, "info") else 0.1)


class Moving(torch.nn.Module):
    """A model that puts other tensors in the place of its buffers, and has one that can't be written to."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("ones", torch.ones(1).expand(5))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.layer(x - self.mean)


def test_a_range_test_puts_back_what_a_forward_pass_replaces():
    model = Moving()
    opt = lrcore.torch.AdamW(model.parameters(), lr=0.1)
    x = torch.ones(4, 2)
    opt.zero_grad()
    model(x).sum().backward()
    opt.step()
    mean, info = model.mean, opt.info
    lrcore.torch.find_lr(model, opt, torch.nn.functional.mse_loss, [(x, torch.zeros(4, 1))], steps=20)
    assert model.mean is mean
    assert torch.equal(mean, torch.full((2,), 0.1))
    assert (opt.param_groups[0]["lr"], opt.info, opt.state[model.layer.weight]["step"]) == (0.1, info, 1)


class Smoothed(torch.nn.Module):
    """A loss with a buffer, the average of its values."""

    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.zeros(()))

    def forward(self, output, target):
        loss = torch.nn.functional.mse_loss(output, target)
        self.average.mul_(0.9).add_(0.1 * loss.detach())
        return loss


def test_short_runs_of_a_model_put_back_the_loss_and_the_generators_of_samplers():
    model, loss = network(), Smoothed()
    opt = torch.optim.AdamW(model.parameters())
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    sampler = torch.utils.data.RandomSampler(Counted(), generator=generators[0])
    loaders = [
        torch.utils.data.DataLoader(Counted(), batch_size=16, sampler=sampler, generator=generators[1]),
        torch.utils.data.DataLoader(
            Counted(), batch_sampler=torch.utils.data.BatchSampler(sampler, 8, drop_last=False), generator=generators[1]
        ),
    ]
    before = copy.deepcopy(model.state_dict())
    for loader in loaders:
        states = [generator.get_state() for generator in generators]
        result = lrcore.torch.find_lr(model, opt, loss, loader, run_length=500, progress=False)
        assert result.runs
        assert result.long_run == lrcore.AdamW._declaration.long_run
        assert loss.average == 0.0
        assert all(torch.equal(g.get_state(), state) for g, state in zip(generators, states, strict=True))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert not opt.state
    assert model.training


def test_each_run_begins_without_the_gradients_of_the_one_before():
    results = []
    for has_grads in (False, True):
        torch.manual_seed(0)
        model = network()
        opt = torch.optim.SGD(model.parameters())
        if has_grads:
            backward(model)
        batches = [tuple(torch.stack(part) for part in zip(*[Counted()[i] for i in range(16)], strict=True))]
        grads = [param.grad if param.grad is None else param.grad.clone() for param in model.parameters()]
        results.append(lrcore.torch.find_lr(model, opt, torch.nn.functional.mse_loss, batches, progress=False))
        for param, grad in zip(model.parameters(), grads, strict=True):
            assert (param.grad is None) == (grad is None)
            assert grad is None or torch.equal(param.grad, grad)
    assert results[0].stopped == "diverged"
    assert results[0].runs
    assert results[0] == results[1]


def test_find_lr_refuses_a_model_that_is_not_the_optimizers():
    model, other = network_with_layer_norm(), network_with_layer_norm()
    batches = [(torch.ones(4, 3), torch.zeros(4, 2))]
    for opt in (lrcore.torch.SGD(other.parameters(), lr=0.1), torch.optim.SGD(other.parameters(), lr=0.1)):
        with pytest.raises(ValueError, match="none of them is one of the model's 4"):
            lrcore.torch.find_lr(model, opt, torch.nn.functional.mse_loss, batches, progress=False)
    head = torch.optim.SGD(model[1].parameters(), lr=0.1)
    lrcore.torch.find_lr(model, head, torch.nn.functional.mse_loss, batches, steps=10, progress=False)
    with pytest.raises(TypeError, match=r"the batches are one argument"):
        lrcore.torch.find_lr(model, head, torch.nn.functional.mse_loss, torch.ones(4, 3), torch.zeros(4, 2))
    with pytest.raises(TypeError, match="model must be a module"):
        lrcore.torch.find_lr(model.parameters(), head, torch.nn.functional.mse_loss, batches)


def test_find_lr_warns_of_parameters_that_are_neither_the_models_nor_the_losss():
    model, other = network_with_layer_norm(), network_with_layer_norm()
    batches = [(torch.ones(4, 3), torch.zeros(4, 2))]
    opt = torch.optim.SGD([*model.parameters(), *other[0].parameters()], lr=0.1)
    with pytest.warns(UserWarning, match="find_lr: 2 of the 6 parameters of opt are not the model's") as caught:
        lrcore.torch.find_lr(model, opt, torch.nn.functional.mse_loss, batches, steps=10)
    assert [warning.filename for warning in caught] == [__file__]

    class Weighted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, output, target):
            return self.scale.square() * torch.nn.functional.mse_loss(output, target)

    loss = Weighted()
    opt = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1)
    lrcore.torch.find_lr(model, opt, loss, batches, steps=10)
