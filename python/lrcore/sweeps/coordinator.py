"""The loop of a sweep: claim runs, submit them to an executor, write their outcomes."""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lrcore._messages import brief
from lrcore.sweeps.lease import HEARTBEAT
from lrcore.sweeps.objective import Outcome, Run, Train, describe_error, execute
from lrcore.sweeps.process_executor import WorkerDiedError, WorkerStartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lrcore.sweeps.progress import SweepProgress
    from lrcore.sweeps.store import Store

# Seconds between checks of the runs of other processes.
_POLL = 0.25
# The number of runs submitted at once to an executor of unknown size.
_MANY = 64


class SerialExecutor(Executor):
    """An executor that calls functions at once in this process."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        """Call the function and return a completed future."""
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **keywords))
        return future


def as_executor(given: Any) -> Executor:
    """Return an executor; a Dask client is replaced by its executor, since its own futures are of another kind.

    Raises:
        TypeError: If it is neither.
    """
    if isinstance(given, type) or not callable(getattr(given, "submit", None)):
        raise TypeError(
            "executor must be an executor such as concurrent.futures.ThreadPoolExecutor(4), or a Dask client, got "
            f"{brief(given)}"
        )
    executor: Executor = given.get_executor() if callable(getattr(given, "get_executor", None)) else given
    return executor


def capacity(executor: Executor) -> int:
    """Return how many runs to submit at once: two per worker, if the number of workers is known."""
    if client := getattr(executor, "_client", None):  # Dask
        return 2 * sum(client.nthreads().values()) or _MANY
    workers = getattr(executor, "_max_workers", None) or getattr(executor, "num_workers", None)
    return 2 * workers if isinstance(workers, int) else _MANY


@dataclass
class Coordinator:
    """Executes runs, and shares them with other processes that use the same results file.

    Attributes:
        train: The function.
        takes_report: Whether it takes ``report``.
        store: The results file.
        executor: The executor.
        most: The most runs submitted at once.
        progress: The progress bar.
        waiting: The submitted runs.
    """

    train: Train
    takes_report: bool
    store: Store
    executor: Executor
    most: int
    progress: SweepProgress
    waiting: dict[Future[Outcome], tuple[int, Run]] = field(default_factory=dict)

    def run(self, runs: Sequence[Run], *, retry: bool = False) -> None:
        """Execute runs, here or in other processes, and return when all have ended.

        Raises:
            RuntimeError: If the executor is broken.
        """
        self.store.select(runs, retry=retry)
        self.store.reclaim()
        self.progress.begin(self.store.rows(selected=True))
        last_heartbeat = last_poll = time.monotonic()
        while True:
            self._fill()
            if not self.waiting and self.store.count_ended() == len(runs):
                break
            if self.waiting:
                self._record(wait(self.waiting, timeout=1.0, return_when=FIRST_COMPLETED).done)
            else:
                time.sleep(_POLL)  # other processes have the rest
            now = time.monotonic()
            if now - last_heartbeat >= HEARTBEAT:
                self.store.heartbeat()
                last_heartbeat = now
            if len(self.waiting) < self.most and now - last_poll >= _POLL:
                self.store.reclaim()
                self.progress.show(self.store.count_ended())
                last_poll = now
        self.progress.show(len(runs))

    def end(self) -> None:
        """Write ended runs and give up the leases of the others."""
        for future in list(self.waiting):
            if not future.cancel() and future.done():
                with suppress(RuntimeError):  # a broken executor is not the outcome of a run
                    self._record([future])
        self.store.release()

    def _fill(self) -> None:
        while len(self.waiting) < self.most:
            claimed = self.store.claim()
            if claimed is None:
                return
            try:
                future = self.executor.submit(execute, self.train, claimed[1], self.takes_report)
            except RuntimeError as error:
                raise _broken(error) from error
            self.waiting[future] = claimed
            if future.done():
                self._record([future])

    def _record(self, futures: Iterable[Future[Outcome]]) -> None:
        for future in futures:
            row_id, run = self.waiting[future]
            outcome = self._outcome(future)
            if self.store.finish(row_id, outcome):
                self.progress.add(run, outcome)
            del self.waiting[future]

    def _outcome(self, future: Future[Outcome]) -> Outcome:
        """Return the outcome of a run; the death of its process is a failure."""
        try:
            return future.result()
        except WorkerStartError:
            raise
        except WorkerDiedError as error:
            return Outcome("failed", reason=str(error))
        except Exception as error:
            if isinstance(error, BrokenExecutor) and len(self.waiting) > 1:  # any of them may have broken it
                raise _broken(error) from error
            return Outcome("failed", reason=describe_error(error))


def _broken(error: BaseException) -> RuntimeError:
    return RuntimeError(
        f"the executor accepts no more runs: {describe_error(error)}. Finished runs are kept; resume with "
        "another executor, or without one"
    )
