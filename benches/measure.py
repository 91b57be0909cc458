"""Timing of competitors in one run: interleaved, warm, as ratios with their spread.

Competitors take turns, round by round, so that a machine whose speed drifts is the same for all; every round begins
with the next of them. Each turn begins with a rest, in which the threads of the one before go to sleep, and with calls
that are not counted, which fill the caches and wake the threads of this one.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REST = 0.03  # seconds; GNU OpenMP spins for about 10 ms after a parallel region, other pools for less
TURN = 0.004  # seconds that a turn lasts at least
SLOW = 0.03  # seconds; a call that takes longer is warm after one
LEAST_ROUNDS = 5


@dataclass(frozen=True)
class Entrant:
    """What is timed, and what belongs to it but is not."""

    call: Callable[[], object]
    enter: Callable[[], object] | None = None  # once, when its turn begins
    before: Callable[[], object] | None = None  # before every call


@dataclass(frozen=True)
class Times:
    """Seconds a call, one for each round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.rounds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The bounds of the middle half of the rounds."""
        low, _, high = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return low, high

    def over(self, other: Times) -> Ratio:
        """The ratio of these times to others', round by round."""
        return Ratio(tuple(a / b for a, b in zip(self.rounds, other.rounds, strict=True)))


class Ratio(Times):
    """Ratios of times, one for each round."""

    def __str__(self) -> str:
        low, high = self.quartiles
        return f"{self.median:.3f} [{low:.3f}, {high:.3f}]"


def interleave(
    competitors: Mapping[str, Callable[[], object] | Entrant], rounds: int, seconds: float = float("inf")
) -> dict[str, Times]:
    """Time calls in turns, in as many rounds, or in fewer (5 at least) if they take longer than ``seconds``."""
    entrants = {name: call if isinstance(call, Entrant) else Entrant(call) for name, call in competitors.items()}
    turns = {name: _calls_a_turn(entrant) for name, entrant in entrants.items()}
    times: dict[str, list[float]] = {name: [] for name in entrants}
    names = list(entrants)
    start = time.perf_counter()
    for done in range(rounds):
        elapsed = time.perf_counter() - start
        if done >= min(rounds, LEAST_ROUNDS) and elapsed * (done + 1) / done > seconds:
            break
        first = done % len(names)
        for name in names[first:] + names[:first]:
            # One who is alone needs no rest, after which a core is slow for a while.
            times[name].append(_turn(entrants[name], *turns[name], rest=REST if len(names) > 1 else 0.0))
    return {name: Times(tuple(values)) for name, values in times.items()}


def _turn(entrant: Entrant, warm: int, calls: int, *, rest: float) -> float:
    """Seconds a call, of one turn."""
    time.sleep(rest)
    if entrant.enter:
        entrant.enter()
    _seconds(entrant, warm)
    return _seconds(entrant, calls) / calls


def _seconds(entrant: Entrant, calls: int) -> float:
    """Seconds in so many calls. Without ``before``, the clock is read only twice."""
    call, before, clock = entrant.call, entrant.before, time.perf_counter
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


def _calls_a_turn(entrant: Entrant) -> tuple[int, int]:
    """How many calls make a caller warm, and how many make a turn long enough for the clock."""
    if entrant.enter:
        entrant.enter()
    _seconds(entrant, 2)
    start = time.perf_counter()
    seconds = _seconds(entrant, 1)
    if seconds > SLOW:
        return 1, 1
    # What goes on before the calls is part of how long a turn lasts, and a turn of 50 calls is enough with it.
    lasts = max(seconds, (time.perf_counter() - start) / 10)
    calls = max(3 if entrant.before else 1, round(TURN / lasts))
    return max(2, calls // 10), calls
