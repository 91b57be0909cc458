"""Whole steps, called from Python, for developers: `make bench-quick` compares them with a saved baseline.

Each rule is measured at three sizes: one limited by the call, one by a single core, one by all cores. pytest-benchmark
times each by itself, minutes apart from its baseline. On a shared machine two such measurements of memory-bound sizes
differ by more than half, so `make bench` measures those, relative to the roofline.
"""

from __future__ import annotations

import numpy as np
import pytest

import lrcore
from support.cases import CASES, Case  # pyproject.toml puts tests on the path

LENGTHS = {"16": 16, "16Ki": 16 << 10, "256Ki": 256 << 10}
RULES: dict[tuple[type, str], Case] = {}
for _case in CASES:
    RULES.setdefault((_case.optimizer, _case.rule), _case)


def arrays(length, count=1):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(length, np.float32) for _ in range(count)]


def measure(benchmark, group, step):
    benchmark.group = group
    step()  # creates the state
    benchmark(step)


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("case", RULES.values(), ids=lambda case: f"{case.optimizer.__name__}-{case.rule}")
def test_step(benchmark, case, length):
    weights, grads = arrays(length), arrays(length)
    opt = case.make(weights)
    measure(benchmark, case.optimizer.__name__, lambda: opt.step(grads))


@pytest.mark.parametrize("count", [6, 148])
def test_step_of_many_small_arrays(benchmark, count):
    weights, grads = arrays(16, count), arrays(16, count)
    opt = lrcore.AdamW(weights)
    measure(benchmark, "many arrays", lambda: opt.step(grads))
