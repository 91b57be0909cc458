"""Gradient scalers: the step divides by the scale, and skips where the scaler says so."""

import inspect
import math

import pytest

import lrcore
from support.networks import assert_same_weights, train_with_both, vector
from support.optimizer_pairs import (
    assert_same,
    counterpart,
    drop_ins,
    give,
    gradients,
    label,
    named,
    parameters,
    torch,
    values_of,
)
from support.rows import each


@pytest.mark.parametrize("unscales", [False, True])
@named
def test_a_grad_scaler_leaves_the_scale_to_the_step(name, unscales):
    def act(model, opt):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
        x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)
        for number in range(6):
            opt.zero_grad()
            loss = model(x).square().mean()
            scaler.scale(loss).backward()
            if number == 3:
                model[0].weight.grad[0, 0] = float("inf")
            if unscales:
                scaler.unscale_(opt)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            scaler.step(opt)
            scaler.update()

    assert_same_weights(*train_with_both(name, act))


def has_fused(kind):
    return "fused" in inspect.signature(kind).parameters


def fused_of(name, **_):
    """The drop-in, and what it replaces if that has a fused step."""
    kinds = [getattr(drop_ins, name), counterpart(name)]
    return [kind for kind in kinds if kind.__module__.startswith("lrcore.") or has_fused(kind)]


@named
@each("kind", fused_of, ids=label)
@pytest.mark.parametrize("attributes", [("grad_scale", "found_inf"), ("grad_scale",), ("found_inf",)], ids=str)
@pytest.mark.parametrize("overflow", [True, False])
def test_a_step_heeds_what_a_gradient_scaler_found(name, kind, attributes, overflow):
    # These are how the scaler tells a fused optimizer of PyTorch.
    flags = {"fused": True} if has_fused(kind) else {}
    opt, twin = (kind(parameters(torch.float32), lr=0.1, **flags) for _ in range(2))
    before = values_of(opt)
    values = {"grad_scale": torch.tensor(4.0), "found_inf": torch.tensor(float(overflow))}
    for attribute in attributes:
        setattr(opt, attribute, values[attribute])
    grads = gradients(opt, 0)
    scale = 4.0 if "grad_scale" in attributes else 1.0
    give(opt, [grad * scale for grad in grads])
    opt.step()
    if overflow and "found_inf" in attributes:
        torch.testing.assert_close(before, values_of(opt), rtol=0, atol=0)
        return
    give(twin, grads)
    twin.step()
    assert_same(opt, twin)


def test_a_step_that_the_scaler_leaves_out_says_so():
    param = vector()
    opt = lrcore.torch.AdamW([param])
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale((param * float("inf")).sum()).backward()
    scaler.step(opt)
    assert (opt.info.applied, opt.info.step) == (False, 0)


def test_a_step_that_a_grad_scaler_skips_has_an_empty_table():
    for stats in (False, True):
        opt = lrcore.torch.SGD([torch.nn.Parameter(torch.ones(2))], stats=stats)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        weight = opt.param_groups[0]["params"][0]
        scaler.scale(weight.sum() * math.inf).backward()
        scaler.step(opt)
        assert not opt.info.applied
        assert opt.info.stats == ({} if stats else None)
