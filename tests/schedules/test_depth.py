"""Schedules that are combined many times stay small and fast, or are refused with a clear message."""

import copy
import math
import pickle

import numpy as np
import pytest

import lrcore
from lrcore.schedules import (
    Constant,
    Cosine,
    Linear,
    Product,
    ReduceOnPlateau,
    Scaled,
    Schedule,
    Step,
    Sum,
    Warmup,
    concat,
)
from lrcore.schedules.compound import DEEPEST, extent_of
from support.rows import each

LINE = Linear(1.0, 0.0, steps=1000)
MANY = 2000


def again(schedule, edit, times):
    for _ in range(times):
        schedule = edit(schedule)
    return schedule


FOLDED = {
    "* number": (lambda s: s * 0.999, math.prod([0.999] * MANY)),
    "number *": (lambda s: 0.999 * s, math.prod([0.999] * MANY)),
    "scale": (lambda s: s.scale(0.999), math.prod([0.999] * MANY)),
    "* Constant": (lambda s: s * Constant(0.999), math.prod([0.999] * MANY)),
    "+ number": (lambda s: s + 0.25, 1.0 + 0.25 * MANY),
    "number +": (lambda s: 0.25 + s, 1.0 + 0.25 * MANY),
    "- number": (lambda s: s - 0.25, 1.0 - 0.25 * MANY),
    "+ and -": (lambda s: s - 0.5 + 0.25, 1.0 - 0.25 * MANY),
    "falls to a floor": (lambda s: (s * 0.999 - 1e-3).at_least(0.125), 0.125),
    "at_least": (lambda s: s.at_least(1.5), 1.5),
    "at_most": (lambda s: s.at_most(0.5), 0.5),
    "shift": (lambda s: s.shift(3), 1.0),
    "shift back": (lambda s: s.shift(-1).shift(-1), 0.0),
    "shift to and fro": (lambda s: s.shift(3).shift(-3), 1.0),
    "every": (lambda s: s.every(4), 1.0),
    "affine": (lambda s: s * 0.5 + 0.25, 0.5),
    "bounded": (lambda s: (s * 0.9).at_least(0.125).at_most(4.0), 0.125),
    "all": (lambda s: (0.1 + s * 0.5).at_most(0.7).at_least(0.01), 0.2),
}


@pytest.mark.slow
@each("name", FOLDED)
def test_repeated_numbers_are_merged(name):
    edit, expected = FOLDED[name]
    made = again(LINE, edit, MANY)
    assert extent_of(made)[0] <= 6
    assert made(0) == pytest.approx(expected, rel=1e-12)
    assert len(made.to_json()) < 1000


def test_a_factor_is_the_product_of_the_numbers():
    opt = lrcore.SGD(np.ones(2), lr=LINE)
    for _ in range(1000):
        opt.param_groups[0]["lr"] *= 0.999
    assert opt.param_groups[0]["lr"] == Scaled(LINE, math.prod([0.999] * 1000))
    assert opt.lr == math.prod([0.999] * 1000)


def test_a_schedule_with_a_metric_factor_is_merged_too():
    opt = lrcore.SGD(np.ones(2), lr=LINE * ReduceOnPlateau(0.5, patience=0))
    for _ in range(300):
        opt.param_groups[0]["lr"] *= 0.999
        opt.param_groups[0]["lr"] += 0.001
    opt.report(1.0)
    assert opt.report(1.0) is True
    assert extent_of(opt.param_groups[0]["lr"])[0] <= 6


def test_factors_whose_product_overflows_are_not_merged():
    assert (LINE * 1e-200 * 1e-200 * 1e300)(0) == pytest.approx(1e-100)
    assert (Constant(1e-300) * 1e200 * 1e200)(0) == pytest.approx(1e100)
    assert again(LINE, lambda s: s * 0.5, 10**4)(0) == 0.0
    assert again(LINE, lambda s: s * 2.0, 10**4)(0) == np.finfo(float).max


def test_equal_time_transforms_are_merged():
    assert LINE.repeat(3).repeat(2) == LINE.repeat(6)
    assert LINE.repeat(3).repeat() == LINE.repeat()
    assert LINE.stretch(2).stretch(3) == LINE.stretch(6)
    assert LINE.stretch(1.1).stretch(1.1) != LINE.stretch(1.1 * 1.1)
    assert LINE.every(3).every(6) == LINE.every(6)
    assert LINE.every(6).every(4) != LINE.every(4)
    assert LINE.shift(-3).shift(5) != LINE.shift(2)


def test_few_numbers_stay_as_they_were_written():
    assert repr((LINE + 0.5) * 2.0) == f"({LINE!r} + Constant(value=0.5)) * 2.0"
    assert Sum(Sum(LINE, Constant(1.0)), Constant(2.0)) == Sum(LINE, Constant(3.0))
    assert Product(Constant(3.0), Product(Constant(2.0), LINE)) == Product(Constant(6.0), LINE)


DEEP = {
    "then": lambda s: s.then(0.1),
    "cooldown": lambda s: s.cooldown(1),
    "stretch": lambda s: s.stretch(1.1),
    "product": lambda s: s * Warmup(3),
    "sum": lambda s: s + Step(0.1, step_size=5),
    "difference": lambda s: s - Step(0.1, step_size=5),
    "limits": lambda s: s.at_least(Step(0.1, step_size=5)),
    "to and fro": lambda s: s.shift(-1).shift(1).every(2),
    "repeat": lambda s: s.then(0.1).repeat(1),
}


@each("name", DEEP)
def test_deep_nesting_works_or_is_refused(name):
    made, edit = LINE, DEEP[name]
    while extent_of(made)[0] <= DEEPEST - 3:
        made = edit(made)
    with pytest.raises(ValueError, match=f"schedules can be nested {DEEPEST} deep, got {DEEPEST + 1}"):
        again(made, edit, MANY)
    assert extent_of(made)[0] > DEEPEST - 4
    text = made.to_json()
    for other in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made), Schedule.from_json(text)):  # noqa: S301
        assert other == made
        assert hash(other) == hash(made)
        assert repr(other) == repr(made)
        assert extent_of(other)[0] == extent_of(made)[0]
    assert made.values(50).tolist() == [made(k) for k in range(50)]
    assert made.length is None or made.length > 0
    assert made.preview(50)
    is_deepest = extent_of(made)[0] == DEEPEST
    lrcore.SGD(np.ones(2), lr=made if is_deepest else made * ReduceOnPlateau())
    deeper = pickle.loads(pickle.dumps(made))  # noqa: S301
    with pytest.raises(ValueError, match="can be nested 100 deep"):
        again(deeper, edit, 5)


def test_chained_warmups_take_no_exponential_time():
    made = again(Cosine(1.0, steps=10**6), lambda s: s.warmup(10), 25)
    assert made(10**6) == 0.0
    assert made(249) == made(250) == 1.0
    assert made(0) == pytest.approx(0.1**25)
    assert made.values(300).tolist() == [made(k) for k in range(300)]
    for other in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made), copy.copy(made)):  # noqa: S301
        assert other == made
        assert other.values(300).tolist() == made.values(300).tolist()
    assert len(pickle.dumps(made)) < 4000


def test_as_many_chained_warmups_as_are_allowed_are_built_at_once():
    made = again(Cosine(1.0, steps=10**6), lambda s: s.warmup(10), DEEPEST - 1)
    assert made(10**6) == 0.0
    assert made(990) == 1.0
    with pytest.raises(ValueError, match="can be nested 100 deep"):
        made.warmup(10)


def test_a_schedule_that_is_doubled_again_and_again_stays_small():
    made = again(LINE, lambda s: s + s, 60)
    assert made == LINE * 2.0**60
    assert [made(k) for k in (0, 250, 999)] == [LINE(k) * 2.0**60 for k in (0, 250, 999)]
    for twice in (LINE.at_least(LINE), LINE.at_most(LINE)):
        assert twice is LINE


@each("edit", [lambda s: s * s, lambda s: s.then(s), lambda s: Sum(s, s)], ids=["*", "then", "Sum"])
def test_a_schedule_of_too_many_parts_is_refused(edit):
    with pytest.raises(ValueError, match="a schedule may have 1,000,000 parts, got 1,048,575"):
        again(LINE, edit, 60)


def test_a_warmup_that_does_not_fit_is_refused_at_once():
    with pytest.raises(ValueError, match="warm"):
        Linear(1.0, 0.0, steps=10).warmup(6).warmup(6)
    with pytest.raises(ValueError, match="warm"):
        (Linear(1.0, 0.0, steps=10).warmup(6) * Constant(2.0)).warmup(6)


def test_many_schedules_in_sequence_are_not_deep():
    made = concat([Linear(1.0, 0.0, steps=2)] * 2000)
    assert made.length == 4000
    assert extent_of(made)[0] < 15


def test_a_schedule_is_divided_by_a_number():
    assert LINE / 2 == LINE * 0.5
    assert (LINE / np.array(4.0))(0) == 0.25
    assert again(LINE, lambda s: s / 1.001, 1000)(0) == pytest.approx(1.001**-1000, rel=1e-12)
    for divisor in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"^/: the divisor must be in \(0, inf\), got "):
            LINE / divisor
    with pytest.raises(TypeError, match=r"^/: the divisor must be a number, got Linear"):
        LINE / LINE


def test_a_chain_that_overflows_and_is_multiplied_by_zero_keeps_its_value():
    chain = ((Linear(1.0, 0.0, 4) + 1.7976931348623157e308) * 2).at_most(5.0) * 0 + 1
    assert [chain(step) for step in range(6)] == [1.0] * 6
