"""A process that is killed while it saves leaves a whole checkpoint, and the run goes on from it with the same bits."""

import os
import random
import signal
import time
import warnings

import numpy as np
import pytest

import lrcore
from cases import same

KILLS = int(os.environ.get("LRCORE_TEST_KILLS", "200"))
SHAPE = (300, 200)


def make():
    params = {"w": np.ones(SHAPE, np.float32)}
    return params, lrcore.AdamW(params, lr=lrcore.schedules.Cosine(0.1, steps=10_000), average=lrcore.EMA(0.9))


def gradient(step):
    """The same for a step in every process, and cheap."""
    return {"w": np.full(SHAPE, np.float32((step * 37 % 101) / 50 - 1))}


def go_on(folder):
    """Resume, then train and save for ever."""
    _, opt = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unfinished files
        path = lrcore.latest(folder)
    if path:
        lrcore.load(path, opt)
    while True:
        opt.step(gradient(opt.steps))
        lrcore.save(folder, opt, keep=2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_every_kill_leaves_a_checkpoint_from_which_the_run_goes_on(tmp_path):
    rng = random.Random(0)  # noqa: S311
    params, twin = make()
    reached = []
    for kill in range(KILLS):
        child = os.fork()
        if child == 0:
            try:
                go_on(tmp_path)
            finally:
                os._exit(1)
        # The first one is given time for one checkpoint.
        time.sleep(rng.uniform(0.0, 0.03) + (0.5 if kill == 0 else 0.0))
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
