"""Norms of gradients, and decisions to skip a step, of all processes together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# The option, as docstrings have it.
OPTION = {
    "process_group": 'A ``ProcessGroup``, or ``"world"``: norms and decisions to skip are those of all its processes, '
    "each of which has a part of the gradients; None where this process has them all."
}

_LONGEST_TEXT = 1024
_FAILED = 1.0


class StepSync:
    """The processes whose optimizers have a part of the gradients each.

    Every process gets the numbers of all of them in the order of ranks, and computes the same from them, so that the
    results are the same to the bit. All processes exchange the same number of messages in each step: one that fails
    before its turn says so in the place of its number, since the others would wait for it.
    """

    def __init__(self, given: Any) -> None:
        """Take a process group, or ``"world"``.

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
        self._is_told = False

    def __deepcopy__(self, memo: Any) -> StepSync:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self._group is not None:
            raise TypeError("an optimizer with a process_group can't be pickled; save its state_dict()")
        return StepSync, ("world",)

    def around(self, step: Callable[[], Any]) -> Any:
        """Take a step of this process. If it fails on its own, have the others fail."""
        self.is_stepping, self._is_told = True, False
        try:
            return step()
        except Exception:
            if not self._is_told:
                self._exchange(_FAILED, 0.0, 0.0)
            raise
        finally:
            self.is_stepping = False

    def any(self, claim: bool) -> bool:  # noqa: FBT001
        """Return whether a claim is true in any process."""
        return any(one for _, one in self._agreed(0.0, claim))

    def combined(self, norm_type: float, norm: float, skips: bool) -> tuple[float, bool]:  # noqa: FBT001
        """Return the norm of the gradients of all processes, and whether any process is to skip the step."""
        told = self._agreed(norm, skips)
        self._is_told = True
        return norm_of([one for one, _ in told], norm_type), any(one for _, one in told)

    def texts(self, text: str) -> list[str]:
        """Return the texts of all processes, in the order of ranks."""
        encoded = text.encode()[:_LONGEST_TEXT]
        own = torch.zeros(_LONGEST_TEXT, dtype=torch.uint8)
        own[: len(encoded)] = torch.frombuffer(bytearray(encoded or b"\0"), dtype=torch.uint8)[: len(encoded)]
        return [bytes(one.tolist()).rstrip(b"\0").decode(errors="replace") for one in self._gathered(own)]

    def _agreed(self, number: float, claim: bool) -> list[tuple[float, bool]]:  # noqa: FBT001
        rows = self._exchange(0.0, number, float(claim))
        failed = [rank for rank, (status, _, _) in enumerate(rows) if status == _FAILED]
        if failed:
            self._is_told = True
            ranks = ", ".join(map(str, failed))
            raise RuntimeError(f"no step is taken, since it failed in the process of rank {ranks} in process_group")
        return [(number, bool(claim)) for _, number, claim in rows]

    def _exchange(self, *numbers: float) -> list[list[float]]:
        return [row.tolist() for row in self._gathered(torch.tensor(numbers, dtype=torch.float64, device="cpu"))]

    def _gathered(self, own: torch.Tensor) -> list[torch.Tensor]:
        rows = [torch.empty_like(own) for _ in range(self._size)]
        with torch.inference_mode(mode=False), torch.no_grad():
            torch.distributed.all_gather(rows, own, group=self._group)
        return rows


def norm_of(norms: Sequence[float], norm_type: float) -> float:
    """Return the norm of parts whose norms these are."""
    if any(map(math.isnan, norms)):
        return math.nan
    largest = max(norms)
    if norm_type == math.inf or largest in (0.0, math.inf):
        return largest
    if norm_type == 1:
        return sum(norms)
    return largest * math.sqrt(sum((norm / largest) ** 2 for norm in norms))
