"""The options of every optimizer against the reference, bit for bit, and against NumPy."""

import functools
import math

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from lrcore.optim.reference import lerp
from support import reference
from support.cases import DTYPES, FULL, LONGEST, OPTIMIZERS, RULES, THREADS, misaligned, same

LENGTHS = [n for n in (0, 1, 7, 8, 31, 33, 511, 512, 513, 4095, 4096, 4097, 12_000, 70_001) if n <= LONGEST]
STEPS = 5
LR = schedules.Linear(0.2, 0.05, steps=4)

STAGES = [
    {"clip_norm": 1.0},
    {"clip_norm": 1e6},
    {"clip_norm": 0.5, "norm_type": 1},
    {"clip_norm": 0.5, "norm_type": math.inf},
    {"clip_norm": schedules.Linear(10.0, 0.1, steps=3), "clip_value": 0.01},
    {"clip_value": 0.5},
    {"clip_value": schedules.Linear(1.0, 0.1, steps=3), "weight_decay": 0.1, "decay": "coupled"},
    {"weight_decay": 0.1, "decay": "decoupled"},
    {"weight_decay": 0.1, "decay": "independent"},
    {"weight_decay": 0.1, "decay": "cautious"},
    {"weight_decay": 0.1, "decay": "cautious", "maximize": True, "bounds": (-1.0, 0.5)},
    {"bounds": (0.0, math.inf)},
    {"clip_norm": math.inf, "norm_type": 1},
    {"zero_grads": True},
    {"average": lrcore.EMA(0.9)},
    {"average": lrcore.EMA(0.9, warmup=True)},
    {"average": lrcore.SWA(start=2, every=2)},
    {"stats": True},
    {"skip_nonfinite": True},
    {
        "clip_norm": 3.0, "clip_value": 0.05, "weight_decay": 0.1, "decay": "cautious", "bounds": (-2.0, 2.0),
        "stats": True, "zero_grads": True, "average": lrcore.EMA(0.5), "skip_nonfinite": True, "maximize": True,
        "no_decay": "1*",
    },
]  # fmt: skip
# The forms with all state, and one without any. The options say what they have in common.
ALIKE = ("lr", "weight_decay", "maximize")
ARGUMENTS = [(lrcore.SGD, {})] + [
    (optimizer, {name: value for name, value in FULL[optimizer.__name__].items() if name not in ALIKE})
    for optimizer in OPTIMIZERS
]


def average_share(average, step, seen):
    """The share of the updated weight in an average that has ``seen`` updates so far."""
    if isinstance(average, lrcore.SWA):
        counts = step >= average.start and (step - average.start) % average.every == 0
        return 1 / (seen + 1) if counts else None
    if seen == 0:
        return 1.0
    return 1.0 - (min(average.decay, (1 + seen) / (10 + seen)) if average.warmup else average.decay)


class Twin:
    """A NumPy implementation of an optimizer with options."""

    def __init__(self, opt, weights, options, decays):
        self.opt, self.weights, self.options, self.decays = opt, list(weights), options, decays
        self.group = opt.param_groups[0]
        self.rule = opt._rule(self.group)
        self.states = [
            reference.initial_state(self.rule, len(RULES[self.rule][1]), w, self.group.at(0)) for w in weights
        ]
        self.averages, self.seen, self.norm = {}, 0, None

    def step(self, grads, t, grad_scale):
        numbers, options = self.group.at(t - 1), self.options
        hyperparameters = {name: numbers[name] for name in RULES[self.rule][0]}
        factor = 1 / grad_scale
        if "clip_norm" in options or options.get("skip_nonfinite"):
            self.norm = reference.grad_norm(grads, options.get("norm_type", 2), factor)
        if "clip_norm" in options:
            most = options["clip_norm"]
            most = most(t - 1) if isinstance(most, schedules.Schedule) else most
            factor *= reference.clip_coefficient(self.norm, most)
        share = average_share(options["average"], t, self.seen) if "average" in options else None
        for i, g in enumerate(grads):
            self.weights[i], self.states[i] = reference.move(
                self.rule, self.weights[i], g, self.states[i], t, hyperparameters, lr=numbers["lr"],
                weight_decay=numbers["weight_decay"] if self.decays(i) else 0.0, decay=self.group["decay"],
                maximize=self.group["maximize"], factor=factor, clip_value=numbers.get("clip_value"),
                bounds=self.group["bounds"], peak=LR.maximum,
            )  # fmt: skip
            if share is not None:
                before = self.averages.get(i, np.zeros_like(self.weights[i]))
                self.averages[i] = lerp(before, self.weights[i], share)
        self.seen += share is not None


@functools.cache
def drawn(dtype):
    """Read-only weights and the gradients of each step. Drawing them takes as long as the steps of a case."""
    rng = np.random.default_rng(3)
    arrays = [[rng.standard_normal(length).astype(dtype) for length in LENGTHS] for _ in range(1 + STEPS)]
    for array in (array for row in arrays for array in row):
        array.flags.writeable = False
    return arrays


@pytest.mark.parametrize(
    "dtype",
    [pytest.param(dtype, marks=pytest.mark.slow if dtype.itemsize > 4 else (), id=str(dtype)) for dtype in DTYPES],
)
@pytest.mark.parametrize("options", STAGES, ids=str)
@pytest.mark.parametrize(
    ("optimizer", "arguments"), ARGUMENTS, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_stages_are_bitwise_equal_to_the_reference(optimizer, arguments, options, dtype):
    start, *all_grads = drawn(dtype)
    scales = [1.0, 3.0, 1.0, 0.1, 2.0**16]
    make = lambda weights: optimizer(weights, **{"lr": LR, **arguments, **options})  # noqa: E731
    # Parameters are named by their numbers: the last options exclude 1 and 10 to 13 from decay.
    decays = lambda i: "no_decay" not in options or not str(i).startswith("1")  # noqa: E731
    twin = Twin(make([w.copy() for w in start]), start, options, decays)
    for t, grads in enumerate(all_grads, start=1):
        twin.step(grads, t, scales[t - 1])
    norm = twin.norm
    for level in lrcore.simd_levels():
        for threads in THREADS:
            lrcore.set_simd_level(level)
            lrcore.set_num_threads(threads)
            offset = threads % dtype.itemsize
            opt = make([misaligned(w, offset) for w in start])
            for grads, scale in zip(all_grads, scales, strict=True):
                given = [misaligned(g, (offset + 1) % dtype.itemsize) for g in grads]
                info = opt.step(given, grad_scale=scale)
                assert info.applied
                for g, before in zip(given, grads, strict=True):
                    assert not g.any() if options.get("zero_grads") else same(g, before)
            label = f"{level}, {threads} threads"
            assert info.grad_norm == norm, label
            for i, want in enumerate(twin.weights):
                assert same(opt.params[i], want), f"{label}: weight {i} of {want.size}"
                for name, array in zip(RULES[twin.rule][1], twin.states[i], strict=True):
                    assert same(opt.state[str(i)][name], array), f"{label}: {name} {i}"
            assert opt.average.keys() == {str(i) for i in twin.averages}
            for i, want in twin.averages.items():
                assert same(opt.average[str(i)], want), f"{label}: average {i}"


@pytest.mark.parametrize("layout", ["strided", "Fortran", "other orders"])
def test_stages_on_any_layout_equal_those_on_dense_arrays(layout):
    rng = np.random.default_rng(0)
    options = {**STAGES[-1], "no_decay": ()}
    values = [rng.standard_normal((37, 45)) for _ in range(4)]

    def laid(array, which):
        if layout == "strided":
            out = np.zeros((37, 90))[:, ::2]
        else:
            out = np.zeros((37, 45), order="F" if layout == "Fortran" or which == "grad" else "C")
        out[...] = array
        return out

    plain, other = values[0].copy(), laid(values[0], "weight")
    dense, laid_out = (lrcore.AdamW([w], lr=0.1, **options) for w in (plain, other))
    for value in values[1:]:
        grads = value.copy(), laid(value, "grad")
        infos = dense.step([grads[0]]), laid_out.step([grads[1]])
        assert infos[1].grad_norm == pytest.approx(infos[0].grad_norm, rel=1e-14)
        assert not grads[1].any()
        np.testing.assert_allclose(other, plain, rtol=1e-13)
        np.testing.assert_allclose(laid_out.average["0"], dense.average["0"], rtol=1e-13)
        rows = [list(info.stats["0"].values()) for info in infos]
        np.testing.assert_allclose(rows[1], rows[0], rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_statistics_agree_with_numpy(dtype):
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal((70, 130)).astype(dtype), "b": np.zeros(3, dtype)}
    grads = {"w": rng.standard_normal((70, 130)).astype(dtype), "b": np.array([0.0, 0.0, 5.0], dtype)}
    before = {name: array.copy() for name, array in params.items()}
    opt = lrcore.SGD(params, lr=0.1, weight_decay=0.1, decay="decoupled", clip_value=0.5, stats=True)
    stats = opt.step(grads, grad_scale=2.0).stats
    assert list(stats) == ["w", "b"]
    for name, one in stats.items():
        update = params[name].astype(float) - before[name]
        weight_norm = np.linalg.norm(before[name].astype(float))
        want = (
            weight_norm,
            np.linalg.norm(grads[name].astype(float)) / 2,
            np.linalg.norm(update),
            np.linalg.norm(update) / weight_norm if weight_norm else math.inf,
            np.abs(update).max(),
            np.mean(grads[name] == 0),
            0.0,
        )
        np.testing.assert_allclose(list(one.values()), want, rtol=1e-12 if dtype == np.float64 else 1e-5)
    grads["b"][1] = np.nan
    assert opt.step(grads).stats["b"].nonfinite == pytest.approx(1 / 3)
    assert "update_ratio" in str(stats)
    assert {row["name"] for row in stats.rows()} == {"w", "b"}
    assert ("run/b/zeros", pytest.approx(2 / 3)) in list(stats.scalars("run/"))
    assert lrcore.SGD(np.zeros(1)).step(np.zeros(1)).stats is None


def test_no_decay_matches_parameters_by_pattern():
    params = {"layer": {"weight": np.ones(2), "bias": np.ones(2)}, "norm": {"scale": np.ones(2)}}
    zeros = {"layer": {"weight": np.zeros(2), "bias": np.zeros(2)}, "norm": {"scale": np.zeros(2)}}
    lrcore.AdamW(params, lr=1.0, weight_decay=0.5, no_decay=["*bias", "*norm*"]).step(zeros)
    assert params["layer"]["weight"].tolist() == [0.5, 0.5]
    assert params["layer"]["bias"].tolist() == params["norm"]["scale"].tolist() == [1.0, 1.0]


def test_groups_have_separate_stages_but_one_global_norm():
    a, b = np.zeros(1), np.zeros(1)
    groups = [{"params": a, "clip_value": 0.1}, {"params": b, "bounds": (-0.25, 0.0), "zero_grads": True}]
    opt = lrcore.SGD(groups, lr=1.0, clip_norm=1.0)
    grads = [np.array([3.0]), np.array([4.0])]
    info = opt.step(grads)
    assert info.grad_norm == 5.0
    assert (a[0], b[0]) == (-0.1, -0.25)
    assert (grads[0][0], grads[1][0]) == (3.0, 0.0)


BAD = [
    ({"clip_norm": 0.0}, ValueError, r"^clip_norm must be in \(0, inf\], got 0.0$"),
    ({"clip_norm": "1"}, TypeError, r"^clip_norm must be a number in \(0, inf\] or a schedule, got '1'$"),
    ({"clip_value": -1.0}, ValueError, r"^clip_value must be in \(0, inf\), got -1.0$"),
    ({"clip_value": math.nan}, ValueError, r"^clip_value must be in \(0, inf\), got nan$"),
    ({"clip_norm": math.nan}, ValueError, r"^clip_norm must be in \(0, inf\], got nan$"),
    ({"clip_norm": np.array([1.0])}, TypeError, r"^clip_norm must be a number in \(0, inf\] or a schedule, got array"),
    ({"clip_value": math.inf}, ValueError, r"^clip_value must be in \(0, inf\), got inf$"),
    ({"clip_norm": 1.0, "norm_type": 3}, ValueError, "^norm_type must be 1, 2 or inf, got 3$"),
    ({"clip_norm": 1.0, "norm_type": True}, ValueError, "^norm_type must be 1, 2 or inf, got True$"),
    ({"clip_norm": 1.0, "norm_type": "2"}, ValueError, "^norm_type must be 1, 2 or inf, got '2'$"),
    ({"clip_norm": 1.0, "norm_type": np.zeros(2)}, ValueError, r"^norm_type must be 1, 2 or inf, got array"),
    ({"norm_type": 1}, ValueError, "^norm_type needs clip_norm"),
    ({"max_skips": 3}, ValueError, "^max_skips needs skip_nonfinite=True"),
    ({"skip_nonfinite": True, "max_skips": 0}, ValueError, "^max_skips must be >= 1, got 0$"),
    ({"skip_nonfinite": 1}, TypeError, "^skip_nonfinite must be True or False, got 1$"),
    ({"decay": "l2"}, ValueError, "^decay must be one of 'coupled', 'decoupled', 'independent', 'cautious', got 'l2'$"),
    ({"no_decay": 3}, TypeError, r"^no_decay must be name patterns"),
    ({"no_decay": {"*bias", 3}}, TypeError, r"^no_decay must be name patterns"),
    ({"bounds": (None, None, None)}, TypeError, r"^bounds must be two numbers"),
    ({"bounds": (None, math.nan)}, ValueError, r"^bounds\[1\] must be in \[-inf, inf\], got nan$"),
    ({"bounds": (1.0, 0.0)}, ValueError, r"^bounds must be \(low, high\) with low <= high"),
    ({"bounds": 1.0}, TypeError, r"^bounds must be two numbers"),
    ({"bounds": (math.nan, 0.0)}, ValueError, r"^bounds\[0\] must be in \[-inf, inf\], got nan$"),
    ({"average": 0.99}, TypeError, r"^average must be EMA\(…\), SWA\(…\) or None, got 0.99$"),
    ({"zero_grads": None}, TypeError, "^zero_grads must be True or False, got None$"),
    ({"stats": "yes"}, TypeError, "^stats must be True or False, got 'yes'$"),
    ({"clip": 1.0}, TypeError, "^SGD has no argument 'clip'; its options are decay, clip_value"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "exception", "message"), BAD, ids=[message[:60] for *_, message in BAD])
def test_an_invalid_option_is_refused(options, exception, message):
    with pytest.raises(exception, match=message):
        lrcore.SGD(np.zeros(1), **options)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan, "2", None])
def test_an_invalid_grad_scale_is_refused(scale):
    opt = lrcore.SGD(np.zeros(1))
    with pytest.raises((TypeError, ValueError), match=r"^grad_scale must be "):
        opt.step(np.ones(1), grad_scale=scale)
    assert opt.steps == 0


def test_an_option_of_all_groups_is_refused_in_a_group():
    with pytest.raises(ValueError, match=r"^a group has no 'clip_norm'; it has params, name, lr.*to the optimizer"):
        lrcore.SGD([{"params": np.zeros(1), "clip_norm": 1.0}])


def test_a_gradient_to_be_zeroed_must_be_writable_and_unshared():
    params, grads = {"a": np.zeros(2), "b": np.zeros(2)}, {"a": np.ones(2), "b": np.ones(2)}
    opt = lrcore.SGD(params, zero_grads=True)
    grads["a"].flags.writeable = False
    with pytest.raises(ValueError, match=r'^grads\["a"\] is read-only$'):
        opt.step(grads)
    with pytest.raises(ValueError, match=r'^grads\["a"\] and grads\["b"\] share memory$'):
        opt.step({"a": grads["b"], "b": grads["b"]})
    assert grads["b"].all()
    assert not params["a"].any()


def test_independent_decay_needs_a_learning_rate_with_a_maximum():
    opt = lrcore.SGD(np.ones(1), lr=schedules.Exponential(1.0, gamma=1.1), weight_decay=0.1, decay="independent")
    with pytest.raises(
        ValueError, match=r"^the largest value of Exponential.* is not known: values grow without an end"
    ):
        opt.step(np.zeros(1))
