"""The table of cases: every optimizer at its corners, and the arrays that all of them are tried on."""

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from lrcore import schedules
from lrcore.optim import OPTIMIZERS
from lrcore.optim.declaration import RULES
from lrcore.schedules import Schedule

each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer.__name__)


@dataclass(frozen=True)
class Case:
    """An optimizer at one corner of its hyperparameters, and the rule that it then is."""

    optimizer: type
    rule: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self):
        arguments = ",".join(f"{key}={value}" for key, value in self.arguments.items())
        return f"{self.optimizer.__name__}({arguments})"

    def make(self, params):
        return self.optimizer(params, **self.arguments)


def _scheduled(optimizer):
    """Yields the cases of an optimizer with schedules, which no declaration has."""
    given = [{"lr": schedules.Cosine(0.1, steps=9).warmup(3), "weight_decay": 0.5}]
    if "momentum" in optimizer._declaration.hyperparameters:
        given.append({"lr": 0.1, "momentum": schedules.Linear(0.0, 0.9, steps=3)})
    for arguments in given:
        (group,) = optimizer(np.zeros(1), **arguments).param_groups
        yield optimizer._rule(group), arguments


CASES = [
    Case(optimizer, rule, dict(arguments))
    for optimizer in OPTIMIZERS
    for rule, arguments in (*optimizer._declaration.cases, *_scheduled(optimizer))
]


# Those without schedules.
PLAIN = [case for case in CASES if not any(isinstance(value, Schedule) for value in case.arguments.values())]


def _full(optimizer):
    """The arguments of the case with the most state; of several the one with the most arguments."""
    cases = [case for case in PLAIN if case.optimizer is optimizer]
    case = max(cases, key=lambda case: (len(RULES[case.rule][1]), len(case.arguments)))
    return {**case.arguments, "lr": 0.1, "weight_decay": 0.1, "maximize": False}


# The first of each rule of each optimizer.
FORMS = list({(case.optimizer, case.rule): case for case in reversed(PLAIN)}.values())[::-1]
# Arguments with which an optimizer has all the state that it can have, by its name.
FULL = {optimizer.__name__: _full(optimizer) for optimizer in OPTIMIZERS}
NAMES = list(FULL)

DTYPES = [np.dtype(np.float32), np.dtype(np.float64)]

LANES = 32  # elements to a block of the inner loop
TILE = 512  # elements to a tile of the stages
CHUNK = 65536  # elements to the largest chunk that a thread takes

# An emulator is far slower. There the longest arrays are left out (`tools/cross.sh` sets the bound): they
# try how work is divided among threads, not an instruction set. Everywhere else all are tried.
LONGEST = int(os.environ.get("LRCORE_TEST_LONGEST", 4 * CHUNK))

LENGTHS = [
    0, 1, 2, 3, 7, LANES - 1, LANES, LANES + 1, 2 * LANES - 1, 100, TILE - 1, TILE, TILE + 1,
    4095, 4096, 4097, CHUNK // 2 - 1, CHUNK // 2 + 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 17,
]  # fmt: skip
LENGTHS = [length for length in LENGTHS if length <= LONGEST]

THREADS = [1, 2, 3, 7]


def special(dtype):
    """Values at which arithmetic goes wrong."""
    limits = np.finfo(dtype)
    tiny, least, huge = limits.tiny, limits.smallest_subnormal, limits.max
    values = [0.0, 1.0, 1e-3, tiny, tiny * 0.5, least, huge, huge**0.5, tiny**0.5, limits.eps, np.inf, np.nan]
    return np.array([sign * value for value in values for sign in (1.0, -1.0)], dtype)


def gradients(rng, length, dtype, step):
    """Gradients of a step, of many magnitudes."""
    return (rng.standard_normal(length) * 10.0 ** rng.integers(-4, 3) * (1.0 + step)).astype(dtype)


def misaligned(values, offset):
    """A copy that begins at an odd address."""
    buffer = bytearray(values.nbytes + offset)
    array = np.frombuffer(buffer, values.dtype, len(values), offset)
    array[:] = values
    return array


def same(a, b):
    """Whether arrays have the same bits, or NaN in the same places."""
    unsigned = {4: np.uint32, 8: np.uint64}[a.dtype.itemsize]
    bits = np.ascontiguousarray(a).view(unsigned) == np.ascontiguousarray(b).view(unsigned)
    return bool(np.all(bits | (np.isnan(a) & np.isnan(b))))
