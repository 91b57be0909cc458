"""lrcore's performance goals: each a pair in rounds of its own, or a time."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from functools import partial

import numpy as np

from lrcore.bench.grid import name_of
from lrcore.bench.peers import LRCORE, ROOFLINE, ROOFLINE_PEER, objection
from lrcore.bench.timing import interleave
from lrcore.bench.workloads import WORKLOADS
from models import MODELS
from sections import HEAD, KI, MI, Bench, compare, micro, random_arrays, timed_calls

# The workload, a size or a model, the peer, and the largest ratio.
GOALS: list[tuple[str, int | str, str, float]] = [
    ("AdamW", 32 * MI, "torch fused", 0.96),
    ("AdamW", 32 * MI, "DeepSpeed", 0.97),
    ("AdamW", 32 * MI, ROOFLINE, 1.05),
    ("AdamW", MI, "torch fused", 0.65),
    ("AdamW", 256 * KI, "torch fused", 0.40),
    ("AdamW", 16 * KI, "torch fused", 0.22),
    ("AdamW", KI, "torch fused", 0.08),
    *(("AdamW", size, "numba", 1.0) for size in (KI, 16 * KI, 256 * KI, MI, 32 * MI)),
    ("RMSprop", 32 * MI, "torch foreach", 0.20),
    ("AdamW", MI, "NumPy textbook", 0.12),
    ("AdamW", "MLP", "torch fused", 0.13),
    ("AdamW", "actor-critic", "torch fused", 0.30),
    ("AdamW", "ResNet-50", "torch fused", 0.90),
    ("AdamW", "GPT-2 small", "torch fused", 0.96),
]


def goals(bench: Bench) -> None:
    """Print each goal with its measurement; with fewer sizes or models only the goals for these."""
    print(f"\ngoals, float32\n  {'':34} {HEAD.format('peer')}")
    for name, case, peer_name, goal in GOALS:
        if case not in bench.plan.models if isinstance(case, str) else case > max(bench.plan.sizes):
            continue
        workload = WORKLOADS[name]
        title = f"{name}, {case if isinstance(case, str) else name_of(case)}"
        peer = ROOFLINE_PEER if peer_name == ROOFLINE else bench.peers.found.get(peer_name)
        why = bench.peers.missing.get(peer_name, "")
        if peer:
            why = objection(peer, workload, np.dtype(np.float32))
        if peer is None or why:
            print(f"  {title}: no {peer_name}: {why}")
            continue
        shapes = MODELS[case] if isinstance(case, str) else [(case,)]
        make = [partial(timed_calls, one, workload, None) for one in (LRCORE, peer)]
        compare(bench, title, shapes, make, goal, "goals")
    _small(bench)
    low, extra, high = import_milliseconds()
    print(f"  {'import, beyond NumPy':34} {extra:7.1f} ms [{low:.1f}, {high:.1f}]   ≤ 20 ms")
    bench.results.goals.append({"work": "import", "milliseconds": extra, "quartiles": [low, high], "goal": 20})


def _small(bench: Bench) -> None:
    """One array of 16 weights in 2 µs, and each further one in 150 ns."""
    for count, goal in ((1, 2.0), (100, 2.0 + 99 * 0.15)):
        values = random_arrays([(16,)] * count)
        step = LRCORE.make(WORKLOADS["AdamW"], values, values).step
        times = interleave({"lrcore": step}, rounds=bench.plan.rounds)["lrcore"]
        spread = f"[{min(times.rounds) * 1e6:.2f}, {max(times.rounds) * 1e6:.2f}]"
        print(f"  {f'AdamW, {count} × 16 weights':34} {micro(times)} {spread}   ≤ {goal:.2f} µs")
        found = {"work": "AdamW", "case": f"{count} × 16", "seconds": times.median, "goal_seconds": goal / 1e6}
        bench.results.goals.append(found)


def import_milliseconds() -> tuple[float, float, float]:
    """Return the quartiles of the time of an import after NumPy's, in 15 new interpreters."""
    code = "import time, numpy; t = time.perf_counter(); import lrcore; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    # An installed package has its bytecode, whatever this shell says.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    runs = [subprocess.run(command, capture_output=True, check=True, text=True, env=env) for _ in range(16)][1:]  # noqa: S603
    low, median, high = statistics.quantiles((float(run.stdout) * 1e3 for run in runs), n=4)
    return low, median, high
