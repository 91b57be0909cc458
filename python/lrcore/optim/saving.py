"""How an optimizer is saved, and goes on."""

from __future__ import annotations

import warnings
from functools import partial
from operator import call
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

from lrcore import _lrcore
from lrcore._collection import without_collections
from lrcore._restoring import put_back
from lrcore.optim import reports
from lrcore.optim import state_dict as state_dicts
from lrcore.optim.param_group import choose_schedules
from lrcore.optim.reading import Readable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from lrcore.optim.declaration import Declaration
    from lrcore.optim.reports import Place
    from lrcore.optim.state_dict import LoadReport, StateDict

RULES = {name: (hyperparameters, state) for name, hyperparameters, state in _lrcore.rules()}


class Savable(Readable):
    """An optimizer as it is saved: as a state dict, in a checkpoint, in a pickle."""

    if TYPE_CHECKING:
        _declaration: ClassVar[Declaration]
        _defaults: dict[str, Any]
        _began_grouped: bool
        _grouped: bool
        _skipped: int
        _skipped_in_a_row: int

        def _start(self, params: Any, *, grouped: bool) -> None: ...

        def _add_group(self, given: Mapping[str, Any]) -> None: ...

    def state_dict(self) -> StateDict:
        """Return all but the parameters, as copies: state arrays, step counts and hyperparameters.

        Returns:
            ``"optimizer"``, the class's name; ``"steps"``; ``"state"``, for each parameter that has taken a step its
            count ``"step"`` and its arrays, by name; ``"param_groups"``, for each group its hyperparameters and the
            names of its parameters; how many steps were skipped; and what micro-batches wait for a step.

        Note:
            PyTorch numbers parameters; here they have names, so their order does not matter.

        Raises:
            RuntimeError: Within :meth:`averaged`, as from all that saves, loads or copies the optimizer.
        """
        with self._lock:
            self._refuse_if_swapped()
            return state_dicts.capture(self._snapshot())

    def load_state_dict(
        self,
        state_dict: Mapping[str, Any],
        strict: bool = True,  # noqa: FBT001, FBT002
        *,
        schedules: Literal["saved", "program"] = "saved",
    ) -> LoadReport:
        """Go on from a state that was saved: all of it, or on an error, or Ctrl-C, nothing.

        Arrays are copied, hyperparameters are those that were saved. Parameters are matched by name, so that their
        order does not matter.

        Args:
            state_dict: What :meth:`state_dict` returned.
            strict: Whether parameters, groups and state arrays must be the same on both sides. If not, what both sides
                have is loaded.
            schedules: Which schedules hold from then on, for each hyperparameter that is one on either side:
                ``"saved"``, those of the state dict, or ``"program"``, those that the optimizer has now, as for a run
                that is made longer. :func:`lrcore.load` warns where they differ and neither was asked for.

        Returns:
            The names of parameters that were missing in the state dict, and of those that were unexpected.

        Raises:
            TypeError: If a part of the state dict is of a wrong type, or an array of another dtype.
            ValueError: If a part is missing or out of range, or an array has another shape; if ``strict``, whatever
                does not match.

        Note:
            PyTorch casts state to the dtype of the weight; here another dtype is an error, and precision is kept.
        """
        with without_collections(), self._lock:
            self._refuse_if_swapped()
            loaded = self._match(state_dict, strict=strict, schedules=schedules)
            self._set_or_leave(loaded)
            return loaded.report

    def _match(
        self, state_dict: Mapping[str, Any], *, strict: bool, schedules: str | None, unread: type[Any] | None = None
    ) -> state_dicts.Loaded:
        """Return what a state dict sets, checked and copied. Changes nothing. For ``unread`` see ``state_dict.match``.

        Without a choice of schedules it warns the caller of the caller where saved ones replace others.
        """
        weights = dict(zip(self._names, self._stepper.weights(), strict=True))
        states = [RULES[rule][1] for rule in (self._declaration.rules if strict else RULES)]
        own = {name for rule in self._declaration.rules for name in RULES[rule][1]}
        loaded = state_dicts.match(state_dict, self._snapshot(), weights, states, own, strict=strict, unread=unread)
        groups, replaced = choose_schedules(loaded.groups, self._groups, schedules)
        if replaced:
            warnings.warn(replaced, stacklevel=3)
        return loaded._replace(groups=groups)

    def _set_or_leave(self, loaded: state_dicts.Loaded, finish: Callable[[Callable[[], None]], None] = call) -> None:
        """Set all that was matched, then finish, or after an exception at any point leave all as it was.

        Args:
            loaded: What :meth:`_match` returned.
            finish: Does the rest; then, before Python code runs again, it makes the call that it is given. From then on
                nothing is taken back.
        """
        clean_up: list[Callable[[], object]] = [partial(self._set, self._present())]
        try:
            reports.warn_of_lost(self._set(loaded), stacklevel=3)
            finish(clean_up.clear)
        finally:
            # Ctrl-C may come as the first is called; after it the second finds an empty list.
            try:
                put_back(clean_up)
            finally:
                put_back(clean_up)

    def _set(self, loaded: state_dicts.Loaded) -> set[Place]:
        """Set all of it, and return the places of saved trackers that no schedule took over."""
        for group, values in loaded.groups:
            group.replace(values)
        lost = loaded.reports.keys() - self._restore_reports(loaded.reports)
        if self._common.noise_scale is not None and loaded.noise is not None:
            self._common.noise_scale.restore(loaded.noise)
        self._skipped, self._skipped_in_a_row = loaded.skipped
        self._set_state(loaded.steps, loaded.counts, loaded.averaged, loaded.state, loaded.accumulated)
        return lost

    def _present(self) -> state_dicts.Loaded:
        """Return what there is now, as what is to be loaded: arrays as they are, not copied."""
        now = self._snapshot()
        groups = [(group, group.hyperparameters) for group in self._groups]
        noise = None if now.noise is None else now.noise.state()
        counts, averaged, state = dict(now.counts), dict(now.averaged), dict(now.state)
        told, report = reports.check_saved(reports.save(now.reports)), state_dicts.LoadReport([], [])
        return state_dicts.Loaded(
            now.steps, state, counts, averaged, groups, told, noise, now.skipped, now.accumulated, report
        )

    def _snapshot(self) -> state_dicts.Snapshot:
        by_group: list[list[str]] = [[] for _ in self._groups]
        for name, index in zip(self._names, self._stepper.group_of_each, strict=True):
            by_group[index].append(name)
        return state_dicts.Snapshot(
            optimizer=type(self).__name__,
            steps=self.steps,
            counts=dict(zip(self._names, self._stepper.counts, strict=True)),
            averaged=dict(zip(self._names, self._stepper.averaged, strict=True)),
            state=dict(zip(self._names, self._stepper.states, strict=True)),
            groups=list(zip(self._groups, by_group, strict=True)),
            reports=self._trackers(),
            noise=self._common.noise_scale,
            skipped=(self._skipped, self._skipped_in_a_row),
            accumulated=self._accumulated(),
        )

    def _accumulated(self) -> state_dicts.Accumulated | None:
        waiting = self._stepper.accumulated
        if waiting is None:
            return None
        count, weight, sums, squares = waiting
        return state_dicts.Accumulated(count, weight, {self._names[index]: array for index, array in sums}, squares)

    def _set_state(
        self,
        steps: int,
        counts: Mapping[str, int],
        averaged: Mapping[str, int],
        state: Mapping[str, dict[str, np.ndarray[Any, Any]]],
        accumulated: state_dicts.Accumulated | None,
    ) -> None:
        self._stepper.taken = steps
        if accumulated is None:
            self._stepper.accumulated = None
        else:
            count, weight, sums, squares = accumulated
            indexed = [(index, sums[name]) for index, name in enumerate(self._names) if name in sums]
            self._stepper.accumulated = (count, weight, indexed, squares)
        for index, name in enumerate(self._names):
            self._stepper.set_state(index, counts.get(name, 0), averaged.get(name, 0), state.get(name, {}))

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle or a deep copy holds: the parameters too, so that both stay together."""
        with self._lock:
            self._refuse_if_swapped()
            snapshot = self._snapshot()
        return {
            "params": self._params,
            "grouped": (self._began_grouped, self._grouped),
            "defaults": self._defaults,
            "common": self._common,
            "groups": [(group.params, group.name, group.hyperparameters) for group in self._groups],
            "steps": snapshot.steps,
            "skipped": snapshot.skipped,
            "accumulated": snapshot.accumulated,
            "reports": reports.save(snapshot.reports),
            "counts": snapshot.counts,
            "averaged": snapshot.averaged,
            "state": snapshot.state,
        }

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self._defaults = saved["defaults"]
        self._common = saved["common"]
        began_grouped, grouped = saved["grouped"]
        self._start(saved["params"], grouped=began_grouped)
        for params, name, values in saved["groups"]:
            self._add_group({"params": params, "name": name, **values})
        self._grouped = grouped
        self._skipped, self._skipped_in_a_row = saved["skipped"]
        self._restore_reports(reports.check_saved(saved["reports"]))
        self._set_state(saved["steps"], saved["counts"], saved["averaged"], saved["state"], saved["accumulated"])

    def __copy__(self) -> NoReturn:
        """Refuse: two optimizers would move the same weights with the same state."""
        raise TypeError(f"{type(self).__name__} can't be copied without its parameters; use copy.deepcopy")
