"""Averages of the weights over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lrcore._ranges import FRACTION, check_count
from lrcore._restoring import put_back
from lrcore.optim.hyperparameter import FLAG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    _Array = np.ndarray[Any, Any]


class _EMA(NamedTuple):
    decay: float
    warmup: bool


class EMA(_EMA):
    """An exponential moving average of the weights.

    After each step, with the weight ``θ`` and the number ``n`` of weights that its average ``a`` has seen::

        d ← decay                                  (min(decay, (1 + n) / (10 + n)) if warmup)
        a ← a + (1 − d) (θ − a)                    (a ← θ if n is 0)

    Args:
        decay: The share of the average that is kept, in [0, 1).
        warmup: Keep less at first, so that the start is forgotten sooner.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If the decay is out of range.

    Examples:
        >>> import lrcore, numpy as np
        >>> opt = lrcore.SGD({"w": np.zeros(2)}, lr=1.0, average=lrcore.EMA(0.5))
        >>> for _ in range(3):
        ...     info = opt.step({"w": np.array([-1.0, 1.0])})
        >>> opt.params["w"], opt.average["w"]
        (array([ 3., -3.]), array([ 2.25, -2.25]))

    References:
        Polyak & Juditsky, *Acceleration of Stochastic Approximation by Averaging* (1992).

    Note:
        PyTorch's ``AveragedModel`` with ``get_ema_multi_avg_fn(decay)`` has the same numbers where every parameter has
        a gradient at every step. Here a parameter without one keeps its average as well.

        The running statistics of a batch normalisation belong to the weights, not to the averages; ``averaged`` of the
        optimizer says how to recompute them.
    """

    __slots__ = ()

    def __new__(cls, decay: float = 0.999, warmup: bool = False) -> Self:  # noqa: FBT001, FBT002
        """Check the values."""
        return super().__new__(cls, FRACTION.check("EMA: decay", decay), FLAG.check("EMA: warmup", warmup))

    def for_stepper(self) -> tuple[str, float, bool]:
        """Return the arguments of the stepper."""
        return "ema", self.decay, self.warmup


class _SWA(NamedTuple):
    start: int
    every: int


class SWA(_SWA):
    """The plain mean of the weights after certain steps.

    The weights count after step ``start``, where the first step is 1, and after every ``every``-th step from there::

        a ← a + (θ − a) / (n + 1)                  (n weights seen before)

    Steps between cost nothing.

    Args:
        start: The first step that counts, at least 1.
        every: The number of steps from one that counts to the next, at least 1.

    Raises:
        TypeError: If an argument is not whole.
        ValueError: If one is out of range.

    Examples:
        >>> import lrcore, numpy as np
        >>> opt = lrcore.SGD({"w": np.zeros(1)}, lr=1.0, average=lrcore.SWA(start=2, every=2))
        >>> for _ in range(5):
        ...     info = opt.step({"w": np.array([-1.0])})
        >>> opt.average["w"]  # of 2 and 4
        array([3.])

    References:
        Izmailov et al., *Averaging Weights Leads to Wider Optima and Better Generalization* (2018).

    Note:
        PyTorch's ``AveragedModel`` without arguments, updated at those steps, has the same numbers.

        The running statistics of a batch normalisation belong to the weights, not to the averages; ``averaged`` of the
        optimizer says how to recompute them.
    """

    __slots__ = ()

    def __new__(cls, start: int = 1, every: int = 1) -> Self:
        """Check the values."""
        counts = (
            check_count(f"SWA: {key}", n, least=1, most=2**63 - 1) for key, n in (("start", start), ("every", every))
        )
        return super().__new__(cls, *counts)

    def for_stepper(self) -> tuple[str, int, int]:
        """Return the arguments of the stepper."""
        return "swa", self.start, self.every


Average = EMA | SWA

# The error of everything that saves or changes weights or state within the block of averaged().
AVERAGES_NOW = "the weights are averages now; leave the with block of averaged() first"


def require(average: Average | None, optimizer: object) -> None:
    """Raise ValueError if an optimizer was made without an average."""
    if average is None:
        raise ValueError(f"{type(optimizer).__name__} was made without an average; give average=EMA(…) or SWA(…)")


def rebuilt(params: Any, pairs: Sequence[tuple[_Array, _Array]]) -> Any:
    """Return a structure of arrays in which each is replaced by a copy of another array.

    Args:
        params: An array, or a sequence or mapping of arrays, these nested; or groups.
        pairs: Each array of the structure and its replacement. Arrays are identified by their memory, since a container
            may create them at each access.
    """
    replacements = {_memory(array): other for array, other in pairs}

    def rebuild(part: Any) -> Any:
        if isinstance(part, np.ndarray):
            return _copied(replacements.get(_memory(part), part))
        if isinstance(part, Mapping):
            return {key: rebuild(value) for key, value in part.items()}
        if isinstance(part, tuple) and hasattr(part, "_fields"):
            return type(part)(*map(rebuild, part))
        if isinstance(part, Sequence) and not isinstance(part, str | bytes):
            return tuple(map(rebuild, part)) if isinstance(part, tuple) else list(map(rebuild, part))
        return part  # a hyperparameter of a group

    return rebuild(params)


def _memory(array: _Array) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    return array.__array_interface__["data"][0], array.shape, array.strides


def _copied(array: _Array) -> _Array:
    return array.copy(order="K")


def _fill(array: _Array, values: _Array) -> None:
    array[...] = values


def _is_writeable(array: _Array) -> bool:
    return array.flags.writeable


@contextmanager
def swapped(
    named: Sequence[tuple[str, Any, Any]],
    copied: Callable[[Any], Any] = _copied,
    fill: Callable[[Any, Any], None] = _fill,
    is_writeable: Callable[[Any], bool] = _is_writeable,
    also: Sequence[Callable[[], object]] = (),
) -> Iterator[None]:
    """Replace weights by their averages within a ``with`` block, and restore every weight at its end.

    Args:
        named: The name, the weight and the average of each parameter.
        copied: Copies a weight.
        fill: Writes values into a weight.
        is_writeable: Returns whether a weight can be written to.
        also: Further functions to call at the end, which restore arrays that are not parameters.

    Raises:
        ValueError: If a weight is read-only or has another shape than its average. Nothing is written then.
        RuntimeError: If a weight could not be restored; all others were.
    """
    for name, weight, average in named:
        if not is_writeable(weight):
            raise ValueError(f"the weight {name!r} is read-only, so its average can't be put in its place")
        if weight.shape != average.shape:
            raise ValueError(f"the weight {name!r} has shape {_shape(weight)}, its average has {_shape(average)}")
    restores: list[Callable[[], object]] = [
        partial(_restore, name, weight, copied(weight), fill) for name, weight, _ in named
    ]
    restores += also
    try:
        for _, weight, average in named:
            fill(weight, average)
        yield
    finally:
        # If Ctrl-C interrupts the first call, the second completes it; otherwise the list is empty by then.
        try:
            put_back(restores)
        finally:
            put_back(restores)


def _restore(name: str, weight: Any, own: Any, fill: Callable[[Any, Any], None]) -> None:
    # NumPy would broadcast between different shapes.
    if weight.shape != own.shape:
        raise RuntimeError(
            f"the weight {name!r} could not be put back and holds its average: its shape was {_shape(own)}, "
            f"and is {_shape(weight)} now"
        )
    try:
        fill(weight, own)
    except Exception as error:
        raise RuntimeError(f"the weight {name!r} could not be put back and holds its average: {error}") from error


def buffers_kept(buffers: Any) -> list[Callable[[], object]]:
    """Return functions that restore arrays to their present values.

    Args:
        buffers: An array, a sequence or mapping of arrays, these nested, or None.

    Raises:
        TypeError: If something in it is not an array.
        ValueError: If an array is read-only.
    """
    return [] if buffers is None else [partial(_refill, *one) for one in _copies(buffers, "buffers")]


def _copies(buffers: Any, place: str) -> Iterator[tuple[str, _Array, _Array]]:
    """Yield the place of each array in a structure, the array and a copy of it."""
    if isinstance(buffers, np.ndarray):
        if not buffers.flags.writeable:
            raise ValueError(f"{place} is read-only, so it can't be put back")
        yield place, buffers, _copied(buffers)
    elif isinstance(buffers, Mapping):
        for key, value in buffers.items():
            yield from _copies(value, f"{place}[{key!r}]")
    elif isinstance(buffers, Sequence) and not isinstance(buffers, str | bytes):
        for i, value in enumerate(buffers):
            yield from _copies(value, f"{place}[{i}]")
    else:
        raise TypeError(f"{place} must be an array, or a sequence or mapping of arrays, got {type(buffers).__name__}")


def _refill(place: str, array: _Array, values: _Array) -> None:
    if array.shape != values.shape:
        raise RuntimeError(f"{place} could not be put back: its shape was {values.shape}, and is {array.shape} now")
    array[...] = values


def _shape(array: Any) -> tuple[int, ...]:
    return tuple(array.shape)
