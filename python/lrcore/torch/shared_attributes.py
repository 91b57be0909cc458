"""The attributes of a drop-in, in one object that it shares with its wrappers.

The class of Lightning's and Fabric's wrappers is created at run time from their own and the optimizer's. Some copy the
optimizer's ``__dict__``, others forward missing attributes to it. So methods of the optimizer run with the wrapper as
``self``, and an attribute that is set through one of the two would be missing or old in the other. Therefore all
attributes are in one object, which both refer to and neither replaces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from lrcore.optim import StepInfo
    from lrcore.torch.distributed import StepSync
    from lrcore.torch.engine import Engine
    from lrcore.torch.groups import WatchedGroup
    from lrcore.torch.param_states import ParamStates
    from lrcore.torch.progress import Note


class SharedAttributes:
    """The attributes of an optimizer, under their names."""

    # PyTorch's.
    param_groups: list[dict[str, Any]]
    defaults: dict[str, Any]
    state: ParamStates
    # A GradScaler's, during a step.
    found_inf: Any
    grad_scale: Any
    # The arguments: options of groups, options of all groups together, and schedules.
    _of_groups: dict[str, Any]
    _of_all: dict[str, Any]
    _scheduled: dict[str, Any]
    _processes: StepSync | None
    # The engine, and the objects that it was made of.
    _engine: Engine | None
    _groups: list[WatchedGroup]
    _params: list[Any]
    _mappings: list[dict[str, Any]]
    _lists: list[list[Any]]
    _states: Mapping[Any, Any]
    _changes: int
    _has_inference: bool
    # Results and counters.
    _info: StepInfo | None
    _steps: int
    _is_averaged: bool
    _lock: threading.RLock
    _note: Note


class SharedAttribute:
    """An attribute of an optimizer that is stored in its ``_shared``."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, optimizer: Any, owner: type) -> Any:
        return self if optimizer is None else getattr(optimizer._shared, self._name)

    def __set__(self, optimizer: Any, value: Any) -> None:
        setattr(optimizer._shared, self._name, value)
        if not self._name.startswith("_"):
            # Other code may look for it there, as in PyTorch's optimizers. lrcore does not.
            optimizer.__dict__[self._name] = value

    def __delete__(self, optimizer: Any) -> None:
        delattr(optimizer._shared, self._name)
        optimizer.__dict__.pop(self._name, None)
