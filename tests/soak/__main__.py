"""Runs every campaign for its share of the time, and prints a table of trials and failures.

``python -m soak MINUTES [--asan FOLDER]``: campaigns that look for memory errors use the extension in FOLDER, which is
built with AddressSanitizer. Logs are in ``target/soak``. To repeat the last trial of a log, pass the N of its last
``seed N``: ``python -m soak.<campaign> 0 N``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

LOGS = Path("target/soak")


class Campaign(NamedTuple):
    """A module of this package: what it tries, its share of the time, and the package it requires."""

    name: str
    tries: str
    share: float
    sanitized: bool = False
    needs: str | None = None


CAMPAIGNS = [
    Campaign("arrays", "operations on NumPy arrays, checked against a copy", 0.25, sanitized=True),
    Campaign("tensors", "operations on PyTorch tensors, checked against a copy", 0.25, sanitized=True, needs="torch"),
    Campaign("checkpoints", "damaged and crafted checkpoints", 0.15),
    Campaign("interrupts", "operations interrupted by Ctrl-C", 0.15),
    Campaign("kills", "kills of a process while it saves", 0.1),
    Campaign("exits", "daemon threads inside a step at exit", 0.1),
]


class Outcome(NamedTuple):
    """The result of a campaign."""

    campaign: Campaign
    seconds: float
    tried: str
    failure: str | None


def environment(campaign: Campaign, asan: Path | None) -> dict[str, str]:
    """Return the environment of a campaign's process."""
    env = dict(os.environ)
    if campaign.sanitized and asan is not None:
        runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)  # noqa: S607
        env |= {
            "LD_PRELOAD": runtime.stdout.strip(),
            # Python's arenas would hide a use after free. Memory that Python holds until exit is not a leak of lrcore.
            "PYTHONMALLOC": "malloc",
            "ASAN_OPTIONS": "detect_leaks=0",
            "PYTHONPATH": os.pathsep.join([str(asan), env.get("PYTHONPATH", "")]),
        }
    return env


def run(campaign: Campaign, seconds: float, seed: int, asan: Path | None) -> Outcome:
    """Run a campaign in a process of its own."""
    if campaign.needs and importlib.util.find_spec(campaign.needs) is None:
        return Outcome(campaign, 0.0, f"skipped, {campaign.needs} is not installed", None)
    log = LOGS / f"{campaign.name}.log"
    begin = time.monotonic()
    with log.open("w", encoding="utf-8") as errors:
        command = [sys.executable, "-m", f"soak.{campaign.name}", str(seconds), str(seed)]
        try:
            done = subprocess.run(  # noqa: S603
                command,
                env=environment(campaign, asan),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                check=False,
                timeout=seconds * 2 + 300,
            )
        except subprocess.TimeoutExpired:
            return Outcome(campaign, time.monotonic() - begin, "", f"hangs, see {log}")
    took = time.monotonic() - begin
    try:
        report = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return Outcome(campaign, took, "", f"ended with {done.returncode}, see {log}")
    return Outcome(campaign, took, f"{report['operations']:,} in {report['trials']:,} trials", report["failure"])


def main() -> int:
    """Run all campaigns; return the exit code."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.splitlines()[0])
    parser.add_argument("minutes", type=float, nargs="?", default=10.0, help="total time for all campaigns")
    parser.add_argument("--asan", type=Path, help="a folder with the package built with AddressSanitizer")
    parser.add_argument("--seed", type=int, help="of the first trial of each campaign; by default the current time")
    parser.add_argument("--only", help="comma-separated names of campaigns")
    given = parser.parse_args()
    chosen = [one for one in CAMPAIGNS if given.only is None or one.name in given.only.split(",")]
    if not chosen or given.minutes <= 0:
        parser.error(f"minutes must be above 0, --only names of {', '.join(one.name for one in CAMPAIGNS)}")
    seed = int(time.time()) if given.seed is None else given.seed
    LOGS.mkdir(parents=True, exist_ok=True)
    share = given.minutes * 60 / sum(one.share for one in chosen)
    outcomes = []
    for campaign in chosen:
        sanitizer = ", under AddressSanitizer" if campaign.sanitized and given.asan else ""
        print(f"{campaign.name}: {campaign.tries}{sanitizer} …", flush=True)
        outcomes.append(run(campaign, share * campaign.share, seed, given.asan))
    print(f"\n{'campaign':<12} {'seconds':>7}  {'failures':>8}  tried")
    for one in outcomes:
        tried = f"{one.campaign.tries}: {one.tried}" if one.tried else one.campaign.tries
        print(f"{one.campaign.name:<12} {one.seconds:>7.0f}  {1 if one.failure else 0:>8}  {tried}")
    failed = [one for one in outcomes if one.failure]
    for one in failed:
        print(f"\n{one.campaign.name}: {one.failure}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
