"""lrcore against its peers, called from Python: `make bench`.

Every competitor takes the same step on arrays of its own with the same values, written before timing. A peer that can't
be imported is listed as missing. Ratios below 1 say that lrcore is faster; the brackets hold the middle half of the
rounds.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable

import numpy as np

import lrcore
from measure import Times, interleave

try:
    import torch
except ImportError:
    torch = None

KI, MI = 1 << 10, 1 << 20
Call = Callable[[], object]


def arrays(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights and gradients of a step."""
    rng = np.random.default_rng(0)
    return rng.standard_normal(length, np.float32), rng.standard_normal(length, np.float32)


def ours(optimizer: type[lrcore.Optimizer], length: int) -> Call:
    weight, grad = arrays(length)
    opt = optimizer([weight], lr=1e-3)
    return lambda: opt.step([grad])


def torchs(name: str, length: int, **options: bool) -> Call:
    weight, grad = arrays(length)
    parameter = torch.nn.Parameter(torch.from_numpy(weight))
    parameter.grad = torch.from_numpy(grad)
    return getattr(torch.optim, name)([parameter], lr=1e-3, **options).step


def numpy_adamw(length: int) -> Call:
    """AdamW as people write it in NumPy."""
    w, g = arrays(length)
    m, v = np.zeros_like(w), np.zeros_like(w)
    lr, beta1, beta2, eps, decay = 1e-3, 0.9, 0.999, 1e-8, 1e-2
    t = 0

    def step() -> None:
        nonlocal w, m, v, t
        t += 1
        w = w * (1 - lr * decay)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        w = w - lr * m_hat / (np.sqrt(v_hat) + eps)

    return step


def small(count: int) -> Call:
    weights = [np.ones(16, np.float32) for _ in range(count)]
    grads = [np.ones(16, np.float32) for _ in range(count)]
    opt = lrcore.AdamW(weights, lr=1e-3)
    return lambda: opt.step(grads)


def compare(title: str, competitors: dict[str, Call], goal: float, rounds: int) -> None:
    """Print the time of the first competitor, and its ratio to each other."""
    times = interleave(competitors, rounds)
    (_, first), *others = times.items()
    for name, other in others:
        print(f"  {title:32} {micro(first)} µs   {micro(other)} µs   {first.over(other)!s:22}  ≤ {goal:<5}  {name}")


def micro(times: Times) -> str:
    return f"{times.median * 1e6:10.2f}"


def import_milliseconds(module: str) -> float:
    """The median time of an import in a new interpreter, of 9, without the interpreter's own start."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    runs = (subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True) for _ in range(9))  # noqa: S603
    return statistics.median(float(run.stdout) for run in runs) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="rounds for each comparison (default 15)")
    rounds = parser.parse_args().rounds
    peer = f"torch {torch.__version__}" if torch else "torch is missing: its comparisons are left out"
    print(
        f"lrcore {lrcore.__version__} · {lrcore.get_simd_level()} · {lrcore.get_num_threads()} threads · "
        f"Python {platform.python_version()} · NumPy {np.__version__} · {peer}\n"
    )
    print(f"  {'float32':32} {'lrcore':>10}      {'peer':>10}      ratio [middle half]     goal    peer")
    if torch:
        for length, goal in [(32 * MI, 1.0), (MI, 0.75), (256 * KI, 0.5), (16 * KI, 0.3), (KI, 0.12)]:
            step = {"lrcore": ours(lrcore.AdamW, length), "torch fused": torchs("AdamW", length, fused=True)}
            compare(f"AdamW, {length // KI} Ki weights", step, goal, rounds)
        step = {"lrcore": ours(lrcore.RMSprop, 32 * MI), "torch foreach": torchs("RMSprop", 32 * MI, foreach=True)}
        compare("RMSprop, 32768 Ki weights", step, 0.25, max(5, rounds // 3))
    compare("AdamW, 1024 Ki weights", {"lrcore": ours(lrcore.AdamW, MI), "NumPy": numpy_adamw(MI)}, 0.12, rounds)
    for count, goal in [(1, 3), (100, 25)]:
        times = interleave({"lrcore": small(count)}, rounds)["lrcore"]
        spread = f"[{min(times.rounds) * 1e6:.2f}, {max(times.rounds) * 1e6:.2f}]"
        print(f"  {f'AdamW, {count} × 16 weights':32} {micro(times)} µs   {spread}   goal ≤ {goal} µs")
    extra = import_milliseconds("lrcore") - import_milliseconds("numpy")
    print(f"  {'import, beyond NumPy':32} {extra:10.1f} ms   goal ≤ 20 ms")


if __name__ == "__main__":
    main()
