"""Pool threads follow the process's CPU affinity: removed cores are not used, and no affinity stays restricted."""

import contextlib
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import lrcore
from support.training import LARGE, PATIENCE

TASKS = Path("/proc/self/task")

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or not TASKS.is_dir() or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores and threads that can be kept to one",
)


def allow(cores):
    """Sets the affinity of all threads, as `taskset -a -p` does."""
    for task in TASKS.iterdir():
        with contextlib.suppress(ProcessLookupError):  # threads end
            os.sched_setaffinity(int(task.name), cores)


def helpers():
    """The ids of the pool's threads."""
    found = []
    for task in TASKS.iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # threads end
            if (task / "comm").read_text().startswith("lrcore-"):
                found.append(int(task.name))
    return found


def of_helpers():
    """The affinity of each pool thread."""
    return [os.sched_getaffinity(helper) for helper in helpers()]


def become(cores):
    """Waits until the pool threads have this affinity: a thread that was woken restores its affinity itself."""
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        if all(allowed == cores for allowed in of_helpers()):
            return True
        time.sleep(0.002)
    return False


@pytest.fixture
def everywhere():
    """The process's cores; the affinity is restored at the end."""
    cores = os.sched_getaffinity(0)
    yield cores
    allow(cores)


@pytest.fixture
def step():
    """A function that runs a large step whose helper threads are asleep and must be woken."""
    lrcore.set_num_threads(3)
    opt, grads = lrcore.SGD([np.zeros(LARGE, np.float32)], lr=0.1), [np.ones(LARGE, np.float32)]

    def take():
        time.sleep(0.001)
        opt.step(grads)

    for _ in range(3):
        take()
    return take


def test_removed_cores_are_not_used_and_added_cores_are(everywhere, step):
    assert of_helpers()
    for core in sorted(everywhere)[:2]:
        for cores in ({core}, everywhere):
            allow(cores)
            for _ in range(5):
                step()
            assert become(cores)


def test_affinity_changes_during_steps_persist(everywhere, step):
    """Including changes while threads are being woken."""
    first, second = sorted(everywhere)[:2]
    stop = threading.Event()

    def keep_stepping():
        while not stop.is_set():
            step()

    thread = threading.Thread(target=keep_stepping)
    thread.start()
    try:
        for _ in range(15):
            for cores in ({first}, everywhere, {second}):
                allow(cores)
                time.sleep(0.004)
                assert become(cores)
    finally:
        stop.set()
        thread.join()


def test_a_thread_that_was_pinned_individually_stays_pinned(everywhere, step):
    """A user may pin single threads."""
    core = {min(everywhere)}
    assert become(everywhere)
    for helper in helpers():
        os.sched_setaffinity(helper, core)
    for _ in range(5):
        step()
    assert become(core)
