"""The safetensors format: arrays by name, with text beside them, in one file.

Eight bytes hold the length of a JSON header, which says where in the rest of the file each array lies, in C order and
little-endian; ``__metadata__`` in it holds text by name. There lie the text that is written with the arrays, and a
checksum of both. It is one of what the file holds, not of how it is laid out, so that it is the same after another
program has written the same arrays and metadata again.

https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
import sys
from contextlib import contextmanager
from functools import cached_property, partial
from operator import call, itemgetter, setitem
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lrcore import _whole_file

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from io import BufferedReader
    from pathlib import Path

    Array = np.ndarray[Any, Any]

_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4", "I32": "<i4",
    "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}
_NATIVE = {name: np.dtype(code).newbyteorder("=") for name, code in _DTYPES.items()}
_SIZES = {name: dtype.itemsize for name, dtype in _NATIVE.items()}
# What the text is called in the metadata.
TEXT = "lrcore"
_CHECKSUM = "lrcore.sha256"
_PIECE = 1 << 22  # bytes that are read, gathered or written at once
_BUFFER = 1 << 18  # small arrays are read from a buffer of so many bytes
_FOREIGN = ">" if sys.byteorder == "little" else "="  # the byte order of numbers that files do not have

# Limits of what is read, and so of what is written. The first is that of the official package; NumPy has the second.
_LARGEST_HEADER = 100_000_000
_MOST_AXES = 64
_LARGEST_SIZE = 2**63 - 1
# What is between brackets and commas becomes an object: some 100 bytes for the first, and 40 for the others.
_MOST_BRACKETS = 4_000_000
_MOST_COMMAS = 8_000_000
_MOST_DIGITS = 400  # a longer integer is not written as one
_DIGITS_AS_ZEROS = bytes(ord("0" if byte in b"0123456789" else " ") for byte in range(256))


class DamagedError(ValueError):
    """A file that is no safetensors file, or not the one that was written."""


class Entry(NamedTuple):
    """What a header says of an array: the format's name of its dtype, its shape, where in the file it lies."""

    kind: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype, in this machine's byte order."""
        return _NATIVE[self.kind]


_BEGIN, _END = itemgetter(2), itemgetter(3)


class File:
    """A file that is open. Its arrays are read when they are asked for, and none twice into memory.

    Nothing is computed from a number in the header before it is known to be in range, and memory is taken in proportion
    to the file. The arrays must fill the file, each byte belonging to one, as the format has it.

    Raises:
        DamagedError: If it is no safetensors file.
    """

    def __init__(self, path: Path, file: BufferedReader[Any]) -> None:
        self.path = path
        self._file = file
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise self.damaged(f"{size} bytes are no safetensors file")
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise self.damaged(f"its header of {length} bytes is longer than the file")
        if length > _LARGEST_HEADER:
            raise self.damaged(f"its header has {length} bytes, and at most {_LARGEST_HEADER} are read")
        try:
            self.metadata, self._header = _parsed(file.read(length), 8 + length)
        except (ValueError, RecursionError) as error:
            raise self.damaged(f"its header can't be read ({error})") from error
        self._begin, self._end = 8 + length, size

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        """What the header says of the arrays, in the order of names, once all of it is known to be true."""
        for name, entry in self._header.items():
            if not isinstance(entry, Entry):
                what = f"{name[:200]!r} is no array of known dtype, shape and place"
                raise self.damaged(f"its header can't be read ({what})")
        entries: dict[str, Entry] = dict(sorted(self._header.items()))
        if not _is_tiling(entries.values(), self._begin):
            raise self.damaged("its arrays overlap, or have gaps between them")
        end = max(map(_END, entries.values()), default=self._begin)
        if self._end != end:
            raise self.damaged(f"{self._end} bytes in place of {end}")
        return entries

    @property
    def has_checksum(self) -> bool:
        """Whether it is of the form that :func:`write` writes."""
        return _CHECKSUM in self.metadata

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
        self.names()  # what is damaged is no file from elsewhere
        text, checksum = self.metadata.get(TEXT), self.metadata.get(_CHECKSUM)
        if text is None and checksum is None:
            raise ValueError(f"{self.path} is no checkpoint of lrcore, though a safetensors file")
        if text is None or checksum != self._checksum(text):
            raise self.damaged("its checksum is another")
        return text

    def names(self) -> Iterable[str]:
        """Return the names of the arrays; whether one is among them is found at once."""
        return self._entries.keys()

    def entry(self, name: str) -> Entry:
        """Return what the header says of an array.

        Raises:
            DamagedError: If there is no such array.
            TypeError: If NumPy has no such dtype.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise self.damaged(f"it has no array {name!r}")
        if entry.kind not in _NATIVE:
            raise TypeError(f"{self.path}: {name} has dtype {entry.kind}; allowed are {', '.join(_DTYPES)}")
        return entry

    def fill(self, targets: Iterable[tuple[Entry, Array]], done: Callable[[], object] | None = None) -> None:
        """Read arrays to where they belong. If a call is to be made then, no signal handler runs until it is made.

        Args:
            targets: What the header says of them, each with an array of its shape and dtype. Where that is not dense,
                in C order and of the byte order of the file, the numbers are read before all others; if there is a call
                to make, to memory of their own.
            done: What is called when all is read: a function written in C.

        Raises:
            DamagedError: If the file has become shorter. A part may have been read then.
            OSError: If it can't be read. A part may have been read then.
        """
        calls: list[Callable[[Any], object]] = []
        arguments: list[Any] = []
        results: list[object] = []
        position = -1
        for entry, array in sorted(targets, key=_begin_of):
            if not _is_laid_out_alike(array):
                if done is None:
                    self._fill_in_pieces(entry, array)
                else:
                    calls.append(partial(setitem, array, ...))
                    arguments.append(self._numbers(entry))
                    results.append(None)
            elif array.size:
                begin, end = entry.begin, entry.end
                if begin != position:
                    calls.append(self._file.seek)
                    arguments.append(begin)
                    results.append(begin)
                calls.append(self._file.readinto)
                arguments.append(array.data)
                results.append(end - begin)
                position = end
        # Python runs signal handlers, and raises the exceptions that are sent to a thread, between bytecodes of that
        # thread. There are none in here.
        got = list(map(call, [*calls, call], [*arguments, done or int]))
        if got[:-1] != results:
            raise self.damaged("it ends early")

    def array(self, name: str) -> Array:
        """Return an array, read."""
        return self._numbers(self.entry(name))

    def _numbers(self, entry: Entry) -> Array:
        array: Array = np.empty(entry.shape, entry.dtype)
        self._fill_in_pieces(entry, array)
        return array

    def _fill_in_pieces(self, entry: Entry, array: Array) -> None:
        self._file.seek(entry.begin)
        for piece in _pieces(array, "writeonly"):
            self._read(piece)

    def _checksum(self, text: str) -> str:
        digest = _begun(text, self._entries)
        buffer = memoryview(bytearray(_PIECE))
        for begin, end in _stretches(self._entries):
            self._file.seek(begin)
            for start in range(begin, end, _PIECE):
                piece = buffer[: end - start]
                self._read(piece)
                digest.update(piece)
        return str(digest.hexdigest())

    def _read(self, piece: memoryview) -> None:
        if self._file.readinto(piece) != len(piece):
            raise self.damaged("it ends early")


@contextmanager
def opened(path: Path) -> Iterator[File]:
    """Open a file to read. What is no regular file, such as a FIFO, is not opened: that could wait, or do something.

    Raises:
        DamagedError: If it is no safetensors file.
        OSError: If it can't be read.
    """
    _check_regular(path, path.stat().st_mode)
    with io.BufferedReader(io.FileIO(path, opener=_open), _BUFFER) as file:
        _check_regular(path, os.fstat(file.fileno()).st_mode)
        yield File(path, file)


def _check_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a checkpoint's file", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is no regular file", str(path))


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def dtype_name(dtype: np.dtype[Any]) -> str | None:
    """Return the format's name of a dtype, or None if it has none."""
    return _NAMES.get(dtype.newbyteorder("<"))


def write(path: Path, arrays: Mapping[str, Array], text: str) -> None:
    """Write arrays and a text into a file, whole or not at all.

    The checksum is that of what is written, also if another thread writes into an array meanwhile: each piece is
    copied to a buffer, of which both are made.

    Raises:
        TypeError: If the format has no name for a dtype.
        ValueError: If the file could not be read again, since its header is too large.
        RuntimeError: If an array is given another size meanwhile.
        OSError: If it can't be written. What was there is there still.
    """
    entries = _laid_out(arrays)
    placeholder = b"0" * 64
    header = _header(entries, {_CHECKSUM: placeholder.decode(), TEXT: text})
    if excess := _excess(header):
        raise ValueError(
            f"{path} was not written, since it could not be read again: its header, with the names of {len(entries)} "
            f"arrays and a description of {len(text)} characters, would have {excess}. Save values of many parts as "
            "NumPy arrays; give many parameters shorter names, or several optimizers"
        )
    digest = _begun(text, entries)
    with _whole_file.writing(path) as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for piece in _copied(entries, arrays):
            digest.update(piece)
            file.write(piece)
        file.seek(8 + header.index(placeholder))
        file.write(digest.hexdigest().encode())


def _copied(entries: Mapping[str, Entry], arrays: Mapping[str, Array]) -> Iterator[memoryview]:
    """Yield the bytes of arrays one after the other, as they are now, in a buffer that is used again."""
    buffer = memoryview(bytearray(_PIECE))
    used = 0
    for name, entry in entries.items():
        left = entry.end - entry.begin
        for piece in _pieces(arrays[name], "readonly"):
            left -= len(piece)
            for start in range(0, len(piece), _PIECE):
                part = piece[start : start + _PIECE]
                if used + len(part) > _PIECE:
                    yield buffer[:used]
                    used = 0
                buffer[used : used + len(part)] = part
                used += len(part)
        if left:
            raise RuntimeError(f"{name} was given another size while it was saved")
    yield buffer[:used]


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
        header[name] = {"dtype": entry.kind, "shape": entry.shape, "data_offsets": [entry.begin, entry.end]}
    text = json.dumps(header, ensure_ascii=True, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _excess(header: bytes) -> str | None:
    """Return what is too much in a header, for the official package or for :class:`File`."""
    if len(header) > _LARGEST_HEADER:
        return f"{len(header)} bytes, where {_LARGEST_HEADER} are allowed"
    brackets, commas = header.count(b"[") + header.count(b"{"), header.count(b",")
    if brackets > _MOST_BRACKETS:
        return f"{brackets} lists and dicts, where {_MOST_BRACKETS} are allowed"
    if commas > _MOST_COMMAS:
        return f"{commas} commas, where {_MOST_COMMAS} are allowed"
    return None


def _parsed(header: bytes, start: int) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the metadata of a header, and the entries of arrays, or raise a ValueError.

    What is no entry of an array, where numbers begin at ``start``, stays as JSON has it.
    """
    if excess := _excess(header):
        raise ValueError(f"it has {excess}")
    parsed = from_json(header.decode(), _EntryReader(start).read)
    if not isinstance(parsed, dict):
        raise ValueError(f"it is no object, but {type(parsed).__name__}")
    metadata = parsed.pop("__metadata__", None)
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is no text by name")
    return metadata, parsed


def from_json(text: str, read: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Return what a JSON text says, or raise a ValueError, also if an integer in it has too many digits.

    The time to convert them grows with the square of their number. Each object becomes what ``read`` makes of it.
    """
    digits = text.encode(errors="surrogatepass").translate(_DIGITS_AS_ZEROS)
    if b"0" * (_MOST_DIGITS + 1) in digits:  # maybe in a string
        return json.loads(text, object_hook=read, parse_int=_short_integer)
    return json.loads(text, object_hook=read)


def _short_integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


class _EntryReader:
    """Makes entries of what a header says of arrays, each as soon as it is parsed: that takes the least memory."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._layouts: dict[str, tuple[int | None, tuple[int, ...]]] = {}  # many arrays are of a few shapes

    def read(self, given: dict[str, Any]) -> Entry | dict[str, Any]:
        """Return the entry that an object of JSON is, or the object if it is none as the format has it."""
        try:
            kind, lengths, (begin, end) = given["dtype"], given["shape"], given["data_offsets"]
        except (KeyError, TypeError, ValueError):
            return given
        key = f"{kind!r}{lengths!r}"
        layout = self._layouts.get(key)
        if layout is None:
            layout = self._layouts[key] = _layout_of(kind, lengths)
        size, shape = layout
        if size is None or not (type(begin) is type(end) is int and 0 <= begin <= end <= _LARGEST_SIZE):
            return given
        # Of a dtype that NumPy does not have it is not known how large its numbers are.
        if size != end - begin and kind in _SIZES:
            return given
        return tuple.__new__(Entry, (kind, shape, self._start + begin, self._start + end))


def _layout_of(kind: Any, shape: Any) -> tuple[int | None, tuple[int, ...]]:
    """Return how many bytes an array has, and its shape; without a size if NumPy has no such array."""
    if type(kind) is not str or type(shape) is not list:
        return None, ()
    return _size_of(shape, _SIZES.get(kind, 1)), tuple(shape)


def _is_tiling(entries: Collection[Entry], start: int) -> bool:
    """Return whether arrays lie one after the other, without gaps, in any order."""
    begins = np.fromiter(map(_BEGIN, entries), np.uint64, len(entries))
    ends = np.fromiter(map(_END, entries), np.uint64, len(entries))
    order = np.lexsort((ends, begins))
    befores = np.append(np.uint64(start), ends[order][:-1])
    return not entries or bool((begins[order] == befores).all())


def _size_of(shape: list[Any], itemsize: int) -> int | None:
    """Return how many bytes an array has, or None if NumPy has no such array."""
    if len(shape) > _MOST_AXES:
        return None
    size = itemsize
    for length in shape:
        if type(length) is not int or not 0 <= length <= _LARGEST_SIZE:
            return None
        size *= length or 1
        if size > _LARGEST_SIZE:
            return None
    return 0 if 0 in shape else size


def _begun(text: str, entries: Mapping[str, Entry]) -> Any:
    """Return a digest of all but the numbers; those follow, array by array. Entries are in the order of names."""
    described = [[name, entry.kind, entry.shape] for name, entry in entries.items()]
    return hashlib.sha256(json.dumps([text, described]).encode())


def _stretches(entries: Mapping[str, Entry]) -> Iterator[tuple[int, int]]:
    """Yield from where to where the numbers are that the checksum is made of, in its order."""
    begin = end = 0
    for _, _, first, last in entries.values():
        if first != end:
            yield begin, end
            begin = first
        end = last
    yield begin, end


def _begin_of(target: tuple[Entry, Array]) -> int:
    return target[0].begin


def _is_laid_out_alike(array: Array) -> bool:
    """Return whether the bytes of an array are in memory as they are in a file."""
    return array.flags.c_contiguous and array.dtype.byteorder != _FOREIGN


def _pieces(array: Array, access: str) -> Iterator[memoryview]:
    """Yield the bytes of an array in C order, to read or to write them; without a copy of more than a piece."""
    if _is_laid_out_alike(array):
        if access == "readonly" and array.nbytes <= _PIECE >> 8:
            yield memoryview(array.tobytes())  # faster than a view, for a small array
        elif array.size:
            yield _bytes(array)
        return
    little = array.dtype.newbyteorder("<")
    flags = ["external_loop", "buffered", "zerosize_ok"]
    size = _PIECE // array.itemsize
    with np.nditer(array, flags, [[access, "contig"]], [little], order="C", buffersize=size) as pieces:  # type: ignore[call-overload]
        for piece in pieces:
            if piece.size:
                yield _bytes(piece)


def _bytes(array: Array) -> memoryview:
    return np.asarray(array).reshape(-1).view(np.uint8).data
