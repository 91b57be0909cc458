"""Fixtures that the tests share."""

import pytest

import lrcore


@pytest.fixture(autouse=True)
def _restore_settings():
    """Each test begins and ends with the settings that it found."""
    level, threads = lrcore.get_simd_level(), lrcore.get_num_threads()
    yield
    lrcore.set_simd_level(level)
    lrcore.set_num_threads(threads)
