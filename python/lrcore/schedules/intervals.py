"""The largest value of a schedule, by branch and bound on intervals of steps.

Every class has ``_bounds(first, last)``: bounds of the values from one step to another. They are exact for simple
schedules, which are monotone between known turning points, and interval arithmetic combines them: the largest value of
a product is at most the product of the largest factors. Branch and bound then finds the maximum, if it converges::

    best = value(0); queue = [all steps]
    while the highest bound in the queue is above best:
        halve that interval; evaluate its ends; bound both halves

Steps that are ints are integer steps. Within ``stretch`` they are floats, and bounds hold for all reals in between.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Any

from lrcore.schedules import functions as fn

if TYPE_CHECKING:
    from collections.abc import Callable

    from lrcore.schedules.schedule import Bounds, Schedule

# Intervals of fewer steps are evaluated: that takes less time than to bound their halves.
_BLOCK = 1024
# The most intervals that are halved. A product of two smooth schedules needs about 50.
_MOST_INTERVALS = 2000
# Relative rounding error of the bounds.
_TOLERANCE = 1e-14
# The search has failed if the bound exceeds the largest value found by more than this part of it. Sums of waves
# whose periods have no common multiple do not: they come closer to the bound the further one looks.
_CLOSE = 1.0
# An infinite interval is cut at twice its first step, beyond _LARGE at its square; it is not searched beyond _FAR.
_LARGE, _FAR = 2**64, 2**2048
# A function has no bounds: all its steps are evaluated, up to this many.
_MOST_EVALUATED = 10**8


def largest(schedule: Schedule, last: float) -> float:
    """Return the largest value at integer steps from 0 to ``last``, which can be infinite.

    If ``_MOST_INTERVALS`` do not suffice, it is the largest value found, or the bound if that is more than twice as
    large.

    Raises:
        ValueError: If the values grow without bound, or a part is a function without a length.
    """
    high = schedule._bounds(0, last)[1]
    if high == math.inf:
        return _largest_of_all(schedule, last)
    best = schedule._value(0)
    queue: list[tuple[float, int, float]] = [(-high, 0, last)]
    for _ in range(_MOST_INTERVALS):
        if not queue or -queue[0][0] <= best + _TOLERANCE * abs(best):
            break
        _, first, end = heapq.heappop(queue)
        if span(first, end) < _BLOCK:
            best = max(best, _evaluated(schedule, first, int(end)))
            continue
        for begin, stop in _halves(first, end):
            best = max(best, schedule._value(begin), best if stop == math.inf else schedule._value(stop))
            heapq.heappush(queue, (-schedule._bounds(begin, stop)[1], begin, stop))
    # Without convergence the largest value found may be far from the maximum; the bound is above it.
    bound = -queue[0][0] if queue else best
    return float(best if bound <= best + _CLOSE * abs(best) else bound)


def _largest_of_all(schedule: Schedule, last: float) -> float:
    if last > _MOST_EVALUATED:
        raise ValueError(
            f"the largest value of {schedule!r} is not known: values grow without an end, or a function has no "
            f"known bound; limit it with .at_most(…)"
        )
    return _evaluated(schedule, 0, int(last))


def _evaluated(schedule: Schedule, first: int, last: int) -> float:
    """Return the largest of all values from one step to another."""
    if last >= 2**62:
        return max(schedule._value(step) for step in range(first, last + 1))
    blocks = range(first, last + 1, 2**18)
    return max(float(schedule.values(range(k, min(k + 2**18, last + 1))).max()) for k in blocks)


def _halves(first: int, last: float) -> list[tuple[int, float]]:
    if last == math.inf:
        middle = max(2 * first if first < _LARGE else first * first, 4 * _BLOCK) - 1
        return [(first, middle)] if middle > _FAR else [(first, middle), (middle + 1, last)]
    middle = (first + int(last)) // 2
    return [(first, middle), (middle + 1, int(last))]


def ends(schedule: Schedule, first: float, last: float, limit: float | None = None) -> Bounds:
    """Return the bounds of a schedule that is monotone in an interval; ``limit`` is its value at infinity."""
    one = schedule._value(first)
    other = limit if last == math.inf and limit is not None else schedule._value(last)
    return (one, other) if one <= other else (other, one)


def hull(*bounds: Bounds) -> Bounds:
    """Return the bounds of the union of several intervals."""
    return min(low for low, _ in bounds), max(high for _, high in bounds)


def split(
    at: int, first: float, last: float, begin: Callable[[float, float], Bounds], rest: Callable[[Any, Any], Bounds]
) -> Bounds:
    """Return the bounds of one schedule before a step and of another one, in its own steps, from there on."""
    parts = []
    if first < at:
        parts.append(begin(first, before(at, first, last)))
    if last >= at:
        parts.append(rest(max(first - at, first * 0), last if last == math.inf else max(last - at, last * 0)))
    return hull(*parts)


def products(a: Bounds, b: Bounds) -> Bounds:
    """Return the bounds of a product."""
    corners = [0.0 if 0.0 in (x, y) else x * y for x in a for y in b]
    return min(corners), max(corners)


def span(first: float, last: float) -> float:
    """Return the number of steps between two, where ``last`` can be infinite and ``first`` too large for a float."""
    return last if last == math.inf else last - first


def crosses(first: float, last: float, period: float, at: float) -> bool:
    """Return whether ``at + k * period`` lies between two steps for an integer ``k``."""
    if span(first, last) >= period:
        return True
    # The distance to the next such step, without the difference of two large numbers.
    ahead = at % period - fn.remainder(first, period)
    return bool((ahead if ahead >= 0.0 else ahead + period) <= last - first)


def before(at: int, first: float, last: float) -> float:
    """Return the last step of an interval that is before ``at``."""
    return min(last, at - 1 if isinstance(first, int) else at)
