"""Each rule in plain NumPy: the readable specification, matched by the engine bit for bit.

A rule takes weight, gradient, its state arrays in order, the parameter's step number ``t`` from 1, and its
hyperparameters; it returns the new weight and state. What depends on the step alone is computed in Python floats and
then rounded to the dtype of the arrays, once. ``move`` adds what every rule has in common: ascent, weight decay, and
the flushing of subnormal state.
"""

import math
from fractions import Fraction

import numpy as np


def lerp(a, b, weight):
    """``a + weight (b - a)``, from the nearer end."""
    if abs(weight) < 0.5:
        return a + a.dtype.type(weight) * (b - a)
    return b - (b - a) * a.dtype.type(1 - weight)


def power(base, exponent):
    """``base ** exponent``, correctly rounded."""
    return float(Fraction(base) ** exponent)


def sgd(w, g, state, t, *, lr):
    return w - w.dtype.type(lr) * g, state


def sgd_momentum(w, g, state, t, *, lr, momentum, dampening, nesterov=False):
    F = w.dtype.type
    (b,) = state
    b = g if t == 1 else F(momentum) * b + F(1 - dampening) * g
    direction = g + F(momentum) * b if nesterov else b
    return w - F(lr) * direction, [b]


def sgd_nesterov(w, g, state, t, **hyperparameters):
    return sgd_momentum(w, g, state, t, nesterov=True, **hyperparameters)


def adam(w, g, state, t, *, lr, beta1, beta2, eps):
    F = w.dtype.type
    m, v, *largest = state
    m = lerp(m, g, 1 - beta1)
    v = v * F(beta2) + (F(1 - beta2) * g) * g
    largest = [np.maximum(largest[0], v)] if largest else []
    root = np.sqrt(largest[0] if largest else v)
    denominator = root * F(1 / math.sqrt(1 - power(beta2, t))) + F(eps)
    return w - (F(lr / (1 - power(beta1, t))) * m) / denominator, [m, v, *largest]


adam_amsgrad = adam


def rmsprop(w, g, state, t, *, lr, alpha, eps, momentum, centered=False):
    F = w.dtype.type
    s, *rest = state
    s = F(alpha) * s + (F(1 - alpha) * g) * g
    variance, after = s, [s]
    if centered:
        mean = lerp(rest.pop(0), g, 1 - alpha)
        variance = np.where(s - mean * mean < 0, F(0), s - mean * mean)
        after.append(mean)
    a = np.sqrt(variance) + F(eps)
    if not rest:
        return w - (F(lr) * g) / a, after
    b = F(momentum) * rest[0] + g / a
    return w - F(lr) * b, [*after, b]


rmsprop_momentum = rmsprop


def rmsprop_centered(w, g, state, t, **hyperparameters):
    return rmsprop(w, g, state, t, centered=True, **hyperparameters)


rmsprop_centered_momentum = rmsprop_centered


def adagrad(w, g, state, t, *, lr, lr_decay, eps, initial_accumulator_value):
    F = w.dtype.type
    (total,) = state
    total = total + g * g
    return w - (F(lr / (1 + (t - 1) * lr_decay)) * g) / (np.sqrt(total) + F(eps)), [total]


INITIAL = {"adagrad": lambda hyperparameters: hyperparameters["initial_accumulator_value"]}


def initial_state(rule, count, w, hyperparameters):
    """The state arrays before the first step."""
    value = INITIAL.get(rule, lambda _: 0.0)(hyperparameters)
    return [np.full_like(w, value) for _ in range(count)]


def clamp(x, low, high):
    """The nearest number from low to high; NaN stays."""
    F = x.dtype.type
    return np.where(x > F(high), F(high), np.where(x < F(low), F(low), x))


def lanes(values):
    """The sum of each unit of 4096: element i in lane i mod 32, the lanes then added pairwise."""
    padded = np.zeros(-(-values.size // 4096) * 4096)
    padded[: values.size] = values.ravel()
    sums = np.zeros((padded.size // 4096, 32))
    for block in padded.reshape(-1, 128, 32).transpose(1, 0, 2):
        sums = sums + block
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    return sums[:, 0]


def grad_norm(grads, norm_type=2.0, scale=1.0):
    """The norm of all gradients together, each multiplied by a factor in its own dtype and then summed in float64."""
    scaled = [np.abs((g * g.dtype.type(scale)).astype(np.float64)) for g in grads]
    if norm_type == math.inf:
        return float(max((np.max(g, initial=0.0) for g in scaled), default=0.0))
    total = 0.0
    for g in scaled:
        for unit in lanes(g * g if norm_type == 2 else g):
            total += float(unit)
    return math.sqrt(total) if norm_type == 2 else total


def weighted_sum(batches, weights):
    """The sum of micro-batches, each multiplied by its weight, and what it is divided by to be their mean."""
    total, divisor = np.zeros_like(batches[0]), 0.0
    for batch, weight in zip(batches, weights, strict=True):
        total, divisor = total + batch * batch.dtype.type(weight), divisor + weight
    return total, divisor


def clip_coefficient(norm, clip_norm):
    return min(1.0, clip_norm / (norm + 1e-6))


def move(
    rule, w, g, state, t, hyperparameters, *, lr, weight_decay=0.0, decay="coupled", maximize=False,
    factor=1.0, clip_value=None, bounds=None, peak=None,
):  # fmt: skip
    """One whole step of a parameter: the new weight and state. Gradients are first multiplied by a factor."""
    F = w.dtype.type
    with np.errstate(all="ignore"):
        g = g * F(-factor if maximize else factor)
        if clip_value is not None:
            g = clamp(g, -clip_value, clip_value)
        if weight_decay and decay == "coupled":
            g = g + F(weight_decay) * w
        old = w
        if weight_decay and decay == "decoupled":
            w = w * F(1 - lr * weight_decay)
        if weight_decay and decay == "independent":
            w = w * F(1 - weight_decay * (lr / peak))
        w, state = globals()[rule](w, g, state, t, **hyperparameters)
        if weight_decay and decay == "cautious":
            w = np.where((old - w) * old >= 0, w - F(weight_decay * lr) * old, w)
        if bounds is not None:
            w = clamp(w, *bounds)
        tiny = np.finfo(w.dtype).tiny
        return w, [np.where(np.abs(s) < tiny, F(0), s) for s in state]
