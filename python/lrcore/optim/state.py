"""The state of an optimizer as one value: everything that its next steps depend on, except the weights.

Everything that saves an optimizer encodes this value, and everything that loads one decodes it::

    export_state(opt) → OptimizerState → state dict, pickle, checkpoint, … → OptimizerState → import_state(opt, state)

``COMPONENTS`` is the only list of its fields. A new part of the state is a component there; encoders need no change,
and ``tests/optim/test_state_carriers.py`` tests each of them with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lrcore._messages import brief
from lrcore._ranges import NON_NEGATIVE, POSITIVE, check_count
from lrcore.optim import metric_trackers
from lrcore.optim.declaration import RULES
from lrcore.schedules.schedule import Schedule
from lrcore.schedules.serialization import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np

    from lrcore.optim.optimizer import Optimizer

    Array = np.ndarray[Any, Any]

Kind = Literal["scalars", "arrays", "param_scalars", "param_arrays"]
_MOST_STEPS = 2**63 - 1


class GroupState(NamedTuple):
    """A parameter group.

    Attributes:
        params: The names of its parameters.
        name: Its name, if it has one.
        hyperparameters: Its hyperparameters, schedules too.
    """

    params: list[str]
    name: str | None
    hyperparameters: dict[str, Any]


@dataclass
class OptimizerState:
    """The state of an optimizer.

    Scalars are JSON values, which may contain schedules. Arrays have any shape and dtype.

    Attributes:
        optimizer: The name of the class.
        groups: The parameter groups, in order.
        scalars: Scalars of the optimizer, by field.
        arrays: Arrays of the optimizer, by field.
        param_scalars: Scalars of parameters: by field, then by the name of each parameter that has one.
        param_arrays: Arrays of parameters, likewise.
    """

    optimizer: str
    groups: list[GroupState] = field(default_factory=list)
    scalars: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    param_scalars: dict[str, dict[str, Any]] = field(default_factory=dict)
    param_arrays: dict[str, dict[str, Array]] = field(default_factory=dict)

    def copied(self) -> OptimizerState:
        """Return the same state with copies of all arrays."""
        arrays = {name: array.copy(order="K") for name, array in self.arrays.items()}
        columns = {
            name: {param: array.copy(order="K") for param, array in column.items()}
            for name, column in self.param_arrays.items()
        }
        return replace(self, arrays=arrays, param_arrays=columns)

    def all_arrays(self) -> Iterator[Array]:
        """Yield the arrays, in a fixed order."""
        return chain(self.arrays.values(), *(column.values() for column in self.param_arrays.values()))


class Field(NamedTuple):
    """A named part of the state.

    Attributes:
        kind: Which attribute of :class:`OptimizerState` has it.
        check: Takes a name for messages and a saved scalar. Returns the scalar, or raises.
        is_like_weight: Whether an array of a parameter has the shape, the dtype and the memory order of the weight.
    """

    kind: Kind
    check: Callable[[str, Any], Any] = lambda _, value: value
    is_like_weight: bool = True


class Component(NamedTuple):
    """Fields that are exported and imported together.

    Attributes:
        fields: The fields. In a state dict, ``a.b`` is the entry ``b`` of a mapping ``a``.
        export: Returns the value of each field that the optimizer has.
        restore: Sets the fields to such values, and those that are missing to their initial values.
        is_whole: Whether a state with one of the fields must have all scalars.
    """

    fields: Mapping[str, Field]
    export: Callable[[Optimizer], dict[str, Any]]
    restore: Callable[[Optimizer, Mapping[str, Any]], None]
    is_whole: bool = False


def export_state(opt: Optimizer, *, of_params: bool = True) -> OptimizerState:
    """Return the state of an optimizer. Its arrays are not copied.

    Args:
        opt: The optimizer.
        of_params: Whether groups, and components with fields of parameters, are included.
    """
    state = OptimizerState(type(opt).__name__)
    if of_params:
        names: list[list[str]] = [[] for _ in opt._groups]
        for name, index in zip(opt._names, opt._stepper.group_indices, strict=True):
            names[index].append(name)
        groups = zip(names, opt._groups, strict=True)
        state.groups = [GroupState(params, group.name, group.hyperparameters) for params, group in groups]
    for component in _components(of_params):
        for name, value in component.export(opt).items():
            getattr(state, component.fields[name].kind)[name] = value
    return state


def import_state(opt: Optimizer, state: OptimizerState, *, of_params: bool = True) -> None:
    """Set the state of an optimizer to a state that matches it: see :mod:`lrcore.optim.matching`."""
    if of_params:
        for group, given in zip(opt._groups, state.groups, strict=True):
            group.replace(given.hyperparameters)
    for component in _components(of_params):
        kinds = ((name, getattr(state, one.kind)) for name, one in component.fields.items())
        component.restore(opt, {name: values[name] for name, values in kinds if name in values})


def _components(of_params: bool) -> list[Component]:  # noqa: FBT001
    return [
        component
        for component in COMPONENTS
        if of_params or not any(one.kind.startswith("param") for one in component.fields.values())
    ]


def fields() -> dict[str, Field]:
    """Return all fields, by name."""
    return {name: one for component in COMPONENTS for name, one in component.fields.items()}


def plain(value: Any) -> Any:
    """Return a scalar or a hyperparameter as a JSON value: tuples become lists, schedules dicts."""
    if isinstance(value, Schedule):
        return encode(value)
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def from_plain(value: Any) -> Any:
    """Return the argument of :func:`plain`, with lists in place of tuples."""
    if isinstance(value, dict):
        # An entry of reports has a schedule under the same key.
        return (
            decode(value) if isinstance(value.get("schedule"), str) else {key: from_plain(value[key]) for key in value}
        )
    return [from_plain(part) for part in value] if isinstance(value, list) else value


# Components


def _count(place: str, value: Any) -> int:
    return check_count(place, value, most=_MOST_STEPS)


# Which change in every step.
COUNTS = ("steps", "skipped", "skipped_in_a_row")


def _export_counts(opt: Optimizer) -> dict[str, Any]:
    return dict(zip(COUNTS, (opt._stepper.step_count, opt._skipped, opt._skipped_in_a_row), strict=True))


def _restore_counts(opt: Optimizer, values: Mapping[str, Any]) -> None:
    opt._stepper.step_count, opt._skipped, opt._skipped_in_a_row = (values.get(name, 0) for name in COUNTS)


_COUNTED = Component(dict.fromkeys(COUNTS, Field("scalars", _count)), _export_counts, _restore_counts)


def _export_noise_scale(opt: Optimizer) -> dict[str, Any]:
    noise = opt._global_options.noise_scale
    return {} if noise is None else {"noise_scale": noise.state()}


def _restore_noise_scale(opt: Optimizer, values: Mapping[str, Any]) -> None:
    if opt._global_options.noise_scale is not None and "noise_scale" in values:
        opt._global_options.noise_scale.restore(values["noise_scale"])


def _check_noise_scale(place: str, value: Any) -> Any:
    from lrcore.noise import NoiseScale

    del place
    NoiseScale(1).check_state(value)
    return value


_NOISE_SCALE = Component(
    {"noise_scale": Field("scalars", _check_noise_scale)}, _export_noise_scale, _restore_noise_scale
)


def _export_reports(opt: Optimizer) -> dict[str, Any]:
    trackers = opt._trackers()
    return {"reports": metric_trackers.save(trackers)} if trackers else {}


def _restore_reports(opt: Optimizer, values: Mapping[str, Any]) -> None:
    opt._restore_reports(metric_trackers.check_saved(values.get("reports", ())))


def _check_reports(place: str, value: Any) -> Any:
    del place
    metric_trackers.check_saved(value)
    return value


# After the groups, whose schedules have the trackers.
_REPORTS = Component({"reports": Field("scalars", _check_reports)}, _export_reports, _restore_reports)


def _export_accumulated(opt: Optimizer) -> dict[str, Any]:
    waiting = opt._stepper.accumulated
    if waiting is None:
        return {}
    batches, weight, sums, squares = waiting
    named = {opt._names[index]: array for index, array in sums}
    values = {"batches": batches, "weight": weight, "sums": named, "squares": squares}
    return {f"accumulated.{name}": value for name, value in values.items()}


def _restore_accumulated(opt: Optimizer, values: Mapping[str, Any]) -> None:
    if not values:
        opt._stepper.accumulated = None
        return
    batches, weight, squares = (values[f"accumulated.{name}"] for name in ("batches", "weight", "squares"))
    sums = values.get("accumulated.sums", {})
    indexed = [(index, sums[name]) for index, name in enumerate(opt._names) if name in sums]
    opt._stepper.accumulated = batches, weight, indexed, squares


def _check_batches(place: str, value: Any) -> int:
    return check_count(place, value, least=1, most=_MOST_STEPS)


def _check_squares(place: str, value: Any) -> tuple[int, int, float] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError(f"{place} must be a stride, a phase and a sum, or None, got {brief(value)}")
    stride = check_count(f"{place}[0]", value[0], least=1, most=_MOST_STEPS)
    phase = check_count(f"{place}[1]", value[1], most=_MOST_STEPS)
    return stride, phase, NON_NEGATIVE.check(f"{place}[2]", value[2])


# Gradients of micro-batches that wait for a step. The squares, for a noise scale: stride and phase of the sample of
# reduction blocks, and the sum of the squares of their gradients.
_ACCUMULATED = Component(
    {
        "accumulated.batches": Field("scalars", _check_batches),
        "accumulated.weight": Field("scalars", POSITIVE.check),
        "accumulated.sums": Field("param_arrays"),
        "accumulated.squares": Field("scalars", _check_squares),
    },
    _export_accumulated,
    _restore_accumulated,
    is_whole=True,
)


def _export_stepped(opt: Optimizer) -> dict[str, Any]:
    """Return counts and arrays of the parameters that have taken a step."""
    steps: dict[str, int] = {}
    averaged: dict[str, int] = {}
    columns: dict[str, dict[str, Array]] = {}
    stepper = opt._stepper
    counts = zip(stepper.step_counts, stepper.average_counts, strict=True)
    for name, (step, count), arrays in zip(opt._names, counts, stepper.states, strict=True):
        if step:
            steps[name] = step
            for key, array in arrays.items():
                columns.setdefault(key, {})[name] = array
            if "average" in arrays:
                averaged[name] = count
    return {"step": steps, **({"averaged": averaged} if averaged else {}), **columns}


def _restore_stepped(opt: Optimizer, values: Mapping[str, Any]) -> None:
    names = opt._names
    step_counts, average_counts = (list(map(values.get(key, {}).get, names, repeat(0))) for key in _STEPPED_COUNTS)
    arrays = {key: column for key, column in values.items() if key not in _STEPPED_COUNTS}
    columns = [(key, list(map(column.get, names))) for key, column in arrays.items()]
    opt._stepper.set_states(step_counts, average_counts, columns)


_STEPPED_COUNTS = ("step", "averaged")
STEPPED = Component(
    {
        **dict.fromkeys(_STEPPED_COUNTS, Field("param_scalars", _count)),
        **dict.fromkeys([*chain.from_iterable(state for _, state in RULES.values()), "average"], Field("param_arrays")),
    },
    _export_stepped,
    _restore_stepped,
)

COMPONENTS: list[Component] = [_COUNTED, _NOISE_SCALE, _REPORTS, _ACCUMULATED, STEPPED]
