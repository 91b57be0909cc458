"""The largest value of a schedule, found from bounds of its parts."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings

import lrcore
from lrcore import schedules
from lrcore.schedules import (
    WSD,
    Constant,
    Cosine,
    CosineAnnealing,
    CosineRestarts,
    Cyclic,
    Exponential,
    Lambda,
    Linear,
    ReduceOnPlateau,
    Step,
    Warmup,
)
from support.labels import label
from support.rows import each
from support.schedule_strategies import any_schedule
from support.schedule_tables import MAXIMA, evaluated

FAR = 10**12
FALL = Linear(1.0, 0.0, FAR)


@each("expression, most", MAXIMA)
def test_the_largest_value_is_found_from_few_values(expression, most):
    evaluated_steps = []
    values = schedules.Schedule.values

    def counted(self, steps):
        evaluated_steps.append(len(steps))
        return values(self, steps)

    schedule = evaluated(expression)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedules.Schedule, "values", counted)
        assert schedule.maximum == pytest.approx(most, rel=1e-9)
    assert sum(evaluated_steps) < 200_000


@each(
    "schedule",
    [
        *(Exponential(0.1, 1.1), Exponential(0.1, 1.1) + 1.0, Exponential(0.1, 1.1) * FALL.at_least(0.1)),
        *(Lambda(lambda step: step), Lambda(lambda step: step) * 0.5, Step(0.1, 5, gamma=2.0).warmup(5)),
    ],
    ids=label,
)
def test_an_unknown_maximum_is_an_error(schedule):
    with pytest.raises(
        ValueError, match=r"largest value of .* is not known: values grow without an end, or a function"
    ):
        schedule.maximum  # noqa: B018


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(any_schedule)
def test_the_maximum_is_the_largest_of_all_values(schedule):
    length = schedule.length
    assume(length is not None and length < 20_000)
    most = float(schedule.values(length + 1).max())
    assert schedule.maximum == pytest.approx(most, rel=1e-12)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(any_schedule, any_schedule, any_schedule)
def test_the_maximum_of_a_combination_is_the_largest_of_all_values(a, b, c):
    for schedule in (
        a * b,
        a + b,
        (a * b).at_most(c),
        a.at_least(b) * c,
        a.then(b, at=3000) * c,
        (a + b).repeat(2, 1500),
    ):
        steps = 6000 if schedule.length is None else schedule.length
        assume(steps <= 20_000)
        limited = schedule.then(0.0, at=steps + 1)
        try:
            most = limited.maximum
        except ValueError:
            continue
        assert most == pytest.approx(float(limited.values(steps + 1).max()), rel=1e-11)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(any_schedule, any_schedule)
@example(Constant(1.0), CosineRestarts(2.0**-52, 2.0, end=3.0, decay=0.0))
def test_bounds_hold_for_every_part(a, b):
    for schedule in (a * b, (a + b).stretch(1.7), a.repeat(3, 50).shift(-7), b.every(3).stretch(0.6), a.then(b, at=40)):
        for first, last in ((0, 10), (5, 130), (77, 77), (100, 2000)):
            low, high = schedule._bounds(first, last)
            values = schedule.values(range(first, last + 1))
            assert low - 1e-12 * abs(low) <= values.min()
            assert values.max() <= high + 1e-12 * abs(high)


@each(
    "lr",
    [
        Constant(0.5) * ReduceOnPlateau(factor=0.1), (Cosine(1.0, FAR) * ReduceOnPlateau()).at_least(1e-3),
        FALL.repeat(), Exponential(1.0, 0.999) * Warmup(100), Constant(0.5) + Constant(0.25),
        CosineAnnealing(1.0, 100.0) * 0.5,
    ],
    ids=label,
)  # fmt: skip
def test_independent_decay_works_with_any_schedule(lr):
    weight = np.ones(4)
    opt = lrcore.SGD(weight, lr=lr, weight_decay=0.125, decay="independent")
    opt.step(np.zeros(4))
    assert weight[0] == pytest.approx(1.0 - 0.125 * lr(0) / lr.maximum, rel=1e-12)


@pytest.mark.slow
def test_a_maximum_that_branch_and_bound_does_not_reach_is_bounded_from_above():
    """The cycles pass the other schedule only some 2^53 steps after its end."""
    cycles = Cyclic(low=1e-5, high=0.1, up=2**53, gamma=0.0)
    decaying = WSD(peak=200.0, steps=2**63 + 1, warmup_steps=6000, decay_steps=10**6, shape="cosine") + 1e-3
    above = cycles.at_least(decaying) - decaying
    assert above.maximum >= above(2**63 + 2**53) > 0.09
