"""Scalars of any library are numbers, wherever a number may come from."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", minversion="2.10")

import lrcore  # noqa: E402
import lrcore.torch  # noqa: E402
from lrcore import schedules  # noqa: E402
from lrcore.optim.hyperparameter import Flag, Pair  # noqa: E402
from support.cases import NAMES  # noqa: E402


def jaxs(value):
    return pytest.importorskip("jax.numpy").asarray(value)


MAKE = [np.float32, np.float64, np.float16, np.array, torch.tensor, jaxs]
scalars = pytest.mark.parametrize("make", MAKE, ids=lambda make: f"{make.__module__}.{make.__name__}")
KINDS = [getattr(lrcore.torch, name) for name in NAMES]
PLACES = {
    "argument": lambda params, kind, values: kind(params, **values),
    "group": lambda params, kind, values: kind([{"params": params, **values}]),
    "edit": lambda params, kind, values: edited(kind(params), values),
    "hook": lambda params, kind, values: hooked(kind(params), values),
    "schedule": lambda params, kind, values: kind(params, **{key: scheduled(value) for key, value in values.items()}),
}


def edited(opt, values):
    opt.param_groups[0].update(values)
    return opt


def hooked(opt, values):
    opt.register_step_pre_hook(lambda own, *_: own.param_groups[0].update(values))
    return opt


def scheduled(value):
    if isinstance(value, list | tuple):
        return type(value)(map(scheduled, value))
    return schedules.Lambda(lambda _: value)


def moved(opt):
    (param,) = opt.param_groups[0]["params"]
    for _ in range(2):
        param.grad = torch.ones_like(param)
        opt.step()
    return param.tolist()


def values_of(kind, make):
    """Return a value for each number that the class has; 0.5 and 0.25 are the same in every format."""
    half, quarter = make(0.5), make(0.25)
    declaration = getattr(lrcore, kind.__name__)._declaration
    values = {"lr": half, "weight_decay": quarter}
    for name, allowed in declaration.hyperparameters.items():
        if name != declaration.initial and not isinstance(allowed, Flag):
            values[name] = [half, quarter] if isinstance(allowed, Pair) else quarter
    return values


def parameter():
    return [torch.nn.Parameter(torch.tensor([1.0, -2.0]))]


@scalars
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_scalar_is_the_number_that_it_is(make, kind, place):
    opt = place(parameter(), kind, values_of(kind, make))
    assert moved(opt) == moved(PLACES["argument"](parameter(), kind, values_of(kind, float)))
    assert type(opt.info.lr) is float


@scalars
def test_options_and_reports_may_be_scalars(make):
    def act(number):
        flag = make(True) if make in {np.array, torch.tensor} else True  # noqa: FBT003
        rate = schedules.Constant(number(0.5)) * schedules.ReduceOnPlateau(factor=0.5, patience=0)
        options = {"clip_norm": number(0.5), "clip_value": number(0.25), "bounds": (number(-2.0), number(2.0))}
        group = {"params": parameter(), "lrcore": {"lr_scale": number(0.5), "zero_grads": flag}}
        opt = lrcore.torch.SGD([group], rate, average=lrcore.EMA(number(0.5)), skip_nonfinite=flag, **options)
        assert [opt.report(number(value)) for value in (0.5, 1.0)] == [False, True]
        opt.steps = np.int64(3)
        assert opt.param_groups[0]["params"][0].grad is None
        return moved(opt), next(iter(opt.average.values())).tolist(), opt.info

    assert act(make) == act(float)


def test_a_start_value_of_accumulators_may_be_a_scalar():
    for make in (np.array, torch.tensor, np.float32):
        opt = lrcore.torch.Adagrad(parameter(), initial_accumulator_value=make(0.5))
        assert moved(opt) == moved(lrcore.torch.Adagrad(parameter(), initial_accumulator_value=0.5))


def test_a_pair_may_be_a_list_with_a_schedule_in_it():
    beta = schedules.Linear(0.5, 0.75, steps=2)
    opt = lrcore.torch.Adam(parameter(), betas=[beta, torch.tensor(0.5)])
    assert opt.param_groups[0]["betas"] == (0.5, 0.5)
    assert moved(opt) == moved(lrcore.torch.Adam([{"params": parameter(), "betas": [beta, 0.5]}]))
