"""Programs that go about their optimizer in unusual ways, each beside PyTorch's own."""

import copy
import gc
import json
import sys
import threading
import warnings
from collections import defaultdict

import numpy as np
import pytest

torch = pytest.importorskip("torch", minversion="2.10")

import lrcore  # noqa: E402
import lrcore.torch  # noqa: E402
from lrcore import schedules  # noqa: E402

LIBRARIES = (torch.optim, lrcore.torch)


def parameter(*values):
    return torch.nn.Parameter(torch.tensor(values or (1.0, 2.0, 3.0)))


def step(opt, scale=1.0):
    for group in opt.param_groups:
        for param in group["params"]:
            param.grad = torch.full_like(param, scale)
    opt.step()


def agree(act):
    """Do the same with both libraries, and compare what comes out."""
    first, second = (act(library) for library in LIBRARIES)
    torch.testing.assert_close(second, first)


def test_names_may_be_there_twice():
    def act(library):
        params = [parameter(1.0, 2.0, 3.0), parameter(1.0, 2.0), parameter(1.0)]
        opt = library.AdamW(zip(("w", "w", "b"), params, strict=True))
        step(opt)
        return [param.detach() for param in params], [opt.state[param]["exp_avg"] for param in params]

    agree(act)


def test_a_parameter_may_be_added_to_a_group_with_names():
    def act(library):
        params = [parameter(), parameter()]
        opt = library.Adam([("w", params[0])])
        step(opt)
        opt.param_groups[0]["params"].append(params[1])
        step(opt)
        return [param.detach() for param in params]

    agree(act)


def test_groups_may_be_removed_appended_and_reversed():
    def act(library):
        params = [parameter() for _ in range(3)]
        opt = library.SGD([{"params": [param], "lr": 0.1 * i} for i, param in enumerate(params, start=1)], momentum=0.9)
        step(opt)
        removed = opt.param_groups.pop(1)
        step(opt)
        opt.param_groups.append(removed)
        opt.param_groups.reverse()
        step(opt)
        return [param.detach() for param in params]

    agree(act)


def test_a_schedule_stays_with_its_group():
    params = [parameter(), parameter()]
    groups = [{"params": params[:1], "lr": schedules.Linear(1.0, 0.0, steps=10)}, {"params": params[1:], "lr": 0.5}]
    opt = lrcore.torch.SGD(groups)
    opt.param_groups.reverse()
    for _ in range(3):
        step(opt)
    assert [group["lr"] for group in opt.param_groups] == [0.5, 0.7]


def test_the_state_is_one_object_from_the_first():
    opt = lrcore.torch.Adam([parameter()])
    held = opt.state
    step(opt)
    assert held is opt.state
    assert len(held) == 1


def test_states_may_be_exchanged():
    def act(library):
        param = parameter()
        opt = library.Adam([param])
        step(opt)
        first, second = opt.state, defaultdict(dict)
        for number in range(6):
            opt.state = (second, first)[number % 2]
            step(opt, number)
            second = opt.state if number % 2 == 0 else second
        return param.detach(), [float(state[param]["step"]) for state in (first, second)]

    agree(act)


def test_two_optimizers_may_share_a_state():
    param = parameter()
    first, second = lrcore.torch.Adam([param]), lrcore.torch.Adam([param])
    step(first)
    second.state = first.state
    step(second)
    assert first.state[param]["step"] == 2
    del first.state[param]
    step(second)
    step(first)
    assert first.state[param]["step"] == 2


def test_the_default_device_does_not_matter():
    param = torch.nn.Parameter(torch.ones(5000))
    opt = lrcore.torch.Adam([param])
    param.grad = torch.ones(5000)
    with torch.device("meta"):
        opt.step()
    opt.step()
    assert opt.state[param]["step"] == 2


@pytest.mark.parametrize("make", [list, lambda pair: torch.tensor(pair), np.array], ids=["list", "tensor", "array"])
def test_betas_may_be_anything_with_two_numbers_and_change_in_place(make):
    param, other = parameter(), parameter()
    opt, expected = lrcore.torch.Adam([param]), lrcore.torch.Adam([other])
    betas = make([0.9, 0.99])
    opt.param_groups[0]["betas"] = betas
    expected.param_groups[0]["betas"] = (float(betas[0]), float(betas[1]))
    step(opt)
    step(expected)
    betas[0] = 0.1
    expected.param_groups[0]["betas"] = (float(betas[0]), float(betas[1]))
    step(opt, 0.5)
    step(expected, 0.5)
    assert torch.equal(param, other)


def test_flags_may_be_ones_and_groups_hold_what_else_programs_need():
    param = parameter()
    opt = lrcore.torch.Adam([param], amsgrad=1)
    opt.param_groups[0]["history"] = np.zeros(3)
    step(opt)
    opt.param_groups[0]["history"] = np.ones(3)
    step(opt)
    assert "max_exp_avg_sq" in opt.state[param]


def test_an_option_that_is_taken_out_of_a_group_ends():
    param = parameter(0.0)
    opt = lrcore.torch.SGD([{"params": [param], "lrcore": {"clip_value": 0.1}}], lr=1.0)
    step(opt)
    del opt.param_groups[0]["lrcore"]["clip_value"]
    step(opt)
    assert param.item() == pytest.approx(-1.1)


def test_a_rate_set_by_hand_beside_a_schedule_is_refused_at_once():
    opt = lrcore.torch.SGD([parameter()], lr=schedules.Constant(0.5))
    opt.param_groups[0]["lr"] = 0.01
    with pytest.raises(ValueError, match="give one of both"):
        step(opt)
    opt.param_groups[0]["lr"] = schedules.Constant(0.25)
    step(opt)
    assert opt.info.lr == 0.25


def test_the_averages_go_out_again_whatever_was_done_within():
    model = torch.nn.Linear(3, 2)
    opt = lrcore.torch.SGD(model.parameters(), lr=0.1, average=lrcore.EMA(0.5))
    for _ in range(3):
        step(opt)
    own = model.weight.detach().clone()
    with opt.averaged():
        assert not torch.equal(model.weight, own)
        model.double()
    assert torch.equal(model.weight, own.double())
    model.float()
    with opt.averaged():
        opt.state[model.bias] = dict(opt.state[model.bias])
        with pytest.raises(RuntimeError, match="the weights are averages now"):
            opt.step()
    assert torch.equal(model.weight, own)


def test_copies_may_be_given_more_parameters():
    opt = copy.deepcopy(lrcore.torch.AdamW([parameter()], lr=schedules.Constant(0.1)))
    extra = parameter()
    opt.add_param_group({"params": [extra]})
    step(opt)
    assert opt.param_groups[1]["lr"] == 0.1
    assert extra[0] < 1


def test_a_state_that_is_loaded_reaches_whoever_shares_the_groups():
    before = torch.optim.AdamW([parameter()], lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(before, 1, 0.5)
    opt = lrcore.torch.from_torch(before, clip_norm=1.0)
    opt.load_state_dict(opt.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(opt)
        scheduler.step()
    assert opt.param_groups[0]["lr"] == before.param_groups[0]["lr"] == 0.05


class Counting(lrcore.torch.AdamW):
    """An optimizer of a program's own."""

    def step(self, closure=None):
        self.seen = getattr(self, "seen", 0) + 1
        return super().step(closure)


def test_hooks_are_called_once_around_the_step_of_a_subclass():
    opt, calls = Counting([parameter()]), []
    opt.register_step_post_hook(lambda *_: calls.append(1))
    step(opt)
    assert (opt.seen, len(calls)) == (1, 1)


class Wrapper:
    """A wrapper that is of its optimizer's class and asks it for what it lacks itself, as Lightning's."""

    def __init__(self, optimizer):
        self._optimizer = optimizer
        self.__class__ = type("Wrapped", (Wrapper, type(optimizer)), {})

    def __getattr__(self, name):
        return getattr(self._optimizer, name)


def test_a_wrapper_says_what_its_optimizer_says():
    opt = lrcore.torch.AdamW([parameter()], lr=schedules.Constant(0.1))
    wrapped = Wrapper(opt)
    step(opt)
    assert (wrapped.info, wrapped.steps, wrapped.state) == (opt.info, 1, opt.state)
    assert json.loads(wrapped.state_dict()["param_groups"][0]["lrcore_state"])["steps"] == 1


class Own(torch.Tensor):
    """A tensor whose operations are Python code."""

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def test_a_gradient_whose_reading_would_run_python_is_refused():
    param = parameter()
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


@pytest.mark.parametrize("count", [float("inf"), float("nan"), -3.0])
def test_a_count_that_is_none_gives_no_nan(count):
    param = parameter()
    opt = lrcore.torch.Adam([param])
    step(opt)
    opt.state[param]["step"].fill_(count)
    step(opt)
    assert param.isfinite().all()


def test_a_step_that_the_scaler_leaves_out_says_so():
    param = parameter()
    opt = lrcore.torch.AdamW([param])
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale((param * float("inf")).sum()).backward()
    scaler.step(opt)
    assert (opt.info.applied, opt.info.step) == (False, 0)


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
        agree(act)


class Moving(torch.nn.Module):
    """A model that puts other tensors in the place of its buffers, and has one that can't be written to."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("ones", torch.ones(1).expand(5))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.layer(x - self.mean)


def test_a_range_test_puts_back_what_a_forward_pass_replaces():
    model = Moving()
    opt = lrcore.torch.AdamW(model.parameters(), lr=0.1)
    x = torch.ones(4, 2)
    opt.zero_grad()
    model(x).sum().backward()
    opt.step()
    mean, info = model.mean, opt.info
    lrcore.torch.find_lr(model, opt, torch.nn.functional.mse_loss, [(x, torch.zeros(4, 1))], steps=20)
    assert model.mean is mean
    assert torch.equal(mean, torch.full((2,), 0.1))
    assert (opt.param_groups[0]["lr"], opt.info, opt.state[model.layer.weight]["step"]) == (0.1, info, 1)


def test_threads_may_step_optimizers_of_their_own():
    def train():
        param = torch.nn.Parameter(torch.zeros(100_000))
        opt = lrcore.torch.SGD([param], lr=1.0)
        for _ in range(20):
            step(opt)
        results.append(param[0].item())

    results = []
    threads = [threading.Thread(target=train) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert results == [-20.0] * 4


@pytest.fixture
def restless():
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_threads_may_take_turns_with_one_optimizer(restless):
    for _ in range(10):
        params = [torch.nn.Parameter(torch.zeros(4_000)) for _ in range(4)]
        opt = lrcore.torch.SGD(params, lr=1.0, momentum=0.5)
        for param in params:
            param.grad = torch.ones(4_000)
        threads = [threading.Thread(target=lambda opt=opt: [opt.step() for _ in range(10)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert opt.steps == 40
        assert len(opt.state) == 4
        assert all(torch.equal(param, params[0]) for param in params)


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


class Moves:
    """A count that, when it is read or dropped, moves the memory of another one."""

    def __init__(self, victim, when):
        self.victim, self.when = victim, when

    def move(self):
        self.victim.data = torch.tensor(2.0)

    def __float__(self):
        if self.when == "read":
            self.move()
        return 2.0

    def __del__(self):
        if self.when == "dropped":
            self.move()


@pytest.mark.parametrize("when", ["read", "dropped"])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_count_that_moves_while_others_are_read_is_found_where_it_is(when, swapped):
    params = [parameter(1.0, 2.0), parameter(1.0, 2.0)]
    opt = lrcore.torch.Adam(params, lr=0.1)
    step(opt)
    step(opt)
    victim, other = reversed(params) if swapped else params
    count = torch.empty(0).set_(torch.full((1 << 18,), 2.0).untyped_storage(), 0, (), ())
    opt.state[victim]["step"] = count
    opt.state[other]["step"] = Moves(count, when)
    step(opt)
    guards = [torch.full((1 << 18,), 7.0) for _ in range(3)]
    gc.collect()
    step(opt)
    assert all((guard == 7.0).all() for guard in guards)
    assert [int(opt.state[param]["step"]) for param in params] in ([4, 4], [3, 4], [4, 3])


def test_an_average_that_is_made_anew_begins_with_the_weight():
    param = parameter()
    opt = lrcore.torch.SGD([param], lr=0.1, average=lrcore.EMA(0.9))
    for _ in range(3):
        step(opt)
    del opt.state[param]["average"]
    step(opt)
    torch.testing.assert_close(opt.state[param]["average"], param.detach())
