"""Every number of a schedule may be a scalar of another library, and the type of a number of steps has one meaning."""

import re
from fractions import Fraction

import numpy as np
import pytest

from lrcore._ranges import as_number
from lrcore.schedules import WSD, Constant, Lambda, ReduceOnPlateau, Warmup, untuned
from support.labels import label
from support.rows import each
from support.schedule_tables import LINE, ONE, SCALARS, evaluated


def _jax(value):
    return pytest.importorskip("jax").numpy.asarray(value)


def _torch(value):
    return pytest.importorskip("torch").tensor(value)


LIBRARIES = {
    "numpy scalar": lambda value: np.float64(value) if isinstance(value, float) else np.int64(value),
    "numpy float32": lambda value: np.float32(value) if isinstance(value, float) else np.uint8(value),
    "0-d array": np.array,
    "jax": _jax,
    "torch": _torch,
}


@each("expression", SCALARS)
@each("library", LIBRARIES)
def test_scalars_of_other_libraries_equal_numbers(library, expression):
    plain = evaluated(expression, of=lambda value: value)
    schedule = evaluated(expression, of=LIBRARIES[library])
    assert schedule == plain
    assert repr(schedule) == repr(plain)
    assert schedule.to_json() == plain.to_json()


@each("library", LIBRARIES)
def test_a_function_may_return_a_scalar(library):
    rate = Lambda(lambda step: LIBRARIES[library](0.5 / 2**step))
    assert [rate(0), rate(2)] == [0.5, 0.125]
    assert type(rate(0)) is float
    assert list(rate.values(2)) == [0.5, 0.25]


def test_numbers_of_other_kinds():
    assert as_number(np.longdouble(0.5)) == as_number(np.float16(0.5)) == 0.5
    assert as_number(np.array(0.25, dtype=object)) == 0.25
    assert type(as_number(np.array(3))) is int


@each(
    "value",
    [
        *(
            True,
            np.True_,
            np.array(1, bool),
            1j,
            np.complex64(1),
            "1",
            np.str_("1"),
            b"1",
            None,
            [1.0],
            (1.0,),
            np.ones(1),
        ),
        *(
            np.ones((1, 1)),
            np.ma.masked,
            np.timedelta64(3),
            np.array(3, "m8[ns]"),
            np.datetime64(3, "ns"),
            int,
            object(),
        ),
        *(np.array(None, dtype=object), np.void(b"ab"), Fraction(1, 4), np.array(Fraction(1, 4), dtype=object)),
    ],
    ids=label,
)
def test_other_values_are_no_real_scalars(value):
    assert as_number(value) is None
    with pytest.raises(TypeError, match=r"Constant: value must be a number in \[0, inf\), got "):
        Constant(value)
    with pytest.raises(TypeError, match="Lambda: the value at step 3 must be a number"):
        Lambda(lambda _: value)(3)


def test_tensors_without_a_value_or_with_a_dimension():
    torch = pytest.importorskip("torch")
    for value in (torch.empty((), device="meta"), torch.ones(1), torch.tensor(1, dtype=torch.bool), torch.tensor(1j)):
        assert as_number(value) is None
    assert as_number(torch.tensor(0.5, requires_grad=True)) == 0.5
    assert as_number(torch.tensor(0.5, dtype=torch.bfloat16)) == 0.5


def test_an_array_of_numbers_is_no_factor():
    with pytest.raises(TypeError):
        np.ones(3) * LINE


TRAPS = {
    "warmup": (lambda n: LINE.warmup(n), "warmup: steps", 10),
    "cooldown": (lambda n: LINE.cooldown(n), "cooldown: steps", 10),
    "at": (lambda n: ONE.cooldown(2, at=n), "cooldown: at", None),
    "then": (lambda n: LINE.then(ONE, at=n), "then: at", 10),
    "endless": (lambda n: ONE.warmup(n), "warmup: steps", None),
    "WSD": (lambda n: WSD(1.0, 10, n), "WSD: warmup_steps", 10),
}


@each("name", TRAPS)
@each("of", [float, np.float32, np.array])
def test_ambiguous_numbers_of_steps_are_refused(name, of):
    make, where, length = TRAPS[name]
    make(1)
    whole = f", or {length} for the whole length" if length else ""
    message = f"got {of(1.0)!r}: write 1 for 1 step{whole}"
    with pytest.raises(ValueError, match=re.escape(where) + ".*" + re.escape(message) + "$"):
        make(of(1.0))
    with pytest.raises(ValueError, match=re.escape(f"got {of(5.0)!r}: write 5 for 5 steps")):
        make(of(5.0))


def test_counts_must_be_integers():
    for make in (
        lambda: Warmup(1.0),
        lambda: ReduceOnPlateau(cooldown=1.0),
        lambda: LINE.every(2.0),
        lambda: LINE.shift(1.0),
    ):
        with pytest.raises(TypeError, match=r"must be a whole number >= -?\d+, got "):
            make()
    assert untuned(np.array(0.5)) == 4
