"""Checkpoints: an optimizer and its parameters in one file that is written whole or not at all."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lrcore._collection import without_collections
from lrcore._ranges import check_count
from lrcore.checkpoint import atomic_file, safetensors, user_values
from lrcore.checkpoint.description import VERSION, describe, read, read_extra
from lrcore.checkpoint.folder import SUFFIX, age, delete_old, files, peek, time_of_save
from lrcore.checkpoint.safetensors import DamagedError, Entry
from lrcore.optim import Optimizer
from lrcore.optim.allocation import empty_like
from lrcore.optim.matching import match
from lrcore.optim.state import export_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lrcore.optim.state import OptimizerState

    Array = np.ndarray[Any, Any]
    StrPath = str | os.PathLike[str]

__all__ = ["DamagedError", "latest", "load", "save"]


def __dir__() -> list[str]:
    return sorted(__all__)


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
        arrays = {f"params/{name}": np.asarray(weight) for name, weight in _weights(opt).items()}
        description = describe(export_state(opt), arrays)
        plain = {name: user_values.plain(value, f"extra/{name}", arrays) for name, value in extra.items()}
        description = {"version": VERSION, "saved": time_of_save(target.parent), **description, "extra": plain}
        safetensors.write(target, arrays, json.dumps(description))
    if keep is not None:
        delete_old(target, keep)
    return target


def _weights(opt: Optimizer) -> dict[str, Array]:
    return dict(zip(opt._names, opt._stepper.weights(), strict=True))


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
        description, saved = read(file)
        extra = read_extra(file, description)
        with opt._lock:
            opt._refuse_if_swapped()
            weights = _weights(opt)
            found = _matched_weights(file, weights, strict=strict)
            matched = match(saved, opt, strict=strict, schedules=schedules, unread=Entry)
            _read_arrays(file, matched.state, weights)
            opt._go_on_from(matched, lambda done: file.fill(found, done))
    return extra


def _matched_weights(
    file: safetensors.File, weights: Mapping[str, Array], *, strict: bool
) -> list[tuple[Entry, Array]]:
    """Return the weights that the file has, each with its entry, or raise if one can't be read into its array."""
    known = file.names()
    missing = [name for name in weights if f"params/{name}" not in known]
    if strict and missing:
        raise ValueError(f"{file.path} has no weights of {missing}")
    names = [name for name in weights if f"params/{name}" in known] if missing else list(weights)
    entries = file.entries([f"params/{name}" for name in names])
    own = [weights[name] for name in names]
    is_alike = [entry.shape for entry in entries] == [weight.shape for weight in own]
    is_alike = is_alike and [entry.dtype for entry in entries] == [weight.dtype for weight in own]
    if not (is_alike and all(weight.flags.writeable for weight in own)):
        _refuse_weights(file, names, entries, own)
    return list(zip(entries, own, strict=True))


def _refuse_weights(
    file: safetensors.File, names: Sequence[str], entries: Sequence[Entry], weights: Sequence[Array]
) -> None:
    """Raise for the first weight that can't be read."""
    for name, entry, weight in zip(names, entries, weights, strict=True):
        place = f"{file.path}: params/{name}"
        if entry.shape != weight.shape:
            raise ValueError(f"{place} has shape {entry.shape}, the parameter {name!r} has {weight.shape}")
        if entry.dtype != weight.dtype:
            raise TypeError(f"{place} has dtype {entry.dtype}, the parameter {name!r} has {weight.dtype}")
        if not weight.flags.writeable:
            raise ValueError(f"the parameter {name!r} is read-only")


def _read_arrays(file: safetensors.File, state: OptimizerState, weights: Mapping[str, Array]) -> None:
    """Put arrays, read, in the place of their entries in a state."""
    small: list[tuple[dict[str, Any], list[str]]] = []
    large: list[tuple[Entry, Array]] = []
    columns: Mapping[str, dict[str, Any]] = state.param_arrays
    for column in columns.values():
        names = [name for name, entry in column.items() if type(entry) is Entry]
        entries = [column[name] for name in names]
        packed: list[str] = []
        for name, entry, is_small in zip(names, entries, safetensors.are_small(entries), strict=True):
            weight = weights[name]
            if is_small and weight.flags.c_contiguous:
                packed.append(name)
                continue
            is_like_weight = entry.shape == weight.shape and entry.dtype == weight.dtype
            array = column[name] = empty_like(weight) if is_like_weight else np.empty(entry.shape, entry.dtype)
            large.append((entry, array))
        small.append((column, packed))
    # All of them at once: arrays of different fields lie side by side in the file.
    arrays = iter(file.small_arrays([column[name] for column, names in small for name in names]))
    for column, names in small:
        column.update(zip(names, arrays, strict=False))
    file.fill(large)


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
    for path in sorted(files(place), key=lambda path: age(path, peek(path)), reverse=True):
        try:
            with without_collections(), safetensors.opened(path) as file:
                read(file)
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
