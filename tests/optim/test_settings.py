"""The number of threads and the SIMD level, set by call and by environment; neither changes a bit of the result."""

import os
import subprocess
import sys

import pytest

import lrcore

PATIENCE = 60.0  # seconds after which a process counts as hanging


@pytest.mark.parametrize("threads", [0, -1, 257, 2**31, 2**63, 2**70, -(2**70)])
def test_a_number_of_threads_out_of_range_is_refused(threads):
    before = lrcore.get_num_threads()
    with pytest.raises(ValueError, match=rf"^the number of threads must be .*in \[1, 256\], got {threads}$"):
        lrcore.set_num_threads(threads)
    assert lrcore.get_num_threads() == before


@pytest.mark.parametrize("threads", [1.0, "2", None])
def test_a_number_of_threads_is_a_whole_number(threads):
    with pytest.raises(TypeError):
        lrcore.set_num_threads(threads)


@pytest.mark.parametrize("level", ["", "AVX2", "sse9", "avx2 "])
def test_an_unknown_level_is_refused_and_the_available_ones_are_named(level):
    before = lrcore.get_simd_level()
    with pytest.raises(
        ValueError, match=r'^the SIMD level must be one of "baseline".* on this machine, got "'
    ) as caught:
        lrcore.set_simd_level(level)
    assert all(f'"{known}"' in str(caught.value) for known in lrcore.simd_levels())
    assert lrcore.get_simd_level() == before


def test_every_level_and_number_of_threads_can_be_set():
    for level in lrcore.simd_levels():
        lrcore.set_simd_level(level)
        assert lrcore.get_simd_level() == level
    for threads in (1, 2, 17, 256):
        lrcore.set_num_threads(threads)
        assert lrcore.get_num_threads() == threads


PRINT = "import lrcore; print(lrcore.get_num_threads(), lrcore.get_simd_level())"


def started(code=PRINT, **environment):
    """Runs Python with only these settings."""
    others = {key: value for key, value in os.environ.items() if not key.startswith("LRCORE_")}
    command = [sys.executable, "-c", code]
    return subprocess.run(  # noqa: S603 (it is this Python)
        command, env=others | environment, capture_output=True, text=True, check=False, timeout=PATIENCE
    )


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "3", "256"])
@pytest.mark.parametrize("level", ["baseline", lrcore.simd_levels()[-1]])
def test_settings_come_from_the_environment(threads, level):
    assert started(LRCORE_NUM_THREADS=threads, LRCORE_SIMD=level).stdout.split() == [threads, level]


def test_the_defaults_are_the_available_cores_and_the_best_level():
    threads, level = started(LRCORE_NUM_THREADS="", LRCORE_SIMD="").stdout.split()
    assert 1 <= int(threads) <= (os.cpu_count() or 1)
    assert level == lrcore.simd_levels()[-1]
    if hasattr(os, "sched_setaffinity"):
        one = f"import os; os.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}]); {PRINT}"
        assert started(one).stdout.split()[0] == "1"


BAD = [("LRCORE_NUM_THREADS", value) for value in ("0", "-1", "257", "two", "1.5", "1e2", "9" * 30)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), [*BAD, ("LRCORE_SIMD", "sse9"), ("LRCORE_SIMD", "AVX2")])
def test_an_invalid_setting_in_the_environment_is_named(name, value):
    outcome = started(**{name: value})
    assert outcome.returncode == 1
    last = outcome.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ValueError: {name}={value!r}: ")
    assert "must be" in last
