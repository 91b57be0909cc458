"""The example trains, and shows what it says."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "sklearn_mlp.py"


def test_three_networks_are_trained_and_compared(tmp_path):
    for module in ("sklearn", "threadpoolctl", "tqdm"):
        pytest.importorskip(module)
    command = [sys.executable, EXAMPLE, "--epochs", "10", "--seeds", "1"]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=120, cwd=tmp_path)  # noqa: S603
    rows = [line.rsplit(maxsplit=2) for line in done.stdout.splitlines() if "%" in line]
    assert [name for name, *_ in rows] == ["scikit-learn's adam", "lrcore.Adam", "lrcore.AdamW, cosine"], done.stdout
    assert all(float(accuracy.rstrip("%")) > 95 and float(seconds) > 0 for _, accuracy, seconds in rows), done.stdout
