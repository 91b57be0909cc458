"""Results print short text, and show plots and tables in notebooks."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

import lrcore
from lrcore import _text, schedules, sweeps


def objective(lr, name, seed):
    return {"objective": float("nan") if lr > 0.5 else lr, "extra": 1}


def range_test(count=200):
    lrs = tuple(np.geomspace(1e-5, 1.0, count).tolist())
    return lrcore.RangeTest(lrs, tuple((1.0 / (1.0 + 100.0 * lr) + 50.0 * lr**2) for lr in lrs), stopped="end")


def optimizer(**more):
    opt = lrcore.AdamW({"w": np.ones(3)}, lr=schedules.Cosine(0.1, steps=10), stats=True, **more)
    return opt, opt.step({"w": np.ones(3)})


def results(count=3):
    space = {"lr": np.linspace(0.1, 0.9, count).tolist(), "name": ["<b>"]}
    return sweeps.sweep(objective, space, seeds=1, workers=0, progress=False)


def history():
    recorded = lrcore.History()
    for step in range(1000):
        recorded(step=step, loss=1.0 / (1 + step), other=None if step else 1.0)
    return recorded


SHOWN = {
    "a range test": range_test,
    "an empty range test": lambda: lrcore.RangeTest((), ()),
    "a range test of NaN": lambda: lrcore.RangeTest((0.1, 0.2), (float("nan"), float("nan"))),
    "results": results,
    "no results": lambda: sweeps.Results([], minimize=True),
    "a sensitivity": lambda: results().sensitivity("lr"),
    "statistics": lambda: optimizer()[1].stats,
    "a schedule": lambda: schedules.Cosine(0.1, steps=100).warmup(10),
    "a long table": lambda: schedules.Table(list(np.linspace(1.0, 0.0, 5000))),
    "a constant": lambda: schedules.Constant(1.0),
    "an optimizer": lambda: optimizer()[0],
    "a group": lambda: optimizer()[0].param_groups[0],
    "a history": history,
    "an empty history": lrcore.History,
}


@pytest.mark.parametrize("make", SHOWN.values(), ids=SHOWN)
def test_a_notebook_gets_short_valid_html(make):
    html = make()._repr_html_()
    assert len(html) < 30_000
    root = ET.fromstring(f"<div>{html}</div>")  # noqa: S314
    assert not list(root.iter("b"))  # values are escaped


def test_curves_are_in_the_html():
    for make in ("a range test", "a schedule", "a history"):
        assert "<svg" in SHOWN[make]()._repr_html_()
    for make in ("results", "statistics", "an optimizer", "a group", "a sensitivity"):
        assert "<table" in SHOWN[make]()._repr_html_()


@pytest.mark.parametrize("make", [make for name, make in SHOWN.items() if name != "a long table"])
def test_printed_results_are_short(make):
    assert len(repr(make())) < 300


def test_counts_have_singular_and_plural():
    opt, info = optimizer()
    assert repr(info.stats) == "<StepStats of 1 parameter>"
    assert repr(opt).endswith("1 parameter, 1 step>")
    opt.step({"w": np.ones(3)})
    assert repr(opt).endswith("1 parameter, 2 steps>")
    assert repr(results(1)) == "<Results: 1 run, 1 finished>"
    assert str(results(1).best).endswith("over 1 seed")
    assert repr(range_test()).startswith("<RangeTest: 200 learning rates from 1e-05 to 1, stopped: end, recommended ")
    assert repr(history()) == "<History: 1000 rows to step 999, step, loss, other>"
    assert _text.counted(0, "run") == "0 runs"


def test_a_curve_keeps_its_extremes_and_its_gaps():
    values = [0.0] * 5000
    values[1234] = 1.0
    assert " 0.0" in _text.html_curve((values, "red"))
    assert _text.html_curve(([0.0, float("nan"), 1.0], "red")).count("M") == 2


def test_results_write_csv(tmp_path):
    found = results()
    found.to_csv(tmp_path / "sweep.csv")
    lines = (tmp_path / "sweep.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "lr,name,seed_index,seed,status,objective,extra,reason,seconds,attempts"
    assert len(lines) == 4
    assert ",diverged,,1.0,the objective is nan," in lines[-1]


def test_a_step_info_is_a_flat_dictionary():
    opt = lrcore.SGD([np.ones(1)], lr=0.1)
    assert opt.step([np.ones(1)]).as_dict() == {"step": 1, "lr": 0.1, "applied": True}
    opt = lrcore.SGD([np.ones(1)], lr=0.1, clip_norm=1.0, stats=True)
    assert opt.step([np.array([3.0])]).as_dict() == {"step": 1, "lr": 0.1, "applied": True, "grad_norm": 3.0}
