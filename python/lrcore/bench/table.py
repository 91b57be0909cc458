"""The results as a table of text."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from lrcore.bench.grid import Cell, Results, name_of
from lrcore.bench.peers import PEERS, WORKS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lrcore.bench.timing import Ratio

COLUMN = 22


def lines(results: Results, machine: dict[str, Any]) -> Iterator[str]:
    """Yield the lines: the machine, a table for each optimizer, and what is not in it."""
    yield title(machine)
    yield versions(results)
    peers = [peer for peer in PEERS if peer in results.peers.versions]
    cells = sorted(results.cells, key=lambda cell: WORKS.index(cell.work))
    for work, row in groupby(cells, key=lambda cell: cell.work):
        yield ""
        heads = "".join(f"  {'to ' + peer:{COLUMN}}" for peer in peers)
        yield f"{work.title:14}{'µs':>10}{'ns/weight':>11}{'of roof':>9}{heads}".rstrip()
        for cell in row:
            yield _row(cell, peers)
    yield ""
    if results.cells:
        yield "to …: lrcore's time over the peer's, below 1 where lrcore is faster; [quartiles of the rounds]."
        yield "of roof: what a kernel reaches that reads and writes as much and only adds is 100 %."
    for name, why in results.peers.missing.items():
        yield f"missing: {name}: {why}"
    for cell_and_why in results.left_out:
        yield f"left out: {cell_and_why}"
    if results.interrupted:
        yield f"interrupted: {len(results.cells)} cells were measured"


def title(machine: dict[str, Any]) -> str:
    """Return what one must know to compare the numbers with others."""
    threads = machine["threads"]["used"]
    return (
        f"lrcore {machine['lrcore']} · {machine['cpu']['model']} · {machine['simd']['used']} · "
        f"{threads} thread{'s' * (threads > 1)} · Python {machine['python']}"
    )


def versions(results: Results) -> str:
    """Return the versions of the peers, PyTorch's once."""
    found = {peer.split()[0]: version for peer, version in results.peers.versions.items()}
    return ", ".join(["float32", *(f"{name} {version}" for name, version in found.items())])


def _row(cell: Cell, peers: list[str]) -> str:
    ratios = "".join(f"  {_ratio(cell.over(peer)):{COLUMN}}" for peer in peers)
    ours = f"{cell.seconds * 1e6:10.2f}{cell.seconds * 1e9 / cell.length:11.3f}{cell.of_roof:9.0%}"
    return f"{name_of(cell.length):14}{ours}{ratios}".rstrip()


def _ratio(ratio: Ratio | None) -> str:
    return "-" if ratio is None else str(ratio)
