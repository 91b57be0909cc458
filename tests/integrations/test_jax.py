"""Optimizers for JAX arrays: lrcore's numbers, and arrays that never change under anybody's hands."""

import copy
import doctest
import functools
import inspect
import io
import os
import pickle
import re
import subprocess
import sys
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lrcore
import lrcore.jax
from lrcore import _pytrees, schedules
from support.cases import CASES, FULL, NAMES
from support.snapshot import bits, snapshot

jax = pytest.importorskip("jax")
jnp = jax.numpy

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "jax.md"

Pair = namedtuple("Pair", "left right")


@functools.partial(jax.tree_util.register_dataclass, data_fields=["kernel", "bias"], meta_fields=["name"])
@dataclass
class Dense:
    """A layer, as a pytree."""

    kernel: Any
    bias: Any
    name: str = "dense"


@jax.tree_util.register_pytree_node_class
class Box:
    """A pytree whose children have no names."""

    def __init__(self, value):
        self.value = value

    def tree_flatten(self):
        return (self.value,), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


@pytest.fixture(autouse=True)
def _float64():
    """JAX has float64 as well, beside float32."""
    jax.config.update("jax_enable_x64", True)  # noqa: FBT003
    yield
    jax.config.update("jax_enable_x64", False)  # noqa: FBT003


def values(shape, dtype=np.float32, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def weights(dtype=np.float32):
    """Parameters in NumPy, in the order in which JAX walks them."""
    return {
        "b": values((5,), dtype),
        "layers": [values((3, 4), dtype), values((), dtype)],
        "w": values((2, 3, 4), dtype),
    }


def gradients(k, dtype=np.float32):
    return jax.tree.map(lambda weight: values(weight.shape, dtype, seed=k + 1), weights(dtype))


def on_jax(tree):
    return jax.tree.map(jnp.array, tree)


def contents(tree):
    return [bits(np.asarray(leaf)) for leaf in jax.tree.leaves(tree)]


def quadratic(params):
    return sum((leaf**2).sum() for leaf in jax.tree.leaves(params))


# The numbers


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_steps_have_the_bits_of_lrcore_on_numpy(case, dtype):
    plain = weights(dtype)
    opt, other = case.make(plain), getattr(lrcore.jax, case.optimizer.__name__)(on_jax(plain), **case.arguments)
    for k in range(5):
        info = opt.step(gradients(k, dtype))
        params, told = other.step(on_jax(gradients(k, dtype)))
        assert told == info
        assert contents(params) == contents(plain) == contents(other.params)
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
    assert snapshot(other) == snapshot(opt)


OPTIONS = [
    {"clip_norm": 0.5},
    {"clip_norm": schedules.Linear(1.0, 0.1, steps=4), "norm_type": 1},
    {"clip_value": 0.1, "bounds": (-0.5, 0.5)},
    {"decay": "cautious", "weight_decay": 0.1, "no_decay": ["layers.0", "b*"]},
    {"lr": schedules.Cosine(0.1, steps=5).warmup(2), "lr_scale": 0.5},
    {"average": lrcore.EMA(0.5), "stats": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options))
def test_options_do_what_they_do_on_numpy(options):
    plain = weights()
    opt, other = lrcore.AdamW(plain, **options), lrcore.jax.AdamW(on_jax(plain), **options)
    for k in range(5):
        info = opt.step(gradients(k), grad_scale=2.0)
        params, told = other.step(on_jax(gradients(k)), grad_scale=2.0)
        assert (told, str(told.stats)) == (info, str(info.stats))
    assert contents(params) == contents(plain)
    if "average" in options:
        with opt.averaged():
            averages = contents(plain)
        assert contents(other.averaged()) == averages != contents(other.params)
        assert contents(other.averaged_params()) == averages


def test_micro_batches_wait_for_a_step():
    plain = weights()
    opt, other = lrcore.SGD(plain, lr=0.1), lrcore.jax.SGD(on_jax(plain), lr=0.1)
    for k in range(3):
        assert other.accumulate(on_jax(gradients(k))) == opt.accumulate(gradients(k)) == k + 1
    opt.step()
    params, info = other.step()
    assert contents(params) == contents(plain)
    assert info.step == 1


def test_a_step_that_is_skipped_returns_the_weights_as_they_were():
    opt = lrcore.jax.AdamW(on_jax(weights()), skip_nonfinite=True)
    params, info = opt.step(jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), opt.params))
    assert (info.applied, opt.skipped) == (False, 1)
    assert contents(params) == contents(weights())


OPTAX = {
    "adamw": (
        lambda optax: optax.adamw(0.01, 0.9, 0.99, 1e-8, weight_decay=0.1),
        "AdamW",
        {"betas": (0.9, 0.99), "weight_decay": 0.1},
    ),
    "sgd": (lambda optax: optax.sgd(0.01), "SGD", {}),
    "momentum": (lambda optax: optax.sgd(0.01, momentum=0.9), "SGD", {"momentum": 0.9}),
    "nesterov": (
        lambda optax: optax.sgd(0.01, momentum=0.9, nesterov=True),
        "SGD",
        {"momentum": 0.9, "nesterov": True},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("make", "name", "arguments"), OPTAX.values(), ids=OPTAX)
def test_steps_have_the_numbers_of_optax(make, name, arguments):
    optax = pytest.importorskip("optax")
    tx = make(optax)
    mine = theirs = on_jax(weights(np.float64))
    opt = getattr(lrcore.jax, name)(mine, lr=0.01, **arguments)
    state = tx.init(theirs)
    for _ in range(20):
        mine, _ = opt.step(jax.grad(quadratic)(mine))
        updates, state = tx.update(jax.grad(quadratic)(theirs), state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    for one, other in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_a_range_test_finds_a_rate_and_puts_everything_back():
    opt = lrcore.jax.SGD(on_jax(weights()))
    start, before = opt.params, snapshot(opt)
    result = lrcore.find_lr(opt, jax.jit(jax.value_and_grad(quadratic)), [()], start=1e-4, steps=40, progress=False)
    assert result.stopped == "diverged"
    assert 0.05 < result.suggest().lr < 1.0  # it diverges above 1
    assert (contents(opt.params), snapshot(opt)) == (contents(start), before)


# Memory: nothing that was handed over changes

SIZES = {"one": (), "unaligned": (7,), "a line": (16,), "a page": (1024,), "64 KiB": (128, 128), "4 MiB": (1024, 1024)}


@pytest.fixture(params=[0, 2**63], ids=["as large ones", "as small ones"])
def _both_ways(request, monkeypatch):
    """Small arrays and large ones are handed over in different ways; each is tried with any size."""
    monkeypatch.setattr(_pytrees, "_LARGE", request.param)


both_ways = pytest.mark.usefixtures("_both_ways")


@pytest.mark.slow
@both_ways
@pytest.mark.parametrize("shape", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_that_were_returned_never_change(shape, dtype):
    first = jnp.array(values(shape, dtype))
    opt = lrcore.jax.AdamW([first, first + 1], lr=0.1, average=lrcore.EMA(0.5))
    seen = [[first, first + 1], opt.params]
    for _ in range(4):
        params, _ = opt.step([jnp.ones_like(first)] * 2)
        seen += [params, opt.averaged()]
    views = [[np.asarray(leaf) for leaf in params] for params in seen]
    before = [contents(params) for params in seen]
    for _ in range(4):
        opt.step([jnp.ones_like(first)] * 2)
    opt.params = [jnp.zeros_like(first)] * 2
    assert [contents(params) for params in seen] == before == [contents(arrays) for arrays in views]


@both_ways
@pytest.mark.parametrize("shape", SIZES.values(), ids=SIZES)
def test_no_memory_is_shared(shape):
    opt = lrcore.jax.SGD([jnp.array(values(shape))], average=lrcore.EMA(0.5))
    grads = [jnp.ones(shape, np.float32)]
    params, _ = opt.step(grads)
    arrays = [params, opt.params, opt.averaged(), grads]
    own = [*opt.param_groups[0]["params"].values(), *opt.average.values()]
    for i, (left,) in enumerate(arrays):
        for (right,) in arrays[:i]:
            assert not np.shares_memory(np.asarray(left), np.asarray(right))
        for array in own:
            assert not np.shares_memory(np.asarray(left), array)


@pytest.mark.slow
@both_ways
@pytest.mark.parametrize("copied", [False, True], ids=["as made", "from a pickle"])  # elsewhere in memory
@pytest.mark.parametrize("shape", [(512,), (512, 512), (1024, 1024)], ids=str)
def test_a_computation_that_still_runs_reads_the_weights_that_it_was_given(shape, copied):
    """JAX returns before it has computed; the steps that follow meanwhile don't reach what it reads."""

    @jax.jit
    def slow(params):
        product = jnp.ones((256, 256), np.float32) / 256
        product = jax.lax.fori_loop(0, 60, lambda _, product: product @ product, product)
        return params["w"] * product[0, 0] * 256

    params = {"w": jnp.ones(shape, np.float32)}
    grads = {"w": jnp.ones(shape, np.float32)}
    opt = lrcore.jax.SGD(params, lr=1.0)
    opt = through_pickle(opt) if copied else opt
    slow(params).block_until_ready()  # it is compiled
    for k in range(5):
        result = slow(params)
        for _ in range(3):
            latest, _ = opt.step(grads)
        np.testing.assert_allclose(result, np.full(shape, 1.0 - 3 * k), rtol=1e-4)
        params = latest


@both_ways
def test_returned_arrays_may_be_donated():
    params = {"small": jnp.zeros(16), "large": jnp.zeros((1024, 1024))}
    opt = lrcore.jax.SGD(params, lr=1.0)
    spoil = jax.jit(lambda params: jax.tree.map(lambda leaf: leaf * 0 + 7, params), donate_argnums=0)
    ones = jax.tree.map(jnp.ones_like, params)
    for k in range(1, 4):
        params, _ = opt.step(ones)
        kept = [np.array(leaf) for leaf in jax.tree.leaves(opt.params)]
        spoil(params)
        assert contents(opt.params) == [bits(array) for array in kept]
        assert all((leaf == -k).all() for leaf in jax.tree.leaves(opt.params))


def test_gradients_are_read_where_they_are_and_not_written_to():
    grads = {"jax": jnp.full(3, 2.0), "numpy": np.full(3, 2.0)}
    opt = lrcore.jax.SGD({"jax": jnp.ones(3), "numpy": jnp.ones(3)}, lr=0.5)
    params, _ = opt.step(grads)
    assert not params["jax"].any()
    assert not params["numpy"].any()
    assert (grads["jax"] == 2).all()
    assert (grads["numpy"] == 2).all()
    read = opt._read(grads, "grads")
    assert np.shares_memory(read["jax"], np.asarray(grads["jax"]))
    assert read["numpy"] is grads["numpy"]


@both_ways
def test_a_jitted_function_is_compiled_once():
    params = {"w": jnp.ones(16), "large": jnp.ones((1024, 512))}
    opt = lrcore.jax.SGD(params)
    gradient = jax.jit(jax.grad(quadratic))
    for _ in range(3):
        params, _ = opt.step(gradient(params))
    # Versions that don't say whether an array is tied to its device have a second one.
    assert gradient._cache_size() == (1 if hasattr(params["w"], "committed") else 2)


def test_the_optimizer_keeps_no_array_of_jax_in_memory():
    opt = later()
    opt.step([{"w": jnp.ones(2)}, {"w": jnp.ones(2)}])
    assert not [leaf for leaf in jax.tree.leaves(opt.__getstate__()) if isinstance(leaf, jax.Array)]


# Pytrees

TREES = {
    "an array": (lambda a: a, ["0"]),
    "a list": (lambda a: [a, a], ["0", "1"]),
    "a tuple": (lambda a: (a, (a,)), ["0", "1.0"]),
    "a dict, which JAX sorts": (lambda a: {"b": a, "a": a}, ["a", "b"]),
    "whole numbers for keys": (lambda a: {1: a, 0: a}, ["0", "1"]),
    "a named tuple": (lambda a: Pair(a, [a]), ["left", "right.0"]),
    "None": (lambda a: {"w": a, "none": None, "more": [None, a]}, ["more.1", "w"]),
    "a dataclass": (lambda a: Dense(a, None, "d"), ["kernel"]),
    "a node without names": (lambda a: {"box": Box(a)}, ["box.0"]),
    "nested as by flax": (
        lambda a: {"params": {"Dense_0": {"kernel": a, "bias": a}}},
        ["params.Dense_0.bias", "params.Dense_0.kernel"],
    ),
}


@pytest.mark.parametrize(("make", "names"), TREES.values(), ids=TREES)
def test_a_pytree_comes_back_as_it_was(make, names):
    params = make(jnp.ones(3))
    opt = lrcore.jax.AdamW(params, lr=0.5)
    returned, _ = opt.step(make(jnp.ones(3)))
    assert jax.tree.structure(returned) == jax.tree.structure(params) == jax.tree.structure(opt.params)
    assert opt.state_dict()["param_groups"][0]["params"] == names == list(opt.state)
    assert all(leaf.shape == (3,) and (leaf < 1).all() for leaf in jax.tree.leaves(returned))


def test_none_in_the_place_of_a_gradient_or_of_a_branch_skips_it():
    opt = lrcore.jax.SGD({"body": [jnp.ones(2), jnp.ones(2)], "head": jnp.ones(2)}, lr=1.0)
    params, _ = opt.step({"body": [None, jnp.ones(2)], "head": jnp.ones(2)})
    assert [leaf[0] for leaf in jax.tree.leaves(params)] == [1, 0, 0]
    params, _ = opt.step({"body": None, "head": jnp.ones(2)})
    assert [leaf[0] for leaf in jax.tree.leaves(params)] == [1, 0, -1]
    params, info = opt.step({"body": [None, None], "head": None})
    assert [leaf[0] for leaf in jax.tree.leaves(params)] == [1, 0, -1]
    assert info.step == 3


def test_other_containers_with_the_same_entries_will_do():
    opt = lrcore.jax.SGD({"pair": (jnp.ones(2), jnp.ones(2)), "none": None}, lr=1.0)
    params, _ = opt.step({"pair": [jnp.ones(2), np.ones(2)]})
    assert [leaf[0] for leaf in jax.tree.leaves(params)] == [0, 0]
    assert isinstance(params["pair"], tuple)


def test_groups_have_hyperparameters_of_their_own():
    groups = [{"params": {"w": jnp.ones(2)}, "name": "body"}, {"params": (jnp.ones(3),), "lr": 1.0}]
    opt = lrcore.jax.SGD(groups, lr=0.5)
    params, info = opt.step([{"w": jnp.ones(2)}, (jnp.ones(3),)])
    assert contents(params) == contents([{"w": jnp.full(2, 0.5)}, (jnp.zeros(3),)])
    assert info.lr == 0.5
    params, _ = opt.step([None, (jnp.ones(3),)])
    assert contents(params) == contents([{"w": jnp.full(2, 0.5)}, (jnp.full(3, -1.0),)])
    gradient = jax.grad(quadratic)(params)
    opt.step(gradient)
    assert contents(opt.params) == contents([{"w": jnp.zeros(2)}, (jnp.full(3, 1.0),)])


GROUPED = {
    "mappings": lambda a: [{"params": {"w": a()}}, {"params": {"b": [a()]}}],
    "mappings with the same keys": lambda a: [{"params": {"w": a()}}, {"params": {"b": a(), "w": a()}, "name": "head"}],
    "sequences": lambda a: [{"params": [a(), [a()]]}, {"params": (a(),), "name": "head"}],
    "arrays": lambda a: [{"params": a()}, {"params": a(), "name": "head"}],
}


@pytest.mark.parametrize("make", GROUPED.values(), ids=GROUPED)
def test_parameters_of_groups_have_the_names_that_they_have_on_numpy(make):
    opt, other = lrcore.SGD(make(lambda: np.ones(2))), lrcore.jax.SGD(make(lambda: jnp.ones(2)))
    assert other._names == opt._names


def test_a_group_can_be_added_later():
    opt = lrcore.jax.SGD({"w": jnp.ones(2)}, lr=0.5)
    opt.add_param_group({"params": {"w": jnp.ones(3)}, "name": "head", "lr": 1.0})
    (body, head), _ = opt.step([{"w": jnp.ones(2)}, {"w": jnp.ones(3)}])
    assert (body["w"][0], head["w"][0]) == (0.5, 0.0)
    assert list(opt.state_dict()["param_groups"][1]["params"]) == ["head.w"]


def test_layerwise_rates():
    params = {"first": [jnp.ones(2)], "last": jnp.ones(2)}
    opt = lrcore.jax.SGD(lrcore.layerwise(params, decay=0.5), lr=1.0)
    (first, last), _ = opt.step([{"first": [jnp.ones(2)]}, {"last": jnp.ones(2)}])
    assert (first["first"][0][0], last["last"][0]) == (0.5, 0.0)


def test_the_parameters_can_be_set():
    opt = lrcore.jax.SGD({"b": jnp.ones(2), "w": jnp.ones(3)}, lr=1.0)
    given = np.full(3, 5.0)
    opt.params = {"b": None, "w": given}
    given[:] = 0
    assert contents(opt.params) == contents({"b": jnp.ones(2), "w": jnp.full(3, 5.0)})
    with pytest.raises(ValueError, match=r"^params\['w'\] has shape \(2,\), the parameter 'w' has \(3,\)$"):
        opt.params = {"b": jnp.zeros(2), "w": jnp.ones(2)}
    assert (opt.params["b"] == 1).all()


# What is refused


def parameters():
    return {"layers": [{"w": jnp.ones((2, 3), np.float32)}], "scale": jnp.ones(2)}


def with_leaf(leaf):
    return {"layers": [{"w": leaf}], "scale": jnp.ones(2)}


W = r"grads\['layers'\]\[0\]\['w'\]"
GRADIENTS = {
    "a list": (lambda: [jnp.ones(2)], ValueError, rf"{W} is missing; give None to skip that parameter"),
    "an array": (lambda: jnp.ones(2), ValueError, rf"{W} is missing; give None to skip that parameter"),
    "fewer": (lambda: {"scale": jnp.ones(2)}, ValueError, rf"{W} is missing; give None to skip that parameter"),
    "more": (
        lambda: {**parameters(), "other": jnp.ones(2)},
        ValueError,
        r"grads\['other'\] is unexpected: params has no such entry",
    ),
    "deeper": (lambda: with_leaf([jnp.ones((2, 3))]), ValueError, rf"{W} is missing; give None to skip that parameter"),
    "shape": (
        lambda: with_leaf(jnp.ones((3, 2), np.float32)),
        ValueError,
        rf"{W} has shape \(3, 2\), the parameter 'layers.0.w' has \(2, 3\)",
    ),
    "dtype": (
        lambda: with_leaf(jnp.ones((2, 3))),
        TypeError,
        rf"{W} has dtype float64, the parameter 'layers.0.w' has float32; give {W}\.astype\('float32'\)",
    ),
    "half": (
        lambda: with_leaf(jnp.ones((2, 3), jnp.bfloat16)),
        TypeError,
        rf"{W} has dtype bfloat16, the parameter 'layers.0.w' has float32; give {W}\.astype\('float32'\)",
    ),
    "a number": (lambda: with_leaf(1.0), TypeError, rf"{W} must be a JAX array, got float"),
}


@pytest.mark.parametrize(("make", "exception", "message"), GRADIENTS.values(), ids=GRADIENTS)
@pytest.mark.parametrize("way", ["step", "accumulate"])
def test_gradients_that_do_not_fit_are_refused_and_nothing_changes(way, make, exception, message):
    opt = lrcore.jax.AdamW(parameters())
    opt.step(parameters())
    before, params = snapshot(opt), contents(opt.params)
    with pytest.raises(exception, match=f"^{message}$"):
        getattr(opt, way)(make())
    assert (snapshot(opt), contents(opt.params)) == (before, params)


GROUPS = {
    "one pytree": (lambda: {"w": jnp.ones(2)}, TypeError, "got dict"),
    "one array": (lambda: jnp.ones(2), TypeError, "got .*"),
    "too few": (lambda: [{"w": jnp.ones(2)}], ValueError, "got 1"),
}


@pytest.mark.parametrize(("make", "exception", "message"), GROUPS.values(), ids=GROUPS)
def test_gradients_of_groups_come_in_groups(make, exception, message):
    opt = lrcore.jax.SGD([{"params": {"w": jnp.ones(2)}}, {"params": jnp.ones(2)}])
    with pytest.raises(exception, match=f"^grads must be a sequence of 2, a pytree for each group, {message}$"):
        opt.step(make())
    with pytest.raises(ValueError, match=r"^grads\[0\]\['w'\] has shape \(3,\), the parameter 'w' has \(2,\)$"):
        opt.step([{"w": jnp.ones(3)}, jnp.ones(2)])


TRACERS = {
    "jit": lambda step: jax.jit(step),
    "grad": lambda step: jax.grad(lambda x: step(x) or 0.0),
    "vmap": lambda step: jax.vmap(lambda x: step(x[None])),
    "scan": lambda step: lambda x: jax.lax.scan(lambda carry, _: (step(carry), None), x, None, length=2),
}


@pytest.mark.parametrize("transformed", TRACERS.values(), ids=TRACERS)
def test_a_step_within_a_transformation_says_what_to_do(transformed):
    opt = lrcore.jax.SGD([jnp.ones(1)])

    def step(x):
        opt.step([x])

    with pytest.raises(
        TypeError, match=r"^grads\[0\] is a tracer, .* outside of jit, .* optax, with schedules.to_optax"
    ):
        transformed(step)(jnp.ones(1))
    assert opt.steps == 0
    with pytest.raises(TypeError, match=r"^params\[0\] is a tracer, "):
        transformed(lambda x: lrcore.jax.SGD([x]))(jnp.ones(1))


def test_parameters_that_are_read_while_a_function_is_traced_are_values():
    opt = lrcore.jax.SGD([jnp.ones(3)])
    assert (jax.jit(lambda x: x + opt.params[0])(jnp.ones(3)) == 2).all()


PARAMETERS = {
    "NumPy": ({"w": np.ones(2)}, TypeError, r"params\['w'\] must be a JAX array, got ndarray; NumPy arrays are for .*"),
    "a number": ({"w": 1.0}, TypeError, r"params\['w'\] must be a JAX array, got float"),
    "whole numbers": ({"w": np.int32}, TypeError, r"params\['w'\] has dtype int32; allowed are float32 and float64"),
    "half": ({"w": jnp.bfloat16}, TypeError, r"params\['w'\] has dtype bfloat16; allowed are float32 and float64"),
    "complex": ({"w": np.complex64}, TypeError, r"params\['w'\] has dtype complex64; allowed are float32 and float64"),
    "nothing": ({"w": None}, ValueError, r"params holds no parameters"),
    "one name twice": (
        {"a": {"b": np.float32}, "a.b": np.float32},
        ValueError,
        r"params\['a.b'\]: there is a parameter named 'a.b' already, params\['a'\]\['b'\]; .*: rename one of the keys",
    ),
    "in a group": (
        [{"params": {"w": np.float32}}, {"params": [np.int32]}],
        TypeError,
        r"params\[1\]\['params'\]\[0\] has dtype int32; allowed are float32 and float64",
    ),
}


@pytest.mark.parametrize(("params", "exception", "message"), PARAMETERS.values(), ids=PARAMETERS)
def test_parameters_that_can_not_be_stepped_are_refused(params, exception, message):
    params = jax.tree.map(
        lambda leaf: jnp.ones(2, leaf) if isinstance(leaf, type | type(jnp.bfloat16)) else leaf, params
    )
    with pytest.raises(exception, match=f"^{message}$"):
        lrcore.jax.SGD(params)


def test_a_random_key_is_no_parameter():
    with pytest.raises(TypeError, match=r"^params\['rng'\] has dtype key<.*>; allowed are float32 and float64$"):
        lrcore.jax.SGD({"w": jnp.ones(2), "rng": jax.random.key(0)})


def test_arguments_are_checked_as_by_lrcore():
    with pytest.raises(ValueError, match=r"^lr must be in \[0, inf\), got -1.0$"):
        lrcore.jax.Adam([jnp.ones(2)], lr=-1.0)
    with pytest.raises(TypeError, match=r"^AdamW has no argument 'momentum'; its options are "):
        lrcore.jax.AdamW([jnp.ones(2)], momentum=0.9)
    with pytest.raises(ValueError, match=r"^SGD was made without an average; give average=EMA\(…\) or SWA\(…\)$"):
        lrcore.jax.SGD([jnp.ones(2)]).averaged()
    with pytest.raises(TypeError, match=r"^Adam can't be copied without its parameters; use copy.deepcopy$"):
        copy.copy(lrcore.jax.Adam([jnp.ones(2)]))


def test_gradients_of_jax_are_not_zeroed():
    message = "^zero_grads must be False, since JAX arrays can't be written to, got True$"
    with pytest.raises(ValueError, match=message):
        lrcore.jax.SGD([jnp.ones(2)], zero_grads=True)
    opt = lrcore.jax.SGD([{"params": jnp.ones(2), "zero_grads": False}])
    with pytest.raises(ValueError, match=message):
        opt.param_groups[0]["zero_grads"] = True


def test_float64_is_not_rounded_where_jax_has_none_any_more():
    opt = lrcore.jax.SGD({"w": jnp.ones(2)})
    grads = {"w": jnp.ones(2)}
    jax.config.update("jax_enable_x64", False)  # noqa: FBT003
    for call in (lambda: opt.step(grads), lambda: opt.params):
        with pytest.raises(ValueError, match=r"^the parameter 'w' is float64, and jax_enable_x64 is not set any more$"):
            call()
    assert opt.steps == 0


# Saved, copied, printed


@pytest.mark.parametrize("name", NAMES)
def test_a_state_goes_from_numpy_to_jax_and_back(name):
    plain = weights()
    first = getattr(lrcore, name)(plain, lr=0.1)
    for k in range(3):
        first.step(gradients(k))
    second = getattr(lrcore.jax, name)(on_jax(plain), lr=0.5)
    assert second.load_state_dict(first.state_dict()) == ([], [])
    for k in range(3, 6):
        first.step(gradients(k))
        params, _ = second.step(on_jax(gradients(k)))
    assert contents(params) == contents(plain)
    third = getattr(lrcore, name)(jax.tree.map(np.array, params), lr=0.5)
    third.load_state_dict(second.state_dict())
    assert snapshot(third) == snapshot(second) == snapshot(first)


def test_a_checkpoint_goes_from_one_to_the_other(tmp_path):
    opt = lrcore.jax.AdamW(on_jax(weights()), lr=0.1)
    params, _ = opt.step(on_jax(gradients(0)))
    lrcore.save(tmp_path / "run.safetensors", opt)
    plain = jax.tree.map(np.zeros_like, weights())
    for other in (lrcore.jax.AdamW(on_jax(plain)), lrcore.AdamW(plain)):
        lrcore.load(tmp_path / "run.safetensors", other)
        assert contents(other.params) == contents(params)
        assert snapshot(other) == snapshot(opt)


def through_pickle(value):
    return pickle.loads(pickle.dumps(value))  # noqa: S301


def later():
    opt = lrcore.jax.Adam({"w": jnp.ones(2)}, lr=0.1)
    opt.add_param_group({"params": {"w": jnp.ones(2)}, "name": "head", "lr": 0.2})
    return opt


MAKERS = {
    "a nested pytree": lambda: lrcore.jax.AdamW(on_jax(weights()), lr=schedules.Linear(0.1, 0.0, steps=9)),
    "other nodes": lambda: lrcore.jax.SGD(
        {"d": Dense(jnp.ones(2), None), "p": Pair(Box(jnp.ones(1)), [])}, momentum=0.9
    ),
    "an array": lambda: lrcore.jax.SGD(jnp.ones(3)),
    "groups": lambda: lrcore.jax.SGD([{"params": [jnp.ones(2)]}, {"params": jnp.ones(3), "lr": 0.1}]),
    "a group added later": later,
    **{name: functools.partial(getattr(lrcore.jax, name), jnp.ones(3), **FULL[name]) for name in NAMES},
}


@pytest.mark.parametrize("copied", [through_pickle, copy.deepcopy], ids=["pickle", "deepcopy"])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_copy_goes_on_alike_and_apart(make, copied):
    opt = make()
    for _ in range(3):
        twin = copied(opt)
        before = contents(opt.params), snapshot(opt)
        assert (contents(twin.params), snapshot(twin), repr(twin)) == (*before, repr(opt))
        params, _ = twin.step(jax.tree.map(jnp.ones_like, twin.params))
        assert (contents(opt.params), snapshot(opt)) == before
        opt.step(jax.tree.map(jnp.ones_like, opt.params))
        assert contents(opt.params) == contents(params)
        assert jax.tree.structure(opt.params) == jax.tree.structure(params)


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_has_the_arguments_of_its_namesake_and_says_what_it_is(name):
    optimizer = getattr(lrcore.jax, name)
    assert inspect.signature(optimizer) == inspect.signature(getattr(lrcore, name))
    assert repr(optimizer([jnp.ones(2)])) == repr(getattr(lrcore, name)([np.ones(2)])).replace("<", "<jax.", 1)
    assert f"lrcore.{name}" in inspect.getdoc(optimizer)
    assert name in lrcore.jax.__all__


# Elsewhere: other devices, no JAX

DEVICES = """
import jax, jax.numpy as jnp, lrcore.jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

first, second = jax.devices()
message = ""
with jax.default_device(second):
    loose = {"w": jnp.ones(3), "large": jnp.ones((1024, 1024))}
for params in (loose, jax.device_put(loose, second)):
    opt = lrcore.jax.SGD(params, lr=1.0)
    params, _ = opt.step(params)
    for leaf in jax.tree.leaves([params, opt.params]):
        assert leaf.devices() == {second}, leaf.devices()
    assert not any(leaf.any() for leaf in jax.tree.leaves(params))

def error_of(call):
    try:
        call()
    except ValueError as error:
        return str(error)

told = error_of(lambda: lrcore.jax.SGD([jnp.ones(2), jax.device_put(jnp.ones(2), second)]))
assert told == "params[1] is on cpu:1, others on cpu:0", told
both = NamedSharding(Mesh(jax.devices(), "x"), PartitionSpec("x"))
opt = lrcore.jax.SGD([jnp.ones(4)])
told = error_of(lambda: opt.step([jax.device_put(jnp.ones(4), both)]))
assert told.startswith("grads[0] is on cpu:0, cpu:1; allowed is one device of the CPU: jax.device_put("), told
"""
MISSING = """
import sys
sys.modules["jax"] = None
import lrcore.jax
try:
    lrcore.jax.AdamW([])
except ImportError as error:
    print(error)
"""


def run(code, folder, **environment):
    command = [sys.executable, "-c", code]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=120)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_arrays_stay_on_their_device_and_those_on_several_are_refused(tmp_path):
    run(DEVICES, tmp_path, XLA_FLAGS="--xla_force_host_platform_device_count=2", JAX_PLATFORMS="cpu")


@pytest.mark.slow
def test_without_jax_it_is_named(tmp_path):
    told = "lrcore.jax needs jax, which is not installed: python -m pip install 'jax>=0.4.30'\n"
    assert run(MISSING, tmp_path) == told


@pytest.mark.slow
def test_jax_that_is_too_old_is_named(tmp_path):
    (tmp_path / "jax.py").write_text('__version__, __version_info__ = "0.4.29", (0, 4, 29)')
    told = "lrcore.jax needs jax 0.4.30 or later, and 0.4.29 is installed: python -m pip install 'jax>=0.4.30'\n"
    assert run(MISSING.replace('sys.modules["jax"] = None', 'sys.path.insert(0, "")'), tmp_path) == told


@pytest.mark.slow
def test_jax_is_imported_when_an_optimizer_is_made(tmp_path):
    assert run("import sys, lrcore.jax; print('jax' in sys.modules)", tmp_path) == "False\n"


# What is written down


def test_the_examples_of_the_docstrings_are_right():
    jax.config.update("jax_enable_x64", False)  # noqa: FBT003
    tests = [test for test in doctest.DocTestFinder().find(lrcore.jax) if test.examples]
    assert {test.name for test in tests} >= {"lrcore.jax.Optimizer", "lrcore.jax.Optimizer.averaged", "lrcore.jax.SGD"}
    for test in tests:
        for example in test.examples:
            example.options.pop(doctest.SKIP, None)
        told = io.StringIO()
        assert not doctest.DocTestRunner().run(test, out=told.write).failed, told.getvalue()


@pytest.mark.slow
def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jax.config.update("jax_enable_x64", False)  # noqa: FBT003
    blocks = re.findall(r"^```python fragment\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    for code in blocks:
        exec(compile(code, PAGE, "exec"), {"__name__": "__main__"})  # noqa: S102
