"""Errors as data: call, exception, message. An error changes no bit."""

import re
from collections import UserDict, UserList

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from support.cases import CASES
from support.labels import label
from support.snapshot import leaves, snapshot

F32, F64 = np.float32, np.float64


GRAD = "must be a NumPy array, or None to skip it, got"
SEQUENCE = "must be a sequence like params, or None to skip it, got"
MAPPING = "must be a mapping like params, or None to skip it, got"
PARAMS = "must be a NumPy array, or a sequence or mapping of them, got"
DTYPES = "allowed are float32 and float64 in native byte order"
DEEP = '["layers"][0]["w"]'
UNEXPECTED = "is unexpected: params has no such entry"
CONVERT = lambda name: f'; give grads["{name}"].astype(params["{name}"].dtype)'  # noqa: E731
ONCE = "; give list(...) of it, since it is read at every step"
GONE = "is gone since the optimizer was made"


class Custom(schedules.Schedule):
    """A schedule that evaluates a function."""

    def __init__(self, value):
        self.value = value

    def _value(self, step):
        return self.value(step)


def refuse(*_):
    raise LookupError("not today")


def parameters():
    return {"w1": np.ones((4, 3), F32), "w2": np.ones(5, F64), "b1": np.ones(3, F32), "layers": [{"w": np.array(1.0)}]}


def gradients():
    return {"w1": np.ones((4, 3), F32), "w2": np.ones(5, F64), "b1": np.ones(3, F32), "layers": [{"w": np.array(2.0)}]}


def put(key, value):
    """Returns a change that replaces an entry of the gradients."""
    return lambda _, grads: grads.__setitem__(key, value)


def put_param(key, value):
    return lambda params, _: params.__setitem__(key, value)


def read_only(array):
    array.flags.writeable = False


class Refusing(UserDict):
    """A mapping whose lookups raise."""

    __getitem__ = refuse


class RefusingList(UserList):
    """A sequence whose lookups raise."""

    __getitem__ = refuse


# A change to parameters or gradients before the step, the exception, and the whole message.
STEP = [
    (put("w1", np.ones((3, 4), F32)), ValueError, 'grads["w1"] has shape (3, 4), params["w1"] has (4, 3)'),
    (put("w1", np.ones(12, F32)), ValueError, 'grads["w1"] has shape (12,), params["w1"] has (4, 3)'),
    (put("w1", np.ones((4, 3, 1), F32)), ValueError, 'grads["w1"] has shape (4, 3, 1), params["w1"] has (4, 3)'),
    (put("w1", np.array(1.0, F32)), ValueError, 'grads["w1"] has shape (), params["w1"] has (4, 3)'),
    (put("w1", np.ones((4, 3))), TypeError, f'grads["w1"] has dtype float64, params["w1"] has float32{CONVERT("w1")}'),
    (put("w1", np.ones((4, 3), int)), TypeError, 'grads["w1"] has dtype int64, params["w1"] has float32'),
    (put("w1", np.ones((4, 3), ">f4")), TypeError, 'grads["w1"] has dtype >f4, params["w1"] has float32'),
    (put("w1", 1.0), TypeError, f'grads["w1"] {GRAD} float'),
    (put("w1", [[1.0] * 3] * 4), TypeError, f'grads["w1"] {GRAD} list'),
    (put("layers", [{"w": 1}]), TypeError, f'grads["layers"][0]["w"] {GRAD} int'),
    (put("layers", [{"w": F32(1)}]), TypeError, f'grads{DEEP} has dtype float32, params{DEEP} has float64; '
     f"give grads{DEEP}.astype(params{DEEP}.dtype)"),
    (put("layers", []), ValueError, 'grads["layers"] has 0 entries, params has 1 there'),
    (put("layers", [None, None]), ValueError, 'grads["layers"] has 2 entries, params has 1 there'),
    (put("layers", {0: None}), TypeError, f'grads["layers"] {SEQUENCE} dict'),
    (put("layers", np.ones(1)), TypeError, f'grads["layers"] {SEQUENCE} ndarray'),
    (put("layers", "w"), TypeError, f'grads["layers"] {SEQUENCE} str'),
    (put("layers", iter([])), TypeError, f'grads["layers"] {SEQUENCE} list_iterator{ONCE}'),
    (put("layers", [[1.0]]), TypeError, f'grads["layers"][0] {MAPPING} list'),
    (put("layers", [{}]), ValueError, 'grads["layers"][0]["w"] is missing; give None to skip that parameter'),
    (put("layers", [{"w": 1.0, "b": None}]), ValueError, f'grads["layers"][0]["b"] {UNEXPECTED}'),
    (put("layers", [Refusing(w=1.0)]), LookupError, "not today"),
    (put("layers", RefusingList([1.0])), LookupError, "not today"),
    (put("w3", None), ValueError, 'grads["w3"] is unexpected: params has no such entry'),
    (put(0, None), ValueError, "grads[0] is unexpected: params has no such entry"),
    (lambda _, grads: grads.pop("w1"), ValueError, 'grads["w1"] is missing; give None to skip that parameter'),
    (lambda params, _: read_only(params["b1"]), ValueError, 'params["b1"] is read-only'),
    (lambda params, _: params.pop("w1"), ValueError, 'params["w1"] is gone since the optimizer was made'),
    (put_param("layers", []), ValueError, 'params["layers"][0] is gone since the optimizer was made'),
    (put_param("layers", RefusingList([1.0])), LookupError, "not today"),
    (put_param("b1", None), TypeError, f'params["b1"] {PARAMS} NoneType'),
    (put_param("b1", np.ones(3, ">f4")), TypeError, f'params["b1"] has {np.dtype(">f4")!r}; {DTYPES}'),
    (lambda params, _: params.update(b1=params["w1"][0]), ValueError, 'params["w1"] and params["b1"] share memory'),
    (lambda params, grads: grads.update(w1=params["w1"]), ValueError, 'params["w1"] and grads["w1"] share memory'),
    (lambda params, grads: grads.update(b1=params["w1"][1]), ValueError, 'params["w1"] and grads["b1"] share memory'),
]  # fmt: skip


@pytest.mark.parametrize("steps_before", [0, 2])
@pytest.mark.parametrize(("spoil", "exception", "message"), STEP, ids=[message[:70] for *_, message in STEP])
def test_a_step_that_fails_changes_nothing_and_the_next_one_works(spoil, exception, message, steps_before):
    params = parameters()
    opt = lrcore.AdamW(params, lr=schedules.Linear(0.1, 0.2, steps=9))
    for _ in range(steps_before):
        opt.step(gradients())
    spoilt, grads = dict(params), gradients()
    spoil(params, grads)
    arrays = leaves(list(spoilt.values()))
    before = snapshot(opt, *arrays)
    with pytest.raises(exception, match=f"^{re.escape(message)}$"):
        opt.step(grads)
    assert snapshot(opt, *arrays) == before
    params.update(spoilt)
    params["b1"].flags.writeable = True
    assert opt.step(gradients()).step == steps_before + 1


@pytest.mark.parametrize("case", CASES, ids=label)
def test_an_invalid_last_gradient_stops_every_optimizer_before_its_first_write(case):
    params = [np.ones(100), np.ones(100)]
    opt = case.make(params)
    opt.step([np.ones(100), np.ones(100)])
    before = snapshot(opt, *params)
    with pytest.raises(ValueError, match=r"^grads\[1\] has shape \(99,\), params\[1\] has \(100,\)$"):
        opt.step([np.ones(100), np.ones(99)])
    assert snapshot(opt, *params) == before


@pytest.mark.parametrize("grads", [None, [], [None], 1.0, "ab", np.ones(2), {"w": None}, iter([None, None])], ids=label)
def test_gradients_of_another_structure_are_refused(grads):
    opt = lrcore.SGD([np.ones(2), np.ones(2)])
    with pytest.raises((TypeError, ValueError), match=r"^grads"):
        opt.step(grads)
    assert opt.steps == 0


GROUPED = [
    ([{"w": 1.0}], ValueError, "grads has 1 entry, params has 2 there"),
    ([{"w": 1.0}, 1.0, None], ValueError, "grads has 3 entries, params has 2 there"),
    (1.0, TypeError, "grads must be a sequence of groups like params, or None to skip it, got float"),
    ([{"w": 1.0}, {"b": 1.0}], TypeError, f"grads[1] {SEQUENCE} dict"),
    ([{"w": 1.0}, [np.ones(2)]], ValueError, 'grads[1][0] has shape (2,), params[1]["params"][0] has ()'),
    ([{"v": 1.0}, None], ValueError, 'grads[0]["w"] is missing; give None to skip that parameter'),
    (
        {"w": 1.0},
        ValueError,
        'grads must be a sequence of 2, one for each group, since params[1]["params"] is not a mapping',
    ),
]


@pytest.mark.parametrize(("grads", "exception", "message"), GROUPED, ids=[message[:50] for *_, message in GROUPED])
def test_gradients_of_groups_are_checked_group_by_group(grads, exception, message):
    params = [np.array(0.0), np.array(0.0)]
    opt = lrcore.Adam([{"params": {"w": params[0]}}, {"params": [params[1]]}])
    before = snapshot(opt, *params)
    with pytest.raises(exception, match=f"^{re.escape(message)}$"):
        opt.step(grads)
    assert snapshot(opt, *params) == before


READ_ONLY = np.ones(3)
READ_ONLY.flags.writeable = False
ONE = np.ones(4)
LOOP = [ONE]
LOOP.append(LOOP)

MAKE = [
    (lambda: lrcore.Adam(ONE, betas=(1.0, 0.9)), ValueError, "betas[0] must be in [0, 1), got 1.0"),
    (lambda: lrcore.Adam(ONE, betas=(0.9, -0.1)), ValueError, "betas[1] must be in [0, 1), got -0.1"),
    (lambda: lrcore.SGD({"b1": READ_ONLY}), ValueError, 'params["b1"] is read-only'),
    (lambda: lrcore.SGD({"w1": ONE[:3], "w2": ONE[2:]}), ValueError, 'params["w1"] and params["w2"] share memory'),
    (lambda: lrcore.SGD([ONE, [ONE]]), ValueError, "params[0] and params[1][0] share memory"),
    (
        lambda: lrcore.SGD([{"params": ONE}, {"params": [ONE]}]),
        ValueError,
        'params[0]["params"] and params[1]["params"][0] share memory',
    ),
    (lambda: lrcore.SGD([]), ValueError, "params holds no parameters"),
    (lambda: lrcore.SGD({"w": []}), ValueError, "params holds no parameters"),
    (lambda: lrcore.SGD(None), TypeError, f"params {PARAMS} NoneType"),
    (lambda: lrcore.SGD("w"), TypeError, f"params {PARAMS} str"),
    (lambda: lrcore.SGD({ONE.size}), TypeError, f"params {PARAMS} set"),
    (lambda: lrcore.SGD([1.0]), TypeError, f"params[0] {PARAMS} float"),
    (lambda: lrcore.SGD(w for w in [ONE]), TypeError, f"params {PARAMS} generator"),
    (lambda: lrcore.SGD({"w": ONE[0]}), TypeError, f'params["w"] {PARAMS} float64'),
    (lambda: lrcore.SGD(LOOP), ValueError, "params is nested more than 64 deep; does it contain itself?"),
    (lambda: lrcore.SGD({1: ONE[:2], "1": ONE[2:]}), ValueError, 'params["1"]: there is a parameter named "1" already'),
    (lambda: lrcore.SGD([{"params": ONE}, ONE]), TypeError, 'params[1] must be a group with "params", as others '),
    (lambda: lrcore.SGD([{"params": ONE, "rate": 1}]), ValueError, "a group has no 'rate'; it has params, name, lr, "),
    (lambda: lrcore.SGD([{"params": ONE, "lr": -1}]), ValueError, "lr must be in [0, inf), got -1"),
    (lambda: lrcore.SGD([{"params": ONE, "name": 1}]), TypeError, "the name of a group must be a string, got 1"),
    (lambda: lrcore.SGD([{"params": []}]), ValueError, 'params[0]["params"] holds no parameters'),
    (lambda: lrcore.SGD(ONE, nesterov=True), ValueError, "nesterov needs momentum > 0 and dampening = 0, got momentum"),
    (lambda: lrcore.SGD(ONE).add_param_group(ONE), TypeError, 'the group must be a mapping with "params", got ndarray'),
    (lambda: lrcore.SGD(ONE).add_param_group({"lr": 1}), ValueError, 'the group has no "params"; it has lr'),
    (lambda: lrcore.SGD(ONE).__copy__(), TypeError, "SGD can't be copied without its parameters; use copy.deepcopy"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "exception", "message"), MAKE, ids=[message[:70] for *_, message in MAKE])
def test_invalid_parameters_and_arguments_are_named(call, exception, message):
    with pytest.raises(exception, match=f"^{re.escape(message)}"):
        call()
    assert (ONE == 1.0).all()


USES = [
    lambda opt: opt.load_state_dict(opt.state_dict()),
    lambda opt: opt.add_param_group({"params": opt.params["w2"][:0]}),
]


@pytest.mark.parametrize("instead", [None, 1.0, [], np.ones(3, int)], ids=repr)
@pytest.mark.parametrize("use", USES, ids=["load_state_dict", "add_param_group"])
def test_a_parameter_that_is_no_longer_an_array_is_named(use, instead):
    params = parameters()
    opt = lrcore.Adam(params)
    opt.step(gradients())
    params["b1"] = instead
    with pytest.raises((TypeError, ValueError), match=r"""['"]b1['"]"""):
        use(opt)
    assert opt.params is params


OUT_OF_RANGE = [-1.0, 1.0, float("nan"), float("inf"), None, "0.5", 1j, [0.5]]


@pytest.mark.parametrize("value", OUT_OF_RANGE, ids=repr)
def test_a_schedule_with_an_invalid_learning_rate_stops_the_step(value):
    params = [np.ones(3), np.ones(3)]
    groups = [{"params": params[0]}, {"params": params[1], "betas": (0.9, Custom(lambda step: value if step else 0.5))}]
    opt = lrcore.Adam(groups, lr=schedules.Linear(0.1, 0.2, steps=3))
    opt.step([np.ones(3), np.ones(3)])
    before = snapshot(opt, *params)
    for _ in range(2):
        with pytest.raises((TypeError, ValueError)):
            opt.step([np.ones(3), np.ones(3)])
        assert snapshot(opt, *params) == before
    opt.param_groups[1]["betas"] = (0.9, 0.5)
    assert opt.step([np.ones(3), np.ones(3)]) == (True, 2, schedules.Linear(0.1, 0.2, steps=3)(1), None)
