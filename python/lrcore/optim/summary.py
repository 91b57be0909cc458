"""A table of the parameters of an optimizer, and their memory."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from lrcore._text import html_table, html_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lrcore.optim.param_group import ParamGroup

_MOST = 40


class SummaryRow(NamedTuple):
    """A parameter of an optimizer.

    Attributes:
        name: The name, as in ``no_decay`` and state dicts.
        shape: The shape.
        dtype: The name of the dtype.
        group: The name or the number of the group.
        lr: The learning rate of the next step.
        decay: The weight decay of the next step, 0 if ``no_decay`` matches the name.
        state_bytes: The bytes of the state arrays and of the average; 0 before the first step.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    group: str
    lr: float
    decay: float
    state_bytes: int


class Memory(NamedTuple):
    """The bytes of the arrays of an optimizer.

    Attributes:
        weights: The bytes of the parameters.
        state: The bytes of state arrays and of pending accumulated gradients.
        average: The bytes of the averages of the weights.
        total: Their sum.
    """

    weights: int
    state: int
    average: int
    total: int


class Summary:
    """A table of the parameters of an optimizer, as text and in notebooks as HTML.

    Attributes:
        rows: A :class:`SummaryRow` for each parameter.
        memory: The bytes of all parameters.
    """

    def __init__(self, rows: list[SummaryRow], memory: Memory) -> None:
        """Create the table."""
        self.rows = rows
        self.memory = memory

    @property
    def total(self) -> str:
        """The line below the table."""
        weights = sum(math.prod(row.shape) for row in self.rows)
        decaying = sum(row.decay != 0.0 for row in self.rows)
        return (
            f"total: {len(self.rows):,} parameter{'s' * (len(self.rows) != 1)}, {decaying:,} with weight decay; "
            f"{weights:,} weights, {_size(self.memory.weights)}; state {_size(self.memory.state)}; "
            f"average {_size(self.memory.average)}"
        )

    def __str__(self) -> str:
        """Return the table; with many parameters only the first and the last rows."""
        cells = [SummaryRow._fields, *map(_cells, self._shortened())]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        if len(self.rows) > _MOST:
            lines.insert(1 + _MOST // 2, f"… {len(self.rows) - _MOST:,} more …")
        return "\n".join([*lines, self.total])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [*map(_cells, self._shortened())]
        if len(self.rows) > _MOST:
            rows.insert(_MOST // 2, (f"… {len(self.rows) - _MOST:,} more …", *[""] * (len(SummaryRow._fields) - 1)))
        return html_table(SummaryRow._fields, rows) + html_text(self.total)

    def _shortened(self) -> list[SummaryRow]:
        if len(self.rows) <= _MOST:
            return self.rows
        return [*self.rows[: _MOST // 2], *self.rows[-_MOST // 2 :]]


def summarize(
    names: Sequence[str],
    weights: Sequence[Any],
    states: Sequence[Mapping[str, Any]],
    group_of_each: Sequence[int],
    decays: Sequence[bool],
    groups: Sequence[ParamGroup],
    steps: int,
    waiting: Iterable[Any] = (),
) -> Summary:
    """Return a summary of parameters, one entry of each sequence for each.

    Args:
        names: Their names.
        weights: Arrays or tensors.
        states: Their state arrays, with averages, by name.
        group_of_each: The numbers of their groups.
        decays: Whether weight decay acts on them.
        groups: All groups.
        steps: How many steps were taken.
        waiting: The sums of gradients that wait for a step.
    """
    present = [group.present(steps) for group in groups]
    labels = [str(number) if group.name is None else group.name for number, group in enumerate(groups)]
    rows = []
    for name, weight, state, group, is_decaying in zip(names, weights, states, group_of_each, decays, strict=True):
        shape, dtype, label = _shape(weight) or (), _name_of(weight.dtype), labels[group]
        decay = present[group]["weight_decay"] if is_decaying else 0.0
        rows.append(
            SummaryRow(name, shape, dtype, label, present[group]["lr"], decay, sum(map(_bytes, state.values())))
        )
    of_weights = sum(map(_bytes, weights))
    of_averages = sum(_bytes(state["average"]) for state in states if "average" in state)
    total = of_weights + sum(row.state_bytes for row in rows) + sum(map(_bytes, waiting))
    return Summary(rows, Memory(of_weights, total - of_weights - of_averages, of_averages, total))


@cache
def _name_of(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _bytes(array: Any) -> int:
    # A parameter of a lazy module of PyTorch has neither shape nor memory yet.
    return 0 if _shape(array) is None else int(array.nbytes)


def _shape(array: Any) -> tuple[int, ...] | None:
    try:
        return tuple(array.shape)
    except RuntimeError:
        return None


def _cells(row: SummaryRow) -> tuple[str, ...]:
    shape = "×".join(map(str, row.shape)) or "()"
    return row.name, shape, row.dtype, row.group, f"{row.lr:.6g}", f"{row.decay:.6g}", f"{row.state_bytes:,}"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"
