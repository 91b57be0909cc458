"""Calls save, load and latest on damaged and crafted checkpoints.

Each file is a checkpoint with a change: in some bytes, in its length, or in a value of its header or description, which
gets another type or size. Most changed files get a valid checksum again, to test the checks after it. Each call must
succeed, or raise a clear error without changing anything, in bounded time and memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import signal
import sys
import tempfile
import warnings
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import numpy as np

import lrcore
from soak import campaign
from support.snapshot import snapshot

FILES = 20
SECONDS_FOR_A_FILE = 20
MEMORY = 1 << 30  # bytes beyond those that the process already uses
ALLOWED = (ValueError, TypeError, OSError)


def deep(levels: int) -> list[object]:
    nested: list[object] = []
    for _ in range(levels):
        nested = [nested]
    return nested


EVIL = [
    math.inf, -math.inf, math.nan, 0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5,
    1e308, True, False, None, "", "x", "\ud800", "\x00", "params/w", "extra/x", "9" * 50, [], {}, [[]], [0] * 1000,
    [2**62] * 64, [1] * 65, {"numbers": "extra/list"}, {"array": "extra/x"}, {"dict": [[1, 2]]}, {"tuple": 5},
    {"integer": "-f"}, {"schedule": "Constant", "version": 1, "arguments": {"value": 0.1}}, deep(50),
    deep(900), {"": {}},
]  # fmt: skip


def make() -> lrcore.AdamW:
    params = {"w": np.linspace(-1, 1, 6), "b": np.ones((2, 3), np.float32)}
    lr = lrcore.schedules.Cosine(0.1, steps=30).warmup(5) * lrcore.schedules.ReduceOnPlateau()
    opt = lrcore.AdamW(params, lr=lr, average=lrcore.EMA(0.9), noise_scale=lrcore.NoiseScale(batch=2))
    grads = {name: np.full_like(array, 0.5) for name, array in params.items()}
    for _ in range(2):
        opt.accumulate(grads)
        opt.accumulate(grads)
        opt.step()
    opt.accumulate(grads)
    opt.report(1.0)
    return opt


def places(value: object, depth: int = 100) -> list[tuple[object, object]]:
    """Every part of a value down to a depth, as a pair of its container and its key there."""
    if depth == 0:
        return []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: list[tuple[object, object]] = []
    for key, part in items:
        found += [(value, key), *places(part, depth - 1)]
    return found


def copied(value: object) -> object:
    """A copy of a JSON value, so that no value can be put into itself. `copy.deepcopy` exceeds the recursion limit."""
    return json.loads(json.dumps(value))


def change_a_value(value: object, rng: random.Random) -> None:
    within, key = rng.choice(places(value))
    match rng.randrange(6):
        case 0 if isinstance(within, dict):
            del within[key]
        case 1 if isinstance(within, dict):
            within[rng.choice(["x", "", "lrcore", "step", "__metadata__"])] = within.pop(key)
        case 2:
            other, name = rng.choice(places(value))
            within[key] = copied(other[name])
        case _:
            within[key] = copied(rng.choice(EVIL))


def parts_of(content: bytes) -> tuple[dict[str, object], dict[str, object], bytes]:
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    return header, json.loads(header["__metadata__"]["lrcore"]), content[end:]


def joined(header: dict[str, object], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def layout(entry: dict[str, object]) -> str:
    return json.dumps({**entry, "data_offsets": []}, separators=(",", ":"))[:-2]


def with_checksum(header: dict[str, object], data: bytes) -> None:
    """Set the checksum that a reader computes for these arrays and this description, if it gets that far."""
    try:
        arrays = sorted((name, entry) for name, entry in header.items() if name != "__metadata__")
        names = [name for name, _ in arrays]
        layouts = [[text, len(list(alike))] for text, alike in groupby(layout(entry) for _, entry in arrays)]
        digest = hashlib.sha256(json.dumps([header["__metadata__"]["lrcore"], layouts]).encode())
        digest.update(np.array([len(name) for name in names], "<i8").tobytes())
        digest.update("".join(names).encode(errors="surrogatepass"))
        for _, entry in arrays:
            digest.update(data[slice(*entry["data_offsets"])])
        header["__metadata__"]["lrcore.sha256"] = digest.hexdigest()
    except (KeyError, TypeError, ValueError, AttributeError):
        pass


def changed(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Return the kind of change, and the changed file."""
    kind = rng.choice(["bytes", "length", "header", "description", "description", "description"])
    if kind == "bytes":
        damaged = bytearray(content)
        for _ in range(rng.choice([1, 1, 8, 64])):
            damaged[rng.randrange(len(damaged) if rng.random() < 0.5 else 16)] = rng.randrange(256)
        return kind, bytes(damaged)
    if kind == "length":
        return kind, content[: rng.randrange(len(content))] + rng.randbytes(rng.choice([0, 0, 8, 1000]))
    header, description, data = parts_of(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        change_a_value(header if kind == "header" else description, rng)
    if kind == "description":
        header["__metadata__"]["lrcore"] = json.dumps(description)
    if rng.random() < 0.8:
        with_checksum(header, data)
    return kind, joined(header, data)


@contextmanager
def limits():
    """Limit the memory of the process, and make an alarm raise an error, where the system supports it."""
    try:
        import resource
    except ImportError:
        yield
        return

    def too_long(*_):
        raise AssertionError(f"took more than {SECONDS_FOR_A_FILE} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    handler = signal.signal(signal.SIGALRM, too_long)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, handler)


def tried(action, *given) -> str:
    """Return how an action ended: ``"success"`` or the name of an allowed error. Other errors are raised."""
    if hasattr(signal, "alarm"):
        signal.alarm(SECONDS_FOR_A_FILE)
    try:
        action(*given)
    except ALLOWED as error:
        return type(error).__name__
    return "success"


def trial(seed: int) -> int:
    """Try some files; return their number."""
    rng = random.Random(seed)  # noqa: S311
    opt, table = make(), [0.5 + i for i in range(100)]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), limits():
        warnings.simplefilter("ignore")
        good = lrcore.save(folder, opt, x=np.arange(4), list=table, deep={"a": [1, (2.5, b"x")]}, text="y" * 2000)
        content, before = good.read_bytes(), snapshot(opt, *opt.params.values())
        file = good.with_name("step-0000000009.safetensors")
        for _ in range(FILES):
            kind, damaged = changed(content, rng)
            file.write_bytes(damaged)
            try:
                if tried(lrcore.load, file, opt) == "success":
                    opt = make()  # the file may have set any values
                else:
                    assert snapshot(opt, *opt.params.values()) == before, "an error changed something"
                tried(lrcore.latest, folder)
                assert tried(lambda: lrcore.save(folder, make(), keep=2)) == "success"
                assert good.exists(), "a good checkpoint was deleted"
            except BaseException:
                kept = Path(tempfile.gettempdir()) / f"lrcore-soak-{seed}.safetensors"
                kept.write_bytes(damaged)
                print(f"seed {seed}: change of {kind}; the file is {kept}", file=sys.stderr)
                raise
    return FILES


if __name__ == "__main__":
    campaign.main(trial)
