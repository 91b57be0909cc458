"""``tune_lr``: it trains around a recommendation, and beyond where the best learning rate is at an end."""

import math
import re

import pytest

import lrcore
from lrcore.finder import Recommendation


def objective(lr, seed, budget):
    """Least at 0.2, better with a larger budget, and a little different with each seed."""
    return abs(math.log(lr / 0.2)) + 1.0 / budget + 0.01 * (seed % 7)


def tuned(around, **options):
    arguments = {"budget": (2, 18), "seeds": 2, "workers": 0, "progress": False, **options}
    return lrcore.tune_lr(objective, around, **arguments)


@pytest.mark.parametrize("around", [1e-3, 0.1, 0.25, 20.0])
def test_it_finds_the_best_learning_rate_from_afar(around):
    found = tuned(around)
    assert 0.13 < found.lr < 0.3
    assert found.is_inside
    assert float(found) == found.lr
    lrs = {row["lr"] for row in found.results}
    assert min(lrs) < found.lr < max(lrs)
    assert found.results.best.settings == {"lr": found.lr}


def test_better_learning_rates_train_longer():
    found = tuned(0.1)
    budgets = {}
    for row in found.results:
        budgets.setdefault(row["lr"], set()).add(row["budget"])
    assert budgets[found.lr] == {2, 6, 18}
    assert budgets[min(budgets)] == {2}
    assert "within 0.05 of the best from" in str(found)


def test_a_single_budget_trains_all_learning_rates_as_long():
    found = tuned(0.1, budget=5)
    assert {row["budget"] for row in found.results} == {5}
    assert len(found.results) == 7 * 2


def test_a_recommendation_gives_the_center_and_the_span():
    lrs = sorted({row["lr"] for row in tuned(Recommendation(0.1, (0.025, 0.4), (0.7, 0.9), "")).results})
    assert (lrs[0], lrs[3], lrs[-1]) == pytest.approx((0.025, 0.1, 0.4))
    lrs = sorted({row["lr"] for row in tuned(0.1, span=2.0, rates=3).results})
    assert lrs[:3] == pytest.approx([0.05, 0.1, 0.2])


def test_the_search_ends_where_learning_rates_improve_without_end():
    found = lrcore.tune_lr(lambda lr, seed, budget: 1.0 / lr, 1.0, budget=1, seeds=1, workers=0, progress=False)  # noqa: ARG005
    assert not found.is_inside
    assert found.lr == max(row["lr"] for row in found.results)
    assert str(found).startswith("best learning rate: 1e+03; it is the last one that was tried on its side\n")


def test_the_objective_may_be_maximized():
    found = lrcore.tune_lr(
        lambda lr, seed, budget: -(lr - 0.2) ** 2, 0.1, budget=1, seeds=1, workers=0, minimize=False, progress=False  # noqa: ARG005
    )  # fmt: skip
    assert 0.1 < found.lr < 0.4


def test_it_resumes_from_its_results(tmp_path):
    calls = []

    def counted(lr, seed, budget):
        calls.append(lr)
        return objective(lr, seed, budget)

    arguments = {"budget": (2, 6), "seeds": 1, "workers": 0, "progress": False, "results": tmp_path / "tune.sqlite"}
    first = lrcore.tune_lr(counted, 0.01, **arguments)
    count = len(calls)
    second = lrcore.tune_lr(counted, 0.01, **arguments)
    assert (second.lr, len(calls)) == (first.lr, count)


NONE = Recommendation(None, None, (0.0, 0.0), "the curve is flat")


@pytest.mark.parametrize(
    ("around", "options", "exception", "message"),
    [
        (0.0, {}, ValueError, "around must be in (0, inf), got 0.0"),
        ("0.1", {}, TypeError, "around must be a number in (0, inf), got '0.1'"),
        (NONE, {}, ValueError, "around must have a learning rate, got 'no recommendation: the curve is flat'"),
        (0.1, {"span": 1.0}, ValueError, "span must be in (1, inf), got 1.0"),
        (0.1, {"rates": 2}, ValueError, "rates must be >= 3, got 2"),
    ],
)
def test_invalid_arguments_are_rejected(around, options, exception, message):
    with pytest.raises(exception, match=f"^{re.escape(message)}$"):
        tuned(around, **options)
