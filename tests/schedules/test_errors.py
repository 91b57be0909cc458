"""Bad arguments are refused in the constructor, with the class, the argument, what is allowed and what was given."""

import math
import re

import numpy as np
import pytest

from lrcore import schedules
from lrcore.schedules import Constant, Lambda, ReduceOnPlateau, Schedule, Table
from support.rows import each
from support.schedule_tables import CHOICES, ERRORS, FIELDS, LINE, ONE, SCHEDULES, evaluated

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


def make(name, arguments, **changed):
    return getattr(schedules, name)(**{**arguments, **changed})


@each("name, arguments, ranges", FIELDS)
def test_the_arguments_of_the_table_are_allowed(name, arguments, ranges):
    assert isinstance(make(name, arguments), Schedule)


@each("given", ["1", None, True, 1j, [0.5], np.True_, np.array([0.5]), ONE, b"1"])
@each("kind, arguments, name, allowed", NUMBERS)
def test_what_is_no_number_is_a_type_error(kind, arguments, name, allowed, given):
    if name == "end_share" and given is None:
        return
    message = f"{kind}: {name} must be a number in {allowed}, got {given!r}"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        make(kind, arguments, **{name: given})


@each("given", [math.nan, math.inf, -math.inf, -0.5, -1, np.float32("nan"), 10**400, -(10**400)])
@each("kind, arguments, name, allowed", NUMBERS)
def test_a_number_out_of_range_is_a_value_error(kind, arguments, name, allowed, given):
    message = f"{kind}: {name} must be in {allowed}, got {given!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make(kind, arguments, **{name: given})


@each("kind, arguments, name, allowed", NUMBERS)
def test_the_ends_of_a_range_are_in_it_as_its_brackets_say(kind, arguments, name, allowed):
    low, high = allowed[1:-1].split(", ")
    for end, closed in ((float(low), allowed[0] == "["), (float(high), allowed[-1] == "]")):
        if closed and name != "high":
            make(kind, arguments, **{name: end})
        elif not closed:
            with pytest.raises(ValueError, match=f"^{kind}: {name} must be in "):
                make(kind, arguments, **{name: end})


@each("given", ["1", 1.0, True, 0.5, math.nan, [1], np.float64(1.0), ONE])
@each("kind, arguments, name, least", COUNTS)
def test_what_is_no_integer_is_a_type_error(kind, arguments, name, least, given):
    message = f"{kind}: {name} must be a whole number >= {least}, got {given!r}"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        make(kind, arguments, **{name: given})


@each("kind, arguments, name, least", COUNTS)
def test_an_integer_below_the_least_is_a_value_error(kind, arguments, name, least):
    with pytest.raises(ValueError, match=f"^{kind}: {name} must be >= {least}, got {least - 1}$"):
        make(kind, arguments, **{name: least - 1})


@each("expression, where, words", CHOICES)
@each("given", ["Linear", "", None, 1, ["linear"]])
def test_an_unknown_word_is_refused_with_those_that_are_known(expression, where, words, given):
    with pytest.raises(ValueError, match=f"^{re.escape(f'{where} must be one of {words}, got {given!r}')}$"):
        evaluated(expression, word=given)


@each("expression, where", SCHEDULES)
@each("given", [0.1, None, "Constant", abs, Constant])
def test_what_should_be_a_schedule_is_one(expression, where, given):
    with pytest.raises(TypeError, match=f"^{re.escape(f'{where} must be a schedule, got {given!r}')}$"):
        evaluated(expression, given=given)


@each("expression, exception, message", ERRORS)
def test_bad_arguments_are_refused(expression, exception, message):
    with pytest.raises(exception, match=f"^{re.escape(message)}"):
        evaluated(expression)


@each("step", [1.0, "1", None, True, np.float64(1.0), np.array([1]), 1j])
@each("schedule", [ONE, LINE, LINE.warmup(3), ONE * LINE, Lambda(abs), Table([1.0]), ReduceOnPlateau()])
def test_a_step_is_an_integer(schedule, step):
    with pytest.raises(TypeError, match=f"^step must be a whole number >= 0, got {re.escape(repr(step))}$"):
        schedule(step)
