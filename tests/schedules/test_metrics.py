"""Metric factors equal PyTorch's and Keras' ReduceLROnPlateau."""

import json
import math
import pickle

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lrcore.schedules import Constant, Linear, ReduceOnPlateau, Schedule
from lrcore.schedules.metrics import apply_factors, metric_factors
from support import schedule_peers as peers
from support.rows import each
from support.schedule_strategies import EXAMPLES, some

METRICS = st.lists(st.sampled_from([1.0, 0.9999, 0.9998, 0.99, 0.5, 0.1, 2.0]) | st.floats(1e-3, 3.0), max_size=40)
RULES = st.builds(
    ReduceOnPlateau,
    st.sampled_from([0.5, 0.1, 0.0, 0.9]),
    st.integers(0, 4),
    st.sampled_from(["min", "max"]),
    threshold=st.sampled_from([0.0, 1e-4, 0.1]),
    relative=st.booleans(),
    cooldown=st.integers(0, 4),
    floor=st.sampled_from([0.0, 0.25, 0.3]),
)


def factors(rule, metrics):
    """Return the factor before the first report, and after each."""
    tracker = rule.tracker()
    return [tracker.factor, *((tracker.report(metric), tracker.factor)[1] for metric in metrics)]


def torch_factors(rule, metrics):
    """PyTorch's plateau, as it is described."""
    factor, best, bad, cooling, taken = 1.0, math.inf if rule.mode == "min" else -math.inf, 0, 0, [1.0]
    for metric in metrics:
        margin = rule.threshold * (abs(best) if math.isfinite(best) else 0.0) if rule.relative else rule.threshold
        is_better = metric < best - margin if rule.mode == "min" else metric > best + margin
        best, bad = (metric, 0) if is_better else (best, bad + 1)
        if cooling:
            cooling, bad = cooling - 1, 0
        if bad > rule.patience:
            factor, cooling, bad = max(factor * rule.factor, rule.floor), rule.cooldown, 0
        taken.append(factor)
    return taken


def keras_factors(rule, metrics):
    """Keras' plateau, as it is described."""
    factor, best, wait, cooling, taken = 1.0, None, 0, 0, [1.0]
    for metric in metrics:
        if cooling:
            cooling, wait = cooling - 1, 0
        if best is None or (metric < best - rule.threshold if rule.mode == "min" else metric > best + rule.threshold):
            best, wait = metric, 0
        elif not cooling:
            wait += 1
            if wait >= rule.patience and factor > rule.floor:
                factor, cooling, wait = max(factor * rule.factor, rule.floor), rule.cooldown, 0
        taken.append(factor)
    return taken


def with_convention(rule, convention):
    relative = rule.relative and convention == "torch"
    settings = (rule.factor, rule.patience, rule.mode, rule.threshold, relative, rule.cooldown, rule.floor)
    return ReduceOnPlateau(*settings, convention=convention)


@some
@given(RULES, METRICS | st.lists(st.floats(-3.0, 3.0), max_size=40))
@example(ReduceOnPlateau(0.5, 0), [math.nan, 1.0, math.nan, 0.5])
@example(ReduceOnPlateau(0.5, 0), [math.inf, math.inf, 1.0, math.inf])
@example(ReduceOnPlateau(0.5, 0, "max"), [-math.inf, 1.0, -math.inf])
def test_the_factor_is_that_of_the_description_of_torch(rule, metrics):
    assert factors(rule, metrics) == pytest.approx(torch_factors(rule, metrics), rel=1e-14, abs=0.0)


@some
@given(RULES, METRICS | st.lists(st.floats(-3.0, 3.0), max_size=40))
def test_the_factor_is_that_of_the_description_of_keras(rule, metrics):
    rule = with_convention(rule, "keras")
    assert factors(rule, metrics) == pytest.approx(keras_factors(rule, metrics), rel=1e-14, abs=0.0)


def test_the_factor_is_that_of_torch():
    peers.load("torch")

    @settings(max_examples=max(EXAMPLES // 2, 1), deadline=None)
    @given(RULES, METRICS)
    @example(ReduceOnPlateau(0.5, 0), [math.nan, 1.0, math.nan, 0.5])
    @example(ReduceOnPlateau(0.5, 0), [math.inf, math.inf, 1.0, math.inf])
    def check(rule, metrics):
        arguments = {
            "mode": rule.mode, "factor": rule.factor, "patience": rule.patience, "threshold": rule.threshold,
            "threshold_mode": "rel" if rule.relative else "abs", "cooldown": rule.cooldown, "min_lr": rule.floor,
            "eps": 0.0,
        }  # fmt: skip
        expected = peers.rates_after("torch", "ReduceLROnPlateau", arguments, 1.0, metrics)
        # A margin as a share of the best is 1 − threshold times it there: the last digit may fall on the other side.
        assert factors(rule, metrics) == pytest.approx(expected, rel=1e-14, abs=0.0)

    check()


@pytest.mark.slow  # importing Keras
def test_the_factor_is_that_of_keras():
    @settings(max_examples=max(EXAMPLES // 4, 1), deadline=None)
    @given(RULES, METRICS)
    def check(rule, metrics):
        rule = with_convention(rule, "keras")
        arguments = {
            "monitor": "loss", "mode": rule.mode, "factor": rule.factor, "patience": rule.patience,
            "min_delta": rule.threshold, "cooldown": rule.cooldown, "min_lr": rule.floor,
        }  # fmt: skip
        expected = peers.rates_after("keras", "ReduceLROnPlateau", arguments, 1.0, metrics)
        assert factors(rule, metrics) == pytest.approx(expected, rel=1e-6, abs=0.0)

    check()


EXPECTED = [
    (ReduceOnPlateau(0.5, 0), [1, 1, 1], [1.0, 1.0, 0.5, 0.25]),
    (ReduceOnPlateau(0.5, 1), [1, 1, 1, 1, 1], [1.0, 1.0, 1.0, 0.5, 0.5, 0.25]),
    (ReduceOnPlateau(0.5, 1, convention="keras"), [1, 1, 1], [1.0, 1.0, 0.5, 0.25]),
    (ReduceOnPlateau(0.5, 0, cooldown=2), [1, 1, 1, 1, 1], [1.0, 1.0, 0.5, 0.5, 0.5, 0.25]),
    (ReduceOnPlateau(0.5, 1, cooldown=2, convention="keras"), [1, 1, 1, 1], [1.0, 1.0, 0.5, 0.5, 0.25]),
    (ReduceOnPlateau(0.1, 0, floor=0.3), [1, 1, 1], [1.0, 1.0, 0.3, 0.3]),
    (ReduceOnPlateau(0.5, 0, "max"), [1, 2, 3, 2, 4], [1.0, 1.0, 1.0, 1.0, 0.5, 0.5]),
    (ReduceOnPlateau(0.5, 0, threshold=0.1), [-1.0, -1.05, -1.2], [1.0, 1.0, 0.5, 0.5]),
    (ReduceOnPlateau(0.5, 0, "max", threshold=0.1), [-1.0, -0.95, -0.8], [1.0, 1.0, 0.5, 0.5]),
    (ReduceOnPlateau(0.5, 0, threshold=0.1, relative=False), [10.0, 9.95, 9.8], [1.0, 1.0, 0.5, 0.5]),
    (ReduceOnPlateau(0.5, 0, threshold=0.0), [1.0, 1.0 - 2**-53, 1.0], [1.0, 1.0, 1.0, 0.5]),
    (ReduceOnPlateau(0.0, 0), [1, 1, 0.5], [1.0, 1.0, 0.0, 0.0]),
    (ReduceOnPlateau(0.5, 0), [math.nan, 1, math.nan, 0.5], [1.0, 0.5, 0.5, 0.25, 0.25]),
]


@each(("rule", "metrics", "expected"), EXPECTED, ids=[str(row[0])[15:] for row in EXPECTED])
def test_the_factor_falls_without_improvement(rule, metrics, expected):
    assert factors(rule, metrics) == expected


@some
@given(RULES, METRICS)
def test_a_report_says_whether_the_factor_changed(rule, metrics):
    tracker = rule.tracker()
    for metric in metrics:
        before = tracker.factor
        assert tracker.report(metric) == (tracker.factor != before)


@some
@given(RULES, METRICS, METRICS, st.booleans())
def test_a_tracker_resumes_from_its_state(rule, before, after, keras):
    rule = with_convention(rule, "keras" if keras else "torch")
    tracker, resumed = rule.tracker(), rule.tracker()
    for metric in before:
        tracker.report(metric)
    resumed.restore(tracker.state())
    for metric in after:
        assert resumed.report(metric) == tracker.report(metric)
        assert resumed.factor == tracker.factor
    assert {name: resumed.state()[name] for name in ("factor", "bad", "cooling")} == {
        name: tracker.state()[name] for name in ("factor", "bad", "cooling")
    }


REFUSED = [
    ({}, ValueError, "the state of a plateau has factor, best, bad, cooling, got {}"),
    (None, ValueError, "the state of a plateau has factor, best, bad, cooling, got None"),
    ({"factor": 1.0, "best": 1.0, "bad": 0}, ValueError, "the state of a plateau has factor, best, bad, cooling"),
    ({"factor": -1.0, "best": 1.0, "bad": 0, "cooling": 0}, ValueError, "factor must be in [0, inf), got -1.0"),
    ({"factor": "1", "best": 1.0, "bad": 0, "cooling": 0}, TypeError, "factor must be a number in [0, inf), got '1'"),
    ({"factor": 1.0, "best": None, "bad": 0, "cooling": 0}, TypeError, "best must be a number, got None"),
    ({"factor": 1.0, "best": True, "bad": 0, "cooling": 0}, TypeError, "best must be a number, got True"),
    ({"factor": 1.0, "best": 1.0, "bad": -1, "cooling": 0}, ValueError, "bad must be >= 0, got -1"),
    ({"factor": 1.0, "best": 1.0, "bad": 0, "cooling": 0.5}, TypeError, "cooling must be a whole number >= 0, got 0.5"),
]


@each(("state", "exception", "message"), REFUSED, ids=[row[2] for row in REFUSED])
def test_a_bad_state_is_refused_and_changes_nothing(state, exception, message):
    tracker = ReduceOnPlateau(0.5, 2).tracker()
    for metric in (1.0, 1.0, 1.0, 1.0, 1.0):
        tracker.report(metric)
    before = tracker.state()
    with pytest.raises(exception) as caught:
        tracker.restore(state)
    assert str(caught.value).startswith(message)
    assert tracker.state() == before


def test_reports_do_not_change_the_schedule():
    rule = ReduceOnPlateau(0.5, 0)
    tracker = rule.tracker()
    tracker.report(1.0)
    tracker.report(1.0)
    assert tracker.factor == 0.5
    assert rule == ReduceOnPlateau(0.5, 0)
    assert rule(0) == rule(10**400) == rule.maximum == rule.tracker().factor == 1.0
    assert pickle.loads(pickle.dumps(rule)) == Schedule.from_json(rule.to_json()) == rule  # noqa: S301
    assert json.loads(rule.to_json())["arguments"]["patience"] == 0


def test_present_factors_replace_the_metric_factors():
    fast, slow = ReduceOnPlateau(0.5, 0), ReduceOnPlateau(0.1, 9)
    line = Linear(1.0, 0.0, steps=10)
    rate = (line * fast).warmup(2).at_least(slow * 0.25).cooldown(2).then(fast * 3.0)
    assert metric_factors((rate, 0.9, line)) == [fast, slow, fast]
    assert metric_factors(line) == metric_factors(0.1) == []
    assert apply_factors(rate, [1.0] * 3).values(20).tolist() == rate.values(20).tolist()
    present = apply_factors(rate, [0.5, 0.1, 0.5])
    assert not metric_factors(present)
    expected = (line * 0.5).warmup(2).at_least(0.025).cooldown(2).then(1.5)
    assert present.values(20).tolist() == expected.values(20).tolist()
    assert apply_factors((rate, 0.9), [0.5, 0.1, 0.5]) == (present, 0.9)
    assert apply_factors(fast, [1.0]) == Constant(1.0)
    assert apply_factors(line, []) is line
