"""Random sequences of operations on an optimizer of NumPy arrays, each compared with a twin.

The twin is a deep copy made before each operation, so it has no state from earlier steps: no step plan to reuse and no
remembered addresses. After the operation both must hold the same bits, or both must have raised the same error without
changing anything.
"""

from __future__ import annotations

import copy
import gc
import pickle
import random
import tempfile
import threading
from pathlib import Path

import numpy as np

import lrcore
from lrcore.optim import OPTIMIZERS
from soak import campaign

OPERATIONS = 60
SHAPES = [(), (1,), (7,), (33,), (5, 3), (2, 3, 4), (300,), (5000,), (70, 90)]


class RefusedError(Exception):
    """An operation that both optimizers refused with the same message."""


def array(rng: random.Random, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Return random numbers in a random memory layout."""
    values = np.random.default_rng(rng.randrange(1 << 32)).standard_normal(shape).astype(dtype)
    layout = rng.choice(["C", "C", "C", "F", "strided", "reversed", "misaligned"])
    if layout == "F":
        return np.asfortranarray(values)
    if layout == "strided" and values.ndim:
        wide = np.zeros((*values.shape[:-1], 2 * values.shape[-1]), dtype)
        wide[..., ::2] = values
        return wide[..., ::2]
    if layout == "reversed" and values.ndim:
        return values[::-1].copy()[::-1]
    if layout == "misaligned" and values.size:
        moved = np.frombuffer(bytearray(values.nbytes + 3), dtype, values.size, 3).reshape(values.shape)
        moved[...] = values
        return moved
    return values


def make(rng: random.Random) -> lrcore.Optimizer:
    """Return an optimizer of a random class with random options and parameters."""
    dtype = rng.choice([np.float32, np.float64])
    params = {name: array(rng, rng.choice(SHAPES), dtype) for name in "abcd"[: rng.randint(1, 4)]}
    cls = rng.choice(OPTIMIZERS)
    options = {
        "clip_norm": rng.choice([None, None, 1.0, float("inf")]),
        "skip_nonfinite": rng.random() < 0.4,
        "average": rng.choice([None, lrcore.EMA(0.9), lrcore.SWA(start=2, every=2)]),
        "stats": rng.random() < 0.2,
        "zero_grads": rng.random() < 0.2,
        "no_decay": rng.choice([None, "a"]),
        "clip_value": rng.choice([None, 0.5]),
        "decay": rng.choice(["coupled", "decoupled", "cautious"]),
    }
    return cls(params, lr=rng.choice([0.1, lrcore.schedules.Cosine(0.1, steps=50)]), weight_decay=0.01, **options)


def weights(opt: lrcore.Optimizer) -> dict[str, np.ndarray]:
    """Return the parameters of all groups by their keys."""
    groups = [opt.params] if isinstance(opt.params, dict) else [group["params"] for group in opt.params]
    return {name: value for group in groups for name, value in group.items()}


def holder(opt: lrcore.Optimizer, name: str) -> dict[str, np.ndarray]:
    """Return the mapping that holds a parameter."""
    groups = [opt.params] if isinstance(opt.params, dict) else [group["params"] for group in opt.params]
    return next(group for group in groups if name in group)


def everything(opt: lrcore.Optimizer) -> list[tuple]:
    """Return all bits of an optimizer."""
    found = [("steps", opt.steps), ("skipped", opt.skipped)]
    found += [(name, value.shape, value.tobytes()) for name, value in sorted(weights(opt).items())]
    found += [(name, key, value.tobytes()) for name, state in sorted(opt.state.items()) for key, value in state.items()]
    return found


def gradients(rng: random.Random, opt: lrcore.Optimizer) -> dict[str, np.ndarray | None]:
    """Return gradients, some of them missing, non-finite or invalid."""
    grads: dict[str, np.ndarray | None] = {}
    for name, weight in weights(opt).items():
        grads[name] = None if rng.random() < 0.1 else array(rng, weight.shape, weight.dtype.type)
        if grads[name] is not None and grads[name].size and rng.random() < 0.05:
            grads[name].flat[rng.randrange(grads[name].size)] = rng.choice([np.nan, np.inf, -np.inf])
    if rng.random() < 0.05:
        name = rng.choice(list(grads))
        grads[name] = rng.choice([np.zeros((3, 9)), np.zeros(weights(opt)[name].shape, np.int32), "bad"])
    return grads


def step(rng: random.Random, both: list[lrcore.Optimizer]) -> None:
    """Step both with the same gradients."""
    grads, scale = gradients(rng, both[0]), rng.choice([1.0, 1.0, 2.0])
    same(both, lambda opt: opt.step(copy.deepcopy(grads), grad_scale=scale)[:3])


def accumulate(rng: random.Random, both: list[lrcore.Optimizer]) -> None:
    """Accumulate micro-batches, and step with their mean."""
    batches = [gradients(rng, both[0]) for _ in range(rng.randint(1, 3))]
    for grads in batches:
        same(both, lambda opt, grads=grads: opt.accumulate(copy.deepcopy(grads)))
    same(both, lambda opt: opt.step()[:3])


def edit(rng: random.Random, both: list[lrcore.Optimizer]) -> None:
    """Change a hyperparameter of a group, to a value that may be invalid."""
    group = rng.randrange(len(both[0].param_groups))
    known = both[0].param_groups[group]
    name = rng.choice([one for one in known if one not in ("params", "name")])
    value = {
        "betas": (0.8, 0.9),
        "momentum": rng.choice([0.0, 0.9]),
        "nesterov": rng.random() < 0.5,
        "amsgrad": rng.random() < 0.5,
        "centered": rng.random() < 0.5,
        "maximize": rng.random() < 0.5,
        "decay": rng.choice(["coupled", "decoupled", "independent", "cautious", "wrong"]),
        "clip_value": rng.choice([None, 0.1, -1.0]),
        "bounds": rng.choice([None, (-2.0, None), (3.0, 1.0)]),
        "zero_grads": rng.random() < 0.5,
    }.get(name, rng.choice([0.01, 0.5, -1.0, "x"]))
    same(both, lambda opt: opt.param_groups[group].__setitem__(name, value))


def replace(rng: random.Random, both: list[lrcore.Optimizer]) -> None:
    """Replace a parameter by another array: a copy, a view, or an array resized in place."""
    name, how = rng.choice(list(weights(both[0]))), rng.choice(["copy", "view", "resize", "read-only", "free"])
    for opt in both:
        params = holder(opt, name)
        if how == "copy":
            params[name] = params[name].copy()
        elif how == "view":
            params[name] = params[name][...]
        elif how == "free":
            params[name] = params[name].copy()
            gc.collect()
            np.full(params[name].size, 7.0, params[name].dtype)
        elif how == "read-only":
            params[name] = params[name].copy()
            params[name].flags.writeable = False
        else:
            params[name] = params[name].copy(order="C")
            shape, size = params[name].shape, params[name].size
            params[name].resize(2 * size + 1, refcheck=False)
            params[name].resize(shape, refcheck=False)
    if how == "read-only":
        try:
            step(rng, both)
        finally:
            for opt in both:
                holder(opt, name)[name].flags.writeable = True


def averages(rng: random.Random, both: list[lrcore.Optimizer]) -> None:
    """Read the weights while averages are swapped in."""
    del rng

    def read(opt: lrcore.Optimizer) -> list[bytes]:
        with opt.averaged():
            return [value.tobytes() for value in weights(opt).values()]

    same(both, read)


def go_on(rng: random.Random, both: list[lrcore.Optimizer]) -> None:
    """Save the first optimizer and resume from the saved state."""
    opt, how = both[0], rng.choice(["state dict", "pickle", "deepcopy", "file"])
    if how == "state dict":
        opt.load_state_dict(opt.state_dict())
    elif how == "pickle":
        both[0] = pickle.loads(pickle.dumps(opt))  # noqa: S301
    elif how == "deepcopy":
        both[0] = copy.deepcopy(opt)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = lrcore.save(Path(folder), opt)
            kept = everything(opt)
            for weight in weights(opt).values():
                weight[...] = 0
            lrcore.load(path, opt)
            assert everything(opt) == kept, "a checkpoint changed bits"


def grow(rng: random.Random, both: list[lrcore.Optimizer]) -> None:
    """Add a group."""
    if not (free := set("efgh") - weights(both[0]).keys()):
        return
    name = rng.choice(sorted(free))
    weight = array(rng, rng.choice(SHAPES), np.float64)
    same(both, lambda opt: opt.add_param_group({"params": {name: weight.copy()}, "lr": 0.2}))


def machine(rng: random.Random, both: list[lrcore.Optimizer]) -> None:
    """Change the number of threads and the SIMD level."""
    del both
    lrcore.set_num_threads(rng.randint(1, 3))
    lrcore.set_simd_level(rng.choice(lrcore.simd_levels()))


def thread(rng: random.Random, both: list[lrcore.Optimizer]) -> None:
    """Run a step in another thread while this one allocates and frees memory."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            step(rng, both)
        except BaseException as error:
            raised.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    while worker.is_alive():
        np.zeros(1000)
    worker.join()
    if raised:
        raise raised[0]


def same(both: list[lrcore.Optimizer], act) -> None:
    """Apply an action to both; they must return the same, or raise the same error and stay unchanged."""
    before = everything(both[0])
    outcomes = []
    for opt in both:
        try:
            outcomes.append((None, repr(act(opt))))
        except (TypeError, ValueError, RuntimeError, FloatingPointError) as error:
            outcomes.append((type(error), str(error)))
    assert outcomes[0] == outcomes[1], f"the optimizer and its twin disagree: {outcomes}"
    if outcomes[0][0] is not None:
        if outcomes[0][0] is not FloatingPointError:
            assert everything(both[0]) == before, f"changed something and raised {outcomes[0]}"
        raise RefusedError


ACTIONS = [*[step] * 12, *[accumulate] * 3, *[edit] * 4, *[replace] * 4, averages, *[go_on] * 2, grow, machine, thread]


def trial(seed: int) -> int:
    """Run a random sequence of operations; return their number."""
    rng = random.Random(seed)  # noqa: S311
    opt = make(rng)
    with np.errstate(all="ignore"):
        for _ in range(OPERATIONS):
            both = [opt, copy.deepcopy(opt)]
            action = rng.choice(ACTIONS)
            try:
                action(rng, both)
            except RefusedError:
                # If one micro-batch was refused, the others are still pending; drop them.
                if action is accumulate:
                    for one in both:
                        one.load_state_dict({**one.state_dict(), "accumulated": None})
            assert everything(both[0]) == everything(both[1]), f"{action.__name__}: the bits differ"
            opt = both[0]
    return OPERATIONS


if __name__ == "__main__":
    campaign.main(trial)
