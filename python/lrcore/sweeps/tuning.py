"""``lrcore.tune``: the function of a sweep, through Optuna."""

from __future__ import annotations

import math
import os
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from lrcore._optional import imported
from lrcore._ranges import check_count
from lrcore.sweeps.objective import DivergedError, Train, check_train, name_of, read, reporter
from lrcore.sweeps.space import LogUniform, Uniform, canonical, check_space, seed_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# What Ctrl-C leaves at the trial that it ended.
_INTERRUPTED = "lrcore:interrupted"


def tune(
    train: Train,
    space: Mapping[str, Any] | None = None,
    trials: SupportsIndex = 50,
    *,
    seeds: SupportsIndex = 1,
    budget: SupportsIndex | None = None,
    storage: Any = None,
    study_name: str | None = None,
    minimize: bool = True,
    sampler: Any = None,
    pruner: Any = None,
    seed: SupportsIndex = 0,
    progress: bool = True,
) -> Any:
    """Search a space with Optuna for what makes a training best.

    The function is that of :func:`lrcore.sweep`. A trial that raises, or whose objective is not finite, fails in the
    study, and the search goes on.

    Args:
        train: Called as ``train(**settings, seed=…)``. If it has an argument ``report``, that is called as
            ``report(value, step)`` while it trains, or as ``report(value)``, which counts steps from 0, and ends the
            trial where Optuna's pruner says that it is not worth its time. It does so by raising
            ``optuna.TrialPruned``, which ``train`` must let pass.
        space: A sequence of values for each argument, of which Optuna chooses without regard to their order, or
            ``sweeps.loguniform(a, b)`` and ``sweeps.uniform(a, b)``. None is refused.
        trials: How many trials the study has in the end, those of earlier calls included; one that Ctrl-C ended is none
            of them.
        seeds: How many seeds a trial is run with, of which it is the mean. The first one is pruned.
        budget: What ``train`` gets as ``budget``, if that is given.
        storage: Where the study is kept, from which it goes on if it was stopped: a path of an SQLite file, a URL, or
            one of Optuna's storages. None keeps it in memory.
        study_name: The name of the study in its storage; None is the name of the function.
        minimize: Whether less is better.
        sampler: One of Optuna's samplers; None is ``TPESampler``.
        pruner: One of Optuna's pruners; None is ``MedianPruner``.
        seed: What the sampler begins with, together with the number of trials that there are.
        progress: Whether to show Optuna's bar.

    Returns:
        The ``optuna.Study``: ``study.best_params``, ``study.trials_dataframe()``,
        ``optuna.visualization.matplotlib.plot_param_importances(study)``.

    Raises:
        ImportError: If Optuna is not installed.
        TypeError: If an argument is of a wrong type, or ``train`` does not take the settings.
        ValueError: If one is out of range.

    Examples:
        >>> from lrcore import sweeps
        >>> def train(lr, seed, report):
        ...     report((lr - 0.01) ** 2, step=1)
        ...     return (lr - 0.01) ** 2
        >>> study = sweeps.tune(train, {"lr": [0.001, 0.01]}, trials=4, progress=False)  # doctest: +SKIP
        >>> study.best_params  # doctest: +SKIP
        {'lr': 0.01}
    """
    checked = check_space(space)
    trials, seeds = check_count("trials", trials, least=1), check_count("seeds", seeds, least=1)
    seed = check_count("seed", seed)
    extra = {} if budget is None else {"budget": check_count("budget", budget, least=1)}
    takes_report = check_train(train, checked, budget=bool(extra))
    optuna = imported("optuna", "tune needs Optuna, which is not installed: pip install optuna")
    study = optuna.create_study(
        storage=_storage(storage),
        study_name=study_name or name_of(train),
        direction="minimize" if minimize else "maximize",
        load_if_exists=True,
        pruner=pruner,
    )
    begun = len(study.get_trials(deepcopy=False))
    # With the seed alone a study that goes on would draw its first trials again.
    study.sampler = sampler or optuna.samplers.TPESampler(seed=seed + begun)

    def objective(trial: Any) -> float:
        settings = {name: _suggested(trial, name, values) for name, values in checked.items()}
        results = []
        for index in range(seeds):
            reports = {"report": reporter(_pruning(optuna, trial) if index == 0 else None)} if takes_report else {}
            returned = train(**settings, **extra, seed=seed_of(settings, index), **reports)
            value, metrics, left_out = read(returned, settings)
            if not math.isfinite(value):
                raise DivergedError(f"the objective is {value}")
            results.append(value)
            notes = {"reason": "; ".join(left_out)} if left_out else {}
            for key, metric in (metrics | notes).items():
                trial.set_user_attr(key if seeds == 1 else f"{key}[{index}]", metric)
        return statistics.fmean(results)

    def interruptible(trial: Any) -> float:
        try:
            return objective(trial)
        except KeyboardInterrupt:
            trial.set_user_attr(_INTERRUPTED, value=True)  # for Optuna it fails as others do
            raise

    states = [getattr(optuna.trial.TrialState, state) for state in ("COMPLETE", "PRUNED", "FAIL")]

    def left() -> int:
        ended = study.get_trials(deepcopy=False, states=states)
        return trials - sum(_INTERRUPTED not in trial.user_attrs for trial in ended)

    def stop_at_the_last(*_: Any) -> None:
        if left() <= 0:  # other processes may work on it too
            study.stop()

    if left() > 0:
        study.optimize(
            interruptible, left(), catch=(Exception,), callbacks=[stop_at_the_last], show_progress_bar=progress
        )
    return study


def _storage(given: Any) -> Any:
    """Return what Optuna takes as a storage: a path becomes the URL of an SQLite file."""
    if isinstance(given, os.PathLike) or (isinstance(given, str) and "://" not in given):
        path = Path(given)
        if not os.fspath(given) or path.is_dir():
            raise ValueError(f"storage must be a file, a URL or a storage of Optuna, got {os.fspath(given)!r}")
        return f"sqlite:///{path}"
    return given


def _suggested(trial: Any, name: str, values: Sequence[Any] | Uniform | LogUniform) -> Any:
    if isinstance(values, Uniform | LogUniform):
        return trial.suggest_float(name, values.low, values.high, log=isinstance(values, LogUniform))
    if any(isinstance(value, tuple) for value in values):  # Optuna keeps no such values, but it keeps texts
        texts = {canonical(value): value for value in values}
        return texts[trial.suggest_categorical(name, list(texts))]
    return trial.suggest_categorical(name, list(values))


def _pruning(optuna: Any, trial: Any) -> Callable[[float, int], None]:
    """Return the function that tells Optuna of a value, and ends the trial where it is to be pruned."""

    def tell(value: float, step: int) -> None:
        trial.report(value, step)
        if trial.should_prune():
            raise optuna.TrialPruned(f"pruned at step {step}")

    return tell
