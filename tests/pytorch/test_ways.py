"""What programs do with PyTorch's optimizers they can do with the drop-ins: replace, freeze, edit, share, fork."""

import copy
import gc
import os
import pickle
import warnings
import weakref
from collections import defaultdict

import pytest

torch = pytest.importorskip("torch", minversion="2.10")

import lrcore  # noqa: E402
import lrcore.torch  # noqa: E402

OPTIMIZERS = [
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("Adam", {}),
    ("AdamW", {"amsgrad": True}),
    ("RMSprop", {}),
    ("Adagrad", {}),
]
optimizers = pytest.mark.parametrize(("name", "arguments"), OPTIMIZERS)


def network(dtype=torch.float64):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).to(dtype)


def backward(model):
    model.zero_grad()
    x = torch.linspace(-1, 1, 12, dtype=next(model.parameters()).dtype).reshape(3, 4)
    model(x).square().mean().backward()


def train(model, opt, steps):
    for _ in range(steps):
        backward(model)
        opt.step()


def both(name, arguments, act, dtype=torch.float64):
    """Do the same with PyTorch's optimizer and the drop-in, and return both networks."""
    models = []
    for library, flags in ((torch.optim, {"foreach": False}), (lrcore.torch, {})):
        model = network(dtype)
        act(model, getattr(library, name)(model.parameters(), **arguments, **flags))
        models.append(model)
    return models


def assert_same(first, second):
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-13)


@optimizers
def test_a_stale_read_is_noticed_by_autograd(name, arguments):
    weight, other = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    opt = getattr(lrcore.torch, name)([weight, other], **arguments)
    weight.grad = torch.ones(3)
    loss, unmoved = (weight**2).sum(), (other**2).sum()
    before = weight._version
    opt.step()
    assert weight._version == before + 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    unmoved.backward()  # it had no gradient, and did not move


@optimizers
def test_frozen_parameters_and_missing_gradients_are_passed_over(name, arguments):
    def act(model, opt):
        model[0].weight.requires_grad_(requires_grad=False)
        train(model, opt, 3)
        model[0].weight.requires_grad_(requires_grad=True)
        train(model, opt, 3)

    assert_same(*both(name, arguments, act))


@optimizers
def test_a_frozen_parameter_may_be_what_a_step_could_not_move(name, arguments):
    frozen = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16), requires_grad=False)
    counts = torch.nn.Parameter(torch.ones(3, dtype=torch.int64), requires_grad=False)
    weight = torch.nn.Parameter(torch.ones(3))
    opt = getattr(lrcore.torch, name)([frozen, counts, weight], **arguments)
    weight.grad = torch.ones(3)
    opt.step()
    assert (weight != 1).all()
    assert set(opt.state) <= {weight} or name == "Adagrad"


@optimizers
def test_tied_parameters_move_once(name, arguments):
    model = network()
    model[2].bias = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    params = [model[0].weight, model[2].bias, model[0].weight]
    with pytest.warns(UserWarning, match="duplicate parameters"):
        opt = getattr(lrcore.torch, name)(params, **arguments)
    once = network()
    expected = getattr(torch.optim, name)([once[0].weight], **arguments, foreach=False)
    for _ in range(3):
        for weight in (model[0].weight, once[0].weight):
            weight.grad = torch.ones_like(weight)
        opt.step()
        expected.step()
    torch.testing.assert_close(model[0].weight, once[0].weight, rtol=1e-12, atol=1e-13)


@optimizers
def test_data_may_be_replaced_and_parameters_too(name, arguments):
    def act(model, opt):
        train(model, opt, 2)
        with torch.no_grad():
            for param in model.parameters():
                param.data = param.data * 0.5
        train(model, opt, 2)
        new = torch.nn.Parameter(torch.full_like(model[2].bias, 0.25))
        model[2].bias = new
        opt.param_groups[0]["params"][3] = new
        train(model, opt, 2)
        opt.param_groups[0]["params"] = list(model.parameters())[:2]
        train(model, opt, 2)

    assert_same(*both(name, arguments, act))


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


@optimizers
def test_what_is_put_into_the_state_holds(name, arguments):
    def act(model, opt):
        train(model, opt, 3)
        param = model[0].weight
        for key, value in list(opt.state[param].items()):
            if key != "step":
                opt.state[param][key] = torch.full_like(value, 0.01)
        train(model, opt, 1)
        opt.state[model[2].weight] = {key: value.clone() for key, value in opt.state[param].items()}
        for key, value in opt.state[model[2].weight].items():
            if key != "step":
                opt.state[model[2].weight][key] = torch.full_like(model[2].weight, float(value.abs().max()))
        train(model, opt, 1)
        if name not in ("Adagrad", "RMSprop"):
            opt.state.pop(model[0].bias)
            train(model, opt, 1)
            opt.state = defaultdict(dict)
            train(model, opt, 2)

    assert_same(*both(name, arguments, act))


def test_a_count_may_be_a_plain_number():
    weight = torch.nn.Parameter(torch.ones(3))
    opt = lrcore.torch.Adam([weight])
    weight.grad = torch.ones(3)
    opt.step()
    opt.state[weight]["step"] = 41
    opt.step()
    assert opt.state[weight]["step"].item() == 42
    assert opt.state[weight]["step"].dtype == torch.float32


@optimizers
def test_groups_may_be_edited_and_added(name, arguments):
    def act(model, opt):
        train(model, opt, 2)
        opt.param_groups[0]["lr"] = 0.02
        opt.param_groups[0]["weight_decay"] = 0.1
        train(model, opt, 2)
        extra = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
        opt.add_param_group({"params": [extra], "lr": 0.5, "maximize": True})
        extra.grad = torch.ones(2, dtype=torch.float64)
        train(model, opt, 2)
        model.register_parameter("extra", extra)

    assert_same(*both(name, arguments, act))


def test_a_wrong_edit_is_an_error_at_the_step_and_changes_nothing():
    model = network()
    opt = lrcore.torch.AdamW(model.parameters())
    train(model, opt, 2)
    before = copy.deepcopy((model.state_dict(), opt.state_dict()))
    opt.param_groups[0]["betas"] = (0.9, 1.0)
    for _ in range(2):  # as often as it is tried
        with pytest.raises(ValueError, match=r"betas\[1\] must be in \[0, 1\), got 1.0"):
            opt.step()
    opt.param_groups[0].update(betas=(0.9, 0.999), lr=-1.0)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"lr must be in \[0, inf\), got -1.0"):
            opt.step()
    opt.param_groups[0]["lr"] = 1e-3
    opt.param_groups[0]["betas"] = (0.9, 0.999)
    torch.testing.assert_close(model.state_dict(), before[0], rtol=0, atol=0)
    torch.testing.assert_close(opt.state_dict(), before[1], rtol=0, atol=0)
    opt.step()


@optimizers
def test_a_rate_may_be_a_tensor_that_changes_in_place(name, arguments):
    def act(model, opt):
        rate = torch.tensor(0.01, dtype=torch.float64)
        opt.param_groups[0]["lr"] = rate
        train(model, opt, 2)
        rate.fill_(0.05)
        train(model, opt, 2)

    assert_same(*both(name, arguments, act))


SCHEDULERS = {
    "StepLR": lambda lr, opt: lr.StepLR(opt, 2),
    "CosineAnnealingLR": lambda lr, opt: lr.CosineAnnealingLR(opt, 10),
    "SequentialLR": lambda lr, opt: lr.SequentialLR(opt, [lr.LinearLR(opt), lr.ExponentialLR(opt, 0.8)], [3]),
    "ChainedScheduler": lambda lr, opt: lr.ChainedScheduler([lr.LinearLR(opt), lr.ExponentialLR(opt, 0.8)]),
    "OneCycleLR": lambda lr, opt: lr.OneCycleLR(opt, 0.1, total_steps=12),
    "CyclicLR": lambda lr, opt: lr.CyclicLR(opt, 0.01, 0.1, step_size_up=3),
    "LambdaLR": lambda lr, opt: lr.LambdaLR(opt, lambda epoch: 0.9**epoch),
    "CosineAnnealingWarmRestarts": lambda lr, opt: lr.CosineAnnealingWarmRestarts(opt, 4),
    "ReduceLROnPlateau": lambda lr, opt: lr.ReduceLROnPlateau(opt, patience=1),
    "SWALR": lambda _, opt: torch.optim.swa_utils.SWALR(opt, swa_lr=0.05, anneal_epochs=4),
}


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
@pytest.mark.parametrize(("name", "arguments"), [OPTIMIZERS[0], OPTIMIZERS[2]])
def test_schedulers_of_torch_move_the_rates(name, arguments, make):
    def act(model, opt):
        scheduler = make(torch.optim.lr_scheduler, opt)
        for _ in range(10):
            train(model, opt, 1)
            scheduler.step(*([1.0] if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) else []))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # SequentialLR warns of itself, with any optimizer.
        warnings.filterwarnings("ignore", message="The epoch parameter in `scheduler.step()`")
        assert_same(*both(name, arguments, act))


@pytest.mark.parametrize("unscales", [False, True])
@optimizers
def test_a_grad_scaler_leaves_the_scale_to_the_step(name, arguments, unscales):
    def act(model, opt):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
        x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)
        for number in range(6):
            opt.zero_grad()
            loss = model(x).square().mean()
            scaler.scale(loss).backward()
            if number == 3:
                model[0].weight.grad[0, 0] = float("inf")
            if unscales:
                scaler.unscale_(opt)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            scaler.step(opt)
            scaler.update()

    assert_same(*both(name, arguments, act))


@optimizers
def test_copies_and_pickles_go_on_alike(name, arguments):
    model = network()
    opt = getattr(lrcore.torch, name)(model.parameters(), **arguments)
    train(model, opt, 3)
    copies = [copy.deepcopy((model, opt)), pickle.loads(pickle.dumps((model, opt)))]  # noqa: S301
    train(model, opt, 3)
    for other, other_opt in copies:
        assert type(other_opt) is type(opt)
        train(other, other_opt, 3)
        for one, two in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(one, two)


@optimizers
def test_from_torch_goes_on_with_groups_state_and_schedulers(name, arguments):
    def act(model, opt, turns_at=None):
        scheduler = torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)
        for number in range(6):
            if number == turns_at:
                opt = lrcore.torch.from_torch(opt)
            train(model, opt, 1)
            scheduler.step()
        return opt

    expected, model = network(), network()
    act(expected, getattr(torch.optim, name)(expected.parameters(), **arguments, foreach=False))
    before = getattr(torch.optim, name)(model.parameters(), **arguments, foreach=False)
    after = act(model, before, turns_at=3)
    assert type(after) is getattr(lrcore.torch, name)
    assert isinstance(after, type(before))
    assert_same(expected, model)
    # Either may take the next step.
    before.step()
    after.step()


def test_from_torch_refuses_others():
    weight = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(
        TypeError, match=r"from_torch takes torch\.optim\.SGD, .*, got torch\.optim\.adadelta\.Adadelta"
    ):
        lrcore.torch.from_torch(torch.optim.Adadelta([weight]))
    sharing = torch.optim.Adam([weight], capturable=True)
    with pytest.raises(ValueError, match="capturable=True is not offered here"):
        lrcore.torch.from_torch(sharing)
    assert type(sharing.state) is defaultdict


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
    with pytest.raises(RuntimeError, match="made in inference mode"):
        inferring.step()
    with torch.inference_mode():
        inferring.step()
        assert made[0] < 1


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda w: lrcore.torch.AdamW([w], capturable=True), ValueError, "capturable=True is not offered here"),
        (lambda w: lrcore.torch.SGD([w], differentiable=True), ValueError, "differentiable=True is not offered here"),
        (
            lambda w: lrcore.torch.Adam([torch.nn.Parameter(w.detach().to("meta"))]),
            ValueError,
            "is on the device meta; allowed is the CPU",
        ),
        (
            lambda w: lrcore.torch.Adam([torch.nn.Parameter(w.detach().bfloat16())]),
            TypeError,
            "has torch.bfloat16; allowed are",
        ),
        (
            lambda w: lrcore.torch.Adam([torch.nn.Parameter(w.detach().half())]),
            TypeError,
            "has torch.float16; allowed are",
        ),
        (lambda w: lrcore.torch.Adam([w], clip=1.0), TypeError, "Adam has no argument 'clip'; its options are"),
        (lambda w: lrcore.torch.Adam([w], lr=-1.0), ValueError, "Invalid learning rate: -1.0"),
        (lambda w: lrcore.torch.Adam([w], no_decay=["*bias"]), ValueError, "give model.named_parameters"),
        (lambda w: lrcore.torch.Adam([w], clip_norm=-1.0), ValueError, "clip_norm must be in"),
        (lambda w: lrcore.torch.Adam([{"params": [w], "eps": -1.0}]), ValueError, "eps must be in"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(make, error, message):
    with pytest.raises(error, match=message):
        make(torch.nn.Parameter(torch.ones(3)))


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
@optimizers
def test_a_step_that_is_refused_changes_nothing(name, arguments, spoil, error, message):
    first, second = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    opt = getattr(lrcore.torch, name)([first, second], **arguments)
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


def test_a_closure_is_called_with_gradients_enabled():
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    opt = lrcore.torch.SGD([weight], lr=0.1)

    def closure():
        opt.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert opt.step(closure).item() == 9.0
    assert weight.item() == pytest.approx(2.4)


def test_hooks_see_every_step_and_the_profiler_names_it():
    weight = torch.nn.Parameter(torch.ones(3))
    opt = lrcore.torch.AdamW([weight])
    weight.grad = torch.ones(3)
    opt.step()
    seen = []
    handles = [
        opt.register_step_pre_hook(lambda *_: seen.append("before")),
        opt.register_step_post_hook(lambda *_: seen.append("after")),
    ]
    opt.step()
    assert seen == ["before", "after"]
    for handle in handles:
        handle.remove()
    opt.step()
    assert len(seen) == 2
    with torch.profiler.profile() as profile:
        opt.step()
    assert "Optimizer.step#AdamW.step" in {event.name for event in profile.events()}


def test_an_optimizer_and_its_parameters_can_be_forgotten():
    model = network()
    opt = lrcore.torch.AdamW(model.parameters(), clip_norm=1.0)
    train(model, opt, 2)
    gone = [weakref.ref(opt), weakref.ref(model[0].weight), weakref.ref(opt.state[model[0].weight]["exp_avg"])]
    del model, opt
    gc.collect()
    assert [reference() for reference in gone] == [None] * 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_goes_on_alone():
    weight = torch.nn.Parameter(torch.ones(1 << 20))
    opt = lrcore.torch.SGD([weight], lr=0.5)
    weight.grad = torch.ones(1 << 20)
    opt.step()
    child = os.fork()
    if child == 0:
        opt.step()
        os._exit(0 if weight.detach().numpy().max() == 0.0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert weight[0].item() == 0.5
