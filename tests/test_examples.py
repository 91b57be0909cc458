"""The examples run and print what they claim."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.cases import NAMES

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(folder, script, *arguments):
    """Run an example in a folder and return what it prints."""
    for module in ("matplotlib", "sklearn", "threadpoolctl", "tqdm"):
        pytest.importorskip(module)
    command = [sys.executable, EXAMPLES / script, *map(str, arguments)]
    # Threads of BLAS wait for each other, which takes a second per step on a busy machine.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, check=True, text=True, timeout=120, cwd=folder, env=environment
    )
    return done.stdout


def test_digits_trains_and_draws(tmp_path):
    printed = run(tmp_path, "digits.py", "--epochs", 2)
    rows = [line for line in printed.splitlines() if "%" in line]
    assert {row.split()[0] for row in rows} <= set(NAMES)
    assert len(rows) >= 5
    assert all("yes" in row for row in rows), printed  # the same accuracy as with the step in NumPy
    assert (tmp_path / "demo.png").stat().st_size > 10_000


def test_a_killed_run_resumes(tmp_path):
    printed = run(tmp_path, "resume.py", "--steps", 200, "--every", 10, "--kills", 2)
    assert "killed 2 times, the run ends with the same bits: yes" in printed


def test_micro_batches_train_like_whole_batches(tmp_path):
    printed = run(tmp_path, "accumulate.py", "--steps", 120)
    assert printed.count("1 of 120 steps skipped") == 2
    assert "update_ratio" in printed


def test_schedules_are_compared_and_drawn(tmp_path):
    printed = run(tmp_path, "schedules.py", "--steps", 120, "--seeds", 1)
    rows = [line for line in printed.splitlines() if "%" in line and "█" in line]
    names = ["WSD", "constant", "cosine", "linear", "one cycle", "plateau", "restarts"]
    assert sorted(row[:10].strip() for row in rows) == names, printed
    assert (tmp_path / "schedules.png").stat().st_size > 10_000


def test_the_recommended_learning_rate_is_compared_with_a_grid(tmp_path):
    printed = run(tmp_path, "find_lr.py", "--steps", 60, "--seeds", 1)
    lines = printed.splitlines()
    assert sum(line.endswith("%   recommended") for line in lines) == 2, printed
    assert sum(line.count("%") == 1 and line.split()[-1].endswith("%") for line in lines) == 2 * 8, printed
    assert printed.count(" changes 0 of ") == 2, printed
    assert (tmp_path / "find_lr.png").stat().st_size > 10_000


def test_rules_for_a_larger_batch_are_compared_and_the_noise_is_measured(tmp_path):
    printed = run(tmp_path, "batch_size.py", "--samples", 3072, "--seeds", 1)
    rows = [line.split() for line in printed.splitlines() if line.endswith("%")]
    rules = ["tuned", "unchanged", "linear", "sqrt", "retuned"]
    assert [row[2] for row in rows if row[0] == "SGD"] == rules, printed
    assert [row[2] for row in rows if row[0] == "AdamW"] == [*rules[:-1], "adam_sde", "retuned"], printed
    assert "noise scale uncertainty   batch, lr" in printed
    assert (tmp_path / "batch_size.png").stat().st_size > 10_000
