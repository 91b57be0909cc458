"""What holds for every schedule, whatever its numbers."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lrcore.schedules import Constant, Cosine, Exponential, Linear, Step

values = st.floats(0.0, 1.7976931348623157e308) | st.floats(0.0, 1.0)
lengths = st.integers(0, 50) | st.integers(0, 10**20)
courses = st.one_of(
    st.builds(Constant, values),
    st.builds(Linear, values, values, lengths),
    st.builds(Cosine, values, lengths, values),
    st.builds(Exponential, values, values),
    st.builds(Step, values, st.integers(1, 100), values),
)


@st.composite
def warmed_up(draw):
    schedule = draw(courses)
    most = 10**6 if schedule.length is None else schedule.length
    return schedule.warmup(draw(st.integers(0, most)))


def steps_of(schedule):
    """Steps at which something happens, in order."""
    length = schedule.length if schedule.length is not None else 100
    near = {0, 1, 2, length // 3, length // 2, length - 2, length - 1, length, length + 1, 2 * length + 5, 10**25}
    return sorted(step for step in near if step >= 0)


@given(courses | warmed_up())
def test_every_value_is_finite_and_not_negative(schedule):
    assert all(0.0 <= schedule(step) < math.inf for step in steps_of(schedule))


@given(values, values, lengths)
@example(0.9, 0.999, 10**17)
@example(0.1, 0.3, 3)
def test_a_course_between_two_values_stays_between_them_and_goes_one_way(start, end, length):
    for schedule in (Linear(start, end, length), Cosine(start, length, end)):
        course = [schedule(step) for step in steps_of(schedule)]
        assert all(min(start, end) <= value <= max(start, end) for value in course), schedule
        assert course in (sorted(course), sorted(course, reverse=True)), schedule
        assert course[0] == (start if length else end), schedule
        assert course[-1] == end, schedule


@given(values, values, st.integers(0, 5000), st.integers(1, 50))
@example(1e-300, 2.0, 1100, 1)
@example(1e300, 0.5, 1100, 1)
def test_a_power_is_the_power_where_it_is_a_number(start, gamma, step, size):
    for schedule, times in ((Exponential(start, gamma), step), (Step(start, size, gamma), step // size)):
        value = schedule(step)
        if start == 0.0 or (gamma == 0.0 and times):
            assert value == 0.0
            continue
        log = math.log(start) + (times * math.log(gamma) if times else 0.0)
        if -700.0 < log < 709.0:
            assert value == pytest.approx(math.exp(log), rel=1e-9)
        elif log >= 710.0:
            assert value == pytest.approx(1.7976931348623157e308, rel=1e-9)


@given(courses, st.integers(1, 1000))
def test_a_warm_up_rises_to_the_first_value_and_never_wastes_a_step(schedule, steps):
    if schedule.length is not None and schedule.length < steps:
        return
    warm, first = schedule.warmup(steps), schedule(0)
    rise = [warm(k) for k in range(steps)]
    assert rise == pytest.approx([first * ((k + 1) / steps) for k in range(steps)])
    assert rise == sorted(rise)
    assert rise[-1] == first
    assert rise[0] > 0.0 or first < 1e-300
    assert warm.length == schedule.length
    if schedule.length is None:
        assert [warm(steps + k) for k in (0, 1, 77)] == [schedule(k) for k in (0, 1, 77)]
    else:
        assert warm(schedule.length) == schedule(schedule.length)


@given(courses | warmed_up())
def test_no_warm_up_changes_nothing(schedule):
    assert [schedule.warmup(0)(step) for step in steps_of(schedule)] == [schedule(step) for step in steps_of(schedule)]
