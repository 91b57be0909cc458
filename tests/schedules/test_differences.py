"""Differences of schedules; negative values are refused where they are used."""

import pickle
import re

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from lrcore.schedules import AdaScale, Constant, Cosine, CosineAnnealing, Difference, Linear, ReduceOnPlateau, Schedule
from lrcore.schedules.expression import evaluate
from support.rows import each

A = Cosine(1.0, steps=100)
B = Linear(0.0, 0.5, steps=80).warmup(10)
C = CosineAnnealing(0.3, period=7.5)

CASES = [
    *(A - B, A - 2, 2 - A, np.float32(2) - A, A - np.array(2.0), -A, +A, -(A - B), -(0 - A), A - B - C, A - (B - C)),
    *(A - B + C, A + (B - C), (A - B) * 0.5, 0.5 * (A - B), (A - B) / 2, (A - B) * (B - A), A - 1 - 2, A - B - 1 - C),
    *((A - B).at_least(0), (B - A).at_most(C), (A - B).shift(3), (A - B).stretch(1.5), (A - B).repeat(2, 50)),
    *(
        (A - B).every(4),
        (A - B).warmup(5),
        (C - A).then(B - A, at=30),
        1 - schedules.Warmup(10),
        C - CosineAnnealing(0.2, 3),
    ),
    *((A * 0.5 - C).cooldown(5, at=20), Constant(1e308) * -(0 - Constant(100.0)), -(Constant(1e308) * 100.0) - A),
]


@each("schedule", CASES, ids=repr)
def test_a_difference_works_like_any_schedule(schedule):
    values = schedule.values(300)
    assert np.isfinite(values).all()
    assert values.tolist() == [schedule(step) for step in range(300)]
    assert schedule.maximum == pytest.approx(float(schedule.values(2000).max()), rel=1e-12)
    for first, last in ((0, 10), (5, 130), (77, 77), (0, 299)):
        low, high = schedule._bounds(first, last)
        part = values[first : last + 1]
        assert low - 1e-12 * abs(low) <= part.min() <= part.max() <= high + 1e-12 * abs(high)
    for other in (
        pickle.loads(pickle.dumps(schedule)),  # noqa: S301
        Schedule.from_json(schedule.to_json()),
        eval(repr(schedule), vars(schedules) | {name: getattr(schedules, name) for name in schedules.__all__}),  # noqa: S307
        evaluate(repr(schedule)),
    ):
        assert other == schedule
        assert hash(other) == hash(schedule)
        assert other.values(300).tolist() == values.tolist()
    assert schedule.length is None or len(set(schedule.values(range(schedule.length, schedule.length + 50)))) == 1


def test_values_are_those_of_the_formula():
    a, b = A.values(150), B.values(150)
    for schedule, expected in (
        *((A - B, a - b), (A - 2, a - 2.0), (2 - A, 2.0 - a), (-A, -a), (A - B - A, a - b - a)),
        (A - (B - A), a - (b - a)),
        *((-(A - B), b - a), ((A - B) * (B - A), (a - b) * (b - a)), ((A - B).at_least(0), np.maximum(a - b, 0.0))),
    ):  # fmt: skip
        np.testing.assert_array_equal(schedule.values(150), expected)
    assert (A - B).length == 100
    assert (A - C).length is None
    assert repr(A - B) == f"{A!r} - {B!r}"
    assert A - 1 - 2 == A - 3


def test_a_metric_factor_can_be_subtracted():
    opt = lrcore.SGD(np.ones(2), lr=1.0 - 0.5 * ReduceOnPlateau(0.5, patience=0))
    assert opt.lr == 0.5
    opt.report(1.0)
    assert opt.report(1.0)
    assert opt.hyperparameters()[0]["lr"] == 0.75
    assert not (1.0 - AdaScale())._is_factor


def test_a_preview_rises_from_the_least_value():
    assert (Linear(1, 0, 8) - 0.5).preview(9) == "██▇▆▅▄▃▂▁  0 … 8: 0.5 → -0.5, largest 0.5, drawn from -0.5"
    assert (-Constant(2.0)).preview(3) == "▁▁▁  0 … 2: -2 → -2, largest -2, drawn from -2"


@each("make", [lambda lr: lrcore.SGD(np.ones(2), lr=lr), lambda lr: lrcore.Adam(np.ones(2), lr=lr)])
def test_an_optimizer_refuses_a_value_below_0_at_its_step(make):
    opt = make(0.1 - Linear(0.0, 0.2, steps=2))
    for _ in range(2):
        opt.step(np.ones(2))
    before = opt.params.copy() if isinstance(opt.params, np.ndarray) else None
    with pytest.raises(ValueError, match=re.escape("lr must be in [0, inf), got -0.1 from ")):
        opt.step(np.ones(2))
    assert before is None or (opt.params == before).all()


def test_negative_values_are_named_where_they_are_refused():
    with pytest.raises(
        ValueError, match=r"^cooldown: the value at step 90, where the decay begins, must be in \[0, inf"
    ):
        (A - 0.5).cooldown(10)


def test_conversions_refuse_negative_values():
    from lrcore.schedules.interop import table_of

    with pytest.raises(ValueError, match=r"^to_optax: a value must be in \[0, inf\), got -0.5 at step 100"):
        table_of("to_optax", A - 0.5, None)
    torch = pytest.importorskip("torch")
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = schedules.to_torch(0.1 - Linear(0.0, 0.2, steps=2), opt)
    opt.step()
    scheduler.step()
    with pytest.raises(ValueError, match=r"^ScheduleLR: lr at step 2 must be in \[0, inf\), got -0.1"):
        scheduler.step()


def test_operands_can_be_any_schedule():
    assert Difference(A, B) == A - B
    with pytest.raises(TypeError, match="Difference: b must be a schedule, got 1"):
        Difference(A, 1)
