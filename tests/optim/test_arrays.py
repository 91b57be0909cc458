"""Arrays of every shape, layout and class are updated in place like a contiguous copy, and no other memory is."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided, sliding_window_view

import lrcore
from support.cases import CASES, DTYPES, misaligned, same

STEPS = 3
ONE_A_RULE = list({case.rule: case for case in CASES}.values())


def spread(values, steps):
    """A view of a larger array with the given step along each axis; negative steps run backwards."""
    buffer = np.full([abs(step) * (n + 2) for n, step in zip(values.shape, steps, strict=True)], 7.5, values.dtype)
    view = buffer
    for axis, (n, step) in enumerate(zip(values.shape, steps, strict=True)):
        view = np.moveaxis(np.moveaxis(view, axis, 0)[abs(step) :: abs(step)][:n][:: 1 if step > 0 else -1], 0, axis)
    view[...] = values
    return view


LAYOUTS = {
    "C order": lambda values: values.copy(order="C"),
    "Fortran order": lambda values: values.copy(order="F"),
    "transposed": lambda values: values.T.copy().T,
    "middle axis fastest": lambda values: np.moveaxis(np.moveaxis(values, 1, -1).copy(), -1, 1),
    "rows of a larger array": lambda values: spread(values, [2, 1, 1]),
    "inside of a larger array": lambda values: spread(values, [1, 1, 1]),
    "every other element": lambda values: spread(values, [1, 2, 3]),
    "backwards": lambda values: values[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
    "one axis backwards": lambda values: spread(values, [1, -1, 2]),
    "misaligned": lambda values: misaligned(values.ravel(), 1).reshape(values.shape),
    "misaligned and spread": lambda values: misaligned(np.repeat(values.ravel(), 2), 3)[::2].reshape(values.shape),
}


def updated(case, weight, grads):
    opt = case.make([weight])
    for grad in grads:
        opt.step([grad])
    return [np.asarray(weight), *opt.state.get("0", {}).values()]


def assert_updated_alike(case, arrays, contiguous):
    weight, *grads = arrays
    for array, expected in zip(updated(case, weight, grads), contiguous, strict=True):
        assert same(array, expected)


def draw(rng, shape, dtype):
    return [rng.standard_normal(shape).astype(dtype) for _ in range(1 + STEPS)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", ONE_A_RULE, ids=lambda case: case.rule)
def test_every_layout_of_weight_and_gradient_equals_a_contiguous_copy(case, dtype, layout):
    values = draw(np.random.default_rng(2), (3, 5, 4), dtype)
    contiguous = updated(case, values[0].copy(), values[1:])
    for other in LAYOUTS.values():
        arrays = [LAYOUTS[layout](values[0]), *map(other, values[1:])]
        assert_updated_alike(case, arrays, contiguous)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("threads", [1, 3])
def test_layouts_hold_across_tiles_chunks_and_threads(layout, threads):
    lrcore.set_num_threads(threads)
    case = next(case for case in CASES if case.rule == "adam" and "weight_decay" in case.arguments)
    values = draw(np.random.default_rng(3), (7, 61, 233), np.float32)
    contiguous = updated(case, values[0].copy(), values[1:])
    for weight, grad in [(layout, "C order"), ("C order", layout), (layout, layout)]:
        assert_updated_alike(case, [LAYOUTS[weight](values[0]), *map(LAYOUTS[grad], values[1:])], contiguous)


BROADCAST = {
    "one number": lambda rng: np.broadcast_to(rng.standard_normal(), (6, 5)),
    "one row": lambda rng: np.broadcast_to(rng.standard_normal(5), (6, 5)),
    "one column": lambda rng: np.broadcast_to(rng.standard_normal((6, 1)), (6, 5)),
    "sliding windows": lambda rng: sliding_window_view(rng.standard_normal(10), 5),
}


@pytest.mark.parametrize("make", BROADCAST.values(), ids=BROADCAST)
def test_gradients_may_overlap_themselves(make):
    grad = make(np.random.default_rng(4))
    weights = [np.ones((6, 5)), np.ones((6, 5), order="F"), spread(np.ones((6, 5)), [2, -2]), np.ones((6, 5))]
    lrcore.Adam(weights).step([grad, grad, grad, grad.copy()])
    assert all(same(weight, weights[-1]) for weight in weights)


def test_gradients_may_be_read_only_and_shared_by_parameters():
    grad = np.ones(3)
    grad.flags.writeable = False
    weights = [np.zeros(3), np.zeros(3)]
    lrcore.SGD(weights, lr=1.0).step([grad, grad])
    assert (np.array(weights) == -1.0).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_outside_a_view_is_unchanged(layout):
    weight = LAYOUTS[layout](np.zeros((3, 5, 4)))
    base = weight
    while isinstance(base.base, np.ndarray):
        base = base.base
    expected = base.copy()
    lrcore.SGD([weight], lr=1.0).step([np.ones(weight.shape)])
    assert (weight == -1.0).all()
    assert (base != expected).sum() == weight.size
    assert set(base.ravel()) <= {-1.0, *expected.ravel()}


def test_the_object_its_views_and_its_base_see_the_new_values():
    base = np.zeros((4, 6), np.float32)
    weight = base[1:, ::2]
    row, params = weight[0], {"w": weight}
    opt = lrcore.SGD(params, lr=1.0)
    opt.step({"w": np.ones((3, 3), np.float32)})
    assert params["w"] is weight
    assert opt.params is params
    assert (weight == -1.0).all()
    assert (row == -1.0).all()
    assert base.sum() == -9.0


def test_gradients_are_not_written():
    for case in CASES:
        grad = np.linspace(-1.0, 1.0, 1000)
        case.make([np.ones(1000)]).step([grad])
        assert (grad == np.linspace(-1.0, 1.0, 1000)).all(), case


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", ONE_A_RULE, ids=lambda case: case.rule)
def test_0d_arrays_are_updated_like_1d_arrays(case, dtype):
    one, none = np.array([0.5], dtype), np.array(0.5, dtype)
    first, second = case.make([one]), case.make([none])
    for value in (0.25, -3.0):
        first.step([np.array([value], dtype)])
        second.step([np.array(value, dtype)])
    assert none.shape == ()
    assert same(one[0], none)
    assert all(array.shape == () for array in second.state.get("0", {}).values())


@pytest.mark.parametrize("grad", [np.float32(1.0), np.array(1.0, np.float32), np.ones(1, np.float32)[0], 1.0], ids=repr)
def test_a_0d_weight_accepts_a_scalar_gradient(grad):
    weight = np.array(0.0, np.float32)
    lrcore.SGD({"bias": weight}, lr=1.0).step({"bias": grad})
    assert weight == -1.0


SHAPES = [(0,), (0, 3), (3, 0), (2, 0, 4), (1,), (1, 1), (5, 1, 3), (1,) * 32, (2,) * 10, (2, 1) * 8]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_arrays_of_any_shape_are_updated(shape):
    weight, beside = np.zeros(shape), np.zeros(40)
    opt = lrcore.Adam({"w": weight, "beside": beside}, lr=1.0)
    for _ in range(2):
        assert opt.step({"w": np.ones(shape), "beside": np.ones(40)}).applied
    assert opt.state["w"]["exp_avg"].shape == shape
    assert (weight == beside[0]).all()


def test_an_empty_strided_slice_is_accepted():
    buffer = np.zeros((4, 4))
    lrcore.Adam([buffer[2:2, ::-2], buffer[::-1, 3:3]]).step([np.zeros((0, 2)), np.zeros((4, 0))])
    assert not buffer.any()


class Plain(np.ndarray):
    """A subclass without overrides."""


class Refusing(np.ndarray):
    """A subclass that refuses NumPy's functions."""

    def __array_function__(self, function, types, args, kwargs):
        raise NotImplementedError(function.__name__)


@pytest.mark.parametrize("kind", [Plain, Refusing, np.matrix, np.recarray], ids=lambda kind: kind.__name__)
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_subclasses_are_updated_in_place(kind):
    weight = np.zeros((2, 3)).view(kind)
    opt = lrcore.Adam([weight], lr=1.0)
    opt.step([np.ones((2, 3)).view(kind)])
    expected = np.zeros((2, 3))
    lrcore.Adam([expected], lr=1.0).step([np.ones((2, 3))])
    assert type(weight) is kind
    assert same(np.asarray(weight), expected)
    assert all(type(array) is np.ndarray for array in opt.state["0"].values())


def test_a_memory_mapped_file_is_updated(tmp_path):
    path = tmp_path / "weights"
    weight = np.memmap(path, np.float32, "w+", offset=6, shape=(3, 2))
    lrcore.SGD(weight, lr=1.0).step(np.ones((3, 2), np.float32))
    weight.flush()
    assert (np.fromfile(path, np.float32, offset=6) == -1.0).all()
    with pytest.raises(ValueError, match=r"^params is read-only$"):
        lrcore.SGD(np.memmap(path, np.float32, "r", offset=6))


REFUSED = ["float16", "longdouble", "int32", "bool", "complex64", "object", "datetime64[s]", "S4", "U2", "f4,f4"]


@pytest.mark.parametrize("dtype", [*REFUSED, np.dtype("f4").newbyteorder(), np.dtype("f8").newbyteorder()], ids=str)
def test_another_dtype_or_byte_order_is_refused_and_named(dtype):
    message = r'"w"\] has .*; allowed are float32 and float64 in native byte order$'
    with pytest.raises(TypeError, match=message) as caught:
        lrcore.SGD({"w": np.zeros(3, dtype)})
    assert repr(np.dtype(dtype)) in str(caught.value)
    weight = np.zeros(3, np.float32)
    with pytest.raises(TypeError, match=r'^grads\["w"\] has dtype .*, params\["w"\] has float32$'):
        lrcore.SGD({"w": weight}).step({"w": np.zeros(3, dtype)})
    assert not weight.any()


def test_metadata_of_a_dtype_is_ignored():
    weight = np.zeros(3, np.dtype(np.float32, metadata={"unit": "m"}))
    lrcore.SGD([weight], lr=1.0).step([np.ones(3, np.float32)])
    assert (weight == -1.0).all()


@pytest.mark.parametrize("strides", [(0,), (4,), (0, 8), (8, 8), (16, 12)], ids=str)
def test_a_weight_that_overlaps_itself_is_refused(strides):
    weight = as_strided(np.zeros(100), (3,) * len(strides), strides)
    with pytest.raises(ValueError, match=r"^params\[0\] has elements that share memory with each other"):
        lrcore.SGD([weight])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_state_arrays_start_on_different_cache_lines(order, dtype):
    weight = np.zeros((300, 400), dtype, order=order)
    opt = lrcore.Adam({"w": weight}, amsgrad=True)
    opt.step({"w": np.ones_like(weight)})
    loaded = lrcore.Adam({"w": weight.copy(order="K")}, amsgrad=True)
    loaded.load_state_dict(opt.state_dict())
    for state in (opt.state["w"], loaded.state["w"]):
        addresses = [array.ctypes.data for array in state.values()]
        assert all(address % 64 == 0 for address in addresses)
        assert len({address % 4096 for address in addresses}) == len(addresses)
        for array in state.values():
            assert array.strides == weight.strides
            assert array.flags.writeable
