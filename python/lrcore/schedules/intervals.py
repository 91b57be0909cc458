"""The largest value of a schedule, from bounds of its parts.

Every class has ``_bounds(first, last)``: numbers that no value from one step to another lies outside of. They are exact
for leaves, which are monotone between known turns, and composed by interval arithmetic: a product is at most the
product of the largest factors. Branch and bound makes the composed ones exact: the range of steps with the highest
bound is halved, and values are evaluated at the ends, until no bound is above the largest value found.

Steps that are ints are whole steps; within ``stretch`` they are floats, and bounds hold for all real steps between.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Any

from lrcore.schedules import functions as fn

if TYPE_CHECKING:
    from lrcore.schedules.schedule import Schedule

    Bounds = tuple[float, float]

# So few steps are evaluated together: it takes less time than to bound them.
_BLOCK = 1024
# How many ranges are halved at most. One product of two smooth courses takes about 50.
_MOST_RANGES = 2000
# Rounding of the bounds themselves.
_TOLERANCE = 1e-14
# A range without an end is halved at twice its beginning, beyond the first of these at the square, and is not followed
# beyond the second.
_LARGE, _FAR = 2**64, 2**2048
# Functions have no bounds; all their steps are evaluated, if there are no more.
_MOST_EVALUATED = 10**8


def largest(schedule: Schedule, last: float) -> float:
    """Return the largest value at whole steps from 0 to a last one, which may be infinite.

    Raises:
        ValueError: If values grow without an end, or a function without a length is a part.
    """
    high = schedule._bounds(0, last)[1]
    if high == math.inf:
        if last > _MOST_EVALUATED:
            raise ValueError(
                f"the largest value of {schedule!r} is not known: values grow without an end, or a function has no "
                f"known bound; limit it with .at_most(…)"
            )
        return max(
            float(schedule.values(range(k, min(k + 2**18, int(last) + 1))).max())
            for k in range(0, int(last) + 1, 2**18)
        )
    best = schedule._value(0)
    ranges: list[tuple[float, int, float]] = [(-high, 0, last)]
    for _ in range(_MOST_RANGES):
        if not ranges or -ranges[0][0] <= best + _TOLERANCE * abs(best):
            break
        _, first, end = heapq.heappop(ranges)
        if span(first, end) < _BLOCK:
            best = max(best, _evaluated(schedule, first, int(end)))
            continue
        for begin, stop in _halves(first, end):
            best = max(best, schedule._value(begin), best if stop == math.inf else schedule._value(stop))
            heapq.heappush(ranges, (-schedule._bounds(begin, stop)[1], begin, stop))
    return float(best)


def _evaluated(schedule: Schedule, first: int, last: int) -> float:
    if last < 2**62:
        return float(schedule.values(range(first, last + 1)).max())
    return max(schedule._value(step) for step in range(first, last + 1))


def _halves(first: int, last: float) -> list[tuple[int, float]]:
    if last == math.inf:
        middle = max(2 * first if first < _LARGE else first * first, 4 * _BLOCK) - 1
        return [(first, middle)] if middle > _FAR else [(first, middle), (middle + 1, last)]
    middle = (first + int(last)) // 2
    return [(first, middle), (middle + 1, int(last))]


def ends(schedule: Schedule, first: float, last: float, limit: float | None = None) -> Bounds:
    """Return the bounds of a course that is monotone between two steps; its limit where the last is infinite."""
    one = schedule._value(first)
    other = limit if last == math.inf and limit is not None else schedule._value(last)
    return (one, other) if one <= other else (other, one)


def hull(*bounds: Bounds) -> Bounds:
    """Return the bounds of all of several ranges."""
    return min(low for low, _ in bounds), max(high for _, high in bounds)


def products(a: Bounds, b: Bounds) -> Bounds:
    """Return the bounds of a product."""
    corners = [_times(x, y) for x in a for y in b]
    return min(corners), max(corners)


def _times(x: float, y: float) -> float:
    return 0.0 if 0.0 in (x, y) else x * y


def span(first: float, last: float) -> float:
    """Return how many steps lie between two, of which the last may be infinite and the first too large for a float."""
    return last if last == math.inf else last - first


def crosses(first: float, last: float, period: float, at: float) -> bool:
    """Return whether a place in each period lies between two steps."""
    if span(first, last) >= period:
        return True
    # The distance to the next place, without a difference of large numbers where it is small.
    ahead = at % period - fn.remainder(first, period)
    return bool((ahead if ahead >= 0.0 else ahead + period) <= last - first)


def before(at: int, first: float, last: float) -> float:
    """Return the last step of a range that is before a given one."""
    return min(last, at - 1 if isinstance(first, int) else at)


def window(first: Any, last: Any, shift: Any) -> tuple[Any, Any]:
    """Return a range of steps, counted from another step, from 0 on."""
    return max(first - shift, first * 0), last if last == math.inf else max(last - shift, last * 0)
