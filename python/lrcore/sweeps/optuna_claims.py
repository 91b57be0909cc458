"""Claims of settings in an Optuna study that several processes run: each setting runs once.

Optuna numbers trials and lets any process read all of them, but its storages have no locks for settings. Trials
therefore claim their settings by attributes, with Lamport's bakery algorithm::

    mark this trial as ASKING
    repeat:
        a trial with these settings has ended                      -> take its result
        another one RUNS them, or ASKS and has a lower number      -> mark this one as WAITING; poll again later
        another one ASKS and has a higher number                   -> poll again at once: it decides soon
        otherwise                                                  -> mark this one as RUNNING; run

Of two trials that ask at the same time, the one that reads last sees the other, so they never both run. The same
algorithm lets one trial at a time draw its settings, so that each sees the settings drawn before. Marks of dead
processes do not count.

https://lamport.azurewebsites.net/pubs/bakery.pdf
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lrcore.sweeps import lease

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

INTERRUPTED = "lrcore:interrupted"
"""The user attribute of trials that did not run to their end, which don't count."""

_HOLDER = "lrcore:owner"
_CLAIM = "lrcore:claim"
_DRAWS = "lrcore:draws"
_ASKS, _WAITS, _RUNS = "asks", "waits", "runs"
# Seconds between polls, and until a trial without a holder counts as dead.
_SOON, _LATER = 0.02, 0.1
_SILENT = 10.0


def begin(study: Any, trial: Any, trials: int) -> bool:
    """Mark this process as the holder of a trial; return whether ``trials`` earlier ones exist already."""
    _mark(study, trial, _HOLDER, lease.current())
    before = [other for other in _counted(study) if other.number < trial.number]
    return len(before) >= trials


def left(study: Any, trials: int) -> int:
    """Return how many trials remain to be started."""
    return trials - sum(1 for _ in _counted(study))


def tried(study: Any) -> list[dict[str, Any]]:
    """Return the settings of all ended and running trials, as Optuna stores them."""
    return [trial.params for trial in _counted(study)]


def begin_drawing(study: Any, trial: Any) -> None:
    """Wait until no other process is drawing settings."""
    _mark(study, trial, _HOLDER, lease.current())
    _enter(study, trial, _DRAWS, lambda: [one for one in _counted(study) if one.number != trial.number])


def end_drawing(study: Any, trial: Any) -> None:
    """Let other processes draw."""
    _mark(study, trial, _DRAWS, "")


def claim(study: Any, trial: Any) -> Any:
    """Wait while another process runs the same settings; return its ended trial, or None if this trial has to run."""

    def rivals() -> list[Any]:
        return [one for one in _counted(study) if one.number != trial.number and one.params == trial.params]

    return _enter(study, trial, _CLAIM, rivals, ("COMPLETE", "PRUNED"))


def _enter(study: Any, trial: Any, key: str, rivals: Callable[[], list[Any]], ended: Sequence[str] = ()) -> Any:
    """Mark a trial as RUNNING once none of its rivals is, or return a rival that has ended."""
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
    """Yield ended and running trials."""
    for trial in study.get_trials(deepcopy=False):
        if INTERRUPTED in trial.user_attrs:
            continue
        if trial.state.is_finished() or (trial.state.name == "RUNNING" and _is_alive(trial)):
            yield trial


def _is_alive(trial: Any) -> bool:
    """Return whether the process of a trial is alive; on another machine it counts as alive."""
    now = time.time()
    who = trial.system_attrs.get(_HOLDER)
    if who is not None:
        return not lease.is_gone(who, now)
    started: datetime | None = trial.datetime_start
    return started is not None and now - started.timestamp() < _SILENT


def _mark(study: Any, trial: Any, key: str, value: str) -> None:
    """Set a system attribute, which is not a result of the trial."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)
