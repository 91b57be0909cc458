"""The description of a checkpoint: the JSON text beside its arrays, which together hold an optimizer's state.

::

    {"version": 1, "saved": 1700000000000000000, "optimizer": "AdamW", "steps": 3, "reports": [], ...,
     "param_groups": [{"params": ["w", "b"], "name": null, "hyperparameters": {"lr": 0.1, ...}}],
     "counts": {"w": {"step": 3, "arrays": ["exp_avg", "exp_avg_sq"]}}, "arrays": [], "extra": {...}}

``counts`` has the scalars of a parameter, and the names of its arrays, where they differ from those of the parameter
before. The arrays are ``state/<parameter>/<name>``, those of the optimizer ``optimizer/<name>``.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from lrcore.checkpoint import safetensors, user_values
from lrcore.checkpoint.safetensors import DamagedError
from lrcore.optim.allocation import empty_like
from lrcore.optim.state import GroupState, OptimizerState, fields, from_plain, plain
from lrcore.optim.state_dict import place_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Array = np.ndarray[Any, Any]
    Arrays = dict[str, Array]

VERSION = 1
_PARTS = {
    "optimizer": str,
    "steps": int,
    "saved": int,
    "counts": dict,
    "arrays": list,
    "param_groups": list,
    "reports": list,
    "extra": dict,
}


def is_readable(description: dict[str, Any] | None) -> bool:
    """Return whether a description has this version and all its parts."""
    return (
        description is not None
        and description.get("version") == VERSION
        and all(isinstance(description.get(key), kind) for key, kind in _PARTS.items())
    )


def describe(state: OptimizerState, arrays: Arrays) -> dict[str, Any]:
    """Return the description of a state, and add its arrays, not copied, to ``arrays``."""
    for name, array in state.arrays.items():
        arrays[f"optimizer/{name}"] = np.asarray(array)
    for field, column in state.param_arrays.items():
        arrays |= zip([f"state/{name}/{field}" for name in column], map(np.asarray, column.values()), strict=True)
    groups = [
        {
            "params": group.params,
            "name": group.name,
            "hyperparameters": {
                key: user_values.compact(plain(value), f"param_groups/{i}/{key}", arrays)
                for key, value in group.hyperparameters.items()
            },
        }
        for i, group in enumerate(state.groups)
    ]
    scalars = {name: user_values.compact(plain(value), name, arrays) for name, value in state.scalars.items()}
    return {
        "optimizer": state.optimizer,
        "reports": [],
        **scalars,
        "arrays": list(state.arrays),
        "param_groups": groups,
        "counts": _counts(state),
    }


def _counts(state: OptimizerState) -> dict[str, Any]:
    """Return the scalars and array names of each parameter that differs in them from the one before."""
    names = [name for group in state.groups for name in group.params]
    scalars, arrays = state.param_scalars, state.param_arrays
    # No scalar is None.
    of_params = zip(
        *(map(column.get, names) for column in scalars.values()),
        *(map(column.__contains__, names) for column in arrays.values()),
        strict=True,
    )
    counts: dict[str, Any] = {}
    before: tuple[Any, ...] = (*(None for _ in scalars), *(False for _ in arrays))
    for name, of_param in zip(names, of_params, strict=False):
        if of_param != before:
            before = of_param
            own = {field: column[name] for field, column in scalars.items() if name in column}
            counts[name] = {**own, "arrays": [field for field, column in arrays.items() if name in column]}
    return counts


@contextmanager
def _understanding(file: safetensors.File) -> Iterator[None]:
    """Report any error in the block as damage: a damaged description can contain values of any kind."""
    try:
        yield
    except (DamagedError, MemoryError, OSError):
        raise
    except Exception as error:
        said = str(error) if isinstance(error, ValueError) else repr(error)
        raise file.damaged(f"its description can't be read ({said})") from error


def read(file: safetensors.File) -> dict[str, Any]:
    """Return the description in an intact file.

    Raises:
        DamagedError: If the file is damaged.
        ValueError: If it is not a checkpoint, or has an unknown version.
        OSError: If it can't be read.
    """
    text = file.text()
    with _understanding(file):
        description = safetensors.from_json(text)
    if not isinstance(description, dict) or "version" not in description:
        raise file.damaged("its description has no version")
    if description["version"] != VERSION:
        raise ValueError(f"{file.path} is of version {description['version']!r}; known is {VERSION}")
    for key, kind in _PARTS.items():
        if not isinstance(description.get(key), kind):
            raise file.damaged(f"its description has no {key!r} of type {kind.__name__}")
    return description


def read_state(file: safetensors.File, description: Mapping[str, Any], weights: Mapping[str, Array]) -> OptimizerState:
    """Return the state in a file with this description.

    Args:
        file: The file.
        description: The result of :func:`read`.
        weights: The weights, by the names of their parameters. Arrays get their memory order. None stands for the
            arrays of other parameters, which are not read.

    Raises:
        DamagedError: If the file is damaged.
        OSError: If it can't be read.
    """
    with _understanding(file):
        return _state(file, description, weights)


def read_extra(file: safetensors.File, description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a user saved."""
    reader = user_values.Reader(file)
    with _understanding(file):
        return {name: reader.rich(value) for name, value in description["extra"].items()}


def _state(file: safetensors.File, description: Mapping[str, Any], weights: Mapping[str, Array]) -> OptimizerState:
    reader = user_values.Reader(file)
    groups = [_group(group, reader) for group in description["param_groups"]]
    state = OptimizerState(description["optimizer"], groups)
    for name, field in fields().items():
        if field.kind == "scalars" and name in description:
            state.scalars[name] = field.check(place_of(name), from_plain(reader.expanded(description[name])))
    for name in description["arrays"]:
        state.arrays[name] = file.array(f"optimizer/{name}")
    names = list(chain.from_iterable(group.params for group in groups))
    counts = description["counts"]
    starts = [i for i, name in enumerate(names) if name in counts]
    columns: dict[str, dict[str, int]] = {}
    for start, end in zip(starts, [*starts[1:], len(names)], strict=False):
        alike = names[start:end]
        for field, value in counts[names[start]].items():
            if field != "arrays":
                state.param_scalars.setdefault(field, {}).update(dict.fromkeys(alike, value))
        for field in counts[names[start]]["arrays"]:
            rows = file.rows([f"state/{name}/{field}" for name in alike])
            columns.setdefault(field, {}).update(zip(alike, rows.tolist(), strict=True))
    state.param_arrays = _param_arrays(file, columns, weights)
    return state


def _param_arrays(
    file: safetensors.File, columns: Mapping[str, Mapping[str, int]], weights: Mapping[str, Array]
) -> dict[str, dict[str, Any]]:
    """Read the arrays of the parameters that have a weight; see :func:`read_state`.

    All fields are read at once, since arrays of different fields are next to each other in the file.
    """
    names = [[name for name in column if name in weights] for column in columns.values()]
    rows = [column[name] for column, known in zip(columns.values(), names, strict=True) for name in known]
    of_rows = [weights[name] for known in names for name in known]
    arrays = iter(_read_like(file, np.array(rows, np.intp), of_rows))
    return {
        field: {**dict.fromkeys(column), **dict(zip(known, arrays, strict=False))}
        for (field, column), known in zip(columns.items(), names, strict=True)
    }


def _read_like(file: safetensors.File, rows: Array, weights: Sequence[Array]) -> list[Array]:
    """Read arrays, each in the memory order of a weight if it has its shape and dtype."""
    are_packed = file.are_small(rows) & np.array([weight.flags.c_contiguous for weight in weights], bool)
    small, large = np.flatnonzero(are_packed), np.flatnonzero(~are_packed)
    arrays: list[Any] = [None] * len(rows)
    for i, array in zip(small.tolist(), file.small_arrays(rows[small]), strict=True):
        arrays[i] = array
    are_like = file.are_like(rows[large], [weights[i] for i in large.tolist()])
    for i, is_like in zip(large.tolist(), are_like.tolist(), strict=True):
        layout = file.layout(rows[i])
        arrays[i] = empty_like(weights[i]) if is_like else np.empty(layout.shape, layout.dtype)
    file.fill(rows[large], [arrays[i] for i in large.tolist()])
    return arrays


def _group(group: Mapping[str, Any], reader: user_values.Reader) -> GroupState:
    values = {key: from_plain(reader.expanded(value)) for key, value in group["hyperparameters"].items()}
    tuples = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return GroupState(list(group["params"]), group["name"], tuples)
