"""The result of an optimizer step, and its per-parameter statistics."""

from __future__ import annotations

import math
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from lrcore._text import counted, html_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class StepInfo(NamedTuple):
    """The result of a step.

    Attributes:
        applied: Whether the step was applied; False if it was skipped.
        step: The number of applied steps, including this one.
        lr: The learning rate of the first group in this step.
        grad_norm: The global gradient norm before clipping, or None if no option needs it, since computing it takes an
            extra pass over memory.
    """

    applied: bool
    step: int
    lr: float
    grad_norm: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a flat dictionary for loggers, without ``grad_norm`` if it is None.

        Examples:
            >>> import lrcore, numpy as np
            >>> opt = lrcore.SGD([np.zeros(2)], lr=0.1)
            >>> opt.step([np.ones(2)]).as_dict()
            {'step': 1, 'lr': 0.1, 'applied': True}
        """
        norm = {} if self.grad_norm is None else {"grad_norm": self.grad_norm}
        return {"step": self.step, "lr": self.lr, "applied": self.applied, **norm}

    @property
    def stats(self) -> StepStats | None:
        """Statistics of each parameter that the step updated; None without the option ``stats=True``.

        They are empty if the step was skipped.
        """
        return None


class _InfoWithStats(StepInfo):
    _tabulate: Callable[[], StepStats] | None = None

    @cached_property
    def stats(self) -> StepStats | None:
        return None if self._tabulate is None else self._tabulate()

    def __repr__(self) -> str:
        return repr(StepInfo(*self))


def with_stats(info: StepInfo, tabulate: Callable[[], StepStats]) -> StepInfo:
    """Return ``info`` with statistics, which ``tabulate`` computes on first access."""
    extended = _InfoWithStats(*info)
    extended._tabulate = tabulate
    return extended


def _column(name: str) -> Any:
    return property(itemgetter(name))


class ParamStats(dict[str, float]):
    """Statistics of one parameter in a step: a dictionary whose entries are also attributes.

    Attributes:
        weight_norm: The 2-norm of the weight before the step.
        grad_norm: The 2-norm of the gradient after division by ``grad_scale`` and before clipping.
        update_norm: The 2-norm of the total change of the weight, including weight decay and bounds.
        update_ratio: ``update_norm / weight_norm``, usually about 1e-3. NaN if both are 0.
        update_max: The largest absolute update of an element.
        zeros: The fraction of the gradient's elements that are 0.
        nonfinite: The fraction of the gradient's elements that are infinite or NaN.
    """

    __slots__ = ()

    weight_norm: float = _column("weight_norm")
    grad_norm: float = _column("grad_norm")
    update_norm: float = _column("update_norm")
    update_ratio: float = _column("update_ratio")
    update_max: float = _column("update_max")
    zeros: float = _column("zeros")
    nonfinite: float = _column("nonfinite")

    def __repr__(self) -> str:
        return f"ParamStats({', '.join(f'{column}={value!r}' for column, value in self.items())})"


COLUMNS = tuple(ParamStats.__annotations__)


class StepStats(dict[str, ParamStats]):
    """Statistics of a step: the :class:`ParamStats` of each updated parameter, by name.

    Examples:
        >>> import lrcore, numpy as np
        >>> params = {"w": np.ones(4), "b": np.zeros(2)}
        >>> opt = lrcore.SGD(params, lr=0.01, stats=True)
        >>> stats = opt.step({"w": np.ones(4), "b": np.array([0.0, 3.0])}).stats
        >>> stats["w"].update_ratio, stats["w"]["update_ratio"]
        (0.010000000000000009, 0.010000000000000009)
        >>> print(stats)
               weight_norm  grad_norm  update_norm  update_ratio  update_max      zeros  nonfinite
        w                2          2         0.02          0.01        0.01          0          0
        b                0          3         0.03           inf        0.03        0.5          0

    Note:
        ``pandas.DataFrame(stats)`` has one column per parameter, ``pandas.DataFrame(stats).T`` one row. For one
        TensorBoard plot per parameter: ``for name, row in stats.items(): writer.add_scalars(name, row, info.step)``;
        for one per value: ``for tag, value in stats.scalars(): writer.add_scalar(tag, value, info.step)``.
    """

    __slots__ = ()

    def rows(self) -> list[dict[str, str | float]]:
        """Return the table as a list of rows, each with the parameter's name."""
        return [{"name": name, **one} for name, one in self.items()]

    def scalars(self, prefix: str = "") -> Iterator[tuple[str, float]]:
        """Yield pairs of a tag, ``prefix + "name/column"``, and a value."""
        for name, one in self.items():
            for column, value in one.items():
                yield f"{prefix}{name}/{column}", value

    def __str__(self) -> str:
        width = max(5, *(len(name) for name in self), 0)
        lines = [" " * width + "".join(f"  {column:>{_width(column)}}" for column in COLUMNS)]
        for name, one in self.items():
            lines.append(f"{name:{width}}" + "".join(f"  {one[column]:>{_width(column)}.4g}" for column in COLUMNS))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<StepStats of {counted(len(self), 'parameter')}>"

    def _repr_html_(self) -> str:
        rows = [[name, *(f"{one[column]:.4g}" for column in COLUMNS)] for name, one in self.items()]
        return html_table(["parameter", *COLUMNS], rows)


def _width(column: str) -> int:
    return max(len(column), 9)


def from_step(raw: list[tuple[int, int, list[float]]], names: list[str], grad_factor: float) -> StepStats:
    """Return the statistics of a step.

    Args:
        raw: For each updated parameter, its index, number of elements, and statistics as measured by the engine.
        names: The names of all parameters.
        grad_factor: The factor that the gradients were multiplied by, the inverse of ``grad_scale``.
    """
    stats = StepStats()
    for index, length, (weight, grad, update, largest, zeros, nonfinite) in raw:
        share = 1 / length if length else 0.0
        stats[names[index]] = ParamStats(
            weight_norm=weight,
            grad_norm=grad * grad_factor,
            update_norm=update,
            update_ratio=update / weight if weight else math.inf if update else math.nan,
            update_max=largest,
            zeros=zeros * share,
            nonfinite=nonfinite * share,
        )
    return stats
