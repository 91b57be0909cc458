"""The results as a table of text."""

from __future__ import annotations

import statistics
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lrcore._text import counted
from lrcore.bench.grid import Comparison, Measurements, name_of
from lrcore.bench.load import BUSY
from lrcore.bench.peers import OURS, PEERS, WORKS
from lrcore.bench.timing import digits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lrcore.bench.timing import Ratio, Times

COLUMN = 22
UNSTEADY = 0.2
"""The interquartile range of a step's times over their median, from which the times are doubted."""


def lines(results: Measurements, machine: dict[str, Any]) -> Iterator[str]:
    """Yield the lines: the machine, a table for each optimizer, and what is not in it."""
    yield title(machine)
    yield versions(results)
    peers = [peer for peer in PEERS if peer in results.peers.versions]
    width = max([COLUMN, *(len(_ratio(cell.over(peer))) for cell in results.cells for peer in peers)])
    cells = sorted(results.cells, key=lambda cell: WORKS.index(cell.work))
    for work, row in groupby(cells, key=lambda cell: cell.work):
        yield ""
        heads = "".join(f"  {'to ' + peer:{width}}" for peer in peers)
        yield f"{work.title:14}{'µs':>10}{'ns/weight':>11}{'of roof':>9}{heads}".rstrip()
        for cell in row:
            yield _row(cell, peers, width)
    yield ""
    if results.cells:
        yield "to …: lrcore's time over the peer's, below 1 where lrcore is faster; [quartiles of the rounds]."
        yield "of roof: what a kernel reaches that reads and writes as much and only adds is 100 %."
    yield from _doubts(results)
    for name, why in results.peers.missing.items():
        yield f"missing: {name}: {why}"
    for cell_and_why in results.left_out:
        yield f"left out: {cell_and_why}"
    if results.interrupted:
        yield f"interrupted after {counted(len(results.cells), 'cell')}"


def title(machine: dict[str, Any]) -> str:
    """Return what one must know to compare the numbers with others."""
    threads = machine["threads"]["used"]
    return (
        f"lrcore {machine['lrcore']} · {machine['cpu']['model']} · {machine['simd']['used']} · "
        f"{threads} thread{'s' * (threads > 1)} · Python {machine['python']}"
    )


def versions(results: Measurements) -> str:
    """Return the versions of the peers, PyTorch's once."""
    found = {peer.split()[0]: version for peer, version in results.peers.versions.items()}
    return ", ".join(["float32", *(f"{name} {version}" for name, version in found.items())])


def _doubts(results: Measurements) -> Iterator[str]:
    """Yield what speaks against the times."""
    if results.others is not None and results.others > BUSY:
        yield f"warning: the machine is busy: other programs used {results.others:.0%} of its cores; times are too long"
    spreads = [(high - low) / times.median for times, (low, high) in _quartiles(results)]
    if spreads and (spread := statistics.median(spreads)) > UNSTEADY:
        yield f"warning: times vary by {spread:.0%} between rounds: the machine is busy, or its speed drifts"
    if any(cell.of_roof > 1 for cell in results.cells):
        yield "≥100%: the roof took longer than lrcore's step there, which disturbed times alone can do"


def _quartiles(results: Measurements) -> Iterator[tuple[Times, tuple[float, float]]]:
    for cell in results.cells:
        times = cell.times[OURS]
        yield times, times.quartiles


def _row(cell: Comparison, peers: list[str], width: int) -> str:
    ratios = "".join(f"  {_ratio(cell.over(peer)):{width}}" for peer in peers)
    share = "≥100%" if cell.of_roof > 1 else f"{digits(100 * cell.of_roof, 2)}%"
    ours = f"{digits(cell.seconds * 1e6):>10}{digits(cell.seconds * 1e9 / cell.length):>11}{share:>9}"
    return f"{name_of(cell.length):14}{ours}{ratios}".rstrip()


def _ratio(ratio: Ratio | None) -> str:
    return "-" if ratio is None else str(ratio)
