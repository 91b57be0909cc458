"""Plots of the results: `python benches/plots.py results/bench.json`."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

import results
from lrcore.bench.peers import OURS, ROOFLINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]
STYLES = {
    OURS: {"color": "#d62728", "linewidth": 2.8, "zorder": 5, "marker": "o"},
    ROOFLINE: {"color": "black", "linewidth": 1.4, "linestyle": "--", "zorder": 4},
}
PEERS = {
    "torch fused": "#1f77b4",
    "torch foreach": "#6baed6",
    "torch for-loop": "#b5d4ea",
    "DeepSpeed": "#2ca02c",
    "numba": "#ff9f0e",
    "optax jit": "#9467bd",
    "NumPy out=": "#7f7f7f",
    "NumPy textbook": "#c0c0c0",
    "thinc": "#8c564b",
    "bitsandbytes": "#e377c2",
}
TICKS = [1 << bits for bits in range(10, 27, 4)]
TICK_NAMES = ["1 Ki", "16 Ki", "256 Ki", "4 Mi", "64 Mi"]


def style(name: str) -> dict[str, Any]:
    return STYLES.get(name, {"color": PEERS.get(name, "#bbbbbb"), "linewidth": 1.5, "marker": ".", "zorder": 2})


def caption(found: dict[str, Any]) -> str:
    """Return the machine and the versions."""
    machine = found["machine"]
    caches = ", ".join(f"{level} {size.split(' ')[0]}" for level, size in machine["caches"].items())
    speed = machine.get("memory_bytes_per_second", {})
    memory = f"; memory {max(speed.values()) / 1e9:.0f} GB/s" if speed else ""
    versions = " · ".join(f"{name} {version}" for name, version in machine["versions"].items() if name != "jaxlib")
    return "\n".join([f"{machine['cpu']}, {machine['cores']} cores ({caches}){memory}", *wrap(versions, 110)])


def save(figure: Figure, found: dict[str, Any], path: Path) -> Path:
    figure.supxlabel(caption(found), fontsize=7.5, color="#555555")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path


def size_axis(axes: Axes, rows: list[Row]) -> None:
    axes.set_xscale("log", base=2)
    low, high = (bound(row["weights"] for row in rows) for bound in (min, max))
    ticks = [(tick, name) for tick, name in zip(TICKS, TICK_NAMES, strict=True) if low <= tick <= high]
    axes.set_xticks([tick for tick, _ in ticks], [name for _, name in ticks])
    axes.set_xlabel("weights in the array")
    axes.grid(alpha=0.25)


def against_size(axes: Axes, rows: list[Row]) -> None:
    """Draw each competitor's time per weight over the size."""
    rows = sorted(rows, key=lambda row: row["weights"])
    for name in [ROOFLINE, OURS, *PEERS]:
        having = [row for row in rows if name in row["cells"]]
        if having:
            sizes = [row["weights"] for row in having]
            cells = [row["cells"][name] for row in having]
            axes.plot(sizes, per_weight([c["seconds"] for c in cells], sizes), label=name, **style(name))
            low, high = (per_weight([c["quartiles"][side] for c in cells], sizes) for side in (0, 1))
            axes.fill_between(sizes, low, high, color=style(name)["color"], alpha=0.12, linewidth=0)
    axes.set_yscale("log")
    size_axis(axes, rows)


def per_weight(seconds: list[float], sizes: list[int]) -> list[float]:
    return [1e9 * second / size for second, size in zip(seconds, sizes, strict=True)]


def draw_sizes(found: dict[str, Any], folder: Path) -> list[Path]:
    """Draw a figure for each optimizer and dtype with a panel for each number of threads."""
    rows = [row for row in found["rows"] if row["section"] == "sizes"]
    paths = []
    for work, dtype in sorted({(row["work"], row["dtype"]) for row in rows}):
        chosen = [row for row in rows if (row["work"], row["dtype"]) == (work, dtype)]
        threads = sorted({row["threads"] for row in chosen})
        figure = Figure(figsize=(5.2 * len(threads) + 1.6, 5.2), layout="constrained")
        panels = figure.subplots(1, len(threads), squeeze=False, sharey=True)[0]
        for axes, count in zip(panels, threads, strict=True):
            against_size(axes, [row for row in chosen if row["threads"] == count])
            axes.set_title(f"{count} thread{'s' if count > 1 else ''}")
        panels[0].set_ylabel("ns per weight and step (lower is better)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", fontsize=9)
        figure.suptitle(f"{work}, {dtype}: one step on one array")
        paths.append(save(figure, found, folder / f"sizes-{slug(work)}-{dtype}.png"))
    return paths


def draw_models(found: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the speed-up over each peer by model."""
    rows = [row for row in found["rows"] if row["section"] == "models"]
    paths = []
    for work in sorted({row["work"] for row in rows}):
        chosen = [row for row in rows if row["work"] == work]
        names = [name for name in PEERS if any("ratio" in row["cells"].get(name, {}) for row in chosen)]
        figure = Figure(figsize=(max(8, 2.4 + 2.4 * len(chosen)), 5), layout="constrained")
        axes = figure.subplots()
        width = 0.84 / max(1, len(names))
        for i, name in enumerate(names):
            bars = [(j, row["cells"][name]) for j, row in enumerate(chosen) if "ratio" in row["cells"].get(name, {})]
            at = [j + (i - (len(names) - 1) / 2) * width for j, _ in bars]
            drawn = axes.bar(at, [1 / c["ratio"] for _, c in bars], width, color=PEERS[name], label=name)
            axes.bar_label(drawn, [times(1 / c["ratio"]) for _, c in bars], fontsize=6.5, rotation=90, padding=2)
        axes.axhline(1, color="#d62728", linewidth=1.5)
        axes.set_yscale("log")
        axes.margins(y=0.18)
        axes.set_xticks(range(len(chosen)), [f"{row['case']}\n{row['weights']:,} weights" for row in chosen])
        axes.set_ylabel("time over lrcore's (above the line lrcore is faster)")
        axes.grid(axis="y", alpha=0.25)
        figure.legend(loc="outside right center", fontsize=9)
        figure.suptitle(f"{work}, float32, {chosen[0]['threads']} threads: one step on all tensors of a model")
        paths.append(save(figure, found, folder / f"models-{slug(work)}.png"))
    return paths


def draw_scaling(found: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the speed-up of all threads over one, warm and after a matrix product."""
    sections = [s for s in ("scaling", "scaling cold") if any(row["section"] == s for row in found["rows"])]
    if not sections:
        return []
    figure = Figure(figsize=(5 * len(sections) + 1.6, 4.8), layout="constrained")
    panels = figure.subplots(1, len(sections), squeeze=False, sharey=True)[0]
    for axes, section in zip(panels, sections, strict=True):
        rows = sorted((r for r in found["rows"] if r["section"] == section), key=lambda row: row["weights"])
        for name in [ROOFLINE, OURS, *PEERS]:
            having = [r for r in rows if name in r["cells"] and f"{name} × 1" in r["cells"]]
            gains = [r["cells"][f"{name} × 1"]["seconds"] / r["cells"][name]["seconds"] for r in having]
            if having:
                axes.plot([r["weights"] for r in having], gains, label=name, **style(name))
        axes.axhline(1, color="#888888", linewidth=1)
        axes.set_title("warm" if section == "scaling" else "a matrix product before each step")
        size_axis(axes, rows)
    panels[0].set_ylabel(f"speed of {rows[0]['threads']} threads over one (higher is better)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=9)
    figure.suptitle("AdamW, float32: speed-up by threads")
    return [save(figure, found, folder / "scaling.png")]


def times(factor: float) -> str:
    return f"{factor:.0f}" if factor >= 10 else f"{factor:.2f}"


def slug(text: str) -> str:
    return text.lower().replace(" ", "-")


def draw_all(found: dict[str, Any], folder: Path) -> list[Path]:
    return draw_sizes(found, folder) + draw_models(found, folder) + draw_scaling(found, folder)


if __name__ == "__main__":
    source = Path(sys.argv[1])
    for drawn_path in draw_all(results.load(source), Path(sys.argv[2]) if len(sys.argv) > 2 else source.parent):
        print(drawn_path)
