"""What a training gives to a range test, checked."""

from __future__ import annotations

from typing import Any


def as_number(name: str, value: Any) -> float:
    """Return a number of Python, or one that is all that an array or a tensor has.

    Raises:
        TypeError: If it is none.
    """
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a number, got {described(value)}") from None


def check_callable(name: str, value: Any, *, optional: bool = False) -> None:
    """Raise a TypeError unless the value can be called."""
    if not callable(value) and not (optional and value is None):
        raise TypeError(f"{name} must be a function{' or None' if optional else ''}, got {value!r}")


def described(value: Any) -> str:
    """Return what a message says in the place of a value that may be long: its type, and the shape of an array."""
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__}{'' if shape is None else f' of shape {tuple(shape)}'}"
