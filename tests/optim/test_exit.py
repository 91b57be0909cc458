"""Interpreter shutdown waits for steps of daemon threads: it neither crashes nor hangs."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXITS = Path(__file__).parents[2] / "tools" / "exits.py"


def end(*arguments):
    command = [sys.executable, str(EXITS), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_interpreter_exits_while_daemon_threads_step_arrays():
    end("--trials", "10")


def test_the_interpreter_exits_while_daemon_threads_step_tensors():
    pytest.importorskip("torch")
    end("--trials", "1", "--kind", "torch")


def test_later_atexit_functions_may_wait_for_a_thread_that_steps():
    """Steps that begin during interpreter shutdown are executed."""
    script = """
import atexit, threading, time
stop = threading.Event()
def finish():
    time.sleep(0.01)
    stop.set()
    thread.join()
    print(opt.steps > before)
atexit.register(finish)  # what is registered first runs last
import numpy as np, lrcore
opt, grads = lrcore.SGD([np.zeros(1 << 20, np.float32)], lr=0.1), [np.ones(1 << 20, np.float32)]
def keep_stepping():
    while not stop.is_set():
        opt.step(grads)
thread = threading.Thread(target=keep_stepping, daemon=True)
thread.start()
before = opt.steps
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
