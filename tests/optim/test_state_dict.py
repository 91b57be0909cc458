"""State dicts: a loaded optimizer continues with the same bits, and a load happens completely or not at all."""

import pickle

import numpy as np
import pytest

import lrcore
from support.cases import CASES, DTYPES, same
from support.snapshot import snapshot
from support.training import KEYS, assert_alike, parameters, run


def through_pickle(value):
    return pickle.loads(pickle.dumps(value))  # noqa: S301


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("saved_at", [0, 1, 3])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_resuming_from_a_state_dict_gives_the_bits_of_an_uninterrupted_run(case, saved_at, dtype):
    """Also from a file, with parameters in another order, and into an optimizer that has taken other steps."""
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


def test_saved_and_loaded_state_are_copies():
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


FORMS = [
    (lrcore.Adam, {}, {"amsgrad": True}),
    (lrcore.Adam, {"amsgrad": True}, {"amsgrad": False}),
    (lrcore.SGD, {}, {"momentum": 0.9}),
    (lrcore.SGD, {"momentum": 0.9}, {"momentum": 0.0}),
    (lrcore.SGD, {"momentum": 0.9}, {"nesterov": True}),
]
FORMS += [(lrcore.RMSprop, {"centered": True}, {"centered": False, "momentum": 0.9})]


@pytest.mark.parametrize(("optimizer", "arguments", "edit"), FORMS, ids=str)
def test_state_saved_between_an_edit_and_the_next_step_can_be_loaded(optimizer, arguments, edit):
    """The state is still that of the previous variant; for a parameter without gradients it stays so."""
    params, others = parameters(), parameters()
    opt = optimizer(params, lr=0.1, **arguments)
    run(opt, range(3))
    opt.param_groups[0].update(edit)
    other = optimizer(others)
    for key in KEYS:
        others[key][...] = params[key]
    other.load_state_dict(through_pickle(opt.state_dict()))
    opt.load_state_dict(opt.state_dict())
    for each in (opt, other):
        run(each, range(3, 6))
    assert_alike(params, opt, others, other)


def test_a_non_strict_load_loads_the_common_parameters():
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


def test_a_non_strict_load_accepts_another_optimizers_state():
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


def test_a_state_dict_without_common_parameters_is_always_refused(tmp_path):
    source = lrcore.Adam({f"model.{i}": np.zeros(2) for i in range(20)})
    source.step({f"model.{i}": np.ones(2) for i in range(20)})
    lrcore.save(tmp_path / "a.safetensors", source)
    opt = lrcore.Adam({f"net.{i}": np.zeros(2) for i in range(20)}, lr=0.5)
    for load in (
        lambda: opt.load_state_dict(source.state_dict(), strict=False),
        lambda: lrcore.load(tmp_path / "a.safetensors", opt, strict=False),
    ):
        with pytest.raises(ValueError, match=r"none of the optimizer's parameters.*'net.0'.*20 in all.*'model.0'"):
            load()
        assert (opt.steps, opt.lr, dict(opt.state)) == (0, 0.5, {})
    report = lrcore.Adam({"model.3": np.zeros(2), "b": np.zeros(2)}).load_state_dict(source.state_dict(), strict=False)
    assert (report.missing, len(report.unexpected)) == (["b"], 19)


NAMES = ["a\udc80", "a\udc81", "a\ufffd", "a\\udc82", "a.b[0]", "[x]", "x]y[", "a/b", "é", "\x00", '"', "0"]


def test_arbitrary_names_are_unique_and_survive_saving(tmp_path):
    def make():
        return lrcore.Adam({name: np.full(2, float(i)) for i, name in enumerate(NAMES)})

    opt = make()
    assert len({row.name for row in opt.summary().rows}) == len(NAMES)
    opt.step({name: np.full(2, i + 1.0) for i, name in enumerate(NAMES)})
    lrcore.save(tmp_path / "a.safetensors", opt)
    for load in (
        lambda other: other.load_state_dict(opt.state_dict()),
        lambda other: lrcore.load(tmp_path / "a.safetensors", other),
    ):
        other = make()
        load(other)
        for name, arrays in opt.state.items():
            for key, array in arrays.items():
                assert (other.state[name][key] == array).all()
    assert all((other.params[name] == opt.params[name]).all() for name in NAMES)


def test_a_name_collision_names_both_parameters_and_the_fix():
    with pytest.raises(
        ValueError, match=r'^params\["a"\]\["b"\]: .*"a.b" already, params\["a.b"\]; .*rename one of the keys'
    ):
        lrcore.SGD({"a.b": np.zeros(1), "a": {"b": np.zeros(1)}})
    groups = [{"params": {"w": np.zeros(1), "1.w": np.zeros(1)}}, {"params": {"w": np.zeros(1)}}]
    with pytest.raises(ValueError, match=r'of another group; give this group a "name" other than "1"'):
        lrcore.SGD(groups)
    groups[1]["name"] = "head"
    assert [row.name for row in lrcore.SGD(groups).summary().rows] == ["w", "1.w", "head.w"]


def test_an_entry_added_later_is_reported_and_can_be_added_as_a_group():
    params = {"w": np.zeros(1), "list": [np.zeros(1)]}
    opt = lrcore.SGD(params, lr=1.0)
    params["v"] = np.zeros(1)
    grads = {"w": np.ones(1), "list": [np.ones(1)], "v": np.ones(1)}
    with pytest.raises(ValueError, match=r'^grads\["v"\] is unexpected: the entry was added .* add_param_group'):
        opt.step(grads)
    params["list"].append(np.zeros(1))
    with pytest.raises(ValueError, match=r"had 1 there when the optimizer was made, and has 2 now; add_param_group"):
        opt.step({"w": None, "list": [None, None]})
    assert [row.name for row in opt.summary().rows] == ["w", "list.0"]
    assert list(opt.state_dict()["param_groups"][0]["params"]) == ["w", "list.0"]
    params["list"].pop()
    opt.add_param_group({"params": {"v": params["v"]}})
    opt.step(grads)
    assert params["v"].tolist() == [-1.0]
    with pytest.raises(ValueError, match=r"params has no such entry"):
        lrcore.SGD({"w": np.zeros(1)}).step({"w": None, "u": None})
