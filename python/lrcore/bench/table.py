"""The results of `python -m lrcore bench` as text."""

from __future__ import annotations

import statistics
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lrcore._text import counted
from lrcore.bench.cpu_load import BUSY
from lrcore.bench.grid import CHOSEN, NAMES, Comparison, Measurements, name_of
from lrcore.bench.peers import OURS
from lrcore.bench.timing import digits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lrcore.bench.timing import Ratio

COLUMN = 22
UNSTEADY = 0.2
"""The interquartile range of a step's times over their median, from which on times are doubted."""


def lines(results: Measurements, machine: dict[str, Any]) -> Iterator[str]:
    """Yield the machine, a table for each optimizer, and notes."""
    yield title(machine)
    yield versions(results)
    peers = [name for name in NAMES if name in results.peers.found]
    width = max([COLUMN, *(len(_ratio(cell.over(peer))) for cell in results.cells for peer in peers)])
    cells = sorted(results.cells, key=lambda cell: CHOSEN.index(cell.workload))
    for workload, row in groupby(cells, key=lambda cell: cell.workload):
        yield ""
        heads = "".join(f"  {'to ' + peer:{width}}" for peer in peers)
        yield f"{workload.name:14}{'µs':>10}{'ns/weight':>11}{'roofline':>10}{heads}".rstrip()
        for cell in row:
            yield _row(cell, peers, width)
    yield ""
    if results.cells:
        yield "to …: lrcore's time over the other's, below 1 where lrcore is faster; [quartiles of the rounds]."
        yield "roofline: the share of the speed of a step that moves the same memory and only adds."
    yield from _doubts(results)
    for name, why in results.peers.missing.items():
        yield f"missing: {name}: {why}"
    for cell_and_why in results.left_out:
        yield f"left out: {cell_and_why}"
    if results.interrupted:
        yield f"interrupted after {counted(len(results.cells), 'cell')}"


def title(machine: dict[str, Any]) -> str:
    """Return what is needed to compare the numbers with others."""
    return (
        f"lrcore {machine['lrcore']} · {machine['cpu']['model']} · {machine['simd']['used']} · "
        f"{counted(machine['threads']['used'], 'thread')} · Python {machine['python']}"
    )


def versions(results: Measurements) -> str:
    """Return the dtype and the versions of the other libraries."""
    return ", ".join(["float32", *(f"{name} {version}" for name, version in results.versions.items())])


def _doubts(results: Measurements) -> Iterator[str]:
    """Yield reasons to doubt the times."""
    if results.others is not None and results.others > BUSY:
        yield f"warning: the machine is busy: other programs used {results.others:.0%} of its cores; times are too long"
    spreads = []
    for times in (cell.times[OURS] for cell in results.cells):
        low, high = times.quartiles
        spreads.append((high - low) / times.median)
    if spreads and (spread := statistics.median(spreads)) > UNSTEADY:
        yield f"warning: times vary by {spread:.0%} between rounds: the machine is busy, or its speed drifts"
    if any((cell.of_roofline or 0) > 1 for cell in results.cells):
        yield "≥100%: the roofline took longer than lrcore's step there, which only disturbed times can cause"


def _row(cell: Comparison, peers: list[str], width: int) -> str:
    ratios = "".join(f"  {_ratio(cell.over(peer)):{width}}" for peer in peers)
    ours = f"{digits(cell.seconds * 1e6):>10}{digits(cell.seconds * 1e9 / cell.length):>11}"
    return f"{name_of(cell.length):14}{ours}{_share(cell.of_roofline):>10}{ratios}".rstrip()


def _share(share: float | None) -> str:
    return "-" if share is None else "≥100%" if share > 1 else f"{digits(100 * share, 2)}%"


def _ratio(ratio: Ratio | None) -> str:
    return "-" if ratio is None else str(ratio)
