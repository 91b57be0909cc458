"""Trials of an Optuna study that several processes run: each settings once, and no more trials than were asked for.

Optuna gives each trial a number and lets any process read all trials, but nothing in its storages can be claimed by the
settings that a trial has drawn. So trials claim them by attributes, as in Lamport's bakery::

    mark this trial as ASKING
    repeat:
        another trial with these settings has ended            -> take its result
        another one RUNS them, or asks and has a lower number  -> mark this one as WAITING, look again later
        another one asks and has a higher number               -> look again at once: it decides soon
        else                                                   -> mark this one as RUNNING; run

Of two that ask at the same time the one that looks last sees the other, so never both run. Trials take turns in drawing
their settings in the same way, so that each sees what the others have drawn. Marks of processes that are gone do not
count.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lrcore.sweeps import lease

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

INTERRUPTED = "lrcore:interrupted"
"""User attribute of a trial that was not run to its end, and is none of those that were asked for."""

_OWNER = "lrcore:owner"
_CLAIM = "lrcore:claim"
_DRAWS = "lrcore:draws"
_ASKS, _WAITS, _RUNS = "asks", "waits", "runs"
# Seconds between looks at other trials, and until one that has not said who runs it counts as gone.
_SOON, _LATER = 0.02, 0.1
_SILENT = 10.0


def begin(study: Any, trial: Any, trials: int) -> bool:
    """Take note of who runs a trial; return whether others have begun as many as were asked for."""
    _mark(study, trial, _OWNER, lease.current())
    before = [other for other in _counted(study) if other.number < trial.number]
    return len(before) >= trials


def left(study: Any, trials: int) -> int:
    """Return how many trials have to be begun."""
    return trials - sum(1 for _ in _counted(study))


def tried(study: Any) -> list[dict[str, Any]]:
    """Return the settings of all trials that have ended or are being run, as Optuna keeps them."""
    return [trial.params for trial in _counted(study)]


def begin_drawing(study: Any, trial: Any) -> None:
    """Wait until no other process draws settings, so that each sees what the others have drawn."""
    _mark(study, trial, _OWNER, lease.current())
    _enter(study, trial, _DRAWS, lambda: [one for one in _counted(study) if one.number != trial.number])


def end_drawing(study: Any, trial: Any) -> None:
    """Let others draw."""
    _mark(study, trial, _DRAWS, "")


def claim(study: Any, trial: Any) -> Any:
    """Return a trial with the same settings that has ended, or None if this one is to be run.

    Waits while another process is at these settings.
    """

    def rivals() -> list[Any]:
        return [one for one in _counted(study) if one.number != trial.number and one.params == trial.params]

    return _enter(study, trial, _CLAIM, rivals, ("COMPLETE", "PRUNED"))


def _enter(study: Any, trial: Any, key: str, rivals: Callable[[], list[Any]], ended: Sequence[str] = ()) -> Any:
    """Mark a trial as the one that RUNS as soon as none of its rivals does; or return one that has ended meanwhile."""
    mine = ""

    def become(mark: str) -> None:
        nonlocal mine
        if mine != mark:
            _mark(study, trial, key, mark)
            mine = mark

    become(_ASKS)
    while True:
        others = rivals()
        for one in others:
            if one.state.name in ended:
                return one
        marks = [(one.system_attrs.get(key), one.number) for one in others if one.state.name == "RUNNING"]
        if any(mark == _RUNS or (mark == _ASKS and number < trial.number) for mark, number in marks):
            become(_WAITS)
            time.sleep(_LATER)
        elif mine == _WAITS:
            become(_ASKS)
        elif any(mark == _ASKS for mark, _ in marks):
            time.sleep(_SOON)
        else:
            become(_RUNS)
            return None


def _counted(study: Any) -> Iterator[Any]:
    """Yield the trials that have ended or are being run."""
    for trial in study.get_trials(deepcopy=False):
        if INTERRUPTED in trial.user_attrs:
            continue
        if trial.state.is_finished() or (trial.state.name == "RUNNING" and _is_alive(trial)):
            yield trial


def _is_alive(trial: Any) -> bool:
    """Return whether a trial's process is alive; one on another machine counts as alive."""
    now = time.time()
    who = trial.system_attrs.get(_OWNER)
    if who is not None:
        return not lease.is_gone(who, now)
    begun: datetime | None = trial.datetime_start
    return begun is not None and now - begun.timestamp() < _SILENT


def _mark(study: Any, trial: Any, key: str, value: str) -> None:
    """Set an attribute that is no result of the trial."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)
