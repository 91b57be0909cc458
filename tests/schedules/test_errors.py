"""What is no schedule is refused where it is made, with its class, its field, and what was given."""

import math
import re

import numpy as np
import pytest

from lrcore.schedules import (
    REX,
    WSD,
    AtLeast,
    AtMost,
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
    Product,
    ReduceOnPlateau,
    Repeated,
    Scaled,
    Schedule,
    Sequential,
    Shifted,
    Sqrt,
    Staircase,
    Step,
    Stretched,
    Sum,
    Table,
    Tanh,
    Warmup,
    WithCooldown,
    WithWarmup,
    concat,
    per_epoch,
    steps_in,
    untuned,
)

ONE = Constant(1.0)
LINE = Linear(1.0, 0.0, steps=10)

# A schedule as it should be, and of each of its fields what kind of number it takes.
FIELDS = [
    (Constant, {"value": 0.1}, {"value": "[0, inf)"}),
    (Linear, {"start": 1, "end": 0, "steps": 4}, {"start": "[0, inf)", "end": "[0, inf)", "steps": 0}),
    (
        Polynomial,
        {"start": 1, "steps": 4, "end": 0, "power": 2},
        {"start": "[0, inf)", "steps": 0, "end": "[0, inf)", "power": "(0, inf)"},
    ),
    (
        Cosine,
        {"start": 1, "steps": 4, "end": 0, "power": 2, "k": 2},
        {"start": "[0, inf)", "steps": 0, "end": "[0, inf)", "power": "(0, inf)", "k": "(0, inf)"},
    ),
    (Cosine, {"start": 1, "steps": 4, "end_share": 0.5}, {"end_share": "[0, inf)"}),
    (Tanh, {"start": 1, "steps": 4, "end": 0}, {"start": "[0, inf)", "steps": 0, "end": "[0, inf)"}),
    (REX, {"start": 1, "steps": 4, "end": 0}, {"start": "[0, inf)", "steps": 0, "end": "[0, inf)"}),
    (Sqrt, {"start": 1, "steps": 4, "end": 0}, {"start": "[0, inf)", "steps": 0, "end": "[0, inf)"}),
    (LogLinear, {"start": 1, "end": 2, "steps": 4}, {"start": "(0, inf)", "end": "(0, inf)", "steps": 0}),
    (
        Exponential,
        {"start": 1, "gamma": 0.5, "steps": 2},
        {"start": "[0, inf)", "gamma": "[0, inf)", "steps": "(0, inf)"},
    ),
    (
        InverseTime,
        {"start": 1, "gamma": 0.5, "steps": 2},
        {"start": "[0, inf)", "gamma": "[0, inf)", "steps": "(0, inf)"},
    ),
    (InverseSqrt, {"start": 1, "timescale": 5}, {"start": "[0, inf)", "timescale": "(0, inf)"}),
    (
        Noam,
        {"d_model": 512, "warmup_steps": 5, "factor": 1},
        {"d_model": "(0, inf)", "warmup_steps": 1, "factor": "[0, inf)"},
    ),
    (
        CosineAnnealing,
        {"high": 1, "period": 3, "low": 0},
        {"high": "[0, inf)", "period": "(0, inf)", "low": "[0, inf)"},
    ),
    (Step, {"start": 1, "step_size": 3, "gamma": 0.5}, {"start": "[0, inf)", "step_size": 1, "gamma": "[0, inf)"}),
    (MultiStep, {"start": 1, "milestones": [3], "gamma": 0.5}, {"start": "[0, inf)", "gamma": "[0, inf)"}),
    (
        Chebyshev,
        {"smallest": 0.1, "largest": 1, "steps": 4},
        {"smallest": "(0, inf)", "largest": "(0, inf)", "steps": 1},
    ),
    (
        CosineRestarts,
        {"start": 1, "period": 9, "end": 0, "factor": 2, "decay": 0.5, "warmup_steps": 0},
        {"start": "[0, inf)", "period": "[1, inf)", "end": "[0, inf)", "factor": "[1, inf)", "decay": "[0, 1]"}
        | {"warmup_steps": 0},
    ),
    (
        Cyclic,
        {"low": 0, "high": 1, "up": 2, "down": 3, "gamma": 1},
        {"low": "[0, inf)", "high": "[0, inf)", "up": 1, "gamma": "[0, 1]"},
    ),
    (
        OneCycle,
        {"peak": 1, "steps": 10, "pct_start": 0.3, "div_factor": 2, "final_div_factor": 2},
        {"peak": "[0, inf)", "steps": 1, "pct_start": "[0, 1]"}
        | {"div_factor": "[1, inf)", "final_div_factor": "[1, inf)"},
    ),
    (WSD, {"peak": 1, "steps": 10, "end": 0}, {"peak": "[0, inf)", "steps": 0, "end": "[0, inf)"}),
    (Warmup, {"steps": 10, "start": 0}, {"steps": 0, "start": "[0, 1]"}),
    (WithWarmup, {"schedule": LINE, "steps": 2, "start": 0}, {"start": "[0, inf)"}),
    (WithCooldown, {"schedule": LINE, "steps": 2, "end": 0}, {"end": "[0, inf)"}),
    (Scaled, {"schedule": LINE, "factor": 2}, {"factor": "[0, inf)"}),
    (Stretched, {"schedule": LINE, "factor": 2}, {"factor": "(0, inf)"}),
    (Repeated, {"schedule": LINE, "times": 2, "period": 3}, {"times": 1, "period": 1}),
    (
        ReduceOnPlateau,
        {"factor": 0.5, "patience": 1, "threshold": 0, "cooldown": 1, "floor": 0},
        {"factor": "[0, 1)", "patience": 0, "threshold": "[0, inf)", "cooldown": 0, "floor": "[0, 1]"},
    ),
]
NUMBERS = [
    (make, arguments, name, allowed)
    for make, arguments, fields in FIELDS
    for name, allowed in fields.items()
    if isinstance(allowed, str)
]
COUNTS = [
    (make, arguments, name, least)
    for make, arguments, fields in FIELDS
    for name, least in fields.items()
    if isinstance(least, int)
]


@pytest.mark.parametrize(("make", "arguments"), [row[:2] for row in FIELDS], ids=[row[0].__name__ for row in FIELDS])
def test_what_the_rows_begin_with_is_allowed(make, arguments):
    assert isinstance(make(**arguments), Schedule)


@pytest.mark.parametrize(
    "given", ["1", None, True, 1j, [0.5], np.True_, np.array([0.5]), ONE, b"1"], ids=lambda given: repr(given)[:20]
)
@pytest.mark.parametrize(
    ("make", "arguments", "name", "allowed"), NUMBERS, ids=[f"{row[0].__name__}-{row[2]}" for row in NUMBERS]
)
def test_what_is_no_number_is_a_type_error(make, arguments, name, allowed, given):
    if name == "end_share" and given is None:
        return
    message = f"{make.__name__}: {name} must be a number in {allowed}, got {given!r}"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        make(**{**arguments, name: given})


@pytest.mark.parametrize("given", [math.nan, math.inf, -math.inf, -0.5, -1, np.float32("nan"), 10**400, -(10**400)])
@pytest.mark.parametrize(
    ("make", "arguments", "name", "allowed"), NUMBERS, ids=[f"{row[0].__name__}-{row[2]}" for row in NUMBERS]
)
def test_a_number_out_of_range_is_a_value_error(make, arguments, name, allowed, given):
    message = f"{make.__name__}: {name} must be in {allowed}, got {given!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make(**{**arguments, name: given})


@pytest.mark.parametrize(
    ("make", "arguments", "name", "allowed"), NUMBERS, ids=[f"{row[0].__name__}-{row[2]}" for row in NUMBERS]
)
def test_the_ends_of_a_range_are_in_it_as_its_brackets_say(make, arguments, name, allowed):
    low, high = allowed[1:-1].split(", ")
    for end, closed in ((float(low), allowed[0] == "["), (float(high), allowed[-1] == "]")):
        if closed and name != "high":
            make(**{**arguments, name: end})
        elif not closed:
            with pytest.raises(ValueError, match=f"^{make.__name__}: {name} must be in "):
                make(**{**arguments, name: end})


@pytest.mark.parametrize(
    "given", ["1", 1.0, True, 0.5, math.nan, [1], np.float64(1.0), ONE], ids=lambda given: repr(given)[:20]
)
@pytest.mark.parametrize(
    ("make", "arguments", "name", "least"), COUNTS, ids=[f"{row[0].__name__}-{row[2]}" for row in COUNTS]
)
def test_what_is_no_whole_number_is_a_type_error(make, arguments, name, least, given):
    message = f"{make.__name__}: {name} must be a whole number >= {least}, got {given!r}"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        make(**{**arguments, name: given})


@pytest.mark.parametrize(
    ("make", "arguments", "name", "least"), COUNTS, ids=[f"{row[0].__name__}-{row[2]}" for row in COUNTS]
)
def test_a_whole_number_below_the_least_is_a_value_error(make, arguments, name, least):
    with pytest.raises(ValueError, match=f"^{make.__name__}: {name} must be >= {least}, got {least - 1}$"):
        make(**{**arguments, name: least - 1})


WORDS = [
    (lambda word: Piecewise([(0, 1)], word), "Piecewise: shape", "'linear', 'cosine', 'constant'"),
    (lambda word: Chebyshev(1, 2, 4, word), "Chebyshev: order", "'fractal', 'rising', 'falling'"),
    (lambda word: Cyclic(0, 1, 2, mode=word), "Cyclic: mode", "'triangular', 'triangular2', 'exp_range'"),
    (lambda word: OneCycle(1, 9, shape=word), "OneCycle: shape", "'cosine', 'linear'"),
    (lambda word: WSD(1, 9, shape=word), "WSD: shape", "'linear', 'cosine', 'sqrt'"),
    (lambda word: Warmup(9, shape=word), "Warmup: shape", "'linear', 'cosine', 'exponential'"),
    (lambda word: LINE.warmup(2, shape=word), "WithWarmup: shape", "'linear', 'cosine', 'exponential'"),
    (lambda word: LINE.cooldown(2, shape=word), "WithCooldown: shape", "'linear', 'cosine', 'sqrt'"),
    (lambda word: ReduceOnPlateau(mode=word), "ReduceOnPlateau: mode", "'min', 'max'"),
    (lambda word: ReduceOnPlateau(convention=word), "ReduceOnPlateau: convention", "'torch', 'keras'"),
]


@pytest.mark.parametrize(("make", "where", "words"), WORDS, ids=[row[1] for row in WORDS])
@pytest.mark.parametrize("given", ["Linear", "", None, 1, ["linear"]], ids=repr)
def test_an_unknown_word_is_refused_with_those_that_are_known(make, where, words, given):
    with pytest.raises(ValueError, match=f"^{re.escape(f'{where} must be one of {words}, got {given!r}')}$"):
        make(given)


NO_SCHEDULES = [
    (lambda given: WithWarmup(given, 3), "WithWarmup: schedule"),
    (lambda given: WithCooldown(given, 3), "WithCooldown: schedule"),
    (lambda given: Sequential(given, ONE, 3), "Sequential: first"),
    (lambda given: Sequential(ONE, given, 3), "Sequential: second"),
    (lambda given: Scaled(given, 3), "Scaled: schedule"), (lambda given: Product(ONE, given), "Product: b"),
    (lambda given: Sum(given, ONE), "Sum: a"), (lambda given: AtLeast(ONE, given), "AtLeast: b"),
    (lambda given: AtMost(given, ONE), "AtMost: a"), (lambda given: Shifted(given, 3), "Shifted: schedule"),
    (lambda given: Stretched(given, 3.0), "Stretched: schedule"),
    (lambda given: Staircase(given, 3), "Staircase: schedule"),
    (lambda given: Repeated(given, 3, 3), "Repeated: schedule"),
    (lambda given: per_epoch(given, 3), "per_epoch: schedule"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "where"), NO_SCHEDULES, ids=[row[1] for row in NO_SCHEDULES])
@pytest.mark.parametrize("given", [0.1, None, "Constant", abs, Constant], ids=repr)
def test_what_should_be_a_schedule_is_one(make, where, given):
    with pytest.raises(TypeError, match=f"^{re.escape(f'{where} must be a schedule, got {given!r}')}$"):
        make(given)


REFUSED = [
    (lambda: Cosine(1, 10, end=0.1, end_share=0.1), ValueError, "Cosine: end or end_share, not both, got 0.1 and 0.1"),
    (lambda: Tanh(1, 10, lower=3.0, upper=2.0), ValueError, "Tanh: lower must be <= upper, got 3.0 and 2.0"),
    (lambda: Tanh(1, 10, lower=math.nan), ValueError, "Tanh: lower must be in "),
    (lambda: Tanh(1, 10, upper="1"), TypeError, "Tanh: upper must be a number in "),
    (lambda: CosineAnnealing(1, 3, 2), ValueError, "CosineAnnealing: low must be in [0, 1.0], the high value, got 2.0"),
    (lambda: Cyclic(2, 1, 3), ValueError, "Cyclic: low must be in [0, 1.0], the high value, got 2.0"),
    (lambda: Cyclic(0, 1, 3, 0), ValueError, "Cyclic: down must be >= 1, got 0"),
    (lambda: Cyclic(0, 1, 3, 2.0), TypeError, "Cyclic: down must be a whole number >= 1, got 2.0"),
    (lambda: CosineRestarts(1, 5, warmup_steps=5), ValueError, "CosineRestarts: warmup_steps must be less than the "),
    (lambda: Chebyshev(1, 0.5, 4), ValueError, "Chebyshev: largest must be >= smallest, 1.0, got 0.5"),
    (lambda: Chebyshev(1, 2, 3), ValueError, "Chebyshev: steps must be a power of 2 for the fractal order, got 3"),
    (lambda: OneCycle(1, 9, 0.6, three_phase=True), ValueError, "OneCycle: pct_start must be in [0, 0.5] with three "),
    (lambda: OneCycle(1, 9, three_phase=1), TypeError, "OneCycle: three_phase must be True or False, got 1"),
    (lambda: ReduceOnPlateau(relative=1), TypeError, "ReduceOnPlateau: relative must be True or False, got 1"),
    (lambda: MultiStep(1, 5), TypeError, "MultiStep: milestones must be whole numbers, got 5"),
    (lambda: MultiStep(1, "5"), TypeError, "MultiStep: milestones must be whole numbers, got '5'"),
    (lambda: MultiStep(1, [1, 2.0]), TypeError, "MultiStep: milestones[1] must be a whole number >= 0, got 2.0"),
    (lambda: MultiStep(1, [-1]), ValueError, "MultiStep: milestones[0] must be >= 0, got -1"),
    (lambda: Piecewise(5), TypeError, "Piecewise: points must be pairs of a step and a value, got 5"),
    (lambda: Piecewise("ab"), TypeError, "Piecewise: points must be pairs of a step and a value, got 'ab'"),
    (lambda: Piecewise([]), ValueError, "Piecewise: points must be at least one, got none"),
    (lambda: Piecewise([1]), TypeError, "Piecewise: points[0] must be a step and a value, got 1"),
    (lambda: Piecewise([(0, 1), (1, 1, 1)]), TypeError, "Piecewise: points[1] must be a step and a value, got (1, 1, "),
    (lambda: Piecewise([(0, -1)]), ValueError, "Piecewise: points[0][1] must be in [0, inf), got -1"),
    (lambda: Piecewise([(math.nan, 1)]), ValueError, "Piecewise: points[0][0] must be in "),
    (lambda: Piecewise([(True, 1)]), TypeError, "Piecewise: points[0][0] must be a number in "),
    (lambda: Piecewise([(1, 1), (0, 1)]), ValueError, "Piecewise: points[1] is at step 0, before the one that "),
    (lambda: Table(5), TypeError, "Table: table must be numbers, got 5"),
    (lambda: Table("12"), TypeError, "Table: table must be numbers, got '12'"),
    (lambda: Table([]), ValueError, "Table: table must be at least one number, got none"),
    (lambda: Table([1, -1]), ValueError, "Table: table[1] must be in [0, inf), got -1"),
    (lambda: Table([1, True]), TypeError, "Table: table[1] must be a number in [0, inf), got True"),
    (lambda: Table(np.ones((2, 2))), ValueError, "Table: table must be an array of one dimension, got the shape"),
    (lambda: Lambda(3), TypeError, "Lambda: function must be callable, got 3"),
    (lambda: Lambda(abs, steps=-1), ValueError, "Lambda: steps must be >= 0, got -1"),
    (lambda: Lambda(lambda _: -1.0)(7), ValueError, "Lambda: the value at step 7 must be in [0, inf), got -1.0"),
    (lambda: Lambda(lambda _: None)(7), TypeError, "Lambda: the value at step 7 must be a number in [0, inf), got "),
    (lambda: Lambda(lambda _: math.nan).values(2), ValueError, "Lambda: the value at step 0 must be in [0, inf), "),
    (lambda: WSD(1, 5, 3, 3), ValueError, "WSD: warmup_steps and decay_steps must be at most steps, 5, together, "),
    (lambda: WSD(1, 5, warmup_steps=1.5), ValueError, "WSD: warmup_steps must be a whole number, or a share in [0, 1)"),
    (lambda: WSD(1, 5, warmup_steps=-1), ValueError, "WSD: warmup_steps must be >= 0, got -1"),
    (lambda: WSD(1, 5, decay_steps=True), TypeError, "WSD: decay_steps must be a whole number >= 0, got True"),
    (lambda: WSD(1, 9, 2, 2).branch(1, 2), ValueError, "branch: at must be in [2, 7], the stable phase, got 1"),
    (lambda: WSD(1, 9, 2, 2).branch(8, 2), ValueError, "branch: at must be in [2, 7], the stable phase, got 8"),
    (lambda: WSD(1, 9, 2, 2).branch(5, 1.0), ValueError, "branch: decay_steps must be a whole number, or a share in "),
    (lambda: ONE.warmup(-1), ValueError, "warmup: steps must be >= 0, got -1"),
    (lambda: ONE.warmup(steps=True), TypeError, "warmup: steps must be a whole number >= 0, got True"),
    (lambda: ONE.warmup(0.5), TypeError, "warmup: steps must be a whole number >= 0, got 0.5: a share is of a length"),
    (lambda: LINE.warmup(1.5), ValueError, "warmup: steps must be a whole number, or a share in [0, 1) of the length"),
    (lambda: LINE.warmup(math.nan), ValueError, "warmup: steps must be a whole number, or a share in [0, 1) of the "),
    (lambda: LINE.warmup(-0.1), ValueError, "warmup: steps must be a whole number, or a share in [0, 1) of the length"),
    (lambda: LINE.warmup(11), ValueError, "warmup: steps must be in [0, 10], the length of Linear("),
    (lambda: LINE.warmup(8).warmup(5), ValueError, "warmup: Linear("),
    (lambda: MultiStep(1, [3, 9]).warmup(4), ValueError, "MultiStep(start=1.0, milestones=(3, 9)) has a milestone "),
    (lambda: Piecewise([(3, 1), (9, 0)]).warmup(4), ValueError, "Piecewise("),
    (lambda: WSD(1, 9, 4, 4).warmup(2), ValueError, "WSD(peak=1.0, steps=9, warmup_steps=4, decay_steps=4) can't be "),
    (lambda: LINE.cooldown(11), ValueError, "cooldown: steps must be in [0, 10], the length of the schedule, got 11"),
    (lambda: ONE.cooldown(5), ValueError, "cooldown: Constant(value=1.0) has no length; say at which step the fall "),
    (lambda: ONE.cooldown(5, at=-1), ValueError, "cooldown: at must be >= 0, got -1"),
    (lambda: ONE.cooldown(0.5, at=3), TypeError, "cooldown: steps must be a whole number >= 0, got 0.5"),
    (lambda: ONE.then(2.0), ValueError, "then: Constant(value=1.0) has no length; say at which step the next takes "),
    (lambda: (ONE + 0.5).then(2.0), ValueError, "then: Constant(value=1.0) + Constant(value=0.5) has no length; say "),
    (lambda: LINE.then("a"), TypeError, "then: a schedule or a number is needed, got 'a'"),
    (lambda: LINE.then(other=True), TypeError, "then: a schedule or a number is needed, got True"),
    (lambda: LINE.then(1.0, at=2.5), ValueError, "then: at must be a whole number, or a share in [0, 1) of the length"),
    (lambda: LINE.at_least("a"), TypeError, "at_least: a schedule or a number is needed, got 'a'"),
    (lambda: LINE.at_most(None), TypeError, "at_most: a schedule or a number is needed, got None"),
    (lambda: LINE.at_most(-1), ValueError, "Constant: value must be in [0, inf), got -1"),
    (lambda: LINE * -1, ValueError, "Scaled: factor must be in [0, inf), got -1"),
    (lambda: LINE * True, TypeError, "unsupported operand type(s) for *"),
    (lambda: LINE + "a", TypeError, "unsupported operand type(s) for +"),
    (lambda: LINE - "a", TypeError, "unsupported operand type(s) for -"),
    (lambda: "a" - LINE, TypeError, "unsupported operand type(s) for -"),
    (lambda: LINE - -1, ValueError, "Constant: value must be in [0, inf), got -1"),
    (lambda: LINE / LINE, TypeError, "/: the divisor must be a number, got Linear("),
    (lambda: 2.0 / LINE, TypeError, "unsupported operand type(s) for /"),
    (lambda: LINE + -1, ValueError, "Constant: value must be in [0, inf), got -1"),
    (lambda: LINE.shift(1.5), TypeError, "shift: steps must be a whole number >= "),
    (lambda: LINE.every(0), ValueError, "every: steps must be >= 1, got 0"),
    (lambda: LINE.every(2.0), TypeError, "every: steps must be a whole number >= 1, got 2.0"),
    (lambda: ONE.repeat(), ValueError, "repeat: Constant(value=1.0) has no length; give a period"),
    (lambda: Linear(1, 0, 0).repeat(), ValueError, "repeat: Linear(start=1.0, end=0.0, steps=0) has no length; give "),
    (lambda: per_epoch(LINE, 0), ValueError, "per_epoch: steps_per_epoch must be >= 1, got 0"),
    (lambda: concat([]), ValueError, "concat: parts must be at least one schedule, got none"),
    (lambda: concat([LINE, "a"]), TypeError, "concat: parts[1]: a schedule or a number is needed, got 'a'"),
    (lambda: concat([LINE, 0.5, LINE]), ValueError, ""),
    (lambda: concat([0.5, LINE]), ValueError, ""),
    (lambda: untuned("1"), TypeError, ""),
    (lambda: untuned(1.0), ValueError, ""),
    (lambda: untuned(0.9, "cosine"), ValueError, "untuned: shape must be 'linear' or 'exponential', got 'cosine'"),
    (lambda: steps_in(batch=3), TypeError, "steps_in: exactly one of epochs, samples and tokens must be given"),
    (lambda: steps_in(epochs=1, samples=3, batch=3), TypeError, "steps_in: exactly one of epochs, samples and tokens "),
    (lambda: steps_in(epochs=1, batch=3), TypeError, "steps_in: epochs need the number of samples in the dataset"),
    (lambda: steps_in(tokens=1, batch=3), TypeError, "steps_in: tokens need the tokens of a sequence"),
    (lambda: steps_in(samples=1, batch=0), ValueError, "steps_in: batch must be >= 1, got 0"),
    (lambda: steps_in(samples=-1, batch=1), ValueError, "steps_in: samples must be >= 0, got -1"),
    (lambda: steps_in(epochs=-1, dataset=1, batch=1), ValueError, "steps_in: epochs must be in [0, inf), got -1"),
    (lambda: OneCycle(1, 2**63 + 1), ValueError, "OneCycle: steps must be <= 9223372036854775808, got 922337203"),
    (lambda: Noam(9, 2**63 + 1), ValueError, "Noam: warmup_steps must be <= 9223372036854775808, got 922337203685477"),
    (lambda: Chebyshev(1, 2, 2**64), ValueError, "Chebyshev: steps must be <= 9223372036854775808, got 1844674407370"),
    (lambda: ONE(-1), ValueError, "step must be >= 0, got -1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "exception", "message"), REFUSED, ids=[f"{i}: {row[2][:60]}" for i, row in enumerate(REFUSED)]
)
def test_what_is_no_schedule_is_refused(call, exception, message):
    with pytest.raises(exception, match=f"^{re.escape(message)}"):
        call()


@pytest.mark.parametrize("step", [1.0, "1", None, True, np.float64(1.0), np.array([1]), 1j], ids=repr)
@pytest.mark.parametrize(
    "schedule", [ONE, LINE, LINE.warmup(3), ONE * LINE, Lambda(abs), Table([1.0]), ReduceOnPlateau()], ids=str
)
def test_a_step_is_a_whole_number(schedule, step):
    with pytest.raises(TypeError, match=f"^step must be a whole number >= 0, got {re.escape(repr(step))}$"):
        schedule(step)
