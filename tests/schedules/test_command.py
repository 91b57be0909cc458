"""``python -m lrcore schedule``: schedules from expressions, which are not executed."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lrcore import schedules
from lrcore.__main__ import main
from lrcore.schedules import Constant, Cosine, Linear, OneCycle, Warmup
from lrcore.schedules.expression import CLASSES, FUNCTIONS, METHODS, evaluate
from support.rows import each

RATE = "Cosine(0.1, steps=100).warmup(10)"


PAGE = Path(__file__).parents[2] / "docs" / "reference" / "command_line.md"


def run(*arguments):
    """Run the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(["schedule", *map(str, arguments)])
        except SystemExit as error:
            status = error.code
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def start(*arguments, **environment):
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "lrcore", "schedule", *map(str, arguments)]
    return subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False,
        env=os.environ | {"PYTHONUTF8": "1"} | environment,
    )  # fmt: skip


# Text that stands for a schedule

GOOD = [
    ("Constant(0.1)", Constant(0.1)),
    (" Constant( 0.1 ) ", Constant(0.1)),
    ("schedules.Constant(0.1)", Constant(0.1)),
    ("Constant(1e-3 + 2 * 3 - 8 / 4)", Constant(4.001)),
    ("Constant(-(-2) ** 2 + 10)", Constant(6)),
    ("Constant(+7 // 2)", Constant(3)),
    ("Constant(10 ** -3)", Constant(0.001)),
    (RATE, Cosine(0.1, 100).warmup(10)),
    ("Cosine(0.1, steps=10_000).warmup(0.1, shape='cosine')", Cosine(0.1, 10_000).warmup(0.1, shape="cosine")),
    ("Linear(1, 0, 10) * 0.5", Linear(1, 0, 10) * 0.5),
    ("0.5 * Linear(1, 0, 10) + 1", 0.5 * Linear(1, 0, 10) + 1),
    ("Linear(1, 0, 10) * Constant(2) + Constant(1)", Linear(1, 0, 10) * Constant(2) + Constant(1)),
    ("(Linear(1, 0, 10) * 2).at_least(Constant(0.1)).at_most(1)", (Linear(1, 0, 10) * 2).at_least(0.1).at_most(1)),
    (
        "Linear(1, 0, 10).shift(-3).stretch(2).every(2).scale(3)",
        Linear(1, 0, 10).shift(-3).stretch(2).every(2).scale(3),
    ),
    (
        "Linear(1, 0, 10).repeat(2).then(0.1).cooldown(5, at=30)",
        Linear(1, 0, 10).repeat(2).then(0.1).cooldown(5, at=30),
    ),
    ("Linear(1, 0, 10).repeat(times=None, period=20)", Linear(1, 0, 10).repeat(period=20)),
    ("WSD(1, 100, 10, 20).branch(50, 10)", schedules.WSD(1, 100, 10, 20).branch(50, 10)),
    ("OneCycle(1, 100, three_phase=True).momentum(0.8, 0.9)", OneCycle(1, 100, three_phase=True).momentum(0.8, 0.9)),
    ("Warmup.untuned(0.999) * Constant(1)", Warmup.untuned(0.999) * Constant(1)),
    ("Constant(1).warmup(untuned(0.99))", Constant(1).warmup(200)),
    ("Cosine(1, steps_in(epochs=3, dataset=100, batch=10))", Cosine(1, 30)),
    ("per_epoch(Linear(1, 0, 10), 5)", schedules.per_epoch(Linear(1, 0, 10), 5)),
    ("concat([Linear(0, 1, 10), Cosine(1, 20), 0.1])", schedules.concat([Linear(0, 1, 10), Cosine(1, 20), 0.1])),
    ("Piecewise({0: 0.0, 10: 1.0})", schedules.Piecewise({0: 0.0, 10: 1.0})),
    ("Piecewise([(0, 0.0), (10, 1.0)], shape='cosine')", schedules.Piecewise([(0, 0.0), (10, 1.0)], shape="cosine")),
    (
        "get('StepLR', source='torch', lr=0.1, step_size=3)",
        schedules.get("StepLR", source="torch", lr=0.1, step_size=3),
    ),
    ("1 - Cosine(0.5, 100) - Linear(0, 0.5, 10)", 1 - Cosine(0.5, 100) - Linear(0, 0.5, 10)),
    ("(-Constant(1)).warmup(3)", (-Constant(1)).warmup(3)),
    (Cosine(0.1, 100).warmup(10).to_json(), Cosine(0.1, 100).warmup(10)),
    (" " + Constant(1).to_json(), Constant(1)),
]


@each(("text", "expected"), GOOD, ids=[text for text, _ in GOOD])
def test_an_expression_equals_what_python_evaluates(text, expected):
    assert evaluate(text) == expected


@each(
    "rate",
    [
        Cosine(0.1, 100, power=2).warmup(10),
        (Linear(1, 0, 10) + Constant(1)) * 0.5 * Cosine(1, 5),
        Linear(1, 0, 10).repeat().at_least(0.1),
        OneCycle(1, 100).cooldown(5),
        schedules.MultiStep(1, [3, 5]),
        schedules.Table([0.1, 0.2]),
    ],
    ids=repr,
)
def test_a_repr_evaluates_to_the_schedule(rate):
    assert evaluate(repr(rate)) == rate


def test_every_allowed_name_exists():
    assert all(isinstance(getattr(schedules, name), type) for name in CLASSES)
    assert all(callable(getattr(schedules, name)) for name in FUNCTIONS)
    kinds = [getattr(schedules, name) for name in CLASSES]
    assert all(any(hasattr(kind, method) for kind in kinds) for method in METHODS)
    assert not any(name.startswith("_") for name in (*CLASSES, *FUNCTIONS, *METHODS))


# Text that is refused

HOSTILE = [
    ("__import__('os')", "'__import__' is not allowed; there are"),
    ("__import__('os').system('true')", "'.system' is not allowed"),
    ("__import__('os').warmup(1)", "'__import__' is not allowed"),
    ("open('/etc/passwd')", "'open' is not allowed"),
    ("eval('1')", "'eval' is not allowed"),
    ("getattr(Cosine, 'warmup')", "'getattr' is not allowed"),
    ("Schedule.from_json('')", "'.from_json' is not allowed"),
    ("Cosine.__class__", "'.__class__' is not allowed"),
    ("Cosine.__class__('X', (), {})", "'.__class__' is not allowed"),
    ("Constant(1).__class__", "'.__class__' is not allowed"),
    ("Constant(1)._values(3)", "'._values' is not allowed"),
    ("Constant(1).to_json()", "'.to_json' is not allowed"),
    ("Constant(1).plot()", "'.plot' is not allowed"),
    ("Constant(1).value", "'.value' is not allowed"),
    ("'{0.__class__}'.format(1)", "'.format' is not allowed"),
    ("schedules.schedule", "'.schedule' is not allowed"),
    ("schedules.import_module('os')", "'import_module' is not allowed"),
    ("schedules.to_torch(Constant(1), 1)", "'to_torch' is not allowed"),
    ("lrcore.schedules.Constant(1)", "'.Constant' is not allowed"),
    ("Lambda(open)", "Lambda is not allowed"),
    ("Lambda(lambda t: t)", "Lambda is not allowed"),
    ("Lambda(Constant)", "Lambda is not allowed"),
    ("Constant(Lambda)", "Lambda is not allowed"),
    ("lambda: Constant(1)", "a lambda is not allowed"),
    ("(lambda: Constant(1))()", "can't be called"),
    ("concat([Constant(x) for x in [1, 2]])", "a comprehension is not allowed"),
    ("concat(Constant(x) for x in [1, 2])", "a comprehension is not allowed"),
    ("Piecewise({x: 1 for x in [1, 2]})", "a comprehension is not allowed"),
    ("f'{Constant(1)}'", "an f-string is not allowed"),
    ("(x := Constant(1))", "an assignment is not allowed"),
    ("x = Constant(1)", "this is not an expression"),
    ("import os", "this is not an expression"),
    ("Constant(1); Constant(2)", "this is not an expression"),
    ("[Constant(1)][0]", "an index is not allowed"),
    ("Constant(1) if True else Constant(2)", "a condition is not allowed"),
    ("Constant(1) and Constant(2)", "and, or is not allowed"),
    ("Constant(1) < Constant(2)", "a comparison is not allowed"),
    ("Constant(not 1)", "not 1 is not allowed"),
    ("Constant(~1)", "~1 is not allowed"),
    ("Constant(1 << 3)", "1 << 3 is not allowed"),
    ("Constant(7 % 4)", "7 % 4 is not allowed"),
    ("Constant(1) @ Constant(2)", "is not allowed"),
    ("await Constant(1)", "await is not allowed"),
    ("Constant(*[1])", "an argument with a star is not allowed"),
    ("Constant(**{'value': 1})", "an argument with two stars is not allowed"),
    ("Piecewise({**{}})", "the keys of a dict must be numbers or strings"),
    ("Piecewise({(1, 2): 3})", "the keys of a dict must be numbers or strings"),
    ("Constant(1j)", "1j is not allowed"),
    ("Constant(b'1')", "is not allowed"),
    ("Constant(...)", "... is not allowed"),
    ("Constant({1, 2})", "a set is not allowed"),
    ("Constant", "Constant must be called"),
    ("Constant(1).warmup", ".warmup must be called"),
    ("concat([Constant])", "Constant must be called"),
    ("Constant.warmup(1)", ".warmup() is allowed only after a schedule, not after Constant"),
    ("Cosine.untuned(0.9)", "'.untuned' is not allowed"),
    ("[1].repeat(2)", ".repeat() is allowed only after a schedule"),
    ("steps_in(samples=1, batch=1).repeat(2)", "1 has no .repeat()"),
    ("Constant(1).momentum()", "Constant(value=1.0) has no .momentum()"),
    ("Constant(1)(3)", "can't be called"),
    ("-'a'", "a sign is allowed only before a number or a schedule"),
    ("Constant(1) ** 2", "** is allowed only between numbers"),
    ("Constant('a' + 'b')", "+ is allowed only between schedules and numbers"),
    ("Table([0.1] * 1000000000)", "* is allowed only between schedules and numbers"),
    ("Constant(True + 1)", "+ is allowed only between schedules and numbers"),
    ("0.1", "a schedule is needed"),
    ("'Constant(1)'", "a schedule is needed"),
    ("[Constant(1)]", "a schedule is needed"),
    ("", "this is not an expression"),
    ("Constant(1", "this is not an expression"),
    ("{", "this is not JSON"),
    ('{"schedule": "Lambda", "version": 1, "arguments": {"function": "open"}}', "callable"),
    ('{"schedule": "Schedule", "version": 1, "arguments": {}}', "there is no schedule 'Schedule'"),
]
TOO_LARGE = [
    ("Constant(10 ** 10 ** 10)", "a power must be at most 64"),
    ("Constant(9 ** 64 ** 9)", "a power must be at most 64"),
    ("Constant(2 ** 64)", "a whole number must be less than 2**63"),
    ("Constant(9999999999 * 9999999999)", "a whole number must be less than 2**63"),
    (f"Constant({'9' * 4000})", "a whole number must be less than 2**63"),
    (f"Constant({'9' * 5000})", "this is not an expression"),
    ("Constant(1e308 ** 64)", "1e+308 ** 64: "),
    ("Constant(1 / 0)", "1 / 0: division by zero"),
    ("Constant((-8) ** 0.5)", "is no real number"),
    (f"Constant({'-' * 1000}1)", "nested too deeply"),
    (f"Constant({'(' * 1000}1{')' * 1000})", ""),
    (f"Constant({'[' * 100}1{']' * 100})", "nested too deeply"),
    (f"Constant(1){' + 1' * 100}", "nested too deeply"),
    (f"Constant(1){'.every(2)' * 100}", "nested too deeply"),
    (f"Cosine(1, 100){'.warmup(1)' * 20}", "at most 8 warm-ups"),
    (f"Table([{'1, ' * 30_000}])", "at most 50000 characters"),
    ('{"schedule":' * 2000, ""),
    ("get('PolynomialLR', source='torch', lr=1, total_iters=10**12)", "a number must be at most 1000000 here"),
]


@each(("text", "message"), HOSTILE, ids=[text for text, _ in HOSTILE])
def test_forbidden_expressions_are_refused(text, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        evaluate(text)
    assert message in str(caught.value)


@each(("text", "message"), TOO_LARGE, ids=[text[:40] for text, _ in TOO_LARGE])
def test_too_large_expressions_are_refused_before_evaluation(text, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        evaluate(text)
    assert message in str(caught.value)


# The command


def test_the_command_prints_values_and_phases():
    done = start(RATE)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    rate = Cosine(0.1, 100).warmup(10)
    assert lines[:3] == [repr(rate), "length 100", rate.preview()]
    rows = dict(line.split()[:2] for line in lines[4:])
    assert {"0", "9", "10", "99", "100"} <= rows.keys()
    assert all(float(value) == pytest.approx(rate(int(step)), rel=1e-5) for step, value in rows.items())
    assert "warm-up" in done.stdout


@each("text", ["Exponential(1, 0.99)", "Linear(1, 0, 10).repeat()", "Cosine(1, 10**15)", "Linear(1, 0, 0)"])
def test_any_length_can_be_shown(text):
    done = run(text)
    assert (done.returncode, done.stderr) == (0, "")
    length = evaluate(text).length
    assert done.stdout.splitlines()[1] == ("no length" if length is None else f"length {length}")
    assert 5 <= len(done.stdout.splitlines()) <= 30


def test_the_page_shows_what_the_command_prints():
    page = PAGE.read_text(encoding="utf-8")
    expression, shown = re.search(r"^\$ python -m lrcore schedule '(.*)'\n(.*?)^```$", page, re.M | re.S).groups()
    assert run(expression).stdout == shown


def test_several_schedules_are_shown_in_order():
    done = run("Constant(1)", "Cosine(1, 10)")
    assert done.stdout.split("\n\n")[1].startswith("Cosine(start=1.0, steps=10)\n")


def test_json_is_accepted():
    assert run(Cosine(0.1, 100).to_json()).stdout.startswith("Cosine(start=0.1, steps=100)\n")


def test_steps_set_how_much_is_shown():
    assert "  0 … 6: " in run("Constant(1)", "--steps", 7).stdout


def test_a_csv_on_standard_output_is_the_only_output():
    done = run("Linear(1, 0, 3)", "--csv", "-")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "step,value"
    values = [float(line.split(",")[1]) for line in lines[1:]]
    np.testing.assert_array_equal(values, Linear(1, 0, 3).values(4))


def test_a_csv_is_written(tmp_path):
    done = run("Linear(1, 0, 4)", "--csv", tmp_path / "rate.csv", "--steps", 2)
    assert done.stdout.startswith("Linear(")
    assert (tmp_path / "rate.csv").read_text(encoding="utf-8") == "step,value\n0,1.0\n1,0.75\n"


@pytest.mark.skipif(os.name == "nt", reason="a pipe that is closed is another error on Windows")
def test_a_reader_of_a_csv_can_stop_early():
    command = [sys.executable, "-m", "lrcore", "schedule", "Constant(1)", "--csv", "-", "--steps", "300000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: S603
    assert process.stdout.readline() == "step,value\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 0


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_schedules_are_drawn_into_one_picture(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    done = run(RATE, "Linear(0.1, 0, 100)", "--plot", tmp_path / f"rates.{suffix}")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / f"rates.{suffix}").stat().st_size > 5000


def test_a_plot_without_matplotlib_says_what_to_install(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['matplotlib'] = None")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = start("Constant(1)", "--plot", tmp_path / "rate.png", PYTHONPATH=path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install matplotlib" in done.stderr


def test_another_encoding_gets_question_marks():
    done = start(RATE, PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "????" in done.stdout


@each(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: EXPRESSION"),
        (["__import__('os')"], "'__import__' is not allowed"),
        (["Cosine.__class__"], "'.__class__' is not allowed"),
        (["Lambda(open)"], "Lambda is not allowed"),
        (["Cosine(-1, 5)"], "start must be in [0, inf), got -1"),
        (["Cosine(1)"], "missing 1 required positional argument: 'steps'"),
        (["Cosine(1, 5, warm=3)"], "unexpected keyword argument 'warm'"),
        (["Constant(1)", "nonsense"], "'nonsense' is not allowed"),
        (["Constant(1)", "--steps", "0"], "argument --steps: must be in [1, 10000000], got 0"),
        (["Constant(1)", "--steps", "soon"], "argument --steps: invalid int value: 'soon'"),
        (["Constant(1)", "Constant(2)", "--csv", "-"], "argument --csv: is for one schedule, got 2"),
        (["Constant(1)", "--csv", "no/such/rate.csv"], "no/such/rate.csv"),
        (["Cosine(1, 10**9)", "--csv", "-"], "1000000000 steps are too many"),
        (["Constant(1)", "--st", "3"], "unrecognized arguments: --st 3"),
    ],
)
def test_a_bad_argument_is_named(arguments, message):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_image_format_is_refused(tmp_path):
    pytest.importorskip("matplotlib")
    done = run("Constant(1)", "--plot", tmp_path / "rate.doc")
    assert (done.returncode, done.stdout) == (2, "")
    assert "doc" in done.stderr
