"""Search spaces: their values, the settings that are tried, and the seed of each run."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np

from lrcore._messages import brief
from lrcore._ranges import POSITIVE, as_number, check_count

Settings = dict[str, Any]

# Names of columns and of other arguments.
RESERVED = frozenset({"attempts", "budget", "objective", "reason", "report", "seconds", "seed", "seed_index", "status"})
_EXAMPLE = "such as {'lr': lrcore.logspace(1e-4, 1e-1, 10)}"
# Significant digits of inner values of a logspace: further ones differ between platforms, and seeds depend on them.
_DIGITS = 12


@dataclass(frozen=True)
class Distribution:
    """A distribution on [low, high]; the bounds are Python numbers."""

    low: float
    high: float

    def __post_init__(self) -> None:
        name = type(self).__name__.lower()
        for bound in ("low", "high"):
            value = getattr(self, bound)
            number = as_number(value)
            if number is None:
                raise TypeError(f"{name}: {bound} must be a number, got {brief(value)}")
            if not abs(number) <= sys.float_info.max:
                raise ValueError(f"{name}: {bound} must be finite, got {brief(value)}")
            object.__setattr__(self, bound, number)
        if not self.low < self.high:
            raise ValueError(f"{name}: low must be less than high, got {brief(self.low)} and {brief(self.high)}")

    def draw(self, rng: np.random.Generator) -> float:
        """Draw a number."""
        raise NotImplementedError


class Uniform(Distribution):
    """The uniform distribution on [low, high]."""

    def draw(self, rng: np.random.Generator) -> float:
        """Draw a number."""
        return float(rng.uniform(self.low, self.high))


class LogUniform(Distribution):
    """The log-uniform distribution on [low, high]."""

    def __post_init__(self) -> None:
        for name, value in (("low", self.low), ("high", self.high)):
            POSITIVE.check(f"loguniform: {name}", value)
        super().__post_init__()

    def draw(self, rng: np.random.Generator) -> float:
        """Draw a number."""
        drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return min(max(drawn, self.low), self.high)


# The values of each name, as they are after their check.
Space = Mapping[str, Sequence[Any] | Distribution]


def uniform(low: float, high: float) -> Uniform:
    """Return the uniform distribution on [low, high], for random search.

    Args:
        low: The lower bound.
        high: The upper bound, greater than ``low``.

    Raises:
        TypeError: If a bound is not a number.
        ValueError: If a bound is not finite, or ``low >= high``.

    Examples:
        >>> from lrcore import sweeps
        >>> sweeps.uniform(0.8, 0.99)
        Uniform(low=0.8, high=0.99)
    """
    return Uniform(low, high)


def loguniform(low: float, high: float) -> LogUniform:
    """Return the log-uniform distribution on [low, high], for random search.

    Args:
        low: The lower bound, in (0, inf).
        high: The upper bound, greater than ``low``.

    Raises:
        TypeError: If a bound is not a number.
        ValueError: If a bound is out of range, or ``low >= high``.

    Examples:
        >>> from lrcore import sweeps
        >>> sweeps.loguniform(1e-4, 1e-1)
        LogUniform(low=0.0001, high=0.1)
    """
    return LogUniform(low, high)


def logspace(first: float, last: float, count: SupportsIndex) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return numbers with a constant ratio between neighbours.

    The ends are exact. Inner numbers have 12 significant digits, so that they, and the seeds of runs, are the same on
    every platform.

    Args:
        first: The first number, in (0, inf).
        last: The last number, in (0, inf).
        count: The number of values, at least 2.

    Returns:
        A float64 array.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is out of range.

    Examples:
        >>> import lrcore
        >>> from lrcore import sweeps
        >>> sweeps.logspace(1e-4, 1e-1, 4)
        array([0.0001, 0.001 , 0.01  , 0.1   ])

    Note:
        ``numpy.logspace`` takes exponents; this takes the ends, like ``numpy.geomspace``.
    """
    first, last = POSITIVE.check("logspace: first", first), POSITIVE.check("logspace: last", last)
    count = check_count("logspace: count", count, least=2)
    inside = [float(f"{value:.{_DIGITS}g}") for value in np.geomspace(first, last, count)[1:-1].tolist()]
    return np.array([first, *inside, last])


def check_space(space: Any) -> Space:
    """Return a space with plain values.

    Raises:
        TypeError: If a name or a value is of a wrong type.
        ValueError: If there are no values, or a value occurs twice.
    """
    if not isinstance(space, Mapping):
        raise TypeError(f"space must be a mapping of names to values, {_EXAMPLE}, got {brief(space)}")
    if not space:
        raise ValueError(f"space must have at least one name, {_EXAMPLE}, got {{}}")
    for name in space:
        if not isinstance(name, str) or not name.isidentifier():
            raise TypeError(f"names in space must be names of arguments, got {brief(name)}")
        if name in RESERVED:
            raise ValueError(f"space: names must not be one of {sorted(RESERVED)}, got {name!r}")
    return {name: _check_values(f"space[{name!r}]", given) for name, given in space.items()}


def _check_values(place: str, given: Any) -> Sequence[Any] | Distribution:
    if isinstance(given, Distribution):
        return given
    if (
        isinstance(given, str | bytes | Mapping)
        or not isinstance(given, Iterable)
        or (isinstance(given, np.ndarray) and given.ndim == 0)
    ):
        raise TypeError(
            f"{place} must be a sequence of values, loguniform(…) or uniform(…), got {brief(given)}; one value alone "
            f"is [{brief(given)}]"
        )
    values = [plain(f"{place}[{i}]", value) for i, value in enumerate(given)]
    if not values:
        raise ValueError(f"{place} must have at least one value, got {brief(given)}")
    seen = set()
    for value in values:
        if (key := canonical(value)) in seen:
            raise ValueError(f"{place} must have each value once, got {brief(value)} twice")
        seen.add(key)
    return values


def plain(place: str, value: Any) -> Any:
    """Return a value that JSON can represent: NumPy scalars as Python numbers, and lists as tuples, which are hashable.

    Raises:
        TypeError: If JSON can't represent it.
        ValueError: If it is a number that is not finite.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place} must be finite, got {brief(value)}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return tuple(plain(f"{place}[{i}]", part) for i, part in enumerate(value))
    raise TypeError(
        f"{place} must be a number, a string, a bool, None, or a list of these, got {type(value).__name__}: {value!r}"
    )


def canonical(value: Any) -> str:
    """Return the canonical text of a value: JSON with sorted names and shortest numbers."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def seed_of(settings: Mapping[str, Any], index: int) -> int:
    """Return the seed of a run, in [0, 2**32), which depends only on its settings and the index of the seed.

    It is the first four bytes of a SHA-256 digest, the same in every process and on every machine.
    """
    text = canonical([settings, index])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def grid(space: Space) -> list[Settings]:
    """Return all combinations of values; the last name varies fastest.

    Raises:
        ValueError: If a name has a distribution.
    """
    for name, values in space.items():
        if isinstance(values, Distribution):
            raise ValueError(
                f"space[{name!r}] must be a sequence for a grid, got {brief(values)}; for random search give trials=…"
            )
    lists: list[Sequence[Any]] = [values for values in space.values() if isinstance(values, Sequence)]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*lists)]


def count_settings(space: Space) -> float:
    """Return the number of all combinations of values; infinite if a name has a distribution."""
    return math.prod(math.inf if isinstance(values, Distribution) else len(values) for values in space.values())


def draws(space: Space, trials: int, seed: int) -> list[Settings]:
    """Return distinct random settings; more trials extend the list.

    If the space has no more settings than trials, all are returned.
    """
    if count_settings(space) <= trials:
        return grid(space)
    found: dict[str, Settings] = {}
    for settings in _drawn(space, seed):
        found.setdefault(canonical(settings), settings)
        if len(found) == trials:
            break
    return list(found.values())


def _drawn(space: Space, seed: int) -> Iterator[Settings]:
    for trial in itertools.count():
        settings = {}
        for name, values in space.items():
            # A generator per value: adding a name to the space keeps the values of the others.
            digest = hashlib.sha256(canonical([seed, trial, name]).encode()).digest()
            rng = np.random.default_rng(int.from_bytes(digest[:16], "big"))
            drawn = values.draw(rng) if isinstance(values, Distribution) else values[int(rng.integers(len(values)))]
            settings[name] = drawn
        yield settings
