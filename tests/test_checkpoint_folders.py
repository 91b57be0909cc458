"""A folder of checkpoints: which is the newest, which stay, and what a save that was stopped leaves."""

import os
import re
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import lrcore
from lrcore import _safetensors, _whole_file

SECOND = 10**9


def save(folder, name="", **options):
    return lrcore.save(folder / f"{name}.safetensors" if name else folder, lrcore.SGD({"w": np.zeros(100)}), **options)


def at(path, seconds):
    os.utime(path, ns=(seconds * SECOND, seconds * SECOND))


def names(folder):
    return sorted(path.name.removesuffix(".safetensors") for path in folder.iterdir())


def test_those_that_were_saved_last_stay(tmp_path):
    params = {"w": np.zeros(1)}
    opt = lrcore.SGD(params)
    lrcore.save(tmp_path / "best.safetensors", opt)
    for _ in range(12):
        opt.step({"w": np.ones(1)})
        lrcore.save(tmp_path, opt, keep=3)
    assert names(tmp_path) == ["best", *(f"step-{step:010d}" for step in (10, 11, 12))]
    with pytest.raises(ValueError, match=r"^keep must be >= 1, got 0$"):
        lrcore.save(tmp_path, opt, keep=0)


def test_what_was_just_written_stays_whatever_the_clock_says(tmp_path):
    for step in (2, 9, 10):
        at(save(tmp_path, f"step-{step}"), 4 * SECOND - step)  # far in the future, and in the wrong order
    save(tmp_path, "step-11", keep=3)
    assert names(tmp_path) == ["step-10", "step-11", "step-9"]
    save(tmp_path, "step-1", keep=2)
    assert names(tmp_path) == ["step-1", "step-11"]
    save(tmp_path, "step-3", keep=1)
    assert names(tmp_path) == ["step-3"]


def test_a_folder_of_such_a_name_is_left_alone(tmp_path):
    (tmp_path / "step-1.safetensors").mkdir()
    for step in (2, 3, 4):
        save(tmp_path, f"step-{step}", keep=1)
    assert names(tmp_path) == ["step-1", "step-4"]


def test_the_newest_is_what_was_saved_last_also_in_a_copy(tmp_path):
    for step in (9, 10, 100, 2):  # it went back to an earlier step in the end
        save(tmp_path / "run", f"step-{step}")
    for seconds, name in enumerate(("step-2", "step-100", "step-9", "step-10")):
        at(tmp_path / "run" / f"{name}.safetensors", seconds)
    assert lrcore.latest(tmp_path / "run").stem == "step-2"
    save(tmp_path / "run", "step-3", keep=2)
    assert names(tmp_path / "run") == ["step-2", "step-3"]


def test_a_clock_that_is_set_back_does_not_change_which_is_the_newest(tmp_path, monkeypatch):
    for step in (1, 2, 3):
        monkeypatch.setattr(time, "time_ns", lambda step=step: (100 - step) * SECOND)
        save(tmp_path, f"step-{step}")
        assert lrcore.latest(tmp_path).stem == f"step-{step}"


def test_the_latest_whole_checkpoint_is_found_and_others_are_named(tmp_path):
    assert lrcore.latest(tmp_path) is None
    paths = [save(tmp_path, f"step-{step}") for step in range(4)]
    assert lrcore.latest(str(tmp_path)) == paths[3]
    paths[3].write_bytes(paths[3].read_bytes()[:-1])
    (tmp_path / "other.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / f".{paths[0].name}.host.1.0.partial").write_bytes(b"half")
    with pytest.warns(UserWarning, match="passed over|unfinished") as said:
        assert lrcore.latest(tmp_path) == paths[2]
    said = " ".join(str(warning.message) for warning in said)
    assert "is damaged" in said
    assert "is no checkpoint of lrcore" in said
    assert "is unfinished" in said


def test_a_folder_is_a_place_for_checkpoints(tmp_path):
    opt = lrcore.SGD({"w": np.zeros(1)})
    opt.step({"w": np.ones(1)})
    path = lrcore.save(tmp_path / "new" / "run", opt)
    assert path == tmp_path / "new" / "run" / "step-0000000001.safetensors"
    other = lrcore.SGD({"w": np.zeros(1)})
    lrcore.load(path.parent, other)
    assert other.steps == 1
    with pytest.raises(FileNotFoundError, match=r"has no whole checkpoint$"):
        lrcore.load(tmp_path, other)


@pytest.mark.skipif(os.name != "posix", reason="folders are flushed on POSIX alone")
def test_every_folder_that_was_made_is_flushed(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(_whole_file, "sync_folder", flushed.append)
    save(tmp_path / "a" / "b" / "c")
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b"} <= set(flushed)
    assert flushed[-1] == tmp_path / "a" / "b" / "c"
    save(tmp_path / "a" / "b" / "c")
    assert flushed[4:] == [tmp_path / "a" / "b" / "c"]


def partial(process, host=None):
    host = host or re.sub(r"[^\w-]", "_", socket.gethostname())
    return f".step-1.safetensors.{host}.{process}.0123abcd.partial"


@pytest.mark.skipif(os.name != "posix", reason="processes are looked for on POSIX alone")
def test_what_a_killed_process_left_goes_with_the_next_save(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / partial(gone.pid)
    others = [
        tmp_path / partial(os.getppid()),
        tmp_path / partial(gone.pid, "elsewhere"),
        tmp_path / partial(gone.pid, f"x{_whole_file._HOST}"),
        tmp_path / ".step-1.safetensors.mine.partial",
    ]
    for path in (left, *others):
        path.write_bytes(b"")
    save(tmp_path)
    assert not left.exists()
    assert all(path.exists() for path in others)


def test_two_threads_may_save_to_one_path(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    both, pieces = threading.Barrier(2), _safetensors._pieces

    def together(array, access):
        both.wait(timeout=60)  # both files are open by now
        return pieces(array, access)

    monkeypatch.setattr(_safetensors, "_pieces", together)
    failed = []

    def write(value):
        try:
            lrcore.save(path, lrcore.SGD({"w": np.full(10_000, value)}))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(value,)) for value in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.undo()
    assert not failed
    opt = lrcore.SGD({"w": np.zeros(10_000)})
    lrcore.load(path, opt)
    assert opt.params["w"][0] in (1.0, 2.0)
    assert len(set(opt.params["w"])) == 1
    assert list(tmp_path.iterdir()) == [path]
