"""Shuts interpreters down while their daemon threads run steps, and counts crashes, hangs and error output.

    python tools/exits.py --trials 200
    python tools/exits.py --python /usr/bin/python3.13

Each interpreter needs lrcore and NumPy. The exit status is 1 if any trial failed.
"""

import argparse
import random
import subprocess
import sys

# A daemon thread runs steps; the main thread ends some time after they have begun.
TRIAL = """
import sys, threading, time
import numpy as np
import lrcore

kind, size, threads, pause = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
lrcore.set_num_threads(threads)
begun = threading.Event()
if kind == "torch":
    import torch
    import lrcore.torch
    weight = torch.nn.Parameter(torch.zeros(size))
    weight.grad = torch.ones(size)

def make():
    if kind == "torch":
        return lrcore.torch.AdamW([weight])
    options = {"clip_norm": 1.0, "skip_nonfinite": True, "stats": True} if kind == "options" else {}
    return lrcore.AdamW([np.zeros(size, np.float32)], **options)

def steps():
    opt, grads = make(), [np.ones(size, np.float32)]
    while True:
        begun.set()
        if kind == "first":
            opt = make()
        if kind == "accumulate":
            opt.accumulate(grads)
        opt.step(*([] if kind in ("accumulate", "torch") else [grads]))

for _ in range(2 if kind == "two" else 1):
    threading.Thread(target=steps, daemon=True).start()
begun.wait()
time.sleep(pause)
"""
KINDS = ("steps", "first", "options", "accumulate", "two", "torch")
SIZES = (1_000, 100_000, 1 << 20, 1 << 22)
PATIENCE = 60.0  # seconds after which an interpreter counts as hanging


def trial(python: str, kinds: list[str], chance: random.Random) -> str | None:
    """Run one interpreter until it exits; return the failure, or None."""
    given = [chance.choice(kinds), chance.choice(SIZES), chance.randint(1, 3), f"{chance.uniform(0, 0.05):.4f}"]
    command = [python, "-c", TRIAL, *map(str, given)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return f"{given}: hangs"
    if done.returncode == 0 and not done.stderr:
        return None
    last = done.stderr.strip().splitlines()[-1:] or ["no message"]
    return f"{given}: exit status {done.returncode}, {last[0]}"


def main() -> int:
    """Run the trials, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", help="an interpreter; can be repeated (default: this one)")
    parser.add_argument("--trials", type=int, default=200, help="number of trials for each interpreter (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="seed of sizes and pauses (default: 0)")
    parser.add_argument("--kind", action="append", choices=KINDS, help="what to run (default: all without PyTorch)")
    arguments = parser.parse_args()
    kinds = arguments.kind or [kind for kind in KINDS if kind != "torch"]
    bad = 0
    for python in arguments.python or [sys.executable]:
        chance = random.Random(arguments.seed)  # noqa: S311
        faults = [fault for _ in range(arguments.trials) if (fault := trial(python, kinds, chance))]
        print(f"{python}: {len(faults)} of {arguments.trials} failed", flush=True)
        for fault in faults[:5]:
            print(f"  {fault}")
        bad += len(faults)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
