"""Arrays may change between steps: the next step reads them again and updates them, or changes nothing."""

import gc
import warnings
import weakref

import numpy as np
import pytest

import lrcore
from support.cases import same
from support.snapshot import snapshot


def resized(array, n):
    array.resize(n, refcheck=False)


def changed(attribute, value):
    def change(array):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # setting these is deprecated in the newest NumPy
            setattr(array, attribute, value)

    return change


GRADS = {"w": np.ones(6)}

# A change of a weight with six elements or of its first moment, and the error of the next step.
CHANGES = [
    ("shrunk", lambda array: resized(array, 5), ValueError, r'has shape \((5|6),\)'),
    ("emptied", lambda array: resized(array, 0), ValueError, r'has shape \((0|6),\)'),
    ("grown", lambda array: resized(array, 1 << 16), ValueError, r'has shape \((65536|6),\)'),
    ("read-only", lambda array: array.setflags(write=False), ValueError, "is read-only"),
    ("another dtype", changed("dtype", np.int64), TypeError, "int64"),
    ("half the dtype", changed("dtype", np.float32), TypeError, "float32"),
    ("another byte order", changed("dtype", np.dtype(">f8")), TypeError, "f8"),
    ("another shape", changed("shape", (2, 3)), ValueError, r'has shape \((6,|2, 3)\)'),
    ("all on one place", changed("strides", (0,)), ValueError, "share memory with each other"),
]  # fmt: skip


names = [row[0] for row in CHANGES]


@pytest.mark.parametrize("which", ["weight", "state"])
@pytest.mark.parametrize(("change", "exception", "message"), [row[1:] for row in CHANGES], ids=names)
def test_an_array_that_no_longer_matches_is_refused(which, change, exception, message):
    params = {"w": np.ones(6), "b": np.ones(2)}
    opt = lrcore.Adam(params)
    opt.step({**GRADS, "b": None})
    array = params["w"] if which == "weight" else opt.state["w"]["exp_avg"]
    change(array)
    before = snapshot(opt, params["b"])
    for _ in range(2):
        with pytest.raises(exception, match=message):
            opt.step({**GRADS, "b": np.ones(2)})
        assert snapshot(opt, params["b"]) == before
    opt.step({"w": None, "b": np.ones(2)})


def test_an_array_that_was_moved_in_memory_is_updated():
    weight, other = np.ones(6), np.ones(6)
    opt, twin = lrcore.Adam({"w": weight}), lrcore.Adam({"w": other})
    for n in (1 << 16, 10, 1 << 20):
        for array in (weight, *opt.state.get("w", {}).values()):
            resized(array, n)
            keep = np.empty(n)
            resized(array, 6)
            del keep
        opt.step(GRADS)
        twin.step(GRADS)
    assert same(weight, other)


def test_a_resized_weight_without_state_is_updated_at_its_new_size():
    weight = np.zeros(6)
    opt = lrcore.SGD([weight], lr=1.0)
    for n in (6, 1 << 16, 3, 0, 5):
        resized(weight, n)
        opt.step([np.ones(n)])
        assert (weight == -1.0).all()
        weight[...] = 0.0


def test_arrays_owned_only_by_the_container_may_be_freed_and_replaced():
    params = {"w": np.ones(100_000)}
    opt = lrcore.SGD(params, lr=1.0)
    for k in range(20):
        opt.step({"w": np.ones(1000 * k)}) if k else opt.step({"w": np.ones(100_000)})
        assert (params["w"] == 0.0).all()
        params["w"] = np.ones(1000 * (k + 1))
    del params["w"]
    with pytest.raises(ValueError, match="is gone since the optimizer was made"):
        opt.step({"w": np.ones(100_000)})


def test_weights_gradients_and_optimizers_are_freed():
    params, grads = {"w": np.ones(3)}, {"w": np.ones(3)}
    opt = lrcore.Adam(params)
    opt.step(grads)
    references = [weakref.ref(array) for array in (params["w"], grads["w"], opt.state["w"]["exp_avg"])]
    del params, grads, opt
    gc.collect()
    assert [reference() for reference in references] == [None, None, None]


def test_an_optimizer_that_its_own_parameters_refer_to_is_freed():
    class Model(dict):
        """A mapping that can hold its optimizer."""

    model = Model(w=np.zeros(3))
    model.optimizer = lrcore.SGD(model)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None
