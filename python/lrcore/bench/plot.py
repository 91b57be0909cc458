"""The results of `python -m lrcore bench` as a plot of time per weight over size, with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lrcore._messages import brief
from lrcore._optional import matplotlib
from lrcore.bench.grid import CHOSEN, Measurements, name_of
from lrcore.bench.peers import OURS, ROOFLINE
from lrcore.bench.table import title, versions

if TYPE_CHECKING:
    from pathlib import Path

STYLES: dict[str, dict[str, Any]] = {
    OURS: {"color": "tab:orange", "marker": "o", "linewidth": 2.5, "zorder": 3},
    ROOFLINE: {"color": "black", "linestyle": "--", "label": "roofline: additions only"},
    "NumPy out=": {"color": "tab:blue"},
    "torch fused": {"color": "tab:red"},
    "torch foreach": {"color": "tab:purple"},
}


def check_format(path: Path) -> None:
    """Raise an error unless matplotlib is installed and can write the format of the file."""
    kinds = matplotlib("matplotlib.backend_bases").FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        endings = ", ".join(f".{kind}" for kind in sorted(kinds))
        raise ValueError(f"the name must end in one of {endings}, got {brief(path.name)}")


def draw(results: Measurements, machine: dict[str, Any], path: Path) -> None:
    """Draw a panel for each optimizer and write the file."""
    workloads = [one for one in CHOSEN if any(cell.workload is one for cell in results.cells)]
    size = (4.6 * len(workloads), 4.4)
    figure = matplotlib("matplotlib.figure").Figure(figsize=size, layout="constrained")
    figure.suptitle(f"{title(machine)}\n{versions(results)}", fontsize="medium")
    panels = figure.subplots(1, len(workloads), sharey=True, squeeze=False)[0]
    for workload, panel in zip(workloads, panels, strict=True):
        cells = [cell for cell in results.cells if cell.workload is workload]
        sizes = [cell.length for cell in cells]
        for name in cells[0].times:
            spreads = [(times.median, *times.quartiles) for times in (cell.times[name] for cell in cells)]
            medians, lows, highs = (
                [seconds * 1e9 / size for seconds, size in zip(part, sizes, strict=True)]
                for part in zip(*spreads, strict=True)
            )
            (line,) = panel.plot(sizes, medians, **{"label": name, "marker": ".", **STYLES.get(name, {})})
            panel.fill_between(sizes, lows, highs, color=line.get_color(), alpha=0.2, linewidth=0)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xticks(sizes, [name_of(size) for size in sizes], rotation=45)
        panel.set(title=workload.name, xlabel="weights, float32")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("ns per weight")
    panels[0].legend(fontsize="small")
    figure.savefig(path, dpi=150)
