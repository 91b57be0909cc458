"""The function that is swept: what it takes, what it may return, and one call of it."""

from __future__ import annotations

import functools
import inspect
import math
import os
import reprlib
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lrcore._messages import brief
from lrcore.sweeps.space import RESERVED, Settings

Train = Callable[..., Any]

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


LARGEST = 1e30
"""The largest magnitude of an objective or a reported value; beyond it a run counts as diverged.

A loss that grows by a constant factor per step is finite in float64 long after it has diverged: it comes to 1e278 as
easily as to 1e30. In float32, in which most models compute, the squares of such numbers overflow.
"""


class DivergedError(ArithmeticError):
    """A value of a run is not finite or beyond :data:`LARGEST`; it ends a run that does not catch it."""


def divergence(value: float) -> str:
    """Return a value that counts as diverged as text, or an empty string if it does not."""
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    return f"{value:.4g} (above {LARGEST:g} in magnitude: diverged)" if abs(value) > LARGEST else ""


@contextmanager
def leaving_forks() -> Iterator[None]:
    """End a forked child of the block at its end, with the exit status that a script would have.

    A function that forks and returns in the child too, in place of ``os._exit``, would otherwise go on as a second
    worker on the same pipe, or as a second sweep on the same results file.
    """
    pid = os.getpid()
    status = 0
    try:
        yield
    except BaseException as error:
        if os.getpid() == pid:
            raise
        if isinstance(error, SystemExit):
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        else:
            status = 1
            traceback.print_exc()
    if os.getpid() != pid:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(status)


@dataclass(frozen=True)
class Run:
    """One run: settings, the number of its seed, and a budget if runs have one."""

    settings: Settings
    index: int
    seed: int
    budget: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        status: ``"finished"``, ``"diverged"`` or ``"failed"``.
        objective: The number that counts; None unless the run has finished.
        metrics: What else was returned.
        reason: Why it has not finished, and which metrics are left out and why.
        seconds: How long it took.
    """

    status: str
    objective: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    seconds: float | None = None


def name_of(train: Train) -> str:
    """Return what a function is called in a results file, wherever it is defined."""
    train = unwrapped(train)
    return getattr(train, "__qualname__", type(train).__qualname__)


def unwrapped(train: Train) -> Train:
    """Return the function that ``functools.partial`` was given."""
    while isinstance(train, functools.partial):
        train = train.func
    return train


def check_train(train: Any, names: Iterable[str], *, budget: bool = False) -> bool:
    """Raise unless a function can be called with these settings; return whether it takes a ``report``.

    Raises:
        TypeError: If it is no function, lacks an argument, or needs one that nobody gives.
    """
    if not callable(train):
        raise TypeError(f"train must be a function, got {brief(train)}")
    try:
        parameters = inspect.signature(train).parameters
    except ValueError:  # some that are written in C don't tell
        return False
    given = [*names, "seed", *(["budget"] if budget else [])]
    taken = [name for name, parameter in parameters.items() if parameter.kind in _NAMED]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    name = name_of(train)
    if missing := [key for key in given if key not in taken and not takes_any]:
        raise TypeError(
            f"{name}() is called with the keywords {given}, and takes no {missing}; it takes {taken or 'none'}"
        )
    for key, parameter in parameters.items():
        variadic = parameter.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        needed = parameter.default is inspect.Parameter.empty and not variadic
        if needed and (key not in [*given, "report"] or parameter.kind not in _NAMED):
            hint = "budget=…" if key == "budget" else f"space[{key!r}]"
            raise TypeError(f"{name}() needs {key!r}, which is not among the keywords {given}: give {hint}")
    return "report" in taken


def call(train: Train, run: Run, takes_report: bool) -> Outcome:  # noqa: FBT001  # executors pass it by position
    """Run once, wherever an executor does; whatever happens becomes an outcome."""
    start = time.perf_counter()
    extra: dict[str, Any] = {} if run.budget is None else {"budget": run.budget}
    if takes_report:
        extra["report"] = reporter()
    try:
        with leaving_forks():
            returned = train(**run.settings, seed=run.seed, **extra)
        objective, metrics, left_out = read(returned, run.settings)
    except DivergedError as error:
        return Outcome("diverged", reason=str(error), seconds=time.perf_counter() - start)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() in a run ends that run
        reason = f"{type(error).__name__}: {error}"
        return Outcome("failed", reason=reason, seconds=time.perf_counter() - start)
    seconds = time.perf_counter() - start
    if why := divergence(objective):
        return Outcome("diverged", None, metrics, "; ".join([f"the objective is {why}", *left_out]), seconds)
    return Outcome("finished", objective, metrics, "; ".join(left_out), seconds)


def reporter(then: Callable[[float, int], None] | None = None) -> Callable[..., None]:
    """Return the function that one run reports its values to.

    Args:
        then: What is called with each value that has not diverged, and its step.
    """
    last = -1

    def report(value: float, step: int | None = None) -> None:
        """Take note of a value on the way; one that is not finite or beyond 1e30 ends the run as diverged.

        Args:
            value: The value.
            step: Where it stands; None is one after the last, and 0 at first.

        Raises:
            DivergedError: If it is not finite, or its magnitude is above :data:`LARGEST`.
        """
        nonlocal last
        last = last + 1 if step is None else step
        if why := divergence(value):
            raise DivergedError(f"{why} was reported at step {last}")
        if then is not None:
            then(float(value), last)

    return report


def read(returned: Any, settings: Mapping[str, Any]) -> tuple[float, dict[str, Any], list[str]]:
    """Return the objective and the other metrics of what a run returned, and why some of these are left out.

    What a metric is takes nothing from the objective, for which the run may have taken hours.

    Raises:
        TypeError: If it is neither a number nor a mapping with one as ``"objective"``.
    """
    if not isinstance(returned, Mapping):
        return _number("train() must return a number or a mapping with 'objective'", returned), {}, []
    if "objective" not in returned:
        raise TypeError(f"train() must return a number or a mapping with 'objective', got the keys {list(returned)}")
    objective = _number("'objective' must be a number", returned["objective"])
    metrics, left_out = {}, []
    for key, value in returned.items():
        if key == "objective":
            continue
        try:
            metrics[key] = _metric(key, value, settings)
        except (TypeError, ValueError) as error:
            left_out.append(f"the metric {key!r} is left out: {error}")
    return objective, metrics, left_out


def _metric(key: Any, value: Any, settings: Mapping[str, Any]) -> Any:
    """Return a metric as a results file holds it, or raise."""
    if not isinstance(key, str):
        raise TypeError("its name must be a string")
    if key in settings or key in RESERVED:
        raise ValueError("it has the name of a setting or of a column; call it something else")
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool):
        return value
    return _number("it must be a number, a string, a bool or None", value)


def _number(what: str, value: Any) -> float:
    if isinstance(value, bool | np.bool_ | str | bytes) or not hasattr(value, "__float__"):
        # What it is may be as long as a data set.
        raise TypeError(f"{what}, got {type(value).__name__}: {reprlib.repr(value)}")
    if isinstance(value, np.ndarray):
        if value.size != 1:
            raise TypeError(f"{what}, got an array of shape {value.shape}")
        value = value.item()
    try:
        return float(value)
    except Exception as error:  # other libraries' arrays of several numbers, each with an error of its own
        raise TypeError(f"{what}, got {type(value).__name__}: {error}") from None
