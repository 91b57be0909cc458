"""Results as a JSON file and as a table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import machine
from lrcore.bench.peers import OURS, ROOFLINE

if TYPE_CHECKING:
    from pathlib import Path

    from lrcore.bench.timing import Times


@dataclass
class Row:
    """One workload in one case (a size, a model, …), and the time of each competitor.

    Attributes:
        cells: The times of each competitor, by name.
        absent: Why others don't take part.
    """

    section: str
    work: str
    case: str
    dtype: str
    threads: int
    weights: int
    streams: int
    cells: dict[str, dict[str, Any]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def add(self, times: dict[str, Times]) -> None:
        """Add the times of a group of peers, with ratios to lrcore in the same rounds."""
        ours = times.get(OURS)
        for name, of_name in times.items():
            if name in self.cells:
                continue
            cell: dict[str, Any] = {"seconds": of_name.median, "quartiles": of_name.quartiles}
            cell["rounds"] = len(of_name.rounds)
            if ours and name != OURS:
                ratio = ours.over(of_name)
                cell["ratio"], cell["ratio_quartiles"] = ratio.median, ratio.quartiles
            self.cells[name] = cell

    def line(self, names: list[str]) -> str:
        """Return the row of the table: lrcore's time, its share of the roofline, and its ratio to each peer."""
        ours = self.cells.get(OURS, {}).get("seconds", 0.0) * 1e6
        roofline = self.cells.get(ROOFLINE, {}).get("ratio")
        share = f"{100 / roofline:7.0f} %" if roofline else f"{'':9}"
        ratios = "".join(f"{self._ratio(name):>9}" for name in names)
        title = f"{self.work:17.17}{self.dtype[0] + self.dtype[-2:]:4}{self.case:>12.12}{self.threads:>3}"
        return f"{title}{ours:>12.2f}{share}{ratios}"

    def _ratio(self, name: str) -> str:
        cell = self.cells.get(name, {})
        if "ratio" not in cell:
            return "·" if name in self.absent else ""
        return f"{'!' if cell['ratio'] > 1 else ''}{cell['ratio']:.3f}"


def heading(names: list[str]) -> str:
    short = [name.replace("torch ", "t.").replace("NumPy ", "np.").replace("bitsandbytes", "bnb") for name in names]
    ratios = "".join(f"{name[:8]:>9}" for name in short)
    return f"{'':17}{'':4}{'case':>12}{'th':>3}{'lrcore µs':>12}{'roofline':>9}{ratios}"


@dataclass
class Results:
    """All results of a run."""

    machine: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    loops: list[dict[str, Any]] = field(default_factory=list)
    goals: list[dict[str, Any]] = field(default_factory=list)

    def add(self, row: Row) -> None:
        self.rows.append(asdict(row))

    def bandwidth(self) -> dict[str, float]:
        """Return the roofline's best bytes per second by the number of threads, of arrays that no cache holds."""
        best: dict[str, float] = {}
        for row in self.rows:
            size = 4 if row["dtype"] == "float32" else 8
            cell = row["cells"].get(ROOFLINE)
            if cell and row["weights"] * size >= 64 << 20:
                speed = row["weights"] * row["streams"] * size / cell["seconds"]
                threads = str(row["threads"])
                best[threads] = max(best.get(threads, 0.0), speed)
        return best

    def save(self, path: Path) -> None:
        """Write the results so far, whole or not at all."""
        self.machine["memory_bytes_per_second"] = self.bandwidth()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False))
        partial.replace(path)

    def merge(self, other: dict[str, Any]) -> None:
        self.rows += other["rows"]
        self.loops += other["loops"]
        self.goals += other["goals"]
        self.missing.update(other["missing"])

    def slower(self) -> list[str]:
        """Return the cells in which a peer was faster than lrcore, the worst first."""
        cells = []
        for row in self.rows:
            where = f"{row['section']}: {row['work']} {row['dtype']} {row['case']}, {row['threads']} threads"
            for name, cell in row["cells"].items():
                # A peer with fewer threads is not at its best; lrcore with fewer must not be faster than with more.
                skipped = name.startswith(ROOFLINE) or (" × " in name and not name.startswith(OURS))
                if not skipped and cell.get("ratio", 0.0) > 1:
                    cells.append((cell["ratio"], f"{where}: {name}"))
        return [f"{ratio:.3f}  {title}" for ratio, title in sorted(cells, reverse=True)]

    def absences(self) -> list[str]:
        """Return why peers didn't take part, each reason once."""
        reasons = {f"{name}: {reason}" for name, reason in self.missing.items()}
        for row in self.rows:
            reasons |= {f"{name}: {row['work']} {row['dtype']}: {why}" for name, why in row["absent"].items()}
        return sorted(reasons)


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def empty() -> Results:
    return Results(machine.describe())
