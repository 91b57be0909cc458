"""Scaling rules of a learning lr, of hyperparameters, and of an optimizer."""

import math
import re

import numpy as np
import pytest

import lrcore
from lrcore import scaling, schedules


@pytest.mark.parametrize(("rule", "factor"), [(scaling.linear, 4.0), (scaling.sqrt, 2.0)])
def test_a_learning_rate_may_be_a_number_a_schedule_or_in_a_mapping(rule, factor):
    lr = schedules.Cosine(0.1, steps=10).warmup(2)
    assert rule(0.1, 32, 128) == 0.1 * factor
    assert (rule(lr, 32, 128).values(12) == lr.values(12) * factor).all()
    assert rule({"lr": 0.1, "momentum": 0.9}, 32, 128) == {"lr": 0.1 * factor, "momentum": 0.9}
    assert rule(0.1, 128, 32) == 0.1 / factor
    assert rule(0.1, 32, 32) == 0.1


def test_adam_sde_matches_the_paper():
    new = scaling.adam_sde({"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}, 10, 40)
    assert new["lr"] == pytest.approx(2e-3)
    assert new["betas"] == pytest.approx((1 - 4 * 0.1, 1 - 4 * 0.001))
    assert new["eps"] == pytest.approx(5e-9)
    assert new["weight_decay"] == 0.1
    assert scaling.adam_sde({"lr": 1.0, "alpha": 0.99}, 1, 9) == pytest.approx({"lr": 3.0, "alpha": 0.91})


def test_scaling_back_restores_the_values():
    start = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}
    back = scaling.adam_sde(scaling.adam_sde(start, 32, 128), 128, 32)
    assert back["lr"] == pytest.approx(start["lr"])
    assert back["betas"] == pytest.approx(start["betas"])
    assert back["eps"] == pytest.approx(start["eps"])


def test_the_groups_of_an_optimizer_are_scaled():
    groups = [{"params": [np.ones(2)]}, {"params": [np.ones(2)], "lr": schedules.Constant(0.2), "betas": (0.8, 0.99)}]
    opt = lrcore.AdamW(groups, lr=0.1)
    assert scaling.adam_sde(opt, 32, 64) is opt
    first, second = opt.hyperparameters()
    assert (first["lr"], second["lr"]) == pytest.approx((0.1 * math.sqrt(2), 0.2 * math.sqrt(2)))
    assert second["betas"] == pytest.approx((0.6, 0.98))
    assert opt.step([[np.ones(2)], [np.ones(2)]]).lr == pytest.approx(0.1 * math.sqrt(2))


REFUSED = [
    (lambda: scaling.linear(0.1, 0, 1), ValueError, "old_batch must be >= 1, got 0"),
    (lambda: scaling.linear(0.1, 1, 1.5), TypeError, "new_batch must be a whole number >= 1, got 1.5"),
    (lambda: scaling.linear(-0.1, 1, 2), ValueError, "lr must be in [0, inf), got -0.1"),
    (lambda: scaling.linear("0.1", 1, 2), TypeError, "lr must be a number in [0, inf), got '0.1'"),
    (lambda: scaling.sqrt({}, 1, 2), ValueError, "hyperparameters must have 'lr', got none"),
    (
        lambda: scaling.adam_sde(0.1, 1, 2),
        TypeError,
        "adam_sde: hyperparameters must be a mapping or",
    ),
    (
        lambda: scaling.adam_sde({"lr": 1}, 1, 2),
        ValueError,
        "adam_sde: hyperparameters must have betas or alpha",
    ),
    (
        lambda: scaling.adam_sde({"lr": 1, "betas": (0.9, 0.9)}, 1, 20),
        ValueError,
        "adam_sde: betas[0] must be >= 0.95",
    ),
    (
        lambda: scaling.adam_sde({"lr": 1, "betas": (schedules.Constant(0.9), 0.9)}, 1, 2),
        TypeError,
        "adam_sde: betas[0] must be a number, got Constant(value=0.9)",
    ),
]


@pytest.mark.parametrize(("call", "exception", "message"), REFUSED, ids=[message[:40] for *_, message in REFUSED])
def test_invalid_arguments_are_rejected(call, exception, message):
    with pytest.raises(exception, match=f"^{re.escape(message)}"):
        call()


def test_an_optimizer_with_one_invalid_group_is_unchanged():
    opt = lrcore.Adam([{"params": [np.ones(2)]}, {"params": [np.ones(2)], "betas": (0.5, 0.9)}], lr=0.1)
    before = [group.hyperparameters for group in opt.param_groups]
    with pytest.raises(ValueError, match="adam_sde"):
        scaling.adam_sde(opt, 32, 128)
    assert [group.hyperparameters for group in opt.param_groups] == before


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def two_groups(torch, make, **second):
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    return make([{"params": params[:1]}, {"params": params[1:], **second}])


def stepped(opt):
    for group in opt.param_groups:
        for param in group["params"]:
            param.grad = param.detach().clone()
    opt.step()


@pytest.mark.parametrize("home", ["torch.optim", "lrcore.torch"])
def test_groups_of_pytorch_are_scaled_alike(torch, home):
    adamw = pytest.importorskip(home).AdamW
    opt = two_groups(torch, lambda groups: adamw(groups, lr=0.1), lr=0.2, betas=[0.8, 0.99])
    assert scaling.adam_sde(opt, 32, 64) is opt
    first, second = opt.param_groups
    assert (first["lr"], second["lr"]) == pytest.approx((0.1 * math.sqrt(2), 0.2 * math.sqrt(2)))
    assert (first["betas"], second["betas"]) == (pytest.approx((0.8, 0.998)), pytest.approx((0.6, 0.98)))
    assert first["eps"] == pytest.approx(1e-8 / math.sqrt(2))
    assert first["weight_decay"] == 0.01
    stepped(opt)
    assert scaling.linear(opt, 64, 32).param_groups[0]["lr"] == pytest.approx(0.05 * math.sqrt(2))
    sgd = two_groups(torch, lambda groups: pytest.importorskip(home).SGD(groups, lr=0.1, momentum=0.9))
    assert [group["lr"] for group in scaling.sqrt(sgd, 1, 4).param_groups] == [0.2, 0.2]
    assert sgd.param_groups[0]["momentum"] == 0.9


def test_schedules_in_groups_of_lrcore_torch_are_scaled(torch):
    own = pytest.importorskip("lrcore.torch")
    lr = schedules.Linear(0.4, 0.0, steps=4)
    opt = two_groups(torch, lambda groups: own.AdamW(groups, lr=lr), lr=0.5)
    stepped(opt)
    scaling.adam_sde(opt, 1, 4)
    assert [group["lr"] for group in opt.param_groups] == [2 * lr(1), 1.0]
    stepped(opt)
    assert opt.info.lr == 2 * lr(1)
    assert opt.param_groups[0]["betas"] == pytest.approx((0.6, 0.996))
    stepped(opt)
    assert opt.info.lr == 2 * lr(2)


def test_a_tensor_learning_rate_is_scaled_in_place(torch):
    lr, betas = torch.tensor(0.125), (torch.tensor(0.75), torch.tensor(0.875))
    opt = two_groups(torch, lambda groups: torch.optim.Adam(groups, lr=lr, betas=betas, foreach=False))
    scaling.adam_sde(opt, 1, 4 // 2)
    for group in opt.param_groups:
        assert isinstance(group["lr"], torch.Tensor)
        assert float(group["lr"]) == pytest.approx(0.125 * math.sqrt(2))
        assert list(map(float, group["betas"])) == [0.5, 0.75]
    assert opt.param_groups[0]["lr"] is lr


def test_learning_rates_of_schedulers_in_groups_are_scaled(torch):
    schedulers = torch.optim.lr_scheduler
    for make, goes_on in [
        (lambda opt: schedulers.StepLR(opt, 2), 4.0),
        (lambda opt: schedulers.OneCycleLR(opt, 1.0, total_steps=10), 4.0),
        (lambda opt: schedulers.LambdaLR(opt, lambda step: 0.5**step), 1.0),  # it keeps base_lrs
    ]:
        plain, scaled = (two_groups(torch, lambda groups: torch.optim.SGD(groups, lr=0.1)) for _ in range(2))
        both = [(opt, make(opt)) for opt in (plain, scaled)]
        for taken in range(4):
            if taken == 1:
                scaling.linear(scaled, 1, 4)
            for opt, scheduler in both:
                stepped(opt)
                scheduler.step()
        assert scaled.param_groups[1]["lr"] == pytest.approx(goes_on * plain.param_groups[1]["lr"])
        again = schedulers.LambdaLR(scaled, lambda _: 1.0)
        assert again.base_lrs == pytest.approx([4 * group["initial_lr"] for group in plain.param_groups])


@pytest.mark.parametrize("home", ["torch.optim", "lrcore.torch"])
def test_a_pytorch_optimizer_with_one_invalid_group_is_unchanged(torch, home):
    adam = pytest.importorskip(home).Adam
    opt = two_groups(torch, lambda groups: adam(groups, lr=torch.tensor(0.1), foreach=False), betas=(0.5, 0.9))
    before = [{**group, "lr": float(group["lr"])} for group in opt.param_groups]
    with pytest.raises(ValueError, match=re.escape("betas[0] must be >= 0.75 for 4 times the batch, got 0.5")):
        scaling.adam_sde(opt, 32, 128)
    assert [{**group, "lr": float(group["lr"])} for group in opt.param_groups] == before
    del opt.param_groups[1]["lr"]
    with pytest.raises(ValueError, match=r"^param_groups\[1\] must have 'lr', got params, betas"):
        scaling.linear(opt, 32, 128)
    assert float(opt.param_groups[0]["lr"]) == before[0]["lr"]
