"""Several threads, and forked processes."""

import gc
import os
import sys
import threading

import pytest

import lrcore
from support.networks import take_step
from support.optimizer_pairs import torch


def test_threads_may_step_optimizers_of_their_own():
    def train():
        param = torch.nn.Parameter(torch.zeros(100_000))
        opt = lrcore.torch.SGD([param], lr=1.0)
        for _ in range(20):
            take_step(opt)
        results.append(param[0].item())

    results = []
    threads = [threading.Thread(target=train) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert results == [-20.0] * 4


@pytest.fixture
def restless():
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_threads_may_take_turns_with_one_optimizer(restless):
    for _ in range(10):
        params = [torch.nn.Parameter(torch.zeros(4_000)) for _ in range(4)]
        opt = lrcore.torch.SGD(params, lr=1.0, momentum=0.5)
        for param in params:
            param.grad = torch.ones(4_000)
        threads = [threading.Thread(target=lambda opt=opt: [opt.step() for _ in range(10)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert opt.steps == 40
        assert len(opt.state) == 4
        assert all(torch.equal(param, params[0]) for param in params)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_goes_on_alone():
    weight = torch.nn.Parameter(torch.ones(1 << 20))
    opt = lrcore.torch.SGD([weight], lr=0.5)
    weight.grad = torch.ones(1 << 20)
    opt.step()
    child = os.fork()
    if child == 0:
        opt.step()
        os._exit(0 if weight.detach().numpy().max() == 0.0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert weight[0].item() == 0.5
