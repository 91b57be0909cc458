"""Threads that step concurrently change no bit of the result and never hang."""

import signal
import sys
import threading

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from support.cases import same
from support.training import LARGE, PATIENCE, train


def together(works):
    """Runs functions concurrently, each in its own thread; returns their results."""
    outcomes = [None] * len(works)
    barrier = threading.Barrier(len(works))

    def run(i):
        barrier.wait()
        try:
            outcomes[i] = works[i]()
        except Exception as error:
            outcomes[i] = error

    threads = [threading.Thread(target=run, args=[i]) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return outcomes


@pytest.mark.parametrize("sizes", [(100,), (9000, 5), (LARGE // 2, 7)], ids=str)
def test_different_optimizers_can_step_concurrently(sizes):
    lrcore.set_num_threads(3)
    expected = [train(5, seed, sizes) for seed in range(4)]
    found = together([lambda seed=seed: train(5, seed, sizes) for seed in range(4)])
    assert all(same(weights, want) for weights, want in zip(found, expected, strict=True))


def test_settings_can_change_while_others_step():
    expected, stop = train(20), threading.Event()

    def change():
        for k in range(100_000):
            lrcore.set_num_threads(1 + k % 7)
            lrcore.set_simd_level(lrcore.simd_levels()[k % len(lrcore.simd_levels())])
            if stop.wait(0.0002):
                return

    def work():
        try:
            return [train(20) for _ in range(3)]
        finally:
            stop.set()

    _, found = together([change, work])
    assert all(same(weights, expected) for weights in found)


@pytest.mark.parametrize("size", [1, 100_000])
def test_threads_that_share_an_optimizer_take_turns_or_are_refused(size):
    """The result equals that of the same number of sequential steps, including the first, which creates the state."""
    rate = schedules.Linear(1.0, 0.0, steps=200)
    grads = [np.ones(size)] + [np.ones(1)] * 10
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(10 if size == 1 else 2):
            weights = [np.zeros_like(grad) for grad in grads]
            opt = lrcore.Adam(weights, lr=rate)
            outcomes = together([lambda opt=opt: [attempt(opt, grads) for _ in range(40)]] * 3)
            applied = [info for outcome in outcomes for info in outcome if info is not None]
            assert sorted(info.step for info in applied) == list(range(1, opt.steps + 1))
            assert all(info.lr == rate(info.step - 1) for info in applied)
            assert {saved["step"] for saved in opt.state_dict()["state"].values()} == {opt.steps}
            alone = [np.zeros_like(grad) for grad in grads]
            single = lrcore.Adam(alone, lr=rate)
            for _ in range(opt.steps):
                single.step(grads)
            assert all(same(*pair) for pair in zip(weights, alone, strict=True))
    finally:
        sys.setswitchinterval(interval)


def attempt(opt, grads):
    try:
        return opt.step(grads)
    except RuntimeError as error:
        assert "in use by another thread" in str(error)  # noqa: PT017 (either outcome is right)
        return None


def test_a_call_during_a_step_raises_that_the_optimizer_is_in_use():
    """Or works as documented: an edit applies to the next step."""
    params = {"w": np.zeros(16 * LARGE, np.float32)}
    opt = lrcore.Adam(params, lr=schedules.Linear(0.1, 0.2, steps=10))
    grads = {"w": np.ones(16 * LARGE, np.float32)}
    opt.step(grads)
    calls = [
        lambda: opt.step({"w": None}),
        opt.state_dict,
        lambda: opt.load_state_dict({"optimizer": "Adam", "steps": 0, "state": {}, "param_groups": []}, strict=False),
        lambda: opt.add_param_group({"params": []}),
        lambda: repr(opt),
        lambda: (opt.lr, opt.steps),
        lambda: opt.param_groups[0].update(eps=1e-7),
    ]
    done = threading.Event()

    def call():
        errors = []
        while not done.is_set():
            for each in calls:
                try:
                    each()
                except (RuntimeError, ValueError) as error:
                    errors.append(str(error))
        return errors

    def step():
        try:
            return [attempt(opt, grads) for _ in range(10)]
        finally:
            done.set()

    errors, _ = together([call, step])
    assert set(errors) <= {
        "this optimizer is in use by another thread; one optimizer takes one step at a time",
        'params[1]["params"] holds no parameters',
        "the state dict has none of the optimizer's parameters, which are 'w'; it has none",
    }


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs an interval timer")
def test_an_interrupt_during_a_step_leaves_the_counts_consistent():
    def interrupt(*_):
        raise KeyboardInterrupt

    weight = np.zeros(4 * LARGE, np.float32)
    opt, grads = lrcore.Adam([weight]), [np.ones(4 * LARGE, np.float32)]
    opt.step(grads)
    handler = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(20):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0015)
                opt.step(grads)
                signal.setitimer(signal.ITIMER_REAL, 0.0)
            except KeyboardInterrupt:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, handler)
    assert opt.state_dict()["state"]["0"]["step"] == opt.steps


class Waiting:
    """A number that, when read, waits until another thread has edited the same group."""

    shape = ()

    def __init__(self, value, other):
        self.value = value
        self.other = other

    def item(self):
        thread = threading.Thread(target=self.other)
        thread.start()
        thread.join()
        return self.value


def test_an_update_of_several_values_keeps_edits_of_other_threads():
    opt = lrcore.Adam([np.zeros(2)], lr=0.1)
    group = opt.param_groups[0]
    group.update(lr=Waiting(0.5, lambda: group.update(eps=1e-3)), weight_decay=0.25)
    assert (group["lr"], group["eps"], group["weight_decay"]) == (0.5, 1e-3, 0.25)


class Editing(schedules.Schedule):
    """A schedule that makes another thread edit a group while a step evaluates it."""

    def __init__(self):
        self.edit = None

    def _value(self, step):
        del step
        if self.edit is not None:
            edit, self.edit = self.edit, None
            thread = threading.Thread(target=edit)
            thread.start()
            thread.join(0.05)
            self.thread = thread
        return 0.5


def test_an_edit_during_a_step_applies_from_the_next_one():
    weight, schedule = np.zeros(1), Editing()
    opt = lrcore.SGD([weight], lr=1.0, momentum=schedule)
    group = opt.param_groups[0]
    schedule.edit = lambda: group.update(lr=2.0)
    assert opt.step([np.ones(1)]).lr == 1.0
    schedule.thread.join()
    assert group["lr"] == 2.0
    assert opt.step([np.ones(1)]).lr == 2.0


def test_concurrent_edits_of_a_group_are_not_lost():
    opt = lrcore.Adam([np.zeros(2)], lr=0.1)
    group, count = opt.param_groups[0], 2000
    keys = ["lr", "eps", "weight_decay", "lr_scale"]

    def edit(key):
        lost = 0
        for k in range(1, count):
            group[key] = float(k)
            lost += group[key] != float(k)
        return lost

    def step():
        return sum(not opt.step([np.zeros(2)]).applied for _ in range(count))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        found = together([*(lambda key=key: edit(key) for key in keys), step])
    finally:
        sys.setswitchinterval(interval)
    assert found == [0] * len(found)
    assert opt.step([np.ones(2)]).lr == (count - 1.0) ** 2
