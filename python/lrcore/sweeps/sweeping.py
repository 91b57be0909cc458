"""``lrcore.sweep``: a grid, random search or successive halving, with several seeds."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

from lrcore import info
from lrcore._messages import brief
from lrcore._ranges import Range, check_count
from lrcore.sweeps.coordinator import Coordinator, SerialExecutor, as_executor, capacity
from lrcore.sweeps.objective import Run, Train, check_train, name_of
from lrcore.sweeps.pickling import PickledFunction
from lrcore.sweeps.process_executor import ProcessExecutor, WorkerStartError
from lrcore.sweeps.progress import SweepProgress
from lrcore.sweeps.results import Results
from lrcore.sweeps.space import Settings, canonical, check_space, draws, grid, seed_of
from lrcore.sweeps.store import Row, Store
from lrcore.sweeps.summary import summaries

if TYPE_CHECKING:
    import os
    from concurrent.futures import Executor

    from lrcore.sweeps.space import Space

METHODS = ("grid", "random", "halving")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended a sweep.

    Attributes:
        results: The results until then.
    """

    def __init__(self, results: Results) -> None:
        super().__init__("the sweep was interrupted")
        self.results = results


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep: settings, seeds, and a round for each budget, after which the best share continues."""

    settings: list[Settings]
    seeds: int
    budgets: list[int | None]
    keep: float
    minimize: bool

    def total(self) -> int:
        """Return the number of runs if none fails."""
        counts = [len(self.settings)]
        for _ in self.budgets[1:]:
            counts.append(self._survivors(counts[-1]))
        return sum(counts) * self.seeds

    def runs(self, settings: Sequence[Settings], budget: int | None) -> list[Run]:
        """Return the runs of a round, seed by seed, so that an interrupted sweep has tried all settings."""
        return [
            Run(chosen, index, seed_of(chosen, index), budget) for index in range(self.seeds) for chosen in settings
        ]

    def best(self, rows: list[Row]) -> list[Settings]:
        """Return the settings that continue: the best of those whose seeds all finished."""
        found = summaries(rows, minimize=self.minimize)
        ranked = [summary.settings for summary in found if summary.complete]
        return ranked[: self._survivors(len(found))]

    def _survivors(self, count: int) -> int:
        return max(1, int(count / self.keep + 1e-9))


def sweep(
    train: Train,
    space: Mapping[str, Any] | None = None,
    seeds: SupportsIndex = 3,
    *,
    method: Literal["grid", "random", "halving"] | None = None,
    trials: SupportsIndex | None = None,
    budget: SupportsIndex | tuple[SupportsIndex, SupportsIndex] | None = None,
    factor: float = 3.0,
    results: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    workers: SupportsIndex | None = None,
    minimize: bool = True,
    retry_failed: bool = False,
    seed: SupportsIndex = 0,
    progress: bool = True,
) -> Results:
    """Run a function with settings from a space, each with several seeds, and return the results.

    Runs execute in processes that share the cores of this machine, or in any executor. A run that raises, whose process
    is killed, or whose objective is not finite is recorded as such, and the other runs continue.

    Scripts must call it under ``if __name__ == "__main__":``, since worker processes import the script.

    Args:
        train: Called as ``train(**settings, seed=…)``, and with ``budget=…`` if there is one. Returns the objective, a
            number, or a mapping with it as ``"objective"`` and other numbers, strings, bools or Nones; other values are
            dropped, and the run's reason says so. If it has an argument ``report``, that is a function
            ``report(value, step=None)`` for intermediate values, which numbers steps from 0. It ends the run as
            diverged if the value is not finite; with :func:`lrcore.tune` it prunes.
        space: Values for each argument: a sequence, or for random search ``sweeps.loguniform(a, b)`` and
            ``sweeps.uniform(a, b)``. ``train`` receives lists as tuples.
        seeds: The number of seeds for each setting. The seed of a run, in [0, 2**32), depends only on its settings and
            the index of the seed, so it stays the same when the space grows or the order changes.
        method: ``"grid"``, all combinations; ``"random"``, ``trials`` random ones; ``"halving"``, the grid, or
            ``trials`` random ones, at a small budget, then the best of them at larger budgets. The default is the grid,
            or with ``trials`` random search.
        trials: The number of random settings.
        budget: The length of a run, in any unit such as epochs: a whole number; for successive halving the smallest and
            the largest. A run at a larger budget starts from the beginning.
        factor: The ratio between budgets, and the share of the settings that continues, in (1, inf).
        results: A file that records each run when it ends, and from which an interrupted sweep resumes. None keeps the
            results in memory. Several processes may use it at once and share the runs.
        executor: Anything with ``submit`` like ``concurrent.futures.Executor``, such as mpi4py's ``MPIPoolExecutor()``,
            or a Dask ``Client``. None creates processes.
        workers: The number of processes, or of runs at an executor at once. None is one per core that this process may
            use, by its affinity and cgroup quota; 0 runs everything in this process, and so does None, with a warning,
            if ``train`` can't be sent to processes.
        minimize: Whether a smaller objective is better.
        retry_failed: Whether to repeat runs that failed in an earlier call.
        seed: The seed of random search, in [0, inf).
        progress: Whether to show progress on a terminal.

    Returns:
        The runs of the space, which can be printed, sorted and drawn.

    Raises:
        TypeError: If an argument is of a wrong type, or ``train`` does not take the settings; before any run.
        ValueError: If one is out of range, or the file is not a results file of this function; before any run.
        OSError: If the file can't be opened.
        RuntimeError: If no process could start or load ``train``, or the executor is broken; the remaining runs are
            pending.
        lrcore.sweeps.Interrupted: After Ctrl-C, with the results until then; a ``KeyboardInterrupt``.

    Examples:
        >>> from lrcore import sweeps
        >>> def train(lr, batch, seed):
        ...     return {"objective": abs(lr - 0.01) + batch / 1e4, "steps": 1000 // batch}
        >>> space = {"lr": sweeps.logspace(1e-3, 1e-1, 3), "batch": [32, 128]}
        >>> found = sweeps.sweep(train, space, seeds=2, workers=0, progress=False)
        >>> print(found.best)
        lr=0.01 batch=32: 0.0032 ± 0 over 2 seeds
        >>> print(found.sensitivity("lr", within=5.0))
           lr    mean  std   least  largest  over the rest  complete
        0.001  0.0122    0  0.0122   0.0122          0.017    2 of 2
         0.01  0.0032    0  0.0032   0.0032          0.008    2 of 2
          0.1  0.0932    0  0.0932   0.0932          0.098    2 of 2
        within 5 of the best from 0.001 to 0.01
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError("sweep was called while a worker imports the script; put the call under `if __name__ == …`")
    plan = _plan(space, seeds, method, trials, budget, factor, minimize=minimize, seed=seed)
    takes_report = check_train(train, plan.settings[0], budget=plan.budgets[0] is not None)
    executor = None if executor is None else as_executor(executor)
    count = None if workers is None else check_count("workers", workers, least=0 if executor is None else 1)
    pickled = _pickled(train, count) if executor is None and count != 0 else None
    store = Store(results, name_of(train))

    def run(given: Executor, most: int) -> Results:
        shown = SweepProgress(plan.total(), shown=progress, minimize=minimize)
        coordinator = Coordinator(train, takes_report, store, given, most, shown)
        return _run(plan, coordinator, retry=retry_failed, owned=executor is None)

    try:
        store["minimize"] = "yes" if minimize else "no"
        if executor is not None:
            return run(executor, count or capacity(executor))
        if pickled is not None:
            cores = info.usable_cores()
            most = count or cores
            try:
                return run(ProcessExecutor(pickled, most, max(1, cores // most)), most)
            except WorkerStartError as error:
                if workers is not None or not error.is_unsendable:
                    raise
                _warn(error)
        return run(SerialExecutor(), 1)
    finally:
        store.close()


def _pickled(train: Train, workers: int | None) -> PickledFunction | None:
    """Pickle the function for processes; return None if that fails and no number of workers was requested."""
    try:
        return PickledFunction(train)
    except TypeError as error:
        if workers is not None:
            raise
        _warn(error)
        return None


def _warn(error: Exception) -> None:
    warnings.warn(f"runs execute in this process, one after the other: {error}", RuntimeWarning, stacklevel=4)


def _run(plan: Plan, coordinator: Coordinator, *, retry: bool, owned: bool) -> Results:
    """Run all rounds; whatever happens, leave no process and no lease behind."""
    rows: dict[tuple[int | None, str, int], Row] = {}
    remaining, ended = plan.settings, False
    try:
        for budget in plan.budgets:
            coordinator.run(plan.runs(remaining, budget), retry=retry)
            found = _by_run(coordinator.store)
            rows |= found
            remaining = plan.best(list(found.values()))
            if not remaining:
                break
        ended = True
    except KeyboardInterrupt:
        coordinator.end()
        rows |= _by_run(coordinator.store)
        raise Interrupted(Results(rows.values(), minimize=plan.minimize)) from None
    finally:
        try:
            if not ended:
                coordinator.end()
        finally:
            if owned:
                coordinator.executor.shutdown(cancel_futures=not ended)
            coordinator.progress.close()
    return Results(rows.values(), minimize=plan.minimize)


def _by_run(store: Store) -> dict[tuple[int | None, str, int], Row]:
    return {(row.budget, canonical(row.settings), row.seed_index): row for row in store.rows(selected=True)}


def _plan(
    space: Any, seeds: Any, method: Any, trials: Any, budget: Any, factor: Any, *, minimize: bool, seed: Any
) -> Plan:
    """Check the arguments and return the plan."""
    checked = check_space(space)
    seeds = check_count("seeds", seeds, least=1)
    if method is None:
        method = "grid" if trials is None else "random"
    if method not in METHODS:
        raise ValueError(f"method must be one of {list(METHODS)}, got {brief(method)}")
    if not isinstance(minimize, bool):
        raise TypeError(f"minimize must be True or False, got {brief(minimize)}")
    factor = Range(1.0, opened=True).check("factor", factor)
    seed = check_count("seed", seed)
    budgets = _halving_budgets(budget, factor) if method == "halving" else [_fixed_budget(budget)]
    return Plan(_settings(checked, method, trials, seed), seeds, budgets, factor, minimize)


def _settings(space: Space, method: str, trials: Any, seed: int) -> list[Settings]:
    if trials is not None:
        if method == "grid":
            raise ValueError(f"trials must be None for a grid, got {trials!r}; method='random' draws that many")
        return draws(space, check_count("trials", trials, least=1), seed)
    if method == "random":
        raise ValueError("method='random' needs trials, the number of settings, got None")
    return grid(space)


def _fixed_budget(budget: Any) -> int | None:
    if isinstance(budget, Sequence):
        raise ValueError(f"budget must be one number, got {brief(budget)}; only method='halving' takes two")
    return None if budget is None else check_count("budget", budget, least=1)


def _halving_budgets(budget: Any, factor: float) -> list[int | None]:
    """Return the budgets of the rounds: from the smallest up by the factor, and the largest."""
    if not isinstance(budget, Sequence) or len(budget) != 2:
        raise ValueError(f"method='halving' needs budget=(least, largest), such as (3, 81), got {brief(budget)}")
    least = check_count("budget[0]", budget[0], least=1)
    largest = check_count("budget[1]", budget[1], least=least)
    budgets: list[int | None] = []
    current = float(least)
    # The last ratio may be larger than the factor, but not smaller than its square root.
    while current == least < largest or current * factor**0.5 <= largest:
        if round(current) not in budgets:
            budgets.append(round(current))
        current *= factor
    return [*budgets, largest] if largest not in budgets else budgets
