"""The benchmark of range tests: gradients of its problems, and training of many runs at once."""

import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")  # its data sets

sys.path.insert(0, str(Path(__file__).parents[2] / "benches" / "range_tests"))

import truth
from peers import PEERS
from problems import EVALUATED, PROBLEMS
from report import Truth

HALVES = {"chosen", "held out"}
# Their gradients are those of an expectation, or of a part of the loss.
REINFORCEMENT = ("bandit policy gradient", "actor critic")


def in_float64(arrays):
    return {name: array.astype(np.float64) for name, array in arrays.items()}


def drawn(problem, count, seed=0):
    batch = problem.parts.draw(np.random.default_rng(seed), count)
    return [array.astype(np.float64) if array.dtype == np.float32 else array for array in batch]


def test_every_kind_is_in_both_halves():
    counts = Counter((one.kind, one.half) for one in PROBLEMS.values())
    assert len(PROBLEMS) >= 24
    assert set(counts.values()) == {1}
    assert all((kind, half) in counts for kind, _ in counts for half in HALVES)


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name not in REINFORCEMENT])
def test_gradients_are_those_of_finite_differences(name):
    problem = PROBLEMS[name]
    rng = np.random.default_rng(0)
    params = in_float64(problem.init(0))
    params = {key: array + 0.1 * rng.standard_normal(array.shape) for key, array in params.items()}
    direction = {key: rng.standard_normal(array.shape) for key, array in params.items()}
    batch = drawn(problem, 8)
    _, grads = problem.parts.loss_and_grads(params, *batch)
    h = 1e-6

    def loss(by):
        moved = {key: array + by * direction[key] for key, array in params.items()}
        return float(problem.parts.loss_and_grads(moved, *batch)[0])

    numeric = (loss(h) - loss(-h)) / (2 * h)
    # Rectified units have a kink, and float32 constants leave digits out.
    slope = sum(float((grads[key] * direction[key]).sum()) for key in params)
    assert slope == pytest.approx(numeric, rel=2e-5, abs=2e-5)


def test_policy_gradient_is_that_of_the_expected_cost():
    problem = PROBLEMS["bandit policy gradient"]
    rng = np.random.default_rng(0)
    params = in_float64(problem.init(0))
    x, _ = drawn(problem, EVALUATED, seed=20)  # those of the evaluation
    grads, direction = (
        problem.parts.loss_and_grads(params, np.tile(x, (20, 1)), rng.random(20 * EVALUATED))[1] for _ in range(2)
    )
    slope = sum(float((grads[key] * direction[key]).sum()) for key in params)
    h = 1e-3
    ends = [problem.evaluate({key: array + by * direction[key] for key, array in params.items()}) for by in (h, -h)]
    assert slope == pytest.approx(float(ends[0] - ends[1]) / (2 * h), rel=0.03)


def test_policy_of_actor_critic_follows_the_advantage():
    problem = PROBLEMS["actor critic"]
    params = problem.init(0)
    before = float(problem.evaluate(params))
    feed = truth.batches(problem, 64, 500, np.random.default_rng(0))
    opt = truth.OPTIMIZERS["AdamW"].make(params, 0.01)
    for batch in feed:
        opt.step(problem.parts.loss_and_grads(params, *batch)[1])
    assert float(problem.evaluate(params)) < before - 0.05


@pytest.mark.parametrize("name", truth.OPTIMIZERS)
def test_update_of_many_runs_is_the_step_of_lrcore(name):
    optimizer = truth.OPTIMIZERS[name]
    rng = np.random.default_rng(0)
    lrs = np.array([1e-3, 0.02, 0.3])
    w = rng.standard_normal((2, 3, 50))
    single = [[w[i, j].copy() for j in range(3)] for i in range(2)]
    opts = [[optimizer.make([single[i][j]], lrs[j]) for j in range(3)] for i in range(2)]
    state, scratch = [np.zeros_like(w) for _ in range(optimizer.states)], np.empty_like(w)
    for t in range(1, 21):
        g = rng.standard_normal(w.shape)
        optimizer.update(w, g, state, scratch, t, lrs[:, None])
        for i in range(2):
            for j in range(3):
                opts[i][j].step([g[i, j]])
    np.testing.assert_allclose(w, np.array(single), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["wine", "actor critic", "ratings", "waveforms"])
def test_training_of_many_runs_is_that_of_each(name):
    cell = truth.Cell(PROBLEMS[name], "AdamW", 16, 60)
    lrs = [1e-3, 1e-2, math.inf]  # the last one diverges at once
    with np.errstate(all="ignore"):
        together = truth.train(cell, lrs)
    assert np.isinf(together[:, 2]).all()
    for seed in truth.SEEDS:
        params = cell.problem.init(seed)
        opt = truth.OPTIMIZERS["AdamW"].make(params, 1e-3)
        feed = truth.batches(cell.problem, 16, 60, np.random.default_rng([seed, 2]))
        for factor, batch in zip(truth.learning_rates(60), feed, strict=True):
            opt.param_groups[0]["lr"] = 1e-2 * factor
            opt.step(cell.problem.parts.loss_and_grads(params, *batch)[1])
        assert together[seed, 1] == pytest.approx(float(cell.problem.evaluate(params)), rel=1e-3)


def test_losses_are_interpolated_between_rates_that_train():
    losses = [[4.0, 4.0], [1.0, 1.0], [0.5, 1.5], [math.inf, 1.0]]
    known = Truth([1e-3, 1e-2, 1e-1, 1.0], losses, start=3.0)
    assert (known.best_lr, known.best) == (1e-2, 1.0)
    assert known.loss(math.sqrt(1e-5)) == pytest.approx(2.0)
    assert [known.loss(lr) for lr in (1e-5, 0.03, 0.2, 10.0)] == pytest.approx([4.0, 1.0, math.inf, math.inf])
    assert [known.is_within(lr, 0.05) for lr in (0.05, 5e-3, 0.2, None)] == [True, False, False, False]
    assert [known.is_near(lr) for lr in (0.025, 0.05, None)] == [True, False, False]
    assert [known.diverges(lr) for lr in (0.05, 0.5, 1e-5, None)] == [False, True, True, False]
    assert 0.0 <= known.agreement <= 1.0


@pytest.mark.parametrize("name", PEERS)
def test_peers_read_a_rate_off_the_descent(name):
    lrs = np.geomspace(1e-7, 10.0, 100)
    losses = 1.0 - 0.9 / (1.0 + 0.01 / lrs) + np.exp(np.minimum(3.0 * (np.log(lrs) - 1.0), 50.0))
    # A slope over the learning rate itself is steepest where learning rates are tiny.
    assert (1e-7 if name == "Lightning" else 1e-4) < PEERS[name]((lrs, losses)) < 1.0
    assert PEERS[name]((lrs[:5], losses[:5])) is None or name.startswith("fastai")
    assert PEERS[name]((lrs[:0], losses[:0])) is None


def test_peers_stop_where_their_library_does():
    lrs = np.geomspace(1e-7, 10.0, 100)
    losses = np.where(lrs < 0.1, 1.0 - 0.9 / (1.0 + 0.01 / lrs), 1e6)
    losses[-3:] = -1e9  # after the end of each test
    assert all(peer((lrs, losses)) < 0.2 for peer in PEERS.values())
