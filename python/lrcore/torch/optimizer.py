"""The base class of the drop-ins: subclasses of PyTorch's optimizers whose step is lrcore's.

Groups, state, hooks and state dicts stay PyTorch's dictionaries and tensors. The step is that of an
:class:`Engine <lrcore.torch.engine.Engine>`, an optimizer of lrcore over the same tensors::

    engine = self._ready()  # updated where groups were edited; made anew where lists of parameters or states changed
    self._info = engine.step()
    # then: dictionaries of new state into ``state``, counters and the next scheduled values into the groups
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn.parameter import is_lazy
from torch.optim import optimizer as torch_optimizer

from lrcore import _lrcore
from lrcore._messages import brief
from lrcore.optim import OF_GROUPS, StepInfo, StepStats
from lrcore.optim.averages import require, swapped
from lrcore.optim.hyperparameter import Flag, GroupAttribute, plain
from lrcore.optim.option_docs import document
from lrcore.optim.options import Options, split, warn_of_unmatched
from lrcore.optim.param_group import ParamGroup, is_scheduled, value_at
from lrcore.optim.stats import with_stats
from lrcore.schedules.schedule import remedy_for
from lrcore.torch.averaged_weights import locked, refuse_averaged
from lrcore.torch.distributed import OPTION, PARTIAL, StepSync, are_shards, is_made_by_zero
from lrcore.torch.engine import engine_of, make_count, make_state
from lrcore.torch.groups import WatchedGroup, check_own, copied, number_for_torch, structures_of, warn_of_bare_options
from lrcore.torch.module_state import copy_of, recompute_statistics, restores_of
from lrcore.torch.progress import KEY
from lrcore.torch.saving import StatefulOptimizer
from lrcore.torch.shared_attributes import SharedAttributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Self

    from lrcore.optim.optimizer import Optimizer
    from lrcore.optim.summary import Memory, Summary
    from lrcore.torch.engine import Engine


class TorchOptions(Options, total=False):
    """The options of every optimizer of lrcore, and one for distributed runs."""

    process_group: Any


# The names of the options of the drop-ins.
_OPTIONS = (*(name for name in Options.__annotations__ if name != "noise_scale"), *OPTION)
# What the local names of a constructor contain besides arguments for PyTorch's.
_NO_ARGUMENTS = ("self", "params", "options", "__class__")
_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


# What the docstrings of optimizers have in common, before what they have from those of the NumPy form.
_DOCSTRING = """
Args:
    params: Parameters, pairs of a name and a parameter, or groups of either. Those that have a gradient are float32 or
        float64 or complex of these, of any strides, on the CPU, and don't share memory.
    foreach: Accepted for compatibility; ignored.
    fused: Accepted for compatibility; ignored.
    capturable: False; it is for CUDA graphs.
    differentiable: False.
    decoupled_weight_decay: Decay as :class:`AdamW` does.

Options for one group are the entries of its key ``"lrcore"``: ``{{"params": …, "lrcore": {{"clip_value": 1.0}}}}``. Its
other keys are PyTorch's and the program's.

Every number may be a schedule of lrcore. Then ``param_groups`` has its value for the next step, as with a scheduler of
PyTorch that has been stepped, and :attr:`info` the learning rate of the last one; a scheduler of PyTorch for the same
number is an error.

Raises:
    TypeError: If an argument or a parameter is of a wrong type.
    ValueError: If one is out of range or on another device; for ``capturable`` and ``differentiable``.

Examples:
    >>> import torch, lrcore.torch
    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> opt = lrcore.torch.{name}([weight], lr=0.1)
    >>> weight.sum().backward()
    >>> opt.step()
    >>> opt.info.step, opt.info.lr, bool((weight < 1.0).all())
    (1, 0.1, True)
"""


class DropIn(StatefulOptimizer):
    """An optimizer of PyTorch whose step is lrcore's. Use a subclass."""

    _counts_steps: ClassVar = True

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether a GradScaler leaves unscaling and skipping to the step.

        False where a subclass or a program wraps the step: the wrapper must not run for a skipped step, since
        Accelerate detects skipped steps by it.
        """
        around = self.__dict__.get("step")
        return type(self).step is DropIn.step and (around is None or hasattr(around, "_wrapped_by_lr_sched"))

    @_step_supports_amp_scaling.setter
    def _step_supports_amp_scaling(self, _: bool) -> None:
        """Ignore the value that PyTorch's constructors set with ``fused=True``."""

    def __init_subclass__(cls, *, of: type[Optimizer] | None = None, **kwargs: Any) -> None:
        """Define the drop-in of an optimizer of lrcore, or a subclass of a drop-in."""
        super().__init_subclass__(**kwargs)
        docstrings: tuple[str | None, ...] = ()
        if of is not None:
            cls._engine_class = engine_of(of)
            docstrings = _DOCSTRING.format(name=cls.__name__), of.__doc__
        if hasattr(cls, "_engine_class"):
            decay = cls._engine_class._declaration.decay
            document(cls, decay=decay, without=("noise_scale",), more=OPTION, completed_by=docstrings)

    def __init__(self, params: Any, arguments: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Check and store options and schedules, and call PyTorch's constructor, which adds the groups.

        Args:
            params: The parameters, as PyTorch takes them.
            arguments: The arguments of the subclass's constructor: each hyperparameter, and PyTorch's flags.
            options: The given options of lrcore.
        """
        self._start(options)
        engine, declaration = self._engine_class, self._engine_class._declaration
        given = {name: value for name, value in arguments.items() if name not in _NO_ARGUMENTS}
        for name in engine._hyperparameter_names():
            value = given[name]
            if isinstance(engine._kinds()[name], Flag):
                continue
            if name == declaration.initial:
                given[name] = plain(value)
                continue
            # PyTorch would compare it with 0: configuration files give "1e-3" as a string.
            if (remedy := remedy_for(value)) or isinstance(value, str):
                raise TypeError(f"{name} must be a number or a schedule, got {brief(value)}{remedy}")
            if is_scheduled(value):
                self._scheduled[name] = value
                given[name] = plain(value_at(value, 0))
            else:
                given[name] = number_for_torch(value)
        if declaration.in_torch is None:
            super().__init__(params, given)  # the defaults of groups
        else:
            super().__init__(params, **given)
        names = [name for group in self.param_groups for name in group.get("param_names", ())]
        warn_of_unmatched(self._global_options.no_decay, names)
        if self._global_options.average is not None:
            # PyTorch's Adagrad has its state from the start, and programs save or load it in pieces before any step.
            for param, state in self.state.items():
                if param.requires_grad:
                    state |= {"average": make_state(param, 0.0), "averaged": make_count(0.0)}

    def _start(self, options: Mapping[str, Any]) -> None:
        """Check and store options."""
        name = type(self).__name__
        if options.get("noise_scale") is not None:
            raise ValueError(
                f"{name} has no noise_scale: gradients are added up in .grad; see lrcore.NoiseScale.update"
            )
        given = {**options}
        group = given.pop("process_group", None)
        _, common = split(given, "coupled", name, self._engine_class._hyperparameter_names(), _OPTIONS)
        self._shared = SharedAttributes(given, common)
        if group is not None:
            if not common.needs_norm:
                raise ValueError(
                    "process_group needs clip_norm or skip_nonfinite: nothing else is of all gradients together"
                )
            self._processes = StepSync(group)
        elif common.needs_norm and is_made_by_zero():
            raise ValueError(f"{name} is made by ZeroRedundancyOptimizer: {PARTIAL}")

    # Groups

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; see :meth:`torch.optim.Optimizer.add_param_group`.

        Hyperparameters may be schedules. Options of lrcore for this group are the entries of ``"lrcore"``:
        ``{"params": …, "lrcore": {"clip_value": 1.0}}``. Other keys belong to the program.

        Raises:
            TypeError: If a trainable parameter is not float32, float64 or complex of these, or ``"lrcore"`` is not a
                dictionary.
            ValueError: If a trainable parameter is not on the CPU, a value is out of range, or ``"lrcore"`` has an
                unknown key.
            RuntimeError: Within :meth:`averaged`.
        """
        if self._groups:
            self._refuse_if_averaged()
        if isinstance(param_group, dict):
            for name, value in self._scheduled.items():
                param_group.setdefault(name, value)
        super().add_param_group(param_group)
        try:
            index = len(self.param_groups) - 1
            group = self._watched(index)
            warn_of_bare_options(group.given, index, self._options)
        except BaseException:
            self.param_groups.pop()
            raise
        self._groups.append(group)
        # A group of another optimizer has the counters of that one.
        group.given.pop(KEY, None)
        self._note_schedules()
        self._write_progress()

    def _watched(self, index: int) -> WatchedGroup:
        """Check a group, and return it as a WatchedGroup."""
        given = self.param_groups[index]
        refuse_averaged(given)
        if self._global_options.needs_norm and self._processes is None and are_shards(given["params"]):
            raise ValueError(f'param_groups[{index}]["params"] are shards of FSDP: {PARTIAL}')
        for i, param in enumerate(given["params"]):
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
        if self._global_options.no_decay and "param_names" not in given:
            raise ValueError("no_decay matches names: give model.named_parameters(), or groups of such pairs")
        check_own(given)
        group = self._new_watched(given)
        engine = self._engine_class
        # The constructor checks the values.
        ParamGroup(None, None, engine._kinds(), self._for_engine(group.values()), engine._check)
        group.read(self.steps)
        return group

    def _for_engine(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return values of a group for the engine. As in PyTorch, state starts from the constructor's value."""
        initial = self._engine_class._declaration.initial
        return values if initial is None else {**values, initial: self.defaults[initial]}

    # The step

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step, in place; see :meth:`torch.optim.Optimizer.step`.

        Args:
            closure: Evaluates the model again and returns the loss.

        Returns:
            The result of the closure. :attr:`info` has the result of the step.

        Raises:
            RuntimeError: If a gradient is sparse, or a parameter was created in inference mode and the step is outside
                of it.
            TypeError: If a parameter or a gradient has another dtype.
            ValueError: If a tensor is on another device or has another shape, weights share memory, or a
                hyperparameter is out of range. After an error weights and state are unchanged.
            FloatingPointError: If gradients were not finite ``max_skips`` times in a row, with ``skip_nonfinite``.
        """
        if torch.compiler.is_compiling():
            return _compiled_around(self, closure)
        attributes = self._shared.__dict__
        processes = attributes["_processes"]
        if processes is not None and not processes.is_stepping:
            return processes.around(partial(DropIn.step, self, closure))
        if "found_inf" in attributes:
            found = bool(attributes["found_inf"].item())
            if found if processes is None else processes.any(found):
                return self._record_skip()
        hooked = (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
            or torch.autograd._profiler_enabled()
        )
        # Around the step of a subclass, which calls this one, PyTorch calls the hooks.
        if hooked and type(self).step is DropIn.step:
            self._unscale()
            return _hooked(self) if closure is None else _hooked(self, closure)
        return self._take(closure)

    # PyTorch would wrap an unmarked step in a profiler record, which costs more than a small step.
    step.hooked = True  # type: ignore[attr-defined]

    def _take(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        own = self._shared
        with own._lock:  # two threads would each make an engine, or mix up each other's new state
            engine = self._ready()
            if own._is_averaged:
                self._refuse_if_averaged()
            scale = own.__dict__.get("grad_scale")
            scale = 1.0 if scale is None else float(scale)
            note = own._note
            primes = note.is_kept and not own.state and self._only_makes_state()
            try:
                if primes:
                    engine.prime(scale)
                else:
                    own._info = engine.step(None, grad_scale=scale)
            finally:
                # Also if an interrupt arrived after the step.
                new_states = engine._stepper.new_states
                if new_states:
                    states = own.state
                    states.update((own._params[number], own._mappings[number]) for number in new_states)
                    own._changes = states.changes
                if note.is_kept:
                    if primes or note.has_more:
                        self._write_progress()
                    else:  # only the step counts have changed
                        counts = engine._stepper.step_count, engine._skipped, engine._skipped_in_a_row
                        note.write(own.param_groups, *counts)
                    note.of_step = note.text
            if note.is_kept:
                steps = engine._stepper.step_count
                for group, present in zip(own._groups, engine._groups, strict=True):
                    if group.schedules:
                        try:
                            group.show(steps, present)
                        except Exception:  # of a schedule: raised by the next step, which needs the value
                            group.shown = None
        return loss

    def _only_makes_state(self) -> bool:
        """Return whether the first step is the one by which torch.distributed.checkpoint creates state.

        It sets learning rates to 0 and gradients to zeros, before it loads or saves a state. Such a step must not count
        for schedules and averages.
        """
        for group in self._groups:
            lr = group.given.get("lr")
            if type(lr) is float and lr != 0.0:
                return False
            if plain(lr) != 0.0 or ("lr" in group.schedules and "lr" not in group.zeroed):
                return False
        return not any(param.grad is not None and bool(param.grad.any()) for param in self._shared._params)

    def _record_skip(self) -> None:
        """Record a step that a GradScaler skips. As in PyTorch, neither the closure nor hooks are called."""
        own = self._shared
        with own._lock:
            engine = self._ready()
            info = StepInfo(applied=False, step=engine.steps, lr=engine.lr, grad_norm=None)
            own._info = with_stats(info, StepStats) if own._global_options.stats else info

    def _unscale(self) -> None:
        """Divide gradients by a GradScaler's scale in place, since hooks may read them."""
        scale = self._shared.__dict__.get("grad_scale")
        if scale is None:
            return
        inverse = scale.double().reciprocal().float()
        with torch.no_grad():
            for group in self.param_groups:
                for param in group["params"]:
                    if param.grad is not None:
                        param.grad.mul_(inverse)
        self.grad_scale = None

    def _ready(self) -> Engine:
        """Return the engine, updated to the present groups and state."""
        own = self._shared
        note = own._note
        if note.is_kept:
            for group in own.param_groups:  # 0.7 µs less than all(…)
                if group.get(KEY) is not note.text:
                    self._restore_saved_text()
                    break
        given, engine, states = own.param_groups, own._engine, own.state
        if (
            engine is None
            or states is not own._states
            or states.changes != own._changes
            or not _lrcore.same_objects([given, *[group["params"] for group in given]], own._lists)
        ):
            engine = self._prepare()
        for index, watched in enumerate(own._groups):
            if watched.has_changed():
                try:
                    engine.param_groups[index].update(self._for_engine(watched.changes(engine._stepper.step_count)))
                    engine.set_zeroed(index, watched.zeroed)
                    watched.adopt(engine.param_groups[index])
                except BaseException:
                    watched.forget()
                    raise
                if watched.schedules and not note.is_kept:
                    self._note_schedules()
                    self._write_progress()
            if watched.schedules and watched.shown != engine._stepper.step_count:
                watched.show(engine._stepper.step_count, engine.param_groups[index])
        if own._has_inference and not torch.is_inference_mode_enabled():
            raise RuntimeError("the parameter was created under torch.inference_mode() and can only be updated there")
        return engine

    def _restore_saved_text(self) -> None:
        """Restore counters from a text that other code has loaded into the groups, or write it again."""
        text = self._note.loaded(self.param_groups)
        if text is None:
            self._write_progress()
        else:
            self._go_on(text)

    def _prepare(self) -> Engine:
        """Make an engine of the present groups and state, which continues the previous one."""
        watched, known = self._groups, {id(group.given): group for group in self._groups}
        self._groups = [
            known[id(given)] if id(given) in known else self._watched(index)
            for index, given in enumerate(self.param_groups)
        ]
        for group in self._groups:
            group.read(self.steps)
        schedules = [dict(group.schedules) for group in self._groups]
        structures, params, names = structures_of([group.given for group in self._groups])
        engine = self._engine_class(
            [
                {"params": one, **self._for_engine(group.values())}
                for one, group in zip(structures, self._groups, strict=True)
            ],
            **self._global_options._asdict(),
        )
        if self._processes is not None:
            engine.join(self._processes)
        if self._engine is not None:
            now = {id(group): (index, schedules[index]) for index, group in enumerate(self._groups)}
            before = enumerate(watched[: len(self._engine.param_groups)])
            engine.take_over(self._engine, [(old, *now[id(group)]) for old, group in before if id(group) in now])
        engine._stepper.step_count = self.steps
        own, states = self._shared, self.state
        mappings = [states.get(param) for param in params]
        own._params, own._mappings = params, [one if isinstance(one, dict) else {} for one in mappings]
        engine.decay_by_names(names)
        engine._stepper.use_external_states(own._mappings, self._counts_steps)
        own._lists = [list(self.param_groups), *(list(group["params"]) for group in self.param_groups)]
        own._has_inference = any(not is_lazy(param) and param.is_inference() for param in params)
        own._states, own._changes = states, states.changes
        for group, present in zip(self._groups, engine.param_groups, strict=True):
            group.adopt(present)
        self._engine = engine
        return engine

    def take_schedules(self) -> list[dict[str, Any]]:
        """Replace schedules in groups by their present values, and return the schedules of each group, by name.

        Raises:
            ValueError: If other code has set a value that has a schedule.
        """
        for group in self._groups:
            group.read(self.steps)
            group.forget()
        return self._schedules()

    @contextmanager
    def without_schedules(self, name: str) -> Iterator[list[Any]]:
        """Make a hyperparameter a plain number in a ``with`` block; yield the schedule or number of each group."""
        before = [dict(given) for given in self.param_groups]
        self._ready()
        progress = self.progress()
        groups = list(self._groups)
        removed = [group.schedules.pop(name, None) for group in groups]
        present = [given[name] for given in before]
        try:
            yield [number if schedule is None else schedule for schedule, number in zip(removed, present, strict=True)]
        finally:
            for group, schedule in zip(groups, removed, strict=True):
                if schedule is not None:
                    group.schedules[name] = schedule
                group.accept()
            if any(report["name"] == name for report in progress[2].scalars.get("reports", ())):
                # A schedule that is assigned again would lose its reports.
                self.restore_progress((self.steps, self._info, progress[2]))
            for group, values in zip(groups, before, strict=True):
                group.given.update(values)
                group.accept()

    @classmethod
    def taking_over(cls, optimizer: torch.optim.Optimizer, options: Mapping[str, Any]) -> Self:
        """Return an optimizer with the groups, the state and the hooks of another one."""
        self = cls.__new__(cls)
        self._start(options)
        attributes = {name: value for name, value in vars(optimizer).items() if name.startswith("_optimizer_")}
        self.defaults = dict(optimizer.defaults)
        self.param_groups = [copied(group) for group in optimizer.param_groups]
        self.state = optimizer.state
        torch.optim.Optimizer.__setstate__(self, attributes)
        for index in range(len(self.param_groups)):
            self._watched(index)
            warn_of_bare_options(self.param_groups[index], index, self._options)
        # Checked. From here on both share the groups, which schedulers of the other one edit.
        self.param_groups = optimizer.param_groups
        optimizer.state = self.state
        # Its schedulers check this mark of a first step.
        optimizer._opt_called = True
        self._groups = [self._watched(index) for index in range(len(self.param_groups))]
        self._note_schedules()
        self._go_on(self._saved_text())
        return self

    # Results

    @property
    def info(self) -> StepInfo | None:
        """The last step: whether it was applied, its number, learning rate, gradient norm and statistics."""
        return self._info

    @property
    def lr(self) -> float:
        """The learning rate of the next step, of the first group; see :attr:`lrcore.Adam.lr`. It can be set."""
        return self._ready().lr

    @lr.setter
    def lr(self, value: Any) -> None:
        with self._lock:
            # The engine checks the value; the value in the group counts.
            self._ready().lr = value
            self._groups[0].release("lr")
            self.param_groups[0]["lr"] = value

    def summary(self) -> Summary:
        """Return a table of the parameters: name, shape, dtype, group, learning rate, weight decay and state bytes.

        Returns:
            The table, which can be printed; ``.rows`` has its data.
        """
        engine = self._ready()
        params = self._shared._params
        return engine.summary_of(params, [self.state.get(param, {}) for param in params])

    def memory(self) -> Memory:
        """Return how many bytes weights, state and averages take."""
        return self.summary().memory

    @property
    def skipped(self) -> int:
        """How many steps were skipped, since gradients were not finite."""
        return 0 if self._engine is None else self._engine.skipped

    def report(self, value: float) -> bool:
        """Report a loss or another metric to schedules that use it; see :meth:`lrcore.Adam.report`."""
        with self._lock:
            changed = self._ready().report(value)
            self._show_present()
            self._write_progress()
            return changed

    @property
    def average(self) -> dict[str, torch.Tensor]:
        """The averages of the weights, by parameter name; empty at first."""
        return {name: average for name, _, average in self._averages()}

    def _averages(self) -> list[tuple[str, Any, torch.Tensor]]:
        """Return name, weight and average of each parameter that has an average."""
        names, own = self._ready()._names, self._shared
        return [
            (name, param, state["average"])
            for name, param, state in zip(names, own._params, own._mappings, strict=True)
            # Allocated in the first step, and empty until the average starts.
            if "average" in state and float(state.get("averaged", 0.0)) > 0.0
        ]

    @contextmanager
    def averaged(self, model: torch.nn.Module | None = None, update_bn: Iterable[Any] | None = None) -> Iterator[Self]:
        """Replace the weights by their averages in a ``with`` block, for an evaluation.

        At the end, also after an exception, the weights are restored, bit for bit, from a copy. Within the block steps
        by any optimizer of these weights, new optimizers of them, and state dicts, pickles, copies and new groups of
        this one raise, since they would keep or train the averages. The model's own state dict and copies have the
        averages, for export.

        Args:
            model: The model of the weights. Its buffers, such as the running statistics of batch norms, are restored at
                the end, bit for bit.
            update_bn: Batches, such as a loader. The running statistics of the model's batch norms belong to the
                weights, not to the averages, so they are recomputed over these batches as by
                :func:`torch.optim.swa_utils.update_bn`: of a batch that is a list or a tuple the model gets the first
                entry. The training modes of modules are restored.

        Raises:
            TypeError: If ``model`` is not a module.
            ValueError: If the optimizer has no ``average``; if a weight has another shape than its average, and then no
                weight is changed; if the model has no parameter of the optimizer; if ``update_bn`` has no batch or is
                given without a model.
            RuntimeError: If the averages are in place already; at the end, if a weight got another shape in the block
                and can't be restored. All others are.

        Examples:
            >>> import torch, lrcore.torch
            >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
            >>> opt = lrcore.torch.SGD(model.parameters(), lr=0.1, average=lrcore.SWA())
            >>> loader = [(torch.randn(8, 2), torch.zeros(8))] * 2
            >>> model(loader[0][0]).sum().backward()
            >>> opt.step()
            >>> with opt.averaged(model, update_bn=loader):
            ...     model[1].num_batches_tracked.item()
            2
            >>> model[1].num_batches_tracked.item()
            1
        """
        require(self._global_options.average, self)
        self._refuse_if_averaged()
        averages = self._averages()
        self._check_model(model, update_bn)
        buffers = [] if model is None else restores_of(model, "_buffers")
        self._is_averaged = True
        try:
            # _ready has refused tensors of inference mode, which can't be written to outside of it.
            with (
                locked(param for _, param, _ in averages),
                swapped(averages, copy_of, _fill, is_writeable=lambda _: True, also=buffers),
            ):
                if model is not None and update_bn is not None:
                    recompute_statistics(model, update_bn)
                yield self
        finally:
            self._is_averaged = False

    def _check_model(self, model: Any, update_bn: Any) -> None:
        if model is None:
            if update_bn is not None:
                raise ValueError("averaged: update_bn needs the model whose statistics it is for: averaged(model, …)")
            return
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"averaged: model must be a torch.nn.Module, got {type(model).__name__}")
        own = {id(param) for group in self.param_groups for param in group["params"]}
        if not any(id(param) in own for param in model.parameters()):
            raise ValueError(
                f"averaged: model must be that of the optimizer; {type(model).__name__} has none of its parameters"
            )


for _name in OF_GROUPS:
    setattr(DropIn, _name, GroupAttribute(_name))
_hooked = torch.optim.Optimizer.profile_hook_step(DropIn._take)
# Runs the step outside of torch.compile. Decorating `step` itself would add 1 µs to eager calls.
_compiled_around = torch._disable_dynamo(DropIn.step)


def _fill(tensor: torch.Tensor, values: torch.Tensor) -> None:
    with torch.no_grad():
        tensor.copy_(values)
