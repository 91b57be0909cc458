"""The range test: what it finds on problems with known answers, that it puts everything back, and what it refuses."""

import math
import random
import re

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from lrcore.finder import Finder, RangeTest, curve, find_lr


def quadratic(largest=4.0, condition=10.0, size=10, seed=0):
    """Parameters, and the loss and gradients of a quadratic whose largest curvature is known."""
    curvatures = np.geomspace(largest / condition, largest, size)
    params = {"w": np.random.default_rng(seed).standard_normal(size)}

    def loss_and_grads(params, noise=0.0):
        grads = curvatures * params["w"] + noise
        return 0.5 * float(curvatures @ params["w"] ** 2), {"w": grads}

    return params, loss_and_grads


def everything(opt):
    """All bytes of an optimizer and its weights, and what else it holds."""
    arrays = {name: array.tobytes() for name, array in zip(opt._names, opt._stepper.weights(), strict=True)}
    states = [{key: array.tobytes() for key, array in state.items()} for state in opt._stepper.states]
    groups = [repr(group.hyperparameters) for group in opt.param_groups]
    noise = None if opt.noise_scale is None else opt.noise_scale.state()
    counts = (opt._stepper.counts, opt._stepper.averaged, opt.steps, opt.skipped, opt.lr, opt._skipped_in_a_row)
    return arrays, states, groups, counts, opt._reports.state(), noise


@pytest.mark.parametrize("largest", [0.1, 4.0, 1000.0])
@pytest.mark.parametrize(("condition", "size"), [(1, 1), (1, 10), (10, 10), (100, 30), (1e4, 50)])
def test_the_safe_rate_of_a_quadratic_is_below_its_edge_within_a_factor_of_three(largest, condition, size):
    params, loss_and_grads = quadratic(largest, condition, size)
    result = find_lr(lrcore.SGD(params, lr=1.0), loss_and_grads, [()], start=1e-7, end=1e3, progress=False)
    edge = 2.0 / largest
    assert result.stopped == "diverged"
    assert edge / 3.0 < result.suggestions["safe"].lr < edge
    assert 0.0 < result.suggest().lr < edge


MAKERS = {
    "fresh SGD": lambda params: lrcore.SGD(params, lr=0.1, momentum=0.9),
    "Adam": lambda params: lrcore.Adam(params, lr=schedules.Cosine(0.1, 100).warmup(10), amsgrad=True),
    "averaged": lambda params: lrcore.AdamW(params, lr=0.1, average=lrcore.EMA(0.9, warmup=True), clip_norm=1.0),
    "skipping": lambda params: lrcore.RMSprop(params, lr=0.01, skip_nonfinite=True, centered=True, momentum=0.5),
    "zeroing": lambda params: lrcore.SGD(params, lr=0.1, zero_grads=True),
    "plateau": lambda params: lrcore.SGD(
        params, lr=schedules.Constant(0.1) * schedules.ReduceOnPlateau(0.5, patience=0) * schedules.AdaScale(),
        noise_scale=lrcore.NoiseScale(batch=4),
    ),
}  # fmt: skip


class Shuffled:
    """Batches that are in another order each time that they are begun."""

    def __init__(self, rng):
        self.rng = rng

    def __iter__(self):
        return iter([(float(noise),) for noise in 1e-3 * self.rng.permutation(4)])


def test_beginning_with_the_batches_may_draw_too():
    params, loss_and_grads = quadratic()
    rng = np.random.default_rng(1)
    find_lr(lrcore.SGD(params), loss_and_grads, Shuffled(rng), repeats=2, generators=[rng], progress=False)
    assert rng.random() == np.random.default_rng(1).random()


def interrupted(at, error):
    """A loss that fails at its n-th call."""
    calls = [0]

    def wrapped(loss_and_grads):
        def call(params, *batch):
            calls[0] += 1
            if calls[0] == at:
                raise error
            return loss_and_grads(params, *batch)

        return call

    return wrapped


@pytest.mark.parametrize("error", [None, ValueError("no"), KeyboardInterrupt()], ids=["none", "error", "Ctrl-C"])
@pytest.mark.parametrize("steps_before", [0, 3])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_everything_comes_back_to_the_bit(make, accumulate, steps_before, error):
    params, loss_and_grads = quadratic()
    opt = make(params)
    for _ in range(steps_before):
        opt.step(loss_and_grads(params)[1])
        if "plateau" in repr(opt.param_groups[0]["lr"]).lower():
            opt.report(1.0)
    generators = [np.random.default_rng(1), random.Random(1), np.random.RandomState(1)]  # noqa: S311
    before, drawn = everything(opt), [np.random.default_rng(1).random(), random.Random(1).random()]  # noqa: S311

    def drawing(params, *batch):
        return loss_and_grads(params, 1e-3 * generators[0].standard_normal(10) * generators[1].random())

    call = drawing if error is None else interrupted(20, error)(drawing)
    arguments = {"start": 1e-3, "accumulate": accumulate, "generators": generators, "progress": False}
    if error is None:
        find_lr(opt, call, [()], **arguments)
    else:
        with pytest.raises(type(error)):
            find_lr(opt, call, [()], **arguments)
    assert everything(opt) == before
    assert [generators[0].random(), generators[1].random()] == drawn
    other_params, _ = quadratic()
    other = make(other_params)
    for _ in range(steps_before):
        other.step(loss_and_grads(other_params)[1])
    for _ in range(3):
        opt.step(loss_and_grads(params)[1])
        other.step(loss_and_grads(other_params)[1])
    if "plateau" not in repr(opt.param_groups[0]["lr"]).lower():
        assert (params["w"] == other_params["w"]).all()


def test_groups_keep_the_ratios_of_their_rates():
    seen = []
    groups = [{"params": {"a": np.ones(2)}}, {"params": {"b": np.ones(3)}, "lr": schedules.Constant(0.05)}]
    groups.append({"params": {"c": np.ones(1)}, "lr_scale": 0.1})
    opt = lrcore.SGD(groups, lr=schedules.Linear(0.1, 0.0, 10).warmup(2))

    def loss_and_grads(params):
        seen.append([values["lr"] for values in opt.hyperparameters()])
        return 1.0, {"a": np.ones(2), "b": np.ones(3), "c": np.ones(1)}

    find_lr(opt, loss_and_grads, [()], start=0.01, end=1.0, steps=5, progress=False)
    # The rates at the second loss are those of the first step, and so on.
    assert seen[1:] == [pytest.approx([lr, lr * (0.05 / 0.05), lr * 0.1]) for lr in np.geomspace(0.01, 1.0, 5)[:-1]]


def test_the_first_average_is_the_first_loss_exactly():
    for beta in (0.0, 0.5, 0.9, 0.98):
        assert curve.smooth([3.7], beta)[0] == pytest.approx(3.7, rel=1e-15)
        assert curve.smooth([2.0] * 50, beta) == pytest.approx([2.0] * 50, rel=1e-13)


def test_the_steepest_slope_is_by_the_logarithm_of_the_rate():
    lrs = np.geomspace(1e-6, 1.0, 100)
    losses = 1.0 / (1.0 + np.exp(1.2 * (np.log(lrs) - math.log(1e-3))))
    assert curve.steepest(lrs, losses, 99).lr == pytest.approx(1e-3, rel=0.15)
    # By the rate itself the slope would be steepest far to the left.
    assert lrs[np.argmin(np.gradient(losses, lrs))] < 0.3e-3


def test_a_loss_that_is_no_number_stops_the_test():
    finder = Finder(1e-3, 1.0, steps=20)
    for number, _ in enumerate(finder):
        assert finder.report(math.nan if number == 10 else 1.0) is (number != 10)
    result = finder.result()
    assert (result.stopped, len(result.losses)) == ("nan", 11)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_it_stops_at_four_times_the_best_average_of_losses(sign):
    finder = Finder(1e-3, 1.0, steps=50, smoothing=0.0)
    for number, _ in enumerate(finder):
        finder.report(sign * 1.0 if number < 10 else sign * 1.0 + 0.5 * (number - 9))
    # More than three times as much above the best one as that is from 0.
    assert len(finder.result().losses) == 10 + 7
    assert finder.result().stopped == "diverged"


HONEST = {
    "still falling": (lambda t: 1.0 - 0.9 * t, "the loss still falls at .*; try end="),
    "flat": (lambda t: 1.0 + 1e-4 * math.sin(40 * t), "the loss is flat from .*; try end="),
    "exploding": (lambda t: 10.0 ** (20 * t), r"the loss (exploded|grows).*; try start="),
}


@pytest.mark.parametrize(("loss", "message"), HONEST.values(), ids=HONEST)
def test_a_curve_that_says_nothing_gets_no_number(loss, message):
    finder = Finder(1e-5, 1e-1, steps=60)
    for number, _ in enumerate(finder):
        finder.report(loss(number / 59))
    advice = finder.result().suggest()
    assert advice.lr is None
    assert advice.confidence == "none"
    assert re.search(message, advice.reason), advice
    assert str(advice).startswith("no suggestion: ")


@pytest.mark.parametrize(
    ("make", "momentum"),
    [
        (lambda params: lrcore.SGD(params, lr=0.1), 0.0),
        (lambda params: lrcore.SGD(params, lr=0.1, momentum=0.9), 0.9),
        (lambda params: lrcore.SGD(params, lr=0.1, momentum=0.9, nesterov=True), 0.0),
        (lambda params: lrcore.AdamW(params, lr=0.1), None),
        (lambda params: lrcore.RMSprop(params, lr=0.1, momentum=0.9), None),
    ],
    ids=["SGD", "momentum", "nesterov", "AdamW", "RMSprop"],
)
def test_the_edge_decides_for_rules_whose_steps_are_as_large_as_gradients(make, momentum):
    params, loss_and_grads = quadratic()
    result = find_lr(make(params), loss_and_grads, [()], start=1e-5, end=1e3, progress=False)
    steepest, safe = (result.suggestions[name].lr for name in ("steepest", "safe"))
    assert result.momentum == momentum
    if momentum is None:
        assert result.suggest().lr == min(math.sqrt(steepest * safe), 1.5 * steepest, safe)
    else:
        assert result.suggest().lr == safe


def test_a_curve_that_has_levelled_off_is_not_still_falling():
    finder = Finder(1e-6, 10.0, steps=100)
    for lr in finder:
        # It falls around 0.01, and from there on by so little that it is least at the end.
        finder.report(1.0 / (1.0 + 100.0 * lr) + 1e-3 * math.log10(10.0 / lr))
    result = finder.result()
    assert np.argmin(result.losses) == 99
    assert 1e-3 < result.suggest().lr < 0.1


def test_repeats_on_other_batches_give_a_spread():
    params, loss_and_grads = quadratic()
    batches = [(np.full(10, 0.01 * k),) for k in range(7)]
    opt = lrcore.SGD(params, lr=0.1)
    result = find_lr(opt, loss_and_grads, batches, start=1e-3, steps=40, repeats=3, progress=False)
    assert len(result.spreads) == len(result.losses)
    assert max(result.spreads) > 0.0


def test_validation_takes_the_place_of_the_loss():
    params, loss_and_grads = quadratic()
    result = find_lr(
        lrcore.SGD(params, lr=0.1), loss_and_grads, [()], start=1e-3, steps=10, validation=lambda _: 7.0,
        progress=False,
    )  # fmt: skip
    assert result.losses == (7.0,) * 10


def test_micro_batches_make_one_step():
    params, loss_and_grads = quadratic()
    calls = []

    def counted(params, x):
        calls.append(x)
        return loss_and_grads(params)

    find_lr(lrcore.SGD(params, lr=0.1), counted, [1, 2, 3], start=1e-5, end=1e-3, steps=4, accumulate=2, progress=False)
    assert calls == [1, 2, 3, 1, 2, 3, 1, 2]


def test_an_iterator_ends_the_test_and_a_list_begins_again():
    params, loss_and_grads = quadratic()
    opt = lrcore.SGD(params, lr=0.1)
    result = find_lr(opt, loss_and_grads, iter([()] * 12), start=1e-5, end=1e-3, steps=20, progress=False)
    assert (result.stopped, len(result.losses)) == ("batches", 12)
    result = find_lr(opt, loss_and_grads, [()] * 3, start=1e-5, end=1e-3, steps=20, progress=False)
    assert (result.stopped, len(result.losses)) == ("end", 20)


def found():
    params, loss_and_grads = quadratic()
    return find_lr(lrcore.SGD(params, lr=1.0), loss_and_grads, [()], start=1e-5, progress=False)


def test_a_result_is_written_and_read():
    for result in (found(), RangeTest((1.0, 2.0), (1.0, math.nan), (), "nan")):
        again = RangeTest.from_json(result.to_json())
        assert again.to_json() == result.to_json()
        assert str(again.suggestions) == str(result.suggestions)
    with pytest.raises(ValueError, match="this is no JSON"):
        RangeTest.from_json("{")
    with pytest.raises(ValueError, match="another version"):
        RangeTest.from_json(found().to_json().replace('"range_test": 1', '"range_test": 2'))
    with pytest.raises(ValueError, match="must be a dict of"):
        RangeTest.from_json("{}")


def test_a_table_says_each_suggestion_and_why():
    result = found()
    assert list(result.suggestions) == ["steepest", "valley", "slide", "minimum / 10", "safe"]
    for one in result.suggestions.values():
        assert one.name in result.table()
        assert one.reason in result.table()
    assert f"suggested: {result.suggest()}" in str(result)


def test_a_picture_marks_each_suggestion():
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot as plt

    result = found()
    ax = result.plot()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert ax.get_xscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("learning rate", "loss")
    assert sum(any(label.startswith(name) for label in labels) for name in result.suggestions) == 5
    plt.close("all")


def call(**changes):
    params, loss_and_grads = quadratic()
    opt = lrcore.SGD(params, lr=0.1)
    arguments = {"batches": [()], "progress": False, **changes}
    return find_lr(opt, loss_and_grads, **arguments)


REFUSED = [
    ({"start": 0.0}, ValueError, "start must be in (0, inf), got 0.0"),
    ({"start": 1.0, "end": 0.5}, ValueError, "end must be more than start, 1.0, got 0.5"),
    ({"steps": 1}, ValueError, "steps must be >= 2, got 1"),
    ({"mode": "log"}, ValueError, "mode must be 'exp' or 'linear', got 'log'"),
    ({"smoothing": 1.0}, ValueError, "smoothing must be in [0, 1), got 1.0"),
    ({"stop": 1.0}, ValueError, "stop must be in (1, inf], got 1.0"),
    ({"accumulate": 0}, ValueError, "accumulate must be >= 1, got 0"),
    ({"repeats": 1.5}, TypeError, "repeats must be a whole number >= 1, got 1.5"),
    ({"batches": []}, ValueError, "batches must be at least one, got none"),
    ({"batches": 3}, TypeError, "batches must be iterable, got int"),
    ({"generators": [3]}, TypeError, "generators: a generator of NumPy, Python or PyTorch is needed, got 3"),
]


@pytest.mark.parametrize(("changes", "exception", "message"), REFUSED, ids=[message[:40] for *_, message in REFUSED])
def test_what_is_no_range_test_is_refused(changes, exception, message):
    with pytest.raises(exception, match=f"^{re.escape(message)}$"):
        call(**changes)


def test_it_is_refused_while_micro_batches_wait():
    params, loss_and_grads = quadratic()
    opt = lrcore.SGD(params, lr=0.1)
    opt.accumulate(loss_and_grads(params)[1])
    with pytest.raises(RuntimeError, match=r"^micro-batches are waiting for a step; take it first$"):
        find_lr(opt, loss_and_grads, [()], progress=False)


def test_a_loop_of_ones_own_reports_one_loss_for_each_rate():
    finder = Finder(1e-3, 1.0, steps=5)
    with pytest.raises(RuntimeError, match="report one loss for each rate"):
        finder.report(1.0)
    with pytest.raises(RuntimeError, match=r"no loss was reported for the rate 0\.001"):
        list(finder)
