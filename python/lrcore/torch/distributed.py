"""Gradient norms, and decisions to skip a step, agreed between processes.

With FSDP or ZeroRedundancyOptimizer each process has a part of the gradients. In a step every process computes the norm
of its part and gathers the norms of all, in the order of ranks; then each computes the same total from them::

    rows = all_gather((status, norm, skips))    # in each process, also in one that has failed
    norm = (Σ normᵢ^p)^(1/p)                    # the same bits everywhere
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

# The option, for docstrings.
OPTION = {
    "process_group": 'A ``ProcessGroup``, or ``"world"``, whose processes have a part of the gradients each: norms and '
    "decisions to skip are of all of them. None where this process has all gradients."
}

_LONGEST_TEXT = 1024
_FAILED = 1.0


class StepSync:
    """Agreement on the norm, and on skipping, between the processes of a group.

    All processes exchange the same number of messages in each step. One that fails earlier sends its failure in the
    place of its norm, since the others would wait for it.
    """

    def __init__(self, given: Any) -> None:
        """Check a process group, or ``"world"``.

        Raises:
            TypeError: If it is neither.
            ValueError: If torch.distributed is not initialized, or this process is not in the group.
        """
        distributed = torch.distributed
        if not distributed.is_available() or not distributed.is_initialized():
            raise ValueError("process_group needs torch.distributed.init_process_group(…) first")
        if given != "world" and not isinstance(given, distributed.ProcessGroup):
            raise TypeError(f'process_group must be a torch.distributed.ProcessGroup, "world" or None, got {given!r}')
        self._group = None if given == "world" else given
        self._size = distributed.get_world_size(self._group)
        if self._size < 1:
            raise ValueError("process_group must have this process in it")
        self.is_stepping = False
        self._has_exchanged = False

    def __deepcopy__(self, memo: Any) -> StepSync:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self._group is not None:
            raise TypeError("an optimizer with a process_group can't be pickled; save its state_dict()")
        return StepSync, ("world",)

    def around(self, step: Callable[[], Any]) -> Any:
        """Run this process's step. If it fails before the exchange, the steps of the others fail too."""
        self.is_stepping, self._has_exchanged = True, False
        try:
            return step()
        except Exception:
            if not self._has_exchanged:
                self._exchange(_FAILED, 0.0, 0.0)
            raise
        finally:
            self.is_stepping = False

    def any(self, claim: bool) -> bool:  # noqa: FBT001
        """Return whether a claim is true in any process."""
        return any(one for _, one in self._agreed(0.0, claim))

    def combined(self, norm_type: float, norm: float, skips: bool) -> tuple[float, bool]:  # noqa: FBT001
        """Return the norm of the gradients of all processes, and whether any process skips the step."""
        rows = self._agreed(norm, skips)
        self._has_exchanged = True
        return norm_of([norm for norm, _ in rows], norm_type), any(skips for _, skips in rows)

    def texts(self, text: str) -> list[str]:
        """Return the texts of all processes, in the order of ranks."""
        encoded = text.encode()[:_LONGEST_TEXT].ljust(_LONGEST_TEXT, b"\0")
        own = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
        return [bytes(one.tolist()).rstrip(b"\0").decode(errors="replace") for one in self._gathered(own)]

    def _agreed(self, number: float, claim: bool) -> list[tuple[float, bool]]:  # noqa: FBT001
        rows = self._exchange(0.0, number, float(claim))
        failed = [rank for rank, (status, _, _) in enumerate(rows) if status == _FAILED]
        if failed:
            self._has_exchanged = True
            ranks = ", ".join(map(str, failed))
            raise RuntimeError(f"the step failed in the process of rank {ranks} of process_group, so none is taken")
        return [(number, bool(claim)) for _, number, claim in rows]

    def _exchange(self, *numbers: float) -> list[list[float]]:
        return [row.tolist() for row in self._gathered(torch.tensor(numbers, dtype=torch.float64, device="cpu"))]

    def _gathered(self, own: torch.Tensor) -> list[torch.Tensor]:
        rows = [torch.empty_like(own) for _ in range(self._size)]
        with torch.inference_mode(mode=False), torch.no_grad():
            torch.distributed.all_gather(rows, own, group=self._group)
        return rows


def norm_of(norms: Sequence[float], norm_type: float) -> float:
    """Return the norm of a vector from the norms of its parts."""
    if any(map(math.isnan, norms)):
        return math.nan
    largest = max(norms)
    if norm_type == math.inf or largest in (0.0, math.inf):
        return largest
    if norm_type == 1:
        return sum(norms)
    return largest * math.sqrt(sum((norm / largest) ** 2 for norm in norms))


# The message for clip_norm and skip_nonfinite without process_group.
PARTIAL = (
    "this process has a part of the gradients, so clip_norm and skip_nonfinite need process_group=…, the processes "
    'that have the others, or "world"'
)
_ZERO = "torch.distributed.optim.zero_redundancy_optimizer"


def _has_peers() -> bool:
    distributed = torch.distributed
    return bool(distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1)


def is_made_by_zero() -> bool:
    """Return whether a ZeroRedundancyOptimizer of several processes calls, to make an optimizer of its share."""
    if _ZERO not in sys.modules or not _has_peers():
        return False
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != _ZERO:
        frame = frame.f_back
    return frame is not None


def are_shards(params: list[Any]) -> bool:
    """Return whether parameters are flat shards of FSDP."""
    flat = [param for param in params if getattr(param, "_fsdp_flattened", False)]
    return bool(flat) and all(param.ndim == 1 for param in flat) and _has_peers()
