"""Spaces of settings: what values there are, which of them are tried, and the seed of each run."""

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

# What tables and calls have besides settings.
RESERVED = frozenset({"attempts", "budget", "objective", "reason", "report", "seconds", "seed", "seed_index", "status"})
_EXAMPLE = "such as {'lr': lrcore.logspace(1e-4, 1e-1, 10)}"
# Digits of the values inside of a logspace. Their last ones would differ between platforms, and with them the runs.
_DIGITS = 12


@dataclass(frozen=True)
class Uniform:
    """Numbers that are equally likely everywhere between two ends."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _set_ends("uniform", self)

    def draw(self, rng: np.random.Generator) -> float:
        """Return one of them."""
        return float(rng.uniform(self.low, self.high))


@dataclass(frozen=True)
class LogUniform:
    """Positive numbers whose logarithms are equally likely everywhere between two ends."""

    low: float
    high: float

    def __post_init__(self) -> None:
        for name, value in (("low", self.low), ("high", self.high)):
            POSITIVE.check(f"loguniform: {name}", value)
        _set_ends("loguniform", self)

    def draw(self, rng: np.random.Generator) -> float:
        """Return one of them."""
        drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return min(max(drawn, self.low), self.high)


Distribution = Uniform | LogUniform


def uniform(low: float, high: float) -> Uniform:
    """Return the uniform distribution between two numbers, for a random search.

    Args:
        low: The lower end.
        high: The upper end, above the lower one.

    Raises:
        TypeError: If one is not a number.
        ValueError: If one is not finite, or they are not in order.

    Examples:
        >>> from lrcore import sweeps
        >>> sweeps.uniform(0.8, 0.99)
        Uniform(low=0.8, high=0.99)
    """
    return Uniform(low, high)


def loguniform(low: float, high: float) -> LogUniform:
    """Return the distribution between two positive numbers whose logarithm is uniform, for a random search.

    Args:
        low: The lower end, in (0, inf).
        high: The upper end, above the lower one.

    Raises:
        TypeError: If one is not a number.
        ValueError: If one is not in range, or they are not in order.

    Examples:
        >>> from lrcore import sweeps
        >>> sweeps.loguniform(1e-4, 1e-1)
        LogUniform(low=0.0001, high=0.1)
    """
    return LogUniform(low, high)


def logspace(first: float, last: float, count: SupportsIndex) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return numbers from one to another, each the same multiple of the one before.

    The ends are exactly those given. The numbers between have 12 significant digits, so that they are the same on every
    platform, and with them the runs of a sweep.

    Args:
        first: The first number, in (0, inf).
        last: The last number, in (0, inf).
        count: How many there are, at least 2.

    Returns:
        An array of float64.

    Raises:
        TypeError: If an argument is no number.
        ValueError: If one is out of range.

    Examples:
        >>> import lrcore
        >>> from lrcore import sweeps
        >>> sweeps.logspace(1e-4, 1e-1, 4)
        array([0.0001, 0.001 , 0.01  , 0.1   ])

    Note:
        ``numpy.logspace`` takes exponents; this takes the ends themselves, as ``numpy.geomspace`` does.
    """
    first, last = POSITIVE.check("logspace: first", first), POSITIVE.check("logspace: last", last)
    count = check_count("logspace: count", count, least=2)
    inside = [float(f"{value:.{_DIGITS}g}") for value in np.geomspace(first, last, count)[1:-1].tolist()]
    return np.array([first, *inside, last])


def check_space(space: Any) -> dict[str, Sequence[Any] | Distribution]:
    """Return a space with its values as plain ones, or raise.

    Raises:
        TypeError: If a name, its values or one of them is of a kind that is not allowed.
        ValueError: If there is nothing to try, or a value stands twice.
    """
    if not isinstance(space, Mapping):
        raise TypeError(f"space must be a mapping of names to values, {_EXAMPLE}, got {brief(space)}")
    if not space:
        raise ValueError(f"space must have at least one name, {_EXAMPLE}, got {{}}")
    for name in space:
        if not isinstance(name, str) or not name.isidentifier():
            raise TypeError(f"names in space must be names of arguments, got {brief(name)}")
        if name in RESERVED:
            raise ValueError(f"space: {name!r} has a meaning of its own; others like it are {sorted(RESERVED)}")
    return {name: _check_values(f"space[{name!r}]", given) for name, given in space.items()}


def _check_values(place: str, given: Any) -> Sequence[Any] | Distribution:
    if isinstance(given, Uniform | LogUniform):
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
    """Return a value as JSON can hold it: NumPy's numbers as Python's, and lists as tuples, so that values have hashes.

    Raises:
        TypeError: If JSON can't hold it.
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
        f"{place} must be a value that JSON can hold: a number, a string, a bool, None, or a list of these; got "
        f"{type(value).__name__}: {value!r}"
    )


def canonical(value: Any) -> str:
    """Return the one text of a value: JSON with sorted names and the shortest digits of each number."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def seed_of(settings: Mapping[str, Any], index: int) -> int:
    """Return the seed of a run, in [0, 2**32): of its settings and the number of the seed alone.

    It is the first four bytes of a SHA-256 sum, so it is the same in every process and on every machine.
    """
    text = canonical([settings, index])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def grid(space: Mapping[str, Sequence[Any] | Distribution]) -> list[Settings]:
    """Return all combinations of values; the last name changes first.

    Raises:
        ValueError: If there is a distribution among them.
    """
    for name, values in space.items():
        if isinstance(values, Distribution):
            raise ValueError(f"a grid needs values, got {brief(values)} for space[{name!r}]; to draw, give trials=…")
    lists: list[Sequence[Any]] = [values for values in space.values() if isinstance(values, Sequence)]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*lists)]


def draws(space: Mapping[str, Sequence[Any] | Distribution], trials: int, seed: int) -> list[Settings]:
    """Return settings drawn at random, each once. With more trials the first ones stay the same.

    Where there are no more settings than trials, all of them are returned.
    """
    counts = [len(values) for values in space.values() if isinstance(values, Sequence)]
    if len(counts) == len(space) and math.prod(counts) <= trials:
        return grid(space)
    found: dict[str, Settings] = {}
    for settings in _drawn(space, seed):
        found.setdefault(canonical(settings), settings)
        if len(found) == trials:
            break
    return list(found.values())


def _drawn(space: Mapping[str, Sequence[Any] | Distribution], seed: int) -> Iterator[Settings]:
    for trial in itertools.count():
        settings = {}
        for name, values in space.items():
            # A generator for each value: a name that is added to the space changes nothing of the others.
            digest = hashlib.sha256(canonical([seed, trial, name]).encode()).digest()
            rng = np.random.default_rng(int.from_bytes(digest[:16], "big"))
            settings[name] = (
                values[int(rng.integers(len(values)))] if isinstance(values, Sequence) else values.draw(rng)
            )
        yield settings


def _set_ends(name: str, distribution: Uniform | LogUniform) -> None:
    """Replace the ends of a distribution by Python numbers, or raise."""
    for end in ("low", "high"):
        value = getattr(distribution, end)
        number = as_number(value)
        if number is None:
            raise TypeError(f"{name}: {end} must be a number, got {brief(value)}")
        if not abs(number) <= sys.float_info.max:
            raise ValueError(f"{name}: {end} must be finite, got {brief(value)}")
        object.__setattr__(distribution, end, number)
    if not distribution.low < distribution.high:
        raise ValueError(
            f"{name}: low must be less than high, got {brief(distribution.low)} and {brief(distribution.high)}"
        )
