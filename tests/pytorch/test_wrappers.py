"""Wrappers whose class is made at run time from their own and the optimizer's, as Lightning's, Fabric's and others'."""

import copy
import json

import pytest

from support.networks import take_step, vector

torch = pytest.importorskip("torch", minversion="2.10")

import lrcore  # noqa: E402
import lrcore.torch  # noqa: E402
from lrcore import schedules  # noqa: E402
from lrcore.torch.optimizer import DropIn  # noqa: E402


def copying(opt):
    """Return a wrapper that has a copy of the attributes, as they were."""

    class Wrapper:
        def __init__(self):
            self.__dict__ = {name: value for name, value in vars(opt).items() if name != "step"}
            self.__class__ = type(f"Wrapped{type(opt).__name__}", (Wrapper, type(opt)), {})
            self._optimizer = opt

    return Wrapper()


def asking(opt):
    """Return a wrapper without attributes, which asks for them."""

    class Wrapper:
        def __init__(self):
            self._optimizer = opt
            self.__class__ = type(f"Wrapped{type(opt).__name__}", (Wrapper, type(opt)), {})

        def step(self, closure=None):
            return self._optimizer.step(closure)

        def __getattr__(self, name):
            return getattr(self._optimizer, name)

    return Wrapper()


def lightnings(opt):
    return pytest.importorskip("lightning.pytorch.core.optimizer").LightningOptimizer(opt)


def fabrics(opt):
    pytest.importorskip("lightning.fabric")
    from lightning.fabric import Fabric

    return Fabric(accelerator="cpu", devices=1).setup_optimizers(opt)


WRAPPERS = [copying, asking, lightnings, fabrics]
wrapped = pytest.mark.parametrize("wrap", WRAPPERS)


def made(weights):
    rate = schedules.Linear(1.0, 0.0, steps=20) * schedules.ReduceOnPlateau(factor=0.5, patience=0)
    options = {"average": lrcore.EMA(0.5), "skip_nonfinite": True, "stats": True}
    return lrcore.torch.SGD([("w", weights[0])], rate, momentum=schedules.Constant(0.5), **options)


def weights():
    return [torch.nn.Parameter(torch.tensor([1.0, -2.0])), torch.nn.Parameter(torch.tensor([3.0]))]


def give(opt, value):
    for group in opt.param_groups:
        for param in group["params"]:
            param.grad = torch.full_like(param, value)


def step(opt, value):
    give(opt, float(value))
    if type(opt).__name__.startswith("Lightning"):
        DropIn.step(opt)  # its own step needs a Trainer
    else:
        opt.step()


def look(opt):
    """Return what every method and property that only looks has to say."""
    with opt.averaged() as same:
        assert same is opt
        averages = [param.detach().clone() for group in opt.param_groups for param in group["params"]]
        with pytest.raises(RuntimeError, match="averages now"):
            DropIn.step(opt)
    saved = copy.deepcopy(DropIn.state_dict(opt))
    values = [param.detach().clone() for group in opt.param_groups for param in group["params"]]
    return [
        opt.info,
        opt.steps,
        opt.skipped,
        dict(opt.average),
        averages,
        values,
        saved,
        DropIn.progress(opt)[0],
        [dict(group) for group in opt.param_groups],
        opt.defaults,
        {id(param): dict(state) for param, state in opt.state.items()},
    ]


def same(one, other):
    """Return whether two nested structures are equal, tensors to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (one != one and other != other)  # NaN


def assert_one(opt, wrapper):
    assert same(look(wrapper), look(opt))
    assert opt.state is wrapper.state
    assert opt.param_groups is wrapper.param_groups


ACTS = [
    lambda opt: step(opt, 1),
    lambda opt: opt.report(1.0),
    lambda opt: step(opt, float("inf")),
    lambda opt: step(opt, 2),
    lambda opt: opt.report(2.0),
    lambda opt: DropIn.add_param_group(opt, {"params": [("v", opt.extra)]}),
    lambda opt: step(opt, 3),
    lambda opt: setattr(opt, "steps", 7),
    lambda opt: step(opt, 4),
    lambda opt: setattr(opt, "state", {}),
    lambda opt: step(opt, 5),
    lambda opt: setattr(opt, "param_groups", opt.param_groups[::-1]),
    lambda opt: step(opt, 6),
]


@pytest.mark.slow
@wrapped
@pytest.mark.parametrize("stepped_before", [False, True])
@pytest.mark.parametrize("first", [0, 1])
def test_every_method_is_one_through_both(wrap, stepped_before, first):
    own, expected = weights(), weights()
    opt, twin = made(own), made(expected)
    if stepped_before:
        step(opt, 1)
        step(twin, 1)
    both = opt, wrap(opt)
    for one, params in ((both[0], own), (both[1], own), (twin, expected)):
        one.extra = params[1]
    for number, act in enumerate(ACTS, start=first):
        act(both[number % 2])
        act(twin)
        assert_one(*both)
        assert (opt.info, opt.steps, opt.skipped) == (twin.info, twin.steps, twin.skipped)
    assert same(own, expected)
    assert opt.skipped == 1


@pytest.mark.slow
@wrapped
def test_a_state_is_loaded_and_put_back_through_both(wrap):
    opt = made(weights())
    wrapper = wrap(opt)
    step(opt, 1)
    saved = copy.deepcopy(opt.state_dict())
    for acts, looks in ((wrapper, opt), (opt, wrapper)):
        progress = DropIn.progress(acts)
        step(acts, 2)
        DropIn.load_state_dict(acts, copy.deepcopy(saved))
        assert looks.steps == 1
        assert_one(opt, wrapper)
        step(looks, 2)
        DropIn.restore_progress(looks, progress)
        assert acts.steps == progress[0]
        with DropIn.without_schedules(acts, "lr"):
            looks.param_groups[0]["lr"] = 0.25
            step(looks, 1)
            assert acts.info.lr == 0.25
        assert [sorted(one) for one in DropIn.take_schedules(looks)] == [["lr", "momentum"]]
        assert repr(acts).splitlines()[1:] == repr(looks).splitlines()[1:]
        acts.zero_grad()
        assert looks.param_groups[0]["params"][0].grad is None


@wrapped
def test_hooks_that_are_registered_through_a_wrapper_are_called(wrap):
    opt = made(weights())
    wrapper, seen = wrap(opt), []
    handles = [
        wrapper.register_step_pre_hook(lambda *_: seen.append("before")),
        wrapper.register_step_post_hook(lambda *_: seen.append("after")),
        wrapper.register_state_dict_pre_hook(lambda *_: seen.append("state")),
        wrapper.register_load_state_dict_post_hook(lambda *_: seen.append("loaded")),
    ]
    step(opt, 1)
    opt.load_state_dict(opt.state_dict())
    assert seen == ["before", "after", "state", "loaded"]
    for handle in handles:
        handle.remove()
    step(opt, 1)
    assert len(seen) == 4


@pytest.mark.parametrize("wrap", [copying, asking])
def test_a_grad_scaler_may_be_given_the_wrapper(wrap):
    def act(wrap):
        own = weights()
        opt = lrcore.torch.SGD(own[:1], lr=1.0)
        scaler, wrapper = torch.amp.GradScaler("cpu", init_scale=4.0), wrap(opt)
        for factor in (1.0, float("inf"), 2.0):
            opt.zero_grad()
            scaler.scale((own[0] * factor).sum()).backward()
            scaler.step(wrapper)
            scaler.update()
        assert not hasattr(opt, "grad_scale")
        return own[0].detach()

    assert torch.equal(act(wrap), act(lambda opt: opt))


def test_accelerates_wrapper_and_the_optimizer_are_one():
    accelerate = pytest.importorskip("accelerate")
    own, expected = weights(), weights()
    opt, twin = made(own), made(expected)
    wrapper = accelerate.Accelerator(cpu=True).prepare(opt)
    for number, acts in enumerate((wrapper, opt, wrapper, opt)):
        give(opt, float(number))
        acts.step()
        step(twin, number)
        assert wrapper.state is opt.state
        assert same(wrapper.state_dict(), twin.state_dict())
        wrapper.load_state_dict(opt.state_dict())
        assert (opt.info, opt.steps) == (twin.info, number + 1)
    wrapper.add_param_group({"params": [("v", own[1])]})
    twin.add_param_group({"params": [("v", expected[1])]})
    give(opt, 1.0)
    wrapper.step()
    step(twin, 1)
    with opt.averaged():
        pass
    assert same(own, expected)


def test_attributes_are_where_pytorchs_optimizers_have_them():
    opt = made(weights())
    names = {"param_groups", "defaults", "state"}
    assert names <= vars(opt).keys()
    step(opt, 1)
    opt.load_state_dict(opt.state_dict())
    assert all(vars(opt)[name] is getattr(opt, name) for name in names)


class Wrapper:
    """A wrapper that is of its optimizer's class and asks it for what it lacks itself, as Lightning's."""

    def __init__(self, optimizer):
        self._optimizer = optimizer
        self.__class__ = type("Wrapped", (Wrapper, type(optimizer)), {})

    def __getattr__(self, name):
        return getattr(self._optimizer, name)


def test_a_wrapper_says_what_its_optimizer_says():
    opt = lrcore.torch.AdamW([vector()], lr=schedules.Constant(0.1))
    wrapped = Wrapper(opt)
    take_step(opt)
    assert (wrapped.info, wrapped.steps, wrapped.state) == (opt.info, 1, opt.state)
    assert json.loads(wrapped.state_dict()["param_groups"][0]["lrcore_state"])["steps"] == 1
