"""The progress bar on a terminal shows finished runs and the best setting."""
# ruff: noqa: ARG005  # train functions need not use all arguments

import math
import re

import pytest

from lrcore import sweeps
from lrcore.sweeps import progress


def train(lr, seed):
    return math.nan if lr == 3 else lr


def shown(capsys, monkeypatch, **options):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    sweeps.sweep(train, {"lr": [2, 1, 3]}, workers=0, **options)
    return capsys.readouterr()


def test_a_bar_of_tqdm(capsys, monkeypatch):
    pytest.importorskip("tqdm")
    captured = shown(capsys, monkeypatch)
    assert captured.out == ""
    last = re.split(r"[\r\n]", captured.err.strip())[-1]
    assert "9/9" in last
    assert "best 1 at lr=1, 3 diverged or failed" in last


def test_lines_without_tqdm(capsys, monkeypatch):
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    captured = shown(capsys, monkeypatch, seeds=1, minimize=False)
    assert captured.out == ""
    assert captured.err.splitlines()[0] == "1 of 3 runs, best 2 at lr=2"
    assert captured.err.splitlines()[-1] == "3 of 3 runs, best 2 at lr=2, 1 diverged or failed"


def test_nothing_is_shown_without_a_terminal_or_with_progress_false(capsys, monkeypatch):
    sweeps.sweep(train, {"lr": [1]}, workers=0)
    assert capsys.readouterr().err == ""
    assert shown(capsys, monkeypatch, progress=False).err == ""
