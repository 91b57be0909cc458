"""The sections of the comparison that time one step of every peer, and how competitors are timed."""

from __future__ import annotations

import gc
import math
import sys
import time
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

import lrcore
from lrcore import info
from lrcore.bench.grid import name_of
from lrcore.bench.peers import LRCORE, OURS, ROOFLINE_PEER, Peers, has_probes, objection
from lrcore.bench.timing import FEWEST, REST, TimedCall, Times, digits, interleave
from lrcore.bench.workloads import WORKLOADS, Array, Competitor, Peer, Workload
from models import MODELS
from results import Results, Row, heading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from models import Shapes

    Call = Callable[[], object]
    Values = list[Array]
    # Makes what is timed, by name, from values for weights and gradients.
    Make = Callable[[Values], dict[str, TimedCall]]
    Wrap = Callable[[Peer, Competitor], dict[str, TimedCall]]

KI, MI = 1 << 10, 1 << 20
REPEATS = 3
CACHED = 4 << 20  # bytes of an array; no cache holds several larger ones
PRODUCT_SECONDS = 0.002  # the time between two steps in the cold case
HEAD = f"{'µs':>10} {{:>10}}   ratio [middle half]     goal"


@dataclass
class Plan:
    """What the command line asks for; ``seconds`` is the limit of a row once it has 5 rounds."""

    threads: int
    rounds: int
    sizes: list[int]
    workloads: list[str]
    dtypes: list[str]
    seconds: float
    models: list[str]


@dataclass
class Bench:
    """The competitors and the results so far."""

    plan: Plan
    peers: Peers
    results: Results
    json: Path

    @property
    def names(self) -> list[str]:
        return list(self.peers.found)

    def save(self) -> None:
        self.results.save(self.json)

    def title(self, text: str) -> None:
        print(f"\n{text}\n{heading(self.names)}", flush=True)

    def row(
        self,
        section: str,
        workload: Workload,
        case: str,
        shapes: Shapes,
        dtype_name: str = "float32",
        wrap: Wrap | None = None,
    ) -> Row:
        """Measure a row in groups that fit into memory, print it and save it."""
        dtype = np.dtype(dtype_name)
        length = sum(math.prod(shape) for shape in shapes)
        row = Row(section, workload.name, case, dtype_name, self.plan.threads, length, workload.streams())
        able = []
        for name, peer in self.peers.found.items():
            progress(f"{section}: {workload.name} {dtype} {case}, {self.plan.threads} threads: {name}")
            if why := objection(peer, workload, dtype):
                row.absent[name] = why
            else:
                able.append(peer)
        for group in groups_in_memory(able, workload, length * dtype.itemsize):
            make = [partial(timed_calls, peer, workload, wrap) for peer in group]
            seconds = self.plan.seconds / 2 if len(able) > len(group) else self.plan.seconds
            row.add(time_repeats(make, random_arrays(shapes, dtype), seconds, self.plan.rounds))
        progress("")
        print(row.line(self.names), flush=True)
        self.results.add(row)
        self.save()
        return row


def timed_calls(peer: Peer, workload: Workload, wrap: Wrap | None, values: Values) -> dict[str, TimedCall]:
    """Make what a peer is timed as, on its own arrays."""
    competitor = peer.make(workload, values, values)
    return wrap(peer, competitor) if wrap else {peer.name: TimedCall(competitor.step, before=competitor.before)}


def time_repeats(
    make: list[Make], values: Values, seconds: float, rounds: int, repeats: int | None = None, rest: float = REST
) -> dict[str, Times]:
    """Time competitors that are made anew in each repeat, by another one first each time.

    Where large arrays lie can change a time by a third, on a virtual machine above all, and whoever allocates first
    tends to get the same place.
    """
    size = sum(array.nbytes for array in values)
    if repeats is None:
        repeats = REPEATS if size > CACHED else 1
    rounds = max(-(-rounds // repeats), FEWEST)
    found: dict[str, Times] = {}
    for repeat in range(repeats):
        first = repeat * len(make) // repeats
        competitors: dict[str, TimedCall] = {}
        for maker in make[first:] + make[:first]:
            competitors |= maker(values)
        for name, times in interleave(competitors, seconds / repeats, rounds, rest).items():
            found[name] = Times(found[name].rounds + times.rounds) if name in found else times
        del competitors
        gc.collect()
    return found


def groups_in_memory(able: list[Peer], workload: Workload, size: int) -> Iterator[list[Peer]]:
    """Yield groups of peers that fit into three quarters of the memory, each with lrcore and the roofline."""
    budget = 0.75 * (info.memory("MemAvailable") or 4 << 30) - 2 * size
    always = [LRCORE, ROOFLINE_PEER] if has_probes() else [LRCORE]
    fixed = len(always) * (2 + workload.states) * size
    group: list[Peer] = []
    used = fixed
    for peer in able:
        held = (2 + workload.states) * size
        if group and used + held + peer.temporaries * size > budget:
            yield always + group
            group, used = [], fixed
        group.append(peer)
        used += held
    yield always + group


def random_arrays(shapes: Shapes, dtype: np.dtype[Any] | type = np.float32) -> Values:
    """Return values near 1 of either sign, which every competitor copies as weights and as gradients."""
    rng = np.random.default_rng(0)
    pool = rng.choice(np.array([-1, 1], dtype), MI) * rng.uniform(0.5, 1.5, MI).astype(dtype)
    return [np.resize(pool, shape) for shape in shapes]


def progress(text: str) -> None:
    """Overwrite one line on a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text[:110]}")
        sys.stderr.flush()


def apart(ours: Callable[[Values], Call], other: Callable[[Values], Call]) -> list[Make]:
    """Return the makers of two calls on arrays of their own."""
    return [lambda values: {OURS: TimedCall(ours(values))}, lambda values: {"other": TimedCall(other(values))}]


def together(both: Callable[[Values], tuple[Call, Call]]) -> list[Make]:
    """Return the maker of two calls on the same arrays."""
    return [lambda values: dict(zip((OURS, "other"), map(TimedCall, both(values)), strict=True))]


def compare(
    bench: Bench,
    title: str,
    shapes: Shapes,
    make: list[Make],
    goal: float = math.inf,
    case: str = "stages",
    repeats: int | None = None,
    rest: float = REST,
) -> None:
    """Time lrcore and one other in turns, and print the ratio and its goal."""
    progress(f"{case}: {title}")
    try:
        times = time_repeats(make, random_arrays(shapes), bench.plan.seconds, bench.plan.rounds, repeats, rest)
    except ImportError as error:
        print(f"  {title:34} not measured: {error}")
        return
    ours = times.pop(OURS)
    ((other, theirs),) = times.items()
    ratio = ours.over(theirs)
    progress("")
    beside = "" if other == "other" else f"  {other}"
    text = "" if goal == math.inf else f"  ≤ {goal:<5}{beside}{'' if ratio.median <= goal else '  missed'}"
    print(f"  {title:34} {micro(ours)} {micro(theirs)}   {ratio!s:22}{text}", flush=True)
    found = {"work": title, "case": case, "peer": other, "goal": None if goal == math.inf else goal}
    found |= {"seconds": ours.median, "peer_seconds": theirs.median}
    bench.results.goals.append(found | {"ratio": ratio.median, "ratio_quartiles": ratio.quartiles})


def micro(times: Times) -> str:
    """Return the median in microseconds."""
    return f"{digits(times.median * 1e6, 4):>10}"


def sizes(bench: Bench) -> None:
    """Every optimizer on one array."""
    bench.title("one array")
    for name in bench.plan.workloads:
        for dtype in bench.plan.dtypes:
            for size in bench.plan.sizes:
                bench.row("sizes", WORKLOADS[name], name_of(size), [(size,)], dtype)


def small(bench: Bench) -> None:
    """Many arrays of 16 weights: the overhead of a step beyond arithmetic."""
    bench.title("n arrays of 16 weights")
    for count in (1, 2, 10, 100):
        bench.row("small", WORKLOADS["AdamW"], f"{count} × 16", [(16,)] * count)


def models(bench: Bench) -> None:
    """The tensors of real models."""
    bench.title("models")
    for model in bench.plan.models:
        for name in ("AdamW", "SGD momentum"):
            bench.row("models", WORKLOADS[name], model, MODELS[model])


def cold(bench: Bench) -> None:
    """A matrix product between the steps: NumPy's, torch's, then each library's own, whose threads are awake then."""
    size = product_size()
    torch_product = next((p.product for p in bench.peers.found.values() if p.name.startswith("torch")), None)
    between = {"NumPy": lambda _: numpy_product(size)}
    if torch_product:
        between["torch"] = lambda _: torch_product(size)
    between["own"] = lambda peer: product_of(peer, size)
    for whose, product in between.items():
        bench.title(f"cold: only the step is timed; before it a product of two {size} × {size} matrices by {whose}")

        def wrap(peer: Peer, competitor: Competitor, product: Callable[..., Any] = product) -> dict[str, TimedCall]:
            return {peer.name: TimedCall(competitor.step, before=both(competitor.before, product(peer)))}

        for length in (16 * KI, 256 * KI, 4 * MI):
            if length <= max(bench.plan.sizes):
                bench.row("cold", WORKLOADS["AdamW"], f"{name_of(length)} {whose}", [(length,)], wrap=wrap)


def both(first: Call | None, second: Call) -> Call:
    return second if first is None else lambda: (first(), second())


def product_of(peer: Peer, size: int) -> Call:
    """Return the matrix product of a peer's own library; NumPy's for those that work on its arrays."""
    return peer.product(size) if peer.product else numpy_product(size)


def numpy_product(size: int) -> Call:
    left, right, out = (np.ones((size, size), np.float32) for _ in range(3))
    return lambda: np.matmul(left, right, out=out)


def product_size() -> int:
    """Return the size of a square matrix whose product takes about 2 ms."""
    for size in range(256, 4096, 64):
        if best_of_five(numpy_product(size)) > PRODUCT_SECONDS:
            return size
    return 4096


def best_of_five(call: Call) -> float:
    """Return the least time of five calls in seconds: interruptions only add."""
    marks = [(call(), time.perf_counter())[1] for _ in range(6)]
    return min(end - start for start, end in pairwise(marks))


def scaling(bench: Bench) -> None:
    """One thread against more, in the same rounds, warm and after a matrix product."""
    counts = sorted({1, *(2**k for k in range(1, 10) if 2**k < bench.plan.threads), bench.plan.threads})
    matrix = product_size()

    def wrap(peer: Peer, competitor: Competitor) -> dict[str, TimedCall]:
        if peer.set_threads is None:
            return {}
        made = {}
        before = product_of(peer, matrix) if cold else competitor.before
        for count in counts:
            name = peer.name if count == bench.plan.threads else f"{peer.name} × {count}"
            made[name] = TimedCall(competitor.step, partial(peer.set_threads, count), before)
        return made

    for cold in (False, True):
        how = "a matrix product before each step" if cold else "warm"
        bench.title(f"scaling, {how}; the peers are in the JSON file")
        for size in bench.plan.sizes:
            section = "scaling cold" if cold else "scaling"
            row = bench.row(section, WORKLOADS["AdamW"], name_of(size), [(size,)], wrap=wrap)
            ours = [f"{row.cells[name]['ratio']:.3f}" for c in counts[:-1] if (name := f"{OURS} × {c}") in row.cells]
            print(f"{'':21}{'to 1 thread, …':>16} {' '.join(ours)}")
    lrcore.set_num_threads(bench.plan.threads)


SECTIONS = {
    "sizes": sizes,
    "models": models,
    "small": small,
    "cold": cold,
    "scaling": scaling,
}
