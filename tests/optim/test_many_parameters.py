"""One-off operations of an optimizer take time linear in the number of parameters and groups."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

import lrcore

COUNT = 400


class Name(str):
    """A string; the class counts all comparisons."""

    compared = 0

    __slots__ = ()

    def __eq__(self, other):
        Name.compared += 1
        return str(self) == str(other) if isinstance(other, str) else NotImplemented

    __hash__ = str.__hash__


class Container(Sequence):
    """A sequence of one array; the class counts all reads."""

    read = 0

    def __init__(self, array):
        self.array = array

    def __len__(self):
        return 1

    def __getitem__(self, index):
        Container.read += 1
        return [self.array][index]


@pytest.fixture(autouse=True)
def _counters():
    Name.compared = Container.read = 0


def named(grouped):
    params = {f"layers.{i}": np.zeros(2) for i in range(COUNT)}
    return [{"params": {name: array}} for name, array in params.items()] if grouped else params


def with_names(state):
    """Return a state dict whose names count comparisons."""
    groups = [{**group, "params": [Name(name) for name in group["params"]]} for group in state["param_groups"]]
    return {**state, "param_groups": groups, "state": {Name(name): own for name, own in state["state"].items()}}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("grouped", [False, True])
def test_a_state_dict_is_loaded_without_searching_lists(grouped, strict):
    opt = lrcore.Adam(named(grouped))
    opt.accumulate({f"layers.{i}": np.ones(2) for i in range(COUNT)})
    opt.step()
    opt.accumulate({f"layers.{i}": np.ones(2) for i in range(COUNT)})
    saved = with_names(opt.state_dict())
    other = lrcore.Adam(named(grouped))
    other.load_state_dict(saved, strict=strict)
    assert other.steps == 1
    assert Name.compared < 50 * COUNT


def test_other_parameters_are_found_without_searching_lists():
    saved = with_names(lrcore.Adam(named(grouped=False)).state_dict())
    with pytest.raises(ValueError, match="other parameters") as caught:
        lrcore.Adam({f"blocks.{i}": np.zeros(2) for i in range(COUNT)}).load_state_dict(saved)
    assert Name.compared < 50 * COUNT
    assert len(str(caught.value)) < 500


def test_groups_are_added_without_reading_all_others():
    opt = lrcore.SGD([{"params": Container(np.zeros(2))}])
    for _ in range(COUNT):
        opt.add_param_group({"params": Container(np.zeros(2))})
    assert Container.read < 20 * COUNT
    assert len(opt.param_groups) == COUNT + 1


def test_entries_of_groups_are_compared_by_their_hashes():
    opt = lrcore.SGD([{"params": {Name(f"p{i}"): np.zeros(2)}} for i in range(COUNT)])
    assert Name.compared < 20 * COUNT
    with pytest.raises(ValueError, match=r'grads\["other"\] is unexpected'):
        opt.step({**{Name(f"p{i}"): np.ones(2) for i in range(COUNT)}, Name("other"): np.ones(2)})
    assert Name.compared < 40 * COUNT


def test_a_group_that_shares_memory_with_any_other_is_refused():
    """For any number of groups and any position of its memory among theirs."""
    memory = np.zeros((2 * COUNT, 2))
    opt = lrcore.SGD([{"params": memory[0]}])
    for i in range(2, 2 * COUNT, 2):
        opt.add_param_group({"params": memory[i]})
    for i in (0, 2, COUNT, 2 * COUNT - 2):
        with pytest.raises(ValueError, match="share memory"):
            opt.add_param_group({"params": memory[i, 1:]})
    assert len(opt.param_groups) == COUNT
    opt.add_param_group({"params": memory[1]})
    columns = np.zeros((4, COUNT))
    opt = lrcore.SGD([{"params": columns[:, 0]}])
    for i in range(1, 40):
        opt.add_param_group({"params": columns[:, i]})
    with pytest.raises(ValueError, match="share memory"):
        opt.add_param_group({"params": columns[1]})


def test_memory_that_a_parameter_no_longer_uses_may_be_used_by_another():
    params = {"w": np.zeros(4)}
    opt = lrcore.SGD(params)
    before = params["w"]
    params["w"] = np.ones(4)
    opt.add_param_group({"params": {"v": before}})
    opt.step({"w": np.ones(4), "v": np.ones(4)})
    assert isinstance(opt.params[0], Mapping)
