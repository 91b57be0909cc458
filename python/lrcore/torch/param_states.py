"""The dictionaries of an optimizer's state, as PyTorch has them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self


class ParamStates(defaultdict[Any, Any]):
    """The state of an optimizer, a dictionary for each parameter; counts how often an entry was put in or taken out.

    A step reads what is in the dictionaries of the parameters each time, but asks for the dictionaries themselves only
    when this has changed.
    """

    changes = 0

    @classmethod
    def of(cls, given: Mapping[Any, Any]) -> Self:
        """Return the state as such a one, or as a copy that is."""
        return given if isinstance(given, cls) else cls(dict, given)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.changes += 1
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        self.changes += 1
        super().__delitem__(key)

    def clear(self) -> None:
        """Take out all entries."""
        self.changes += 1
        super().clear()

    def pop(self, *args: Any) -> Any:
        """Take out an entry."""
        self.changes += 1
        return super().pop(*args)

    def popitem(self) -> tuple[Any, Any]:
        """Take out the last entry."""
        self.changes += 1
        return super().popitem()

    def update(self, *args: Any, **entries: Any) -> None:
        """Put in several entries."""
        self.changes += 1
        super().update(*args, **entries)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Put in an entry if there is none."""
        self.changes += 1
        return super().setdefault(key, default)

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc]
        self.update(other)
        return self

    def largest_count(self) -> int:
        """Return the largest count of a parameter's steps, or 0 where none are counted."""
        counts = [state["step"] for state in self.values() if isinstance(state, dict) and "step" in state]
        return int(max(map(float, counts), default=0.0))
