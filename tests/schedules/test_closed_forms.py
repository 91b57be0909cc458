"""Simple schedules have their closed forms, written a second time here, at all steps."""

import math
import pkgutil
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from lrcore import schedules
from lrcore.schedules import (
    CLASSES,
    REX,
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
    LogLinear,
    MultiStep,
    Noam,
    OneCycle,
    Piecewise,
    Polynomial,
    ReduceOnPlateau,
    Schedule,
    Sqrt,
    Step,
    Table,
    Tanh,
    Warmup,
)
from support.labels import label
from support.rows import each
from support.schedule_strategies import COMBINATIONS

HUGE = [10**6, 2**63, 2**64, 10**30, 10**308, 10**400]


def restarts(t, start, end, period, factor, decay, warmup):
    """The cycles one after the other, as the paper tells it."""
    peak = start
    while t >= period:
        t, period, peak = t - period, period * factor, peak * decay
    if t < warmup:
        return end + (peak - end) * (t + 1) / warmup
    return end + (peak - end) / 2 * (1 + math.cos(math.pi * (t - warmup) / (period - warmup)))


def triangle(t, low, high, up, down):
    since = t % (up + down)
    return low + (high - low) * (since / up if since < up else 1 - (since - up) / down)


def one_cycle(t, turns):
    """Half a cosine between each two of (step, value)."""
    for (begin, first), (end, last) in pairwise(turns):
        if begin <= t <= end:
            return last + (first - last) / 2 * (1 + math.cos(math.pi * (t - begin) / (end - begin)))
    return turns[-1][1]


def chebyshev(place, smallest, largest, steps):
    root = math.cos(math.pi * (2 * place + 1) / (2 * steps))
    return 2 / (largest + smallest + (largest - smallest) * root)


# A schedule, and its value at steps 0, 1, 2, …
EXPECTED = [
    (Constant(0.3), [0.3] * 5),
    (Linear(1.0, 0.0, steps=4), [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
    (Linear(0.0, 2.0, steps=2), [0.0, 1.0, 2.0, 2.0]),
    (Linear(1.0, 0.5, steps=1), [1.0, 0.5, 0.5]),
    (Linear(1.0, 0.5, steps=0), [0.5, 0.5]),
    (Polynomial(1.0, steps=4, power=2.0), [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]),
    (Polynomial(1.0, steps=4, end=0.5, power=0.5), [0.5 + 0.5 * math.sqrt(1 - t / 4) for t in range(5)] + [0.5]),
    (Polynomial(0.0, steps=2, end=1.0, power=3.0), [0.0, 0.875, 1.0, 1.0]),
    (Polynomial(0.7, steps=0, end=0.25), [0.25, 0.25]),
    (Cosine(1.0, steps=2), [1.0, 0.5, 0.0, 0.0, 0.0, 0.0]),
    (Cosine(3.0, steps=3, end=1.0), [3.0, 2.5, 1.5, 1.0, 1.0, 1.0, 1.0]),
    (Cosine(0.0, steps=4, end=1.0), [0.0, (1 - math.sqrt(0.5)) / 2, 0.5, (1 + math.sqrt(0.5)) / 2, 1.0]),
    (Cosine(1.0, steps=0, end=0.25), [0.25, 0.25]),
    (Cosine(1.0, steps=3, power=2.0), [1.0, 0.5625, 0.0625, 0.0]),
    (Cosine(1.0, steps=4, k=2.0), [(1 + math.cos(math.pi * t**2 / 16)) / 2 for t in range(5)] + [0.0]),
    (Cosine(4.0, steps=2, end_share=0.5), [4.0, 3.0, 2.0, 2.0]),
    (Tanh(1.0, steps=10), [(1 - math.tanh(-7 + t)) / 2 for t in range(10)] + [0.0, 0.0]),
    (Tanh(2.0, steps=2, end=1.0, lower=-1.0, upper=1.0), [1.5 + math.tanh(1.0) / 2, 1.5, 1.0]),
    (Tanh(1.0, steps=0, end=0.5), [0.5, 0.5]),
    (REX(1.0, steps=4), [1.0, 0.75 / 0.875, 0.5 / 0.75, 0.25 / 0.625, 0.0, 0.0]),
    (REX(1.0, steps=2, end=0.4), [1.0, 0.8, 0.4]),
    (Sqrt(1.0, steps=16), [1.0, 0.75] + [1 - math.sqrt(t) / 4 for t in range(2, 17)] + [0.0]),
    (Sqrt(2.0, steps=4, end=1.0), [2.0, 1.5, 2.0 - math.sqrt(0.5), 2.0 - math.sqrt(0.75), 1.0]),
    (LogLinear(1.0, 0.0625, steps=4), [1.0, 0.5, 0.25, 0.125, 0.0625, 0.0625]),
    (LogLinear(1.0, 9.0, steps=2), [1.0, 3.0, 9.0, 9.0]),
    (LogLinear(1.0, 9.0, steps=0), [9.0]),
    (Exponential(1.0, gamma=0.5), [1.0, 0.5, 0.25, 0.125]),
    (Exponential(0.1, gamma=1.0), [0.1] * 4),
    (Exponential(0.1, gamma=0.0), [0.1, 0.0, 0.0]),
    (Exponential(0.0, gamma=9.0), [0.0, 0.0, 0.0]),
    (Exponential(1.0, gamma=0.25, steps=2), [1.0, 0.5, 0.25, 0.125]),
    (InverseTime(1.0, gamma=1.0), [1.0, 1 / 2, 1 / 3, 1 / 4]),
    (InverseTime(2.0, gamma=0.5, steps=2), [2.0, 1.6, 2 / 1.5, 2 / 1.75]),
    (InverseTime(2.0, gamma=0.0), [2.0, 2.0]),
    (InverseSqrt(3.0, timescale=1.0), [3.0, 3 / math.sqrt(2), 3 / math.sqrt(3), 1.5]),
    (InverseSqrt(1.0, timescale=10), [math.sqrt(10 / (t + 10)) for t in range(20)]),
    (Noam(16, warmup_steps=4), [1 / 32, 2 / 32, 3 / 32, 1 / 8, 0.25 / math.sqrt(5), 0.25 / math.sqrt(6)]),
    (Noam(1, warmup_steps=1, factor=3.0), [3.0, 3 / math.sqrt(2), 3 / math.sqrt(3), 1.5]),
    (CosineAnnealing(1.0, period=4), [1.0, 0.5, 0.0, 0.5, 1.0, 0.5, 0.0]),
    (CosineAnnealing(2.0, period=2.5, low=1.0), [1.5 + math.cos(math.pi * t / 1.25) / 2 for t in range(12)]),
    (Step(1.0, step_size=2, gamma=0.5), [1.0, 1.0, 0.5, 0.5, 0.25]),
    (Step(1.0, step_size=1), [1.0, 0.1, 0.01]),
    (MultiStep(1.0, milestones=[2, 3, 5], gamma=0.5), [1.0, 1.0, 0.5, 0.25, 0.25, 0.125, 0.125]),
    (MultiStep(1.0, milestones=(3, 0, 3), gamma=0.5), [0.5, 0.5, 0.5, 0.125]),
    (MultiStep(1.0, milestones=[]), [1.0, 1.0]),
    (Piecewise([(1, 1.0), (3, 2.0), (5, 0.0)]), [1.0, 1.0, 1.5, 2.0, 1.0, 0.0, 0.0]),
    (Piecewise([(0, 1.0), (2, 2.0), (2, 4.0), (4, 0.0)]), [1.0, 1.5, 4.0, 2.0, 0.0]),
    (Piecewise({0.5: 1.0, 2.5: 3.0}), [1.0, 1.5, 2.5, 3.0]),
    (Piecewise([(0, 2.0), (4, 0.0)], shape="cosine"), [1 + math.cos(math.pi * t / 4) for t in range(5)]),
    (Piecewise([(1, 1.0), (2, 0.5), (4, 0.2)], shape="constant"), [1.0, 1.0, 0.5, 0.5, 0.2]),
    (Piecewise([(3, 0.7)]), [0.7] * 5),
    (Table([0.1, 0.3, 0.2]), [0.1, 0.3, 0.2, 0.2, 0.2]),
    (Table(np.array([1.0, 0.5], np.float32)), [1.0, 0.5, 0.5]),
    (Lambda(lambda step: 1 / (step + 1)), [1.0, 1 / 2, 1 / 3]),
    (Lambda(lambda step: step, steps=2), [0, 1, 2, 2, 2]),
    (Chebyshev(0.1, 1.0, steps=3, order="rising"), [chebyshev(i, 0.1, 1.0, 3) for i in range(3)] + [1.0]),
    (Chebyshev(0.2, 2.0, steps=3, order="falling"), [chebyshev(i, 0.2, 2.0, 3) for i in (2, 1, 0)] + [0.5]),
    (Chebyshev(0.1, 1.0, steps=8), [chebyshev(i, 0.1, 1.0, 8) for i in (7, 0, 4, 3, 6, 1, 5, 2)] + [1.0]),
    (Chebyshev(1.0, 4.0, steps=1), [0.4, 0.25]),
    (Chebyshev(2.0, 2.0, steps=2), [0.5] * 3),
    (CosineRestarts(1.0, period=2), [1.0, 0.5, 1.0, 0.5, 1.0]),
    (
        CosineRestarts(1.0, period=2.5, end=0.1, factor=1.5, decay=0.8),
        [restarts(t, 1.0, 0.1, 2.5, 1.5, 0.8, 0) for t in range(90)],
    ),
    (
        CosineRestarts(1.0, period=6, end=0.01, factor=2, decay=0.5, warmup_steps=3),
        [restarts(t, 1.0, 0.01, 6, 2, 0.5, 3) for t in range(90)],
    ),
    (CosineRestarts(1.0, period=7, decay=0.9), [restarts(t, 1.0, 0.0, 7, 1, 0.9, 0) for t in range(90)]),
    (CosineRestarts(1.0, period=2, end=0.5, decay=0.5), [1.0, 0.75, 0.5, 0.5, 0.5, 0.5]),
    (Cyclic(0.1, 0.5, up=2), [0.1, 0.3, 0.5, 0.3, 0.1, 0.3]),
    (Cyclic(1.0, 2.0, up=3, down=5), [triangle(t, 1.0, 2.0, 3, 5) for t in range(40)]),
    (
        Cyclic(1.0, 2.0, up=3, down=5, mode="triangular2"),
        [1 + (triangle(t, 1.0, 2.0, 3, 5) - 1) / 2 ** (t // 8) for t in range(40)],
    ),
    (
        Cyclic(1.0, 2.0, up=3, mode="exp_range", gamma=0.9),
        [1 + (triangle(t, 1.0, 2.0, 3, 3) - 1) * 0.9**t for t in range(40)],
    ),
    (OneCycle(1.0, steps=20), [one_cycle(t, [(0, 0.04), (5, 1.0), (19, 4e-6)]) for t in range(25)]),
    (
        OneCycle(2.0, steps=20, pct_start=0.25, div_factor=10, final_div_factor=2, three_phase=True),
        [one_cycle(t, [(0, 0.2), (4, 2.0), (8, 0.2), (19, 0.1)]) for t in range(25)],
    ),
    (
        OneCycle(1.0, steps=11, pct_start=3 / 11, shape="linear", div_factor=2, final_div_factor=1),
        [0.5, 0.75, 1.0, *(1.0 - 0.5 * k / 8 for k in range(1, 9)), 0.5],
    ),
    (OneCycle(1.0, steps=1), [4e-6, 4e-6]),
    (OneCycle(1.0, steps=20).momentum(0.8, 0.9), [one_cycle(t, [(0, 0.9), (5, 0.8), (19, 0.9)]) for t in range(25)]),
    (WSD(1.0, 8, 2, 4), [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
    (WSD(2.0, 4, 0, 4, 1.0, "sqrt"), [2.0, 1.5, 2.0 - math.sqrt(0.5), 2.0 - math.sqrt(0.75), 1.0]),
    (WSD(2.0, 5, 1, 3, 0.0, "cosine"), [2.0, 2.0, 2.0, 1.5, 0.5, 0.0]),
    (WSD(2.0, 4, 4), [0.5, 1.0, 1.5, 2.0, 2.0]),
    (WSD(2.0, 3), [2.0] * 5),
    (WSD(1.0, 10, 0.2, 0.4), [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]),
    (WSD(1.0, 10, 2, 4).branch(4, decay_steps=2), [0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0]),
    (WSD(1.0, 10, 2, 4).branch(6, decay_steps=0.25, end=0.5), [0.5, *[1.0] * 6, 0.75, 0.5, 0.5]),
    (Warmup(4), [0.25, 0.5, 0.75, 1.0, 1.0]),
    (Warmup(4, start=0.2), [0.4, 0.6, 0.8, 1.0, 1.0]),
    (Warmup(4, shape="cosine"), [(1 - math.cos(math.pi * t / 4)) / 2 for t in range(1, 5)] + [1.0]),
    (Warmup(4, shape="exponential"), [1 - math.exp(-t / 4) for t in range(1, 30)]),
    (Warmup(2, 0.5, "exponential"), [1 - 0.5 * math.exp(-t / 2) for t in range(1, 30)]),
    (Warmup(0), [1.0, 1.0]),
    (Warmup(0, shape="exponential"), [1.0, 1.0]),
    (ReduceOnPlateau(0.5), [1.0, 1.0]),
    (AdaScale(), [1.0, 1.0]),
]
SCHEDULES = [schedule for schedule, _ in EXPECTED]


@each(("schedule", "expected"), EXPECTED, ids=[label(schedule) for schedule in SCHEDULES])
def test_a_schedule_has_its_closed_form(schedule, expected):
    taken = [schedule(step) for step in range(len(expected))]
    assert taken == pytest.approx(expected, rel=1e-13, abs=1e-15)
    assert all(type(value) is float for value in taken)


def test_every_simple_class_has_a_closed_form_in_this_file():
    assert {type(schedule).__name__ for schedule in SCHEDULES} == set(CLASSES) - COMBINATIONS.keys()


@each("schedule", SCHEDULES, ids=label)
def test_the_last_value_stays(schedule):
    if schedule.length is not None:
        assert {schedule(schedule.length + k) for k in (0, 1, *HUGE)} == {schedule(schedule.length)}
    assert all(0.0 <= schedule(step) < math.inf for step in HUGE if step < 10**7 or not isinstance(schedule, Lambda))


FAR = [
    (Constant(0.1), 0.1), (Exponential(0.1, 0.5), 0.0), (Exponential(0.1, 0.0), 0.0), (Exponential(0.1, 1.0), 0.1),
    (Exponential(0.1, 0.5, steps=2.5), 0.0), (Exponential(0.1, 1.0, steps=2.5), 0.1), (Exponential(0.0, 2.0), 0.0),
    (Step(0.1, step_size=3, gamma=0.9), 0.0), (Step(0.1, step_size=3, gamma=1.0), 0.1), (InverseTime(0.1, 0.0), 0.1),
    (Cosine(0.1, steps=100).warmup(10), 0.0), (Exponential(0.1, 0.5).warmup(3), 0.0), (Warmup(9), 1.0),
    (Warmup(9, shape="exponential"), 1.0), (Cyclic(0.1, 0.2, 3, mode="exp_range", gamma=0.5), 0.1),
    (CosineRestarts(0.1, period=2, end=0.05, decay=0.5, factor=1.0), 0.05), (Table([0.5, 0.1]), 0.1),
]  # fmt: skip


@each(("schedule", "value"), FAR, ids=[label(schedule) for schedule, _ in FAR])
def test_values_at_huge_steps_are_right(schedule, value):
    assert [schedule(step) for step in HUGE] == [value] * len(HUGE)


CYCLES = [
    (Cyclic(0.0, 1.0, up=3), 6), (CosineAnnealing(1.0, period=3), 3), (CosineAnnealing(1.0, period=4.5), 9),
    (CosineRestarts(1.0, period=7), 7), (CosineRestarts(1.0, period=2.5, warmup_steps=1), 5),
    (Linear(1.0, 0.0, steps=5).repeat(), 5),
]  # fmt: skip


@each(("schedule", "period"), CYCLES, ids=[label(schedule) for schedule, _ in CYCLES])
@each("far", [10**6, 2**53 - 9, 2**53, 2**63, 10**30], ids=["1e6", "2^53-9", "2^53", "2^63", "1e30"])
def test_cycles_are_exact_after_any_number_of_them(schedule, period, far):
    begin = far - far % period
    expected = [schedule(step) for step in range(period)]
    assert [schedule(begin + step) for step in range(period)] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_the_start_of_a_long_schedule_is_right():
    assert Linear(1.0, 0.0, steps=10**400)(10**399) == 0.9
    assert Constant(1.0).warmup(10**400)(10**400 // 4) == 0.25
    assert Cosine(1.0, steps=10**30)(5 * 10**29) == pytest.approx(0.5)
    assert Step(1.0, step_size=2**63)(2**63 - 1) == 1.0
    assert Step(1.0, step_size=2**63, gamma=0.5)(2**63) == 0.5
    assert MultiStep(1.0, [2**63 + 1], gamma=0.5)(2**63) == 1.0
    assert MultiStep(1.0, [2**63 + 1], gamma=0.5)(2**63 + 1) == 0.5
    assert Piecewise([(2**63, 1.0), (2**63 + 4, 0.0)])(2**63 + 1) == 0.75
    assert Cyclic(0.0, 1.0, up=2**63)(2**62) == 0.5
    assert WSD(1.0, 2**63 + 4, 0, 4)(2**63 + 1) == 0.75


def test_values_near_the_limits_of_float64_are_right():
    assert LogLinear(1e-300, 1e300, steps=10)(5) == pytest.approx(1.0, rel=1e-9)
    assert LogLinear(1e300, 1e-300, steps=10)(5) == pytest.approx(1.0, rel=1e-9)
    assert CosineRestarts(1.7e308, period=3)(0) == pytest.approx(1.7e308)
    assert CosineAnnealing(1.7e308, period=6)(1) == pytest.approx(1.275e308)
    assert Chebyshev(1e-20, 1.0, steps=2**30).maximum < math.inf


@each("steps", [np.int64(3), np.uint8(3), np.array(3)], ids=lambda step: str(type(step).__name__))
def test_integers_of_any_type_are_steps(steps):
    assert Linear(1.0, 0.0, steps=4)(steps) == 0.25
    assert Linear(1.0, 0.0, steps=steps) == Linear(1.0, 0.0, steps=3)
    assert type(Linear(1.0, 0.0, steps=steps).steps) is int


def test_numpy_scalars_are_accepted():
    schedule = Linear(np.float32(0.5), np.int64(2), np.int16(2))
    assert (schedule.start, schedule.end) == (0.5, 2.0)
    assert {type(schedule.start), type(schedule.end)} == {float}


MAXIMA = [
    *((schedule, max(expected)) for schedule, expected in EXPECTED if not isinstance(schedule, Lambda | Warmup)),
    (Warmup(4), 1.0),
    (Warmup(4, shape="exponential"), 1.0),
    (CosineRestarts(0.1, period=5, end=0.03, factor=2), 0.1),
    (Lambda(lambda step: step, steps=3), 3.0),
    (Cyclic(0.0, 1.0, up=10**9, mode="exp_range", gamma=0.5), 0.5e-9),
    (Linear(0.0, 1.0, steps=10**18), 1.0),
    (Exponential(0.3, gamma=0.5, steps=0.1), 0.3),
]  # fmt: skip


@each(("schedule", "most"), MAXIMA, ids=[label(schedule) for schedule, _ in MAXIMA])
def test_the_maximum_is_exact(schedule, most):
    assert schedule.maximum == pytest.approx(most, rel=1e-13)


def test_unbounded_growth_has_no_maximum():
    for schedule in (Exponential(0.1, gamma=1.1), Step(0.1, step_size=3, gamma=2.0), Lambda(lambda step: step)):
        with pytest.raises(ValueError, match="largest value"):
            schedule.maximum  # noqa: B018
    assert Exponential(0.0, gamma=1.1).maximum == 0.0


@each("shape", ["linear", "cosine"])
@each("steps", [2, 3, 4, 7, 10, 50])
@each("pct_start", [0.0, 0.1, 0.3, 0.5])
@each("three_phase", [False, True])
def test_one_cycle_is_continuous_and_stays_in_its_range(shape, steps, pct_start, three_phase):
    schedule = OneCycle(1.0, steps, pct_start, shape, 4.0, 10.0, three_phase)
    taken = [schedule(step) for step in range(2 * steps)]
    assert all(0.025 <= value <= 1.0 for value in taken)
    assert taken[steps - 1 :] == [0.025] * (steps + 1)


def test_a_subclass_needs_only_a_value_method():
    class Sawtooth(Schedule):
        def _value(self, step):
            return step % 3 / 2

    assert [Sawtooth()(k) for k in range(4)] == [0.0, 0.5, 1.0, 0.0]
    assert Sawtooth().values(4).tolist() == [0.0, 0.5, 1.0, 0.0]
    assert [Sawtooth().warmup(1)(k) for k in range(4)] == [0.0, 0.0, 0.5, 1.0]
    with pytest.raises(TypeError):
        Schedule()


def test_no_module_hides_a_public_name_or_the_standard_library():
    modules = {module.name for module in pkgutil.iter_modules(schedules.__path__)}
    assert not modules & {*schedules.__all__, *sys.stdlib_module_names}
    imports = "; ".join(f"import lrcore.schedules.{name}" for name in sorted(modules))
    code = f"from lrcore import schedules; {imports}; print([type(getattr(schedules, n)) for n in schedules.__all__])"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603
    assert "module" not in run.stdout
