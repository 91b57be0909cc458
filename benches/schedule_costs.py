"""What a schedule costs: a value, and a million of them, beside other libraries' and by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lrcore import schedules
from lrcore.bench.timing import interleave
from sections import Bench, progress

if TYPE_CHECKING:
    from collections.abc import Callable

PEAK, STEPS, WARMUP, CALLS = 3e-4, 10_000, 500, 1000
MILLION = 10**6
# Nanoseconds of a call, and milliseconds of a million values.
MOST_NS, MOST_MS = 400.0, 20.0


def costs(bench: Bench) -> None:
    """Print the time of a call of a warm-up and a cosine, and of an array of its values."""
    _calls(bench)
    _arrays(bench)


def _calls(bench: Bench) -> None:
    progress("schedules: calls")
    rate = schedules.Cosine(PEAK, steps=STEPS).warmup(WARMUP)

    def ours() -> None:
        for step in range(0, STEPS, STEPS // CALLS):
            rate(step)

    # Alone there is no rest between turns, after which a core is slow for longer than such calls take.
    alone = interleave({"lrcore": ours}, bench.plan.seconds, bench.plan.rounds)["lrcore"]
    competitors: dict[str, Callable[[], object]] = {"lrcore": ours, "by hand": _by_hand}
    for name, make in (("torch SequentialLR.step()", _torch), ("optax", _optax)):
        try:
            competitors[name] = make()
        except ImportError as error:
            print(f"  {name} not measured: {error}")
    times = interleave(competitors, bench.plan.seconds, bench.plan.rounds)
    progress("")
    print(f"\na value of {rate!r}\n  {'':26} {'ns':>9}   lrcore over it [middle half]")
    print(f"  {'lrcore, alone':26} {alone.median / CALLS * 1e9:9.1f}   ≤ {MOST_NS:.0f} ns")
    for name, found in times.items():
        goal = "" if name == "lrcore" else f"   {times['lrcore'].over(found)}"
        print(f"  {name:26} {found.median / CALLS * 1e9:9.1f}{goal}", flush=True)


def _by_hand() -> None:
    for step in range(0, STEPS, STEPS // CALLS):
        if step < WARMUP:
            PEAK * (step + 1) / WARMUP
        else:
            PEAK * 0.5 * (1.0 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def _torch() -> Callable[[], object]:
    import torch
    from torch.optim import lr_scheduler as torch_schedules

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    optimizer.step()
    rise = torch_schedules.LinearLR(optimizer, 1 / WARMUP, total_iters=WARMUP - 1)
    fall = torch_schedules.CosineAnnealingLR(optimizer, STEPS - WARMUP)
    scheduler = torch_schedules.SequentialLR(optimizer, [rise, fall], [WARMUP])

    def steps() -> None:
        for _ in range(CALLS):
            scheduler.step()

    return steps


def _optax() -> Callable[[], object]:
    import jax
    import optax

    schedule = jax.jit(optax.warmup_cosine_decay_schedule(PEAK / WARMUP, PEAK, WARMUP, STEPS))
    schedule(0)

    def steps() -> None:
        for step in range(0, STEPS, STEPS // CALLS):
            float(schedule(step))

    return steps


def _arrays(bench: Bench) -> None:
    progress("schedules: arrays")
    rate = schedules.Cosine(PEAK, steps=MILLION).warmup(WARMUP)

    def by_hand() -> object:
        steps = np.arange(MILLION)
        fall = PEAK * 0.5 * (1.0 + np.cos(np.pi * (steps - WARMUP) / (MILLION - WARMUP)))
        return np.where(steps < WARMUP, PEAK * (steps + 1) / WARMUP, fall)

    alone = interleave({"lrcore": lambda: rate.values(MILLION)}, bench.plan.seconds, 15)["lrcore"]
    times = interleave({"lrcore": lambda: rate.values(MILLION), "NumPy by hand": by_hand}, bench.plan.seconds, 15)
    progress("")
    print(f"\na million values of {rate!r}\n  {'':26} {'ms':>9}   lrcore over it [middle half]")
    print(f"  {'lrcore, alone':26} {alone.median * 1e3:9.2f}   ≤ {MOST_MS:.0f} ms")
    for name, found in times.items():
        goal = "" if name == "lrcore" else f"   {times['lrcore'].over(found)}"
        print(f"  {name:26} {found.median * 1e3:9.2f}{goal}", flush=True)
