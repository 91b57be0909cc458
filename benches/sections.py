"""The sections of the comparison: which work, on what, beside what."""

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
import machine
import peers
from lrcore.bench.timing import FEWEST, REST, Entrant, Times, interleave
from models import MODELS
from results import Results, Row, heading
from works import WORKS, Contestant, Peer, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from models import Shapes

    Wrap = Callable[[Peer, Contestant], dict[str, Entrant]]
    # Given values for weights and gradients, a call.
    Make = Callable[[list[np.ndarray[Any, Any]]], Callable[[], object]]
    MakeBoth = Callable[[list[np.ndarray[Any, Any]]], tuple[Callable[[], object], Callable[[], object]]]

KI, MI = 1 << 10, 1 << 20
DTYPES = ("float32", "float64")
SITTINGS = 3
CACHED = 4 << 20  # bytes of an array; more than one of them stays in no cache
PRODUCT_SECONDS = 0.002  # what lies between two steps in the cold case


@dataclass
class Plan:
    """What the command line asks for."""

    threads: int
    rounds: int
    sizes: list[int]
    works: list[str]
    dtypes: list[str]
    seconds: float  # that a row may take, where 5 rounds don't take longer
    models: list[str]


@dataclass
class Bench:
    """The competitors and the results so far."""

    plan: Plan
    found: peers.Found
    results: Results
    save: Callable[[], None]

    @property
    def names(self) -> list[str]:
        return [name for name in peers.NAMES if name in self.found.peers]

    def title(self, text: str) -> None:
        print(f"\n{text}\n{heading(self.names)}", flush=True)

    def row(self, row: Row, work: Work, shapes: Shapes, wrap: Wrap | None = None) -> None:
        """Measure a row, in heats that fit into memory, print it and save it."""
        dtype = np.dtype(row.dtype)
        able = []
        for name in self.names:
            progress(f"{row.section}: {row.work} {row.dtype} {row.case}, {row.threads} threads: {name}")
            if why := peers.objection(self.found.peers[name], work, dtype):
                row.absent[name] = why
            else:
                able.append(self.found.peers[name])
        length = sum(int(np.prod(shape)) for shape in shapes)
        for heat in heats(able, work, length * dtype.itemsize):
            values = random_arrays(shapes, dtype)
            make = [partial(entrants, peer, work, values, wrap) for peer in heat]
            seconds = self.plan.seconds / 2 if len(able) > len(heat) else self.plan.seconds
            row.add(in_sittings(make, length * dtype.itemsize, seconds, self.plan.rounds))
        progress("")
        print(row.line(self.names), flush=True)
        self.results.add(row)
        self.save()


def entrants(peer: Peer, work: Work, values: list[np.ndarray[Any, Any]], wrap: Wrap | None) -> dict[str, Entrant]:
    """What a peer is timed as, on arrays of its own."""
    contestant = peer.make(work, values, values)
    return wrap(peer, contestant) if wrap else {peer.name: plain(contestant)}


def in_sittings(
    make: list[Callable[[], dict[str, Entrant]]],
    size: int,
    seconds: float,
    rounds: int,
    sittings: int | None = None,
    rest: float = REST,
) -> dict[str, Times]:
    """Time competitors that are made anew in each sitting, always by another one first.

    Where large arrays lie, on a virtual machine above all, can make a third of the time, and who comes first tends to
    get the same place.
    """
    if sittings is None:
        sittings = SITTINGS if size > CACHED else 1
    rounds = max(-(-rounds // sittings), FEWEST)
    found: dict[str, Times] = {}
    for sitting in range(sittings):
        first = sitting * len(make) // sittings
        made = [maker() for maker in make[first:] + make[:first]]
        competitors = {name: entrant for entrants in made for name, entrant in entrants.items()}
        del made
        for name, times in interleave(competitors, seconds / sittings, rounds, rest).items():
            found[name] = Times(found[name].rounds + times.rounds) if name in found else times
        del competitors
        gc.collect()
    return found


def plain(contestant: Contestant) -> Entrant:
    return Entrant(contestant.step, before=contestant.before)


def heats(able: list[Peer], work: Work, size: int) -> Iterator[list[Peer]]:
    """Peers in groups that fit into three quarters of the memory, each with lrcore and the roof."""
    budget = 0.75 * machine.free_memory() - 2 * size
    anchors = [peers.LRCORE, peers.ROOF]
    fixed = len(anchors) * (2 + work.states) * size
    heat: list[Peer] = []
    used = fixed
    for peer in able:
        held = (2 + work.states) * size
        if heat and used + held + peer.temporaries * size > budget:
            yield anchors + heat
            heat, used = [], fixed
        heat.append(peer)
        used += held
    yield anchors + heat


def random_arrays(shapes: Shapes, dtype: np.dtype[Any]) -> list[np.ndarray[Any, Any]]:
    """Values near 1, of either sign. They serve as weights and as gradients: everybody copies them."""
    rng = np.random.default_rng(0)
    pool = rng.choice(np.array([-1, 1], dtype), MI) * rng.uniform(0.5, 1.5, MI).astype(dtype)
    return [np.resize(pool, shape) for shape in shapes]


def progress(text: str) -> None:
    """One line that is written over, where somebody can see it."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text[:110]}")
        sys.stderr.flush()


def named(length: int) -> str:
    return f"{length // MI} Mi" if length >= MI else f"{length // KI} Ki" if length >= KI else str(length)


def compare(
    bench: Bench,
    name: str,
    shapes: Shapes,
    pair: tuple[Make, Make] | MakeBoth,
    most: float,
    case: str = "stages",
    sittings: int | None = None,
    rest: float = REST,
) -> None:
    """Time two calls in turns, on equal arrays or on the same ones, and print their ratio beside what it may be."""
    progress(f"{case}: {name}")
    values = random_arrays(shapes, np.dtype(np.float32))
    try:
        if isinstance(pair, tuple):
            make = [partial(_entrant, key, one, values) for key, one in zip(("lrcore", "other"), pair, strict=True)]
        else:
            make = [partial(_both, pair, values)]
        size = sum(array.nbytes for array in values)
        times = in_sittings(make, size, bench.plan.seconds, bench.plan.rounds, sittings, rest)
    except ImportError as error:
        print(f"  {name:22} not measured: {error}")
        return
    ours, theirs = times["lrcore"], times["other"]
    ratio = ours.over(theirs)
    progress("")
    goal = "" if most == math.inf else f"  ≤ {most}{'' if ratio.median <= most else '  missed'}"
    print(f"  {name:34} {ours.median * 1e3:9.3f} {theirs.median * 1e3:9.3f}   {ratio!s:22}{goal}", flush=True)
    found = {"work": f"AdamW, {name}", "case": case, "goal": None if most == math.inf else most, "seconds": ours.median}
    found |= {"peer_seconds": theirs.median, "ratio": ratio.median, "ratio_quartiles": ratio.quartiles}
    bench.results.goals.append(found)


def _entrant(key: str, make: Make, values: list[np.ndarray[Any, Any]]) -> dict[str, Entrant]:
    return {key: Entrant(make(values))}


def _both(make: MakeBoth, values: list[np.ndarray[Any, Any]]) -> dict[str, Entrant]:
    ours, other = make(values)
    return {"lrcore": Entrant(ours), "other": Entrant(other)}


def new_row(bench: Bench, section: str, work: Work, case: str, dtype: str, shapes: Shapes) -> Row:
    weights = sum(int(np.prod(shape)) for shape in shapes)
    return Row(section, work.name, case, dtype, bench.plan.threads, weights, work.streams())


def sizes(bench: Bench) -> None:
    """Every optimizer on one array."""
    bench.title("one array")
    for name in bench.plan.works:
        for dtype in bench.plan.dtypes:
            for size in bench.plan.sizes:
                row = new_row(bench, "sizes", WORKS[name], named(size), dtype, [(size,)])
                bench.row(row, WORKS[name], [(size,)])


def small(bench: Bench) -> None:
    """Many arrays of 16 weights: what a step costs beside arithmetic."""
    bench.title("n arrays of 16 weights")
    for count in (1, 2, 10, 100):
        row = new_row(bench, "small", WORKS["AdamW"], f"{count} × 16", "float32", [(16,)] * count)
        bench.row(row, WORKS["AdamW"], [(16,)] * count)


def models(bench: Bench) -> None:
    """Lists of tensors, as real models have them."""
    bench.title("models")
    for model in bench.plan.models:
        for name in ("AdamW", "SGD momentum"):
            row = new_row(bench, "models", WORKS[name], model, "float32", MODELS[model])
            bench.row(row, WORKS[name], MODELS[model])


def cold(bench: Bench) -> None:
    """A matrix product between the steps: NumPy's, torch's, then each library's own, whose threads are awake then."""
    size = product_size()
    torchs = next((peer.product for peer in bench.found.peers.values() if peer.name.startswith("torch")), None)
    between = {"NumPy's": lambda _: numpy_product(size)}
    if torchs:
        between["torch's"] = lambda _: torchs(size)
    between["its own"] = lambda peer: product_of(peer, size)
    short = {"NumPy's": "NumPy", "torch's": "torch", "its own": "own"}
    for whose, product in between.items():
        bench.title(f"cold: only the step is timed; before it a product of two {size} × {size} matrices, {whose}")

        def wrap(peer: Peer, contestant: Contestant, product: Callable[..., Any] = product) -> dict[str, Entrant]:
            return {peer.name: Entrant(contestant.step, before=both(contestant.before, product(peer)))}

        for length in (16 * KI, 256 * KI, 4 * MI):
            if length <= max(bench.plan.sizes):
                case = f"{named(length)} {short[whose]}"
                row = new_row(bench, "cold", WORKS["AdamW"], case, "float32", [(length,)])
                bench.row(row, WORKS["AdamW"], [(length,)], wrap)


def both(first: Callable[[], object] | None, second: Callable[[], object]) -> Callable[[], object]:
    return second if first is None else lambda: (first(), second())


def product_of(peer: Peer, size: int) -> Callable[[], object]:
    """The matrix product of a peer's own library; NumPy's for those that work on its arrays."""
    return peer.product(size) if peer.product else numpy_product(size)


def numpy_product(size: int) -> Callable[[], object]:
    left, right, out = (np.ones((size, size), np.float32) for _ in range(3))
    return lambda: np.matmul(left, right, out=out)


def product_size() -> int:
    """The size of a square matrix whose product takes about 2 ms."""
    size = 256
    while size < 4096:
        product = numpy_product(size)
        if best_of_five(product) > PRODUCT_SECONDS:
            break
        size += 64
    return size


def best_of_five(call: Callable[[], object]) -> float:
    """Seconds of a call, the least of five: one that was interrupted says nothing."""
    marks = [(call(), time.perf_counter())[1] for _ in range(6)]
    return min(end - start for start, end in pairwise(marks))


def scaling(bench: Bench) -> None:
    """One thread against more, in the same rounds, warm and after a matrix product."""
    counts = sorted({1, *(2**k for k in range(1, 10) if 2**k < bench.plan.threads), bench.plan.threads})
    matrix = product_size()

    def wrap(peer: Peer, contestant: Contestant) -> dict[str, Entrant]:
        if peer.set_threads is None:
            return {}
        entrants = {}
        before = product_of(peer, matrix) if cold else contestant.before
        for count in counts:
            name = peer.name if count == bench.plan.threads else f"{peer.name} × {count}"
            enter = lambda count=count: peer.set_threads(count)  # noqa: E731
            entrants[name] = Entrant(contestant.step, enter, before)
        return entrants

    for cold in (False, True):
        bench.title(
            f"scaling, {'a matrix product before each step' if cold else 'warm'}; see the JSON file for the peers"
        )
        for size in bench.plan.sizes:
            row = new_row(
                bench, "scaling cold" if cold else "scaling", WORKS["AdamW"], named(size), "float32", [(size,)]
            )
            bench.row(row, WORKS["AdamW"], [(size,)], wrap)
            ours = [f"{row.cells[name]['ratio']:.3f}" for c in counts[:-1] if (name := f"lrcore × {c}") in row.cells]
            print(f"{'':21}{'of one thread, …':>16} {' '.join(ours)}")
    lrcore.set_num_threads(bench.plan.threads)


SECTIONS = {"sizes": sizes, "models": models, "small": small, "cold": cold, "scaling": scaling}
