"""The process that measures, with one number of threads for all libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import dropin
import goals
import loops
import lrcore
import machine
import results
import schedule_costs
import stages
from lrcore.bench import peers
from lrcore.bench.workloads import WORKLOADS
from models import MODELS
from sections import SECTIONS, Bench, Plan, progress

if TYPE_CHECKING:
    import argparse

SOURCES = {
    "lrcore.bench.torch_peers": peers.NUMPY_AND_TORCH["lrcore.bench.torch_peers"],
    "peers_deepspeed": ("DeepSpeed",),
    "peers_numba": ("numba",),
    "peers_textbook": ("NumPy textbook",),
    "lrcore.bench.numpy_peers": peers.NUMPY_AND_TORCH["lrcore.bench.numpy_peers"],
    "peers_optax": ("optax jit",),
    "peers_thinc": ("thinc",),
    "peers_bitsandbytes": ("bitsandbytes",),
}
ALL_SECTIONS = SECTIONS | {
    "dropin": dropin.dropin,
    "goals": goals.goals,
    "loops": loops.loops,
    "schedules": schedule_costs.costs,
    "stages": stages.stages,
}


def run(options: argparse.Namespace, sizes: list[int]) -> None:
    """Find the peers and measure the sections; save after each."""
    # With constant gradients a centered RMSprop takes the root of a rounding error below 0; warnings cost time.
    np.seterr(all="ignore")
    threads = int(options.threads[0])
    plan = Plan(
        threads=threads,
        rounds=options.rounds,
        sizes=sizes,
        workloads=options.works or list(WORKLOADS),
        dtypes=options.dtypes,
        seconds=options.seconds,
        models=options.models or list(MODELS),
    )
    found = peers.find(SOURCES, options.peers, progress)
    progress("")
    lrcore.set_num_threads(threads)
    for peer in found.found.values():
        if peer.set_threads:
            peer.set_threads(threads)
    versions = " · ".join(f"{name} {number}" for name, number in machine.versions().items())
    print(f"\n{versions} · {lrcore.get_simd_level()} · {threads} threads")
    for name, reason in found.missing.items():
        print(f"  missing: {name}: {reason}")
    bench = Bench(plan, found, results.empty(), options.json)
    bench.results.missing = found.missing
    for section in options.only:
        ALL_SECTIONS[section](bench)
        bench.save()
