"""The executor of sweeps by default: processes, each with its share of the cores, that may be killed one by one.

It is not ``concurrent.futures.ProcessPoolExecutor``, since that ends all its processes when one is killed, and does not
tell whose run it was. Here each process has one run at a time, so there is one to blame, and the others go on. Before
its first run a process is sent the training, and says whether it can load it.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrcore import _lrcore
from lrcore.sweeps.objective import unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from lrcore.sweeps.objective import Train

# What libraries read when they are first imported, to know how many threads to use.
THREADS = (
    "LRCORE_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS",
)  # fmt: skip

# A function, and what it is called with after the training.
_Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

# Processes are begun one after the other, since the environment that they inherit is that of all threads.
_ENVIRONMENT = threading.Lock()
# Seconds between looks at a process that says nothing.
_LOOK = 1.0


class WorkerDiedError(RuntimeError):
    """The process of a run ended without a result."""


class WorkerStartError(RuntimeError):
    """A process ended before it could take a run, or can't load the training, and so would any other one."""


def cores() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Parcel:
    """A training as it is sent to processes: by its module and name, or with all that it needs.

    The latter takes its globals along, which may be a whole data set: that is for a function that has no such name, or
    that a process has not found by it.

    Args:
        train: The training.

    Attributes:
        message: What is sent.

    Raises:
        TypeError: If it can't be sent.
    """

    def __init__(self, train: Train) -> None:
        self._train = train
        self._is_whole = False
        self._lock = threading.Lock()
        try:
            self.message = pickle.dumps(train)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            self.message = _with_cloudpickle(train, _said(error))

    def whole(self, why: str) -> bytes:
        """Return the training with all that it needs of its module, which is the message from now on.

        Args:
            why: Why that is needed, for the error.

        Raises:
            TypeError: If it can't be sent so.
        """
        with self._lock:
            if not self._is_whole:
                self.message = _with_cloudpickle(self._train, why, whole=True)
                self._is_whole = True
            return self.message


class Processes(Executor):
    """Processes that take runs as they become free. One that dies fails its run and is replaced.

    Args:
        parcel: The training, the first argument of all that is submitted.
        workers: How many.
        threads: How many threads the libraries in each of them use.
    """

    def __init__(self, parcel: Parcel, workers: int, threads: int) -> None:
        self._tasks: queue.SimpleQueue[tuple[Future[Any], _Call] | None] = queue.SimpleQueue()
        self._parcel = parcel
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
        self._tasks.put((future, (function, arguments[1:], keywords)))  # the first is the training, which they have
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
            future, call = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                if worker is None:
                    worker = _Worker(self._parcel, self._threads, self._live, self._killing)
                worked, result = worker.ask(call)
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
    """A process that has the training, and the pipe to it."""

    def __init__(self, parcel: Parcel, threads: int, live: set[SpawnProcess], killing: threading.Event) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, threads), name="lrcore sweep")
        self._live = live
        try:
            with _environment(threads), _main_that_is_there():
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
        self._load(parcel)

    def _load(self, parcel: Parcel) -> None:
        """Have the process load the training, or end it."""
        try:
            if trouble := self.ask(parcel.message):
                message = parcel.whole(trouble)
                if other := self.ask(message):
                    raise TypeError(_refusal(trouble, other))
        except WorkerDiedError as error:
            raise WorkerStartError(f"a process for runs could not load train: {error}") from None
        except TypeError as error:
            self.stop()
            raise WorkerStartError(str(error)) from None

    def ask(self, message: bytes | _Call) -> Any:
        """Send the training and return what is wrong with it, or have a call done: see :func:`_called`."""
        try:
            self._pipe.send(message)
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


def _with_cloudpickle(train: Train, why: str, *, whole: bool = False) -> bytes:
    """Return a training as bytes where pickle can't, or where what it made serves no process.

    Args:
        train: The training.
        why: Why that is, for the error.
        whole: Whether what it needs of its own module is sent as well.

    Raises:
        TypeError: If cloudpickle is not installed, or can't do it either.
    """
    if find_spec("cloudpickle") is None:
        raise TypeError(_refusal(why))
    cloudpickle = import_module("cloudpickle")
    module = sys.modules.get(getattr(unwrapped(train), "__module__", None) or "") if whole else None
    try:
        with ExitStack() as stack:
            if module is not None and module.__name__ not in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.register_pickle_by_value(module)
                stack.callback(cloudpickle.unregister_pickle_by_value, module)
            return bytes(cloudpickle.dumps(train))
    except Exception as error:
        raise TypeError(_refusal(why, _said(error))) from None


def _refusal(why: str, other: str | None = None) -> str:
    """Return what to say of a training that no process can load, neither by name nor, with cloudpickle, by value."""
    by_value, install = ("", ", or install cloudpickle") if other is None else (f", nor with cloudpickle ({other})", "")
    return (
        f"train can't be sent to other processes ({why}){by_value}: define it at the top level of a module, or of the "
        f"script outside of `if __name__ == '__main__':`{install}, or give workers=0, which runs it here"
    )


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _work(pipe: Connection, threads: int) -> None:
    """Take the training, and calls with it until there are no more: what a process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _lrcore.set_num_threads(threads)
    if find_spec("threadpoolctl") is not None:
        import_module("threadpoolctl").threadpool_limits(threads)
    pipe.send("ready")
    train = b""
    while True:
        try:
            message: bytes | _Call = pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        if isinstance(message, bytes):
            train = message
            pipe.send(_trouble(train))
        else:
            pipe.send(_called(train, *message))


def _trouble(train: bytes) -> str:
    """Return why a training can't be loaded here, or nothing."""
    try:
        pickle.loads(train)  # noqa: S301  # from the parent, that is from itself
    except BaseException as error:
        return _said(error)
    return ""


def _called(train: bytes, function: Callable[..., Any], arguments: Any, keywords: Any) -> tuple[bool, Any]:
    """Return whether a call worked, and its result or what went wrong.

    The training is loaded for each, so that what one run does to what was sent with it is nothing to the next one.
    """
    try:
        return True, function(pickle.loads(train), *arguments, **keywords)  # noqa: S301  # as above
    except BaseException as error:
        return False, _said(error)


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


@contextmanager
def _main_that_is_there() -> Iterator[None]:
    """Have a new process import the script only if that is a file: standard input is none, and has the name of one."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or Path(file).is_file():
        yield
        return
    main.__file__ = None
    try:
        yield
    finally:
        main.__file__ = file
