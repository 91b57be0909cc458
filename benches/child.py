"""The process that measures, with one number of threads for all libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import dropin
import goals
import loops
import lrcore
import machine
import peers
import results
import schedule_costs
import stages
from models import MODELS
from sections import SECTIONS, Bench, Plan, progress
from works import WORKS

if TYPE_CHECKING:
    import argparse


def run(options: argparse.Namespace, sizes: list[int]) -> None:
    """Find the peers and measure the sections, each saved as it is done."""
    # A centered RMSprop takes the root of a rounding error below 0 when gradients stay the same; warnings cost time.
    np.seterr(all="ignore")
    threads = int(options.threads[0])
    plan = Plan(
        threads=threads,
        rounds=options.rounds,
        sizes=sizes,
        works=options.works or list(WORKS),
        dtypes=options.dtypes,
        seconds=options.seconds,
        models=options.models or list(MODELS),
    )
    found = peers.find(options.peers, progress)
    progress("")
    lrcore.set_num_threads(threads)
    for peer in found.peers.values():
        if peer.set_threads:
            peer.set_threads(threads)
    versions = " · ".join(f"{name} {number}" for name, number in machine.versions().items())
    print(f"\n{versions} · {lrcore.get_simd_level()} · {threads} threads")
    for name, reason in found.missing.items():
        print(f"  missing: {name}: {reason}")
    bench = Bench(plan, found, results.empty(), lambda: None)
    bench.results.missing = found.missing
    bench.save = lambda: bench.results.save(options.json)
    for section in options.only:
        own = {
            "dropin": dropin.dropin,
            "goals": goals.goals,
            "loops": loops.loops,
            "schedules": schedule_costs.costs,
            "stages": stages.stages,
        }
        {**SECTIONS, **own}[section](bench)
        bench.save()
