"""The grid that is measured: optimizers by sizes, smallest first, in the time that there is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lrcore import info
from lrcore.bench.load import share_of_others
from lrcore.bench.peers import OURS, ROOF, WORKS, Peers, Work, arrays
from lrcore.bench.timing import FEWEST, REST, TURN, Ratio, Times, interleave

if TYPE_CHECKING:
    from collections.abc import Callable

MI = 1 << 20
SHARE_OF_MEMORY = 0.7  # of what is free, that a cell may take


@dataclass(frozen=True)
class Comparison:
    """The times of all competitors at one optimizer and size, in seconds a call."""

    work: Work
    length: int
    times: dict[str, Times]

    @property
    def seconds(self) -> float:
        """The median time of lrcore's step."""
        return self.times[OURS].median

    @property
    def of_roof(self) -> float:
        """How near lrcore comes to the roof; 1 is the roof."""
        return self.times[ROOF].over(self.times[OURS]).median

    def over(self, peer: str) -> Ratio | None:
        """The ratio of lrcore's time to a peer's, if it took part."""
        return self.times[OURS].over(self.times[peer]) if peer in self.times else None

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        ratios = {name: ratio for name in self.times if name not in {OURS, ROOF} and (ratio := self.over(name))}
        return {
            "optimizer": self.work.title,
            "arguments": self.work.arguments,
            "weights": self.length,
            "dtype": "float32",
            "microseconds": self.seconds * 1e6,
            "nanoseconds_a_weight": self.seconds * 1e9 / self.length,
            "of_roof": self.of_roof,
            "ratio_to": {peer: _spread(ratio) for peer, ratio in ratios.items()},
            "seconds": {name: list(times.rounds) for name, times in self.times.items()},
        }


def _spread(ratio: Ratio) -> dict[str, float]:
    low, high = ratio.quartiles
    return {"median": ratio.median, "low": low, "high": high}


@dataclass
class Measurements:
    """What has been measured so far."""

    peers: Peers
    cells: list[Comparison] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    interrupted: bool = False
    others: float | None = None  # the share of the cores that other programs used, before or after


def measure(results: Measurements, sizes: list[int], seconds: float, progress: Callable[[float, str], None]) -> None:
    """Measure the grid in about that many seconds, into the results; Ctrl-C ends it."""
    plan = [(work, length) for length in sorted(set(sizes)) for work in WORKS]
    end = time.perf_counter() + seconds
    results.others = share_of_others()
    try:
        for done, (work, length) in enumerate(plan):
            weights = [_share(size) for _, size in plan[done:]]
            progress(1 - sum(weights) / sum(_share(size) for _, size in plan), f"{work.title}, {name_of(length)}")
            left = end - time.perf_counter()
            if why := _hindrance(results, work, length, left):
                results.left_out.append(f"{work.title}, {name_of(length)} weights: {why}")
                continue
            results.cells.append(_measure_cell(results.peers, work, length, left * weights[0] / sum(weights)))
        results.others = max((results.others, share_of_others()), key=lambda share: share or 0.0)
    except KeyboardInterrupt:
        results.interrupted = True


def _measure_cell(peers: Peers, work: Work, length: int, seconds: float) -> Comparison:
    end = time.perf_counter() + seconds
    weight, grad = arrays(length)
    steps = {name: make(weight.copy(), grad.copy()) for name, make in peers.competitors(work).items()}
    return Comparison(work, length, interleave(steps, end - time.perf_counter()))


def _share(length: int) -> float:
    """Return how much of the time a size gets, beside others: large ones need it for the fewest rounds."""
    return 1 + length / (4 * MI)


def _hindrance(results: Measurements, work: Work, length: int, left: float) -> str:
    """Return why a cell can't be measured, or nothing."""
    competitors = len(results.peers.competitors(work))
    needed = length * 4 * (2 + competitors * (work.states + 3))
    free = info.memory("MemAvailable")
    if free is not None and needed > SHARE_OF_MEMORY * free:
        return f"it needs {needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} are free"
    if left < _least_seconds(results, work, length, competitors):
        return "no time was left; --seconds gives more"
    return ""


def _least_seconds(results: Measurements, work: Work, length: int, competitors: int) -> float:
    """Return how long the fewest rounds take, by the cells of the same optimizer before."""
    rests = FEWEST * competitors * (REST + 2 * TURN)
    before = [cell for cell in results.cells if cell.work is work]
    if not before:
        return 0.0 if not results.cells else rests
    a_round = sum(times.median for times in before[-1].times.values())
    return rests + (2 * FEWEST + 3) * a_round * length / before[-1].length


def name_of(length: int) -> str:
    """Return a size as people write it: 64 Ki, 16 Mi."""
    for unit, name in ((MI, " Mi"), (1 << 10, " Ki")):
        if length >= unit and length % unit == 0:
            return f"{length // unit}{name}"
    return str(length)
