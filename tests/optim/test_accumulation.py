"""Micro-batches: gradients are accumulated before a step."""

import copy
import pickle
import re
import tempfile

import numpy as np
import pytest

import lrcore
from support import reference
from support.cases import DTYPES, same


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_step_uses_the_mean_of_the_accumulated_gradients(dtype, order):
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


def test_a_parameter_without_gradients_is_skipped_and_missing_gradients_count_as_zero():
    params = {"a": np.zeros(1), "b": np.zeros(1), "c": np.zeros(1)}
    opt = lrcore.SGD(params, lr=1.0)
    opt.accumulate({"a": np.ones(1), "b": None, "c": None})
    opt.accumulate({"a": np.ones(1), "b": np.ones(1), "c": None})
    opt.step()
    assert [array[0] for array in params.values()] == [-1.0, -0.5, 0.0]
    assert opt.state_dict()["state"].keys() == {"a", "b"}


def test_invalid_gradients_add_nothing():
    params = {"a": np.zeros(2), "b": np.zeros(2)}
    opt = lrcore.SGD(params, lr=1.0)
    opt.accumulate({"a": np.ones(2), "b": np.ones(2)})
    with pytest.raises(ValueError, match=r'^grads\["b"\] has shape \(3,\)'):
        opt.accumulate({"a": np.ones(2), "b": np.ones(3)})
    opt.step()
    assert params["a"].tolist() == params["b"].tolist() == [-1.0, -1.0]


def test_a_step_without_gradients_or_micro_batches_is_an_error():
    opt = lrcore.SGD(np.zeros(2))
    with pytest.raises(TypeError, match=r"^grads must have the structure of params, got None"):
        opt.step()
    opt.accumulate(np.ones(2))
    opt.step()
    with pytest.raises(TypeError, match=r"^grads must have the structure of params, got None"):
        opt.step()


@pytest.mark.parametrize("waiting", [1, 2])
@pytest.mark.parametrize("options", [{}, {"clip_norm": 1e9}])
def test_step_refuses_gradients_while_micro_batches_are_pending(waiting, options):
    weight = np.zeros(1)
    opt = lrcore.SGD(weight, lr=1.0, **options)
    for _ in range(waiting):
        opt.accumulate(np.array([5.0]))
    batches = "1 micro-batch waits" if waiting == 1 else "2 micro-batches wait"
    with pytest.raises(RuntimeError, match=rf"^{batches} for a step, .* opt.step\(\) .* opt.accumulate\(grads\)"):
        opt.step(np.array([1.0]))
    assert (weight[0], opt.steps) == (0.0, 0)
    opt.accumulate(np.array([5.0]))
    opt.step()
    assert weight[0] == -5.0
    opt.step(np.array([1.0]))
    assert weight[0] == -6.0


def test_pending_micro_batches_can_be_discarded():
    weight = np.zeros(1)
    opt = lrcore.SGD(weight, lr=1.0)
    assert opt.discard_accumulated() == 0
    opt.accumulate(np.array([5.0]))
    opt.accumulate(np.array([5.0]))
    assert opt.discard_accumulated() == 2
    opt.step(np.array([1.0]))
    assert weight[0] == -1.0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("weights", [[3.0], [1.0, 1.0], [7, 300, 41], [0.25, 1e-3, 2.0], [1e-30, 3e-30]])
@pytest.mark.parametrize("grad_scale", [1.0, 8.0])
def test_weighted_micro_batches_give_their_weighted_mean(dtype, weights, grad_scale):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(100).astype(dtype)
    twin, batches = weight.copy(), [rng.standard_normal(100).astype(dtype) for _ in weights]
    opt, other = lrcore.SGD({"w": weight}, lr=0.1), lrcore.SGD({"w": twin}, lr=0.1)
    total, divisor = reference.weighted_sum(batches, weights)
    for number, (batch, one) in enumerate(zip(batches, weights, strict=True), start=1):
        assert opt.accumulate({"w": batch}, weight=one) == number
    opt.step(grad_scale=grad_scale)
    factor = 1.0 / grad_scale / divisor
    expected, _ = reference.move("sgd", twin, total, [], 1, {"lr": 0.1}, lr=0.1, factor=factor)
    assert same(weight, expected)
    mean = np.average(np.array(batches, np.float64), axis=0, weights=weights) / grad_scale
    other.step({"w": mean.astype(dtype)})
    assert np.allclose(weight, twin, rtol=0.0, atol=1e-6 if dtype == np.float32 else 1e-15)


def test_sums_over_tokens_give_the_mean_over_all_tokens():
    rng = np.random.default_rng(0)
    tokens = [rng.standard_normal((n, 4)) for n in (3, 17, 5)]
    weight, twin = np.zeros(4), np.zeros(4)
    opt, other = lrcore.Adam({"w": weight}, clip_norm=0.1), lrcore.Adam({"w": twin}, clip_norm=0.1)
    for _ in range(3):
        for batch in tokens:
            opt.accumulate({"w": batch.mean(axis=0)}, weight=len(batch))
        info, expected = opt.step(), other.step({"w": np.concatenate(tokens).mean(axis=0)})
        assert np.isclose(info.grad_norm, expected.grad_norm, rtol=1e-12)
    assert np.allclose(weight, twin, rtol=1e-12)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan"), "1", None, True])
def test_a_weight_out_of_range_is_refused_and_adds_nothing(weight):
    opt = lrcore.SGD({"w": np.zeros(1)}, lr=1.0)
    with pytest.raises((TypeError, ValueError), match=r"^weight must be"):
        opt.accumulate({"w": np.ones(1)}, weight=weight)
    assert opt.discard_accumulated() == 0


def test_noise_scale_requires_micro_batches_of_equal_weight():
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal(50) for _ in range(4)]

    def noise(*weights):
        opt = lrcore.SGD({"w": np.zeros(50)}, lr=0.0, noise_scale=lrcore.NoiseScale(batch=8))
        for batch, weight in zip(batches, weights, strict=False):
            opt.accumulate({"w": batch}, weight=weight)
        opt.step()
        return opt.noise_scale.state()

    assert np.allclose(noise(1.0, 1.0, 1.0)["sums"], noise(4.0, 4.0, 4.0)["sums"], rtol=1e-12)
    with pytest.raises(ValueError, match=r"^noise_scale needs micro-batches of equal weight.*that wait have 3, got 5$"):
        noise(3.0, 5.0)


def test_loading_drops_pending_micro_batches():
    opt = lrcore.SGD(np.zeros(1))
    saved = opt.state_dict()
    opt.accumulate(np.ones(1))
    opt.load_state_dict(saved)
    assert opt.accumulate(np.ones(1)) == 1


def test_groups_accept_gradients_per_group_or_as_one_mapping():
    a, b = np.zeros(1), np.zeros(1)
    opt = lrcore.SGD([{"params": {"a": a}}, {"params": {"b": b}, "lr": 2.0}], lr=1.0)
    opt.accumulate({"a": np.ones(1), "b": np.ones(1)})
    opt.accumulate([{"a": np.ones(1)}, {"b": np.ones(1)}])
    opt.step()
    assert (a[0], b[0]) == (-1.0, -2.0)


def through_state_dict(opt, make):
    other = make({name: weight.copy() for name, weight in opt.params.items()})
    other.load_state_dict(opt.state_dict())
    return other


def through_checkpoint(opt, make):
    other = make({name: np.zeros_like(weight) for name, weight in opt.params.items()})
    with tempfile.TemporaryDirectory() as folder:
        lrcore.load(lrcore.save(folder, opt), other)
    return other


def through_pickle(opt, make):
    return pickle.loads(pickle.dumps(opt))  # noqa: S301


def through_copy(opt, make):
    return copy.deepcopy(opt)


@pytest.mark.parametrize("through", [through_state_dict, through_checkpoint, through_pickle, through_copy])
@pytest.mark.parametrize("waiting", [0, 1, 2, 3])
def test_a_run_resumed_between_micro_batches_has_the_same_bits(through, waiting):
    rng = np.random.default_rng(waiting)
    size = 50_000  # more than the noise scale samples

    def make(params):
        lr = lrcore.schedules.Constant(0.1) * lrcore.schedules.AdaScale()
        return lrcore.SGD(params, lr=lr, momentum=0.9, noise_scale=lrcore.NoiseScale(batch=2))

    weight = 1.0 + waiting  # of each micro-batch

    def grads():
        part = None if rng.random() < 0.3 else rng.standard_normal(5).astype(np.float32)
        return {"w": rng.standard_normal(size).astype(np.float32), "b": part}

    def finish(opt, batches):
        for grad in batches:
            opt.accumulate(grad, weight=weight)
        opt.step()
        return opt

    opt = make({"w": np.ones(size, np.float32), "b": np.ones(5, np.float32)})
    for _ in range(3):
        finish(opt, [grads() for _ in range(3)])
    for _ in range(waiting):
        opt.accumulate(grads(), weight=weight)
    other = through(opt, make)
    for left in (3 - waiting, 3, 3):
        batches = [grads() for _ in range(left)]
        for one in (opt, other):
            if left or one._stepper.pending_batches:
                finish(one, batches)
    assert (opt.steps, opt.lr) == (other.steps, other.lr)
    assert opt.noise_scale.state() == other.noise_scale.state()
    for name in opt.params:
        assert same(opt.params[name], other.params[name])
        assert same(opt.state_dict()["state"][name]["momentum_buffer"],
                    other.state_dict()["state"][name]["momentum_buffer"])  # fmt: skip


def test_a_parameter_without_gradients_in_a_step_is_unchanged():
    opt = lrcore.SGD({"a": np.ones(2), "b": np.ones(2)}, lr=0.1, momentum=0.9)
    opt.accumulate({"a": np.ones(2), "b": np.ones(2)})
    opt.step()
    before = opt.params["b"].copy()
    opt.accumulate({"a": np.ones(2), "b": None})
    opt.step()
    assert same(opt.params["b"], before)
    assert opt.state_dict()["state"]["b"]["step"] == 1
    opt.accumulate({"a": None, "b": np.full(2, 2.0)})
    opt.step()
    other = lrcore.SGD({"b": np.ones(2)}, lr=0.1, momentum=0.9)
    other.step({"b": np.ones(2)})
    other.step({"b": np.full(2, 2.0)})
    assert same(opt.params["b"], other.params["b"])


def test_gradients_are_zeroed_when_they_are_accumulated():
    params = [{"params": [np.ones(2)], "zero_grads": True}, {"params": [np.ones(3)]}]
    opt = lrcore.SGD(params, lr=1.0)
    grads = [[np.full(2, 2.0)], [np.full(3, 4.0)]]
    opt.accumulate(grads)
    assert grads[0][0].tolist() == [0.0, 0.0]
    assert grads[1][0].tolist() == [4.0] * 3
    grads[0][0] += 1.0
    opt.param_groups[1]["zero_grads"] = True
    opt.accumulate(grads)
    assert grads[1][0].tolist() == [0.0] * 3
    opt.step()
    assert [params[0]["params"][0].tolist(), params[1]["params"][0].tolist()] == [[-0.5] * 2, [-3.0] * 3]
    with pytest.raises(ValueError, match=r"^grads\[1\]\[0\] is read-only"):
        opt.accumulate([[np.ones(2)], [np.broadcast_to(1.0, 3)]])


@pytest.mark.parametrize(
    ("changes", "exception", "message"),
    [
        ({"weight": 0.0}, ValueError, "accumulated['weight'] must be in (0, inf), got 0.0"),
        ({"batches": 0}, ValueError, "accumulated['batches'] must be >= 1, got 0"),
        ({"sums": []}, TypeError, "accumulated['sums'] must be a mapping, got list"),
        ({"sums": {"v": np.ones(2)}}, ValueError, "accumulated['sums']['v'] is not in any group of the state dict"),
        ({"sums": {"w": np.ones(3)}}, ValueError, "accumulated['sums']['w'] has shape (3,), the parameter has (2,)"),
        ({"squares": 3}, ValueError, "accumulated['squares'] must be a stride, a phase and a sum, or None, got 3"),
        ({"squares": (2**70, 0, 1.0)}, ValueError, f"accumulated['squares'][0] must be <= {2**63 - 1}, got {2**70}"),
        ({"squares": (0, 2, 1.0)}, ValueError, "accumulated['squares'][0] must be >= 1, got 0"),
    ],
)  # fmt: skip
def test_loaded_micro_batches_are_validated(changes, exception, message):
    opt = lrcore.SGD({"w": np.ones(2)}, lr=0.1)
    opt.accumulate({"w": np.ones(2)})
    saved = opt.state_dict()
    saved["param_groups"][0]["lr"] = 7.0
    saved["accumulated"] |= changes
    with pytest.raises(exception, match=f"^{re.escape(message)}$"):
        opt.load_state_dict(saved)
    assert (opt.param_groups[0]["lr"], opt._stepper.pending_batches) == (0.1, 1)


def test_loading_an_invalid_noise_scale_changes_nothing():
    opt = lrcore.SGD({"w": np.ones(2)}, lr=0.5, noise_scale=lrcore.NoiseScale(batch=1))
    saved = opt.state_dict()
    saved["param_groups"][0]["lr"] = 1.0
    for bad in ({}, 3, saved["noise_scale"] | {"sums": [None] * 5}):
        with pytest.raises(ValueError, match="noise_scale: the state must have"):
            opt.load_state_dict(saved | {"noise_scale": bad})
        assert opt.param_groups[0]["lr"] == 0.5


def test_a_gradient_that_is_a_weight_is_not_zeroed():
    memory = np.ones(6)
    for zero_grads in (True, False):
        opt = lrcore.SGD({"a": memory[:3], "b": memory[3:]}, lr=0.1, zero_grads=zero_grads)
        for grads in ({"a": memory[:3], "b": None}, {"a": memory[3:], "b": None}, {"a": None, "b": memory[1:4]}):
            if zero_grads:
                with pytest.raises(ValueError, match="share memory"):
                    opt.accumulate(grads)
            else:
                opt.accumulate(grads)
            assert memory.tolist() == [1.0] * 6


def test_a_weight_with_a_new_shape_gets_a_new_sum():
    params = {"w": np.ones(4)}
    opt = lrcore.SGD(params, lr=1.0)
    opt.accumulate({"w": np.ones(4)})
    opt.step()
    params["w"] = np.ones(6)
    opt.accumulate({"w": np.ones(6)})
    opt.step()
    assert params["w"].tolist() == [0.0] * 6
