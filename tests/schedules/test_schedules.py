"""Schedules are pure functions of the step: their closed forms, their ends, and what they are as values."""

import copy
import dataclasses
import math
import pickle
import re

import numpy as np
import pytest

from lrcore.schedules import Constant, Cosine, Exponential, Linear, Schedule, Step, WarmedUp

HUGE = [10**6, 2**63, 2**64, 10**30, 10**308, 10**400]

# A schedule, and its value at steps 0, 1, 2, …
COURSES = [
    (Constant(0.3), [0.3] * 5),
    (Linear(1.0, 0.0, steps=4), [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
    (Linear(0.0, 2.0, steps=2), [0.0, 1.0, 2.0, 2.0]),
    (Linear(1.0, 0.5, steps=1), [1.0, 0.5, 0.5]),
    (Linear(1.0, 0.5, steps=0), [0.5, 0.5]),
    (Cosine(1.0, steps=2), [1.0, 0.5, 0.0, 0.0, 0.0, 0.0]),
    (Cosine(3.0, steps=3, end=1.0), [3.0, 2.5, 1.5, 1.0, 1.0, 1.0, 1.0]),
    (Cosine(0.0, steps=4, end=1.0), [0.0, (1 - math.sqrt(0.5)) / 2, 0.5, (1 + math.sqrt(0.5)) / 2, 1.0]),
    (Cosine(1.0, steps=0, end=0.25), [0.25, 0.25]),
    (Exponential(1.0, gamma=0.5), [1.0, 0.5, 0.25, 0.125]),
    (Exponential(0.1, gamma=1.0), [0.1] * 4),
    (Exponential(0.1, gamma=0.0), [0.1, 0.0, 0.0]),
    (Exponential(0.0, gamma=9.0), [0.0, 0.0, 0.0]),
    (Step(1.0, step_size=2, gamma=0.5), [1.0, 1.0, 0.5, 0.5, 0.25]),
    (Step(1.0, step_size=1), [1.0, 0.1, 0.01]),
    (Constant(1.0).warmup(4), [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]),
    (Constant(1.0).warmup(1), [1.0, 1.0]),
    (Constant(1.0).warmup(0), [1.0, 1.0]),
    (Linear(1.0, 0.0, steps=6).warmup(2), [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
    (Linear(1.0, 0.0, steps=2).warmup(2), [0.5, 1.0, 0.0, 0.0]),
    (Linear(1.0, 0.0, steps=0).warmup(0), [0.0, 0.0]),
    (Linear(0.0, 1.0, steps=4).warmup(2), [0.0, 0.0, 0.0, 0.5, 1.0]),
    (Cosine(1.0, steps=4).warmup(2), [0.5, 1.0, 1.0, 0.5, 0.0, 0.0]),
    (Step(1.0, step_size=2, gamma=0.5).warmup(2), [0.5, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25]),
    (Exponential(1.0, gamma=0.5).warmup(2), [0.5, 1.0, 1.0, 0.5, 0.25]),
    (Constant(1.0).warmup(2).warmup(2), [0.25, 0.5, 0.5, 1.0, 1.0]),
    (Linear(1.0, 0.0, steps=8).warmup(2).warmup(2), [0.25, 0.5, 0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]),
]  # fmt: skip
SCHEDULES = [schedule for schedule, _ in COURSES]


@pytest.mark.parametrize(("schedule", "course"), COURSES, ids=[str(schedule) for schedule in SCHEDULES])
def test_a_schedule_has_its_closed_form(schedule, course):
    assert [schedule(step) for step in range(len(course))] == pytest.approx(course, rel=1e-15, abs=1e-16)
    assert all(type(schedule(step)) is float for step in range(len(course)))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_schedule_stays_at_its_end(schedule):
    if schedule.length is not None:
        assert {schedule(schedule.length + k) for k in (0, 1, *HUGE)} == {schedule(schedule.length)}
    assert all(0.0 <= schedule(step) < math.inf for step in HUGE)


FAR = [
    (Constant(0.1), 0.1), (Exponential(0.1, 0.5), 0.0), (Exponential(0.1, 0.0), 0.0), (Exponential(0.1, 1.0), 0.1),
    (Exponential(0.0, 2.0), 0.0), (Step(0.1, step_size=3, gamma=0.9), 0.0), (Step(0.1, step_size=3, gamma=1.0), 0.1),
    (Cosine(0.1, steps=100).warmup(10), 0.0), (Exponential(0.1, 0.5).warmup(3), 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("schedule", "value"), FAR, ids=[str(schedule) for schedule, _ in FAR])
def test_a_schedule_is_right_at_any_step_however_far(schedule, value):
    assert [schedule(step) for step in HUGE] == [value] * len(HUGE)


def test_the_start_of_a_long_schedule_is_right():
    assert Linear(1.0, 0.0, steps=10**400)(10**399) == 0.9
    assert Constant(1.0).warmup(10**400)(10**400 // 4) == 0.25
    assert Cosine(1.0, steps=10**30)(5 * 10**29) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("schedule", "length"),
    [(Linear(1, 0, 7), 7), (Cosine(1, 7), 7), (Cosine(1, 7).warmup(7), 7), (Step(1, 7).warmup(7), None)],
)
def test_a_warm_up_keeps_the_length_of_what_has_one(schedule, length):
    assert schedule.length == length


@pytest.mark.parametrize("steps", [np.int64(3), np.uint8(3), np.array(3)], ids=lambda step: str(type(step).__name__))
def test_whole_numbers_of_any_kind_are_steps(steps):
    assert Linear(1.0, 0.0, steps=4)(steps) == 0.25
    assert Linear(1.0, 0.0, steps=steps) == Linear(1.0, 0.0, steps=3)
    assert type(Linear(1.0, 0.0, steps=steps).steps) is int


@pytest.mark.parametrize("step", [1.0, "1", None, True, np.float64(1.0), np.array([1]), 1j], ids=repr)
@pytest.mark.parametrize("schedule", SCHEDULES[:20:3], ids=str)
def test_a_step_is_a_whole_number(schedule, step):
    with pytest.raises(TypeError, match=f"^step must be a whole number >= 0, got {re.escape(repr(step))}$"):
        schedule(step)


def test_a_step_is_not_negative():
    with pytest.raises(ValueError, match=r"^step must be >= 0, got -1$"):
        Constant(1.0)(-1)


REFUSED = [
    (lambda: Constant(-0.1), ValueError, "Constant: value must be in [0, inf), got -0.1"),
    (lambda: Constant(math.nan), ValueError, "Constant: value must be in [0, inf), got nan"),
    (lambda: Constant(math.inf), ValueError, "Constant: value must be in [0, inf), got inf"),
    (lambda: Constant("1"), TypeError, "Constant: value must be a number in [0, inf), got '1'"),
    (lambda: Constant(None), TypeError, "Constant: value must be a number in [0, inf), got None"),
    (lambda: Linear(start=True, end=0, steps=1), TypeError, "Linear: start must be a number in [0, inf), got True"),
    (lambda: Linear(0, -1, 1), ValueError, "Linear: end must be in [0, inf), got -1"),
    (lambda: Linear(0, 1, -1), ValueError, "Linear: steps must be >= 0, got -1"),
    (lambda: Linear(0, 1, 10.0), TypeError, "Linear: steps must be a whole number >= 0, got 10.0"),
    (lambda: Linear(0, 1, Constant(1)), TypeError, "Linear: steps must be a whole number >= 0, got Constant("),
    (lambda: Cosine(-1, 10), ValueError, "Cosine: start must be in [0, inf), got -1"),
    (lambda: Cosine(1, 10, end=-1), ValueError, "Cosine: end must be in [0, inf), got -1"),
    (lambda: Cosine(1, steps=True), TypeError, "Cosine: steps must be a whole number >= 0, got True"),
    (lambda: Exponential(1, -0.5), ValueError, "Exponential: gamma must be in [0, inf), got -0.5"),
    (lambda: Exponential(10**400, 1), ValueError, "Exponential: start must be in [0, inf), got 1000"),
    (lambda: Step(1, 0), ValueError, "Step: step_size must be >= 1, got 0"),
    (lambda: Step(1, 1.5), TypeError, "Step: step_size must be a whole number >= 1, got 1.5"),
    (lambda: Constant(1).warmup(-1), ValueError, "warmup: steps must be >= 0, got -1"),
    (lambda: Constant(1).warmup(0.5), TypeError, "warmup: steps must be a whole number >= 0, got 0.5"),
    (lambda: Cosine(1, 10).warmup(11), ValueError, "warmup: steps must be in [0, 10], the length of Cosine("),
    (lambda: Cosine(1, 10).warmup(8).warmup(5), ValueError, "warmup: steps must be in "),
    (lambda: WarmedUp(0.1, 3), TypeError, "warmup: schedule must be a schedule, got 0.1"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "exception", "message"), REFUSED, ids=[message[:60] for *_, message in REFUSED])
def test_what_is_no_schedule_is_refused(call, exception, message):
    with pytest.raises(exception, match=f"^{re.escape(message)}"):
        call()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_schedule_is_a_value(schedule):
    pickles = [pickle.dumps(schedule, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    copies = [copy.copy(schedule), copy.deepcopy(schedule), *map(pickle.loads, pickles)]
    printed = eval(repr(schedule), globals())  # noqa: S307
    for same in (*copies, printed, dataclasses.replace(schedule)):
        assert same == schedule
        assert hash(same) == hash(schedule)
        assert [same(step) for step in range(9)] == [schedule(step) for step in range(9)]
    assert len({schedule, *copies}) == 1
    assert schedule != schedule.warmup(0)
    assert not hasattr(schedule, "__dict__")


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_schedule_is_frozen(schedule):
    name = dataclasses.fields(schedule)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(schedule, name, 1.0)


def test_different_schedules_are_unequal():
    assert len(set(SCHEDULES)) == len(SCHEDULES)
    assert Constant(1) == Constant(1.0) != Constant(2)
    assert Linear(1, 0, 5) != Cosine(1, 5, 0)


def test_a_subclass_needs_a_value_alone():
    class Sawtooth(Schedule):
        def _value(self, step):
            return step % 3 / 2

    assert [Sawtooth()(k) for k in range(4)] == [0.0, 0.5, 1.0, 0.0]
    assert [Sawtooth().warmup(1)(k) for k in range(4)] == [0.0, 0.0, 0.5, 1.0]
    with pytest.raises(TypeError):
        Schedule()
