"""What the drop-ins have in common: they are PyTorch's optimizers, but for who takes the step."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn.parameter import is_lazy
from torch.optim import optimizer as torch_optimizer

from lrcore import _lrcore
from lrcore._ranges import check_count
from lrcore.optim.averages import swapped
from lrcore.optim.options import GROUP_OPTIONS, split
from lrcore.optim.param_group import is_scheduled, value_at
from lrcore.schedules import Schedule
from lrcore.torch.engine import written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

    from lrcore.optim import StepInfo
    from lrcore.torch.engine import Engine

_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


class States(defaultdict[Any, Any]):
    """The state of an optimizer, a dictionary for each parameter, that notes when an entry is put in or taken out."""

    changed = True

    def __setitem__(self, key: Any, value: Any) -> None:
        self.changed = True
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        self.changed = True
        super().__delitem__(key)

    def clear(self) -> None:
        """Take out all entries."""
        self.changed = True
        super().clear()

    def pop(self, *args: Any) -> Any:
        """Take out an entry."""
        self.changed = True
        return super().pop(*args)

    def popitem(self) -> tuple[Any, Any]:
        """Take out the last entry."""
        self.changed = True
        return super().popitem()

    def update(self, *args: Any, **entries: Any) -> None:
        """Put in several entries."""
        self.changed = True
        super().update(*args, **entries)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Put in an entry if there is none."""
        self.changed = True
        return super().setdefault(key, default)

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc]
        self.update(other)
        return self

    def hold(self, key: Any, value: dict[str, Any]) -> None:
        """Put in an entry that the step knows of."""
        super().__setitem__(key, value)


class _Record:
    """A group as it was at the last step."""

    __slots__ = ("schedules", "seen", "varies")

    def __init__(self) -> None:
        self.schedules: dict[str, Any] = {}
        self.seen: dict[str, Any] | None = None
        # Whether a hyperparameter is a tensor, whose value may have changed unseen.
        self.varies = False


class DropIn(torch.optim.Optimizer):
    """An optimizer of PyTorch whose step is lrcore's. Use one of its subclasses."""

    _engine_class: ClassVar[type[Engine]]
    _counts_steps: ClassVar = True

    # GradScaler leaves the scale and what it found to the step.
    _step_supports_amp_scaling = True

    state: Any
    param_groups: list[dict[str, Any]]

    _engine: Engine | None = None
    _info: StepInfo | None = None
    _steps = 0

    def _start(self, options: Mapping[str, Any], **values: Any) -> dict[str, Any]:
        """Take what is beyond PyTorch, options and schedules. PyTorch's constructor comes after it and adds groups.

        Returns:
            The values, with those at the first step in the places of schedules.
        """
        name = type(self).__name__
        if options.get("noise_scale") is not None:
            raise ValueError(
                f"{name} has no noise_scale: gradients are added up in .grad; see lrcore.NoiseScale.update"
            )
        split(options, "coupled", name)
        self._of_groups = {key: value for key, value in options.items() if key in GROUP_OPTIONS}
        self._of_all = {key: value for key, value in options.items() if key not in GROUP_OPTIONS}
        self._scheduled = {key: value for key, value in values.items() if is_scheduled(value)}
        self._records: list[_Record] = []
        return {key: value_at(value, 0) for key, value in values.items()}

    # Groups

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; see :meth:`torch.optim.Optimizer.add_param_group`.

        Values may be schedules, and the group may have the options of a group.

        Raises:
            TypeError: If a parameter that is trained is not float32, float64 or complex of these.
            ValueError: If one is not on the CPU, or a value is out of range.
        """
        if isinstance(param_group, dict):
            for name, value in (self._of_groups | self._scheduled).items():
                param_group.setdefault(name, value)
        super().add_param_group(param_group)
        try:
            self._check_group(len(self.param_groups) - 1)
        except BaseException:
            self.param_groups.pop()
            raise
        self._records.append(_Record())
        self._note_schedules(param_group, self._records[-1])

    def _check_group(self, index: int) -> None:
        group = self.param_groups[index]
        self._refuse_flags(group)
        for i, param in enumerate(group["params"]):
            if not param.requires_grad:
                continue
            place = f'param_groups[{index}]["params"][{i}]'
            if param.device.type != "cpu":
                raise ValueError(f"{place} is on the device {param.device}; allowed is the CPU, torch.optim has others")
            if param.dtype not in _DTYPES:
                raise TypeError(f"{place} has {param.dtype}; allowed are float32 and float64, and complex of these")
            if not is_lazy(param) and (param.is_conj() or param.is_neg()):
                kind = "conjugated" if param.is_conj() else "negated"
                raise ValueError(f"{place} is a lazily {kind} view; give a copy, .resolve_conj().resolve_neg()")
        if self._of_all.get("no_decay") and "param_names" not in group:
            raise ValueError("no_decay matches names: give model.named_parameters(), or groups of such pairs")
        self._engine_class.check_group(self._values(group))

    def _refuse_flags(self, group: Mapping[str, Any]) -> None:
        for name in ("differentiable", "capturable"):
            if group.get(name):
                raise ValueError(f"{type(self).__name__}: {name}=True is not offered here; torch.optim has it")

    def _values(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the engine is to know of a group."""
        values = {name: _plain(group[name]) for name in self._engine_class.hyperparameter_names()}
        values |= {name: group[name] for name in GROUP_OPTIONS if name in group}
        values.setdefault("decay", "decoupled" if group.get("decoupled_weight_decay") else "coupled")
        return values

    def _note_schedules(self, group: dict[str, Any], record: _Record) -> None:
        """Keep the schedules of a group, and put the values of the next step in their places."""
        for name, value in group.items():
            if is_scheduled(value):
                record.schedules[name] = value
                group[name] = value_at(value, self.steps)
        record.varies = any(isinstance(value, torch.Tensor) for name in group for value in _parts(group[name]))

    # The step

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step, in place; see :meth:`torch.optim.Optimizer.step`.

        Args:
            closure: Evaluates the model anew and returns the loss.

        Returns:
            What the closure returned. What the step did is in :attr:`info`.

        Raises:
            RuntimeError: If a gradient is sparse, or a parameter was made in inference mode and this is outside of it.
            TypeError: If a parameter or a gradient is of another dtype.
            ValueError: If a tensor is on another device or of another shape, or weights share memory; if a
                hyperparameter is out of range. After an error weights and state are as they were.
            FloatingPointError: If gradients were not finite ``max_skips`` times in a row, with ``skip_nonfinite``.
        """
        if (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
            or torch.autograd._profiler_enabled()
        ):
            return _hooked(self) if closure is None else _hooked(self, closure)
        return self._take(closure)

    # PyTorch wraps a step that is not marked so; entering a profiler's record costs more than a small step.
    step.hooked = True  # type: ignore[attr-defined]

    def _take(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        engine = self._ready()
        attributes = self.__dict__
        if "grad_scale" in attributes or "found_inf" in attributes:
            scale, found_inf = attributes.get("grad_scale"), attributes.get("found_inf")
            if found_inf is not None and found_inf.item():
                return loss
            self._info = engine.step(None, grad_scale=1.0 if scale is None else scale.item())
        else:
            self._info = engine.step(None)
        made = engine.made
        if made:
            for number in made:
                self.state.hold(self._params[number], self._mappings[number])
        return loss

    def _ready(self) -> Engine:
        """Return the engine, which knows the groups and the state as they are now."""
        groups, engine, state = self.param_groups, self._engine, self.state
        if (
            engine is None
            or state.__class__ is not States
            or state.changed
            or not _lrcore.same_objects([group["params"] for group in groups], self._lists)
        ):
            engine = self._prepare()
        for index, record in enumerate(self._records):
            group = groups[index]
            if record.varies or group != record.seen:
                self._tell(engine, index, group, record)
            elif record.schedules:
                self._follow_schedules(engine, index, group, record)
        if self._has_inference and not torch.is_inference_mode_enabled():
            raise RuntimeError("a parameter was made in inference mode; it can be stepped within inference mode alone")
        return engine

    def _prepare(self) -> Engine:
        """Make an engine of the groups, with the state that there is."""
        if self.state.__class__ is not States:
            self.state = States(dict, self.state)
        groups, lists, params = [], [], []
        for group, record in zip(self.param_groups, self._records, strict=True):
            self._refuse_flags(group)
            self._refuse_two_sources(group, record)
            self._note_schedules(group, record)
            # A parameter that is there twice, as tied weights may be, moves once.
            own = {id(param): i for i, param in reversed(list(enumerate(group["params"])))}
            places = sorted(own.values())
            names = group.get("param_names")
            structure: Any = [group["params"][i] for i in places]
            params += structure
            if names:
                structure = dict(zip((names[i] for i in places), structure, strict=True))
            groups.append({"params": structure, **self._values({**group, **record.schedules})})
            lists.append(list(group["params"]))
            record.seen = dict(group)
        engine = self._engine_class(groups, **self._of_all)
        if self._engine is not None:
            engine.go_on_from(self._engine.progress())
        engine.set_steps(self.steps)
        self._params = params
        self._mappings = [self.state.get(param, {}) for param in self._params]
        self._mappings = [mapping if isinstance(mapping, dict) else {} for mapping in self._mappings]
        engine.keep_state_in(self._mappings, counts_steps=self._counts_steps)
        self._lists = lists
        self._has_inference = any(not is_lazy(param) and param.is_inference() for param in self._params)
        self.state.changed = False
        self._engine = engine
        return engine

    def _tell(self, engine: Engine, index: int, group: dict[str, Any], record: _Record) -> None:
        """Tell the engine the hyperparameters of a group, some of which have changed."""
        self._refuse_flags(group)
        self._refuse_two_sources(group, record)
        self._note_schedules(group, record)
        engine.param_groups[index].update(self._values({**group, **record.schedules}))
        self._follow_schedules(engine, index, group, record)
        record.seen = dict(group)

    def _refuse_two_sources(self, group: dict[str, Any], record: _Record) -> None:
        """Raise if something else has set what follows a schedule."""
        for name, schedule in record.schedules.items():
            if record.seen is not None and not is_scheduled(group[name]) and group[name] != record.seen[name]:
                raise ValueError(
                    f"param_groups: {name} follows {schedule!r}, and was set to {group[name]!r}, by hand or by a"
                    f" scheduler of PyTorch; give one of both, or schedules.Constant({group[name]!r})"
                )

    def _follow_schedules(self, engine: Engine, index: int, group: dict[str, Any], record: _Record) -> None:
        """Put the values of the next step in the places of schedules, where PyTorch's users look for them."""
        for name in record.schedules:
            group[name] = engine.param_groups[index].value(name, engine.steps)
        record.seen = dict(group)

    @contextmanager
    def without_schedules(self, name: str) -> Iterator[list[Any]]:
        """Let a hyperparameter be a plain number for a while, and return its schedules and numbers, group by group."""
        kept = [record.schedules.get(name) for record in self._records]
        present = [group[name] for group in self.param_groups]
        for record in self._records:
            record.schedules.pop(name, None)
        try:
            yield [number if schedule is None else schedule for schedule, number in zip(kept, present, strict=True)]
        finally:
            for group, record, schedule, number in zip(self.param_groups, self._records, kept, present, strict=True):
                if schedule is not None:
                    record.schedules[name] = schedule
                    group[name] = number
                record.seen = None

    @classmethod
    def taking_over(cls, optimizer: torch.optim.Optimizer, options: Mapping[str, Any]) -> Self:
        """Return an optimizer with the groups, the state and the hooks of another one."""
        self = cls.__new__(cls)
        self._start(options)
        attributes = {name: value for name, value in vars(optimizer).items() if name.startswith("_optimizer_")}
        groups = [{**self._of_groups, **group} for group in optimizer.param_groups]
        torch.optim.Optimizer.__setstate__(
            self, {**attributes, "defaults": {**optimizer.defaults, **self._of_groups}, "param_groups": groups}
        )
        for index in range(len(groups)):
            self._check_group(index)
        # Whoever edits the groups of the other one, as its schedulers do, edits these.
        for group, merged in zip(optimizer.param_groups, groups, strict=True):
            group.update(merged)
        self.param_groups = optimizer.param_groups
        self.state = optimizer.state = States(dict, optimizer.state)
        self._records = [_Record() for _ in groups]
        self.steps = _largest_count(self.state)
        return self

    # What the step tells

    @property
    def info(self) -> StepInfo | None:
        """What the last step did: whether it was applied, its number, rate, gradient norm and statistics."""
        return self._info

    @property
    def steps(self) -> int:
        """How many steps have been taken: what schedules are asked for. It can be set."""
        return self._steps if self._engine is None else self._engine.steps

    @steps.setter
    def steps(self, steps: int) -> None:
        self._steps = check_count("steps", steps, least=0)
        if self._engine is not None:
            self._engine.set_steps(self._steps)

    @property
    def skipped(self) -> int:
        """How many steps were left out, since gradients were not finite."""
        return 0 if self._engine is None else self._engine.skipped

    def report(self, value: float) -> bool:
        """Tell the schedules that follow reports a loss or another metric; see :meth:`lrcore.Adam.report`."""
        return self._ready().report(value)

    @property
    def average(self) -> dict[str, torch.Tensor]:
        """The averages of the weights, by parameter name; at first there are none."""
        names = self._ready().names
        found = {name: self.state.get(param, {}) for name, param in zip(names, self._params, strict=True)}
        return {name: state["average"] for name, state in found.items() if "average" in state}

    @contextmanager
    def averaged(self) -> Iterator[Self]:
        """Give the weights the values of their averages for the length of a ``with`` block, as for an evaluation.

        Afterwards, also after an exception, every weight has its own values again, bit for bit. Within it steps are
        refused. It takes a copy of the weights.

        Raises:
            ValueError: If the optimizer has no ``average``.
            RuntimeError: If the averages are in place already.
        """
        engine = self._ready()
        states = [(param, self.state.get(param, {})) for param in self._params]
        pairs = [(param, state["average"]) for param, state in states if "average" in state]
        weights = [param for param, _ in pairs]
        with engine.while_swapped():
            try:
                with swapped([(_as_numpy(param), _as_numpy(average)) for param, average in pairs]):
                    written(weights)
                    yield self
            finally:
                written(weights)

    # How it is saved

    def state_dict(self) -> dict[str, Any]:
        """Return the state in PyTorch's form; see :meth:`torch.optim.Optimizer.state_dict`.

        An optimizer with schedules or an average adds ``"steps"``, how many were taken, and ``"reports"``, where a
        schedule follows what was reported. PyTorch passes over both. Schedules themselves are not part of it: the
        program makes them anew.
        """
        saved: dict[str, Any] = super().state_dict()
        scheduled = any(record.schedules for record in self._records) or isinstance(
            self._of_all.get("clip_norm"), Schedule
        )
        if scheduled or self._of_all.get("average") is not None:
            saved["steps"] = self.steps
        reports = [] if self._engine is None else self._engine.progress()["reports"]
        if reports:
            saved["reports"] = [{**report, "schedule": report["schedule"].to_json()} for report in reports]
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state of this optimizer or of PyTorch's; see :meth:`torch.optim.Optimizer.load_state_dict`.

        Where the state does not say how many steps were taken, it is the largest count of a parameter.
        """

        def note(_: Any, given: dict[str, Any]) -> None:
            nonlocal state_dict
            state_dict = given

        # Hooks of the user may replace the state before it is loaded, and look at what came of it afterwards.
        before = self.register_load_state_dict_pre_hook(note)
        after = self.register_load_state_dict_post_hook(lambda _: self._load_own(state_dict), prepend=True)
        try:
            super().load_state_dict(state_dict)
        finally:
            before.remove()
            after.remove()

    def _load_own(self, state_dict: Mapping[str, Any]) -> None:
        """Load what a state has beyond PyTorch's."""
        self.steps = int(state_dict.get("steps", _largest_count(self.state)))
        if "reports" in state_dict:
            reports = [
                {**report, "schedule": Schedule.from_json(report["schedule"])} for report in state_dict["reports"]
            ]
            engine = self._ready()
            engine.go_on_from({**engine.progress(), "reports": reports})

    def __getstate__(self) -> dict[str, Any]:
        engine = self._engine
        own = {
            "of_groups": self._of_groups,
            "of_all": self._of_all,
            "schedules": [record.schedules for record in self._records],
            "steps": self.steps,
            "progress": None if engine is None else engine.progress(),
        }
        return {**super().__getstate__(), "_own": own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        own = state.pop("_own", None)
        before = self.__dict__.get("param_groups", [])
        super().__setstate__(state)
        if own is not None:
            self._of_groups, self._of_all, self._steps = own["of_groups"], own["of_all"], own["steps"]
            self._records = [_Record() for _ in own["schedules"]]
            for record, schedules in zip(self._records, own["schedules"], strict=True):
                record.schedules = schedules
            if own["progress"] is not None:
                self._prepare().go_on_from(own["progress"])
        else:
            # This is how PyTorch loads a state: what groups were before does not matter, but for options that it lacks.
            for group, old, record in zip(self.param_groups, before, self._records, strict=True):
                group.update({name: old[name] for name in GROUP_OPTIONS if name in old and name not in group})
                record.seen = None


_hooked = torch.optim.Optimizer.profile_hook_step(DropIn._take)


def _largest_count(states: Mapping[Any, Any]) -> int:
    """Return the largest count of a parameter's steps, or 0 where none are counted."""
    counts = [state["step"] for state in states.values() if isinstance(state, dict) and "step" in state]
    return int(max(map(float, counts), default=0.0))


def _parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _plain(value: Any) -> Any:
    """Return a hyperparameter with numbers in the place of tensors."""
    if isinstance(value, tuple | list):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, torch.Tensor) else value


def _as_numpy(tensor: torch.Tensor) -> Any:
    return tensor.detach().numpy()
