"""Corners of a step that PyTorch's generic tests of optimizers visit, and lazy views, which they don't."""

import copy
import warnings

import pytest

from support.optimizer_pairs import (
    BOTH,
    FULL,
    NAMES,
    Pair,
    assert_same,
    drop_ins,
    each,
    full,
    give,
    gradients,
    label,
    named,
    parameter,
    parameters,
    torch,
    train,
    values_of,
    weights_of,
)

FUSED = [kind for kind in BOTH if kind.__name__ != "RMSprop"]


@each
def test_a_step_without_gradients_is_none(kind):
    opt = full(kind)
    before = values_of(opt)
    opt.step()
    torch.testing.assert_close(before, values_of(opt), rtol=0, atol=0)
    for state in opt.state.values():
        assert state.get("step", 0) == 0


@each
def test_gradients_of_zero_move_nothing_but_count(kind):
    opt = kind(parameters(), weight_decay=0)
    before = values_of(opt)
    give(opt, [torch.zeros_like(param) for param in weights_of(opt)])
    opt.step()
    torch.testing.assert_close(before, values_of(opt), rtol=0, atol=0)
    assert all(opt.state[param]["step"] == 1 for param in weights_of(opt) if kind.__name__ != "SGD")


@each
def test_a_model_with_an_empty_layer_trains(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # there is nothing to initialize
        model = torch.nn.Sequential(torch.nn.Linear(5, 0), torch.nn.Linear(0, 3))
    opt = full(kind, model.parameters())
    for _ in range(3):
        opt.zero_grad()
        model(torch.ones(2, 5)).sum().backward()
        opt.step()
    assert model[1].bias.detach().abs().min() > 0
    assert opt.state[model[0].weight].keys() == opt.state[model[1].bias].keys()


@each
def test_a_closure_runs_with_gradients_and_leaves_the_mode(kind):
    weight = parameter(3)
    opt = full(kind, [weight])

    def closure():
        assert torch.is_grad_enabled()
        opt.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    before = weight.detach().clone()
    with torch.no_grad():
        assert opt.step(closure).requires_grad
        assert not torch.is_grad_enabled()
    assert opt.step(closure=closure) is not None
    assert torch.is_grad_enabled()
    assert not torch.equal(before, weight)


@each
def test_an_error_in_a_closure_leaves_all_as_it_was(kind):
    opt, twin = full(kind), full(kind)
    for one in (opt, twin):
        train(one, range(2))

    def closure():
        raise KeyError("data")

    with pytest.raises(KeyError, match="data"):
        opt.step(closure)
    assert torch.is_grad_enabled()
    for one in (opt, twin):
        train(one, range(2, 4))
    assert_same(opt, twin)


@each
@pytest.mark.parametrize("to_none", [True, False])
def test_zero_grad_is_pytorchs(kind, to_none):
    opt = full(kind)
    train(opt, [0])
    opt.zero_grad(set_to_none=to_none)
    assert all(param.grad is None if to_none else not param.grad.any() for param in weights_of(opt))


@named
def test_it_is_printed_as_pytorchs(name):
    pair = Pair(name, parameters(), **FULL[name])
    theirs = getattr(torch.optim, name)(parameters(), **FULL[name])
    assert repr(pair.ours) == repr(theirs)
    assert pair.ours.defaults == theirs.defaults


@each
def test_a_profile_names_the_step(kind):
    opt = full(kind)
    train(opt, [0])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        opt.step()
    assert f"Optimizer.step#{kind.__name__}.step" in {event.key for event in profile.key_averages()}


@named
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_counts_have_pytorchs_dtype(name, dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        pair = Pair(name, parameters(), **FULL[name])
        pair.train(range(3))
    finally:
        torch.set_default_dtype(before)
    pair.assert_agree()


@pytest.mark.parametrize("kind", FUSED, ids=label)
@pytest.mark.parametrize("attributes", [("grad_scale", "found_inf"), ("grad_scale",), ("found_inf",)], ids=str)
@pytest.mark.parametrize("overflow", [True, False])
def test_a_step_heeds_what_a_gradient_scaler_found(kind, attributes, overflow):
    # These are how the scaler tells a fused optimizer of PyTorch.
    opt, twin = (kind(parameters(torch.float32), lr=0.1, fused=True) for _ in range(2))
    before = values_of(opt)
    values = {"grad_scale": torch.tensor(4.0), "found_inf": torch.tensor(float(overflow))}
    for name in attributes:
        setattr(opt, name, values[name])
    grads = gradients(opt, 0)
    scale = 4.0 if "grad_scale" in attributes else 1.0
    give(opt, [grad * scale for grad in grads])
    opt.step()
    if overflow and "found_inf" in attributes:
        torch.testing.assert_close(before, values_of(opt), rtol=0, atol=0)
        return
    give(twin, grads)
    twin.step()
    assert_same(opt, twin)


@named
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_a_gradient_that_is_lazily_conjugated_counts_as_its_values(name, dtype):
    # Autograd leaves such where a parameter is used by its conjugate, as in an adjoint.
    weight, twin = parameter(3, dtype=dtype), parameter(3, dtype=dtype)
    opt, other = (full(getattr(drop_ins, name), [one]) for one in (weight, twin))
    for _ in range(3):
        opt.zero_grad()
        (weight.conj() * torch.arange(3)).sum().abs().backward()
        assert weight.grad.is_conj()
        twin.grad = weight.grad.resolve_conj().clone()
        opt.step()
        other.step()
    assert_same(opt, other)


@named
@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_a_gradient_that_is_lazily_negated_counts_as_its_values(name, shape):
    # Autograd leaves such for the imaginary part of what is conjugated later.
    weight, twin = parameter(*shape), parameter(*shape)
    opt, other = (full(getattr(drop_ins, name), [one]) for one in (weight, twin))
    for _ in range(3):
        opt.zero_grad()
        (torch.complex(torch.ones_like(weight), weight).conj() * (1 + 2j)).sum().abs().backward()
        step_with_a_negated_gradient(weight, opt, twin, other)


def step_with_a_negated_gradient(weight, opt, twin, other):
    """Take a step with a gradient that is lazily negated, and one of a twin with its values, and compare."""
    assert weight.grad.is_neg()
    twin.grad = weight.grad.resolve_neg().clone()
    opt.step()
    other.step()
    assert_same(opt, other)


# What is negated lazily is a view of imaginary parts, and so not dense.
@named
def test_a_lazily_negated_gradient_that_a_user_gives_counts_as_its_values(name):
    weight, twin = parameter(3), parameter(3)
    opt, other = (full(getattr(drop_ins, name), [one]) for one in (weight, twin))
    weight.grad = parameter(3, dtype=torch.complex128).detach().conj().imag
    step_with_a_negated_gradient(weight, opt, twin, other)


@named
@pytest.mark.parametrize("kind", ["conjugated", "negated"])
def test_a_parameter_that_is_a_lazy_view_is_refused(name, kind):
    view = parameter(3, dtype=torch.complex64).detach().conj()
    weight = torch.nn.Parameter(view if kind == "conjugated" else view.imag)
    with pytest.raises(ValueError, match=rf'param_groups\[0\]\["params"\]\[0\] is a lazily {kind} view'):
        getattr(drop_ins, name)([weight])
    opt = getattr(drop_ins, name)([torch.nn.Parameter(weight.detach().resolve_conj().resolve_neg())])
    train(opt, [0])


@pytest.mark.parametrize(
    ("name", "flag"),
    [(name, "differentiable") for name in NAMES] + [(name, "capturable") for name in ("Adam", "AdamW", "RMSprop")],
)
def test_a_flag_that_is_not_offered_is_refused_at_the_step_too(name, flag):
    opt = getattr(drop_ins, name)(parameters())
    train(opt, [0])
    opt.param_groups[0][flag] = True
    before = values_of(opt)
    with pytest.raises(ValueError, match=f"{flag}=True is not offered here"):
        train(opt, [1])
    torch.testing.assert_close(before, values_of(opt), rtol=0, atol=0)
    opt.param_groups[0][flag] = False
    saved = copy.deepcopy(opt.state_dict())
    saved["param_groups"][0][flag] = True
    opt.load_state_dict(saved)
    with pytest.raises(ValueError, match=f"{flag}=True is not offered here"):
        train(opt, [1])
