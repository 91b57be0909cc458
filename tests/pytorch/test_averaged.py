"""Averages in the place of weights: what is refused meanwhile, and the buffers of the model."""

import copy
import pickle

import pytest

import lrcore
from lrcore.torch import find_lr, from_torch
from support.networks import assert_same_weights, backward, network, take_step
from support.optimizer_pairs import drop_ins, torch

NOW = "^the weights are averages now; leave the with block of averaged\\(\\) first$"


def relu_network():
    torch.manual_seed(0)
    layers = torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 1)
    return torch.nn.Sequential(*layers)


def batches(count=5):
    rng = torch.Generator().manual_seed(1)
    return [(torch.randn(16, 4, generator=rng) * 3 + 1, torch.randn(16, 1, generator=rng)) for _ in range(count)]


def trained(steps=6, **options):
    model = relu_network()
    opt = drop_ins.Adam(model.parameters(), lr=0.05, **{"average": lrcore.EMA(0.9), **options})
    data = batches()
    for step in range(steps):
        inputs, targets = data[step % len(data)]
        opt.zero_grad()
        (model(inputs) - targets).square().mean().backward()
        opt.step()
    return model, opt


def bits(model):
    return {name: (tensor.data_ptr(), tensor.numpy().tobytes()) for name, tensor in model.state_dict().items()}


WAYS_OUT = {
    "pickle": pickle.dumps,
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "state_dict": lambda opt: opt.state_dict(),
    "load_state_dict": lambda opt: opt.load_state_dict({"state": {}, "param_groups": []}),
    "step": lambda opt: opt.step(),
    "add_param_group": lambda opt: opt.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]}),
    "averaged": lambda opt: opt.averaged().__enter__(),
    "torch.save": lambda opt: torch.save(opt, "/dev/null"),
    "new": lambda opt: drop_ins.SGD(opt.param_groups[0]["params"], lr=0.1),
    "from_torch": lambda opt: from_torch(torch.optim.SGD(opt.param_groups[0]["params"], lr=0.1)),
    "torch's step": lambda opt: torch.optim.SGD(opt.param_groups[0]["params"], lr=0.1).step(),
    "find_lr": lambda opt: find_lr(relu_network(), opt, torch.nn.functional.mse_loss, batches()),
}


@pytest.mark.parametrize("way", WAYS_OUT.values(), ids=WAYS_OUT)
def test_averages_neither_leave_as_weights_nor_are_trained(way):
    model, opt = trained()
    before = bits(model)
    with opt.averaged(), pytest.raises(RuntimeError, match=NOW):
        way(opt)
    assert bits(model) == before
    if way not in (WAYS_OUT["load_state_dict"], WAYS_OUT["find_lr"]):  # of nothing, and of another model
        opt.zero_grad()
        way(opt)


def test_another_model_is_trained_within_the_block():
    _, opt = trained()
    other = torch.nn.Linear(1, 1)
    own = torch.optim.SGD(other.parameters(), lr=0.1)
    other(torch.ones(1, 1)).backward()
    with opt.averaged():
        own.step()
        drop_ins.SGD(other.parameters(), lr=0.1).step()


def test_statistics_are_those_of_torch_for_the_averages_and_put_back():
    model, opt = trained()
    model[1].momentum = 0.3
    model[2].eval()
    before = bits(model)
    want = copy.deepcopy(model)
    with torch.no_grad():
        for param, average in zip(want.parameters(), opt.average.values(), strict=True):
            param.copy_(average)
    torch.optim.swa_utils.update_bn(batches(3), want)
    with opt.averaged(model, update_bn=batches(3)) as inside:
        assert inside is opt
        torch.testing.assert_close(model.state_dict(), want.state_dict(), rtol=0, atol=0)
        assert model.training
        assert not model[2].training
        assert model[1].momentum == 0.3
        model(batches()[0][0])  # in training mode: it changes them once more
    assert bits(model) == before


def test_a_model_alone_has_its_buffers_put_back():
    model, opt = trained()
    before, mean = bits(model), model[1].running_mean
    with opt.averaged(model):
        torch.optim.swa_utils.update_bn(batches(), model)
        model[1].running_mean = torch.full((8,), 7.0)
        model[1].running_var.fill_(torch.nan)
    assert model[1].running_mean is mean
    assert bits(model) == before


def test_zeros_keep_their_signs():
    model, opt = trained()
    model[1].running_mean.fill_(-0.0)
    with opt.averaged(model):
        model[1].running_mean.fill_(0.0)
    assert model[1].running_mean.signbit().all()


def test_without_a_model_buffers_are_left_alone():
    model, opt = trained()
    with opt.averaged():
        model[1].running_mean.fill_(7.0)
    assert (model[1].running_mean == 7.0).all()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["loader", "block"])
def test_all_is_put_back_after_an_exception(error, where):
    model, opt = trained()
    before = bits(model)

    def failing():
        yield from batches(2)
        raise error

    def evaluate():
        with opt.averaged(model, update_bn=failing() if where == "loader" else batches()):
            raise error

    with pytest.raises(error):
        evaluate()
    assert bits(model) == before
    assert (model[1].momentum, model.training, model[1].training) == (0.1, True, True)
    opt.step()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (lambda _: (None, batches()), ValueError, "^averaged: update_bn needs the model"),
        (
            lambda _: (relu_network(), batches()),
            ValueError,
            "^averaged: model must be that of the optimizer; Sequential",
        ),
        (lambda _: (batches(),), TypeError, r"^averaged: model must be a torch.nn.Module, got list$"),
        (lambda model: (model, []), ValueError, "^averaged: update_bn has no batch"),
    ],
    ids=["no model", "another model", "no module", "no batch"],
)
def test_arguments_that_mean_nothing_are_errors_that_change_nothing(arguments, error, message):
    model, opt = trained()
    before = bits(model)
    with pytest.raises(error, match=message):
        opt.averaged(*arguments(model)).__enter__()
    assert bits(model) == before
    opt.step()


def test_a_model_without_batch_norms_needs_no_batches():
    model = torch.nn.Linear(2, 1)
    opt = drop_ins.SGD(model.parameters(), lr=0.1, average=lrcore.SWA())
    model(torch.ones(1, 2)).backward()
    opt.step()
    with opt.averaged(model, update_bn=batches()):
        pass


def test_the_average_is_that_of_averaged_model_and_goes_in_and_out():
    model = network(batch_norm=True)
    opt = lrcore.torch.Adam(model.parameters(), average=lrcore.EMA(0.9))
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    for _ in range(6):
        backward(model)
        opt.step()
        averaged.update_parameters(model)
    own = [param.detach().clone() for param in model.parameters()]
    with opt.averaged():
        assert_same_weights(averaged.module, model)
        with pytest.raises(RuntimeError, match="the weights are averages now"):
            opt.step()
    assert all(torch.equal(param, one) for param, one in zip(model.parameters(), own, strict=True))
    assert list(opt.average) == [f"0.{i}" for i in range(6)]


def averaging():
    """Three weights that differ from their averages."""
    weights = [torch.nn.Parameter(torch.ones(2, 3)) for _ in range(3)]
    opt = lrcore.torch.SGD(weights, 1.0, average=lrcore.EMA(0.5))
    for _ in range(2):
        for weight in weights:
            weight.grad = torch.ones(2, 3)
        opt.step()
    return weights, opt


def test_every_weight_that_can_be_is_put_back():
    weights, opt = averaging()
    before = [weight.detach().clone() for weight in weights]

    def evaluate():
        with opt.averaged():
            weights[2].data = torch.zeros(4, 2, 3)

    message = r"^the weight '0.2' could not be put back .* was \(2, 3\), and is \(4, 2, 3\) now$"
    with pytest.raises(RuntimeError, match=message):
        evaluate()
    assert torch.equal(weights[0], before[0])
    assert torch.equal(weights[1], before[1])


def test_nothing_is_swapped_in_if_one_weight_can_not_be():
    weights, opt = averaging()
    before = [weight.detach().clone() for weight in weights]
    weights[1].data = torch.zeros(4, 2, 3)
    with pytest.raises(ValueError, match=r"^the weight '0.1' has shape \(4, 2, 3\), its average has \(2, 3\)$"):
        opt.averaged().__enter__()
    assert torch.equal(weights[0], before[0])
    assert torch.equal(weights[2], before[2])


def test_weights_of_inference_mode_are_not_swapped_outside_of_it():
    with torch.inference_mode():
        weights, opt = averaging()
        before = [weight.clone() for weight in weights]
        with opt.averaged():
            assert not torch.equal(weights[0], before[0])
        assert torch.equal(weights[0], before[0])
    with pytest.raises(RuntimeError, match="created under torch"):
        opt.averaged().__enter__()
    assert torch.equal(weights[0], before[0])


def test_the_averages_go_out_again_whatever_was_done_within():
    model = torch.nn.Linear(3, 2)
    opt = lrcore.torch.SGD(model.parameters(), lr=0.1, average=lrcore.EMA(0.5))
    for _ in range(3):
        take_step(opt)
    own = model.weight.detach().clone()
    with opt.averaged():
        assert not torch.equal(model.weight, own)
        model.double()
    assert torch.equal(model.weight, own.double())
    model.float()
    with opt.averaged():
        opt.state[model.bias] = dict(opt.state[model.bias])
        with pytest.raises(RuntimeError, match="the weights are averages now"):
            opt.step()
    assert torch.equal(model.weight, own)
