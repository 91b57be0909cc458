"""Runs that are saved and go on through what keeps state and groups alone: the bits of the uninterrupted run."""

import copy
import functools
import io
import json
import warnings

import pytest

import lrcore
from lrcore import schedules
from support.optimizer_pairs import drop_ins, torch
from support.snapshot import bits

dist = pytest.importorskip("torch.distributed")

pytestmark = pytest.mark.slow
if not dist.is_available():
    pytest.skip("PyTorch without torch.distributed", allow_module_level=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # PyTorch's own, of what it imports
    from torch.distributed import checkpoint as dcp
    from torch.distributed.checkpoint import state_dict as dsd
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.optim import ZeroRedundancyOptimizer

KEY = "lrcore_state"


@pytest.fixture(scope="module", autouse=True)
def alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


SGD, Adam = drop_ins.SGD, drop_ins.Adam
RATE = schedules.Cosine(0.1, steps=12).warmup(3)
CONFIGURATIONS = {
    "schedule": functools.partial(Adam, lr=RATE),
    "schedule, no state": functools.partial(SGD, lr=RATE),
    "momentum and decay": functools.partial(
        SGD, lr=0.1, momentum=schedules.Linear(0.5, 0.9, steps=9), weight_decay=RATE
    ),
    "plateau": functools.partial(Adam, lr=RATE * schedules.ReduceOnPlateau(0.5, patience=0)),
    "SWA": functools.partial(Adam, lr=0.1, average=lrcore.SWA(start=7, every=2)),
    "SWA, no state": functools.partial(SGD, lr=RATE, average=lrcore.SWA(start=2, every=3)),
    "EMA": functools.partial(Adam, lr=0.1, average=lrcore.EMA(0.9, warmup=True)),
    "skips": functools.partial(Adam, lr=0.1, skip_nonfinite=True, max_skips=3),
    "clip_norm": functools.partial(SGD, lr=0.1, clip_norm=schedules.Linear(2.0, 0.01, steps=9)),
}
# A drop-in whose state is made with it.
CONFIGURATIONS["SWA, state from the start"] = functools.partial(
    drop_ins.Adagrad, lr=0.1, average=lrcore.SWA(start=2, every=2)
)
STEPS = 10


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))


def run(model, opt, steps, inner=None):
    """Take steps; one gradient of a few is not finite where steps may be skipped, and every second loss is reported."""
    own = opt if inner is None else inner
    for step in steps:
        rng = torch.Generator().manual_seed(step)
        inputs = torch.randn(5, 3, generator=rng)
        opt.zero_grad()
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        loss.backward()
        if "skip_nonfinite" in own._options and step in (3, 4, 8):
            next(model.parameters()).grad[..., 0] = torch.nan
        opt.step()
        if step % 2 and any(group.schedules for group in own._groups) and "Plateau" in repr(own._scheduled):
            own.report(1.0 if step < 2 else 2.0)
        opt.zero_grad()


def told(model, opt):
    """What must be the same: weights, state, groups, counts."""
    saved = opt.state_dict()
    saved["state"] = {key: state for key, state in saved["state"].items() if state}  # PyTorch leaves empty ones
    texts = [json.loads(group.pop(KEY)) for group in saved["param_groups"]]
    saved["progress"] = [{key: text[key] for key in ("steps", "skipped", "reports")} for text in texts]
    own = {"averages": opt.average if "average" in opt._options else {}, "steps": opt.steps, "skipped": opt.skipped}
    return bits({**saved, **own, "weights": list(model.parameters())})


def by_torch(saved_model, saved_opt, model, opt, _):
    file = io.BytesIO()
    torch.save(saved_opt.state_dict(), file)
    file.seek(0)
    opt.load_state_dict(torch.load(file, weights_only=True))
    model.load_state_dict(saved_model.state_dict())


def by_parts(saved_model, saved_opt, model, opt, _):
    saved = copy.deepcopy(saved_opt.state_dict())
    opt.load_state_dict({"state": saved["state"], "param_groups": saved["param_groups"]})
    model.load_state_dict(saved_model.state_dict())


def by_dsd(saved_model, saved_opt, model, opt, _, **options):
    options = dsd.StateDictOptions(**options)
    saved = copy.deepcopy(dsd.get_state_dict(saved_model, saved_opt, options=options))
    dsd.set_state_dict(model, opt, model_state_dict=saved[0], optim_state_dict=saved[1], options=options)


def by_dcp(saved_model, saved_opt, model, opt, folder, *, flatten=False):
    options = dsd.StateDictOptions(flatten_optimizer_state_dict=flatten)
    dcp.save(
        dict(zip(("model", "optim"), dsd.get_state_dict(saved_model, saved_opt, options=options), strict=True)),
        checkpoint_id=folder,
    )
    read = dict(zip(("model", "optim"), dsd.get_state_dict(model, opt, options=options), strict=True))
    dcp.load(read, checkpoint_id=folder)
    dsd.set_state_dict(model, opt, model_state_dict=read["model"], optim_state_dict=read["optim"], options=options)


CARRIERS = {
    "torch.save": by_torch,
    "state and groups": by_parts,
    "get and set": by_dsd,
    "flat": functools.partial(by_dsd, flatten_optimizer_state_dict=True),
    "full": functools.partial(by_dsd, full_state_dict=True),
    "dcp": by_dcp,
    "dcp, flat": functools.partial(by_dcp, flatten=True),
}


@functools.cache
def uninterrupted(configuration):
    model = network()
    opt = CONFIGURATIONS[configuration](model.parameters())
    run(model, opt, range(STEPS))
    return told(model, opt)


@pytest.mark.parametrize("carrier", CARRIERS.values(), ids=CARRIERS)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.filterwarnings("ignore")
def test_a_run_goes_on_with_the_same_bits(configuration, carrier, tmp_path):
    make = CONFIGURATIONS[configuration]
    if make.func is SGD and make.keywords.keys() <= {"lr", "clip_norm"} and carrier is CARRIERS["full"]:
        pytest.skip("PyTorch fails where there is no state")
    for split in (0, 5):
        first = network()
        opt = make(first.parameters())
        run(first, opt, range(split))
        again = network()
        other = make(again.parameters())
        carrier(first, opt, again, other, tmp_path / str(split))
        run(again, other, range(split, STEPS))
        if split:
            assert told(again, other) == uninterrupted(configuration)
        # What was saved goes on, too.
        run(first, opt, range(split, STEPS))
        if split:
            assert told(first, opt) == uninterrupted(configuration)


def fsdp(make, **options):
    model = FullyShardedDataParallel(network(), device_id=torch.device("cpu"), **options)
    return model, make(model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("original", [True, False])
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.filterwarnings("ignore")
def test_a_sharded_run_goes_on_with_the_same_bits(configuration, original):
    make = CONFIGURATIONS[configuration]
    whole = told(*trained_sharded(make, original, range(STEPS)))
    model, opt = trained_sharded(make, original, range(5))
    saved = copy.deepcopy(FullyShardedDataParallel.optim_state_dict(model, opt)), copy.deepcopy(model.state_dict())
    again, other = fsdp(make, use_orig_params=original)
    again.load_state_dict(saved[1])
    other.load_state_dict(FullyShardedDataParallel.optim_state_dict_to_load(again, other, saved[0]))
    run(again, other, range(5, STEPS))
    assert told(again, other) == whole


def trained_sharded(make, original, steps):
    model, opt = fsdp(make, use_orig_params=original)
    run(model, opt, steps)
    return model, opt


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.filterwarnings("ignore")
def test_a_run_of_zero_goes_on_with_the_same_bits(configuration):
    make = CONFIGURATIONS[configuration]

    def begun():
        model = network()
        return model, ZeroRedundancyOptimizer(model.parameters(), optimizer_class=make)

    model, opt = begun()
    run(model, opt, range(5), opt.optim)
    opt.consolidate_state_dict()
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    again, other = begun()
    other.load_state_dict(torch.load(file, weights_only=True))
    again.load_state_dict(model.state_dict())
    for one, its in ((model, opt), (again, other)):
        run(one, its, range(5, STEPS), its.optim)
        assert told(one, its.optim) == uninterrupted(configuration)


@pytest.mark.filterwarnings("error:.*the keys of a group are the program's:UserWarning")
def test_zero_gives_options_to_groups_and_optimizer_without_a_warning():
    model = network()
    opt = ZeroRedundancyOptimizer(
        model.parameters(), optimizer_class=Adam, lr=0.1, average=lrcore.EMA(0.5), clip_value=1.0, clip_norm=1.0
    )
    run(model, opt, range(2), opt.optim)
    assert len(opt.optim.average) == 4
