"""The goals that lrcore is held to: each a pair in rounds of its own, or a time."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

import peers
from lrcore.bench.timing import Times, interleave
from models import MODELS
from sections import KI, MI, Bench, entrants, in_sittings, named, progress, random_arrays
from works import WORKS, Peer

if TYPE_CHECKING:
    from models import Shapes

# work, what it is called, shapes, peer, goal
Goal = tuple[str, str, "Shapes", str, float]
_LARGE = [(32 * MI,)]
GOALS: list[Goal] = [
    ("AdamW", "32 Mi", _LARGE, "torch fused", 0.96),
    ("AdamW", "32 Mi", _LARGE, "DeepSpeed", 0.97),
    ("AdamW", "32 Mi", _LARGE, "roof", 1.05),
    ("AdamW", "1 Mi", [(MI,)], "torch fused", 0.65),
    ("AdamW", "256 Ki", [(256 * KI,)], "torch fused", 0.40),
    ("AdamW", "16 Ki", [(16 * KI,)], "torch fused", 0.22),
    ("AdamW", "1 Ki", [(KI,)], "torch fused", 0.08),
    *(("AdamW", named(n), [(n,)], "numba", 1.0) for n in (KI, 16 * KI, 256 * KI, MI, 32 * MI)),
    ("RMSprop", "32 Mi", _LARGE, "torch foreach", 0.20),
    ("AdamW", "1 Mi", [(MI,)], "NumPy textbook", 0.12),
    *(
        ("AdamW", model, MODELS[model], "torch fused", goal)
        for model, goal in (("MLP", 0.13), ("actor-critic", 0.30), ("ResNet-50", 0.90), ("GPT-2 small", 0.96))
    ),
]


def goals(bench: Bench) -> None:
    """Print each goal with what was measured."""
    print(f"\ngoals\n  {'float32':30} {'lrcore':>10}      {'peer':>10}      ratio [middle half]     goal      peer")
    for work, case, shapes, name, goal in GOALS:
        weights = sum(int(np.prod(shape)) for shape in shapes)
        # A whole run shows every goal; one for a few sizes or models, those that belong to them.
        if (case in MODELS and case not in bench.plan.models) or (
            weights > max(bench.plan.sizes) and case not in MODELS
        ):
            continue
        peer = peers.ROOF if name == "roof" else bench.found.peers.get(name)
        why = peers.objection(peer, WORKS[work], np.dtype("float32")) if peer else bench.found.missing.get(name, "")
        if peer is None or (why and name != "roof"):
            print(f"  {work}, {case}: no {name}: {why}")
            continue
        _pair(bench, (work, case, shapes, name, goal), peer)
    _small(bench)
    low, extra, high = import_milliseconds()
    print(f"  {'import, beyond NumPy':30} {extra:10.1f} ms   [{low:.1f}, {high:.1f}]   goal ≤ 20 ms")
    bench.results.goals.append({"work": "import", "milliseconds": extra, "quartiles": [low, high], "goal": 20})


def _pair(bench: Bench, goal: Goal, peer: Peer) -> None:
    work, case, shapes, name, most = goal
    progress(f"goals: {work} {case}, {name}")
    values = random_arrays(shapes, np.dtype("float32"))
    make = [partial(entrants, one, WORKS[work], values, None) for one in (peers.LRCORE, peer)]
    times = in_sittings(make, sum(array.nbytes for array in values), bench.plan.seconds, bench.plan.rounds)
    ours, theirs = times["lrcore"], times[name]
    ratio = ours.over(theirs)
    progress("")
    title = f"{work}, {case}"
    met = "" if ratio.median <= most else "  missed"
    print(f"  {title:30} {micro(ours)} µs   {micro(theirs)} µs   {ratio!s:22}  ≤ {most:<5}  {name}{met}", flush=True)
    found = {"work": work, "case": case, "peer": name, "goal": most}
    found |= {"seconds": ours.median, "peer_seconds": theirs.median}
    bench.results.goals.append(found | {"ratio": ratio.median, "ratio_quartiles": ratio.quartiles})


def _small(bench: Bench) -> None:
    """One array of 16 weights at most 2 µs, and each further one at most 150 ns."""
    for count, goal in ((1, 2.0), (100, 2.0 + 99 * 0.15)):
        values = random_arrays([(16,)] * count, np.dtype("float32"))
        step = peers.LRCORE.make(WORKS["AdamW"], values, values).step
        times = interleave({"lrcore": step}, rounds=bench.plan.rounds)["lrcore"]
        spread = f"[{min(times.rounds) * 1e6:.2f}, {max(times.rounds) * 1e6:.2f}]"
        print(f"  {f'AdamW, {count} × 16 weights':30} {micro(times)} µs   {spread}   goal ≤ {goal:.2f} µs")
        found = {"work": "AdamW", "case": f"{count} × 16", "seconds": times.median, "goal_seconds": goal / 1e6}
        bench.results.goals.append(found)


def micro(times: Times) -> str:
    return f"{times.median * 1e6:10.2f}"


def import_milliseconds() -> tuple[float, float, float]:
    """The quartiles of the time that an import takes when NumPy is there already, in 15 new interpreters."""
    code = "import time, numpy; t = time.perf_counter(); import lrcore; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    # An installed package has its bytecode, whatever this shell says.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    runs = [subprocess.run(command, capture_output=True, check=True, text=True, env=env) for _ in range(16)][1:]  # noqa: S603
    low, median, high = statistics.quantiles((float(run.stdout) * 1e3 for run in runs), n=4)
    return low, median, high
