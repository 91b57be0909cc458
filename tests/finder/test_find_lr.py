"""The range test: its loop, that it restores everything, and the errors it raises."""

import math
import random
import re
from functools import partial

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from lrcore.finder import Finder, RangeTest, curve, find_lr
from lrcore.optim import metric_trackers
from support.cases import FULL, NAMES
from support.problems import quadratic


def everything(opt):
    """All state of an optimizer and its weights."""
    arrays = {name: array.tobytes() for name, array in zip(opt._names, opt._stepper.weights(), strict=True)}
    states = [{key: array.tobytes() for key, array in state.items()} for state in opt._stepper.states]
    groups = [repr(group.hyperparameters) for group in opt.param_groups]
    noise = None if opt.noise_scale is None else opt.noise_scale.state()
    counts = opt._stepper.step_counts, opt._stepper.average_counts, opt.steps, opt.skipped
    rest = opt.lr, opt._skipped_in_a_row, metric_trackers.save(opt._trackers()), noise
    return arrays, states, groups, counts, rest


MAKERS = {
    "fresh SGD": lambda params: lrcore.SGD(params, lr=0.1, momentum=0.9),
    "Adam": lambda params: lrcore.Adam(params, lr=schedules.Cosine(0.1, 100).warmup(10), amsgrad=True),
    "averaged": lambda params: lrcore.Adam(params, lr=0.1, average=lrcore.EMA(0.9, warmup=True), clip_norm=1.0),
    "skipping": lambda params: lrcore.SGD(params, lr=0.01, skip_nonfinite=True, momentum=0.5),
    "zeroing": lambda params: lrcore.SGD(params, lr=0.1, zero_grads=True),
    "plateau": lambda params: lrcore.SGD(
        params, lr=schedules.Constant(0.1) * schedules.ReduceOnPlateau(0.5, patience=0) * schedules.AdaScale(),
        noise_scale=lrcore.NoiseScale(batch=4),
    ),
    **{name: partial(getattr(lrcore, name), **FULL[name]) for name in NAMES},
}  # fmt: skip


class Shuffled:
    """Batches in a new random order at each restart."""

    def __init__(self, rng):
        self.rng = rng

    def __iter__(self):
        return iter([(float(noise),) for noise in 1e-3 * self.rng.permutation(4)])


def test_starting_the_batches_may_draw_random_numbers():
    params, loss_and_grads = quadratic()
    rng = np.random.default_rng(1)
    find_lr(lrcore.SGD(params), loss_and_grads, Shuffled(rng), repeats=2, generators=[rng], progress=False)
    assert rng.random() == np.random.default_rng(1).random()


def interrupted(at, error):
    """A loss function that raises at its n-th call."""
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
def test_everything_is_restored_bit_for_bit(make, accumulate, steps_before, error):
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


def test_groups_keep_the_ratios_of_their_learning_rates():
    seen = []
    groups = [{"params": {"a": np.ones(2)}}, {"params": {"b": np.ones(3)}, "lr": schedules.Constant(0.05)}]
    groups.append({"params": {"c": np.ones(1)}, "lr_scale": 0.1})
    opt = lrcore.SGD(groups, lr=schedules.Linear(0.1, 0.0, 10).warmup(2))

    def loss_and_grads(params):
        seen.append([values["lr"] for values in opt.hyperparameters()])
        return 1.0, {"a": np.ones(2), "b": np.ones(3), "c": np.ones(1)}

    find_lr(opt, loss_and_grads, [()], start=0.01, end=1.0, steps=5, progress=False)
    # The second loss sees the learning rates of the first step, and so on.
    assert seen[1:] == [pytest.approx([lr, lr * (0.05 / 0.05), lr * 0.1]) for lr in np.geomspace(0.01, 1.0, 5)[:-1]]


def test_the_first_average_is_the_first_loss_exactly():
    for beta in (0.0, 0.5, 0.9, 0.98):
        assert curve.smooth([3.7], beta)[0] == pytest.approx(3.7, rel=1e-15)
        assert curve.smooth([2.0] * 50, beta) == pytest.approx([2.0] * 50, rel=1e-13)


def test_a_loss_that_is_not_finite_stops_the_test():
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
    # Its distance from the best average exceeds three times the distance of that one from 0.
    assert len(finder.result().losses) == 10 + 7
    assert finder.result().stopped == "diverged"


def test_repeats_give_a_standard_deviation():
    params, loss_and_grads = quadratic()
    batches = [(np.full(10, 0.01 * k),) for k in range(7)]
    opt = lrcore.SGD(params, lr=0.1)
    result = find_lr(opt, loss_and_grads, batches, start=1e-3, steps=40, repeats=3, progress=False)
    assert len(result.spreads) == len(result.losses)
    assert max(result.spreads) > 0.0


def test_repeats_use_consecutive_batches():
    params, loss_and_grads = quadratic()
    rng, seen = np.random.default_rng(0), []

    def batches():
        while True:
            yield rng.integers(2**40)

    def call(params, number):
        seen.append(number)
        return loss_and_grads(params)

    find_lr(lrcore.SGD(params), call, batches(), steps=10, repeats=3, generators=rng, progress=False)
    assert len(seen) == len(set(seen)) == 30
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize(("count", "losses", "spreads"), [(40, 30, 0), (70, 30, 30), (20, 20, 0)])
def test_a_repeat_without_enough_batches_is_dropped(count, losses, spreads):
    params, loss_and_grads = quadratic()
    batches = iter([(0.0,)] * count)
    result = find_lr(lrcore.SGD(params), loss_and_grads, batches, steps=30, end=1e-3, repeats=3, progress=False)
    assert (len(result.losses), len(result.spreads)) == (losses, spreads)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_in_one_repeat_ends_the_mean(value):
    params, loss_and_grads = quadratic()
    calls = [0]

    def call(params):
        calls[0] += 1
        loss, grads = loss_and_grads(params)
        return (value if calls[0] == 45 else loss), grads

    result = find_lr(lrcore.SGD(params), call, [()], steps=30, end=1e-3, repeats=3, progress=False)
    assert (len(result.losses), result.stopped) == (15, "nan")
    assert RangeTest.from_json(result.to_json()) == result


def test_generators_may_be_one_a_list_or_modules():
    params, loss_and_grads = quadratic()
    own = np.random.default_rng(0)
    for generators in (own, [own], random, [random, np.random], None):
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        before = own.bit_generator.state

        def drawing(params):
            return loss_and_grads(params, own.random() * random.random() * np.random.random())  # noqa: NPY002, S311

        find_lr(lrcore.SGD(params), drawing, [()], steps=5, end=1e-3, generators=generators, progress=False)
        held = generators if isinstance(generators, list) else [generators]
        assert (own.bit_generator.state == before) == (own in held)
        assert (random.random() == random.Random(1).random()) == (random in held)  # noqa: S311
        assert (np.random.random() == np.random.RandomState(1).random()) == (np.random in held)  # noqa: NPY002


def test_a_group_whose_learning_rate_is_zero_keeps_it():
    moving, still = np.ones(2), np.ones(2)
    seen = []

    def call(params):
        seen.append([group["lr"] for group in opt.param_groups])
        return 1.0, [[np.ones(2)], [np.ones(2)]]

    for lrs, expected in (((0.1, 0.0), [1e-3, 0.0]), ((0.0, 0.1), [0.0, 1e-3]), ((0.0, 0.0), [1e-3, 1e-3])):
        opt = lrcore.SGD([{"params": [moving], "lr": lrs[0]}, {"params": [still], "lr": lrs[1]}])
        seen.clear()
        find_lr(opt, call, [()], start=1e-3, end=1.0, steps=5, progress=False)
        assert seen[1] == expected


class Interrupted:
    """A generator that raises KeyboardInterrupt a number of times while its state is set."""

    def __init__(self, times):
        self.left, self.state = times, 7

    def get_state(self):
        return self.state

    def set_state(self, state):
        self.state = None
        if self.left:
            self.left -= 1
            raise KeyboardInterrupt
        self.state = state


def test_ctrl_c_during_the_restore_is_raised_after_it():
    params, loss_and_grads = quadratic()
    first, last = np.random.default_rng(0), np.random.default_rng(1)
    generators = [first, Interrupted(3), last]

    def drawing(params):
        return loss_and_grads(params, first.random() * last.random())

    before = params["w"].copy()
    with pytest.raises(KeyboardInterrupt):
        find_lr(lrcore.SGD(params), drawing, [()], steps=5, end=1e-3, generators=generators, progress=False)
    assert (params["w"] == before).all()
    assert generators[1].state == 7
    assert [first.random(), last.random()] == [np.random.default_rng(seed).random() for seed in (0, 1)]


def test_a_loss_may_be_an_array_of_one_number():
    params, loss_and_grads = quadratic()

    def call(params):
        loss, grads = loss_and_grads(params)
        return np.array([loss]), grads

    result = find_lr(lrcore.SGD(params), call, [()], steps=5, end=1e-3, progress=False)
    assert [type(loss) for loss in result.losses] == [float] * 5


def test_validation_takes_the_place_of_the_loss():
    params, loss_and_grads = quadratic()
    result = find_lr(
        lrcore.SGD(params, lr=0.1), loss_and_grads, [()], start=1e-3, steps=10, validation=lambda _: 7.0,
        progress=False,
    )  # fmt: skip
    assert result.losses == (7.0,) * 10


def test_batches_may_be_none():
    opt = lrcore.SGD([np.ones(3)], lr=0.1)
    result = find_lr(opt, lambda params, batch: (float((params[0] ** 2).sum()), [2 * params[0]], batch)[:2], [None])
    assert result.losses[0] == 3.0


def test_accumulate_takes_several_batches_per_step():
    params, loss_and_grads = quadratic()
    calls = []

    def counted(params, x):
        calls.append(x)
        return loss_and_grads(params)

    find_lr(lrcore.SGD(params, lr=0.1), counted, [1, 2, 3], start=1e-5, end=1e-3, steps=4, accumulate=2, progress=False)
    assert calls == [1, 2, 3, 1, 2, 3, 1, 2]


def test_an_iterator_ends_the_test_and_a_list_restarts():
    params, loss_and_grads = quadratic()
    opt = lrcore.SGD(params, lr=0.1)
    result = find_lr(opt, loss_and_grads, iter([()] * 12), start=1e-5, end=1e-3, steps=20, progress=False)
    assert (result.stopped, len(result.losses)) == ("batches", 12)
    result = find_lr(opt, loss_and_grads, [()] * 3, start=1e-5, end=1e-3, steps=20, progress=False)
    assert (result.stopped, len(result.losses)) == ("end", 20)


def call(**changes):
    params, loss_and_grads = quadratic()
    arguments = {
        "opt": lrcore.SGD(params, lr=0.1), "loss_and_grads": loss_and_grads, "batches": [()], "progress": False,
    }  # fmt: skip
    return find_lr(**{**arguments, **changes})


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
    ({"opt": None}, TypeError, "opt must be an optimizer of lrcore, got NoneType; for those of PyTorch there is "
     "lrcore.torch.find_lr(model, opt, loss, loader)"),
    ({"loss_and_grads": 3}, TypeError, "loss_and_grads must be a function, got 3"),
    ({"loss_and_grads": lambda _: 3.0}, TypeError,
     "loss_and_grads must return a pair of loss and gradients, got float"),
    ({"loss_and_grads": lambda _: (np.ones(2), {})}, TypeError,
     "loss_and_grads: the loss must be a number, got ndarray of shape (2,)"),
    ({"validation": 3}, TypeError, "validation must be a function or None, got 3"),
    ({"validation": lambda _: None}, TypeError, "validation: the loss must be a number, got NoneType"),
    ({"generators": [3]}, TypeError, "generators must be of NumPy, Python or PyTorch, got 3"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "exception", "message"), REFUSED, ids=[message[:40] for *_, message in REFUSED])
def test_invalid_arguments_are_rejected(changes, exception, message):
    with pytest.raises(exception, match=f"^{re.escape(message)}$"):
        call(**changes)


def test_pending_micro_batches_are_rejected():
    params, loss_and_grads = quadratic()
    opt = lrcore.SGD(params, lr=0.1)
    opt.accumulate(loss_and_grads(params)[1])
    with pytest.raises(RuntimeError, match=r"^accumulated micro-batches are pending; take a step first$"):
        find_lr(opt, loss_and_grads, [()], progress=False)


def test_finder_needs_one_loss_per_learning_rate():
    finder = Finder(1e-3, 1.0, steps=5)
    with pytest.raises(RuntimeError, match="report one loss for each learning rate"):
        finder.report(1.0)
    with pytest.raises(RuntimeError, match=r"no loss was reported for the learning rate 0\.001"):
        list(finder)


def test_a_loss_of_other_weights_gets_no_recommendation():
    params, other = {"w": np.ones(2)}, {"w": np.ones(2)}

    def loss_and_grads(_):
        return float(other["w"] @ other["w"]), {"w": 2.0 * other["w"]}

    result = find_lr(lrcore.SGD(params, lr=0.1), loss_and_grads, [()], progress=False)
    assert result.suggest().lr is None
    assert result.runs == ()
    assert "not computed from the weights that the optimizer updates" in result.suggest().reason
    assert (params["w"] == 1.0).all()
