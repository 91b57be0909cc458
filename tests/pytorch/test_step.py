"""What a step does: without gradients, with a closure, in a compiled program, under a profiler."""

import warnings

import pytest

from support.networks import assert_libraries_agree
from support.optimizer_pairs import (
    FULL,
    Pair,
    assert_same,
    counterpart,
    each,
    full,
    give,
    named,
    parameter,
    parameters,
    torch,
    train,
    values_of,
    weights_of,
)


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
    theirs = counterpart(name)(parameters(), **FULL[name])
    assert repr(pair.ours) == repr(theirs)
    assert pair.ours.defaults == theirs.defaults


@each
def test_a_profile_names_the_step(kind):
    opt = full(kind)
    train(opt, [0])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        opt.step()
    assert f"Optimizer.step#{kind.__name__}.step" in {event.key for event in profile.key_averages()}


@pytest.mark.slow
def test_a_compiled_program_takes_steps():
    def act(library):
        torch._dynamo.reset()
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 2)
        opt = library.AdamW(model.parameters())

        @torch.compile(backend="eager")
        def train(x):
            opt.zero_grad()
            model(x).square().mean().backward()
            opt.step()

        for _ in range(3):
            train(torch.ones(3, 4))
        return [param.detach() for param in model.parameters()]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of its own modules
        assert_libraries_agree(act)
