"""A script with a sweep that tests start, kill and restart."""

import sys

from lrcore import sweeps
from support import objectives

SPACE = {"lr": sweeps.logspace(1e-4, 1e-1, 8), "batch": [32, 128]}


def main():
    function, results, workers = sys.argv[1:4]
    if function == "holding":
        found = sweeps.sweep(objectives.holding, {"lr": [0.1, 0.2]}, seeds=1, results=results, workers=int(workers))
    elif function == "sleepy":
        found = sweeps.sweep(objectives.sleepy, {"lr": [0.1, 0.2, 1.0]}, seeds=2, results=results, workers=int(workers))
    else:
        found = sweeps.sweep(getattr(objectives, function), SPACE, results=results, workers=int(workers))
    for row in found.rows:
        values = row["lr"], row.get("batch"), row["seed"], row["objective"], row["status"], row["attempts"]
        sys.stdout.write(" ".join(map(str, values)) + "\n")


if __name__ == "__main__":
    main()
