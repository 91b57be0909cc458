"""``lrcore.tune``: the function of a sweep, optimized with Optuna."""

from __future__ import annotations

import os
import random
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from lrcore._messages import brief
from lrcore._optional import imported
from lrcore._ranges import check_count
from lrcore.sweeps import optuna_claims
from lrcore.sweeps.objective import (
    DivergedError,
    Train,
    check_train,
    divergence,
    evaluate,
    make_report,
    name_of,
)
from lrcore.sweeps.space import Distribution, LogUniform, canonical, check_space, count_settings, grid, seed_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lrcore.sweeps.space import Settings, Space

# Seconds to wait for a locked file.
_PATIENCE = 600.0
# Attempts to open a study whose file other processes create at the same time.
_ATTEMPTS = 20
# The largest grid that is searched for untried settings.
_FEW = 10_000


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
    """Optimize the hyperparameters of a function with Optuna.

    A trial that raises, or whose objective is not finite or above 1e30 in magnitude, fails in the study, and the search
    continues.

    Several processes may use the same storage and share the trials. Each setting runs once: a trial with the settings
    of another takes its result, and waits for it if another process is running it.

    Args:
        train: The function, as for :func:`lrcore.sweep`. If it has an argument ``report``, ``report(value, step=None)``
            raises ``optuna.TrialPruned`` if Optuna's pruner stops the trial, which ``train`` must not catch.
        space: Values for each argument: a sequence, whose order Optuna ignores, or ``sweeps.loguniform(a, b)`` and
            ``sweeps.uniform(a, b)``.
        trials: The number of trials in the study, including earlier calls but not interrupted trials.
        seeds: The number of seeds of a trial, whose value is their mean. The first seed may be pruned.
        budget: The value of ``budget`` for ``train``; None passes none.
        storage: Where the study is stored, and resumes from: the path of an SQLite file, a URL, or an Optuna storage.
            None keeps it in memory.
        study_name: The name of the study in its storage; None is the name of the function.
        minimize: Whether a smaller objective is better.
        sampler: An Optuna sampler; None is ``TPESampler``, restricted to untried settings while there are any.
        pruner: An Optuna pruner; None is ``MedianPruner``.
        seed: The seed of the sampler, together with the number of the trial.
        progress: Whether to show Optuna's progress bar.

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
    study = _study(optuna, storage, study_name or name_of(train), pruner, minimize=minimize)
    study.sampler = sampler or _seeded(optuna, seed, checked)

    def run_seed(trial: Any, settings: Settings, index: int) -> float:
        reports = {"report": make_report(_pruning(optuna, trial) if index == 0 else None)} if takes_report else {}
        value, metrics, dropped = evaluate(train, settings, seed_of(settings, index), extra | reports)
        if why := divergence(value):
            raise DivergedError(f"the objective is {why}")
        notes = {"reason": "; ".join(dropped)} if dropped else {}
        for key, metric in (metrics | notes).items():
            trial.set_user_attr(key if seeds == 1 else f"{key}[{index}]", metric)
        return value

    def objective(trial: Any) -> float:
        try:
            if optuna_claims.begin(study, trial, trials):
                raise SurplusError
            settings = {name: _suggested(trial, name, values) for name, values in checked.items()}
            optuna_claims.end_drawing(study, trial)
            if (same := optuna_claims.claim(study, trial)) is not None:
                return _repeated(optuna, trial, same)
            return statistics.fmean(run_seed(trial, settings, index) for index in range(seeds))
        except (KeyboardInterrupt, SurplusError):
            trial.set_user_attr(optuna_claims.INTERRUPTED, value=True)  # Optuna counts it as failed
            raise

    def stop_after_last(*_: Any) -> None:
        if optuna_claims.left(study, trials) <= 0:  # counting those of other processes
            study.stop()

    while (left := optuna_claims.left(study, trials)) > 0:  # a trial of another process may have died with it
        study.optimize(objective, left, catch=(Exception,), callbacks=[stop_after_last], show_progress_bar=progress)
    return study


class SurplusError(Exception):
    """Other processes have already started the last trials."""


def _study(optuna: Any, storage: Any, name: str, pruner: Any, *, minimize: bool) -> Any:
    """Create or load the study; retry, since processes that create the same file at once collide."""
    for attempt in range(_ATTEMPTS):
        try:
            return optuna.create_study(
                storage=_storage(optuna, storage),
                study_name=name,
                direction="minimize" if minimize else "maximize",
                load_if_exists=True,
                pruner=pruner,
            )
        except Exception as error:
            if attempt == _ATTEMPTS - 1 or not type(error).__module__.startswith(("sqlalchemy.", "optuna.")):
                raise
            time.sleep(0.1)
    return None


def _storage(optuna: Any, given: Any) -> Any:
    """Return an Optuna storage; a path becomes an SQLite file with a long lock timeout."""
    if isinstance(given, os.PathLike) or (isinstance(given, str) and "://" not in given):
        path = Path(given)
        if not os.fspath(given) or path.is_dir():
            raise ValueError(f"storage must be a file, a URL or an Optuna storage, got {brief(os.fspath(given))}")
        given = f"sqlite:///{path}"
    if isinstance(given, str) and given.startswith("sqlite:"):
        return optuna.storages.RDBStorage(given, engine_kwargs={"connect_args": {"timeout": _PATIENCE}})
    return given


def _seeded(optuna: Any, seed: int, space: Space) -> Any:
    """Return Optuna's TPE sampler with a seed for each trial, restricted to untried settings while there are any.

    With one seed per process, processes that start together and resumed studies would draw the same settings.
    """
    stored: Space = {
        name: values if isinstance(values, Distribution) else _stored(values) for name, values in space.items()
    }
    all_settings = grid(stored) if count_settings(stored) <= _FEW else []
    distributions = {name: _distribution(optuna, values) for name, values in stored.items()}

    class Seeded(optuna.samplers.BaseSampler):  # type: ignore[misc]  # Optuna is optional
        def before_trial(self, study: Any, trial: Any) -> None:
            self._inner = optuna.samplers.TPESampler(seed=(seed + trial.number) % 2**32)
            self._inner.before_trial(study, trial)
            optuna_claims.begin_drawing(study, trial)

        def after_trial(self, *what: Any) -> None:
            self._inner.after_trial(*what)

        def infer_relative_search_space(self, *_: Any) -> Any:
            return distributions

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
            related = self._inner.infer_relative_search_space(study, trial)
            drawn = self._inner.sample_relative(study, trial, related)
            for name, distribution in search_space.items():
                if name not in drawn:
                    drawn[name] = self._inner.sample_independent(study, trial, name, distribution)
            tried = {canonical(params) for params in optuna_claims.tried(study)} if all_settings else set()
            if canonical(drawn) in tried and (new := [one for one in all_settings if canonical(one) not in tried]):
                return random.Random(seed + trial.number).choice(new)  # noqa: S311
            return drawn

        def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
            return self._inner.sample_independent(study, trial, name, distribution)

    return Seeded()


def _distribution(optuna: Any, values: Sequence[Any] | Distribution) -> Any:
    if isinstance(values, Distribution):
        return optuna.distributions.FloatDistribution(values.low, values.high, log=isinstance(values, LogUniform))
    return optuna.distributions.CategoricalDistribution(values)


def _stored(values: Sequence[Any]) -> Sequence[Any]:
    """Return values as Optuna stores them: as text if there are tuples, which it does not support."""
    has_tuples = any(isinstance(value, tuple) for value in values)
    return [canonical(value) for value in values] if has_tuples else values


def _repeated(optuna: Any, trial: Any, same: Any) -> float:
    """Copy the outcome of the trial with the same settings, and so the same seeds."""
    for step, value in same.intermediate_values.items():
        trial.report(value, step)
    for key, value in same.user_attrs.items():
        trial.set_user_attr(key, value)
    if same.state == optuna.trial.TrialState.PRUNED:
        raise optuna.TrialPruned(f"as trial {same.number}, which has the same settings")
    return float(same.value)


def _suggested(trial: Any, name: str, values: Sequence[Any] | Distribution) -> Any:
    if isinstance(values, Distribution):
        return trial.suggest_float(name, values.low, values.high, log=isinstance(values, LogUniform))
    stored = _stored(values)
    return values[stored.index(trial.suggest_categorical(name, stored))]


def _pruning(optuna: Any, trial: Any) -> Callable[[float, int], None]:
    """Return the function that reports a value to Optuna, and raises if the trial is pruned."""

    def report(value: float, step: int) -> None:
        trial.report(value, step)
        if trial.should_prune():
            raise optuna.TrialPruned(f"pruned at step {step}")

    return report
