"""What an optimizer goes on from beside state and hyperparameters: a text that stands in its groups.

Whatever saves optimizers in pieces (torch.distributed.checkpoint, FSDP, ZeroRedundancyOptimizer) reads ``state`` and
``param_groups``, some of it from the live optimizer, and puts both back. So the number of steps that schedules are
asked for, how many were skipped, and what schedules made of reports stand in every group, under one key, as JSON: a
string is kept by all of them, and by ``torch.load(weights_only=True)``. A text in a group that the optimizer has not
written there was loaded, and is gone on from.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from lrcore._ranges import check_count
from lrcore.optim.reports import check_saved
from lrcore.schedules import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Self

KEY = "lrcore_state"


class Progress(NamedTuple):
    """What such a text says.

    Attributes:
        steps: How many steps were taken.
        skipped: How many were skipped, and how many of these in a row.
        ahead: By how much the largest count of a parameter's steps was larger than ``steps``.
        reports: What schedules made of reports; see :func:`lrcore.optim.reports.save`.
    """

    steps: int
    skipped: tuple[int, int]
    ahead: int
    reports: Sequence[Mapping[str, Any]]

    @classmethod
    def parsed(cls, text: Any) -> Self:
        """Read a text.

        Raises:
            TypeError: If a part is of a wrong type.
            ValueError: If it is no such text, or a part is out of range.
        """
        place = f'param_groups: "{KEY}"'
        try:
            found = json.loads(text)
            steps, (skipped, in_a_row), ahead = found["steps"], found["skipped"], found["ahead"]
            reports = [{**one, "schedule": Schedule.from_json(one["schedule"])} for one in found["reports"]]
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"{place} must be what lrcore wrote there, got {text!r}") from error
        check_saved(reports)
        counts = (check_count(f"{place}: skipped", count) for count in (skipped, in_a_row))
        least = check_count(f"{place}: steps", steps)
        return cls(least, (next(counts), next(counts)), check_count(f"{place}: ahead", ahead, least=-(2**62)), reports)

    def steps_at(self, counted: int) -> int:
        """Return the number of steps, where the largest count of a parameter's steps is this one.

        An optimizer of PyTorch that took steps in between has left the text as it was.
        """
        return max(self.steps, counted - self.ahead)


class Note:
    """The text as an optimizer has written it into its groups.

    Attributes:
        is_kept: Whether its groups have one: those of an optimizer that goes on from state and numbers alone have none,
            so that its state dicts are PyTorch's.
        text: What is in each group now.
        of_step: What was there after the last step, which a program that copies groups may put back.
    """

    __slots__ = ("_rest", "is_kept", "of_step", "text")

    def __init__(self) -> None:
        self.is_kept = False
        self.text = self.of_step = ""
        self._rest = ""

    def look_at(self, ahead: int, reports: Iterable[Mapping[str, Any]]) -> None:
        """Take note of what steps don't change."""
        entries = [{**one, "schedule": one["schedule"].to_json()} for one in reports]
        self._rest = f'"ahead": {ahead}, "reports": {json.dumps(entries)}}}'

    def write(self, groups: Iterable[dict[str, Any]], steps: int, skipped: int, in_a_row: int) -> None:
        """Put the text into groups. It is the same object in each, which is how it is told from one that was loaded."""
        text = self.text = f'{{"steps": {steps}, "skipped": [{skipped}, {in_a_row}], {self._rest}'
        for group in groups:
            group[KEY] = text

    def is_in(self, groups: Iterable[Mapping[str, Any]]) -> bool:
        """Return whether all groups have the text that was put there."""
        text = self.text
        for group in groups:  # noqa: SIM110 (a generator takes several times as long)
            if group.get(KEY) is not text:
                return False
        return True

    def loaded(self, groups: Iterable[Mapping[str, Any]]) -> str | None:
        """Return the first text in groups that was not put there, or None."""
        known = (self.text, self.of_step)
        texts = (group.get(KEY) for group in groups)
        return next((text for text in texts if isinstance(text, str) and not any(text is one for one in known)), None)
