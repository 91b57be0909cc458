"""State dicts: the state of an optimizer as nested dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lrcore._messages import brief
from lrcore.optim.state import GroupState, OptimizerState, fields

StateDict = dict[str, Any]


def encode(state: OptimizerState) -> StateDict:
    """Return a state as a state dict. Arrays are not copied."""
    params: dict[str, dict[str, Any]] = {}
    saved: StateDict = {"optimizer": state.optimizer, "steps": None, "state": params}
    saved["param_groups"] = [
        {"params": list(group.params), **group.hyperparameters, **({} if group.name is None else {"name": group.name})}
        for group in state.groups
    ]
    for columns in (state.param_scalars, state.param_arrays):
        for name, column in columns.items():
            if "." in name:
                _set(saved, name, column)
            else:
                for param, value in column.items():
                    params.setdefault(param, {})[name] = value
    for values in (state.scalars, state.arrays):
        for name, value in values.items():
            _set(saved, name, value)
    return saved


def _set(saved: StateDict, name: str, value: Any) -> None:
    first, _, last = name.partition(".")
    if last:
        saved.setdefault(first, {})[last] = value
    else:
        saved[first] = value


def decode(saved: Any) -> OptimizerState:
    """Return the state in a state dict.

    Raises:
        TypeError: If a mapping or list in it has a wrong type.
        ValueError: If one is missing.
    """
    if not isinstance(saved, Mapping):
        raise TypeError(f"the state dict must be a mapping, got {type(saved).__name__}")
    optimizer, _, params, groups = (
        _entry(saved, key, "the state dict") for key in ("optimizer", "steps", "state", "param_groups")
    )
    known = fields()
    state = OptimizerState(optimizer, _groups(groups))
    if not isinstance(params, Mapping):
        raise TypeError(f"state must be a mapping, got {type(params).__name__}")
    for param, values in params.items():
        if not isinstance(values, Mapping):
            raise TypeError(f"state[{param!r}] must be a mapping, got {type(values).__name__}")
        for name, value in values.items():
            is_scalar = name in known and known[name].kind == "param_scalars"
            columns: dict[str, dict[str, Any]] = state.param_scalars if is_scalar else state.param_arrays
            columns.setdefault(name, {})[param] = value
    for name, field in known.items():
        first, _, last = name.partition(".")
        value = saved.get(first)
        if value is None or (field.kind.startswith("param") and not last):
            continue
        if last:
            if not isinstance(value, Mapping):
                raise TypeError(f"{first} must be a mapping, got {type(value).__name__}")
            value = _entry(value, last, first)
            if field.kind.startswith("param") and not isinstance(value, Mapping):
                raise TypeError(f"{place_of(name)} must be a mapping, got {type(value).__name__}")
        getattr(state, field.kind)[name] = value
    return state


def place_of(name: str, param: str | None = None) -> str:
    """Return the place of a field in a state dict, of a parameter if one is given, for messages."""
    first, _, last = name.partition(".")
    if param is not None and not last:
        return f"state[{param!r}][{name!r}]"
    return "".join([first, *(f"[{key!r}]" for key in (last, param) if key)])


def _entry(mapping: Mapping[str, Any], key: str, place: str) -> Any:
    if key not in mapping:
        raise ValueError(f"{place} has no {key!r}")
    return mapping[key]


def _groups(groups: Any) -> list[GroupState]:
    if not isinstance(groups, Sequence) or not all(isinstance(group, Mapping) for group in groups):
        raise TypeError("param_groups must be a sequence of mappings")
    decoded = []
    for i, group in enumerate(groups):
        params = _entry(group, "params", f"param_groups[{i}]")
        if not isinstance(params, list | tuple) or not all(isinstance(name, str) for name in params):
            raise TypeError(f"param_groups[{i}]['params'] must be a list of names, got {brief(params)}")
        values = {key: value for key, value in group.items() if key not in ("params", "name")}
        decoded.append(GroupState(list(params), group.get("name"), values))
    return decoded
