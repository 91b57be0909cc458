"""Where state arrays lie in memory."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    _Array = np.ndarray[Any, Any]

PAGE = 4096
_LINE = 64
LARGE = 16 << 10  # bytes; a smaller array is not worth it
# NumPy's large arrays all begin 16 bytes into a page. A loop over several of them then loads and stores at equal
# offsets of pages, which processors take for the same place until they have looked closer, and each vector lies on two
# lines of the cache. State arrays that begin on lines, each elsewhere in its page, save a tenth of a step in cache, and
# more in memory.
_OFFSETS = count(1)
_STRIDE = 21 * _LINE


def next_offset(address: int) -> int:
    """Return where to begin in memory at an address, which has a page more than it needs, in bytes."""
    return (next(_OFFSETS) * _STRIDE - address) % PAGE


def empty_like(weight: _Array) -> _Array:
    """Return an array of the dtype, shape and memory order of a weight; its numbers are whatever was there."""
    weight = np.asarray(weight)
    if weight.nbytes < LARGE or not weight.flags.forc:
        return np.empty_like(weight)
    memory = np.empty(weight.nbytes + PAGE, np.uint8)
    start = next_offset(memory.ctypes.data)
    return np.ndarray(weight.shape, weight.dtype, memory, start, order="C" if weight.flags.c_contiguous else "F")


def make_state(weight: _Array, initial: float) -> _Array:
    """Return a new state array, in the memory order of its weight."""
    array = empty_like(weight)
    array.fill(initial)
    return array
