"""The cost of a schedule, one value and a million values, relative to other libraries and to code without a library."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lrcore import schedules
from lrcore.bench.timing import digits, interleave
from sections import Bench, progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from sections import Call

PEAK, STEPS, WARMUP, CALLS = 3e-4, 10_000, 500, 1000
MILLION = 10**6
# Goals: nanoseconds per call, and milliseconds per million values.
MOST_NS, MOST_MS = 400.0, 20.0


def costs(bench: Bench) -> None:
    """Print the time of a call of a warm-up with a cosine, and of an array of its values."""
    lr = schedules.Cosine(PEAK, steps=STEPS).warmup(WARMUP)

    def ours() -> None:
        for step in range(0, STEPS, STEPS // CALLS):
            lr(step)

    competitors: dict[str, Call] = {"lrcore": ours, "by hand": _by_hand}
    for name, make in (("torch SequentialLR.step()", _torch), ("optax", _optax)):
        try:
            competitors[name] = make()
        except ImportError as error:
            print(f"  {name} not measured: {error}")
    _show(bench, f"a value of {lr!r}", competitors, bench.plan.rounds, "ns", 1e9 / CALLS, MOST_NS)

    million = schedules.Cosine(PEAK, steps=MILLION).warmup(WARMUP)
    competitors = {"lrcore": lambda: million.values(MILLION), "NumPy by hand": _array_by_hand}
    _show(bench, f"a million values of {million!r}", competitors, 15, "ms", 1e3, MOST_MS)


def _show(
    bench: Bench, title: str, competitors: dict[str, Call], rounds: int, unit: str, scale: float, goal: float
) -> None:
    progress(f"schedules: {title}")
    # Alone there is no rest between turns, after which a core is slow for longer than such calls take.
    alone = interleave({"lrcore": competitors["lrcore"]}, bench.plan.seconds, rounds)["lrcore"]
    times = interleave(competitors, bench.plan.seconds, rounds)
    progress("")
    print(f"\n{title}\n  {'':26} {unit:>9}   lrcore over it [middle half]")
    print(f"  {'lrcore, alone':26} {digits(alone.median * scale):>9}   ≤ {goal:.0f} {unit}")
    for name, found in times.items():
        ratio = "" if name == "lrcore" else f"   {times['lrcore'].over(found)}"
        print(f"  {name:26} {digits(found.median * scale):>9}{ratio}", flush=True)


def _by_hand() -> None:
    for step in range(0, STEPS, STEPS // CALLS):
        if step < WARMUP:
            PEAK * (step + 1) / WARMUP
        else:
            PEAK * 0.5 * (1.0 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def _array_by_hand() -> object:
    steps = np.arange(MILLION)
    fall = PEAK * 0.5 * (1.0 + np.cos(np.pi * (steps - WARMUP) / (MILLION - WARMUP)))
    return np.where(steps < WARMUP, PEAK * (steps + 1) / WARMUP, fall)


def _torch() -> Callable[[], object]:
    import torch
    from torch.optim import lr_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    optimizer.step()
    rise = lr_scheduler.LinearLR(optimizer, 1 / WARMUP, total_iters=WARMUP - 1)
    fall = lr_scheduler.CosineAnnealingLR(optimizer, STEPS - WARMUP)
    scheduler = lr_scheduler.SequentialLR(optimizer, [rise, fall], [WARMUP])

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
