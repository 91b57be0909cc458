"""lrcore compared with other libraries, called from Python: `make bench`.

Ratios are lrcore's time over the peer's: below 1 lrcore is faster; `!` marks ratios above 1. `·` is a peer that does
not take part, for a reason listed at the end. The method: benches/README.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import results
from lrcore import info
from lrcore.bench.command import sizes

SECTIONS = ("goals", "stages", "sizes", "models", "small", "cold", "scaling", "loops", "dropin", "schedules")
# The sections that are measured with each number of threads; the others with all threads only.
BY_THREADS = {"sizes"}
SIZES = [1 << bits for bits in range(10, 27, 2)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    comma = lambda text: [part.strip() for part in text.split(",") if part.strip()]  # noqa: E731
    parser.add_argument("--only", type=comma, default=list(SECTIONS), help=f"from {','.join(SECTIONS)}")
    parser.add_argument("--sizes", type=sizes, help="numbers of weights, such as 1Ki,256Ki,64Mi")
    parser.add_argument("--works", type=comma, help="optimizers, such as AdamW,SGD momentum")
    parser.add_argument("--dtypes", type=comma, default=["float32", "float64"])
    parser.add_argument("--models", type=comma, help="models, such as MLP,GPT-2 small")
    parser.add_argument("--peers", type=comma, help="peers, such as torch fused,numba")
    parser.add_argument("--threads", type=comma, default=["1", "all"], help="numbers, or all (default 1,all)")
    parser.add_argument("--rounds", type=int, default=15, help="at most, per row (default 15)")
    parser.add_argument("--seconds", type=float, default=40, help="per row, once it has 5 rounds (default 40)")
    parser.add_argument("--quick", action="store_true", help="a few cells in a few minutes: does it work?")
    parser.add_argument("--json", type=Path, default=Path("results/bench.json"))
    parser.add_argument("--plots", type=Path, help="a folder for plots (default: that of the JSON file)")
    parser.add_argument("--huge-pages", action="store_true", help="request huge pages for every library")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.only) - set(SECTIONS):
        parser.error(f"--only: must be from {', '.join(SECTIONS)}, got {', '.join(unknown)}")
    if options.quick:
        options.rounds, options.seconds = min(options.rounds, 5), 3
        options.sizes = options.sizes or [1 << 10, 64 << 10, 1 << 20]
        options.models = options.models or ["MLP", "actor-critic"]
    return options


def environment(threads: int, *, huge_pages: bool) -> dict[str, str]:
    """Return the environment in which all libraries use the same number of threads."""
    count = str(threads)
    pools = ("OMP", "OPENBLAS", "MKL", "NUMBA", "LRCORE")
    chosen = {f"{pool}_NUM_THREADS": count for pool in pools} | {"NPROC": count}  # NPROC is XLA's
    if huge_pages:
        # NumPy requests them by default; PyTorch and JAX don't, and have more page faults in their temporaries.
        chosen |= {"THP_MEM_ALLOC_ENABLE": "1", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    # Extension builds look for ninja on the path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, **chosen, "PATH": path, "PYTHONWARNINGS": "ignore"}


def parent(options: argparse.Namespace) -> None:
    """Run a process for each section and number of threads.

    Some libraries read the number of threads only once, and fragmented memory makes the next section slower.
    """
    whole = results.empty()
    counts = sorted({info.affinity() if text == "all" else int(text) for text in options.threads}, reverse=True)
    runs = [
        (threads, name) for threads in counts for name in options.only if name in BY_THREADS or threads == counts[0]
    ]
    for threads, section in runs:
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / "part.json"
            command = [sys.executable, __file__, *sys.argv[1:], "--child", "--threads", str(threads)]
            command += ["--only", section, "--json", str(part)]
            env = environment(threads, huge_pages=options.huge_pages)
            code = subprocess.run(command, env=env, check=False).returncode  # noqa: S603
            if part.exists():
                found = results.load(part)
                whole.machine["settings"] = found["machine"]["settings"]
                whole.merge(found)
            whole.save(options.json)
        if code:
            print(f"{section} with {threads} threads ended early (exit code {code}); its results so far are kept")
    summary(whole)
    print(f"\n{options.json} has all numbers.")
    draw(options.json, options.plots or options.json.parent)


def summary(whole: results.Results) -> None:
    speeds = [f"{speed / 1e9:.1f} GB/s with {n} threads" for n, speed in whole.bandwidth().items()]
    print(f"\n{whole.machine['cpu']}, {whole.machine['cores']} cores; memory: {', '.join(speeds) or 'not measured'}")
    print("not measured:", *whole.absences(), sep="\n  ")
    slower = whole.slower()
    print(f"a peer was faster in {len(slower)} cells:", *slower, sep="\n  ")


def draw(json: Path, folder: Path) -> None:
    try:
        import plots
    except ImportError as error:
        print(f"no plots: {error}")
    else:
        for path in plots.draw_all(results.load(json), folder):
            print(path)


def child(options: argparse.Namespace) -> None:
    import child as process

    process.run(options, options.sizes or SIZES)


if __name__ == "__main__":
    chosen = arguments()
    (child if chosen.child else parent)(chosen)
