"""Interleaved timing: warm calls in turns, as ratios with their spread.

Competitors take turns, round by round, so that a machine whose speed drifts is the same for all; every round starts
with the next one. A turn starts with a rest, in which the threads of the previous competitor go to sleep, and with
calls that are not counted, which fill the caches and wake its own threads.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Call = Callable[[], object]

REST = 0.02  # seconds; GNU OpenMP spins for about 10 ms after a parallel region, other pools for less
TURN = 0.004  # seconds; the minimum length of a turn
SLOW = 0.03  # seconds; one call of this length warms up
FEWEST, MOST = 5, 201  # rounds


@dataclass(frozen=True)
class TimedCall:
    """A call to time; ``enter``, untimed, once at the start of a turn; ``before``, untimed, before every call."""

    call: Call
    enter: Call = lambda: None
    before: Call | None = None


@dataclass(frozen=True)
class Times:
    """Seconds per call in each round, of which there are at least two."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The quartiles of the rounds."""
        low, _, high = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return low, high

    def over(self, other: Times) -> Ratio:
        """Return the ratio of these times to others, round by round."""
        return Ratio(tuple(a / b for a, b in zip(self.rounds, other.rounds, strict=True)))


class Ratio(Times):
    """Ratios of times in each round."""

    def __str__(self) -> str:
        """Return the median and the quartiles."""
        low, high = self.quartiles
        return f"{digits(self.median)} [{digits(low)}, {digits(high)}]"


def digits(value: float, count: int = 3) -> str:
    """Return a number with ``count`` significant digits, without an exponent."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    rounded = float(f"{value:.{count - 1}e}")  # 0.9996 becomes 1.00
    return f"{value:.{max(0, count - 1 - math.floor(math.log10(abs(rounded))))}f}"


def interleave(
    competitors: Mapping[str, Call | TimedCall], seconds: float = math.inf, rounds: int = MOST, rest: float = REST
) -> dict[str, Times]:
    """Time calls in turns, in this many rounds, or in fewer, at least 5, if they take longer than ``seconds``.

    A single competitor gets no rest, and competitors that share threads need none: a core is slow for a while after it.
    """
    start = time.perf_counter()
    timed_calls = {name: call if isinstance(call, TimedCall) else TimedCall(call) for name, call in competitors.items()}
    turns = {name: _calls_a_turn(timed) for name, timed in timed_calls.items()}
    names = list(timed_calls)
    rest = rest if len(names) > 1 else 0.0
    times: dict[str, list[float]] = {name: [] for name in names}
    for done in range(rounds):
        if done >= FEWEST and (time.perf_counter() - start) * (done + 1) / done > seconds:
            break
        first = done % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(_turn(timed_calls[name], *turns[name], rest=rest))
    return {name: Times(tuple(values)) for name, values in times.items()}


def _turn(timed: TimedCall, warm: int, calls: int, *, rest: float) -> float:
    """Return the seconds per call of one turn."""
    time.sleep(rest)
    timed.enter()
    _seconds(timed, warm)
    return _seconds(timed, calls) / calls


def _seconds(timed: TimedCall, calls: int) -> float:
    """Return the total time of the calls. Without ``before`` the clock is read only twice."""
    call, before, clock = timed.call, timed.before, time.perf_counter
    if before is None:
        start = clock()
        for _ in range(calls):
            call()
        return clock() - start
    total = 0.0
    for _ in range(calls):
        before()
        start = clock()
        call()
        total += clock() - start
    return total


def _calls_a_turn(timed: TimedCall) -> tuple[int, int]:
    """Return how many calls warm up, and how many make a turn long enough for the clock."""
    timed.enter()
    _seconds(timed, 1)  # creates state and touches every page
    start = time.perf_counter()
    least = _seconds(timed, 1)
    whole = time.perf_counter() - start
    if least > SLOW:
        return 1, 1
    # A single call may be disturbed, which would make turns too short.
    least = min(least, *(_seconds(timed, 1) for _ in range(4)))
    # A turn with ``before`` may last up to ten times as long.
    lasts = max(least, whole / 10) if timed.before else least
    calls = max(3 if timed.before else 1, round(TURN / lasts))
    return max(2, calls // 10), calls
