"""Ends `make bench-quick` with one line and an exit status if a step is slower than the baseline."""

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary():
    """Replace the traceback of the plugin, which has printed the details, by an exit status."""
    from pytest_benchmark.session import PerformanceRegression

    try:
        return (yield)
    except PerformanceRegression:
        pytest.exit("slower than the baseline", returncode=1)
