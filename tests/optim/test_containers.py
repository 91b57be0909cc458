"""Containers that create a new array at each access, and array subclasses with extra data."""

import shelve
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

import lrcore


class LazyMapping(Mapping):
    """A container whose entries are created by a function at each access."""

    def __init__(self, names, make):
        self.names, self.make = names, make

    def __getitem__(self, name):
        if name not in self.names:
            raise KeyError(name)
        return self.make(name)

    def __iter__(self):
        return iter(self.names)

    def __len__(self):
        return len(self.names)


class LazySequence(Sequence):
    """A container whose entries are created by a function at each access."""

    def __init__(self, count, make):
        self.count, self.make = count, make

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.make(index)

    def __len__(self):
        return self.count


def lazy_mapping():
    return LazyMapping(["a", "b"], lambda _: np.ones(6))


def lazy_sequence():
    return LazySequence(2, lambda _: np.ones(6))


NESTED = {
    "mapping": lambda _: lazy_mapping(),
    "sequence": lambda _: lazy_sequence(),
    "one array alone": lambda _: LazySequence(1, lambda _: np.ones(6)),
    "a view of an array of its own": lambda _: LazySequence(1, lambda _: np.ones((2, 3)).T),
    "within a dictionary": lambda _: {"x": np.ones(2), "layers": lazy_sequence()},
    "within a list": lambda _: [np.ones(2), [lazy_mapping()]],
    "making lists": lambda _: LazySequence(1, lambda _: [np.ones(6)]),
    "in a group": lambda _: [{"params": [np.ones(2)]}, {"params": lazy_mapping(), "lr": 0.5}],
}


@pytest.mark.parametrize("make", NESTED.values(), ids=NESTED)
def test_a_container_that_creates_new_arrays_is_refused(make, tmp_path):
    with pytest.raises(ValueError, match=r"is another array at each access.* dict\(…\) or list\(…\)"):
        lrcore.SGD(make(tmp_path), lr=0.1)


def test_array_files_are_refused_and_their_arrays_accepted(tmp_path):
    np.savez(tmp_path / "arrays.npz", a=np.ones(3), b=np.ones((2, 2)))
    with np.load(tmp_path / "arrays.npz") as file:
        with pytest.raises(ValueError, match=r'^params\["a"\] is another array at each access'):
            lrcore.SGD(file, lr=0.1)
        opt = lrcore.SGD(dict(file), lr=0.1)
    opt.step({"a": np.ones(3), "b": np.ones((2, 2))})
    assert opt.params["a"].tolist() == [0.9] * 3
    with shelve.open(tmp_path / "shelf") as shelf:  # noqa: S301
        shelf["a"] = np.ones(3)
        with pytest.raises(ValueError, match=r'^params\["a"\] is another array at each access'):
            lrcore.SGD(shelf, lr=0.1)


@pytest.mark.parametrize("groups", [False, True])
def test_a_container_of_new_views_of_the_same_memory_works(groups):
    memory = np.ones((2, 6))
    params = LazySequence(2, lambda index: memory[index])
    opt = lrcore.Adam([{"params": params}] if groups else params, lr=0.1)
    for _ in range(3):
        opt.step([[np.ones(6), np.ones(6)]] if groups else [np.ones(6), np.ones(6)])
    assert np.allclose(memory, 0.7)


def test_views_of_memory_not_owned_by_an_array_work(tmp_path):
    buffer = bytearray(np.ones(6).tobytes())
    mapped = np.memmap(tmp_path / "weights", np.float64, "w+", shape=6)
    params = LazyMapping(["buffer", "map"], lambda name: np.frombuffer(buffer) if name == "buffer" else mapped.view())
    opt = lrcore.SGD(params, lr=1.0)
    for _ in range(2):
        opt.step({"buffer": np.ones(6), "map": np.ones(6)})
    assert np.frombuffer(buffer).tolist() == [-1.0] * 6
    assert mapped.tolist() == [-2.0] * 6


@pytest.mark.parametrize("steps_before", [0, 1, 2])
@pytest.mark.parametrize(
    "make", [lazy_mapping, lambda: LazyMapping(["a", "b"], lambda _: np.ones((3, 2)).T.ravel("F"))]
)
def test_a_container_that_later_creates_new_arrays_is_refused_at_the_step(make, steps_before):
    params = {"x": np.ones(6), "layers": {"a": np.ones(6), "b": np.ones(6)}}
    grads = {"x": np.ones(6), "layers": {"a": np.ones(6), "b": np.ones(6)}}
    opt = lrcore.Adam(params, lr=0.1)
    for _ in range(steps_before):
        opt.step(grads)
    before = params["x"].copy()
    params["layers"] = make()
    for attempt in (opt.step, opt.step, opt.accumulate):
        with pytest.raises(ValueError, match=r'^params\["layers"\]\["a"\] is another array at each access'):
            attempt(grads)
    assert (opt.steps, params["x"].tolist()) == (steps_before, before.tolist())
    params["layers"] = dict(params["layers"])
    opt.step(grads)


def test_containers_of_gradients_may_create_new_arrays():
    weights = {"a": np.ones(6), "b": np.ones(6)}
    opt = lrcore.SGD(weights, lr=1.0)
    for _ in range(3):
        opt.step(lazy_mapping())
    opt.accumulate(lazy_mapping())
    opt.step()
    assert weights["a"].tolist() == weights["b"].tolist() == [-3.0] * 6


@pytest.mark.parametrize("mask", [False, [True, False, False], np.ma.nomask])
@pytest.mark.parametrize("steps_before", [0, 2])
def test_masked_arrays_are_refused(mask, steps_before):
    masked = np.ma.array(np.ones(3), mask=mask)
    with pytest.raises(TypeError, match=r'^params\["w"\] is a masked array, .* weights\.data$'):
        lrcore.SGD({"w": masked}, lr=0.1)
    params = {"w": np.ones(3)}
    opt = lrcore.SGD(params, lr=1.0, zero_grads=True)
    for _ in range(steps_before):
        opt.step({"w": np.ones(3)})
    before = params["w"].copy()
    for attempt in (opt.step, opt.accumulate):
        with pytest.raises(TypeError, match=r'^grads\["w"\] is a masked array, .* grads\.filled\(0\.0\)$'):
            attempt({"w": masked})
    assert (opt.steps, params["w"].tolist()) == (steps_before, before.tolist())
    params["w"] = masked
    with pytest.raises(TypeError, match=r'^params\["w"\] is a masked array'):
        opt.step({"w": np.ones(3)})


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_other_subclasses_are_accepted(tmp_path):
    class Mine(np.ndarray):
        pass

    mapped = np.memmap(tmp_path / "weights", np.float64, "w+", shape=(2, 2))
    params = [np.matrix(np.ones((2, 2))), np.ones((2, 2)).view(Mine), mapped]
    opt = lrcore.Adam(params, lr=1.0)
    for _ in range(2):
        opt.step([np.ones((2, 2)).view(Mine), np.matrix(np.ones((2, 2))), np.ones((2, 2))])
        opt.accumulate([np.ones((2, 2))] * 3)
        opt.step()
    assert all(np.allclose(array, expected) for array, expected in zip(params, (-3.0, -3.0, -4.0), strict=True))
