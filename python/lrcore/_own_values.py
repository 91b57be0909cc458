"""A user's own values in a checkpoint: as JSON has them, and back.

What JSON can't tell apart is wrapped: ``{"tuple": [...]}``, ``{"array": name}``, ``{"bytes": name}``,
``{"dict": [[key, value], ...]}``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from lrcore import _safetensors


def plain(value: Any, name: str, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    """Return a value as JSON has it; arrays are put aside under their names.

    Raises:
        TypeError: If it, or a part of it, can't be saved.
    """
    if isinstance(value, np.generic):
        value = value.item() if _safetensors.dtype_name(value.dtype) else value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return {"bytes": _put_aside(np.frombuffer(value, np.uint8), name, arrays)}
    if isinstance(value, getattr(sys.modules.get("torch"), "Tensor", ())):
        value = _numbers_of_tensor(value, name)
    if isinstance(value, np.ndarray):
        if _safetensors.dtype_name(value.dtype) is None:
            raise TypeError(f"{name} has dtype {value.dtype}, which can't be saved")
        return {"array": _put_aside(value, name, arrays)}
    if isinstance(value, list | tuple):
        parts = [plain(part, f"{name}/{i}", arrays) for i, part in enumerate(value)]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    if isinstance(value, Mapping) and all(isinstance(key, str | int) for key in value):
        return {"dict": [[key, plain(part, f"{name}/{key}", arrays)] for key, part in value.items()]}
    raise TypeError(
        f"{name} can't be saved: allowed are numbers, strings, bytes, None, NumPy arrays, tensors, and lists, tuples "
        f"and dicts of these, whose keys are strings or integers, got {type(value).__name__}"
    )


def _numbers_of_tensor(tensor: Any, name: str) -> Any:
    try:
        return tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:  # of another device, or of a dtype that NumPy does not have
        raise TypeError(f"{name} can't be saved: {error}") from error


def _put_aside(array: np.ndarray[Any, Any], name: str, arrays: dict[str, np.ndarray[Any, Any]]) -> str:
    while name in arrays:  # {"a/b": ...} and {"a": {"b": ...}}
        name += "'"
    arrays[name] = array
    return name


def rich(value: Any, file: _safetensors.File) -> Any:
    """Return a value as it was, with its arrays read from the file."""
    match value:
        case list():
            return [rich(part, file) for part in value]
        case {"array": str(name)}:
            return file.array(name)
        case {"bytes": str(name)}:
            return file.array(name).tobytes()
        case {"tuple": [*parts]}:
            return tuple(rich(part, file) for part in parts)
        case {"dict": [*pairs]}:
            return dict(_rich_pair(pair, file) for pair in pairs)
        case dict():
            raise file.damaged(f"its description has a value of the unknown kind {list(value)}")
    return value


def _rich_pair(pair: Any, file: _safetensors.File) -> tuple[str | int, Any]:
    match pair:
        case [str(key) | int(key), value]:
            return key, rich(value, file)
    raise file.damaged("its description has a dict that is not made of keys and values")
