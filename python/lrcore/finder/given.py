"""What a training gives to a range test, checked."""

from __future__ import annotations

from typing import Any

from lrcore import _ranges
from lrcore._messages import brief, described


def as_number(name: str, value: Any) -> float:
    """Return a real scalar, or the one element of an array or a tensor, as a float.

    Raises:
        TypeError: If it is none.
    """
    # A loss may have a dimension of 1, which is no scalar elsewhere.
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape and all(size == 1 for size in shape):
        value = value.reshape(())
    number = _ranges.as_number(value)
    if number is None:
        raise TypeError(f"{name} must be a number, got {described(value)}")
    return float(number)


def check_callable(name: str, value: Any, *, optional: bool = False) -> None:
    """Raise a TypeError unless the value can be called."""
    if not callable(value) and not (optional and value is None):
        raise TypeError(f"{name} must be a function{' or None' if optional else ''}, got {brief(value)}")


def check_start(start: Any) -> None:
    """Raise a TypeError if the inputs and the targets of a batch were given as ``batches`` and ``start``."""
    if getattr(start, "shape", ()) or isinstance(start, list | tuple):
        raise TypeError(
            f"start must be a number, the first learning rate, got {described(start)}; the batches are one argument: "
            "[(inputs, targets)]"
        )
