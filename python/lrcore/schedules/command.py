"""``python -m lrcore schedule``: values, plots and CSV files of a schedule given as text."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lrcore._optional import matplotlib
from lrcore.schedules.expression import evaluate
from lrcore.schedules.plotting import STEPS, phases, plot, preview, shown_steps, to_csv

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from lrcore.schedules.schedule import Schedule

# The most steps that are shown, and the most rows of the table.
_MOST_STEPS = 10**7
_MOST_ROWS = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "expressions",
        metavar="EXPRESSION",
        nargs="+",
        help="a schedule as in Python, 'Cosine(0.1, steps=100).warmup(10)', or the JSON of one; nothing is executed",
    )
    parser.add_argument("--plot", metavar="FILE", help="draw all of them into a .png, .svg, .pdf, …, by matplotlib")
    parser.add_argument("--csv", metavar="FILE", help="write every step and value; - is the standard output, alone")
    parser.add_argument(
        "--steps",
        metavar="N",
        type=int,
        help=f"how many steps are shown: the length and a tenth more, or {STEPS}, by default; at most {_MOST_STEPS:,}",
    )


def run(given: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Read, draw, write and print; return the exit status."""
    if given.steps is not None and not 1 <= given.steps <= _MOST_STEPS:
        parser.error(f"argument --steps: must be in [1, {_MOST_STEPS}], got {given.steps}")
    if given.csv and len(given.expressions) > 1:
        parser.error(f"argument --csv: is for one schedule, got {len(given.expressions)}")
    try:
        schedules = [evaluate(text) for text in given.expressions]
        steps = given.steps or _default_steps(schedules)
        report = "\n\n".join(
            "\n".join(_lines(schedule, given.steps or _default_steps([schedule]))) for schedule in schedules
        )
        if given.plot:
            _draw(schedules, steps, given.plot)
        if given.csv:
            _write(schedules[0], steps, given.csv)
    except BrokenPipeError:
        raise
    except RecursionError:
        parser.error("this is nested too deeply")
    except (ImportError, OSError, TypeError, ValueError) as error:
        parser.error(str(error))
    if given.csv != "-":
        print(report)  # noqa: T201
    return 0


def _default_steps(schedules: Sequence[Schedule]) -> int:
    return min(shown_steps("schedule", schedules, None), _MOST_STEPS)


def _draw(schedules: Sequence[Schedule], steps: int, path: str) -> None:
    figure = matplotlib("matplotlib.figure").Figure(figsize=(8.0, 4.5), layout="constrained")
    axes = plot(*schedules, steps=steps, ax=figure.subplots())
    if len(schedules) == 1:
        axes.set_title(repr(schedules[0]), fontsize="small", wrap=True)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def _write(schedule: Schedule, steps: int, path: str) -> None:
    if steps == _MOST_STEPS < (schedule.length or 0):
        raise ValueError(f"argument --csv: {schedule.length} steps are too many, at most {_MOST_STEPS} are written")
    to_csv(schedule, sys.stdout if path == "-" else path, steps)


def _lines(schedule: Schedule, steps: int) -> Iterator[str]:
    """Yield the printed lines of a schedule."""
    yield repr(schedule)
    yield "no length" if schedule.length is None else f"length {schedule.length}"
    yield preview(schedule, steps)
    rows = _rows(schedule, steps)
    width = max(map(len, ["step", *map(str, rows)]))
    yield f"{'step':>{width}}  value"
    for step, note in rows.items():
        yield f"{step:>{width}}  {f'{schedule(step):.6g}':<12}  {note}".rstrip()


def _rows(schedule: Schedule, steps: int) -> dict[int, str]:
    """Return the steps of the table, with notes: where phases begin and end, and the last step."""
    begins = phases(schedule, steps)
    rows = {}
    if len(begins) < 2:
        last = min(schedule.length or steps - 1, steps - 1)
        rows = {last * quarter // 4: "" for quarter in range(5)}
    for name, at in begins if len(begins) > 1 else ():
        rows.setdefault(max(at - 1, 0), "")
        rows[at] = name
    rows.setdefault(0, "")
    rows.setdefault(steps - 1, "")
    if schedule.length is not None and schedule.length < steps:
        rows.setdefault(max(schedule.length - 1, 0), "")
        rows[schedule.length] = "the end, from here on" if schedule.length else "from here on"
    chosen = sorted(rows)
    if len(chosen) > _MOST_ROWS:
        chosen = [*chosen[: _MOST_ROWS - 2], *chosen[-2:]]
    return {step: rows[step] for step in chosen}
