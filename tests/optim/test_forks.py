"""A forked child has none of its parent's threads: it steps with its own pool and never hangs."""

import os
import signal
import threading
import time
import warnings
from collections import UserDict

import numpy as np
import pytest

import lrcore
from lrcore.optim import locks
from support.cases import same
from support.training import LARGE, PATIENCE, train

pytestmark = pytest.mark.slow


def in_fork(work, patience=PATIENCE):
    """Runs ``work`` in a forked child; returns the exit status, or None if the child hangs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns about forks in multi-threaded processes
        child = os.fork()
    if child == 0:
        status = 99
        try:
            status = work()
        finally:
            os._exit(status)
    limit = time.monotonic() + patience
    while time.monotonic() < limit:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@forks
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_large_step_works_in_a_forked_child(threads):
    lrcore.set_num_threads(threads)
    expected = train()
    assert in_fork(lambda: 0 if same(train(), expected) else 1) == 0
    assert same(train(), expected)


@forks
def test_a_child_of_a_child_steps_with_more_threads():
    lrcore.set_num_threads(2)
    expected = train()

    def child():
        lrcore.set_num_threads(4)
        return 0 if same(train(), expected) and in_fork(lambda: 0 if same(train(), expected) else 1) == 0 else 1

    assert in_fork(child) == 0


@forks
def test_an_optimizer_continues_in_a_forked_child_and_in_the_parent():
    weight, grad = np.ones(LARGE), np.ones(LARGE)
    opt = lrcore.Adam([weight])
    opt.step([grad])

    def child():
        opt.step([grad])
        return int(opt.steps != 2 or opt.state_dict()["state"]["0"]["step"] != 2)

    assert in_fork(child) == 0
    assert opt.step([grad]).step == 2


@forks
def test_a_fork_while_other_threads_step_does_not_hang_the_child():
    stop = threading.Event()

    def keep_stepping():
        while not stop.is_set():
            train(1)

    lrcore.set_num_threads(3)
    threads = [threading.Thread(target=keep_stepping) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert [in_fork(lambda: int(train(1).size == 0)) for _ in range(5)] == [0] * 5
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def in_the_middle_of_steps(child, forks=4):
    """Forks while another thread steps an optimizer continuously; returns the results of the children."""
    weights, grads = [np.ones(4 * LARGE, np.float32)], [np.ones(4 * LARGE, np.float32)]
    opt, stop = lrcore.Adam(weights), threading.Event()
    opt.step(grads)

    def keep_stepping():
        while not stop.is_set():
            opt.step(grads)

    thread = threading.Thread(target=keep_stepping)
    thread.start()
    try:
        return [in_fork(lambda: child(opt, grads)) for _ in range(forks)]
    finally:
        stop.set()
        thread.join()


@forks
def test_a_fork_waits_for_the_steps_of_other_threads():
    """Otherwise the child would inherit a locked optimizer with half-updated weights."""

    def child(opt, grads):
        (weight,), (state,) = opt.params, opt.state_dict()["state"].values()
        before = opt.steps
        is_whole = all(np.unique(array).size == 1 for array in (weight, state["exp_avg"], state["exp_avg_sq"]))
        info = opt.step(grads)
        return 0 if is_whole and state["step"] == before and info.step == before + 1 else 1

    assert in_the_middle_of_steps(child) == [0] * 4


class Gradients(UserDict):
    """Gradients whose lookup calls a function, in the middle of a step."""

    def __init__(self, grads, call):
        super().__init__(grads)
        self.call = call

    def __getitem__(self, key):
        self.call()
        return super().__getitem__(key)


@forks
def test_threads_that_fork_from_within_steps_do_not_wait_for_each_other():
    """The step that forks continues after the fork, also in the child."""
    barrier, statuses, steps = threading.Barrier(2), [], []

    def fork():
        barrier.wait()
        child = os.fork()
        if child:
            statuses.append(os.waitpid(child, 0)[1])
        children.append(child)

    def step():
        opt = lrcore.SGD({"w": np.zeros(3)}, lr=1.0)
        info = opt.step(Gradients({"w": np.ones(3)}, fork))
        if 0 in children:
            os._exit(info.step - 1)
        steps.append(info.step)

    children = []
    threads = [threading.Thread(target=step) for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert (statuses, steps) == ([0, 0], [1, 1])


@forks
def test_a_child_of_a_fork_in_the_middle_of_a_step_raises():
    """A fork waits only for a limited time for Python code within a step, since that code may wait for the fork."""
    inside = threading.Event()

    def block():
        inside.set()
        threading.Event().wait()

    def child():
        opt = lrcore.SGD({"w": np.zeros(3)}, lr=1.0)
        threading.Thread(target=opt.step, args=[Gradients({"w": np.ones(3)}, block)], daemon=True).start()
        inside.wait()
        for hook in (lrcore._lrcore.after_fork_in_child, locks._renew_locks):
            hook()
        try:
            opt.step({"w": np.ones(3)})
        except RuntimeError as error:
            return 0 if "when this process was forked" in str(error) and "load a checkpoint" in str(error) else 1
        return 2

    assert in_fork(child) == 0
