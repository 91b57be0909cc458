"""State dicts: an optimizer that is loaded goes on with the same bits, and a load happens whole or not at all."""

import copy
import pickle
import re

import numpy as np
import pytest

import lrcore
from cases import CASES, DTYPES, same
from lrcore import schedules
from snapshot import snapshot

KEYS = ["w", "b", "frozen", "late"]
SHAPES = {"w": (5, 7), "b": (7,), "frozen": (2,), "late": ()}


def parameters(dtype=np.float64, order=KEYS):
    rng = np.random.default_rng(7)
    values = {key: np.asarray(rng.standard_normal(SHAPES[key])).astype(dtype) for key in KEYS}
    return {key: values[key] for key in order}


def gradients(k, dtype=np.float64):
    """Those of step k: one parameter never has one, another only from step 2 on."""
    rng = np.random.default_rng(k)
    grads = {key: np.asarray(rng.standard_normal(SHAPES[key])).astype(dtype) for key in KEYS}
    return {**grads, "frozen": None, "late": grads["late"] if k >= 2 else None}


def run(opt, steps, dtype=np.float64):
    for k in steps:
        opt.step(gradients(k, dtype))


def assert_alike(params, opt, other_params, other):
    """Both hold the same: parameters by name, state, counts and hyperparameters."""
    assert all(same(params[key], other_params[key]) for key in KEYS)
    saved, others = opt.state_dict(), other.state_dict()
    assert saved["state"].keys() == others["state"].keys()
    for name, state in saved["state"].items():
        assert state["step"] == others["state"][name]["step"]
        assert state.keys() == others["state"][name].keys()
        assert all(same(state[key], others["state"][name][key]) for key in state if key != "step")
    assert (opt.steps, opt.lr) == (other.steps, other.lr)
    assert [group.hyperparameters for group in opt.param_groups] == [g.hyperparameters for g in other.param_groups]


def through_pickle(value):
    return pickle.loads(pickle.dumps(value))  # noqa: S301


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("saved_at", [0, 1, 3])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_going_on_from_a_state_dict_is_never_having_stopped(case, saved_at, dtype):
    """Also from a file, with parameters in another order, and into an optimizer that has gone another way."""
    params = parameters(dtype)
    opt = case.make(params)
    run(opt, range(saved_at), dtype)
    saved, values = through_pickle((opt.state_dict(), params))
    run(opt, range(saved_at, 6), dtype)
    others = parameters(dtype, KEYS[::-1])
    other = case.optimizer(others, lr=0.77)
    run(other, range(2), dtype)
    for key in KEYS:
        others[key][...] = values[key]
    assert other.load_state_dict(saved) == ([], [])
    run(other, range(saved_at, 6), dtype)
    assert_alike(params, opt, others, other)


def test_a_state_dict_and_what_is_loaded_are_copies():
    params = parameters()
    opt = lrcore.Adam(params)
    run(opt, range(2))
    saved = opt.state_dict()
    opt.load_state_dict(saved)
    before = snapshot(opt, *params.values())
    for array in saved["state"]["w"].values():
        if isinstance(array, np.ndarray):
            array[...] = np.nan
    saved["param_groups"][0]["lr"] = 5.0
    saved["param_groups"][0]["params"].clear()
    assert snapshot(opt, *params.values()) == before


def test_state_is_loaded_into_the_layout_of_the_weight():
    weight, other = np.ones((3, 4), order="F"), np.ones((8, 6))[::-2, 1:5][:3]
    opt, twin = lrcore.Adam({"w": weight}), lrcore.Adam({"w": other})
    opt.step({"w": np.arange(12.0).reshape(3, 4)})
    twin.load_state_dict(opt.state_dict())
    other[...] = weight
    for each in (opt, twin):
        each.step({"w": np.arange(12.0).reshape(3, 4)})
    assert same(weight, other)


def spoil(*path):
    """Replaces an entry of a state dict; the last of the path is the new value, or ``del``."""
    *way, key, value = path

    def apply(saved):
        for step in way:
            saved = saved[step]
        if value is del_:
            del saved[key]
        else:
            saved[key] = value

    return apply


def del_():
    """Stands for removing an entry."""


ENTRIES = ["optimizer", "steps", "state", "param_groups"]
W = ("state", "w")
AVG = "state['w']['exp_avg']"
WEIGHT = "the parameter has"
OTHERS = "the state dict has other parameters:"
GROUP = ("param_groups", 0)
REFUSED = [
    (spoil("optimizer", "SGD"), ValueError, "the state dict was saved by SGD, this is AdamW; strict=False loads it"),
    *[(spoil(key, del_), ValueError, f"the state dict has no '{key}'") for key in ENTRIES],
    (spoil("steps", -1), ValueError, "steps must be >= 0, got -1"),
    (spoil("steps", 1.0), TypeError, "steps must be a whole number >= 0, got 1.0"),
    (spoil("state", []), TypeError, "state must be a mapping, got list"),
    (spoil("state", "other", {"step": 1}), ValueError, "state['other'] belongs to no group of the state dict"),
    (spoil("state", "w", None), TypeError, "state['w'] must be a mapping, got NoneType"),
    (spoil(*W, "step", del_), ValueError, "state['w'] has no 'step'"),
    (spoil(*W, "step", -1), ValueError, "state['w']['step'] must be >= 0, got -1"),
    (spoil(*W, "step", np.array(2.0)), TypeError, "state['w']['step'] must be a whole number >= 0, got array(2.)"),
    (spoil("state", "late", "step", 2**64), ValueError, "state['late']['step'] must be "),
    (spoil("state", "late", "step", 2**64 - 1), ValueError, "state['late']['step'] must be "),
    (spoil("state", "late", "step", 2**200), ValueError, "state['late']['step'] must be "),
    (spoil(*W, "exp_avg", np.zeros((7, 5))), ValueError, f"{AVG} has shape (7, 5), {WEIGHT} (5, 7)"),
    (spoil(*W, "exp_avg", np.zeros((5, 7), "f4")), TypeError, f"{AVG} has dtype float32, {WEIGHT} float64"),
    (spoil(*W, "exp_avg", np.zeros((5, 7), ">f8")), TypeError, f"{AVG} has dtype >f8, {WEIGHT} float64"),
    (spoil(*W, "exp_avg", [0.0]), TypeError, f"{AVG} must be a NumPy array, got list"),
    (spoil(*W, "exp_avg", del_), ValueError, "state['w'] "),
    (spoil(*W, "momentum_buffer", np.zeros((5, 7))), ValueError, "state['w'] "),
    (spoil("param_groups", []), ValueError, f"{OTHERS} missing ['w', 'b', 'frozen', 'late'], unexpected []"),
    (spoil("param_groups", [1]), TypeError, "param_groups must be a sequence of mappings"),
    (spoil("param_groups", {}), TypeError, "param_groups must be a sequence of mappings"),
    (spoil(*GROUP, "params", del_), ValueError, "param_groups[0] has no 'params'"),
    (spoil(*GROUP, "params", ["w", "b", "frozen", "x"]), ValueError, f"{OTHERS} missing ['late'], unexpected ['x']"),
    (spoil(*GROUP, "lr", -1.0), ValueError, "lr must be in [0, inf), got -1.0"),
    (spoil(*GROUP, "betas", (0.9, 1.0)), ValueError, "betas[1] must be in [0, 1), got 1.0"),
    (spoil(*GROUP, "eps", del_), ValueError, "the hyperparameter 'eps' is missing"),
    (spoil(*GROUP, "rho", 0.9), ValueError, "there is no hyperparameter 'rho'; there are lr, "),
]  # fmt: skip


@pytest.mark.parametrize(("change", "exception", "message"), REFUSED, ids=[message[:60] for *_, message in REFUSED])
def test_a_state_dict_that_does_not_match_is_refused_whole(change, exception, message):
    params = parameters()
    opt = lrcore.AdamW(params, lr=schedules.Linear(0.1, 0.2, steps=9))
    run(opt, range(3))
    saved = copy.deepcopy(opt.state_dict())
    saved["steps"], saved["param_groups"][0]["lr"] = 5, 0.5
    saved["state"]["w"]["step"] = 5
    change(saved)
    before = snapshot(opt, *params.values())
    with pytest.raises(exception, match=f"^{re.escape(message)}"):
        opt.load_state_dict(saved)
    assert snapshot(opt, *params.values()) == before
    twin_params = parameters()
    twin = lrcore.AdamW(twin_params, lr=schedules.Linear(0.1, 0.2, steps=9))
    run(twin, range(4))
    run(opt, [3])
    assert_alike(params, opt, twin_params, twin)


def test_a_schedule_that_is_out_of_range_at_the_saved_step_is_loaded_whole_or_not_at_all():
    opt, other = (lrcore.Adam([np.ones(2)], betas=(schedules.Linear(0.5, 1.0, steps=n), 0.9)) for n in (1, 9))
    for each in (opt, other, other):
        each.step([np.ones(2)])
    before = snapshot(other)
    try:
        other.load_state_dict(opt.state_dict())
    except ValueError:
        assert snapshot(other) == before
    else:
        assert snapshot(other) == snapshot(opt)


@pytest.mark.parametrize("given", [None, [], "state", 1], ids=repr)
def test_what_is_no_state_dict_is_refused(given):
    with pytest.raises(TypeError, match=r"^the state dict must be a mapping, got "):
        lrcore.SGD(np.zeros(2)).load_state_dict(given)


def test_what_both_have_is_loaded_if_not_strict():
    opt, other_params = lrcore.Adam(parameters(), lr=0.1), {"w": np.ones((5, 7)), "new": np.ones(3)}
    run(opt, range(4))
    other = lrcore.Adam(other_params, lr=0.5)
    other.step({"w": np.ones((5, 7)), "new": np.ones(3)})
    report = other.load_state_dict(opt.state_dict(), strict=False)
    assert report.missing == ["new"]
    assert report.unexpected == ["b", "frozen", "late"]
    saved = other.state_dict()
    assert {name: state["step"] for name, state in saved["state"].items()} == {"w": 4, "new": 1}
    assert same(other.state["w"]["exp_avg"], opt.state["w"]["exp_avg"])
    assert other.steps == 4


def test_another_optimizers_state_is_loaded_if_not_strict():
    params = parameters()
    opt = lrcore.SGD(parameters(), lr=0.3, momentum=0.9)
    run(opt, range(3))
    other = lrcore.RMSprop(params, lr=0.1, momentum=0.5)
    other.load_state_dict(opt.state_dict(), strict=False)
    assert (other.lr, other.param_groups[0]["momentum"], other.steps) == (0.3, 0.9, 3)
    assert same(other.state["w"]["momentum_buffer"], opt.state["w"]["momentum_buffer"])
    run(other, [3])
    assert other.state.keys() == {"w", "b", "late"}


def test_groups_are_matched_by_their_parameters_in_any_order():
    def make(reverse):
        groups = [{"params": {"a": np.ones(2)}, "name": "first"}, {"params": {"b": np.ones(2)}, "lr": 0.5}]
        return lrcore.Adam(groups[::-1] if reverse else groups, lr=0.1)

    opt, other = make(reverse=False), make(reverse=True)
    opt.param_groups[0]["lr"] = 7.0
    opt.step({"a": np.ones(2), "b": np.ones(2)})
    other.load_state_dict(opt.state_dict())
    assert [group["lr"] for group in other.param_groups] == [0.5, 7.0]
    assert same(other.state["a"]["exp_avg"], opt.state["a"]["exp_avg"])
