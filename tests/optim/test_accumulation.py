"""Micro-batches: gradients that wait for a step."""

import numpy as np
import pytest

import lrcore
from cases import DTYPES, same


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_step_uses_the_mean_of_what_was_added(dtype, order):
    rng = np.random.default_rng(0)
    draw = lambda: {"w": np.asarray(rng.standard_normal((200, 30)).astype(dtype), order=order), "b": np.ones(3, dtype)}  # noqa: E731
    params = draw()
    twin = {name: array.copy(order="K") for name, array in params.items()}
    opt, other = lrcore.AdamW(params), lrcore.AdamW(twin)
    for micro_batches in (1, 3, 4):
        total = {name: np.zeros_like(array) for name, array in params.items()}
        for _ in range(micro_batches):
            grads = draw()
            opt.accumulate(grads)
            for name, array in total.items():
                array += grads[name]
        info = opt.step()
        other.step(total, grad_scale=float(micro_batches))
        assert info.step == other.steps
        for name in params:
            assert same(params[name], twin[name])


def test_a_parameter_without_gradients_is_skipped_and_one_with_some_counts_as_zeros():
    params = {"a": np.zeros(1), "b": np.zeros(1), "c": np.zeros(1)}
    opt = lrcore.SGD(params, lr=1.0)
    opt.accumulate({"a": np.ones(1), "b": None, "c": None})
    opt.accumulate({"a": np.ones(1), "b": np.ones(1), "c": None})
    opt.step()
    assert [array[0] for array in params.values()] == [-1.0, -0.5, 0.0]
    assert opt.state_dict()["state"].keys() == {"a", "b"}


def test_bad_gradients_add_nothing():
    params = {"a": np.zeros(2), "b": np.zeros(2)}
    opt = lrcore.SGD(params, lr=1.0)
    opt.accumulate({"a": np.ones(2), "b": np.ones(2)})
    with pytest.raises(ValueError, match=r'^grads\["b"\] has shape \(3,\)'):
        opt.accumulate({"a": np.ones(2), "b": np.ones(3)})
    opt.step()
    assert params["a"].tolist() == params["b"].tolist() == [-1.0, -1.0]


def test_a_step_without_anything_is_an_error():
    opt = lrcore.SGD(np.zeros(2))
    with pytest.raises(TypeError, match=r"^grads must have the structure of params, got None"):
        opt.step()
    opt.accumulate(np.ones(2))
    opt.step()
    with pytest.raises(TypeError, match=r"^grads must have the structure of params, got None"):
        opt.step()


def test_gradients_given_to_a_step_leave_those_that_wait_alone():
    weight = np.zeros(1)
    opt = lrcore.SGD(weight, lr=1.0)
    opt.accumulate(np.array([5.0]))
    opt.step(np.array([1.0]))
    assert weight[0] == -1.0
    opt.step()
    assert weight[0] == -6.0


def test_loading_forgets_what_waits():
    opt = lrcore.SGD(np.zeros(1))
    saved = opt.state_dict()
    opt.accumulate(np.ones(1))
    opt.load_state_dict(saved)
    assert opt.accumulate(np.ones(1)) == 1


def test_groups_take_micro_batches_in_their_forms():
    a, b = np.zeros(1), np.zeros(1)
    opt = lrcore.SGD([{"params": {"a": a}}, {"params": {"b": b}, "lr": 2.0}], lr=1.0)
    opt.accumulate({"a": np.ones(1), "b": np.ones(1)})
    opt.accumulate([{"a": np.ones(1)}, {"b": np.ones(1)}])
    opt.step()
    assert (a[0], b[0]) == (-1.0, -2.0)
