"""A schedule is a value: compared, hashed, printed, copied, pickled, and written as JSON."""

import copy
import dataclasses
import json
import pickle

import pytest
from hypothesis import given

from lrcore import schedules
from lrcore.schedules import (
    CLASSES,
    Constant,
    Cosine,
    CosineRestarts,
    Exponential,
    Lambda,
    Linear,
    MultiStep,
    Piecewise,
    ReduceOnPlateau,
    Schedule,
    Table,
    WithWarmup,
    concat,
)
from support.rows import each
from support.schedule_strategies import any_schedule, interesting_steps, some

NAMES = {name: getattr(schedules, name) for name in CLASSES}
LINE = Linear(1.0, 0.0, steps=4)


def halved(step):
    return 0.5**step


def forms(schedule):
    """Return what a schedule is after each way of leaving a process, or a line of code, and coming back."""
    yield copy.copy(schedule)
    yield copy.deepcopy(schedule)
    yield dataclasses.replace(schedule)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.loads(pickle.dumps(schedule, protocol))  # noqa: S301
    yield eval(repr(schedule), {"__builtins__": {}}, NAMES)  # noqa: S307
    yield Schedule.from_json(schedule.to_json())
    yield Schedule.from_json(schedule.to_json().encode())


@some
@given(any_schedule)
def test_a_schedule_is_a_value(schedule):
    steps = interesting_steps(schedule)
    course = [schedule(step) for step in steps]
    for same in forms(schedule):
        assert type(same) is type(schedule)
        assert same == schedule
        assert hash(same) == hash(schedule)
        assert repr(same) == repr(schedule)
        assert [same(step) for step in steps] == course
        assert same.length == schedule.length
    assert schedule != schedule.warmup(0)
    assert not hasattr(schedule, "__dict__")


@some
@given(any_schedule)
def test_a_schedule_is_frozen(schedule):
    for field in dataclasses.fields(schedule):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(schedule, field.name, 1.0)
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(schedule, field.name)


@some
@given(any_schedule)
def test_json_contains_only_the_version_and_plain_values(schedule):
    def plain(value):
        if isinstance(value, dict) and "schedule" in value:
            assert value.keys() == {"schedule", "version", "arguments"}
            assert value["version"] == 1
            return all(map(plain, value["arguments"].values()))
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or isinstance(value, str | int | float)

    assert plain(json.loads(schedule.to_json()))


PRINTED = [
    (Cosine(0.1, 100).warmup(10), "Cosine(start=0.1, steps=100).warmup(10)"),
    (Cosine(0.1, 100, end_share=0.5), "Cosine(start=0.1, steps=100, end=0.05)"),
    (LINE.warmup(0.5, shape="cosine"), "Linear(start=1.0, end=0.0, steps=4).warmup(2, 0.0, 'cosine')"),
    (LINE.warmup(2, 0.5), "Linear(start=1.0, end=0.0, steps=4).warmup(2, 0.5)"),
    (LINE.cooldown(2, at=1), "Linear(start=1.0, end=0.0, steps=4).cooldown(2, at=1)"),
    ((LINE + 1) * 2, "(Linear(start=1.0, end=0.0, steps=4) + Constant(value=1.0)) * 2.0"),
    (2 * LINE + 1, "Linear(start=1.0, end=0.0, steps=4) * 2.0 + Constant(value=1.0)"),
    ((LINE * 2).shift(3), "(Linear(start=1.0, end=0.0, steps=4) * 2.0).shift(3)"),
    (LINE.then(0.5), "Linear(start=1.0, end=0.0, steps=4).then(Constant(value=0.5))"),
    (LINE.repeat(), "Linear(start=1.0, end=0.0, steps=4).repeat()"),
    (LINE.repeat(3, 7).every(2), "Linear(start=1.0, end=0.0, steps=4).repeat(3, period=7).every(2)"),
    (MultiStep(1, [5, 3]), "MultiStep(start=1.0, milestones=(3, 5))"),
    (Table([1, 2]), "Table([1.0, 2.0])"),
    (ReduceOnPlateau(0.5), "ReduceOnPlateau(factor=0.5)"),
]


@each(("schedule", "text"), PRINTED, ids=[text for _, text in PRINTED])
def test_the_repr_is_the_call_that_makes_it(schedule, text):
    assert repr(schedule) == str(schedule) == text
    assert eval(text, NAMES) == schedule  # noqa: S307


def test_different_schedules_are_unequal():
    assert Constant(1) == Constant(1.0) != Constant(2)
    assert Linear(1, 0, 5) != Cosine(1, 5, 0)
    assert LINE.warmup(2) != LINE.warmup(2, shape="cosine")
    assert LINE * 2 != LINE * Constant(2) != LINE + 2
    assert LINE.shift(1) != LINE.stretch(1) != LINE.every(1)
    assert Piecewise([(0, 1), (4, 0)]) == Piecewise({0.0: 1.0, 4.0: 0.0})
    assert len({LINE, Linear(1, 0, 4), LINE.warmup(0), LINE * 1, LINE.shift(0)}) == 4


def test_a_schedule_with_a_function_is_pickled_but_never_written_to_a_file():
    for schedule in (Lambda(halved), Lambda(halved, steps=4).warmup(1), LINE * Lambda(halved)):
        assert pickle.loads(pickle.dumps(schedule)) == schedule  # noqa: S301
        with pytest.raises(TypeError, match="files hold no code"):
            schedule.to_json()


def test_a_foreign_class_is_not_saved():
    class Constant(Schedule):
        def _value(self, step):
            return 1.0 + 0.0 * step

    with pytest.raises(TypeError, match=r"can't be saved: Constant is not a class of lrcore\.schedules"):
        Constant().to_json()
    with pytest.raises(TypeError, match="can't be saved"):
        Constant().warmup(2).to_json()


def written(name="Constant", version=1, **arguments):
    return json.dumps({"schedule": name, "version": version, "arguments": arguments})


REFUSED = [
    ("", ValueError, "this is not JSON"),
    ("Constant(value=0.1)", ValueError, "this is not JSON"),
    ("__import__('os')", ValueError, "this is not JSON"),
    (b"\xff", ValueError, "this is not JSON"),
    ("[]", ValueError, "a schedule must be a dict of schedule, version and arguments"),
    ("0.1", ValueError, "a schedule must be a dict of schedule, version and arguments"),
    ("{}", ValueError, "a schedule must be a dict of schedule, version and arguments"),
    ('{"schedule": "Constant", "arguments": {"value": 1}}', ValueError, "a schedule must be a dict of schedule,"),
    (written(value=1.0)[:-1] + ', "x": 1}', ValueError, "a schedule must be a dict of schedule, version and arguments"),
    (written(version=2, value=1.0), ValueError, "the schedule 'Constant' was saved in version 2, known is 1"),
    (written(version=0, value=1.0), ValueError, "the schedule 'Constant' was saved in version 0, known is 1"),
    (written(version="1", value=1.0), ValueError, "the schedule 'Constant' was saved in version '1', known is 1"),
    (written(version=True, value=1.0), ValueError, "the schedule 'Constant' was saved in version True, known is 1"),
    (written(version=1.0, value=1.0), ValueError, "the schedule 'Constant' was saved in version 1.0, known is 1"),
    (written(version=None, value=1.0), ValueError, "the schedule 'Constant' was saved in version None, known is 1"),
    (written("constant", value=1.0), ValueError, "there is no schedule 'constant'; there are "),
    (written("Schedule", value=1.0), ValueError, "there is no schedule 'Schedule'"),
    (written("concat", parts=[]), ValueError, "there is no schedule 'concat'"),
    (written("__init__"), ValueError, "there is no schedule '__init__'"),
    (written(None), ValueError, "there is no schedule None"),
    (written(["Constant"]), ValueError, "there is no schedule "),
    (written(), ValueError, "Constant has the arguments ['value'], got {}"),
    (written(value=1.0, extra=1.0), ValueError, "Constant has the arguments ['value'], got "),
    (written("Cosine", start=1.0, steps=4, end_share=0.5), ValueError, "Cosine has the arguments "),
    (written("WithWarmup", schedule={"x": 1}, steps=2), ValueError, "a schedule must be a dict of schedule,"),
    (written("WithWarmup", schedule="Constant", steps=2), TypeError, "WithWarmup: schedule must be a schedule, got"),
    (
        written("WithWarmup", schedule=json.loads(written(value=1.0)), steps=2, _first=3),
        ValueError,
        "WithWarmup has the ",
    ),
    (written(value=-1.0), ValueError, "Constant: value must be in [0, inf), got -1.0"),
    (written(value="1"), TypeError, "Constant: value must be a number in [0, inf), got '1'"),
    (written(value=float("nan")), ValueError, "Constant: value must be in [0, inf), got nan"),
    (written(value=float("inf")), ValueError, "Constant: value must be in [0, inf), got inf"),
    (written("Lambda", function="os.system"), TypeError, "Lambda: function must be callable, got 'os.system'"),
    (written("Lambda", function=None), TypeError, "Lambda: function must be callable, got None"),
    ("[" * 100_000, ValueError, "this JSON is nested too deeply for a schedule"),
    (None, TypeError, "the JSON of a schedule must be a string, got NoneType"),
    ({"schedule": "Constant"}, TypeError, "the JSON of a schedule must be a string, got dict"),
]


@each(("text", "exception", "message"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_bad_json_is_refused(text, exception, message):
    with pytest.raises(exception) as caught:
        Schedule.from_json(text)
    assert str(caught.value).startswith(message)


@each("depth", [300, 480, 1000])
def test_json_that_is_nested_too_deep_is_refused_or_read(depth):
    inner = LINE.to_json()
    outer = '{"schedule": "Scaled", "version": 1, "arguments": {"factor": 1.0, "schedule": '
    text = outer * depth + inner + "}}" * depth
    try:
        assert Schedule.from_json(text)(1) == 0.75
    except ValueError as error:
        assert "nested too deeply" in str(error)  # noqa: PT017


def test_json_of_this_version_stays_readable():
    text = (
        '{"schedule": "WithWarmup", "version": 1, "arguments": {"schedule": {"schedule": "Cosine", "version": 1, '
        '"arguments": {"start": 0.1, "steps": 100, "end": 0.0, "power": 1.0, "k": 1.0}}, "steps": 10, "start": 0.0, '
        '"shape": "linear"}}'
    )
    schedule = Cosine(0.1, steps=100).warmup(10)
    assert schedule.to_json() == text
    assert Schedule.from_json(text) == schedule


def test_json_can_omit_defaults():
    assert Schedule.from_json(written("Cosine", start=0.1, steps=9)) == Cosine(0.1, 9)


def test_json_keeps_every_bit_of_a_number():
    numbers = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, 2**63 + 1]
    schedule = Table(numbers)
    assert Schedule.from_json(schedule.to_json()).values(5).tolist() == schedule.values(5).tolist()
    long = Linear(1.0, 0.0, steps=2**63 + 1).warmup(2**62 + 1)
    assert Schedule.from_json(long.to_json()) == long
    assert (long.steps, long.length) == (2**62 + 1, 2**63 + 1)


def test_the_package_has_its_public_names_and_no_other():
    assert set(CLASSES) <= set(schedules.__all__) <= set(dir(schedules))
    assert schedules.WithWarmup is WithWarmup
    with pytest.raises(AttributeError, match="has no attribute 'Sawtooth'"):
        schedules.Sawtooth  # noqa: B018


def test_long_chains_can_be_compared_and_saved():
    chain = concat([Exponential(1.0, 0.5).cooldown(1, at=k + 1) for k in range(300)])
    assert Schedule.from_json(chain.to_json()) == chain
    assert eval(repr(chain), NAMES) == chain  # noqa: S307
    assert CosineRestarts(1.0, 3) in {CosineRestarts(1.0, 3.0)}
