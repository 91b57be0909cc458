"""Invalid arguments are rejected before any run."""
# ruff: noqa: ARG005  # train functions need not use all arguments

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from lrcore import sweeps
from support import objectives


def train(lr, seed):
    raise AssertionError("must not run")


def with_width(lr, width, seed):
    raise AssertionError("must not run")


def seedless(lr):
    raise AssertionError("must not run")


def positional(lr, seed, /):
    raise AssertionError("must not run")


LR = {"lr": [0.1]}

CASES = [
    (train, {}, {}, ValueError, "space must have at least one name"),
    (train, [("lr", [1])], {}, TypeError, "space must be a mapping of names to values"),
    (train, None, {}, TypeError, r"space must be a mapping of names to values, such as {'lr': .*logspace.*}, got None"),
    (train, {1: [1]}, {}, TypeError, "names in space must be names of arguments, got 1"),
    (train, {"lr rate": [1]}, {}, TypeError, "names in space must be names of arguments, got 'lr rate'"),
    (train, {"seed": [1]}, {}, ValueError, r"space: names must not be one of \['attempts', .*, got 'seed'"),
    (train, {"lr": 0.1}, {}, TypeError, r"space\['lr'\] must be a sequence of values.*got 0.1; one value alone is"),
    (train, {"lr": "abc"}, {}, TypeError, r"space\['lr'\] must be a sequence of values.*got 'abc'"),
    (train, {"lr": np.array(0.1)}, {}, TypeError, r"space\['lr'\] must be a sequence"),
    (train, {"lr": []}, {}, ValueError, r"space\['lr'\] must have at least one value, got \[\]"),
    (train, {"lr": [1, 2, 1]}, {}, ValueError, r"space\['lr'\] must have each value once, got 1 twice"),
    (train, {"lr": [float("nan")]}, {}, ValueError, r"space\['lr'\]\[0\] must be finite, got nan"),
    (train, {"lr": [1, object()]}, {}, TypeError, r"space\['lr'\]\[1\] must be a number, a string, .*, got object"),
    (train, {"lr": [(1, {2})]}, {}, TypeError, r"space\['lr'\]\[0\]\[1\] must be a number, a string, .*, got set"),
    (train, LR, {"seeds": 0}, ValueError, "seeds must be >= 1, got 0"),
    (train, LR, {"seeds": 1.5}, TypeError, "seeds must be a whole number"),
    (train, LR, {"method": "best"}, ValueError, r"method must be one of \['grid', 'random', 'halving'\], got 'best'"),
    (train, LR, {"method": "random"}, ValueError, "method='random' needs trials"),
    (train, LR, {"method": "grid", "trials": 3}, ValueError, "trials must be None for a grid, got 3"),
    (train, LR, {"trials": 0}, ValueError, "trials must be >= 1, got 0"),
    (train, {"lr": sweeps.uniform(0, 1)}, {}, ValueError, "must be a sequence for a grid, got Uniform.*; for random"),
    (train, LR, {"method": "halving"}, ValueError, r"method='halving' needs budget=\(least, largest\).*got None"),
    (train, LR, {"method": "halving", "budget": (9, 3)}, ValueError, r"budget\[1\] must be >= 9, got 3"),
    (train, LR, {"method": "halving", "budget": (1, 9), "factor": 1}, ValueError, r"factor must be in \(1, inf\)"),
    (train, LR, {"budget": (1, 3)}, ValueError, r"budget must be one number, got \(1, 3\)"),
    (train, LR, {"budget": 0}, ValueError, "budget must be >= 1, got 0"),
    (train, LR, {"budget": 3}, TypeError, r"train\(\) is called with .*, and takes no \['budget'\]"),
    (train, {"rate": [1]}, {}, TypeError, r"takes no \['rate'\]; it takes \['lr', 'seed'\]"),
    (with_width, LR, {}, TypeError, r"with_width\(\) needs 'width', which is not among .*: give space\['width'\]"),
    (objectives.budgeted, LR, {}, TypeError, r"budgeted\(\) needs 'budget'.*give budget=…"),
    (seedless, LR, {}, TypeError, r"seedless\(\) is called with .*takes no \['seed'\]"),
    (positional, LR, {}, TypeError, r"takes no \['lr', 'seed'\]; it takes none"),
    ("train", LR, {}, TypeError, "train must be a function, got 'train'"),
    (train, LR, {"workers": -1}, ValueError, "workers must be >= 0, got -1"),
    (train, LR, {"executor": "dask"}, TypeError, "executor must be an executor such as .*got 'dask'"),
    (train, LR, {"executor": 4}, TypeError, "executor must be an executor .*or a Dask client, got 4"),
    (train, LR, {"executor": ThreadPoolExecutor}, TypeError, "executor must be an executor .*got <class .*Thread"),
    (train, LR, {"executor": ThreadPoolExecutor(1), "workers": 0}, ValueError, "workers must be >= 1, got 0"),
    (train, LR, {"minimize": 1}, TypeError, "minimize must be True or False, got 1"),
    (train, LR, {"seed": -1}, ValueError, "seed must be >= 0, got -1"),
    (train, LR, {"results": "."}, ValueError, "results must be a file, got '.'"),
    (train, LR, {"results": ""}, ValueError, "results must be a file, got ''"),
    (train, LR, {"results": "no/such"}, FileNotFoundError, "results must be in an existing folder, got 'no/such'"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "space", "options", "error", "message"), CASES)
def test_a_bad_argument_is_named(function, space, options, error, message):
    with pytest.raises(error, match=message):
        sweeps.sweep(function, space, **{"progress": False} | options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sweeps.logspace(0, 1, 3), ValueError, r"logspace: first must be in \(0, inf\), got 0"),
        (lambda: sweeps.logspace(1, 2, 1), ValueError, "logspace: count must be >= 2, got 1"),
        (lambda: sweeps.logspace("1", 2, 3), TypeError, "logspace: first must be a number"),
        (lambda: sweeps.loguniform(-1, 1), ValueError, r"loguniform: low must be in \(0, inf\), got -1"),
        (lambda: sweeps.uniform(2, 1), ValueError, "uniform: low must be less than high, got 2 and 1"),
        (lambda: sweeps.uniform(0, float("inf")), ValueError, "uniform: high must be finite, got inf"),
        (lambda: sweeps.uniform(0, 10**400), ValueError, "uniform: high must be finite, got 1000"),
        (lambda: sweeps.uniform(np.ones(2), 1), TypeError, "uniform: low must be a number, got "),
        (lambda: sweeps.loguniform(None, 2), TypeError, "loguniform: low must be a number"),
        (lambda: sweeps.uniform("a", 1), TypeError, "uniform: low must be a number, got 'a'"),
        (lambda: sweeps.load("no.sqlite"), FileNotFoundError, "path must be an existing results file, got 'no.sqlite'"),
    ],
)
def test_a_bad_range_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_an_unpicklable_function_is_rejected_if_workers_are_requested(monkeypatch):
    monkeypatch.setattr("lrcore.sweeps.pickling.find_spec", lambda name: None)
    lock = threading.Lock()

    def locked(lr, seed):
        with lock:
            return lr

    with pytest.raises(TypeError, match=r"train can't be sent to other processes .*_thread.lock.*workers=0"):
        sweeps.sweep(locked, LR, progress=False, workers=2)
    with pytest.warns(RuntimeWarning, match=r"runs execute in this process, one after the other: train can't be sent"):
        found = sweeps.sweep(locked, LR, progress=False)
    assert "finished" in found.statuses


def test_rejected_arguments_create_no_file(tmp_path):
    for executor in (ThreadPoolExecutor, 4, "threads"):
        with pytest.raises(TypeError, match="executor must be an executor"):
            sweeps.sweep(train, LR, executor=executor, results=tmp_path / "sweep.sqlite", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_foreign_files_are_rejected_and_unchanged(tmp_path):
    foreign, text, newer = tmp_path / "foreign.sqlite", tmp_path / "notes.txt", tmp_path / "newer.sqlite"
    for file, statement in ((foreign, "CREATE TABLE songs (name)"), (newer, "PRAGMA user_version = 1")):
        if file is newer:
            sweeps.sweep(objectives.sleepy, {"lr": [0.1]}, results=newer, workers=0, progress=False)
            statement = "PRAGMA user_version = 2"
        database = sqlite3.connect(file)
        database.execute(statement)
        database.commit()
        database.close()
    text.write_text("not a database, but something that somebody needs\n" * 100, encoding="utf-8")
    messages = {
        foreign: "results must be a file of a sweep, got an SQLite file of another program: ",
        text: "results must be a file of a sweep, got .*: file is not a database",
        newer: "results: .* must be version 1, got 2",
    }
    for file, message in messages.items():
        before = file.read_bytes()
        for call in (lambda path: sweeps.sweep(objectives.sleepy, {"lr": [0.1]}, results=path), sweeps.load):
            with pytest.raises(ValueError, match=message):
                call(file)
        assert file.read_bytes() == before


def test_a_file_of_another_function_is_rejected(tmp_path):
    file = tmp_path / "sweep.sqlite"
    sweeps.sweep(objectives.sleepy, {"lr": [0.1]}, results=file, workers=0, progress=False)
    with pytest.raises(ValueError, match="results must be a file of 'train', got runs of 'sleepy': "):
        sweeps.sweep(train, LR, results=file, workers=0, progress=False)
    again = sweeps.sweep(partial(objectives.sleepy), {"lr": [0.1]}, results=file, workers=0, progress=False)
    assert [row["attempts"] for row in again] == [1, 1, 1]


@pytest.mark.parametrize("make", [sweeps.uniform, sweeps.loguniform])
def test_bounds_may_be_scalars_of_any_library(make):
    made = make(np.array(0.25), np.float32(0.5))
    assert made == make(0.25, 0.5)
    assert repr(made) == repr(make(0.25, 0.5))
    torch = pytest.importorskip("torch")
    assert make(torch.tensor(0.25), torch.tensor(0.5)) == made
