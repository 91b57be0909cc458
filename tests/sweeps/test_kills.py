"""No run is lost and none runs twice: sweeps that are killed, that share a file, that are interrupted."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from lrcore import sweeps
from lrcore.sweeps import lease
from lrcore.sweeps.objective import Outcome, Run
from lrcore.sweeps.store import Store
from support import objectives
from support.sweep_script import SPACE

SCRIPT = Path(__file__).parent.parent / "support/sweep_script.py"
ENDED = ("finished", "diverged", "failed")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


def start(*arguments, log, **options):
    paths = os.pathsep.join([str(SCRIPT.parents[1]), *sys.path])
    environment = os.environ | {"SWEEP_LOG": str(log), "PYTHONPATH": paths}
    command = [sys.executable, "-W", "error", SCRIPT, *map(str, arguments)]
    # A shell that runs the tests in the background makes its children ignore SIGINT.
    restore_sigint = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "preexec_fn": restore_sigint}
    return subprocess.Popen(command, env=environment, **pipes, **options)  # noqa: S603


def begun(log):
    """Return how often each run was started."""
    if not log.exists():
        return Counter()
    lines = (line.split() for line in log.read_text(encoding="utf-8").splitlines())
    return Counter((float(lr), int(batch), int(seed)) for what, lr, batch, seed in lines if what == "begin")


def ended(file):
    try:
        return {(r["lr"], r["batch"], r["seed"]) for r in sweeps.load(file).rows if r["status"] in ENDED}
    except (FileNotFoundError, ValueError):  # it was killed before it created the file
        return set()


def undisturbed(function):
    results = sweeps.sweep(function, SPACE, workers=0, progress=False)
    return {(row["lr"], row["batch"], row["seed"], row["objective"], row["status"]) for row in results}


def parsed(output):
    rows = [line.split() for line in output.splitlines()]
    return {(float(lr), int(batch), int(seed), float(value), status) for lr, batch, seed, value, status, _ in rows}


@pytest.mark.slow
def test_a_sweep_that_is_killed_five_times_ends_with_the_same_table(tmp_path, monkeypatch):
    file, log = tmp_path / "sweep.sqlite", tmp_path / "log"
    rng = random.Random(0)  # noqa: S311
    interrupted = 0
    for _ in range(5):
        before, already = begun(log), ended(file)
        process = start("reference", file, 2, log=log)
        deadline = time.monotonic() + 20
        while begun(log) == before and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.35))
        process.kill()
        process.communicate(timeout=20)
        assert all(begun(log)[run] == before[run] for run in already)  # ended runs were not started again
        interrupted += len(begun(log) - before) - len(ended(file) - already)
    process = start("reference", file, 2, log=log)
    output, errors = process.communicate(timeout=60)
    assert errors == ""
    monkeypatch.setenv("SWEEP_LOG", str(tmp_path / "other"))
    assert parsed(output) == undisturbed(objectives.reference)
    rows = sweeps.load(file).rows
    assert len(rows) == 48
    # Only the runs in progress at a kill, at most two each time, were started again.
    assert sum(begun(log).values()) <= 48 + interrupted <= 48 + 2 * 5
    assert sum(row["attempts"] > 1 for row in rows) <= 2 * 5


@pytest.mark.slow
def test_two_processes_share_a_file_without_overlap(tmp_path):
    file, log = tmp_path / "sweep.sqlite", tmp_path / "log"
    both = [start("logged", file, 1, log=log) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [errors for _, errors in outputs] == ["", ""]
    first, second = (parsed(output) for output, _ in outputs)
    assert len(first) == 48
    assert first == second  # each waits for the other's runs
    assert set(begun(log).values()) == {1}
    assert len(begun(log)) == 48


@pytest.mark.slow
def test_a_process_takes_over_from_one_that_is_killed(tmp_path):
    file, log = tmp_path / "sweep.sqlite", tmp_path / "log"
    both = [start("logged", file, 1, log=log) for _ in range(2)]
    while len(begun(log)) < 10:
        time.sleep(0.01)
    both[0].kill()
    both[0].communicate(timeout=20)
    output, errors = both[1].communicate(timeout=60)
    assert errors == ""
    assert len(parsed(output)) == 48
    assert sum(begun(log).values()) <= 49


@pytest.mark.slow
def test_workers_end_with_the_sweep_that_is_killed(tmp_path):
    process = start("sleepy", tmp_path / "sweep.sqlite", 2, log=tmp_path / "log", start_new_session=True)
    wait_for(lambda: len(children(process.pid)) >= 3)  # and one of multiprocessing
    found = children(process.pid)
    process.kill()
    process.communicate(timeout=20)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in found))


@pytest.mark.slow
def test_an_interrupt_ends_a_sweep_and_keeps_finished_runs(tmp_path):
    file = tmp_path / "sweep.sqlite"
    process = start("sleepy", file, 2, log=tmp_path / "log", start_new_session=True)
    wait_for(lambda: file.exists() and sum(row["status"] == "finished" for row in rows_of(file)) == 4)
    found = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the whole process group
    output, errors = process.communicate(timeout=20)
    assert output == ""
    assert errors.splitlines()[-1] == "lrcore.sweeps.sweeping.Interrupted: the sweep was interrupted"
    assert errors.count("Traceback") == 1  # of the script, not of its workers
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in found))
    assert Counter(row["status"] for row in sweeps.load(file).rows) == {"finished": 4, "pending": 2}


def test_interrupted_has_the_results(monkeypatch):
    def train(x, seed):
        if x == 3:
            raise KeyboardInterrupt
        return x

    with pytest.raises(KeyboardInterrupt) as caught:
        sweeps.sweep(train, {"x": [1, 2, 3, 4]}, seeds=1, workers=0, progress=False)
    assert caught.value.results.statuses == {"finished": 2, "pending": 2}
    assert caught.value.results.best.settings == {"x": 1}


def test_ended_runs_are_not_run_again(tmp_path):
    file = tmp_path / "sweep.sqlite"
    options = {"seeds": 1, "results": file, "workers": 0, "progress": False}
    troubles = {"what": ["fine", "nan", "raise"]}
    first = sweeps.sweep(objectives.troubled, troubles, **options)
    again = sweeps.sweep(objectives.troubled, troubles, **options)
    assert first.rows == again.rows
    more = sweeps.sweep(objectives.troubled, {"what": ["text", "fine"]}, **options)
    assert [(row["what"], row["attempts"]) for row in more] == [("text", 1), ("fine", 1)]
    retried = sweeps.sweep(objectives.troubled, troubles, retry_failed=True, **options)
    assert [row["attempts"] for row in retried] == [1, 1, 2]
    assert len(sweeps.load(file)) == 4


def test_a_run_has_at_most_one_holder(tmp_path):
    file = tmp_path / "sweep.sqlite"
    runs = [Run({"x": x}, 0, x) for x in range(3)]
    with closing(Store(file, "train")) as first, closing(Store(file, "train")) as second:
        first.select(runs, retry=False)
        second.select(runs, retry=False)
        ours, theirs = first.claim(), second.claim()
        assert (ours[1], theirs[1], first.claim()[1], second.claim()) == (*runs, None)
        second.reclaim()
        assert second.claim() is None  # its holder is alive
        assert not second.finish(ours[0], Outcome("finished", 1.0))
        assert first.finish(ours[0], Outcome("finished", 2.0))
        first.release()
        assert second.claim()[1] == runs[2]
        assert second.count_ended() == 1


def test_a_dead_lease_holder_is_detected():
    me, now = lease.current(), time.time()
    assert not lease.is_gone(me, now)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = me.replace(f'"pid": {os.getpid()}', f'"pid": {process.pid}')
    assert lease.is_gone(other, now)  # the pid was reused
    process.communicate(b"\n")
    assert lease.is_gone(other, now)
    elsewhere = me.replace('"host": "', '"host": "other-')
    assert not lease.is_gone(elsewhere, now - lease.LEASE + 5)
    assert lease.is_gone(elsewhere, now - lease.LEASE - 5)


def rows_of(file):
    with closing(sqlite3.connect(file)) as database:
        try:
            return [{"status": status} for (status,) in database.execute("SELECT status FROM runs")]
        except sqlite3.OperationalError:
            return []


def children(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    if not path.exists():
        pytest.skip("needs Linux's list of children")
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text(encoding="ascii").split()]


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
