"""What every optimizer does: name parameters, resolve hyperparameters, own state, and step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from lrcore import _lrcore
from lrcore._messages import brief
from lrcore._ranges import POSITIVE
from lrcore._text import counted, html_table, html_text
from lrcore.optim.allocation import empty_like
from lrcore.optim.hyperparameter import FLAG, RATE, Hyperparameter
from lrcore.optim.locks import live_lock, wait_at_end
from lrcore.optim.option_docs import document
from lrcore.optim.options import GROUP_OPTIONS, Common, not_of_group, split, warn_of_unmatched
from lrcore.optim.param_group import ParamGroup
from lrcore.optim.reports import occupy, tell
from lrcore.optim.saving import RULES, Savable
from lrcore.optim.stats import StepStats, from_step
from lrcore.schedules import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from lrcore.noise import NoiseScale
    from lrcore.optim.declaration import Declaration


class StepInfo(NamedTuple):
    """What a step did.

    Attributes:
        applied: Whether the step was taken.
        step: How many steps have been taken, this one included.
        lr: The learning rate of the step, of the first group.
        grad_norm: The norm of all gradients before clipping, if an option needed it; else None, since it would cost a
            pass over memory.
    """

    applied: bool
    step: int
    lr: float
    grad_norm: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a flat dictionary, as recorders take it; without ``grad_norm`` if it is None.

        Examples:
            >>> import lrcore, numpy as np
            >>> opt = lrcore.SGD([np.zeros(2)], lr=0.1)
            >>> opt.step([np.ones(2)]).as_dict()
            {'step': 1, 'lr': 0.1, 'applied': True}
        """
        norm = {} if self.grad_norm is None else {"grad_norm": self.grad_norm}
        return {"step": self.step, "lr": self.lr, "applied": self.applied, **norm}

    @property
    def stats(self) -> StepStats | None:
        """What the step did to each parameter that it moved, with the option ``stats=True``; else None.

        A step that was skipped moved none: its table is empty.
        """
        return None


class _InfoWithStats(StepInfo):
    _tabulate: Callable[[], StepStats] | None = None

    @cached_property
    def stats(self) -> StepStats | None:
        return None if self._tabulate is None else self._tabulate()

    def __repr__(self) -> str:
        return repr(StepInfo(*self))


def with_stats(info: StepInfo, tabulate: Callable[[], StepStats]) -> StepInfo:
    """Return what a step did with a table of it, which is made when it is asked for."""
    told = _InfoWithStats(*info)
    told._tabulate = tabulate
    return told


# Of a group, what the stepper takes as it is.
_FIXED = ("maximize", "bounds", "zero_grads")


class Optimizer(Savable):
    """What all optimizers have in common. Use one of its subclasses.

    A subclass names its hyperparameters and the rule that they choose; the arithmetic of the rule is compiled.
    """

    _declaration: ClassVar[Declaration]
    _warns: ClassVar = True

    _params: Any
    _groups: list[ParamGroup]
    _names: list[str]
    _decaying: dict[int, bool]
    _lr: float
    _common: Common
    _stepper: _lrcore.Stepper
    # What makes the norm, and the decision to skip, those of several processes.
    _combine: Callable[[float, bool], tuple[float, bool]] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Abstract classes have none.
        declaration = getattr(cls, "_declaration", None)
        document(cls, decay=declaration.decay if declaration else "coupled")

    def __init__(self, params: Any, defaults: dict[str, Any], options: Mapping[str, Any]) -> None:
        """Make an optimizer of parameters.

        Args:
            params: An array, a sequence or mapping of arrays, these nested, or a sequence of groups.
            defaults: A value for each hyperparameter, for the groups that don't say otherwise.
            options: Those of :class:`Options <lrcore.optim.options.Options>` that were given.
        """
        if type(self) is Optimizer:
            raise TypeError("Optimizer is what all optimizers have in common; use SGD, Adam, AdamW, …")
        of_groups, self._common = split(options, self._declaration.decay, type(self).__name__, defaults)
        self._defaults = ParamGroup(None, None, self._kinds(), {**defaults, **of_groups}, self._check).hyperparameters
        groups = _as_groups(params)
        self._start(params, grouped=groups is not None)
        for group in [{"params": params}] if groups is None else groups:
            self._add_group(group)
        if self._warns:
            warn_of_unmatched(self._common.no_decay, self._names)

    @classmethod
    def _rule(cls, group: Mapping[str, Any]) -> str:
        """Return which of the class's rules a group's hyperparameters choose."""
        del group
        (rule,) = cls._declaration.rules
        return rule

    @staticmethod
    def _check(group: Mapping[str, Any]) -> None:
        """Raise if hyperparameters, each valid, contradict each other."""

    @classmethod
    def _kinds(cls) -> dict[str, Hyperparameter]:
        return {"lr": RATE, **cls._declaration.hyperparameters, "weight_decay": RATE, "maximize": FLAG, **GROUP_OPTIONS}

    def _start(self, params: Any, *, grouped: bool) -> None:
        wait_at_end()  # the stepper reads Python's containers
        self._params = params
        self._began_grouped = self._grouped = grouped
        # Threads take turns. One that comes again from within a step is refused by the stepper.
        self._lock = live_lock(self)
        self._groups = []
        self._names = []
        self._decaying = {}
        self._lr = math.nan
        self._skipped = self._skipped_in_a_row = 0
        self._swapped = False
        clip_norm, self._clip_trackers = occupy(self._common.clip_norm)
        self._common = self._common._replace(clip_norm=clip_norm)
        # Asked for at every step, where it takes a sixth of the time in Python.
        self._is_plain = self._common.is_plain
        self._stepper = self._new_stepper(grouped)
        self._stepper.set_options(**self._common.for_stepper(0, self._clip_trackers))

    def _new_stepper(self, grouped: bool) -> _lrcore.Stepper:  # noqa: FBT001
        return _lrcore.Stepper(grouped, make_state)

    # The step

    def step(self, grads: Any = None, *, grad_scale: float = 1.0) -> StepInfo:
        """Move every parameter that has a gradient by one step, in place.

        All is checked before the first write: after an error, weights, state and step counts are as they were.

        Args:
            grads: Gradients in the structure of the parameters, each of its parameter's shape and dtype. None in the
                place of one, or of a part of the structure, skips it. For groups: a sequence with an entry for each, or
                one mapping with the entries of all. Gradients are read only, unless ``zero_grads`` is set; they may
                have any strides. Left out, the mean of those that were accumulated is used.
            grad_scale: What gradients are divided by as they are read, in (0, inf): the scale of a loss, or the number
                of micro-batches in a sum.

        Returns:
            What the step did.

        Raises:
            TypeError: If a gradient is no array, or of another dtype.
            ValueError: If a gradient is missing, unexpected or of another shape, shares memory with a weight, or a
                weight is read-only; if a schedule gives a value out of range.
            FloatingPointError: If gradients were not finite ``max_skips`` times in a row, with ``skip_nonfinite``.
            RuntimeError: If gradients are given while others wait, which were accumulated; if it is called from within
                a step of this optimizer, or within :meth:`averaged`. Threads take turns.

        Note:
            A strided view, or a gradient whose memory order is not the weight's, is gathered through a small buffer: no
            copy is made, but the step is several times slower. Arrays must not be resized by another thread meanwhile.
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
        divisor = POSITIVE.check("grad_scale", grad_scale)
        # For what is told of the step; the step itself takes factors that are beyond a float.
        scale = 1.0 / divisor
        if isinstance(self._common.clip_norm, Schedule):
            self._stepper.set_options(**self._common.for_stepper(self.steps, self._clip_trackers))
        steps = self._stepper.step(grads, divisor, self._combine)
        fault = self._stepper.fault
        if fault is not None:
            self._skip(*fault)
            return self._info(steps, scale, applied=False)
        self._skipped_in_a_row = 0
        noise = self._common.noise_scale
        if noise is not None:
            self._learn_noise(noise, scale)
        return self._info(steps, scale, applied=True)

    def _info(self, steps: int, scale: float, *, applied: bool) -> StepInfo:
        info = StepInfo(applied, steps, self._lr, self._stepper.grad_norm)
        if not self._common.stats:
            return info
        return with_stats(info, partial(from_step, self._stepper.stats, self._names, scale))

    def _learn_noise(self, noise: NoiseScale, scale: float) -> None:
        squares = self._stepper.squares
        if squares is not None:
            count, small, large = squares
            noise._learn(small * scale * scale, noise.batch, large * scale * scale, noise.batch * count)
        if noise.is_news:
            noise.is_news = False
            trackers = [tracker for _, tracker in self._trackers() if not tracker.rule._uses_reports]
            if trackers and tell(trackers, noise.gain()):
                self._resolve_reports()

    def _skip(self, parameter: int | None, place: tuple[list[int], str] | None) -> None:
        """Count a step that was left out; raise if there were too many in a row."""
        self._skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= self._common.max_skips:
            times, self._skipped_in_a_row = self._skipped_in_a_row, 0
            were = "1 step was" if times == 1 else f"{times} steps in a row were"
            raise FloatingPointError(f"{were} skipped: {self._reason(parameter, place)}")

    def _reason(self, parameter: int | None, place: tuple[list[int], str] | None) -> str:
        """Return why a step was skipped."""
        if parameter is None:
            return "a gradient of another process is not finite"
        name = f"the gradient of {self._names[parameter]!r}"
        return f"{name} is {place[1]} at index {tuple(place[0])}" if place else f"{name} is too large for grad_scale"

    def accumulate(self, grads: Any, weight: float = 1.0) -> int:
        """Add the gradients of a micro-batch to those that are waiting; :meth:`step` without gradients uses their mean.

        With the gradient ``gᵢ`` and the weight ``wᵢ`` of each micro-batch, the step uses ``Σ wᵢ gᵢ / Σ wᵢ``.

        The sums are kept in arrays of the optimizer's own, made on first use, and are part of a state dict while they
        wait. With ``zero_grads`` the gradients are set to zero as they are added.

        Args:
            grads: As for :meth:`step`. A parameter without a gradient counts as one of zeros, unless it has none in any
                of the micro-batches.
            weight: How much the micro-batch counts, in (0, inf). If its gradients are those of a mean over n tokens,
                ``weight=n`` makes the step one of the mean over all tokens, however many each micro-batch has.

        Returns:
            How many micro-batches are waiting.

        Raises:
            TypeError: As :meth:`step`.
            ValueError: As :meth:`step`; if the weight is out of range, or differs from those that wait and the
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
        """Drop the gradients that are waiting for a step, and return of how many micro-batches they were.

        Examples:
            >>> import lrcore, numpy as np
            >>> opt = lrcore.SGD({"w": np.zeros(2)}, lr=1.0)
            >>> opt.accumulate({"w": np.ones(2)})
            1
            >>> opt.discard_accumulated(), opt.discard_accumulated()
            (1, 0)
        """
        with self._lock:
            count = self._stepper.waiting
            self._stepper.accumulated = None
            return count

    def _resolve(self, index: int, group: ParamGroup) -> None:
        """Tell the stepper the rule and the numbers of a group at the present step."""
        wait_at_end()  # a first step has Python make its state
        # An edit by another thread is seen whole or not at all, and then at the next step.
        with group._lock:
            group.edited = False
            try:
                self._tell(index, group)
            except BaseException:
                group.edited = True
                raise

    def _tell(self, index: int, group: ParamGroup) -> None:
        numbers = group.at(self._stepper.taken)
        # What only an edit changes is looked up once for each: half of the time of a scheduled step in Python.
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
        """Add parameters, with hyperparameters of their own.

        From then on gradients come in groups. Names that are taken already are prefixed with the group's name, or its
        number.

        Args:
            group: ``"params"``, a structure; optionally ``"name"``, and hyperparameters that differ from the
                optimizer's.

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
        _check_group(group)
        with self._lock:
            self._refuse_if_swapped()
            self._add_group(group)
            groups = self._params if self._grouped else [{"params": self._params}]
            self._params = [*groups, group]
            self._grouped = True

    def _set_decays(self, parameter: int, name: str) -> None:
        """Match ``no_decay`` with the name of a parameter, by its number."""
        decays = self._common.decays(name)
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
        counts = Counter(self._stepper.group_of_each)
        rows = [
            [str(index) if group.name is None else group.name, str(counts[index]), group.listed()]
            for index, group in enumerate(self._groups)
        ]
        head = html_text(f"{type(self).__name__}: {self._extent()}")
        return head + html_table(["group", "parameters", "hyperparameters"], rows)


def make_state(weight: np.ndarray[Any, Any], initial: float) -> np.ndarray[Any, Any]:
    """Return a new state array, in the memory order of its weight."""
    array = empty_like(weight)
    array.fill(initial)
    return array


def _as_groups(params: Any) -> Sequence[Mapping[str, Any]] | None:
    """Return the groups if ``params`` is a sequence of them, or None if it is a structure of arrays."""
    if not isinstance(params, Sequence) or isinstance(params, str | bytes) or not params:
        return None
    are_groups = [isinstance(entry, Mapping) and "params" in entry for entry in params]
    if not any(are_groups):
        return None
    for i, is_group in enumerate(are_groups):
        if not is_group:
            raise TypeError(f'params[{i}] must be a group with "params", as others are, got {type(params[i]).__name__}')
    return params


def _check_group(group: Any) -> None:
    if not isinstance(group, Mapping):
        raise TypeError(f'the group must be a mapping with "params", got {type(group).__name__}')
    if "params" not in group:
        raise ValueError(f'the group has no "params"; it has {", ".join(map(str, group)) or "nothing"}')
