"""The example runs and draws its plot."""

import subprocess
import sys
from pathlib import Path

import pytest

from lrcore import sweeps

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "sweep.py"


@pytest.mark.slow
def test_the_example_sweeps_and_draws(tmp_path):
    for module in ("matplotlib", "sklearn", "threadpoolctl", "tqdm"):
        pytest.importorskip(module)
    short = ["--epochs", "1", "--seeds", "1", "--lrs", "5", "--results", "sweep.sqlite"]
    done = subprocess.run(  # noqa: S603
        [sys.executable, EXAMPLE, *short], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["lr", "batch", "budget", "objective"]
    assert any(line.startswith("best: lr=0.1 batch=") for line in lines)
    assert any(line.startswith("within 0.25 of the best from ") for line in lines)
    assert (tmp_path / "sweep.png").stat().st_size > 10_000
    results = sweeps.load(tmp_path / "sweep.sqlite")
    assert len(results) == 15
    assert max(row.get("accuracy", 0.0) for row in results) > 0.9
