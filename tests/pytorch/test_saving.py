"""State dicts, files and copies of drop-ins: what is saved by the one goes on in the other, as within PyTorch."""

import copy
import io
import json
import pickle

import pytest

import lrcore
from lrcore import schedules
from support.networks import assert_same_weights, backward, network, take_step, train_network, vector
from support.optimizer_pairs import (
    BOTH,
    FULL,
    Pair,
    assert_same,
    copied_groups,
    counterpart,
    drop_ins,
    each,
    full,
    give,
    gradients,
    label,
    named,
    named_parameters,
    parameters,
    torch,
    train,
    values_of,
    weights_of,
)

# What was added to groups after the first checkpoints were written.
LATER = ["foreach", "differentiable", "fused", "maximize", "capturable", "decoupled_weight_decay", "nesterov"]


@each
@pytest.mark.parametrize("make", [parameters, named_parameters])
def test_a_state_dict_goes_on_bit_for_bit(kind, make):
    opt = full(kind, make())
    train(opt, range(10))
    # Parameters of a name are saved by it.
    other = full(kind, copied_groups(make()))
    with torch.no_grad():
        for twin, param in zip(weights_of(other), weights_of(opt), strict=True):
            twin.copy_(param)
    saved = copy.deepcopy(opt.state_dict())
    other.load_state_dict(copy.deepcopy(saved))
    for one in (opt, other):
        train(one, range(10, 20))
    assert_same(opt, other)
    assert opt.state_dict().keys() == saved.keys()


@named
@pytest.mark.parametrize("ours_first", [True, False])
def test_a_state_dict_goes_on_in_the_other_library(name, ours_first):
    pair = Pair(name, parameters(), **FULL[name])
    pair.train(range(10))
    first, second = pair.both if ours_first else pair.both[::-1]
    saved = copy.deepcopy(first.state_dict())
    flags = [{key: group[key] for key in ("foreach", "fused") if key in group} for group in second.param_groups]
    second.load_state_dict(saved)
    for group, own in zip(second.param_groups, flags, strict=True):
        group.update(own)
    pair.train(range(10, 20))
    pair.assert_agree()


@named
def test_state_dicts_have_pytorchs_form(name):
    pair = Pair(name, named_parameters(), **FULL[name])
    pair.train(range(2))
    saved, expected = (opt.state_dict() for opt in pair.both)
    assert saved.keys() == expected.keys()
    assert saved["state"].keys() == expected["state"].keys()
    for own, other in zip(saved["param_groups"], expected["param_groups"], strict=True):
        assert own.keys() == other.keys()
        flags = {"foreach", "fused"}
        assert {key: own[key] for key in own.keys() - flags} == {key: other[key] for key in other.keys() - flags}


@each
def test_a_state_dict_loads_with_the_later_names_missing(kind):
    opt = full(kind)
    train(opt, range(3))
    saved = copy.deepcopy(opt.state_dict())
    for group in saved["param_groups"]:
        for key in LATER:
            group.pop(key, None)
    twin = full(kind, copied_groups(weights_of(opt)))
    twin.load_state_dict(saved)
    # Of fused PyTorch's SGD makes False, and the others None: neither asks for it.
    groups = [{key: value or None for key, value in one.param_groups[0].items() if key in LATER} for one in (opt, twin)]
    assert groups[0] == groups[1]
    for one in (opt, twin):
        train(one, range(3, 6))
    assert_same(opt, twin)


@pytest.mark.parametrize("kind", [kind for kind in BOTH if kind.__name__ != "SGD"], ids=label)
def test_a_state_dict_loads_with_counts_that_are_no_tensors(kind):
    opt = full(kind)
    train(opt, range(3))
    saved = copy.deepcopy(opt.state_dict())
    for state in saved["state"].values():
        state["step"] = state["step"].item()
    twin = full(kind, copied_groups(weights_of(opt)))
    twin.load_state_dict(saved)
    for one in (opt, twin):
        train(one, range(3, 6))
    assert_same(opt, twin)
    assert all(torch.is_tensor(twin.state[param]["step"]) for param in weights_of(twin))


@each
def test_a_state_dict_goes_from_names_to_none_and_back(kind):
    opt, other = full(kind, named_parameters()), full(kind)
    train(opt, range(3))
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert other.param_groups[0]["param_names"] == ["layer.0", "layer.1", "layer.2"]
    plain = full(kind)
    train(plain, range(3))
    opt.load_state_dict(copy.deepcopy(plain.state_dict()))
    assert opt.param_groups[0]["param_names"] == ["layer.0", "layer.1", "layer.2"]
    train(opt, range(3, 6))


@each
def test_a_file_that_is_read_as_weights_only_has_all(kind):
    opt = full(kind)
    train(opt, range(3))
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    read = torch.load(file, weights_only=True)
    twin = full(kind, copied_groups(weights_of(opt)))
    twin.load_state_dict(read)
    for one in (opt, twin):
        train(one, range(3, 6))
    assert_same(opt, twin)


@each
@pytest.mark.parametrize("twice", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))], ids=["copy", "pickle"])  # noqa: S301
def test_copies_go_on_bit_for_bit_and_alone(kind, twice):
    opt = full(kind)
    train(opt, range(3))
    twin = twice(opt)
    assert type(twin) is kind
    before = values_of(opt)
    train(twin, range(3, 6))
    torch.testing.assert_close(before, values_of(opt), rtol=0, atol=0)
    train(opt, range(3, 6))
    assert_same(opt, twin)


@each
def test_a_copy_has_every_public_attribute(kind):
    opt = full(kind)
    train(opt, range(3))

    def public(one):
        return {name for name in vars(one) if not name.startswith("_")}

    assert public(copy.deepcopy(opt)) == public(opt)


@each
@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda saved: saved["param_groups"].pop(), "different number of parameter groups"),
        (lambda saved: saved["param_groups"][0]["params"].pop(), "doesn't match the size of optimizer's group"),
    ],
    ids=["groups", "parameters"],
)
def test_a_state_dict_of_other_groups_is_refused_and_changes_nothing(kind, cut, message):
    opt = full(kind)
    train(opt, range(3))
    twin = copy.deepcopy(opt)
    saved = copy.deepcopy(opt.state_dict())
    cut(saved)
    with pytest.raises(ValueError, match=message):
        opt.load_state_dict(saved)
    for one in (opt, twin):
        train(one, range(3, 6))
    assert_same(opt, twin)


def test_adamw_decays_decoupled_whatever_it_loads():
    pair = Pair("AdamW", parameters(), lr=0.1, weight_decay=0.1)
    pair.train(range(3))
    for opt in pair.both:
        saved = copy.deepcopy(opt.state_dict())
        saved["param_groups"][0]["decoupled_weight_decay"] = False
        opt.load_state_dict(saved)
        assert opt.param_groups[0]["decoupled_weight_decay"]
    pair.train(range(3, 6))
    pair.assert_agree()


@pytest.mark.parametrize("decoupled", [True, False])
def test_adam_decays_as_the_group_says(decoupled):
    pair = Pair("Adam", parameters(), lr=0.1, weight_decay=0.1, decoupled_weight_decay=decoupled)
    pair.train(range(3))
    for opt in pair.both:
        opt.param_groups[0]["decoupled_weight_decay"] = not decoupled
    pair.train(range(3, 6))
    pair.assert_agree()


@named
def test_options_of_lrcore_outlive_a_state_dict_of_pytorch(name):
    weights, arguments = parameters(), {"lr": 0.1}
    opt = getattr(drop_ins, name)(weights, clip_value=1e-3, **arguments)
    other = counterpart(name)(parameters(), **arguments)
    train(other, range(2))
    opt.load_state_dict(copy.deepcopy(other.state_dict()))
    assert opt.param_groups[0].keys() == other.param_groups[0].keys()
    clipped = getattr(drop_ins, name)(copied_groups(weights), **arguments)
    clipped.load_state_dict(copy.deepcopy(other.state_dict()))
    for step in range(3):
        grads = gradients(opt, step)
        give(opt, grads)
        give(clipped, [grad.clamp(-1e-3, 1e-3) for grad in grads])
        opt.step()
        clipped.step()
    assert_same(opt, clipped)


@named
def test_copies_and_pickles_go_on_alike(name):
    model = network()
    opt = getattr(lrcore.torch, name)(model.parameters(), **FULL[name])
    train_network(model, opt, 3)
    copies = [copy.deepcopy((model, opt)), pickle.loads(pickle.dumps((model, opt)))]  # noqa: S301
    train_network(model, opt, 3)
    for other, other_opt in copies:
        assert type(other_opt) is type(opt)
        train_network(other, other_opt, 3)
        for one, two in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(one, two)


def test_averages_and_steps_go_through_a_checkpoint():
    def run(split):
        model = network(batch_norm=True)
        make = lambda: lrcore.torch.SGD(  # noqa: E731
            model.parameters(), schedules.Linear(0.1, 0.0, steps=10), average=lrcore.SWA(start=2, every=2)
        )
        opt = make()
        for number in range(8):
            if number == split:
                saved = copy.deepcopy(opt.state_dict())
                assert json.loads(saved["param_groups"][0]["lrcore_state"])["steps"] == split
                opt = make()
                opt.load_state_dict(saved)
            backward(model)
            opt.step()
        return model, opt

    (model, opt), (other, whole) = run(5), run(-1)
    assert_same_weights(other, model, 0.0, 0.0)
    assert opt.info == whole.info
    for one, two in zip(opt.average.values(), whole.average.values(), strict=True):
        assert torch.equal(one, two)


def test_copies_may_be_given_more_parameters():
    opt = copy.deepcopy(lrcore.torch.AdamW([vector()], lr=schedules.Constant(0.1)))
    extra = vector()
    opt.add_param_group({"params": [extra]})
    take_step(opt)
    assert opt.param_groups[1]["lr"] == 0.1
    assert extra[0] < 1
