"""The safetensors format: arrays by name, with text beside them, in one file.

Eight bytes hold the length of a JSON header, which says where in the rest of the file each array lies, in C order and
little-endian; ``__metadata__`` in it holds text by name. A checksum of everything else is part of that text, where the
official package finds just another name.

https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    Array = np.ndarray[Any, Any]

_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4", "I32": "<i4",
    "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}
_CHECKSUM = "sha256"
_PIECE = 1 << 22  # bytes that are read or gathered at once
_LARGEST_HEADER = 100_000_000  # as the official package has it


class DamagedError(ValueError):
    """A file that is no safetensors file, or not the one that was written."""


class Contents(NamedTuple):
    """What a file holds. The arrays are views of the file, read when they are used."""

    arrays: dict[str, Array]
    metadata: dict[str, str]


def dtype_name(dtype: np.dtype[Any]) -> str | None:
    """Return the format's name of a dtype, or None if it has none."""
    return _NAMES.get(dtype.newbyteorder("<"))


def write(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write a file, whole or not at all: beside the path first, flushed to the disk, then in its place.

    Raises:
        TypeError: If the format has no name for a dtype.
        OSError: If it can't be written. What was there is there still.
    """
    header = _header(arrays, metadata)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            digest = hashlib.sha256()
            _put(file, digest, len(header).to_bytes(8, "little"))
            _put(file, digest, header)
            for array in arrays.values():
                for piece in _pieces(array):
                    _put(file, digest, piece)
            # The checksum is that of the file with zeros in its place.
            at = 8 + header.index(b"0" * 64)
            file.seek(at)
            file.write(digest.hexdigest().encode())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def read(path: Path) -> Contents:
    """Read what a file holds, without its arrays' numbers, and check that it is what was written.

    A file without a checksum, as other programs write them, is read without that check.

    Raises:
        DamagedError: If it is not.
        OSError: If it can't be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise DamagedError(f"{path} is damaged: {size} bytes are no safetensors file")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    length = int.from_bytes(mapped[:8], "little")
    if length > min(_LARGEST_HEADER, size - 8):
        raise DamagedError(f"{path} is damaged: its header of {length} bytes is longer than the file")
    try:
        header = json.loads(mapped[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        arrays = {name: _view(mapped, 8 + length, entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path} is damaged: its header can't be read ({error})") from error
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size != 8 + length + end:
        raise DamagedError(f"{path} is damaged: {size} bytes in place of {8 + length + end}")
    if _CHECKSUM in metadata and metadata[_CHECKSUM] != _checksum(mapped, metadata[_CHECKSUM], 8 + length):
        raise DamagedError(f"{path} is damaged: its checksum is another")
    return Contents(arrays, metadata)


def _header(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {_CHECKSUM: "0" * 64, **metadata}}
    end = 0
    for name, array in arrays.items():
        dtype = dtype_name(array.dtype)
        if dtype is None:
            raise TypeError(f"{name} has dtype {array.dtype}, which a safetensors file can't hold")
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header, ensure_ascii=True, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _put(file: IO[bytes], digest: Any, piece: bytes | memoryview) -> None:
    digest.update(piece)
    file.write(piece)


def _pieces(array: Array) -> Iterator[memoryview]:
    """Yield the bytes of an array in C order; without a copy of more than a piece."""
    little = array.dtype.newbyteorder("<")
    if array.flags.c_contiguous and array.dtype == little:
        if array.size:
            yield _bytes(array)
        return
    flags = ["external_loop", "buffered", "zerosize_ok"]
    gathered = np.nditer(array, flags, [["readonly"]], [little], order="C", buffersize=_PIECE // array.itemsize)  # type: ignore[call-overload]
    for piece in gathered:
        if piece.size:
            yield _bytes(np.ascontiguousarray(piece))


def _bytes(array: Array) -> memoryview:
    return np.asarray(array).reshape(-1).view(np.uint8).data


def _view(mapped: mmap.mmap, start: int, entry: Mapping[str, Any]) -> Array:
    dtype, shape, (begin, end) = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"]), entry["data_offsets"]
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end)):
        raise ValueError(f"shape {shape} at {begin} to {end}")
    view = np.ndarray(shape, dtype, mapped, start + begin)
    if view.nbytes != end - begin:
        raise ValueError(f"{end - begin} bytes for {view.nbytes}")
    return view


def _checksum(mapped: mmap.mmap, checksum: str, end_of_header: int) -> str:
    at = mapped.find(checksum.encode(), 0, end_of_header)
    digest = hashlib.sha256(mapped[:at])
    digest.update(b"0" * len(checksum))
    with memoryview(mapped) as view:
        for start in range(at + len(checksum), len(view), _PIECE):
            with view[start : start + _PIECE] as piece:
                digest.update(piece)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Flush the new name to the disk, where the system can do that for a folder."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
