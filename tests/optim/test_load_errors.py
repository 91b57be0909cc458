"""Errors of load_state_dict, as a table of changes to a state dict, exceptions and messages.

A load that fails must leave the optimizer and its parameters unchanged.
"""

import copy
import re

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from support.snapshot import snapshot
from support.training import assert_alike, parameters, run


def changed(*path):
    """Returns a function that sets ``saved[path[0]][path[1]]...`` to the last argument, or deletes it for ``del_``."""
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
    """A marker: delete the entry instead of replacing it."""


ENTRIES = ["optimizer", "steps", "state", "param_groups"]
W = ("state", "w")
AVG = "state['w']['exp_avg']"
WEIGHT = "the parameter has"
OTHERS = "the state dict has other parameters:"
GROUP = ("param_groups", 0)
REFUSED = [
    (changed("optimizer", "SGD"), ValueError, "the state dict was saved by SGD, not AdamW; strict=False allows it"),
    *[(changed(key, del_), ValueError, f"the state dict has no '{key}'") for key in ENTRIES],
    (changed("steps", -1), ValueError, "steps must be >= 0, got -1"),
    (changed("steps", 1.0), TypeError, "steps must be a whole number >= 0, got 1.0"),
    (changed("state", []), TypeError, "state must be a mapping, got list"),
    (changed("state", "other", {"step": 1}), ValueError, "state['other'] is not in any group of the state dict"),
    (changed("state", "w", None), TypeError, "state['w'] must be a mapping, got NoneType"),
    (changed(*W, "step", del_), ValueError, "state['w'] has no 'step'"),
    (changed(*W, "step", -1), ValueError, "state['w']['step'] must be >= 0, got -1"),
    (changed(*W, "step", np.array(2.0)), TypeError, "state['w']['step'] must be a whole number >= 0, got array(2.)"),
    (changed("state", "late", "step", 2**64), ValueError, "state['late']['step'] must be "),
    (changed("state", "late", "step", 2**64 - 1), ValueError, "state['late']['step'] must be "),
    (changed("state", "late", "step", 2**200), ValueError, "state['late']['step'] must be "),
    (changed(*W, "exp_avg", np.zeros((7, 5))), ValueError, f"{AVG} has shape (7, 5), {WEIGHT} (5, 7)"),
    (changed(*W, "exp_avg", np.zeros((5, 7), "f4")), TypeError, f"{AVG} has dtype float32, {WEIGHT} float64"),
    (changed(*W, "exp_avg", np.zeros((5, 7), ">f8")), TypeError, f"{AVG} has dtype >f8, {WEIGHT} float64"),
    (changed(*W, "exp_avg", [0.0]), TypeError, f"{AVG} must be a NumPy array, got list"),
    (changed(*W, "exp_avg", del_), ValueError, "state['w'] "),
    (changed(*W, "momentum_buffer", np.zeros((5, 7))), ValueError, "state['w'] "),
    (changed("param_groups", []), ValueError, f"{OTHERS} missing ['w', 'b', 'frozen', 'late'], unexpected []"),
    (changed("param_groups", [1]), TypeError, "param_groups must be a sequence of mappings"),
    (changed("param_groups", {}), TypeError, "param_groups must be a sequence of mappings"),
    (changed(*GROUP, "params", del_), ValueError, "param_groups[0] has no 'params'"),
    (changed(*GROUP, "params", ["w", "b", "frozen", "x"]), ValueError, f"{OTHERS} missing ['late'], unexpected ['x']"),
    (changed(*GROUP, "lr", -1.0), ValueError, "lr must be in [0, inf), got -1.0"),
    (changed(*GROUP, "betas", (0.9, 1.0)), ValueError, "betas[1] must be in [0, 1), got 1.0"),
    (changed(*GROUP, "eps", del_), ValueError, "the hyperparameter 'eps' is missing"),
    (changed(*GROUP, "rho", 0.9), ValueError, "unknown hyperparameter 'rho'; allowed are lr, "),
]  # fmt: skip


@pytest.mark.parametrize(("change", "exception", "message"), REFUSED, ids=[message[:60] for *_, message in REFUSED])
def test_a_failed_strict_load_changes_nothing(change, exception, message):
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


@pytest.mark.parametrize("change", [change for change, *_ in REFUSED], ids=[message[:60] for *_, message in REFUSED])
def test_a_non_strict_load_is_all_or_nothing(change):
    params = parameters()
    opt = lrcore.AdamW(params, lr=0.1)
    run(opt, range(3))
    saved = copy.deepcopy(opt.state_dict())
    saved["steps"], saved["param_groups"][0]["lr"], saved["state"]["w"]["step"] = 5, 0.5, 5
    change(saved)
    before = snapshot(opt, *params.values())
    try:
        opt.load_state_dict(saved, strict=False)
    except (TypeError, ValueError):
        assert snapshot(opt, *params.values()) == before
    run(opt, [3])


def test_loading_a_step_where_a_schedule_is_out_of_range_is_all_or_nothing():
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
def test_the_state_dict_must_be_a_mapping(given):
    with pytest.raises(TypeError, match=r"^the state dict must be a mapping, got "):
        lrcore.SGD(np.zeros(2)).load_state_dict(given)
