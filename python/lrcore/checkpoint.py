"""Checkpoints: an optimizer and its parameters in one file that is written whole or not at all."""

from __future__ import annotations

import json
import re
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lrcore import _own_values, _safetensors, _whole_file
from lrcore._ranges import check_count
from lrcore._safetensors import DamagedError
from lrcore.optim import reports
from lrcore.schedules.schedule import Schedule
from lrcore.schedules.serial import decode, encode

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from lrcore.optim import Optimizer

    StrPath = str | os.PathLike[str]

__all__ = ["DamagedError", "latest", "load", "save"]


def __dir__() -> list[str]:
    return sorted(__all__)


SUFFIX = ".safetensors"
_VERSION = 1
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
    moment leaves either the checkpoint before or this one. Arrays are written from where they lie: none is copied.

    Args:
        path: The file, or a folder: a path without a suffix, or one that is a folder already. In a folder it is
            ``step-<steps>.safetensors``.
        opt: The optimizer.
        keep: How many checkpoints stay: this one, and of the files in the folder whose names differ from it in their
            digits alone those that were saved last. The others are deleted. By default all stay.
        extra: Values of your own, by name: numbers, strings, bytes, None, NumPy arrays, PyTorch's tensors on the CPU,
            and lists, tuples and dicts of these, whose keys are strings or integers, such as
            ``epoch=3, rng=generator.bit_generator.state``. Tensors come back as NumPy arrays, NumPy's scalars as
            Python's numbers.

    Returns:
        The path of the file.

    Raises:
        TypeError: If a value can't be saved.
        ValueError: If ``keep`` is less than 1.
        RuntimeError: If the weights are averages now, within
            :meth:`Optimizer.averaged <lrcore.optim.Optimizer.averaged>`.
        OSError: If the file can't be written. What was there is there still.

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
    if keep is not None:
        keep = check_count("keep", keep, least=1)
    target = Path(path)
    with opt._lock:
        opt._refuse_if_swapped()
        if target.is_dir() or not target.suffix:
            target = target / f"step-{opt.steps:010d}{SUFFIX}"
        _whole_file.make_folder(target.parent)
        _whole_file.remove_left_over(target.parent, SUFFIX)
        arrays, description = _describe(opt)
        plain = {name: _own_values.plain(value, f"extra/{name}", arrays) for name, value in extra.items()}
        # In one folder the later one is of a later time, whatever the clock says.
        last = max(target.parent.glob(f"*{SUFFIX}"), key=_changed, default=None)
        saved = max(time.time_ns(), 0 if last is None else _saved(last) + 1)
        description = {"version": _VERSION, "saved": saved, **description, "extra": plain}
        _safetensors.write(target, arrays, json.dumps(description))
    if keep is not None:
        for old in _newest_first(_siblings(target))[keep - 1 :]:
            old.unlink(missing_ok=True)
    return target


def load(path: StrPath, opt: Optimizer, *, strict: bool = True) -> dict[str, Any]:
    """Read a checkpoint into an optimizer and its weights: all of it, or on an error nothing.

    Parameters are matched by name. Weights are written in place; the run then goes on with the same bits as if it had
    never stopped, with any number of threads and any instruction set. The file is read twice: once to find damage,
    before anything is changed, and once for the numbers, which are read to where they belong.

    Args:
        path: A file that :func:`save` wrote, or a folder, of which the :func:`latest` is read.
        opt: The optimizer, made of the same parameters.
        strict: Whether parameters, groups and state must be the same on both sides. If not, what both sides have is
            loaded.

    Returns:
        The values of one's own that were saved, by name.

    Raises:
        lrcore.checkpoint.DamagedError: If the file is not as it was written; a ``ValueError``.
        ValueError: If it does not match the optimizer, or was written by a newer version.
        TypeError: If an array has another dtype.
        OSError: If it can't be read. Only if that is so the second time, the optimizer is left with a part of it.
    """
    path = Path(path)
    if path.is_dir():
        folder, found_path = path, latest(path)
        if found_path is None:
            raise FileNotFoundError(f"{folder} has no whole checkpoint")
        path = found_path
    with _safetensors.opened(path) as file:
        description, saved = _read(file)
        extra = {name: _own_values.rich(value, file) for name, value in description["extra"].items()}
        with opt._lock:
            opt._refuse_if_swapped()
            weights = dict(zip(opt._names, opt._stepper.weights(), strict=True))
            known = set(file.names())
            found = [name for name in weights if f"params/{name}" in known]
            if strict and len(found) < len(weights):
                raise ValueError(f"{path} has no weights of {sorted(weights.keys() - set(found))}")
            for name in found:
                _check_weight(file, name, weights[name])
            opt.load_state_dict(saved, strict)
            for name in found:
                file.fill(f"params/{name}", weights[name])
            if (waiting := opt._stepper.accumulated) is not None:
                for index, array in waiting[2]:
                    file.fill(f"accumulated/{opt._names[index]}", array)
            for name, arrays in zip(opt._names, opt._stepper.states, strict=True):
                if name in saved["state"]:
                    for key, array in arrays.items():
                        file.fill(f"state/{name}/{key}", array)
    return extra


def latest(folder: StrPath) -> Path | None:
    """Return the newest whole checkpoint of a folder, or None if there is none.

    Newest is what was saved last, as the files say themselves, so that it is the same in a copy of the folder. A file
    that is damaged, unfinished or no checkpoint is passed over, with a warning.

    Args:
        folder: Where to look for ``*.safetensors``.

    Examples:
        >>> import lrcore, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     print(lrcore.latest(folder))
        None
    """
    folder = Path(folder)
    for partial in _whole_file.unfinished(folder, SUFFIX):
        warnings.warn(f"{partial} is unfinished: it is being written, or its process was stopped", stacklevel=2)
    for path in _newest_first(folder.glob(f"*{SUFFIX}")):
        try:
            with _safetensors.opened(path) as file:
                _read(file)
        except (ValueError, OSError) as error:
            warnings.warn(f"passed over: {error}", stacklevel=2)
        else:
            return path
    return None


def _siblings(path: Path) -> list[Path]:
    """The other files of a folder whose names differ in their digits alone."""

    def family(name: str) -> str:
        return re.sub(r"\d+", "0", name)

    others = (other for other in path.parent.iterdir() if other.name != path.name and other.is_file())
    return [other for other in others if family(other.name) == family(path.name)]


def _newest_first(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: (_saved(path), path.name), reverse=True)


def _saved(path: Path) -> int:
    """When a checkpoint was saved; for a file that does not say it, when it was changed."""
    try:
        with _safetensors.opened(path) as file:
            return int(json.loads(file.metadata[_safetensors.TEXT])["saved"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return _changed(path)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _describe(opt: Optimizer) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """Return the arrays of an optimizer, not copied, and all else that is to be saved of it."""
    snapshot = opt._snapshot()
    weights = zip(opt._names, opt._stepper.weights(), strict=True)
    arrays = {f"params/{name}": np.asarray(weight) for name, weight in weights}
    counts = {}
    for name, count in snapshot.counts.items():
        if count > 0:
            arrays |= {f"state/{name}/{key}": np.asarray(array) for key, array in snapshot.state[name].items()}
            averaged = {"averaged": snapshot.averaged[name]} if "average" in snapshot.state[name] else {}
            counts[name] = {"step": count, **averaged, "arrays": list(snapshot.state[name])}
    accumulated: dict[str, Any] | None = None
    if snapshot.accumulated is not None:
        batches, weight, sums, squares = snapshot.accumulated
        arrays |= {f"accumulated/{name}": np.asarray(array) for name, array in sums.items()}
        accumulated = {"batches": batches, "weight": weight, "sums": list(sums), "squares": squares}
    groups = []
    for group, names in snapshot.groups:
        values = {key: _scheduled(value) for key, value in group.hyperparameters.items()}
        groups.append({"params": names, "name": group.name, "hyperparameters": values})
    description = {
        "optimizer": snapshot.optimizer,
        "steps": snapshot.steps,
        "skipped": snapshot.skipped,
        "accumulated": accumulated,
        "counts": counts,
        "param_groups": groups,
        "reports": [{**entry, "schedule": encode(entry["schedule"])} for entry in reports.save(snapshot.reports)],
        "noise_scale": None if snapshot.noise is None else snapshot.noise.state(),
    }
    return arrays, description


def _scheduled(value: Any) -> Any:
    if isinstance(value, Schedule):
        return encode(value)
    return [_scheduled(part) for part in value] if isinstance(value, tuple) else value


def _hyperparameters(group: Mapping[str, Any]) -> dict[str, Any]:
    def value(given: Any) -> Any:
        if isinstance(given, dict):
            return decode(given)
        return tuple(value(part) for part in given) if isinstance(given, list) else given

    named = {} if group["name"] is None else {"name": group["name"]}
    values = {key: value(given) for key, given in group["hyperparameters"].items()}
    return {"params": group["params"], **named, **values}


def _read(file: _safetensors.File) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a checkpoint holds beside arrays, as it is written and as a state dict, if the file is whole."""
    text = file.text()
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise file.damaged(f"its description can't be read ({error})") from error
    if not isinstance(description, dict) or "version" not in description:
        raise file.damaged("its description has no version")
    if description["version"] != _VERSION:
        raise ValueError(f"{file.path} is of version {description['version']!r}; known is {_VERSION}")
    for key, kind in _PARTS.items():
        if not isinstance(description.get(key), kind):
            raise file.damaged(f"its description has no {key!r} of type {kind.__name__}")
    try:
        return description, _state_dict(file, description)
    except (AttributeError, KeyError, TypeError) as error:
        raise file.damaged(f"its description can't be read ({error!r})") from error


def _state_dict(file: _safetensors.File, description: Mapping[str, Any]) -> dict[str, Any]:
    """Return a description as a state dict, with arrays of zeros, which take no memory, for those of the state."""
    state: dict[str, dict[str, Any]] = {}
    for name, counts in description["counts"].items():
        state[name] = {key: count for key, count in counts.items() if key != "arrays"}
        state[name] |= {key: _zeros(file, f"state/{name}/{key}") for key in counts["arrays"]}
    saved = {
        "optimizer": description["optimizer"],
        "steps": description["steps"],
        "param_groups": [_hyperparameters(group) for group in description["param_groups"]],
        "state": state,
        "reports": [{**entry, "schedule": decode(entry["schedule"])} for entry in description["reports"]],
    }
    saved["skipped"], saved["skipped_in_a_row"] = description["skipped"]
    if description.get("noise_scale") is not None:
        saved["noise_scale"] = description["noise_scale"]
    if (accumulated := description.get("accumulated")) is not None:
        sums = {name: _zeros(file, f"accumulated/{name}") for name in accumulated["sums"]}
        saved["accumulated"] = {**accumulated, "sums": sums}
    return saved


def _zeros(file: _safetensors.File, name: str) -> np.ndarray[Any, Any]:
    return np.broadcast_to(np.zeros((), file.dtype(name)), file.shape(name))


def _check_weight(file: _safetensors.File, name: str, weight: np.ndarray[Any, Any]) -> None:
    place, shape, dtype = f"params/{name}", file.shape(f"params/{name}"), file.dtype(f"params/{name}")
    if shape != weight.shape:
        raise ValueError(f"{file.path}: {place} has shape {shape}, the parameter {name!r} has {weight.shape}")
    if dtype != weight.dtype:
        raise TypeError(f"{file.path}: {place} has dtype {dtype}, the parameter {name!r} has {weight.dtype}")
    if not weight.flags.writeable:
        raise ValueError(f"the parameter {name!r} is read-only")
