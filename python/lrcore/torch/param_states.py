"""``state``: PyTorch's dictionary of dictionaries, with a counter of changes."""

from __future__ import annotations

import functools
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self


class ParamStates(defaultdict[Any, Any]):
    """The state of an optimizer, a dictionary for each parameter. Counts how often an entry is set or removed.

    A step reads each dictionary every time, and looks the dictionaries up again only if the counter differs.
    """

    changes = 0

    @classmethod
    def of(cls, given: Mapping[Any, Any]) -> Self:
        """Return the state itself if it has this type, or a copy."""
        return given if isinstance(given, cls) else cls(dict, given)

    def largest_count(self) -> int:
        """Return the largest step count of a parameter, or 0 if none has one."""
        counts = [state["step"] for state in self.values() if isinstance(state, dict) and "step" in state]
        return int(max(map(float, counts), default=0.0))


def _counted(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def changing(self: ParamStates, *args: Any, **entries: Any) -> Any:
        self.changes += 1
        return method(self, *args, **entries)

    return changing


for _name in ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"):
    setattr(ParamStates, _name, _counted(getattr(defaultdict, _name)))
