"""Networks of scikit-learn train with lrcore as with its own optimizers, and are estimators like all others."""

import copy
import functools
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from support.cases import OPTIMIZERS

pytest.importorskip("sklearn")
import joblib
from scipy import sparse
from sklearn import neural_network
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from lrcore.sklearn import MLPClassifier, MLPRegressor

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "sklearn.md"
BLOCKS = re.findall(r"^```python fragment\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)

PAIRS = [(MLPClassifier, neural_network.MLPClassifier), (MLPRegressor, neural_network.MLPRegressor)]
SMALL = {"hidden_layer_sizes": (12, 5), "batch_size": 16, "max_iter": 8, "n_iter_no_change": 100, "random_state": 0}
ADAMW = functools.partial(lrcore.AdamW, lr=0.01)

# Trainings here are as short as they can be.
pytestmark = pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__name__}")


def data(dtype=np.float64):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((100, 6))
    return x.astype(dtype), (x[:, 0] * x[:, 1] > 0).astype(float)


X, Y = data()


def weights(model):
    return [*model.coefs_, *model.intercepts_]


def distance(a, b):
    return max(float(np.abs(p - q).max()) for p, q in zip(weights(a), weights(b), strict=True))


def same(a, b):
    return all(np.array_equal(p, q) for p, q in zip(weights(a), weights(b), strict=True))


def held(model):
    return list(model.optimizer_.params.values())


def by_identity(arrays, others):
    return all(a is b for a, b in zip(arrays, others, strict=True))


# The numbers


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize(
    "given",
    [
        {"learning_rate_init": 0.02},
        {"learning_rate_init": 0.02, "nesterovs_momentum": False},
        {"learning_rate_init": 0.05, "momentum": 0.0},
        {"learning_rate_init": 0.02, "momentum": 0.5, "alpha": 1.0, "activation": "tanh", "shuffle": False},
    ],
    ids=str,
)
def test_sgd_trains_to_the_weights_of_the_solver_sgd(ours, theirs, given):
    a = ours(optimizer="sgd", **SMALL | given).fit(X, Y)
    b = theirs(solver="sgd", **SMALL | given).fit(X, Y)
    assert distance(a, b) < 1e-12
    assert a.n_iter_ == b.n_iter_ == 8
    np.testing.assert_allclose(a.loss_curve_, b.loss_curve_, rtol=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_adam_trains_to_the_weights_of_the_solver_adam_where_eps_is_the_same(ours, theirs):
    # scikit-learn has the paper's "epsilon hat", which is not divided by the root of the bias correction.
    eps = schedules.Lambda(lambda step: 1e-8 / (1 - 0.98 ** (step + 1)) ** 0.5)
    adam = functools.partial(lrcore.Adam, lr=0.01, betas=(0.8, 0.98), eps=eps)
    given = {"learning_rate_init": 0.01, "beta_1": 0.8, "beta_2": 0.98}
    assert distance(ours(optimizer=adam, **SMALL).fit(X, Y), theirs(**SMALL | given).fit(X, Y)) < 1e-12
    # Gradients far above it, as they are without the penalty of weights that have no other, hardly feel it.
    given["alpha"] = 0.0
    assert 0 < distance(ours(**SMALL | given).fit(X, Y), theirs(**SMALL | given).fit(X, Y)) < 1e-5


def by_default(optimizer):
    """Return an optimizer with the defaults of scikit-learn's arguments."""
    defaults = {"betas": (0.9, 0.999), "eps": 1e-8, "nesterov": True}
    own = {name: value for name, value in defaults.items() if name in optimizer._declaration.hyperparameters}
    return functools.partial(optimizer, lr=0.1, **own, **{"momentum": 0.9} if "nesterov" in own else {})


@pytest.mark.parametrize(
    ("name", "given", "optimizer"),
    [
        (
            "adam",
            {"learning_rate_init": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
            functools.partial(lrcore.Adam, lr=0.1, betas=(0.5, 0.9), eps=1e-3),
        ),
        *((optimizer.__name__.lower(), {"learning_rate_init": 0.1}, by_default(optimizer)) for optimizer in OPTIMIZERS),
    ],
)
def test_a_name_is_the_optimizer_with_the_arguments_of_scikit_learn(name, given, optimizer):
    a = MLPClassifier(optimizer=name, **SMALL | given).fit(X, Y)
    assert same(a, MLPClassifier(optimizer=optimizer, **SMALL).fit(X, Y))


def test_sample_weights_count_as_in_scikit_learn():
    if "sample_weight" not in inspect.signature(neural_network.MLPClassifier.fit).parameters:
        pytest.skip("this version has no sample_weight")
    weight = np.random.default_rng(2).random(len(X))
    a = MLPClassifier(optimizer="sgd", **SMALL).fit(X, Y, sample_weight=weight)
    b = neural_network.MLPClassifier(solver="sgd", **SMALL).fit(X, Y, sample_weight=weight)
    assert distance(a, b) < 1e-12
    assert not same(a, MLPClassifier(optimizer="sgd", **SMALL).fit(X, Y))


def test_sparse_samples_train_as_dense_ones():
    dense = np.where(np.abs(X) > 1, X, 0.0)
    a = MLPClassifier(optimizer="adamw", **SMALL).fit(sparse.csr_matrix(dense), Y)
    assert distance(a, MLPClassifier(optimizer="adamw", **SMALL).fit(dense, Y)) < 1e-12


@pytest.mark.parametrize("target", [np.float32, np.float64])
def test_float32_weights_stay_float32_and_train_as_in_scikit_learn(target):
    x, y = data(np.float32)
    given = SMALL | {"learning_rate_init": 0.02}
    a = MLPRegressor(optimizer="sgd", **given).fit(x, y.astype(target))
    b = neural_network.MLPRegressor(solver="sgd", **given).fit(x, y.astype(target))
    assert {array.dtype for array in [*weights(a), *held(a)]} == {np.dtype(np.float32)}
    assert distance(a, b) < 1e-5
    a.partial_fit(X, Y)
    assert a.coefs_[0].dtype == np.float32


# What scikit-learn asks of an estimator


def checks_of(estimator):
    """What scikit-learn checks of an estimator, and a name for each."""
    if hasattr(estimator_checks, "estimator_checks_generator"):  # from 1.6 on
        checks = estimator_checks.estimator_checks_generator(estimator)
    else:
        checks = estimator_checks.check_estimator(estimator, generate_only=True)
    for each, check in checks:
        given = "".join(f"-{key}={value}" for key, value in getattr(check, "keywords", {}).items())
        name = f"{type(estimator).__name__}-{getattr(check, 'func', check).__name__}{given}"
        yield pytest.param(each, check, id=name)


# Its warnings are of trainings that are too short, of arrays that are deprecated, and the like.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("estimator", "check"),
    [*checks_of(MLPClassifier(max_iter=100)), *checks_of(MLPRegressor(max_iter=100, optimizer=ADAMW))],
)
def test_it_is_an_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_it_has_all_arguments_of_scikit_learn_and_the_optimizer(ours, theirs):
    parameters = dict(inspect.signature(ours).parameters)
    assert parameters.pop("optimizer").default == "adam"
    assert parameters == dict(inspect.signature(theirs).parameters)
    assert ours().get_params() == {**theirs().get_params(), "optimizer": "adam"}
    assert ours().set_params(optimizer="sgd", alpha=0.5).get_params()["optimizer"] == "sgd"


def test_a_clone_has_the_same_optimizer_to_make_and_is_not_fitted():
    model = MLPClassifier(optimizer=ADAMW, **SMALL).fit(X, Y)
    copied = clone(model)
    assert repr(copied.optimizer) == repr(ADAMW)
    assert not hasattr(copied, "optimizer_")
    assert not hasattr(copied, "coefs_")
    assert same(copied.fit(X, Y), model)


@pytest.mark.parametrize("jobs", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_a_grid_is_searched_within_a_pipeline(jobs):
    search = GridSearchCV(
        make_pipeline(StandardScaler(), MLPClassifier(**SMALL)),
        {"mlpclassifier__optimizer": ["adam", "sgd", ADAMW], "mlpclassifier__alpha": [0.0, 1.0]},
        cv=2,
        n_jobs=jobs,
    )
    search.fit(X, Y)
    assert len(search.cv_results_["params"]) == 6
    assert search.best_estimator_[-1].optimizer_.steps == 8 * 7  # epochs of 100 samples, 16 at a time
    assert not np.isnan(search.cv_results_["mean_test_score"]).any()


def test_what_is_said_while_it_trains_is_what_scikit_learn_says(capsys):
    given = SMALL | {"verbose": True, "n_iter_no_change": 2, "tol": 1.0}
    MLPClassifier(optimizer="sgd", **given).fit(X, Y)
    ours = capsys.readouterr().out
    neural_network.MLPClassifier(solver="sgd", **given).fit(X, Y)
    assert ours == capsys.readouterr().out
    assert ours.endswith("consecutive epochs. Stopping.\n")


def test_a_training_that_stops_early_ends_with_its_best_weights():
    given = SMALL | {"early_stopping": True, "learning_rate_init": 0.3, "max_iter": 40, "n_iter_no_change": 3}
    a = MLPClassifier(optimizer="sgd", **given).fit(X, Y)
    b = neural_network.MLPClassifier(solver="sgd", **given).fit(X, Y)
    assert a.n_iter_ == b.n_iter_ < 40
    assert distance(a, b) < 1e-9
    assert by_identity(held(a), weights(a))


def test_a_warm_start_keeps_the_weights_and_begins_with_a_new_optimizer():
    a = MLPClassifier(optimizer="sgd", warm_start=True, **SMALL).fit(X, Y)
    b = neural_network.MLPClassifier(solver="sgd", warm_start=True, **SMALL).fit(X, Y)
    first, coefs = a.optimizer_, a.coefs_[0]
    a.fit(X, Y)
    b.fit(X, Y)
    assert a.coefs_[0] is coefs
    assert a.optimizer_ is not first
    assert a.optimizer_.steps == first.steps == 56
    assert distance(a, b) < 1e-12


# Going on


def test_partial_fit_goes_on_with_the_same_optimizer_in_the_same_arrays():
    a = MLPClassifier(optimizer="sgd", **SMALL).partial_fit(X, Y, classes=[0, 1])
    b = neural_network.MLPClassifier(solver="sgd", **SMALL).partial_fit(X, Y, classes=[0, 1])
    opt, arrays = a.optimizer_, weights(a)
    for _ in range(5):
        a.partial_fit(X, Y)
        b.partial_fit(X, Y)
    assert a.optimizer_ is opt
    assert opt.steps == 6 * 7
    assert by_identity(weights(a), arrays)
    assert by_identity(held(a), arrays)
    assert distance(a, b) < 1e-12


def test_weights_that_were_replaced_are_the_ones_that_are_trained():
    a = MLPClassifier(optimizer="sgd", **SMALL).fit(X, Y)
    b = neural_network.MLPClassifier(solver="sgd", **SMALL).fit(X, Y)
    for model in (a, b):
        model.coefs_[0] = np.where(np.abs(model.coefs_[0]) < 0.1, 0.0, model.coefs_[0])
        model.partial_fit(X, Y)
    assert distance(a, b) < 1e-12
    assert by_identity(held(a), weights(a))


def through_pickle(model, folder):
    return pickle.loads(pickle.dumps(model))  # noqa: S301


def through_deepcopy(model, folder):
    return copy.deepcopy(model)


def through_joblib(model, folder):
    joblib.dump(model, folder / "model.joblib")
    return joblib.load(folder / "model.joblib")


@pytest.mark.parametrize("copied", [through_pickle, through_deepcopy, through_joblib])
@pytest.mark.parametrize("read", [False, True])
def test_a_copy_goes_on_with_the_same_bits(copied, read, tmp_path):
    optimizer = functools.partial(lrcore.AdamW, lr=schedules.Cosine(0.01, steps=100), average=lrcore.EMA(0.9))
    model = MLPClassifier(optimizer=optimizer, **SMALL).fit(X, Y)
    other = copied(model, tmp_path)
    if read:
        assert by_identity(held(other), weights(other))
    again = copied(other, tmp_path)
    for estimator in (model, other, again):
        estimator.partial_fit(X, Y)
        assert estimator.optimizer_.steps == 63
    assert same(model, other)
    assert same(model, again)
    assert by_identity(held(other), weights(other))


def test_a_network_in_read_only_memory_predicts(tmp_path):
    model = MLPClassifier(**SMALL).fit(X, Y)
    joblib.dump(model, tmp_path / "model.joblib")
    mapped = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    assert np.array_equal(mapped.predict_proba(X), model.predict_proba(X))
    assert mapped.optimizer_.steps == 56
    with pytest.raises(ValueError, match="read-only"):
        mapped.partial_fit(X, Y)


# What lrcore adds


def test_a_schedule_is_followed_step_by_step():
    rate = schedules.Cosine(0.01, steps=56).warmup(10)
    seen = []
    model = MLPClassifier(optimizer=functools.partial(lrcore.AdamW, lr=rate), **SMALL)
    for _ in range(8):
        model.partial_fit(X, Y, classes=[0, 1])
        seen.append(model.last_step_.lr)
    assert seen == [rate(step) for step in range(6, 56, 7)]
    assert model.last_step_.step == model.optimizer_.steps == 56


def test_a_plateau_is_told_the_loss_of_each_epoch():
    rate = schedules.Constant(0.01) * schedules.ReduceOnPlateau(0.5, patience=0, threshold=0.3)
    model = MLPClassifier(optimizer=functools.partial(lrcore.SGD, lr=rate), **SMALL).fit(X, Y)
    tracker = schedules.ReduceOnPlateau(0.5, patience=0, threshold=0.3).tracker()
    for loss in model.loss_curve_:
        tracker.report(loss)
    assert model.optimizer_.lr == 0.01 * tracker.factor < 0.01


def test_averages_are_put_in_the_place_of_the_weights_for_predictions():
    optimizer = functools.partial(lrcore.AdamW, lr=0.05, average=lrcore.EMA(0.95), stats=True, clip_norm=1.0)
    model = MLPClassifier(optimizer=optimizer, **SMALL).fit(X, Y)
    before = model.predict_proba(X)
    with model.optimizer_.averaged():
        assert not np.array_equal(model.predict_proba(X), before)
        swapped = {name: array.copy() for name, array in model.optimizer_.params.items()}
    assert np.array_equal(model.predict_proba(X), before)
    exported = model.optimizer_.averaged_params()
    assert exported.keys() == swapped.keys()
    assert all(np.array_equal(exported[name], swapped[name]) for name in swapped)
    assert list(model.last_step_.stats) == [f"{kind}.{i}" for kind in ("coefs_", "intercepts_") for i in range(3)]
    assert model.last_step_.grad_norm > 0


def test_groups_of_the_parameters_have_rates_of_their_own():
    def halved(params):
        layers = [{name: array for name, array in params.items() if name.endswith(str(i))} for i in range(3)]
        return lrcore.AdamW(lrcore.layerwise(layers, decay=0.5), lr=0.01)

    model = MLPClassifier(optimizer=halved, **SMALL).fit(X, Y)
    assert [values["lr"] for values in model.optimizer_.hyperparameters()] == [0.0025, 0.005, 0.01]
    assert model.optimizer_.steps == 56
    held = [array for group in model.optimizer_.param_groups for array in group.params.values()]
    assert sorted(map(id, held)) == sorted(map(id, weights(model)))


def test_what_an_optimizer_leaves_out_stays_as_it_is():
    def last(params):
        return lrcore.AdamW({name: array for name, array in params.items() if name.endswith(".2")}, lr=0.05)

    model = MLPClassifier(**SMALL).fit(X, Y)
    before = copy.deepcopy(weights(model))
    model.set_params(optimizer=last, warm_start=True).fit(X, Y)
    moved = [not np.array_equal(a, b) for a, b in zip(before, weights(model), strict=True)]
    assert moved == [False, False, True] * 2


def test_a_step_that_raises_ends_the_training():
    optimizer = functools.partial(lrcore.SGD, lr=1e200, skip_nonfinite=True, max_skips=3)
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=r"skipped: the gradient of '.*' is"):
        MLPRegressor(optimizer=optimizer, **SMALL).fit(X, Y)


# Errors

NAMES = ", ".join(repr(optimizer.__name__.lower()) for optimizer in OPTIMIZERS)
NAMES += ", or a callable that takes the parameters"


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"optimizer": "newton"}, ValueError, f"optimizer must be one of {NAMES}, got 'newton'"),
        ({"optimizer": None}, TypeError, f"optimizer must be one of {NAMES}, got None"),
        ({"optimizer": lrcore.SGD([np.zeros(1)])}, TypeError, "takes the parameters, got <SGD"),
        ({"optimizer": dict}, TypeError, "optimizer must return an optimizer of lrcore, got dict"),
        ({"optimizer": lambda params: lrcore.SGD([*params.values()])}, ValueError, "entries of it, got SGD of list"),
        ({"optimizer": lambda _: lrcore.SGD({"w": np.zeros(1)})}, ValueError, "got SGD of .'w'."),
        (
            {"optimizer": lambda params: lrcore.SGD(copy.deepcopy(params))},
            ValueError,
            "the dict that it is called with, or of groups of entries of it, got SGD of .'coefs_.0', 'coefs_.1'",
        ),
        ({"solver": "lbfgs"}, ValueError, "must stay 'adam', got 'lbfgs': optimizer replaces it"),
        ({"solver": "sgd", "optimizer": "sgd"}, ValueError, "must stay 'adam', got 'sgd'"),
        ({"learning_rate": "adaptive"}, ValueError, "must stay 'constant', got 'adaptive': for a schedule, optimizer"),
        ({"power_t": 1.0, "optimizer": "sgd"}, ValueError, "must stay 0.5, got 1.0: for a schedule"),
        ({"max_fun": 10}, ValueError, "must stay 15000, got 10: it belongs to lbfgs"),
        ({"momentum": 0.5}, ValueError, "must stay 0.9, got 0.5: optimizer='adam' does not use it"),
        ({"beta_2": 0.9, "optimizer": "rmsprop"}, ValueError, "optimizer='rmsprop' does not use it"),
        ({"epsilon": 0.1, "optimizer": "sgd"}, ValueError, "optimizer='sgd' does not use it"),
        (
            {"learning_rate_init": 0.1, "optimizer": ADAMW},
            ValueError,
            "learning_rate_init of MLP.* must stay 0.001, got 0.1: optimizer is a callable, which sets it",
        ),
        ({"learning_rate_init": -1.0}, ValueError, "The 'learning_rate_init' parameter of MLP.* must be a float"),
    ],
)
def test_what_can_not_be_is_refused(ours, theirs, given, error, message):
    with pytest.raises(error, match=message):
        ours(**SMALL | given).fit(X, Y)
    if given.get("solver") != "lbfgs":
        with pytest.raises(error, match=message):
            ours(**SMALL | given).partial_fit(X, Y, **({"classes": [0, 1]} if ours is MLPClassifier else {}))


def test_there_is_no_optimizer_before_fit():
    with pytest.raises(AttributeError, match="MLPClassifier has no optimizer_ before fit or partial_fit"):
        _ = MLPClassifier().optimizer_


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "lrcore.sklearn")
    monkeypatch.setitem(sys.modules, "sklearn.neural_network", None)
    with pytest.raises(ImportError, match="needs scikit-learn, which is not installed: pip install"):
        import lrcore.sklearn  # noqa: F401


@pytest.mark.slow
def test_lrcore_does_not_import_scikit_learn():
    code = "import sys, lrcore, lrcore.sweeps, lrcore.finder; sys.exit('sklearn' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)  # noqa: S603


# The page


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_the_page_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, PAGE, "exec"), {"__name__": "__main__"})  # noqa: S102
