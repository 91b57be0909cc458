"""Schedules as learning-rate schedulers of PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast

from lrcore._messages import brief
from lrcore._ranges import NON_NEGATIVE, check_count
from lrcore.schedules.interop import bridged, imported
from lrcore.schedules.schedule import Schedule, refuse_factor


class SchedulerMixin:
    """A scheduler of PyTorch that sets a schedule's values; made by :func:`to_torch <lrcore.schedules.to_torch>`.

    Attributes:
        schedule: The schedule, or a tuple with one for each group.
        name: The hyperparameter, or its name and an index.
        keep_ratios: Whether groups keep the ratios of their initial learning rates.
    """

    # ScheduleLR without its base class, so that the module can be imported without PyTorch.

    optimizer: Any
    last_epoch: int
    _step_count: int
    _last_lr: list[Any]

    def __init__(
        self,
        optimizer: Any,
        schedule: Schedule | tuple[Schedule, ...],
        *,
        name: str | tuple[str, int] = "lr",
        keep_ratios: bool = False,
        last_epoch: int = -1,
    ) -> None:
        self.schedule = schedule
        self.name = name
        self.keep_ratios = keep_ratios
        super().__init__(optimizer, last_epoch)  # type: ignore[call-arg]

    def get_lr(self) -> list[Any]:
        """Return the learning rates for torch to set. Another hyperparameter is set here, as in torch's CyclicLR."""
        groups = self.optimizer.param_groups
        if self.name == "lr":
            return self._values()
        for group, value in zip(groups, self._values(), strict=True):
            _set(group, self.name, value)
        return [_copied(group["lr"]) for group in groups]

    # Torch calls it when a SequentialLR begins its next part.
    _get_closed_form_lr = get_lr

    def _values(self) -> list[float]:
        groups = self.optimizer.param_groups
        parts = self.schedule if isinstance(self.schedule, tuple) else (self.schedule,) * len(groups)
        where = f"ScheduleLR: {self.name} at step {self.last_epoch}"
        values = [NON_NEGATIVE.check(where, part(self.last_epoch)) for part in parts]
        return [value * ratio for value, ratio in zip(values, self._ratios(), strict=True)]

    def _ratios(self) -> list[float]:
        groups = self.optimizer.param_groups
        if not self.keep_ratios:
            return [1.0] * len(groups)
        initial = [float(group.setdefault("initial_lr", _copied(group["lr"]))) for group in groups]
        return [lr / initial[0] for lr in initial]

    def _initial_step(self) -> None:
        # A SequentialLR begins its first part twice.
        self._is_begun_again = hasattr(self, "_step_count")
        super()._initial_step()  # type: ignore[misc]

    def state_dict(self) -> dict[str, Any]:
        """Return the step as plain numbers."""
        return {name: getattr(self, name) for name in ("last_epoch", "_step_count", "_last_lr")}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Set the step that :meth:`state_dict` returned, and the schedule's values there.

        Raises:
            TypeError: If an entry is not a number.
            ValueError: If it is not such a state.
        """
        if not isinstance(state_dict, Mapping) or state_dict.keys() != self.state_dict().keys():
            raise ValueError(f"the state of a ScheduleLR has {', '.join(self.state_dict())}, got {brief(state_dict)}")
        # A SequentialLR undoes one step of each part that has not begun.
        is_part = self._is_begun_again or self.last_epoch < 0
        self.last_epoch = check_count("last_epoch", state_dict["last_epoch"], least=-1)
        self._step_count = check_count("_step_count", state_dict["_step_count"])
        self._last_lr = list(state_dict["_last_lr"])
        if is_part:
            return
        groups = self.optimizer.param_groups
        for group, lr in zip(groups, self.get_lr(), strict=True):
            _set(group, "lr", lr)
        self._last_lr = [_copied(group["lr"]) for group in groups]


@cache
def scheduler_class() -> Any:
    """Return the class ScheduleLR."""
    base = imported("torch.optim.lr_scheduler", "to_torch", "torch").LRScheduler
    return type("ScheduleLR", (SchedulerMixin, base), {"__module__": __name__, "__doc__": SchedulerMixin.__doc__})


def __getattr__(name: str) -> Any:
    if name == "ScheduleLR":
        return scheduler_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "ScheduleLR"])


def scheduler_of(
    schedule: Any, optimizer: Any, *, name: str | tuple[str, int], keep_ratios: bool, last_epoch: int
) -> Any:
    """Return the scheduler of :func:`to_torch <lrcore.schedules.to_torch>`."""
    if not isinstance(optimizer, imported("torch.optim", "to_torch", "torch").Optimizer):
        raise TypeError(f"to_torch: optimizer must be one of PyTorch, got {brief(optimizer)}")
    groups = optimizer.param_groups
    given: Schedule | tuple[Schedule, ...]
    if isinstance(schedule, Sequence) and not isinstance(schedule, str):
        given = tuple(bridged(f"to_torch: schedule[{i}]", part) for i, part in enumerate(schedule))
        if len(given) != len(groups):
            raise ValueError(f"to_torch: there are {len(groups)} groups, got {len(given)} schedules")
    else:
        given = bridged("to_torch: schedule", schedule)
    name = cast("tuple[str, int]", tuple(name)) if isinstance(name, list) else name
    for i, group in enumerate(groups):
        _check_name(f"to_torch: group {i}", group, name)
    if name == "lr":
        for part in given if isinstance(given, tuple) else (given,):
            refuse_factor("to_torch: lr", part)
    if keep_ratios:
        _check_ratios(groups, name)
    return scheduler_class()(optimizer, given, name=name, keep_ratios=keep_ratios, last_epoch=last_epoch)


def _check_name(where: str, group: Mapping[str, Any], name: Any) -> None:
    """Raise if a group has no number with that name."""
    key, place = name if isinstance(name, tuple) and len(name) == 2 else (name, None)
    if not isinstance(key, str) or not (place is None or type(place) is int):
        raise TypeError(f"to_torch: name must be a string, or a string and a place in a pair, got {brief(name)}")
    if key not in group:
        raise ValueError(f"{where} has no {key!r}; it has {', '.join(sorted(group.keys() - {'params'}))}")
    value = group[key]
    if place is None:
        if isinstance(value, tuple | list):
            raise ValueError(f"{where}: {key!r} has several values, {value!r}; say which, as ({key!r}, 0)")
    elif not isinstance(value, tuple | list) or not 0 <= place < len(value):
        raise ValueError(f"{where}: {key!r} has no place {place}, it is {value!r}")


def _check_ratios(groups: Sequence[Mapping[str, Any]], name: Any) -> None:
    """Raise if the groups' values have no ratios."""
    if name != "lr":
        raise ValueError(f"to_torch: keep_ratios is for learning rates only, got the name {name!r}")
    if not float(groups[0].get("initial_lr", groups[0]["lr"])) > 0.0:
        raise ValueError("to_torch: the first group has the learning rate 0, and others no ratio to it")


def _set(group: dict[str, Any], name: str | tuple[str, int], value: Any) -> None:
    """Set a hyperparameter of a group, a tensor in place."""
    if isinstance(name, str):
        group[name] = _filled(group[name], value)
        return
    key, place = name
    values = list(group[key])
    values[place] = _filled(values[place], value)
    group[key] = tuple(values)


def _filled(old: Any, value: Any) -> Any:
    return old.fill_(value) if hasattr(old, "fill_") else value


def _copied(value: Any) -> Any:
    return value.clone() if hasattr(value, "clone") else value
