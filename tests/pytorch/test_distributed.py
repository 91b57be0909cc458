"""Norms and skipped steps of several processes together."""

import functools
import math
import multiprocessing
import pickle
import traceback
import warnings

import pytest

import lrcore
from lrcore.torch.distributed import norm_of
from support.optimizer_pairs import drop_ins, torch

dist = pytest.importorskip("torch.distributed")
if not dist.is_available() or "fork" not in multiprocessing.get_all_start_methods():
    pytest.skip("torch.distributed and fork are needed", allow_module_level=True)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.optim import ZeroRedundancyOptimizer

GRADS = [[3.0, 0.0], [0.0, 4.0], [12.0]]


def parts(rank):
    """The first process has two parameters, the second one."""
    grads = GRADS[:2] if rank == 0 else GRADS[2:]
    params = [torch.nn.Parameter(torch.zeros(len(grad))) for grad in grads]
    for param, grad in zip(params, grads, strict=True):
        param.grad = torch.tensor(grad)
    return params


def of_norms(rank):
    for norm_type, norm in ((1, 19.0), (2, 13.0), (math.inf, 12.0)):
        params = parts(rank)
        opt = drop_ins.SGD(params, lr=1.0, clip_norm=norm / 2, norm_type=norm_type, process_group="world")
        opt.step()
        assert opt.info.grad_norm == norm
        torch.testing.assert_close(params[-1].data, -params[-1].grad / 2)
        if rank == 1:  # one without gradients takes part
            params[0].grad = None
        opt.step()
        assert opt.info.grad_norm == {1: 7.0, 2: 5.0, math.inf: 4.0}[norm_type]


def of_skips(rank):
    params = parts(rank)
    opt = drop_ins.Adam(params, lr=1.0, skip_nonfinite=True, max_skips=2, process_group=dist.group.WORLD)
    if rank == 1:
        params[0].grad[0] = torch.nan
    opt.step()
    assert (opt.info.applied, opt.skipped, opt.steps) == (False, 1, 0)
    assert all((param == 0.0).all() for param in params)
    message = r"^2 steps in a row were skipped: rank 1 of process_group: the gradient of '0.0' is nan at index \(0,\)$"
    with pytest.raises(FloatingPointError, match=message):
        opt.step()
    with pytest.raises(TypeError, match="can't be pickled"):
        pickle.dumps(opt)
    if rank == 1:
        params[0].grad[0] = 1.0
    opt.step()
    assert opt.info.applied
    opt.found_inf = torch.tensor(float(rank))  # as a GradScaler sets it
    opt.step()
    assert not opt.info.applied


def of_errors(rank):
    params = parts(rank)
    opt = drop_ins.SGD(params, lr=1.0, clip_norm=1.0, process_group="world")
    if rank == 0:
        opt.param_groups[0]["lr"] = -1.0
        with pytest.raises(ValueError, match="lr must be in"):
            opt.step()
        opt.param_groups[0]["lr"] = 1.0
    else:
        with pytest.raises(RuntimeError, match=r"^the step failed in the process of rank 0 of process_group"):
            opt.step()
    assert all((param == 0.0).all() for param in params)
    opt.step()
    assert opt.info.grad_norm == 13.0


def of_zero(_):
    model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False), torch.nn.Linear(1, 3, bias=False))
    make = lambda **given: ZeroRedundancyOptimizer(model.parameters(), optimizer_class=drop_ins.SGD, lr=1.0, **given)  # noqa: E731
    for given in ({"clip_norm": 1.0}, {"skip_nonfinite": True}):
        with pytest.raises(ValueError, match=r"^SGD is made by ZeroRedundancyOptimizer: .*need process_group="):
            make(**given)
    kind = functools.partial(drop_ins.SGD, clip_norm=1.0, process_group="world")
    opt = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=kind, lr=1.0)
    before = [param.detach().clone() for param in model.parameters()]
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    opt.step()
    assert opt.optim.info.grad_norm == pytest.approx(math.sqrt(5))
    moved = torch.cat([(one - param).flatten() for one, param in zip(before, model.parameters(), strict=True)])
    assert float(moved.norm()) == pytest.approx(1.0, rel=1e-5)


def of_fsdp(rank):
    for original in (True, False):
        torch.manual_seed(0)
        model = FullyShardedDataParallel(torch.nn.Linear(4, 2), device_id=torch.device("cpu"), use_orig_params=original)
        with pytest.raises(ValueError, match=r"are shards of FSDP: .*need process_group="):
            drop_ins.SGD(model.parameters(), lr=1.0, clip_norm=1.0)
        opt = drop_ins.SGD(model.parameters(), lr=1.0, clip_norm=1e-3, process_group="world")
        model(torch.ones(3, 4)).sum().backward()
        opt.step()
        assert opt.info.grad_norm == pytest.approx(math.sqrt(8 * 9 + 2 * 9))


def of_rank(rank, folder, checks, queue):
    try:
        dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", 2), rank=rank, world_size=2)
        for check in checks:
            check(rank)
        dist.barrier()
        dist.destroy_process_group()
        queue.put(None)
    except BaseException:
        queue.put(traceback.format_exc())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_two_processes_agree(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    checks = [of_norms, of_skips, of_errors, of_zero, of_fsdp]
    ranks = [context.Process(target=of_rank, args=(rank, tmp_path, checks, queue), daemon=True) for rank in range(2)]
    for process in ranks:
        process.start()
    try:
        for _ in ranks:
            fault = queue.get(timeout=120)
            assert fault is None, fault
    finally:
        for process in ranks:
            process.kill()
            process.join()


@pytest.mark.parametrize("norm_type", [1, 2, math.inf])
def test_the_norm_of_parts(norm_type):
    parts = [3.0, 0.0, 4.0]
    assert norm_of(parts, norm_type) == {1: 7.0, 2: 5.0, math.inf: 4.0}[norm_type]
    assert norm_of([0.1 + 0.2], norm_type) == 0.1 + 0.2
    assert norm_of([0.0], norm_type) == 0.0
    assert math.isnan(norm_of([1.0, math.nan, math.inf], norm_type))
    assert norm_of([1.0, math.inf], norm_type) == math.inf
    assert norm_of([3e300, 4e300], norm_type) == {1: 7e300, 2: 5e300, math.inf: 4e300}[norm_type]


def test_arguments_that_mean_nothing_are_errors():
    param = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match=r"^process_group needs clip_norm or skip_nonfinite"):
        drop_ins.SGD([param], process_group="world")
    with pytest.raises(ValueError, match=r"^process_group needs torch.distributed.init_process_group"):
        drop_ins.SGD([param], clip_norm=1.0, process_group="world")
    assert not lrcore.SGD.__init__.__signature__.parameters.keys() & {"process_group"}
