"""Tuning with Optuna: pruning, storage, several processes."""
# ruff: noqa: ARG005  # train functions need not use all arguments

import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from lrcore import sweeps
from lrcore.sweeps import lease, optuna_claims
from support import objectives

SPACE = {"lr": sweeps.loguniform(1e-4, 1.0), "batch": [32, 128], "betas": [(0.9, 0.99), (0.8, 0.9)]}


@pytest.fixture
def optuna():
    module = pytest.importorskip("optuna")
    module.logging.set_verbosity(module.logging.CRITICAL)
    return module


def train(lr, batch, betas, seed):
    assert isinstance(betas, tuple)
    return {"objective": abs(lr - 0.01) + batch / 1e4, "epochs": 3}


def tune(function, space, trials, **options):
    return sweeps.tune(function, space, trials, progress=False, **options)


def test_a_study_finds_the_minimum(optuna):
    study = tune(train, SPACE, 40)
    assert isinstance(study, optuna.Study)
    assert study.study_name == "train"
    assert len(study.trials) == 40
    assert study.best_params["batch"] == 32
    assert study.best_value < 0.05
    assert study.best_trial.user_attrs == {"epochs": 3.0}


def test_trials_are_pruned(optuna):
    steps = []

    def reporting(lr, seed, report):
        for step in range(10):
            steps.append(step)
            report(lr, step)
        return lr

    pruner = optuna.pruners.ThresholdPruner(upper=0.5)
    study = tune(reporting, {"lr": [0.1, 0.9]}, 12, pruner=pruner)
    states = {(trial.params["lr"], trial.state.name) for trial in study.trials}
    assert states == {(0.1, "COMPLETE"), (0.9, "PRUNED")}
    assert len(study.trials) == 12
    assert len(steps) == 10 + 1  # the same settings are not run again
    assert {len(trial.intermediate_values) for trial in study.trials if trial.state.name == "COMPLETE"} == {10}


def test_untried_settings_come_first(optuna):
    space = {"lr": [0.1, 0.2, 0.3], "betas": [(0.9, 0.99), (0.8, 0.9)]}
    tried = []
    study = tune(lambda lr, betas, seed: tried.append((lr, betas)) or lr, space, 6)
    assert sorted(tried) == [(lr, betas) for lr in (0.1, 0.2, 0.3) for betas in ((0.8, 0.9), (0.9, 0.99))]
    assert study.best_value == 0.1


SHARED = """
import sys, time
from lrcore import sweeps

def train(lr, seed):
    with open(sys.argv[1], "a") as file:
        file.write(f"{lr}\\n")
    time.sleep(0.2)
    return lr

space = {"lr": [1, 2, 3, 4, 5, 6, 7]} if sys.argv[3] == "list" else {"lr": sweeps.uniform(0, 1)}
study = sweeps.tune(train, space, 7, storage=sys.argv[2], progress=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["list", "range"])
def test_three_processes_share_a_study_and_run_each_setting_once(kind, optuna, tmp_path):
    log, file = tmp_path / "log", tmp_path / "study.sqlite"
    command = [sys.executable, "-c", SHARED, str(log), str(file), kind]
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    three = [subprocess.Popen(command, env=os.environ | paths, stderr=subprocess.PIPE) for _ in range(3)]  # noqa: S603
    errors = [process.communicate(timeout=90)[1] for process in three]
    assert [process.returncode for process in three] == [0, 0, 0], errors
    run = log.read_text(encoding="utf-8").split()
    assert len(run) == len(set(run)) == 7
    study = optuna.load_study(study_name="train", storage=f"sqlite:///{file}")
    assert sum(trial.state.name == "COMPLETE" for trial in study.trials) == 7


def test_of_two_trials_with_equal_settings_one_waits_for_the_other(optuna):
    study = optuna.create_study()
    trials = [study.ask() for _ in range(2)]
    for trial in trials:
        assert not optuna_claims.begin(study, trial, 2)
        trial.suggest_categorical("lr", [1.0])
    claims = {}

    def claim(trial):
        claims[trial.number] = optuna_claims.claim(study, trial)

    threads = [threading.Thread(target=claim, args=(trial,)) for trial in trials]
    for thread in threads:
        thread.start()
    while not claims:
        time.sleep(0.01)
    (first,) = claims
    assert claims[first] is None
    study.tell(first, 3.0)
    for thread in threads:
        thread.join()
    assert claims[1 - first].number == first
    assert optuna_claims.begin(study, study.ask(), 2)
    assert optuna_claims.left(study, 2) <= 0


def test_a_trial_of_a_dead_process_holds_no_claim(optuna):
    study = optuna.create_study()
    gone, mine = study.ask(), study.ask()
    for trial in (gone, mine):
        optuna_claims.begin(study, trial, 2)
        trial.suggest_categorical("lr", [1.0])
    assert optuna_claims.claim(study, gone) is None
    dead = json.loads(lease.current()) | {"started": 1}
    study._storage.set_trial_system_attr(gone._trial_id, optuna_claims._HOLDER, json.dumps(dead))
    assert optuna_claims.claim(study, mine) is None
    assert optuna_claims.left(study, 2) == 1


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_that_returns_is_not_a_trial(optuna, tmp_path):
    file = tmp_path / "study.sqlite"
    study = tune(objectives.forking, {"lr": [1, 2]}, 2, storage=file)
    assert sorted(trial.value for trial in study.trials) == [1.0, 2.0]
    assert len(optuna.load_study(study_name="forking", storage=f"sqlite:///{file}").trials) == 2


def test_a_huge_objective_fails_the_trial(optuna):
    study = tune(lambda lr, seed: lr, {"lr": [1.0, 1e278]}, 2)
    assert sorted(trial.state.name for trial in study.trials) == ["COMPLETE", "FAIL"]


def test_a_trial_that_fails_or_diverges_does_not_end_the_search(optuna):
    def troubled(what, seed, report):
        if what == "raise":
            raise ValueError("purple")
        if what == "report":
            report(float("nan"), 1)
        return float("inf") if what == "inf" else 1.0

    study = tune(troubled, {"what": ["raise", "report", "inf", "fine"]}, 30)
    states = {(trial.params["what"], trial.state.name) for trial in study.trials}
    assert states == {("raise", "FAIL"), ("report", "FAIL"), ("inf", "FAIL"), ("fine", "COMPLETE")}


@pytest.mark.slow
def test_a_study_resumes_from_its_storage(optuna, tmp_path):
    file = tmp_path / "study.sqlite"
    space = {"lr": sweeps.loguniform(1e-4, 1.0)}
    first = [trial.params for trial in tune(lambda lr, seed: lr, space, 4, storage=file, study_name="one").trials]
    second = tune(lambda lr, seed: lr, space, 7, storage=str(file), study_name="one")
    assert [trial.params for trial in second.trials[:4]] == first
    assert len({trial.params["lr"] for trial in second.trials}) == 7
    third = tune(lambda lr, seed: lr, space, 5, storage=f"sqlite:///{file}", study_name="one")
    assert len(third.trials) == 7
    assert len(optuna.load_study(study_name="one", storage=f"sqlite:///{file}").trials) == 7


@pytest.mark.slow
def test_an_interrupted_trial_does_not_count(optuna, tmp_path):
    calls = []

    def train(lr, seed):
        calls.append(lr)
        if len(calls) == 3:
            raise KeyboardInterrupt
        if len(calls) == 5:
            raise ValueError("a failed trial counts")
        return lr

    space, file = {"lr": sweeps.uniform(0, 1)}, tmp_path / "study.sqlite"
    with pytest.raises(KeyboardInterrupt):
        tune(train, space, 6, storage=file)
    study = tune(train, space, 6, storage=file)
    assert [trial.state.name for trial in study.trials] == [
        "COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE",
    ]  # fmt: skip
    assert len(tune(train, space, 6, storage=file).trials) == len(calls) == 7


def test_reports_without_a_step_are_numbered(optuna):
    study = tune(objectives.counting, {"lr": [0.1, 1.0]}, 6, pruner=optuna.pruners.NopPruner(), seeds=2)
    found = {(trial.params["lr"], tuple(trial.intermediate_values)) for trial in study.trials}
    assert found == {(0.1, (0, 1, 7, 8, 9)), (1.0, (0, 1, 7, 8))}


def test_an_unsupported_metric_is_dropped(optuna):
    study = tune(lambda lr, seed: {"objective": lr, "many": [1, 2], "one": np.bool_(1)}, {"lr": [1.0]}, 1)
    assert study.best_value == 1.0
    reason = study.best_trial.user_attrs.pop("reason")
    assert study.best_trial.user_attrs == {"one": True, "reason": reason}
    assert reason.startswith("the metric 'many' is dropped: it must be a number")


def test_a_trial_is_the_mean_of_its_seeds(optuna):
    seeds = []

    def noisy(lr, budget, seed):
        seeds.append(seed)
        return {"objective": lr + len(seeds), "spent": budget}

    study = tune(noisy, {"lr": [1.0]}, 1, seeds=3, budget=5, minimize=False)
    assert study.best_value == 3.0
    assert study.direction.name == "MAXIMIZE"
    assert study.best_trial.user_attrs == {"spent[0]": 5, "spent[1]": 5, "spent[2]": 5}
    swept = sweeps.sweep(lambda lr, seed: lr, {"lr": [1.0]}, seeds=3, workers=0, progress=False)
    assert seeds == [row["seed"] for row in swept]


@pytest.mark.parametrize(
    ("function", "space", "options", "error", "message"),
    [
        (train, {}, {}, ValueError, "space must have at least one name"),
        (train, None, {}, TypeError, "space must be a mapping of names to values, such as .*, got None"),
        (train, 10, {}, TypeError, "space must be a mapping of names to values, such as .*, got 10"),
        (train, {"lr": [1]}, {}, TypeError, r"train\(\) needs 'batch'"),
        (train, SPACE, {"trials": 0}, ValueError, "trials must be >= 1, got 0"),
        (train, SPACE, {"seeds": 0}, ValueError, "seeds must be >= 1, got 0"),
        (train, SPACE, {"budget": 1}, TypeError, r"takes no \['budget'\]"),
        (train, SPACE, {"storage": "."}, ValueError, "storage must be a file, a URL or an Optuna storage, got '.'"),
    ],
)
def test_a_bad_argument_is_named(optuna, function, space, options, error, message):
    with pytest.raises(error, match=message):
        tune(function, space, **{"trials": 1} | options)


def test_a_missing_space_is_named():
    for search in (sweeps.tune, sweeps.sweep):
        with pytest.raises(TypeError, match=r"^space must be a mapping of names to values, such as {'lr'"):
            search(train, trials=10)


def test_without_optuna_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match="tune needs Optuna, which is not installed: pip install optuna"):
        tune(train, SPACE, 1)
