"""Counts of steps that a program keeps are written where they lie."""

import copy

import pytest

torch = pytest.importorskip("torch", minversion="2.10")

import lrcore  # noqa: E402
import lrcore.torch  # noqa: E402
from support.cases import NAMES  # noqa: E402

KINDS = {
    "as PyTorch's": lambda: torch.tensor(0.0),
    "of one element": lambda: torch.zeros(1),
    "of two axes": lambda: torch.zeros(1, 1),
    "float64": lambda: torch.zeros(1, dtype=torch.float64),
    "int64": lambda: torch.zeros(1, dtype=torch.int64),
    "int32": lambda: torch.tensor(0, dtype=torch.int32),
    "shared memory": lambda: torch.zeros(1).share_memory_(),
    "a view": lambda: torch.zeros(5)[2:3],
    "a strided view": lambda: torch.zeros(5, 3)[2:3, 1],
}


def step(opt, value):
    for group in opt.param_groups:
        for param in group["params"]:
            param.grad = torch.full_like(param, value)
    opt.step()


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", [name for name in NAMES if getattr(lrcore.torch, name)._counts_steps])
def test_a_count_keeps_its_identity_shape_and_dtype(make, name):
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    opt, other = (getattr(lrcore.torch, name)([param], lr=0.1) for param in params)
    step(opt, 1.0)
    step(other, 1.0)
    count = make() + 1 if not make().is_shared() else make().add_(1)
    opt.state[params[0]]["step"] = count
    before = count.shape, count.dtype, count.data_ptr()
    for number in range(2, 5):
        step(opt, float(number))
        step(other, float(number))
        held = opt.state[params[0]]["step"]
        assert held is count
        assert (held.shape, held.dtype, held.data_ptr()) == before
        assert held.item() == number
    assert torch.equal(*params)
    count.fill_(8)
    other.state[params[1]]["step"].fill_(8)
    step(opt, 1.0)
    step(other, 1.0)
    assert count.item() == 9
    assert torch.equal(*params)
    twin = copy.deepcopy(opt)
    (held,) = (state["step"] for state in twin.state.values())
    assert (held.shape, held.dtype) == (count.shape, count.dtype)


def test_counts_of_averages_are_kept_too():
    param = torch.nn.Parameter(torch.ones(3))
    opt = lrcore.torch.SGD([param], lr=0.1, average=lrcore.SWA())
    step(opt, 1.0)
    count = opt.state[param]["averaged"] = torch.ones(1, dtype=torch.int64)
    step(opt, 1.0)
    assert opt.state[param]["averaged"] is count
    assert count.tolist() == [2]


def test_a_count_of_several_numbers_is_an_error():
    param = torch.nn.Parameter(torch.ones(3))
    opt = lrcore.torch.Adam([param])
    step(opt, 1.0)
    before = param.detach().clone()
    opt.state[param]["step"] = torch.zeros(2)
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        step(opt, 1.0)
    assert torch.equal(param, before)
