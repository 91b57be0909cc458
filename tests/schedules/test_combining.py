"""Combinations of schedules: in sequence, by arithmetic, by limits, and by changes of time."""

import math
from itertools import islice

import numpy as np
import pytest

from lrcore.schedules import (
    REX,
    WSD,
    Chebyshev,
    Constant,
    Cosine,
    CosineAnnealing,
    CosineRestarts,
    Cyclic,
    Exponential,
    InverseSqrt,
    Lambda,
    Linear,
    MultiStep,
    Noam,
    OneCycle,
    Piecewise,
    ReduceOnPlateau,
    Sqrt,
    Step,
    Table,
    Tanh,
    Warmup,
    concat,
    per_epoch,
    steps_in,
    untuned,
)
from support.labels import label
from support.rows import each

ONE, HALVES = Constant(1.0), Exponential(1.0, gamma=0.5)
FALL, RISE = Linear(1.0, 0.0, steps=4), Linear(0.0, 1.0, steps=4)

# A schedule, its value at steps 0, 1, 2, …, and its length.
EXPECTED = [
    (ONE.warmup(4), [0.25, 0.5, 0.75, 1.0, 1.0, 1.0], None),
    (ONE.warmup(1), [1.0, 1.0], None),
    (ONE.warmup(0), [1.0, 1.0], None),
    (Linear(1.0, 0.0, steps=6).warmup(2), [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0], 6),
    (Linear(1.0, 0.0, steps=2).warmup(2), [0.5, 1.0, 0.0, 0.0], 2),
    (Linear(1.0, 0.0, steps=0).warmup(0), [0.0, 0.0], 0),
    (RISE.warmup(2), [0.0, 0.0, 0.0, 0.5, 1.0], 4),
    (Cosine(1.0, steps=4).warmup(2), [0.5, 1.0, 1.0, 0.5, 0.0, 0.0], 4),
    (Cosine(1.0, steps=4).warmup(0.5), [0.5, 1.0, 1.0, 0.5, 0.0, 0.0], 4),
    (Step(1.0, step_size=2, gamma=0.5).warmup(2), [0.5, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25], None),
    (HALVES.warmup(2), [0.5, 1.0, 1.0, 0.5, 0.25], None),
    (ONE.warmup(2).warmup(2), [0.25, 0.5, 0.5, 1.0, 1.0], None),
    (Linear(1.0, 0.0, steps=8).warmup(2).warmup(2), [0.25, 0.5, 0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0], 8),
    (ONE.warmup(4, start=0.2), [0.4, 0.6, 0.8, 1.0, 1.0], None),
    (ONE.warmup(2, start=3.0), [2.0, 1.0, 1.0], None),
    (ONE.warmup(2, shape="cosine"), [0.5, 1.0, 1.0], None),
    (
        ONE.warmup(3, 0.5, "exponential"),
        [0.5 + 0.5 * (1 - math.exp(-k / 3)) / (1 - math.exp(-1)) for k in (1, 2)] + [1.0, 1.0],
        None,
    ),
    (MultiStep(1.0, [3, 4], gamma=0.5).warmup(2), [0.5, 1.0, 1.0, 0.5, 0.25], 4),
    (Piecewise([(2, 1.0), (4, 0.0)]).warmup(2), [0.5, 1.0, 1.0, 0.5, 0.0], 4),
    (WSD(1.0, steps=6, decay_steps=2).warmup(3), [1 / 3, 2 / 3, 1.0, 1.0, 1.0, 0.5, 0.0], 6),
    ((ONE + 0.5).warmup(3), [0.5, 1.0, 1.5, 1.5], None),
    ((Constant(0.1) * ReduceOnPlateau()).warmup(2), [0.05, 0.1, 0.1], None),
    (ONE.at_least(0.5).warmup(2), [0.5, 1.0, 1.0], None),
    ((Linear(1.0, 0.0, steps=6) * 2.0).warmup(2), [1.0, 2.0, 2.0, 1.5, 1.0, 0.5, 0.0], 6),
    ((Linear(1.0, 0.0, steps=6) * FALL).warmup(2), [0.5, 1.0, 1.0, 0.5625, 0.25, 0.0625, 0.0], 6),
    (Linear(1.0, 0.5, steps=10).cooldown(2), [1 - t / 20 for t in range(9)] + [0.3, 0.0, 0.0], 10),
    (FALL.cooldown(0.5, end=0.25), [1.0, 0.75, 0.5, 0.375, 0.25, 0.25], 4),
    (ONE.cooldown(4, at=1, shape="sqrt"), [1.0, 1.0, 0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75), 0.0], 5),
    (ONE.cooldown(2, at=1, shape="cosine", end=0.5), [1.0, 1.0, 0.75, 0.5, 0.5], 3),
    (FALL.cooldown(2, at=0.25), [1.0, 0.75, 0.375, 0.0, 0.0], 3),
    (FALL.cooldown(0), [1.0, 0.75, 0.5, 0.25, 0.0], 4),
    (FALL.cooldown(4, end=2.0), [1.0, 1.25, 1.5, 1.75, 2.0, 2.0], 4),
    (ONE.warmup(2).cooldown(2, at=3), [0.5, 1.0, 1.0, 1.0, 0.5, 0.0], 5),
    (RISE.then(FALL), [0.0, 0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0], 8),
    (RISE.then(FALL, at=2), [0.0, 0.25, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0], 6),
    (RISE.then(HALVES, at=0.5), [0.0, 0.25, 1.0, 0.5, 0.25], None),
    (RISE.then(0.5), [0.0, 0.25, 0.5, 0.75, 0.5, 0.5], 4),
    (ONE.then(FALL, at=6).then(2.0), [1.0] * 7 + [0.75, 0.5, 0.25, 2.0, 2.0], 10),
    (RISE.then(FALL, at=0), [1.0, 0.75, 0.5, 0.25, 0.0], 4),
    (concat([RISE, FALL, 0.5]), [0.0, 0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25, 0.5, 0.5], 8),
    (concat([Linear(1.0, 0.0, steps=0), 0.5]), [0.5, 0.5], 0),
    (concat([FALL]), [1.0, 0.75], 4),
    (FALL * 0.5, [0.5, 0.375, 0.25, 0.125, 0.0], 4),
    (2 * FALL, [2.0, 1.5, 1.0, 0.5, 0.0], 4),
    (FALL.scale(0), [0.0, 0.0], 4),
    (np.float32(0.5) * FALL, [0.5, 0.375, 0.25, 0.125, 0.0], 4),
    (FALL * RISE, [0.0, 0.1875, 0.25, 0.1875, 0.0, 0.0], 4),
    (FALL * HALVES, [1.0, 0.375, 0.125, 0.03125, 0.0], None),
    (FALL + RISE, [1.0] * 6, 4),
    (FALL + 1, [2.0, 1.75, 1.5, 1.25, 1.0], 4),
    (0.5 + FALL, [1.5, 1.25, 1.0, 0.75, 0.5], 4),
    (FALL + Linear(1.0, 0.0, steps=2), [2.0, 1.25, 0.5, 0.25, 0.0], 4),
    (FALL.at_least(0.3), [1.0, 0.75, 0.5, 0.3, 0.3], 4),
    (FALL.at_least(RISE), [1.0, 0.75, 0.5, 0.75, 1.0], 4),
    (FALL.at_most(0.6), [0.6, 0.6, 0.5, 0.25, 0.0], 4),
    (FALL.at_most(RISE), [0.0, 0.25, 0.5, 0.25, 0.0], 4),
    (FALL.shift(2), [1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0], 6),
    (FALL.shift(-2), [0.5, 0.25, 0.0, 0.0], 2),
    (FALL.shift(-9), [0.0, 0.0], 0),
    (FALL.shift(0), [1.0, 0.75], 4),
    (FALL.stretch(2), [1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0, 0.0], 8),
    (FALL.stretch(0.5), [1.0, 0.5, 0.0], 2),
    (FALL.stretch(0.1), [1.0, 0.0, 0.0], 1),
    (Table([3, 2, 1]).stretch(1.5), [3.0, 3.0, 2.0, 1.0, 1.0, 1.0], 5),
    (Step(1.0, 2, gamma=0.5).stretch(1.5), [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25], None),
    (FALL.repeat(), [1.0, 0.75, 0.5, 0.25] * 3, None),
    (FALL.repeat(2), [1.0, 0.75, 0.5, 0.25, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0], 8),
    (FALL.repeat(2, period=2), [1.0, 0.75, 1.0, 0.75, 0.5, 0.5], 4),
    (FALL.repeat(period=6), [1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 1.0], None),
    (HALVES.repeat(1, period=2), [1.0, 0.5, 0.25, 0.25], 2),
    (FALL.every(2), [1.0, 1.0, 0.5, 0.5, 0.0, 0.0], 4),
    (FALL.every(3), [1.0, 1.0, 1.0, 0.25, 0.25, 0.25, 0.0], 6),
    (FALL.every(1), [1.0, 0.75, 0.5, 0.25, 0.0], 4),
    (per_epoch(FALL, 2), [1.0, 1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0.0, 0.0], 8),
    (per_epoch(Table([3, 2, 1]), 2), [3.0, 3.0, 2.0, 2.0, 1.0, 1.0, 1.0], 6),
    (per_epoch(Step(1.0, 2, gamma=0.5), 1), [1.0, 1.0, 0.5, 0.5, 0.25], None),
    (per_epoch(Lambda(lambda epoch: epoch), 3), [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0], None),
    (Warmup(2) * FALL, [0.5, 0.75, 0.5, 0.25, 0.0], 4),
]  # fmt: skip
IDS = [label(schedule)[:90] for schedule, *_ in EXPECTED]


@each(("schedule", "expected", "length"), EXPECTED, ids=IDS)
def test_a_combination_has_its_values_and_its_length(schedule, expected, length):
    assert [schedule(step) for step in range(len(expected))] == pytest.approx(expected, rel=1e-14, abs=1e-15)
    assert schedule.length == length


@each("schedule", [row[0] for row in EXPECTED if row[2] is not None], ids=label)
def test_the_maximum_of_a_combination_is_that_of_its_values(schedule):
    assert schedule.maximum == max(schedule(step) for step in range(schedule.length + 1))


MAXIMA = [
    (FALL.repeat(period=2), 1.0), (RISE.repeat(period=2), 0.25), (RISE.repeat(3, period=2), 0.5),
    (Table([0.1, 0.9, 0.2]).stretch(0.5), 0.2), (HALVES.warmup(3), 1.0), (HALVES.shift(3) * 1.0, 1.0),
    (ONE.then(RISE, at=9) * 3.0, 3.0), (per_epoch(RISE, 100), 1.0), (ONE.warmup(3, start=5.0), 1.0 + 4.0 * 2 / 3),
    (MultiStep(1.0, [0, 2], gamma=0.5), 0.5), (HALVES * 0.25, 0.25),
]  # fmt: skip


@each(("schedule", "most"), MAXIMA, ids=[label(schedule) for schedule, _ in MAXIMA])
def test_the_maximum_is_one_of_the_values(schedule, most):
    assert schedule.maximum == pytest.approx(most, rel=1e-14)


FITTED = [
    Linear(1.0, 0.2, steps=20), REX(1.0, 20), Tanh(1.0, 20), Table(range(20)), Chebyshev(0.1, 1.0, 20, "falling"),
    OneCycle(1.0, 20), Lambda(lambda step: step, steps=20), FALL.repeat(5), FALL.shift(16), FALL.every(5).stretch(4),
    FALL.every(20),
    RISE.then(Cosine(1.0, 16)), Cosine(1.0, 20).cooldown(9), FALL.cooldown(3, at=17), Piecewise([(-5, 0.0), (20, 1.0)]),
    Linear(1.0, 0.0, 40).shift(-20), Linear(1.0, 0.0, 19).every(4), Warmup(20), WSD(1.0, 20, 0, 1),
    (FALL + RISE).stretch(5), Linear(1.0, 0.0, 20) * 2.0 + 1.0, Linear(1.0, 0.0, 20).at_least(0.5),
    Linear(0.0, 1.0, 9) + Linear(1.0, 0.0, 20), Warmup(0).shift(20),
]  # fmt: skip


@each("schedule", FITTED, ids=label)
@each("steps", [1, 3, 7, 13, 19])
def test_a_warmup_keeps_the_length_and_the_ends(schedule, steps):
    warm = schedule.warmup(steps)
    assert warm.length == schedule.length == 20
    assert warm(0) == pytest.approx(schedule(0) / steps)
    assert warm(steps - 1) == schedule(0)
    assert [warm(20 + k) for k in (0, 1, 50)] == [schedule(20)] * 3


SMOOTH = [
    Linear(1.0, 0.0, 100), Cosine(1.0, 100), Cosine(1.0, 100, power=2.0), REX(1.0, 100), Sqrt(1.0, 100),
    WSD(1.0, 100, 0, 20), Linear(1.0, 0.0, 200).shift(-100), Piecewise([(-50, 0.0), (100, 1.0)]),
    Cosine(1.0, 50).stretch(2), Linear(0.5, 1.0, 60).then(Cosine(1.0, 40)), HALVES.stretch(10),
    Cosine(1.0, 100) * Linear(1.0, 0.5, 100) + 0.1, InverseSqrt(1.0, 10), CosineRestarts(1.0, 100.0),
    Cosine(1.0, 100).cooldown(10), Cosine(1.0, 100).at_least(0.1),
]  # fmt: skip


@each("schedule", SMOOTH, ids=label)
@each("steps", [5, 20, 60])
@each("shape", ["linear", "cosine", "exponential"])
def test_a_warmup_joins_the_first_value_without_a_jump(schedule, steps, shape):
    warm = schedule.warmup(steps, shape=shape)
    assert warm(steps - 1) == schedule(0)
    assert warm(steps) == pytest.approx(schedule(0), rel=1e-12)


@each("schedule", [*SMOOTH, Noam(16, 30), Cyclic(0.1, 1.0, 30), CosineAnnealing(1.0, 50)], ids=label)
@each("at", [0, 1, 37, 90])
@each("shape", ["linear", "cosine", "sqrt"])
def test_a_cooldown_begins_without_a_jump(schedule, at, shape):
    cool = schedule.cooldown(10, shape=shape, at=at)
    assert cool(at) == schedule(at)
    assert cool(at + 9) > cool(at + 10) == 0.0


JOINED = [
    (WSD(1.0, 100, 20, 30), 0.05), (WSD(1.0, 100, 20, 30, shape="cosine"), 0.06), (OneCycle(1.0, 100), 0.06),
    (OneCycle(1.0, 100, three_phase=True), 0.06), (Piecewise([(0, 0.0), (20, 1.0), (100, 0.0)]), 0.05),
    (Piecewise([(0, 0.0), (20, 1.0), (100, 0.0)], "cosine"), 0.08), (Cosine(1.0, 100).warmup(20).cooldown(20), 0.05),
    (Cyclic(0.0, 1.0, up=20, down=30), 0.05), (CosineAnnealing(1.0, period=100), 0.04),
    (Noam(1.0, 20, math.sqrt(20)), 0.05),
]  # fmt: skip


@each(("schedule", "stride"), JOINED, ids=[label(schedule) for schedule, _ in JOINED])
def test_phases_join_without_jumps(schedule, stride):
    assert np.abs(np.diff(schedule.values(300))).max() <= stride * (1.0 + 1e-12)


def test_a_branch_equals_the_schedule_up_to_its_decay():
    run = WSD(1.0, steps=100, warmup_steps=10, decay_steps=20)
    for at in (10, 50, 80):
        branch = run.branch(at, decay_steps=0.2, shape="sqrt")
        assert branch.values(at).tolist() == run.values(at).tolist()
        assert branch(at) == 1.0 > branch(at + 1)
        assert branch.decay_steps == round(0.2 * branch.length)


@each("steps", range(1, 12))
def test_fractions_that_add_up_to_one_fit(steps):
    for share in (0.1, 0.25, 0.5, 0.7):
        assert WSD(1.0, steps, warmup_steps=share, decay_steps=1.0 - share).length == steps


def test_a_fraction_of_any_float_type_is_of_the_length():
    schedule = Linear(1.0, 0.0, steps=10**6)
    for kind in (float, np.float16, np.float32, np.float64):
        assert schedule.warmup(kind(0.5)) == schedule.warmup(500_000)


def test_a_fraction_is_rounded_to_the_nearest_step():
    line = Linear(1.0, 0.0, steps=10)
    assert [line.warmup(share).steps for share in (0.0, 0.04, 0.06, 0.29, 0.31, 0.99)] == [0, 0, 1, 3, 3, 10]


def test_a_thousand_schedules_can_be_concatenated():
    whole = concat([Linear(k, k + 1, steps=3) for k in range(2000)])
    assert [whole(3 * k) for k in (0, 1, 999, 1999, 2000)] == [0.0, 1.0, 999.0, 1999.0, 2000.0]
    assert whole.length == 6000


def test_phases_begin_at_their_steps():
    phases = {
        FALL.warmup(1).cooldown(2): [0, 1, 2],
        WSD(1.0, 9, 2, 3): [0, 2, 6],
        RISE.then(FALL).then(0.5): [0, 4, 8],
        FALL.repeat(3): [0, 4, 8],
        OneCycle(1.0, 10): [0, 2],
        FALL.repeat(): [0, 4, 8, 12],
        FALL.repeat().warmup(3): [0, 3, 7, 11],
        FALL.repeat().then(0.1, at=6): [0, 4, 6],
        FALL.repeat().cooldown(2, at=6): [0, 4, 6],
    }
    for schedule, begins in phases.items():
        assert [at for _, at in islice(schedule._phases(), 4)] == begins


def test_epochs_samples_and_tokens_are_converted_to_steps():
    assert steps_in(epochs=3, dataset=1000, batch=10) == 300
    assert steps_in(epochs=3, dataset=1001, batch=10) == 303
    assert steps_in(epochs=3, dataset=1001, batch=10, drop_last=True) == 300
    assert steps_in(epochs=0.5, dataset=1000, batch=10) == 50
    assert steps_in(epochs=0.501, dataset=1000, batch=10) == 51
    assert steps_in(epochs=1.1, dataset=10**8, batch=1) == 110_000_000
    assert steps_in(samples=1001, batch=10) == 101
    assert steps_in(samples=1001, batch=10, drop_last=True) == 100
    assert steps_in(tokens=1025, sequence=32, batch=8) == 5
    assert steps_in(epochs=0, dataset=10, batch=3) == steps_in(samples=0, batch=3) == 0


def test_untuned_warmups_are_rounded():
    assert [untuned(beta2) for beta2 in (0.0, 0.9, 0.99, 0.999, 0.9999)] == [2, 20, 200, 2000, 20_000]
    assert [untuned(beta2, "exponential") for beta2 in (0.9, 0.999)] == [10, 1000]
    assert Warmup.untuned(0.999) == Warmup(2000)
    assert Warmup.untuned(0.999, "exponential") == Warmup(1000, shape="exponential")
