"""The function of a sweep: its arguments, its return value, and one call of it."""

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
"""The largest magnitude of an objective or a reported value; above it a run counts as diverged.

A diverging loss that grows by a constant factor per step stays finite in float64 for long, up to 1e308. In float32, in
which most models compute, the squares of numbers above 1e19 overflow.
"""


class DivergedError(ArithmeticError):
    """A value of a run is not finite or above :data:`LARGEST`; the run ends as diverged unless it catches this."""


def divergence(value: float) -> str:
    """Return the text of a value that counts as diverged, and an empty string for others."""
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    return f"{value:.4g} (above {LARGEST:g} in magnitude: diverged)" if abs(value) > LARGEST else ""


@contextmanager
def exit_in_forked_child() -> Iterator[None]:
    """Exit in a forked child at the end of the block, with the exit status that a script would have.

    If the function forks and also returns in the child, the child would otherwise continue as a second worker on the
    same pipe, or as a second sweep on the same results file.
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
    """One run: settings, the index of its seed, the seed, and a budget if runs have one."""

    settings: Settings
    index: int
    seed: int
    budget: int | None = None


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        status: ``"finished"``, ``"diverged"`` or ``"failed"``.
        objective: The objective; None unless the run finished.
        metrics: The other values that it returned.
        reason: Why it did not finish, and which metrics were dropped and why.
        seconds: Its duration.
    """

    status: str
    objective: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    seconds: float | None = None


def name_of(train: Train) -> str:
    """Return the name of a function in a results file."""
    train = unwrap(train)
    return getattr(train, "__qualname__", type(train).__qualname__)


def unwrap(train: Train) -> Train:
    """Return the function within ``functools.partial``."""
    while isinstance(train, functools.partial):
        train = train.func
    return train


def describe_error(error: BaseException) -> str:
    """Return the type and the message of an error."""
    return f"{type(error).__name__}: {error}"


def check_train(train: Any, names: Iterable[str], *, budget: bool = False) -> bool:
    """Check that a function can be called with these settings; return whether it takes ``report``.

    Raises:
        TypeError: If it is not a function, lacks an argument, or requires another one.
    """
    if not callable(train):
        raise TypeError(f"train must be a function, got {brief(train)}")
    try:
        parameters = inspect.signature(train).parameters
    except ValueError:  # some functions written in C have no signature
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


def execute(train: Train, run: Run, takes_report: bool) -> Outcome:  # noqa: FBT001  # executors pass it by position
    """Run once; whatever happens becomes an outcome."""
    start = time.perf_counter()
    extra: dict[str, Any] = {} if run.budget is None else {"budget": run.budget}
    if takes_report:
        extra["report"] = make_report()
    try:
        objective, metrics, dropped = evaluate(train, run.settings, run.seed, extra)
    except DivergedError as error:
        return Outcome("diverged", reason=str(error), seconds=time.perf_counter() - start)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() in a run ends that run
        return Outcome("failed", reason=describe_error(error), seconds=time.perf_counter() - start)
    seconds = time.perf_counter() - start
    if why := divergence(objective):
        return Outcome("diverged", None, metrics, "; ".join([f"the objective is {why}", *dropped]), seconds)
    return Outcome("finished", objective, metrics, "; ".join(dropped), seconds)


def evaluate(
    train: Train, settings: Settings, seed: int, extra: Mapping[str, Any]
) -> tuple[float, dict[str, Any], list[str]]:
    """Call the function; return the objective, the other metrics, and why some of these are dropped."""
    with exit_in_forked_child():
        returned = train(**settings, seed=seed, **extra)
    return parse_result(returned, settings)


def make_report(then: Callable[[float, int], None] | None = None) -> Callable[..., None]:
    """Return the ``report`` function of one run.

    Args:
        then: Called with each value that has not diverged, and its step.
    """
    last = -1

    def report(value: float, step: int | None = None) -> None:
        """Report an intermediate value; one that is not finite or above 1e30 in magnitude ends the run as diverged.

        Args:
            value: The value.
            step: Its step; None is one after the last, starting at 0.

        Raises:
            DivergedError: If the value is not finite, or above :data:`LARGEST` in magnitude.
        """
        nonlocal last
        last = last + 1 if step is None else step
        if why := divergence(value):
            raise DivergedError(f"{why} was reported at step {last}")
        if then is not None:
            then(float(value), last)

    return report


def parse_result(returned: Any, settings: Mapping[str, Any]) -> tuple[float, dict[str, Any], list[str]]:
    """Return the objective, the other metrics, and why some of these are dropped.

    An unsupported metric does not fail a run, whose objective may have taken hours.

    Raises:
        TypeError: If the value is neither a number nor a mapping with a number as ``"objective"``.
    """
    if not isinstance(returned, Mapping):
        return _number("train() must return a number or a mapping with 'objective'", returned), {}, []
    if "objective" not in returned:
        raise TypeError(f"train() must return a number or a mapping with 'objective', got the keys {list(returned)}")
    objective = _number("'objective' must be a number", returned["objective"])
    metrics, dropped = {}, []
    for key, value in returned.items():
        if key == "objective":
            continue
        try:
            metrics[key] = _metric(key, value, settings)
        except (TypeError, ValueError) as error:
            dropped.append(f"the metric {key!r} is dropped: {error}")
    return objective, metrics, dropped


def _metric(key: Any, value: Any, settings: Mapping[str, Any]) -> Any:
    """Return a metric as a results file stores it, or raise."""
    if not isinstance(key, str):
        raise TypeError("its name must be a string")
    if key in settings or key in RESERVED:
        raise ValueError("its name must not be that of a setting or of a column")
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool):
        return value
    return _number("it must be a number, a string, a bool or None", value)


def _number(what: str, value: Any) -> float:
    if isinstance(value, bool | np.bool_ | str | bytes) or not hasattr(value, "__float__"):
        # reprlib, since the value may be a whole data set
        raise TypeError(f"{what}, got {type(value).__name__}: {reprlib.repr(value)}")
    if isinstance(value, np.ndarray):
        if value.size != 1:
            raise TypeError(f"{what}, got an array of shape {value.shape}")
        value = value.item()
    try:
        return float(value)
    except Exception as error:  # arrays of other libraries raise various errors
        raise TypeError(f"{what}, got {type(value).__name__}: {error}") from None
