"""Training that several tests do: a few parameters of which some have no gradient, and large ones for many threads."""

import numpy as np

import lrcore
from support.cases import same

LARGE = 1 << 20  # elements: many chunks, and worth waking threads for
PATIENCE = 60.0  # seconds until something is taken to hang

KEYS = ["w", "b", "frozen", "late"]
SHAPES = {"w": (5, 7), "b": (7,), "frozen": (2,), "late": ()}


def parameters(dtype=np.float64, order=KEYS):
    rng = np.random.default_rng(7)
    values = {key: np.asarray(rng.standard_normal(SHAPES[key])).astype(dtype) for key in KEYS}
    return {key: values[key] for key in order}


def gradients(k, dtype=np.float64):
    """Those of step k: one parameter never has one, another only from step 2 on."""
    rng = np.random.default_rng(k)
    grads = {key: np.asarray(rng.standard_normal(SHAPES[key])).astype(dtype) for key in KEYS}
    return {**grads, "frozen": None, "late": grads["late"] if k >= 2 else None}


def run(opt, steps, dtype=np.float64):
    for k in steps:
        opt.step(gradients(k, dtype))


def assert_alike(params, opt, other_params, other):
    """Both hold the same: parameters by name, state, counts and hyperparameters."""
    assert all(same(params[key], other_params[key]) for key in KEYS)
    saved, others = opt.state_dict(), other.state_dict()
    assert saved["state"].keys() == others["state"].keys()
    for name, state in saved["state"].items():
        assert state["step"] == others["state"][name]["step"]
        assert state.keys() == others["state"][name].keys()
        assert all(same(state[key], others["state"][name][key]) for key in state if key != "step")
    assert (opt.steps, opt.lr) == (other.steps, other.lr)
    assert [group.hyperparameters for group in opt.param_groups] == [g.hyperparameters for g in other.param_groups]


def train(steps=3, seed=0, sizes=(LARGE, 3, 1000)):
    """Weights after some steps."""
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal(size).astype(np.float32) for size in sizes]
    grads = [rng.standard_normal(size).astype(np.float32) for size in sizes]
    opt = lrcore.AdamW(weights, lr=0.1)
    for _ in range(steps):
        opt.step(grads)
    return np.concatenate(weights)
