"""The gradient noise scale: known true values, and no effect on other results."""

import copy
import math
import pickle
import re

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from support.reference import lanes


def noisy(opt, rng, gradient, deviations, batch, micro_batches):
    """Step with micro-batches of a known gradient and a known variance."""
    for _ in range(micro_batches):
        noise = {name: rng.standard_normal(array.shape) / math.sqrt(batch) for name, array in gradient.items()}
        opt.accumulate({name: array + deviations[name] * noise[name] for name, array in gradient.items()})
    return opt.step()


@pytest.mark.parametrize(("batch", "micro_batches"), [(8, 4), (1, 2), (32, 8)])
def test_the_estimate_is_within_a_tenth_of_the_truth_after_two_thousand_steps(batch, micro_batches):
    rng = np.random.default_rng(batch)
    curvatures, w = np.geomspace(0.1, 2.0, 60), np.ones(60)
    gradient, deviations = {"w": curvatures * w}, {"w": np.linspace(0.5, 1.5, 60)}
    opt = lrcore.SGD({"w": w}, lr=0.0, noise_scale=lrcore.NoiseScale(batch=batch, smoothing=0.999))
    for _ in range(2000):
        noisy(opt, rng, gradient, deviations, batch, micro_batches)
    truth = float((deviations["w"] ** 2).sum() / (gradient["w"] ** 2).sum())
    assert opt.noise_scale.value == pytest.approx(truth, rel=0.1)
    assert opt.noise_scale.updates == 2000
    assert abs(opt.noise_scale.value / truth - 1.0) < 5.0 * opt.noise_scale.uncertainty < 0.5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_squared_norms_have_the_bits_of_the_fixed_reduction_tree(dtype, threads):
    rng = np.random.default_rng(0)
    shapes = {"a": 3, "b": 4097, "c": 70_001, "d": 0}
    grads = [{name: rng.standard_normal(size).astype(dtype) for name, size in shapes.items()} for _ in range(3)]
    grads[1]["b"] = None

    def run(**options):
        opt = lrcore.AdamW({name: np.ones(size, dtype) for name, size in shapes.items()}, lr=0.1, **options)
        for grad in grads:
            opt.accumulate(grad)
        opt.step()
        return opt._stepper.squared_norms, opt.params

    before = lrcore.get_num_threads()
    try:
        lrcore.set_num_threads(threads)
        squares, params = run(noise_scale=lrcore.NoiseScale(batch=2))
        nothing, others = run()
    finally:
        lrcore.set_num_threads(before)
    assert nothing is None
    assert all((params[name] == others[name]).all() for name in shapes)

    stride = 6  # samples about four reduction blocks of 21

    def sum_of_squares(name, array):
        units = lanes(array.astype(np.float64) * array.astype(np.float64))
        total = 0.0
        for unit, value in enumerate(units):
            if (list(shapes).index(name) + unit) % stride == 0:
                total += float(value)
        return total

    expected_grads, sums = 0.0, {name: np.zeros(size, dtype) for name, size in shapes.items()}
    for grad in grads:
        for name, array in grad.items():
            if array is not None:
                expected_grads += sum_of_squares(name, array)
                sums[name] = sums[name] + array
    expected_sum = sum(sum_of_squares(name, array) for name, array in sums.items())
    assert squares == (3, stride * expected_grads / 3, stride * expected_sum / 9)


def test_every_reduction_block_is_sampled_in_turn():
    rng = np.random.default_rng(0)
    sizes = {"a": 100_000, "b": 7, "c": 30_000}
    grads = {name: rng.standard_normal(size) * (k + 1) for k, (name, size) in enumerate(sizes.items())}
    opt = lrcore.SGD({name: np.zeros(size) for name, size in sizes.items()}, noise_scale=lrcore.NoiseScale(batch=1))
    stride = math.ceil(sum(math.ceil(size / 4096) for size in sizes.values()) / 4)
    found = []
    for _ in range(stride):
        opt.accumulate(grads)
        opt.accumulate({name: 3.0 * grad for name, grad in grads.items()})
        opt.step()
        found.append(opt._stepper.squared_norms)
    truth = sum(float((grad**2).sum()) for grad in grads.values())
    assert np.mean(found, axis=0) == pytest.approx([2, 5.0 * truth, 4.0 * truth], rel=1e-12)
    assert len({small for _, small, _ in found}) > 1


def test_gradients_are_unscaled_before_they_are_squared():
    def noise(scale):
        opt = lrcore.SGD({"w": np.zeros(4)}, noise_scale=lrcore.NoiseScale(batch=8))
        for value in (1.0, 2.0):
            opt.accumulate({"w": np.full(4, scale * value)})
        opt.step(grad_scale=scale)
        return opt.noise_scale.state()

    assert noise(128.0) == noise(1.0)


def test_adascale_follows_a_noise_scale_that_is_updated_by_hand():
    lr = 0.1 * schedules.Constant(1.0) * schedules.AdaScale()
    opt = lrcore.SGD({"w": np.zeros(2)}, lr=lr, noise_scale=lrcore.NoiseScale(batch=8))
    opt.noise_scale.update(10.0, 8, 4.0, 32)
    opt.step({"w": np.ones(2)})
    assert opt.lr == 0.1 * opt.noise_scale.gain(32)
    assert opt.noise_scale.gain(32) == pytest.approx(2.5)
    opt.step({"w": np.ones(2)})
    assert opt.lr == 0.1 * opt.noise_scale.gain(32)


def optimizer(**options):
    return lrcore.SGD({"w": np.ones(50)}, lr=0.1, noise_scale=lrcore.NoiseScale(batch=4, smoothing=0.9), **options)


def train(opt, steps, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        noisy(opt, rng, {"w": opt.params["w"]}, {"w": np.ones(50)}, 4, 3)


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "state_dict", "checkpoint"])
def test_the_noise_scale_is_part_of_the_optimizer_state(way, tmp_path):
    opt = optimizer()
    train(opt, 20)
    other = optimizer()
    if way == "pickle":
        other = pickle.loads(pickle.dumps(opt))  # noqa: S301
    elif way == "deepcopy":
        other = copy.deepcopy(opt)
    elif way == "state_dict":
        other.load_state_dict(opt.state_dict())
    else:
        lrcore.save(tmp_path / "run.safetensors", opt)
        lrcore.load(tmp_path / "run.safetensors", other)
    assert other.noise_scale.state() == opt.noise_scale.state()
    assert other.noise_scale is not opt.noise_scale


def test_single_micro_batches_and_skipped_steps_are_no_updates():
    opt = optimizer(skip_nonfinite=True)
    opt.accumulate({"w": np.ones(50)})
    opt.step()
    opt.step({"w": np.ones(50)})
    for bad in (1.0, math.nan):
        opt.accumulate({"w": np.full(50, bad)})
    assert not opt.step().applied
    assert opt.noise_scale.updates == 0
    assert math.isnan(opt.noise_scale.value)
    assert opt.noise_scale.uncertainty == math.inf


def test_two_batch_sizes_give_the_papers_estimates():
    noise = lrcore.NoiseScale(batch=2, smoothing=0.0)
    noise.update(small=10.0, small_batch=2, large=4.0, large_batch=8)
    assert noise.signal == pytest.approx((8 * 4.0 - 2 * 10.0) / 6)
    assert noise.noise == pytest.approx(6.0 / (1 / 2 - 1 / 8))
    assert noise.value == pytest.approx(noise.noise / noise.signal)


def test_the_recommended_batch_is_the_noise_scale_with_its_learning_rate():
    noise = lrcore.NoiseScale(batch=10, smoothing=0.0)
    noise.update(small=1.0 + 100.0 / 10, small_batch=10, large=1.0 + 100.0 / 20, large_batch=20)
    batch, lr = noise.suggest(0.1)
    assert batch == 100
    # At 20 samples 1/6 of the largest learning rate, at 100 half of it.
    assert lr == pytest.approx(0.1 * 6 / 2)
    with pytest.raises(ValueError, match="the noise scale is not known yet"):
        lrcore.NoiseScale(batch=1).suggest(0.1)


def test_adascale_is_the_number_of_micro_batches_in_noise_and_one_without():
    for gradient, low, high in ((0.0, 2.5, 3.01), (100.0, 1.0, 1.01)):
        lr = schedules.Constant(0.1) * schedules.AdaScale()
        opt = lrcore.SGD({"w": np.ones(50)}, lr=lr, noise_scale=lrcore.NoiseScale(batch=4, smoothing=0.99))
        rng = np.random.default_rng(0)
        for _ in range(200):
            noisy(opt, rng, {"w": np.full(50, gradient)}, {"w": np.ones(50)}, 4, 3)
        assert low <= opt.lr / 0.1 <= high
        again = pickle.loads(pickle.dumps(opt))  # noqa: S301
        assert again.lr == opt.lr


def test_adascale_scales_the_clip_norm_too():
    clip = schedules.Constant(2.0) * schedules.AdaScale()
    opt = lrcore.SGD({"w": np.zeros(50)}, lr=1.0, clip_norm=clip, noise_scale=lrcore.NoiseScale(batch=4))
    rng = np.random.default_rng(0)
    noisy(opt, rng, {"w": np.full(50, 10.0)}, {"w": np.full(50, 30.0)}, 4, 3)
    before, gain = opt.params["w"].copy(), opt.noise_scale.gain(12)
    opt.step({"w": np.full(50, 1e6)})
    assert gain > 1.1
    assert np.linalg.norm(opt.params["w"] - before) == pytest.approx(2.0 * gain, rel=1e-6)


def test_adascale_does_not_use_a_reported_loss():
    opt = lrcore.SGD(np.ones(2), lr=schedules.Constant(0.1) * schedules.AdaScale())
    with pytest.raises(ValueError, match=r"^report: no schedule uses reported metrics"):
        opt.report(1.0)


REFUSED = [
    (lambda: lrcore.NoiseScale(0), ValueError, "NoiseScale: batch must be >= 1, got 0"),
    (lambda: lrcore.NoiseScale(1, smoothing=1.0), ValueError, "NoiseScale: smoothing must be in [0, 1), got 1.0"),
    (lambda: lrcore.NoiseScale(1).update(1.0, 2, 1.0, 2), ValueError, "large_batch must be >= 3, got 2"),
    (lambda: lrcore.NoiseScale(1).update(-1.0, 1, 1.0, 2), ValueError, "small must be in [0, inf), got -1.0"),
    (lambda: lrcore.NoiseScale(1).suggest(0.0), ValueError, "suggest: lr must be in (0, inf), got 0.0"),
    (lambda: lrcore.NoiseScale(1).restore({}), ValueError, "noise_scale: the state must have batch, smoothing"),
    (lambda: lrcore.SGD(np.ones(1), noise_scale=32), TypeError, "noise_scale must be NoiseScale(batch=…) or None, got"),
]


@pytest.mark.parametrize(("call", "exception", "message"), REFUSED, ids=[message[:40] for *_, message in REFUSED])
def test_invalid_arguments_are_rejected(call, exception, message):
    with pytest.raises(exception, match=f"^{re.escape(message)}"):
        call()
