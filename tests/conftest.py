"""Fixtures that the tests share."""

import re

import pytest

import lrcore

ALL_SLOW = re.compile(r"^pytestmark = .*\bpytest\.mark\.slow\b", re.MULTILINE)


def pytest_ignore_collect(collection_path, config):
    """Leaves out files whose tests are all slow where those are not run, since some import for seconds."""
    if config.option.markexpr == "not slow" and collection_path.name.startswith("test_"):
        return True if ALL_SLOW.search(collection_path.read_text(encoding="utf-8")) else None
    return None


@pytest.fixture(autouse=True)
def _restore_settings():
    """Each test begins and ends with the settings that it found."""
    level, threads = lrcore.get_simd_level(), lrcore.get_num_threads()
    yield
    lrcore.set_simd_level(level)
    lrcore.set_num_threads(threads)
