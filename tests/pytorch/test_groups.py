"""Groups of parameters, and numbers that change between steps."""

import pytest

import lrcore
from lrcore import schedules
from support.optimizer_pairs import (
    FULL,
    Pair,
    assert_same,
    copied_groups,
    drop_ins,
    each,
    full,
    named,
    named_parameters,
    parameter,
    parameters,
    torch,
    train,
    weights_of,
)


@named
@pytest.mark.parametrize("own", [{"lr": 0.03}, {"lr": 0.0}, {"weight_decay": 0.3}, {"weight_decay": 0.0}], ids=str)
def test_a_group_may_have_hyperparameters_of_its_own(name, own):
    pair = Pair(name, [{"params": parameters(), **own}, {"params": [parameter(5)]}], **FULL[name])
    pair.train(range(10))
    pair.assert_agree()


@named
@pytest.mark.parametrize("with_names", [True, False])
def test_a_group_that_is_added_joins_in(name, with_names):
    first, second = named_parameters(), [("head", parameter(5))]
    if not with_names:
        first, second = ([param for _, param in pairs] for pairs in (first, second))
    pair = Pair(name, first, **FULL[name])
    pair.train(range(5))
    for opt in pair.both:
        opt.add_param_group({"params": copied_groups(second), "lr": 0.02})
    pair.train(range(5, 10))
    pair.assert_agree()
    groups = [opt.param_groups[1] for opt in pair.both]
    assert groups[0].keys() == groups[1].keys()
    assert groups[0].get("param_names") == (["head"] if with_names else None)


def test_accumulators_of_adagrad_start_from_the_constructors_value_in_every_group():
    pair = Pair("Adagrad", [{"params": parameters(), "initial_accumulator_value": 0.5}], initial_accumulator_value=0.1)
    for opt in pair.both:
        opt.add_param_group({"params": [parameter(5)], "initial_accumulator_value": 0.7})
    pair.train(range(3))
    pair.assert_agree()
    for opt in pair.both:
        opt.state.clear()
    pair.train(range(3))
    pair.assert_agree()


def no_leaf():
    return parameter(3) * 2


@each
@pytest.mark.parametrize(
    ("group", "kind_of_error", "message"),
    [
        (lambda opt: {"params": weights_of(opt)[0]}, ValueError, "some parameters appear in more than one"),
        (lambda _: {"params": [("name", parameter(3))]}, ValueError, "should be with/without names"),
        (lambda _: {"params": {parameter(3)}}, TypeError, "ordered collections"),
        (lambda _: {"params": [no_leaf()]}, ValueError, "can't optimize a non-leaf Tensor"),
        (lambda _: {"params": [3.0]}, TypeError, "optimizer can only optimize Tensors"),
        (lambda _: [parameter(3)], TypeError, "param_group must be a dict"),
    ],
    ids=["twice", "named", "set", "non-leaf", "number", "list"],
)
def test_a_wrong_group_is_refused_and_leaves_the_others(kind, group, kind_of_error, message):
    opt, twin = full(kind), full(kind)
    with pytest.raises(kind_of_error, match=message):
        opt.add_param_group(group(opt))
    assert len(opt.param_groups) == 1
    for one in (opt, twin):
        train(one, range(3))
    assert_same(opt, twin)


@each
def test_a_wrong_list_of_parameters_is_refused(kind):
    for params, error, message in [
        ([], ValueError, "empty parameter list"),
        (parameter(3), TypeError, "should be an iterable"),
        ([no_leaf()], ValueError, "can't optimize a non-leaf Tensor"),
    ]:
        with pytest.raises(error, match=message):
            kind(params)


@named
def test_a_tensor_that_is_no_leaf_moves_if_it_keeps_its_gradient(name):
    moved = []
    for kind in (getattr(drop_ins, name), getattr(torch.optim, name)):
        weight = no_leaf()
        weight.retain_grad()
        opt = full(kind, [weight])
        weight.square().sum().backward()
        opt.step()
        moved.append(weight.detach())
    torch.testing.assert_close(*moved, rtol=1e-15, atol=0)


def tensor_rate(*shape):
    return torch.full(shape, 0.1, dtype=torch.float64)


@named
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)], ids=str)
def test_a_rate_that_is_a_tensor_may_change_in_place(name, shape):
    rates = [tensor_rate(*shape) for _ in range(2)]
    pair = Pair(name, parameters())
    for opt, rate in zip(pair.both, rates, strict=True):
        opt.param_groups[0]["lr"] = rate
    for step in range(12):
        pair.train([step])
        if step % 3 == 0:
            for rate in rates:
                rate.mul_(0.5)
    pair.assert_agree()
    assert all(opt.param_groups[0]["lr"] is rate for opt, rate in zip(pair.both, rates, strict=True))


@named
def test_a_scheduler_changes_a_rate_that_is_a_tensor_in_place(name):
    pair = Pair(name, parameters(), lr=tensor_rate())
    rate = pair.ours.param_groups[0]["lr"]
    followers = [torch.optim.lr_scheduler.ExponentialLR(opt, 0.5) for opt in pair.both]
    for step in range(6):
        pair.train([step])
        for follower in followers:
            follower.step()
    pair.assert_agree()
    assert pair.ours.param_groups[0]["lr"] is rate
    assert rate.item() == 0.1 * 0.5**6


@named
def test_any_number_of_a_group_may_change_between_steps(name):
    pair = Pair(name, parameters(), **FULL[name])
    for step in range(12):
        for opt in pair.both:
            group = opt.param_groups[0]
            group["lr"] *= 0.9
            group["weight_decay"] += 0.01
            group["maximize"] = step % 4 == 3
            if "betas" in group:
                group["betas"] = (0.5 + step / 40, 0.9)
        pair.train([step])
    pair.assert_agree()


@each
def test_a_scheduler_after_the_step_does_not_warn_and_before_it_does(kind):
    opt = full(kind)
    follower = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 0.9**step)
    for step in range(3):
        train(opt, [step])
        follower.step()
    opt = full(kind)
    follower = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 0.9**step)
    with pytest.warns(UserWarning, match=r"call of `lr_scheduler.step\(\)` before `optimizer.step\(\)`"):
        follower.step()


def test_a_schedule_is_evaluated_once_a_step():
    asked = []
    opt = lrcore.torch.AdamW(parameters(), lr=schedules.Lambda(lambda step: asked.append(step) or 0.1 / (step + 1)))
    train(opt, range(2))
    asked.clear()
    train(opt, range(2, 6))
    assert asked == [3, 4, 5, 6]  # of the next step, which the groups show
    assert (opt.param_groups[0]["lr"], opt.info.lr) == (0.1 / 7, 0.1 / 6)
