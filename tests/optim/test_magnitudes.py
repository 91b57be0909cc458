"""Values at the limits of a dtype: tiny eps, factors out of range, norms whose squares overflow."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest

import lrcore
from support import reference
from support.cases import DTYPES, FORMS, RULES, each_optimizer, same
from support.rows import each


def epsilons_of(case, dtype):
    """The values of eps to try, as arguments."""
    has_eps = "eps" in case.optimizer._declaration.hyperparameters
    return [{"eps": eps} for eps in epsilons(dtype)] if has_eps else [{}]


def magnitudes(dtype):
    """Gradients whose squares underflow or overflow, and gradients at the limits of the dtype."""
    limits = np.finfo(dtype)
    roots = [limits.tiny**0.5, limits.tiny**0.5 * 100, limits.max**0.5, limits.max**0.5 * 100]
    return [float(limits.smallest_subnormal * 3), float(limits.tiny), *map(float, roots), float(limits.max / 4)]


def epsilons(dtype):
    return [0.0, 1e-8, 1e-12, 1e-18, 1e-30, float(np.finfo(dtype).tiny) * 4]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", FORMS, ids=str)
def test_extreme_gradients_and_eps_agree_with_pytorch(case, dtype):
    torch = pytest.importorskip("torch")
    from support.counterparts import counterpart, for_loop

    cls, arguments = case.optimizer, {**case.arguments, "lr": 0.01, "weight_decay": 0.0}
    scales = np.array(magnitudes(dtype))
    if "centered" in arguments:  # the variance of few gradients is dominated by rounding
        scales = scales[scales >= float(np.finfo(dtype).max) ** 0.5]
    shape = len(scales), 9
    rng = np.random.default_rng(0)
    signs = [rng.uniform(0.5, 1.0, shape) * rng.choice([-1, 1], shape) for _ in range(30)]
    grads = [(scales[:, None] * sign).astype(dtype) for sign in signs]
    for eps in epsilons_of(case, dtype):
        weight = np.ones(shape, dtype)
        opt = cls({"w": weight}, **arguments, **eps)
        tensor = torch.ones(shape, dtype=getattr(torch, str(dtype)), requires_grad=True)
        theirs = counterpart(cls.__name__)([tensor], **arguments, **eps, **for_loop(cls.__name__))
        for grad in grads:
            opt.step({"w": grad})
            tensor.grad = torch.from_numpy(grad)
            theirs.step()
        for magnitude, own, expected in zip(scales, weight, tensor.detach().numpy(), strict=True):
            is_number = np.isfinite(expected) & (np.abs(expected) < 1e4)
            with np.errstate(all="ignore"):
                # Subnormal moments have few significant bits, and each operation rounds them.
                assert np.allclose(own[is_number], expected[is_number], rtol=1e-2, atol=1e-3), (magnitude, eps)
            assert np.isfinite(own[np.isfinite(expected)]).all(), (magnitude, eps)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", FORMS, ids=str)
def test_extreme_gradients_and_eps_have_the_bits_of_the_reference(case, dtype):
    rule, arguments = case.rule, {**case.arguments, "lr": 0.01, "weight_decay": 0.0}
    for number, magnitude in enumerate(magnitudes(dtype)):
        for eps in epsilons_of(case, dtype):
            rng = np.random.default_rng(number)
            weight = np.ones(67, dtype)
            opt = case.optimizer({"w": weight}, **arguments, **eps)
            values = opt.param_groups[0].at(0)
            maximize = opt.param_groups[0]["maximize"]
            names, arrays = RULES[rule]
            hyperparameters = {name: values[name] for name in names}
            expected = weight.copy()
            state = reference.initial_state(rule, len(arrays), expected, hyperparameters)
            for t in range(1, 6):
                grad = (magnitude * rng.standard_normal(67)).astype(dtype)
                opt.step({"w": grad})
                expected, state = reference.move(
                    rule, expected, grad, state, t, hyperparameters, lr=0.01, maximize=maximize
                )
                assert same(weight, expected)
            for name, array in zip(arrays, state, strict=True):
                assert same(opt.state["w"][name], array)


def test_adam_with_a_tiny_eps_takes_steps_of_the_learning_rate():
    weight = np.zeros(4, np.float32)
    opt = lrcore.Adam({"w": weight}, lr=0.01, eps=1e-18)
    for _ in range(100):
        opt.step({"w": np.full(4, -1e-18, np.float32)})
    assert np.allclose(weight, 0.5, rtol=0.05)  # eps is as large as the gradient


# grad_scale, gradient, and expected quotient.
QUOTIENTS = {
    np.float32: [(1e-40, 1e-38, 100.0), (1e-40, 0.0, 0.0), (1e-60, 0.0, 0.0), (1e40, 1e38, 1e-2), (1e46, 1e38, 1e-8)],
    np.float64: [(1e-310, 1e-300, 1e10), (1e-320, 1e-300, 1e20), (1e-320, 0.0, 0.0), (1e308, 1e300, 1e-8)],
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("through", ["step", "accumulate", "maximize", "clip"])
def test_a_grad_scale_whose_inverse_is_out_of_range_is_applied(dtype, through):
    for grad_scale, grad, expected in QUOTIENTS[dtype.type]:
        weight = np.zeros(5, dtype)
        options = {"maximize": through == "maximize"} | ({"clip_norm": 1e30} if through == "clip" else {})
        opt = lrcore.SGD({"w": weight}, lr=1.0, **options)
        grads = {"w": np.full(5, grad, dtype)}
        if through == "accumulate":
            opt.accumulate(grads)
            info = opt.step(grad_scale=grad_scale)
        else:
            info = opt.step(grads, grad_scale=grad_scale)
        sign = 1.0 if through == "maximize" else -1.0
        factor = Fraction(1) / Fraction(grad_scale)
        assert np.allclose(weight, sign * float(Fraction(float(dtype.type(grad))) * factor), rtol=1e-6, atol=0.0)
        assert np.allclose(weight, sign * expected, rtol=1e-6 if dtype == np.float32 else 1e-2, atol=0.0)
        if through == "clip":
            assert math.isclose(info.grad_norm, abs(float(weight[0])) * 5**0.5, rel_tol=1e-6)


@pytest.mark.parametrize("grad_scale", [1e-40, 1e-100, 1e-320])
def test_a_gradient_that_overflows_when_unscaled_skips_the_step(grad_scale):
    weight = np.zeros(3, np.float32)
    opt = lrcore.SGD({"w": weight}, lr=1.0, skip_nonfinite=True)
    assert not opt.step({"w": np.ones(3, np.float32)}, grad_scale=grad_scale).applied
    assert not weight.any()


def norms(dtype):
    limits = np.finfo(dtype)
    huge, least = float(limits.max) / 8, float(limits.smallest_subnormal) * 8
    return [
        huge,
        huge**0.5,
        float(limits.max) ** 0.5 * 3,
        1.0,
        float(limits.tiny) ** 0.5 / 3,
        float(limits.tiny),
        least,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("norm_type", [1, 2, math.inf])
@pytest.mark.parametrize("length", [3, 5000])
def test_norms_of_extreme_gradients_have_the_bits_of_the_reference_and_clip(dtype, norm_type, length):
    rng = np.random.default_rng(0)
    for magnitude in norms(dtype):
        grad = (rng.uniform(0.1, 1.0, length) * magnitude).astype(dtype)
        clip_norm = max(1e-2 * magnitude, 5e-324)
        for threads in (1, 2):
            lrcore.set_num_threads(threads)
            opt = lrcore.SGD({"w": np.zeros(length, dtype)}, lr=1.0, clip_norm=clip_norm, norm_type=norm_type)
            info = opt.step({"w": grad})
            assert info.grad_norm == reference.grad_norm([grad], norm_type)
            exact = [Fraction(float(x)) for x in np.abs(grad)]
            if norm_type == 2:
                total = sum(x * x for x in exact)
                norm = Fraction(math.isqrt(int(total * 4**1200))) / 2**1200
            else:
                norm = sum(exact) if norm_type == 1 else max(exact)
            coefficient = Fraction(clip_norm) / (norm + Fraction(1e-6))
            least = float(np.finfo(dtype).smallest_subnormal)
            expected = [-float(x * min(coefficient, 1)) for x in exact]
            assert np.allclose(opt.params["w"].astype(np.float64), expected, rtol=1e-5, atol=least)


def test_a_norm_beyond_float64_is_reported_as_infinite_and_clipped():
    opt = lrcore.SGD({"w": np.zeros(4)}, lr=1.0, clip_norm=1.0, skip_nonfinite=True)
    info = opt.step({"w": np.full(4, 1.7e308)})
    assert (info.applied, info.grad_norm) == (True, math.inf)
    assert np.allclose(opt.params["w"], -0.5)


def test_a_clip_coefficient_below_the_range_of_float32_is_applied():
    weight = np.zeros(4, np.float32)
    opt = lrcore.SGD({"w": weight}, lr=1.0, clip_norm=1e-12)
    opt.step({"w": np.full(4, 3e38, np.float32)})
    assert np.allclose(weight, -5e-13, rtol=1e-6, atol=0.0)


# Arguments with a number out of the range of float32, and its name in the message.
UNFIT = [
    (lrcore.SGD, {"lr": 1e39}, "lr is 1e39"),
    (lrcore.SGD, {"lr": 0.1, "momentum": 1e39}, "momentum is 1e39"),
    (lrcore.SGD, {"lr": 1e30, "lr_scale": 1e10}, "lr is 1e40"),
    (lrcore.SGD, {"lr": 0.1, "weight_decay": 1e39}, "weight_decay is 1e39"),
    (lrcore.SGD, {"lr": 0.1, "clip_value": 1e-46}, "clip_value is 1e-46"),
    (lrcore.SGD, {"lr": 0.1, "bounds": (1e39, None)}, "the lower of bounds is 1e39"),
    (lrcore.SGD, {"lr": 0.1, "bounds": (None, -1e39)}, "the upper of bounds is -1e39"),
    (lrcore.SGD, {"lr": 1e20, "weight_decay": 1e20, "decay": "decoupled"}, "1 - lr * weight_decay is -1e40"),
    (lrcore.SGD, {"lr": 1e20, "weight_decay": 1e20, "decay": "cautious"}, "lr * weight_decay is 1e40"),
    (lrcore.Adam, {"lr": 1e38}, "lr is"),
    (lrcore.Adam, {"eps": 1e-46}, "eps is 1e-46"),
]
UNFIT_IDS = [f"{optimizer.__name__}: {text}" for optimizer, _, text in UNFIT]


def unfit_of(optimizer):
    """The same of any optimizer: its learning rate, and the number that its state starts from, if it has one."""
    initial = optimizer._declaration.initial
    starts = [({initial: 1e39}, f"{initial} is 1e39")] if initial else []
    return [({"lr": 1e39, "weight_decay": 0.0}, "lr is"), *starts]


def assert_refused(cls, arguments, message):
    weight, grad = np.ones(3, np.float32), np.array([0.0, 1.0, -1.0], np.float32)
    opt = cls({"w": weight}, **arguments)
    with pytest.raises(
        ValueError, match=rf"^param_groups\[0\]: {re.escape(message)}.* float32 number is near; allowed are 0 and"
    ):
        opt.step({"w": grad})
    assert (weight.tolist(), opt.steps, dict(opt.state)) == ([1.0] * 3, 0, {})
    cls({"w": np.ones(3)}, **arguments).step({"w": grad.astype(np.float64)})


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize(("cls", "arguments", "message"), UNFIT, ids=UNFIT_IDS)
def test_a_number_out_of_the_range_of_the_dtype_is_an_error_that_changes_nothing(cls, arguments, message):
    assert_refused(cls, arguments, message)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@each_optimizer
@each("arguments, message", unfit_of)
def test_a_number_out_of_range_is_an_error_of_every_optimizer(optimizer, arguments, message):
    assert_refused(optimizer, arguments, message)
