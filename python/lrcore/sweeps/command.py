"""The command ``python -m lrcore sweep``."""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrcore._messages import brief
from lrcore.sweeps.space import logspace, loguniform, uniform
from lrcore.sweeps.sweeping import METHODS, Interrupted, sweep

if TYPE_CHECKING:
    import argparse

    from lrcore.sweeps.objective import Train

_RANGES = {"log": (logspace, 3), "logspace": (logspace, 3), "loguniform": (loguniform, 2), "uniform": (uniform, 2)}
_FORMS = "a,b,c or log:FIRST:LAST:COUNT, or for random search, loguniform:LOW:HIGH or uniform:LOW:HIGH"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("function", metavar="FILE:FUNCTION", help="a Python file, and a function in it")
    parser.add_argument(
        "--space",
        metavar="NAME=VALUES",
        action="append",
        default=[],
        help=f"values of an argument: {_FORMS}; once per argument",
    )
    parser.add_argument("--seeds", metavar="N", type=int, default=3, help="seeds per setting (default 3)")
    parser.add_argument("--method", choices=METHODS, help="the search method (default grid, or random with --trials)")
    parser.add_argument("--trials", metavar="N", type=int, help="the number of random settings")
    parser.add_argument(
        "--budget", metavar="N", type=_budget, help="the budget of a run; SMALLEST:LARGEST for successive halving"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="the seed of random search (default 0)")
    parser.add_argument("--results", metavar="FILE", help="record the runs in an SQLite file, and resume from it")
    parser.add_argument(
        "--workers", metavar="N", type=int, help="the number of processes (default one per core); 0 uses none"
    )
    parser.add_argument("--maximize", action="store_true", help="a larger objective is better")
    parser.add_argument("--retry-failed", action="store_true", help="repeat runs that failed before")


def run(given: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Run the sweep and print its table; return the exit status, 1 if no run finished."""
    space: dict[str, Any] = {}
    for text in given.space:
        name, equals, values = text.partition("=")
        if not equals or name in space:
            parser.error(f"argument --space: must be NAME=VALUES, once for each name, got {brief(text)}")
        try:
            space[name] = _values(values)
        except (TypeError, ValueError) as error:
            parser.error(f"argument --space: {name}: {error}")
    try:
        found = sweep(
            _function(given.function), space, given.seeds,
            method=given.method, trials=given.trials, budget=given.budget, results=given.results,
            workers=given.workers, minimize=not given.maximize, retry_failed=given.retry_failed, seed=given.seed,
        )  # fmt: skip
    except Interrupted as interrupted:
        print(interrupted.results)  # noqa: T201
        raise
    except BrokenPipeError:
        raise
    except (ImportError, OSError, TypeError, ValueError) as error:
        parser.error(str(error))
    except RuntimeError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    print(found)  # noqa: T201
    return 0 if "finished" in found.statuses else 1


def _function(text: str) -> Train:
    """Import a function of a file, so that worker processes can import it too."""
    file, _, name = text.rpartition(":")
    path = Path(file).resolve()
    if not file or not name.isidentifier() or path.suffix != ".py":
        raise ValueError(f"must be FILE.py:FUNCTION, got {brief(text)}")
    if not path.is_file():
        raise FileNotFoundError(f"FILE must exist, got {file!r}")
    sys.path.insert(0, str(path.parent))
    module = importlib.import_module(path.stem)
    if module.__file__ is None or Path(module.__file__).resolve() != path:
        raise ValueError(f"FILE must not have the name of another module, {module.__name__!r}, got {file!r}")
    function: Train | None = getattr(module, name, None)
    if function is None:
        raise ValueError(f"FUNCTION must be in {file!r}, got {name!r}")
    return function


def _values(text: str) -> Any:
    """Parse values; Python syntax, [a, b] and logspace(a, b, n), is accepted too."""
    if found := re.fullmatch(rf"({'|'.join(_RANGES)})(?::(.*)|\((.*)\))", text):
        kind, colons, commas = found.groups()
        parts = commas.split(",") if colons is None else colons.split(":")
        make, count = _RANGES[kind]
        if len(parts) != count:
            raise ValueError(f"{kind}: takes {count} numbers, got {brief(text)}")
        return make(*(_value(part) for part in parts))  # type: ignore[operator]  # its errors are clear
    inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if re.search(r"[][(){}]", inside):
        raise ValueError(f"values must be {_FORMS}, without brackets within, got {brief(text)}")
    return [_value(part) for part in inside.split(",")] if inside else []


def _value(text: str) -> Any:
    """Parse a number, true, false, null or a quoted string, in JSON or Python syntax; other text stays."""
    text = text.strip()
    for read in (json.loads, ast.literal_eval, float):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    return text


def _budget(text: str) -> int | tuple[int, int]:
    least, colon, largest = text.partition(":")
    return (int(least), int(largest)) if colon else int(text)
