"""A step with non-finite gradients is skipped and changes nothing."""

import copy
from functools import partial

import numpy as np
import pytest

import lrcore
from support.cases import OPTIMIZERS
from support.snapshot import snapshot

BAD = [np.nan, np.inf, -np.inf]
FACTORIES = [
    lambda params, **options: lrcore.SGD(params, momentum=0.9, **options),
    lambda params, **options: lrcore.AdamW(params, average=lrcore.EMA(0.9), **options),
    *(partial(optimizer, clip_norm=1.0, stats=True) for optimizer in OPTIMIZERS),
]


def arrays(rng, dtype=np.float32):
    return {"w": rng.standard_normal((90, 100)).astype(dtype), "b": rng.standard_normal(7).astype(dtype)}


@pytest.mark.parametrize("bad", BAD, ids=str)
@pytest.mark.parametrize("place", [("w", (0, 0)), ("w", (89, 99)), ("w", (45, 17)), ("b", (3,))], ids=str)
@pytest.mark.parametrize("factory", FACTORIES)
def test_a_skipped_step_changes_no_bit(factory, place, bad):
    rng = np.random.default_rng(0)
    params = arrays(rng)
    opt = factory(params, lr=lrcore.schedules.Linear(0.1, 0.0, steps=10), skip_nonfinite=True)
    opt.step(arrays(rng))
    name, index = place
    grads = arrays(rng)
    grads[name][index] = bad
    before = snapshot(opt, *params.values(), *grads.values(), *opt.average.values())
    for count in (1, 2):
        info = opt.step(grads)
        assert (info.applied, info.step, opt.skipped) == (False, 1, count)
        assert not np.isfinite(info.grad_norm)
        assert snapshot(opt, *params.values(), *grads.values(), *opt.average.values()) == before
    assert opt.step(arrays(rng)).applied
    assert (opt.steps, opt.skipped) == (2, 2)


def test_too_many_skips_in_a_row_are_an_error_that_names_the_element():
    params = {"w": np.zeros((3, 4)), "b": np.zeros(2)}
    good = {"w": np.ones((3, 4)), "b": np.ones(2)}
    bad = {"w": np.ones((3, 4)), "b": np.ones(2)}
    bad["w"][1, 2] = -np.inf
    opt = lrcore.SGD(params, skip_nonfinite=True, max_skips=3)
    for _ in range(2):
        opt.step(bad)
    opt.step(good)  # not in a row
    for _ in range(2):
        opt.step(bad)
    message = r"^3 steps in a row were skipped: the gradient of 'w' is -inf at index \(1, 2\)$"
    with pytest.raises(FloatingPointError, match=message):
        opt.step(bad)
    assert (opt.steps, opt.skipped) == (1, 5)
    assert opt.step(good).applied


def test_the_tenth_skip_in_a_row_is_an_error_by_default():
    opt = lrcore.SGD(np.zeros(2), skip_nonfinite=True)
    for _ in range(9):
        assert not opt.step(np.array([0.0, np.nan])).applied
    with pytest.raises(FloatingPointError, match=r"^10 steps in a row were skipped: .* is nan at index \(1,\)$"):
        opt.step(np.array([0.0, np.nan]))


def test_the_named_index_is_independent_of_the_layout():
    grad = np.zeros((4, 5), order="F")
    grad[3, 1] = np.nan
    opt = lrcore.SGD([np.zeros((4, 5))], skip_nonfinite=True, max_skips=1)
    with pytest.raises(FloatingPointError, match=r"is nan at index \(3, 1\)$"):
        opt.step([grad])


def test_a_grad_scale_that_overflows_a_gradient_skips_the_step():
    opt = lrcore.SGD(np.zeros(2, np.float32), skip_nonfinite=True, max_skips=2)
    grad = np.full(2, 1e30, np.float32)
    assert not opt.step(grad, grad_scale=1e-10).applied
    with pytest.raises(FloatingPointError, match=r"'0' is too large for grad_scale$"):
        opt.step(grad, grad_scale=1e-10)
    assert opt.step(grad).applied


def test_an_overflowing_norm_of_finite_gradients_does_not_skip():
    weight = np.zeros(3)
    opt = lrcore.SGD(weight, lr=1.0, skip_nonfinite=True)
    info = opt.step(np.full(3, 1e200))
    assert info.applied
    assert info.grad_norm == 3**0.5 * 1e200
    assert (weight == -1e200).all()


def test_a_gradient_that_is_zeroed_is_zeroed_after_a_skipped_step_too():
    """Otherwise the next gradients added to it would not be finite either."""
    grads = [np.array([1.0, np.nan])]
    opt = lrcore.SGD([np.zeros(2)], skip_nonfinite=True, zero_grads=True)
    assert not opt.step(grads).applied
    assert not grads[0].any()


def test_a_non_finite_micro_batch_skips_the_step_and_is_dropped():
    weight = np.zeros(2)
    opt = lrcore.SGD(weight, lr=1.0, skip_nonfinite=True)
    opt.accumulate(np.array([np.nan, 1.0]))
    opt.accumulate(np.ones(2))
    assert not opt.step().applied
    assert not weight.any()
    assert opt.accumulate(np.ones(2)) == 1
    assert opt.step().applied
    assert weight.tolist() == [-1.0, -1.0]


def test_without_the_option_nothing_is_skipped():
    weight = np.zeros(2)
    assert lrcore.SGD(weight, lr=1.0).step(np.array([np.nan, 1.0])).applied
    assert np.isnan(weight[0])


class Resizing(np.ndarray):
    """An array that is resized when NumPy computes with it."""

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        self.resize(1 << 16, refcheck=False)
        plain = [np.asarray(one) if isinstance(one, Resizing) else one for one in inputs]
        return getattr(ufunc, method)(*plain, **kwargs)


def test_code_that_runs_while_the_element_is_located_is_safe():
    grad = Resizing(40)
    grad.fill(np.nan)
    weight = np.zeros(40)
    opt = lrcore.SGD({"w": weight}, skip_nonfinite=True, zero_grads=True)
    with pytest.raises(ValueError, match=r"has shape \(65536,\)"):
        opt.step({"w": grad})
    assert opt.steps == 0
    assert not weight.any()


def test_the_count_of_skipped_steps_is_copied():
    opt = lrcore.SGD(np.zeros(2), skip_nonfinite=True)
    opt.step(np.full(2, np.nan))
    assert copy.deepcopy(opt).skipped == 1


def test_the_count_of_skipped_steps_is_saved_with_the_state(tmp_path):
    def make():
        return lrcore.SGD({"w": np.ones(2)}, lr=0.1, skip_nonfinite=True, max_skips=4)

    opt = make()
    clean = opt.state_dict()
    bad = {"w": np.full(2, np.nan)}
    for _ in range(3):
        opt.step(bad)
    others = [make(), make(), copy.deepcopy(opt)]
    others[0].load_state_dict(opt.state_dict())
    lrcore.load(lrcore.save(tmp_path / "a.safetensors", opt), others[1])
    for other in others:
        assert other.skipped == 3
        with pytest.raises(FloatingPointError, match=r"^4 steps in a row were skipped"):
            other.step(bad)
    opt.load_state_dict(clean)
    assert opt.skipped == 0
    for _ in range(3):
        opt.step(bad)
