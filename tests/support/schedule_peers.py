"""The schedules of other libraries, run as they are: the rate that each has at every step.

All of them compute in float64 here: Keras on torch with its ``floatx`` set for the time, JAX with 64 bits enabled, and
fastai with tensors of float64 in place of those of float32 that add up the shares of its phases.
"""

import os
import sys
import types
import warnings
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib.util import find_spec
from types import SimpleNamespace
from unittest import mock

import pytest


def rates(source, name, arguments, lr, steps):
    """Return the library's rate at each of the first steps."""
    return _RATES[source](name, arguments, lr, steps)


def rates_after(source, name, arguments, lr, reports):
    """Return the library's rate before the first of the reports of a metric, and after each."""
    if source == "keras":
        return _keras_after(name, arguments, lr, reports)
    optimizer, scheduler = _made(source, name, arguments, lr)
    given = iter(reports)

    def advance(epoch):
        scheduler.step(epoch, next(given)) if source == "timm" else scheduler.step(next(given))

    return _course(optimizer, advance, len(reports) + 1)


def load(module):
    """Import a library's module, or skip the test. What it warns of while it is imported is its own matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(module, exc_type=ImportError)


def _sgd(lr):
    torch = load("torch")
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1 if lr is None else lr, momentum=0.9)


def _course(optimizer, advance, steps):
    course = [float(optimizer.param_groups[0]["lr"])]
    for step in range(1, steps):
        optimizer.step()
        advance(step)
        course.append(float(optimizer.param_groups[0]["lr"]))
    return course


def _made(source, name, arguments, lr):
    optimizer = _sgd(lr)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Both num_training_steps and num_stable_steps", UserWarning)
        warnings.filterwarnings("ignore", "PlateauLRScheduler is deprecated", FutureWarning)
        return optimizer, _MADE[source](optimizer, name, arguments)


def _torch_made(optimizer, name, arguments):
    return getattr(load("torch.optim.lr_scheduler"), name)(optimizer, **arguments)


def _transformers_made(optimizer, name, arguments):
    optimization = load("transformers.optimization")
    if hasattr(optimization, name):
        return getattr(optimization, name)(optimizer, **arguments)
    rest = dict(arguments)
    common = {key: rest.pop(key, None) for key in ("num_warmup_steps", "num_training_steps")}
    return optimization.get_scheduler(name, optimizer, **common, scheduler_specific_kwargs=rest)


def _timm_made(optimizer, name, arguments):
    timm = timm_schedulers()
    if name.endswith("Scheduler"):
        return getattr(timm, name)(optimizer, **arguments)
    sched = {} if name == "create_scheduler_v2" else {"sched": name}
    return timm.create_scheduler_v2(optimizer, **sched, **arguments)[0]


@cache
def timm_schedulers():
    """Import the schedulers without the models, which need other libraries."""
    load("torch")
    if "timm" in sys.modules or (spec := find_spec("timm")) is None:
        return load("timm.scheduler")
    package = types.ModuleType("timm")
    package.__path__ = list(spec.submodule_search_locations)
    with mock.patch.dict(sys.modules, {"timm": package}):
        return load("timm.scheduler")


def _of_torch(source):
    def course(name, arguments, lr, steps):
        optimizer, scheduler = _made(source, name, arguments, lr)
        return _course(optimizer, lambda _: scheduler.step(), steps)

    return course


def _timm_rates(name, arguments, lr, steps):
    optimizer, scheduler = _made("timm", name, arguments, lr)

    # The end of an epoch or of an update tells the scheduler the number of the next; the other call does nothing.
    def advance(step):
        scheduler.step(step)
        scheduler.step_update(step)

    return _course(optimizer, advance, steps)


def _wide_jax():
    return load("jax").enable_x64(True)  # noqa: FBT003 (JAX' argument)


def _optax_rates(name, arguments, lr, steps):
    jax = load("jax")
    schedules = load("optax").schedules
    with _wide_jax():
        schedule = getattr(schedules, name)(**arguments)
        # Always as many steps, since each number of them is compiled anew.
        assert steps <= 300
        return jax.vmap(schedule)(jax.numpy.arange(300)).tolist()[:steps]


def rounding(source):
    """Return the share by which rates of a library may be off: on JAX the cosine of Keras is one of float32."""
    return 1e-12 if source != "keras" or _load_keras().backend.backend() == "torch" else 1e-3


def _load_keras():
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return load("keras")


@contextmanager
def _keras():
    keras = _load_keras()
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        with warnings.catch_warnings():
            # Of its own variables, when one is made a number.
            warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning)
            with _wide_jax() if keras.backend.backend() == "jax" else nullcontext():
                yield keras
    finally:
        keras.config.set_floatx(before)


def _keras_rates(name, arguments, lr, steps):
    with _keras() as keras:
        schedule = getattr(keras.optimizers.schedules, name)(**arguments)
        return [float(schedule(step)) for step in range(steps)]


def _keras_after(name, arguments, lr, reports):
    with _keras() as keras:
        callback = getattr(keras.callbacks, name)(**arguments)
        model = SimpleNamespace(optimizer=keras.optimizers.SGD(lr), metrics=[])
        callback.set_model(model)
        callback.on_train_begin()
        course = [float(model.optimizer.learning_rate)]
        for epoch, report in enumerate(reports):
            callback.on_epoch_end(epoch, {arguments.get("monitor", "val_loss"): report})
            course.append(float(model.optimizer.learning_rate))
        return course


class Learner:
    """What fastai's ``fit_…`` need of a learner: it keeps what is given to ``fit``."""

    def __init__(self, lr, n_iter):
        self.lr, self.n_iter, self.moms = lr, n_iter, (0.95, 0.85, 0.95)
        self.opt = self
        self.hypers = [{}]

    def set_hyper(self, name, value):
        self.hypers[0][name] = value

    def fit(self, n_epoch, cbs, **options):
        del options
        self.n_epoch, self.schedule = int(n_epoch), cbs[0].scheds["lr"]


def _fastai_rates(name, arguments, lr, steps):
    schedule, torch, np = load("fastai.callback.schedule"), load("torch"), load("numpy")
    rest = dict(arguments)
    with mock.patch.object(schedule, "tensor", lambda x: torch.tensor(list(x), dtype=torch.float64)):
        if not name.startswith("fit_"):
            length = rest.pop("steps")
            course = getattr(schedule, name)(**rest)
            return [float(course(step / length)) for step in range(min(steps, length + 1))]
        learner = Learner(lr, rest.pop("n_iter"))
        options = {"lr": lr} if name == "fit_flat_cos" else {}
        getattr(schedule.Learner, name)(learner, **options, **rest)
        course, pct = [], 0.0
        for step in range(min(steps, learner.n_epoch * learner.n_iter)):
            # The share of the training that is done begins anew at each epoch, and adds up within it.
            if step % learner.n_iter == 0:
                pct = step // learner.n_iter / learner.n_epoch
            course.append(float(np.asarray(learner.schedule(pct)).item()))
            pct += 1.0 / (learner.n_iter * learner.n_epoch)
        return course


_MADE = {"torch": _torch_made, "transformers": _transformers_made, "timm": _timm_made}

_RATES = {
    "torch": _of_torch("torch"),
    "transformers": _of_torch("transformers"),
    "timm": _timm_rates,
    "optax": _optax_rates,
    "keras": _keras_rates,
    "fastai": _fastai_rates,
}
