"""Schedules within an optimizer: every hyperparameter, lr_scale, layer-wise learning rates, and reports."""

import copy
import math
import pickle
import re

import numpy as np
import pytest

import lrcore
from lrcore import schedules

PLATEAU = schedules.ReduceOnPlateau(factor=0.5, patience=1)


def arrays(count=2, size=3):
    return {f"w{i}": np.full(size, 1.0 + i) for i in range(count)}


def ones(opt):
    return {name: np.ones_like(array) for name, array in opt.params.items()}


def plateau_optimizer(**options):
    return lrcore.AdamW(arrays(), lr=schedules.Linear(1.0, 0.0, steps=10) * PLATEAU, **options)


def test_momentum_cycles_inversely_to_the_learning_rate():
    cycle = schedules.OneCycle(1.0, steps=10)
    opt = lrcore.SGD(arrays(), lr=cycle, momentum=cycle.momentum(0.85, 0.95))
    seen = []
    for _ in range(10):
        (values,) = opt.hyperparameters()
        seen.append((values["lr"], values["momentum"]))
        assert opt.step(ones(opt)).lr == values["lr"]
    assert seen == [(cycle(k), cycle.momentum(0.85, 0.95)(k)) for k in range(10)]
    assert max(seen)[1] == min(momentum for _, momentum in seen) == 0.85


def test_weight_decay_and_betas_follow_schedules():
    ramp, betas = schedules.Linear(0.0, 0.1, steps=4), (0.9, schedules.Linear(0.9, 0.999, steps=4))
    opt = lrcore.AdamW(arrays(), lr=0.1, betas=betas, weight_decay=ramp)
    for k in range(6):
        (values,) = opt.hyperparameters()
        assert (values["weight_decay"], values["betas"]) == (ramp(k), (0.9, betas[1](k)))
        opt.step(ones(opt))


def test_hyperparameters_are_those_of_the_next_step_of_each_group():
    rate = schedules.Linear(1.0, 0.0, steps=4)
    groups = [{"params": {"a": np.ones(2)}}, {"params": {"b": np.ones(2)}, "lr": 0.5, "name": "head"}]
    opt = lrcore.SGD(groups, lr=rate, momentum=0.9)
    opt.step({"a": np.ones(2), "b": np.ones(2)})
    first, second = opt.hyperparameters()
    assert (first["lr"], second["lr"], first["momentum"]) == (0.75, 0.5, 0.9)
    assert first.keys() == opt.param_groups[0].hyperparameters.keys()


@pytest.mark.parametrize("decay", ["coupled", "decoupled", "independent", "cautious"])
def test_a_group_with_lr_scale_equals_one_with_a_scaled_learning_rate(decay):
    rate = schedules.Cosine(0.1, steps=20).warmup(3)
    scaled = lrcore.AdamW(arrays(), lr=rate, lr_scale=0.25, weight_decay=0.1, decay=decay)
    plain = lrcore.AdamW(arrays(), lr=rate * 0.25, weight_decay=0.1, decay=decay)
    for _ in range(5):
        infos = scaled.step(ones(scaled)), plain.step(ones(plain))
        assert infos[0] == infos[1]
        assert scaled.lr == plain.lr
    for name, array in scaled.params.items():
        assert (array == plain.params[name]).all()


def test_lr_scale_may_be_a_schedule_and_is_checked():
    opt = lrcore.SGD(arrays(), lr=0.5, lr_scale=schedules.Linear(1.0, 0.0, steps=2))
    assert [opt.step(ones(opt)).lr for _ in range(3)] == [0.5, 0.25, 0.0]
    with pytest.raises(ValueError, match=r"^lr_scale must be in \[0, inf\), got -1"):
        lrcore.SGD(arrays(), lr_scale=-1)


def test_layerwise_learning_rates_decrease_towards_the_first_layer():
    params = {"embedding": np.ones(2), "block": {"w": np.ones((2, 2)), "b": np.ones(2)}, "head": np.ones(2)}
    opt = lrcore.SGD(lrcore.layerwise(params, decay=0.5), lr=schedules.Linear(1.0, 0.0, steps=4))
    grads = {"embedding": np.ones(2), "block": {"w": np.ones((2, 2)), "b": np.ones(2)}, "head": np.ones(2)}
    opt.step(grads)
    assert (params["embedding"] == 0.75).all()
    assert (params["block"]["w"] == 0.5).all()
    assert (params["head"] == 0.0).all()
    assert [group.name for group in opt.param_groups] == ["embedding", "block", "head"]
    assert [values["lr"] for values in opt.hyperparameters()] == [0.1875, 0.375, 0.75]


def test_layers_of_a_sequence_have_no_names_unless_given():
    layers = [np.ones(1), [np.ones(2), np.ones(3)]]
    assert lrcore.layerwise(layers, 0.1) == [
        {"params": layers[0], "lr_scale": 0.1},
        {"params": layers[1], "lr_scale": 1.0},
    ]
    assert [group["name"] for group in lrcore.layerwise(layers, names=["first", "last"])] == ["first", "last"]


@pytest.mark.parametrize(
    ("call", "exception", "message"),
    [
        (lambda: lrcore.layerwise([]), ValueError, "layerwise: params must be at least one layer, got none"),
        (lambda: lrcore.layerwise(np.ones(3)), TypeError, "layerwise: params must be a mapping or a sequence"),
        (lambda: lrcore.layerwise([1], decay=0), ValueError, "layerwise: decay must be in (0, inf), got 0"),
        (lambda: lrcore.layerwise([1], names=["a", "b"]), ValueError, "layerwise: names must be 1, as the layers are"),
    ],
)
def test_other_values_than_a_list_of_layers_are_refused(call, exception, message):
    with pytest.raises(exception, match=f"^{re.escape(message)}"):
        call()


def test_reduce_on_plateau_multiplies_the_schedule_without_shifting_it():
    opt = plateau_optimizer()
    rates = []
    for loss in [3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0]:
        rates.append(opt.step(ones(opt)).lr)
        opt.report(loss)
    expected = [1.0, 0.9, 0.8, 0.7, 0.5 * 0.6, 0.5 * 0.5, 0.25 * 0.4]
    assert rates == pytest.approx(expected, rel=1e-15)


def test_report_says_whether_the_factor_changed():
    opt = plateau_optimizer()
    assert [opt.report(loss) for loss in (1.0, 1.0, 1.0, math.nan, 1.0)] == [False, False, True, False, True]
    assert opt.lr == 0.25


def test_reports_reach_reduce_on_plateau_in_any_hyperparameter():
    opt = lrcore.AdamW(
        arrays(), lr=0.1, betas=(schedules.Constant(0.8) * PLATEAU, 0.9), clip_norm=schedules.Constant(1.0) * PLATEAU
    )
    for _ in range(3):
        opt.report(1.0)
    assert opt.hyperparameters()[0]["betas"] == (0.4, 0.9)
    before = {name: array.copy() for name, array in opt.params.items()}
    other = lrcore.AdamW(before, lr=0.1, betas=(0.4, 0.9), clip_norm=0.5)
    opt.step(ones(opt))
    other.step(ones(other))
    assert all((opt.params[name] == array).all() for name, array in before.items())


def test_equal_plateaus_of_two_groups_act_together():
    groups = [{"params": {"a": np.ones(2)}}, {"params": {"b": np.ones(2)}, "lr": schedules.Constant(0.3) * PLATEAU}]
    opt = lrcore.SGD(groups, lr=schedules.Constant(0.1) * PLATEAU)
    for _ in range(3):
        opt.report(1.0)
    assert [values["lr"] for values in opt.hyperparameters()] == [0.05, 0.15]
    opt.add_param_group({"params": {"c": np.ones(2)}})
    assert opt.hyperparameters()[2]["lr"] == 0.1  # its tracker starts with it
    assert opt.report(1.0) is False
    assert opt.report(1.0) is True
    assert [values["lr"] for values in opt.hyperparameters()] == [0.025, 0.075, 0.1]


def test_an_edited_learning_rate_keeps_its_tracker():
    opt = plateau_optimizer()
    for _ in range(3):
        opt.report(1.0)
    opt.param_groups[0]["lr"] *= 0.5
    assert opt.lr == 0.25
    assert opt.report(1.0) is False
    opt.param_groups[0]["lr"] = opt.param_groups[0]["lr"].at_least(0.3) + opt.param_groups[0]["lr"]
    assert opt.lr == 0.55
    opt.param_groups[0]["lr"] = 0.4
    assert opt.lr == 0.4


def saved_by(way, opt, tmp_path):
    """The optimizer with its state, in a new one."""
    if way == "pickle":
        return pickle.loads(pickle.dumps(opt))  # noqa: S301
    if way == "deepcopy":
        return copy.deepcopy(opt)
    other = plateau_optimizer()
    if way == "state_dict":
        for name, array in opt.params.items():
            other.params[name][...] = array
        other.load_state_dict(opt.state_dict())
    else:
        lrcore.save(tmp_path / "run.safetensors", opt)
        lrcore.load(tmp_path / "run.safetensors", other)
    return other


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "state_dict", "checkpoint"])
@pytest.mark.parametrize(
    "losses", [[1.0, 0.5, 0.5, 0.5, 0.5], [math.nan], [math.inf, 2.0], [-1.0, -1.0, -1.0]], ids=str
)
def test_reports_are_saved_with_the_optimizer(way, losses, tmp_path):
    opt = plateau_optimizer()
    for loss in losses:
        opt.step(ones(opt))
        opt.report(loss)
    other = saved_by(way, opt, tmp_path)
    for _ in range(4):
        assert other.step(ones(other)) == opt.step(ones(opt))
        assert other.report(0.5) == opt.report(0.5)
        assert other.lr == opt.lr
    for name, array in opt.params.items():
        assert (array == other.params[name]).all()


def test_loading_a_state_without_reports_resets_trackers():
    opt, fresh = plateau_optimizer(), plateau_optimizer()
    for _ in range(3):
        opt.report(1.0)
    assert opt.lr == 0.5
    opt.load_state_dict(fresh.state_dict())
    assert opt.lr == 1.0


PLACE = {
    "group": 0,
    "name": "lr",
    "part": 0,
    "schedule": PLATEAU,
    "state": {"factor": 1.0, "best": 1.0, "bad": 0, "cooling": 0},
}
BAD_REPORTS = [
    (5, "reports must be a sequence, got int"),
    ([{}], "reports[0] must be a mapping of group, name, part, schedule and state, got {}"),
    (
        [{**PLACE, "schedule": schedules.Constant(1), "state": {}}],
        "reports[0]['schedule'] must be one that uses reports",
    ),
    ([{**PLACE, "group": -1}], "reports[0]['group'] must be >= 0, got -1"),
    ([{**PLACE, "part": 0.5}], "reports[0]['part'] must be a whole number >= 0, got 0.5"),
    ([{**PLACE, "name": 3}], "reports[0]['name'] must be a string, got 3"),
    ([{**PLACE, "state": {"factor": 1.0}}], "the state of a plateau has factor, best, bad, cooling, got"),
    (
        [{**PLACE, "state": {"factor": -1.0, "best": 1.0, "bad": 0, "cooling": 0}}],
        "factor must be in [0, inf), got -1.0",
    ),
]


@pytest.mark.parametrize(("reports", "message"), BAD_REPORTS, ids=[message[:40] for _, message in BAD_REPORTS])
def test_invalid_saved_reports_change_nothing(reports, message):
    opt = plateau_optimizer()
    for _ in range(3):
        opt.report(1.0)
    state = opt.state_dict()
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}"):
        opt.load_state_dict({**state, "steps": 7, "reports": reports})
    assert (opt.lr, opt.steps) == (0.5, 0)


@pytest.mark.parametrize("value", ["1", None, True, [1.0], {}], ids=repr)
def test_a_report_is_a_number(value):
    with pytest.raises(TypeError, match=f"^report: value must be a number, got {re.escape(repr(value))}$"):
        plateau_optimizer().report(value)


def test_any_real_number_can_be_reported():
    opt = plateau_optimizer()
    assert [opt.report(loss) for loss in (np.float32(1.0), np.array(1.0), 1)] == [False, False, True]


def test_a_report_that_no_schedule_uses_is_an_error():
    opt = lrcore.SGD(arrays(), lr=schedules.Constant(0.1))
    with pytest.raises(
        ValueError, match=r"^report: no schedule uses reported metrics; multiply lr by schedules\.Reduce"
    ):
        opt.report(1.0)


def test_a_run_resumes_from_a_branch_with_another_decay():
    stable = schedules.WSD(0.5, steps=100, warmup_steps=2, decay_steps=10)
    opt = lrcore.SGD(arrays(), lr=stable)
    for _ in range(5):
        opt.step(ones(opt))
    opt.param_groups[0]["lr"] = stable.branch(5, decay_steps=4, shape="sqrt")
    rates = [opt.step(ones(opt)).lr for _ in range(5)]
    assert rates == pytest.approx([0.5 * (1 - math.sqrt(k / 4)) for k in range(5)], rel=1e-15)


def test_independent_decay_computes_the_maximum_learning_rate_once(monkeypatch):
    asked = []

    class Counting(schedules.Schedule):
        __slots__ = ()

        def _value(self, step):  # noqa: ARG002
            return 0.5

        def _maximum(self):
            asked.append(1)
            return 1.0

    opt = lrcore.SGD(arrays(), lr=Counting(), weight_decay=0.1, decay="independent")
    for _ in range(5):
        opt.step(ones(opt))
    assert len(asked) == 1
