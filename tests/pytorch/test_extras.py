"""What the drop-ins have beyond PyTorch: clipping, averages, statistics, schedules, the range test."""

import copy
import json
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", minversion="2.10")

import lrcore  # noqa: E402
import lrcore.torch  # noqa: E402
from lrcore import schedules  # noqa: E402


def network(dtype=torch.float64):
    torch.manual_seed(0)
    layers = torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Tanh(), torch.nn.Linear(8, 2)
    return torch.nn.Sequential(*layers).to(dtype)


def backward(model, scale=1.0):
    model.zero_grad()
    x = torch.linspace(-1, 1, 12, dtype=next(model.parameters()).dtype).reshape(3, 4)
    (scale * model(x).square().mean()).backward()


def assert_same(first, second, tolerance=1e-12):
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("norm", [1.0, 2.0, math.inf])
def test_clip_norm_is_clip_grad_norm_and_leaves_gradients(norm):
    expected, model = network(), network()
    torchs = torch.optim.AdamW(expected.parameters(), foreach=False)
    ours = lrcore.torch.AdamW(model.parameters(), clip_norm=0.05, norm_type=norm)
    for _ in range(5):
        backward(expected)
        backward(model)
        found = torch.nn.utils.clip_grad_norm_(expected.parameters(), 0.05, norm_type=norm)
        before = [param.grad.clone() for param in model.parameters()]
        torchs.step()
        ours.step()
        assert ours.info.grad_norm == pytest.approx(found.item(), rel=1e-12)
        assert all(torch.equal(param.grad, grad) for param, grad in zip(model.parameters(), before, strict=True))
    assert_same(expected, model)


def test_clip_value_is_clip_grad_value():
    expected, model = network(), network()
    torchs = torch.optim.SGD(expected.parameters(), 0.1, 0.9, foreach=False)
    ours = lrcore.torch.SGD(model.parameters(), 0.1, 0.9, clip_value=0.01)
    for _ in range(5):
        backward(expected)
        backward(model)
        torch.nn.utils.clip_grad_value_(expected.parameters(), 0.01)
        torchs.step()
        ours.step()
    assert_same(expected, model)


def test_the_average_is_that_of_averaged_model_and_goes_in_and_out():
    model = network()
    opt = lrcore.torch.Adam(model.parameters(), average=lrcore.EMA(0.9))
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    for _ in range(6):
        backward(model)
        opt.step()
        averaged.update_parameters(model)
    own = [param.detach().clone() for param in model.parameters()]
    with opt.averaged():
        assert_same(averaged.module, model)
        with pytest.raises(RuntimeError, match="the weights are averages now"):
            opt.step()
    assert all(torch.equal(param, one) for param, one in zip(model.parameters(), own, strict=True))
    assert list(opt.average) == [f"0.{i}" for i in range(6)]


def averaging():
    """Three weights that differ from their averages."""
    weights = [torch.nn.Parameter(torch.ones(2, 3)) for _ in range(3)]
    opt = lrcore.torch.SGD(weights, 1.0, average=lrcore.EMA(0.5))
    for _ in range(2):
        for weight in weights:
            weight.grad = torch.ones(2, 3)
        opt.step()
    return weights, opt


def test_every_weight_that_can_be_is_put_back():
    weights, opt = averaging()
    before = [weight.detach().clone() for weight in weights]

    def evaluate():
        with opt.averaged():
            weights[2].data = torch.zeros(4, 2, 3)

    message = r"^the weight '0.2' could not be put back .* was \(2, 3\), and is \(4, 2, 3\) now$"
    with pytest.raises(RuntimeError, match=message):
        evaluate()
    assert torch.equal(weights[0], before[0])
    assert torch.equal(weights[1], before[1])


def test_nothing_is_swapped_in_if_one_weight_can_not_be():
    weights, opt = averaging()
    before = [weight.detach().clone() for weight in weights]
    weights[1].data = torch.zeros(4, 2, 3)
    with pytest.raises(ValueError, match=r"^the weight '0.1' has shape \(4, 2, 3\), its average has \(2, 3\)$"):
        opt.averaged().__enter__()
    assert torch.equal(weights[0], before[0])
    assert torch.equal(weights[2], before[2])


def test_weights_of_inference_mode_are_not_swapped_outside_of_it():
    with torch.inference_mode():
        weights, opt = averaging()
        before = [weight.clone() for weight in weights]
        with opt.averaged():
            assert not torch.equal(weights[0], before[0])
        assert torch.equal(weights[0], before[0])
    with pytest.raises(RuntimeError, match="made in inference mode"):
        opt.averaged().__enter__()
    assert torch.equal(weights[0], before[0])


def test_averages_and_steps_go_through_a_checkpoint():
    def run(split):
        model = network()
        make = lambda: lrcore.torch.SGD(  # noqa: E731
            model.parameters(), schedules.Linear(0.1, 0.0, steps=10), average=lrcore.SWA(start=2, every=2)
        )
        opt = make()
        for number in range(8):
            if number == split:
                saved = copy.deepcopy(opt.state_dict())
                assert json.loads(saved["param_groups"][0]["lrcore_state"])["steps"] == split
                opt = make()
                opt.load_state_dict(saved)
            backward(model)
            opt.step()
        return model, opt

    (model, opt), (other, whole) = run(5), run(-1)
    assert_same(other, model, 0.0)
    assert opt.info == whole.info
    for one, two in zip(opt.average.values(), whole.average.values(), strict=True):
        assert torch.equal(one, two)


def test_gradients_that_are_not_finite_leave_all_as_it_was():
    model = network()
    opt = lrcore.torch.AdamW(model.named_parameters(), skip_nonfinite=True, max_skips=3)
    backward(model)
    opt.step()
    backward(model)
    before = copy.deepcopy((model.state_dict(), opt.state_dict()["state"]))
    model[3].bias.grad[1] = math.nan
    opt.step()
    opt.step()
    assert (opt.info.applied, opt.skipped, opt.steps) == (False, 2, 1)
    torch.testing.assert_close((model.state_dict(), opt.state_dict()["state"]), before, rtol=0, atol=0)
    with pytest.raises(FloatingPointError, match=r"the gradient of '3.bias' is nan at index \(1,\)"):
        opt.step()


def test_a_complex_gradient_that_is_not_finite_is_named_with_both_parts(recwarn):
    weight = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    opt = lrcore.torch.SGD([weight], lr=0.1, skip_nonfinite=True, max_skips=2)
    weight.grad = torch.tensor([1.0, complex(0.0, math.nan)])
    opt.step()
    with pytest.raises(FloatingPointError, match=r"^2 steps in a row .* is (\(0\+nanj\)|nanj) at index \(1,\)$"):
        opt.step()
    assert not recwarn


def test_zero_grads_and_stats_come_with_the_step():
    model = network()
    opt = lrcore.torch.AdamW(model.named_parameters(), zero_grads=True, stats=True)
    backward(model)
    norm = model[0].weight.grad.norm().item()
    version = model[0].weight.grad._version
    opt.step()
    assert all(not param.grad.any() for param in model.parameters())
    assert model[0].weight.grad._version == version + 1
    assert opt.info.stats["0.weight"].grad_norm == pytest.approx(norm, rel=1e-12)


def test_a_step_that_a_grad_scaler_skips_has_an_empty_table():
    for stats in (False, True):
        opt = lrcore.torch.SGD([torch.nn.Parameter(torch.ones(2))], stats=stats)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        weight = opt.param_groups[0]["params"][0]
        scaler.scale(weight.sum() * math.inf).backward()
        scaler.step(opt)
        assert not opt.info.applied
        assert opt.info.stats == ({} if stats else None)


def test_no_decay_matches_names():
    model, expected = network(), network()
    for one in (model, expected):
        one[1] = torch.nn.Identity()  # behind a batch norm the gradient of a bias is rounding, which Adam blows up
    opt = lrcore.torch.AdamW(model.named_parameters(), weight_decay=0.5, no_decay=["*bias"])
    decayed = [expected[0].weight, expected[3].weight]
    rest = [param for param in expected.parameters() if all(param is not one for one in decayed)]
    groups = [{"params": decayed, "weight_decay": 0.5}, {"params": rest, "weight_decay": 0.0}]
    torchs = torch.optim.AdamW(groups, foreach=False)
    for _ in range(3):
        backward(model)
        backward(expected)
        opt.step()
        torchs.step()
    assert_same(expected, model)


def test_schedules_are_seen_in_the_groups_and_match_those_of_torch():
    expected, model = network(), network()
    torchs = torch.optim.SGD(expected.parameters(), 0.1, 0.9, foreach=False)
    rate = schedules.Cosine(0.1, steps=10)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(torchs, 10)
    ours = lrcore.torch.SGD(model.parameters(), rate, 0.9)
    for number in range(10):
        backward(expected)
        backward(model)
        assert ours.param_groups[0]["lr"] == rate(number) == pytest.approx(torchs.param_groups[0]["lr"], abs=1e-15)
        torchs.step()
        ours.step()
        assert ours.info.lr == rate(number)
        scheduler.step()
    assert_same(expected, model)
    assert ours.steps == 10


def test_any_hyperparameter_and_any_group_may_have_a_schedule():
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    beta = schedules.Linear(0.5, 0.9, steps=4)
    groups = [{"params": weights[:1], "betas": (beta, 0.99)}, {"params": weights[1:], "lr": schedules.Constant(0.5)}]
    opt = lrcore.torch.Adam(groups, weight_decay=schedules.Linear(0.0, 1.0, steps=4))
    for number in range(4):
        for weight in weights:
            weight.grad = torch.ones(2)
        assert opt.param_groups[0]["betas"] == (beta(number), 0.99)
        assert opt.param_groups[1]["lr"] == 0.5
        assert [group["weight_decay"] for group in opt.param_groups] == [number / 4] * 2
        opt.step()
    opt.param_groups[0]["lr"] = schedules.Constant(0.25)
    opt.step()
    assert opt.param_groups[0]["lr"] == 0.25


def test_a_schedule_and_a_scheduler_of_torch_are_one_too_many():
    model = network()
    opt = lrcore.torch.SGD(model.parameters(), schedules.Linear(0.1, 0.0, steps=10))
    scheduler = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
    backward(model)
    opt.step()
    scheduler.step()
    with pytest.raises(ValueError, match=r"lr follows Linear\(.*was set to 0.045.*give one of both"):
        opt.step()


def test_lrcores_schedules_drive_any_optimizer_of_torch():
    weight = torch.nn.Parameter(torch.ones(2))
    opt = torch.optim.NAdam([weight], lr=1.0)
    rate = schedules.Cosine(0.1, steps=10).warmup(2)
    scheduler = schedules.to_torch(rate, opt)
    for number in range(5):
        assert opt.param_groups[0]["lr"] == rate(number)
        weight.grad = torch.ones(2)
        opt.step()
        scheduler.step()


def test_reports_reach_the_schedules():
    weight = torch.nn.Parameter(torch.ones(2))
    rate = schedules.Constant(0.1) * schedules.ReduceOnPlateau(factor=0.5, patience=0)
    opt = lrcore.torch.SGD([weight], rate)
    weight.grad = torch.ones(2)
    opt.step()
    assert [opt.report(loss) for loss in (1.0, 2.0)] == [False, True]
    opt.step()
    assert opt.info.lr == 0.05
    again = lrcore.torch.SGD([weight], rate)
    again.load_state_dict(opt.state_dict())
    again.step()
    assert again.info.lr == 0.05
    assert again.report(3.0)


class Counted(torch.utils.data.Dataset):
    """Points on a plane."""

    def __len__(self):
        return 64

    def __getitem__(self, index):
        x = torch.tensor([index % 8, index // 8, 1.0, 0.5], dtype=torch.float64) / 8
        return x, torch.stack([x.sum(), x[0] - x[1]])


def test_repeats_of_find_lr_are_trained_on_other_batches():
    order = []

    class Seen(Counted):
        def __getitem__(self, index):
            order.append(index)
            return super().__getitem__(index)

    model = network()
    loader = torch.utils.data.DataLoader(Seen(), batch_size=16, shuffle=True)
    opt = torch.optim.SGD(model.parameters(), 0.1)
    lrcore.torch.find_lr(model, opt, torch.nn.functional.mse_loss, loader, end=1e-3, steps=4, repeats=3)
    repeats = [tuple(order[64 * k : 64 * (k + 1)]) for k in range(3)]
    assert len(set(repeats)) == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda params: torch.optim.SGD(params, 0.1, 0.9),
        lambda params: torch.optim.AdamW(params),
        lambda params: lrcore.torch.SGD(params, schedules.Linear(0.1, 0.0, steps=100), 0.9),
        lambda params: lrcore.torch.AdamW(params, clip_norm=1.0, average=lrcore.EMA(0.9)),
    ],
)
def test_find_lr_puts_everything_back(make):
    model = network()
    opt = make(model.parameters())
    loader = torch.utils.data.DataLoader(Counted(), batch_size=16, shuffle=True, num_workers=0)
    for _ in range(2):
        backward(model)
        opt.step()

    def all_of_it():
        saved = copy.deepcopy(opt.state_dict())
        return (model.state_dict(), saved), [group.pop("lrcore_state", None) for group in saved["param_groups"]]

    before, texts = copy.deepcopy(all_of_it())
    grads = [param.grad.clone() for param in model.parameters()]
    generators = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    result = lrcore.torch.find_lr(
        model, opt, torch.nn.functional.mse_loss, loader, start=1e-4, end=1e3, steps=40, repeats=2, accumulate=2
    )
    assert result.losses
    assert result.stopped == "diverged"
    assert result.momentum == (0.9 if isinstance(opt, torch.optim.SGD) else None)

    def fails(output, target):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lrcore.torch.find_lr(model, opt, fails, loader)
    torch.testing.assert_close(all_of_it()[0], before, rtol=0, atol=0)
    assert all_of_it()[1] == texts
    assert all(torch.equal(param.grad, grad) for param, grad in zip(model.parameters(), grads, strict=True))
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert np.random.get_state()[1].tolist() == generators[1]  # noqa: NPY002
    rate = opt.param_groups[0]["lr"]
    backward(model)
    opt.step()
    assert not hasattr(opt, "info") or opt.info.lr == rate
    assert rate == (1e-3 if isinstance(opt, torch.optim.AdamW) else 0.098 if hasattr(opt, "info") else 0.1)
