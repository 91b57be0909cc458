"""PyTorch's own database of optimizers: its inputs, its errors and its schedulers, run through the drop-ins."""

import copy
import inspect
import warnings

import pytest

from support.cases import PLAIN
from support.optimizer_pairs import (
    DTYPES,
    NAMES,
    STEPS,
    Pair,
    counterpart,
    drop_ins,
    gradients,
    named,
    parameter,
    parameters,
    torch,
    train,
    weights_of,
)
from support.rows import each

pytestmark = pytest.mark.slow

pytest.importorskip("expecttest", reason="torch.testing._internal needs expecttest")
database = pytest.importorskip("torch.testing._internal.common_optimizers")

INFOS = {info.name: info for info in database.optim_db if info.name in NAMES}
FLAGS = ("foreach", "fused", "capturable", "differentiable")


# The database lacks what PyTorch lacks. There stand in what all optimizers have, and the cases of the declaration.


def inputs_of(name, **_):
    if name in INFOS:
        return INFOS[name].optim_inputs_func(device="cpu")
    of_all = {"lr", "weight_decay", "maximize"}
    shared = [one for one in INFOS["SGD"].optim_inputs_func(device="cpu") if one.kwargs.keys() <= of_all]
    cases = [case for case in PLAIN if case.optimizer.__name__ == name and case.arguments]
    return shared + [database.OptimizerInput(params=None, kwargs=case.arguments, desc=str(case)) for case in cases]


def forms_of(name):
    """The inputs with each of PyTorch's flags."""
    if name not in INFOS:
        return [database.OptimizerInput(params=None, kwargs={flag: True}, desc=flag) for flag in FLAGS]
    # The forms for a GPU are more than those for the CPU. Their tensors are here all the same.
    return database._get_optim_inputs_including_global_cliquey_kwargs("cuda", torch.float64, INFOS[name])


def errors_of(name):
    if name in INFOS:
        return INFOS[name].optim_error_inputs_func(device="cpu", dtype=torch.float64)
    errors = database.get_error_inputs_for_all_optims("cpu", torch.float64)
    # PyTorch's base class checks parameters only.
    return [error for error in errors if not error.optimizer_error_input.kwargs]


def schedulers_of(name):
    return INFOS.get(name, INFOS["SGD"]).scheduler_inputs


def called(value):
    return getattr(value, "optimizer_error_input", value).desc


def arguments_of(name):
    return inspect.signature(getattr(drop_ins, name)).parameters


each_input = each("given", inputs_of, ids=called)


def with_gradient(grad, **arguments):
    def attempt(name):
        weight = parameter(3)
        opt = getattr(drop_ins, name)([weight], **arguments)
        weight.grad = grad
        opt.step()

    return attempt


def of(weight, **arguments):
    return lambda name: getattr(drop_ins, name)([weight], **arguments)


# What of the database is not offered: why, an attempt, and how it is refused.
EXCLUSIONS = {
    "differentiable": (
        "autograd can't look into a step that is not made of PyTorch's operations",
        of(parameter(3), differentiable=True),
        (ValueError, "differentiable=True is not offered here"),
    ),
    "capturable": (
        "it is for CUDA graphs",
        of(parameter(3), capturable=True),
        (ValueError, "capturable=True is not offered here"),
    ),
    "sparse gradients": (
        "a step is a pass over all of a weight; PyTorch's SGD and Adagrad take sparse gradients",
        with_gradient(torch.ones(3, dtype=torch.float64).to_sparse()),
        (RuntimeError, "is sparse.*allowed are dense tensors"),
    ),
    "float16": (
        "lrcore's arithmetic is of float32 and float64",
        of(parameter(3, dtype=torch.float16)),
        (TypeError, "torch.float16; allowed are float32 and float64"),
    ),
    "bfloat16": (
        "lrcore's arithmetic is of float32 and float64",
        of(parameter(3, dtype=torch.bfloat16)),
        (TypeError, "torch.bfloat16; allowed are float32 and float64"),
    ),
    "other devices": (
        "lrcore runs on the CPU",
        of(torch.nn.Parameter(torch.ones(3, device="meta"))),
        (ValueError, "on the device meta; allowed is the CPU"),
    ),
}
REFUSED_FLAGS = ("differentiable", "capturable")


def shaped(dtype):
    """Parameters of every kind of layout."""
    generator = torch.Generator().manual_seed(3)

    def make(*shape):
        return torch.randn(shape, dtype=dtype, generator=generator)

    tensors = [
        make(),
        make(1),
        make(37, 11),
        make(0),
        make(3, 0, 2),
        make(2, 3, 4, 5).to(memory_format=torch.channels_last),
        make(7, 5).t(),
        make(3, 4, 5).permute(1, 2, 0),
        make(9)[1:],
        make(10, 6)[::2, 1:4],
    ]
    return [torch.nn.Parameter(tensor) for tensor in tensors]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@named
@each_input
def test_twenty_steps_agree_with_the_for_loop_for_every_layout(name, given, dtype):
    pair = Pair(name, shaped(dtype), **given.kwargs)
    pair.train(range(STEPS))
    pair.assert_agree()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@named
@each_input
def test_groups_with_hyperparameters_of_their_own_agree_with_the_for_loop(name, given, dtype):
    groups = [
        {"params": parameters(dtype)},
        {"params": [parameter(5, 3, dtype=dtype)], "lr": 0.03},
        {"params": [parameter(4, dtype=dtype)], "weight_decay": 0.2, "maximize": True},
    ]
    pair = Pair(name, groups, **given.kwargs)
    pair.train(range(STEPS))
    pair.assert_agree()


@named
@each_input
def test_parameters_of_several_dtypes_agree_with_the_for_loop(name, given):
    pair = Pair(name, [parameter(5, 3, dtype=dtype) for dtype in DTYPES], **given.kwargs)
    pair.train(range(STEPS))
    pair.assert_agree()


@named
@each_input
def test_gradients_that_come_and_go_agree_with_the_for_loop(name, given):
    pair = Pair(name, parameters(), **given.kwargs)
    for step in range(STEPS):
        grads = gradients(pair.ours, step)
        grads[0] = grads[0] if step % 3 else None
        grads[2] = None
        pair.step(grads)
    pair.assert_agree()


@named
@each("given", forms_of, ids=called)
def test_flags_are_taken_without_an_effect_or_refused_by_name(name, given):
    refused = [flag for flag in REFUSED_FLAGS if given.kwargs.get(flag)]
    if name in INFOS and refused:
        with pytest.raises(ValueError, match="|".join(f"{flag}=True is not offered here" for flag in refused)):
            getattr(drop_ins, name)(parameters(), **copy.deepcopy(given.kwargs))
        return
    if name not in INFOS:
        with pytest.raises(TypeError, match=f"{name} has no argument '{given.desc}'"):
            getattr(drop_ins, name)(parameters(), **given.kwargs)
        return
    pair = Pair(name, parameters(), **given.kwargs)
    pair.train(range(STEPS))
    pair.assert_agree()


@named
def test_the_forms_of_the_database_have_every_flag(name):
    if name not in INFOS:
        assert not set(FLAGS) & arguments_of(name).keys()
        return
    given = [one.kwargs for one in forms_of(name)]
    for flag in INFOS[name].supported_impls:
        assert {one[flag] for one in given} == {True, False}
    assert any(one.get("capturable") for one in given) == INFOS[name].has_capturable_arg


@named
@each("error", errors_of, ids=called)
def test_errors_are_pytorchs(name, error):
    given = error.optimizer_error_input
    assert error.error_on is database.OptimizerErrorEnum.CONSTRUCTION_ERROR
    params = given.params if given.params is not None else parameters()
    for kind in (getattr(drop_ins, name), counterpart(name)):
        if issubclass(error.error_type, Warning):
            with pytest.warns(error.error_type, match=error.error_regex):
                kind(copy.copy(params), **given.kwargs)
        else:
            with pytest.raises(error.error_type, match=error.error_regex):
                kind(copy.copy(params), **given.kwargs)


@named
def test_fused_and_foreach_together_are_refused_as_by_pytorch(name):
    if "fused" in arguments_of(name):
        error, message, kinds = RuntimeError, "`fused` and `foreach` cannot be `True` together", [counterpart(name)]
    else:
        error, message, kinds = TypeError, f"{name} has no argument 'fused'", []
    for kind in (getattr(drop_ins, name), *kinds):
        with pytest.raises(error, match=message):
            kind(parameters(), fused=True, foreach=True)


def follow(schedulers, loss):
    for scheduler in schedulers:
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            scheduler.step(loss)
        else:
            scheduler.step()


@named
@each("makers", schedulers_of)
def test_schedulers_move_rates_as_they_do_pytorchs(name, makers):
    groups = [{"params": parameters()}, {"params": [parameter(5)], "lr": 0.05}]
    pair = Pair(name, groups, lr=0.1)
    schedulers = [[make(opt) for make in makers] for opt in pair.both]
    rates = set()
    for step in range(STEPS):
        pair.train([step])
        for own in schedulers:
            # A loss that stays is a plateau before the steps are over.
            follow(own, max(1.0, 4.0 - step))
        assert [group["lr"] for group in pair.ours.param_groups] == [group["lr"] for group in pair.theirs.param_groups]
        rates.add(pair.ours.param_groups[0]["lr"])
    assert len(rates) > 1
    pair.assert_agree()


@pytest.mark.parametrize("scheduled", [False, True])
@named
@each_input
def test_steps_go_in_the_right_direction(name, given, scheduled):
    weight, bias, data = parameter(10, 5), parameter(10, seed=1), parameter(5, seed=2).detach()
    opt = getattr(drop_ins, name)([weight, bias], **copy.deepcopy(given.kwargs))
    makers = schedulers_of(name)[0] if scheduled else []
    schedulers = [make(opt) for make in makers]

    def closure():
        opt.zero_grad()
        loss = (weight.mv(data) + bias).square().sum()
        loss.backward()
        return loss

    losses = []
    for _ in range(STEPS):
        losses.append(opt.step(closure).item())
        follow(schedulers, losses[-1])
    assert (losses[-1] > losses[0]) == given.kwargs.get("maximize", False)


@named
@pytest.mark.parametrize("what", EXCLUSIONS)
def test_what_is_not_offered_is_refused_by_name(name, what):
    _, attempt, (kind, message) = EXCLUSIONS[what]
    if what in FLAGS and what not in arguments_of(name):
        kind, message = TypeError, f"{name} has no argument '{what}'"
    with pytest.raises(kind, match=message):
        attempt(name)


@pytest.mark.parametrize("name", [info.name for info in database.optim_db if info.name not in NAMES])
def test_optimizers_without_a_drop_in_are_refused_by_name(name):
    # Muon takes matrices alone.
    opt = getattr(torch.optim, name)([parameter(2, 2)])
    assert not hasattr(drop_ins, name)
    with pytest.raises(TypeError, match=rf"from_torch takes .*, got torch\.optim\..*{name}"):
        drop_ins.from_torch(opt)


@named
def test_from_torch_takes_what_pytorch_has_and_says_what_it_lacks(name):
    if name in INFOS:
        assert type(drop_ins.from_torch(counterpart(name)(parameters()))) is getattr(drop_ins, name)
        return
    with pytest.raises(TypeError, match=rf"from_torch takes .*; torch\.optim has no {name}$"):
        drop_ins.from_torch(counterpart(name)(parameters()))


@named
def test_a_duplicate_parameter_moves_once(name):
    # PyTorch moves it as often as it is there, and warns that this will be an error.
    weight, alone = parameter(3), parameter(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        twice = getattr(drop_ins, name)([weight, weight])
    once = getattr(drop_ins, name)([alone])
    weight.grad = alone.grad = torch.ones_like(weight)
    twice.step()
    once.step()
    assert torch.equal(weight, alone)


def test_the_gradients_of_these_tests_move_every_weight():
    opt = drop_ins.SGD(parameters(), lr=0.1)
    for step in range(4):
        before = [weight.detach().clone() for weight in weights_of(opt)]
        train(opt, [step])
        assert not any(torch.equal(weight, old) for weight, old in zip(weights_of(opt), before, strict=True))
