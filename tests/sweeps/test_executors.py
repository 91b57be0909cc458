"""All executors give the same table, and every kind of function reaches the worker processes."""
# ruff: noqa: ARG005  # train functions need not use all arguments

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import pytest

import lrcore
from lrcore import info, sweeps
from lrcore.sweeps import pickling
from support import objectives

SPACE = {"lr": sweeps.logspace(1e-4, 1e-1, 4), "batch": [32, 128]}
TESTS = Path(__file__).parents[1]


def table(results):
    return {(row["lr"], row["batch"], row["seed"]): (row["status"], row["objective"]) for row in results}


@pytest.fixture(scope="module")
def expected():
    return table(sweeps.sweep(objectives.bowl, SPACE, workers=2, progress=False))


def run(text, tmp_path, *command, **variables):
    """Run a script that imports the train functions of the tests."""
    script = tmp_path / "script.py"
    script.write_text(text, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])} | variables
    command = [*command, script] if command else [sys.executable, "-W", "error", script]
    return subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, timeout=90, env=environment, cwd=tmp_path, check=False
    )


@pytest.mark.slow
def test_a_process_pool_gives_the_same_table(expected):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        assert table(sweeps.sweep(objectives.bowl, SPACE, executor=executor, progress=False)) == expected


DASK = """
import json
import dask
from distributed import Client, LocalCluster
from lrcore import sweeps
from support import objectives

if __name__ == "__main__":
    space = {"lr": sweeps.logspace(1e-4, 1e-1, 4), "batch": [32, 128]}
    dask.config.set({"distributed.scheduler.allowed-failures": 0})
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        bowl = sweeps.sweep(objectives.bowl, space, executor=client, results="dask.sqlite")
        print(json.dumps(bowl.rows))
        troubles = {"what": ["fine", "nan", "kill", "raise"]}
        executor = client.get_executor()
        # One at a time: a worker that dies loses results that it has not sent, and Dask may not try those again.
        print(json.dumps(sweeps.sweep(objectives.troubled, troubles, seeds=1, executor=executor, workers=1).rows))
"""

MPI = """
import json
from mpi4py.futures import MPIPoolExecutor
from lrcore import sweeps
from support import objectives

if __name__ == "__main__":
    space = {"lr": sweeps.logspace(1e-4, 1e-1, 4), "batch": [32, 128]}
    with MPIPoolExecutor() as executor:
        print(json.dumps(sweeps.sweep(objectives.bowl, space, executor=executor, results="mpi.sqlite").rows))
        troubles = {"what": ["fine", "nan", "raise"]}
        print(json.dumps(sweeps.sweep(objectives.troubled, troubles, seeds=1, executor=executor).rows))
"""


def check_cluster(done, expected):
    assert done.returncode == 0, done.stderr
    rows, troubles = map(json.loads, done.stdout.splitlines())
    assert table(rows) == expected
    assert "process" in rows[0]
    statuses = [row["status"] for row in troubles]
    assert statuses == ["finished", "diverged", "failed", "failed"][: len(statuses)]
    return rows, troubles


@pytest.mark.slow
def test_dask_gives_the_same_table(expected, tmp_path):
    pytest.importorskip("distributed")
    # Without -W error: Dask warns.
    done = run(DASK, tmp_path, sys.executable)
    rows, troubles = check_cluster(done, expected)
    assert len({row["process"] for row in rows}) == 2
    assert troubles[2]["reason"].startswith("KilledWorker: ")
    assert len(sweeps.load(tmp_path / "dask.sqlite")) == 24


@pytest.mark.slow
def test_mpi_gives_the_same_table(expected, tmp_path):
    pytest.importorskip("mpi4py")
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    mpiexec = shutil.which("mpiexec", path=folders)
    if mpiexec is None:
        pytest.skip("needs mpiexec")
    version = subprocess.run([mpiexec, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    # By default Open MPI starts no more processes than cores, and none for root.
    oversubscribe = ["--oversubscribe"] if re.search("open mpi|open-mpi|prrte", version, re.IGNORECASE) else []
    as_root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    command = [mpiexec, *oversubscribe, "-n", "2", sys.executable, "-m", "mpi4py.futures"]
    done = run(MPI, tmp_path, *command, **as_root)
    rows, _ = check_cluster(done, expected)
    assert len({row["process"] for row in rows}) == 1  # the other one coordinates
    assert len(sweeps.load(tmp_path / "mpi.sqlite")) == 24


class Breaks(Executor):
    """A pool whose process was killed: its runs fail, and it accepts no more."""

    def __init__(self, after):
        self.left = after
        self.given = []

    def submit(self, function, /, *arguments, **keywords):
        future = Future()
        self.given.append(future)
        self.left -= 1
        if self.left < 0:
            for given in self.given:
                if not given.done():
                    given.set_exception(BrokenProcessPool("a process was terminated abruptly"))
        elif self.left > 1:
            future.set_result(function(*arguments, **keywords))
        return future


def test_a_broken_executor_ends_the_sweep_and_finished_runs_are_kept(tmp_path):
    file = tmp_path / "sweep.sqlite"
    with pytest.raises(RuntimeError, match="the executor accepts no more runs: BrokenProcessPool"):
        sweeps.sweep(objectives.bowl, SPACE, executor=Breaks(5), results=file, workers=3, progress=False)
    assert sweeps.load(file).statuses == {"finished": 3, "pending": 21}
    assert sweeps.sweep(objectives.bowl, SPACE, results=file, workers=0, progress=False).statuses == {"finished": 24}


@pytest.mark.slow
def test_processes_divide_the_cores(monkeypatch):
    for name in ("LRCORE", "OMP", "OPENBLAS"):
        monkeypatch.delenv(f"{name}_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a lower number from the environment is kept
    monkeypatch.setattr(info, "usable_cores", lambda: 6)
    results = sweeps.sweep(objectives.threads, {"lr": [1, 2]}, seeds=1, workers=2, progress=False)
    assert [(row["objective"], row["told"]) for row in results] == [(3.0, "3 1 3")] * 2
    assert "LRCORE_NUM_THREADS" not in os.environ
    assert os.environ["OMP_NUM_THREADS"] == "1"


@pytest.mark.slow
def test_the_default_is_a_process_for_each_core():
    results = sweeps.sweep(objectives.slow, SPACE, seeds=1, progress=False)
    assert results.statuses == {"finished": 8}
    assert lrcore.get_num_threads() >= 1


MAIN = """
import time
from lrcore import sweeps

def train(lr, seed):
    time.sleep(0.01)
    return lr

if __name__ == "__main__":
    print(sweeps.sweep(train, {"lr": [0.1, 0.2]}, workers=2).best.settings)
"""


@pytest.mark.slow
def test_functions_of_a_script_run_in_processes(tmp_path):
    done = run(MAIN, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{'lr': 0.1}\n", "")


@pytest.mark.slow
def test_a_script_without_a_main_guard_gets_an_error_that_says_so(tmp_path):
    done = run(MAIN.replace('__name__ == "__main__"', "True").replace("workers=2", "workers=2, results='s'"), tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "lrcore.sweeps.process_executor.WorkerStartError: a worker process could not start: its process ended with "
        "exit code 1; is the script's call of sweep under `if __name__ == '__main__':`?"
    )
    assert sweeps.load(tmp_path / "s").statuses == {"pending": 6}


needs_cloudpickle = pytest.mark.skipif(find_spec("cloudpickle") is None, reason="needs cloudpickle")


@pytest.mark.slow
@needs_cloudpickle
def test_functions_without_a_module_run_in_processes_with_cloudpickle():
    offset = 3.0
    results = sweeps.sweep(lambda lr, seed: lr + offset, {"lr": [1, 2]}, seeds=1, workers=1, progress=False)
    assert [row["objective"] for row in results] == [4.0, 5.0]


SWEEP = """
import sys
from lrcore import sweeps

{train}

if __name__ == "__main__":
    {first}
    found = sweeps.sweep({name}, {{"lr": [0.1, 0.2]}}, seeds=1, workers=2, results="sweep.sqlite")
    print(found.rows[1]["objective"], found.statuses)
"""
TOP = "offset = 1\ndef train(lr, seed):\n    return lr + offset"
GUARDED = "offset = 1\n    def train(lr, seed):\n        return lr + offset"
BY_PATH = """
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

if __name__ == "__main__":
    folder = Path("elsewhere")
    folder.mkdir()
    (folder / "by_its_path.py").write_text("offset = 1\\ndef train(lr, seed):\\n    return lr + offset")
    spec = spec_from_file_location("by_its_path", folder / "by_its_path.py")
    sys.modules["by_its_path"] = training = module_from_spec(spec)
    spec.loader.exec_module(training)
"""
UNIMPORTABLE = {
    "an argument": (SWEEP.format(train=TOP, first="", name="train"), ["-c"]),
    "standard input": (SWEEP.format(train=TOP, first="", name="train"), ["-"]),
    "under the guard": (SWEEP.format(train="", first=GUARDED, name="train"), []),
    "a module by its path": (SWEEP.format(train=BY_PATH, first="", name="training.train"), []),
}


def run_from(where, tmp_path, text):
    (tmp_path / "script.py").write_text(text, encoding="utf-8")
    place = {"-c": ["-c", text], "-": ["-"]}["".join(where)] if where else [tmp_path / "script.py"]
    return subprocess.run(  # noqa: S603
        [sys.executable, "-W", "error", *place], input=text if where == ["-"] else None, capture_output=True, text=True,
        timeout=90, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, cwd=tmp_path, check=False,
    )  # fmt: skip


WITHOUT = ("import sys\n", "import sys\nsys.modules['cloudpickle'] = None\n", 1)


@pytest.mark.slow
@pytest.mark.parametrize(("text", "where"), UNIMPORTABLE.values(), ids=UNIMPORTABLE)
def test_a_function_that_workers_cannot_import_is_sent_by_value(text, where, tmp_path):
    done = run_from(where, tmp_path, text.replace(*WITHOUT))
    assert (done.returncode, done.stdout, done.stderr) == (0, "1.2 {'finished': 2}\n", "")


@pytest.mark.slow
@needs_cloudpickle
def test_a_function_that_workers_cannot_import_is_sent_with_cloudpickle(tmp_path):
    done = run_from(["-"], tmp_path, UNIMPORTABLE["standard input"][0])
    assert (done.returncode, done.stdout, done.stderr) == (0, "1.2 {'finished': 2}\n", "")


LOCKED = "import threading\noffset = threading.Lock()\ndef train(lr, seed):\n    return lr if offset else 0"


@pytest.mark.slow
def test_a_function_that_no_worker_can_load_ends_the_sweep_with_pending_runs(tmp_path):
    text = SWEEP.format(train=LOCKED, first="", name="train").replace(*WITHOUT)
    last = run_from(["-c"], tmp_path, text).stderr.splitlines()[-1]
    assert last.startswith("lrcore.sweeps.process_executor.WorkerStartError: train can't be sent to other processes (")
    assert "define it at the top level of a module" in last
    assert "or install cloudpickle, which can send more, or give workers=0" in last
    assert sweeps.load(tmp_path / "sweep.sqlite").statuses == {"pending": 2}


@pytest.mark.slow
def test_without_workers_an_unpicklable_function_runs_in_this_process(tmp_path):
    text = SWEEP.format(train=LOCKED, first="import warnings; warnings.simplefilter('always')", name="train")
    done = run_from(["-c"], tmp_path, text.replace(*WITHOUT).replace("workers=2, ", ""))
    assert (done.returncode, done.stdout) == (0, "0.2 {'finished': 2}\n")
    assert "RuntimeWarning: runs execute in this process, one after the other: train can't be sent" in done.stderr


@pytest.mark.slow
@needs_cloudpickle
def test_a_function_that_cloudpickle_cannot_send_ends_the_sweep(tmp_path):
    text = SWEEP.format(train=LOCKED, first="", name="train")
    last = run_from(["-c"], tmp_path, text).stderr.splitlines()[-1]
    assert re.search(r"\(AttributeError: .*'train'.*\), nor with cloudpickle \(TypeError: cannot pickle .*lock", last)
    assert "install" not in last
    assert sweeps.load(tmp_path / "sweep.sqlite").statuses == {"pending": 2}


def test_importable_functions_are_sent_by_name():
    for function in (objectives.bowl, partial(objectives.bowl, batch=32)):
        assert len(pickling.PickledFunction(function).message) < 200


@pytest.mark.slow
def test_a_run_does_not_see_what_another_changed_in_the_sent_function():
    train = partial(objectives.collecting, [])
    results = sweeps.sweep(train, {"lr": [1, 2, 3]}, seeds=1, workers=1, progress=False)
    assert [row["objective"] for row in results] == [1.0, 1.0, 1.0]


def test_a_dask_client_is_replaced_by_its_executor():
    class Client(Executor):
        def submit(self, *_):
            raise AssertionError("a client's futures are not concurrent.futures")

        def get_executor(self):
            return ThreadPoolExecutor(2)

    assert sweeps.sweep(objectives.slow, SPACE, executor=Client(), seeds=1, progress=False).statuses == {"finished": 8}
