"""A step that reuses the plan of the last one has the results of a step that builds its own."""

import copy
from functools import partial

import numpy as np
import pytest

import lrcore
from lrcore.optim import allocation
from support.cases import OPTIMIZERS, same

SHAPES = {"w": (5, 3), "b": (3,), "scalar": (), "empty": (0,), "long": (40,)}


def changes(rng):
    """Return functions that change an optimizer, its parameters or gradients between two steps."""

    def move_grad(opt, params, grads, name):
        grads[name] = grads[name].copy()

    def stride_grad(opt, params, grads, name):
        grads[name] = np.repeat(grads[name][..., None], 2, axis=-1)[..., 0]

    def reorder_grad(opt, params, grads, name):
        grads[name] = grads[name].copy(order="F")

    def skip(opt, params, grads, name):
        grads[name] = None

    def replace_weight(opt, params, grads, name):
        params[name] = params[name].copy(order="F")

    def edit_rate(opt, params, grads, name):
        opt.param_groups[0]["lr"] = float(rng.uniform(0.01, 0.1))

    def change_rule(opt, params, grads, name):
        opt.param_groups[0]["amsgrad"] = not opt.param_groups[0]["amsgrad"]

    def load_other_counts(opt, params, grads, name):
        saved = opt.state_dict()
        if name in saved["state"]:
            saved["state"][name]["step"] += 7
            opt.load_state_dict(saved)

    def nothing(opt, params, grads, name):
        pass

    moves = [move_grad, stride_grad, reorder_grad]
    return [*moves, skip, replace_weight, edit_rate, change_rule, load_other_counts, *[nothing] * 6]


@pytest.mark.parametrize("seed", range(12))
def test_steps_that_reuse_a_plan_equal_those_of_new_optimizers(seed):
    rng = np.random.default_rng(seed)
    params = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    kept = lrcore.Adam(params, lr=0.05)
    fresh, choices = copy.deepcopy(kept), changes(rng)
    for _ in range(60):
        grads = {name: np.asarray(rng.standard_normal(shape)) for name, shape in SHAPES.items()}
        for _ in range(3):  # of the same arrays, so that plans are reused
            change, name = choices[rng.integers(len(choices))], str(rng.choice(list(SHAPES)))
            if grads[name] is None:
                continue
            state = rng.bit_generator.state
            change(kept, kept.params, grads, name)
            rng.bit_generator.state = state
            change(fresh, fresh.params, dict(grads), name)
            fresh = copy.deepcopy(fresh)
            kept.step(grads)
            fresh.step(grads)
            for name in SHAPES:
                assert same(kept.params[name], fresh.params[name])


def test_a_gradient_moved_onto_a_weight_is_refused_each_time():
    params = {"a": np.ones(4), "b": np.ones(4)}
    grads = {"a": np.ones(4), "b": np.ones(4)}
    opt = lrcore.SGD(params, lr=1.0, momentum=0.5)
    opt.step(grads)
    opt.step(grads)
    before = [array.copy() for array in params.values()]
    for _ in range(2):
        with pytest.raises(ValueError, match=r'^params\["b"\] and grads\["a"\] share memory$'):
            opt.step({**grads, "a": params["b"]})
        assert opt.steps == 2
        assert all(same(array, old) for array, old in zip(params.values(), before, strict=True))
    assert opt.step(grads).step == 3


@pytest.mark.parametrize("which", ["weight", "grad", "state"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda array: array.resize(3, refcheck=False), r"has shape \((3|4),\)"),
        (lambda array: setattr(array, "dtype", np.int64), "int64"),
    ],
    ids=["shrunk", "another dtype"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_array_changed_in_place_is_checked_again(which, spoil, message):
    params, grads = {"a": np.ones(4), "b": np.ones(4)}, {"a": np.ones(4), "b": np.ones(4)}
    opt = lrcore.Adam(params)
    for _ in range(3):
        opt.step(grads)
    spoil({"weight": params["a"], "grad": grads["a"], "state": opt.state["a"]["exp_avg_sq"]}[which])
    before = params["b"].copy()
    for _ in range(2):
        with pytest.raises((ValueError, TypeError), match=message):
            opt.step(grads)
        assert opt.steps == 3
        assert same(params["b"], before)


MAKERS = {"momentum": partial(lrcore.SGD, lr=0.1, momentum=0.9)}
MAKERS |= {optimizer.__name__: partial(optimizer, lr=0.1) for optimizer in OPTIMIZERS}
AVERAGES = {"EMA": lrcore.EMA(0.9), "SWA": lrcore.SWA(start=3, every=1)}


def skipped(opt, grad):
    """Skip a step that would have created the average."""
    bad = grad.copy()
    bad[3] = np.nan
    opt.step({"w": bad})


def rolled_back(opt, grad):
    """Take a step, and load the state before it."""
    saved = opt.state_dict()
    opt.step({"w": grad})
    opt.load_state_dict(saved)


def searched(opt, grad):
    """Run a range test, which undoes its steps."""
    lrcore.find_lr(opt, lambda _: (1.0, {"w": grad}), [()], steps=5, progress=False)


@pytest.mark.parametrize("undone", [skipped, rolled_back, searched])
@pytest.mark.parametrize("average", AVERAGES.values(), ids=AVERAGES)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_an_average_that_was_dropped_is_not_written(make, average, undone):
    rng = np.random.default_rng(0)
    weights = [np.ones(1000, np.float32), np.ones(1000, np.float32)]
    first, second = (make({"w": weight}, average=average, skip_nonfinite=True) for weight in weights)
    for step in range(6):
        grad = rng.standard_normal(1000).astype(np.float32)
        before = weights[0].copy()
        undone(first, grad)
        weights[0][...] = before
        # Arrays that get the memory of the dropped average.
        guards = [np.full(1000, 7.0, np.float32) for _ in range(20)]
        first.step({"w": grad})
        second.step({"w": grad})
        assert all((guard == 7.0).all() for guard in guards)
        assert same(*weights)
        assert first.average.keys() == second.average.keys()
        assert all(same(first.average[name], second.average[name]) for name in first.average)
        assert bool(first.average) == (step >= (2 if isinstance(average, lrcore.SWA) else 0))


def test_a_plan_without_its_states_is_not_reused(monkeypatch):
    memory = np.ones(8)
    params = [{"params": [np.ones(1)]}, {"params": [memory[4:]], "zero_grads": True}]
    opt = lrcore.Adam(params, lr=0.1)
    grads = np.ones(4)
    opt.step([[None], [grads]])

    def full(weight):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(allocation, "empty_like", full)
        with pytest.raises(MemoryError):
            opt.step([[np.ones(1)], [grads]])
    before = memory.copy()
    for overlapping in (memory[1:5], memory[4:]):
        with pytest.raises(ValueError, match="share memory"):
            opt.step([[None], [overlapping]])
    assert same(memory, before)
