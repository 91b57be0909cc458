"""The hooks of PyTorch's optimizers, around steps and around state dicts."""

import pytest

import lrcore
from lrcore import schedules
from support.networks import take_step, vector
from support.optimizer_pairs import (
    FULL,
    assert_same,
    counterpart,
    drop_ins,
    each,
    full,
    give,
    gradients,
    named,
    parameters,
    torch,
    train,
    values_of,
    weights_of,
)

# PyTorch does not export the hooks of every optimizer together.
registry = pytest.importorskip("torch.optim.optimizer")


@each
def test_hooks_around_a_step_see_it_in_order(kind):
    opt, seen = full(kind), []

    def note(what):
        def hook(own, args, kwargs):
            assert own is opt
            seen.append((what, args, kwargs, own.param_groups[0]["params"][0].detach().clone()))

        return hook

    handles = [
        registry.register_optimizer_step_pre_hook(note("every, before")),
        opt.register_step_pre_hook(note("before")),
        opt.register_step_post_hook(note("after")),
        registry.register_optimizer_step_post_hook(note("every, after")),
    ]
    try:
        train(opt, [0])
    finally:
        for handle in handles:
            handle.remove()
    assert [what for what, *_ in seen] == ["every, before", "before", "after", "every, after"]
    assert all(args == (opt,) and kwargs == {} for _, args, kwargs, _ in seen)
    assert torch.equal(seen[0][3], seen[1][3])
    assert not torch.equal(seen[1][3], seen[2][3])
    train(opt, [1])
    assert len(seen) == 4


@each
def test_a_hook_before_the_step_may_give_it_another_closure(kind):
    opt, calls = full(kind), []
    give(opt, gradients(opt, 0))
    opt.register_step_pre_hook(lambda own, *_: ((own, lambda: calls.append("hook") or 2.5), {}))
    after = []
    opt.register_step_post_hook(lambda _, args, kwargs: after.append((len(args), kwargs)))
    assert opt.step(lambda: calls.append("caller") or 1.0) == 2.5
    assert calls == ["hook"]
    assert after == [(2, {})]


@each
def test_a_hook_that_returns_something_else_is_refused_before_the_step(kind):
    opt = full(kind)
    before = values_of(opt)
    opt.register_step_pre_hook(lambda *_: "nonsense")
    with pytest.raises(RuntimeError, match="must return None or a tuple of"):
        train(opt, [0])
    torch.testing.assert_close(before, values_of(opt), rtol=0, atol=0)


@each
def test_a_hook_may_change_gradients_and_rates(kind):
    opt, twin = full(kind), full(kind)

    def change(own, args, kwargs):
        for param in weights_of(own):
            param.grad.mul_(0.5)
        own.param_groups[0]["lr"] *= 0.9

    opt.register_step_pre_hook(change)
    for step in range(4):
        give(opt, gradients(opt, step))
        opt.step()
        give(twin, [grad * 0.5 for grad in gradients(twin, step)])
        twin.param_groups[0]["lr"] *= 0.9
        twin.step()
    assert_same(opt, twin)


@each
def test_hooks_around_state_dict_may_replace_it(kind):
    opt, seen = full(kind), []
    train(opt, range(2))
    opt.register_state_dict_pre_hook(lambda _: seen.append("second"))
    opt.register_state_dict_pre_hook(lambda _: seen.append("first"), prepend=True)
    opt.register_state_dict_post_hook(lambda _, saved: {**saved, "mine": 1})
    handle = opt.register_state_dict_post_hook(lambda _, saved: saved["state"].clear())
    saved = opt.state_dict()
    assert seen == ["first", "second"]
    assert saved["mine"] == 1
    assert saved["state"] == {}
    handle.remove()
    assert opt.state_dict()["state"] != {}


@each
def test_hooks_around_load_state_dict_may_replace_it(kind):
    opt, other = full(kind), full(kind)
    train(opt, range(2))
    seen = []

    def rate(value, *, new):
        def hook(own, saved):
            seen.append(value)
            groups = [{**group, "lr": value} for group in saved["param_groups"]]
            if new:
                return {**saved, "param_groups": groups}
            saved["param_groups"] = groups
            return None

        return hook

    other.register_load_state_dict_pre_hook(rate(0.5, new=True))
    other.register_load_state_dict_pre_hook(rate(0.25, new=False), prepend=True)
    other.register_load_state_dict_post_hook(lambda own: seen.append(own.param_groups[0]["lr"]))
    saved = opt.state_dict()
    other.load_state_dict(saved)
    assert seen == [0.25, 0.5, 0.5]
    assert saved["param_groups"][0]["lr"] == 0.1
    train(other, range(2))


@named
def test_a_hook_may_say_how_many_steps_a_state_dict_has(name):
    opt = getattr(drop_ins, name)(parameters(), lr=schedules.Linear(1.0, 0.0, steps=10))
    opt.register_load_state_dict_pre_hook(lambda _, saved: saved["wrapped"])
    seen = []
    opt.register_load_state_dict_post_hook(lambda own: seen.append(own.steps))
    other = getattr(drop_ins, name)(parameters(), lr=schedules.Linear(1.0, 0.0, steps=10))
    other.steps = 7
    opt.load_state_dict({"wrapped": other.state_dict()})
    assert (opt.steps, seen) == (7, [7])


def scaled(opt, scaler, factor):
    """Take a step with a GradScaler, of gradients that are ones times a factor."""
    opt.zero_grad()
    scaler.scale(sum((param * factor).sum() for param in weights_of(opt))).backward()
    scaler.step(opt)
    scaler.update()


def clip(opt, *_):
    for param in weights_of(opt):
        param.grad.clamp_(-0.1, 0.1)


FACTORS = [float("inf"), 1.0, float("nan"), 0.5]


@each
@pytest.mark.parametrize("everywhere", [False, True])
def test_a_step_that_a_scaler_skips_calls_no_hooks_and_others_see_unscaled_gradients(kind, everywhere):
    opt, seen = full(kind), []

    def before(own, *_):
        seen.append(weights_of(own)[0].grad[0, 0].item())

    def after(*_):
        seen.append("after")

    if everywhere:
        handles = [
            registry.register_optimizer_step_pre_hook(before),
            registry.register_optimizer_step_post_hook(after),
        ]
    else:
        handles = [opt.register_step_pre_hook(before), opt.register_step_post_hook(after)]
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    try:
        for factor in FACTORS:
            scaled(opt, scaler, factor)
    finally:
        for handle in handles:
            handle.remove()
    assert seen == [1.0, "after", 0.5, "after"]


@named
@pytest.mark.parametrize("how", ["plain", "hooked", "subclass", "patched", "scheduled"])
def test_steps_with_a_scaler_are_those_of_pytorch_whatever_is_around_them(name, how):
    calls = {}

    def act(kind):
        calls[kind] = []
        note = calls[kind].append
        if how == "subclass":

            class Own(kind):
                def step(self, closure=None):
                    note("step")
                    return super().step(closure)

            Own.__name__ = name
            opt = Own(parameters(), **FULL[name])
        else:
            opt = full(kind)
        if how == "hooked":
            # What clips gradients in a hook must see them without the scale.
            opt.register_step_pre_hook(clip)
        if how == "patched":
            inner = opt.step
            opt.step = lambda *args: note("step") or inner(*args)
        if how == "scheduled":
            torch.optim.lr_scheduler.StepLR(opt, 1)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        for factor in FACTORS:
            scaled(opt, scaler, factor)
        return values_of(opt)

    ours, theirs = getattr(drop_ins, name), counterpart(name)
    torch.testing.assert_close(act(ours), act(theirs), rtol=1e-13, atol=1e-14)
    assert calls[ours] == calls[theirs]


def test_a_scaler_that_skips_a_hooked_step_says_so():
    opt = full(drop_ins.AdamW)
    opt.register_step_post_hook(lambda *_: pytest.fail("called"))
    scaled(opt, torch.amp.GradScaler("cpu", init_scale=4.0), float("inf"))
    assert (opt.info.applied, opt.info.step) == (False, 0)


class Counting(lrcore.torch.AdamW):
    """An optimizer of a program's own."""

    def step(self, closure=None):
        self.seen = getattr(self, "seen", 0) + 1
        return super().step(closure)


def test_hooks_are_called_once_around_the_step_of_a_subclass():
    opt, calls = Counting([vector()]), []
    opt.register_step_post_hook(lambda *_: calls.append(1))
    take_step(opt)
    assert (opt.seen, len(calls)) == (1, 1)
