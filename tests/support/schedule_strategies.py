"""Random schedules: every class that can be saved, and compositions of them."""

import os

from hypothesis import settings
from hypothesis import strategies as st

from lrcore import schedules
from lrcore.schedules import Repeated, Sequential, Warmup, WithCooldown

EXAMPLES = int(os.environ.get("LRCORE_TEST_EXAMPLES", "40"))
some = settings(max_examples=EXAMPLES, deadline=None)

values = st.floats(0.0, 1.0) | st.floats(0.0, 1e3) | st.sampled_from([0.0, 1.0, 3e-4])
positive = st.floats(1e-6, 1e3)
shares = st.floats(0.0, 1.0)
lengths = st.integers(0, 50) | st.integers(0, 10**6) | st.sampled_from([2**53, 2**63 + 1, 10**20])
counts = st.integers(1, 50) | st.sampled_from([10**4, 2**53, 2**63])
falls = st.sampled_from(["linear", "cosine", "sqrt"])
rises = st.sampled_from(["linear", "cosine", "exponential"])


def made(name, *arguments, **named):
    """Return a strategy that calls a class of schedules."""
    return st.builds(getattr(schedules, name), *arguments, **named)


@st.composite
def trapezoids(draw):
    steps = draw(lengths)
    warmup = draw(st.integers(0, steps))
    return schedules.WSD(draw(values), steps, warmup, draw(st.integers(0, steps - warmup)), draw(values), draw(falls))


@st.composite
def restarts(draw):
    period = draw(st.floats(1.0, 60.0) | st.integers(1, 60))
    return schedules.CosineRestarts(
        draw(values),
        period,
        draw(values),
        factor=draw(st.sampled_from([1.0, 1.5, 2.0, 3.0]) | st.floats(1.01, 3.0)),
        decay=draw(shares),
        warmup_steps=draw(st.integers(0, max(int(period) - 1, 0))),
    )


@st.composite
def one_cycles(draw):
    three = draw(st.booleans())
    return schedules.OneCycle(
        draw(values),
        draw(st.integers(1, 60) | st.just(2**53)),
        draw(st.floats(0.0, 0.5 if three else 1.0)),
        draw(st.sampled_from(["cosine", "linear"])),
        div_factor=draw(st.floats(1.0, 100.0)),
        final_div_factor=draw(st.floats(1.0, 1e5)),
        three_phase=three,
    )


@st.composite
def chebyshevs(draw):
    smallest, largest = sorted([draw(positive), draw(positive)])
    order = draw(st.sampled_from(["fractal", "rising", "falling"]))
    steps = draw(st.integers(0, 8)) if order == "fractal" else draw(st.integers(1, 60))
    return schedules.Chebyshev(smallest, largest, 2**steps if order == "fractal" else steps, order)


times = st.integers(0, 60) | st.floats(-20.0, 60.0)
points = st.lists(st.tuples(times, values), min_size=1, max_size=6)
falling = st.sampled_from([0.0, 0.1, 0.5, 0.999, 1.0]) | shares

LEAVES = {
    "AdaScale": made("AdaScale"),
    "Chebyshev": chebyshevs(),
    "Constant": made("Constant", values),
    "Cosine": made("Cosine", values, lengths, values, power=st.just(1.0) | positive, k=st.just(1.0) | positive),
    "CosineRestarts": restarts(),
    "CosineAnnealing": st.builds(
        lambda a, b, period: schedules.CosineAnnealing(max(a, b), period, min(a, b)),
        values,
        values,
        st.floats(0.5, 1e3) | st.integers(1, 100),
    ),
    "Cyclic": st.builds(
        lambda a, b, *rest: schedules.Cyclic(min(a, b), max(a, b), *rest),
        values,
        values,
        counts,
        st.none() | counts,
        st.sampled_from(["triangular", "triangular2", "exp_range"]),
        falling,
    ),
    "Exponential": made("Exponential", values, falling, st.just(1.0) | positive),
    "LogLinear": made("LogLinear", positive, positive, lengths),
    "InverseSqrt": made("InverseSqrt", values, positive),
    "InverseTime": made("InverseTime", values, values, st.just(1.0) | positive),
    "Linear": made("Linear", values, values, lengths),
    "MultiStep": made("MultiStep", values, st.lists(lengths, max_size=5), falling),
    "Noam": made("Noam", positive, counts, values),
    "OneCycle": one_cycles(),
    "Piecewise": st.builds(
        lambda drawn, shape: schedules.Piecewise(sorted(drawn), shape),
        points,
        st.sampled_from(["linear", "cosine", "constant"]),
    ),
    "Polynomial": made("Polynomial", values, lengths, values, power=positive),
    "REX": made("REX", values, lengths, values),
    "ReduceOnPlateau": made("ReduceOnPlateau", st.floats(0.0, 0.99), st.integers(0, 5), cooldown=st.integers(0, 3)),
    "Sqrt": made("Sqrt", values, lengths, values),
    "Step": made("Step", values, counts, falling),
    "Table": made("Table", st.lists(values, min_size=1, max_size=20)),
    "Tanh": made("Tanh", values, lengths, values, lower=st.floats(-9.0, 0.0), upper=st.floats(0.0, 9.0)),
    "WSD": trapezoids(),
    "Warmup": made("Warmup", lengths, shares, rises),
}


@st.composite
def warmed_up(draw, inner):
    """Draw a schedule after a warm-up, or under one where it is in steps of its own that can't be fitted."""
    schedule = draw(inner)
    steps = draw(st.integers(0, 60 if schedule.length is None else schedule.length))
    try:
        return schedule.warmup(steps, draw(st.just(0.0) | values), draw(rises))
    except ValueError:
        return Warmup(steps) * schedule


@st.composite
def cooled_down(draw, inner):
    schedule = draw(inner)
    if isinstance(schedule, schedules.ReduceOnPlateau):
        schedule *= 1.0  # its field of that name hides the method, as which a cool-down is printed
    at = draw(st.integers(0, 60))
    steps = draw(st.integers(0, 60))
    if schedule.length is not None and draw(st.booleans()):
        at, steps = None, min(steps, schedule.length)
    return WithCooldown(schedule, steps, draw(values), draw(falls), at)


@st.composite
def one_after_the_other(draw, inner):
    first = draw(inner)
    at = draw(st.integers(0, 60) if first.length is None else st.none() | st.integers(0, 60))
    return Sequential(first, draw(inner), at)


@st.composite
def repeated(draw, inner):
    schedule = draw(inner)
    return Repeated(
        schedule,
        draw(st.none() | st.integers(1, 5)),
        draw(st.none() | st.integers(1, 60)) if schedule.length else draw(st.integers(1, 60)),
    )


COMBINATIONS = {
    "AtLeast": lambda inner: made("AtLeast", inner, inner),
    "AtMost": lambda inner: made("AtMost", inner, inner),
    "WithCooldown": cooled_down,
    # Values are not negative, as those of all others.
    "Difference": lambda inner: st.builds(lambda a, b: schedules.Difference(schedules.AtLeast(a, b), b), inner, inner),
    "Staircase": lambda inner: made("Staircase", inner, st.integers(1, 20) | st.just(2**53 + 1)),
    "Product": lambda inner: made("Product", inner, inner),
    "Repeated": repeated,
    "Scaled": lambda inner: made("Scaled", inner, values),
    "Shifted": lambda inner: made("Shifted", inner, st.integers(-30, 60) | st.sampled_from([2**53 + 1, -(10**6)])),
    "Stretched": lambda inner: made("Stretched", inner, st.floats(0.1, 20.0) | st.sampled_from([0.5, 1.0, 3.0, 1e6])),
    "Sum": lambda inner: made("Sum", inner, inner),
    "Sequential": one_after_the_other,
    "WithWarmup": warmed_up,
}


@st.composite
def compositions(draw, depth):
    """Draw a schedule that is nested at most so deep; about as often one of others as a plain one."""
    names = [*LEAVES] if depth == 0 else [*LEAVES, *COMBINATIONS, *COMBINATIONS]
    name = draw(st.sampled_from(names))
    return draw(LEAVES[name] if name in LEAVES else COMBINATIONS[name](compositions(depth - 1)))


any_schedule = compositions(5)


def interesting_steps(schedule):
    """Return steps at which something may happen, in order, small ones and huge ones."""
    length = 100 if schedule.length is None else schedule.length
    around = {length // 3, length // 2, length - 2, length - 1, length, length + 1, 2 * length + 5}
    near = {*range(12), 20, 30, 40, 50, 60, 61, 90, 99, 1000, 10**6 + 1, 2**53 - 1, 2**53 + 1, 10**25, *around}
    return sorted(step for step in near if step >= 0)
