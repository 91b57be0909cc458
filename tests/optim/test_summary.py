"""The table of an optimizer's parameters, and its memory use."""

import re

import numpy as np
import pytest

import lrcore
from lrcore import schedules


def test_rows_show_the_hyperparameters_of_the_next_step():
    rate = schedules.Linear(0.1, 0.0, steps=10)
    groups = [
        {"params": {"w": np.zeros((2, 3), np.float32), "bias": np.zeros(())}},
        {"params": {"head": np.zeros(4)}, "name": "head", "lr_scale": 0.5, "weight_decay": rate},
    ]
    opt = lrcore.AdamW(groups, lr=rate, weight_decay=0.25, no_decay=["bias"], average=lrcore.EMA())
    opt.step({"w": np.ones((2, 3), np.float32), "bias": np.ones(()), "head": None})
    rows = opt.summary().rows
    assert rows == [
        ("w", (2, 3), "float32", "0", rate(1), 0.25, 3 * 24),
        ("bias", (), "float64", "0", rate(1), 0.0, 3 * 8),
        ("head", (4,), "float64", "head", 0.5 * rate(1), rate(1), 0),
    ]
    assert rows[0]._fields == ("name", "shape", "dtype", "group", "lr", "decay", "state_bytes")
    assert opt.memory() == opt.summary().memory == (24 + 8 + 32, 2 * 32, 32, 64 + 64 + 32)
    assert opt.memory()._fields == ("weights", "state", "average", "total")


def test_accumulated_gradients_count_as_state_memory():
    opt = lrcore.SGD({"w": np.zeros(4), "b": np.zeros(2)}, lr=0.1)
    assert opt.memory() == (48, 0, 0, 48)
    opt.accumulate({"w": np.ones(4), "b": None})
    assert opt.memory() == (48, 32, 0, 80)


def test_a_summary_prints_a_line_for_each_parameter_and_a_total():
    opt = lrcore.AdamW({"layer.w": np.zeros((64, 10)), "b": np.zeros(10)}, lr=1e-3, weight_decay=0.1, no_decay="b")
    lines = str(opt.summary()).splitlines()
    assert [line.split() for line in lines[:-1]] == [
        ["name", "shape", "dtype", "group", "lr", "decay", "state_bytes"],
        ["layer.w", "64×10", "float64", "0", "0.001", "0.1", "0"],
        ["b", "10", "float64", "0", "0.001", "0", "0"],
    ]
    assert lines[-1] == "total: 2 parameters, 1 with weight decay; 650 weights, 5.078 KiB; state 0 B; average 0 B"
    assert repr(opt.summary()) == str(opt.summary())


@pytest.mark.parametrize("count", [40, 41, 1000])
def test_a_long_table_is_shortened_when_printed_but_not_in_rows(count):
    summary = lrcore.SGD({f"<p{i}>": np.zeros(1) for i in range(count)}, lr=0.1).summary()
    lines = str(summary).splitlines()
    assert len(summary.rows) == count
    assert len(lines) == 2 + 40 + (count > 40)
    assert lines[1].startswith("<p0>")
    assert lines[-2].startswith(f"<p{count - 1}>")
    assert (f"… {count - 40} more …" in str(summary).replace(",", "")) == (count > 40)
    html = summary._repr_html_()
    assert html.count("<tr>") == 1 + 40 + (count > 40)
    assert "&lt;p0&gt;" in html
    assert re.search(rf"total: {count:,} parameters", html)
