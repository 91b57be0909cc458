"""A folder of checkpoints: which is the newest, which stay, and what a save that was stopped leaves."""

import os
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import lrcore
from lrcore import _process_identity
from lrcore.checkpoint import atomic_file, folder, safetensors

SECOND = 10**9
on_posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


def optimizer(step=0):
    opt = lrcore.SGD({"w": np.zeros(100)})
    opt.load_state_dict({**opt.state_dict(), "steps": step})
    return opt


def save(folder, step=0, **options):
    return lrcore.save(folder, optimizer(step), **options)


def at(path, seconds):
    os.utime(path, ns=(seconds * SECOND, seconds * SECOND))


def names(folder):
    """What is in a folder; steps as numbers."""
    plain = (path.name.removesuffix(".safetensors") for path in folder.iterdir())
    return sorted(re.sub(r"step-0*(?=\d)", "step-", name) for name in plain)


def test_those_that_were_saved_last_stay(tmp_path):
    params = {"w": np.zeros(1)}
    opt = lrcore.SGD(params)
    lrcore.save(tmp_path / "best.safetensors", opt)
    for _ in range(12):
        opt.step({"w": np.ones(1)})
        lrcore.save(tmp_path, opt, keep=3)
    assert names(tmp_path) == ["best", "step-10", "step-11", "step-12"]
    with pytest.raises(ValueError, match=r"^keep must be >= 1, got 0$"):
        lrcore.save(tmp_path, opt, keep=0)


def test_what_was_just_written_stays_whatever_the_clock_says(tmp_path):
    for step in (2, 9, 10):
        at(save(tmp_path, step), 4 * SECOND - step)  # far in the future, and in the wrong order
    save(tmp_path, 11, keep=3)
    assert names(tmp_path) == ["step-10", "step-11", "step-9"]
    save(tmp_path, 1, keep=2)
    assert names(tmp_path) == ["step-1", "step-11"]
    save(tmp_path, 3, keep=1)
    assert names(tmp_path) == ["step-3"]


def test_only_whole_checkpoints_of_its_own_are_deleted(tmp_path):
    left = {
        "step-1.safetensors": (2).to_bytes(8, "little") + b"{}",  # of another program
        "step-2.safetensors": b"",
        "step-3.pt": b"",
        "step-4.safetensors.bak": b"",
    }
    for name, content in left.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "step-5.safetensors").mkdir()
    kept = save(tmp_path / "kept", 6)
    (tmp_path / "step-6.safetensors").symlink_to(kept)
    content = kept.read_bytes()
    more = ("fold2-step-7", "fold-1-step-8", "step-٣", "step-9-best", "step-", "model-10", "epoch-11")
    for name in more:
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    (tmp_path / "step-12.safetensors").write_bytes(content[:-1])  # not whole
    before = set(tmp_path.iterdir())
    for step in (20, 21, 22):
        save(tmp_path, step, keep=1)
    assert set(tmp_path.iterdir()) == before | {tmp_path / "step-0000000022.safetensors"}
    assert kept.exists()


def test_keep_is_for_folders(tmp_path):
    with pytest.raises(ValueError, match=r"^keep counts the checkpoints of a folder, and .*a\.safetensors is a file"):
        lrcore.save(tmp_path / "a.safetensors", optimizer(), keep=2)
    assert not list(tmp_path.iterdir())


def test_the_newest_is_what_was_saved_last_also_in_a_copy(tmp_path):
    paths = {step: save(tmp_path, step) for step in (9, 10, 100, 2)}  # it went back to an earlier step in the end
    for seconds, step in enumerate((2, 100, 9, 10)):
        at(paths[step], seconds)
    assert lrcore.latest(tmp_path) == paths[2]
    save(tmp_path, 3, keep=2)
    assert names(tmp_path) == ["step-2", "step-3"]


def test_a_clock_that_is_set_back_does_not_change_which_is_the_newest(tmp_path, monkeypatch):
    for step in (1, 2, 3):
        monkeypatch.setattr(time, "time_ns", lambda step=step: (100 - step) * SECOND)
        assert lrcore.latest(save(tmp_path, step).parent) == tmp_path / f"step-000000000{step}.safetensors"


def test_the_latest_whole_checkpoint_is_found_and_others_are_named(tmp_path):
    assert lrcore.latest(tmp_path) is None
    paths = [save(tmp_path, step) for step in range(4)]
    assert lrcore.latest(str(tmp_path)) == paths[3]
    paths[3].write_bytes(paths[3].read_bytes()[:-1])
    (tmp_path / "other.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / partial(1)).write_bytes(b"half")
    with pytest.warns(UserWarning, match="passed over|unfinished") as said:
        assert lrcore.latest(tmp_path) == paths[2]
    said = " ".join(str(warning.message) for warning in said)
    assert "is damaged" in said
    assert "not a checkpoint of lrcore" in said
    assert "is unfinished" in said


@pytest.mark.parametrize("name", ["lr0.001", "v1.5", "2024.05.01", "run.pt", "run.safetensors.d", "a b", "ü"])
def test_whatever_does_not_end_as_a_file_does_is_a_folder(name, tmp_path):
    folder = tmp_path / name
    assert lrcore.latest(folder) is None
    for step in (1, 2):  # at first it is not there
        path = lrcore.save(folder, optimizer(step))
        assert path == folder / f"step-000000000{step}.safetensors"
        assert lrcore.latest(f"{folder}{os.sep}") == path
    other = optimizer()
    lrcore.load(str(folder), other)
    assert other.steps == 2


def test_what_is_there_and_of_the_other_kind_is_said_to_be(tmp_path):
    file, folder = tmp_path / "a.bin", tmp_path / "b.safetensors"
    file.write_bytes(save(tmp_path / "c").read_bytes())
    folder.mkdir()
    calls = [lambda path: lrcore.save(path, optimizer()), lambda path: lrcore.load(path, optimizer()), lrcore.latest]
    for call in calls:
        with pytest.raises(NotADirectoryError, match=r"a\.bin is no folder, .* ends in \.safetensors$"):
            call(file)
        with pytest.raises(IsADirectoryError, match=r"b\.safetensors is a folder, and a name that ends in"):
            call(folder)
        with pytest.raises(IsADirectoryError):
            call(f"{tmp_path / 'new.safetensors'}/")
    with pytest.raises(ValueError, match=r"^latest looks for the newest file of a folder, and .*a file: "):
        lrcore.latest(tmp_path / "new.safetensors")
    assert names(tmp_path) == ["a.bin", "b", "c"]


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
    monkeypatch.setattr(atomic_file, "sync_folder", flushed.append)
    save(tmp_path / "a" / "b" / "c")
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b"} <= set(flushed)
    assert flushed[-1] == tmp_path / "a" / "b" / "c"
    save(tmp_path / "a" / "b" / "c")
    assert flushed[4:] == [tmp_path / "a" / "b" / "c"]


def partial(process, host=None, started=None):
    """The name of a partial file of a process, by default of this host."""
    me = _process_identity.Identity(host or _process_identity.host(), process, started)
    return atomic_file._Partial(Path(), me).path.name


@on_posix
def test_what_a_killed_process_left_goes_with_the_next_save(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = [tmp_path / partial(gone.pid), tmp_path / partial(gone.pid, started=5)]
    others = [
        tmp_path / partial(os.getppid()),
        tmp_path / partial(gone.pid, "elsewhere"),
        tmp_path / partial(gone.pid, f"x{_process_identity.host()}"),
        tmp_path / ".step-1.safetensors.mine.partial",
    ]
    if Path("/proc/self/stat").exists():
        left.append(tmp_path / partial(os.getppid(), started=5))  # the number is that of another process now
        left.append(tmp_path / partial(*_process_identity.current()[1::-1], _process_identity.current()[2]))
    for path in (*left, *others):
        path.write_bytes(b"")
    save(tmp_path)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)


@on_posix
def test_processes_of_two_containers_leave_the_partial_files_of_each_other(tmp_path, monkeypatch):
    """They have one host name and one folder, and each knows no process of the number of the other."""
    pieces = safetensors._pieces

    def save_elsewhere_meanwhile(array, access):
        monkeypatch.setattr(safetensors, "_pieces", pieces)
        with monkeypatch.context() as there:
            there.setattr(_process_identity, "_namespace", lambda: "pid:[1]")
            there.setattr(_process_identity, "_exists", lambda _: False)
            save(tmp_path, 2)
        return pieces(array, access)

    monkeypatch.setattr(safetensors, "_pieces", save_elsewhere_meanwhile)
    save(tmp_path, 1)
    assert names(tmp_path) == ["step-1", "step-2"]


def test_a_number_that_is_used_by_another_process_is_not_the_writer():
    me = _process_identity.current()
    assert not _process_identity.is_gone(me)
    assert _process_identity.is_gone(me._replace(host="elsewhere")) is None
    if me.started is not None:
        assert _process_identity.is_gone(me._replace(started=me.started + 1))
        assert _process_identity.is_gone(me._replace(started=None)) is None


@on_posix
def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "a.safetensors", tmp_path / "link.safetensors"
    link.symlink_to(Path("disk") / "a.safetensors")
    for step in (1, 2):  # at first the target is not there
        assert lrcore.save(link, optimizer(step)) == link
        assert link.is_symlink()
        opt = optimizer()
        lrcore.load(target, opt)
        assert opt.steps == step
    loop = tmp_path / "loop.safetensors"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="symbolic links"):
        lrcore.save(loop, opt)
    assert names(tmp_path) == ["disk", "link", "loop"]
    assert names(tmp_path / "disk") == ["a"]
    folder = tmp_path / "run"
    folder.symlink_to(tmp_path / "disk", target_is_directory=True)
    for step in (3, 4):
        save(folder, step, keep=1)
    assert names(tmp_path / "disk") == ["a", "step-4"]


@on_posix
def test_names_may_be_as_long_as_the_file_system_has_them(tmp_path):
    for name in ("x" * 243 + ".safetensors", "ü" * 121 + ".safetensors"):
        path = lrcore.save(tmp_path / name, optimizer(3))
        opt = optimizer()
        lrcore.load(path, opt)
        assert opt.steps == 3


@on_posix
def test_a_new_file_has_the_mode_of_the_umask_and_an_old_one_keeps_its_own(tmp_path):
    path = tmp_path / "a.safetensors"
    before = os.umask(0o027)
    try:
        lrcore.save(path, optimizer())
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        for mode in (0o600, 0o444, 0o666):
            path.chmod(mode)
            lrcore.save(path, optimizer())
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(before)


@on_posix
def test_what_is_no_file_is_neither_opened_nor_replaced(tmp_path):
    os.mkfifo(tmp_path / "fifo.safetensors")
    os.mkfifo(tmp_path / "step-0000000007.safetensors")
    (tmp_path / "null.safetensors").symlink_to("/dev/null")
    (tmp_path / "dangling.safetensors").symlink_to("nowhere")
    folder = os.getcwd()
    os.chdir(tmp_path)  # the path of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("socket.safetensors")
    finally:
        os.chdir(folder)
    before = names(tmp_path)
    path = save(tmp_path, 1, keep=1)
    for name in ("fifo", "socket", "step-0000000007"):
        at(tmp_path / f"{name}.safetensors", 4 * 10**9)
    with pytest.warns(UserWarning, match="passed over: .*is not a regular file") as said:
        assert lrcore.latest(tmp_path) == path
    assert len(said) == 3
    for name in ("fifo", "null", "socket", "step-0000000007"):
        with pytest.raises(OSError, match="regular file"):
            lrcore.load(tmp_path / f"{name}.safetensors", optimizer())
        with pytest.raises(OSError, match="regular file"):
            lrcore.save(tmp_path / f"{name}.safetensors", optimizer())
    with pytest.raises(OSError, match="regular file"):
        save(tmp_path, 7)
    assert names(tmp_path) == sorted([*before, "step-1"])


@on_posix
def test_what_goes_wrong_after_the_file_is_in_its_place_is_a_warning(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def fail(*_, **__):
        raise PermissionError("no such luck")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        with pytest.warns(UserWarning, match="was saved, but not all old checkpoints were deleted: no such luck"):
            save(tmp_path, 2, keep=1)
    assert names(tmp_path) == ["step-1", "step-2"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.warns(UserWarning, match="could not be flushed to the disk"):
            atomic_file.sync_folder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(folder, "peek", lambda *_, **__: None)
        with pytest.warns(UserWarning, match="can't be read again, so nothing was deleted"):
            save(tmp_path, 3, keep=1)
    assert names(tmp_path) == ["step-1", "step-2", "step-3"]


def test_two_threads_may_save_to_one_path(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    both, pieces = threading.Barrier(2), safetensors._pieces

    def together(array, access):
        both.wait(timeout=60)  # both files are open by now
        return pieces(array, access)

    monkeypatch.setattr(safetensors, "_pieces", together)
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
