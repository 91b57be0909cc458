"""The largest value of a schedule is composed from its parts, whatever their length."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings

import lrcore
from lrcore import schedules
from lrcore.schedules import (
    WSD,
    AdaScale,
    Chebyshev,
    Constant,
    Cosine,
    CosineAnnealing,
    CosineRestarts,
    Cyclic,
    Exponential,
    InverseSqrt,
    InverseTime,
    Lambda,
    Linear,
    Noam,
    OneCycle,
    Piecewise,
    ReduceOnPlateau,
    Step,
    Table,
    Warmup,
)
from support.labels import label
from support.schedule_strategies import courses

FAR = 10**12
FALL, RISE = Linear(1.0, 0.0, FAR), Linear(0.0, 1.0, FAR)

KNOWN = [
    (Constant(0.5) * 0.5, 0.25),
    (Constant(0.5) * ReduceOnPlateau(), 0.5),
    (FALL * ReduceOnPlateau(), 1.0),
    ((FALL * AdaScale()).at_least(0.5), 1.0),
    (Exponential(0.5, 0.9) * Warmup(1), 0.5),
    (InverseSqrt(1.0, 100.0).warmup(FAR), 1.0),
    (FALL + RISE, 1.0),
    (FALL * RISE, 0.25),
    (RISE * RISE + FALL * 2.0, 2.0),
    (RISE.repeat(), 1.0 - 1.0 / FAR),
    (RISE.repeat(3), 1.0),
    (FALL.repeat(10**6, period=10), 1.0),
    (RISE.stretch(3.3), 1.0),
    (RISE.stretch(0.3), 1.0),
    (RISE.every(7), 1.0),
    (RISE.then(0.25), 1.0 - 1.0 / FAR),
    (RISE.then(0.25, at=FAR // 2).then(RISE), 1.0),
    (RISE.then(0.25, at=0.5), 0.5 - 1.0 / FAR),
    (FALL.shift(-(FAR // 2)), 0.5),
    (FALL.shift(FAR), 1.0),
    (Cosine(1.0, FAR).cooldown(FAR // 2), 1.0),
    (WSD(0.5, FAR, FAR // 4, FAR // 4) * 2.0, 1.0),
    (OneCycle(2.0, FAR) * 0.5, 1.0),
    (CosineAnnealing(1.0, 10.0) * Exponential(1.0, 0.5), 1.0),
    (CosineAnnealing(1.0, 1000.0).shift(-500), 1.0),
    (CosineRestarts(1.0, 10.0, decay=0.5, factor=1.5).warmup(5), 1.0),
    (Cyclic(0.1, 1.0, up=FAR) * Exponential(1.0, 1.0), 1.0),
    (Cyclic(0.0, 1.0, up=10**6, mode="triangular2").shift(-(3 * 10**6)), 0.25 * 2),
    (Cyclic(0.0, 1.0, up=1, down=2**63, mode="exp_range", gamma=0.1).then(0.0, at=6001), 0.1),
    (Noam(512, 10**9) * 2.0, 2.0 / math.sqrt(512 * 10**9)),
    (Exponential(0.1, 1.1).at_most(0.5), 0.5),
    (Exponential(0.1, 1.1) * 0.0, 0.0),
    (InverseTime(1.0, 1.0) + Step(0.5, 10), 1.5),
    (Piecewise([(0, 0.1), (FAR // 3, 2.0), (FAR, 0.0)]) * 0.5, 1.0),
    (Table([0.1, 0.9, 0.3]).stretch(10.0**9), 0.9),
    (Chebyshev(0.1, 1.0, 2**40, "rising"), 10.0),
    (schedules.per_epoch(FALL, 1000), 1.0),
    (Lambda(lambda step: step % 7, steps=50) * FALL, 6.0),
    (Lambda(lambda step: step % 7, steps=50).repeat() * 0.5, 3.0),
    (Lambda(lambda step: step, steps=50).repeat(), 49.0),
    (Lambda(lambda step: step, steps=50).repeat(10**12), 50.0),
    (FALL.warmup(10**400 // 10**390), 1.0),
    (Constant(1.0).warmup(10**400), 1.0),
]


@pytest.mark.parametrize(("schedule", "most"), KNOWN, ids=[label(row[0])[:80] for row in KNOWN])
def test_the_largest_value_is_composed(schedule, most, monkeypatch):
    evaluated = []
    values = schedules.Schedule.values

    def counted(self, steps):
        evaluated.append(len(steps))
        return values(self, steps)

    monkeypatch.setattr(schedules.Schedule, "values", counted)
    assert schedule.maximum == pytest.approx(most, rel=1e-9)
    assert sum(evaluated) < 200_000


@pytest.mark.parametrize(
    "schedule",
    [
        *(Exponential(0.1, 1.1), Exponential(0.1, 1.1) + 1.0, Exponential(0.1, 1.1) * FALL.at_least(0.1)),
        *(Lambda(lambda step: step), Lambda(lambda step: step) * 0.5, Step(0.1, 5, gamma=2.0).warmup(5)),
    ],
    ids=label,
)
def test_where_there_is_none_it_says_so(schedule):
    with pytest.raises(
        ValueError, match=r"largest value of .* is not known: values grow without an end, or a function"
    ):
        schedule.maximum  # noqa: B018


@settings(max_examples=300, deadline=None)
@given(courses)
def test_it_is_the_largest_of_all_values(schedule):
    length = schedule.length
    assume(length is not None and length < 20_000)
    most = float(schedule.values(length + 1).max())
    assert schedule.maximum == pytest.approx(most, rel=1e-12)


@settings(max_examples=300, deadline=None)
@given(courses, courses, courses)
def test_it_is_the_largest_of_all_values_of_a_combination(a, b, c):
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


@settings(max_examples=200, deadline=None)
@given(courses, courses)
def test_bounds_hold_for_every_part(a, b):
    for schedule in (a * b, (a + b).stretch(1.7), a.repeat(3, 50).shift(-7), b.every(3).stretch(0.6), a.then(b, at=40)):
        for first, last in ((0, 10), (5, 130), (77, 77), (100, 2000)):
            low, high = schedule._bounds(first, last)
            values = schedule.values(range(first, last + 1))
            assert low - 1e-12 * abs(low) <= values.min()
            assert values.max() <= high + 1e-12 * abs(high)


@pytest.mark.parametrize(
    "lr",
    [
        Constant(0.5) * ReduceOnPlateau(factor=0.1), (Cosine(1.0, FAR) * ReduceOnPlateau()).at_least(1e-3),
        FALL.repeat(), Exponential(1.0, 0.999) * Warmup(100), Constant(0.5) + Constant(0.25),
        CosineAnnealing(1.0, 100.0) * 0.5,
    ],
    ids=label,
)  # fmt: skip
def test_independent_decay_works_with_any(lr):
    weight = np.ones(4)
    opt = lrcore.SGD(weight, lr=lr, weight_decay=0.125, decay="independent")
    opt.step(np.zeros(4))
    assert weight[0] == pytest.approx(1.0 - 0.125 * lr(0) / lr.maximum, rel=1e-12)
