"""Matching a saved state with the optimizer that loads it."""

from __future__ import annotations

from collections import Counter
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lrcore._messages import listed
from lrcore.optim.allocation import empty_like
from lrcore.optim.declaration import RULES
from lrcore.optim.param_group import choose_schedules
from lrcore.optim.state import COMPONENTS, STEPPED, Field, OptimizerState, export_state, fields
from lrcore.optim.state_dict import place_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lrcore.optim.optimizer import Optimizer
    from lrcore.optim.state import GroupState

    Array = np.ndarray[Any, Any]


class LoadReport(NamedTuple):
    """What did not match when a state dict was loaded.

    Attributes:
        missing: Parameters of the optimizer that the state dict does not have.
        unexpected: Parameters of the state dict that the optimizer does not have.
    """

    missing: list[str]
    unexpected: list[str]


class Match(NamedTuple):
    """What an optimizer can import of a saved state.

    Attributes:
        state: The state, checked; arrays are copies.
        before: The state of the optimizer; arrays are its own.
        report: What did not match.
        warning: The warning of saved schedules that replace others of the program without a choice; None if none do.
    """

    state: OptimizerState
    before: OptimizerState
    report: LoadReport
    warning: str | None


def match(
    saved: OptimizerState,
    opt: Optimizer,
    *,
    strict: bool,
    schedules: str | None,
    copies: bool = True,
) -> Match:
    """Check a saved state against an optimizer. Changes nothing.

    Args:
        saved: The saved state.
        opt: The optimizer. Parameters are matched by name, groups by their parameters.
        strict: Whether everything must match. Otherwise what is missing in the saved state stays as it is.
        schedules: Which schedules hold, ``"saved"`` or ``"program"``; None is the former, with a warning.
        copies: Whether arrays are copied. If not, they belong to the state that is returned.

    Raises:
        TypeError: If a part is of a wrong type, or an array of another dtype.
        ValueError: If a part is out of range or does not match.
    """
    present = export_state(opt)
    if strict and saved.optimizer != present.optimizer:
        raise ValueError(
            f"the state dict was saved by {saved.optimizer}, not {present.optimizer}; strict=False allows it"
        )
    known = fields()
    scalars = {name: known[name].check(place_of(name), value) for name, value in saved.scalars.items()}
    _refuse_parts(saved)
    group_of = _groups_of_names(saved.groups)
    weights = dict(zip(opt._names, opt._stepper.weights(), strict=True))
    report = _report(group_of, weights, strict=strict)
    rules = opt._declaration.rules if strict else RULES
    for name, column in (*saved.param_scalars.items(), *saved.param_arrays.items()):
        _refuse_strangers(name, column, group_of)
    _check_rule_state(saved, [RULES[rule][1] for rule in rules])
    own = {"average", *(name for rule in opt._declaration.rules for name in RULES[rule][1])}
    groups, sources = _match_groups(saved.groups, group_of, opt, present, strict=strict)
    matched, warning = choose_schedules(groups, opt._groups, schedules)
    values = {id(group): hyperparameters for group, hyperparameters in matched}
    state = OptimizerState(present.optimizer, scalars=scalars)
    for name, array in saved.arrays.items():
        state.arrays[name] = _checked_array(array, (name, None), None, copies=copies)
    state.groups = [
        one._replace(hyperparameters=values.get(id(group), one.hyperparameters))
        for group, one in zip(opt._groups, present.groups, strict=True)
    ]
    if "reports" in saved.scalars or "reports" in present.scalars:
        scalars["reports"] = _match_reports(scalars.get("reports", ()), sources, present.scalars.get("reports", ()))
    for name, column in saved.param_scalars.items():
        state.param_scalars[name] = _checked(column, name, known[name], weights)
    for name, column in saved.param_arrays.items():
        arrays = _checked_arrays(column, name, weights, known[name], copies=copies)
        if name in own or name not in STEPPED.fields:
            state.param_arrays[name] = arrays
    for columns, kept in ((state.param_scalars, present.param_scalars), (state.param_arrays, present.param_arrays)):
        for name, column in kept.items():
            if stays := {param: column[param] for param in report.missing if param in column}:
                columns.setdefault(name, {}).update(stays)
    return Match(state, present, report, warning)


def _groups_of_names(groups: Sequence[GroupState]) -> dict[str, int]:
    """Return the index of the group of each saved parameter, by name, in order."""
    group_of: dict[str, int] = {}
    for i, group in enumerate(groups):
        for name in group.params:
            if name in group_of:
                raise ValueError(f"param_groups hold the parameter {name!r} twice")
            group_of[name] = i
    return group_of


def _report(group_of: Mapping[str, int], weights: Mapping[str, Array], *, strict: bool) -> LoadReport:
    missing = [name for name in weights if name not in group_of]
    unexpected = [name for name in group_of if name not in weights]
    if strict and (missing or unexpected):
        raise ValueError(
            f"the state dict has other parameters: missing [{listed(missing)}], unexpected [{listed(unexpected)}]"
        )
    if len(missing) == len(weights) and weights:
        raise ValueError(
            f"the state dict has none of the optimizer's parameters, which are {listed(missing)}; "
            f"it has {listed(unexpected) or 'none'}"
        )
    return LoadReport(missing, unexpected)


def _refuse_parts(saved: OptimizerState) -> None:
    """Raise if a component has some of its scalars and not all."""
    for component in COMPONENTS:
        given = [name for name, one in component.fields.items() if name in getattr(saved, one.kind)]
        scalars = [name for name, one in component.fields.items() if one.kind == "scalars"]
        if component.is_whole and given and (missing := [name for name in scalars if name not in given]):
            raise ValueError(f"{place_of(missing[0])} is missing beside {place_of(given[0])}")


def _refuse_strangers(name: str, column: Mapping[str, Any], group_of: Mapping[str, int]) -> None:
    """Raise if a field has a value for a parameter that is not in any saved group."""
    for param in column.keys() - group_of.keys():
        place = f"state[{param!r}]" if "." not in name else place_of(name, param)
        raise ValueError(f"{place} is not in any group of the state dict")


def _check_rule_state(saved: OptimizerState, rules: Sequence[list[str]]) -> None:
    """Raise unless each parameter has the counts and arrays of one of the rules."""
    known = fields()
    columns = {
        name: column
        for name, column in {**saved.param_scalars, **saved.param_arrays}.items()
        if name in STEPPED.fields or name not in known
    }
    some = next(iter(columns.values()), {})
    if all(column.keys() == some.keys() for column in columns.values()):
        examples = list(some)[:1]  # mostly all parameters have the same fields
    else:
        examples = list(dict.fromkeys(param for column in columns.values() for param in column))
    seen: set[tuple[str, ...]] = set()
    for param in examples:
        names = tuple(name for name, column in columns.items() if param in column)
        if names not in seen:
            seen.add(names)
            _check_names(names, f"state[{param!r}]", rules)


def _check_names(names: Sequence[str], place: str, rules: Sequence[list[str]]) -> None:
    if "step" not in names:
        raise ValueError(f"{place} has no 'step'")
    if ("averaged" in names) != ("average" in names):
        raise ValueError(f"{place} must have both 'average' and 'averaged', or neither")
    arrays = [name for name in names if name not in ("step", "averaged")]
    if not any(set(arrays) - {"average"} == set(rule) for rule in rules):
        allowed = " or ".join(map(str, rules)) if len(rules) < 5 else "those of a rule"
        raise ValueError(f"{place} has the arrays {arrays}, and must have {allowed}")


def _known(column: Mapping[str, Any], weights: Mapping[str, Array]) -> Mapping[str, Any]:
    """Return the values of parameters that the optimizer has."""
    if column.keys() <= weights.keys():
        return column
    return {param: value for param, value in column.items() if param in weights}


def _checked(column: Mapping[str, Any], name: str, one: Field, weights: Mapping[str, Array]) -> dict[str, Any]:
    own = _known(column, weights)
    if not set(map(type, own.values())) <= {int, float}:
        return {param: one.check(place_of(name, param), value) for param, value in own.items()}
    # Equal values, of which there are mostly few, are checked once.
    examples = {(type(value), value): param for param, value in own.items()}
    checked = {key: one.check(place_of(name, param), key[1]) for key, param in examples.items()}
    return {param: checked[type(value), value] for param, value in own.items()}


def _checked_arrays(
    column: Mapping[str, Any], name: str, weights: Mapping[str, Array], one: Field, *, copies: bool
) -> dict[str, Any]:
    """Return the arrays of a field, copied or not."""
    own = _known(column, weights)
    if not copies and one.is_like_weight:
        arrays, params = list(own.values()), [weights[param] for param in own]
        # For many arrays this is faster than one by one.
        if set(map(type, arrays)) == {np.ndarray} and list(map(_LAYOUT, arrays)) == list(map(_LAYOUT, params)):
            return dict(own)
    return {
        param: _checked_array(array, (name, param), weights[param] if one.is_like_weight else None, copies=copies)
        for param, array in own.items()
    }


_LAYOUT = attrgetter("shape", "dtype")


def _checked_array(array: Any, place: tuple[str, str | None], weight: Array | None, *, copies: bool) -> Array:
    """Return an array, or a copy in its weight's memory order; raise if it does not fit."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{place_of(*place)} must be a NumPy array, got {type(array).__name__}")
    if weight is not None:
        if array.shape != weight.shape:
            raise ValueError(f"{place_of(*place)} has shape {array.shape}, the parameter has {weight.shape}")
        if array.dtype != weight.dtype:
            raise TypeError(f"{place_of(*place)} has dtype {array.dtype}, the parameter has {weight.dtype}")
    if not copies:
        return array
    copy = empty_like(array if weight is None else weight)
    copy[...] = array
    return copy


def _match_groups(
    saved: Sequence[GroupState],
    group_of: Mapping[str, int],
    opt: Optimizer,
    present: OptimizerState,
    *,
    strict: bool,
) -> tuple[list[tuple[Any, dict[str, Any]]], dict[int, int]]:
    """Return groups of the optimizer with their saved hyperparameters, and the number of the saved group of each."""
    sizes = Counter(group_of.values())
    matched, sources = [], {}
    for i, (group, one) in enumerate(zip(opt._groups, present.groups, strict=True)):
        names = one.params
        found = {group_of[name] for name in names if name in group_of}
        if strict and not (
            len(found) == 1 and all(name in group_of for name in names) and sizes[min(found)] == len(names)
        ):
            raise ValueError(f"the state dict has no group of the parameters {listed(names)}, as param_groups[{i}] is")
        if not found:
            continue
        # Not strict: hyperparameters come from the first group that has one of the parameters.
        sources[i] = min(found)
        values = saved[sources[i]].hyperparameters
        if not strict:
            own = one.hyperparameters
            values = {**own, **{key: values[key] for key in own if key in values}}
        matched.append((group, values))
    return matched, sources


def _match_reports(saved: Any, sources: Mapping[int, int], present: Any) -> list[dict[str, Any]]:
    """Return saved trackers with the group indices of this optimizer. A group without saved values keeps its own."""
    matched = [entry for entry in saved if entry["group"] is None]
    for index, source in sources.items():
        matched += [{**entry, "group": index} for entry in saved if entry["group"] == source]
    return matched + [entry for entry in present if entry["group"] not in (None, *sources)]
