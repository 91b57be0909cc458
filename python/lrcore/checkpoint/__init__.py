"""Checkpoints: an optimizer and its parameters in one file that is written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import time
import warnings
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lrcore._collection import without_collections
from lrcore._ranges import check_count
from lrcore.checkpoint import atomic_file, safetensors, user_values
from lrcore.checkpoint.safetensors import DamagedError, Entry
from lrcore.optim import Optimizer, reports
from lrcore.optim.allocation import empty_like
from lrcore.schedules.schedule import Schedule
from lrcore.schedules.serialization import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lrcore.optim.state_dict import Loaded

    StrPath = str | os.PathLike[str]

__all__ = ["DamagedError", "latest", "load", "save"]


def __dir__() -> list[str]:
    return sorted(__all__)


SUFFIX = ".safetensors"
_VERSION = 1
# What keep counts, and deletes.
_NUMBERED = re.compile(rf"step-[0-9]+{re.escape(SUFFIX)}")
# The last time, in nanoseconds since 1970, that a file is believed to have been saved at: in the year 2116.
_LAST_TIME = 2**62
_PARTS = {
    "optimizer": str,
    "steps": int,
    "skipped": list,
    "saved": int,
    "counts": dict,
    "param_groups": list,
    "reports": list,
    "extra": dict,
}


def save(path: StrPath, opt: Optimizer, *, keep: int | None = None, **extra: Any) -> Path:
    """Write weights, state, averages, counters and hyperparameters, schedules too, and whatever else a run needs.

    The file is written beside its place, flushed to the disk and renamed, so that a process that is killed at any
    moment leaves either the checkpoint before or this one. Arrays are written from where they lie, through a buffer of
    a few MiB.

    Args:
        path: The file, if the name ends in ``.safetensors``; any other path is a folder, which is made if need be. In a
            folder the file is ``step-<steps>.safetensors``. A symbolic link is followed.
        opt: The optimizer, with its parameters.
        keep: How many checkpoints stay in the folder: this one, and of the others those that were saved last. What is
            deleted are whole checkpoints of the name ``step-<digits>.safetensors`` that this function wrote, nothing
            else, and only when the new one was read again. By default all stay.
        extra: Values of your own, by name: numbers, strings, bytes, None, NumPy arrays, PyTorch's tensors on the CPU,
            and lists, tuples and dicts of these, whose keys are strings or integers, such as
            ``epoch=3, rng=generator.bit_generator.state``. Tensors come back as NumPy arrays, NumPy's scalars as
            Python's numbers.

    Returns:
        The path of the file.

    Raises:
        TypeError: If a value can't be saved, or the path or the optimizer is none.
        ValueError: If ``keep`` is less than 1, or given with a file; if the file could not be read again, since its
            description is too large, or values are nested too deep. Nothing is written or deleted then.
        RuntimeError: If the weights are averages now, within
            :meth:`Optimizer.averaged <lrcore.optim.Optimizer.averaged>`.
        OSError: If the file can't be written. What was there is there still.

    Warns:
        UserWarning: If the file is in its place, but something after that failed: flushing the name of the file to the
            disk, or deleting old checkpoints.

    Examples:
        >>> import lrcore, numpy as np, tempfile
        >>> opt = lrcore.Adam({"w": np.zeros(3)})
        >>> info = opt.step({"w": np.ones(3)})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = lrcore.save(folder, opt, keep=3, epoch=7)
        ...     other = lrcore.Adam({"w": np.zeros(3)})
        ...     print(path.name, lrcore.load(lrcore.latest(folder), other), other.steps)
        step-0000000001.safetensors {'epoch': 7} 1

    Note:
        It is a safetensors file: ``safetensors.numpy.load_file`` reads its arrays, which are named ``params/…``,
        ``state/<parameter>/…`` and ``extra/…``. Nothing in it is ever executed, as in a pickle. Gradients that were
        accumulated and wait for a step are saved too.
    """
    target, is_file = _place("save", path, opt)
    if keep is not None:
        keep = check_count("keep", keep, least=1)
        if is_file:
            raise ValueError(f"keep counts the checkpoints of a folder, and {target} is a file: give the folder")
    with without_collections(), opt._lock:
        opt._refuse_if_swapped()
        if not is_file:
            target = target / f"step-{opt.steps:010d}{SUFFIX}"
        arrays, description = _describe(opt)
        plain = {name: user_values.plain(value, f"extra/{name}", arrays) for name, value in extra.items()}
        description = {"version": _VERSION, "saved": _time_of_save(target.parent), **description, "extra": plain}
        safetensors.write(target, arrays, json.dumps(description))
    if keep is not None:
        _delete_old(target, keep)
    return target


def load(
    path: StrPath, opt: Optimizer, *, strict: bool = True, schedules: Literal["saved", "program"] | None = None
) -> dict[str, Any]:
    """Read a checkpoint into an optimizer and its weights: all of it, or on an error, or Ctrl-C, nothing.

    Parameters are matched by name. Weights are written in place; the run then goes on with the same bits as if it had
    never stopped, with any number of threads and any instruction set. The file is read twice: once to find damage,
    before anything is changed, and once for the numbers, which are read to where they belong. Signals are handled when
    all weights are read: Ctrl-C waits so long.

    Args:
        path: A file that :func:`save` wrote, whose name ends in ``.safetensors``, or a folder, of which the
            :func:`latest` is read.
        opt: The optimizer, made of the same parameters.
        strict: Whether parameters, groups and state must be the same on both sides. If not, what both sides have is
            loaded.
        schedules: Which schedules hold from then on, for each hyperparameter that is one on either side: ``"saved"``,
            those of the checkpoint, or ``"program"``, those that the optimizer has now, as for a run that is made
            longer. By default those of the checkpoint, with a warning where they differ.

    Returns:
        The values of one's own that were saved, by name.

    Raises:
        lrcore.checkpoint.DamagedError: If the file is not as it was written; a ``ValueError``.
        ValueError: If it does not match the optimizer, or was written by a newer version.
        TypeError: If an array has another dtype, or the path or the optimizer is none.
        OSError: If it can't be read. Only if that is so the second time, weights are left with a part of it.

    Warns:
        UserWarning: If a schedule of the program is replaced by another one, and ``schedules`` is not given.
    """
    place, is_file = _place("load", path, opt)
    if not is_file:
        found_path = latest(place)
        if found_path is None:
            raise FileNotFoundError(f"{place} has no whole checkpoint")
        place = found_path
    with without_collections(), safetensors.opened(place) as file:
        description, saved = _read(file)
        extra = _extra(file, description)
        with opt._lock:
            opt._refuse_if_swapped()
            weights = dict(zip(opt._names, opt._stepper.weights(), strict=True))
            known = file.names()
            found = {name: file.entry(f"params/{name}") for name in weights if f"params/{name}" in known}
            if strict and len(found) < len(weights):
                raise ValueError(f"{place} has no weights of {[name for name in weights if name not in found]}")
            for name, entry in found.items():
                _check_weight(place, name, entry, weights[name])
            loaded = opt._match(saved, strict=strict, schedules=schedules, unread=Entry)
            _read_arrays(file, loaded, weights)
            targets = [(entry, weights[name]) for name, entry in found.items()]
            opt._set_or_leave(loaded, lambda done: file.fill(targets, done))
    return extra


def latest(folder: StrPath) -> Path | None:
    """Return the newest whole checkpoint of a folder, or None if there is none.

    Newest is what was saved last, as the files say themselves, so that it is the same in a copy of the folder. A file
    that is damaged, unfinished or no checkpoint is passed over, with a warning.

    Args:
        folder: Where to look for ``*.safetensors``.

    Raises:
        ValueError: If the name is one of a file: it ends in ``.safetensors``.
        OSError: If the folder can't be read, or is a file. One that is not there has no checkpoint.

    Examples:
        >>> import lrcore, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     print(lrcore.latest(folder))
        None
    """
    place, is_file = _place("latest", folder)
    if is_file:
        raise ValueError(
            f"latest looks for the newest file of a folder, and {place} is the name of a file: give the folder, or "
            "load the file if it is there"
        )
    for partial in atomic_file.unfinished(place):
        warnings.warn(f"{partial} is unfinished: it is being written, or its process was stopped", stacklevel=2)
    for path in sorted(_files(place), key=lambda path: _age(path, _peek(path)), reverse=True):
        try:
            with without_collections(), safetensors.opened(path) as file:
                _read(file)
        except (ValueError, OSError) as error:
            warnings.warn(f"passed over: {error}", stacklevel=2)
        else:
            return path
    return None


_NO_OPTIMIZER: Any = object()


def _place(function: str, path: Any, opt: Any = _NO_OPTIMIZER) -> tuple[Path, bool]:
    """Return a path, and whether it is the name of a file: one that ends in ``.safetensors``, there or not.

    Raises:
        TypeError: If it is no path, or the optimizer is none.
        OSError: If what is there is a folder in the place of a file, or the other way round.
    """
    if not isinstance(path, str | os.PathLike):
        call = f"lrcore.{function}({'folder' if opt is _NO_OPTIMIZER else 'path, opt'})"
        swapped = "; the path comes first" if isinstance(opt, str | os.PathLike) else ""
        raise TypeError(f"{call}: the first argument must be a path, got {type(path).__name__}{swapped}")
    place = Path(path)
    if opt is not _NO_OPTIMIZER and not isinstance(opt, Optimizer):
        raise TypeError(f"lrcore.{function}(path, opt): {_what_instead(opt)}")
    is_file = place.name.endswith(SUFFIX)
    if is_file and (place.is_dir() or os.fspath(path).endswith(("/", os.sep))):
        raise IsADirectoryError(f"{place} is a folder, and a name that ends in {SUFFIX} is one of a file")
    if not is_file and place.exists() and not place.is_dir():
        raise NotADirectoryError(f"{place} is no folder, and the name of a checkpoint's file ends in {SUFFIX}")
    return place, is_file


def _what_instead(given: Any) -> str:
    """Return what to do with something that is no optimizer of NumPy or JAX arrays."""
    kind = type(given).__name__
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(given, torch.optim.Optimizer):
        return (
            f"{kind} is an optimizer of PyTorch, and saved as all of these are: torch.save(opt.state_dict(), file) "
            "beside the model's, then opt.load_state_dict(torch.load(file))"
        )
    if torch is not None and isinstance(given, torch.nn.Module):
        return f"opt must be an optimizer, got the module {kind}: torch.save(model.state_dict(), file) saves it"
    if isinstance(getattr(given, "optimizer_", None), Optimizer):
        return (
            f"opt must be an optimizer: give {kind}'s optimizer_, which has the weights, or pickle the whole estimator"
        )
    return (
        f"opt must be an optimizer of lrcore, such as opt = lrcore.AdamW(params), got {kind}. It is saved and "
        "loaded with its parameters; other values have names: lrcore.save(path, opt, epoch=3)"
    )


def _files(folder: Path) -> list[Path]:
    """Return what has the name of a checkpoint in a folder."""
    try:
        return [folder / name for name in os.listdir(folder) if name.endswith(SUFFIX)]
    except FileNotFoundError:
        return []


def _peek(path: Path, *, whole: bool = False) -> dict[str, Any] | None:
    """Return the description of a checkpoint, without a look at its arrays; or None if it has none, or is not whole."""
    try:
        with safetensors.opened(path) as file:
            if whole:
                file.names()
            description = safetensors.from_json(file.metadata[safetensors.TEXT]) if file.has_checksum else None
    except (OSError, ValueError, KeyError, RecursionError):
        return None
    return description if isinstance(description, dict) else None


def _age(path: Path, description: dict[str, Any] | None) -> tuple[int, int, str]:
    """Return what puts files in the order in which they were saved; where one does not say it, when it was changed."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        changed = 0
    saved = None if description is None else description.get("saved")
    return saved if type(saved) is int and 0 <= saved <= _LAST_TIME else changed, changed, path.name


def _time_of_save(folder: Path) -> int:
    """Return when a checkpoint is saved: in one folder the later one is of a later time, whatever the clock says."""
    changed = [(_age(path, None), path) for path in _files(folder)]
    last = max(changed, default=None)
    return max(time.time_ns(), 0 if last is None else min(_age(last[1], _peek(last[1]))[0] + 1, _LAST_TIME))


def _delete_old(target: Path, keep: int) -> None:
    """Delete all but the newest checkpoints of a folder, of which one was just written. Failures are warnings."""
    try:
        if not _is_readable(_peek(target, whole=True)):
            warnings.warn(f"{target} can't be read again, so nothing was deleted", stacklevel=3)
            return
        others = []
        for path in _files(target.parent):
            if path.name != target.name and _NUMBERED.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
                description = _peek(path, whole=True)
                if _is_readable(description):
                    others.append((_age(path, description), path))
        for _, old in sorted(others, reverse=True)[keep - 1 :]:
            old.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(f"{target} was saved, but not all old checkpoints were deleted: {error}", stacklevel=3)


def _is_readable(description: dict[str, Any] | None) -> bool:
    """Return whether a description is one of this version."""
    return (
        description is not None
        and description.get("version") == _VERSION
        and all(isinstance(description.get(key), kind) for key, kind in _PARTS.items())
    )


def _describe(opt: Optimizer) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """Return the arrays of an optimizer, not copied, and all else that is to be saved of it."""
    snapshot = opt._snapshot()
    weights = zip(opt._names, opt._stepper.weights(), strict=True)
    arrays = {f"params/{name}": np.asarray(weight) for name, weight in weights}
    # Most parameters have counts, and names of arrays, like the one before: these are left out.
    counts: dict[str, dict[str, Any]] = {}
    before: tuple[Any, ...] = (0, 0, ())
    for name in chain.from_iterable(names for _, names in snapshot.groups):
        count, state = snapshot.counts[name], snapshot.state[name]
        of_name = (count, snapshot.averaged[name], tuple(state)) if count else (0, 0, ())
        for key in of_name[2]:
            arrays[f"state/{name}/{key}"] = np.asarray(state[key])
        if of_name != before:
            averaged = {"averaged": of_name[1]} if "average" in state else {}
            counts[name] = {"step": count, **averaged, "arrays": of_name[2]}
            before = of_name
    accumulated: dict[str, Any] | None = None
    if snapshot.accumulated is not None:
        batches, weight, sums, squares = snapshot.accumulated
        arrays |= {f"accumulated/{name}": np.asarray(array) for name, array in sums.items()}
        accumulated = {"batches": batches, "weight": weight, "sums": list(sums), "squares": squares}
    groups = []
    for i, (group, names) in enumerate(snapshot.groups):
        values = {
            key: _scheduled(value, f"param_groups/{i}/{key}", arrays) for key, value in group.hyperparameters.items()
        }
        groups.append({"params": names, "name": group.name, "hyperparameters": values})
    told = [
        {**entry, "schedule": _scheduled(entry["schedule"], f"reports/{i}", arrays)}
        for i, entry in enumerate(reports.save(snapshot.reports))
    ]
    description = {
        "optimizer": snapshot.optimizer,
        "steps": snapshot.steps,
        "skipped": snapshot.skipped,
        "accumulated": accumulated,
        "counts": counts,
        "param_groups": groups,
        "reports": told,
        "noise_scale": None if snapshot.noise is None else snapshot.noise.state(),
    }
    return arrays, description


def _scheduled(value: Any, name: str, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    if isinstance(value, Schedule):
        return user_values.compact(encode(value), name, arrays)
    return (
        [_scheduled(part, f"{name}/{i}", arrays) for i, part in enumerate(value)] if isinstance(value, tuple) else value
    )


def _hyperparameters(group: Mapping[str, Any], reader: user_values.Reader) -> dict[str, Any]:
    def value(given: Any) -> Any:
        if isinstance(given, dict):
            return decode(reader.expanded(given))
        return tuple(value(part) for part in given) if isinstance(given, list) else given

    named = {} if group["name"] is None else {"name": group["name"]}
    values = {key: value(given) for key, given in group["hyperparameters"].items()}
    return {"params": group["params"], **named, **values}


@contextmanager
def _understanding(file: safetensors.File) -> Iterator[None]:
    """Whatever goes wrong in here is damage: a description is made of values of any kind, or too many of them."""
    try:
        yield
    except (DamagedError, OSError):
        raise
    except Exception as error:
        said = str(error) if isinstance(error, ValueError) else repr(error)
        raise file.damaged(f"its description can't be read ({said})") from error


def _read(file: safetensors.File) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a checkpoint holds beside arrays, as it is written and as a state dict, if the file is whole."""
    text = file.text()
    with _understanding(file):
        description = safetensors.from_json(text)
    if not isinstance(description, dict) or "version" not in description:
        raise file.damaged("its description has no version")
    if description["version"] != _VERSION:
        raise ValueError(f"{file.path} is of version {description['version']!r}; known is {_VERSION}")
    for key, kind in _PARTS.items():
        if not isinstance(description.get(key), kind):
            raise file.damaged(f"its description has no {key!r} of type {kind.__name__}")
    with _understanding(file):
        return description, _state_dict(file, description)


def _extra(file: safetensors.File, description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of one's own."""
    reader = user_values.Reader(file)
    with _understanding(file):
        return {name: reader.rich(value) for name, value in description["extra"].items()}


def _state_dict(file: safetensors.File, description: Mapping[str, Any]) -> dict[str, Any]:
    """Return a description as a state dict, with what the header says of the arrays in their place."""
    reader = user_values.Reader(file)
    state: dict[str, dict[str, Any]] = {}
    changes = description["counts"]
    counts: dict[str, int] = {"step": 0}
    keys: list[str] = []
    for name in chain.from_iterable(group["params"] for group in description["param_groups"]):
        if name in changes:
            counts = {key: count for key, count in changes[name].items() if key != "arrays"}
            keys = changes[name]["arrays"]
        if counts["step"]:
            state[name] = {**counts, **{key: file.entry(f"state/{name}/{key}") for key in keys}}
    saved = {
        "optimizer": description["optimizer"],
        "steps": description["steps"],
        "param_groups": [_hyperparameters(group, reader) for group in description["param_groups"]],
        "state": state,
        "reports": [
            {**entry, "schedule": decode(reader.expanded(entry["schedule"]))} for entry in description["reports"]
        ],
    }
    saved["skipped"], saved["skipped_in_a_row"] = description["skipped"]
    if description.get("noise_scale") is not None:
        saved["noise_scale"] = description["noise_scale"]
    if (accumulated := description.get("accumulated")) is not None:
        sums = {name: file.entry(f"accumulated/{name}") for name in accumulated["sums"]}
        saved["accumulated"] = {**accumulated, "sums": sums}
    return saved


def _read_arrays(file: safetensors.File, loaded: Loaded, weights: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Read the arrays whose entries are in what is loaded, and put them in their places."""
    mappings: list[tuple[str | None, dict[str, Any]]] = list(loaded.state.items())
    if loaded.accumulated is not None:
        mappings.append((None, loaded.accumulated.sums))
    found = [
        (mapping, key, value, weights[key if name is None else name])
        for name, mapping in mappings
        for key, value in mapping.items()
        if isinstance(value, Entry)
    ]
    small, large = [], []
    for arrays, key, entry, weight in found:
        if entry.is_small and weight.flags.c_contiguous:
            small.append((arrays, key, entry))
        else:
            array = arrays[key] = empty_like(weight)
            large.append((entry, array))
    for (arrays, key, _), array in zip(small, file.small_arrays([entry for _, _, entry in small]), strict=True):
        arrays[key] = array
    file.fill(large)


def _check_weight(path: Path, name: str, entry: Entry, weight: np.ndarray[Any, Any]) -> None:
    if entry.shape != weight.shape:
        raise ValueError(f"{path}: params/{name} has shape {entry.shape}, the parameter {name!r} has {weight.shape}")
    if entry.dtype != weight.dtype:
        raise TypeError(f"{path}: params/{name} has dtype {entry.dtype}, the parameter {name!r} has {weight.dtype}")
    if not weight.flags.writeable:
        raise ValueError(f"the parameter {name!r} is read-only")
