"""scikit-learn's multi-layer perceptrons, trained by optimizers of lrcore.

scikit-learn's training loop assigns its optimizer to ``_optimizer`` when ``fit`` starts, and calls ``update_params``.
Here ``_optimizer`` is a property: the setter makes an optimizer of lrcore, and the getter returns an adapter to it.
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
# scikit-learn's arguments of its own optimizers.
_OPTIMIZER_ARGUMENTS = (
    "solver",
    "learning_rate",
    "power_t",
    "learning_rate_init",
    *chain(*_HYPERPARAMETERS.values()),
    "max_fun",
)
_ARGUMENTS = inspect.signature(neural_network.MLPClassifier).parameters
_DEFAULTS = {name: _ARGUMENTS[name].default for name in _OPTIMIZER_ARGUMENTS}
_SCHEDULE = "for a schedule, optimizer is a callable, such as functools.partial(lrcore.SGD, lr=schedules.Cosine(…))"
_ALTERNATIVES = {
    "solver": "optimizer replaces it, and only scikit-learn's own class has lbfgs",
    "learning_rate": _SCHEDULE,
    "power_t": _SCHEDULE,
    "max_fun": "it belongs to lbfgs, which only scikit-learn's own class has",
}


class _StepAdapter:
    """Adapts the optimizer of an estimator to the interface that scikit-learn's training loop uses."""

    __slots__ = ("_estimator",)

    def __init__(self, estimator: _LrcoreMLP) -> None:
        self._estimator = estimator

    def update_params(self, params: Sequence[Array], grads: Sequence[Array]) -> None:
        """Take a step, in place."""
        weights, gradients = _named(params), _named(grads)
        opt = self._estimator._live_optimizer
        _bind(opt, weights)
        names = [name for group in opt.param_groups for name in group.params]
        # Gradients of float32 weights are float64 if the targets, or the samples of a later partial_fit, are.
        matching = {name: gradients[name].astype(weights[name].dtype, copy=False) for name in names}
        self._estimator.last_step_ = opt.step(matching)

    def iteration_ends(self, time_step: int) -> None:
        """Report the loss of the epoch to schedules that use reports."""
        del time_step
        opt = self._estimator._live_optimizer
        if opt._report_trackers():
            opt.report(self._estimator.loss_)

    def trigger_stopping(self, msg: str, verbose: bool) -> bool:  # noqa: FBT001 (as scikit-learn calls it)
        """Return True: the training ends when the loss stops improving."""
        if verbose:
            print(f"{msg} Stopping.")  # noqa: T201 (as scikit-learn does)
        return True


class _PickledOptimizer:
    """A pickled optimizer, restored when it is first needed.

    joblib can load a network with read-only arrays, which suffice for predictions and which no optimizer accepts.
    """

    def __init__(self, opt: Optimizer) -> None:
        self._class = type(opt)
        self._state = opt.__getstate__()

    def restored(self) -> Optimizer:
        """Return the optimizer, with its own arrays."""
        opt = self._class.__new__(self._class)
        opt.__setstate__(copy.deepcopy(self._state))
        return opt


class _LrcoreMLP:
    """The common part of both estimators."""

    if TYPE_CHECKING:
        optimizer: str | Callable[[dict[str, Array]], Optimizer]
        coefs_: list[Array]
        intercepts_: list[Array]
        loss_: float
        last_step_: StepInfo
        _lrcore: Optimizer | _PickledOptimizer

    @property
    def optimizer_(self) -> Optimizer:
        """The optimizer of ``coefs_`` and ``intercepts_``, from ``fit`` or the first ``partial_fit`` on."""
        if "_lrcore" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no optimizer_ before fit or partial_fit")
        opt = self._live_optimizer
        # With early stopping scikit-learn assigns other arrays, and joblib loads each array twice.
        _bind(opt, _named([*self.coefs_, *self.intercepts_]))
        return opt

    @property
    def _optimizer(self) -> _StepAdapter:
        if "_lrcore" not in vars(self):
            raise AttributeError("_optimizer")
        return _StepAdapter(self)

    @_optimizer.setter
    def _optimizer(self, given: Any) -> None:
        del given
        before = vars(self).get("_lrcore")
        if isinstance(before, Optimizer):
            before._refuse_if_swapped()  # warm_start would train the averages
        self._lrcore = self._make(_named([*self.coefs_, *self.intercepts_]))

    def _make(self, params: dict[str, Array]) -> Optimizer:
        if isinstance(self.optimizer, str):
            optimizer, used = _BY_NAME[self.optimizer]
            return optimizer(params, **_arguments({name: getattr(self, name) for name in used}))
        opt = self.optimizer(params)
        if not isinstance(opt, Optimizer):
            raise TypeError(f"optimizer must return an optimizer of lrcore, got {type(opt).__name__}")
        for own in (group.params for group in opt.param_groups):
            if not isinstance(own, MutableMapping) or any(params.get(name) is not own[name] for name in own):
                what = list(own) if isinstance(own, MutableMapping) else type(own).__name__
                raise ValueError(
                    "optimizer must return an optimizer of the dict that it is called with, or of groups of entries "
                    f"of it, got {type(opt).__name__} of {what}"
                )
        return opt

    @property
    def _live_optimizer(self) -> Optimizer:
        if isinstance(self._lrcore, _PickledOptimizer):
            self._lrcore = self._lrcore.restored()
        return self._lrcore

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes with the optimizer, so that ``partial_fit`` of a copy or pickle continues."""
        state: dict[str, Any] = {**super().__getstate__()}  # type: ignore[dict-item]
        if "_lrcore" in state and isinstance(self._lrcore, Optimizer):
            state["_lrcore"] = _PickledOptimizer(self._lrcore)
        return state

    def _validate_params(self) -> None:
        """Check the arguments as scikit-learn does, and refuse those without effect."""
        super()._validate_params()  # type: ignore[misc]
        given = self.optimizer
        used: tuple[str, ...] = ()
        if isinstance(given, str) and given in _BY_NAME:
            used, why = _BY_NAME[given][1], f"optimizer={given!r} does not use it"
        elif callable(given):
            why = "optimizer is a callable, which sets it"
        else:
            error = ValueError if isinstance(given, str) else TypeError
            names = ", ".join(map(repr, _BY_NAME))
            raise error(
                f"optimizer must be one of {names}, or a callable that takes the parameters, got {brief(given)}"
            )
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if name not in used and value != default:
                reason = _ALTERNATIVES.get(name, why)
                raise ValueError(f"{name} of {type(self).__name__} must stay {default!r}, got {brief(value)}: {reason}")


def _named(arrays: Sequence[Array]) -> dict[str, Array]:
    """Return the arrays of ``coefs_`` followed by those of ``intercepts_`` by name."""
    layers = range(len(arrays) // 2)
    names = [f"{kind}.{layer}" for kind in ("coefs_", "intercepts_") for layer in layers]
    return dict(zip(names, arrays, strict=True))


def _bind(opt: Optimizer, arrays: dict[str, Array]) -> None:
    """Replace the arrays of an optimizer."""
    for group in opt.param_groups:
        for name in group.params:
            group.params[name] = arrays[name]


def _arguments(value: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an optimizer for these arguments of scikit-learn."""
    arguments: dict[str, Any] = {"lr": value["learning_rate_init"]}
    if "beta_1" in value:
        arguments["betas"] = (value["beta_1"], value["beta_2"])
    if "epsilon" in value:
        arguments["eps"] = value["epsilon"]
    if "momentum" in value:
        # On by default in scikit-learn, also without momentum, where it has no effect.
        nesterov = bool(value["nesterovs_momentum"]) and value["momentum"] > 0
        arguments |= {"momentum": value["momentum"], "nesterov": nesterov}
    return arguments


def _hint(name: str, known: Collection[str]) -> str:
    """Return the end of the message for an unknown argument: a similar name, or where options go."""
    is_option = name in Options.__annotations__
    similar = "" if is_option else did_you_mean(name, known)
    if similar:
        return similar
    similar = did_you_mean(name, Options.__annotations__)
    if not similar and not is_option:
        return ""
    return f"{similar or ';'} options are given to the optimizer: optimizer=functools.partial(lrcore.AdamW, ...)"


def _init_of(estimator: Any) -> Callable[..., None]:
    """Return an ``__init__`` with the arguments of the installed version of an estimator, and ``optimizer``."""
    signature = inspect.signature(estimator.__init__)

    def __init__(self: Any, *args: Any, optimizer: Any = "adam", **kwargs: Any) -> None:  # noqa: N807
        for name in kwargs:
            if name not in signature.parameters:
                raise TypeError(f"{type(self).__name__} has no argument {name!r}{_hint(name, signature.parameters)}")
        estimator.__init__(self, *args, **kwargs)
        self.optimizer = optimizer

    added = inspect.Parameter("optimizer", inspect.Parameter.KEYWORD_ONLY, default="adam")
    # scikit-learn reads the names of arguments from the signature.
    __init__.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), added]
    )
    return __init__


class MLPClassifier(_LrcoreMLP, neural_network.MLPClassifier):  # type: ignore[misc] # scikit-learn has no types
    """scikit-learn's ``MLPClassifier``, trained by an optimizer of lrcore.

    Network, loss, batches, stopping, arguments and methods are scikit-learn's. The steps are lrcore's, in place in the
    arrays of ``coefs_`` and ``intercepts_``.

    Args:
        optimizer: The name of an optimizer of lrcore in lower case, such as ``"adamw"``, or a callable, such as
            ``functools.partial(lrcore.AdamW, lr=schedules.Cosine(0.01, steps=1000), clip_norm=1.0)``. It is called with
            a dict of the arrays, ``"coefs_.0"``, …, ``"intercepts_.0"``, …, and returns an optimizer of the dict, or of
            groups of its entries. Entries that it leaves out are not trained.
        learning_rate_init: ``lr`` of an optimizer by name, in (0, inf).
        beta_1: ``betas[0]`` of an optimizer by name that has ``betas``, in [0, 1).
        beta_2: ``betas[1]`` of an optimizer by name that has ``betas``, in [0, 1).
        epsilon: ``eps`` of an optimizer by name that has it, in (0, inf).
        momentum: ``momentum`` of ``"sgd"``, in [0, 1].
        nesterovs_momentum: ``nesterov`` of ``"sgd"``.
        alpha: The L2 penalty, in [0, inf). scikit-learn adds ``alpha · coefs_``, divided by the number of samples in
            the batch, to the gradients, before clipping. The optimizer's ``weight_decay`` is applied in addition, also
            to intercepts; by name it is 0.01 for ``"adamw"``, and 0 for others.
        args: The other arguments are scikit-learn's. ``solver``, ``learning_rate``, ``power_t`` and ``max_fun`` must
            have their defaults, and so must those above that ``optimizer`` does not use.

    Attributes:
        optimizer_: The optimizer, with its steps, state and averages. Each ``fit`` makes a new one, also with
            ``warm_start``; ``partial_fit`` continues with the present one, also after a pickle.
        last_step_: The result of its last step: learning rate, norm of the gradients, statistics.

    ``fit`` raises:

    Raises:
        TypeError: If ``optimizer`` has a wrong type, or does not return an optimizer.
        ValueError: If there is no optimizer of that name, if it returns one of other arrays, or if an argument would
            have no effect.

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
        scikit-learn stops when the loss improves by less than ``tol`` for ``n_iter_no_change`` epochs. To follow a
        schedule to its end, set ``n_iter_no_change=max_iter``; the run then ends with a ``ConvergenceWarning``. The
        loss of each epoch is reported to ``ReduceOnPlateau``. ``solver="adam"`` computes the numbers of
        :class:`lrcore.Adam` with ``eps`` divided by √(1 − β₂ᵗ).
    """

    __init__ = _init_of(neural_network.MLPClassifier)


class MLPRegressor(_LrcoreMLP, neural_network.MLPRegressor):  # type: ignore[misc] # scikit-learn has no types
    """scikit-learn's ``MLPRegressor``, trained by an optimizer of lrcore.

    See :class:`MLPClassifier` for the differences from scikit-learn.

    Args:
        optimizer: As for :class:`MLPClassifier`.
        args: As for :class:`MLPClassifier`.

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
        float32 weights are updated in float32. scikit-learn's optimizers compute in float64 if targets are float64.
    """

    __init__ = _init_of(neural_network.MLPRegressor)
