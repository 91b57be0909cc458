"""The kinds of hyperparameters: numbers in a range, pairs of numbers, flags, choices. Each number may be a schedule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lrcore._messages import brief, warn
from lrcore._ranges import FRACTION, NON_NEGATIVE, REAL, Range
from lrcore.schedules.schedule import Schedule, refuse_factor, remedy_for


class Hyperparameter:
    """The kind of a hyperparameter."""

    __slots__ = ()

    def check(self, name: str, value: Any) -> Any:
        """Return the value as Python's own type, or raise TypeError or ValueError."""
        raise NotImplementedError

    def at(self, name: str, value: Any, step: int) -> dict[str, float]:
        """Return the value at a step, under the names that the rules have for it; nothing if no rule has it."""
        del name, value, step
        return {}


class Number(Hyperparameter):
    """A number in a range, or a schedule of such numbers.

    A schedule of factors alone, such as ``ReduceOnPlateau()``, is allowed with ``takes_factors``.
    """

    __slots__ = ("range", "takes_factors")

    def __init__(self, allowed: Range = NON_NEGATIVE, *, takes_factors: bool = False) -> None:
        self.range = allowed
        self.takes_factors = takes_factors

    def check(self, name: str, value: Any) -> float | Schedule:
        """Return the number as a float, or the schedule."""
        if isinstance(value, Schedule):
            if not self.takes_factors:
                refuse_factor(name, value)
            return value
        if remedy := remedy_for(value):
            raise TypeError(f"{name} must be a number in {self.range} or a schedule, got {brief(value)}{remedy}")
        return self.range.check(name, value, otherwise=" or a schedule")

    def at(self, name: str, value: float | Schedule, step: int) -> dict[str, float]:
        """Return the number, or the schedule's value at the step."""
        if not isinstance(value, Schedule):
            return {name: value}
        number = value._value(step)  # a count of steps needs no check
        if number not in self.range:
            raise ValueError(f"{name} must be in {self.range}, got {brief(number)} from {value!r} at step {step}")
        return {name: number}


class Pair(Hyperparameter):
    """A pair of numbers, such as ``betas``. Rules receive it as ``beta1`` and ``beta2``."""

    __slots__ = ("number",)

    def __init__(self, number: Number) -> None:
        self.number = number

    def check(self, name: str, value: Any) -> tuple[float | Schedule, float | Schedule]:
        """Return the two as a tuple."""
        try:
            first, second = value
        except (TypeError, ValueError):
            raise TypeError(f"{name} must be two numbers or schedules, got {brief(value)}") from None
        return self.number.check(f"{name}[0]", first), self.number.check(f"{name}[1]", second)

    def at(self, name: str, value: tuple[float | Schedule, float | Schedule], step: int) -> dict[str, float]:
        """Return both at the step, with the numbers 1 and 2 in their names."""
        singular = name.removesuffix("s")
        numbers: dict[str, float] = {}
        for i, part in enumerate(value):
            (number,) = self.number.at(f"{name}[{i}]", part, step).values()
            numbers[f"{singular}{i + 1}"] = number
        return numbers


class Flag(Hyperparameter):
    """True or False, which chooses the rule."""

    __slots__ = ()

    def check(self, name: str, value: Any) -> bool:
        """Return the flag as a bool, also of a 0-d array or tensor."""
        if getattr(value, "shape", None) == () and hasattr(value, "item"):
            value = value.item()
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name} must be True or False, got {brief(value)}")
        return bool(value)


class Optional(Hyperparameter):
    """Another kind of hyperparameter, or None."""

    __slots__ = ("kind",)

    def __init__(self, kind: Hyperparameter) -> None:
        self.kind = kind

    def check(self, name: str, value: Any) -> Any:
        """Return None, or the value as Python's own type."""
        return None if value is None else self.kind.check(name, value)

    def at(self, name: str, value: Any, step: int) -> dict[str, float]:
        """Return nothing for None, else the value at the step."""
        return {} if value is None else self.kind.at(name, value, step)


class Choice(Hyperparameter):
    """One of several words, which chooses a stage."""

    __slots__ = ("words",)

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words

    def check(self, name: str, value: Any) -> str:
        """Return the word."""
        if not isinstance(value, str) or value not in self.words:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, self.words))}, got {brief(value)}")
        return value


class Bounds(Hyperparameter):
    """The lower and the upper bound of weights, each a number or None for no bound; or None."""

    __slots__ = ()

    def check(self, name: str, value: Any) -> tuple[float, float] | None:
        """Return both as a tuple."""
        if value is None:
            return None
        try:
            low, high = value
        except (TypeError, ValueError):
            raise TypeError(f"{name} must be two numbers (low, high), or None, got {brief(value)}") from None
        low, high = -math.inf if low is None else low, math.inf if high is None else high
        low, high = REAL.check(f"{name}[0]", low), REAL.check(f"{name}[1]", high)
        if low > high:
            raise ValueError(f"{name} must be (low, high) with low <= high, got {brief(value)}")
        return low, high


class GroupAttribute:
    """A hyperparameter as an attribute of the optimizer, where it has no effect: setting it warns."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, opt: Any, owner: type) -> Any:
        try:
            return vars(opt)[self._name]
        except (KeyError, TypeError):
            raise AttributeError(f"{owner.__name__} has no attribute {self._name!r}; param_groups have it") from None

    def __set__(self, opt: Any, value: Any) -> None:
        name = self._name
        warn(f'opt.{name} = {brief(value)} has no effect on steps; set param_groups[0]["{name}"], or of each group')
        vars(opt)[name] = value


NUMBER = Number()
BETAS = Pair(Number(FRACTION))
FLAG = Flag()


def plain(value: Any) -> Any:
    """Return a hyperparameter given as tensors, arrays or NumPy scalars as Python's numbers."""
    if isinstance(value, tuple | list):
        return tuple(map(plain, value))
    if hasattr(value, "tolist"):
        number = value.tolist()
        while isinstance(number, list) and len(number) == 1:
            (number,) = number
        return tuple(number) if isinstance(number, list) else number
    return value
