"""Parameter groups of PyTorch: plain dictionaries, which any code may edit between steps.

A :class:`WatchedGroup` compares the dictionary with a snapshot from the last step, so that an unedited group costs one
comparison of tuples. In the place of a schedule the dictionary holds the value for the next step::

    before a step:  if the dictionary differs from the snapshot: check it, update the engine, take a new snapshot
    after a step:   write the schedules' values for the next step, and add them to the snapshot

The keys of a group belong to PyTorch and to the program: frameworks store ``lr_scale`` and the like there. Options of
lrcore for one group are the entries of a dictionary under the key :data:`OWN`; no other key acts.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lrcore._messages import brief, warn
from lrcore.optim.hyperparameter import Flag, plain
from lrcore.optim.layers import leaves
from lrcore.optim.options import GROUP_OPTIONS, NO_OPTIONS, Options, not_of_group
from lrcore.optim.param_group import ParamGroup, is_scheduled, value_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lrcore.optim.optimizer import Optimizer

OWN = "lrcore"

_REFUSED = ("differentiable", "capturable")
_OTHER_KEYS = (*_REFUSED, "decoupled_weight_decay")


class WatchedGroup:
    """A group, its schedules, and a snapshot of the values that the engine has.

    Attributes:
        given: The dictionary. In the place of a schedule it has the schedule's value for the next step.
        schedules: The schedules of hyperparameters and of options under ``"lrcore"``, by name.
        shown: The step count whose scheduled values are in the dictionary, or None if they are out of date.
        zeroed: Scheduled hyperparameters that other code has set to 0 for one step, with that step's count.
    """

    __slots__ = (
        *("_decay", "_is_nested", "_keys", "_kinds", "_names", "_options", "_previous", "_read", "_size", "_snapshot"),
        *("_varies", "_written", "given", "schedules", "shown", "zeroed"),
    )

    def __init__(self, given: dict[str, Any], optimizer: type[Optimizer], options: Mapping[str, Any]) -> None:
        """Watch a group.

        Args:
            given: The group.
            optimizer: The class that declares its hyperparameters.
            options: The options of groups that were given to the optimizer.
        """
        self.given = given
        self.schedules: dict[str, Any] = {}
        self.shown: int | None = None
        self.zeroed: dict[str, int] = {}
        self._options = options
        self._kinds = optimizer._kinds()
        self._names = optimizer._hyperparameter_names()
        self._decay = optimizer._declaration.decay
        # Scheduled values that were written into the dictionary, and the values before these.
        self._written: dict[str, Any] = {}
        self._previous: dict[str, Any] = {}
        self._snapshot: tuple[Any, ...] = ()
        self._keys: list[str] = []
        self._varies = self._is_nested = True
        self._size = -1

    def values(self) -> dict[str, Any]:
        """Return the values for the engine: plain numbers for tensors, schedules as they are."""
        given = {**self.given, **self.schedules}
        values = {name: plain(given[name]) for name in self._names}
        # PyTorch accepts 1 for True.
        values |= {name: bool(value) for name, value in values.items() if isinstance(self._kinds[name], Flag)}
        decoupled = given.get("decoupled_weight_decay")
        decay = self._decay if decoupled is None else "decoupled" if decoupled else "coupled"
        own = {name: self.schedules.get(name, value) for name, value in self.given.get(OWN, {}).items()}
        options = {**NO_OPTIONS, "decay": decay, **self._options, **own}
        return values | {name: plain(value) for name, value in options.items()}

    def has_changed(self) -> bool:
        """Return whether the engine needs :meth:`changes`."""
        if self._varies or len(self.given) != self._size:
            return True
        try:
            changed: bool = self._read(self.given) != self._snapshot
        except KeyError:
            return True
        return changed

    def changes(self, steps: int) -> dict[str, Any]:
        """Return the hyperparameters to update in the engine.

        Raises:
            ValueError: As :meth:`read`.
        """
        if len(self.given) == self._size and not self._varies and not self.schedules:
            # The common edit: a scheduler of PyTorch replaces a number.
            now = [self.given.get(name) for name in self._keys]
            pairs = zip(self._keys, now, self._snapshot, strict=True)
            changed = {name: value for name, value, seen in pairs if value != seen}
            if all(type(value) is float and name in self._names for name, value in changed.items()):
                self._snapshot = tuple(now)
                return changed
        self.read(steps)
        return self.values()

    def read(self, steps: int) -> None:
        """Check the group, replace schedules in it by their values, and take a snapshot.

        Raises:
            TypeError: If the value of ``"lrcore"`` is not a dictionary.
            ValueError: If it has an unknown key; if other code has set a value that has a schedule; for ``capturable``
                and ``differentiable``.
        """
        for name in _REFUSED:
            if self.given.get(name):
                raise ValueError(f"{name}=True is not offered here; torch.optim has it")
        check_own(self.given)
        self.schedules = {name: one for name, one in self.schedules.items() if name in self._holder(name)}
        for name, schedule in self.schedules.items():
            value = self._holder(name)[name]
            if not self._accept_value(name, value, steps):
                raise ValueError(
                    f"param_groups: {name} follows {schedule!r}, and was set to {value!r}, by hand or by a scheduler of"
                    f" PyTorch; give one of both, or schedules.Constant({value!r})"
                )
        for name in (*self._names, *self.given.get(OWN, ())):
            value = self._holder(name).get(name)
            if is_scheduled(value):
                self.schedules[name], self.shown = value, None
                if name not in self._names:
                    # Groups may share this dictionary, and each has to find the schedule in it.
                    self.given[OWN] = dict(self.given[OWN])
                self._write(self._holder(name), name, value_at(value, steps))
        self._take_snapshot()

    def _accept_value(self, name: str, value: Any, steps: int) -> bool:
        """Accept a value in the place of a schedule, and return whether it may be there."""
        if value == self._previous.get(name):
            # ZeroRedundancyOptimizer restores what it read after the last step.
            self._written[name] = value
        if is_scheduled(value) or value == self._written.get(name, value):
            self.zeroed.pop(name, None)
            return True
        # torch.distributed.checkpoint sets the learning rate to 0 for one step that creates state, and restores it.
        return name in self._names and plain(value) == 0.0 and self.zeroed.setdefault(name, steps) == steps

    def adopt(self, present: ParamGroup) -> None:
        """Take the engine's own schedule objects: an update with them does not reset their reports."""
        self.schedules = {name: present[name] for name in self.schedules}

    def show(self, steps: int, present: ParamGroup | None) -> None:
        """Write the scheduled values of the next step into the dictionary, where PyTorch's users look for them.

        Args:
            steps: How many steps have been taken.
            present: The engine's group, which applies reports to schedules, if there is one.
        """
        is_edited = self.has_changed()  # edits stay, and are read before the next step
        numbers: dict[str, float] = {}
        if present is not None:
            try:  # noqa: SIM105 (contextlib.suppress takes a microsecond)
                numbers = present.at(steps)  # the next step uses the same result
            except ValueError:
                pass  # out of range: the next step raises
        names, written = self._names, self._written
        for name, schedule in self.schedules.items():
            holder = self.given if name in names else self._holder(name)
            if is_edited and (name not in holder or holder[name] != written.get(name, holder[name])):
                continue
            if name in numbers:
                value: Any = numbers[name]
            else:
                value = value_at(schedule, steps) if present is None else present.value(name, steps)
            self._write(holder, name, value)
        self.shown = steps
        if is_edited:
            self.forget()
        else:  # only numbers differ, so the keys stay
            values = self._read(self.given)
            self._snapshot = tuple(map(copied, values)) if self._is_nested else values

    def release(self, name: str) -> None:
        """Drop the schedule of a hyperparameter, so that a number can replace it."""
        for known in (self.schedules, self._written, self._previous, self.zeroed):
            known.pop(name, None)
        self.forget()

    def accept(self) -> None:
        """Accept whatever values are in the places of schedules, such as those of a loaded state."""
        self._written, self._previous, self.zeroed, self.shown = {}, {}, {}, None
        self.forget()

    def forget(self) -> None:
        """Invalidate the snapshot."""
        self._size = -1

    def _holder(self, name: str) -> dict[str, Any]:
        """Return the dictionary that holds a hyperparameter or an option."""
        holder: dict[str, Any] = self.given if name in self._names else self.given.get(OWN, {})
        return holder

    def _write(self, holder: dict[str, Any], name: str, value: Any) -> None:
        written = self._written
        previous = written.get(name, value)
        if previous != value:
            self._previous[name] = previous
        holder[name] = written[name] = value

    def _take_snapshot(self) -> None:
        keys = [name for name in (*self._names, OWN, *_OTHER_KEYS) if name in self.given]
        self._keys, self._read = keys, itemgetter(*keys)
        values = self._read(self.given)
        # Lists and dictionaries may be edited in place, so they are copied. Tensors and arrays may be too; a group with
        # one is read before each step.
        self._snapshot = tuple(map(copied, values))
        self._is_nested = any(isinstance(value, dict | list) for value in values)
        self._varies = any(isinstance(leaf, torch.Tensor | np.ndarray) for leaf in leaves(values))
        self._size = -1 if self.zeroed else len(self.given)  # a zeroed group is read before each step


def number_for_torch(value: Any) -> Any:
    """Return a number or a pair of numbers in a form that PyTorch's constructors accept.

    Some of them refuse scalars of NumPy and JAX. A tensor or array that is a number by itself stays, since it may be
    edited in place; so do tensors in pairs, of which PyTorch takes two or none.
    """
    if isinstance(value, tuple | list):
        return tuple(part if isinstance(part, torch.Tensor) else plain(part) for part in value)
    return value if isinstance(value, torch.Tensor | np.ndarray) else plain(value)


def check_own(given: Mapping[str, Any]) -> None:
    """Check the names of the options under ``"lrcore"`` in a group; the optimizer checks their values.

    Raises:
        TypeError: If the value of ``"lrcore"`` is not a dictionary.
        ValueError: If it has a key that is not an option of a group.
    """
    own, place = given.get(OWN, {}), f'group["{OWN}"]'
    if not isinstance(own, dict):
        raise TypeError(f"{place} must be a dict of options, such as {{'clip_value': 1.0}}, got {brief(own)}")
    for name in own:
        if name not in GROUP_OPTIONS:
            raise not_of_group(name, place, GROUP_OPTIONS)


def warn_of_bare_options(given: Mapping[str, Any], index: int, acting: Mapping[str, Any]) -> None:
    """Warn of keys of a group that are named like options of lrcore, and are not read.

    Two cases are left out: ``lr_scale``, since timm, MAE and BEiT put it into every group and multiply it into ``lr``
    themselves; and options of the optimizer, ``acting``, which ZeroRedundancyOptimizer also puts into groups.
    """
    bare = [
        name
        for name in Options.__annotations__
        if name in given and name != "lr_scale" and not (name in acting and acting[name] is given[name])
    ]
    if not bare:
        return
    of_group = [name for name in bare if name in GROUP_OPTIONS]
    of_all = [name for name in bare if name not in GROUP_OPTIONS]
    where = [f'param_groups[{index}]["{OWN}"] for {", ".join(of_group)}'] if of_group else []
    where += [f"arguments of the optimizer for {', '.join(of_all)}"] if of_all else []
    warn(
        f"param_groups[{index}] has {', '.join(map(repr, bare))}: the keys of a group are the program's, and lrcore "
        f"does not read these; its options go into {' and '.join(where)}"
    )


def structures_of(groups: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[Any], list[str | None]]:
    """Return the parameters of all groups as structures for the engine, in one list, and their names in the program.

    The engine needs unique names. Those of the program need not be unique, nor as many as the parameters; a repeated
    name gets the number of the parameter or the group as a prefix.

    Returns:
        For each group a list, or a mapping by unique names; all parameters; and the program's name of each, or None.
    """
    structures: list[Any] = []
    params: list[Any] = []
    names: list[str | None] = []
    taken: set[str] = set()
    for index, given in enumerate(groups):
        # A parameter that is listed twice, such as a tied weight, moves once.
        first = {id(param): i for i, param in reversed(list(enumerate(given["params"])))}
        own = {i: given["params"][i] for i in sorted(first.values())}
        known = given.get("param_names")
        called = {i: str(known[i] if i < len(known) else i) if known else None for i in own}
        params += own.values()
        names += called.values()
        structures.append(_by_name(own, called, index, taken) if known else list(own.values()))
    return structures, params, names


def _by_name(own: Mapping[int, Any], called: Mapping[int, str | None], index: int, taken: set[str]) -> dict[str, Any]:
    """Return parameters of a group by names that no group has yet."""
    named: dict[str, Any] = {}
    for i, param in own.items():
        name = str(called[i])
        if name in named:
            name = f"{i}.{name}"
        while name in taken or name in named:
            name = f"{index}.{name}"
        named[name] = param
    taken.update(named)
    return named


def copied(value: Any) -> Any:
    """Return a value whose lists and dictionaries are copies."""
    if isinstance(value, dict):
        return {name: copied(part) for name, part in value.items()}
    return list(value) if isinstance(value, list) else value
