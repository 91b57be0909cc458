"""A long training neither leaks nor warns nor hangs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", minversion="2.10")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.slow
def test_a_thousand_steps_keep_their_memory_and_say_nothing():
    command = [sys.executable, "-W", "error", Path(__file__).parent.parent / "support/long_run.py"]
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=300)  # noqa: S603
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["steps"] == 1000
    assert found["last"] <= 1.01 * found["first"]
    assert found["loss"][1] < 0.2 < found["loss"][0]
