"""Groups of parameters, and numbers that change between steps."""

import copy

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from support.networks import (
    assert_libraries_agree,
    network,
    take_step,
    train_network,
    vector,
)
from support.optimizer_pairs import (
    FULL,
    Pair,
    assert_same,
    copied_groups,
    counterpart,
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
        opt.add_param_group({"params": copied_groups(second), "lr": 0.02, "maximize": True})
    pair.train(range(5, 10))
    pair.assert_agree()
    groups = [opt.param_groups[1] for opt in pair.both]
    assert groups[0].keys() == groups[1].keys()
    assert groups[0].get("param_names") == (["head"] if with_names else None)


@named
def test_state_starts_from_the_constructors_value_in_every_group(name):
    initial = getattr(lrcore, name)._declaration.initial

    def starting_from(value):
        return {initial: value} if initial else {}

    pair = Pair(name, [{"params": parameters(), **starting_from(0.5)}], **starting_from(0.1))
    for opt in pair.both:
        opt.add_param_group({"params": [parameter(5)], **starting_from(0.7)})
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
    for kind in (getattr(drop_ins, name), counterpart(name)):
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


def test_a_wrong_edit_is_an_error_at_the_step_and_changes_nothing():
    model = network()
    opt = lrcore.torch.AdamW(model.parameters())
    train_network(model, opt, 2)
    before = copy.deepcopy((model.state_dict(), opt.state_dict()))
    opt.param_groups[0]["betas"] = (0.9, 1.0)
    for _ in range(2):  # as often as it is tried
        with pytest.raises(ValueError, match=r"betas\[1\] must be in \[0, 1\), got 1.0"):
            opt.step()
    opt.param_groups[0].update(betas=(0.9, 0.999), lr=-1.0)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"lr must be in \[0, inf\), got -1.0"):
            opt.step()
    opt.param_groups[0]["lr"] = 1e-3
    opt.param_groups[0]["betas"] = (0.9, 0.999)
    torch.testing.assert_close(model.state_dict(), before[0], rtol=0, atol=0)
    torch.testing.assert_close(opt.state_dict(), before[1], rtol=0, atol=0)
    opt.step()


def test_names_may_be_there_twice():
    def act(library):
        params = [vector(1.0, 2.0, 3.0), vector(1.0, 2.0), vector(1.0)]
        opt = library.AdamW(zip(("w", "w", "b"), params, strict=True))
        take_step(opt)
        return [param.detach() for param in params], [opt.state[param]["exp_avg"] for param in params]

    assert_libraries_agree(act)


def test_a_parameter_may_be_added_to_a_group_with_names():
    def act(library):
        params = [vector(), vector()]
        opt = library.Adam([("w", params[0])])
        take_step(opt)
        opt.param_groups[0]["params"].append(params[1])
        take_step(opt)
        return [param.detach() for param in params]

    assert_libraries_agree(act)


def test_groups_may_be_removed_appended_and_reversed():
    def act(library):
        params = [vector() for _ in range(3)]
        opt = library.SGD([{"params": [param], "lr": 0.1 * i} for i, param in enumerate(params, start=1)], momentum=0.9)
        take_step(opt)
        removed = opt.param_groups.pop(1)
        take_step(opt)
        opt.param_groups.append(removed)
        opt.param_groups.reverse()
        take_step(opt)
        return [param.detach() for param in params]

    assert_libraries_agree(act)


@pytest.mark.parametrize("make", [list, lambda pair: torch.tensor(pair), np.array], ids=["list", "tensor", "array"])
def test_betas_may_be_anything_with_two_numbers_and_change_in_place(make):
    param, other = vector(), vector()
    opt, expected = lrcore.torch.Adam([param]), lrcore.torch.Adam([other])
    betas = make([0.9, 0.99])
    opt.param_groups[0]["betas"] = betas
    expected.param_groups[0]["betas"] = (float(betas[0]), float(betas[1]))
    take_step(opt)
    take_step(expected)
    betas[0] = 0.1
    expected.param_groups[0]["betas"] = (float(betas[0]), float(betas[1]))
    take_step(opt, 0.5)
    take_step(expected, 0.5)
    assert torch.equal(param, other)


def test_flags_may_be_ones_and_groups_hold_what_else_programs_need():
    param = vector()
    opt = lrcore.torch.Adam([param], amsgrad=1)
    opt.param_groups[0]["history"] = np.zeros(3)
    take_step(opt)
    opt.param_groups[0]["history"] = np.ones(3)
    take_step(opt)
    assert "max_exp_avg_sq" in opt.state[param]


def test_an_attribute_that_nothing_reads_is_warned_of():
    opt = lrcore.torch.AdamW(parameters())
    with pytest.warns(UserWarning, match=r"^opt\.weight_decay = 0\.5 has no effect on steps") as caught:
        opt.weight_decay = 0.5
    assert [warning.filename for warning in caught] == [__file__]
    opt.lr = 0.5
    assert (opt.param_groups[0]["lr"], opt.param_groups[0]["weight_decay"]) == (0.5, 0.01)
