"""The loop of a sweep: claim runs, hand them to an executor, write what comes back."""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lrcore._messages import brief
from lrcore.sweeps.lease import HEARTBEAT
from lrcore.sweeps.objective import Outcome, Run, Train, call
from lrcore.sweeps.process_executor import WorkerDiedError, WorkerStartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lrcore.sweeps.progress import SweepProgress
    from lrcore.sweeps.store import Store

# Seconds between looks at what other processes do with the same file.
_LOOK = 0.25
# Runs that are handed to an executor that does not say how many it takes.
_MANY = 64


class SerialExecutor(Executor):
    """An executor that runs everything at once where it is called, for debuggers."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        """Call the function, and return a future that is done."""
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **keywords))
        return future


def as_executor(given: Any) -> Executor:
    """Return an executor, that of a client of Dask too, whose own futures are of another kind.

    Raises:
        TypeError: If it is neither.
    """
    if isinstance(given, type) or not callable(getattr(given, "submit", None)):
        raise TypeError(
            "executor must be an executor, with submit as concurrent.futures.ThreadPoolExecutor(4) has it, or a client "
            f"of Dask, got {brief(given)}"
        )
    executor: Executor = given.get_executor() if callable(getattr(given, "get_executor", None)) else given
    return executor


def capacity(executor: Executor) -> int:
    """Return how many runs an executor should have at once: two for each of its workers, if it tells of them."""
    if client := getattr(executor, "_client", None):  # Dask's
        return 2 * sum(client.nthreads().values()) or _MANY
    workers = getattr(executor, "_max_workers", None) or getattr(executor, "num_workers", None)
    return 2 * workers if isinstance(workers, int) else _MANY


@dataclass
class Coordinator:
    """Runs runs through an executor, and shares them with other processes that use the same file.

    Attributes:
        train: The function.
        takes_report: Whether it takes a ``report``.
        store: Where the runs are written.
        executor: Where they are run.
        most: How many are handed to it at once.
        progress: Who is told how far it is.
        waiting: The runs that are at the executor now.
    """

    train: Train
    takes_report: bool
    store: Store
    executor: Executor
    most: int
    progress: SweepProgress
    waiting: dict[Future[Outcome], tuple[int, Run]] = field(default_factory=dict)

    def run(self, runs: Sequence[Run], *, retry: bool = False) -> None:
        """Have all of the runs run, by whomever, and return when each has ended.

        Raises:
            RuntimeError: If the executor is broken.
        """
        self.store.want(runs, retry=retry)
        self.store.reclaim()
        self.progress.begin(self.store.rows(wanted=True))
        beaten = looked = time.monotonic()
        while True:
            self._fill()
            if not self.waiting and self.store.settled() == len(runs):
                break
            if self.waiting:
                self._record(wait(self.waiting, timeout=1.0, return_when=FIRST_COMPLETED).done)
            else:
                time.sleep(_LOOK)  # the rest is at other processes
            now = time.monotonic()
            if now - beaten >= HEARTBEAT:
                self.store.heartbeat()
                beaten = now
            if len(self.waiting) < self.most and now - looked >= _LOOK:
                self.store.reclaim()
                self.progress.show(self.store.settled())
                looked = now
        self.progress.show(len(runs))

    def end(self) -> None:
        """Write what has ended, and give back what has not."""
        for future in list(self.waiting):
            if not future.cancel() and future.done():
                with suppress(RuntimeError):  # what made the sweep end is no outcome of a run
                    self._record([future])
        self.store.release()

    def _fill(self) -> None:
        while len(self.waiting) < self.most:
            claimed = self.store.claim()
            if claimed is None:
                return
            try:
                future = self.executor.submit(call, self.train, claimed[1], self.takes_report)
            except (BrokenExecutor, RuntimeError) as error:
                raise _broken(error) from error
            self.waiting[future] = claimed
            if future.done():
                self._record([future])

    def _record(self, futures: Iterable[Future[Outcome]]) -> None:
        for future in futures:
            identity, run = self.waiting[future]
            outcome = self._outcome(future)
            if self.store.finish(identity, outcome):
                self.progress.note(run, outcome)
            del self.waiting[future]

    def _outcome(self, future: Future[Outcome]) -> Outcome:
        """Return what a future holds; that a process died is an outcome like others."""
        try:
            return future.result()
        except WorkerStartError:
            raise
        except WorkerDiedError as error:
            return Outcome("failed", reason=str(error))
        except BrokenExecutor as error:
            if len(self.waiting) > 1:  # whose run it was can't be known
                raise _broken(error) from error
            return Outcome("failed", reason=f"{type(error).__name__}: {error}")
        except (Exception, CancelledError) as error:
            return Outcome("failed", reason=f"{type(error).__name__}: {error}")


def _broken(error: BaseException) -> RuntimeError:
    return RuntimeError(
        f"the executor takes no more runs: {type(error).__name__}: {error}. What has finished is kept; start again "
        "with another executor, or without one"
    )
