"""The safetensors format: arrays by name, with text beside them, in one file.

Eight bytes hold the length of a JSON header, which says where in the rest of the file each array lies, in C order and
little-endian; ``__metadata__`` in it holds text by name. There lie the text that is written with the arrays, and a
checksum of both. It is one of what the file holds, not of how it is laid out, so that it is the same after another
program has written the same arrays and metadata again.

https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lrcore import _whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from io import BufferedReader
    from pathlib import Path

    Array = np.ndarray[Any, Any]

_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4", "I32": "<i4",
    "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}
# What the text is called in the metadata.
TEXT = "lrcore"
_CHECKSUM = "lrcore.sha256"
_PIECE = 1 << 22  # bytes that are read or gathered at once
_LARGEST_HEADER = 100_000_000  # as the official package has it


class DamagedError(ValueError):
    """A file that is no safetensors file, or not the one that was written."""


class Entry(NamedTuple):
    """What a header says of an array: the format's name of its dtype, its shape, where in the file it lies."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class File:
    """A file that is open. Its arrays are read when they are asked for, and none twice into memory.

    Raises:
        DamagedError: If it is no safetensors file.
    """

    def __init__(self, path: Path, file: BufferedReader) -> None:
        self.path = path
        self._file = file
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise self.damaged(f"{size} bytes are no safetensors file")
        length = int.from_bytes(file.read(8), "little")
        if length > min(_LARGEST_HEADER, size - 8):
            raise self.damaged(f"its header of {length} bytes is longer than the file")
        try:
            self.metadata, self._entries = _parsed(file.read(length), 8 + length)
        except (ValueError, RecursionError) as error:
            raise self.damaged(f"its header can't be read ({error})") from error
        end = max((entry.end for entry in self._entries.values()), default=8 + length)
        if size != end:
            raise self.damaged(f"{size} bytes in place of {end}")

    def damaged(self, what: str) -> DamagedError:
        """Return the error that says what is wrong with the file."""
        return DamagedError(f"{self.path} is damaged: {what}")

    def text(self) -> str:
        """Return the text that :func:`write` wrote. All arrays are read, to see that they are what it wrote.

        Raises:
            DamagedError: If something is not.
            ValueError: If the file is from elsewhere.
            OSError: If it can't be read.
        """
        text, checksum = self.metadata.get(TEXT), self.metadata.get(_CHECKSUM)
        if text is None and checksum is None:
            raise ValueError(f"{self.path} is no checkpoint of lrcore, though a safetensors file")
        if text is None or checksum != self._checksum(text):
            raise self.damaged("its checksum is another")
        return text

    def names(self) -> list[str]:
        """Return the names of the arrays."""
        return list(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array."""
        return self._entry(name).shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of an array, in this machine's byte order, or raise a TypeError if NumPy has none for it."""
        dtype = self._entry(name).dtype
        if dtype not in _DTYPES:
            raise TypeError(f"{self.path}: {name} has dtype {dtype}; allowed are {', '.join(_DTYPES)}")
        return np.dtype(_DTYPES[dtype]).newbyteorder("=")

    def fill(self, name: str, array: Array) -> None:
        """Read the numbers of an array to where they belong, an array of its shape and dtype."""
        self._file.seek(self._entry(name).begin)
        for piece in _pieces(array, "writeonly"):
            self._read(piece)

    def array(self, name: str) -> Array:
        """Return an array, read."""
        array: Array = np.empty(self.shape(name), self.dtype(name))
        self.fill(name, array)
        return array

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            raise self.damaged(f"it has no array {name!r}")
        return self._entries[name]

    def _checksum(self, text: str) -> str:
        digest = _begun(text, self._entries)
        buffer = memoryview(bytearray(_PIECE))
        for name in sorted(self._entries):
            entry = self._entries[name]
            self._file.seek(entry.begin)
            for start in range(entry.begin, entry.end, _PIECE):
                piece = buffer[: entry.end - start]
                self._read(piece)
                digest.update(piece)
        return str(digest.hexdigest())

    def _read(self, piece: memoryview) -> None:
        if self._file.readinto(piece) != len(piece):
            raise self.damaged("it ends early")


@contextmanager
def opened(path: Path) -> Iterator[File]:
    """Open a file to read.

    Raises:
        DamagedError: If it is no safetensors file.
        OSError: If it can't be read.
    """
    with path.open("rb") as file:
        yield File(path, file)


def dtype_name(dtype: np.dtype[Any]) -> str | None:
    """Return the format's name of a dtype, or None if it has none."""
    return _NAMES.get(dtype.newbyteorder("<"))


def write(path: Path, arrays: Mapping[str, Array], text: str) -> None:
    """Write arrays and a text into a file, whole or not at all.

    Raises:
        TypeError: If the format has no name for a dtype.
        OSError: If it can't be written. What was there is there still.
    """
    entries = _laid_out(arrays)
    placeholder = b"0" * 64
    header = _header(entries, {_CHECKSUM: placeholder.decode(), TEXT: text})
    digest = _begun(text, entries)
    with _whole_file.writing(path) as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for name in entries:
            for piece in _pieces(arrays[name], "readonly"):
                digest.update(piece)
                file.write(piece)
        file.seek(8 + header.index(placeholder))
        file.write(digest.hexdigest().encode())


def _laid_out(arrays: Mapping[str, Array]) -> dict[str, Entry]:
    """Return where arrays lie, one after the other, in the order in which the checksum takes them."""
    entries: dict[str, Entry] = {}
    end = 0
    for name, array in sorted(arrays.items()):
        dtype = dtype_name(array.dtype)
        if dtype is None:
            raise TypeError(f"{name} has dtype {array.dtype}, which a safetensors file can't hold")
        entries[name] = Entry(dtype, array.shape, end, end := end + array.nbytes)
    return entries


def _header(entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": metadata}
    for name, entry in entries.items():
        header[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [entry.begin, entry.end]}
    text = json.dumps(header, ensure_ascii=True, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _parsed(header: bytes, start: int) -> tuple[dict[str, str], dict[str, Entry]]:
    """Return the metadata and the entries of a header. Whatever is not as the format has it is a ValueError."""
    parsed = json.loads(header.decode())
    if not isinstance(parsed, dict):
        raise ValueError(f"it is no object, but {type(parsed).__name__}")
    metadata = parsed.pop("__metadata__", None)
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is no text by name")
    return metadata, {name: _parsed_entry(name, given, start) for name, given in parsed.items()}


def _parsed_entry(name: str, given: Any, start: int) -> Entry:
    match given:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]}:
            if all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
                # Of a dtype that NumPy does not have it is not known how large its numbers are.
                size = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize if dtype in _DTYPES else end - begin
                if size == end - begin >= 0:
                    return Entry(dtype, tuple(shape), start + begin, start + end)
    raise ValueError(f"{name!r} is no array of known dtype, shape and place")


def _begun(text: str, entries: Mapping[str, Entry]) -> Any:
    """Return a digest of all but the numbers; those follow, array by array in the order of names."""
    described = [[name, entry.dtype, entry.shape] for name, entry in sorted(entries.items())]
    return hashlib.sha256(json.dumps([text, described]).encode())


def _pieces(array: Array, access: str) -> Iterator[memoryview]:
    """Yield the bytes of an array in C order, to read or to write them; without a copy of more than a piece."""
    little = array.dtype.newbyteorder("<")
    if array.flags.c_contiguous and array.dtype == little:
        if array.size:
            yield _bytes(array)
        return
    flags = ["external_loop", "buffered", "zerosize_ok"]
    size = _PIECE // array.itemsize
    with np.nditer(array, flags, [[access, "contig"]], [little], order="C", buffersize=size) as pieces:  # type: ignore[call-overload]
        for piece in pieces:
            if piece.size:
                yield _bytes(piece)


def _bytes(array: Array) -> memoryview:
    return np.asarray(array).reshape(-1).view(np.uint8).data
