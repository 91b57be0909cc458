"""``lrcore.sweep``: every setting with every seed, or those that are worth it."""

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

    from lrcore.sweeps.space import Distribution

METHODS = ("grid", "random", "halving")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended a sweep.

    Attributes:
        results: What had finished until then.
    """

    def __init__(self, results: Results) -> None:
        super().__init__("the sweep was interrupted")
        self.results = results


@dataclass(frozen=True)
class Plan:
    """What is to be run: settings, seeds, and a round for each budget, from which the best go on to the next."""

    settings: list[Settings]
    seeds: int
    budgets: list[int | None]
    keep: float
    minimize: bool

    def total(self) -> int:
        """Return how many runs there are, if none fails."""
        counts = [len(self.settings)]
        for _ in self.budgets[1:]:
            counts.append(self._survivors(counts[-1]))
        return sum(counts) * self.seeds

    def runs(self, settings: Sequence[Settings], budget: int | None) -> list[Run]:
        """Return the runs of a round. First all settings with one seed: a sweep that is cut short has seen them all."""
        return [
            Run(chosen, index, seed_of(chosen, index), budget) for index in range(self.seeds) for chosen in settings
        ]

    def best(self, rows: list[Row]) -> list[Settings]:
        """Return the settings of a round that go on: the best of those whose seeds have all finished."""
        ranked = [summary.settings for summary in summaries(rows, minimize=self.minimize) if summary.complete]
        count = len({str(row.settings) for row in rows})
        return ranked[: self._survivors(count)]

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
    """Run a training with settings from a space, each with several seeds, and return what became of the runs.

    Runs go through processes of this machine, which share its cores, or through any executor. One that raises, whose
    process is killed, or whose objective is not finite is recorded as such, and the others go on.

    A script must call it under ``if __name__ == "__main__":``, since the processes import the script.

    Args:
        train: Called as ``train(**settings, seed=…)``, and with ``budget=…`` if there is one. Returns the objective, a
            number, or a mapping with it as ``"objective"`` and other numbers, strings, bools or Nones; what is none of
            these is left out, and the run's reason says so. If it has an argument ``report``, that is a function of a
            value and a step, or of a value alone, which counts steps from 0. It ends the run as diverged where the
            value is not finite; with :func:`lrcore.tune` it ends what is not worth its time.
        space: Values for each argument: a sequence, or for a random search ``sweeps.loguniform(a, b)`` and
            ``sweeps.uniform(a, b)``. A list or tuple among the values reaches ``train`` as a tuple. None is refused.
        seeds: How many seeds each setting is run with. The seed of a run, in [0, 2**32), depends on its settings and
            the number of the seed alone, so it stays the same when the space grows or the order changes.
        method: ``"grid"``, all combinations; ``"random"``, ``trials`` of them drawn; ``"halving"``, those of the grid,
            or ``trials`` drawn ones, at a small budget, then the best of them at larger ones. By default the grid, or
            with ``trials`` the random search.
        trials: How many settings are drawn.
        budget: How long a run is, in whatever ``train`` counts, such as epochs: a whole number, for successive halving
            the least and the largest. A run at a larger budget begins anew.
        factor: How many times larger the next budget is, and which share of the settings goes on to it, in (1, inf).
        results: A file in which each run is recorded as it ends, and from which the sweep goes on if it was stopped.
            None keeps them in memory. Several processes may use it at once, and share the runs.
        executor: Where runs are done: anything with ``submit`` as ``concurrent.futures.Executor`` has it, such as
            mpi4py's ``MPIPoolExecutor()``; or Dask's ``Client``. None makes processes.
        workers: How many processes, or runs at an executor at once. None is one for each core that
            this process may use, by its affinity and its control group's quota; 0 runs everything in this process, one
            after the other, and so does None, with a warning, where ``train`` can't be sent to processes.
        minimize: Whether less is better.
        retry_failed: Whether runs are done again that failed in an earlier call.
        seed: What the random search draws by, in [0, inf).
        progress: Whether to show how far it is, on a terminal.

    Returns:
        The runs of the space, to be printed, sorted and drawn.

    Raises:
        TypeError: If an argument is of a wrong type, or ``train`` does not take the settings; before any run.
        ValueError: If one is out of range, or the file is no results file of this function; before any run.
        OSError: If the file can't be opened.
        RuntimeError: If no process could begin or load ``train``, or the executor is broken; runs that had not ended
            are pending.
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
        raise RuntimeError("sweep was called while a process imports the script: put it under `if __name__ == …`")
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
    """Return a training to be sent to processes; None if it can't be, and nobody has asked for processes."""
    try:
        return PickledFunction(train)
    except TypeError as error:
        if workers is not None:
            raise
        _warn(error)
        return None


def _warn(error: Exception) -> None:
    warnings.warn(f"runs are done in this process, one after the other: {error}", RuntimeWarning, stacklevel=4)


def _run(plan: Plan, coordinator: Coordinator, *, retry: bool, owned: bool) -> Results:
    """Run all rounds; whatever happens, leave no process and no claim behind."""
    rows: dict[tuple[int | None, str, int], Row] = {}
    going_on, ended = plan.settings, False
    try:
        for budget in plan.budgets:
            coordinator.run(plan.runs(going_on, budget), retry=retry)
            found = _by_run(coordinator.store)
            rows |= found
            going_on = plan.best(list(found.values()))
            if not going_on:
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
    return {(row.budget, canonical(row.settings), row.seed_index): row for row in store.rows(wanted=True)}


def _plan(
    space: Any, seeds: Any, method: Any, trials: Any, budget: Any, factor: Any, *, minimize: bool, seed: Any
) -> Plan:
    """Return what is to be run, with everything checked."""
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


def _settings(space: Mapping[str, Sequence[Any] | Distribution], method: str, trials: Any, seed: int) -> list[Settings]:
    if trials is not None:
        if method == "grid":
            raise ValueError(f"a grid has no trials, got trials={trials!r}; method='random' draws that many")
        return draws(space, check_count("trials", trials, least=1), seed)
    if method == "random":
        raise ValueError("method='random' needs trials, how many settings it draws")
    return grid(space)


def _fixed_budget(budget: Any) -> int | None:
    if isinstance(budget, Sequence):
        raise ValueError(f"budget must be one number, got {brief(budget)}; from one to another goes method='halving'")
    return None if budget is None else check_count("budget", budget, least=1)


def _halving_budgets(budget: Any, factor: float) -> list[int | None]:
    """Return the budgets of the rounds: from the largest down in steps of the factor, to the least at the start."""
    if not isinstance(budget, Sequence) or len(budget) != 2:
        raise ValueError(f"method='halving' needs budget=(least, largest), such as (3, 81), got {brief(budget)}")
    least = check_count("budget[0]", budget[0], least=1)
    largest = check_count("budget[1]", budget[1], least=least)
    budgets: list[int | None] = []
    current = float(least)
    # The last step may be a longer one, but not much shorter than the others.
    while current == least < largest or current * factor**0.5 <= largest:
        if round(current) not in budgets:
            budgets.append(round(current))
        current *= factor
    return [*budgets, largest] if largest not in budgets else budgets
