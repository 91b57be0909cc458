"""Whatever saves an optimizer carries every field of its state, to the bit.

The tests go through the declared fields: a state is exported, every value in it is changed, and it is imported, saved,
loaded and compared. A new field needs no change here. Components that exist in these tests alone, with a field of each
kind and arrays that are not like the weights, show that no carrier has a list of its own.
"""

import copy
import pickle
import warnings

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from lrcore.finder import restore
from lrcore.optim import state as states
from lrcore.optim.state import Component, Field, OptimizerState, export_state, fields, import_state
from support.cases import FULL
from support.snapshot import bits

PLATEAU = schedules.Constant(0.1) * schedules.ReduceOnPlateau(0.5, patience=0)


def attribute(name, kind, initial):
    """A component of one field, which the optimizer has as an attribute."""

    def export(opt):
        return {name: getattr(opt, f"_{name}", initial)}

    def restore(opt, values):
        setattr(opt, f"_{name}", values.get(name, initial))

    return Component({name: Field(kind, is_like_weight=False)}, export, restore)


NEW = [
    attribute("new_scalar", "scalars", 7),
    attribute("new_array", "arrays", np.arange(6, dtype=np.int8).reshape(2, 3)),
    attribute("new_param_scalar", "param_scalars", {"w": 0.25, "b": 3}),
    attribute("new_param_array", "param_arrays", {"w": np.arange(3, dtype=np.uint16), "b": np.zeros((2, 1, 4), "f2")}),
]


@pytest.fixture(params=[False, True], ids=["declared", "new"])
def _components(request, monkeypatch):
    """The components that there are, or these and new ones."""
    if request.param:
        monkeypatch.setattr(states, "COMPONENTS", [*states.COMPONENTS, *NEW])


def parameters():
    return {"w": np.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": np.zeros(5, np.float32), "f": np.ones((2, 3), order="F")}


def make(params, optimizer=lrcore.AdamW):
    """An optimizer with all that has a state."""
    groups = [{"params": {"w": params["w"], "f": params["f"]}, "name": "first"}, {"params": {"b": params["b"]}}]
    return optimizer(
        groups,
        lr=PLATEAU,
        clip_norm=PLATEAU,
        skip_nonfinite=True,
        average=lrcore.EMA(0.9),
        noise_scale=lrcore.NoiseScale(batch=4),
    )


def used(optimizer=lrcore.AdamW):
    opt = make(parameters(), optimizer)
    rng = np.random.default_rng(0)

    def grads():
        return [
            {"w": rng.standard_normal((2, 3)), "f": rng.standard_normal((2, 3))},
            {"b": rng.standard_normal(5).astype(np.float32)},
        ]

    for _ in range(3):
        opt.accumulate(grads())
        opt.accumulate(grads())
        opt.step()
        opt.report(1.0)
    opt.step([{"w": np.full((2, 3), np.nan), "f": None}, {"b": None}])
    opt.accumulate(grads())
    return opt


def changed(value):
    """A value of the same kind that differs from it, in every part."""
    if isinstance(value, np.ndarray):
        bits = np.arange(7, 7 + value.nbytes, dtype=np.uint8) % 60
        return np.ascontiguousarray(bits).view(value.dtype).reshape(value.shape)
    if isinstance(value, dict):
        return {key: changed(part) if key not in KEPT else part for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(changed, value))
    if isinstance(value, bool | str | schedules.Schedule) or value is None:
        return value
    return value + 1 if isinstance(value, int) else 0.75 * value


# What says where a tracker belongs, and settings that are also attributes.
KEPT = {"group", "name", "part", "schedule", "batch", "smoothing"}


def with_changes(state):
    return OptimizerState(
        state.optimizer,
        [group._replace(hyperparameters={**group.hyperparameters, "eps": 1e-5}) for group in state.groups],
        *(changed(values) for values in (state.scalars, state.arrays, state.param_scalars, state.param_arrays)),
    )


def everything(opt):
    return bits(vars(export_state(opt)))


def by_state_dict(opt, folder):
    del folder
    other = make(parameters())
    other.load_state_dict(pickle.loads(pickle.dumps(opt.state_dict())))  # noqa: S301
    return other


def by_checkpoint(opt, folder):
    lrcore.save(folder, opt)
    other = make(parameters())
    lrcore.load(folder, other)
    return other


def by_estimator(opt, folder):
    del folder
    sklearn = pytest.importorskip("lrcore.sklearn")
    return pickle.loads(pickle.dumps(sklearn._PickledOptimizer(opt))).restored()  # noqa: S301


CARRIERS = {
    "state dict": by_state_dict,
    "pickle": lambda opt, _: pickle.loads(pickle.dumps(opt)),  # noqa: S301
    "deepcopy": lambda opt, _: copy.deepcopy(opt),
    "checkpoint": by_checkpoint,
    "scikit-learn": by_estimator,
}


@pytest.mark.usefixtures("_components")
@pytest.mark.parametrize("optimizer", lrcore.optim.OPTIMIZERS, ids=lambda one: one.__name__)
def test_the_optimizers_of_this_test_have_every_field(optimizer):
    """But for the state arrays of other rules."""
    state = export_state(used(optimizer))
    rules = optimizer._declaration.rules
    arrays = {name for rule in rules for name in states.RULES[rule][1]}
    others = {name for _, names in states.RULES.values() for name in names} - arrays
    found = {*state.scalars, *state.arrays, *state.param_scalars, *state.param_arrays}
    assert found - arrays == fields().keys() - others - arrays


@pytest.mark.usefixtures("_components")
@pytest.mark.parametrize("carrier", CARRIERS)
def test_every_field_is_carried_to_the_bit(carrier, tmp_path):
    opt = used()
    before = export_state(opt)
    after = with_changes(before)
    for kind in ("scalars", "arrays", "param_scalars", "param_arrays"):
        for name, value in getattr(before, kind).items():
            assert bits(value) != bits(getattr(after, kind)[name]), name
    import_state(opt, after)
    expected = everything(opt)
    assert expected == bits(vars(after))
    other = CARRIERS[carrier](opt, tmp_path)
    assert everything(other) == expected
    assert everything(opt) == expected


@pytest.mark.usefixtures("_components")
def test_a_range_test_puts_every_field_back_into_its_arrays():
    opt = used()
    opt.discard_accumulated()
    expected, arrays = everything(opt), list(export_state(opt).all_arrays())
    with restore.preserved(opt):
        import_state(opt, with_changes(export_state(opt)))
        for array in arrays:
            array[...] = 1
        assert everything(opt) != expected
    assert everything(opt) == expected
    assert all(one is other for one, other in zip(arrays, export_state(opt).all_arrays(), strict=True))


class TestTensors:
    """The drop-ins keep the state of parameters in PyTorch's mappings, and that of the optimizer in their groups."""

    @pytest.fixture
    def torch(self):
        torch = pytest.importorskip("torch")
        pytest.importorskip("lrcore.torch")
        return torch

    def make(self, torch):
        params = [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.zeros(4))]
        for param in params:
            param.grad = torch.ones_like(param)
        return lrcore.torch.AdamW(params, lr=PLATEAU, skip_nonfinite=True, average=lrcore.EMA(0.9))

    def loaded(self, torch, opt):
        other = self.make(torch)
        other.load_state_dict(copy.deepcopy(opt.state_dict()))
        return other

    def everything(self, opt):
        state = opt._ready().export_state()
        tensors = [{name: value.numpy() for name, value in one.items()} for one in opt.state.values()]
        return bits([state.scalars, state.arrays, tensors, opt.steps])

    def test_every_field_of_a_parameter_is_in_the_mappings(self, torch):
        """A new one has to be kept there, where PyTorch saves it. Sums of micro-batches are in ``.grad``."""
        kept = set()
        for name, arguments in FULL.items():
            param = torch.nn.Parameter(torch.ones(2))
            param.grad = torch.ones(2)
            opt = getattr(lrcore.torch, name)([param], average=lrcore.EMA(0.9), **arguments)
            opt.step()
            kept |= opt.state[param].keys()
        of_params = {name for name, one in fields().items() if one.kind.startswith("param")}
        assert kept == {name for name in of_params if not name.startswith("accumulated.")}

    @pytest.mark.usefixtures("_components")
    @pytest.mark.parametrize("carrier", ["state dict", "pickle", "deepcopy", "another step", "range test"])
    def test_every_field_is_carried_to_the_bit(self, carrier, torch):
        opt = self.make(torch)
        for _ in range(3):
            opt.step()
            opt.report(1.0)
        state = with_changes(opt._ready().export_state())
        opt._ready().import_state(state)
        opt._write_progress()
        for tensors in opt.state.values():
            for name, tensor in tensors.items():
                if name not in ("step", "averaged"):
                    tensor.copy_(torch.from_numpy(changed(tensor.numpy())))
        expected = self.everything(opt)
        if carrier == "state dict":
            assert self.everything(self.loaded(torch, opt)) == expected
        elif carrier in ("pickle", "deepcopy"):
            other = pickle.loads(pickle.dumps(opt)) if carrier == "pickle" else copy.deepcopy(opt)  # noqa: S301
            assert self.everything(other) == expected
        elif carrier == "range test":
            progress = opt.progress()
            opt._ready().import_state(with_changes(opt._ready().export_state()))
            opt.restore_progress(progress)
            assert self.everything(opt) == expected
        else:
            # A new group has another engine made, which goes on from the state of the one before.
            opt.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
            before, now = state.scalars, opt._ready().export_state().scalars
            assert {**before, "reports": bits(now["reports"][:1])} == {**now, "reports": bits(before["reports"])}


def test_a_state_that_was_saved_without_a_field_leaves_it_at_its_start(monkeypatch, tmp_path):
    opt = used()
    saved = opt.state_dict()
    lrcore.save(tmp_path, opt)
    monkeypatch.setattr(states, "COMPONENTS", [*states.COMPONENTS, NEW[0]])
    for load in (lambda other: other.load_state_dict(saved), lambda other: lrcore.load(tmp_path, other)):
        other = make(parameters())
        other._new_scalar = 99
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load(other)
        assert other._new_scalar == 7
