"""Kills a process at random moments while it saves: the run must resume from the checkpoint that is left."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
import warnings
from pathlib import Path

import lrcore
from soak import campaign
from test_checkpoint_kills import go_on, gradient, make

KILLS = 20


def trial(seed: int) -> int:
    """Kill a run repeatedly, resuming it each time; return the number of kills."""
    rng = random.Random(seed)  # noqa: S311
    params, twin = make()
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about unfinished files
        folder = Path(name)
        for _ in range(KILLS):
            child = os.fork()
            if child == 0:
                try:
                    go_on(folder)
                finally:
                    os._exit(1)
            time.sleep(rng.uniform(0.0, 0.1))
            os.kill(child, signal.SIGKILL)
            assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the child exited before it was killed"
            if (path := lrcore.latest(folder)) is None:
                continue
            loaded, opt = make()
            lrcore.load(path, opt)
            while twin.steps < opt.steps:
                twin.step(gradient(twin.steps))
            assert twin.steps == opt.steps, "a checkpoint was lost"
            assert loaded["w"].tobytes() == params["w"].tobytes()
    return KILLS


if __name__ == "__main__":
    campaign.main(trial)
