"""Python code that runs in the middle of a step cannot make it access freed memory.

A failure is a crash or corrupts other objects, so each case runs in its own process.
"""

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("torch")

PATIENCE = 120.0  # seconds after which a process counts as hanging

PRELUDE = """
    import ctypes, gc, sys
    import numpy as np
    import torch
    import lrcore.torch

    def low(count):
        '''A tensor below 4 GiB, where memory that was freed is told from memory that is there.'''
        mmap = ctypes.CDLL(None, use_errno=True).mmap
        mmap.restype = ctypes.c_void_p
        mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        address = mmap(None, 4096, 3, 0x22 | 0x40, -1, 0)  # private, anonymous, 32 bits
        if address is None or address >= 1 << 32:
            sys.exit(77)
        return torch.from_numpy(np.frombuffer((ctypes.c_float * count).from_address(address), np.float32))

    calls, canaries = [], []

    def free(tensor):
        '''Give a tensor other memory, and have others lie where it lay.'''
        size = tensor.numel()
        tensor.data = torch.zeros_like(tensor)
        canaries.extend(torch.zeros(size) for _ in range(500))

    def step(opt, params):
        for param in params:
            param.grad = torch.ones_like(param)
        opt.step()

    def finish():
        assert all(not canary.any() for canary in canaries), "memory of others was written to"
        print("done", len(calls), len(canaries))
"""

CASES = {
    # A subclass whose method is called when the tensor's memory is located.
    "storage_offset": """
        class Sly(torch.Tensor):
            def storage_offset(self):
                calls.append(1)
                if armed:
                    free(victim)
                return super().storage_offset()

        armed = False
        victim = torch.ones(16, requires_grad=True)
        sly = low(16).as_subclass(Sly).requires_grad_()
        opt = lrcore.torch.SGD([victim, sly], lr=0.1, foreach=False)
        step(opt, [victim, sly])
        calls.clear()
        victim.grad, sly.grad, armed = torch.ones(16), torch.ones(16), True
        opt.step()
        armed = False
        assert not calls
        finish()
    """,
    # A TorchFunctionMode that intercepts every function.
    "mode": """
        class Mode(torch.overrides.TorchFunctionMode):
            def __torch_function__(self, function, types, args=(), kwargs=None):
                if "storage_offset" in getattr(function, "__name__", ""):
                    calls.append(1)
                    free(victim)
                return function(*args, **(kwargs or {}))

        victim = torch.ones(16, requires_grad=True)
        other = low(16).requires_grad_()
        opt = lrcore.torch.SGD([victim, other], lr=0.1, foreach=False)
        step(opt, [victim, other])
        victim.grad, other.grad = torch.ones(16), torch.ones(16)
        with Mode():
            opt.step()
        assert not calls
        finish()
    """,
    # A dictionary key whose comparison runs when counts are looked up.
    "key": """
        class Key:
            def __hash__(self):
                return hash("step")

            def __eq__(self, other):
                if armed and other == "step":
                    calls.append(1)
                    free(opt.state[first]["step"])
                return False

        armed = False
        first, second = (torch.ones(16, requires_grad=True) for _ in range(2))
        opt = lrcore.torch.Adam([first, second], lr=0.1, foreach=False)
        for _ in range(3):
            step(opt, [first, second])
        state, known = opt.state[second], dict(opt.state[second])
        state.clear()
        state[Key()] = 0
        state.update(known)
        for _ in range(2):
            step(opt, [first, second])
        first.grad, second.grad, armed = torch.ones(16), torch.ones(16), True
        opt.step()
        armed = False
        assert calls
        finish()
    """,
    # A metaclass whose attribute lookup runs for a new type of gradients.
    "metaclass": """
        class Meta(type(torch.Tensor)):
            def __getattribute__(cls, name):
                if name == "__torch_dispatch__" and armed:
                    calls.append(1)
                    free(victim)
                return super().__getattribute__(name)

        class Sly(torch.Tensor, metaclass=Meta):
            pass

        armed = False
        victim, other = (torch.ones(16, requires_grad=True) for _ in range(2))
        opt = lrcore.torch.SGD([victim, other], lr=0.1, foreach=False)
        for _ in range(2):
            step(opt, [victim, other])
        victim.grad = torch.ones(16)
        other.grad = torch.ones(16).as_subclass(Sly)
        armed = True
        opt.step()
        armed = False
        assert calls
        finish()
    """,
    # A gradient without other references, whose finalizer runs when it is dropped.
    "finalizer": """
        class Missed(torch.Tensor):
            def __del__(self):
                if armed:
                    calls.append(1)
                    free(opt.state[second]["step"])

        class Lazy(torch.Tensor):
            @property
            def grad(self):
                return torch.ones(16).as_subclass(Missed)

        armed = False
        first = torch.ones(16).as_subclass(Lazy).requires_grad_()
        second = torch.ones(16, requires_grad=True)
        opt = lrcore.torch.Adam([first, second], lr=0.1, foreach=False)
        for _ in range(4):
            second.grad = torch.ones(16)
            opt.step()
        armed = True
        opt.step()
        armed = False
        assert calls
        finish()
    """,
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_step_does_not_use_memory_that_python_code_freed(case):
    code = textwrap.dedent(PRELUDE) + textwrap.dedent(case)
    done = subprocess.run(  # noqa: S603 (it is this Python)
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    if done.returncode == 77:
        pytest.skip("no memory below 4 GiB")
    assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"
    assert done.stdout.startswith("done")
