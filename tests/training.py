"""A few parameters, and gradients for them at every step: some parameters have none."""

import numpy as np

from cases import same

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
