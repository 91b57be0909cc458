"""A step gives the same bits in any floating-point mode of its thread, and does not change that mode."""

import contextlib
import ctypes
import platform
import sys

import numpy as np
import pytest

import lrcore
from support.cases import same

# The offset of the control register in C's fenv_t, and the bits that flush subnormal results and operands.
REGISTERS = {"x86_64": (28, 1 << 15 | 1 << 6), "aarch64": (0, 1 << 24)}
OFFSET, FLUSHES = REGISTERS.get(platform.machine(), (0, 0))

pytestmark = pytest.mark.skipif(
    not FLUSHES or not sys.platform.startswith("linux"), reason="knows the environment of Linux on x86-64 and aarch64"
)


def control_register(set_bits=0, clear_bits=0):
    """Sets and clears bits of the calling thread's control register; returns its previous value."""
    libm, environment = ctypes.CDLL("libm.so.6"), (ctypes.c_uint8 * 64)()
    assert libm.fegetenv(environment) == 0
    register = ctypes.c_uint32.from_buffer(environment, OFFSET)
    before = register.value
    register.value = before & ~clear_bits | set_bits
    assert libm.fesetenv(environment) == 0
    return before


@contextlib.contextmanager
def flushing():
    control_register(set_bits=FLUSHES)
    try:
        yield
    finally:
        control_register(clear_bits=FLUSHES)


@contextlib.contextmanager
def rounding_up():
    libm = ctypes.CDLL("libm.so.6")
    upward = {"x86_64": 0x800, "aarch64": 0x400000}[platform.machine()]
    before = libm.fegetround()
    assert libm.fesetround(upward) == 0
    try:
        yield
    finally:
        assert libm.fesetround(before) == 0


@contextlib.contextmanager
def flushing_by_torch():
    torch = pytest.importorskip("torch")
    if not torch.set_flush_denormal(True):
        pytest.skip("this machine can't")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


MODES = pytest.mark.parametrize("mode", [flushing, rounding_up, flushing_by_torch], ids=lambda mode: mode.__name__)
# A small and a medium step, which keep the GIL, and a large one on several threads.
SIZES = pytest.mark.parametrize("size", [40, 20_000, 1 << 20])


def arrays(size, dtype):
    """A weight and a gradient so small that some inputs and results are subnormal."""
    rng = np.random.default_rng(3)
    return (rng.standard_normal((2, size)) * float(np.finfo(dtype).tiny) * 4).astype(dtype)


def train(weight, grad, **options):
    """Weights and states after some steps, and the gradient norms."""
    opt = lrcore.SGD({"w": weight.copy(), "small": weight[:7].copy()}, lr=0.5, momentum=0.75, **options)
    infos = [opt.step({"w": grad, "small": grad[:7]}) for _ in range(3)]
    opt.accumulate({"w": grad, "small": grad[7:14]})
    infos.append(opt.step())
    states = [array for state in opt.state.values() for array in state.values() if isinstance(array, np.ndarray)]
    return [*opt.params.values(), *states], [info.grad_norm for info in infos]


@MODES
@SIZES
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("options", [{}, {"clip_norm": 1e-30, "stats": True}], ids=["plain", "clipped"])
def test_the_floating_point_mode_of_the_thread_changes_no_bit(mode, size, dtype, options):
    given = arrays(size, dtype)
    expected, norms = train(*given, **options)
    # Threads started by a step inherit the mode of the calling thread.
    for threads in (1, 3, 13):
        lrcore.set_num_threads(threads)
        with mode():
            found, found_norms = train(*given, **options)
        assert all(same(*pair) for pair in zip(found, expected, strict=True))
        assert found_norms == norms


@MODES
def test_a_step_restores_the_floating_point_mode(mode):
    weights, grads = [np.ones(1 << 20, np.float32)], [np.ones(1 << 20, np.float32)]
    opt = lrcore.Adam(weights)
    with mode():
        before = control_register()
        opt.step(grads)
        with pytest.raises(ValueError, match="shape"):
            opt.step([np.ones(3, np.float32)])
        opt.accumulate(grads)
        after = control_register()
    # Except for the exception flags, which are not part of the mode.
    flags = 0x3F if platform.machine() == "x86_64" else 0
    assert before & ~flags == after & ~flags
