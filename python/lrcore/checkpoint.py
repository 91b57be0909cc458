"""Checkpoints: an optimizer and its parameters in one file that is written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lrcore import _safetensors
from lrcore._ranges import check_count
from lrcore._safetensors import DamagedError
from lrcore.schedules.schedule import Schedule
from lrcore.schedules.serial import decode, encode

if TYPE_CHECKING:
    from lrcore.optim import Optimizer

    StrPath = str | os.PathLike[str]

__all__ = ["DamagedError", "latest", "load", "save"]

SUFFIX = ".safetensors"
_KEY = "lrcore"
_VERSION = 1


def save(path: StrPath, opt: Optimizer, *, keep: int | None = None, **extra: Any) -> Path:
    """Write weights, state, averages, counters and hyperparameters, schedules too, and whatever else a run needs.

    The file is written beside its place, flushed to the disk and renamed, so that a process that is killed at any
    moment leaves either the checkpoint before or this one. Arrays are written from where they lie: none is copied.

    Args:
        path: The file, or a folder: a path without a suffix, or one that is a folder already. In a folder it is
            ``step-<steps>.safetensors``.
        opt: The optimizer.
        keep: How many checkpoints stay, this one included: of the files in the folder whose names differ from this
            one's in their digits alone, the oldest are deleted. By default all stay.
        extra: Values of your own, by name: numbers, strings, None, NumPy arrays, and lists, tuples and dicts with
            string keys of these, such as ``epoch=3, rng=generator.bit_generator.state``.

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
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(target)
        arrays, description = _describe(opt)
        plain = {name: _plain(value, f"extra/{name}", arrays) for name, value in extra.items()}
        metadata = {_KEY: json.dumps({"version": _VERSION, **description, "extra": plain})}
        _safetensors.write(target, arrays, metadata)
    if keep is not None:
        for old in _siblings(target)[keep:]:
            old.unlink(missing_ok=True)
    return target


def load(path: StrPath, opt: Optimizer, *, strict: bool = True) -> dict[str, Any]:
    """Read a checkpoint into an optimizer and its weights: all of it, or on an error nothing.

    Parameters are matched by name. Weights are written in place; the run then goes on with the same bits as if it had
    never stopped, with any number of threads and any instruction set.

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
        OSError: If it can't be read.
    """
    path = Path(path)
    if path.is_dir():
        folder, found_path = path, latest(path)
        if found_path is None:
            raise FileNotFoundError(f"{folder} has no whole checkpoint")
        path = found_path
    arrays, metadata = _safetensors.read(path)
    description = _description(path, metadata)
    state: dict[str, dict[str, Any]] = {}
    for name, counts in description["counts"].items():
        prefix = f"state/{name}/"
        state[name] = dict(counts)
        state[name] |= {key[len(prefix) :]: array for key, array in arrays.items() if key.startswith(prefix)}
    saved = {
        "optimizer": description["optimizer"],
        "steps": description["steps"],
        "param_groups": [_hyperparameters(group) for group in description["param_groups"]],
        "state": state,
        "reports": [{**entry, "schedule": decode(entry["schedule"])} for entry in description.get("reports", [])],
    }
    saved["skipped"], saved["skipped_in_a_row"] = description["skipped"]
    if description["noise_scale"] is not None:
        saved["noise_scale"] = description["noise_scale"]
    if (accumulated := description["accumulated"]) is not None:
        sums = {name: arrays[f"accumulated/{name}"] for name in accumulated["sums"]}
        saved["accumulated"] = {**accumulated, "sums": sums}
    with opt._lock:
        opt._refuse_if_swapped()
        weights = dict(zip(opt._names, opt._stepper.weights(), strict=True))
        found = {name: arrays[f"params/{name}"] for name in weights if f"params/{name}" in arrays}
        if strict and found.keys() != weights.keys():
            raise ValueError(f"{path} has no weights of {sorted(weights.keys() - found.keys())}")
        for name, array in found.items():
            _check_weight(f"{path}: params/{name}", array, name, weights[name])
        extra = {name: _rich(value, arrays) for name, value in description["extra"].items()}
        opt.load_state_dict(saved, strict)
        for name, array in found.items():
            weights[name][...] = array
    return extra


def latest(folder: StrPath) -> Path | None:
    """Return the newest whole checkpoint of a folder, or None if there is none.

    Newest is what was written last. A file that is damaged or unfinished is passed over, with a warning.

    Args:
        folder: Where to look for ``*.safetensors``.

    Examples:
        >>> import lrcore, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     print(lrcore.latest(folder))
        None
    """
    folder = Path(folder)
    for partial in folder.glob(f".*{SUFFIX}.*.partial"):
        warnings.warn(f"{partial} is unfinished: its process was stopped while it was saving", stacklevel=2)
    for path in sorted(folder.glob(f"*{SUFFIX}"), key=_age, reverse=True):
        try:
            _description(path, _safetensors.read(path).metadata)
        except (ValueError, OSError) as error:
            warnings.warn(f"passed over: {error}", stacklevel=2)
        else:
            return path
    return None


def _age(path: Path) -> tuple[int, str]:
    try:
        return path.stat().st_mtime_ns, path.name
    except FileNotFoundError:
        return 0, path.name


def _siblings(path: Path) -> list[Path]:
    """The checkpoints of a folder whose names differ in their digits alone, the newest first."""
    pattern = re.compile(re.sub(r"(\\?\d)+", r"\\d+", re.escape(path.name)))
    alike = (other for other in path.parent.iterdir() if pattern.fullmatch(other.name))
    return sorted(alike, key=_age, reverse=True)


def _remove_left_over(target: Path) -> None:
    """Delete what processes that are gone left when they were stopped while saving here."""
    for partial in target.parent.glob(f".*{SUFFIX}.*.partial"):
        process = int(match[1]) if (match := re.search(r"\.(\d+)\.partial$", partial.name)) else 0
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            partial.unlink(missing_ok=True)
        except (PermissionError, OSError, OverflowError):
            continue


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
            counts[name] = {"step": count, **averaged}
    accumulated: dict[str, Any] | None = None
    if snapshot.accumulated is not None:
        batches, sums, squares = snapshot.accumulated
        arrays |= {f"accumulated/{name}": np.asarray(array) for name, array in sums.items()}
        accumulated = {"batches": batches, "sums": list(sums), "squares": squares}
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
        "reports": [{**entry, "schedule": encode(entry["schedule"])} for entry in snapshot.reports.state()],
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


def _description(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if _KEY not in metadata:
        raise ValueError(f"{path} is no checkpoint of lrcore, though a safetensors file")
    description: dict[str, Any] = json.loads(metadata[_KEY])
    if description["version"] != _VERSION:
        raise ValueError(f"{path} is of version {description['version']!r}; known is {_VERSION}")
    return description


def _check_weight(place: str, array: np.ndarray[Any, Any], name: str, weight: np.ndarray[Any, Any]) -> None:
    if array.shape != weight.shape:
        raise ValueError(f"{place} has shape {array.shape}, the parameter {name!r} has {weight.shape}")
    if array.dtype != weight.dtype:
        raise TypeError(f"{place} has dtype {array.dtype}, the parameter {name!r} has {weight.dtype}")
    if not weight.flags.writeable:
        raise ValueError(f"the parameter {name!r} is read-only")


# Values of one's own. What JSON can't tell apart is wrapped: {"tuple": [...]}, {"array": name}, {"dict": {...}}.


def _plain(value: Any, name: str, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    """Return a value as JSON has it; arrays are put aside under their names."""
    if isinstance(value, np.generic):
        value = value.item() if _safetensors.dtype_name(value.dtype) else value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        if _safetensors.dtype_name(value.dtype) is None:
            raise TypeError(f"{name} has dtype {value.dtype}, which can't be saved")
        arrays[name] = value
        return {"array": name}
    if isinstance(value, list | tuple):
        parts = [_plain(part, f"{name}/{i}", arrays) for i, part in enumerate(value)]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _plain(part, f"{name}/{key}", arrays) for key, part in value.items()}}
    raise TypeError(
        f"{name} can't be saved: allowed are numbers, strings, None, NumPy arrays, and lists, tuples and dicts with "
        f"string keys of these, got {type(value).__name__}"
    )


def _rich(value: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    if isinstance(value, list):
        return [_rich(part, arrays) for part in value]
    if isinstance(value, dict):
        ((kind, inner),) = value.items()
        if kind == "array":
            return arrays[inner].astype(arrays[inner].dtype.newbyteorder("="))
        if kind == "tuple":
            return tuple(_rich(part, arrays) for part in inner)
        return {key: _rich(part, arrays) for key, part in inner.items()}
    return value
