"""Pickles and deep copies contain an optimizer together with its parameters, and continue with the same bits."""

import copy
import pickle

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from support.cases import CASES
from support.snapshot import leaves, snapshot


def through_pickle(value):
    return pickle.loads(pickle.dumps(value))  # noqa: S301


def nested():
    return {"w": np.ones(2), "n": [np.ones((2, 3)).T, np.array(1.0)]}


def later_group(second):
    opt = lrcore.Adam([np.ones(2), np.ones(3)], lr=0.1)
    opt.add_param_group({"params": second, "lr": 0.2, "name": "second"})
    return opt


MAKERS = {
    **{str(case): lambda case=case: case.make(nested()) for case in CASES},
    "an array": lambda: lrcore.Adam(np.ones(3)),
    "groups": lambda: lrcore.Adam([{"params": [np.ones(2)]}, {"params": np.ones(4), "lr": 0.2, "name": "x"}]),
    "groups of mappings": lambda: lrcore.Adam([{"params": {"w": np.ones(2)}}, {"params": {"w": np.ones(3)}}]),
    "a sequence and a group added later": lambda: later_group([np.ones(4)]),
    "a sequence and an array added later": lambda: later_group(np.ones(4)),
    "a sequence and a mapping added later": lambda: later_group({"0": np.ones(4)}),
    "a schedule": lambda: lrcore.Adam([np.ones(2)], lr=schedules.Cosine(0.1, steps=4).warmup(2)),
}


def step(opt, k):
    groups = [copy.deepcopy(group["params"]) for group in opt.param_groups]
    for array in leaves(groups):
        array[...] = np.cos(k + np.arange(array.size)).reshape(array.shape)
    return opt.step(groups if len(groups) > 1 else groups[0])


def everything(opt):
    names = [group["params"] for group in opt.state_dict()["param_groups"]]
    return names, snapshot(opt, *leaves([group["params"] for group in opt.param_groups])), repr(opt)


@pytest.mark.parametrize("copied", [through_pickle, copy.deepcopy], ids=["pickle", "deepcopy"])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_copy_continues_with_the_same_bits_and_independently(make, copied):
    """Copied before the first step and after each of the first steps."""
    opt = make()
    for k in range(3):
        params, twin = copied((opt.params, opt))
        assert twin.params is params
        assert everything(twin) == everything(opt)
        before = everything(opt)
        assert step(twin, k).step == k + 1
        assert everything(opt) == before
        step(opt, k)
        assert everything(twin) == everything(opt)


def test_a_copied_optimizer_updates_the_parameters_copied_with_it():
    params = {"w": np.zeros(3)}
    opt = lrcore.SGD(params, lr=1.0)
    for twins in (copy.deepcopy((params, opt)), copy.deepcopy((opt, params))[::-1], through_pickle([params, opt])):
        twins[1].step({"w": np.ones(3)})
        assert (twins[0]["w"] == -1.0).all()
    assert not params["w"].any()


def test_a_copy_keeps_edited_hyperparameters():
    opt = lrcore.SGD([np.zeros(2)], lr=1.0)
    opt.param_groups[0].update(lr=0.5, momentum=0.9)
    for twin in (copy.deepcopy(opt), through_pickle(opt)):
        assert twin.param_groups[0].hyperparameters == opt.param_groups[0].hyperparameters
        twin.add_param_group({"params": [np.zeros(2)]})
        assert twin.param_groups[1]["lr"] == 1.0


def test_a_copy_can_be_made_while_a_schedule_is_out_of_range():
    opt = lrcore.Adam([np.ones(2)], betas=(schedules.Linear(0.5, 1.0, steps=1), 0.9))
    opt.step([np.ones(2)])
    for twin in (copy.deepcopy(opt), through_pickle(opt)):
        twin.param_groups[0]["betas"] = (0.5, 0.9)
        assert twin.step([np.ones(2)]).step == 2


def test_a_shallow_copy_is_refused():
    with pytest.raises(TypeError, match=r"^Adam can't be copied without its parameters; use copy.deepcopy$"):
        copy.copy(lrcore.Adam(np.zeros(2)))


def test_the_repr_is_readable():
    opt = lrcore.SGD([np.zeros(2), np.zeros(3)], lr=schedules.Linear(0.1, 0.0, steps=9))
    values = "lr=Linear(start=0.1, end=0.0, steps=9), momentum=0.0, dampening=0.0, nesterov=False, weight_decay=0.0"
    assert repr(opt) == f"<SGD({values}, maximize=False): 2 parameters, 0 steps>"
    opt.add_param_group({"params": np.zeros(1), "name": "head", "lr": 1.0})
    lines = repr(opt).splitlines()
    assert lines[0].startswith("<SGD: 3 parameters, 0 steps")
    assert lines[2].startswith("  ParamGroup('head', lr=1.0, ")
