"""How long it takes to create, step, save and load an optimizer of many small parameters.

Prints a table of seconds, a row for each number of parameters. All times are linear in this number.

    python benches/loading.py [parameters ...]
"""

from __future__ import annotations

import copy
import pickle
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import lrcore

if TYPE_CHECKING:
    from collections.abc import Callable

COUNTS = (1_000, 10_000, 100_000)


def timed(seconds: dict[str, float], name: str, call: Callable[[], Any]) -> Any:
    """Record the time of a call and return its result."""
    start = time.perf_counter()
    result = call()
    seconds[name] = time.perf_counter() - start
    return result


def arrays(count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return parameters of four weights, and gradients."""
    names = [f"layers.{i}.bias" for i in range(count)]
    return {name: np.zeros(4, np.float32) for name in names}, {name: np.ones(4, np.float32) for name in names}


def of_parameters(count: int) -> dict[str, float]:
    """Return the seconds of each operation on an optimizer of one group with this many parameters."""
    seconds: dict[str, float] = {}
    params, grads = arrays(count)
    make = lambda: lrcore.AdamW(params, no_decay=["bias"])  # noqa: E731
    opt = timed(seconds, "construct", make)
    timed(seconds, "first step", lambda: opt.step(grads))
    timed(seconds, "step", lambda: opt.step(grads))
    time_state(seconds, opt)
    timed(seconds, "deepcopy", lambda: copy.deepcopy(opt))
    timed(seconds, "summary", lambda: str(opt.summary()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step.safetensors"
        timed(seconds, "save", lambda: lrcore.save(path, opt))
        timed(seconds, "load", lambda: lrcore.load(path, opt))
    return seconds


def time_state(seconds: dict[str, float], opt: lrcore.Optimizer) -> None:
    """Record state dicts and pickles, both ways."""
    state = timed(seconds, "state_dict", opt.state_dict)
    timed(seconds, "load_state_dict", lambda: opt.load_state_dict(state))
    data = timed(seconds, "pickle", lambda: pickle.dumps(opt))
    timed(seconds, "unpickle", lambda: pickle.loads(data))  # noqa: S301


def of_groups(count: int) -> dict[str, float]:
    """Return the seconds of each operation on an optimizer of this many groups of one parameter."""
    seconds: dict[str, float] = {}
    params, grads = arrays(count)
    groups = [{"params": {name: array}} for name, array in params.items()]
    opt = lrcore.AdamW(groups[:1])

    def add() -> None:
        for group in groups[1:]:
            opt.add_param_group(group)

    timed(seconds, "construct", lambda: lrcore.AdamW(groups))
    timed(seconds, "add_param_group", add)
    timed(seconds, "first step", lambda: opt.step(grads))
    time_state(seconds, opt)
    return seconds


def show(unit: str, counts: list[int], measure: Callable[[int], dict[str, float]]) -> None:
    """Print a table: a row for each count, a column for each operation."""
    for number, count in enumerate(counts):
        seconds = measure(count)
        if number == 0:
            print(f"{unit:>12}" + "".join(f"{name:>17}" for name in seconds))
        print(f"{count:>12,}" + "".join(f"{value:>17.4f}" for value in seconds.values()), flush=True)


def main() -> None:
    """Measure and print both tables."""
    counts = [int(count) for count in sys.argv[1:]] or list(COUNTS)
    show("parameters", counts, of_parameters)
    print()
    show("groups", [count // 10 for count in counts], of_groups)


if __name__ == "__main__":
    main()
