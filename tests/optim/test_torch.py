"""PyTorch's numbers: its for-loop implementation is the independent oracle."""

import numpy as np
import pytest

from lrcore.optim.options import GROUP_OPTIONS
from support.cases import DTYPES, PLAIN

torch = pytest.importorskip("torch")
from support.counterparts import counterpart, for_loop  # noqa: E402

STEPS = 20
# In units in the last place of the weight's scale: the accumulated effect of a different rounding order.
ULPS = {np.dtype(np.float64): 16, np.dtype(np.float32): 32}


def run_torch(case, weight, grads):
    parameter = torch.nn.Parameter(torch.from_numpy(weight.copy()))
    factory = counterpart(case.optimizer.__name__)
    opt = factory([parameter], **case.arguments, **for_loop(factory.__name__))
    for grad in grads:
        parameter.grad = torch.from_numpy(grad.copy())
        opt.step()
    return parameter.detach().numpy(), opt.state[parameter]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_twenty_steps_agree_with_the_for_loop(case, dtype):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((37, 11)).astype(dtype)
    grads = [rng.standard_normal(weight.shape).astype(dtype) for _ in range(STEPS)]
    want, want_state = run_torch(case, weight, grads)
    moved = weight.copy()
    opt = case.make([moved])
    for grad in grads:
        opt.step([grad])
    scale = np.maximum(np.abs(weight), np.abs(want)).max()
    assert np.abs(moved - want).max() <= ULPS[dtype] * np.finfo(dtype).eps * scale
    for name, array in opt.state.get("0", {}).items():
        other = want_state[name].numpy()
        assert np.abs(array - other).max() <= ULPS[dtype] * np.finfo(dtype).eps * np.abs(other).max()


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_defaults_and_argument_names_equal_torchs(case):
    group = counterpart(case.optimizer.__name__)([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]
    ours = case.optimizer([np.zeros(1)]).param_groups[0].hyperparameters
    options = GROUP_OPTIONS.keys()
    assert {name: ours[name] for name in ours.keys() - options} == {name: group[name] for name in ours.keys() - options}


def test_a_parameter_without_gradients_keeps_its_own_step_count():
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(5) for _ in range(2)]
    parameters = [torch.nn.Parameter(torch.from_numpy(w.copy())) for w in weights]
    theirs = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, dampening=0.5, foreach=False)
    adams = torch.optim.Adam(parameters, lr=0.1, foreach=False)
    import lrcore

    ours = [lrcore.SGD(weights, lr=0.1, momentum=0.9, dampening=0.5), lrcore.Adam(weights, lr=0.1)]
    for step in range(10):
        grads = [rng.standard_normal(5), rng.standard_normal(5) if step % 3 == 2 else None]
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = None if grad is None else torch.from_numpy(grad.copy())
        theirs.step()
        ours[0].step(grads)
        adams.step()
        ours[1].step(grads)
    for parameter, weight in zip(parameters, weights, strict=True):
        np.testing.assert_allclose(weight, parameter.detach().numpy(), rtol=0, atol=16 * np.finfo(float).eps)
