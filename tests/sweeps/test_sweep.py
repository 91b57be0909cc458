"""A sweep runs every setting with every seed and records the outcome of each run."""
# ruff: noqa: ARG005  # train functions need not use all arguments

import math
import random
import re
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np
import pytest

from lrcore import sweeps
from lrcore.sweeps.space import draws, seed_of
from support import objectives

SPACE = {"lr": sweeps.logspace(1e-4, 1e-1, 4), "batch": [32, 128]}


def here(train, space, **options):
    return sweeps.sweep(train, space, **{"workers": 0, "progress": False} | options)


def objectives_of(results):
    names = results.names
    return {(*(row[name] for name in names), row["seed"]): (row["status"], row["objective"]) for row in results.rows}


class Backwards(Executor):
    """Runs every eight submissions in a random order."""

    def __init__(self):
        self.given = []

    def submit(self, function, /, *arguments, **keywords):
        future = Future()
        self.given.append((future, function, arguments, keywords))
        if len(self.given) == 8:
            random.shuffle(self.given)
            for other, call, positional, named in self.given:
                other.set_result(call(*positional, **named))
            self.given = []
        return future


def test_every_setting_runs_with_every_seed():
    results = here(objectives.bowl, SPACE)
    assert len(results) == len(results.rows) == 4 * 2 * 3
    assert results.statuses == {"finished": 24}
    assert {(row["lr"], row["batch"]) for row in results} == {(lr, b) for lr in SPACE["lr"].tolist() for b in [32, 128]}
    assert len({row["seed"] for row in results}) == 24
    assert results.best.settings == {"lr": 0.01, "batch": 32}
    assert results[0]["process"] == results[-1]["process"]


def test_processes_give_the_same_table():
    inside, outside = here(objectives.bowl, SPACE), here(objectives.bowl, SPACE, workers=2)
    assert objectives_of(inside) == objectives_of(outside)
    assert len({row["process"] for row in outside}) == 2
    assert {row["process"] for row in outside}.isdisjoint(row["process"] for row in inside)


def test_results_do_not_depend_on_the_order_of_runs():
    expected = objectives_of(here(objectives.bowl, SPACE))
    assert objectives_of(here(objectives.bowl, SPACE, executor=Backwards(), workers=8)) == expected
    turned = {"batch": [128, 32], "lr": SPACE["lr"][::-1]}
    results = here(objectives.bowl, turned)
    assert {(lr, batch, *rest): value for (batch, lr, *rest), value in objectives_of(results).items()} == expected


def test_a_larger_space_keeps_the_seeds_of_existing_runs():
    few = objectives_of(here(objectives.bowl, SPACE))
    many = objectives_of(here(objectives.bowl, {"lr": [3.0, *SPACE["lr"]], "batch": [64, 32, 128]}, seeds=4))
    assert few.items() <= many.items()
    assert len(many) == 5 * 3 * 4


def test_seeds_depend_on_settings_and_index_alone():
    assert seed_of({"lr": 0.01, "batch": 32}, 0) == seed_of({"batch": 32, "lr": 0.01}, 0) == 1035597865
    assert seed_of({"lr": 0.01, "batch": 32}, 1) != 1035597865
    (row,) = here(objectives.bowl, {"lr": np.array([0.01]), "batch": np.array([32], np.int16)}, seeds=1)
    assert row["seed"] == 1035597865
    assert (type(row["lr"]), type(row["batch"])) == (float, int)


@pytest.mark.parametrize(
    ("what", "status", "reason"),
    [
        ("fine", "finished", ""),
        ("nan", "diverged", "the objective is nan"),
        ("inf", "diverged", "the objective is inf"),
        ("raise", "failed", "ValueError: the loss is purple\nand more"),
        ("leave", "failed", "SystemExit: 4"),
        ("kill", "failed", "its process was killed by SIGKILL"),
        ("exit", "failed", "its process ended with exit code 3"),
        ("text", "failed", "TypeError: train() must return a number or a mapping with 'objective', got str: '0.5'"),
        ("array", "failed", "TypeError: train() must return a number or a mapping with 'objective', got list: [1.0"),
        ("keys", "failed", "TypeError: train() must return a number or a mapping with 'objective', got the keys"),
        ("metric", "finished", "the metric 'what' is dropped: its name must not be that of a setting"),
    ],
)
def test_each_outcome_is_recorded_and_other_runs_continue(what, status, reason, troubles):
    row = next(row for row in troubles if row["what"] == what)
    assert row["status"] == status
    assert row["reason"].startswith(reason)
    assert bool(reason) == bool(row["reason"])
    assert (row["objective"] is None) == (status != "finished")
    assert row["attempts"] == 1


@pytest.fixture(scope="module")
def troubles():
    whats = ["nan", "inf", "raise", "leave", "kill", "exit", "text", "array", "keys", "metric", "fine"]
    return sweeps.sweep(objectives.troubled, {"what": whats}, seeds=1, workers=2, progress=False)


def test_the_table_shows_failures(troubles):
    lines = str(troubles).splitlines()
    assert lines[0].split() == ["what", "objective", "std", "seeds", "seconds", "status"]
    assert lines[1].split()[:2] == ["fine", "1"]
    assert sum("1 failed" in line for line in lines) == 7
    assert sum("1 diverged" in line for line in lines) == 2
    assert "1 ×  its process was killed by SIGKILL" in lines
    assert "and more" not in str(troubles)


def test_an_unsupported_metric_is_dropped_and_the_run_finishes(troubles):
    row = next(row for row in troubles if row["what"] == "metric")
    assert (row["objective"], row["good"]) == (2.0, 3.0)
    assert "grads" not in row
    assert row["reason"].endswith(
        "; the metric 'grads' is dropped: it must be a number, a string, a bool or None, got list: [1.0, 2.0]"
    )
    assert troubles.best.seeds == 1


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (np.bool_(1), True), (np.int64(3), 3.0), (np.float32(0.5), 0.5), (np.array([0.25]), 0.25),
        (np.str_("a"), "a"), (True, True), (None, None), ("a", "a"),
    ],
)  # fmt: skip
def test_numpy_metrics_become_python_values(value, kept):
    (row,) = here(lambda lr, seed: {"objective": lr, "metric": value}, {"lr": [1]}, seeds=1)
    assert (row["metric"], type(row["metric"]), row["reason"]) == (kept, type(kept), "")


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"m": np.arange(3)}, "the metric 'm' is dropped: it must be a number, .*, got an array of shape .3,."),
        ({"m": np.datetime64("2020-01-01")}, "the metric 'm' is dropped: .*, got date: datetime.date"),
        ({"m": 1j}, "the metric 'm' is dropped: .*, got complex: 1j"),
        ({"m": 10**400}, "the metric 'm' is dropped: .*, got int: int too large to convert to float"),
        ({"m": list(range(10**6))}, r"the metric 'm' is dropped: .*, got list: \[0, 1, 2, 3, 4, 5, ...\]"),
        ({3: 1.0}, "the metric 3 is dropped: its name must be a string"),
        ({"seed": 1.0}, "the metric 'seed' is dropped: its name must not be that of a setting"),
    ],
)
def test_the_reason_names_a_dropped_metric(metrics, reason):
    for objective, status in ((1.0, "finished"), (math.nan, "diverged")):
        (row,) = here(lambda lr, seed, o=objective: {"objective": o, **metrics}, {"lr": [1]}, seeds=1)
        assert row["status"] == status
        assert re.search(reason, row["reason"])
        assert len(row["reason"]) < 250


def test_reports_without_a_step_are_numbered():
    results = here(objectives.counting, {"lr": [0.1, 1.0, 2.0]}, seeds=1)
    assert [row["reason"] for row in results] == ["", "nan was reported at step 9", "nan was reported at step 8"]


def test_a_report_that_is_not_finite_ends_the_run():
    results = here(objectives.reporting, {"lr": [0.1, 2.0]}, seeds=1)
    assert [row["status"] for row in results] == ["finished", "diverged"]
    assert results[1]["reason"] == "nan was reported at step 0"


def test_random_search_draws_within_bounds_and_reproducibly():
    space = {"lr": sweeps.loguniform(1e-4, 1e-1), "momentum": sweeps.uniform(0.8, 0.9), "batch": [32, 64]}
    few, many = (draws(space, trials, seed=1) for trials in (20, 40))
    assert many[:20] == few
    assert all(1e-4 <= drawn["lr"] <= 1e-1 and 0.8 <= drawn["momentum"] <= 0.9 for drawn in many)
    assert {drawn["batch"] for drawn in many} == {32, 64}
    assert 5 < sum(drawn["lr"] < 10**-2.5 for drawn in many) < 35
    assert draws(space, 20, seed=2) != few
    assert [drawn["lr"] for drawn in draws({"lr": space["lr"]}, 20, seed=1)] == [drawn["lr"] for drawn in few]


def test_no_setting_is_drawn_twice():
    space = {"a": [1, 2, 3], "b": [True, False, None]}
    for trials in (8, 9, 100):
        drawn = draws(space, trials, seed=0)
        assert len({tuple(settings.items()) for settings in drawn}) == len(drawn) == min(trials, 9)


def test_a_random_search_runs():
    results = here(lambda lr, seed: lr, {"lr": sweeps.loguniform(1e-3, 1.0)}, seeds=2, trials=5)
    assert len(results) == 10
    assert math.isclose(results.best.mean, min(row["lr"] for row in results))


def test_halving_promotes_the_best_to_larger_budgets():
    lrs = [0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    results = here(objectives.budgeted, {"lr": lrs}, seeds=2, method="halving", budget=(3, 27))
    counts = {budget: len([row for row in results if row["budget"] == budget]) for budget in (3, 9, 27)}
    assert counts == {3: 18, 9: 6, 27: 2}
    assert {row["lr"] for row in results if row["budget"] == 9} == {0.3, 0.1, 0.03}
    assert results.best.settings == {"lr": 0.1}
    assert results.best.budget == 27
    assert all(row["spent"] == row["budget"] for row in results)
    seeds = {(row["lr"], row["seed_index"]): row["seed"] for row in results}
    assert all(seeds[row["lr"], row["seed_index"]] == row["seed"] for row in results)
    assert [point.others for point in results.sensitivity("lr").points] == [1] * 9


@pytest.mark.parametrize(
    ("budget", "factor", "budgets"),
    [((3, 81), 3, [3, 9, 27, 81]), ((3, 100), 3, [3, 9, 27, 100]), ((5, 5), 2, [5]), ((3, 4), 3, [3, 4])],
)
def test_budgets_of_halving(budget, factor, budgets):
    results = here(
        lambda lr, budget, seed: lr, {"lr": range(100)}, seeds=1, method="halving", budget=budget, factor=factor
    )
    assert sorted({row["budget"] for row in results}) == budgets


def test_diverged_settings_are_not_promoted():
    def train(lr, budget, seed):
        return math.nan if lr < 3 else lr

    results = here(train, {"lr": range(6)}, seeds=2, method="halving", budget=(1, 2), factor=2)
    assert {row["lr"] for row in results if row["budget"] == 2} == {3, 4, 5}
    assert results.best.settings == {"lr": 3}
    assert len(here(lambda x, budget, seed: math.inf, {"x": [1]}, seeds=1, method="halving", budget=(1, 9))) == 1


def test_maximize_reverses_the_order():
    results = here(lambda lr, seed: lr, {"lr": [1, 2, 3]}, minimize=False)
    assert results.best.settings == {"lr": 3}
    assert [summary.settings["lr"] for summary in results.settings] == [3, 2, 1]


def test_values_of_many_types_reach_the_function():
    seen = []

    def train(value, seed):
        seen.append(value)
        return 0.0

    values = [1, 1.0, True, "a", None, (1, 2), [0.9, [0.99]], np.float32(0.5), np.int64(7)]
    here(train, {"value": values}, seeds=1)
    assert seen == [1, 1.0, True, "a", None, (1, 2), (0.9, (0.99,)), 0.5, 7]
    assert [type(value) for value in seen[-2:]] == [float, int]


def test_a_thread_pool_runs_a_sweep():
    with ThreadPoolExecutor(2) as executor:
        results = here(objectives.slow, SPACE, workers=None, executor=executor)
        assert executor.submit(int).result() == 0  # the executor is not shut down
    assert results.statuses == {"finished": 24}


def test_a_logspace_has_exact_ends_and_round_numbers():
    values = sweeps.logspace(3e-5, 0.7, 9)
    assert (values[0], values[-1], len(values)) == (3e-5, 0.7, 9)
    np.testing.assert_allclose(values, np.geomspace(3e-5, 0.7, 9), rtol=1e-11)
    assert sweeps.logspace(1e-4, 1.0, 5).tolist() == [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    assert sweeps.logspace(1.0, 0.01, 3).tolist() == [1.0, 0.1, 0.01]
