"""Parameter groups: parameters and their common hyperparameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from lrcore._messages import brief, did_you_mean
from lrcore._text import html_table
from lrcore.optim.locks import live_lock
from lrcore.optim.metric_trackers import apply_factors, with_trackers
from lrcore.optim.options import NO_OPTIONS
from lrcore.schedules import Schedule

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from lrcore.optim.hyperparameter import Hyperparameter
    from lrcore.schedules.metrics import Tracker


class ParamGroup(MutableMapping[str, Any]):
    """The hyperparameters of a group, by name, with its ``"params"`` and its ``"name"``.

    An edit is checked at once and takes effect at the next step. A refused value leaves the group unchanged. Several
    threads may edit a group, also during a step: no edit is lost, and a step sees each of them completely. Groups are
    compared by identity.

    A schedule that uses reports, such as :class:`ReduceOnPlateau <lrcore.schedules.ReduceOnPlateau>`, is reset when it
    is assigned, even if it is equal to the one before or the same object. A value derived from the present one is not:
    after ``group["lr"] *= 0.5`` a plateau in it keeps its best metric and its reductions.

    Examples:
        >>> import lrcore, numpy as np
        >>> opt = lrcore.SGD([np.zeros(3)], lr=0.1)
        >>> opt.param_groups[0]["lr"] = 0.01
        >>> opt.lr
        0.01
        >>> opt.param_groups[0]["lr"] = -1.0
        Traceback (most recent call last):
        ValueError: lr must be in [0, inf), got -1.0
    """

    __slots__ = (
        "__weakref__",
        "_check",
        "_evaluated",
        "_highest_lr",
        "_kinds",
        "_lock",
        "_numbers",
        "_trackers",
        "_values",
        "edited",
        "fixed",
        "name",
        "params",
    )

    params: Any
    name: str | None
    edited: bool  # since the values were last resolved for a step
    fixed: Any  # what the optimizer derived from the values as they are; None after an edit
    _evaluated: tuple[Any, int, dict[str, float]]  # the last result of `at`, with what it was computed from
    _lock: threading.RLock
    _numbers: tuple[dict[str, float], dict[str, Any]]  # those that stay, and hyperparameters that change with the step

    def __init__(
        self,
        params: Any,
        name: str | None,
        kinds: Mapping[str, Hyperparameter],
        values: Mapping[str, Any],
        check: Callable[[Mapping[str, Any]], None],
    ) -> None:
        """Check the values and create the group.

        Args:
            params: The structure of parameters, as given.
            name: The name of the group, or None.
            kinds: The hyperparameters of the optimizer.
            values: The value of each hyperparameter.
            check: Raises if the values contradict each other.
        """
        self._lock = live_lock(self)
        self.params = params
        self.name = name
        self._kinds = kinds
        self._check = check
        self._values: dict[str, Any] = {}
        self._trackers: dict[str, list[Tracker]] = {}
        self.replace(values)

    def validate(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the normalised values, or raise if one is missing, unknown or invalid."""
        for name in values:
            self._require_known(name)
        for name in self._kinds:
            if name not in values:
                raise ValueError(f"the hyperparameter {name!r} is missing")
        checked = {name: kind.check(name, values[name]) for name, kind in self._kinds.items()}
        self._check(checked)
        return checked

    def replace(self, values: Mapping[str, Any]) -> None:
        """Set all hyperparameters together, or raise and change none."""
        validated = self.validate(values)
        with self._lock:
            self._values, self._trackers = self._occupied(validated)
            self.resolve_reports()

    def _occupied(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[Tracker]]]:
        """Return values with schedule instances of this group, and the trackers of those that use reports."""
        occupied = {name: with_trackers(value, self._trackers.get(name, ())) for name, value in values.items()}
        trackers = {name: found for name, (_, found) in occupied.items() if found}
        return {name: value for name, (value, _) in occupied.items()}, trackers

    @property
    def trackers(self) -> Mapping[str, list[Tracker]]:
        """The trackers of each hyperparameter that uses reports, in the order within its value."""
        return self._trackers

    def take_trackers(self, other: ParamGroup, schedules: Mapping[str, Any]) -> None:
        """Restore trackers from those of another group, where these schedules are the same objects as its own."""
        for name, trackers in self._trackers.items():
            if name in schedules and schedules[name] is other._values.get(name):
                for tracker, before in zip(trackers, other._trackers[name], strict=True):
                    tracker.restore(before.state())
        self.resolve_reports()

    def resolve_reports(self) -> None:
        """Replace schedules that use reports by their present factors."""
        with self._lock:
            self._highest_lr: float | None = None
            scheduled = [name for name, value in self._values.items() if is_scheduled(value)]
            constant: dict[str, float] = {}
            for name in self._values.keys() - scheduled:
                constant |= self._kinds[name].at(name, self._values[name], 0)
            changing = {name: apply_factors(self._values[name], self._trackers.get(name, ())) for name in scheduled}
            self._commit(constant, changing)

    def _commit(self, constant: dict[str, float], changing: dict[str, Any]) -> None:
        """Set the numbers that the next step uses."""
        # One assignment, since another thread may read both. The flag is set last: a thread that clears it then reads
        # the new numbers.
        self._numbers = constant, changing
        self._evaluated = None, 0, {}
        self.fixed = None
        self.edited = True

    @property
    def needs_resolving(self) -> bool:
        """Whether the numbers of the next step may differ from those of the last one."""
        return self.edited or bool(self._numbers[1])

    def at(self, step: int) -> dict[str, float]:
        """Return the numbers of a step, by the names of the rules' hyperparameters. The dict is cached."""
        known = self._numbers
        of, at, numbers = self._evaluated
        if of is known and at == step:
            return numbers
        constant, scheduled = known
        numbers = dict(constant)
        for name, value in scheduled.items():
            numbers |= self._kinds[name].at(name, value, step)
        self._evaluated = known, step, numbers
        return numbers

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """A copy of the values, without the parameters and the name."""
        return dict(self._values)

    def share_of_highest_lr(self, step: int) -> float:
        """Return the learning rate at a step divided by the maximum of its schedule, or 0 if that is 0."""
        lr = self._numbers[1].get("lr")
        if lr is None:
            return 1.0 if self._values["lr"] else 0.0
        if self._highest_lr is None:
            # This may evaluate every step of the schedule. The factor of a plateau does not change the maximum.
            self._highest_lr = self._values["lr"].maximum
        share: float = lr(step) / self._highest_lr if self._highest_lr else 0.0
        return share

    def value(self, name: str, step: int) -> Any:
        """Return the value that a hyperparameter has at a step."""
        return value_at(self._numbers[1].get(name, self._values[name]), step)

    def present(self, step: int) -> dict[str, Any]:
        """Return the values of the hyperparameters at a step, with the learning rate multiplied by its scale."""
        values = {name: self.value(name, step) for name in self._values}
        values["lr"] *= values["lr_scale"]
        return values

    def _require_known(self, key: str) -> None:
        if key not in self._kinds:
            meant = did_you_mean(key, self._kinds) if isinstance(key, str) else ""
            raise ValueError(f"unknown hyperparameter {key!r}; allowed are {', '.join(self._kinds)}{meant}")

    def _require_settable(self, key: str) -> None:
        if key in ("params", "name"):
            raise ValueError(f"the {key!r} of a group can't be changed; use add_param_group")
        self._require_known(key)

    def __getitem__(self, key: str) -> Any:
        if key == "params":
            return self.params
        if key == "name" and self.name is not None:
            return self.name
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def update(self, *args: Any, **values: Any) -> None:
        """Set several hyperparameters together, or raise and change none."""
        given = dict(*args, **values)
        for name in given:
            self._require_settable(name)
        # Only the given values are checked: a scheduler may set the learning rate at every step.
        checked = {name: self._kinds[name].check(name, value) for name, value in given.items()}
        with self._lock:
            before = self._values
            self._check({**before, **checked})
            occupied, trackers = self._occupied(checked)
            constant, changing = map(dict, self._numbers)
            for name, value in occupied.items():
                if changing.pop(name, None) is None:
                    for number in self._kinds[name].at(name, before[name], 0):
                        del constant[number]
                if is_scheduled(value):
                    changing[name] = apply_factors(value, trackers.get(name, ()))
                else:
                    constant |= self._kinds[name].at(name, value, 0)
            self._values = {**before, **occupied}
            self._trackers = {name: found for name, found in self._trackers.items() if name not in occupied} | trackers
            self._highest_lr = None
            self._commit(constant, changing)

    def __delitem__(self, key: str) -> None:
        raise ValueError(f"{key!r} can't be removed from a group")

    def __iter__(self) -> Iterator[str]:
        yield "params"
        if self.name is not None:
            yield "name"
        yield from self._values

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __dir__(self) -> list[str]:
        # Without what only the optimizer uses.
        return sorted({*dir(MutableMapping), "hyperparameters", "name", "params"})

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def __eq__(self, other: object) -> bool:
        """Return whether it is the same group: comparisons of arrays have no single truth value."""
        return self is other

    __hash__ = object.__hash__

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes to copy, without the lock."""
        return {name: getattr(self, name) for name in self.__slots__ if name not in _NOT_COPIED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._lock = live_lock(self)
        self._evaluated, self.fixed = (None, 0, {}), None
        for name, value in state.items():
            setattr(self, name, value)

    def listed(self) -> str:
        """Return the hyperparameters, and the options that have an effect, as arguments."""
        shown = {key: value for key, value in self._values.items() if key not in _QUIET or value not in _QUIET[key]}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())

    def __repr__(self) -> str:
        values = self.listed()
        return f"ParamGroup({values})" if self.name is None else f"ParamGroup({self.name!r}, {values})"

    def _repr_html_(self) -> str:
        rows = [[key, _short(value, 80)] for key, value in self.items() if key != "params"]
        return html_table(["hyperparameter", "value"], rows)


_NOT_COPIED = ("__weakref__", "_evaluated", "_lock", "fixed")


# Options with these values are not printed.
_QUIET: dict[str, tuple[Any, ...]] = {
    "decay": ("coupled", "decoupled"),
    **{name: (value,) for name, value in NO_OPTIONS.items()},
}


def _parts(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def is_scheduled(value: Any) -> bool:
    """Return whether a hyperparameter is a schedule, or contains one."""
    return any(isinstance(part, Schedule) for part in _parts(value))


def value_at(value: Any, step: int) -> Any:
    """Return a hyperparameter with its schedules evaluated at a step."""
    if isinstance(value, tuple | list):
        return tuple(value_at(part, step) for part in value)
    return value(step) if isinstance(value, Schedule) else value


def choose_schedules(
    loaded: Sequence[tuple[ParamGroup, Mapping[str, Any]]], groups: Sequence[ParamGroup], choice: str | None
) -> tuple[list[tuple[ParamGroup, dict[str, Any]]], str | None]:
    """Return the hyperparameters to load into groups, and a warning of replaced schedules if there is no choice.

    Args:
        loaded: Groups, each with its saved hyperparameters.
        groups: All groups of the optimizer.
        choice: The schedules to use: ``"saved"``, ``"program"``, or None for the saved ones with a warning.
    """
    if choice not in (None, "saved", "program"):
        raise ValueError(f'schedules must be "saved" or "program", got {brief(choice)}')
    places = {id(group): f"param_groups[{i}]" for i, group in enumerate(groups)}
    chosen, replaced = [], []
    for group, values in loaded:
        saved, own = group.validate(values), group.hyperparameters
        scheduled = [name for name in own if is_scheduled(saved[name]) or is_scheduled(own[name])]
        if choice == "program":
            saved |= {name: own[name] for name in scheduled}
        for name in scheduled:
            if is_scheduled(own[name]) and saved[name] != own[name]:
                place = places[id(group)] + ("" if group.name is None else f" ({group.name!r})")
                replaced.append(f"{name} of {place}: saved {_short(saved[name])}, the program's {_short(own[name])}")
        chosen.append((group, saved))
    if choice is not None or not replaced:
        return chosen, None
    more = f"; and {len(replaced) - _MOST_NAMED} more" if len(replaced) > _MOST_NAMED else ""
    return chosen, (
        f"saved schedules replace other ones of the program: {'; '.join(replaced[:_MOST_NAMED])}{more}. "
        'schedules="program" keeps those of the program; schedules="saved" loads those that were saved, and is silent'
    )


_MOST_NAMED = 5


def _short(value: Any, most: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"


def as_groups(params: Any) -> Sequence[Mapping[str, Any]] | None:
    """Return ``params`` if it is a sequence of groups, or None if it is a structure of arrays."""
    if not isinstance(params, Sequence) or isinstance(params, str | bytes) or not params:
        return None
    are_groups = [isinstance(entry, Mapping) and "params" in entry for entry in params]
    if not any(are_groups):
        return None
    for i, is_group in enumerate(are_groups):
        if not is_group:
            raise TypeError(f'params[{i}] must be a group with "params", as others are, got {type(params[i]).__name__}')
    return params


def check_group(group: Any) -> None:
    """Raise unless it is a mapping with parameters."""
    if not isinstance(group, Mapping):
        raise TypeError(f'the group must be a mapping with "params", got {type(group).__name__}')
    if "params" not in group:
        raise ValueError(f'the group has no "params"; it has {", ".join(map(str, group)) or "nothing"}')
