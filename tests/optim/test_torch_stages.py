"""The options of every optimizer against PyTorch's separate passes; float64, within a few ulp."""

import math

import numpy as np
import pytest

import lrcore
from support.cases import each_optimizer

torch = pytest.importorskip("torch")
from support.counterparts import counterpart, for_loop  # noqa: E402

nn = torch.nn

STEPS = 20
SHAPES = {"w": (37, 11), "b": (11,), "scalar": ()}
EPS = np.finfo(np.float64).eps


class Loop:
    """PyTorch's for-loop implementation with its own helper functions."""

    def __init__(self, params, factory, **arguments):
        self.module = nn.ParameterDict({name: nn.Parameter(torch.from_numpy(w.copy())) for name, w in params.items()})
        self.opt = factory(self.module.parameters(), **for_loop(factory.__name__), **arguments)

    def step(self, grads, *, scale=1.0, clip_norm=None, norm_type=2.0, clip_value=None):
        for name, parameter in self.module.items():
            parameter.grad = torch.from_numpy(np.asarray(grads[name]).copy()) / scale
        norm = None
        if clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(self.module.parameters(), clip_norm, norm_type, foreach=False).item()
        if clip_value is not None:
            nn.utils.clip_grad_value_(self.module.parameters(), clip_value, foreach=False)
        self.opt.step()
        return norm

    def assert_near(self, params):
        for name, parameter in self.module.items():
            want = parameter.detach().numpy()
            scale = max(1.0, np.abs(want).max())
            assert np.abs(params[name] - want).max() <= 16 * EPS * scale, name


def problem(seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda: {name: np.asarray(rng.standard_normal(shape)) for name, shape in SHAPES.items()}  # noqa: E731
    return draw(), [draw() for _ in range(STEPS)]


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("clip_value", [None, 0.1])
@pytest.mark.parametrize("clip_norm", [None, 0.5, 100.0])
@pytest.mark.parametrize("norm_type", [1, 2, math.inf])
def test_clipping_and_unscaling(norm_type, clip_norm, clip_value, maximize):
    params, all_grads = problem()
    loop = Loop(params, torch.optim.AdamW, lr=0.01, maximize=maximize)
    norm_options = {} if clip_norm is None else {"clip_norm": clip_norm, "norm_type": norm_type}
    opt = lrcore.AdamW(params, lr=0.01, maximize=maximize, clip_value=clip_value, **norm_options)
    for t, grads in enumerate(all_grads):
        scale = 2.0 ** (t % 5) * 3
        want = loop.step(grads, scale=scale, clip_value=clip_value, **norm_options)
        info = opt.step(grads, grad_scale=scale)
        assert info.grad_norm == (None if want is None else pytest.approx(want, rel=1e-14))
    loop.assert_near(params)


@pytest.mark.parametrize(
    ("average", "multi"),
    [
        (lrcore.EMA(0.9), torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)),
        # get_swa_multi_avg_fn computes 1 / (n + 1) in float32, so only the version without it is exact.
        (lrcore.SWA(), None),
    ],
    ids=["EMA", "SWA"],
)
def test_averages_equal_those_of_averaged_models(average, multi):
    params, all_grads = problem()
    loop = Loop(params, torch.optim.SGD, lr=0.01, momentum=0.9)
    averaged = torch.optim.swa_utils.AveragedModel(loop.module, multi_avg_fn=multi)
    opt = lrcore.SGD(params, lr=0.01, momentum=0.9, average=average)
    for grads in all_grads:
        loop.step(grads)
        averaged.update_parameters(loop.module)
        opt.step(grads)
    loop.assert_near(params)
    for name, want in averaged.module.items():
        assert np.abs(opt.average[name] - want.detach().numpy()).max() <= 16 * EPS * np.abs(want.detach().numpy()).max()


def test_a_late_and_rare_average():
    params, all_grads = problem()
    loop = Loop(params, torch.optim.SGD, lr=0.01)
    averaged = torch.optim.swa_utils.AveragedModel(loop.module)
    opt = lrcore.SGD(params, lr=0.01, average=lrcore.SWA(start=5, every=3))
    for step, grads in enumerate(all_grads, start=1):
        loop.step(grads)
        if step >= 5 and (step - 5) % 3 == 0:
            averaged.update_parameters(loop.module)
        opt.step(grads)
    for name, want in averaged.module.items():
        np.testing.assert_allclose(opt.average[name], want.detach().numpy(), rtol=0, atol=16 * EPS)


@each_optimizer
def test_all_stages_together(optimizer):
    params, all_grads = problem()
    arguments = {"lr": 0.01, "weight_decay": 0.1}
    loop = Loop(params, counterpart(optimizer.__name__), **arguments)
    averaged = torch.optim.swa_utils.AveragedModel(
        loop.module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    )
    clip = {"clip_norm": 5.0, "clip_value": 0.05}
    opt = optimizer(
        params, **arguments, **clip, average=lrcore.EMA(0.5), zero_grads=True, stats=True, skip_nonfinite=True
    )
    for grads in all_grads:
        want = loop.step(grads, scale=7.0, **clip)
        averaged.update_parameters(loop.module)
        info = opt.step(grads, grad_scale=7.0)
        assert info.grad_norm == pytest.approx(want, rel=1e-14)
        assert not any(grad.any() for grad in grads.values())
    loop.assert_near(params)
    for name, want in averaged.module.items():
        assert np.abs(opt.average[name] - want.detach().numpy()).max() <= 16 * EPS * max(1, want.abs().max().item())


def test_micro_batches_are_the_mean():
    params, all_grads = problem()
    loop = Loop(params, torch.optim.Adam, lr=0.01)
    opt = lrcore.Adam(params, lr=0.01, clip_norm=1.0)
    for start in range(0, STEPS, 4):
        mean = {name: sum(grads[name] for grads in all_grads[start : start + 4]) / 4 for name in SHAPES}
        want = loop.step(mean, clip_norm=1.0)
        for grads in all_grads[start : start + 4]:
            opt.accumulate(grads)
        assert opt.step().grad_norm == pytest.approx(want, rel=1e-14)
    loop.assert_near(params)


def test_a_step_with_a_nan_gradient_is_skipped_as_by_grad_scaler():
    """PyTorch's ``GradScaler``: unscale, check for infinities, and step only if there are none."""
    params, all_grads = problem()
    loop = Loop(params, torch.optim.SGD, lr=0.01, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1000)
    scaler.scale(torch.zeros(()))
    opt = lrcore.SGD(params, lr=0.01, momentum=0.9, skip_nonfinite=True)
    for t, grads in enumerate(all_grads):
        if t % 3 == 0:
            grads["w"][5, 3] = [np.nan, np.inf, -np.inf][t % 9 // 3]
        for name, parameter in loop.module.items():
            parameter.grad = torch.from_numpy(np.asarray(grads[name]).copy())
        scale = scaler.get_scale()
        scaler.step(loop.opt)
        scaler.update()
        assert opt.step(grads, grad_scale=scale).applied == (t % 3 != 0)
    assert opt.skipped == 7
    loop.assert_near(params)
