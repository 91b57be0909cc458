"""The safetensors format: named arrays and text metadata in one file.

The first eight bytes are the length of a JSON header. The header maps each array's name to its dtype, shape and byte
offsets in the rest of the file, which holds the elements in C order and little-endian. Its ``__metadata__`` maps names
to strings. lrcore stores its text there, and a checksum of the text and the arrays. The checksum covers the contents
and not their order in the file, so it stays valid if another program rewrites the same arrays and metadata.

A file may hold hundreds of thousands of small arrays, for which a Python loop is slow. Therefore the extension parses
the header, and small arrays are read and written in batches.

https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import stat
import sys
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import compress, count, repeat
from operator import call, setitem
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lrcore._lrcore import parse_safetensors_header
from lrcore.checkpoint import atomic_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence, Set
    from io import BufferedReader
    from pathlib import Path

    Array = np.ndarray[Any, Any]

_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4", "I32": "<i4",
    "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}
_NATIVE = {name: np.dtype(code).newbyteorder("=") for name, code in _DTYPES.items()}
# Keys of the metadata.
TEXT = "lrcore"
_CHECKSUM = "lrcore.sha256"
_PIECE = 1 << 22  # size in bytes of one read, copy or write
_BUFFER = 1 << 18  # size in bytes of the read-ahead buffer
_SMALL = 1 << 10  # largest size in bytes of an array that is read in a batch
_BATCH = 1 << 12  # size in bytes of a batch of arrays that are copied together before a write
_FOREIGN = ">" if sys.byteorder == "little" else "="  # NumPy's byte-order code of big-endian arrays

# Limits for reading, and therefore for writing. The first is the official package's, the second is NumPy's.
_LARGEST_HEADER = 100_000_000
_MOST_AXES = 64
_LARGEST_SIZE = 2**63 - 1
_UNKNOWN_SIZE, _NO_SIZE = -1, -2
# Limits of the text, for memory: each list or dict becomes a Python object of some 100 bytes, each of their items one
# of 40.
_MOST_BRACKETS = 4_000_000
_MOST_COMMAS = 8_000_000
_MOST_DIGITS = 400  # of an integer in JSON; user_values.py writes longer ones in another form


class DamagedError(ValueError):
    """A file that is not in the safetensors format, or whose contents have changed since it was written."""


class Layout:
    """The dtype and shape of arrays in a file.

    Attributes:
        kind: The format's name of the dtype.
        shape: The shape.
        dtype: The dtype, in this machine's byte order; None if NumPy has none.
        size: The size of an array in bytes, or a negative number: ``_UNKNOWN_SIZE`` if NumPy does not have the dtype,
            ``_NO_SIZE`` if it can't have the shape.
        text: The JSON text of an entry up to its offsets, as this module writes it.
    """

    __slots__ = ("dtype", "kind", "shape", "size", "text")

    def __init__(self, kind: str, shape: tuple[int, ...]) -> None:
        self.kind = kind
        self.shape = shape
        self.dtype = _NATIVE.get(kind)
        self.size = _size_of(shape, self.dtype)
        self.text = f'{{"dtype":{json.dumps(kind)},"shape":[{",".join(map(str, shape))}],"data_offsets":['


class _Table(NamedTuple):
    """The arrays of a file, sorted by name, which is the order of the checksum. Each is a row of the table.

    Attributes:
        rows: The index of each array's row, by name.
        layouts: The distinct layouts.
        kinds: The index of each array's layout.
        begins: The position of each array's first byte in the file.
        ends: The position after its last byte.
    """

    rows: dict[str, int]
    layouts: list[Layout]
    kinds: Array
    begins: Array
    ends: Array

    def runs(self) -> Iterator[tuple[Layout, int]]:
        """Yield the layout and the number of consecutive arrays with equal layouts."""
        starts = np.flatnonzero(np.append(True, np.diff(self.kinds)))[: len(self.kinds)]
        counts = np.diff(np.append(starts, len(self.kinds))).tolist()
        return zip(map(self.layouts.__getitem__, self.kinds[starts]), counts, strict=True)


class File:
    """An open safetensors file. Arrays are read on request, with at most one copy in memory.

    Every number in the header is checked to be in range before it is used, and memory use is proportional to the size
    of the file. As the format requires, the arrays must fill the file without gaps or overlaps.

    Raises:
        DamagedError: If the file is not in the safetensors format.
    """

    def __init__(self, path: Path, file: BufferedReader[Any]) -> None:
        self.path = path
        self._file = file
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise self.damaged(f"a safetensors file has at least 8 bytes, got {size}")
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise self.damaged(f"its header of {length} bytes is longer than the file")
        if length > _LARGEST_HEADER:
            raise self.damaged(f"its header must have at most {_LARGEST_HEADER} bytes, got {length}")
        self._begin, self._end = 8 + length, size
        try:
            self._header = parse_safetensors_header(file.read(length))
        except ValueError as error:
            raise self.damaged(f"its header can't be read ({error})") from error
        self.metadata = self._header[0]

    @cached_property
    def _table(self) -> _Table:
        """The table of the arrays, after validation."""
        _, names, pairs, kinds, begins, ends = self._header
        layouts = [Layout(*pair) for pair in pairs]
        sizes = np.array([layout.size for layout in layouts], np.int64)[kinds]
        are_valid = (begins >= 0) & (begins <= ends) & (ends <= _LARGEST_SIZE - self._begin)
        are_valid &= (sizes == ends - begins) | (sizes == _UNKNOWN_SIZE)
        if not are_valid.all():
            name = names[int(np.argmin(are_valid))]
            raise self.damaged(f"entry {name[:200]!r} must have a valid dtype, shape and data_offsets")
        begins, ends = begins + self._begin, ends + self._begin
        order = np.lexsort((ends, begins))
        expected = np.append(self._begin, ends[order])
        if (begins[order] != expected[:-1]).any():
            raise self.damaged("its arrays overlap, or have gaps between them")
        if self._end != expected[-1]:
            raise self.damaged(f"the file must have {expected[-1]} bytes, got {self._end}")
        return _Table(dict(zip(names, count(), strict=False)), layouts, np.array(kinds, np.intp), begins, ends)

    @property
    def has_checksum(self) -> bool:
        """Whether the metadata has a checksum of :func:`write`."""
        return _CHECKSUM in self.metadata

    def damaged(self, what: str) -> DamagedError:
        """Return an error with the file's path and a description of the damage."""
        return DamagedError(f"{self.path} is damaged: {what}")

    def text(self) -> str:
        """Return the text that :func:`write` wrote, after it reads all arrays to verify the checksum.

        Raises:
            DamagedError: If the file is damaged.
            ValueError: If another program wrote the file.
            OSError: If it can't be read.
        """
        self.names()  # raises DamagedError first, so that a damaged file is not attributed to another program
        text, checksum = self.metadata.get(TEXT), self.metadata.get(_CHECKSUM)
        if text is None and checksum is None:
            raise ValueError(f"{self.path} is a safetensors file, but not a checkpoint of lrcore")
        if text is None or checksum != self._checksum(text):
            raise self.damaged("its checksum does not match")
        return text

    def names(self) -> Set[str]:
        """Return the names of the arrays, as a set with fast lookup."""
        return self._table.rows.keys()

    def rows(self, names: Sequence[str]) -> Array:
        """Return the indices of these arrays, by which the other methods take them.

        Raises:
            DamagedError: If there is no such array.
            TypeError: If NumPy has no such dtype.
        """
        table = self._table
        rows: list[Any] = list(map(table.rows.get, names))
        if None in rows:
            raise self.damaged(f"it has no array {names[rows.index(None)]!r}")
        found = np.array(rows, np.intp)
        unknown = [number for number, layout in enumerate(table.layouts) if layout.dtype is None]
        for i in np.flatnonzero(np.isin(table.kinds[found], unknown))[:1]:
            kind = self.layout(rows[i]).kind
            raise TypeError(f"{self.path}: {names[i]} has dtype {kind}; allowed are {', '.join(_DTYPES)}")
        return found

    def layout(self, row: int) -> Layout:
        """Return the dtype and shape of an array."""
        return self._table.layouts[int(self._table.kinds[row])]

    def are_small(self, rows: Array) -> Array:
        """Return for each array whether :meth:`small_arrays` can read it."""
        sizes = np.array(
            [_LARGEST_SIZE if len(layout.shape) == _MOST_AXES else layout.size for layout in self._table.layouts]
        )
        are_small: Array = sizes[self._table.kinds[rows]] <= _SMALL
        return are_small

    def are_like(self, rows: Array, arrays: Sequence[Array]) -> Array:
        """Return for each array in the file whether it has the shape and dtype of the given one."""
        numbers = {(layout.shape, layout.dtype): number for number, layout in enumerate(self._table.layouts)}
        kinds = [numbers.get((array.shape, array.dtype), -1) for array in arrays]
        are_like: Array = self._table.kinds[rows] == np.array(kinds, np.intp)
        return are_like

    def fill(self, rows: Array, arrays: Sequence[Array], done: Callable[[], object] | None = None) -> None:
        """Read arrays from the file into existing arrays.

        With ``done``, no signal handler runs between the first write to an array and the end of ``done``.

        Args:
            rows: Which arrays are read.
            arrays: The arrays that are filled, of the same shapes and dtypes. Small ones are first read into temporary
                memory. With ``done``, so are all arrays that are not C-contiguous or not little-endian.
            done: A function written in C, which is called after all arrays are filled.

        Raises:
            DamagedError: If the file has become shorter. Some arrays may be filled already.
            OSError: If it can't be read. Some arrays may be filled already.
        """
        are_small = self.are_small(rows)
        calls: list[Callable[[], object]] = []
        results: list[object] = []
        position = -1
        begins, ends = self._table.begins[rows], self._table.ends[rows]
        order = np.argsort(begins, kind="stable")
        for i in order[~are_small[order]].tolist():
            array, begin, end = arrays[i], int(begins[i]), int(ends[i])
            if _has_file_layout(array):
                if begin != position:
                    calls.append(partial(self._file.seek, begin))
                    results.append(begin)
                calls.append(partial(self._file.readinto, array.data))
                results.append(end - begin)
                position = end
            elif done is None:
                self._fill_in_pieces(rows[i], array)
            else:
                calls.append(partial(setitem, array, ..., self._numbers(rows[i])))
                results.append(None)
        small = list(compress(arrays, are_small))
        copying: Iterator[None] = map(setitem, small, repeat(...), self.small_arrays(rows[are_small]))  # type: ignore[arg-type]
        calls.append(partial(any, copying))
        results.append(False)
        # Python runs signal handlers, and raises exceptions sent to a thread, only between bytecodes. None is executed
        # between the first write and the end of `done`, because map, partial and call are written in C.
        got = list(map(call, [*calls, done or int]))
        if got[:-1] != results:
            raise self.damaged("it ends early")

    def small_arrays(self, rows: Array) -> list[Array]:
        """Read small arrays in one batch. Arrays of the same dtype and shape are views of one array.

        Raises:
            DamagedError: If the file has become shorter.
            OSError: If it can't be read.
        """
        table = self._table
        begins, ends, kinds = table.begins[rows], table.ends[rows], table.kinds[rows]
        order = np.argsort(begins, kind="stable")
        sizes = (ends - begins)[order]
        starts = np.empty_like(begins)  # offsets of the arrays in `raw`
        starts[order] = np.cumsum(sizes) - sizes
        raw = memoryview(bytearray(int(sizes.sum())))
        # Arrays that are adjacent in the file are read with one call.
        first = np.flatnonzero(begins[order][1:] != ends[order][:-1]) + 1
        for run in np.split(order, first) if len(order) else ():
            start, end = int(starts[run[0]]), int(starts[run[-1]] + ends[run[-1]] - begins[run[-1]])
            self._file.seek(int(begins[run[0]]))
            self._read(raw[start:end])
        alike = np.argsort(kinds, kind="stable")
        changes = np.flatnonzero(np.diff(kinds[alike])) + 1
        arrays: list[Any] = [None] * len(alike)
        for numbers in np.split(alike, changes) if len(alike) else ():
            for number, array in zip(
                numbers.tolist(), _rows(raw, starts[numbers], self.layout(rows[numbers[0]])), strict=True
            ):
                arrays[number] = array
        return arrays

    def array(self, name: str) -> Array:
        """Read one array."""
        return self._numbers(*self.rows([name]))

    def _numbers(self, row: int) -> Array:
        layout = self.layout(row)
        array: Array = np.empty(layout.shape, layout.dtype)
        self._fill_in_pieces(row, array)
        return array

    def _fill_in_pieces(self, row: int, array: Array) -> None:
        self._file.seek(int(self._table.begins[row]))
        for piece in _pieces([array], "writeonly"):
            self._read(piece)

    def _checksum(self, text: str) -> str:
        digest = _metadata_digest(text, self._table)
        buffer = memoryview(bytearray(_PIECE))
        for begin, end in _byte_ranges(self._table):
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
    """Open a file for reading. Only regular files are opened: opening a FIFO or a device could block or have effects.

    Raises:
        DamagedError: If the file is not in the safetensors format.
        OSError: If it can't be read, or is not a regular file.
    """
    _check_regular(path, path.stat().st_mode)
    with io.BufferedReader(io.FileIO(path, opener=_open), _BUFFER) as file:
        _check_regular(path, os.fstat(file.fileno()).st_mode)
        yield File(path, file)


def _check_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a checkpoint file", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def dtype_name(dtype: np.dtype[Any]) -> str | None:
    """Return the format's name of a dtype, or None if it has none."""
    return _NAMES.get(dtype.newbyteorder("<"))


def write(path: Path, arrays: Mapping[str, Array], text: str) -> None:
    """Write arrays and a text into a file atomically.

    Each piece is copied to a buffer, and both the file and the checksum are made from the copy. Therefore the checksum
    is correct even if another thread writes to an array during the save.

    Raises:
        TypeError: If the format does not have the dtype of an array.
        ValueError: If the header exceeds the limits for reading.
        RuntimeError: If an array is resized during the save.
        OSError: If the file can't be written. An existing file is kept.
    """
    table = _laid_out(arrays)
    placeholder = b"0" * 64
    header = _header(table, {_CHECKSUM: placeholder.decode(), TEXT: text})
    excess = _excess(text)
    if len(header) > _LARGEST_HEADER:
        excess = f"{len(header)} bytes, where {_LARGEST_HEADER} are allowed"
    if excess:
        raise ValueError(
            f"{path} was not written, because it could not be read back: its header, with the names of {len(arrays)} "
            f"arrays and a description of {len(text)} characters, would have {excess}. Save values of many parts as "
            "NumPy arrays; give many parameters shorter names, or several optimizers"
        )
    digest = _metadata_digest(text, table)
    with atomic_file.writing(path) as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for piece in _copied(table, arrays):
            digest.update(piece)
            file.write(piece)
        file.seek(8 + header.index(placeholder))
        file.write(digest.hexdigest().encode())


def _copied(table: _Table, arrays: Mapping[str, Array]) -> Iterator[memoryview]:
    """Yield the bytes of all arrays in order, copied to a buffer that is reused for each piece."""
    buffer = memoryview(bytearray(_PIECE))
    used = 0
    for names, size in _batches(table):
        left = size
        for piece in _pieces([arrays[name] for name in names], "readonly"):
            left -= len(piece)
            for start in range(0, len(piece), _PIECE):
                part = piece[start : start + _PIECE]
                if used + len(part) > _PIECE:
                    yield buffer[:used]
                    used = 0
                buffer[used : used + len(part)] = part
                used += len(part)
        if left:
            sizes = table.ends - table.begins
            changed = (name for name in names if arrays[name].nbytes != sizes[table.rows[name]])
            raise RuntimeError(f"{next(changed, names[0])} was resized while it was being saved")
    yield buffer[:used]


def _batches(table: _Table) -> Iterator[tuple[list[str], int]]:
    """Yield batches of arrays to copy together, several small ones or one large: their names and total bytes."""
    names: list[str] = []
    total = 0
    for name, size in zip(table.rows, (table.ends - table.begins).tolist(), strict=True):
        if names and total + size > _BATCH:
            yield names, total
            names, total = [], 0
        names.append(name)
        total += size
    if names:
        yield names, total


def _laid_out(arrays: Mapping[str, Array]) -> _Table:
    """Return the table of a file with these arrays, without gaps, from position 0."""
    names = sorted(arrays)
    values = [arrays[name] for name in names]
    given = [(array.dtype, array.shape) for array in values]
    known: dict[tuple[str, tuple[int, ...]], int] = {}
    kind_of = {}
    for dtype, shape in dict.fromkeys(given):
        kind = dtype_name(dtype)
        if kind is None:
            name = names[given.index((dtype, shape))]
            raise TypeError(f"{name} has dtype {dtype}, which a safetensors file can't hold")
        kind_of[dtype, shape] = known.setdefault((kind, shape), len(known))
    kinds = np.array(list(map(kind_of.__getitem__, given)), np.intp)
    ends = np.cumsum([array.nbytes for array in values], dtype=np.int64)
    layouts = [Layout(*pair) for pair in known]
    return _Table(dict(zip(names, count(), strict=False)), layouts, kinds, np.append(0, ends)[:-1], ends)


def _header(table: _Table, metadata: Mapping[str, str]) -> bytes:
    parts = [f'"__metadata__":{json.dumps(metadata)}']
    names = json.dumps(list(table.rows), separators=("\n", ":"))[1:-1].split("\n")  # JSON escapes line ends in a name
    texts = [layout.text for layout in table.layouts]
    columns = zip(names, table.kinds.tolist(), table.begins.tolist(), table.ends.tolist(), strict=False)
    parts += [f"{name}:{texts[kind]}{begin},{end}]}}" for name, kind, begin, end in columns]
    text = f"{{{','.join(parts)}}}".encode()
    return text + b" " * (-len(text) % 8)


def _excess(text: str) -> str | None:
    """Return which limit of memory a JSON text exceeds, or None."""
    brackets, commas = text.count("[") + text.count("{"), text.count(",")
    if brackets > _MOST_BRACKETS:
        return f"{brackets} lists and dicts, where {_MOST_BRACKETS} are allowed"
    if commas > _MOST_COMMAS:
        return f"{commas} commas, where {_MOST_COMMAS} are allowed"
    return None


def from_json(text: str) -> Any:
    """Parse a JSON text.

    Raises:
        ValueError: If it is invalid, has more lists, dicts and commas than :func:`write` allows, or an integer of more
            than 400 digits, since the time to convert one grows with the square of its digits.
    """
    if excess := _excess(text):
        raise ValueError(f"it has {excess}")
    return _DECODER.decode(text)


def _short_integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"an integer must have at most {_MOST_DIGITS} digits, got {len(digits)}")
    return int(digits)


_DECODER = json.JSONDecoder(parse_int=_short_integer)


def _size_of(shape: tuple[int, ...], dtype: np.dtype[Any] | None) -> int:
    """Return an array's size in bytes, or one of the two numbers below 0."""
    if dtype is None:
        return _UNKNOWN_SIZE
    size = dtype.itemsize * math.prod(length or 1 for length in shape)
    if len(shape) > _MOST_AXES or min(shape, default=0) < 0 or size > _LARGEST_SIZE:
        return _NO_SIZE
    return 0 if 0 in shape else size


def _metadata_digest(text: str, table: _Table) -> Any:
    """Return a digest of the text, dtypes, shapes and names; the caller adds the elements in the order of the table."""
    layouts = [[layout.text, length] for layout, length in table.runs()]
    lengths = np.fromiter(map(len, table.rows), "<i8", len(table.rows))  # makes the joined names unambiguous
    digest = hashlib.sha256(json.dumps([text, layouts]).encode())
    digest.update(lengths.data)
    digest.update("".join(table.rows).encode(errors="surrogatepass"))
    return digest


def _byte_ranges(table: _Table) -> Iterator[tuple[int, int]]:
    """Yield the byte ranges of the arrays in the order of the checksum, with adjacent ranges merged."""
    begins, ends = table.begins, table.ends
    if len(begins):
        are_cut = begins[1:] != ends[:-1]
        yield from zip(begins[np.append(True, are_cut)].tolist(), ends[np.append(are_cut, True)].tolist(), strict=True)


def _has_file_layout(array: Array) -> bool:
    """Return whether an array is C-contiguous and little-endian, as in a file."""
    return array.flags.c_contiguous and array.dtype.byteorder != _FOREIGN


def _pieces(arrays: Sequence[Array], access: str) -> Iterator[memoryview]:
    """Yield the bytes of arrays in C order. A single array is not copied as a whole, and its bytes can be written."""
    if len(arrays) > 1:
        buffers: Iterator[Any] = map(_little_endian, arrays)
        yield memoryview(b"".join(buffers))
        return
    (array,) = arrays
    if _has_file_layout(array):
        if array.size:
            yield _bytes(array)
        return
    little = array.dtype.newbyteorder("<")
    flags = ["external_loop", "buffered", "zerosize_ok"]
    size = _PIECE // array.itemsize
    with np.nditer(array, flags, [[access, "contig"]], [little], order="C", buffersize=size) as pieces:  # type: ignore[call-overload]
        for piece in pieces:
            if piece.size:
                yield _bytes(piece)


def _little_endian(array: Array) -> Array:
    """Return the array in C order and little-endian, without a copy if it already is."""
    if _has_file_layout(array):
        return array
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def _rows(raw: memoryview, starts: Array, layout: Layout) -> list[Array]:
    """Return arrays of one dtype and shape, as views of one new array, from the bytes at these offsets of ``raw``."""
    stored, native, shape = np.dtype(_DTYPES[layout.kind]), _NATIVE[layout.kind], layout.shape
    size = stored.itemsize * math.prod(shape)
    if size == 0:
        return [np.empty(shape, native) for _ in starts]
    gathered = np.lib.stride_tricks.sliding_window_view(np.frombuffer(raw, np.uint8), size)[starts]
    numbers = gathered.view(stored).astype(native, copy=False)
    if not shape:
        return [numbers[number].reshape(()) for number in range(len(starts))]
    return list(numbers.reshape(len(starts), *shape))


def _bytes(array: Array) -> memoryview:
    return np.asarray(array).reshape(-1).view(np.uint8).data
