"""Saving and loading of drop-in optimizers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from lrcore._ranges import check_count
from lrcore.optim.averages import AVERAGES_NOW
from lrcore.optim.options import GROUP_OPTIONS, GlobalOptions
from lrcore.optim.state import OptimizerState
from lrcore.schedules import Schedule
from lrcore.torch.groups import OWN, WatchedGroup, check_own
from lrcore.torch.param_names import matched
from lrcore.torch.param_states import ParamStates
from lrcore.torch.progress import KEY, parse
from lrcore.torch.shared_attributes import SharedAttribute, SharedAttributes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lrcore.torch.engine import Engine


_HOOKS = [name for name in torch.optim.Optimizer.__annotations__ if name.startswith("_optimizer_")]


if TYPE_CHECKING:

    class _Base(SharedAttributes, torch.optim.Optimizer):
        def __init__(self, *args: Any, **values: Any) -> None: ...
else:
    _Base = torch.optim.Optimizer


class StatefulOptimizer(_Base):
    """The part of a drop-in optimizer that saves it: as a state dict in PyTorch's form, a pickle or a copy."""

    _engine_class: ClassVar[type[Engine]]

    _shared: SharedAttributes

    if TYPE_CHECKING:

        def _ready(self) -> Engine: ...

        def _prepare(self) -> Engine: ...

    def _new_watched(self, given: dict[str, Any]) -> WatchedGroup:
        of_groups = {name: value for name, value in self._options.items() if name in GROUP_OPTIONS}
        return WatchedGroup(given, self._engine_class, of_groups)

    def _refuse_if_averaged(self) -> None:
        if self._is_averaged:
            raise RuntimeError(AVERAGES_NOW)

    @property
    def state(self) -> ParamStates:
        """The state of each parameter, a dictionary of tensors by name, as in PyTorch."""
        return self._shared.state

    @state.setter
    def state(self, given: Mapping[Any, Any]) -> None:
        self.__dict__["state"] = self._shared.state = ParamStates.of(given)

    @property
    def steps(self) -> int:
        """The number of steps taken, at which schedules are evaluated. It can be set."""
        own = self._shared
        return own._steps if own._engine is None else own._engine.steps

    @steps.setter
    def steps(self, steps: int) -> None:
        self._steps = check_count("steps", steps, least=0)
        if self._engine is not None:
            self._engine._stepper.step_count = self._steps
        self._show_present()
        self._write_progress()

    def _show_present(self) -> None:
        """Set the values of schedules at the next step in the groups."""
        own, steps = self._shared, self.steps
        known = () if own._engine is None else own._engine.param_groups
        for index, group in enumerate(own._groups):
            if group.schedules:
                group.show(steps, known[index] if index < len(known) else None)

    # The state of the optimizer as a text in the groups

    def _note_schedules(self) -> None:
        """Keep the text in the groups from now on, if the optimizer has state that it must contain."""
        if not self._note.is_kept:
            options = self._global_options
            self._note.is_kept = (
                any(group.schedules for group in self._groups)
                or isinstance(options.clip_norm, Schedule)
                or options.skip_nonfinite
                or options.average is not None
            )

    def _write_progress(self) -> None:
        """Write the text into the groups."""
        own, steps = self._shared, self.steps
        note = own._note
        if not note.is_kept:
            return
        state = self._exported()
        note.store_rest(own.state.largest_count() - steps, state)
        skips = (state.scalars.get(name, 0) for name in ("skipped", "skipped_in_a_row"))
        note.write(own.param_groups, steps, *skips)

    def _exported(self) -> OptimizerState:
        """Return the state of the optimizer; before there is an engine it is empty."""
        engine = self._shared._engine
        return OptimizerState("") if engine is None else engine.export_state()

    def _saved_text(self) -> str | None:
        """Return the text of the first group that has one."""
        return next((group[KEY] for group in self.param_groups if KEY in group), None)

    def _go_on(self, text: str | None) -> None:
        """Load the text of the groups; without one, the number of steps is the largest step count of a parameter."""
        counted, engine = self.state.largest_count(), self._engine
        saved = None if text is None else parse(text)
        for group in self._groups:
            group.accept()
        self.steps = counted if saved is None else saved.steps_at(counted)
        if not self._note.is_kept:
            for given in self.param_groups:
                given.pop(KEY, None)
            return
        if saved is not None:
            state = saved.state
        else:
            state = self._exported()
            state.scalars.pop("reports", None)
        state.scalars["steps"] = self.steps
        # An engine is created only if it is needed: errors in the groups are reported by the next step.
        has_more = state.arrays or any(value for name, value in state.scalars.items() if name != "steps")
        if state.scalars.get("reports") or (engine is None and has_more):
            engine = self._prepare()
        if engine is not None:
            engine.load(state)
            self._show_present()
        self._write_progress()

    def progress(self) -> tuple[Any, ...]:
        """Return the state that is neither in the groups nor in the state of parameters."""
        return self.steps, self._info, None if self._engine is None else self._engine.export_state()

    def restore_progress(self, progress: tuple[Any, ...]) -> None:
        """Restore the result of :meth:`progress`."""
        self.steps, self._info, state = progress
        if state is not None:
            state.scalars["steps"] = self.steps
            self._ready().import_state(state)
            self._show_present()
        else:
            self._engine = None
        self._write_progress()

    def state_dict(self) -> dict[str, Any]:
        """Return the state in PyTorch's form; see :meth:`torch.optim.Optimizer.state_dict`.

        With schedules, an average or ``skip_nonfinite`` each group has one entry more, ``"lrcore_state"``, which
        PyTorch ignores: a text with the numbers of steps taken and skipped, and the state of metric trackers. It does
        not contain the schedules, which the program creates again.

        Raises:
            RuntimeError: Within :meth:`averaged`, as from everything that saves, loads or copies the optimizer.
        """
        self._refuse_if_averaged()
        with self._lock:
            self._write_progress()
            saved: dict[str, Any] = super().state_dict()
        for group in saved.get("param_groups", ()):
            if OWN in group:  # which is a dictionary that may be edited in place
                group[OWN] = dict(group[OWN])
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of this optimizer or of PyTorch's; see :meth:`torch.optim.Optimizer.load_state_dict`.

        Where both sides have names of parameters, as from ``model.named_parameters()``, state and groups are matched by
        these, in any order; wrappers of the model may differ. Otherwise they are matched by position, as in PyTorch. If
        the state has no number of steps, it is the largest step count of a parameter.

        Raises:
            ValueError: If the names differ, or are in other groups.
        """
        self._refuse_if_averaged()

        def check(_: Any, given: dict[str, Any]) -> dict[str, Any]:
            for group in given["param_groups"]:
                check_own(group)
                if KEY in group:
                    parse(group[KEY])
            return {**given, "param_groups": matched(given["param_groups"], self.param_groups)}

        # Hooks of the user may replace the state before it is loaded.
        before = self.register_load_state_dict_pre_hook(check)
        try:
            super().load_state_dict(state_dict)
        finally:
            before.remove()

    def _schedules(self) -> list[dict[str, Any]]:
        """Return the schedules of each group by name, also after groups were reordered since the last step."""
        watched = {id(group.given): group.schedules for group in self._groups}
        return [dict(watched.get(id(given), {})) for given in self.param_groups]

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_if_averaged()
        engine = self._engine
        own = {
            "options": self._options,
            "scheduled": self._scheduled,
            "processes": self._processes,
            "schedules": self._schedules(),
            "steps": self.steps,
            "state": None if engine is None else engine.export_state(),
        }
        return {**super().__getstate__(), "_own": own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        own = state.pop("_own", None)
        if self._engine_class._declaration.in_torch is None:
            # As PyTorch's optimizers do: a state that was saved elsewhere may lack hyperparameters.
            defaults = state.get("defaults") or self.defaults
            for group in state.get("param_groups", ()):
                for name in self._engine_class._hyperparameter_names():
                    group.setdefault(name, defaults[name])
        if own is not None:
            self._shared = SharedAttributes(own["options"], GlobalOptions.of(own["options"]))
            before = []
        else:
            before = self.param_groups
            # PyTorch creates new hooks for an object without attributes of its own, such as some wrappers.
            for name in _HOOKS:
                self.__dict__.setdefault(name, getattr(self, name))
        # Set through their descriptors, which PyTorch's __setstate__ would bypass by an update of __dict__.
        for name in ("param_groups", "defaults", "state"):
            if name in state:
                setattr(self, name, state.pop(name))
        super().__setstate__(state)
        if own is None:
            # PyTorch loads a state in this way. The previous groups matter only for options that the state lacks.
            for given, old in zip(self.param_groups, before, strict=True):
                if OWN in old:
                    given.setdefault(OWN, old[OWN])
                # In place, because other optimizers may share these dictionaries.
                old.clear()
                old.update(given)
            self.param_groups = before
            self._go_on(self._saved_text())
            return
        self._scheduled, self._steps, self._processes = own["scheduled"], own["steps"], own["processes"]
        self._groups = [self._new_watched(given) for given in self.param_groups]
        for group, schedules in zip(self._groups, own["schedules"], strict=True):
            group.schedules = schedules
            group.accept()
        if own["state"] is not None:
            self._prepare().import_state(own["state"])
        self._note_schedules()
        self._write_progress()


for _name in SharedAttributes.__annotations__.keys() - {"state"}:
    setattr(StatefulOptimizer, _name, SharedAttribute(_name))
