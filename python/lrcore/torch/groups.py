"""Parameter groups of PyTorch: plain dictionaries, which anyone may edit between steps."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lrcore.optim.hyperparameter import plain
from lrcore.optim.options import GROUP_OPTIONS, NO_OPTIONS
from lrcore.optim.param_group import ParamGroup, is_scheduled, value_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Arguments of PyTorch that are flags, where its programs may give 1 for True.
_FLAGS = ("amsgrad", "nesterov", "centered", "maximize")
_REFUSED = ("differentiable", "capturable")
_ASKED = (*_REFUSED, "decoupled_weight_decay")


class Group:
    """A group, as it was when the engine was told of it, and the schedules that it was given.

    Attributes:
        given: The dictionary. In the place of a schedule it has the schedule's present value.
        schedules: The hyperparameters that have schedules, with these.
    """

    __slots__ = ("_keys", "_names", "_read", "_seen", "_size", "_varies", "_written", "given", "schedules")

    def __init__(self, given: dict[str, Any], names: Sequence[str]) -> None:
        """Watch a group of an optimizer that has hyperparameters of these names."""
        self.given = given
        self.schedules: dict[str, Any] = {}
        self._names = names
        self._written: dict[str, Any] = {}
        self._seen: tuple[Any, ...] = ()
        self._keys: list[str] = []
        self._varies = True
        self._size = -1

    def values(self) -> dict[str, Any]:
        """Return what the engine is to know: numbers in the place of tensors, and schedules in their own."""
        given = {**self.given, **self.schedules}
        values = {name: plain(given[name]) for name in self._names}
        values |= {name: bool(values[name]) for name in _FLAGS if name in values}
        decay = "decoupled" if given.get("decoupled_weight_decay") else "coupled"
        options = {name: given[name] for name in GROUP_OPTIONS if name in given}
        return {"decay": decay, **NO_OPTIONS, **values, **options}

    def has_changed(self) -> bool:
        """Return whether the engine is to be told of :meth:`changes`."""
        if self._varies or len(self.given) != self._size:
            return True
        try:
            changed: bool = self._read(self.given) != self._seen
        except KeyError:
            return True
        return changed

    def changes(self, steps: int) -> dict[str, Any]:
        """Return what the engine is to be told since it was told last.

        Raises:
            ValueError: As :meth:`take`.
        """
        if len(self.given) == self._size and not self._varies and not self.schedules:
            # What schedulers do: a number is another one.
            now = [self.given.get(name) for name in self._keys]
            changed = {name: one for name, one, seen in zip(self._keys, now, self._seen, strict=True) if one != seen}
            if all(type(value) is float and name in self._names for name, value in changed.items()):
                self._seen = tuple(now)
                return changed
        self.take(steps)
        return self.values()

    def take(self, steps: int) -> None:
        """Take note of the group as it is, and put values in the place of schedules.

        Raises:
            ValueError: If something else has set what follows a schedule; for ``capturable`` and ``differentiable``.
        """
        for name in _REFUSED:
            if self.given.get(name):
                raise ValueError(f"{name}=True is not offered here; torch.optim has it")
        for name, schedule in self.schedules.items():
            value = self.given[name]
            if not is_scheduled(value) and value != self._written.get(name, value):
                raise ValueError(
                    f"param_groups: {name} follows {schedule!r}, and was set to {value!r}, by hand or by a scheduler of"
                    f" PyTorch; give one of both, or schedules.Constant({value!r})"
                )
        for name, value in self.given.items():
            if is_scheduled(value):
                self.schedules[name] = value
                self._write(name, value_at(value, steps))
        self._remember()

    def follow(self, present: ParamGroup, steps: int) -> None:
        """Put the values of the next step in the place of schedules, where PyTorch's users look for them."""
        for name in self.schedules:
            self._write(name, present.value(name, steps))
        self._remember()

    def accept(self) -> None:
        """Let the values in the place of schedules be others, such as those of a state that was loaded."""
        self._written = {}
        self.forget()

    def forget(self) -> None:
        """Have the engine told of the group anew."""
        self._size = -1

    def _write(self, name: str, value: Any) -> None:
        self.given[name] = self._written[name] = value

    def _remember(self) -> None:
        keys = [name for name in (*self._names, *GROUP_OPTIONS, *_ASKED) if name in self.given]
        self._keys, self._read = keys, itemgetter(*keys)
        values = self._read(self.given)
        # A list may be edited in place; so may tensors and arrays, which are not kept twice.
        self._seen = tuple(list(value) if isinstance(value, list) else value for value in values)
        self._varies = any(isinstance(part, torch.Tensor | np.ndarray) for value in values for part in _parts(value))
        self._size = len(self.given)


def structure_of(given: Mapping[str, Any], params: list[Any]) -> Any:
    """Return the parameters of a group as the engine takes them, by name if they have names, and add them to a list."""
    # A parameter that is there twice, as tied weights may be, moves once.
    first = {id(param): i for i, param in reversed(list(enumerate(given["params"])))}
    places = sorted(first.values())
    own = [given["params"][i] for i in places]
    params += own
    names = given.get("param_names")
    if not names:
        return own
    # Names may be too few, or not their own: nobody keeps programs from editing lists.
    named: dict[str, Any] = {}
    for i, param in zip(places, own, strict=True):
        name = names[i] if i < len(names) else str(i)
        named[name if name not in named else f"{i}.{name}"] = param
    return named


def _parts(value: Any) -> Sequence[Any]:
    return value if isinstance(value, tuple | list) else (value,)
