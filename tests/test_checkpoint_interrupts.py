"""Ctrl-C at any instruction: what is loaded is loaded as a whole or not at all, and a save leaves nothing behind.

A trace function raises KeyboardInterrupt at an instruction of lrcore, between which Python runs signal handlers. Which
one, is counted.
"""

import gc
import os
import sys

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from lrcore.optim import metric_trackers
from support.snapshot import snapshot

# A file that was just opened when the interrupt came is closed when its frame is collected.
pytestmark = [pytest.mark.filterwarnings("ignore::ResourceWarning"), pytest.mark.slow]
FOLDER = os.path.dirname(lrcore.__file__)


@pytest.fixture(autouse=True)
def _collected():
    yield
    gc.collect()


class Interrupted:
    """Raises KeyboardInterrupt at the instructions of some numbers, and counts how many there are."""

    def __init__(self, *at):
        self.at, self.count = at, 0

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self.enter)
        return self

    def __exit__(self, kind, *_):
        sys.settrace(self.before)
        return kind is KeyboardInterrupt

    def enter(self, frame, *_):
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        frame.f_trace_opcodes = True
        return self.within

    def within(self, _, event, __):
        if event == "opcode":
            self.count += 1
            if self.count in self.at:
                raise KeyboardInterrupt
        return self.within


def trained(value, steps):
    params = {"w": np.full((3, 4), value), "f": np.asfortranarray(np.full((3, 2), value)), "b": np.full(2, value)}
    opt = lrcore.AdamW(
        [{"params": {"w": params["w"]}}, {"params": {"f": params["f"], "b": params["b"]}, "name": "rest"}],
        lr=schedules.Linear(0.1, 0.2, steps=5) * schedules.ReduceOnPlateau(),
        weight_decay=value,
        average=lrcore.EMA(0.9),
        noise_scale=lrcore.NoiseScale(batch=3),
    )
    grads = [{"w": params["w"] * 0.5}, {"f": params["f"] + 1.0, "b": params["b"]}]
    for _ in range(steps):
        opt.accumulate(grads)
        opt.accumulate(grads)
        opt.step()
    opt.report(3.0 + value)
    opt.accumulate(grads)
    return opt, params


def everything(opt, params):
    waiting = opt.state_dict()["accumulated"]
    sums = {name: array.tobytes() for name, array in waiting["sums"].items()}
    return (
        snapshot(opt, *params.values()), repr(metric_trackers.save(opt._trackers())), opt.noise_scale.state(),
        opt.skipped, (waiting["batches"], waiting["squares"], sums),
    )  # fmt: skip


def counts_to_try(action):
    """Instructions all over an action, and all of its last ones, in which it is committed."""
    with Interrupted() as counted:
        action()
    return [
        *range(1, counted.count - 300, max(1, counted.count // 40)),
        *range(counted.count - 300, counted.count + 1, 3),
    ]


@pytest.mark.parametrize("way", ["checkpoint", "state dict"])
@pytest.mark.parametrize("again", [None, 1, 30])
def test_an_interrupt_leaves_all_or_nothing_of_what_is_loaded(way, again, tmp_path):
    saved = trained(1.0, 3)
    path, state_dict = lrcore.save(tmp_path / "a.safetensors", saved[0]), saved[0].state_dict()
    opt, params = trained(2.0, 2)

    def action():
        lrcore.load(path, opt) if way == "checkpoint" else opt.load_state_dict(state_dict)

    counts = counts_to_try(action)
    after = everything(opt, params)
    before = everything(*trained(2.0, 2))
    assert after == everything(*saved) if way == "checkpoint" else after != before
    seen = set()
    for at in counts:
        opt, params = trained(2.0, 2)
        with Interrupted(at, at + (again or 0)):
            action()
        now = everything(opt, params)
        assert now in (before, after), f"at instruction {at}"
        seen.add(now == after)
    assert seen == {False, True}


@pytest.mark.parametrize("again", [None, 1, 30])
def test_an_interrupt_in_a_save_leaves_what_was_there_and_no_partial_file_that_stays(again, tmp_path):
    opt, _ = trained(1.0, 1)

    def action():
        lrcore.save(tmp_path, opt, keep=1)

    for at in counts_to_try(action):
        with Interrupted(at, at + (again or 0)):
            action()
        lrcore.load(tmp_path, opt)
        lrcore.save(tmp_path, opt)
        assert [path.name for path in tmp_path.iterdir()] == ["step-0000000001.safetensors"], f"at instruction {at}"
