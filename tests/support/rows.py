"""Tables of cases that run as one test: a pytest item for each of thousands of rows takes longer than the rows."""

from __future__ import annotations

import functools
import inspect
import traceback

import pytest


def each(names, rows, ids=None):
    """Run a test for every row, and fail with every row that does not pass. Stacks like ``pytest.mark.parametrize``.

    Args:
        names: The argument names, as a string with commas or a sequence.
        rows: Values for one name, or tuples of values for several; or a function that returns them, of the arguments
            that the test gets from pytest, each by name.
        ids: Labels of the rows, or a function from a row's values to its label; None is the repr.
    """
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    fixed = None if callable(rows) else list(rows)

    def decorate(test):
        @functools.wraps(test)
        def run(**given):
            failed, skipped = [], 0
            table = list(rows(**given)) if fixed is None else fixed
            for i, row in enumerate(table):
                values = (row,) if len(names) == 1 else tuple(row)
                try:
                    test(**given, **dict(zip(names, values, strict=True)))
                except pytest.skip.Exception:
                    skipped += 1
                except (Exception, pytest.fail.Exception) as error:
                    failed.append(f"{_label(i, values, ids)}: {_summary(error)}")
            if failed:
                pytest.fail(f"{len(failed)} of {len(table)} rows:\n" + "\n".join(failed), pytrace=False)
            if table and skipped == len(table):
                pytest.skip("every row is skipped")

        arguments = inspect.signature(test).parameters
        run.__signature__ = inspect.Signature([one for name, one in arguments.items() if name not in names])
        return run

    return decorate


def _label(i, values, ids):
    if ids is None:
        return f"row {i} {', '.join(map(repr, values))}"
    return f"row {i} [{'-'.join(map(str, map(ids, values))) if callable(ids) else ids[i]}]"


def _summary(error):
    """Return the error, and the line of the test that raised it."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "/tests/" in frame.filename and frame.filename != __file__
    ]
    where = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}: {frames[-1].line})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
