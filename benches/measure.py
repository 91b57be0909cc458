"""Timing of competitors in one run: interleaved, warm, as ratios with their spread.

Competitors take turns, round by round, so that a machine whose speed drifts is the same for all. Each turn begins with
a rest, in which the threads of the one before go to sleep, and with calls that are not counted, which fill the caches
and wake the threads of this one.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REST = 0.05  # seconds; GNU OpenMP spins for about 10 ms after a parallel region, other pools for less
TURN = 0.004  # seconds that a turn lasts at least


@dataclass(frozen=True)
class Times:
    """Seconds a call, one for each round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.rounds)

    def over(self, other: Times) -> Ratio:
        """The ratio of these times to others', round by round."""
        return Ratio(tuple(a / b for a, b in zip(self.rounds, other.rounds, strict=True)))


@dataclass(frozen=True)
class Ratio:
    """Ratios of times, one for each round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.rounds)

    def __str__(self) -> str:
        low, _, high = statistics.quantiles(self.rounds, n=4)
        return f"{self.median:.3f} [{low:.3f}, {high:.3f}]"


def interleave(competitors: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """Time calls in turns, in as many rounds."""
    calls = {name: _calls_a_turn(call) for name, call in competitors.items()}
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(rounds):
        for name, call in competitors.items():
            time.sleep(REST)
            for _ in range(max(2, calls[name] // 10)):
                call()
            start = time.perf_counter()
            for _ in range(calls[name]):
                call()
            seconds[name].append((time.perf_counter() - start) / calls[name])
    return {name: Times(tuple(values)) for name, values in seconds.items()}


def _calls_a_turn(call: Callable[[], object]) -> int:
    """How many calls make a turn long enough for the clock."""
    for _ in range(3):
        call()
    start = time.perf_counter()
    call()
    return max(1, round(TURN / (time.perf_counter() - start)))
