"""The command line: ``python -m lrcore``."""

from __future__ import annotations

import argparse
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import lrcore
from lrcore import info
from lrcore.bench import command
from lrcore.schedules import command as schedule_command
from lrcore.sweeps import command as sweep_command

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 if it failed, 2 for bad arguments, or 130 after Ctrl-C.

    A reader that stops early, as ``head`` does, has seen what it wanted: the status is 0.
    """
    try:
        try:
            return _run(arguments)
        finally:
            # Here, and not at the interpreter's exit, which would print a traceback.
            _flush()
    except KeyboardInterrupt:
        return command.INTERRUPTED
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
    """Send what can't be written to nowhere, since the interpreter tries again when it exits."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lrcore",
        description="lrcore on this machine: what it found, how fast it is, what a schedule does, and sweeps.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"lrcore {lrcore.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_info(commands)
    _add_bench(commands)
    _add_schedule(commands)
    _add_sweep(commands)
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        return 0
    # What is piped into another program may meet an encoding without blocks, × and the like.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    status: int = given.run(given)
    return status


def _add_info(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    summary = "versions, instruction sets, threads and why, CPU, optional packages"
    parser = commands.add_parser("info", help=summary, description=f"Print {summary}.", allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_info)


def _info(given: argparse.Namespace) -> int:
    print(info.as_json() if given.json else info.as_text())  # noqa: T201
    return 0


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    summary = "lrcore against NumPy, PyTorch and what the memory can do, in about a minute"
    parser = commands.add_parser("bench", help=summary, description=f"Measure {summary}.", allow_abbrev=False)
    command.add_arguments(parser)
    parser.set_defaults(run=lambda given: command.run(given, parser))


def _add_schedule(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    summary = "the values, the phases and the picture of schedules"
    parser = commands.add_parser("schedule", help=summary, description=f"Show {summary}.", allow_abbrev=False)
    schedule_command.add_arguments(parser)
    parser.set_defaults(run=lambda given: schedule_command.run(given, parser))


def _add_sweep(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    summary = "a training over a grid of settings and several seeds"
    parser = commands.add_parser("sweep", help=summary, description=f"Run {summary}.", allow_abbrev=False)
    sweep_command.add_arguments(parser)
    parser.set_defaults(run=lambda given: sweep_command.run(given, parser))


if __name__ == "__main__":
    sys.exit(main())
