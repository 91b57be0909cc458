"""The state of an optimizer as a text in its groups.

Libraries that rebuild state dicts (torch.distributed.checkpoint, FSDP, ZeroRedundancyOptimizer) preserve only ``state``
and ``param_groups``. The state of parameters is in ``state``. The state of the optimizer, such as the number of steps
at which schedules are evaluated, is in every group under one key, as JSON text: all of these libraries preserve a
string, and so does ``torch.load(weights_only=True)``. If a group has a text that this optimizer did not write, the
text was loaded, and the optimizer resumes from it.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lrcore._ranges import check_count
from lrcore.optim.state import COUNTS, OptimizerState, fields, from_plain, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KEY = "lrcore_state"


class SavedText(NamedTuple):
    """The contents of a text.

    Attributes:
        state: The state of the optimizer.
        ahead: The largest step count of a parameter minus the number of steps.
    """

    state: OptimizerState
    ahead: int

    def steps_at(self, counted: int) -> int:
        """Return the number of steps, given the largest step count of a parameter.

        It is larger than in the text if an optimizer of PyTorch, which does not update the text, took steps since.
        """
        steps: int = self.state.scalars["steps"]
        return max(steps, counted - self.ahead)


def parse(text: Any) -> SavedText:
    """Read a text.

    Raises:
        TypeError: If a part is of a wrong type.
        ValueError: If it was not written by lrcore, or a part is out of range.
    """
    place = f'param_groups: "{KEY}"'
    state = OptimizerState("")
    try:
        found = json.loads(text)
        ahead, arrays = found.pop("ahead"), found.pop("arrays", {})
        found["skipped"], found["skipped_in_a_row"] = found["skipped"]
        state.scalars = {name: from_plain(value) for name, value in found.items()}
        state.arrays = {name: _array(*given) for name, given in arrays.items()}
        known = fields()
        checks = {name: known[name].check for name in {**_NONE, **found}}
        values = {name: state.scalars[name] for name in checks}
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{place} must be what lrcore wrote there, got {text!r}") from error
    state.scalars = {name: checks[name](f"{place}: {name}", value) for name, value in values.items()}
    return SavedText(state, check_count(f"{place}: ahead", ahead, least=-(2**62)))


_NONE = dict.fromkeys((*COUNTS, "reports"))


def _array(dtype: str, shape: list[int], data: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(data, validate=True), np.dtype(dtype)).reshape(shape).copy()


class Note:
    """The text that an optimizer has written into its groups.

    Attributes:
        is_kept: Whether groups have a text. Without schedules, averages and ``skip_nonfinite`` they have none, and
            state dicts are the same as PyTorch's.
        text: The text in each group.
        of_step: The text after the last step, which a program that copies groups may put back.
        has_more: Whether a step may change more than the step counts.
    """

    __slots__ = ("_rest", "has_more", "is_kept", "of_step", "text")

    def __init__(self) -> None:
        self.is_kept = self.has_more = False
        self.text = self.of_step = ""
        self._rest = ""

    def store_rest(self, ahead: int, state: OptimizerState) -> None:
        """Store all but the step counts."""
        scalars = {name: plain(value) for name, value in state.scalars.items() if name not in COUNTS}
        arrays = {
            name: (array.dtype.str, array.shape, base64.b64encode(array.tobytes()).decode())
            for name, array in state.arrays.items()
        }
        self.has_more = bool(scalars.keys() - {"reports"} or arrays)
        rest = {"ahead": ahead, "reports": [], **scalars, **({"arrays": arrays} if arrays else {})}
        self._rest = json.dumps(rest)[1:]

    def write(self, groups: Iterable[dict[str, Any]], steps: int, skipped: int, in_a_row: int) -> None:
        """Put the text into groups. All have the same object, which distinguishes it from a text that was loaded."""
        text = self.text = f'{{"steps": {steps}, "skipped": [{skipped}, {in_a_row}], {self._rest}'
        for group in groups:
            group[KEY] = text

    def loaded(self, groups: Iterable[Mapping[str, Any]]) -> str | None:
        """Return the first text in groups that was not written here, or None."""
        known = (self.text, self.of_step)
        texts = (group.get(KEY) for group in groups)
        return next((text for text in texts if isinstance(text, str) and not any(text is one for one in known)), None)
