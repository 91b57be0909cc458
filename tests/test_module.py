"""What the extension module declares to the interpreter."""

import ctypes
import sys
from pathlib import Path

from lrcore import _lrcore

SOURCES = Path(__file__).parent.parent / "src"
# From CPython's headers, 3.13 and later.
PY_MOD_GIL, PY_MOD_GIL_USED = 4, 0


class _Slot(ctypes.Structure):
    _fields_ = (("slot", ctypes.c_int), ("value", ctypes.c_void_p))


class _Definition(ctypes.Structure):
    _fields_ = (
        ("base", ctypes.c_byte * (object.__basicsize__ + 3 * ctypes.sizeof(ctypes.c_void_p))),
        ("name", ctypes.c_char_p),
        ("doc", ctypes.c_char_p),
        ("size", ctypes.c_ssize_t),
        ("methods", ctypes.c_void_p),
        ("slots", ctypes.POINTER(_Slot)),
    )


def slots():
    """The slots of the module's definition, by number."""
    make = ctypes.PyDLL(_lrcore.__file__).PyInit__lrcore
    make.restype = ctypes.POINTER(_Definition)
    found, slots = {}, make().contents.slots
    while slots[len(found)].slot:
        found[slots[len(found)].slot] = slots[len(found)].value or 0
    return found


def test_the_module_needs_the_gil():
    """A free-threaded interpreter also enables the GIL if the slot is missing, as in builds for older versions."""
    assert slots().get(PY_MOD_GIL, PY_MOD_GIL_USED) == PY_MOD_GIL_USED
    assert not hasattr(sys, "_is_gil_enabled") or sys._is_gil_enabled()


def test_a_build_for_newer_interpreters_declares_that_it_needs_the_gil():
    assert "#[pyo3::pymodule(gil_used = true)]" in (SOURCES / "lib.rs").read_text(encoding="utf-8")
