"""Short runs: which are made, what they tell, and the recommendation that comes from them."""

import math
from itertools import islice

import numpy as np
import pytest

import lrcore
from lrcore.finder import find_lr, finder
from lrcore.finder.result import Recommendation
from lrcore.finder.short_runs import COUNTED, LONGEST, ROUNDS, ShortRun, estimate, explore, has_exploded, multiple
from support.problems import quadratic


def made(loss_at, noise=0.0):
    """A function that makes runs whose losses are a function of the learning rate, plus the same noise."""

    def run(lr, steps):
        loss = loss_at(lr)
        if not math.isfinite(loss):
            return ShortRun(lr, steps, (1.0, 1.0, loss))
        return ShortRun(lr, steps, tuple((loss + noise * np.random.default_rng(7).standard_normal(steps)).tolist()))

    return run


def valley(best, edge=math.inf):
    """A loss that is least at a learning rate, and infinite above another."""
    return lambda lr: 1.0 - math.exp(-(math.log10(lr / best) ** 2)) if lr < edge else math.inf


@pytest.mark.parametrize("edge", [math.inf, 2.0])
@pytest.mark.parametrize("best", [1e-3, 0.07, 1.0, 30.0])
@pytest.mark.parametrize("center", [1e-4, 0.1, 10.0])
def test_runs_move_to_the_best_learning_rate(center, best, edge):
    runs = explore(made(valley(best, edge * best)), center, 10_000)
    found = estimate(runs, [1.0] * COUNTED)
    assert found.is_inside
    assert 1 / 1.5 < found.lr / best < 1.5
    assert [run.steps for run in runs] == sorted(run.steps for run in runs)
    fine = sorted(run.lr for run in runs if run.steps == LONGEST)
    ratios = np.diff(np.log(fine)) / math.log(ROUNDS[-1][1])
    assert ratios == pytest.approx(np.round(ratios))


@pytest.mark.parametrize("budget", range(0, 400, 7))
def test_runs_keep_to_the_budget_and_the_long_ones_have_a_part_of_it(budget):
    runs = explore(made(valley(1e3)), 1e-3, budget)
    assert sum(len(run.losses) for run in runs) <= budget
    assert sum(run.steps == LONGEST for run in runs) >= (2 if budget >= 100 else 0)


def test_noise_that_is_the_same_in_all_runs_does_not_matter():
    exact, noisy = (explore(made(valley(0.05), noise), 0.1, 1000) for noise in (0.0, 5.0))
    untrained = 1.0 + 5.0 * np.random.default_rng(7).standard_normal(LONGEST)[-COUNTED:]
    assert [run.lr for run in noisy] == [run.lr for run in exact]
    found = estimate(noisy, untrained)
    assert found.lr == pytest.approx(estimate(exact, [1.0] * COUNTED).lr, rel=1e-6)
    assert found.error < 1e-6
    assert found.falling == 1.0


def test_runs_in_which_no_loss_falls_say_nothing():
    runs = explore(made(lambda _: 1.0), 0.1, 300)
    assert estimate(runs, [1.0] * COUNTED) is None
    assert estimate(runs, [0.5] * COUNTED) is None
    assert estimate(explore(made(lambda _: math.inf), 0.1, 300), [1.0] * COUNTED) is None
    assert estimate([run for run in runs if run.steps < LONGEST], [2.0] * COUNTED) is None
    assert estimate(explore(made(valley(0.1)), 0.1, 300), [*[1.0] * (COUNTED - 1), math.nan]) is None


def test_a_run_stops_at_three_large_losses_in_a_row():
    assert not has_exploded([1.0, 50.0, 50.0], 10.0)
    assert not has_exploded([50.0, 50.0, 1.0, 50.0], 10.0)
    assert has_exploded([1.0, 50.0, 50.0, 50.0], 10.0)
    assert has_exploded([1.0, math.nan], 10.0)


def test_long_runs_of_adaptive_optimizers_want_lower_learning_rates():
    factors = [multiple((0.1, -0.3), length) for length in (1, 300, 3000, 30_000)]
    assert factors == pytest.approx([10**0.1, 10**0.1, 10**-0.2, 10**-0.5])
    assert multiple((0.1, -0.3), None) == multiple((0.1, -0.3), 1000)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_the_recommendation_trains_as_well_as_the_best_of_a_grid(name):
    def trained(lr):
        params, loss_and_grads = quadratic(4.0, 30.0, 20)
        rng = np.random.default_rng(3)
        opt = getattr(lrcore, name)(params, lr=lrcore.schedules.Cosine(lr, 300).warmup(15))
        for _ in range(300):
            opt.step(loss_and_grads(params, 0.1 * rng.standard_normal(20))[1])
        return loss_and_grads(params)[0]

    params, loss_and_grads = quadratic(4.0, 30.0, 20)
    rng = np.random.default_rng(1)
    batches = iter(lambda: (0.1 * rng.standard_normal(20),), None)
    result = find_lr(getattr(lrcore, name)(params), loss_and_grads, batches, run_length=300, progress=False)
    with np.errstate(all="ignore"):
        losses = {lr: trained(lr) for lr in np.geomspace(1e-3, 10.0, 17).tolist()}
    best = min(losses, key=losses.get)
    assert trained(result.suggest().lr) < 1.2 * losses[best] + 1e-3 * losses[1e-3]


def call(batches=((),), **arguments):
    params, loss_and_grads = quadratic()
    seen = []

    def counted(params, *batch):
        seen.append(batch)
        return loss_and_grads(params, *(batch[:0]))

    return find_lr(lrcore.SGD(params), counted, batches, progress=False, **arguments), seen


def test_all_runs_see_the_same_batches():
    result, seen = call(iter([(i,) for i in range(100)]))
    tested = len(result.losses)
    kept = [(i,) for i in range(tested, tested + LONGEST)]
    assert seen[tested : tested + COUNTED] == kept[-COUNTED:]  # with the untrained weights
    of_runs = iter(seen[tested + COUNTED :])
    for run in result.runs:
        assert list(islice(of_runs, len(run.losses))) == kept[: len(run.losses)]
    assert next(of_runs, None) is None
    assert len(seen) <= finder.BUDGET


def test_there_are_no_runs_without_enough_batches_or_budget():
    tested = len(call(iter([()] * 200))[0].losses)
    assert call(iter([()] * (tested + LONGEST)))[0].runs
    assert not call(iter([()] * (tested + LONGEST - 1)))[0].runs
    assert not call(budget=tested + 100)[0].runs
    assert call(budget=tested + 130)[0].runs
    assert not call(steps=60)[0].runs
    assert call(steps=60, budget=300)[0].runs


def test_large_batches_are_kept_up_to_a_number_of_bytes(monkeypatch):
    monkeypatch.setattr(finder, "_MOST_BYTES", 3 * 80)
    result, seen = call(iter([(np.full(10, float(i)),) for i in range(100)]))
    first = len(result.losses)
    assert {int(x[0]) for (x,) in seen[first:]} == set(range(first, first + 4))


def test_micro_batches_and_validation_losses_are_those_of_the_range_test():
    result, seen = call(accumulate=2, validation=lambda params: float(params["w"] @ params["w"]))
    assert len(result.untrained) == 1
    assert all(run.validation is not None for run in result.runs if not run.exploded)
    assert len(seen) == 2 * (len(result.losses) + COUNTED + sum(len(run.losses) for run in result.runs))


def test_a_validation_loss_may_have_another_scale():
    params, loss_and_grads = quadratic()

    def found(scale):
        validation = lambda params: scale * loss_and_grads(params)[0]  # noqa: E731
        return find_lr(lrcore.SGD(params), loss_and_grads, [()], validation=validation, progress=False)

    plain, scaled = found(1.0), found(1e-6)
    assert [run.lr for run in scaled.runs] == [run.lr for run in plain.runs]
    assert scaled.suggest().lr == pytest.approx(plain.suggest().lr)


def test_a_loss_that_the_data_makes_nan_is_said_to_be_in_the_data():
    params = {"w": np.ones(3)}

    def loss_and_grads(params, x):
        return float(x * params["w"] @ params["w"]), {"w": 2.0 * x * params["w"]}

    batches = [1.0] * 17 + [math.nan] + [1.0] * 200
    result = find_lr(lrcore.SGD(params), loss_and_grads, iter(batches), progress=False)
    assert (result.stopped, result.runs) == ("data", ())
    assert str(result.suggest()) == (
        "no recommendation: the loss of batch 18 is nan, also with the weights before the test: look for values in the "
        "data that are not finite"
    )


def test_short_runs_may_follow_a_range_test_that_begins_too_high():
    params, loss_and_grads = quadratic()
    with np.errstate(all="ignore"):
        result = find_lr(
            lrcore.SGD(params), loss_and_grads, [()], start=1e300, end=1e308, budget=1000, run_length=50, progress=False
        )
    assert result.stopped == "nan"
    assert "<div" in result._repr_html_()
    assert all(map(len, (str(result), repr(result), result.table())))


def test_noise_of_single_batches_rarely_stops_a_range_test():
    rng = np.random.default_rng(0)
    stopped = 0
    for _ in range(100):
        test = lrcore.Finder(1e-7, 1e-3, steps=60)
        for _ in test:
            test.report(float(rng.standard_normal() ** 2))
        stopped += test.result().stopped != "end"
    assert stopped <= 8


def test_the_probability_grows_with_the_tolerance():
    one = Recommendation(0.1, (0.03, 0.3), (0.5, 0.8), "")
    chances = [one.probability(tolerance) for tolerance in (1e-9, 0.01, 0.05, 0.1, 0.2, 0.5, 1e9)]
    assert chances == sorted(chances)
    assert chances[2:5:2] == [0.5, 0.8]
    assert 0.0 < chances[0] < chances[-1] < 1.0 + 1e-12
    assert Recommendation(None, None, (0.0, 0.0), "").probability(1.0) == 0.0
    for wrong in (0.0, -1.0, math.nan, "5 %"):
        with pytest.raises((TypeError, ValueError), match=r"^tolerance must be "):
            one.probability(wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"budget": 1}, "budget must be >= 2, got 1"), ({"run_length": 0}, "run_length must be >= 1, got 0")],
)
def test_budgets_and_lengths_are_counts(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call(**arguments)
