"""``state``: PyTorch's dictionary of dictionaries, with a counter of changes."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
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

    def __setitem__(self, key: Any, value: Any) -> None:
        self.changes += 1
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        self.changes += 1
        super().__delitem__(key)

    def clear(self) -> None:
        """Remove all entries."""
        self.changes += 1
        super().clear()

    def pop(self, *args: Any) -> Any:
        """Remove an entry and return it."""
        self.changes += 1
        return super().pop(*args)

    def popitem(self) -> tuple[Any, Any]:
        """Remove the last entry and return it."""
        self.changes += 1
        return super().popitem()

    def update(self, *args: Any, **entries: Any) -> None:
        """Set several entries."""
        self.changes += 1
        super().update(*args, **entries)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Set an entry if there is none, and return it."""
        self.changes += 1
        return super().setdefault(key, default)

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc]
        self.update(other)
        return self

    def largest_count(self) -> int:
        """Return the largest step count of a parameter, or 0 if none has one."""
        counts = [state["step"] for state in self.values() if isinstance(state, dict) and "step" in state]
        return int(max(map(float, counts), default=0.0))
