"""A process that is killed while it saves leaves a whole checkpoint, and the run goes on from it with the same bits."""

import math
import os
import random
import signal
import time
import warnings
from statistics import median

import numpy as np
import pytest

import lrcore
from support.cases import same

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("LRCORE_TEST_KILLS", "200"))
SHAPE = (300, 200)


def make():
    params = {"w": np.ones(SHAPE, np.float32)}
    return params, lrcore.AdamW(params, lr=lrcore.schedules.Cosine(0.1, steps=10_000), average=lrcore.EMA(0.9))


def gradient(step):
    """The same for a step in every process, and cheap."""
    return {"w": np.full(SHAPE, np.float32((step * 37 % 101) / 50 - 1))}


def go_on(folder, saves=math.inf):
    """Resume, then train and save, for ever unless it is said how often."""
    _, opt = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unfinished files
        path = lrcore.latest(folder)
    if path:
        lrcore.load(path, opt)
    while saves > 0:
        opt.step(gradient(opt.steps))
        lrcore.save(folder, opt, keep=2)
        saves -= 1


def time_of_a_save(folder):
    """How long a process of its own takes to resume and save once, on this machine now."""
    begin = time.perf_counter()
    child = os.fork()
    if child == 0:
        try:
            go_on(folder, saves=1)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return time.perf_counter() - begin


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_every_kill_leaves_a_checkpoint_from_which_the_run_goes_on(tmp_path):
    rng = random.Random(0)  # noqa: S311
    params, twin = make()
    reached = []
    patience = 2.0 * median(time_of_a_save(tmp_path) for _ in range(5))
    for _ in range(KILLS):
        child = os.fork()
        if child == 0:
            try:
                go_on(tmp_path)
            finally:
                os._exit(1)
        time.sleep(rng.uniform(0.0, patience))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the child ended by itself"
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            path = lrcore.latest(tmp_path)
        # What is unfinished is beside a checkpoint, never in its place.
        assert all("is unfinished" in str(warning.message) for warning in said)
        loaded, opt = make()
        lrcore.load(path, opt)
        reached.append(opt.steps)
        while twin.steps < opt.steps:
            twin.step(gradient(twin.steps))
        assert twin.steps == opt.steps, "a checkpoint was lost"
        assert same(loaded["w"], params["w"])
        assert same(opt.average["w"], twin.average["w"])
        assert all(same(opt.state["w"][name], array) for name, array in twin.state["w"].items())
    assert len(set(reached)) > KILLS // 4
