"""What can be read of an optimizer, and told to it."""

from __future__ import annotations

from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from lrcore._messages import listed
from lrcore.optim.averages import AVERAGES_NOW, buffers_kept, rebuilt, require, swapped
from lrcore.optim.reports import Place, check_report, restore, tell
from lrcore.optim.summary import summarize

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from lrcore import _lrcore
    from lrcore.noise import NoiseScale
    from lrcore.optim.options import Common
    from lrcore.optim.param_group import ParamGroup
    from lrcore.optim.summary import Memory, Summary
    from lrcore.schedules.metrics import Tracker


class Readable:
    """An optimizer as one reads it: parameters, groups, state, averages, rates."""

    if TYPE_CHECKING:
        _params: Any
        _groups: list[ParamGroup]
        _names: list[str]
        _decaying: dict[int, bool]
        _common: Common
        _stepper: _lrcore.Stepper
        _lock: threading.RLock
        _clip_trackers: list[Tracker]
        _skipped: int
        _swapped: bool

    @property
    def params(self) -> Any:
        """The parameters, in the structure that was given."""
        return self._params

    @property
    def param_groups(self) -> tuple[ParamGroup, ...]:
        """The groups. Edits of one are checked at once and hold from the next step on."""
        return tuple(self._groups)

    @property
    def state(self) -> Mapping[str, Mapping[str, np.ndarray[Any, Any]]]:
        """The state arrays: parameter name, then state name. A parameter has none before its first step."""
        with self._lock:
            states = list(zip(self._names, self._stepper.states, strict=True))
        return MappingProxyType({name: MappingProxyType(arrays) for name, arrays in states if arrays})

    @property
    def average(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """The averages of the weights by parameter name, as read-only views; at first there are none."""
        with self._lock:
            averages = {name: arrays["average"] for name, arrays in self.state.items() if "average" in arrays}
        views = {name: array.view() for name, array in averages.items()}
        for view in views.values():
            view.flags.writeable = False
        return MappingProxyType(views)

    def averaged_params(self) -> Any:
        """Return the averages of the weights in the structure of :attr:`params`, as new arrays: to keep, or to export.

        A parameter that has no average, since it had no gradient so far, is there with its weight. Of groups, each has
        its own ``"params"``. :attr:`average` has the same by name, and :meth:`averaged` evaluates them in place.

        Raises:
            ValueError: If the optimizer has no ``average``.

        Examples:
            >>> import lrcore, numpy as np
            >>> opt = lrcore.SGD({"w": np.zeros(1), "more": [np.zeros(2)]}, lr=1.0, average=lrcore.SWA())
            >>> for _ in range(3):
            ...     info = opt.step({"w": np.array([-1.0]), "more": [None]})
            >>> opt.averaged_params()
            {'w': array([2.]), 'more': [array([0., 0.])]}
        """
        require(self._common.average, self)
        with self._lock:
            averages = self.average
            named = zip(self._names, self._stepper.weights(), strict=True)
            return rebuilt(self._params, [(weight, averages.get(name, weight)) for name, weight in named])

    @contextmanager
    def averaged(self, buffers: Any = None) -> Iterator[Self]:
        """Give the weights the values of their averages for the length of a ``with`` block, as for an evaluation.

        Afterwards, also after an exception, every weight has its own values again, bit for bit. A parameter that has no
        average keeps its weight. It takes a copy of the weights. Within the block all is refused that would keep the
        averages as weights, or train on them: steps, gradients to be accumulated, state dicts, checkpoints, pickles and
        copies, new groups.

        Args:
            buffers: Arrays that belong to the weights and are no parameters, such as the running statistics of a batch
                normalisation: an array, or a sequence or mapping of arrays, these nested. They may be computed anew
                within the block, for the averages, and are put back at its end.

        Raises:
            TypeError: If something in ``buffers`` is no array.
            ValueError: If the optimizer has no ``average``; if a weight is read-only or was given another shape, or a
                buffer is read-only, and then no weight is changed.
            RuntimeError: If the averages are in place already. At the end, if a weight could not be put back, since it
                became read-only or got another shape in the block; all others are.

        Examples:
            >>> import lrcore, numpy as np
            >>> opt = lrcore.SGD({"w": np.zeros(1)}, lr=1.0, average=lrcore.SWA())
            >>> for _ in range(3):
            ...     info = opt.step({"w": np.array([-1.0])})
            >>> with opt.averaged():
            ...     print(opt.params["w"])
            [2.]
            >>> opt.params["w"]
            array([3.])

            Statistics that the model keeps beside its weights:

            >>> running = {"mean": np.array([3.0])}
            >>> with opt.averaged(buffers=running):
            ...     running["mean"][...] = opt.params["w"]
            >>> running["mean"]
            array([3.])
        """
        require(self._common.average, self)
        swaps = False
        try:
            with self._lock:
                self._refuse_if_swapped()
                # Within the try: Ctrl-C as the lock is left must not leave the optimizer refusing steps for good.
                swaps = self._swapped = True
                averages = self.average
                weights = dict(zip(self._names, self._stepper.weights(), strict=True))
            named = [(name, weights[name], average) for name, average in averages.items()]
            with swapped(named, also=buffers_kept(buffers)):
                yield self
        finally:
            if swaps:
                self._swapped = False

    def _refuse_if_swapped(self) -> None:
        if self._swapped:
            raise RuntimeError(AVERAGES_NOW)

    @property
    def options(self) -> Mapping[str, Any]:
        """The options of all groups together; those of each group are in :attr:`param_groups`."""
        return MappingProxyType(self._common._asdict())

    @property
    def noise_scale(self) -> NoiseScale | None:
        """The gradient noise scale, if the optimizer has the option: what ``accumulate`` has told it so far."""
        return self._common.noise_scale

    @property
    def skipped(self) -> int:
        """How many steps were left out, since gradients were not finite."""
        return self._skipped

    @property
    def lr(self) -> float:
        """The learning rate of the next step, of the first group. It can be set where there is one group.

        Raises:
            TypeError: If it is set to what is neither a number nor a schedule.
            ValueError: If it is set to a number out of range, if there are several groups, or if the group has an
                ``lr_scale``, which would multiply it.

        Examples:
            >>> import lrcore, numpy as np
            >>> opt = lrcore.SGD([np.zeros(3)], lr=0.1)
            >>> opt.lr = 0.01
            >>> opt.param_groups[0]["lr"]
            0.01
        """
        lr: float = self._groups[0].present(self.steps)["lr"]
        return lr

    @lr.setter
    def lr(self, value: Any) -> None:
        if len(self._groups) > 1:
            groups = listed((group.name or number for number, group in enumerate(self._groups)), len(self._groups))
            raise ValueError(
                f"lr can only be set where there is one group, and there are {groups}: set that of one, "
                'opt.param_groups[0]["lr"] = ..., or of each'
            )
        (group,) = self._groups
        if group["lr_scale"] != 1.0:
            raise ValueError(
                f"lr is the product of the group's lr and lr_scale, which is {group['lr_scale']!r}: "
                'set opt.param_groups[0]["lr"]'
            )
        group["lr"] = value

    def summary(self) -> Summary:
        """Return a table of the parameters: name, shape, dtype, group, learning rate, weight decay and state bytes.

        Returns:
            The table, which prints itself; ``.rows`` has it as data.

        Examples:
            >>> import lrcore, numpy as np
            >>> params = {"w": np.zeros((64, 10)), "b": np.zeros(10)}
            >>> opt = lrcore.AdamW(params, lr=1e-3, weight_decay=0.1, no_decay=["b"])
            >>> print(opt.summary())
            name  shape  dtype    group  lr     decay  state_bytes
            w     64×10  float64  0      0.001  0.1    0
            b     10     float64  0      0.001  0      0
            total: 2 parameters, 1 with weight decay; 650 weights, 5.078 KiB; state 0 B; average 0 B
        """
        with self._lock:
            return self.summary_of(self._stepper.weights(), self._stepper.states)

    def summary_of(self, weights: Sequence[Any], states: Sequence[Mapping[str, Any]]) -> Summary:
        """Return :meth:`summary` of parameters that are these arrays, or tensors, with these states."""
        accumulated = self._stepper.accumulated
        return summarize(
            self._names,
            weights,
            states,
            self._stepper.group_of_each,
            [self._decaying[number] for number in range(len(self._names))],
            self._groups,
            self.steps,
            [] if accumulated is None else [array for _, array in accumulated[2]],
        )

    def memory(self) -> Memory:
        """Return how many bytes weights, state and averages take.

        Examples:
            >>> import lrcore, numpy as np
            >>> opt = lrcore.Adam({"w": np.zeros(100)})
            >>> info = opt.step({"w": np.ones(100)})
            >>> opt.memory()
            Memory(weights=800, state=1600, average=0, total=2400)
        """
        return self.summary().memory

    def hyperparameters(self) -> list[dict[str, Any]]:
        """Return the values of all hyperparameters at the next step, for each group.

        Schedules are evaluated, and ``lr`` contains the group's ``lr_scale``.

        Examples:
            >>> import lrcore, numpy as np
            >>> from lrcore import schedules
            >>> opt = lrcore.SGD([np.zeros(3)], lr=schedules.Linear(0.1, 0.0, steps=4), momentum=0.9)
            >>> info = opt.step([np.ones(3)])
            >>> [(values["lr"], values["momentum"]) for values in opt.hyperparameters()]
            [(0.07500000000000001, 0.9)]
        """
        with self._lock:
            steps = self.steps
            return [group.present(steps) for group in self._groups]

    def report(self, value: float) -> bool:
        """Tell the schedules that follow reports a loss or another metric, such as that of an epoch.

        Args:
            value: The metric. Of a :class:`ReduceOnPlateau <lrcore.schedules.ReduceOnPlateau>` with ``mode="min"`` a
                smaller one is better; a NaN never is.

        Returns:
            Whether a factor changed; it holds from the next step on.

        Raises:
            TypeError: If the value is no number.
            ValueError: If no hyperparameter follows reports.
        """
        with self._lock:
            number = check_report(value)
            trackers = [tracker for _, tracker in self._trackers() if tracker.rule._uses_reports]
            if not trackers:
                raise ValueError(
                    "report: no hyperparameter follows reports; give one such as lr=schedule * "
                    "schedules.ReduceOnPlateau()"
                )
            changed = tell(trackers, number)
            if changed:
                self._resolve_reports()
            return changed

    def _trackers(self) -> list[tuple[Place, Tracker]]:
        """Return the tracker of each occurrence of a schedule that uses reports, or the noise of the gradient."""
        places = [
            (Place(index, name, part), tracker)
            for index, group in enumerate(self._groups)
            for name, trackers in group.trackers.items()
            for part, tracker in enumerate(trackers)
        ]
        return places + [(Place(None, "clip_norm", part), tracker) for part, tracker in enumerate(self._clip_trackers)]

    def _restore_reports(self, saved: Mapping[Place, Tracker]) -> set[Place]:
        """Go on from saved trackers, by their places; the others begin. Return the places that were found."""
        found = restore(self._trackers(), saved)
        self._resolve_reports()
        return found

    def _resolve_reports(self) -> None:
        for group in self._groups:
            if group.trackers:
                group.resolve_reports()

    @property
    def steps(self) -> int:
        """How many steps have been taken."""
        with self._lock:
            return self._stepper.taken
