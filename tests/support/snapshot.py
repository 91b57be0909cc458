"""Everything that a step may change, as values that can be compared before and after."""

from collections.abc import Mapping

import numpy as np


def leaves(structure):
    """The arrays of a structure, in order."""
    if isinstance(structure, np.ndarray):
        return [structure]
    entries = structure.values() if isinstance(structure, Mapping) else structure
    return [array for entry in entries for array in leaves(entry)]


def bits(value):
    """What an array or a tensor is and holds, and so for what contains some; any other value as its type and repr."""
    if isinstance(value, Mapping):
        return {key: bits(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [bits(part) for part in value]
    if hasattr(value, "detach"):
        value = value.detach().numpy()
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return array.shape, array.dtype.str, array.tobytes()
    return type(value), repr(value)


def snapshot(opt, *arrays):
    """Step counts, state and hyperparameters of an optimizer, and whatever arrays: its weights, gradients, buffers."""
    counts = {name: saved["step"] for name, saved in opt.state_dict()["state"].items()}
    state = bits(opt.state)
    groups = [dict(group.hyperparameters) for group in opt.param_groups]
    return opt.steps, opt.lr, counts, state, groups, bits(arrays)
