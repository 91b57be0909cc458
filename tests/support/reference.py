"""A whole step in plain NumPy: the readable specification, matched by the engine bit for bit.

``move`` adds to the reference function of a rule, which is in the optimizer's declaration, what all rules have in
common: ascent, weight decay, and the flushing of subnormal state.
"""

import math
from fractions import Fraction

import numpy as np

from lrcore.optim import OPTIMIZERS

DECLARATIONS = {rule: optimizer._declaration for optimizer in OPTIMIZERS for rule in optimizer._declaration.rules}


def initial_state(rule, count, w, hyperparameters):
    """The state arrays before the first step."""
    initial = DECLARATIONS[rule].initial
    return [np.full_like(w, hyperparameters[initial] if initial else 0.0) for _ in range(count)]


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


def exponent(x):
    """The exponent of the largest power of two that is not larger."""
    return math.frexp(x)[1] - 1


def norm_of(magnitudes, norm_type):
    """The norm of float64 magnitudes, and the sum that it is made of."""
    if norm_type == math.inf:
        most = float(max((np.max(g, initial=0.0) for g in magnitudes), default=0.0))
        return most, most
    total = 0.0
    with np.errstate(all="ignore"):
        for g in magnitudes:
            for unit in lanes(g * g if norm_type == 2 else g):
                total += float(unit)
    return math.sqrt(total) if norm_type == 2 else total, total


def grad_norm(grads, norm_type=2.0, scale=1.0):
    """The norm of all gradients together, each multiplied by a factor in its own dtype and then summed in float64.

    Where that overflows or loses digits, the largest element is brought to about 1 before, and the factor comes after.
    """
    with np.errstate(all="ignore"):
        scaled = [
            np.abs((g * g.dtype.type(float(scale))).astype(np.float64)) if len(factors(scale, g.dtype)) == 1
            else np.abs(g.astype(np.float64) * (float(scale) if scale < Fraction(2) ** 1024 else math.inf))
            for g in grads
        ]  # fmt: skip
    norm, total = norm_of(scaled, norm_type)
    has_wide = any(g.dtype == np.float64 for g in grads)
    is_certain = math.isfinite(total) and (norm_type != 2 or not has_wide or total >= 1e-280)
    if is_certain and (scale == 0 or len(factors(scale, np.dtype(np.float64))) == 1):
        return norm
    wide = [np.abs(g.astype(np.float64)) for g in grads]
    most, _ = norm_of(wide, math.inf)
    if most == 0.0 or not math.isfinite(most):
        return most
    shift = max(exponent(most), -1000)
    norm, _ = norm_of([g * 2.0**-shift for g in wide], norm_type)
    exact = Fraction(norm) * Fraction(2) ** shift * Fraction(scale)
    return float(exact) if exact < Fraction(2) ** 1024 else math.inf


def factors(factor, dtype):
    """What a gradient is multiplied by, one after the other: two numbers where the dtype has no such one."""
    F, limits = dtype.type, np.finfo(dtype)
    most = limits.maxexp - 1
    with np.errstate(all="ignore"):
        whole = F(float(factor)) if abs(factor) < Fraction(2) ** 1024 else F(math.inf)
    if factor == 0 or limits.tiny <= abs(whole) <= limits.max:
        return [whole]
    if abs(factor) < 1:
        return [F(float(Fraction(factor) * Fraction(2) ** (most - 1))), F(2.0 ** (1 - most))]
    return [F(2.0**most), F(float(Fraction(factor) / Fraction(2) ** most))]


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
        for one in factors(-factor if maximize else factor, w.dtype):
            g = g * one
        if clip_value is not None:
            g = clamp(g, -clip_value, clip_value)
        if weight_decay and decay == "coupled":
            g = g + F(weight_decay) * w
        old = w
        if weight_decay and decay == "decoupled":
            w = w * F(1 - lr * weight_decay)
        if weight_decay and decay == "independent":
            w = w * F(1 - weight_decay * (lr / peak))
        w, state = DECLARATIONS[rule].rules[rule](w, g, state, t, **hyperparameters)
        if weight_decay and decay == "cautious":
            w = np.where((old - w) * old >= 0, w - F(weight_decay * lr) * old, w)
        if bounds is not None:
            w = clamp(w, *bounds)
        least = DECLARATIONS[rule].floors(len(state), w.dtype, **hyperparameters)
        return w, [np.where(np.abs(s) < one, F(0), s) for s, one in zip(state, least, strict=True)]
