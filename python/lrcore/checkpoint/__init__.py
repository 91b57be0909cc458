"""Checkpoints: an optimizer and its parameters in one file, written atomically."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np

from lrcore._collection import without_collections
from lrcore._ranges import check_count
from lrcore.checkpoint import atomic_file, safetensors, user_values
from lrcore.checkpoint.description import VERSION, describe, read, read_extra, read_state
from lrcore.checkpoint.folder import SUFFIX, age, delete_old, files, peek, time_of_save
from lrcore.checkpoint.safetensors import DamagedError
from lrcore.optim import Optimizer
from lrcore.optim.matching import match
from lrcore.optim.state import export_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    Array = np.ndarray[Any, Any]
    StrPath = str | os.PathLike[str]

__all__ = ["DamagedError", "latest", "load", "save"]


def __dir__() -> list[str]:
    return sorted(__all__)


def save(path: StrPath, opt: Optimizer, *, keep: int | None = None, **extra: Any) -> Path:
    """Save weights, state, averages, counters and hyperparameters, with their schedules, and values of your own.

    The file is written under another name, flushed to the disk and renamed, so a process that is killed at any time
    leaves either the old checkpoint or the new one. Arrays are not copied, but for a buffer of a few MiB.

    Args:
        path: The file, if the name ends in ``.safetensors``; any other path is a folder, created if necessary, in which
            the file is ``step-<steps>.safetensors``. Symbolic links are followed.
        opt: The optimizer, with its parameters.
        keep: The number of checkpoints to keep in the folder, at least 1: this one, and the most recent of the others.
            Only complete checkpoints named ``step-<digits>.safetensors`` that this function wrote are deleted, and
            only after the new one could be read. By default all are kept.
        extra: Values of your own, by name: numbers, strings, bytes, None, NumPy arrays, PyTorch's tensors on the CPU,
            and lists, tuples and dicts of these, with strings or integers as keys, such as
            ``epoch=3, rng=generator.bit_generator.state``. Tensors are loaded as NumPy arrays, NumPy's scalars as
            Python's numbers.

    Returns:
        The path of the file.

    Raises:
        TypeError: If a value can't be saved, the path is not a path, or the optimizer not one of lrcore.
        ValueError: If ``keep`` is less than 1, or given with a file; if the file could not be read, since its
            description would be too large or values are nested too deep. Nothing is written or deleted then.
        RuntimeError: Within :meth:`Optimizer.averaged <lrcore.optim.Optimizer.averaged>`.
        OSError: If the file can't be written. An existing file is unchanged.

    Warns:
        UserWarning: If the file was written, but flushing its name to the disk or deleting old checkpoints failed.

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
        ``state/<parameter>/…`` and ``extra/…``. Unlike a pickle it contains no code. Pending accumulated gradients are
        saved too.
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
    """Load a checkpoint into an optimizer and its weights, completely or, on an error or Ctrl-C, not at all.

    Parameters are matched by name, and weights are written in place. The run continues with the same bits as without
    the interruption, with any number of threads and any instruction set. The file is read twice: to verify its checksum
    before anything is changed, and to fill the arrays. Ctrl-C is handled after all weights are read.

    Args:
        path: A file of :func:`save`, whose name ends in ``.safetensors``, or a folder, whose :func:`latest` checkpoint
            is loaded.
        opt: The optimizer, created with the same parameters.
        strict: Whether parameters, groups and state must be the same on both sides. If not, what both sides have is
            loaded.
        schedules: The schedules to use, for each hyperparameter with a schedule on either side: ``"saved"``, those of
            the checkpoint, or ``"program"``, those of the optimizer, such as to prolong a run. By default those of the
            checkpoint, with a warning where they differ.

    Returns:
        The saved values of your own, by name.

    Raises:
        lrcore.checkpoint.DamagedError: If the file is damaged; a ``ValueError``.
        ValueError: If it does not match the optimizer, or has an unknown version.
        TypeError: If an array has another dtype, the path is not a path, or the optimizer not one of lrcore.
        OSError: If it can't be read. If that happens while weights are filled, some of them are overwritten.

    Warns:
        UserWarning: If a saved schedule replaces a different one of the program, and ``schedules`` is not given.
    """
    place, is_file = _place("load", path, opt)
    if not is_file:
        found_path = latest(place)
        if found_path is None:
            raise FileNotFoundError(f"{place} has no whole checkpoint")
        place = found_path
    with without_collections(), safetensors.opened(place) as file:
        description = read(file)
        extra = read_extra(file, description)
        with opt._lock:
            opt._refuse_if_swapped()
            weights = _weights(opt)
            rows, own = _matched_weights(file, weights, strict=strict)
            saved = read_state(file, description, weights)
            matched = match(saved, opt, strict=strict, schedules=schedules, copies=False)
            opt._go_on_from(matched, lambda done: file.fill(rows, own, done))
    return extra


def _matched_weights(
    file: safetensors.File, weights: Mapping[str, Array], *, strict: bool
) -> tuple[Array, list[Array]]:
    """Return the rows of weights in the file and the arrays to fill, or raise if one can't be read into its array."""
    known = file.names()
    keys = {f"params/{name}": name for name in weights}
    if not keys.keys() <= known:
        missing = [name for key, name in keys.items() if key not in known]
        if strict:
            raise ValueError(f"{file.path} has no weights of {missing}")
        keys = {key: name for key, name in keys.items() if key in known}
    rows = file.rows(list(keys))
    arrays = [weights[name] for name in keys.values()]
    are_fit = file.are_like(rows, arrays) & np.array([array.flags.writeable for array in arrays], bool)
    if not are_fit.all():
        i = int(np.argmin(are_fit))
        _refuse_weight(file, list(keys.values())[i], file.layout(rows[i]), arrays[i])
    return rows, arrays


def _refuse_weight(file: safetensors.File, name: str, layout: safetensors.Layout, weight: Array) -> NoReturn:
    place = f"{file.path}: params/{name}"
    if layout.shape != weight.shape:
        raise ValueError(f"{place} has shape {layout.shape}, the parameter {name!r} has {weight.shape}")
    if layout.dtype != weight.dtype:
        raise TypeError(f"{place} has dtype {layout.dtype}, the parameter {name!r} has {weight.dtype}")
    raise ValueError(f"the parameter {name!r} is read-only")


def latest(folder: StrPath) -> Path | None:
    """Return the newest complete checkpoint of a folder, or None if there is none.

    The time of saving is stored in the files, so the result is the same in a copy of the folder. Files that are
    damaged, unfinished or not checkpoints are skipped with a warning.

    Args:
        folder: The folder of ``*.safetensors`` files. If it does not exist, there is no checkpoint.

    Raises:
        ValueError: If the name is that of a file: it ends in ``.safetensors``.
        OSError: If the folder can't be read, or is a file.

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
                read_state(file, read(file), {})
        except (ValueError, OSError) as error:
            warnings.warn(f"passed over: {error}", stacklevel=2)
        else:
            return path
    return None


_NO_OPTIMIZER: Any = object()


def _place(function: str, path: Any, opt: Any = _NO_OPTIMIZER) -> tuple[Path, bool]:
    """Return a path, and whether its name is that of a file: whether it ends in ``.safetensors``.

    Raises:
        TypeError: If it is not a path, or the optimizer not one of lrcore.
        OSError: If a file is expected and a folder exists, or the other way round.
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
    """Return how to save something that is not an optimizer of NumPy or JAX arrays."""
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
