"""Ctrl-C at random moments: the interrupted operation has happened completely or not at all.

A timer interrupts a run at random times. After each interrupt the state must equal that of an undisturbed run at the
optimizer's number of steps.
"""

from __future__ import annotations

import random
import signal
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np

import lrcore
from soak import campaign

ROUNDS = 60
SHAPE = (150, 40)


def make() -> tuple[dict[str, np.ndarray], lrcore.Optimizer]:
    """Return parameters and their optimizer."""
    params = {"w": np.ones(SHAPE, np.float32), "b": np.zeros(7)}
    return params, lrcore.AdamW(params, lr=0.01, average=lrcore.EMA(0.9), clip_norm=1.0)


def gradients(step: int) -> dict[str, np.ndarray]:
    """Return the gradients of a step, a function of the step number only."""
    value = (step * 37 % 101) / 50 - 1
    return {"w": np.full(SHAPE, value, np.float32), "b": np.full(7, -value)}


def everything(params: dict[str, np.ndarray], opt: lrcore.Optimizer) -> list[bytes]:
    """Return all bits of a run."""
    states = [value.tobytes() for state in opt.state.values() for value in state.values()]
    return [*(value.tobytes() for value in params.values()), *states]


class Twin:
    """The undisturbed run, computed on demand."""

    def __init__(self) -> None:
        self.params, self.opt = make()
        self.seen = {0: everything(self.params, self.opt)}

    def at(self, steps: int) -> list[bytes]:
        """Return the bits after ``steps`` steps."""
        while self.opt.steps < steps:
            self.opt.step(gradients(self.opt.steps))
            self.seen[self.opt.steps] = everything(self.params, self.opt)
        return self.seen[steps]


class Interrupted(KeyboardInterrupt):
    """The timer's interrupt."""


def interrupt(*_: object) -> None:
    """Raise the interrupt, in place of Ctrl-C."""
    raise Interrupted


def work(rng: random.Random, params: dict[str, np.ndarray], opt: lrcore.Optimizer, folder: Path) -> None:
    """Run one random operation, which may be interrupted."""
    what = rng.choice(["step", "step", "averaged", "save", "load", "load_state_dict", "accumulate"])
    if what == "step":
        opt.step(gradients(opt.steps))
    elif what == "averaged":
        with opt.averaged():
            params["w"].sum()
    elif what == "save":
        lrcore.save(folder, opt, keep=2)
    elif what == "load_state_dict":
        opt.load_state_dict(opt.state_dict())
    elif what == "accumulate":
        opt.accumulate(gradients(opt.steps))
        opt.step()
    elif (path := lrcore.latest(folder)) is not None:
        lrcore.load(path, opt)


def burst(rng: random.Random, params: dict[str, np.ndarray], opt: lrcore.Optimizer, folder: Path) -> int:
    """Run operations until the timer interrupts; return how many were begun."""
    begun = 0
    # Python ignores an exception in a finalizer, so the timer repeats.
    signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, 2e-2), rng.choice([0.1, 0.1, 2e-4]))
    try:
        while True:
            begun += 1
            work(rng, params, opt, folder)
    except Interrupted:
        return begun
    finally:
        while True:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupted:
                continue
            break


def trial(seed: int) -> int:
    """Interrupt a run many times; return how many operations were begun."""
    rng = random.Random(seed)  # noqa: S311
    twin, (params, opt) = Twin(), make()
    before = signal.signal(signal.SIGALRM, interrupt)
    operations = 0
    try:
        with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            folder = Path(name)
            for _ in range(ROUNDS):
                with suppress(Interrupted):  # raised while the timer is stopped
                    operations += burst(rng, params, opt, folder)
                # Drop a micro-batch that the interrupt left pending.
                opt.load_state_dict({**opt.state_dict(), "accumulated": None})
                assert everything(params, opt) == twin.at(opt.steps), f"after an interrupt at {opt.steps} steps"
            lrcore.save(folder, opt, keep=2)
            assert len(list(folder.glob("*.safetensors"))) <= 2, "checkpoints are left behind"
            assert not list(folder.glob(".*.partial")), "partial files are left behind"
    finally:
        signal.signal(signal.SIGALRM, before)
    return operations


if __name__ == "__main__":
    campaign.main(trial)
