"""The attributes of a drop-in, in one object that it shares with its wrappers.

The class of Lightning's and Fabric's wrappers is created at run time from their own and the optimizer's. Some copy the
optimizer's ``__dict__``, others forward missing attributes to it. So methods of the optimizer run with the wrapper as
``self``, and an attribute that is set through one of the two would be missing or old in the other. Therefore all
attributes are in one object, which both refer to and neither replaces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lrcore.optim.locks import live_lock
from lrcore.torch.progress import Note

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from lrcore.optim import StepInfo
    from lrcore.optim.options import GlobalOptions
    from lrcore.torch.distributed import StepSync
    from lrcore.torch.engine import Engine
    from lrcore.torch.groups import WatchedGroup
    from lrcore.torch.param_states import ParamStates


class SharedAttributes:
    """The attributes of an optimizer, under their names."""

    # PyTorch's.
    param_groups: list[dict[str, Any]]
    defaults: dict[str, Any]
    state: ParamStates
    # A GradScaler's, during a step.
    found_inf: Any
    grad_scale: Any
    # The arguments: options as they were given, those of all groups together, checked, and schedules.
    _options: Mapping[str, Any]
    _global_options: GlobalOptions
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

    def __init__(self, options: Mapping[str, Any], global_options: GlobalOptions) -> None:
        self._options, self._global_options = options, global_options
        self._scheduled, self._groups, self._note = {}, [], Note()
        self._engine = self._info = self._processes = None
        self._steps, self._is_averaged = 0, False
        self._lock = live_lock(self)


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
