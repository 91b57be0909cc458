"""A history stores rows and forwards them."""

import csv
import io
import json
import math
import pickle

import numpy as np
import pytest

import lrcore


@pytest.fixture
def history():
    opt = lrcore.SGD({"w": np.ones(2)}, lr=0.5, clip_norm=10.0)
    recorded = lrcore.History()
    for _ in range(3):
        loss = np.float32(opt.params["w"][0])
        info = recorded(opt.step({"w": opt.params["w"].copy()}), loss=loss)
        assert info.applied
    recorded(validation=np.array([0.25]), unknown=None)
    return recorded


def test_a_row_is_a_flat_dictionary_of_plain_numbers(history):
    assert history[0] == {"step": 1, "lr": 0.5, "applied": True, "grad_norm": math.sqrt(2.0), "loss": 1.0}
    assert history[-1] == {"step": 3, "validation": 0.25}
    assert [row["step"] for row in history] == [1, 2, 3, 3]
    assert history[1:3] == history.rows[1:3]
    assert json.loads(json.dumps(history.rows)) == history.rows
    assert history.columns == ["step", "lr", "applied", "grad_norm", "loss", "validation"]


def test_a_column_is_an_array(history):
    assert history["loss"].tolist()[:3] == [1.0, 0.5, 0.25]
    assert np.isnan(history["loss"][3])
    with pytest.raises(KeyError, match=r"history: column must be one of \['step', 'lr'.*, got 'accuracy'"):
        history["accuracy"]


def test_steps_may_be_given():
    recorded = lrcore.History()
    recorded(loss=1.0)
    recorded({"step": 4, "loss": 2}, extra=True)
    recorded(loss=3.0, step=10)
    recorded(loss=4.0)
    assert [row["step"] for row in recorded] == [0, 4, 10, 10]
    assert recorded[1] == {"step": 4, "loss": 2, "extra": True}


def test_it_resumes_from_its_rows(history):
    again = lrcore.History(json.loads(json.dumps(history.rows)))
    again(loss=5.0)
    assert len(again) == len(history) + 1
    assert again[-1] == {"step": 3, "loss": 5.0}
    assert pickle.loads(pickle.dumps(history)).rows == history.rows  # noqa: S301


def test_statistics_can_be_recorded():
    opt, recorded = lrcore.SGD({"w": np.ones(2)}, lr=0.5, stats=True), lrcore.History()
    info = opt.step({"w": np.ones(2)})
    recorded(info, **dict(info.stats.scalars()))
    assert recorded["w/update_norm"][0] == info.stats["w"].update_norm


class Writer:
    """Like TensorBoard's writer."""

    def __init__(self):
        self.told = []

    def add_scalar(self, name, value, step):
        self.told.append((name, value, step))


class Run:
    """Like a Weights & Biases run."""

    def __init__(self):
        self.told = []

    def log(self, values, step):
        self.told.append((step, values))


def test_existing_and_new_rows_are_forwarded():
    writer, run, rows = Writer(), Run(), []
    recorded = lrcore.History()
    recorded(loss=1.0, step=1)
    assert recorded.log_to(writer, run, rows.append) is recorded
    recorded(loss=2.0, step=2)
    assert writer.told == [("loss", 1.0, 1), ("loss", 2.0, 2)]
    assert run.told == [(1, {"loss": 1.0}), (2, {"loss": 2.0})]
    assert rows == recorded.rows
    rows[0]["loss"] = 7.0
    assert recorded[0]["loss"] == 1.0


def test_tensorboard_takes_rows(history, tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard", exc_type=ImportError)
    with tensorboard.SummaryWriter(tmp_path) as writer:
        history.log_to(writer)


def test_csv_has_all_digits(history, tmp_path):
    history.to_csv(tmp_path / "run.csv")
    text = (tmp_path / "run.csv").read_text(encoding="utf-8")
    stream = io.StringIO()
    history.to_csv(stream)
    assert stream.getvalue() == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["loss"] for row in rows] == ["1.0", "0.5", "0.25", ""]
    assert float(rows[0]["grad_norm"]) == math.sqrt(2.0)
    lrcore.History().to_csv(tmp_path / "empty.csv")


def test_columns_are_drawn(history):
    figure = pytest.importorskip("matplotlib.figure")
    ax = figure.Figure().subplots()
    assert history.plot("loss", "validation", ax=ax) is ax
    assert [line.get_label() for line in ax.get_lines()] == ["loss", "validation"]
    assert ax.get_lines()[0].get_xdata().tolist() == [1, 2, 3]
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    figure = history.plot().figure
    panels = figure.axes
    pyplot.close(figure)
    assert [panel.get_ylabel() for panel in panels] == ["lr", "grad_norm", "loss", "validation"]
    with pytest.raises(KeyError, match=r"column must be one of .*, got 'lost'"):
        history.plot("lost", ax=ax)
    with pytest.raises(ValueError, match="no columns to draw yet"):
        lrcore.History().plot(ax=ax)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda h: h((np.ones(2), "info")),
            r"info must be the result of opt.step\(…\) or a mapping, got tuple; of steps",
        ),
        (lambda h: h(loss="low"), "loss must be a number, got str: 'low'"),
        (lambda h: h(loss=np.ones(3)), "loss must be one number, got ndarray"),
        (lambda h: h(step=None, loss=[1]), "loss must be a number, got list"),
        (lambda h: h.log_to(3), "log_to: targets must have add_scalar"),
    ],
)
def test_values_that_are_not_numbers_are_rejected(call, message):
    recorded = lrcore.History()
    with pytest.raises(TypeError, match=message):
        call(recorded)
    assert len(recorded) == 0
