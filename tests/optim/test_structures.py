"""Parameters in any structure: gradients follow it, and every parameter has its own name and step count."""

from collections import OrderedDict, UserDict, UserList, defaultdict, namedtuple
from types import MappingProxyType

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from support.cases import CASES, same
from support.snapshot import leaves, snapshot

Layer = namedtuple("Layer", ["w", "b"])
ONE_A_RULE = list({case.rule: case for case in CASES}.values())
SCHEDULED = [case for case in CASES if any(isinstance(value, schedules.Schedule) for value in case.arguments.values())]
CONSTANT = list({case.rule: case for case in CASES if case not in SCHEDULED}.values())


def zeros():
    return np.zeros((2, 3))


def ones(structure):
    """Gradients of ones in the same structure, as plain lists and dicts."""
    if isinstance(structure, np.ndarray):
        return np.ones(structure.shape)
    if hasattr(structure, "keys"):
        return {key: ones(structure[key]) for key in structure}
    return [ones(entry) for entry in structure]


STRUCTURES = [
    (zeros, ["0"]),
    (lambda: [zeros()], ["0"]),
    (lambda: (zeros(), zeros()), ["0", "1"]),
    (lambda: {"w": zeros(), "b": zeros()}, ["w", "b"]),
    (lambda: {"layers": [{"w": zeros(), "b": zeros()}, {"w": zeros()}]}, ["layers.0.w", "layers.0.b", "layers.1.w"]),
    (lambda: [[[zeros()]], (zeros(),), {}], ["0.0.0", "1.0"]),
    (lambda: {"params": {"dense": {"kernel": zeros()}}}, ["params.dense.kernel"]),
    (lambda: {1: zeros(), (2, "x"): zeros(), None: zeros()}, ["1", "(2, 'x')", "None"]),
    (lambda: {"ä b": zeros(), 'quo"te': zeros()}, ["ä b", 'quo"te']),
    (lambda: Layer(zeros(), zeros()), ["0", "1"]),
    (lambda: OrderedDict(w=zeros(), b=zeros()), ["w", "b"]),
    (lambda: defaultdict(zeros, w=zeros()), ["w"]),
    (lambda: UserDict({"w": zeros(), "n": UserList([zeros()])}), ["w", "n.0"]),
    (lambda: MappingProxyType({"w": zeros()}), ["w"]),
    (lambda: [{"params": [zeros()]}], ["0.0"]),
    (lambda: [{"params": zeros()}, {"params": (zeros(), zeros())}], ["0", "1.0", "1.1"]),
    (lambda: ({"params": zeros(), "name": "a"}, {"params": [zeros()], "name": "b"}), ["a", "b.0"]),
    (lambda: [{"params": {"w": zeros()}}, {"params": {"b": zeros()}}], ["w", "b"]),
    (lambda: [{"params": {"w": zeros()}}, {"params": {"w": zeros()}}], ["w", "1.w"]),
    (lambda: [{"params": {"w": zeros()}}, {"params": {"w": zeros(), "b": zeros()}, "name": "x"}], ["w", "x.w", "x.b"]),
]


def is_groups(params):
    return isinstance(params, list | tuple) and isinstance(params[0], dict) and "params" in params[0]


@pytest.mark.parametrize(("make", "names"), STRUCTURES, ids=[str(names) for _, names in STRUCTURES])
def test_parameters_are_named_by_their_path_and_all_are_updated(make, names):
    params = make()
    structures = [group["params"] for group in params] if is_groups(params) else [params]
    opt = lrcore.Adam(params, lr=1.0)
    opt.step([ones(structure) for structure in structures] if is_groups(params) else ones(params))
    assert [name for group in opt.state_dict()["param_groups"] for name in group["params"]] == names
    assert list(opt.state) == names
    assert opt.params is params
    arrays = [array for structure in structures for array in leaves(structure)]
    assert len(arrays) == len(names)
    assert all((array < -0.9).all() for array in arrays)


@pytest.mark.parametrize("grads", [[1.0, 2.0], (1.0, 2.0), UserList([1.0, 2.0]), Layer(1.0, 2.0)], ids=repr)
def test_any_sequence_of_gradients_is_accepted(grads):
    params = [np.array(0.0), np.array(0.0)]
    lrcore.SGD(params, lr=1.0).step(grads)
    assert params == [-1.0, -2.0]


@pytest.mark.parametrize("kind", [dict, OrderedDict, UserDict, MappingProxyType, lambda d: defaultdict(list, d)])
def test_any_mapping_of_gradients_in_any_order_is_accepted(kind):
    params = {"a": np.array(0.0), "b": np.array(0.0)}
    lrcore.SGD(params, lr=1.0).step(kind({"b": np.array(2.0), "a": np.array(1.0)}))
    assert params == {"a": -1.0, "b": -2.0}


SKIPPING = [
    ({"a": 1.0, "n": [1.0, None]}, ["a", "n.0"]),
    ({"a": None, "n": [1.0, 1.0]}, ["n.0", "n.1"]),
    ({"a": 1.0, "n": None}, ["a"]),
    ({"a": None, "n": [None, None]}, []),
    ({"a": None, "n": None}, []),
]


@pytest.mark.parametrize(("grads", "moved"), SKIPPING, ids=[str(grads) for grads, _ in SKIPPING])
def test_none_skips_a_parameter_or_a_whole_container(grads, moved):
    params = {"a": np.array(0.0), "n": [np.array(0.0), np.array(0.0)]}
    opt = lrcore.Adam(params, lr=1.0)
    assert opt.step(grads) == (True, 1, 1.0, None)
    assert list(opt.state) == moved
    weights = {"a": params["a"], "n.0": params["n"][0], "n.1": params["n"][1]}
    assert [name for name, weight in weights.items() if weight != 0.0] == moved


@pytest.mark.parametrize("case", CONSTANT, ids=lambda case: case.rule)
def test_a_skipped_parameter_continues_from_its_own_step_count(case):
    """With constant hyperparameters it is updated as if the skipped steps had not happened."""
    rng = np.random.default_rng(5)
    skipped, alone, grads = np.ones(7), np.ones(7), rng.standard_normal((6, 7))
    opt, lonely = case.make({"often": np.ones(7), "seldom": skipped}), case.make({"seldom": alone})
    for k, grad in enumerate(grads):
        opt.step({"often": grad, "seldom": grad if k >= 2 and k != 4 else None})
        if k >= 2 and k != 4:
            lonely.step({"seldom": grad})
        assert same(skipped, alone)
    assert {name: saved["step"] for name, saved in opt.state_dict()["state"].items()} == {"often": 6, "seldom": 3}


def test_each_parameter_has_its_own_first_momentum_step():
    params = [np.array(0.0), np.array(0.0)]
    opt = lrcore.SGD(params, lr=1.0, momentum=0.5, dampening=0.5)
    opt.step([np.array(1.0), None])
    opt.step([np.array(1.0), np.array(1.0)])
    assert params == [-2.0, -1.0]


def test_many_arrays_are_updated_like_each_one_alone():
    rng = np.random.default_rng(6)
    starts = [rng.standard_normal(n).astype(dtype) for n in (0, 1, 31, 33, 500) for dtype in (np.float32, np.float64)]
    grads = [rng.standard_normal(start.shape).astype(start.dtype) for start in starts]
    for case in ONE_A_RULE:
        together = [start.copy() for start in starts]
        opt = case.make(together)
        for _ in range(3):
            opt.step(grads)
        for weight, start, grad in zip(together, starts, grads, strict=True):
            alone = start.copy()
            single = case.make(alone)
            for _ in range(3):
                single.step(grad)
            assert same(weight, alone), case


def test_an_array_that_replaces_another_is_updated():
    params = {"w": np.zeros(3), "n": [np.zeros(2)]}
    opt = lrcore.Adam(params, lr=1.0)
    grads = {"w": np.ones(3), "n": [np.ones(2)]}
    opt.step(grads)
    old, new = params["w"], np.zeros(3)
    params["w"], params["n"] = new, [np.zeros(2)]
    before = old.copy()
    opt.step(grads)
    assert (new < -0.9).all()
    assert (params["n"][0] < -0.9).all()
    assert same(old, before)


GROUPS = [{"params": {"w": 0.0}, "lr": 1.0, "name": "slow"}, {"params": {"b": 0.0}, "lr": 2.0}]


@pytest.mark.parametrize(
    "grads",
    [
        [{"w": 1.0}, {"b": 1.0}],
        ({"w": 1.0}, {"b": 1.0}),
        [{"params": {"w": 1.0}}, {"params": {"b": 1.0}, "name": "whatever"}],
        {"w": 1.0, "b": 1.0},
        {"b": 1.0, "w": 1.0},
    ],
    ids=str,
)
def test_gradients_are_accepted_per_group_or_in_one_mapping(grads):
    groups = [{**group, "params": {key: np.array(0.0) for key in group["params"]}} for group in GROUPS]
    opt = lrcore.SGD(groups)
    opt.step(grads)
    assert leaves([group["params"] for group in groups]) == [-1.0, -2.0]
    assert [group["lr"] for group in opt.param_groups] == [1.0, 2.0]
    assert opt.param_groups[0]["name"] == "slow"
    assert "name" not in opt.param_groups[1]


def test_none_skips_a_group():
    groups = [{"params": [np.array(0.0)]}, {"params": np.array(0.0)}]
    opt = lrcore.SGD(groups, lr=1.0)
    opt.step([None, 1.0])
    opt.step([[1.0], None])
    opt.step([{"params": None}, {"params": 1.0}])
    assert leaves([group["params"] for group in groups]) == [-1.0, -2.0]


def test_an_added_group_is_updated_with_the_others():
    body, head = {"w": np.array(0.0)}, {"v": np.array(0.0)}
    opt = lrcore.SGD(body, lr=1.0)
    opt.step({"w": 1.0})
    opt.add_param_group({"params": head, "lr": 10.0, "name": "head"})
    opt.step({"w": 1.0, "v": 1.0})
    opt.step([{"w": 1.0}, {"v": 1.0}])
    assert (body["w"], head["v"]) == (-3.0, -20.0)
    assert opt.params == [{"params": body}, {"params": head, "lr": 10.0, "name": "head"}]
    assert opt.params[0]["params"] is body


def test_a_refused_group_changes_nothing():
    weight = np.zeros(3)
    opt = lrcore.Adam([weight], lr=1.0)
    opt.step([np.ones(3)])
    before = snapshot(opt, weight)
    for group in ({"params": weight[1:]}, {"params": []}, {"params": np.zeros(2), "lr": -1.0}, {"params": [1.0]}, {}):
        with pytest.raises((TypeError, ValueError)):
            opt.add_param_group(group)
        assert snapshot(opt, weight) == before
        assert opt.params == [weight]
    assert opt.step([np.ones(3)]).step == 2


def test_a_merged_mapping_is_refused_where_groups_share_a_key():
    """The group of a gradient would be ambiguous."""
    first, second = np.zeros(2), np.zeros(2)
    opt = lrcore.SGD([{"params": {"w": first}}, {"params": {"w": second}}], lr=1.0)
    with pytest.raises(ValueError, match="w"):
        opt.step({"w": np.ones(2)})
    assert not first.any()


def test_an_extra_key_is_reported_even_if_groups_share_a_key():
    opt = lrcore.SGD([{"params": {"w": zeros()}}, {"params": {"w": zeros()}}])
    with pytest.raises(ValueError, match=r"extra|w"):
        opt.step({"w": np.ones((2, 3)), "extra": np.ones((2, 3))})
