"""A hyperparameter that is turned off for some steps: its state is kept and used again later."""

import copy
import pickle
import tempfile

import numpy as np
import pytest

import lrcore
from support.cases import same

# Class, hyperparameters, and the edits that turn a hyperparameter off.
TOGGLES = {
    "sgd": (lrcore.SGD, {"lr": 0.1, "momentum": 0.9}, {"momentum": 0.0}),
    "dampened": (lrcore.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}, {"momentum": 0.0}),
    "nesterov": (lrcore.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, {"momentum": 0.0, "nesterov": False}),
    "adam": (lrcore.Adam, {"lr": 0.1, "amsgrad": True}, {"amsgrad": False}),
}
TOGGLES |= {
    "adamw": (lrcore.AdamW, {"lr": 0.1, "amsgrad": True}, {"amsgrad": False}),
    "centered": (lrcore.RMSprop, {"lr": 0.1, "centered": True, "momentum": 0.9}, {"centered": False}),
    "rmsprop": (lrcore.RMSprop, {"lr": 0.1, "centered": True, "momentum": 0.9}, {"momentum": 0.0}),
    "both": (lrcore.RMSprop, {"lr": 0.1, "centered": True, "momentum": 0.9}, {"centered": False, "momentum": 0.0}),
}
ON_AND_OFF = (True, True, False, False, True, False, True, True)


def gradients():
    rng = np.random.default_rng(0)
    return [10.0 ** rng.integers(-2, 2) * rng.standard_normal(7) for _ in ON_AND_OFF]


def edit(group, on, hyperparameters, off):
    group.update({name: hyperparameters[name] for name in off} if on else off)


def through_state_dict(opt):
    other = type(opt)({"w": opt.params["w"].copy()})
    other.load_state_dict(opt.state_dict())
    return other


def through_checkpoint(opt):
    other = type(opt)({"w": np.zeros(7)})
    with tempfile.TemporaryDirectory() as folder:
        lrcore.load(lrcore.save(folder, opt), other)
    return other


def through_pickle(opt):
    return pickle.loads(pickle.dumps(opt))  # noqa: S301


WAYS = [lambda opt: opt, through_state_dict, through_checkpoint, through_pickle, copy.deepcopy]


@pytest.mark.parametrize("way", WAYS, ids=["on", "state_dict", "checkpoint", "pickle", "copy"])
@pytest.mark.parametrize("toggle", TOGGLES.values(), ids=TOGGLES)
def test_unused_state_is_kept_as_in_pytorch(toggle, way):
    torch = pytest.importorskip("torch")
    cls, hyperparameters, off = toggle
    opt = cls({"w": np.ones(7)}, **hyperparameters)
    tensor = torch.ones(7, dtype=torch.float64, requires_grad=True)
    theirs = getattr(torch.optim, cls.__name__)([tensor], foreach=False, **hyperparameters)
    for on, grad in zip(ON_AND_OFF, gradients(), strict=True):
        edit(opt.param_groups[0], on, hyperparameters, off)
        edit(theirs.param_groups[0], on, hyperparameters, off)
        opt.step({"w": grad})
        tensor.grad = torch.from_numpy(grad)
        theirs.step()
        state = {name: array for name, array in theirs.state[tensor].items() if name != "step"}
        assert opt.state["w"].keys() == state.keys()
        for name, array in state.items():
            assert np.allclose(opt.state["w"][name], array.numpy(), rtol=1e-13, atol=1e-15)
        assert np.allclose(opt.params["w"], tensor.detach().numpy(), rtol=1e-13, atol=1e-15)
        opt = way(opt)


@pytest.mark.parametrize("toggle", TOGGLES.values(), ids=TOGGLES)
def test_the_drop_in_has_the_same_bits(toggle):
    torch, engine = pytest.importorskip("torch"), pytest.importorskip("lrcore.torch")
    cls, hyperparameters, off = toggle
    opt = cls({"w": np.ones(7)}, **hyperparameters)
    tensor = torch.ones(7, dtype=torch.float64, requires_grad=True)
    other = getattr(engine, cls.__name__)([tensor], **hyperparameters)
    for on, grad in zip(ON_AND_OFF, gradients(), strict=True):
        edit(opt.param_groups[0], on, hyperparameters, off)
        edit(other.param_groups[0], on, hyperparameters, off)
        opt.step({"w": grad})
        tensor.grad = torch.from_numpy(grad)
        other.step()
        if cls is not lrcore.AdamW:  # the group of PyTorch's class has another default of the decay's form
            assert same(opt.params["w"], tensor.detach().numpy())


def test_a_new_buffer_starts_with_its_first_gradient():
    """Momentum that is turned on late: the buffer has not been updated yet."""
    opt = lrcore.SGD({"w": np.zeros(1)}, lr=1.0, dampening=0.5)
    opt.step({"w": np.ones(1)})
    opt.param_groups[0]["momentum"] = 0.9
    opt.step({"w": np.ones(1)})
    assert opt.state["w"]["momentum_buffer"].tolist() == [1.0]


def test_state_of_another_class_is_not_kept():
    """In a non-strict load: state that the class never uses would be saved for ever and refused by a strict load."""
    opt = lrcore.SGD({"w": np.zeros(1)}, lr=1.0, momentum=0.9)
    opt.step({"w": np.ones(1)})
    other = lrcore.Adam({"w": np.zeros(1)})
    other.load_state_dict(opt.state_dict(), strict=False)
    other.step({"w": np.ones(1)})
    assert sorted(other.state["w"]) == ["exp_avg", "exp_avg_sq"]
    lrcore.Adam({"w": np.zeros(1)}).load_state_dict(other.state_dict())
