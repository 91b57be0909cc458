"""The time of 48 runs on two processes relative to a sequential sweep, and the overhead of a run.

The runs sleep, so that the result does not depend on other programs' use of the cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from lrcore import sweeps

SPACE = {"lr": sweeps.logspace(1e-4, 1e-1, 8), "batch": [32, 128]}
SEEDS = 3


def quarter(lr: float, batch: int, seed: int) -> float:  # noqa: ARG001
    """Sleep for a quarter of a second."""
    time.sleep(0.25)
    return abs(lr - 0.01) + batch / 1e5


def nothing(lr: float, batch: int, seed: int) -> float:  # noqa: ARG001
    """Return at once."""
    return abs(lr - 0.01) + batch / 1e5


def seconds(function: object, workers: int, folder: str) -> float:
    """Return the time of a sweep, including the start of its processes and the results file."""
    begin = time.perf_counter()
    file = Path(folder, f"{workers}-{begin}.sqlite")
    found = sweeps.sweep(function, SPACE, SEEDS, workers=workers, results=file, progress=False)  # type: ignore[arg-type]
    if found.statuses != {"finished": len(found)}:
        raise RuntimeError(f"all runs must finish, got {found!r}")
    return time.perf_counter() - begin


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: %(default)s)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rounds = [[seconds(quarter, workers, folder) for workers in (0, 1, 2)] for _ in range(given.rounds)]
        alone = [seconds(nothing, 0, folder) for _ in range(given.rounds)]
        passed = [seconds(nothing, 1, folder) for _ in range(given.rounds)]
    print("48 runs of 0.25 s, seconds: sequential, on one process, on two; ratio of the last to the first")
    for here, one, two in rounds:
        print(f"{here:8.2f} {one:8.2f} {two:8.2f} {two / here:8.3f}")
    print(f"median ratio {statistics.median(two / here for here, _, two in rounds):.3f}; the ideal is 0.5")
    print(
        f"48 empty runs: {statistics.median(alone):.2f} s sequential, {statistics.median(passed):.2f} s on one process "
        "with its start; both write each run to the file"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
