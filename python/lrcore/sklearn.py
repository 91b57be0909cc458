"""scikit-learn's multi-layer perceptrons, trained by optimizers of lrcore.

It imports scikit-learn; nothing else in the package imports it.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import MutableMapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from lrcore._messages import brief, did_you_mean
from lrcore._optional import imported
from lrcore.optim import OPTIMIZERS, Optimizer
from lrcore.optim.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    import numpy as np
    from sklearn import neural_network

    from lrcore.optim.stats import StepInfo

    Array = np.ndarray[Any, Any]
else:
    neural_network = imported(
        "sklearn.neural_network", "lrcore.sklearn needs scikit-learn, which is not installed: pip install scikit-learn"
    )

__all__ = ["MLPClassifier", "MLPRegressor"]


def __dir__() -> list[str]:
    return sorted(__all__)


# The arguments of scikit-learn that set a hyperparameter of lrcore. Its momentum is Nesterov's.
_HYPERPARAMETERS = {"betas": ("beta_1", "beta_2"), "eps": ("epsilon",), "nesterov": ("momentum", "nesterovs_momentum")}


def _used_by(optimizer: type[Optimizer]) -> tuple[str, ...]:
    """Return the arguments of scikit-learn that an optimizer uses."""
    own = optimizer._declaration.hyperparameters
    return ("learning_rate_init", *(one for name, names in _HYPERPARAMETERS.items() if name in own for one in names))


_BY_NAME = {optimizer.__name__.lower(): (optimizer, _used_by(optimizer)) for optimizer in OPTIMIZERS}
# The arguments of scikit-learn that say how weights move.
_MOVING = ("solver", "learning_rate", "power_t", "learning_rate_init", *chain(*_HYPERPARAMETERS.values()), "max_fun")
_ARGUMENTS = inspect.signature(neural_network.MLPClassifier).parameters
_DEFAULTS = {name: _ARGUMENTS[name].default for name in _MOVING}
_SCHEDULE = "for a schedule, optimizer is a callable, such as functools.partial(lrcore.SGD, lr=schedules.Cosine(…))"
_INSTEAD = {
    "solver": "optimizer says how weights move, and only scikit-learn's own class has lbfgs",
    "learning_rate": _SCHEDULE,
    "power_t": _SCHEDULE,
    "max_fun": "it belongs to lbfgs, which only scikit-learn's own class has",
}


class _Loop:
    """What the training loop of scikit-learn takes for its optimizer: it steps that of an estimator."""

    __slots__ = ("_estimator",)

    def __init__(self, estimator: _Trained) -> None:
        self._estimator = estimator

    def update_params(self, params: Sequence[Array], grads: Sequence[Array]) -> None:
        """Take a step, in the arrays that the loop goes on with."""
        weights, gradients = _named(params), _named(grads)
        opt = self._estimator._unpacked()
        _bind(opt, weights)
        names = [name for group in opt.param_groups for name in group.params]
        # float32 weights get float64 gradients where the targets, or the samples of a later partial_fit, are float64.
        matching = {name: gradients[name].astype(weights[name].dtype, copy=False) for name in names}
        self._estimator.last_step_ = opt.step(matching)

    def iteration_ends(self, time_step: int) -> None:
        """Report the loss of an epoch to schedules that follow reports."""
        del time_step
        opt = self._estimator._unpacked()
        if any(tracker.rule._uses_reports for _, tracker in opt._trackers()):
            opt.report(self._estimator.loss_)

    def trigger_stopping(self, msg: str, verbose: bool) -> bool:  # noqa: FBT001 (as scikit-learn calls it)
        """Return that the training is to end, since it gains no more."""
        if verbose:
            print(f"{msg} Stopping.")  # noqa: T201 (as scikit-learn does)
        return True


class _Packed:
    """An optimizer as it lies in a pickle, which is made again when it is needed.

    joblib can load a network with arrays that are read-only, enough for predictions, and no optimizer takes these.
    """

    def __init__(self, opt: Optimizer) -> None:
        self._class = type(opt)
        self._state = opt.__getstate__()

    def unpacked(self) -> Optimizer:
        """Return the optimizer, with arrays of its own."""
        opt = self._class.__new__(self._class)
        opt.__setstate__(copy.deepcopy(self._state))
        return opt


class _Trained:
    """What both estimators have in common."""

    if TYPE_CHECKING:
        optimizer: str | Callable[[dict[str, Array]], Optimizer]
        coefs_: list[Array]
        intercepts_: list[Array]
        loss_: float
        last_step_: StepInfo
        _lrcore: Optimizer | _Packed

    @property
    def optimizer_(self) -> Optimizer:
        """The optimizer of ``coefs_`` and ``intercepts_``, from ``fit`` or the first ``partial_fit`` on."""
        if "_lrcore" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no optimizer_ before fit or partial_fit")
        opt = self._unpacked()
        # scikit-learn puts other arrays in their place where it stops early, and joblib loads each array twice.
        _bind(opt, _named([*self.coefs_, *self.intercepts_]))
        return opt

    # scikit-learn puts an optimizer of its own here when fit begins, or the first partial_fit. One of lrcore takes its
    # place, and what the training loop reads here steps that.

    @property
    def _optimizer(self) -> _Loop:
        if "_lrcore" not in vars(self):
            raise AttributeError("_optimizer")
        return _Loop(self)

    @_optimizer.setter
    def _optimizer(self, given: Any) -> None:
        del given
        before = vars(self).get("_lrcore")
        if isinstance(before, Optimizer):
            before._refuse_if_swapped()  # a warm start would train the averages
        self._lrcore = self._made(_named([*self.coefs_, *self.intercepts_]))

    def _made(self, params: dict[str, Array]) -> Optimizer:
        if isinstance(self.optimizer, str):
            optimizer, used = _BY_NAME[self.optimizer]
            return optimizer(params, **_arguments({name: getattr(self, name) for name in used}))
        opt = self.optimizer(params)
        if not isinstance(opt, Optimizer):
            raise TypeError(f"optimizer must return an optimizer of lrcore, got {type(opt).__name__}")
        for held in (group.params for group in opt.param_groups):
            if not isinstance(held, MutableMapping) or any(params.get(name) is not held[name] for name in held):
                what = list(held) if isinstance(held, MutableMapping) else type(held).__name__
                raise ValueError(
                    "optimizer must return an optimizer of the dict that it is called with, or of groups of entries "
                    f"of it, got {type(opt).__name__} of {what}"
                )
        return opt

    def _unpacked(self) -> Optimizer:
        if isinstance(self._lrcore, _Packed):
            self._lrcore = self._lrcore.unpacked()
        return self._lrcore

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle or a deep copy holds: the optimizer too, so that ``partial_fit`` goes on."""
        state: dict[str, Any] = {**super().__getstate__()}  # type: ignore[dict-item]
        if "_lrcore" in state and isinstance(self._lrcore, Optimizer):
            state["_lrcore"] = _Packed(self._lrcore)
        return state

    def _validate_params(self) -> None:
        """Check the arguments as scikit-learn does, and that none is without effect."""
        super()._validate_params()  # type: ignore[misc]
        given = self.optimizer
        used: tuple[str, ...] = ()
        if isinstance(given, str) and given in _BY_NAME:
            used, why = _BY_NAME[given][1], f"optimizer={given!r} makes no use of it"
        elif callable(given):
            why = "optimizer is a callable, which says it"
        else:
            error = ValueError if isinstance(given, str) else TypeError
            names = ", ".join(map(repr, _BY_NAME))
            raise error(
                f"optimizer must be one of {names}, or a callable that takes the parameters, got {brief(given)}"
            )
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if name not in used and value != default:
                reason = _INSTEAD.get(name, why)
                raise ValueError(f"{name} of {type(self).__name__} must stay {default!r}, got {brief(value)}: {reason}")


def _named(arrays: Sequence[Array]) -> dict[str, Array]:
    """Return arrays of ``coefs_``, and then as many of ``intercepts_``, by name."""
    layers = range(len(arrays) // 2)
    names = [f"{kind}.{layer}" for kind in ("coefs_", "intercepts_") for layer in layers]
    return dict(zip(names, arrays, strict=True))


def _bind(opt: Optimizer, arrays: dict[str, Array]) -> None:
    """Let an optimizer step these arrays, which may be others than before."""
    for group in opt.param_groups:
        for name in group.params:
            group.params[name] = arrays[name]


def _arguments(value: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an optimizer that have these values in scikit-learn."""
    arguments: dict[str, Any] = {"lr": value["learning_rate_init"]}
    if "beta_1" in value:
        arguments["betas"] = (value["beta_1"], value["beta_2"])
    if "epsilon" in value:
        arguments["eps"] = value["epsilon"]
    if "momentum" in value:
        # Nesterov's correction is on by default in scikit-learn, where it does nothing without momentum.
        nesterov = bool(value["nesterovs_momentum"]) and value["momentum"] > 0
        arguments |= {"momentum": value["momentum"], "nesterov": nesterov}
    return arguments


def _meant(name: str, known: Collection[str]) -> str:
    """Return what an argument that an estimator does not have may have meant, for a message."""
    meant = "" if name in Options.__annotations__ else did_you_mean(name, known)
    if meant:
        return meant
    meant = did_you_mean(name, Options.__annotations__)
    if not meant and name not in Options.__annotations__:
        return ""
    return f"{meant or ';'} options are given to the optimizer: optimizer=functools.partial(lrcore.AdamW, ...)"


def _init_of(estimator: Any) -> Callable[..., None]:
    """Return an ``__init__`` with the arguments of an estimator, which differ between versions, and ``optimizer``."""
    signature = inspect.signature(estimator.__init__)

    def __init__(self: Any, *args: Any, optimizer: Any = "adam", **kwargs: Any) -> None:  # noqa: N807
        for name in kwargs:
            if name not in signature.parameters:
                raise TypeError(f"{type(self).__name__} has no argument {name!r}{_meant(name, signature.parameters)}")
        estimator.__init__(self, *args, **kwargs)
        self.optimizer = optimizer

    added = inspect.Parameter("optimizer", inspect.Parameter.KEYWORD_ONLY, default="adam")
    # scikit-learn reads the names of the arguments here.
    __init__.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), added]
    )
    return __init__


class MLPClassifier(_Trained, neural_network.MLPClassifier):  # type: ignore[misc] # scikit-learn has no types
    """scikit-learn's ``MLPClassifier``, trained by an optimizer of lrcore.

    Arguments and methods are scikit-learn's, and so are network, loss, batches and stopping. The steps are lrcore's, in
    place in the arrays of ``coefs_`` and ``intercepts_``.

    Args:
        optimizer: The name of an optimizer of lrcore in lower case, such as ``"adamw"``, or a callable, such as
            ``functools.partial(lrcore.AdamW, lr=schedules.Cosine(0.01, steps=1000), clip_norm=1.0)``. It is called with
            the arrays, a dict with the names ``"coefs_.0"``, …, ``"intercepts_.0"``, …, and returns an optimizer of it,
            or of groups of its entries. Those that it leaves out stay as they are.
        learning_rate_init: ``lr`` of an optimizer by name, in (0, inf).
        beta_1: ``betas[0]`` of an optimizer by name that has ``betas``, in [0, 1).
        beta_2: ``betas[1]`` of an optimizer by name that has ``betas``, in [0, 1).
        epsilon: ``eps`` of an optimizer by name that has it, in (0, inf).
        momentum: That of ``"sgd"``, in [0, 1].
        nesterovs_momentum: ``nesterov`` of ``"sgd"``.
        alpha: The L2 penalty, in [0, inf). scikit-learn adds ``alpha · coefs_``, divided by the samples of the batch,
            to the gradients, before clipping. It comes on top of a ``weight_decay``, which is 0.01 for ``"adamw"``, of
            intercepts too, and 0 for others by name.
        args: Others are scikit-learn's. ``solver``, ``learning_rate``, ``power_t`` and ``max_fun`` must keep their
            defaults, and so must those above that ``optimizer`` makes no use of.

    Attributes:
        optimizer_: The optimizer: its steps, state and averages. Each ``fit`` makes a new one, also with
            ``warm_start``; ``partial_fit`` goes on with the one that there is, also after a pickle.
        last_step_: What its last step returned: the rate, the norm of the gradients, statistics.

    ``fit`` raises:

    Raises:
        TypeError: If ``optimizer`` is of a wrong type, or returns no optimizer.
        ValueError: If there is none of that name, if it returns one of other arrays, or if an argument would be without
            effect.

    Examples:
        >>> import functools, lrcore, numpy as np
        >>> from lrcore import schedules
        >>> from lrcore.sklearn import MLPClassifier
        >>> x = np.linspace(-1.0, 1.0, 200)[:, None]
        >>> y = np.abs(x[:, 0]) > 0.5
        >>> adamw = functools.partial(lrcore.AdamW, lr=schedules.Cosine(0.05, steps=100), clip_norm=1.0)
        >>> model = MLPClassifier((16,), optimizer=adamw, alpha=0.0, tol=1e-3, random_state=0).fit(x, y)
        >>> model.score(x, y), model.optimizer_.steps == model.n_iter_
        (1.0, True)

    Note:
        scikit-learn ends a training when ``n_iter_no_change`` epochs gained less than ``tol``. One that is to follow a
        schedule to its end has ``n_iter_no_change=max_iter``, and ends with a ``ConvergenceWarning``. Schedules with
        ``ReduceOnPlateau`` are told the loss of each epoch. The numbers of ``solver="adam"`` are those of
        :class:`lrcore.Adam` with ``eps`` divided by √(1 − β₂ᵗ).
    """

    __init__ = _init_of(neural_network.MLPClassifier)


class MLPRegressor(_Trained, neural_network.MLPRegressor):  # type: ignore[misc] # scikit-learn has no types
    """scikit-learn's ``MLPRegressor``, trained by an optimizer of lrcore.

    All that differs from scikit-learn is what :class:`MLPClassifier` says.

    Args:
        optimizer: As for :class:`MLPClassifier`, and so are all others.
        args: Those of scikit-learn.

    Attributes:
        optimizer_: As for :class:`MLPClassifier`.
        last_step_: As for :class:`MLPClassifier`.

    ``fit`` raises:

    Raises:
        TypeError: As for :class:`MLPClassifier`.
        ValueError: As for :class:`MLPClassifier`.

    Examples:
        >>> import functools, lrcore, numpy as np
        >>> from lrcore import schedules
        >>> from lrcore.sklearn import MLPRegressor
        >>> x = np.linspace(-1.0, 1.0, 200)[:, None]
        >>> sgd = functools.partial(lrcore.SGD, lr=schedules.Cosine(0.2, steps=300), momentum=0.9, nesterov=True)
        >>> model = MLPRegressor(hidden_layer_sizes=(16,), optimizer=sgd, max_iter=300, tol=1e-6, random_state=0)
        >>> bool(model.fit(x, x[:, 0] ** 2).score(x, x[:, 0] ** 2) > 0.95)
        True

    Note:
        Weights of float32 are stepped in float32. scikit-learn's optimizers compute in float64 where targets are
        float64.
    """

    __init__ = _init_of(neural_network.MLPRegressor)
