"""The values that a user saves in a checkpoint, as JSON and arrays.

Types that JSON lacks are wrapped: ``{"tuple": [...]}``, ``{"array": name}``, ``{"bytes": name}``,
``{"dict": [[key, value], ...]}``. So are large values, since the size of the header is limited: a long list of numbers
is ``{"numbers": name}``, a long string ``{"text": name}``, a long integer in hexadecimal ``{"integer": digits}``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lrcore.checkpoint import safetensors

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Arrays = dict[str, np.ndarray[Any, Any]]

# Python's JSON parser recurses on the stack that is left where a checkpoint is loaded.
MOST_NESTED = 100
_LONG_LIST = 64
_LONG_TEXT = 1024
_LONG_INTEGER = 1024  # bits; Python refuses to read, or to write, more than some thousand decimal digits
_EXACT = 2**53  # integers up to here are floats too


def plain(value: Any, name: str, arrays: Arrays, nested: int = 0) -> Any:
    """Return a value as plain JSON, and add its arrays to a mapping.

    Raises:
        TypeError: If the value, or a part of it, can't be saved.
        ValueError: If it is nested too deep, such as a value that contains itself.
    """
    if nested > MOST_NESTED:
        raise ValueError(f"{name[:200]}… can't be saved: it is nested deeper than {MOST_NESTED} levels")
    if isinstance(value, np.generic):
        value = _number(value)
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= _LONG_INTEGER else {"integer": f"{value:x}"}
    if isinstance(value, str):
        return value if len(value) <= _LONG_TEXT else {"text": _put_aside(_bytes_of_text(value), name, arrays)}
    if isinstance(value, bytes):
        return {"bytes": _put_aside(np.frombuffer(value, np.uint8), name, arrays)}
    if isinstance(value, getattr(sys.modules.get("torch"), "Tensor", ())):
        value = _numbers_of_tensor(value, name)
    if isinstance(value, np.ndarray):
        if safetensors.dtype_name(value.dtype) is None:
            raise TypeError(f"{name} has dtype {value.dtype}, which can't be saved")
        return {"array": _put_aside(value, name, arrays)}
    if isinstance(value, list | tuple):
        parts = shortened(value, name, arrays)
        if isinstance(parts, list):
            parts = [plain(part, f"{name}/{i}", arrays, nested + 1) for i, part in enumerate(value)]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    if isinstance(value, Mapping) and all(isinstance(key, str | int) for key in value):
        pairs = []
        for i, (given, part) in enumerate(value.items()):
            key = plain(given, f"{name}/key {i}", arrays)
            place = f"{name}/value {i}" if isinstance(key, dict) else f"{name}/{key}"  # of a very long key
            pairs.append([key, plain(part, place, arrays, nested + 1)])
        return {"dict": pairs}
    raise TypeError(
        f"{name} can't be saved: allowed are numbers, strings, bytes, None, NumPy arrays, tensors, and lists, tuples "
        f"and dicts of these, whose keys are strings or integers, got {type(value).__name__}"
    )


def shortened(values: Sequence[Any], name: str, arrays: Arrays) -> Any:
    """Return a long list of numbers as ``{"numbers": name}`` with an array, and any other list unchanged.

    A second array marks the integers in a list of integers and floats, such as a history of losses that begins with 0.
    """
    if len(values) < _LONG_LIST:
        return list(values)
    numbers = [_number(value) if isinstance(value, np.generic) else value for value in values]
    kinds = set(map(type, numbers))
    if kinds == {float} or kinds == {bool}:
        return {"numbers": _put_aside(np.array(numbers), name, arrays)}
    if kinds == {int} and min(numbers) >= -(2**63) and max(numbers) < 2**63:
        return {"numbers": _put_aside(np.array(numbers, np.int64), name, arrays)}
    if kinds == {int, float} and all(type(number) is float or -_EXACT <= number <= _EXACT for number in numbers):
        integers = np.array([type(number) is int for number in numbers])
        mixed = _put_aside(np.array(numbers, np.float64), name, arrays)
        return {"numbers": mixed, "integers": _put_aside(integers, f"{name}/integers", arrays)}
    return list(values)


def compact(value: Any, name: str, arrays: Arrays, nested: int = 0) -> Any:
    """Return a plain JSON value with its long lists of numbers replaced by arrays.

    Raises:
        ValueError: If it is nested too deep.
    """
    if nested > 4 * MOST_NESTED:
        raise ValueError(f"{name[:200]}… can't be saved: it is nested deeper than {4 * MOST_NESTED} levels")
    if isinstance(value, dict):
        return {key: compact(part, f"{name}/{key}", arrays, nested + 1) for key, part in value.items()}
    if isinstance(value, list):
        parts = shortened(value, name, arrays)
        if isinstance(parts, list):
            return [compact(part, f"{name}/{i}", arrays, nested + 1) for i, part in enumerate(parts)]
        return parts
    return value


def _number(value: np.generic) -> Any:
    return value.item() if safetensors.dtype_name(value.dtype) else value


def _bytes_of_text(text: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(text.encode(errors="surrogatepass"), np.uint8)


def _numbers_of_tensor(tensor: Any, name: str) -> Any:
    try:
        return tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:  # of another device, or of a dtype that NumPy does not have
        raise TypeError(f"{name} can't be saved: {error}") from error


def _put_aside(array: np.ndarray[Any, Any], name: str, arrays: Arrays) -> str:
    while name in arrays:  # {"a/b": ...} and {"a": {"b": ...}}
        name += "'"
    arrays[name] = array
    return name


class Reader:
    """The inverse of :func:`plain`. Each array belongs to one value, and is read once."""

    def __init__(self, file: safetensors.File) -> None:
        self._file = file
        self._used: set[str] = set()

    def rich(self, value: Any) -> Any:
        """Return the value that :func:`plain` encoded, with its arrays read from the file."""
        match value:
            case list():
                return [self.rich(part) for part in value]
            case {"array": str(name)}:
                return self._array(name)
            case {"bytes": str(name)}:
                return self._array(name).tobytes()
            case {"text": str(name)}:
                return self._array(name).tobytes().decode(errors="surrogatepass")
            case {"integer": str(digits)}:
                return int(digits, 16)
            case {"numbers": str(name)}:
                return self._listed(name, value.get("integers"))
            case {"tuple": parts}:
                return tuple(self._rich_parts(parts))
            case {"dict": [*pairs]}:
                return dict(self._rich_pair(pair) for pair in pairs)
            case dict():
                raise self._file.damaged(f"its description has a value of the unknown kind {list(value)}")
        return value

    def expanded(self, value: Any) -> Any:
        """Return the value that :func:`compact` was given."""
        match value:
            case {"numbers": str(name)}:
                return self._listed(name, value.get("integers"))
            case dict():
                return {key: self.expanded(part) for key, part in value.items()}
            case list():
                return [self.expanded(part) for part in value]
        return value

    def _array(self, name: str) -> np.ndarray[Any, Any]:
        # A file that named one array a million times would fill the memory.
        if name in self._used:
            raise self._file.damaged(f"its description has the array {name!r} twice")
        self._used.add(name)
        return self._file.array(name)

    def _listed(self, name: str, integers: Any) -> list[Any]:
        numbers = self._array(name).reshape(-1)
        if integers is None:
            listed: list[Any] = numbers.tolist()
            return listed
        pairs = zip(numbers.tolist(), self._array(integers).reshape(-1).tolist(), strict=True)
        return [int(number) if is_integer else number for number, is_integer in pairs]

    def _rich_parts(self, parts: Any) -> Iterable[Any]:
        values = self.rich(parts)
        if not isinstance(values, list):
            raise self._file.damaged("its description has a tuple that is not made of a list")
        return values

    def _rich_pair(self, pair: Any) -> tuple[str | int, Any]:
        match pair:
            case [key, value]:
                key = self.rich(key)
                if isinstance(key, str | int):
                    return key, self.rich(value)
        raise self._file.damaged("its description has a dict that is not made of keys and values")
