"""The examples run and print what they claim."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.cases import NAMES

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def test_digits_trains_and_draws(tmp_path):
    for module in ("matplotlib", "sklearn", "threadpoolctl", "tqdm"):
        pytest.importorskip(module)
    command = [sys.executable, EXAMPLES / "digits.py", "--epochs", "2", "--output", tmp_path / "demo.png"]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=120)  # noqa: S603
    rows = [line for line in done.stdout.splitlines() if "%" in line]
    assert {row.split()[0] for row in rows} <= set(NAMES)
    assert len(rows) >= 5
    assert all("yes" in row for row in rows), done.stdout  # the same accuracy as with the step in NumPy
    assert (tmp_path / "demo.png").stat().st_size > 10_000


def test_a_killed_run_resumes(tmp_path):
    for module in ("sklearn", "matplotlib", "threadpoolctl", "tqdm"):
        pytest.importorskip(module)
    command = [sys.executable, EXAMPLES / "resume.py", "--steps", "200", "--every", "10", "--kills", "2"]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=120, cwd=tmp_path)  # noqa: S603
    assert "killed 2 times, the run ends with the same bits: yes" in done.stdout


def test_micro_batches_train_as_whole_batches(tmp_path):
    for module in ("sklearn", "matplotlib", "threadpoolctl", "tqdm"):
        pytest.importorskip(module)
    command = [sys.executable, EXAMPLES / "accumulate.py", "--steps", "120"]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=120, cwd=tmp_path)  # noqa: S603
    assert done.stdout.count("1 of 120 steps skipped") == 2
    assert "update_ratio" in done.stdout


def test_schedules_are_compared_and_drawn(tmp_path):
    for module in ("sklearn", "matplotlib", "threadpoolctl", "tqdm"):
        pytest.importorskip(module)
    command = [sys.executable, EXAMPLES / "schedules.py", "--steps", "120", "--seeds", "1"]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=120, cwd=tmp_path)  # noqa: S603
    rows = [line for line in done.stdout.splitlines() if "%" in line and "█" in line]
    names = ["WSD", "constant", "cosine", "linear", "one cycle", "plateau", "restarts"]
    assert sorted(row[:10].strip() for row in rows) == names, done.stdout
    assert (tmp_path / "schedules.png").stat().st_size > 10_000


def test_the_recommended_learning_rate_is_compared_with_a_grid(tmp_path):
    for module in ("sklearn", "matplotlib", "threadpoolctl", "tqdm"):
        pytest.importorskip(module)
    command = [sys.executable, EXAMPLES / "find_lr.py", "--steps", "60", "--seeds", "1"]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=120, cwd=tmp_path)  # noqa: S603
    lines = done.stdout.splitlines()
    assert sum(line.endswith("%   suggested") for line in lines) == 2, done.stdout
    assert sum(line.count("%") == 1 and line.split()[-1].endswith("%") for line in lines) == 2 * 8, done.stdout
    assert done.stdout.count(" changes 0 of ") == 2, done.stdout
    assert (tmp_path / "find_lr.png").stat().st_size > 10_000


def test_rules_for_a_larger_batch_are_compared_and_the_noise_is_measured(tmp_path):
    for module in ("sklearn", "matplotlib", "threadpoolctl", "tqdm"):
        pytest.importorskip(module)
    command = [sys.executable, EXAMPLES / "batch_size.py", "--samples", "3072", "--seeds", "1"]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=120, cwd=tmp_path)  # noqa: S603
    rows = [line.split() for line in done.stdout.splitlines() if line.endswith("%")]
    rules = ["tuned", "unchanged", "linear", "sqrt", "retuned"]
    assert [row[2] for row in rows if row[0] == "SGD"] == rules, done.stdout
    assert [row[2] for row in rows if row[0] == "AdamW"] == [*rules[:-1], "adam_sde", "retuned"], done.stdout
    assert "noise scale uncertainty   suggested, rate" in done.stdout
    assert (tmp_path / "batch_size.png").stat().st_size > 10_000
