"""Parameter groups of PyTorch: plain dictionaries, which anyone may edit between steps.

Their keys belong to PyTorch and to the program: frameworks keep ``lr_scale`` and the like there for themselves. Options
of lrcore for one group stand in a dictionary of their own, under the key :data:`OWN`; no other key acts.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lrcore._messages import brief, warn
from lrcore.optim.hyperparameter import plain
from lrcore.optim.options import GROUP_OPTIONS, NO_OPTIONS, Options, not_of_group
from lrcore.optim.param_group import ParamGroup, is_scheduled, value_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

OWN = "lrcore"

# Arguments of PyTorch that are flags, where its programs may give 1 for True.
_FLAGS = ("amsgrad", "nesterov", "centered", "maximize")
_REFUSED = ("differentiable", "capturable")
_ASKED = (*_REFUSED, "decoupled_weight_decay")


class WatchedGroup:
    """A group, as it was when the engine was told of it, and the schedules that it was given.

    Attributes:
        given: The dictionary. In the place of a schedule it has the schedule's present value.
        schedules: The hyperparameters, and the options under ``"lrcore"``, that have schedules, with these.
        shown: The number of steps for which schedules' values are in the dictionary, if they are up to date.
        held: The hyperparameters with schedules that something has set to 0 for a step, with the number of that step.
    """

    __slots__ = (
        *("_before", "_is_nested", "_keys", "_names", "_options", "_read", "_seen", "_size", "_varies", "_written"),
        *("given", "held", "schedules", "shown"),
    )

    def __init__(self, given: dict[str, Any], names: Sequence[str], options: Mapping[str, Any]) -> None:
        """Watch a group of an optimizer.

        Args:
            given: The group.
            names: The names of the optimizer's hyperparameters.
            options: The options of a group that were given for all of them.
        """
        self.given = given
        self.schedules: dict[str, Any] = {}
        self.shown: int | None = None
        self.held: dict[str, int] = {}
        self._options = options
        self._names = names
        self._written: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        self._seen: tuple[Any, ...] = ()
        self._keys: list[str] = []
        self._varies = self._is_nested = True
        self._size = -1

    def values(self) -> dict[str, Any]:
        """Return what the engine is to know: numbers in the place of tensors, and schedules in their own."""
        given = {**self.given, **self.schedules}
        values = {name: plain(given[name]) for name in self._names}
        values |= {name: bool(values[name]) for name in _FLAGS if name in values}
        decay = "decoupled" if given.get("decoupled_weight_decay") else "coupled"
        own = {name: self.schedules.get(name, value) for name, value in self.given.get(OWN, {}).items()}
        options = {**NO_OPTIONS, "decay": decay, **self._options, **own}
        return values | {name: plain(value) for name, value in options.items()}

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
            TypeError: If what stands under ``"lrcore"`` is no dictionary.
            ValueError: If it has a key that is no option of a group; if something else has set what follows a schedule;
                for ``capturable`` and ``differentiable``.
        """
        for name in _REFUSED:
            if self.given.get(name):
                raise ValueError(f"{name}=True is not offered here; torch.optim has it")
        check_own(self.given)
        self.schedules = {name: one for name, one in self.schedules.items() if name in self._place_of(name)}
        for name, schedule in self.schedules.items():
            value = self._place_of(name)[name]
            if not self._stands(name, value, steps):
                raise ValueError(
                    f"param_groups: {name} follows {schedule!r}, and was set to {value!r}, by hand or by a scheduler of"
                    f" PyTorch; give one of both, or schedules.Constant({value!r})"
                )
        for name in (*self._names, *self.given.get(OWN, ())):
            value = self._place_of(name).get(name)
            if is_scheduled(value):
                self.schedules[name], self.shown = value, None
                if name not in self._names:
                    # Other groups may have the same dictionary, and are to find the schedule there, too.
                    self.given[OWN] = dict(self.given[OWN])
                self._write(self._place_of(name), name, value_at(value, steps))
        self._remember()

    def _stands(self, name: str, value: Any, steps: int) -> bool:
        """Return whether a value in the place of a schedule may be there."""
        if value == self._before.get(name):
            # ZeroRedundancyOptimizer puts back what it has read after the last step.
            self._written[name] = value
        if is_scheduled(value) or value == self._written.get(name, value):
            self.held.pop(name, None)
            return True
        # torch.distributed.checkpoint has a rate of 0 for one step, which makes state, and puts back what was there.
        return name in self._names and plain(value) == 0.0 and self.held.setdefault(name, steps) == steps

    def adopt(self, present: ParamGroup) -> None:
        """Take the very schedules that the engine has: given to it again, they are not new ones."""
        self.schedules = {name: present[name] for name in self.schedules}

    def show(self, steps: int, present: ParamGroup | None) -> None:
        """Put the values of the step after so many in the place of schedules, where PyTorch's users look for them.

        Args:
            steps: How many steps have been taken.
            present: The engine's group, which knows what schedules make of reports, if there is one.
        """
        # What was edited since the last step stays as it is, and is found by the next one.
        is_edited = self.has_changed()
        numbers: dict[str, float] = {}
        if present is not None:
            try:  # noqa: SIM105 (contextlib.suppress takes a microsecond)
                numbers = present.at(steps)  # which the next step asks for again
            except ValueError:
                pass  # one is out of range, which that step will refuse
        for name, schedule in self.schedules.items():
            place = self._place_of(name)
            if is_edited and (name not in place or place[name] != self._written.get(name, place[name])):
                continue
            if name in numbers:
                value: Any = numbers[name]
            else:
                value = value_at(schedule, steps) if present is None else present.value(name, steps)
            self._write(place, name, value)
        self.shown = steps
        if is_edited:
            self.forget()
        else:
            # No more than numbers have become others, at each step: the keys need no new look.
            values = self._read(self.given)
            self._seen = tuple(map(copied, values)) if self._is_nested else values

    def show_next(self, steps: int, present: ParamGroup) -> None:
        """Do so after a step. An error of a schedule is for the step that needs it: this one has been taken."""
        try:
            self.show(steps, present)
        except Exception:
            self.shown = None

    def release(self, name: str) -> None:
        """Let the schedule of a hyperparameter go: what is put in its place holds."""
        for known in (self.schedules, self._written, self._before, self.held):
            known.pop(name, None)
        self.forget()

    def accept(self) -> None:
        """Let the values in the place of schedules be others, such as those of a state that was loaded."""
        self._written, self._before, self.held, self.shown = {}, {}, {}, None
        self.forget()

    def forget(self) -> None:
        """Have the engine told of the group anew."""
        self._size = -1

    def _place_of(self, name: str) -> dict[str, Any]:
        """Return the dictionary in which a hyperparameter or an option stands."""
        place: dict[str, Any] = self.given if name in self._names else self.given.get(OWN, {})
        return place

    def _write(self, place: dict[str, Any], name: str, value: Any) -> None:
        written = self._written
        before = written.get(name, value)
        if before != value:
            self._before[name] = before
        place[name] = written[name] = value

    def _remember(self) -> None:
        keys = [name for name in (*self._names, OWN, *_ASKED) if name in self.given]
        self._keys, self._read = keys, itemgetter(*keys)
        values = self._read(self.given)
        # Lists and dictionaries may be edited in place; so may tensors and arrays, which are not kept twice.
        self._seen = tuple(map(copied, values))
        self._is_nested = any(isinstance(value, dict | list) for value in values)
        self._varies = any(isinstance(part, torch.Tensor | np.ndarray) for value in values for part in _parts(value))
        # One that is held is looked at again before each step.
        self._size = -1 if self.held else len(self.given)


def number_for_torch(value: Any) -> Any:
    """Return a number, or a pair of numbers, as PyTorch's constructors take them.

    They refuse scalars of NumPy and JAX in some places. What may be edited in place, a tensor or an array that is a
    number by itself, stays what it is; so do tensors in pairs, of which PyTorch takes two or none.
    """
    if isinstance(value, tuple | list):
        return tuple(part if isinstance(part, torch.Tensor) else plain(part) for part in value)
    return value if isinstance(value, torch.Tensor | np.ndarray) else plain(value)


def check_own(given: Mapping[str, Any]) -> None:
    """Check what a group has for lrcore, but for values, which the optimizer checks.

    Raises:
        TypeError: If it is no dictionary.
        ValueError: If a key of it is no option of a group.
    """
    own, place = given.get(OWN, {}), f'group["{OWN}"]'
    if not isinstance(own, dict):
        raise TypeError(f"{place} must be a dict of options, such as {{'clip_value': 1.0}}, got {brief(own)}")
    for name in own:
        if name not in GROUP_OPTIONS:
            raise not_of_group(name, place, GROUP_OPTIONS)


def warn_of_bare_options(given: Mapping[str, Any], index: int, acting: Mapping[str, Any]) -> None:
    """Warn of keys of a group that are spelt like options of lrcore, and belong to the program.

    ``lr_scale`` is left out: timm, MAE and BEiT put it into every group, and multiply it into ``lr`` themselves.
    So are those that ``acting`` has, the options of the optimizer: ZeroRedundancyOptimizer gives them to both.
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
    """Return the parameters of all groups as the engine takes them, in a list, and their names there.

    Names need not be their own, in a group or in all of them, nor as many as parameters: nobody keeps programs from
    that. To the engine those that were there before have the number of the parameter or the group before them.

    Returns:
        For each group a list, or a mapping by names that are unique; all parameters; and what each is called by the
        program, or None without names.
    """
    structures: list[Any] = []
    params: list[Any] = []
    names: list[str | None] = []
    taken: set[str] = set()
    for index, given in enumerate(groups):
        # A parameter that is there twice, as tied weights may be, moves once.
        first = {id(param): i for i, param in reversed(list(enumerate(given["params"])))}
        own = {i: given["params"][i] for i in sorted(first.values())}
        known = given.get("param_names")
        called = {i: str(known[i] if i < len(known) else i) if known else None for i in own}
        params += own.values()
        names += called.values()
        structures.append(_by_name(own, called, index, taken) if known else list(own.values()))
    return structures, params, names


def _by_name(own: Mapping[int, Any], called: Mapping[int, str | None], index: int, taken: set[str]) -> dict[str, Any]:
    """Return parameters of a group by names that are in no group yet."""
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


def _parts(value: Any) -> Iterator[Any]:
    """Yield what a value is made of, however it is nested."""
    if isinstance(value, dict | tuple | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _parts(part)
    else:
        yield value
