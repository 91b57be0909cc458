"""The values of many steps are those of as many calls, to the bit."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrcore.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    Lambda,
    Linear,
    MultiStep,
    Noam,
    Piecewise,
    Step,
    Tanh,
)
from support.rows import each
from support.schedule_strategies import any_schedule, interesting_steps, some

LINE = Linear(1.0, 0.0, steps=4)


def bits(numbers):
    return np.array(numbers, np.float64).view(np.uint64).tolist()


def called(schedule, steps):
    return bits([schedule(int(step)) for step in steps])


@some
@given(any_schedule)
def test_values_are_bitwise_those_of_calls(schedule):
    steps = [step for step in interesting_steps(schedule) if step < 2**63]
    assert bits(schedule.values(steps)) == called(schedule, steps)
    below = [step for step in steps if step < 2**53]
    assert bits(schedule.values(below)) == called(schedule, below)


@some
@given(any_schedule, st.integers(0, 300), st.integers(0, 10**6), st.integers(1, 10**4))
def test_values_of_a_range_are_bitwise_those_of_calls(schedule, count, begin, stride):
    assert bits(schedule.values(count)) == called(schedule, range(count))
    steps = range(begin, begin + 40 * stride, stride)
    assert bits(schedule.values(steps)) == called(schedule, steps)
    assert bits(schedule.values(steps[::-1])) == called(schedule, steps[::-1])


LONG = [
    Cosine(0.1, steps=90_000, end=0.003, power=1.5, k=0.7).warmup(777, shape="cosine"),
    Tanh(0.1, steps=90_000).cooldown(0.1, shape="sqrt"),
    Exponential(0.1, gamma=0.97, steps=10.5) * Noam(512, 4000) + 1e-5,
    CosineRestarts(0.1, period=100.5, factor=1.3, decay=0.9, warmup_steps=7).at_least(0.01),
    Cyclic(0.1, 0.2, up=1000, down=333, mode="exp_range", gamma=0.9999).stretch(1.7),
    Exponential(1e300, gamma=0.9),
    Step(1e-300, step_size=3, gamma=1.3),
]


@pytest.mark.slow
@each("schedule", LONG, ids=str)
def test_values_of_long_schedules_are_bitwise_those_of_calls(schedule):
    assert bits(schedule.values(100_000)) == called(schedule, range(100_000))


STEPS = [
    (3, [0, 1, 2]),
    (0, []),
    (np.int8(3), [0, 1, 2]),
    (range(1, 8, 3), [1, 4, 7]),
    (range(5, 0, -2), [5, 3, 1]),
    (range(3, 3), []),
    ([2, 0, 2], [2, 0, 2]),
    ((1,), [1]),
    ([], []),
    (iter([3, 1]), [3, 1]),
    ((step for step in (3, 1)), [3, 1]),
    (np.array([3, 1], np.uint8), [3, 1]),
    (np.array([3, 1], np.int16)[::-1], [1, 3]),
    (np.array([3, 2**63 - 1], np.uint64), [3, 2**63 - 1]),
    ([np.int32(3), 2], [3, 2]),
]


@each(("steps", "expected"), STEPS, ids=[str(i) for i in range(len(STEPS))])
def test_steps_can_be_a_number_a_range_a_sequence_or_an_array(steps, expected):
    values = LINE.values(steps)
    assert values.dtype == np.float64
    assert values.tolist() == [LINE(step) for step in expected]


def test_values_have_the_shape_of_the_steps():
    steps = np.arange(12).reshape(3, 4)
    assert LINE.values(steps).tolist() == [[LINE(step) for step in row] for row in steps.tolist()]
    assert LINE.values(np.asfortranarray(steps)).tolist() == LINE.values(steps).tolist()
    assert LINE.values(np.empty((0, 2), np.int64)).shape == (0, 2)


def test_the_steps_are_only_read():
    steps = np.arange(5)
    steps.flags.writeable = False
    assert LINE.values(steps).flags.writeable
    assert steps.tolist() == [0, 1, 2, 3, 4]


def test_the_array_of_values_can_be_changed():
    LINE.values(3)[:] = 7.0
    Constant(1.0).values(3)[:] = 7.0
    assert LINE.values(3).tolist() == [1.0, 0.75, 0.5]
    assert Constant(1.0).values(3).tolist() == [1.0] * 3


@each("steps", [True, 2.5, None, [1.0], [True], ["1"], "12", [None], np.array([0.5]), 1j], ids=repr)
def test_steps_that_are_no_integers_are_type_errors(steps):
    with pytest.raises(TypeError, match=r"^steps must be"):
        LINE.values(steps)


@each("steps", [-1, [-1], [3, -1], range(-1, 2), np.array([-5]), np.array([2**63], np.uint64)], ids=repr)
def test_steps_out_of_range_are_value_errors(steps):
    with pytest.raises(ValueError, match=r"^steps must be"):
        LINE.values(steps)


def test_a_function_gets_each_step_as_an_int():
    seen = []
    Lambda(lambda step: seen.append(step) or 1.0).values(range(2, 5))
    assert seen == [2, 3, 4]
    assert {type(step) for step in seen} == {int}


@each("edge", [2**53 - 2, 2**53, 2**63 - 2])
def test_values_are_those_of_calls_beyond_exact_floats(edge):
    for schedule in (
        Linear(1.0, 0.0, steps=edge + 2),
        Step(1.0, step_size=edge, gamma=0.5),
        Cyclic(0.0, 1.0, up=edge),
        Cyclic(0.0, 1.0, up=1, down=edge),
        MultiStep(1.0, [edge, edge + 1], gamma=0.5),
        Piecewise([(edge - 1, 1.0), (edge + 2, 0.0)]),
        Constant(1.0).warmup(edge + 2),
        Constant(1.0).then(0.5, at=edge + 1),
        LINE.shift(edge),
        LINE.repeat(period=edge),
        LINE.every(edge),
        LINE.stretch(float(edge)),
        Linear(1.0, 0.0, steps=2 * edge).shift(-edge),
        Noam(1.0, 1).every(edge).shift(-10),
    ):
        steps = [0, 1, 2, edge // 2, edge - 1, edge, edge + 1]
        assert bits(schedule.values(steps)) == called(schedule, steps), schedule
        below = [step for step in steps if step < 2**53]
        assert bits(schedule.values(below)) == called(schedule, below), schedule


def test_values_are_limited_to_the_largest_finite_number():
    grown = Exponential(1.0, gamma=1e10).values(50)
    assert bits(grown) == called(Exponential(1.0, gamma=1e10), range(50))
    assert grown.max() < math.inf
