"""The table of cases: every optimizer at its corners, and the arrays that all of them are tried on."""

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import lrcore
from lrcore import schedules


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


CASES = [
    Case(lrcore.SGD, "sgd"),
    Case(lrcore.SGD, "sgd", {"lr": 0.1, "weight_decay": 0.01}),
    Case(lrcore.SGD, "sgd", {"lr": 0.1, "maximize": True, "weight_decay": 0.5}),
    Case(lrcore.SGD, "sgd", {"lr": 0.0}),
    Case(lrcore.SGD, "sgd_momentum", {"lr": 0.1, "momentum": 0.9}),
    Case(lrcore.SGD, "sgd_momentum", {"lr": 0.1, "momentum": 0.5, "dampening": 0.3, "weight_decay": 0.1}),
    Case(lrcore.SGD, "sgd_momentum", {"lr": 0.1, "momentum": 0.9, "dampening": 1.0, "maximize": True}),
    Case(lrcore.SGD, "sgd_momentum", {"lr": 0.1, "momentum": schedules.Linear(0.0, 0.9, steps=3)}),
    Case(lrcore.SGD, "sgd_nesterov", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}),
    Case(lrcore.Adam, "adam"),
    Case(lrcore.Adam, "adam", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
    Case(lrcore.Adam, "adam", {"lr": 0.1, "betas": (0.0, 0.0), "eps": 0.0}),
    Case(lrcore.Adam, "adam", {"lr": 0.1, "betas": (0.3, 0.5), "eps": 1e-3}),
    Case(lrcore.Adam, "adam", {"lr": 0.1, "betas": (0.5, 0.9999999), "eps": 1e-30}),
    Case(lrcore.Adam, "adam_amsgrad", {"lr": 0.1, "amsgrad": True, "weight_decay": 0.1}),
    Case(lrcore.AdamW, "adam"),
    Case(lrcore.AdamW, "adam", {"lr": schedules.Cosine(0.1, steps=9).warmup(3), "weight_decay": 0.5}),
    Case(lrcore.AdamW, "adam_amsgrad", {"lr": 0.1, "amsgrad": True, "maximize": True}),
    Case(lrcore.RMSprop, "rmsprop"),
    Case(lrcore.RMSprop, "rmsprop", {"lr": 0.1, "alpha": 0.3, "eps": 0.0, "weight_decay": 0.1, "maximize": True}),
    Case(lrcore.RMSprop, "rmsprop", {"lr": 0.1, "alpha": 1.0}),
    Case(lrcore.RMSprop, "rmsprop_momentum", {"lr": 0.1, "momentum": 0.9}),
    Case(lrcore.RMSprop, "rmsprop_centered", {"lr": 0.1, "centered": True, "weight_decay": 0.1}),
    Case(lrcore.RMSprop, "rmsprop_centered_momentum", {"lr": 0.1, "centered": True, "momentum": 0.5, "alpha": 0.5}),
    Case(lrcore.Adagrad, "adagrad"),
    Case(lrcore.Adagrad, "adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "maximize": True}),
    Case(lrcore.Adagrad, "adagrad", {"lr": 0.1, "initial_accumulator_value": 0.5, "eps": 0.0}),
]

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
