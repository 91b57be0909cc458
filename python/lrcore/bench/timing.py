"""Timing in turns: warm, interleaved, round by round.

Every round begins with the next competitor. Each turn begins with a rest, in which the threads of the one before go to
sleep, and with calls that are not counted, which fill the caches and wake the threads of this one.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Call = Callable[[], object]

REST = 0.02  # seconds; GNU OpenMP spins for about 10 ms after a parallel region, other pools for less
TURN = 0.004  # seconds that a turn lasts at least
SLOW = 0.03  # seconds; a call that takes longer is warm after one
FEWEST, MOST = 5, 201  # rounds


@dataclass(frozen=True)
class Spread:
    """A median, and the middle half around it."""

    median: float
    low: float
    high: float


def spread(values: list[float]) -> Spread:
    """Return the quartiles of two values or more."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratio(a: list[float], b: list[float]) -> Spread:
    """Return the ratios of two competitors' times, round by round."""
    return spread([x / y for x, y in zip(a, b, strict=True)])


def interleave(competitors: Mapping[str, Call], seconds: float) -> dict[str, list[float]]:
    """Time calls in turns for about that long, and in 5 rounds at least.

    Returns:
        Seconds a call, one for each round, of each competitor.
    """
    end = time.perf_counter() + seconds
    calls = {name: _calls_a_turn(call) for name, call in competitors.items()}
    names = list(competitors)
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for done in range(MOST):
        if done >= FEWEST and time.perf_counter() > end:
            break
        first = done % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(_turn(competitors[name], calls[name]))
    return times


def _turn(call: Call, count: int) -> float:
    """Return the seconds that one call takes, of a turn of that many."""
    time.sleep(REST)
    if _seconds(call, 1) < SLOW:
        _seconds(call, max(1, count // 10))
    return _seconds(call, count) / count


def _seconds(call: Call, count: int) -> float:
    """Return how long that many calls take together."""
    start = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - start


def _calls_a_turn(call: Call) -> int:
    """Return how many calls make a turn long enough for the clock."""
    call()  # makes state, and writes every page before it is timed
    least = _seconds(call, 1)
    if least < SLOW:  # one call may be disturbed, and its turns would then be too short
        least = min(least, *(_seconds(call, 1) for _ in range(4)))
    return max(1, round(TURN / least))
