"""Runs and their processes: forked children, orphaned processes, locked files."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from lrcore import info, sweeps
from lrcore.sweeps import guardian, process_executor, store
from lrcore.sweeps.objective import LARGEST, Outcome, Run
from support import objectives
from sweeps.test_kills import start, wait_for

pytestmark = pytest.mark.slow

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@needs_fork
@pytest.mark.parametrize("where", ["a process", "here", "a thread"])
def test_a_forked_child_that_returns_is_not_a_run(where, tmp_path, capfd):
    options = {"a process": {"workers": 1}, "here": {"workers": 0}, "a thread": {"executor": ThreadPoolExecutor(1)}}
    space, file = {"lr": [1, 2, 3, 4]}, tmp_path / "sweep.sqlite"
    found = sweeps.sweep(objectives.forking, space, seeds=2, results=file, progress=False, **options[where])
    assert [(row["lr"], row["objective"], row["child"]) for row in found] == [
        (lr, float(lr), 1.0 if lr == 3 else 0.0) for _ in range(2) for lr in space["lr"]
    ]
    assert "in the child alone" in capfd.readouterr().err
    assert sweeps.load(file).rows == found.rows


def test_an_answer_to_another_request_is_ignored(monkeypatch):
    late = process_executor._Worker._receive
    stray = []

    def receive(self, number):
        if number == 3:  # stray answers, as from a process with a copy of the pipe
            stray.append(number)
            connection = self._pipe
            self._pipe = Doubled(connection, [(2, (True, "of another run")), (99, "of none")])
        return late(self, number)

    class Doubled:
        def __init__(self, pipe, first):
            self.pipe, self.first = pipe, first

        def recv(self):
            return self.first.pop(0) if self.first else self.pipe.recv()

        def __getattr__(self, name):
            return getattr(self.pipe, name)

    monkeypatch.setattr(process_executor._Worker, "_receive", receive)
    found = sweeps.sweep(objectives.sleepy, {"lr": [0.1, 0.2, 0.3]}, seeds=1, workers=1, progress=False)
    assert [row["objective"] for row in found] == [0.1, 0.2, 0.3]
    assert stray == [3]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a worker that holds the interpreter lock")
def test_a_killed_sweep_leaves_no_process(tmp_path):
    log = tmp_path / "log"
    process = start("holding", tmp_path / "sweep.sqlite", 2, log=log, start_new_session=True)
    try:
        wait_for(lambda: log.exists() and len(log.read_text(encoding="utf-8").splitlines()) == 2)
        pids = [int(pid) for line in log.read_text(encoding="utf-8").splitlines() for pid in line.split()]
        assert all(is_alive(pid) for pid in pids)
    finally:
        process.kill()
        process.communicate(timeout=20)
    wait_for(lambda: not any(map(is_alive, pids)))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes by their environment")
def test_processes_started_by_a_run_end_with_its_worker(tmp_path):
    file = tmp_path / "pid"

    def train(lr, seed):
        child = subprocess.Popen(["sleep", "300"], start_new_session=True)  # noqa: S607
        file.write_text(str(child.pid), encoding="utf-8")
        os.kill(os.getpid(), signal.SIGKILL)

    found = sweeps.sweep(train, {"lr": [1]}, seeds=1, workers=1, progress=False)
    assert found.rows[0]["reason"] == "its process was killed by SIGKILL"
    wait_for(lambda: not is_alive(int(file.read_text(encoding="utf-8"))))


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX")
def test_without_proc_process_groups_are_killed(monkeypatch, tmp_path):
    monkeypatch.setattr(guardian, "PROC", tmp_path)
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as process:  # noqa: S607
        assert guardian.kill("mark", [process.pid])
        assert process.wait(timeout=20) == -signal.SIGKILL
    assert not guardian.kill("mark", [process.pid])


def hold(file, release):
    """Lock a file from a thread until an event; return when it is locked."""
    locked = threading.Event()

    def lock():
        with closing(sqlite3.connect(file, isolation_level=None)) as database:
            database.execute("BEGIN EXCLUSIVE")
            locked.set()
            release.wait(60)
            database.execute("ROLLBACK")

    thread = threading.Thread(target=lock)
    thread.start()
    locked.wait()
    return thread


@pytest.mark.parametrize("action", ["always", "error"])
def test_a_locked_file_is_waited_for_and_nothing_is_lost(action, tmp_path, monkeypatch, capsys):
    file, threads, release, warn = tmp_path / "sweep.sqlite", [], threading.Event(), store._warn_or_print

    def warn_and_release(message):
        warn(message)
        release.set()

    monkeypatch.setattr(store, "_warn_or_print", warn_and_release)
    monkeypatch.setattr(store, "_TRY", 0.05)
    monkeypatch.setattr(store, "_PATIENCE", 0.1)

    def train(lr, seed):
        if lr == 2:
            threads.append(hold(file, release))
        return lr

    options = {"seeds": 1, "results": file, "workers": 0, "progress": False}
    if action == "error":
        found = sweeps.sweep(train, {"lr": [1, 2, 3]}, **options)
        told = capsys.readouterr().err
    else:
        with pytest.warns(RuntimeWarning) as caught:
            found = sweeps.sweep(train, {"lr": [1, 2, 3]}, **options)
        told = str(caught[0].message)
    threads[0].join()
    assert told.startswith(f"results: {file} could not be written for ")
    assert "database is locked" in told
    assert [row["objective"] for row in found] == [1.0, 2.0, 3.0]
    assert [row["attempts"] for row in sweeps.load(file)] == [1, 1, 1]


def test_a_result_after_the_lease_expired_is_written_if_the_run_is_pending(tmp_path):
    file = tmp_path / "sweep.sqlite"
    run = Run({"lr": 1}, 0, 0)
    with closing(store.Store(file, "train")) as first, closing(store.Store(file, "train")) as second:
        for each in (first, second):
            each.select([run], retry=False)
        row_id, _ = first.claim()
        second._free(first._holder)
        assert first.finish(row_id, Outcome("finished", 1.0))
        assert second.claim() is None


@pytest.mark.parametrize("value", [1e278, -1e278, 1.001e30, 1e400])
def test_a_huge_objective_counts_as_diverged(value):
    def train(lr, seed):
        return value if lr > 1 else LARGEST

    def reporting(lr, seed, report):
        report(value)
        return 1.0

    found = sweeps.sweep(train, {"lr": [1, 2]}, seeds=1, workers=0, progress=False)
    assert [(row["status"], row["objective"]) for row in found] == [("finished", 1e30), ("diverged", None)]
    assert found.rows[1]["reason"].startswith(f"the objective is {value:.4g}")
    row = sweeps.sweep(reporting, {"lr": [1]}, seeds=1, workers=0, progress=False).rows[0]
    assert row["status"] == "diverged"
    assert row["reason"].endswith("was reported at step 0")


def test_the_default_number_of_workers_respects_the_cgroup_quota(tmp_path, monkeypatch):
    monkeypatch.setattr(info, "affinity", lambda: 8)
    for quota, cores in ((None, 8), (16.0, 8), (3.5, 3), (0.2, 1)):
        monkeypatch.setattr(info, "cgroup_quota", lambda quota=quota: quota)
        assert info.usable_cores() == cores
    monkeypatch.setattr(os, "process_cpu_count", lambda: 5, raising=False)
    monkeypatch.undo()
    assert 1 <= info.usable_cores() <= (os.cpu_count() or 1)
