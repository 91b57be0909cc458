"""Train functions for sweeps, in a module that other processes can import."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def bowl(lr, batch, seed):
    """Minimum at lr = 0.01; a metric holds the process id."""
    return {"objective": abs(lr - 0.01) + batch / 1e5 + seed / 2**32 / 1e4, "process": str(os.getpid())}


def slow(lr, batch, seed):
    """The same in a fixed time."""
    time.sleep(0.05)
    return abs(lr - 0.01) + batch / 1e5 + seed / 2**32 / 1e4


def logged(lr, batch, seed):
    """The same, with a line in a log file at the start and at the end."""
    _log("begin", lr, batch, seed)
    objective = slow(lr, batch, seed)
    _log("end", lr, batch, seed)
    return objective


def _log(*values):
    with Path(os.environ["SWEEP_LOG"]).open("a", encoding="utf-8") as file:
        file.write(" ".join(map(str, values)) + "\n")


def troubled(what, seed):
    """End in the requested way."""
    match what:
        case "nan":
            return float("nan")
        case "inf":
            return {"objective": float("inf"), "accuracy": 0.1}
        case "raise":
            raise ValueError("the loss is purple\nand more")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "leave":
            sys.exit(4)
        case "text":
            return "0.5"
        case "array":
            return [1.0, 2.0]
        case "keys":
            return {"loss": 1.0}
        case "metric":
            return {"objective": 2.0, "what": 2.0, "grads": [1.0, 2.0], "good": 3}
    return 1.0


def reporting(lr, seed, report):
    """Report ten steps; diverge from lr = 1 on."""
    for step in range(10):
        report(lr * step if lr < 1 else float("nan"), step)
    return lr


def forking(lr, seed):
    """Fork and return in both processes."""
    child = os.fork()
    if child == 0:
        if lr == 3:
            raise ValueError("in the child alone")
        return -1.0
    _, status = os.waitpid(child, 0)
    return {"objective": lr, "child": os.waitstatus_to_exitcode(status)}


def holding(lr, seed):
    """Start a process in its own session and hold the interpreter lock for a minute."""
    child = subprocess.Popen(["sleep", "300"], start_new_session=True)  # noqa: S607
    _log(os.getpid(), child.pid)
    ctypes.PyDLL(None).sleep(60)
    return lr


def budgeted(lr, budget, seed):
    """Better with a larger budget; 0.3 looks good only at small budgets."""
    return {"objective": abs(lr - 0.1) + 1 / budget - (0.25 if lr == 0.3 and budget < 9 else 0.0), "spent": budget}


def threads(lr, seed):
    """Return the thread settings of the environment and of lrcore."""
    import lrcore

    told = [os.environ[f"{name}_NUM_THREADS"] for name in ("LRCORE", "OMP", "OPENBLAS")]
    return {"objective": lrcore.get_num_threads(), "told": " ".join(told)}


def reference(lr, batch, seed):
    """Take a pseudo-random time, for sweeps that are killed."""
    _log("begin", lr, batch, seed)
    time.sleep(0.03 + seed / 2**32 / 30)
    return abs(lr - 0.01) + batch / 1e5


def sleepy(lr, seed):
    """Take a minute from lr = 0.5 on."""
    time.sleep(60 if lr > 0.5 else 0.01)
    return lr


def collecting(seen, lr, seed):
    """Return how many runs this list has seen."""
    seen.append(lr)
    return len(seen)


def counting(lr, seed, report):
    """Report without a step, with one, and without."""
    for value, *step in [(lr,), (lr,), (lr, 7), (float("nan") if lr > 1 else lr,)]:
        report(value, *step)
    report(float("nan") if lr > 0.5 else lr)
    return lr
