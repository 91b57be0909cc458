"""A metric tracker belongs to one use of a schedule: a hyperparameter of a group. It is created and dropped with it."""

import copy
import importlib
import pickle
import warnings

import numpy as np
import pytest

import lrcore
from lrcore import schedules

PLATEAU = schedules.ReduceOnPlateau(factor=0.5, patience=0)
RATE = schedules.Constant(1.0) * PLATEAU


def sgd(lr=RATE, groups=1, **options):
    given = [{"params": {f"w{i}": np.ones(2)}} for i in range(groups)]
    return lrcore.SGD(given, lr=lr, **options)


def reduced(opt, times=2):
    for _ in range(times + 1):
        opt.report(1.0)
    return opt


def rates(opt):
    return [values["lr"] for values in opt.hyperparameters()]


@pytest.mark.parametrize(
    "again", [lambda: RATE, lambda: schedules.Constant(1.0) * copy.copy(PLATEAU)], ids=["same", "equal"]
)
def test_assigning_a_schedule_resets_its_tracker(again):
    opt = reduced(sgd())
    assert opt.lr == 0.25
    opt.param_groups[0]["lr"] = again()
    assert opt.lr == 1.0
    assert opt.report(9.0) is False  # the first report is the best so far, independent of the old tracker
    assert opt.report(8.0) is False
    assert opt.report(8.0) is True


def test_a_replaced_tracker_does_not_come_back():
    opt = reduced(sgd())
    group = opt.param_groups[0]
    before = group["lr"]
    group["lr"] = 0.1
    group["lr"] = before
    assert opt.lr == 1.0
    reduced(opt, 1)
    group.update({"lr": 0.1, "momentum": before})
    assert group.value("momentum", 0) == 1.0


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda lr: lr * 0.5, 0.125), (lambda lr: 2.0 * lr, 0.5), (lambda lr: lr, 0.25), (lambda lr: lr + 1.0, 1.25),
        (lambda lr: lr.at_least(0.5), 0.5), (lambda lr: lr.warmup(1), 0.25), (lambda lr: lr.shift(3), 0.25),
        (lambda lr: lr + lr, 0.5), (lambda lr: lr * schedules.ReduceOnPlateau(), 0.25),
        (lambda lr: lr.then(lr, at=9), 0.25),
    ],
    ids=range(10),
)  # fmt: skip
def test_a_schedule_derived_from_the_current_value_keeps_its_tracker(edit, expected):
    opt = reduced(sgd())
    group = opt.param_groups[0]
    group["lr"] = edit(group["lr"])
    assert opt.lr == expected
    opt.report(1.0)
    assert opt.lr < expected or expected in (0.5, 1.25)


def test_a_refused_edit_changes_no_tracker():
    opt = reduced(sgd())
    with pytest.raises(ValueError, match="momentum"):
        opt.param_groups[0].update(lr=RATE, momentum=-1.0)
    assert opt.lr == 0.25
    assert reduced(opt, 0).lr == 0.125


def test_each_hyperparameter_of_each_group_has_its_own_tracker():
    opt = sgd(groups=2, momentum=0.5 * PLATEAU, clip_norm=RATE)
    reduced(opt)
    assert rates(opt) == [0.25, 0.25]
    opt.param_groups[1]["lr"] = opt.param_groups[0]["lr"]
    assert rates(opt) == [0.25, 1.0]
    opt.report(1.0)
    assert rates(opt) == [0.125, 1.0]
    assert [values["momentum"] for values in opt.hyperparameters()] == [0.0625, 0.0625]


def test_each_schedule_of_a_pair_has_its_own_tracker():
    opt = lrcore.AdamW(np.ones(2), betas=(0.5 * PLATEAU, 0.5 * PLATEAU))
    reduced(opt, 1)
    assert opt.hyperparameters()[0]["betas"] == (0.25, 0.25)
    opt.param_groups[0]["betas"] = (opt.param_groups[0]["betas"][0], 0.5 * PLATEAU)
    assert opt.hyperparameters()[0]["betas"] == (0.25, 0.5)


def test_the_given_schedule_is_not_changed():
    opt = reduced(sgd())
    assert opt.param_groups[0]["lr"] == RATE
    assert RATE(0) == 1.0
    assert sgd().lr == 1.0


def mixed():
    """Equal schedules with different histories."""
    opt = reduced(sgd(groups=3, momentum=0.5 * PLATEAU), 1)
    opt.param_groups[1]["lr"] = RATE
    reduced(opt, 0)
    opt.param_groups[2]["momentum"] = 0.5 * PLATEAU
    return reduced(opt, 0)


def loaded_from(saved):
    other = sgd(groups=3)
    other.load_state_dict(saved)
    return other


def through_a_file(opt, folder):
    lrcore.save(folder / "run.safetensors", opt)
    other = sgd(groups=3)
    lrcore.load(folder / "run.safetensors", other)
    return other


WAYS = {
    "pickle": lambda opt, _: pickle.loads(pickle.dumps(opt)),  # noqa: S301
    "deepcopy": lambda opt, _: copy.deepcopy(opt),
    "state_dict": lambda opt, _: loaded_from(opt.state_dict()),
    "own state": lambda opt, _: opt if opt.load_state_dict(opt.state_dict()) else None,
    "checkpoint": through_a_file,
}


@pytest.mark.parametrize("way", WAYS)
def test_trackers_are_saved_by_group_and_hyperparameter(way, tmp_path):
    opt = mixed()
    expected = opt.hyperparameters()
    twin = mixed()
    other = WAYS[way](opt, tmp_path)
    assert other.hyperparameters() == expected
    for value in (1.0, 0.5, 0.5, 0.5):
        assert other.report(value) == twin.report(value)
        assert other.hyperparameters() == twin.hyperparameters()


def test_loading_an_older_state_restores_only_its_own_trackers():
    opt = sgd()
    fresh = opt.state_dict()
    reduced(opt)
    late = opt.state_dict()
    opt.load_state_dict(fresh)
    assert opt.lr == 1.0
    opt.load_state_dict(late)
    assert opt.lr == 0.25


def test_a_group_without_loaded_state_keeps_its_tracker():
    opt = reduced(sgd(groups=2))
    saved = sgd().state_dict()
    opt.load_state_dict(saved, strict=False)
    assert rates(opt) == [1.0, 0.25]


def test_saved_reports_without_a_schedule_are_named():
    opt = sgd(clip_norm=RATE)
    saved = reduced(opt).state_dict()
    with pytest.warns(UserWarning, match="what was reported is not loaded for clip_norm"):
        sgd().load_state_dict(saved)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sgd(clip_norm=2 * RATE).load_state_dict(saved)


def test_a_range_test_restores_trackers():
    opt = mixed()
    before = opt.hyperparameters()

    def loss(params):
        del params
        return 1.0, [{f"w{i}": np.ones(2)} for i in range(3)]

    lrcore.find_lr(opt, loss, [()], progress=False)
    assert opt.hyperparameters() == before
    assert opt.report(1.0) == mixed().report(1.0)


def test_each_use_of_adascale_follows_the_gradient_noise():
    opt = sgd(lr=1.0 * schedules.AdaScale(), noise_scale=lrcore.NoiseScale(batch=8))
    for grad in (1.0, 3.0):
        opt.accumulate([{"w0": np.array([grad, 1.0])}])
    opt.step()
    assert opt.lr > 1.0
    opt.param_groups[0]["lr"] *= 2.0
    assert opt.lr > 2.0
    opt.param_groups[0]["lr"] = 1.0 * schedules.AdaScale()
    assert opt.lr == 1.0


class TestTensors:
    """The same for the PyTorch drop-ins."""

    @pytest.fixture
    def torch(self):
        torch = pytest.importorskip("torch")
        importlib.import_module("lrcore.torch")
        return torch

    def sgd(self, torch, groups=1, lr=RATE):
        params = [torch.nn.Parameter(torch.ones(2)) for _ in range(groups)]
        for param in params:
            param.grad = torch.ones(2)
        return lrcore.torch.SGD([{"params": [param]} for param in params], lr=lr)

    def rates(self, opt):
        opt._ready()
        return [group["lr"] for group in opt.param_groups]

    def test_an_edit_of_another_hyperparameter_keeps_trackers(self, torch):
        opt = reduced(self.sgd(torch))
        opt.param_groups[0]["weight_decay"] = 0.1
        opt.step()
        assert self.rates(opt) == [0.25]
        opt.param_groups[0]["momentum"] = 0.5 * PLATEAU
        opt.report(1.0)
        assert self.rates(opt) == [0.125]

    def test_assigning_a_schedule_resets_its_tracker(self, torch):
        opt = reduced(self.sgd(torch))
        opt.param_groups[0]["lr"] = RATE
        assert self.rates(opt) == [1.0]
        assert opt.report(9.0) is False

    def test_trackers_of_added_and_removed_groups(self, torch):
        opt = reduced(self.sgd(torch, groups=2))
        opt.param_groups[0]["lr"] = RATE
        opt.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})
        assert self.rates(opt) == [1.0, 0.25, 1.0]
        del opt.param_groups[0]
        assert self.rates(opt) == [0.25, 1.0]

    @pytest.mark.parametrize("way", ["pickle", "deepcopy", "state_dict"])
    def test_trackers_are_saved_by_group_and_hyperparameter(self, torch, way):
        opt = reduced(self.sgd(torch, groups=2), 1)
        opt.param_groups[1]["lr"] = RATE
        reduced(opt, 0)
        other = self.sgd(torch, groups=2)
        if way == "state_dict":
            other.load_state_dict(opt.state_dict())
        else:
            other = pickle.loads(pickle.dumps(opt)) if way == "pickle" else copy.deepcopy(opt)  # noqa: S301
        assert self.rates(other) == self.rates(opt) == [0.25, 1.0]

    def test_loading_a_state_without_reports_resets_trackers(self, torch):
        opt, fresh = reduced(self.sgd(torch)), self.sgd(torch)
        opt.load_state_dict(fresh.state_dict())
        assert self.rates(opt) == [1.0]

    def test_a_range_test_restores_trackers(self, torch):
        model = torch.nn.Linear(2, 1)
        opt = reduced(lrcore.torch.SGD(model.parameters(), lr=RATE))
        batch = torch.ones(4, 2), torch.zeros(4, 1)
        lrcore.torch.find_lr(model, opt, torch.nn.functional.mse_loss, [batch], steps=5, progress=False)
        assert self.rates(opt) == [0.25]
        assert opt.report(1.0) is True
