"""A forked child has none of its parent's threads: it steps with its own, and is never left waiting."""

import os
import signal
import threading
import time
import warnings

import numpy as np
import pytest

import lrcore
from cases import same
from training import LARGE, PATIENCE, train


def in_fork(work, patience=PATIENCE):
    """Runs it in a forked child and returns the exit status, or None if the child hung."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks beside threads: that is the point
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
def test_a_large_step_in_a_forked_child_is_taken(threads):
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
def test_an_optimizer_goes_on_in_a_forked_child_and_in_the_parent():
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


@forks
@pytest.mark.parametrize("use", [lambda opt: opt.step(None), lambda opt: opt.state_dict()], ids=["step", "state_dict"])
def test_a_child_that_was_forked_in_the_middle_of_a_step_is_not_left_waiting_for_it(use):
    """No thread of it will ever end that step: it steps itself or is refused."""
    weights, grads = [np.ones(2 * LARGE)], [np.ones(2 * LARGE)]
    opt, stop = lrcore.Adam(weights), threading.Event()

    def keep_stepping():
        while not stop.is_set():
            opt.step(grads)

    def child():
        try:
            use(opt)
        except (RuntimeError, TypeError):
            return 7
        return 0

    thread = threading.Thread(target=keep_stepping)
    thread.start()
    try:
        outcomes = [in_fork(child, patience=5.0) for _ in range(2)]
    finally:
        stop.set()
        thread.join()
    assert set(outcomes) <= {0, 7}
