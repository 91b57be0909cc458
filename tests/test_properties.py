"""Properties of every optimizer, for random parameters, gradients and hyperparameters."""

import copy

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

import lrcore
from lrcore import schedules
from lrcore.optim.options import DECAYS
from support.cases import OPTIMIZERS, same
from support.snapshot import leaves, snapshot

settings.register_profile("lrcore", deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lrcore")


keys = st.text(max_size=3) | st.integers(-3, 3) | st.none() | st.tuples(st.integers(0, 1))
shapes = arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)


@st.composite
def arrays(draw):
    """An array in a random layout, as a view of a larger buffer."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    shape = draw(shapes)
    steps = [draw(st.sampled_from([1, 1, 1, 2, -1, -3])) for _ in shape]
    buffer = np.zeros([n * abs(step) for n, step in zip(shape, steps, strict=True)], dtype)
    view = np.asarray(buffer[tuple(slice(None, None, step) for step in steps)])
    values = draw(arrays_of.arrays(dtype, view.shape, elements=st.floats(-10, 10, width=32)))
    view[...] = values
    return view.transpose(draw(st.permutations(range(view.ndim))))


def lists(inner):
    return st.lists(inner, max_size=3)


structures = st.recursive(
    arrays(),
    lambda inner: lists(inner) | lists(inner).map(tuple) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


numbers = st.floats(0.0, 1.0)
OPTIONS = {
    "decay": st.sampled_from(DECAYS),
    "clip_value": st.none() | st.floats(0.01, 10.0),
    "bounds": st.none() | st.tuples(st.floats(-2.0, 0.0), st.floats(0.0, 2.0)),
    "zero_grads": st.sampled_from([False]),  # the same gradients are used several times
}


def value_of(key, default):
    """A valid value of a hyperparameter; any number may be a schedule."""
    if key in OPTIONS:
        return OPTIONS[key]
    if isinstance(default, bool):
        return st.booleans()
    if key == "betas":
        betas = st.floats(0.0, 0.999) | st.just(schedules.Linear(0.0, 0.9, steps=2))
        return st.tuples(betas, betas)
    if key in ("eps", "lr"):
        return st.floats(1e-8, 1.0)
    return numbers | st.builds(schedules.Linear, numbers, numbers, st.integers(0, 4))


def arguments_of(optimizer):
    defaults = optimizer(np.zeros(1)).param_groups[0].hyperparameters
    return st.fixed_dictionaries({key: value_of(key, default) for key, default in defaults.items()})


# Made once: hypothesis takes longer to make a strategy than to draw from it.
ARGUMENTS = {optimizer: arguments_of(optimizer) for optimizer in OPTIMIZERS}


@st.composite
def hyperparameters(draw):
    """An optimizer class and valid arguments."""
    optimizer = draw(st.sampled_from(OPTIMIZERS))
    arguments = draw(ARGUMENTS[optimizer])
    if arguments.get("nesterov"):
        arguments.update(momentum=0.9, dampening=0.0)
    return optimizer, arguments


def gradients_like(draw, structure):
    """Gradients for a structure; some are None, also for whole containers."""
    if draw(st.integers(0, 5)) == 0:
        return None
    if isinstance(structure, np.ndarray):
        elements = st.floats(-10, 10, width=32) | st.sampled_from([0.0, -0.0, 1e-30])
        grad = draw(arrays_of.arrays(structure.dtype, structure.shape, elements=elements))
        return np.asfortranarray(grad) if grad.ndim and draw(st.booleans()) else grad
    if isinstance(structure, dict):
        return {key: gradients_like(draw, entry) for key, entry in structure.items()}
    return [gradients_like(draw, entry) for entry in structure]


def make(optimizer, params, arguments):
    """The optimizer, or None if the structure is refused because it is empty or a name occurs twice."""
    try:
        return optimizer(params, **arguments)
    except ValueError as error:
        assert "holds no parameters" in str(error) or "there is a parameter named" in str(error)  # noqa: PT017
        return None


@given(structures, hyperparameters(), st.data())
def test_a_structure_is_updated_like_its_arrays_one_by_one(params, choice, data):
    """For any structure, layout and memory order, with any gradients missing."""
    optimizer, arguments = choice
    alone = [np.array(array, order="C") for array in leaves(params)]
    opt = make(optimizer, params, arguments)
    if opt is None:
        return
    single = [optimizer([array], **arguments) for array in alone]
    for step in range(3):
        grads = gradients_like(data.draw, params)
        if grads is None:
            continue
        assert opt.step(grads).step == opt.steps
        for each, grad in zip(single, leaves_or_none(params, grads), strict=True):
            each.step([grad])
        assert all(same(*pair) for pair in zip(leaves(params), alone, strict=True)), step


def leaves_or_none(params, grads):
    """The gradient of each array of a structure, or None."""
    if isinstance(params, np.ndarray):
        return [grads]
    entries = params.items() if isinstance(params, dict) else enumerate(params)
    return [leaf for key, entry in entries for leaf in leaves_or_none(entry, None if grads is None else grads[key])]


def with_one_error(draw, grads):
    """The gradients with one error, or None if there is no place for one."""
    if isinstance(grads, np.ndarray):
        return draw(st.sampled_from([
            grads.astype(np.float16), np.zeros((*grads.shape, 2), grads.dtype), "grad", [grads], {"w": grads}, object(),
        ]))  # fmt: skip
    if isinstance(grads, dict):
        if draw(st.booleans()) or not grads:
            return {**grads, "no such key": None}
        key = draw(st.sampled_from(list(grads)))
        entry = with_one_error(draw, grads[key])
        others = {other: value for other, value in grads.items() if other != key}
        return others if entry is None else {**others, key: entry}
    if isinstance(grads, list):
        i = draw(st.integers(0, len(grads)))
        entry = with_one_error(draw, grads[i]) if i < len(grads) else None
        return [*grads, None] if entry is None else [*grads[:i], entry, *grads[i + 1 :]]
    return None


@given(structures, hyperparameters(), st.data())
def test_gradients_with_one_error_change_nothing(params, choice, data):
    optimizer, arguments = choice
    opt = make(optimizer, params, arguments)
    if opt is None:
        return
    grads = gradients_like(data.draw, params)
    for _ in range(data.draw(st.integers(0, 1))):
        if grads is not None:
            opt.step(grads)
    wrong = with_one_error(data.draw, grads)
    if wrong is None:
        return
    before = snapshot(opt, *leaves(params))
    with pytest.raises((TypeError, ValueError), match="grads"):
        opt.step(wrong)
    assert snapshot(opt, *leaves(params)) == before


@given(structures, hyperparameters(), st.data())
def test_a_copied_or_loaded_optimizer_continues_with_the_same_bits(params, choice, data):
    optimizer, arguments = choice
    opt = make(optimizer, params, arguments)
    if opt is None:
        return
    grads = gradients_like(data.draw, params)
    if grads is not None:
        opt.step(grads)
    others, twin = copy.deepcopy((params, opt))
    loaded = optimizer(others)
    loaded.load_state_dict(opt.state_dict())
    assert snapshot(twin) == snapshot(opt)
    if grads is not None:
        opt.step(grads)
        loaded.step(grads)
    assert all(same(*pair) for pair in zip(leaves(params), leaves(others), strict=True))


@given(st.data())
def test_any_bits_of_weight_and_gradient_are_accepted_and_give_the_same_result_at_every_level(data):
    """Subnormals, infinities and NaN included."""
    optimizer, arguments = data.draw(hyperparameters())
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    size = data.draw(st.integers(0, 70))
    anything = arrays_of.arrays(dtype, size, elements=arrays_of.from_dtype(np.dtype(dtype)))
    start, grads = data.draw(anything), [data.draw(anything) for _ in range(2)]
    results = []
    before = lrcore.get_simd_level()
    for level in lrcore.simd_levels():
        lrcore.set_simd_level(level)
        weight = start.copy()
        opt = optimizer([weight], **arguments)
        for grad in grads:
            opt.step([grad])
        results.append([weight, *opt.state.get("0", {}).values()])
    lrcore.set_simd_level(before)
    assert all(same(*pair) for result in results for pair in zip(result, results[0], strict=True))
