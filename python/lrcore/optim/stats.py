"""What a step did to each parameter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple


class ParamStats(NamedTuple):
    """What a step did to one parameter.

    Attributes:
        weight_norm: The Euclidean norm of the weight before the step.
        grad_norm: That of the gradient as it was used, before clipping: divided by ``grad_scale``.
        update_norm: That of the movement, all stages included.
        update_ratio: ``update_norm / weight_norm``; about 1e-3 is usual. NaN if both are 0.
        update_max: The largest movement of one weight.
        zeros: The share of the gradient's elements that are 0.
        nonfinite: The share of them that are infinite or NaN.
    """

    weight_norm: float
    grad_norm: float
    update_norm: float
    update_ratio: float
    update_max: float
    zeros: float
    nonfinite: float


class StepStats(Mapping[str, ParamStats]):
    """A small table: for each parameter that was moved, by name, its :class:`ParamStats`.

    Examples:
        >>> import lrcore, numpy as np
        >>> params = {"w": np.ones(4), "b": np.zeros(2)}
        >>> opt = lrcore.SGD(params, lr=0.01, stats=True)
        >>> stats = opt.step({"w": np.ones(4), "b": np.array([0.0, 3.0])}).stats
        >>> stats["w"].update_ratio
        0.010000000000000009
        >>> print(stats)
               weight_norm  grad_norm  update_norm  update_ratio  update_max      zeros  nonfinite
        w                2          2         0.02          0.01        0.01          0          0
        b                0          3         0.03           inf        0.03        0.5          0

    Note:
        ``pandas.DataFrame(stats.rows())`` takes all of it. For TensorBoard: ``for tag, value in stats.scalars():
        writer.add_scalar(tag, value, info.step)``.
    """

    __slots__ = ("_by_name",)

    def __init__(self, by_name: dict[str, ParamStats]) -> None:
        self._by_name = by_name

    def __getitem__(self, name: str) -> ParamStats:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def rows(self) -> list[dict[str, str | float]]:
        """Return the table as a list of rows, each with the parameter's name."""
        return [{"name": name, **one._asdict()} for name, one in self._by_name.items()]

    def scalars(self, prefix: str = "") -> Iterator[tuple[str, float]]:
        """Yield all numbers, each with a tag: ``prefix + "name/column"``."""
        for name, one in self._by_name.items():
            for column, value in one._asdict().items():
                yield f"{prefix}{name}/{column}", value

    def __str__(self) -> str:
        width = max(5, *(len(name) for name in self._by_name), 0)
        lines = [" " * width + "".join(f"  {column:>{_width(column)}}" for column in ParamStats._fields)]
        for name, one in self._by_name.items():
            values = one._asdict().items()
            lines.append(f"{name:{width}}" + "".join(f"  {value:>{_width(column)}.4g}" for column, value in values))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<StepStats of {len(self)} parameters>"


def _width(column: str) -> int:
    return max(len(column), 9)


def from_step(
    raw: list[tuple[int, int, tuple[float, float, float, float, float, float]]], names: list[str], scale: float
) -> StepStats:
    """Return the table of a step, of the numbers that the stepper gave and what it multiplied gradients by."""
    by_name = {}
    for index, length, (weight, grad, update, largest, zeros, nonfinite) in raw:
        ratio = update / weight if weight else math.inf if update else math.nan
        share = 1 / length if length else 0.0
        by_name[names[index]] = ParamStats(
            weight, grad * scale, update, ratio, largest, zeros * share, nonfinite * share
        )
    return StepStats(by_name)
