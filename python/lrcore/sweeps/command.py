"""``python -m lrcore sweep``: a sweep from the shell."""

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
_FORMS = "a,b,c or log:FIRST:LAST:COUNT, or to draw from, loguniform:LOW:HIGH or uniform:LOW:HIGH"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("function", metavar="FILE:FUNCTION", help="a Python file, and the function in it that trains")
    parser.add_argument(
        "--space",
        metavar="NAME=VALUES",
        action="append",
        default=[],
        help=f"values of an argument: {_FORMS}; once for each argument",
    )
    parser.add_argument("--seeds", metavar="N", type=int, default=3, help="seeds for each setting (default 3)")
    parser.add_argument(
        "--method", choices=METHODS, help="which settings are tried (default grid, or random with --trials)"
    )
    parser.add_argument("--trials", metavar="N", type=int, help="how many settings are drawn")
    parser.add_argument(
        "--budget", metavar="N", type=_budget, help="the budget of a run; LEAST:LARGEST for successive halving"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of what is drawn (default 0)")
    parser.add_argument("--results", metavar="FILE", help="record the runs in an SQLite file, and go on from it")
    parser.add_argument("--workers", metavar="N", type=int, help="processes (default one for each core); 0 makes none")
    parser.add_argument("--maximize", action="store_true", help="more is better")
    parser.add_argument("--retry-failed", action="store_true", help="do runs again that failed before")


def run(given: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Run the sweep and print its table; return the exit status: 1 if no run has finished."""
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
    """Return a function of a file, imported so that other processes can import it as well."""
    file, _, name = text.rpartition(":")
    path = Path(file).resolve()
    if not file or not name.isidentifier() or path.suffix != ".py":
        raise ValueError(f"must be FILE.py:FUNCTION, got {brief(text)}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {file!r}")
    sys.path.insert(0, str(path.parent))
    module = importlib.import_module(path.stem)
    if module.__file__ is None or Path(module.__file__).resolve() != path:
        raise ValueError(f"{file!r} has the name of another module, {module.__name__!r}; call it something else")
    function: Train | None = getattr(module, name, None)
    if function is None:
        raise ValueError(f"{file!r} has no function {name!r}")
    return function


def _values(text: str) -> Any:
    """Return the values that a text names; as Python writes them, [a, b] and logspace(a, b, n), they will do too."""
    if found := re.fullmatch(rf"({'|'.join(_RANGES)})(?::(.*)|\((.*)\))", text):
        kind, colons, commas = found.groups()
        parts = commas.split(",") if colons is None else colons.split(":")
        make, count = _RANGES[kind]
        if len(parts) != count:
            raise ValueError(f"{kind}: takes {count} numbers, got {brief(text)}")
        return make(*(_value(part) for part in parts))  # type: ignore[operator]  # they say what is wrong
    inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if re.search(r"[][(){}]", inside):
        raise ValueError(f"values must be {_FORMS}, without brackets within, got {brief(text)}")
    return [_value(part) for part in inside.split(",")] if inside else []


def _value(text: str) -> Any:
    """Return a number, true, false, null or a string in quotes as JSON or Python has them, any other text as it is."""
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
