"""The progress of an optimizer in its groups, and values of 0 in the place of schedules."""

import copy
import json

import pytest

import lrcore
from lrcore import schedules
from lrcore.torch import from_torch
from support.optimizer_pairs import drop_ins, torch

KEY = "lrcore_state"
RATE = schedules.Linear(1.0, 0.0, steps=10)


def parameter():
    return torch.nn.Parameter(torch.ones(3))


def step(opt, grad=1.0):
    for group in opt.param_groups:
        for param in group["params"]:
            param.grad = torch.full_like(param, grad)
    opt.step()


def steps_in(saved):
    return [json.loads(group[KEY])["steps"] for group in saved["param_groups"]]


def test_groups_without_anything_to_go_on_from_are_pytorchs():
    opt = drop_ins.Adam([parameter()], lr=0.1, clip_norm=1.0)
    step(opt)
    assert KEY not in opt.param_groups[0]
    other = drop_ins.Adam([parameter()], lr=RATE)
    step(other)
    opt.load_state_dict(other.state_dict())
    assert KEY not in opt.param_groups[0]
    assert opt.steps == 1
    step(opt)


@pytest.mark.parametrize(
    "options",
    [
        {"lr": RATE},
        {"clip_norm": RATE},
        {"skip_nonfinite": True},
        {"average": lrcore.EMA()},
        {"average": lrcore.SWA(9)},
    ],
    ids=repr,
)
def test_live_groups_have_the_same_keys_from_the_first_moment_on(options):
    opt = drop_ins.SGD([{"params": [parameter()]}, {"params": [parameter()]}], **{"lr": 0.1, **options})
    keys = [list(group) for group in opt.param_groups]
    assert all(KEY in group for group in keys)
    for count in range(3):
        assert steps_in({"param_groups": opt.param_groups}) == steps_in(opt.state_dict()) == [count, count]
        step(opt)
    assert [list(group) for group in opt.param_groups] == keys


def test_an_average_has_its_memory_from_the_first_step_on_and_is_told_later():
    opt = drop_ins.SGD([parameter()], lr=0.1, average=lrcore.SWA(start=3))
    names = []
    for _ in range(3):
        step(opt)
        (state,) = opt.state_dict()["state"].values()
        names.append((sorted(state), len(opt.average)))
    assert names == [(["average", "averaged"], 0), (["average", "averaged"], 0), (["average", "averaged"], 1)]
    (average,) = opt.average.values()
    assert torch.equal(average, opt.param_groups[0]["params"][0])


def test_a_rate_of_0_holds_for_one_step_and_the_schedule_goes_on():
    opt, plain = (drop_ins.SGD([parameter()], lr=lr, momentum=0.5) for lr in (RATE, 1.0))
    for count in range(5):
        rate = opt.param_groups[0]["lr"]
        for one in (opt, plain):
            one.param_groups[0]["lr"] = 0.0 if count == 2 else RATE(count) if one is plain else rate
            step(one)
        if count == 2:
            assert opt.info.lr == 0.0
            opt.param_groups[0]["lr"] = rate
    assert torch.equal(opt.param_groups[0]["params"][0], plain.param_groups[0]["params"][0])
    assert opt.steps == 5


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay"])
def test_a_second_step_at_0_is_an_error_and_so_is_another_value(name):
    opt = drop_ins.SGD([parameter()], **{"lr": 0.1, "momentum": 0.9, name: RATE})
    step(opt)
    opt.param_groups[0][name] = 0.0
    step(opt)
    with pytest.raises(ValueError, match=f"{name} follows Linear.*was set to 0.0.*give one of both"):
        step(opt)
    opt.param_groups[0][name] = 0.25
    with pytest.raises(ValueError, match=f"{name} follows Linear.*was set to 0.25.*give one of both"):
        step(opt)


def test_a_tracker_outlives_a_rate_of_0():
    opt = drop_ins.SGD([parameter()], lr=schedules.Constant(1.0) * schedules.ReduceOnPlateau(0.5, patience=0))
    for _ in range(2):
        step(opt)
        opt.report(1.0)
    opt.param_groups[0]["lr"], rate = 0.0, opt.param_groups[0]["lr"]
    step(opt)
    opt.param_groups[0]["lr"] = rate
    step(opt)
    assert opt.info.lr == 0.5


def test_a_decay_that_follows_the_rate_is_0_with_it():
    opt = drop_ins.AdamW([parameter()], lr=RATE, decay="independent", weight_decay=0.5)
    opt.param_groups[0]["lr"] = 0.0
    step(opt, 0.0)
    assert torch.equal(opt.param_groups[0]["params"][0], torch.ones(3))


@pytest.mark.parametrize("kind", [lrcore.EMA(0.5), lrcore.SWA()], ids=repr)
def test_the_step_that_makes_state_counts_for_nothing(kind):
    opt = drop_ins.Adam([parameter()], lr=RATE, average=kind, skip_nonfinite=True)
    opt.param_groups[0]["lr"], rate = 0.0, opt.param_groups[0]["lr"]
    step(opt, 0.0)
    opt.param_groups[0]["lr"] = rate
    assert (opt.steps, opt.average, steps_in(opt.state_dict())) == (0, {}, [0])
    (state,) = opt.state.values()
    assert sorted(state) == ["average", "averaged", "exp_avg", "exp_avg_sq", "step"]
    step(opt)
    assert opt.info.lr == 1.0
    (average,) = opt.average.values()
    assert torch.equal(average, opt.param_groups[0]["params"][0])


def test_steps_of_pytorch_in_between_count():
    opt = drop_ins.Adam([parameter()], lr=RATE)
    other = torch.optim.Adam([parameter()], lr=0.1)
    for _ in range(2):
        step(opt)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    for _ in range(3):
        step(other)
    assert from_torch(other).steps == 5
    opt.load_state_dict(copy.deepcopy(other.state_dict()))
    assert opt.steps == 5


def test_steps_that_were_set_are_kept():
    opt = drop_ins.Adam([parameter()], lr=RATE)
    for _ in range(4):
        step(opt)
    opt.steps = 1
    step(opt)
    twin = drop_ins.Adam([parameter()], lr=RATE)
    twin.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert (twin.steps, twin.state_dict()["state"][0]["step"].item()) == (2, 5.0)


@pytest.mark.parametrize("text", ["", "{}", 7, '{"steps": -1, "skipped": [0, 0], "ahead": 0, "reports": []}'])
def test_a_text_that_lrcore_did_not_write_is_refused_and_changes_nothing(text):
    opt = drop_ins.Adam([parameter()], lr=RATE)
    step(opt)
    saved = copy.deepcopy(opt.state_dict())
    saved["param_groups"][0][KEY] = text
    with pytest.raises(ValueError, match='param_groups: "lrcore_state"'):
        opt.load_state_dict(saved)
    assert steps_in(opt.state_dict()) == [1]
    step(opt)


def test_a_group_of_another_optimizer_begins_anew():
    opt = drop_ins.Adam([parameter()], lr=0.1, skip_nonfinite=True)
    step(opt)
    other = drop_ins.Adam([dict(group) for group in opt.param_groups], skip_nonfinite=True)
    assert (other.steps, steps_in(other.state_dict())) == (0, [0])


def test_skipped_steps_go_on_to_be_counted():
    opt = drop_ins.SGD([parameter()], lr=0.1, skip_nonfinite=True, max_skips=3)
    for _ in range(2):
        step(opt, torch.inf)
    twin = drop_ins.SGD([parameter()], lr=0.1, skip_nonfinite=True, max_skips=3)
    twin.load_state_dict(opt.state_dict())
    assert twin.skipped == 2
    with pytest.raises(FloatingPointError, match=r"^3 steps in a row"):
        step(twin, torch.inf)
    assert json.loads(twin.param_groups[0][KEY])["skipped"] == [3, 0]
