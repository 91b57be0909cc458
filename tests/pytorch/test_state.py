"""The state: entries that a program sets, removes or shares, and the counts of steps in it."""

import gc
from collections import defaultdict

import pytest

import lrcore
from support.networks import (
    assert_libraries_agree,
    assert_same_weights,
    take_step,
    train_network,
    train_with_both,
    vector,
)
from support.optimizer_pairs import FULL, Pair, named, parameters, torch


@named
def test_what_is_put_into_the_state_holds(name):
    def act(model, opt):
        train_network(model, opt, 3)
        param = model[0].weight
        for key, value in list(opt.state[param].items()):
            if key != "step":
                opt.state[param][key] = torch.full_like(value, 0.01)
        train_network(model, opt, 1)
        opt.state[model[2].weight] = {key: value.clone() for key, value in opt.state[param].items()}
        for key, value in opt.state[model[2].weight].items():
            if key != "step":
                opt.state[model[2].weight][key] = torch.full_like(model[2].weight, float(value.abs().max()))
        train_network(model, opt, 1)
        if name not in ("Adagrad", "RMSprop"):
            opt.state.pop(model[0].bias)
            train_network(model, opt, 1)
            opt.state = defaultdict(dict)
            train_network(model, opt, 2)

    assert_same_weights(*train_with_both(name, act))


def test_a_count_may_be_a_plain_number():
    weight = torch.nn.Parameter(torch.ones(3))
    opt = lrcore.torch.Adam([weight])
    weight.grad = torch.ones(3)
    opt.step()
    opt.state[weight]["step"] = 41
    opt.step()
    assert opt.state[weight]["step"].item() == 42
    assert opt.state[weight]["step"].dtype == torch.float32


def test_the_state_is_one_object_from_the_first():
    opt = lrcore.torch.Adam([vector()])
    held = opt.state
    take_step(opt)
    assert held is opt.state
    assert len(held) == 1


def test_states_may_be_exchanged():
    def act(library):
        param = vector()
        opt = library.Adam([param])
        take_step(opt)
        first, second = opt.state, defaultdict(dict)
        for number in range(6):
            opt.state = (second, first)[number % 2]
            take_step(opt, number)
            second = opt.state if number % 2 == 0 else second
        return param.detach(), [float(state[param]["step"]) for state in (first, second)]

    assert_libraries_agree(act)


def test_two_optimizers_may_share_a_state():
    param = vector()
    first, second = lrcore.torch.Adam([param]), lrcore.torch.Adam([param])
    take_step(first)
    second.state = first.state
    take_step(second)
    assert first.state[param]["step"] == 2
    del first.state[param]
    take_step(second)
    take_step(first)
    assert first.state[param]["step"] == 2


@pytest.mark.parametrize("count", [float("inf"), float("nan"), -3.0])
def test_a_count_that_is_none_gives_no_nan(count):
    param = vector()
    opt = lrcore.torch.Adam([param])
    take_step(opt)
    opt.state[param]["step"].fill_(count)
    take_step(opt)
    assert param.isfinite().all()


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
    params = [vector(1.0, 2.0), vector(1.0, 2.0)]
    opt = lrcore.torch.Adam(params, lr=0.1)
    take_step(opt)
    take_step(opt)
    victim, other = reversed(params) if swapped else params
    count = torch.empty(0).set_(torch.full((1 << 18,), 2.0).untyped_storage(), 0, (), ())
    opt.state[victim]["step"] = count
    opt.state[other]["step"] = Moves(count, when)
    take_step(opt)
    guards = [torch.full((1 << 18,), 7.0) for _ in range(3)]
    gc.collect()
    take_step(opt)
    assert all((guard == 7.0).all() for guard in guards)
    assert [int(opt.state[param]["step"]) for param in params] in ([4, 4], [3, 4], [4, 3])


def test_an_average_that_is_made_anew_begins_with_the_weight():
    param = vector()
    opt = lrcore.torch.SGD([param], lr=0.1, average=lrcore.EMA(0.9))
    for _ in range(3):
        take_step(opt)
    del opt.state[param]["average"]
    take_step(opt)
    torch.testing.assert_close(opt.state[param]["average"], param.detach())


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
