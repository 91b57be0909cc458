"""Plots, previews and CSV files have the values of the schedule."""

import csv
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lrcore import schedules
from lrcore.schedules import Constant, Cosine, Exponential, Lambda, Linear, MultiStep, OneCycle, Table
from lrcore.schedules.plotting import BLOCKS, phases, plot, preview, to_csv

ROOT = Path(__file__).parents[2]
GALLERY = ROOT / "docs" / "gallery"


@pytest.fixture
def ax():
    figure = pytest.importorskip("matplotlib.figure")
    return figure.Figure().subplots()


@pytest.fixture
def pyplot():
    pytest.importorskip("matplotlib").use("Agg")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    yield pyplot
    pyplot.close("all")


def drawn(ax):
    """The curves, without the lines at which phases begin."""
    return [line for line in ax.get_lines() if len(line.get_xdata()) != 2 or len(set(line.get_xdata())) == 2]


def marks(ax):
    return [text.get_text() for text in ax.texts]


# Curves


def test_a_curve_has_the_value_of_every_step(ax):
    rate = Cosine(0.1, steps=100)
    assert plot(rate, ax=ax) is ax
    (line,) = drawn(ax)
    np.testing.assert_array_equal(line.get_xdata(), range(110))
    np.testing.assert_array_equal(line.get_ydata(), rate.values(110))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "value")
    assert ax.get_legend() is None


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ([Constant(1)], 1000),
        ([Linear(1, 0, 0)], 1000),
        ([Linear(1, 0, 5)], 6),
        ([Linear(1, 0, 100), Cosine(1, 300), Constant(1)], 330),
    ],
)
def test_the_longest_schedule_says_how_many_steps_are_drawn(ax, given, steps):
    for line in plot(*given, ax=ax).get_lines():
        assert line.get_xdata()[-1] == steps - 1


def test_the_number_of_steps_can_be_given(ax):
    assert list(plot(Cosine(1, 300), steps=np.int64(7), ax=ax).get_lines()[0].get_xdata()) == list(range(7))


def test_several_have_a_legend(ax):
    rate = Cosine(0.1, steps=100)
    plot({"plain": rate, "half": rate * 0.5}, 0.05, ax=ax)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["plain", "half", "Constant(value=0.05)"]
    assert marks(ax) == []


def test_labels_name_schedules(ax):
    plot(Constant(1), Constant(2), labels=["one", "two"], ax=ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]


def test_a_long_label_is_cut(ax):
    plot(Table([0.1] * 100), Constant(1), ax=ax)
    label = ax.get_legend().get_texts()[0].get_text()
    assert len(label) == 60
    assert label.endswith("…")


def test_existing_axis_labels_are_kept(ax):
    ax.set(xlabel="update", ylabel="learning rate")
    plot(Constant(1), ax=ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("update", "learning rate")


@pytest.mark.parametrize("steps", [70_000, 3_000_000, 2**53])
def test_a_long_schedule_is_drawn_with_few_points_and_all_its_jumps(ax, steps):
    third = steps // 3
    rate = (
        Constant(1).then(Constant(4), at=third).then(Constant(2), at=third + 1).then(Linear(2, 0, third), at=2 * third)
    )
    (line,) = drawn(plot(rate, steps=steps, ax=ax))
    x, y = line.get_xdata(), line.get_ydata()
    assert len(x) <= 4100
    assert (x[0], x[-1]) == (0, steps - 1)
    assert np.all(np.diff(x) > 0)
    assert 4.0 in y
    np.testing.assert_array_equal(y, rate.values(x))


def test_a_logarithmic_axis_leaves_zeros_out(ax):
    plot(Linear(1, 0, 10).warmup(2), ax=ax, log=True)
    assert ax.get_yscale() == "log"
    ax.figure.canvas.draw()
    low, high = ax.get_ylim()
    assert 0 < low <= 0.125
    assert high > 1


@pytest.mark.filterwarnings("ignore:Data has no positive values")
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("rate", [Constant(0), Constant(0).then(Constant(0), at=5), Linear(0, 0, 10).warmup(3)])
def test_nothing_but_zeros_can_be_drawn(ax, rate, log):
    plot(rate, ax=ax, log=log).figure.canvas.draw()


def test_without_axes_there_is_a_new_figure(pyplot):
    first, second = Cosine(1, 10).plot(), plot(Cosine(1, 10))
    assert first.figure is not second.figure
    assert len(pyplot.get_fignums()) == 2


def test_with_axes_there_is_no_new_figure(pyplot):
    figure, ax = pyplot.subplots()
    assert Cosine(1, 10).plot(ax=ax).figure is figure
    assert len(pyplot.get_fignums()) == 1


def test_the_method_is_the_function(ax):
    plot(Cosine(1, 10), steps=5, ax=ax, log=True)
    other = Cosine(1, 10).plot(5, type(ax.figure)().subplots(), log=True)
    np.testing.assert_array_equal(ax.get_lines()[0].get_xydata(), other.get_lines()[0].get_xydata())
    assert other.get_yscale() == "log"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plot(), ValueError, "at least one schedule"),
        (lambda: plot({}), ValueError, "at least one schedule"),
        (lambda: plot("cosine"), TypeError, "a schedule or a number is needed, got 'cosine'"),
        (lambda: plot({"a": None}), TypeError, "plot: a: a schedule or a number is needed"),
        (lambda: plot(Constant(1), labels=["a", "b"]), ValueError, "labels must be one for each of 1"),
        (lambda: plot(Constant(1), labels="a"), ValueError, "labels must be one for each of 1"),
        (lambda: plot(Constant(1), steps=0), ValueError, "steps must be >= 1, got 0"),
        (lambda: plot(Constant(1), steps=0.5), TypeError, "steps must be a whole number"),
        (lambda: preview(Constant(1), steps=0), ValueError, "preview: steps must be >= 1"),
        (lambda: preview(Constant(1), width=0), ValueError, "preview: width must be >= 1"),
        (lambda: preview(Constant(1), width=10**6), ValueError, "preview: width must be <= 1000"),
        (lambda: to_csv(Constant(1), io.StringIO(), -1), ValueError, "to_csv: steps must be >= 0"),
        (lambda: to_csv(Constant(1), io.StringIO(), 1.0), TypeError, "to_csv: steps must be a whole number"),
    ],
)
def test_a_wrong_argument_is_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        plot(Constant(1))


def test_importing_the_module_does_not_import_matplotlib():
    code = "import sys, lrcore.schedules.plotting; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


# Phases


def test_phases_of_one_schedule_are_marked(ax):
    plot(Cosine(1, 1000).warmup(300).cooldown(200), ax=ax)
    assert marks(ax)[0] == "warm-up"
    assert marks(ax)[-1] == "cool-down"
    assert {300, 800} <= {line.get_xdata()[0] for line in ax.get_lines()}


def test_the_names_of_phases_are_above_the_curve(ax):
    (line,) = drawn(plot(Constant(1).then(Constant(2), at=500), ax=ax))
    ax.figure.canvas.draw()
    top = ax.transData.transform((0, line.get_ydata().max()))[1]
    assert marks(ax)
    assert all(text.get_window_extent().y0 >= top for text in ax.texts)


def test_the_names_of_phases_do_not_overlap(ax):
    plot(schedules.concat([*[Linear(1, 0.5, steps) for steps in (5, 10, 20, 400, 300)], 0.3]), ax=ax)
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) >= 4
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1 for box in boxes)


def test_a_schedule_of_one_phase_has_no_marks(ax):
    plot(Cosine(1, 100) * 0.5, ax=ax)
    assert len(ax.get_lines()) == 1
    assert marks(ax) == []


def test_phases_are_in_order_and_those_that_begin_later_are_left_out():
    rate = Linear(0, 1, 10).then(Cosine(1, 50)).then(0.1)
    assert [at for _, at in phases(rate, 60)] == [0, 10]
    assert [at for _, at in phases(rate, 61)] == [0, 10, 60]


def test_runs_of_an_infinite_repeat_are_marked_if_they_are_few():
    forever = Linear(1, 0, 100).repeat()
    assert phases(forever, 300) == [("run 1", 0), ("run 2", 100), ("run 3", 200)]
    assert phases(forever, 10_000) == []
    assert phases(forever * Cosine(1, 100), 10_000) == []


@pytest.mark.parametrize(
    "rate",
    [
        Linear(1, 0, 10).repeat().warmup(5),
        Linear(1, 0, 10).repeat().then(0.1, at=100),
        Linear(1, 0, 10).repeat().cooldown(10, at=100),
        Linear(1, 0, 10).repeat(10**12).warmup(5),
    ],
)
def test_a_schedule_after_an_infinite_repeat_can_be_drawn(rate):
    # In a process of its own, since what has no end would fill the memory.
    code = f"from lrcore.schedules import *; from lrcore.schedules.plotting import phases; phases({rate!r}, 200)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)  # noqa: S603


# A line of characters


@pytest.mark.parametrize(
    ("rate", "steps", "expected"),
    [
        (Linear(0, 1, 8), 9, "▁▂▃▄▅▆▇██  0 … 8: 0 → 1, largest 1"),
        (Linear(8, 0, 8), 9, "██▇▆▅▄▃▂▁  0 … 8: 8 → 0, largest 8"),
        (Constant(0), 3, "▁▁▁  0 … 2: 0 → 0, largest 0"),
        (Constant(0.3), 3, "███  0 … 2: 0.3 → 0.3, largest 0.3"),
        (Constant(1e-5), 1, "█  0 … 0: 1e-05 → 1e-05, largest 1e-05"),
        (Table([0.95, 0.85, 0.9]), 3, "█▁▅  0 … 2: 0.95 → 0.9, largest 0.95, drawn from 0.85"),
        (Table([1.0, 0.5]), 2, "█▅  0 … 1: 1 → 0.5, largest 1"),
        (Exponential(1, 1e300), 3, "▁▁█  0 … 2: 1 → 1.798e+308, largest 1.798e+308"),
        (Constant(1e308) * 10, 2, "██  0 … 1: 1.798e+308 → 1.798e+308, largest 1.798e+308"),
    ],
)
def test_a_preview_is_exact(rate, steps, expected):
    assert preview(rate, steps=steps) == expected


def test_a_preview_shows_the_largest_value_of_the_steps_of_each_character():
    rate = Lambda(lambda step: float(step == 57))
    assert preview(rate, steps=100, width=10).startswith("▁▁▁▁▁█▁▁▁▁  ")


@pytest.mark.parametrize("width", [1, 7, 60, 1000])
@pytest.mark.parametrize("steps", [1, 59, 61, 1000, 70_000, 2**53])
def test_a_preview_has_its_width(steps, width):
    line, _, text = preview(OneCycle(1, 1000), steps=steps, width=width).partition("  ")
    assert len(line) == min(width, steps)
    assert set(line) <= set(BLOCKS)
    assert text.startswith(f"0 … {steps - 1}: ")


def test_a_preview_of_a_very_long_schedule():
    assert preview(Linear(1, 0, 10**30), width=10) == f"{'█' * 10}  0 … {2**53 - 1}: 1 → 1, largest 1"


# A table of all values


def test_a_csv_reads_back_to_the_same_bits(tmp_path):
    rate, steps = Cosine(0.1, 40_000).warmup(0.1), 45_000
    to_csv(rate, tmp_path / "rate.csv", steps)
    with (tmp_path / "rate.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["step", "value"]
    assert [int(step) for step, _ in rows[1:]] == list(range(steps))
    np.testing.assert_array_equal([float(value) for _, value in rows[1:]], rate.values(steps))


def test_a_csv_goes_to_a_path_or_a_stream(tmp_path):
    stream = io.StringIO()
    to_csv(MultiStep(1, [1], 0.5), stream, 2)
    to_csv(MultiStep(1, [1], 0.5), str(tmp_path / "rate.csv"), 2)
    assert stream.getvalue() == "step,value\n0,1.0\n1,0.5\n"
    assert (tmp_path / "rate.csv").read_bytes().decode() == stream.getvalue()


def test_a_csv_of_no_steps_has_its_names():
    stream = io.StringIO()
    to_csv(Constant(1), stream, 0)
    assert stream.getvalue() == "step,value\n"


# The gallery


@pytest.mark.parametrize("name", schedules.CLASSES)
def test_each_class_has_a_picture_in_the_gallery(name):
    picture = (GALLERY / f"{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 40_000
    assert f"({name}.png)" in (GALLERY / "README.md").read_text(encoding="utf-8")


def test_the_gallery_shows_every_picture_that_there_is():
    shown = re.findall(r"!\[[^\]]*\]\((\S+\.png)\)", (GALLERY / "README.md").read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(path.name for path in GALLERY.glob("*.png"))
