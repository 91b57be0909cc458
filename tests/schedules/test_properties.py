"""Properties of every schedule, on random compositions."""

import math

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lrcore import schedules
from lrcore.schedules import REX, Constant, Cosine, Exponential, Linear, LogLinear, Polynomial, Sqrt, Step, Tanh, Warmup
from support.schedule_strategies import (
    COMBINATIONS,
    LEAVES,
    any_schedule,
    interesting_steps,
    lengths,
    positive,
    some,
    values,
)

huge = st.floats(0.0, 1.7976931348623157e308) | values


def test_random_schedules_cover_every_class_with_json():
    assert LEAVES.keys() | COMBINATIONS.keys() == set(schedules.CLASSES) - {"Lambda"}


@some
@given(any_schedule)
def test_every_value_is_finite_and_not_negative(schedule):
    taken = [schedule(step) for step in interesting_steps(schedule)]
    assert all(type(value) is float for value in taken)
    assert all(0.0 <= value < math.inf for value in taken)


@some
@given(any_schedule)
def test_every_schedule_has_a_value_at_steps_beyond_float64(schedule):
    assert 0.0 <= schedule(10**400) < math.inf


@some
@given(any_schedule)
def test_from_its_length_on_the_value_stays(schedule):
    assume(schedule.length is not None)
    # What follows a warm-up is fitted by a float, which has no step of its own for each of more.
    assume(schedule.length < 2**50 or "warmup" not in repr(schedule))
    assert len({schedule(schedule.length + k) for k in (0, 1, 2, 17, 10**6, 10**30)}) == 1


@some
@given(any_schedule)
def test_a_schedule_is_pure(schedule):
    steps = interesting_steps(schedule)
    forward = [schedule(step) for step in steps]
    assert [schedule(step) for step in reversed(steps)] == forward[::-1]


@some
@given(any_schedule)
def test_the_largest_value_bounds_every_value(schedule):
    try:
        largest = schedule.maximum
    except ValueError:
        return
    assert all(schedule(step) <= largest * (1.0 + 1e-12) for step in interesting_steps(schedule))


ramps = st.sampled_from(
    [
        Linear,
        lambda start, end, steps: Polynomial(start, steps, end, power=2.5),
        lambda start, end, steps: Cosine(start, steps, end),
        lambda start, end, steps: Cosine(start, steps, end, power=0.5, k=2.0),
        lambda start, end, steps: Tanh(start, steps, end),
        lambda start, end, steps: REX(start, steps, end),
        lambda start, end, steps: Sqrt(start, steps, end),
        lambda start, end, steps: LogLinear(start or 1.0, end or 1.0, steps),
    ]
)


@some
@given(ramps, huge, huge, lengths | st.integers(0, 10**20))
@example(Linear, 0.9, 0.999, 10**17)
@example(Linear, 0.1, 0.3, 3)
def test_an_interpolation_is_monotone_between_its_values(make, start, end, length):
    schedule = make(start, end, length)
    start, end = schedule.start, schedule.end
    taken = [schedule(step) for step in interesting_steps(schedule)]
    assert all(min(start, end) <= value <= max(start, end) for value in taken)
    assert taken in (sorted(taken), sorted(taken, reverse=True))
    assert taken[0] == (start if length and not isinstance(schedule, Tanh) else taken[0])
    assert taken[-1] == end
    assert schedule.maximum == max(taken)


@some
@given(huge, huge, st.integers(0, 5000), st.integers(1, 50))
@example(1e-300, 2.0, 1100, 1)
@example(1e300, 0.5, 1100, 1)
def test_a_power_is_exact_where_it_does_not_overflow(start, gamma, step, size):
    for schedule, times in ((Exponential(start, gamma), step), (Step(start, size, gamma), step // size)):
        value = schedule(step)
        if start == 0.0 or (gamma == 0.0 and times):
            assert value == 0.0 if times else value == start
            continue
        log = math.log(start) + (times * math.log(gamma) if times else 0.0)
        if -700.0 < log < 709.0:
            assert value == pytest.approx(math.exp(log), rel=1e-9)
        elif log >= 710.0:
            assert value == pytest.approx(1.7976931348623157e308, rel=1e-9)


@some
@given(values, st.floats(0.0, 0.999999), positive, st.integers(0, 10**6))
def test_a_factor_below_one_never_raises_the_value(start, gamma, steps, step):
    schedule = Exponential(start, gamma, steps)
    assert schedule(step) >= schedule(step + 1) >= schedule(2 * step + 2)
    assert schedule.maximum == schedule(0) == start


@some
@given(any_schedule, st.integers(1, 200))
def test_a_warmup_rises_to_the_first_value_from_above_zero(schedule, steps):
    assume(schedule.length is None or schedule.length >= steps)
    try:
        warm = schedule.warmup(steps)
    except ValueError:
        return
    first = schedule(0)
    rise = [warm(k) for k in range(steps)]
    assert rise == pytest.approx([first * ((k + 1) / steps) for k in range(steps)])
    assert rise == sorted(rise)
    assert rise[-1] == first
    assert rise[0] > 0.0 or first < 1e-300
    assert warm.length == schedule.length
    if schedule.length is None:
        assert [warm(steps + k) for k in (0, 1, 77)] == [schedule(k) for k in (0, 1, 77)]
    elif schedule.length < 2**50:
        assert warm(schedule.length) == pytest.approx(schedule(schedule.length), rel=1e-12, abs=1e-300)


@some
@given(ramps, values, values, st.integers(1, 300), st.data())
def test_a_schedule_after_a_warmup_keeps_its_first_and_last_value(make, start, end, length, data):
    schedule = make(start, end, length)
    steps = data.draw(st.integers(0, length - 1))
    warm = schedule.warmup(steps)
    assert warm(steps) == schedule(0)
    assert warm.length == length
    assert [warm(length + k) for k in (0, 1, 99)] == [schedule.end] * 3


@some
@given(any_schedule, st.sampled_from(["linear", "cosine", "exponential"]), values, st.integers(1, 60))
def test_a_warmup_of_any_shape_is_monotone(schedule, shape, start, steps):
    assume(schedule.length is None or schedule.length >= steps)
    try:
        warm = schedule.warmup(steps, start, shape)
    except ValueError:
        return
    rise = [start, *(warm(k) for k in range(steps))]
    assert rise == sorted(rise, reverse=start > schedule(0))
    assert rise[-1] == schedule(0)


@some
@given(any_schedule)
def test_a_warmup_or_cooldown_of_0_steps_changes_nothing(schedule):
    steps = interesting_steps(schedule)
    expected = [schedule(step) for step in steps]
    assert [schedule.warmup(0)(step) for step in steps] == expected
    if schedule.length is not None:
        assert [schedules.WithCooldown(schedule, 0)(step) for step in steps] == expected


@some
@given(any_schedule, st.integers(1, 60), values, st.sampled_from(["linear", "cosine", "sqrt"]), st.integers(0, 100))
def test_a_cooldown_is_monotone_from_the_present_value_to_its_end(schedule, steps, end, shape, at):
    cool = schedules.WithCooldown(schedule, steps, end, shape, at)
    reached = schedule(at)
    assert [cool(step) for step in range(at)] == [schedule(step) for step in range(at)]
    fall = [cool(at + k) for k in range(steps + 1)]
    assert fall[0] == reached
    assert fall[-1] == end == cool(at + steps + 1000)
    assert fall == sorted(fall, reverse=reached > end)
    assert cool.length == at + steps


@some
@given(any_schedule, any_schedule, st.integers(0, 100))
def test_the_second_schedule_starts_at_its_step_0(first, second, at):
    joined = first.then(second, at=at)
    steps = interesting_steps(joined)
    assert [joined(step) for step in steps] == [first(step) if step < at else second(step - at) for step in steps]


@some
@given(any_schedule, any_schedule, values)
def test_sums_products_and_limits_are_those_of_the_values(a, b, number):
    for step in interesting_steps(a):
        x, y = a(step), b(step)
        assert (a * b)(step) == x * y
        assert (a + b)(step) == x + y
        # Numbers of one operation are merged, which rounds once in place of twice.
        assert (a * number)(step) == (number * a)(step) == a.scale(number)(step)
        assert (a * number)(step) == pytest.approx(x * number, rel=1e-14)
        assert [(a + number)(step), (number + a)(step)] == pytest.approx([x + number] * 2, rel=1e-14)
        assert a.at_least(b)(step) == max(x, y)
        assert a.at_most(number)(step) == min(x, number)


@some
@given(any_schedule, st.integers(-60, 60), st.integers(1, 60), st.integers(1, 9))
def test_time_transforms_have_their_formulas(schedule, delay, steps, times):
    period = schedule.length or 7
    for step in interesting_steps(schedule):
        assert schedule.shift(delay)(step) == schedule(max(step - delay, 0))
        assert schedule.every(steps)(step) == schedule(step - step % steps)
        assert schedule.repeat(period=period)(step) == schedule(step % period)
        within = step % period if step < times * period else period
        assert schedule.repeat(times, period)(step) == schedule(within)
        if 2**50 < step < 2**53:
            continue  # the step within is a float, and what is near its last whole numbers may be rounded
        # The step within is the same number, but rounded elsewhere for long schedules.
        assert schedule.stretch(float(steps))(step * steps) == pytest.approx(schedule(step), rel=1e-9, abs=1e-12)
        held = schedules.per_epoch(schedule, steps)
        assert held(step) == pytest.approx(schedule(step // steps), rel=1e-9, abs=1e-12)


@some
@given(any_schedule, lengths)
def test_a_warmup_factor_only_multiplies(schedule, steps):
    product = Warmup(steps) * schedule
    for step in interesting_steps(schedule):
        assert product(step) == pytest.approx(schedule(step) * min(1.0, (step + 1) / steps if steps else 1.0))


@some
@given(values, lengths)
def test_a_number_in_place_of_a_schedule_is_a_constant(number, step):
    assert Constant(1.0).then(number, at=0)(step) == Constant(number)(step) == number
