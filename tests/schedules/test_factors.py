"""A factor by itself is 1, and refused as a learning rate and other hyperparameters."""

import functools
import importlib
import re

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from lrcore.schedules import AdaScale, Constant, Linear, ReduceOnPlateau, Warmup
from support.rows import each

FALL = Linear(1.0, 0.0, steps=10)
FACTORS = [
    *(ReduceOnPlateau(), Warmup(10), AdaScale(), Warmup(3) * ReduceOnPlateau(), ReduceOnPlateau().at_least(0.1)),
    *(Warmup(3).stretch(2.0), Warmup(3).shift(1).every(2), Warmup(3).repeat(2), ReduceOnPlateau().warmup(3)),
    *(Warmup(9).cooldown(3), Warmup(3).then(0.1), FALL.then(ReduceOnPlateau()), Warmup(3) + Warmup(4)),
    Warmup(3).at_most(Warmup(4)),
]
VALUES = [
    *(0.1 * ReduceOnPlateau(), Warmup(10) * 0.1, Warmup(3) * ReduceOnPlateau() * FALL, Constant(0.1) * Warmup(3)),
    *((FALL * ReduceOnPlateau()).at_least(0.1), FALL.then(0.1 * Warmup(3)), FALL.warmup(3), 1.0 * Warmup(3)),
]


def sgd(**options):
    return lrcore.SGD(np.ones(2), **options)


def torch_sgd(**options):
    torch = pytest.importorskip("torch")
    return importlib.import_module("lrcore.torch").SGD([torch.nn.Parameter(torch.ones(2))], **options)


def jax_sgd(**options):
    jnp = pytest.importorskip("jax.numpy")
    return importlib.import_module("lrcore.jax").SGD(jnp.ones(2), **options)


def edited(lr):
    sgd().param_groups[0]["lr"] = lr


def loaded(lr):
    saved = sgd().state_dict()
    saved["param_groups"][0]["lr"] = lr
    sgd().load_state_dict(saved)


def torch_edited(lr):
    opt = torch_sgd(lr=0.1)
    opt.param_groups[0]["lr"] = lr
    opt.report(1.0) if isinstance(lr, schedules.Schedule) else opt.step()


PLACES = {
    "constructor": lambda lr: sgd(lr=lr),
    "group": lambda lr: lrcore.SGD([{"params": np.ones(2), "lr": lr}]),
    "added": lambda lr: sgd().add_param_group({"params": {"b": np.ones(2)}, "lr": lr}),
    "edit": edited,
    "state": loaded,
    "torch": lambda lr: torch_sgd(lr=lr),
    "torch edit": torch_edited,
    "jax": lambda lr: jax_sgd(lr=lr),
    "scaling": lambda lr: lrcore.scaling.linear(lr, 8, 16),
    "scaling a mapping": lambda lr: lrcore.scaling.sqrt({"lr": lr}, 8, 16),
}


@each("place", PLACES)
@each("factor", FACTORS, ids=repr)
def test_a_factor_alone_is_no_learning_rate(place, factor):
    message = f"lr must be a value, got {factor!r}, which is a factor and 1 by itself; multiply a value by it: 0.1 * "
    with pytest.raises(ValueError, match=re.escape(message)):
        PLACES[place](factor)


@each("value", VALUES, ids=repr)
def test_a_value_times_a_factor_is_a_value(value):
    sgd(lr=value)
    lrcore.scaling.linear(value, 8, 16)


def test_the_message_shows_what_works():
    with pytest.raises(ValueError, match=re.escape("multiply a value by it: 0.1 * schedules.ReduceOnPlateau()")):
        sgd(lr=ReduceOnPlateau())
    sgd(lr=0.1 * schedules.ReduceOnPlateau())


def test_other_hyperparameters():
    for name in ("weight_decay", "momentum"):
        with pytest.raises(ValueError, match=f"^{name} must be a value"):
            sgd(**{name: Warmup(3)})
    with pytest.raises(ValueError, match=r"^betas\[1\] must be a value"):
        lrcore.Adam(np.ones(2), betas=(0.9, ReduceOnPlateau()))
    # 1 can be meant here, and a scale is a factor itself.
    sgd(clip_norm=ReduceOnPlateau(), clip_value=Warmup(3), lr_scale=Warmup(3))


@each("function", [lambda step: 0.1, functools.partial(max, 1), np.sqrt, len], ids=range(4))  # noqa: ARG005
@each("make", [sgd, torch_sgd, jax_sgd])
def test_an_error_for_a_function_names_lambda(make, function):
    with pytest.raises(
        TypeError, match=r"^lr must be .*; make a schedule of a function: schedules\.Lambda\(function\)$"
    ):
        make(lr=function)
    with pytest.raises(TypeError, match=r"schedules\.Lambda\(function\)$"):
        FALL.then(function)
