"""Everything that a step may change, as values that can be compared before and after."""

from collections.abc import Mapping

import numpy as np


def leaves(structure):
    """The arrays of a structure, in order."""
    if isinstance(structure, np.ndarray):
        return [structure]
    entries = structure.values() if isinstance(structure, Mapping) else structure
    return [array for entry in entries for array in leaves(entry)]


def bits(array):
    """What an array is and holds."""
    return array.shape, array.dtype.str, np.asarray(array).tobytes()


def snapshot(opt, *arrays):
    """Step counts, state and hyperparameters of an optimizer, and whatever arrays: its weights, gradients, buffers."""
    counts = {name: saved["step"] for name, saved in opt.state_dict()["state"].items()}
    state = {name: {key: bits(array) for key, array in arrays.items()} for name, arrays in opt.state.items()}
    groups = [dict(group.hyperparameters) for group in opt.param_groups]
    return opt.steps, opt.lr, counts, state, groups, [bits(array) for array in arrays]
