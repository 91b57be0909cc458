"""The safetensors format: named arrays and text metadata in one file.

The first eight bytes are the length of a JSON header. The header maps each array's name to its dtype, shape and byte
offsets in the rest of the file, which holds the elements in C order and little-endian. Its ``__metadata__`` maps names
to strings. lrcore stores its text there, and a checksum of the text and the arrays. The checksum covers the contents
and not their order in the file, so it stays valid if another program rewrites the same arrays and metadata.

A file may hold hundreds of thousands of small arrays, for which a Python loop is slow. Therefore a header in the usual
form is split at its quotes instead of parsed as JSON, and small arrays are read and written in batches.

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
# Limits of memory: each list or dict becomes a Python object of some 100 bytes, each of their items one of 40.
_MOST_BRACKETS = 4_000_000
_MOST_COMMAS = 8_000_000
_MOST_DIGITS = 400  # of an integer in JSON; user_values.py writes longer ones in another form

# The usual form of a header, which the official package writes too: the metadata, if any, and then entries such as
# "name":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}, without blanks. An entry split at its quotes has ten parts,
# counted from the comma before it. These six are the same in every entry.
_METADATA_FIRST = '{"__metadata__":'
_FIXED = {2: ":{", 3: "dtype", 4: ":", 6: ",", 7: "shape", 9: "data_offsets"}
_SHAPE = re.compile(r":\[([0-9,]{0,400})\],")
_OFFSETS = re.compile(r"(?::\[(?:0|[1-9][0-9]{0,17}),(?:0|[1-9][0-9]{0,17})\]\},)*")
_CHUNK = 1 << 20  # characters of a header that are matched at once


class DamagedError(ValueError):
    """A file that is not in the safetensors format, or whose contents have changed since it was written."""


class Layout:
    """The dtype and shape of an array in a file. Entries with the same dtype and shape share one object.

    Attributes:
        kind: The format's name of the dtype.
        shape: The shape.
        dtype: The dtype, in this machine's byte order; None if NumPy has none.
        text: The JSON text of an entry up to its offsets, as this module writes it.
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
    """The header's entry of an array: its layout and its byte range in the file."""

    __slots__ = ()

    # Getters written in C, since they are called for every array.
    shape = property(attrgetter("layout.shape"), doc="The shape.")
    dtype = property(attrgetter("layout.dtype"), doc="The dtype, in this machine's byte order; None if NumPy has none.")


_LAYOUT, _BEGIN, _END = map(itemgetter, range(3))
_new_entry: Callable[[tuple[Layout, int, int]], Entry] = partial(tuple.__new__, Entry)


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
        """The entries of all arrays, sorted by name, after validation."""
        with self._parsing():
            entries = self._header.entries(self._begin)
        if not _is_tiling(entries.values(), self._begin):
            raise self.damaged("its arrays overlap, or have gaps between them")
        end = max(map(_END, entries.values()), default=self._begin)
        if self._end != end:
            raise self.damaged(f"the file must have {end} bytes, got {self._end}")
        return entries

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
        return self._entries.keys()

    def entries(self, names: Sequence[str]) -> list[Entry]:
        """Return the entries of these arrays.

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
        """Return the entry of one array; see :meth:`entries`."""
        return self.entries([name])[0]

    def fill(self, targets: Iterable[tuple[Entry, Array]], done: Callable[[], object] | None = None) -> None:
        """Read arrays from the file into existing arrays.

        With ``done``, no signal handler runs between the first write to a target and the end of ``done``.

        Args:
            targets: Entries, each with an array of its shape and dtype that is filled. Small arrays are first read into
                temporary memory. With ``done``, so are all arrays that are not C-contiguous or not little-endian.
            done: A function written in C, which is called after all arrays are filled.

        Raises:
            DamagedError: If the file has become shorter. Some targets may be filled already.
            OSError: If it can't be read. Some targets may be filled already.
        """
        given = list(targets)
        are_packed = are_small([entry for entry, _ in given])
        small = list(compress(given, are_packed))
        calls: list[Callable[[], object]] = []
        results: list[object] = []
        position = -1
        for entry, array in sorted(compress(given, map(not_, are_packed)), key=_begin_of):
            if _has_file_layout(array):
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
        # Python runs signal handlers, and raises exceptions sent to a thread, only between bytecodes. None is executed
        # between the first write and the end of `done`, because map, partial and call are written in C.
        got = list(map(call, [*calls, done or int]))
        if got[:-1] != results:
            raise self.damaged("it ends early")

    def small_arrays(self, entries: Sequence[Entry]) -> list[Array]:
        """Read small arrays in one batch. Arrays of the same dtype and shape are views of one array.

        Raises:
            DamagedError: If the file has become shorter.
            OSError: If it can't be read.
        """
        begins, ends = _bounds(entries)
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
        """Read one array."""
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
        digest = _metadata_digest(text, self._entries)
        buffer = memoryview(bytearray(_PIECE))
        for begin, end in _byte_ranges(self._entries):
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
    entries = _laid_out(arrays)
    placeholder = b"0" * 64
    header = _header(entries, {_CHECKSUM: placeholder.decode(), TEXT: text})
    if excess := _excess(header):
        raise ValueError(
            f"{path} was not written, because it could not be read back: its header, with the names of {len(entries)} "
            f"arrays and a description of {len(text)} characters, would have {excess}. Save values of many parts as "
            "NumPy arrays; give many parameters shorter names, or several optimizers"
        )
    digest = _metadata_digest(text, entries)
    with atomic_file.writing(path) as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for piece in _copied(entries, arrays):
            digest.update(piece)
            file.write(piece)
        file.seek(8 + header.index(placeholder))
        file.write(digest.hexdigest().encode())


def _copied(entries: Mapping[str, Entry], arrays: Mapping[str, Array]) -> Iterator[memoryview]:
    """Yield the bytes of all arrays in order, copied to a buffer that is reused for each piece."""
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
            raise RuntimeError(f"{next(changed, names[0])} was resized while it was being saved")
    yield buffer[:used]


def _batches(entries: Mapping[str, Entry]) -> Iterator[tuple[list[str], int]]:
    """Yield batches of arrays to copy together, several small ones or one large: their names and total bytes."""
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
    """Return contiguous entries for the arrays, sorted by name, which is the order of the checksum."""
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
    names = json.dumps(list(entries), separators=("\n", ":"))[1:-1].split("\n")  # JSON escapes line ends in a name
    parts += [
        f"{name}:{layout.text}{begin},{end}]}}"
        for name, (layout, begin, end) in zip(names, entries.values(), strict=False)
    ]
    text = f"{{{','.join(parts)}}}".encode()
    return text + b" " * (-len(text) % 8)


def _excess(header: bytes) -> str | None:
    """Return which limit of the official package or of :class:`File` a header exceeds, or None."""
    if len(header) > _LARGEST_HEADER:
        return f"{len(header)} bytes, where {_LARGEST_HEADER} are allowed"
    brackets, commas = header.count(b"[") + header.count(b"{"), header.count(b",")
    if brackets > _MOST_BRACKETS:
        return f"{brackets} lists and dicts, where {_MOST_BRACKETS} are allowed"
    if commas > _MOST_COMMAS:
        return f"{commas} commas, where {_MOST_COMMAS} are allowed"
    return None


class _Header:
    """A header: its metadata, parsed immediately, and the entries of its arrays, parsed on request.

    Raises:
        ValueError: If it can't be parsed.
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
            raise ValueError("its metadata must map names to strings")
        self.metadata: dict[str, str] = metadata

    @cached_property
    def _parsed(self) -> dict[str, Any]:
        parsed = from_json(self._text)
        if not isinstance(parsed, dict):
            raise ValueError(f"it must be a JSON object, got {type(parsed).__name__}")
        return parsed

    def entries(self, start: int) -> dict[str, Entry]:
        """Return the entries of all arrays, sorted by name.

        Args:
            start: The position in the file from which the offsets in the header count.

        Raises:
            ValueError: If an entry in the header is invalid.
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
        """Return the entries if all of them are in the usual form, else None."""
        end = len(self._text.rstrip(" ")) - 1
        if self._text[end : end + 1] != "}":
            return None
        text = self._text[self._first : end] if self._first else f",{self._text[1:end]}"
        names: list[str] = []
        runs: list[tuple[tuple[str, str], int]] = []  # dtype and shape of consecutive arrays, and their number
        offsets = [np.empty(0, np.int64)]
        position = 0
        while position < len(text):
            cut = text.find('},"', position + _CHUNK) + 1 or len(text)
            if cut - position > 2 * _CHUNK:  # limits the memory of the split
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
    """Return entries from the dtypes, shapes and offsets of a header, or no entries if one of these is invalid."""
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
    """Return the entry from its parsed JSON, or raise a ValueError."""
    match given:
        case {"dtype": str(kind), "shape": list(lengths), "data_offsets": [int(begin), int(end)]}:
            size, shape = _layout_of(kind, lengths)
            in_range = type(begin) is type(end) is int and 0 <= begin <= end <= _LARGEST_SIZE - start
            # The size can only be checked for dtypes that NumPy has.
            if size is not None and in_range and (size == end - begin or kind not in _SIZES):
                layout = layouts.get((kind, shape)) or layouts.setdefault((kind, shape), Layout(kind, shape))
                return Entry(layout, start + begin, start + end)
    raise ValueError(f"entry {name[:200]!r} must have a valid dtype, shape and data_offsets")


def _layout_of(kind: str, lengths: list[Any]) -> tuple[int | None, tuple[int, ...]]:
    """Return an array's size in bytes, or None if NumPy does not support the array, and its shape."""
    return _size_of(lengths, _SIZES.get(kind, 1)), tuple(lengths)


def from_json(text: str) -> Any:
    """Parse a JSON text; raise a ValueError if it is invalid or an integer in it has more than 400 digits.

    The limit exists because the time to convert an integer grows with the square of its digits.
    """
    return _DECODER.decode(text)


def _short_integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"an integer must have at most {_MOST_DIGITS} digits, got {len(digits)}")
    return int(digits)


_DECODER = json.JSONDecoder(parse_int=_short_integer)


def _is_tiling(entries: Collection[Entry], start: int) -> bool:
    """Return whether arrays cover the file from ``start`` without gaps or overlaps, in any order."""
    begins, ends = _bounds(entries)
    order = np.lexsort((ends, begins))
    befores = np.append(start, ends[order][:-1])
    return not entries or bool((begins[order] == befores).all())


def _bounds(entries: Collection[Entry]) -> tuple[Array, Array]:
    """Return the first byte of each array, and the last one + 1."""
    count = len(entries)
    return np.fromiter(map(_BEGIN, entries), np.int64, count), np.fromiter(map(_END, entries), np.int64, count)


def are_small(entries: Collection[Entry]) -> list[bool]:
    """Return for each array whether :meth:`File.small_arrays` can read it."""
    begins, ends = _bounds(entries)
    has_axes = any(len(layout.shape) == _MOST_AXES for layout in set(map(_LAYOUT, entries)))
    small: list[bool] = (ends - begins <= (-1 if has_axes else _SMALL)).tolist()
    return small


def _size_of(shape: list[Any], itemsize: int) -> int | None:
    """Return an array's size in bytes, or None if NumPy does not support the array."""
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


def _metadata_digest(text: str, entries: Mapping[str, Entry]) -> Any:
    """Return a digest of the text, dtypes, shapes and names; the caller adds the elements in the order of entries."""
    texts = map(attrgetter("layout.text"), entries.values())
    layouts = [[layout, len(list(alike))] for layout, alike in groupby(texts)]
    lengths = np.fromiter(map(len, entries), "<i8", len(entries))  # makes the joined names unambiguous
    digest = hashlib.sha256(json.dumps([text, layouts]).encode())
    digest.update(lengths.data)
    digest.update("".join(entries).encode(errors="surrogatepass"))
    return digest


def _byte_ranges(entries: Mapping[str, Entry]) -> Iterator[tuple[int, int]]:
    """Yield the byte ranges of the arrays in the order of the checksum, with adjacent ranges merged."""
    begins, ends = _bounds(entries.values())
    if len(entries):
        cuts = (begins[1:] != ends[:-1]).tolist()
        yield from zip(begins[[True, *cuts]].tolist(), ends[[*cuts, True]].tolist(), strict=True)


def _begin_of(target: tuple[Entry, Array]) -> int:
    return target[0].begin


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
