"""The drop-ins compute lrcore's numbers, to the bit, and PyTorch's, over checkpoints that go back and forth."""

import io

import numpy as np
import pytest

import lrcore

torch = pytest.importorskip("torch", minversion="2.10")

import lrcore.torch  # noqa: E402
from support.cases import FORMS  # noqa: E402
from support.counterparts import counterpart, for_loop  # noqa: E402

SHAPES = [(7, 5), (5,), (), (0, 3), (3, 4, 5, 6), (1000,)]
cases = pytest.mark.parametrize(
    ("name", "arguments"), [(case.optimizer.__name__, case.arguments) for case in FORMS], ids=map(str, FORMS)
)


def values(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]


def parameters(dtype=np.float64):
    return [torch.nn.Parameter(torch.tensor(value)) for value in values(0, dtype)]


def step(optimizer, params, seed, dtype=np.float64):
    for param, grad in zip(params, values(seed, dtype), strict=True):
        param.grad = torch.tensor(grad)
    optimizer.step()


@cases
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tensors_move_as_arrays_do_to_the_bit(name, arguments, dtype):
    params, arrays = parameters(dtype), values(0, dtype)
    ours, plain = getattr(lrcore.torch, name)(params, **arguments), getattr(lrcore, name)(arrays, **arguments)
    for seed in range(1, 8):
        step(ours, params, seed, dtype)
        plain.step(values(seed, dtype))
    for i, (param, array) in enumerate(zip(params, arrays, strict=True)):
        assert param.detach().numpy().tobytes() == array.tobytes()
        for key, held in plain.state.get(str(i), {}).items():
            assert ours.state[param][key].numpy().tobytes() == held.tobytes()


@cases
def test_a_checkpoint_goes_from_torch_to_lrcore_and_back(name, arguments):
    """Ten steps each, as a program would go on: saved, loaded with ``weights_only``, taken up by another optimizer."""

    def saved(optimizer):
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        return torch.load(file, weights_only=True)

    torchs, ours = counterpart(name), getattr(lrcore.torch, name)
    form = for_loop(name)
    expected, params = parameters(), parameters()
    whole = torchs(expected, **arguments, **form)
    for seed in range(1, 31):
        step(whole, expected, seed)
    state = None
    for first, (make, flags) in zip((1, 11, 21), ((torchs, form), (ours, {}), (torchs, form)), strict=True):
        part = make(params, **arguments, **flags)
        if state is not None:
            part.load_state_dict(state)
        for seed in range(first, first + 10):
            step(part, params, seed)
        state = saved(part)
    for param, other in zip(params, expected, strict=True):
        scale = max(float(other.detach().abs().max()) if other.numel() else 0.0, 1e-300)
        assert not param.numel() or float((param - other).detach().abs().max()) <= 1e-12 * scale
    assert state["param_groups"] == whole.state_dict()["param_groups"]
    for key, entry in whole.state_dict()["state"].items():
        assert entry.keys() == state["state"][key].keys()
        assert entry.get("step") == state["state"][key].get("step")


LAYOUTS = {
    "channels last": ((8, 4, 3, 3), torch.float32, lambda base: base.to(memory_format=torch.channels_last)),
    "transposed": ((6, 9), torch.float32, lambda base: base.T),
    "sliced": ((20, 30), torch.float32, lambda base: base[3:11, 5:25:2]),
    "offset": ((100,), torch.float32, lambda base: base[7:50]),
    "complex": ((5, 5), torch.complex64, lambda base: base),
    "complex and sliced": ((4, 6), torch.complex128, lambda base: base.T[1:, ::2]),
}


@pytest.mark.parametrize(("shape", "dtype", "view"), LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("grad_like", ["weight", "contiguous"])
@cases
def test_any_strides_give_the_numbers_of_torch(name, arguments, shape, dtype, view, grad_like):
    sides = []
    for kind, flags in ((counterpart(name), for_loop(name)), (getattr(lrcore.torch, name), {})):
        torch.manual_seed(0)
        param = torch.nn.Parameter(view(torch.randn(shape, dtype=dtype)))
        optimizer = kind([param], **arguments, **flags)
        for _ in range(5):
            grad = torch.randn(param.shape, dtype=dtype)
            param.grad = torch.empty_like(param).copy_(grad) if grad_like == "weight" else grad
            optimizer.step()
        sides.append(param.detach())
    expected, found = sides
    # RMSprop subtracts nearly equal squares where it is centered.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5 if arguments.get("centered") else 1e-6)


def test_counts_go_on_where_float32_ends():
    (weight,) = [torch.nn.Parameter(torch.ones(3))]
    opt = lrcore.torch.Adam([weight])
    weight.grad = torch.ones(3)
    opt.step()
    opt.state[weight]["step"].fill_(2.0**24 - 1)
    for count in (2**24, 2**24 + 1, 2**24 + 2):
        opt.step()
        assert opt.state[weight]["step"].item() == count


def test_default_dtype_of_counts_is_that_of_torch():
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    opt = lrcore.torch.Adam([weight])
    opt.step()
    assert opt.state[weight]["step"].dtype == torch.float32
    assert opt.state[weight]["step"].shape == ()
