"""State dicts: what they hold, and how one is matched with an optimizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lrcore._messages import brief, listed
from lrcore._ranges import NON_NEGATIVE, POSITIVE, check_count
from lrcore.optim import reports
from lrcore.optim.allocation import empty_like

if TYPE_CHECKING:
    from lrcore.noise import NoiseScale
    from lrcore.optim.param_group import ParamGroup
    from lrcore.optim.reports import Place
    from lrcore.schedules.metrics import Tracker

StateDict = dict[str, Any]
_Arrays = dict[str, np.ndarray[Any, Any]]
_MOST_STEPS = 2**63 - 1
_COUNTS = ("step", "averaged")  # what is no array in the state of a parameter


class LoadReport(NamedTuple):
    """What did not match when a state dict was loaded.

    Attributes:
        missing: Parameters of the optimizer that the state dict does not have.
        unexpected: Parameters of the state dict that the optimizer does not have.
    """

    missing: list[str]
    unexpected: list[str]


class Accumulated(NamedTuple):
    """Gradients that wait for a step.

    Attributes:
        batches: How many micro-batches there are.
        weight: The sum of their weights.
        sums: Their sum for each parameter that had one.
        squares: With a noise scale: which of so many units were looked at, and the sum of their squares.
    """

    batches: int
    weight: float
    sums: _Arrays
    squares: tuple[int, int, float] | None


class Snapshot(NamedTuple):
    """What there is to save of an optimizer; nothing is copied yet."""

    optimizer: str
    steps: int
    counts: Mapping[str, int]
    averaged: Mapping[str, int]
    state: Mapping[str, _Arrays]
    groups: list[tuple[ParamGroup, list[str]]]
    reports: list[tuple[Place, Tracker]]
    noise: NoiseScale | None
    skipped: tuple[int, int]
    accumulated: Accumulated | None


class Loaded(NamedTuple):
    """What a state dict sets, checked and copied."""

    steps: int
    state: dict[str, _Arrays]
    counts: dict[str, int]
    averaged: dict[str, int]
    groups: list[tuple[ParamGroup, dict[str, Any]]]
    reports: dict[Place, Tracker]
    noise: Mapping[str, Any] | None
    skipped: tuple[int, int]
    accumulated: Accumulated | None
    report: LoadReport


def capture(snapshot: Snapshot) -> StateDict:
    """Return a state dict of copies."""
    groups = []
    for group, names in snapshot.groups:
        saved: dict[str, Any] = {"params": list(names), **group.hyperparameters}
        if group.name is not None:
            saved["name"] = group.name
        groups.append(saved)
    state: dict[str, dict[str, Any]] = {}
    for name, count in snapshot.counts.items():
        if count > 0:
            arrays = snapshot.state[name]
            averaged = {"averaged": snapshot.averaged[name]} if "average" in arrays else {}
            copies = {key: array.copy(order="K") for key, array in arrays.items()}
            state[name] = {"step": count, **averaged, **copies}
    saved = {"optimizer": snapshot.optimizer, "steps": snapshot.steps, "state": state, "param_groups": groups}
    saved["skipped"], saved["skipped_in_a_row"] = snapshot.skipped
    if snapshot.accumulated is not None:
        batches, weight, sums, squares = snapshot.accumulated
        copies = {name: array.copy(order="K") for name, array in sums.items()}
        saved["accumulated"] = {"batches": batches, "weight": weight, "sums": copies, "squares": squares}
    if snapshot.reports:
        saved["reports"] = reports.save(snapshot.reports)
    if snapshot.noise is not None:
        saved["noise_scale"] = snapshot.noise.state()
    return saved


def match(
    given: Any,
    snapshot: Snapshot,
    weights: _Arrays,
    states: list[list[str]],
    own: Set[str],
    *,
    strict: bool,
    unread: type[Any] | None = None,
) -> Loaded:
    """Check a state dict against an optimizer and return what it sets. Changes nothing.

    Args:
        given: The state dict.
        snapshot: The optimizer as it is.
        weights: Its parameters, by name.
        states: The names of the state arrays of each rule whose state may be loaded.
        own: The names of the state arrays that are loaded, since one of the optimizer's rules may use them.
        strict: Whether everything must match.
        unread: A class, with a dtype and a shape, of what may stand in the place of an array, and stays there, since
            the caller reads the array later.
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"the state dict must be a mapping, got {type(given).__name__}")
    optimizer, steps, saved_state, saved_groups = (
        _entry(given, key, "the state dict") for key in ("optimizer", "steps", "state", "param_groups")
    )
    if strict and optimizer != snapshot.optimizer:
        raise ValueError(
            f"the state dict was saved by {optimizer}, this is {snapshot.optimizer}; strict=False loads it"
        )
    steps = check_count("steps", steps, most=_MOST_STEPS)
    group_of_saved = _groups_of_names(saved_groups)
    missing = [name for name in weights if name not in group_of_saved]
    unexpected = [name for name in group_of_saved if name not in weights]
    if strict and (missing or unexpected):
        raise ValueError(
            f"the state dict has other parameters: missing [{listed(missing)}], unexpected [{listed(unexpected)}]"
        )
    if len(missing) == len(weights) and weights:
        raise ValueError(
            f"the state dict has none of the optimizer's parameters, which are {listed(missing)}; "
            f"it has {listed(unexpected) or 'none'}"
        )
    if not isinstance(saved_state, Mapping):
        raise TypeError(f"state must be a mapping, got {type(saved_state).__name__}")
    for name in saved_state:
        if name not in group_of_saved:
            raise ValueError(f"state[{name!r}] belongs to no group of the state dict")
    state: dict[str, _Arrays] = {}
    counts: dict[str, int] = {}
    averaged: dict[str, int] = {}
    matcher = _StateMatcher(states, own, unread)
    for name, weight in weights.items():
        if name in saved_state:
            counts[name], averaged[name], state[name] = matcher.match(saved_state[name], name, weight)
        elif name not in group_of_saved:
            # Not strict: what the state dict does not know stays as it is.
            counts[name], averaged[name] = snapshot.counts[name], snapshot.averaged[name]
            state[name] = snapshot.state[name]
    groups, sources = _match_groups(saved_groups, group_of_saved, snapshot, strict=strict)
    trackers = _match_reports(reports.check_saved(given.get("reports", ())), sources, snapshot)
    noise = given.get("noise_scale") if snapshot.noise is not None else None
    if snapshot.noise is not None and noise is not None:
        snapshot.noise.check_state(noise)
    first, second = (check_count(key, given.get(key, 0)) for key in ("skipped", "skipped_in_a_row"))
    accumulated = _match_accumulated(given.get("accumulated"), group_of_saved, weights, unread)
    report = LoadReport(missing, unexpected)
    return Loaded(steps, state, counts, averaged, groups, trackers, noise, (first, second), accumulated, report)


def _entry(mapping: Mapping[str, Any], key: str, place: str) -> Any:
    if key not in mapping:
        raise ValueError(f"{place} has no {key!r}")
    return mapping[key]


def _groups_of_names(groups: Any) -> dict[str, int]:
    """Return the number of the group of each saved parameter, by name, in their order."""
    if not isinstance(groups, Sequence) or not all(isinstance(group, Mapping) for group in groups):
        raise TypeError("param_groups must be a sequence of mappings")
    group_of: dict[str, int] = {}
    for i, group in enumerate(groups):
        place, params = f"param_groups[{i}]['params']", _entry(group, "params", f"param_groups[{i}]")
        if not isinstance(params, list | tuple) or not all(isinstance(name, str) for name in params):
            raise TypeError(f"{place} must be a list of names, got {brief(params)}")
        for name in params:
            if name in group_of:
                raise ValueError(f"param_groups hold the parameter {name!r} twice")
            group_of[name] = i
    return group_of


class _StateMatcher:
    """Matches the saved state of parameters with an optimizer's. What most of them have alike is looked at once."""

    def __init__(self, states: list[list[str]], own: Set[str], unread: type[Any] | None) -> None:
        self._states = states
        self._own = own
        self._unread = unread
        self._loaded: dict[tuple[str, ...], set[str]] = {}

    def match(self, saved: Any, name: str, weight: np.ndarray[Any, Any]) -> tuple[int, int, _Arrays]:
        """Return the steps of a parameter, those of its average, and copies of its arrays."""
        if not isinstance(saved, Mapping):
            raise TypeError(f"state[{name!r}] must be a mapping, got {type(saved).__name__}")
        keys = tuple(saved)
        loaded = self._loaded.get(keys)
        if loaded is None:
            loaded = self._loaded[keys] = self._arrays(keys, f"state[{name!r}]")
        count, averaged = saved["step"], saved.get("averaged", 0)
        if not (type(count) is type(averaged) is int and 0 <= count <= _MOST_STEPS and 0 <= averaged <= _MOST_STEPS):
            count = check_count(f"state[{name!r}]['step']", count, most=_MOST_STEPS)
            averaged = check_count(f"state[{name!r}]['averaged']", averaged, most=_MOST_STEPS)
        arrays = {}
        for key in keys:
            if key not in _COUNTS:
                array = _copied(saved[key], ("state", name, key), weight, self._unread)
                if key in loaded:
                    arrays[key] = array
        return count, averaged, arrays

    def _arrays(self, keys: tuple[str, ...], place: str) -> set[str]:
        """Return which of the keys are those of arrays that are loaded."""
        if "step" not in keys:
            raise ValueError(f"{place} has no 'step'")
        if ("averaged" in keys) != ("average" in keys):
            raise ValueError(f"{place} must have both 'average' and 'averaged', or neither")
        arrays = [key for key in keys if key not in _COUNTS]
        of_rule = set(arrays) - {"average"}
        if not any(of_rule == set(names) for names in self._states):
            known = " or ".join(map(str, self._states)) if len(self._states) < 5 else "those of a rule"
            raise ValueError(f"{place} has the arrays {arrays}, and must have {known}")
        return {key for key in arrays if key in self._own or key == "average"}


def _match_accumulated(
    saved: Any, names: Container[str], weights: _Arrays, unread: type[Any] | None
) -> Accumulated | None:
    if saved is None:
        return None
    place = "accumulated"
    if not isinstance(saved, Mapping):
        raise TypeError(f"{place} must be a mapping, got {type(saved).__name__}")
    batches, sums, squares = (_entry(saved, key, place) for key in ("batches", "sums", "squares"))
    batches = check_count(f"{place}['batches']", batches, least=1, most=_MOST_STEPS)
    if not isinstance(sums, Mapping):
        raise TypeError(f"{place}['sums'] must be a mapping, got {type(sums).__name__}")
    for name in sums:
        if name not in names:
            raise ValueError(f"{place}['sums'][{name!r}] belongs to no group of the state dict")
    # Saved before micro-batches had weights, each counts 1.
    weight = POSITIVE.check(f"{place}['weight']", saved.get("weight", batches))
    own = {name: array for name, array in sums.items() if name in weights}
    copies = {name: _copied(array, (place, "sums", name), weights[name], unread) for name, array in own.items()}
    if squares is None:
        return Accumulated(batches, weight, copies, None)
    if not isinstance(squares, Sequence) or len(squares) != 3:
        raise ValueError(f"{place}['squares'] must be a stride, a phase and a sum, or None, got {brief(squares)}")
    stride = check_count(f"{place}['squares'][0]", squares[0], least=1, most=_MOST_STEPS)
    phase = check_count(f"{place}['squares'][1]", squares[1], most=_MOST_STEPS)
    of_squares = NON_NEGATIVE.check(f"{place}['squares'][2]", squares[2])
    return Accumulated(batches, weight, copies, (stride, phase, of_squares))


def _copied(array: Any, place: tuple[str, str, str], weight: np.ndarray[Any, Any], unread: type[Any] | None) -> Any:
    """Return a copy in the memory order of the weight of an array that is like it, or raise.

    What is unread is returned as it is.
    """
    is_read = isinstance(array, np.ndarray)
    if not is_read and (unread is None or not isinstance(array, unread)):
        raise TypeError(f"{_said(place)} must be a NumPy array, got {type(array).__name__}")
    if array.shape != weight.shape:
        raise ValueError(f"{_said(place)} has shape {array.shape}, the parameter has {weight.shape}")
    if array.dtype != weight.dtype:
        raise TypeError(f"{_said(place)} has dtype {array.dtype}, the parameter has {weight.dtype}")
    if not is_read:
        return array
    copy = empty_like(weight)
    copy[...] = array
    return copy


def _said(place: tuple[str, str, str]) -> str:
    return "{}[{!r}][{!r}]".format(*place)


def _match_groups(
    saved_groups: Sequence[Mapping[str, Any]], group_of_saved: Mapping[str, int], snapshot: Snapshot, *, strict: bool
) -> tuple[list[tuple[ParamGroup, dict[str, Any]]], dict[int, int]]:
    """Return the values of each group of the optimizer, and which saved group each comes from."""
    sizes = Counter(group_of_saved.values())
    matched, sources = [], {}
    for i, (group, names) in enumerate(snapshot.groups):
        known = {group_of_saved[name] for name in names if name in group_of_saved}
        if strict and not (
            len(known) == 1 and all(name in group_of_saved for name in names) and sizes[min(known)] == len(names)
        ):
            raise ValueError(f"the state dict has no group of the parameters {listed(names)}, as param_groups[{i}] is")
        if not known:
            continue
        source = min(known)
        # Not strict: hyperparameters come from the first group that has one of the parameters.
        values = {key: value for key, value in saved_groups[source].items() if key not in ("params", "name")}
        if not strict:
            values = {**group.hyperparameters, **{key: values[key] for key in group.hyperparameters if key in values}}
        group.validate(values)
        matched.append((group, values))
        sources[i] = source
    return matched, sources


def _match_reports(
    saved: Mapping[Place, Tracker], sources: Mapping[int, int], snapshot: Snapshot
) -> dict[Place, Tracker]:
    """Return saved trackers by their places in the optimizer; a group that nothing is loaded into keeps its own."""
    matched = {place: tracker for place, tracker in saved.items() if place.group is None}
    for index, source in sources.items():
        matched |= {place._replace(group=index): tracker for place, tracker in saved.items() if place.group == source}
    kept = {place: tracker for place, tracker in snapshot.reports if place.group not in (None, *sources)}
    return matched | kept
