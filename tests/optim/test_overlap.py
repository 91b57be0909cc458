"""Arrays of a step may be views of one buffer, but written elements must not be shared."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import lrcore
from support.snapshot import snapshot

BUFFER = np.zeros(24)
APART = {
    "neighbours": (BUFFER[:6], BUFFER[6:12]),
    "even and odd": (BUFFER[:12:2], BUFFER[1:12:2]),
    "columns": (BUFFER.reshape(6, 4)[:, 1], BUFFER.reshape(6, 4)[:, 3]),
    "one backwards": (BUFFER[10::-2], BUFFER[1:12:2]),
    "blocks of a matrix": (BUFFER.reshape(4, 6)[:2, :3], BUFFER.reshape(4, 6)[:2, 3:]),
    "an empty slice inside": (BUFFER[3:3], BUFFER[:6]),
}
MEETING = {
    "the same": (BUFFER[:6], BUFFER[:6]),
    "one number": (BUFFER[:6], BUFFER[5:11]),
    "inside": (BUFFER[:12], BUFFER[3:5]),
    "backwards": (BUFFER[:6], BUFFER[5::-1]),
    "every second and third": (BUFFER[:12:2], BUFFER[1:16:3]),
    "another dtype": (BUFFER[:6], BUFFER.view(np.float32)[11:20]),
    "row and column": (BUFFER.reshape(4, 6)[1], BUFFER.reshape(4, 6)[:, 5]),
}


@pytest.mark.parametrize("pair", APART.values(), ids=APART)
def test_views_of_one_buffer_that_share_no_element_are_accepted(pair):
    BUFFER[...] = 0.0
    lrcore.SGD({"a": pair[0], "b": pair[1]}, lr=1.0).step({"a": np.ones(pair[0].shape), "b": np.ones(pair[1].shape)})
    assert BUFFER.sum() == -sum(view.size for view in pair)
    weight, grad = pair
    if weight.shape == grad.shape:
        grad[...] = 3.0
        lrcore.SGD({"w": weight}, lr=1.0).step({"w": grad})
        assert (grad == 3.0).all()


@pytest.mark.parametrize("pair", MEETING.values(), ids=MEETING)
def test_views_that_share_an_element_are_refused(pair):
    first, second = pair
    BUFFER[...] = 0.0
    with pytest.raises(ValueError, match=r'^params\["a"\] and params\["b"\] share memory$'):
        lrcore.SGD({"a": first, "b": second})
    params = {"a": first, "b": second.copy()}
    opt = lrcore.SGD(params, lr=1.0)
    with pytest.raises(ValueError, match=r'^params\["a"\] and grads\["b"\] share memory$'):
        opt.step({"a": np.ones_like(first), "b": second})
    params["b"] = second
    with pytest.raises(ValueError, match=r'^params\["a"\] and params\["b"\] share memory$'):
        opt.step({"a": np.ones_like(first), "b": np.ones_like(second)})
    with pytest.raises(ValueError, match=r'^params\[0\]\["params"\] and params\[1\]\["params"\] share memory$'):
        lrcore.SGD(first).add_param_group({"params": second})
    assert not BUFFER.any()


def test_a_gradient_may_share_memory_with_a_weight_that_is_not_updated():
    weight, other = np.ones(6), np.ones(6)
    lrcore.SGD([weight, other], lr=1.0).step([None, weight])
    assert not other.any()


@pytest.mark.parametrize("which", ["exp_avg", "exp_avg_sq"])
def test_state_must_not_share_memory(which):
    params = {"w": np.ones(6), "b": np.ones(6)}
    arrays = list(params.values())
    opt = lrcore.Adam(params)
    opt.step({"w": np.ones(6), "b": np.ones(6)})
    state = opt.state["w"][which]
    before = snapshot(opt, *arrays)
    with pytest.raises(ValueError, match=rf'^state\["w"\]\["{which}"\] and grads\["b"\] share memory$'):
        opt.step({"w": np.ones(6), "b": state})
    params["b"] = state[::-1]
    with pytest.raises(ValueError, match=r"share memory$"):
        opt.step({"w": np.ones(6), "b": np.ones(6)})
    assert snapshot(opt, *arrays) == before


def test_weights_that_start_to_share_memory_within_the_same_span_are_refused():
    """Interleaved at one step, overlapping at the next, with the same first and last byte."""
    buffer = np.zeros(9)
    params = {"a": buffer[0:9:2], "b": buffer[1:8:2]}
    opt = lrcore.SGD(params, lr=1.0)
    opt.step({"a": np.ones(5), "b": np.ones(4)})
    params["b"] = buffer[1:8]
    with pytest.raises(ValueError, match=r"share memory$"):
        opt.step({"a": np.ones(5), "b": np.ones(7)})
    assert (buffer == -1.0).all()


def test_a_gradient_that_starts_to_share_memory_within_the_same_span_is_refused():
    buffer = np.zeros(8)
    weight, grad = as_strided(buffer, (2, 2), (32, 16)), as_strided(buffer[1:], (2, 2), (32, 16))
    opt = lrcore.SGD({"w": weight}, lr=1.0)
    opt.step({"w": grad})
    shared = as_strided(buffer[1:], (2, 2), (8, 40))
    assert np.shares_memory(weight, shared)
    with pytest.raises(ValueError, match=r"share memory$"):
        opt.step({"w": shared})


class Denying(np.ndarray):
    """An array class that reports that it shares no memory."""

    def __array_function__(self, function, types, args, kwargs):
        return False


class Refusing(np.ndarray):
    """An array class that refuses to report whether it shares memory."""

    def __array_function__(self, function, types, args, kwargs):
        raise NotImplementedError(function.__name__)


@pytest.mark.parametrize("kind", [Denying, Refusing])
def test_a_subclass_cannot_override_whether_memory_is_shared(kind):
    buffer = np.zeros(8)
    even, odd = buffer[::2].view(kind), buffer[1::2].view(kind)
    lrcore.SGD([even, odd], lr=1.0).step([np.ones(4), np.ones(4)])
    assert (buffer == -1.0).all()
    with pytest.raises(ValueError, match=r"share memory$"):
        lrcore.SGD([even, even])
