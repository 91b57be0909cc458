"""Containers may run code while they are read; changes to arrays, structure or optimizer there are safe."""

from collections.abc import Mapping

import numpy as np
import pytest

import lrcore
from support.snapshot import snapshot


class Meddling(Mapping):
    """Gradients whose lookup changes the parameters."""

    def __init__(self, grads, meddle):
        self.grads, self.meddle = grads, meddle

    def __getitem__(self, key):
        self.meddle(key)
        return self.grads[key]

    def __iter__(self):
        return iter(self.grads)

    def __len__(self):
        return len(self.grads)


MEDDLING = {
    "resizes": lambda params, _: params["a"].resize(1 << 16, refcheck=False),
    "empties": lambda params, _: params["a"].resize(0, refcheck=False),
    "frees": lambda params, _: params.update(a=np.ones(6)),
    "removes all": lambda params, _: params.clear(),
    "adds": lambda params, _: params.update({str(k): np.ones(6) for k in range(100)}),
    "steps": lambda _, opt: opt.step({"a": np.ones(6), "b": np.ones(6)}),
    "adds a group": lambda _, opt: opt.add_param_group({"params": np.ones(3)}),
    "loads": lambda _, opt: opt.load_state_dict(opt.state_dict()),
    "resizes state": lambda _, opt: opt.state["a"]["exp_avg"].resize(1 << 16, refcheck=False),
    "edits": lambda _, opt: opt.param_groups[0].update(amsgrad=True, lr=0.5),
}


@pytest.mark.parametrize("steps_before", [0, 1])
@pytest.mark.parametrize("meddle", MEDDLING.values(), ids=MEDDLING)
def test_gradients_that_change_things_while_they_are_read_are_safe(meddle, steps_before):
    """The step uses the final arrays or is refused; the optimizer works afterwards."""
    params = {"a": np.ones(6), "b": np.ones(6)}
    opt = lrcore.Adam(params)
    for _ in range(steps_before):
        opt.step({"a": np.ones(6), "b": np.ones(6)})

    def once(key):
        if key == "b":
            meddle(params, opt)

    try:
        opt.step(Meddling({"a": np.ones(6), "b": np.ones(6)}, once))
    except (ValueError, RuntimeError, KeyError):
        steps = steps_before
    else:
        steps = steps_before + 1
    assert opt.steps == steps
    assert all(np.isfinite(array).all() for array in params.values())


@pytest.mark.parametrize("lookups", [0, 1])
@pytest.mark.parametrize("exception", [KeyboardInterrupt, MemoryError, ValueError])
def test_an_exception_of_a_lookup_propagates_and_changes_nothing(exception, lookups):
    """A first step may look up twice: before and after state is created."""
    weight, seen = np.ones(6), []
    opt = lrcore.Adam({"w": weight})

    def interrupt(key):
        seen.append(key)
        if len(seen) > lookups:
            raise exception

    before = snapshot(opt, weight)
    try:
        opt.step(Meddling({"w": np.ones(6)}, interrupt))
    except exception:
        assert snapshot(opt, weight) == before
    else:
        assert lookups == opt.steps == 1
