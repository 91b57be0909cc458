"""The command ``python -m lrcore bench``."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import lrcore
from lrcore import info
from lrcore._messages import brief
from lrcore.bench import plot, table
from lrcore.bench.grid import Measurements, find_peers, measure
from lrcore.bench.progress_bar import progress_bar

LARGEST = 1 << 32
UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
SIZES = "1Ki,4Ki,16Ki,64Ki,256Ki,1Mi,4Mi,16Mi"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--seconds",
        metavar="N",
        type=_seconds,
        default=60.0,
        help="measure for about this long (default 60); sizes for which no time is left are listed and skipped",
    )
    parser.add_argument(
        "--sizes",
        metavar="N,N,…",
        type=sizes,
        default=SIZES,
        help=f"numbers of weights: 300000, 64Ki, 16Mi (default {SIZES})",
    )
    parser.add_argument("--json", metavar="FILE", type=_file, help="write the times of every round and the machine")
    parser.add_argument("--plot", metavar="FILE", type=_file, help="draw time per weight over size, with matplotlib")


def run(given: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Measure, print and write; return the exit status."""
    if given.plot:
        try:
            plot.check_format(given.plot)
        except (ImportError, ValueError) as error:
            parser.error(f"argument --plot: {error}")
    with progress_bar(sys.stderr) as show:
        show(0.0, "getting ready")
        results = Measurements(find_peers())
        start = time.perf_counter()
        measure(results, given.sizes, given.seconds, show)
        seconds = time.perf_counter() - start
    machine = info.gather()
    print("\n".join(table.lines(results, machine)))  # noqa: T201
    failed = False
    if given.json:
        text = json.dumps(_as_json(results, machine, seconds), indent=1, ensure_ascii=False)
        failed |= not _written("--json", lambda: given.json.write_text(text + "\n", encoding="utf-8"))
    if given.plot and results.cells:
        failed |= not _written("--plot", lambda: plot.draw(results, machine, given.plot))
    if results.interrupted:
        raise KeyboardInterrupt
    return 1 if failed else 0


def _written(option: str, write: Any) -> bool:
    """Write a file; print why if that fails, since the table is already printed."""
    try:
        write()
    except OSError as error:
        print(f"{option}: {error}", file=sys.stderr)  # noqa: T201
        return False
    return True


def _as_json(results: Measurements, machine: dict[str, Any], seconds: float) -> dict[str, Any]:
    return {
        "lrcore": lrcore.__version__,
        "interrupted": results.interrupted,
        "used_by_others": results.others,
        "seconds": seconds,
        "machine": machine,
        "peers": results.versions,
        "missing": results.peers.missing,
        "left_out": results.left_out,
        "cells": [cell.as_json() for cell in results.cells],
    }


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {brief(text)}")
    return seconds


def sizes(text: str) -> list[int]:
    """Read numbers of weights separated by commas."""
    return [_size(item.strip()) for item in text.split(",")]


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+) ?(Ki|Mi|Gi|)", text, re.ASCII)
    size = int(found[1]) * UNITS[found[2]] if found else 0
    if not 1 <= size <= LARGEST:
        raise argparse.ArgumentTypeError(f"must be numbers of weights like 300000, 64Ki or 16Mi, got {brief(text)}")
    return size


def _file(text: str) -> Path:
    """Return a writable path: checked first, so that a minute of measuring is not lost."""
    path = Path(text)
    if not text or path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file, got {brief(text)}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.parent)!r}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} can't be written")
    return path
