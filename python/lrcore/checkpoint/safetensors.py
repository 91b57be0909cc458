"""The safetensors format: arrays by name, with text beside them, in one file.

Eight bytes hold the length of a JSON header, which says where in the rest of the file each array lies, in C order and
little-endian; ``__metadata__`` in it holds text by name. There lie the text that is written with the arrays, and a
checksum of both. It is one of what the file holds, not of how it is laid out, so that it is the same after another
program has written the same arrays and metadata again.

A file may hold hundreds of thousands of small arrays, and Python is slow where it works on each. So the usual form of a
header is split at its quotes instead of parsed as JSON, and small arrays are read and written many at once.

https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import re
import stat
import sys
from collections import defaultdict
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import accumulate, chain, compress, groupby, repeat
from operator import attrgetter, call, itemgetter, not_, setitem
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lrcore.checkpoint import atomic_file

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
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
_BUFFER = 1 << 18  # bytes that are read ahead
_SMALL = 1 << 10  # bytes of the largest array that is read together with others
_BATCH = 1 << 12  # bytes of arrays that are copied together to be written
_FOREIGN = ">" if sys.byteorder == "little" else "="  # the byte order of numbers that files do not have

# Limits of what is read, and so of what is written. The first is that of the official package; NumPy has the second.
_LARGEST_HEADER = 100_000_000
_MOST_AXES = 64
_LARGEST_SIZE = 2**63 - 1
# What is between brackets and commas becomes an object: some 100 bytes for the first, and 40 for the others.
_MOST_BRACKETS = 4_000_000
_MOST_COMMAS = 8_000_000
_MOST_DIGITS = 400  # a longer integer is not written as one

# The usual form of a header, which the official package writes too: metadata first if there is any, then entries such
# as "name":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}, without blanks. Split at its quotes, each has ten parts.
# Of these, numbered from the comma before the entry, six are always the same.
_METADATA_FIRST = '{"__metadata__":'
_FIXED = {2: ":{", 3: "dtype", 4: ":", 6: ",", 7: "shape", 9: "data_offsets"}
_SHAPE = re.compile(r":\[([0-9,]{0,400})\],")
_OFFSETS = re.compile(r"(?::\[(?:0|[1-9][0-9]{0,17}),(?:0|[1-9][0-9]{0,17})\]\},)*")
_CHUNK = 1 << 20  # characters of a header that are matched at once


class DamagedError(ValueError):
    """A file that is no safetensors file, or not the one that was written."""


class Layout:
    """A dtype and a shape of arrays in a file. Entries that are alike have the same object.

    Attributes:
        kind: The format's name of the dtype.
        shape: The shape.
        dtype: The dtype, in this machine's byte order; None if NumPy has none.
        text: How an entry begins in a header that is written here.
    """

    __slots__ = ("dtype", "kind", "shape", "text")

    def __init__(self, kind: str, shape: tuple[int, ...]) -> None:
        self.kind = kind
        self.shape = shape
        self.dtype = _NATIVE.get(kind)
        self.text = f'{{"dtype":{json.dumps(kind)},"shape":[{",".join(map(str, shape))}],"data_offsets":['


class _Entry(NamedTuple):
    layout: Layout
    begin: int
    end: int


class Entry(_Entry):
    """What a header says of an array: its layout, and where in the file it lies."""

    __slots__ = ()

    # Getters written in C, since they are called for every array.
    shape = property(attrgetter("layout.shape"), doc="The shape.")
    dtype = property(attrgetter("layout.dtype"), doc="The dtype, in this machine's byte order; None if NumPy has none.")


_LAYOUT, _BEGIN, _END = map(itemgetter, range(3))
_new_entry: Callable[[tuple[Layout, int, int]], Entry] = partial(tuple.__new__, Entry)


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
        self._begin, self._end = 8 + length, size
        with self._parsing():
            self._header = _Header(file.read(length))
            self.metadata = self._header.metadata

    @contextmanager
    def _parsing(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, RecursionError) as error:
            raise self.damaged(f"its header can't be read ({error})") from error

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        """What the header says of the arrays, in the order of names, once all of it is known to be true."""
        with self._parsing():
            entries = self._header.entries(self._begin)
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

    def names(self) -> Set[str]:
        """Return the names of the arrays; whether one is among them is found at once."""
        return self._entries.keys()

    def entries(self, names: Sequence[str]) -> list[Entry]:
        """Return what the header says of arrays.

        Raises:
            DamagedError: If there is no such array.
            TypeError: If NumPy has no such dtype.
        """
        entries = list(map(self._entries.get, names))
        if None in entries:
            raise self.damaged(f"it has no array {names[entries.index(None)]!r}")
        found: list[Any] = entries
        for layout in set(map(_LAYOUT, found)):
            if layout.dtype is None:
                name = next(name for name, entry in zip(names, found, strict=True) if entry.layout is layout)
                raise TypeError(f"{self.path}: {name} has dtype {layout.kind}; allowed are {', '.join(_DTYPES)}")
        return found

    def entry(self, name: str) -> Entry:
        """Return what the header says of one array; see :meth:`entries`."""
        return self.entries([name])[0]

    def fill(self, targets: Iterable[tuple[Entry, Array]], done: Callable[[], object] | None = None) -> None:
        """Read arrays to where they belong. If a call is to be made then, no signal handler runs until it is made.

        Args:
            targets: What the header says of them, each with an array of its shape and dtype. Small ones are read to
                memory of their own before all others. So are others, if there is a call to make, that are not dense, in
                C order and of the byte order of the file.
            done: What is called when all is read: a function written in C.

        Raises:
            DamagedError: If the file has become shorter. A part may have been read then.
            OSError: If it can't be read. A part may have been read then.
        """
        given = list(targets)
        are_packed = are_small([entry for entry, _ in given])
        small = list(compress(given, are_packed))
        calls: list[Callable[[], object]] = []
        results: list[object] = []
        position = -1
        for entry, array in sorted(compress(given, map(not_, are_packed)), key=_begin_of):
            if _is_laid_out_alike(array):
                _, begin, end = entry
                if begin != position:
                    calls.append(partial(self._file.seek, begin))
                    results.append(begin)
                calls.append(partial(self._file.readinto, array.data))
                results.append(end - begin)
                position = end
            elif done is None:
                self._fill_in_pieces(entry, array)
            else:
                calls.append(partial(setitem, array, ..., self._numbers(entry)))
                results.append(None)
        copies = self.small_arrays([entry for entry, _ in small])
        copying: Iterator[None] = map(setitem, [array for _, array in small], repeat(...), copies)  # type: ignore[arg-type]
        calls.append(partial(any, copying))
        results.append(False)
        # Python runs signal handlers, and raises the exceptions that are sent to a thread, between bytecodes of that
        # thread. There are none in here.
        got = list(map(call, [*calls, done or int]))
        if got[:-1] != results:
            raise self.damaged("it ends early")

    def small_arrays(self, entries: Sequence[Entry]) -> list[Array]:
        """Return new arrays, read together. Those of one dtype and shape are parts of one array.

        Raises:
            DamagedError: If the file has become shorter.
            OSError: If it can't be read.
        """
        begins, ends = _places(entries)
        order = np.argsort(begins, kind="stable")
        sizes = (ends - begins)[order]
        starts = np.empty_like(begins)  # of arrays in what is read
        starts[order] = np.cumsum(sizes) - sizes
        raw = memoryview(bytearray(int(sizes.sum())))
        # Arrays that lie one after the other are read at once.
        first = np.flatnonzero(begins[order][1:] != ends[order][:-1]) + 1
        for run in np.split(order, first) if len(order) else ():
            start, end = int(starts[run[0]]), int(starts[run[-1]] + ends[run[-1]] - begins[run[-1]])
            self._file.seek(int(begins[run[0]]))
            self._read(raw[start:end])
        arrays: list[Any] = [None] * len(entries)
        alike: defaultdict[Layout, list[int]] = defaultdict(list)
        for number, layout in enumerate(map(_LAYOUT, entries)):
            alike[layout].append(number)
        if len(alike) == 1:
            return _rows(raw, starts, *alike)
        for layout, numbers in alike.items():
            for number, array in zip(numbers, _rows(raw, starts[numbers], layout), strict=True):
                arrays[number] = array
        return arrays

    def array(self, name: str) -> Array:
        """Return an array, read."""
        return self._numbers(self.entry(name))

    def _numbers(self, entry: Entry) -> Array:
        array: Array = np.empty(entry.shape, entry.dtype)
        self._fill_in_pieces(entry, array)
        return array

    def _fill_in_pieces(self, entry: Entry, array: Array) -> None:
        self._file.seek(entry.begin)
        for piece in _pieces([array], "writeonly"):
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
    with atomic_file.writing(path) as file:
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
    for names, size in _batches(entries):
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
            changed = (name for name in names if arrays[name].nbytes != entries[name].end - entries[name].begin)
            raise RuntimeError(f"{next(changed, names[0])} was given another size while it was saved")
    yield buffer[:used]


def _batches(entries: Mapping[str, Entry]) -> Iterator[tuple[list[str], int]]:
    """Yield the names of arrays that are copied together, many small ones or one, and how many bytes they have."""
    names: list[str] = []
    size = 0
    for name, (_, begin, end) in entries.items():
        if names and size + end - begin > _BATCH:
            yield names, size
            names, size = [], 0
        names.append(name)
        size += end - begin
    if names:
        yield names, size


def _laid_out(arrays: Mapping[str, Array]) -> dict[str, Entry]:
    """Return where arrays lie, one after the other, in the order in which the checksum takes them."""
    names = sorted(arrays)
    values = [arrays[name] for name in names]
    known: dict[tuple[np.dtype[Any], tuple[int, ...]], Layout] = {}
    alike = [(array.dtype, array.shape) for array in values]
    for name, pair in zip(names, alike, strict=True):
        if pair not in known:
            kind = dtype_name(pair[0])
            if kind is None:
                raise TypeError(f"{name} has dtype {pair[0]}, which a safetensors file can't hold")
            known[pair] = Layout(kind, pair[1])
    ends = list(accumulate(array.nbytes for array in values))
    layouts = map(known.__getitem__, alike)
    return dict(zip(names, map(_new_entry, zip(layouts, chain([0], ends), ends, strict=False)), strict=True))


def _header(entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> bytes:
    parts = [f'"__metadata__":{json.dumps(metadata)}']
    names = json.dumps(list(entries), separators=("\n", ":"))[1:-1].split("\n")  # JSON has no line ends within a name
    parts += [
        f"{name}:{layout.text}{begin},{end}]}}"
        for name, (layout, begin, end) in zip(names, entries.values(), strict=False)
    ]
    text = f"{{{','.join(parts)}}}".encode()
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


class _Header:
    """What a header says: metadata, which is read at once, and entries of arrays, which are read when they are needed.

    Raises:
        ValueError: If it can't be read.
    """

    def __init__(self, header: bytes) -> None:
        if excess := _excess(header):
            raise ValueError(f"it has {excess}")
        self._text = header.decode()
        if self._text.startswith(_METADATA_FIRST):
            metadata, self._first = _DECODER.raw_decode(self._text, len(_METADATA_FIRST))
        else:
            metadata, self._first = self._parsed.get("__metadata__"), 0
        if metadata is None:
            metadata = {}
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its metadata is no text by name")
        self.metadata: dict[str, str] = metadata

    @cached_property
    def _parsed(self) -> dict[str, Any]:
        parsed = from_json(self._text)
        if not isinstance(parsed, dict):
            raise ValueError(f"it is no object, but {type(parsed).__name__}")
        return parsed

    def entries(self, start: int) -> dict[str, Entry]:
        """Return the entries of arrays, in the order of names, where numbers begin at a place in the file.

        Raises:
            ValueError: If something in the header is no entry.
        """
        entries = self._split(start)
        if entries is None:
            layouts: dict[tuple[str, tuple[int, ...]], Layout] = {}
            given = self._parsed.items()
            entries = {
                name: _parsed_entry(name, entry, start, layouts) for name, entry in given if name != "__metadata__"
            }
        names = sorted(entries)
        return entries if names == list(entries) else {name: entries[name] for name in names}

    def _split(self, start: int) -> dict[str, Entry] | None:
        """Return the entries if all that follows the metadata is of the usual form, else None."""
        end = len(self._text.rstrip(" ")) - 1
        if self._text[end : end + 1] != "}":
            return None
        text = self._text[self._first : end] if self._first else f",{self._text[1:end]}"
        names: list[str] = []
        runs: list[tuple[tuple[str, str], int]] = []  # dtype and shape of arrays in a row, and how many
        offsets = [np.empty(0, np.int64)]
        position = 0
        while position < len(text):
            cut = text.find('},"', position + _CHUNK) + 1 or len(text)
            if cut - position > 2 * _CHUNK:  # so that there are not too many parts
                return None
            parts = f"{text[position + 1 : cut]},".split('"')
            count = len(parts) // 10
            places = "".join(parts[10::10])
            if (
                text[position] != ","
                or len(parts) != 10 * count + 1
                or parts[0]
                or any(parts[number::10].count(fixed) != count for number, fixed in _FIXED.items())
                or not _OFFSETS.fullmatch(places)
            ):
                return None
            names += parts[1::10]
            alike = groupby(zip(parts[5::10], parts[8::10], strict=True))
            runs += [(pair, len(list(group))) for pair, group in alike]
            offsets.append(np.fromstring(places[2:-3].replace("]},:[", ","), np.int64, sep=","))
            position = cut
        if "\\" in text:
            try:
                names = json.loads('["' + '","'.join(names) + '"]')
            except ValueError:  # a name had a quote in it
                return None
        entries = dict(zip(names, _split_entries(runs, np.concatenate(offsets), start), strict=False))
        return entries if len(entries) == len(names) and "__metadata__" not in entries else None


def _split_entries(runs: list[tuple[tuple[str, str], int]], offsets: Array, start: int) -> Iterable[Entry]:
    """Return entries of dtypes, shapes and offsets as they are in a header, or none if one of them is wrong."""
    known, sizes = {}, {}
    for pair in {pair for pair, _ in runs}:
        kind, match = pair[0], _SHAPE.fullmatch(pair[1])
        size, shape = _layout_of(kind, json.loads(f"[{match[1]}]")) if match and kind.isalnum() else (None, ())
        if size is None:
            return ()
        known[pair], sizes[pair] = Layout(kind, shape), size if kind in _SIZES else -1
    begins, ends = offsets[::2], offsets[1::2]
    expected = np.repeat([sizes[pair] for pair, _ in runs], [count for _, count in runs]) if runs else begins
    if not ((expected == ends - begins) | ((expected < 0) & (begins <= ends))).all():
        return ()
    layouts = chain.from_iterable(repeat(known[pair], count) for pair, count in runs)
    return map(_new_entry, zip(layouts, (begins + start).tolist(), (ends + start).tolist(), strict=True))


def _parsed_entry(name: str, given: Any, start: int, layouts: dict[tuple[str, tuple[int, ...]], Layout]) -> Entry:
    """Return the entry that a value of JSON is, or raise a ValueError."""
    match given:
        case {"dtype": str(kind), "shape": list(lengths), "data_offsets": [int(begin), int(end)]}:
            size, shape = _layout_of(kind, lengths)
            in_range = type(begin) is type(end) is int and 0 <= begin <= end <= _LARGEST_SIZE - start
            # Of a dtype that NumPy does not have it is not known how large its numbers are.
            if size is not None and in_range and (size == end - begin or kind not in _SIZES):
                layout = layouts.get((kind, shape)) or layouts.setdefault((kind, shape), Layout(kind, shape))
                return Entry(layout, start + begin, start + end)
    raise ValueError(f"{name[:200]!r} is no array of known dtype, shape and place")


def _layout_of(kind: str, lengths: list[Any]) -> tuple[int | None, tuple[int, ...]]:
    """Return how many bytes an array has, and its shape; without a size if NumPy has no such array."""
    return _size_of(lengths, _SIZES.get(kind, 1)), tuple(lengths)


def from_json(text: str) -> Any:
    """Return what a JSON text says, or raise a ValueError, also if an integer in it has too many digits.

    The time to convert them grows with the square of their number.
    """
    return _DECODER.decode(text)


def _short_integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


_DECODER = json.JSONDecoder(parse_int=_short_integer)


def _is_tiling(entries: Collection[Entry], start: int) -> bool:
    """Return whether arrays lie one after the other, without gaps, in any order."""
    begins, ends = _places(entries)
    order = np.lexsort((ends, begins))
    befores = np.append(start, ends[order][:-1])
    return not entries or bool((begins[order] == befores).all())


def _places(entries: Collection[Entry]) -> tuple[Array, Array]:
    """Return where arrays begin and end."""
    count = len(entries)
    return np.fromiter(map(_BEGIN, entries), np.int64, count), np.fromiter(map(_END, entries), np.int64, count)


def are_small(entries: Collection[Entry]) -> list[bool]:
    """Return for each array whether it can be one of :meth:`File.small_arrays`."""
    begins, ends = _places(entries)
    has_axes = any(len(layout.shape) == _MOST_AXES for layout in set(map(_LAYOUT, entries)))
    small: list[bool] = (ends - begins <= (-1 if has_axes else _SMALL)).tolist()
    return small


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
    texts = map(attrgetter("layout.text"), entries.values())
    layouts = [[layout, len(list(alike))] for layout, alike in groupby(texts)]
    lengths = np.fromiter(map(len, entries), "<i8", len(entries))  # without these, names could be divided elsewhere
    digest = hashlib.sha256(json.dumps([text, layouts]).encode())
    digest.update(lengths.data)
    digest.update("".join(entries).encode(errors="surrogatepass"))
    return digest


def _stretches(entries: Mapping[str, Entry]) -> Iterator[tuple[int, int]]:
    """Yield from where to where the numbers are that the checksum is made of, in its order."""
    begins, ends = _places(entries.values())
    if len(entries):
        cuts = (begins[1:] != ends[:-1]).tolist()
        yield from zip(begins[[True, *cuts]].tolist(), ends[[*cuts, True]].tolist(), strict=True)


def _begin_of(target: tuple[Entry, Array]) -> int:
    return target[0].begin


def _is_laid_out_alike(array: Array) -> bool:
    """Return whether the bytes of an array are in memory as they are in a file."""
    return array.flags.c_contiguous and array.dtype.byteorder != _FOREIGN


def _pieces(arrays: Sequence[Array], access: str) -> Iterator[memoryview]:
    """Yield the bytes of arrays in C order, to read them, or to write those of one; one is not copied as a whole."""
    if len(arrays) > 1:
        buffers: Iterator[Any] = map(_little_endian, arrays)
        yield memoryview(b"".join(buffers))
        return
    (array,) = arrays
    if _is_laid_out_alike(array):
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
    """Return the numbers of an array as they are in a file, in C order: the array itself if they are so."""
    if _is_laid_out_alike(array):
        return array
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def _rows(raw: memoryview, starts: Array, layout: Layout) -> list[Array]:
    """Return new arrays of one dtype and shape, parts of one array, with the bytes that begin at these places."""
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
