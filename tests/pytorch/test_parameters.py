"""Which parameters and gradients a step moves: frozen, tied, replaced, shared, freed, lazy ones."""

import copy
import gc
import warnings
import weakref

import pytest

import lrcore
from support.networks import assert_same_weights, network, train_network, train_with_both, vector
from support.optimizer_pairs import (
    FULL,
    assert_same,
    counterpart,
    drop_ins,
    each,
    for_loop,
    full,
    named,
    parameter,
    torch,
    train,
)


@named
def test_a_stale_read_is_noticed_by_autograd(name):
    weight, other = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    opt = getattr(lrcore.torch, name)([weight, other], **FULL[name])
    weight.grad = torch.ones(3)
    loss, unmoved = (weight**2).sum(), (other**2).sum()
    before = weight._version
    opt.step()
    assert weight._version == before + 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    unmoved.backward()  # it had no gradient, and did not move


@named
def test_frozen_parameters_and_missing_gradients_are_passed_over(name):
    def act(model, opt):
        model[0].weight.requires_grad_(requires_grad=False)
        train_network(model, opt, 3)
        model[0].weight.requires_grad_(requires_grad=True)
        train_network(model, opt, 3)

    assert_same_weights(*train_with_both(name, act))


@named
def test_a_frozen_parameter_may_be_what_a_step_could_not_move(name):
    frozen = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16), requires_grad=False)
    counts = torch.nn.Parameter(torch.ones(3, dtype=torch.int64), requires_grad=False)
    weight = torch.nn.Parameter(torch.ones(3))
    opt = getattr(lrcore.torch, name)([frozen, counts, weight], **FULL[name])
    weight.grad = torch.ones(3)
    opt.step()
    assert (weight != 1).all()
    assert set(opt.state) <= {weight} or name == "Adagrad"


@named
def test_tied_parameters_move_once(name):
    model = network()
    model[2].bias = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    params = [model[0].weight, model[2].bias, model[0].weight]
    with pytest.warns(UserWarning, match="duplicate parameters"):
        opt = getattr(lrcore.torch, name)(params, **FULL[name])
    once = network()
    expected = counterpart(name)([once[0].weight], **FULL[name], **for_loop(name))
    for _ in range(3):
        for weight in (model[0].weight, once[0].weight):
            weight.grad = torch.ones_like(weight)
        opt.step()
        expected.step()
    torch.testing.assert_close(model[0].weight, once[0].weight, rtol=1e-12, atol=1e-13)


@named
def test_data_may_be_replaced_and_parameters_too(name):
    def act(model, opt):
        train_network(model, opt, 2)
        with torch.no_grad():
            for param in model.parameters():
                param.data = param.data * 0.5
        train_network(model, opt, 2)
        new = torch.nn.Parameter(torch.full_like(model[2].bias, 0.25))
        model[2].bias = new
        opt.param_groups[0]["params"][3] = new
        train_network(model, opt, 2)
        opt.param_groups[0]["params"] = list(model.parameters())[:2]
        train_network(model, opt, 2)

    assert_same_weights(*train_with_both(name, act))


def test_a_resized_parameter_is_refused_until_its_state_is_gone():
    weight = torch.nn.Parameter(torch.ones(3))
    opt = lrcore.torch.Adam([weight], lr=0.1)
    weight.grad = torch.ones(3)
    opt.step()
    weight.data = torch.ones(5)
    weight.grad = torch.ones(5)
    with pytest.raises(ValueError, match=r"state\['0.0'\]|state\[\"0.0\"\]\[\"exp_avg\"\] has shape"):
        opt.step()
    assert weight.tolist() == [1.0] * 5
    assert opt.state[weight]["step"] == 1
    del opt.state[weight]
    opt.step()
    torch.testing.assert_close(weight.detach(), torch.full((5,), 0.9))


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


def test_inference_mode_and_no_grad():
    with torch.inference_mode():
        made = torch.nn.Parameter(torch.ones(3), requires_grad=False)
        made.grad = torch.ones(3)
    weight = torch.nn.Parameter(torch.ones(3))
    opt = lrcore.torch.Adam([weight], lr=0.1)
    with torch.inference_mode():
        weight.grad = None
    weight.grad = torch.ones(3)
    with torch.inference_mode():
        opt.step()  # state that is made here can be used outside
    with torch.no_grad():
        opt.step()
    opt.step()
    torch.testing.assert_close(weight.detach(), torch.full((3,), 0.7))
    assert weight.requires_grad
    inferring = lrcore.torch.Adam([made], lr=0.1)
    with pytest.raises(RuntimeError, match="created under torch"):
        inferring.step()
    with torch.inference_mode():
        inferring.step()
        assert made[0] < 1


def expanded():
    return torch.nn.Parameter(torch.ones(1).expand(3))


def half(weight):
    weight.data = weight.data.half()
    weight.grad = weight.grad.half()


def sparse(weight):
    weight.grad = torch.eye(3)[0].to_sparse()


def freed(weight):
    weight.untyped_storage().resize_(0)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (half, TypeError, r'param_groups\[0\]\["params"\]\[1\] has torch.float16; allowed are'),
        (sparse, RuntimeError, r'param_groups\[0\]\["params"\]\[1\].grad is sparse.*SparseAdam'),
        (freed, TypeError, "without plain memory of its own"),
    ],
)
@named
def test_a_step_that_is_refused_changes_nothing(name, spoil, error, message):
    first, second = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    opt = getattr(lrcore.torch, name)([first, second], **FULL[name])
    first.grad, second.grad = torch.ones(3), torch.ones(3)
    opt.step()
    before = copy.deepcopy(opt.state[first]), first.tolist()
    spoil(second)
    with pytest.raises(error, match=message):
        opt.step()
    torch.testing.assert_close(opt.state[first], before[0], rtol=0, atol=0)
    assert first.tolist() == before[1]


def test_expanded_and_shared_memory_are_refused():
    weight = expanded()
    weight.grad = torch.ones(3)
    opt = lrcore.torch.SGD([weight])
    with pytest.raises(ValueError, match="has elements that share memory with each other"):
        opt.step()
    base = torch.ones(5)
    one, other = torch.nn.Parameter(base[:3]), torch.nn.Parameter(base[2:])
    one.grad, other.grad = torch.ones(3), torch.ones(3)
    with pytest.raises(ValueError, match="share memory"):
        lrcore.torch.SGD([one, other]).step()
    apart = torch.nn.Parameter(base[3:])
    apart.grad = torch.ones(2)
    lrcore.torch.SGD([one, apart], lr=1.0).step()
    assert base.tolist() == [0.0] * 5


class Marked(torch.nn.Parameter):
    """A parameter that a program marks."""


def test_subclasses_of_parameter_and_lazy_ones():
    weight = Marked(torch.ones(3))
    opt = lrcore.torch.Adam([weight], lr=0.1)
    weight.grad = torch.ones(3)
    opt.step()
    assert type(opt.state[weight]["exp_avg"]) is torch.Tensor
    model = torch.nn.LazyLinear(2)
    opt = lrcore.torch.Adam(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    before = model.weight.detach().clone()
    opt.step()
    torch.testing.assert_close(model.weight.detach(), before - 0.1)


def test_an_optimizer_and_its_parameters_can_be_forgotten():
    model = network()
    opt = lrcore.torch.AdamW(model.parameters(), clip_norm=1.0)
    train_network(model, opt, 2)
    gone = [weakref.ref(opt), weakref.ref(model[0].weight), weakref.ref(opt.state[model[0].weight]["exp_avg"])]
    del model, opt
    gc.collect()
    assert [reference() for reference in gone] == [None] * 3


def test_the_default_device_does_not_matter():
    param = torch.nn.Parameter(torch.ones(5000))
    opt = lrcore.torch.Adam([param])
    param.grad = torch.ones(5000)
    with torch.device("meta"):
        opt.step()
    opt.step()
    assert opt.state[param]["step"] == 2


class Own(torch.Tensor):
    """A tensor whose operations are Python code."""

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def test_a_gradient_whose_reading_would_run_python_is_refused():
    param = vector()
    opt = lrcore.torch.SGD([param])
    param.grad = torch.Tensor._make_subclass(Own, torch.ones(3))
    with pytest.raises(TypeError, match=r"\.grad is a Own without plain memory of its own"):
        opt.step()


def test_memory_that_was_freed_under_an_offset_is_refused():
    base = torch.ones(10)
    param = torch.nn.Parameter(base[4:])
    opt = lrcore.torch.SGD([param])
    param.grad = torch.ones(6)
    param.untyped_storage().resize_(0)
    with pytest.raises(TypeError, match="without plain memory of its own"):
        opt.step()


def test_a_view_of_a_buffer_that_was_freed_is_refused():
    for part in ("weight", "gradient"):
        flat = torch.ones(10_000)
        view = flat[5_000:5_010]
        param = torch.nn.Parameter(view if part == "weight" else torch.ones(10))
        param.grad = view if part == "gradient" else torch.ones(10)
        opt = lrcore.torch.SGD([param], lr=0.1)
        opt.step()
        flat.untyped_storage().resize_(0)
        with pytest.raises(TypeError, match="without plain memory of its own"):
            opt.step()


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
