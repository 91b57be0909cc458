"""The default executor of sweeps: processes that share the cores, and of which each may die without the others.

``concurrent.futures.ProcessPoolExecutor`` breaks when one of its processes is killed, and does not say which run the
process was executing. Here each process has one run at a time, so its death fails that run and no other::

    one thread per process:
        take a call from the queue
        take an idle process, or start one and send it the function, by value if it can't import it by name
        send the call; wait for the answer or for the death of the process
"""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import connection, resource_tracker, spawn
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrcore import _lrcore
from lrcore.sweeps import guardian
from lrcore.sweeps.objective import describe_error, exit_in_forked_child
from lrcore.sweeps.pickling import PickledFunction, unsendable_message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess


# The variables from which libraries take their number of threads when they are imported.
THREADS = (
    "LRCORE_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS",
)  # fmt: skip

# A function, and its arguments after the function of the sweep.
_Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

# Processes start one after the other, since all threads share what they inherit: the environment and __main__.
_START_LOCK = threading.Lock()
# Seconds between checks of a silent process.
_POLL = 1.0
_PR_SET_PDEATHSIG = 1  # an option of Linux's prctl


class WorkerDiedError(RuntimeError):
    """The process of a run died without a result."""


class WorkerStartError(RuntimeError):
    """A process died before its first run, or can't load the function; other processes would fail in the same way.

    Attributes:
        is_unsendable: Whether the function can't be sent to other processes.
    """

    is_unsendable = False


class Guardian:
    """The handle of the guardian process, and the workers that it guards: see :mod:`lrcore.sweeps.guardian`.

    Attributes:
        mark: The mark of all workers' processes.
    """

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self._workers: dict[int, SpawnProcess] = {}
        self._is_ending = False
        self._process: subprocess.Popen[bytes] | None = None
        if os.name == "posix":
            # Without the mark of an outer sweep, whose guardian would kill this one before it has killed its workers.
            environment = {name: value for name, value in os.environ.items() if name != guardian.VARIABLE}
            command = [spawn.get_executable(), "-I", "-S", guardian.__file__, self.mark]
            self._process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.PIPE, env=environment, start_new_session=True, cwd="/", bufsize=0
            )

    def add(self, worker: SpawnProcess) -> int:
        """Report that a worker starts, and return its process id."""
        pid = worker.pid or 0
        self._workers[pid] = worker
        self._write(b"+%d\n" % pid)
        if self._is_ending:
            worker.kill()
        return pid

    def remove(self, pid: int) -> None:
        """Report that a worker has ended."""
        del self._workers[pid]
        self._write(b"-%d\n" % pid)

    def _write(self, line: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):  # the guardian was killed
                self._process.stdin.write(line)

    def kill_all(self) -> None:
        """Kill the processes of all workers, and workers that are added later."""
        self._is_ending = True
        workers = dict(self._workers)
        for worker in workers.values():
            with suppress(ValueError):  # it has ended, and its thread closed it
                worker.kill()
        guardian.kill(self.mark, workers)

    def end(self) -> None:
        """End the guardian without killing workers."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


class ProcessExecutor(Executor):
    """Runs calls in processes. One that dies fails its run and is replaced.

    Args:
        pickled: The function of the sweep, the first argument of every submitted call.
        workers: The number of processes.
        threads: The number of threads for the libraries in each.
    """

    def __init__(self, pickled: PickledFunction, workers: int, threads: int) -> None:
        self._pickled = pickled
        self._threads = threads
        self._idle: list[_Worker] = []
        self._guardian = Guardian()
        if os.name == "posix":
            # Started here, since its start unblocks the signal that _block_interrupts blocks.
            resource_tracker.ensure_running()
        # A thread for each process, which waits for its answers.
        self._dispatchers = ThreadPoolExecutor(workers, "sweep", _block_interrupts)

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        """Call a function in a process; the future fails with WorkerDiedError if the process dies."""
        # Workers already have the first argument.
        return self._dispatchers.submit(self._call, (function, arguments[1:], keywords))

    def _call(self, call: _Call) -> Any:
        """Send a call to an idle process, or to a new one if none is idle, and return its result."""
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = _Worker(self._pickled, self._threads, self._guardian)
        worked, result = worker.request(call)
        self._idle.append(worker)
        if not worked:
            raise RuntimeError(result)
        return result

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  # as Executor
        """End the processes, after their current calls unless futures are cancelled."""
        if cancel_futures:
            self._guardian.kill_all()
        self._stop_idle()  # before their threads end, with which Linux kills them
        self._dispatchers.shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            self._stop_idle()
            self._guardian.end()

    def _stop_idle(self) -> None:
        while self._idle:
            self._idle.pop().stop()


def _block_interrupts() -> None:
    """Block SIGINT in this thread and the workers that it starts: Ctrl-C is for the sweep, which then ends them."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])


class _Worker:
    """A process with the function of the sweep, and the pipe to it."""

    _numbers = itertools.count()

    def __init__(self, pickled: PickledFunction, threads: int, guard: Guardian) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._requests = itertools.count(1)
        self._guardian = guard
        self._mark = f"{guard.mark}-{next(self._numbers)}-"
        self._process = context.Process(target=_work, args=(theirs, threads), name="lrcore sweep")
        try:
            with _start_conditions(threads, self._mark):
                self._process.start()
        except Exception as error:
            raise WorkerStartError(f"a worker process could not start: {describe_error(error)}") from error
        theirs.close()
        self._pid = guard.add(self._process)
        try:
            self._receive(0)
        except WorkerDiedError as error:
            raise WorkerStartError(
                f"a worker process could not start: {error}; is the script's call of sweep under "
                "`if __name__ == '__main__':`?"
            ) from None
        self._load(pickled)

    def _load(self, pickled: PickledFunction) -> None:
        """Send the function, by value if the process can't load it by name; end the process if that fails too."""
        try:
            loaded, error_by_name = self.request(pickled.message)
            if not loaded:
                loaded, error_by_value = self.request(pickled.by_value(error_by_name))
            if not loaded:
                raise TypeError(unsendable_message(error_by_name, f"by value ({error_by_value})"))
        except WorkerDiedError as error:
            raise WorkerStartError(f"a worker process could not load train: {error}") from None
        except TypeError as error:
            self.stop()
            failed = WorkerStartError(str(error))
            failed.is_unsendable = True
            raise failed from None

    def request(self, message: bytes | _Call) -> tuple[bool, Any]:
        """Send the function or a call; return whether it succeeded, and the result or the error."""
        number = next(self._requests)
        try:
            self._pipe.send((number, message))
        except (BrokenPipeError, ConnectionResetError):  # it died while idle
            raise self._death() from None
        answer: tuple[bool, Any] = self._receive(number)
        return answer

    def _receive(self, number: int) -> Any:
        """Return the answer to a request; ignore other answers in the pipe."""
        while True:
            while not connection.wait([self._pipe, self._process.sentinel], _POLL):
                # Children of a run may keep the pipes open after its process died.
                if self._process.exitcode is not None:
                    break
            try:
                if not self._pipe.poll():
                    raise EOFError
                answered, answer = self._pipe.recv()
            except (EOFError, ConnectionResetError):
                raise self._death() from None
            if answered == number:
                return answer

    def _death(self) -> WorkerDiedError:
        self._process.join()
        guardian.kill(self._mark, [self._pid])  # children of the run
        code = self._process.exitcode or 0
        self.stop()
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            return WorkerDiedError(f"its process was killed by {name}")
        return WorkerDiedError(f"its process ended with exit code {code}")

    def stop(self) -> None:
        """Close the pipe, which ends an idle process, and wait for it."""
        self._pipe.close()
        self._process.join()
        self._guardian.remove(self._pid)
        self._process.close()


def _work(pipe: Connection, threads: int) -> None:
    """Run a worker process: take the function, and calls of it until the pipe is closed."""
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    _lrcore.set_num_threads(threads)
    if find_spec("threadpoolctl") is not None:
        import_module("threadpoolctl").threadpool_limits(threads)
    pipe.send((0, "ready"))
    train = b""
    while True:
        try:
            number, message = pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        with exit_in_forked_child():
            if isinstance(message, bytes):
                train, message = message, (callable, (), {})  # whether it can be loaded
            answer = _called(train, *message)
        pipe.send((number, answer))


def _called(train: bytes, function: Callable[..., Any], arguments: Any, keywords: Any) -> tuple[bool, Any]:
    """Return whether a call succeeded, and its result or the error.

    The function is unpickled for each call, so that runs don't see each other's changes to objects within it.
    """
    try:
        return True, function(pickle.loads(train), *arguments, **keywords)  # noqa: S301  # from the parent process
    except BaseException as error:
        return False, describe_error(error)


def _end_with_parent() -> None:
    """Make this process end when its parent dies.

    On Linux the kernel kills it. Elsewhere a thread ends it, unless a run holds the interpreter lock; then the guardian
    does.
    """
    parent = multiprocessing.parent_process()
    guardian.begin_group()
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent.pid:  # it died before the call
            os._exit(1)
    threading.Thread(target=_wait_for, args=(parent.sentinel,), daemon=True).start()


def _wait_for(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


@contextmanager
def _start_conditions(threads: int, mark: str) -> Iterator[None]:
    """Set what a new process inherits: the worker's mark, and the number of threads unless it is already lower.

    If ``__main__`` is not a file, such as standard input, ``__file__`` is None, so that the process does not import it.
    """
    main = sys.modules["__main__"]
    with _START_LOCK:
        file = getattr(main, "__file__", None)
        before = {name: os.environ.get(name) for name in (*THREADS, guardian.VARIABLE)}
        for name in THREADS:
            given = before[name] or ""
            os.environ[name] = str(min(threads, int(given)) if given.isdecimal() and int(given) else threads)
        os.environ[guardian.VARIABLE] = mark
        if file is not None and not Path(file).is_file():
            main.__file__ = None
        try:
            yield
        finally:
            if file is not None:
                main.__file__ = file
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
