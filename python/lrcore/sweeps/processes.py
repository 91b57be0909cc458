"""The executor of sweeps by default: processes, each with its share of the cores, that may be killed one by one.

It is not ``concurrent.futures.ProcessPoolExecutor``, since that ends all its processes when one is killed, and does not
tell whose run it was. Here each process has one run at a time, so there is one to blame, and the others go on.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import connection, resource_tracker
from typing import TYPE_CHECKING, Any

from lrcore import _lrcore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

# What libraries read when they are first imported, to know how many threads to use.
THREADS = (
    "LRCORE_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS",
)  # fmt: skip

# Processes are begun one after the other, since the environment that they inherit is that of all threads.
_ENVIRONMENT = threading.Lock()
# Seconds between looks at a process that says nothing.
_LOOK = 1.0


class WorkerDiedError(RuntimeError):
    """The process of a run ended without a result."""


class WorkerStartError(RuntimeError):
    """A process ended before it could take a run, which another one would as well."""


def cores() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Processes(Executor):
    """Processes that take runs as they become free. One that dies fails its run and is replaced.

    Args:
        workers: How many.
        threads: How many threads the libraries in each of them use.
    """

    def __init__(self, workers: int, threads: int) -> None:
        self._tasks: queue.SimpleQueue[tuple[Future[Any], bytes] | None] = queue.SimpleQueue()
        self._threads = threads
        self._live: set[SpawnProcess] = set()
        self._killing = threading.Event()
        if os.name == "posix":
            # Begun from here, since to begin it unblocks the signal that is blocked below.
            resource_tracker.ensure_running()
        self._slots = [threading.Thread(target=self._slot, name=f"sweep-{i}", daemon=True) for i in range(workers)]
        for slot in self._slots:
            slot.start()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        """Have a function called in a process; the future fails with WorkerDiedError if that process does."""
        future: Future[Any] = Future()
        self._tasks.put((future, pickled((function, arguments, keywords))))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  # as Executor
        """End the processes; those that are at work first do it, unless futures are cancelled."""
        for _ in self._slots:
            self._tasks.put(None)
        if cancel_futures:
            self._killing.set()
            for process in list(self._live):
                _kill(process)
        if wait:
            for slot in self._slots:
                slot.join()

    def _slot(self) -> None:
        """Pass runs to one process at a time, from a thread."""
        if hasattr(signal, "pthread_sigmask"):
            # Ctrl-C is for the sweep, which then ends its processes: they inherit this from the thread.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        worker: _Worker | None = None
        while (task := self._tasks.get()) is not None:
            future, message = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                if worker is None:
                    worker = _Worker(self._threads, self._live, self._killing)
                worked, result = worker.ask(message)
            except BaseException as error:
                worker = None
                future.set_exception(error)
                continue
            if worked:
                future.set_result(result)
            else:
                future.set_exception(RuntimeError(result))
        if worker is not None:
            worker.stop()


class _Worker:
    """A process, and the pipe to it."""

    def __init__(self, threads: int, live: set[SpawnProcess], killing: threading.Event) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, threads), name="lrcore sweep")
        self._live = live
        try:
            with _environment(threads):
                self._process.start()
        except Exception as error:
            raise WorkerStartError(f"a process for runs could not begin: {type(error).__name__}: {error}") from error
        theirs.close()
        live.add(self._process)
        if killing.is_set():
            self._process.kill()
        try:
            self._receive()
        except WorkerDiedError as error:
            raise WorkerStartError(
                f"a process for runs could not begin: {error}; is the script's own work, with the call of sweep, "
                "under `if __name__ == '__main__':`?"
            ) from None

    def ask(self, message: bytes) -> Any:
        """Have a call done and return whether that worked, and its result or what went wrong."""
        try:
            self._pipe.send_bytes(message)
        except (BrokenPipeError, ConnectionResetError):  # it died while it had nothing to do
            raise self._died() from None
        return self._receive()

    def _receive(self) -> Any:
        while not connection.wait([self._pipe, self._process.sentinel], _LOOK):
            # What a run has started may hold the pipes open when its process is gone.
            if self._process.exitcode is not None:
                break
        try:
            if self._pipe.poll():
                return self._pipe.recv()
        except (EOFError, ConnectionResetError):
            pass
        raise self._died()

    def _died(self) -> WorkerDiedError:
        self._process.join()
        code = self._process.exitcode or 0
        self.stop()
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            return WorkerDiedError(f"its process was killed by {name}")
        return WorkerDiedError(f"its process ended with exit code {code}")

    def stop(self) -> None:
        """Close the pipe, at which an idle process ends, and wait for that."""
        self._pipe.close()
        self._process.join()
        self._live.discard(self._process)
        self._process.close()


def _kill(process: SpawnProcess) -> None:
    with suppress(ValueError):  # it has ended, and its thread has closed it
        process.kill()


def pickled(call: Any) -> bytes:
    """Return a call as bytes, with cloudpickle's help where pickle can't and it is installed.

    Raises:
        TypeError: If it can't be sent to another process.
    """
    try:
        return pickle.dumps(call)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        if find_spec("cloudpickle") is not None:
            return bytes(import_module("cloudpickle").dumps(call))
        raise TypeError(
            f"train can't be sent to other processes ({error}): define it at the top level of a module or script, or "
            "install cloudpickle, or give workers=0, which runs it here"
        ) from None


def _work(pipe: Connection, threads: int) -> None:
    """Take calls until there are no more: what a process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _lrcore.set_num_threads(threads)
    if find_spec("threadpoolctl") is not None:
        import_module("threadpoolctl").threadpool_limits(threads)
    pipe.send("ready")
    while True:
        try:
            message = pipe.recv_bytes()
        except (EOFError, ConnectionResetError):
            return
        try:
            function, arguments, keywords = pickle.loads(message)  # noqa: S301  # from the parent, that is from itself
            answer = (True, function(*arguments, **keywords))
        except BaseException as error:
            answer = (False, f"{type(error).__name__}: {error}")
        pipe.send(answer)


def _end_with_parent() -> None:
    """End at once when the parent is gone: what it would have done with the result, nobody does."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Have libraries in a new process use that many threads, or as many as the environment says if that is less."""
    with _ENVIRONMENT:
        before = {name: os.environ.get(name) for name in THREADS}
        for name, value in before.items():
            least = min(threads, int(value)) if value and value.isdecimal() and int(value) > 0 else threads
            os.environ[name] = str(least)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
