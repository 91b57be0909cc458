"""The grid of `python -m lrcore bench`: optimizers by sizes, smallest first, within a given time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

import lrcore
from lrcore import info
from lrcore.bench import peers
from lrcore.bench.cpu_load import share_of_others
from lrcore.bench.peers import LRCORE, OURS, ROOFLINE, ROOFLINE_PEER
from lrcore.bench.timing import FEWEST, REST, TURN, Ratio, TimedCall, Times, interleave
from lrcore.bench.workloads import LR, WORKLOADS, Peer, Workload

if TYPE_CHECKING:
    from collections.abc import Callable

MI = 1 << 20
SHARE_OF_MEMORY = 0.7  # of the free memory, that a cell may take
FLOAT32 = np.dtype(np.float32)
CHOSEN = [WORKLOADS[name] for name in ("AdamW", "SGD momentum", "RMSprop")]
NAMES = ("NumPy out=", "torch fused", "torch foreach")


@dataclass(frozen=True)
class Comparison:
    """The times of all competitors at one optimizer and size, in seconds per call."""

    workload: Workload
    length: int
    times: dict[str, Times]

    @property
    def seconds(self) -> float:
        """The median time of lrcore's step."""
        return self.times[OURS].median

    @property
    def of_roofline(self) -> float | None:
        """The roofline's time over lrcore's: 1 if lrcore is as fast as the memory."""
        return self.times[ROOFLINE].over(self.times[OURS]).median if ROOFLINE in self.times else None

    def over(self, peer: str) -> Ratio | None:
        """Return the ratio of lrcore's time to a peer's, if it took part."""
        return self.times[OURS].over(self.times[peer]) if peer in self.times else None

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        ratios = {name: ratio for name in self.times if name not in {OURS, ROOFLINE} and (ratio := self.over(name))}
        return {
            "optimizer": self.workload.name,
            "arguments": {"lr": LR, **self.workload.options},
            "weights": self.length,
            "dtype": "float32",
            "microseconds": self.seconds * 1e6,
            "nanoseconds_per_weight": self.seconds * 1e9 / self.length,
            "of_roofline": self.of_roofline,
            "ratio_to": {peer: _spread(ratio) for peer, ratio in ratios.items()},
            "seconds": {name: list(times.rounds) for name, times in self.times.items()},
        }


def _spread(ratio: Ratio) -> dict[str, float]:
    low, high = ratio.quartiles
    return {"median": ratio.median, "low": low, "high": high}


@dataclass
class Measurements:
    """The results so far.

    Attributes:
        peers: NumPy and PyTorch's forms, and why one is missing.
        cells: The comparisons.
        left_out: The cells that were not measured, and why.
        interrupted: Whether Ctrl-C ended the measurement.
        others: The share of all cores that other programs used, before or after.
    """

    peers: peers.Peers
    cells: list[Comparison] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    interrupted: bool = False
    others: float | None = None

    @property
    def versions(self) -> dict[str, str]:
        """The version of each library that takes part."""
        packages = dict.fromkeys(name.split()[0] for name in NAMES if name in self.peers.found)
        return {package: version(package.lower()) for package in packages}


def find_peers() -> peers.Peers:
    """Import NumPy's and PyTorch's forms, with as many threads as lrcore; list those that can't do a workload."""
    found = peers.find(peers.NUMPY_AND_TORCH)
    chosen = {name: found.found[name] for name in NAMES if name in found.found}
    missing = {name: found.missing[name] for name in (ROOFLINE, *NAMES) if name in found.missing}
    for peer in chosen.values():
        if peer.set_threads:
            peer.set_threads(lrcore.get_num_threads())
        for workload in CHOSEN:
            if why := peers.objection(peer, workload, FLOAT32):
                missing[f"{peer.name} ({workload.name})"] = why
    return peers.Peers(chosen, missing)


def competitors(found: peers.Peers, workload: Workload) -> list[Peer]:
    """Return lrcore, the roofline, and the libraries that take the same step."""
    able = (LRCORE, ROOFLINE_PEER, *found.found.values())
    return [peer for peer in able if not peers.objection(peer, workload, FLOAT32)]


def measure(results: Measurements, sizes: list[int], seconds: float, progress: Callable[[float, str], None]) -> None:
    """Measure the grid in about that many seconds, into the results; Ctrl-C ends it."""
    plan = [(workload, length) for length in sorted(set(sizes)) for workload in CHOSEN]
    end = time.perf_counter() + seconds
    results.others = share_of_others()
    try:
        for done, (workload, length) in enumerate(plan):
            shares = [_share(size) for _, size in plan[done:]]
            progress(1 - sum(shares) / sum(_share(size) for _, size in plan), f"{workload.name}, {name_of(length)}")
            left = end - time.perf_counter()
            if why := _hindrance(results, workload, length, left):
                results.left_out.append(f"{workload.name}, {name_of(length)} weights: {why}")
                continue
            results.cells.append(_measure_cell(results.peers, workload, length, left * shares[0] / sum(shares)))
        results.others = max((results.others, share_of_others()), key=lambda share: share or 0.0)
    except KeyboardInterrupt:
        results.interrupted = True


def _measure_cell(found: peers.Peers, workload: Workload, length: int, seconds: float) -> Comparison:
    end = time.perf_counter() + seconds
    rng = np.random.default_rng(0)
    weights, grads = ([rng.standard_normal(length, np.float32)] for _ in range(2))
    made = {peer.name: peer.make(workload, weights, grads) for peer in competitors(found, workload)}
    timed_calls = {name: TimedCall(one.step, before=one.before) for name, one in made.items()}
    return Comparison(workload, length, interleave(timed_calls, end - time.perf_counter()))


def _share(length: int) -> float:
    """Return the relative time of a size: large ones need more for the minimum number of rounds."""
    return 1 + length / (4 * MI)


def _hindrance(results: Measurements, workload: Workload, length: int, left: float) -> str:
    """Return why a cell can't be measured, or an empty string."""
    able = competitors(results.peers, workload)
    needed = length * 4 * (2 + sum(2 + workload.states + peer.temporaries for peer in able))
    free = info.memory("MemAvailable")
    if free is not None and needed > SHARE_OF_MEMORY * free:
        return f"it needs {needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} are free"
    if left < _least_seconds(results, workload, length, len(able)):
        return "no time was left; --seconds gives more"
    return ""


def _least_seconds(results: Measurements, workload: Workload, length: int, count: int) -> float:
    """Return how long the minimum number of rounds takes, extrapolated from the last cell of the same optimizer."""
    rests = FEWEST * count * (REST + 2 * TURN)
    before = [cell for cell in results.cells if cell.workload is workload]
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
