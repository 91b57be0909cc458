"""Random options, shapes and gradients, valid and invalid: a call succeeds, or raises and changes nothing."""

import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lrcore
from lrcore import schedules
from support.cases import OPTIMIZERS
from support.snapshot import snapshot

EXAMPLES = int(os.environ.get("LRCORE_TEST_EXAMPLES", "300"))
# Some drawn patterns match no name.
pytestmark = pytest.mark.filterwarnings("ignore:no_decay")

REFUSED = (TypeError, ValueError)

numbers = st.floats() | st.integers(-2, 2**70) | st.floats(0.0, 1.0)
scheduled = numbers | st.builds(schedules.Linear, st.floats(0, 1), st.floats(0, 1), st.integers(0, 5))
odd = st.sampled_from([None, "2", b"", [], (), {}, 1j, object(), np.zeros(2), True, -0.0, math.inf, math.nan])
averages = st.floats(0, 0.99).map(lrcore.EMA) | st.integers(1, 3).map(lrcore.SWA)
good = {
    "lr": st.floats(0, 1) | st.builds(schedules.Cosine, st.floats(0, 1), st.integers(0, 5)),
    "weight_decay": st.floats(0, 1),
    "maximize": st.booleans(),
    "decay": st.sampled_from(["coupled", "decoupled", "independent", "cautious"]),
    "clip_value": st.none() | st.floats(0.01, 10),
    "bounds": st.none() | st.tuples(st.floats(-5, 0), st.floats(0, 5)),
    "zero_grads": st.booleans(),
    "clip_norm": st.none() | st.floats(0.01, 10) | st.floats(1, 2).map(lambda end: schedules.Linear(2.0, end, steps=3)),
    "norm_type": st.sampled_from([1, 2, math.inf]),
    "skip_nonfinite": st.booleans(),
    "max_skips": st.integers(1, 3),
    "no_decay": st.sampled_from([(), "*", ["a*", "b"], []]),
    "average": st.none() | averages,
    "stats": st.booleans(),
}  # fmt: skip
options = st.dictionaries(st.sampled_from([*good, "betas", "unknown"]), odd | scheduled, max_size=1).flatmap(
    lambda bad: st.fixed_dictionaries({}, optional=good).map(lambda right: {**right, **bad})
)
shapes = st.sampled_from([(), (1,), (0,), (7,), (8,), (33,), (5, 3), (2, 3, 4), (600,), (0, 4)])
values = st.floats(-10, 10, width=32) | st.sampled_from([0.0, math.nan, math.inf, -math.inf, 1e30, 1e-40])


@st.composite
def arrays(draw, shape, dtypes=(np.float32, np.float64)):
    dtype = draw(st.sampled_from(dtypes))
    array = np.full(shape, draw(values), dtype)
    if array.size > 1 and draw(st.booleans()):
        array.flat[draw(st.integers(0, array.size - 1))] = draw(values)
    layout = draw(st.sampled_from(["C", "F", "strided", "read-only", "misaligned"]))
    if layout == "F":
        return array.copy(order="F")
    if layout == "strided" and array.ndim:
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if layout == "read-only":
        array.flags.writeable = False
    if layout == "misaligned" and array.ndim:
        moved = np.frombuffer(bytearray(array.nbytes + 3), dtype, array.size, 3).reshape(array.shape)
        moved[...] = array
        return moved
    return array


@st.composite
def gradient(draw, weight):
    """A gradient, usually a valid one."""
    kind = draw(st.sampled_from(["fits"] * 12 + ["none", "shape", "dtype", "itself", "odd"]))
    if kind == "fits":
        return draw(arrays(weight.shape, [weight.dtype.type]))
    if kind == "none":
        return None
    if kind == "shape":
        return draw(arrays(draw(shapes)))
    if kind == "dtype":
        return np.zeros(weight.shape, draw(st.sampled_from([np.float16, np.int32, np.float64, np.complex64, object])))
    return weight if kind == "itself" else draw(odd)


def arrays_in(*structures):
    return [array for structure in structures for array in structure.values() if isinstance(array, np.ndarray)]


def everything(opt, *structures):
    found = [*arrays_in(*structures), *opt.average.values()]
    return snapshot(opt, *(array for array in found if array.dtype != object)), opt.skipped


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), optimizer=st.sampled_from(OPTIMIZERS), chosen=options)
def test_a_call_succeeds_or_is_refused_and_changes_nothing(data, optimizer, chosen):
    params = {name: data.draw(arrays(data.draw(shapes))) for name in "abc"[: data.draw(st.integers(1, 3))]}
    before = [array.tobytes() for array in params.values()]
    try:
        with np.errstate(all="ignore"):
            opt = optimizer(params, **chosen)
    except REFUSED:
        assert [array.tobytes() for array in params.values()] == before
        return
    for _ in range(data.draw(st.integers(1, 4))):
        grads = {name: data.draw(gradient(weight)) for name, weight in params.items()}
        if data.draw(st.integers(0, 15)) == 0:
            grads["more"] = np.zeros(1)
        scale = data.draw(st.sampled_from([1.0] * 8 + [2.0, 0.0, -1.0, math.nan, "2", None, 1e-300]))
        kept, plain = everything(opt, params, grads), everything(opt, params)
        steps, pending = opt.steps, opt._stepper.pending_batches
        waits = data.draw(st.integers(0, 4)) == 0
        try:
            if waits:
                opt.accumulate(grads)
                assert everything(opt, params) == plain
                assert chosen.get("zero_grads") or everything(opt, params, grads) == kept
                kept = everything(opt, params, grads)
            info = opt.step(None if waits else grads, grad_scale=scale)
        except FloatingPointError:
            assert opt.steps == steps
        except REFUSED:
            assert everything(opt, params, grads) == kept
        except RuntimeError:
            # After a refused step() its micro-batches are still pending, and step(grads) would ignore them.
            assert pending
            assert not waits
            assert everything(opt, params, grads) == kept
            assert opt.discard_accumulated() == pending
        else:
            assert waits or not pending
            assert info.step == opt.steps == steps + info.applied
            if not info.applied and not chosen.get("zero_grads"):
                assert everything(opt, params, grads)[0] == kept[0]
    if opt._global_options.average is not None and all(array.flags.writeable for array in params.values()):
        kept = everything(opt, params)
        with opt.averaged():
            pass
        assert everything(opt, params) == kept
