"""``python -m lrcore sweep``."""

import os
import subprocess
import sys

import pytest

from lrcore import sweeps
from lrcore.__main__ import main

TRAIN = """
import os

def train(lr, batch, seed):
    if batch == 128 and lr == 0.1:
        os.abort()
    return abs(lr - 0.01) + batch / 1e5

def long(lr, budget, seed):
    return lr / budget

def never(lr, seed):
    raise ValueError("purple")
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "training.py").write_text(TRAIN, encoding="utf-8")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "json.py").write_text(TRAIN, encoding="utf-8")
    return tmp_path


@pytest.fixture
def run(folder, capsys, monkeypatch):
    """Run the command in this process; return its status, output and errors."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "training", raising=False)

    def run(*arguments):
        try:
            status = main(["sweep", *arguments])
        except SystemExit as error:
            status = error.code
        return status, *capsys.readouterr()

    yield run
    sys.modules.pop("training", None)


@pytest.mark.slow
def test_a_sweep_prints_its_table_and_resumes_from_its_file(folder):
    def run(*more):
        spaces = ["--space", "lr=log:1e-3:1e-1:3", "--space", "batch=32,128", "--results", "sweep.sqlite"]
        command = [sys.executable, "-m", "lrcore", "sweep", "training.py:train", *spaces, "--workers", "2", *more]
        variables = {name: value for name, value in os.environ.items() if not name.startswith("LRCORE_")}
        return subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False, cwd=folder,
            env=variables | {"PYTHONUTF8": "1"},
        )  # fmt: skip

    done = run("--seeds", "1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["lr", "batch", "objective", "std", "seeds", "seconds", "status"]
    assert lines[1].split()[:3] == ["0.01", "32", "0.00032"]
    assert lines[-1] == "1 ×  its process was killed by SIGABRT"
    more = run("--seeds", "2", "--retry-failed")
    assert (more.returncode, more.stderr) == (0, "")
    rows = sweeps.load(folder / "sweep.sqlite").rows
    assert len(rows) == 12
    assert sum(row["attempts"] for row in rows) == 13


def test_methods_and_kinds_of_values(run):
    status, output, errors = run("training.py:long", "--space", "lr=loguniform:1e-3:1", "--trials", "4",
                                 "--budget", "2", "--workers", "0", "--maximize")  # fmt: skip
    assert (status, errors) == (0, "")
    values = [float(line.split()[2]) for line in output.splitlines()[1:]]
    assert len(values) == 4
    assert values == sorted(values, reverse=True)
    halving = ["--method", "halving", "--budget", "3:9", "--workers", "0"]
    _, output, _ = run("training.py:long", "--space", "lr=1,2,3", *halving)
    assert [line.split()[1] for line in output.splitlines()] == ["budget", "9", "3", "3"]


def test_values_in_python_syntax(run):
    spaces = ["--space", "lr=logspace(1e-3, 1e-1, 3)", "--space", "batch=[32, 64.0]"]
    status, output, errors = run("training.py:train", *spaces, "--workers", "0")
    assert (status, errors) == (0, "")
    values = {tuple(line.split()[:2]) for line in output.splitlines()[1:]}
    assert values == {(lr, batch) for lr in ("0.001", "0.01", "0.1") for batch in ("32", "64")}
    _, output, _ = run("training.py:never", "--space", "lr=['a', \"b\", True, None]", "--workers", "0", "--seeds", "1")
    assert {line.split()[0] for line in output.splitlines()} == {"lr", "a", "b", "True", "None", "4"}


def test_the_exit_status_is_1_if_no_run_finished(run):
    status, output, errors = run("training.py:never", "--space", "lr=true,null,abc,1e-3", "--workers", "0",
                                 "--seeds", "1")  # fmt: skip
    assert (status, errors) == (1, "")
    assert {line.split()[0] for line in output.splitlines()} == {"lr", "True", "None", "abc", "0.001", "4"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["training.py:train"], "space must have at least one name"),
        (["training.py:train", "--space", "lr"], "argument --space: must be NAME=VALUES, once for each name, got 'lr'"),
        (["training.py:train", "--space", "lr=1", "--space", "lr=2"], "once for each name, got 'lr=2'"),
        (["training.py:train", "--space", "lr=log:1:2"], "argument --space: lr: log: takes 3 numbers, got 'log:1:2'"),
        (["training.py:train", "--space", "lr=log:0:2:3"], "lr: logspace: first must be in (0, inf), got 0"),
        (["training.py:train", "--space", "lr=logspace(1,2)"], "lr: logspace: takes 3 numbers, got 'logspace(1,2)'"),
        (["training.py:train", "--space", "lr=[[1,2]]"], "lr: values must be a,b,c or log:FIRST:LAST:COUNT"),
        (["training.py:train", "--space", "lr=[0.1"], "without brackets within, got '[0.1'"),
        (["training.py:train", "--space", "lr=linspace(0,1,3)"], "without brackets within, got 'linspace(0,1,3)'"),
        (["training.py:train", "--space", "lr={1}"], "without brackets within, got '{1}'"),
        (["training.py:train", "--space", "lr="], "space['lr'] must have at least one value, got []"),
        (["training.py:train", "--space", "lr=1"], "train() needs 'batch'"),
        (["training.py:nothing", "--space", "lr=1"], "FUNCTION must be in 'training.py', got 'nothing'"),
        (["nothing.py:train", "--space", "lr=1"], "FILE must exist, got 'nothing.py'"),
        (["training.py", "--space", "lr=1"], "must be FILE.py:FUNCTION, got 'training.py'"),
        (
            ["other/json.py:train", "--space", "lr=1"],
            "FILE must not have the name of another module, 'json'",
        ),
        (["training.py:train", "--space", "lr=1", "--budget", "x"], "argument --budget: invalid"),
        (["training.py:train", "--space", "lr=1", "--method", "best"], "argument --method: invalid choice: 'best'"),
        (["training.py:train", "--space", "lr=1", "--space", "batch=1", "--seeds", "0"], "seeds must be >= 1, got 0"),
    ],
)
def test_a_bad_argument_is_named(run, arguments, message):
    status, output, errors = run(*arguments)
    assert (status, output) == (2, "")
    assert message in errors
    assert "Traceback" not in errors
