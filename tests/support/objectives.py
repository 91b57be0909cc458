"""Trainings for sweeps, in a module that other processes can import."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def bowl(lr, batch, seed):
    """Least at lr = 0.01; a metric tells who ran it."""
    return {"objective": abs(lr - 0.01) + batch / 1e5 + seed / 2**32 / 1e4, "process": str(os.getpid())}


def slow(lr, batch, seed):
    """The same, in a fixed time."""
    time.sleep(0.05)
    return abs(lr - 0.01) + batch / 1e5 + seed / 2**32 / 1e4


def logged(lr, batch, seed):
    """The same, and a line in a file for each begin and each end."""
    _log("begin", lr, batch, seed)
    objective = slow(lr, batch, seed)
    _log("end", lr, batch, seed)
    return objective


def _log(*values):
    with Path(os.environ["SWEEP_LOG"]).open("a", encoding="utf-8") as file:
        file.write(" ".join(map(str, values)) + "\n")


def troubled(what, seed):
    """End in the way that is asked for."""
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
    """Report each of ten steps, and diverge at large rates."""
    for step in range(10):
        report(lr * step if lr < 1 else float("nan"), step)
    return lr


def forking(lr, seed):
    """Fork, and return in both processes."""
    child = os.fork()
    if child == 0:
        if lr == 3:
            raise ValueError("in the child alone")
        return -1.0
    _, status = os.waitpid(child, 0)
    return {"objective": lr, "child": os.waitstatus_to_exitcode(status)}


def holding(lr, seed):
    """Start a process in a session of its own, and hold the interpreter for a minute."""
    child = subprocess.Popen(["sleep", "300"], start_new_session=True)  # noqa: S607
    _log(os.getpid(), child.pid)
    ctypes.PyDLL(None).sleep(60)
    return lr


def budgeted(lr, budget, seed):
    """Better with a larger budget; 0.3 looks good at first and never ends well."""
    return {"objective": abs(lr - 0.1) + 1 / budget - (0.25 if lr == 0.3 and budget < 9 else 0.0), "spent": budget}


def threads(lr, seed):
    """What the process was told about threads, and what lrcore uses."""
    import lrcore

    told = [os.environ[f"{name}_NUM_THREADS"] for name in ("LRCORE", "OMP", "OPENBLAS")]
    return {"objective": lrcore.get_num_threads(), "told": " ".join(told)}


def reference(lr, batch, seed):
    """For a script that sweeps and is killed: a little random in its time."""
    _log("begin", lr, batch, seed)
    time.sleep(0.03 + seed / 2**32 / 30)
    return abs(lr - 0.01) + batch / 1e5


def sleepy(lr, seed):
    """Long for large rates."""
    time.sleep(60 if lr > 0.5 else 0.01)
    return lr


def collecting(seen, lr, seed):
    """How many runs this has seen."""
    seen.append(lr)
    return len(seen)


def counting(lr, seed, report):
    """Report without steps, with one, and without, until it diverges."""
    for value, *step in [(lr,), (lr,), (lr, 7), (float("nan") if lr > 1 else lr,)]:
        report(value, *step)
    report(float("nan") if lr > 0.5 else lr)
    return lr
