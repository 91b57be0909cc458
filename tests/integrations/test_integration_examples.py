"""The examples with other libraries run, and both of the things that they compare learn the same."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize(
    ("script", "modules", "names"),
    [
        ("jax_loop.py", ["jax", "optax", "sklearn"], ["lrcore.jax", "optax"]),
        ("autograd_loop.py", ["autograd", "sklearn"], ["lrcore", "autograd"]),
        ("thinc_loop.py", ["thinc", "sklearn"], ["lrcore", "thinc"]),
    ],
)
def test_both_trainings_learn_the_same(script, modules, names, tmp_path):
    for module in modules:
        pytest.importorskip(module)
    command = [sys.executable, EXAMPLES / script, "--steps", "200"]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=120, cwd=tmp_path)  # noqa: S603
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == names, done.stdout
    assert all(float(row[3].rstrip("%,")) > 90 for row in rows), done.stdout
