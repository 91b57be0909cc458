"""Hyperparameters are numbers or schedules. Edits apply from the next step; invalid edits raise immediately."""

import copy
import math
import pickle
import re
from fractions import Fraction

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from support.cases import OPTIMIZERS, each_optimizer, same
from support.rows import each
from support.snapshot import snapshot

WEIGHTS = np.linspace(-1.0, 1.0, 50)


class NotANumber(float):
    """A float whose conversion raises."""

    def __float__(self):
        return math.nan


def run(opt, steps):
    for k in range(steps):
        opt.step(np.cos(np.arange(50.0) + k))


def numbers_of(optimizer, **_):
    """The names of the hyperparameters that are one number."""
    values = optimizer(np.zeros(1)).param_groups[0].hyperparameters
    return [key for key, value in values.items() if isinstance(value, float)]


@each_optimizer
@each("key", numbers_of)
def test_every_number_may_be_a_schedule(optimizer, key):
    """A constant schedule acts like its value, any other like an edit before each step."""
    numbers, constant, course, edited = (WEIGHTS.copy() for _ in range(4))
    line = schedules.Linear(0.25, 0.75, steps=3)
    run(optimizer(numbers, **{key: 0.25}), 4)
    run(optimizer(constant, **{key: schedules.Constant(0.25)}), 4)
    assert same(numbers, constant)
    run(optimizer(course, **{key: line}), 5)
    opt = optimizer(edited, **{key: line(0)})
    for k in range(5):
        opt.param_groups[0][key] = line(k)
        opt.step(np.cos(np.arange(50.0) + k))
    assert same(course, edited)


@pytest.mark.parametrize("i", [0, 1])
def test_each_of_the_betas_may_be_a_schedule(i):
    line = schedules.Linear(0.5, 0.75, steps=3)
    course, edited = WEIGHTS.copy(), WEIGHTS.copy()
    run(lrcore.Adam(course, betas=(line, 0.9) if i == 0 else [0.9, line]), 5)
    opt = lrcore.Adam(edited)
    for k in range(5):
        opt.param_groups[0]["betas"] = (line(k), 0.9) if i == 0 else (0.9, line(k))
        opt.step(np.cos(np.arange(50.0) + k))
    assert same(course, edited)


@pytest.mark.parametrize("kind", [int, np.float32, np.float16, np.int8, np.uint64, np.longdouble], ids=str)
@each_optimizer
@each("key", numbers_of)
def test_any_real_number_is_accepted_and_stored_as_a_float(optimizer, key, kind):
    group = optimizer(np.zeros(1)).param_groups[0]
    group[key] = kind(1)
    assert group[key] == 1.0
    assert type(group[key]) is float


REFUSED = [
    (-1e-300, ValueError), (math.nan, ValueError), (math.inf, ValueError), (-math.inf, ValueError), (-1, ValueError),
    (10**400, ValueError), (-(10**400), ValueError), (np.float32(-1), ValueError), (np.float64("nan"), ValueError),
    (NotANumber(0.1), ValueError), (np.longdouble("1e4000"), ValueError),
    (None, TypeError), ("0.1", TypeError), (True, TypeError), (np.True_, TypeError), (1j, TypeError),
    ((0.1,), TypeError), (np.array([0.1]), TypeError), (Fraction(1, 10), TypeError),
    (math.sqrt, TypeError), (schedules.Cosine, TypeError),
]  # fmt: skip


@pytest.mark.parametrize(("value", "exception"), REFUSED, ids=[str(value)[:20] for value, _ in REFUSED])
@each("optimizer, key", [(optimizer, key) for optimizer in OPTIMIZERS for key in numbers_of(optimizer)])
def test_a_value_that_is_no_number_in_range_is_refused_immediately(optimizer, key, value, exception):
    with pytest.raises(exception, match=f"^{key} must be "):
        optimizer(np.zeros(2), **{key: value})
    opt = optimizer(np.zeros(2))
    before = snapshot(opt)
    with pytest.raises(exception, match=f"^{key} must be "):
        opt.param_groups[0][key] = value
    assert snapshot(opt) == before


EDITS = [
    (lrcore.Adam, "betas", (1.0, 0.9), ValueError, "betas[0] must be in [0, 1), got 1.0"),
    (lrcore.Adam, "betas", (0.9, 2), ValueError, "betas[1] must be in [0, 1), got 2"),
    (lrcore.Adam, "betas", (0.9, "x"), TypeError, "betas[1] must be a number in [0, 1) or a schedule, got 'x'"),
    (lrcore.Adam, "betas", 0.9, TypeError, "betas must be two numbers or schedules, got 0.9"),
    (lrcore.Adam, "betas", (0.9,), TypeError, "betas must be two numbers or schedules, got (0.9,)"),
    (lrcore.Adam, "betas", schedules.Constant(0.9), TypeError, "betas must be two numbers or schedules, got Constant("),
    (lrcore.Adam, "amsgrad", 1, TypeError, "amsgrad must be True or False, got 1"),
    (lrcore.Adam, "maximize", None, TypeError, "maximize must be True or False, got None"),
    (lrcore.Adam, "momentum", 0.9, ValueError, "unknown hyperparameter 'momentum'; allowed are lr, betas, eps, "),
    (lrcore.Adam, 3, 0.9, ValueError, "unknown hyperparameter 3; allowed are lr, betas, eps, "),
    (lrcore.Adam, "params", [], ValueError, "the 'params' of a group can't be changed; use add_param_group"),
    (lrcore.Adam, "name", "x", ValueError, "the 'name' of a group can't be changed; use add_param_group"),
    (lrcore.SGD, "nesterov", 0.0, TypeError, "nesterov must be True or False, got 0.0"),
    (lrcore.SGD, "nesterov", True, ValueError, "nesterov needs momentum > 0 and dampening = 0, got momentum=0.0, "),
]


EDITS += [(lrcore.RMSprop, "alpha", 1.1, ValueError, "alpha must be in [0, 1], got 1.1")]


@pytest.mark.parametrize(
    ("optimizer", "key", "value", "exception", "message"), EDITS, ids=[row[4][:40] for row in EDITS]
)
def test_an_invalid_edit_raises_and_changes_nothing(optimizer, key, value, exception, message):
    opt = optimizer(np.zeros(50))
    run(opt, 1)
    before = snapshot(opt)
    with pytest.raises(exception, match=f"^{re.escape(message)}"):
        opt.param_groups[0][key] = value
    assert snapshot(opt) == before
    run(opt, 1)


def test_interdependent_edits_can_be_made_together_in_any_order():
    opt = lrcore.SGD(WEIGHTS.copy())
    opt.param_groups[0].update({"nesterov": True, "momentum": 0.9})
    assert opt.param_groups[0]["nesterov"] is True
    opt.param_groups[0].update(momentum=0.0, nesterov=False)


def test_an_update_with_one_invalid_value_changes_nothing():
    opt = lrcore.Adam(WEIGHTS.copy(), lr=0.1)
    with pytest.raises(ValueError, match=r"^eps must be in"):
        opt.param_groups[0].update(lr=0.5, eps=-1.0)
    assert opt.lr == 0.1


REMOVALS = [lambda g: g.pop("lr"), lambda g: g.popitem(), lambda g: g.clear(), lambda g: g.__delitem__("eps")]


@pytest.mark.parametrize("remove", REMOVALS)
def test_nothing_can_be_removed_from_a_group(remove):
    opt = lrcore.Adam(WEIGHTS.copy())
    before = snapshot(opt)
    with pytest.raises(ValueError, match="can't be removed from a group"):
        remove(opt.param_groups[0])
    assert snapshot(opt) == before


def test_groups_are_edited_one_by_one():
    params = [np.zeros(2), np.zeros(2)]
    opt = lrcore.SGD([{"params": params[0]}, {"params": params[1], "lr": 2.0}], lr=1.0)
    opt.step([np.ones(2)] * 2)
    opt.param_groups[1]["lr"] = 10.0
    assert opt.lr == 1.0
    opt.step([np.ones(2)] * 2)
    assert (params[0][0], params[1][0]) == (-2.0, -12.0)


def test_the_learning_rate_of_the_next_step_is_known_before_it():
    opt = lrcore.SGD(np.zeros(2), lr=schedules.Linear(1.0, 0.0, steps=4))
    for k in range(6):
        assert opt.lr == opt.step(np.ones(2)).lr == schedules.Linear(1.0, 0.0, steps=4)(k)


def test_the_structure_of_param_groups_is_read_only():
    opt = lrcore.SGD(np.zeros(2))
    assert isinstance(opt.param_groups, tuple)
    with pytest.raises(AttributeError):
        opt.param_groups = ()


FORMS = [
    (lrcore.Adam, {"amsgrad": True}), (lrcore.RMSprop, {"centered": True}), (lrcore.RMSprop, {"momentum": 0.9}),
    (lrcore.Adam, {"maximize": True}), (lrcore.Adam, {"weight_decay": 0.1}),
]  # fmt: skip


@pytest.mark.parametrize(("optimizer", "edit"), FORMS, ids=str)
def test_another_variant_of_the_rule_keeps_the_common_state(optimizer, edit):
    opt = optimizer(WEIGHTS.copy())
    run(opt, 3)
    before = {key: array.copy() for key, array in opt.state.get("0", {}).items()}
    opt.param_groups[0].update(edit)
    with pytest.raises(ValueError, match="shape"):
        opt.step(np.ones(3))
    assert all(same(opt.state["0"][key], array) for key, array in before.items())
    run(opt, 1)
    opt.param_groups[0].update({key: type(value)(0) for key, value in edit.items()})
    run(opt, 1)
    assert opt.steps == 5


def test_momentum_that_is_turned_on_later_starts_undampened():
    weight = np.array(0.0)
    opt = lrcore.SGD(weight, lr=1.0)
    opt.step(1.0)
    opt.param_groups[0].update(momentum=0.9, dampening=0.5)
    opt.step(1.0)
    assert weight == -2.0


def test_a_group_is_a_mapping_that_can_be_printed_copied_and_pickled():
    opt = lrcore.SGD([{"params": WEIGHTS.copy(), "name": "body"}], lr=0.1)
    group = opt.param_groups[0]
    assert list(group) == ["params", "name", *group.hyperparameters]
    assert len(group) == len(list(group))
    assert repr(group).startswith("ParamGroup('body', lr=0.1, momentum=0.0, ")
    for copied in (copy.deepcopy(group), copy.copy(group), pickle.loads(pickle.dumps(group))):  # noqa: S301
        copied["lr"] = 0.5
        assert (opt.lr, copied["lr"]) == (0.1, 0.5)


def test_an_edit_during_a_step_is_not_lost():
    """It stands for an edit by another thread; here the schedule makes it, for a reproducible moment."""
    opt = lrcore.SGD(WEIGHTS.copy(), lr=0.5)

    class Editing(schedules.Schedule):
        def _value(self, _):
            opt.param_groups[0].update(lr=0.25, weight_decay=0.0)
            return 0.0

    opt.param_groups[0]["weight_decay"] = Editing()
    run(opt, 1)
    assert opt.lr == 0.25
    assert opt.step(np.ones(50)).lr == 0.25


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("clip_value", [0.5, None, schedules.Constant(0.25), None, 1.0, schedules.Constant(0.5), 0.5]),
        ("betas", [(0.5, 0.9), (schedules.Constant(0.5), 0.99), (0.9, schedules.Constant(0.9)), (0.9, 0.999)]),
        ("lr", [0.5, schedules.Constant(0.1), 0.25, schedules.Linear(0.1, 0.0, steps=9), 1.0]),
    ],
)
def test_an_edited_group_equals_one_created_with_the_same_values(name, values):
    array, other = np.ones(3), np.ones(3)
    opt = lrcore.Adam([array])
    for value in values:
        opt.param_groups[0][name] = value
        made = lrcore.Adam([other], **{name: value})
        for step in (0, 5):
            assert opt.param_groups[0].at(step) == made.param_groups[0].at(step)


def test_groups_are_compared_by_identity():
    groups = [{"params": [np.zeros((2, 2)), np.zeros(3)]}, {"params": [np.zeros((2, 2)), np.zeros(3)]}]
    opt = lrcore.SGD(groups, lr=0.1)
    first, second = opt.param_groups
    assert first in opt.param_groups
    assert (opt.param_groups.index(first), opt.param_groups.index(second)) == (0, 1)
    assert first == first
    assert first != second
    assert first != dict(first)
    assert len({first, second, opt.param_groups[0]}) == 2


def test_a_group_can_be_copied():
    opt = lrcore.SGD([np.zeros(3)], lr=0.1, momentum=0.5)
    (copied,) = copy.deepcopy(opt.param_groups)
    assert {key: copied[key] for key in copied if key != "params"} == {
        key: value for key, value in opt.param_groups[0].items() if key != "params"
    }
    copied["lr"] = 0.5
    assert opt.lr == 0.1
    assert copied != opt.param_groups[0]


SCALARS = {
    "float32": np.float32(0.5),
    "int": 1,
    "0-d": np.array(0.5),
    "0-d integer": np.array(1),
    "float16": np.float16(0.5),
    "longdouble": np.longdouble(0.5),
}


@pytest.mark.parametrize("value", SCALARS.values(), ids=SCALARS)
def test_any_real_scalar_is_accepted_and_stored_as_a_float(value):
    number = float(value)
    beta = value if number < 1 else np.array(0.5)
    opt = lrcore.Adam(
        [{"params": [np.zeros(1)], "lr_scale": value}], lr=value, betas=(beta, beta), eps=value, clip_value=value,
        bounds=(0, value), clip_norm=value,
    )  # fmt: skip
    group = opt.param_groups[0]
    kept = [group["lr"], *group["betas"], group["eps"], group["lr_scale"], *group["bounds"], opt.options["clip_norm"]]
    assert [type(one) for one in kept] == [float] * len(kept)
    assert opt.step([[np.ones(1)]], grad_scale=value).applied
    group["lr"] = value
    group.update(betas=np.array([0.25, 0.5]), weight_decay=value)
    assert (group["lr"], group["betas"], group["weight_decay"]) == (number, (0.25, 0.5), number)
    opt.add_param_group({"params": [np.zeros(1)], "lr": value})
    assert type(opt.param_groups[1]["lr"]) is float


@pytest.mark.parametrize(
    "value", [True, np.True_, np.asarray(np.True_), "0.5", b"1", None, 1j, np.array([0.5]), [0.5]], ids=repr
)
def test_other_values_than_real_scalars_are_refused_everywhere(value):
    opt = lrcore.Adam([np.zeros(1)])
    for call in (
        lambda: lrcore.SGD([np.zeros(1)], lr=value),
        lambda: lrcore.Adam([np.zeros(1)], betas=(0.9, value)),
        lambda: opt.step([np.ones(1)], grad_scale=value),
        lambda: opt.param_groups[0].update(lr=value),
        lambda: opt.param_groups[0].update(eps=value),
        lambda: opt.add_param_group({"params": [np.zeros(1)], "lr": value}),
        lambda: setattr(opt, "lr", value),
    ):
        with pytest.raises(TypeError):
            call()
    assert opt.steps == 0


def test_a_scalar_that_is_changed_in_place_changes_no_hyperparameter():
    scalar = np.array(0.5)
    opt = lrcore.Adam([np.zeros(1)], lr=scalar, betas=(scalar, scalar))
    scalar[...] = 0.25
    assert (opt.lr, opt.param_groups[0]["betas"]) == (0.5, (0.5, 0.5))
    opt.param_groups[0]["lr"] = scalar
    scalar[...] = 0.125
    assert opt.lr == 0.25


def test_tensors_are_accepted_as_scalars():
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(0.5)
    opt = lrcore.Adam([np.zeros(1)], lr=tensor, betas=(tensor, torch.tensor(0.5, dtype=torch.float64)))
    opt.param_groups[0]["eps"] = tensor
    tensor.fill_(0.25)
    group = opt.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.5, 0.5), 0.5)
    assert opt.step([np.ones(1)], grad_scale=torch.tensor(2)).applied
    for bad in (torch.tensor([0.5]), torch.tensor(1, dtype=torch.bool), torch.tensor(1j)):
        with pytest.raises(TypeError):
            group["lr"] = bad


@each_optimizer
def test_an_attribute_that_nothing_reads_is_warned_of(optimizer):
    opt = optimizer(np.zeros(2))
    before = opt.param_groups[0].hyperparameters
    with pytest.warns(UserWarning, match=r"^opt\.weight_decay = 0\.5 has no effect on steps") as caught:
        opt.weight_decay = 0.5
    assert [warning.filename for warning in caught] == [__file__]
    assert opt.weight_decay == 0.5
    opt.lr = 0.5
    assert opt.param_groups[0].hyperparameters == {**before, "lr": 0.5}


def test_a_hyperparameter_is_no_attribute_of_an_optimizer():
    with pytest.raises(AttributeError, match="SGD has no attribute 'momentum'; param_groups have it"):
        _ = lrcore.SGD(np.zeros(2)).momentum
    assert not hasattr(lrcore.SGD, "momentum")
