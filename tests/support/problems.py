"""Trainings with known answers."""

import numpy as np


def quadratic(largest=4.0, condition=10.0, size=10, seed=0):
    """Parameters, and the loss and gradients of a quadratic whose largest curvature is known."""
    curvatures = np.geomspace(largest / condition, largest, size)
    params = {"w": np.random.default_rng(seed).standard_normal(size)}

    def loss_and_grads(params, noise=0.0):
        grads = curvatures * params["w"] + noise
        return 0.5 * float(curvatures @ params["w"] ** 2), {"w": grads}

    return params, loss_and_grads
