"""What a training reported, and the factors that schedules make of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrcore.noise import NoiseScale
    from lrcore.schedules.feedback import Feedback, Tracker

# This module is part of every optimizer and that of feedback is not: it is imported where there is a schedule of it.


class Reports:
    """The trackers of all schedules that follow reports. Equal ones share a tracker: they see the same reports."""

    __slots__ = ("_trackers",)

    def __init__(self) -> None:
        self._trackers: dict[Feedback, Tracker] = {}

    @property
    def factors(self) -> dict[Feedback, float]:
        """The present factor of each."""
        return {listener: tracker.factor for listener, tracker in self._trackers.items()}

    def report(self, value: Any, listeners: Iterable[Feedback]) -> bool:
        """Tell listeners a value; return whether a factor changed.

        Raises:
            TypeError: If the value is no number.
            ValueError: If nobody listens.
        """
        if isinstance(value, str | bytes | bool):
            raise TypeError(f"report: value must be a number, got {value!r}")
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"report: value must be a number, got {value!r}") from None
        told = {listener for listener in listeners if listener._hears_reports}
        if not told:
            raise ValueError(
                "report: no hyperparameter follows reports; give one such as lr=schedule * schedules.ReduceOnPlateau()"
            )
        return self._tell(told, number)

    def observe(self, noise: NoiseScale, listeners: Iterable[Feedback]) -> bool:
        """Tell listeners that follow the noise of the gradient what it is; return whether a factor changed."""
        told = {listener for listener in listeners if not listener._hears_reports}
        return bool(told) and self._tell(told, noise.gain())

    def _tell(self, told: set[Feedback], value: float) -> bool:
        """Tell each of them; return whether a factor changed."""
        for listener in told - self._trackers.keys():
            self._trackers[listener] = listener.tracker()
        changed = [self._trackers[listener].report(value) for listener in told]
        return any(changed)

    def state(self) -> list[dict[str, Any]]:
        """Return what there is to save: each schedule, and the numbers of its tracker."""
        return [{"schedule": listener, "state": tracker.state()} for listener, tracker in self._trackers.items()]

    @classmethod
    def of(cls, state: Any) -> Reports:
        """Return reports that go on from what :meth:`state` returned.

        Raises:
            TypeError: If a part is of a wrong type.
            ValueError: If one is missing or out of range.
        """
        from lrcore.schedules.feedback import Feedback

        if not isinstance(state, Sequence) or isinstance(state, str):
            raise TypeError(f"reports must be a sequence, got {type(state).__name__}")
        reports = cls()
        for i, entry in enumerate(state):
            if not isinstance(entry, Mapping) or entry.keys() != {"schedule", "state"}:
                raise ValueError(f"reports[{i}] must be a mapping of schedule and state, got {entry!r}")
            listener = entry["schedule"]
            if not isinstance(listener, Feedback):
                raise TypeError(f"reports[{i}]['schedule'] must be one that follows reports, got {listener!r}")
            tracker = listener.tracker()
            tracker.restore(entry["state"])
            reports._trackers[listener] = tracker
        return reports
