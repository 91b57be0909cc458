"""Analysis of the curve: on problems with a known edge, and on curves without an answer."""

import dataclasses
import math
import re
from functools import partial

import numpy as np
import pytest

import lrcore
from lrcore.finder import Finder, RangeTest, curve, find_lr
from lrcore.finder.short_runs import ShortRun
from support.cases import OPTIMIZERS
from support.problems import quadratic


@pytest.mark.parametrize("largest", [0.1, 4.0, 1000.0])
@pytest.mark.parametrize(("condition", "size"), [(1, 1), (1, 10), (10, 10), (100, 30), (1e4, 50)])
def test_safe_is_within_a_factor_of_three_below_the_edge_of_a_quadratic(largest, condition, size):
    params, loss_and_grads = quadratic(largest, condition, size)
    result = find_lr(lrcore.SGD(params, lr=1.0), loss_and_grads, [()], start=1e-7, end=1e3, steps=100, progress=False)
    edge = 2.0 / largest
    assert result.stopped == "diverged"
    assert edge / 3.0 < result.suggestions["safe"].lr < edge
    assert 0.0 < result.suggest().lr < edge


def test_steepest_takes_slopes_over_the_logarithm_of_the_learning_rate():
    lrs = np.geomspace(1e-6, 1.0, 100)
    losses = 1.0 / (1.0 + np.exp(1.2 * (np.log(lrs) - math.log(1e-3))))
    assert curve.steepest(lrs, losses, 99).lr == pytest.approx(1e-3, rel=0.15)
    # Over the learning rate itself the steepest slope lies far to the left.
    assert lrs[np.argmin(np.gradient(losses, lrs))] < 0.3e-3


NO_ANSWER = {
    "still falling": (lambda t: 1.0 - 0.9 * t, "the loss still falls at .*; try end="),
    "flat": (lambda t: 1.0 + 1e-4 * math.sin(40 * t), "the loss is flat from .*; try end="),
    "exploding": (lambda t: 10.0 ** (20 * t), r"the loss (exploded|grows).*; try start="),
}


@pytest.mark.parametrize(("loss", "message"), NO_ANSWER.values(), ids=NO_ANSWER)
def test_a_curve_without_an_answer_gets_no_recommendation(loss, message):
    finder = Finder(1e-5, 1e-1, steps=60)
    for number, _ in enumerate(finder):
        finder.report(loss(number / 59))
    recommended = finder.result().suggest()
    assert recommended.lr is None
    assert (recommended.interval, recommended.probability(0.2)) == (None, 0.0)
    assert re.search(message, recommended.reason), recommended
    assert str(recommended).startswith("no recommendation: ")


class OwnSGD(lrcore.SGD):
    """A subclass under another name."""


class SGD(lrcore.Adam):
    """A subclass under a misleading name."""


@pytest.mark.parametrize(
    ("make", "momentum"),
    [
        (lambda params: lrcore.SGD(params, lr=0.1), 0.0),
        (lambda params: lrcore.SGD(params, lr=0.1, momentum=0.9), 0.9),
        (lambda params: lrcore.SGD(params, lr=0.1, momentum=0.9, nesterov=True), 0.0),
        (lambda params: OwnSGD(params, lr=0.1, momentum=0.9), 0.9),
        (lambda params: SGD(params, lr=0.1), None),
        *((partial(optimizer, lr=0.1), None) for optimizer in OPTIMIZERS if optimizer._declaration.is_adaptive),
    ],
)
def test_the_edge_decides_for_optimizers_that_are_not_adaptive(make, momentum):
    params, loss_and_grads = quadratic()
    result = find_lr(make(params), loss_and_grads, [()], start=1e-5, end=1e3, steps=100, progress=False)
    steepest, safe = (result.suggestions[name].lr for name in ("steepest", "safe"))
    assert result.momentum == momentum
    if momentum is None:
        assert result.suggest().lr == min(math.sqrt(steepest * safe), 1.5 * steepest, safe)
    else:
        assert result.suggest().lr == safe


def test_a_curve_that_has_levelled_off_does_not_still_fall():
    finder = Finder(1e-6, 10.0, steps=100)
    for lr in finder:
        # It falls around 0.01, and after that so slowly that the minimum is at the end.
        finder.report(1.0 / (1.0 + 100.0 * lr) + 1e-3 * math.log10(10.0 / lr))
    result = finder.result()
    assert np.argmin(result.losses) == 99
    assert 1e-3 < result.suggest().lr < 0.1


def found():
    params, loss_and_grads = quadratic()
    return find_lr(lrcore.SGD(params, lr=1.0), loss_and_grads, [()], start=1e-5, steps=100, progress=False)


def test_a_result_survives_json():
    last = [RangeTest((1.0, 2.0), (1.0, value), (0.0, value), "nan") for value in (float("nan"), math.inf, -math.inf)]
    params, loss_and_grads = quadratic()
    with_runs = [
        find_lr(lrcore.SGD(params), loss_and_grads, [()], validation=validation, run_length=9, progress=False)
        for validation in (None, lambda params: math.nan if abs(params["w"]).max() > 9.0 else float(params["w"][0]))
    ]
    assert all(result.runs for result in with_runs)
    ends = [ShortRun(0.1, 2, (1.0, value), value) for value in (float("nan"), math.inf, -math.inf)]
    with_runs.append(dataclasses.replace(found(), runs=tuple(ends), untrained=(float("nan"),)))
    for result in (found(), *last, *with_runs):
        again = RangeTest.from_json(result.to_json())
        assert again == result
        assert again.to_dict() == result.to_dict()
        assert str(again.suggest()) == str(result.suggest())
        assert str(again.suggestions) == str(result.suggestions)
    with pytest.raises(ValueError, match="text must be JSON of a range test: "):
        RangeTest.from_json("{")
    with pytest.raises(ValueError, match="range_test must be version 2, got 3"):
        RangeTest.from_json(found().to_json().replace('"range_test": 2', '"range_test": 3'))
    with pytest.raises(ValueError, match="text must be a JSON object of range_test, "):
        RangeTest.from_json("{}")


def test_the_table_has_each_suggestion_with_its_reason():
    result = found()
    assert list(result.suggestions) == ["steepest", "valley", "slide", "minimum / 10", "safe"]
    for one in result.suggestions.values():
        assert one.name in result.table()
        assert one.reason in result.table()
    assert f"recommended: {result.suggest()}" in str(result)


def test_the_plot_marks_each_suggestion():
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot as plt

    result = found()
    ax = result.plot()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert ax.get_xscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("learning rate", "loss")
    assert sum(any(label.startswith(name) for label in labels) for name in result.suggestions) == 5
    plt.close("all")


def curve_of(losses, *, start=1e-7, end=10.0, momentum=None):
    """A result with these losses at as many learning rates."""
    return RangeTest(tuple(np.geomspace(start, end, len(losses)).tolist()), tuple(losses), momentum=momentum)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.5, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize(("largest", "size"), [(1.0, 1), (4.0, 3), (10.0, 10), (100.0, 100)])
@pytest.mark.parametrize("seed", [0, 1])
def test_safe_is_below_the_edge_with_momentum(largest, size, seed, momentum, nesterov):
    params, loss_and_grads = quadratic(largest, 100.0 if size > 1 else 1.0, size, seed)
    opt = lrcore.SGD(params, lr=1.0, momentum=momentum, nesterov=nesterov)
    result = find_lr(opt, loss_and_grads, [()], end=1e3, steps=100, progress=False)
    # With Nesterov's correction it is 2 (1 + β) / (1 + 2β) / L.
    edge = 2.0 * (1.0 + momentum) / (1.0 + 2.0 * momentum if nesterov else 1.0) / largest
    assert edge / 3.0 < result.suggestions["safe"].lr < edge
    assert result.suggest().lr == result.suggestions["safe"].lr


def test_a_loss_that_only_oscillates_has_no_edge():
    params, loss_and_grads = quadratic(10.0, 1.0, 1)
    opt = lrcore.SGD(params, lr=1.0, momentum=0.9)
    result = find_lr(opt, loss_and_grads, [()], start=1e-7, end=0.1, steps=100, progress=False)
    assert "safe" not in result.suggestions
    assert result.suggest().probability() < 0.3


def test_a_test_that_ends_where_the_loss_starts_to_grow_has_no_edge():
    params, loss_and_grads = quadratic(1.0, 100.0, 10, seed=3)
    result = find_lr(lrcore.SGD(params, lr=1.0), loss_and_grads, [()], steps=100, progress=False)
    assert result.stopped == "end"
    assert "safe" not in result.suggestions


def test_the_minimum_of_a_curve_without_noise_is_not_averaged():
    losses = [abs(i - 70) + 1.0 for i in range(100)]
    result = curve_of(losses)
    assert result.suggestions["minimum / 10"].lr == result.lrs[70] / 10.0


NOISY = {
    "flat": lambda _, noise: 1.0 + 0.05 * noise,
    "flat, lognormal": lambda _, noise: math.exp(0.1 * noise),
    "falling to the end": lambda t, noise: 2.0 - t + 0.1 * noise,
    "falling at the end": lambda t, noise: 2.0 - 1.0 / (1.0 + math.exp(-12.0 * (t - 0.9))) + 0.1 * noise,
}


@pytest.mark.parametrize("loss", NOISY.values(), ids=NOISY)
def test_noise_alone_rarely_gets_a_recommendation(loss):
    numbers = 0
    for seed in range(60):
        noise = np.random.default_rng(seed).standard_normal(100)
        recommended = curve_of([loss(i / 99, noise[i]) for i in range(100)]).suggest()
        numbers += recommended.probability() > 0.3
    assert numbers <= 1


def test_a_loss_that_explodes_at_once_asks_for_a_lower_start():
    for factor in (1.05, 1.25, 2.0):
        finder = Finder(1.0, 1e3)
        for number, _ in enumerate(finder):
            finder.report(factor**number)
        assert "; try start=0.001" in str(finder.result().suggest())
    finder, w = Finder(0.4, 10.0), 1.0
    for lr in finder:
        finder.report(2.0 * w * w)
        w -= lr * 4.0 * w
    assert "; try start=0.0004" in str(finder.result().suggest())


def test_results_without_losses_say_so():
    empty = Finder().result()
    assert str(empty).startswith("no learning rates\n")
    assert "needs 8 losses, got 0" in str(empty.suggest())
    with pytest.raises(ValueError, match="no recommendation: a curve needs 8 losses, got 0"):
        float(empty.suggest())
    with pytest.raises(ValueError, match=r"^nothing to draw: no loss is finite$"):
        empty.plot()
    finder = Finder()
    for _ in finder:
        finder.report(math.nan)
    assert "the loss exploded within 1 step;" in str(finder.result())


def test_suggestions_are_numbers():
    result = found()
    assert float(result.suggestions["safe"]) == result.suggestions["safe"].lr
    assert float(result.suggest()) == result.suggest().lr


def test_a_loop_that_ends_early_is_marked_left():
    finder = Finder(steps=30)
    for number, _ in enumerate(finder):
        finder.report(1.0)
        if number == 11:
            break
    assert finder.result().stopped == "left"
    assert "; the loop ended early\n" in str(finder.result())


def test_plot_takes_axes_only():
    pytest.importorskip("matplotlib")
    with pytest.raises(TypeError, match=r"^ax must be matplotlib axes, got 'x\.png'; to write a file: "):
        found().plot("x.png")
