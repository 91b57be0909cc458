"""The command ``python -m lrcore``."""

from __future__ import annotations

import argparse
import functools
import io
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

import lrcore

if TYPE_CHECKING:
    from collections.abc import Sequence


# The module of each command, and what it prints.
COMMANDS = {
    "info": ("lrcore.info", "versions, instruction sets, threads, CPU, optional packages"),
    "bench": ("lrcore.bench.command", "the speed of lrcore, NumPy, PyTorch and the memory, in about a minute"),
    "schedule": ("lrcore.schedules.command", "the values, the phases and a plot of schedules"),
    "sweep": ("lrcore.sweeps.command", "the results of a function over a grid of settings and several seeds"),
}
INTERRUPTED = 130  # the exit status of a process ended by Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 if it failed, 2 for invalid arguments, or 130 after Ctrl-C.

    If the reader closes the pipe early, as ``head`` does, the status is 0.
    """
    try:
        try:
            return _run(arguments)
        finally:
            # At the interpreter's exit an error would print a traceback.
            _flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return 0
    except OSError as error:
        _drop_output()
        with suppress(OSError):
            print(f"python -m lrcore: error: {error}", file=sys.stderr)  # noqa: T201
        return 1


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _drop_output() -> None:
    """Discard output that can't be written, since the interpreter flushes again at its exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(arguments: Sequence[str] | None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="python -m lrcore",
        description="lrcore on this machine: information, benchmarks, schedules, and sweeps.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"lrcore {lrcore.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        one = commands.add_parser(name, help=summary, description=f"Print {summary}.", allow_abbrev=False)
        if name in arguments:  # a command needs only its own module
            command = import_module(module)
            command.add_arguments(one)
            one.set_defaults(run=functools.partial(command.run, parser=one))
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        return 0
    # A pipe may have an encoding without blocks, × and other characters.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    status: int = given.run(given)
    return status


if __name__ == "__main__":
    sys.exit(main())
