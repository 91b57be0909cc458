"""lrcore's optimizers over PyTorch's tensors, in the place of NumPy arrays.

The stepper reads addresses, shapes and strides of tensors through DLPack's C functions. State tensors and step counts
are in dictionaries of the drop-in, which makes an engine whenever its lists of parameters change.
"""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from lrcore import _lrcore
from lrcore.optim import metric_trackers
from lrcore.optim.allocation import LARGE, PAGE, next_offset
from lrcore.optim.averages import SWA
from lrcore.optim.locks import wait_at_end
from lrcore.optim.optimizer import Optimizer
from lrcore.optim.state import export_state, import_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lrcore.optim.param_group import ParamGroup
    from lrcore.optim.state import OptimizerState
    from lrcore.torch.distributed import StepSync

# Integers up to this are exact in float32.
_FLOAT32_COUNTS = 2.0**24
_MOST_STEPS = 2**63 - 1


def make_state(weight: torch.Tensor, initial: float) -> torch.Tensor:
    """Return a new state tensor, in the memory order of its weight."""
    # A tensor that is created in inference mode could not be used outside of it.
    with torch.inference_mode(mode=False):
        tensor = _empty_like(weight.detach())
        (torch.view_as_real(tensor) if tensor.is_complex() else tensor).fill_(initial)
    return tensor


def _empty_like(weight: torch.Tensor) -> torch.Tensor:
    nbytes = weight.numel() * weight.element_size()
    # The strides are kept where elements are contiguous in some order of the axes.
    if nbytes < LARGE or torch.empty_like(weight, device="meta").stride() != weight.stride():
        return torch.empty_like(weight, memory_format=torch.preserve_format)
    storage = torch.empty(nbytes + PAGE, dtype=torch.uint8, device="cpu").untyped_storage()
    start = next_offset(storage.data_ptr()) // weight.element_size()
    return torch.empty(0, dtype=weight.dtype, device="cpu").set_(storage, start, weight.size(), weight.stride())


def make_count(value: float) -> torch.Tensor:
    """Return a step count as PyTorch's optimizers have it, but in float64 from 2²⁴ on, where float32 would stop."""
    wide = value >= _FLOAT32_COUNTS or torch.get_default_dtype() == torch.float64
    with torch.inference_mode(mode=False):
        return torch.tensor(value, dtype=torch.float64 if wide else torch.float32, device="cpu")


# Increments version counters, by which autograd detects stale reads. It is a C function, so no interrupt arrives in it.
written = torch._C._increment_version


class Engine(Optimizer):
    """An optimizer of tensors: gradients are their ``grad``, and the drop-in holds the state."""

    # The drop-in warns, once.
    _warns = False

    def _new_stepper(self, grouped: bool) -> _lrcore.Stepper:  # noqa: FBT001
        return _lrcore.Stepper(grouped, make_state, tensors=(torch.Tensor, make_count, written))

    def decay_by_names(self, names: Sequence[str | None]) -> None:
        """Match ``no_decay`` with the program's names of the parameters, which may repeat."""
        for number, name in enumerate(names):
            if name is not None:
                self._set_decays(number, name)

    _processes: StepSync | None = None

    # By group: scheduled hyperparameters that are 0 at the next step.
    _zeroed: Mapping[int, frozenset[str]] = MappingProxyType({})

    def set_zeroed(self, index: int, names: Iterable[str]) -> None:
        """Set which hyperparameters of a group are 0 at the next step. Their schedules stay."""
        zeroed = frozenset(names)
        if zeroed != self._zeroed.get(index, frozenset()):
            self._zeroed = {**self._zeroed, index: zeroed}
            self._groups[index].edited = True

    def _resolve(self, index: int, group: ParamGroup) -> None:
        wait_at_end()
        # The group's lock would cost 0.5 µs; the drop-in edits groups only between steps.
        group.edited = False
        try:
            zeroed = self._zeroed.get(index) if self._zeroed else None
            self._sync_group(index, _ZeroedGroup(group, zeroed) if zeroed else group)  # type: ignore[arg-type]
        except BaseException:
            group.edited = True
            raise

    def prime(self, scale: float) -> None:
        """Create the state of parameters by a step that does not count for schedules and averages."""
        common, state = self._global_options, self.export_state()
        if common.average is not None:
            self._global_options = common._replace(average=SWA(start=_MOST_STEPS))  # allocated, and never updated
        try:
            self._sync_options()
            self.step(None, grad_scale=scale)
        finally:
            self._global_options = common
            self.import_state(state)
            self._sync_options()

    def join(self, processes: StepSync) -> None:
        """Combine norms and skips with those of other processes."""
        self._combine = partial(processes.combined, self._global_options.norm_type)
        self._processes = processes

    def _reason(self, parameter: int | None, place: tuple[list[int], str] | None) -> str:
        own = "" if parameter is None else super()._reason(parameter, place)
        if self._processes is None:
            return own
        texts = enumerate(self._processes.texts(own))
        return "; ".join(f"rank {rank} of process_group: {text}" for rank, text in texts if text)

    def export_state(self) -> OptimizerState:
        """Return the state that is not in the mappings: that of the optimizer."""
        return export_state(self, of_params=False)

    def import_state(self, state: OptimizerState) -> None:
        """Go on from such a state."""
        import_state(self, state, of_params=False)

    def load(self, state: OptimizerState) -> None:
        """Go on from the state of another optimizer; warn of reports that no schedule here uses."""
        self.import_state(state)
        metric_trackers.warn_of_lost(self._trackers(), state.scalars.get("reports", ()))

    def take_over(self, before: Engine, groups: Iterable[tuple[int, int, Mapping[str, Any]]]) -> None:
        """Go on from an engine with other parameters.

        Args:
            before: That engine.
            groups: The index of a group there, its index here, and its schedules as they are now, by name.
        """
        state = before.export_state()
        state.scalars.pop("reports", None)  # groups may have other numbers here
        self.import_state(state)
        for old, new, schedules in groups:
            self._groups[new].take_trackers(before._groups[old], schedules)
        for tracker, old_tracker in zip(self._clip_trackers, before._clip_trackers, strict=True):
            tracker.restore(old_tracker.state())


class _ZeroedGroup:
    """A group some of whose hyperparameters are 0."""

    def __init__(self, group: ParamGroup, names: frozenset[str]) -> None:
        self._group, self._names = group, names
        self.fixed: Any = None

    def at(self, step: int) -> dict[str, float]:
        return {**self._group.at(step), **dict.fromkeys(self._names, 0.0)}

    def share_of_highest_lr(self, step: int) -> float:
        return 0.0 if "lr" in self._names else self._group.share_of_highest_lr(step)

    def __getitem__(self, key: str) -> Any:
        return 0.0 if key in self._names else self._group[key]


def engine_of(optimizer: type[Optimizer]) -> type[Engine]:
    """Return the engine that steps tensors by the rules of an optimizer."""
    return type(f"{optimizer.__name__}Engine", (Engine, optimizer), {"__module__": __name__})
