"""The base class of optimizers: parameters and their names, groups, the step, averages, and state."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from contextlib import contextmanager
from functools import partial
from operator import call
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, Self

from lrcore import _lrcore
from lrcore._collection import without_collections
from lrcore._messages import brief, listed
from lrcore._ranges import POSITIVE
from lrcore._restoring import put_back
from lrcore._text import counted, html_table, html_text
from lrcore.optim import metric_trackers
from lrcore.optim import state_dict as state_dicts
from lrcore.optim.allocation import make_state
from lrcore.optim.averages import AVERAGES_NOW, buffers_kept, rebuilt, require, swapped
from lrcore.optim.declaration import RULES
from lrcore.optim.hyperparameter import FLAG, NUMBER, Hyperparameter
from lrcore.optim.locks import live_lock, wait_at_end
from lrcore.optim.matching import match
from lrcore.optim.metric_trackers import Occurrence, check_report, report_to, restore, with_trackers
from lrcore.optim.option_docs import document
from lrcore.optim.options import GROUP_OPTIONS, GlobalOptions, not_of_group, split, warn_of_unmatched
from lrcore.optim.param_group import ParamGroup, as_groups, check_group
from lrcore.optim.state import export_state, import_state
from lrcore.optim.stats import StepInfo, from_step, with_stats
from lrcore.optim.summary import summarize
from lrcore.schedules import Schedule

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np

    from lrcore.noise import NoiseScale
    from lrcore.optim.declaration import Declaration
    from lrcore.optim.matching import LoadReport, Match
    from lrcore.optim.state import OptimizerState
    from lrcore.optim.state_dict import StateDict
    from lrcore.optim.summary import Memory, Summary
    from lrcore.schedules.metrics import Tracker


# Hyperparameters of a group that are passed to the stepper unchanged.
_FIXED = ("maximize", "bounds", "zero_grads")


class Optimizer:
    """The base class of all optimizers. Use one of its subclasses.

    A subclass declares its hyperparameters and the rules that they choose from; the rules are compiled.
    """

    _declaration: ClassVar[Declaration]
    _warns: ClassVar = True

    _params: Any
    _groups: list[ParamGroup]
    _names: list[str]
    _decaying: dict[int, bool]
    _lr: float
    _global_options: GlobalOptions
    _clip_trackers: list[Tracker]
    _lock: threading.RLock
    _skipped: int
    _skipped_in_a_row: int
    _stepper: _lrcore.Stepper
    # Combines the norm, and the decision to skip, with those of other processes.
    _combine: Callable[[float, bool], tuple[float, bool]] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Abstract classes have none.
        declaration = getattr(cls, "_declaration", None)
        document(cls, decay=declaration.decay if declaration else "coupled")

    def __init__(self, params: Any, arguments: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Create an optimizer.

        Args:
            params: An array, a sequence or mapping of arrays, these nested, or a sequence of groups.
            arguments: The arguments of the subclass's constructor, which contain each hyperparameter.
            options: The given ones of :class:`Options <lrcore.optim.options.Options>`.
        """
        if type(self) is Optimizer:
            raise TypeError("Optimizer is the base class of all optimizers; use SGD, Adam, AdamW, …")
        defaults = {name: arguments[name] for name in self._hyperparameter_names()}
        of_groups, self._global_options = split(options, self._declaration.decay, type(self).__name__, defaults)
        self._defaults = ParamGroup(None, None, self._kinds(), {**defaults, **of_groups}, self._check).hyperparameters
        groups = as_groups(params)
        self._start(params, grouped=groups is not None)
        for group in [{"params": params}] if groups is None else groups:
            self._add_group(group)
        if self._warns:
            warn_of_unmatched(self._global_options.no_decay, self._names)

    @classmethod
    def _rule(cls, group: Mapping[str, Any]) -> str:
        """Return the rule, one of those of the class, that the hyperparameters of a group choose."""
        del group
        (rule,) = cls._declaration.rules
        return rule

    @staticmethod
    def _check(group: Mapping[str, Any]) -> None:
        """Raise if valid hyperparameters contradict each other."""

    @classmethod
    def _kinds(cls) -> dict[str, Hyperparameter]:
        return {
            "lr": NUMBER,
            **cls._declaration.hyperparameters,
            "weight_decay": NUMBER,
            "maximize": FLAG,
            **GROUP_OPTIONS,
        }

    @classmethod
    def _hyperparameter_names(cls) -> list[str]:
        """Return the names of the hyperparameters without the options, as in PyTorch."""
        return [name for name in cls._kinds() if name not in GROUP_OPTIONS]

    def _start(self, params: Any, *, grouped: bool) -> None:
        wait_at_end()  # the stepper reads Python's containers
        self._params = params
        self._began_grouped = self._grouped = grouped
        # Threads take turns. The stepper refuses a thread that calls again from within its own step.
        self._lock = live_lock(self)
        self._groups = []
        self._names = []
        self._decaying = {}
        self._lr = math.nan
        self._skipped = self._skipped_in_a_row = 0
        self._swapped = False
        clip_norm, self._clip_trackers = with_trackers(self._global_options.clip_norm)
        self._global_options = self._global_options._replace(clip_norm=clip_norm)
        # Computed once: it takes a sixth of a step's time in Python.
        self._is_plain = self._global_options.is_plain
        self._stepper = self._new_stepper(grouped)
        self._sync_options()

    def _sync_options(self) -> None:
        """Pass the global options at the present step to the stepper."""
        options = self._global_options.for_stepper(self._stepper.step_count, self._clip_trackers)
        self._stepper.set_options(**options)

    def _new_stepper(self, grouped: bool) -> _lrcore.Stepper:  # noqa: FBT001
        return _lrcore.Stepper(grouped, make_state)

    # The step

    def step(self, grads: Any = None, *, grad_scale: float = 1.0) -> StepInfo:
        """Update every parameter that has a gradient, in place.

        Everything is checked before the first write: after an error, weights, state and step counts are unchanged.

        Args:
            grads: Gradients in the structure of the parameters, each of its parameter's shape and dtype. None in place
                of a gradient, or of a part of the structure, skips it. For groups: a sequence with an entry for each,
                or one mapping with the entries of all. Gradients may have any strides, and are not written to unless
                ``zero_grads`` is set. By default the mean of the accumulated gradients is used.
            grad_scale: The divisor of the gradients, in (0, inf), such as the scale of a loss or the number of
                micro-batches in a sum.

        Returns:
            The step's number, learning rate and gradient norm, and whether it was applied.

        Raises:
            TypeError: If a gradient is no array, or of another dtype.
            ValueError: If a gradient is missing, unexpected or of another shape, shares memory with a weight, or a
                weight is read-only; if a schedule gives a value out of range.
            FloatingPointError: If gradients were not finite ``max_skips`` times in a row, with ``skip_nonfinite``.
            RuntimeError: If gradients are given while accumulated ones are pending; if it is called from within a step
                of this optimizer, or within :meth:`averaged`. Threads take turns.

        Note:
            A strided view, or a gradient whose memory order is not the weight's, is gathered through a small buffer. It
            is not copied as a whole, but the step is several times slower. Another thread must not resize arrays
            during the step.
        """
        with self._lock:
            for index, group in enumerate(self._groups):
                if group.needs_resolving:
                    self._resolve(index, group)
            # True is equal to 1.0, and is refused.
            if self._is_plain and type(grad_scale) is float and grad_scale == 1.0 and not self._swapped:
                steps = self._stepper.step(grads)
                return StepInfo(True, steps, self._lr, None)  # noqa: FBT003 (keywords cost a third more)
            return self._step_with_options(grads, grad_scale)

    def _step_with_options(self, grads: Any, grad_scale: float) -> StepInfo:
        self._refuse_if_swapped()
        grad_scale = POSITIVE.check("grad_scale", grad_scale)
        # For statistics. The step itself divides, since the reciprocal of a subnormal is infinite.
        grad_factor = 1.0 / grad_scale
        if isinstance(self._global_options.clip_norm, Schedule):
            self._sync_options()
        steps = self._stepper.step(grads, grad_scale, self._combine)
        skip_reason = self._stepper.skip_reason
        if skip_reason is not None:
            self._skip(*skip_reason)
            return self._info(steps, grad_factor, applied=False)
        self._skipped_in_a_row = 0
        noise = self._global_options.noise_scale
        if noise is not None:
            self._learn_noise(noise, grad_factor)
        return self._info(steps, grad_factor, applied=True)

    def _info(self, steps: int, grad_factor: float, *, applied: bool) -> StepInfo:
        info = StepInfo(applied, steps, self._lr, self._stepper.grad_norm)
        if not self._global_options.stats:
            return info
        return with_stats(info, partial(from_step, self._stepper.stats, self._names, grad_factor))

    def _learn_noise(self, noise: NoiseScale, grad_factor: float) -> None:
        squares = self._stepper.squared_norms
        if squares is not None:
            count, small, large = squares
            small, large = (norm * grad_factor * grad_factor for norm in (small, large))
            noise._add(small, noise.batch, large, noise.batch * count)
        if noise.has_update:
            noise.has_update = False
            trackers = [tracker for _, tracker in self._trackers() if not tracker.rule._uses_reports]
            if trackers and report_to(trackers, noise.gain()):
                self._resolve_reports()

    def _skip(self, parameter: int | None, place: tuple[list[int], str] | None) -> None:
        """Count a skipped step; raise if there were too many in a row."""
        self._skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= self._global_options.max_skips:
            times, self._skipped_in_a_row = self._skipped_in_a_row, 0
            were = "1 step was" if times == 1 else f"{times} steps in a row were"
            raise FloatingPointError(f"{were} skipped: {self._reason(parameter, place)}")

    def _reason(self, parameter: int | None, place: tuple[list[int], str] | None) -> str:
        """Return the reason for a skipped step."""
        if parameter is None:
            return "a gradient of another process is not finite"
        name = f"the gradient of {self._names[parameter]!r}"
        return f"{name} is {place[1]} at index {tuple(place[0])}" if place else f"{name} is too large for grad_scale"

    def accumulate(self, grads: Any, weight: float = 1.0) -> int:
        """Add the gradients of a micro-batch to the pending ones; :meth:`step` without gradients uses their mean.

        With the gradient ``gᵢ`` and the weight ``wᵢ`` of each micro-batch, the step uses ``Σ wᵢ gᵢ / Σ wᵢ``.

        The sums are in arrays of the optimizer, allocated on first use, and part of a state dict while they are
        pending. With ``zero_grads`` the gradients are set to zero as they are added.

        Args:
            grads: As for :meth:`step`. A missing gradient counts as zeros, unless the parameter has none in any of the
                micro-batches.
            weight: The weight of the micro-batch, in (0, inf). With gradients of a mean over n tokens, ``weight=n``
                makes the step use the mean over all tokens of all micro-batches.

        Returns:
            The number of pending micro-batches.

        Raises:
            TypeError: As :meth:`step`.
            ValueError: As :meth:`step`; if the weight is out of range, or differs from the pending ones and the
                optimizer has a ``noise_scale``. Nothing is added then.

        Examples:
            >>> import lrcore, numpy as np
            >>> opt = lrcore.SGD({"w": np.zeros(2)}, lr=1.0)
            >>> opt.accumulate({"w": np.array([1.0, 2.0])}), opt.accumulate({"w": np.array([3.0, 2.0])})
            (1, 2)
            >>> info = opt.step()
            >>> opt.params["w"]
            array([-2., -2.])
        """
        weight = POSITIVE.check("weight", weight)
        with self._lock:
            self._refuse_if_swapped()
            for index, group in enumerate(self._groups):
                if group.edited:
                    self._resolve(index, group)
            return self._stepper.accumulate(grads, weight)

    def discard_accumulated(self) -> int:
        """Discard the pending gradients, and return the number of their micro-batches.

        Examples:
            >>> import lrcore, numpy as np
            >>> opt = lrcore.SGD({"w": np.zeros(2)}, lr=1.0)
            >>> opt.accumulate({"w": np.ones(2)})
            1
            >>> opt.discard_accumulated(), opt.discard_accumulated()
            (1, 0)
        """
        with self._lock:
            count = self._stepper.pending_batches
            self._stepper.accumulated = None
            return count

    def _resolve(self, index: int, group: ParamGroup) -> None:
        """Pass the rule and the values of a group at the present step to the stepper."""
        wait_at_end()  # the first step calls Python code to allocate state
        # With the lock, an edit by another thread is seen completely, or at the next step.
        with group._lock:
            group.edited = False
            try:
                self._sync_group(index, group)
            except BaseException:
                group.edited = True
                raise

    def _sync_group(self, index: int, group: ParamGroup) -> None:
        numbers = group.at(self._stepper.step_count)
        # Cached until the next edit: these lookups took half of the time of a scheduled step in Python.
        fixed = group.fixed
        if fixed is None:
            rule = self._rule(group)
            stages = {name: group[name] for name in _FIXED if group[name] not in (None, False)}
            fixed = group.fixed = rule, RULES[rule][0], group["decay"], stages
        rule, names, decay, stages = fixed
        weight_decay, lr = numbers["weight_decay"], numbers["lr"]
        if numbers["lr_scale"] != 1.0:
            lr *= numbers["lr_scale"]
            numbers = {**numbers, "lr": lr}
        if "clip_value" in numbers:
            stages = {**stages, "clip_value": numbers["clip_value"]}
        if decay == "independent":
            decay, weight_decay = "decoupled", weight_decay * group.share_of_highest_lr(self.steps)
        elif decay != "coupled":
            weight_decay *= lr
        self._stepper.set_group(
            index,
            rule,
            [*map(numbers.__getitem__, names)],
            decay=decay,
            decay_rate=weight_decay,
            **stages,
        )
        if index == 0:
            self._lr = lr

    # Groups

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add a group of parameters with its own hyperparameters.

        From then on gradients are given by group. A name that exists already is prefixed with the group's name or
        number.

        Args:
            group: ``"params"``, a structure; optionally ``"name"``, and hyperparameters that differ from the defaults.

        Raises:
            TypeError: If the group or a value in it is of a wrong type.
            ValueError: If a value is out of range, or a parameter is in the optimizer already.

        Examples:
            >>> import lrcore, numpy as np
            >>> opt = lrcore.SGD({"body": np.zeros(3)}, lr=0.1)
            >>> opt.add_param_group({"params": {"head": np.zeros(2)}, "lr": 1.0})
            >>> opt.step({"body": np.ones(3), "head": np.ones(2)}).applied
            True
        """
        check_group(group)
        with self._lock:
            self._refuse_if_swapped()
            self._add_group(group)
            groups = self._params if self._grouped else [{"params": self._params}]
            self._params = [*groups, group]
            self._grouped = True

    def _set_decays(self, parameter: int, name: str) -> None:
        """Set whether weight decay applies to a parameter, by matching its name with ``no_decay``."""
        decays = self._global_options.decays(name)
        self._stepper.set_decays(parameter, decays)
        self._decaying[parameter] = decays

    def _add_group(self, given: Mapping[str, Any]) -> None:
        values = {key: value for key, value in given.items() if key not in ("params", "name")}
        for key in values:
            if key not in self._defaults:
                raise not_of_group(key, "a group", ("params", "name", *self._defaults))
        name = given.get("name")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"the name of a group must be a string, got {brief(name)}")
        group = ParamGroup(given["params"], name, self._kinds(), {**self._defaults, **values}, self._check)
        names = self._stepper.add_group(group.params, str(len(self._groups)) if name is None else name)
        for index, parameter in enumerate(names, start=len(self._names)):
            self._set_decays(index, parameter)
        self._groups.append(group)
        self._names.extend(names)

    # Attributes, averages and metrics

    @property
    def params(self) -> Any:
        """The parameters, in the given structure."""
        return self._params

    @property
    def param_groups(self) -> tuple[ParamGroup, ...]:
        """The groups. An edit is checked at once and takes effect at the next step."""
        return tuple(self._groups)

    @property
    def state(self) -> Mapping[str, Mapping[str, np.ndarray[Any, Any]]]:
        """The state arrays, by parameter name, then by state name. A parameter has none before its first step."""
        with self._lock:
            states = list(zip(self._names, self._stepper.states, strict=True))
        return MappingProxyType({name: MappingProxyType(arrays) for name, arrays in states if arrays})

    @property
    def average(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """The averages of the weights by parameter name, as read-only views; empty before the first update."""
        with self._lock:
            averages = {name: arrays["average"] for name, arrays in self.state.items() if "average" in arrays}
        views = {name: array.view() for name, array in averages.items()}
        for view in views.values():
            view.flags.writeable = False
        return MappingProxyType(views)

    def averaged_params(self) -> Any:
        """Return copies of the averages of the weights, in the structure of :attr:`params`, such as for an export.

        For a parameter without an average, which has had no gradient so far, it is a copy of the weight. With groups,
        each has its own ``"params"``. :attr:`average` has the averages by name; :meth:`averaged` puts them in place.

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
        require(self._global_options.average, self)
        with self._lock:
            averages = self.average
            named = zip(self._names, self._stepper.weights(), strict=True)
            return rebuilt(self._params, [(weight, averages.get(name, weight)) for name, weight in named])

    @contextmanager
    def averaged(self, buffers: Any = None) -> Iterator[Self]:
        """Replace the weights by their averages within a ``with`` block, such as for an evaluation.

        Afterwards, also after an exception, every weight is restored bit for bit. A parameter without an average keeps
        its weight. The weights are copied meanwhile. Within the block everything is refused that would save the
        averages as weights or train them: steps, accumulation, state dicts, checkpoints, pickles and copies, new
        groups.

        Args:
            buffers: Arrays that depend on the weights and are not parameters, such as the running statistics of a batch
                normalisation: an array, or a sequence or mapping of arrays, these nested. They may be recomputed for
                the averages within the block, and are restored at its end.

        Raises:
            TypeError: If something in ``buffers`` is not an array.
            ValueError: If the optimizer has no ``average``; if a weight is read-only or has got another shape, or a
                buffer is read-only. No weight is changed then.
            RuntimeError: If the averages are already in place. At the end of the block, if a weight could not be
                restored, since it became read-only or got another shape; all others are restored.

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

            With running statistics of the model:

            >>> running = {"mean": np.array([3.0])}
            >>> with opt.averaged(buffers=running):
            ...     running["mean"][...] = opt.params["w"]
            >>> running["mean"]
            array([3.])
        """
        require(self._global_options.average, self)
        swaps = False
        try:
            with self._lock:
                self._refuse_if_swapped()
                # Within the try: after Ctrl-C at the end of the lock the optimizer must accept steps again.
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
        """The global options; those of each group are in :attr:`param_groups`."""
        return MappingProxyType(self._global_options._asdict())

    @property
    def noise_scale(self) -> NoiseScale | None:
        """The gradient noise scale, if the optimizer has the option; ``accumulate`` updates it."""
        return self._global_options.noise_scale

    @property
    def skipped(self) -> int:
        """The number of steps that were skipped because gradients were not finite."""
        return self._skipped

    @property
    def lr(self) -> float:
        """The learning rate of the next step, of the first group. It can be set if there is only one group.

        Raises:
            TypeError: If it is set to something that is neither a number nor a schedule.
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
            The table, whose text is readable; ``.rows`` has it as data.

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
        """Return :meth:`summary` for these arrays or tensors as weights, and these states."""
        accumulated = self._stepper.accumulated
        return summarize(
            self._names,
            weights,
            states,
            self._stepper.group_indices,
            [self._decaying[number] for number in range(len(self._names))],
            self._groups,
            self.steps,
            [] if accumulated is None else [array for _, array in accumulated[2]],
        )

    def memory(self) -> Memory:
        """Return the bytes of weights, state and averages.

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

        Schedules are evaluated, and ``lr`` includes the group's ``lr_scale``.

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
        """Report a loss or another metric, such as that of an epoch, to the schedules that use it.

        Args:
            value: The metric. For a :class:`ReduceOnPlateau <lrcore.schedules.ReduceOnPlateau>` with ``mode="min"`` a
                smaller one is better; a NaN never is.

        Returns:
            Whether a factor changed; it takes effect at the next step.

        Raises:
            TypeError: If the value is not a number.
            ValueError: If no schedule uses reported metrics.
        """
        with self._lock:
            number = check_report(value)
            trackers = self._report_trackers()
            if not trackers:
                raise ValueError(
                    "report: no schedule uses reported metrics; multiply lr by schedules.ReduceOnPlateau()"
                )
            changed = report_to(trackers, number)
            if changed:
                self._resolve_reports()
            return changed

    def _trackers(self) -> list[tuple[Occurrence, Tracker]]:
        """Return the tracker of each occurrence of a schedule that uses reports or the noise scale."""
        places = [
            (Occurrence(index, name, part), tracker)
            for index, group in enumerate(self._groups)
            for name, trackers in group.trackers.items()
            for part, tracker in enumerate(trackers)
        ]
        return places + [
            (Occurrence(None, "clip_norm", part), tracker) for part, tracker in enumerate(self._clip_trackers)
        ]

    def _report_trackers(self) -> list[Tracker]:
        return [tracker for _, tracker in self._trackers() if tracker.rule._uses_reports]

    def _restore_reports(self, saved: Mapping[Occurrence, Tracker]) -> None:
        """Restore trackers from saved ones, by their occurrence, and reset the others."""
        restore(self._trackers(), saved)
        self._resolve_reports()

    def _resolve_reports(self) -> None:
        for group in self._groups:
            if group.trackers:
                group.resolve_reports()

    @property
    def steps(self) -> int:
        """The number of steps taken."""
        with self._lock:
            return self._stepper.step_count

    # Saving

    def state_dict(self) -> StateDict:
        """Return copies of the state: arrays, step counts and hyperparameters, without the parameters.

        Returns:
            ``"optimizer"``, the name of the class; ``"steps"``; ``"state"``, for each parameter that has taken a step
            its count ``"step"`` and its arrays, by name; ``"param_groups"``, for each group its hyperparameters and the
            names of its parameters; the numbers of skipped steps; and pending gradients.

        Note:
            PyTorch numbers parameters; here they have names, so their order does not matter.

        Raises:
            RuntimeError: Within :meth:`averaged`, as from everything that saves, loads or copies the optimizer.
        """
        with self._lock:
            self._refuse_if_swapped()
            return state_dicts.encode(export_state(self).copied())

    def load_state_dict(
        self,
        state_dict: Mapping[str, Any],
        strict: bool = True,  # noqa: FBT001, FBT002
        *,
        schedules: Literal["saved", "program"] = "saved",
    ) -> LoadReport:
        """Load a saved state, completely or, on an error or Ctrl-C, not at all.

        Arrays are copied, and hyperparameters replaced. Parameters are matched by name, so their order does not matter.

        Args:
            state_dict: The result of :meth:`state_dict`.
            strict: Whether parameters, groups and state arrays must be the same on both sides. If not, what both sides
                have is loaded.
            schedules: The schedules to use, for each hyperparameter with a schedule on either side: ``"saved"``, those
                of the state dict, or ``"program"``, those of the optimizer, such as to prolong a run.
                :func:`lrcore.load` warns where they differ and no choice is given.

        Returns:
            The names of parameters that are missing in the state dict, and of those that are unexpected.

        Raises:
            TypeError: If a part of the state dict is of a wrong type, or an array of another dtype.
            ValueError: If a part is missing or out of range, or an array has another shape; if ``strict``, whatever
                does not match.

        Note:
            PyTorch casts state to the dtype of the weight; here another dtype is an error, and precision is kept.
        """
        with without_collections(), self._lock:
            self._refuse_if_swapped()
            matched = match(state_dicts.decode(state_dict), self, strict=strict, schedules=schedules)
            self._go_on_from(matched)
            return matched.report

    def _go_on_from(self, matched: Match, finish: Callable[[Callable[[], None]], None] = call) -> None:
        """Import a state, then finish; after an exception at any point restore the state before.

        Args:
            matched: The state, matched with this optimizer.
            finish: Does the rest, and then calls its argument before Python code runs again. From that call on nothing
                is restored.
        """
        if matched.warning is not None:
            warnings.warn(matched.warning, stacklevel=3)
        clean_up: list[Callable[[], object]] = [partial(import_state, self, matched.before)]
        try:
            import_state(self, matched.state)
            metric_trackers.warn_of_lost(self._trackers(), matched.state.scalars.get("reports", ()), stacklevel=3)
            finish(clean_up.clear)
        finally:
            # If Ctrl-C interrupts the first call, the second completes it; otherwise the list is empty by then.
            try:
                put_back(clean_up)
            finally:
                put_back(clean_up)

    def __getstate__(self) -> dict[str, Any]:
        """Return the contents of a pickle or a deep copy. They include the parameters, so that both stay together."""
        with self._lock:
            self._refuse_if_swapped()
            return {
                "params": self._params,
                "grouped": (self._began_grouped, self._grouped),
                "defaults": self._defaults,
                "common": self._global_options,
                "groups": [(group.params, group.name) for group in self._groups],
                "state": export_state(self),
            }

    def __setstate__(self, pickled: dict[str, Any]) -> None:
        self._defaults = pickled["defaults"]
        self._global_options = pickled["common"]
        began_grouped, grouped = pickled["grouped"]
        self._start(pickled["params"], grouped=began_grouped)
        state: OptimizerState = pickled["state"]
        for (params, name), group in zip(pickled["groups"], state.groups, strict=True):
            self._add_group({"params": params, "name": name, **group.hyperparameters})
        self._grouped = grouped
        import_state(self, state)

    def __copy__(self) -> NoReturn:
        """Refuse shallow copies: two optimizers would update the same weights with the same state."""
        raise TypeError(f"{type(self).__name__} can't be copied without its parameters; use copy.deepcopy")

    # Printing

    def __repr__(self) -> str:
        if len(self._groups) == 1:
            values = self._groups[0].listed()
            return f"<{type(self).__name__}({values}): {self._extent()}>"
        groups = "".join(f"\n  {group!r}" for group in self._groups)
        return f"<{type(self).__name__}: {self._extent()}{groups}>"

    def _extent(self) -> str:
        return f"{counted(len(self._names), 'parameter')}, {counted(self.steps, 'step')}"

    def _repr_html_(self) -> str:
        """Return a table of the groups, for notebooks."""
        counts = Counter(self._stepper.group_indices)
        rows = [
            [str(index) if group.name is None else group.name, str(counts[index]), group.listed()]
            for index, group in enumerate(self._groups)
        ]
        head = html_text(f"{type(self).__name__}: {self._extent()}")
        return head + html_table(["group", "parameters", "hyperparameters"], rows)
