"""A record of a training run: rows of metrics to plot, to save, and to forward to loggers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from lrcore._messages import brief
from lrcore._optional import matplotlib
from lrcore._text import counted, html_curve, html_table, write_csv
from lrcore.optim.stats import StepInfo

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes

    from lrcore._text import TextStream

    _Floats = np.ndarray[Any, np.dtype[np.float64]]

__all__ = ["History"]


def __dir__() -> list[str]:
    return sorted(__all__)


_Info = TypeVar("_Info", bound=StepInfo | Mapping[str, Any])
# Columns that are not drawn.
_NOT_DRAWN = ("step", "applied")


class History(Sequence[dict[str, Any]]):
    """A record of a training run: a row of numbers for each call.

    Args:
        rows: The first rows, such as the :attr:`rows` of a saved record.

    Attributes:
        rows: The rows, flat dictionaries with a ``"step"``.

    Examples:
        >>> import lrcore, numpy as np
        >>> opt = lrcore.SGD({"w": np.ones(2)}, lr=0.5)
        >>> history = lrcore.History()
        >>> for _ in range(2):
        ...     loss = float((opt.params["w"] ** 2).sum()) / 2
        ...     info = history(opt.step({"w": opt.params["w"].copy()}), loss=loss)
        >>> history["loss"]
        array([1.  , 0.25])
        >>> history[-1]
        {'step': 2, 'lr': 0.5, 'applied': True, 'loss': 0.25}
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.rows: list[dict[str, Any]] = [dict(row) for row in rows]
        self._targets: list[Any] = []

    @overload
    def __call__(self, info: None = None, /, **values: Any) -> None: ...
    @overload
    def __call__(self, info: _Info, /, **values: Any) -> _Info: ...
    def __call__(self, info: Any = None, /, **values: Any) -> Any:
        """Append a row.

        Args:
            info: The result of a step, or a mapping of names to numbers; None for other values alone.
            **values: More numbers by name: a ``float``, a NumPy scalar, or an array or tensor of one number; None is
                skipped. ``step`` replaces the step of ``info``; without either, the row has the step of the row before.

        Returns:
            ``info``.

        Raises:
            TypeError: If a value is not a number.
        """
        if isinstance(info, StepInfo):
            given: dict[str, Any] = info.as_dict()
        elif info is None or isinstance(info, Mapping):
            given = dict(info or {})
        else:
            raise TypeError(
                f"history: info must be the result of opt.step(…) or a mapping, got {type(info).__name__}; of steps "
                "that return more than a StepInfo, as in lrcore.jax, pass the StepInfo alone"
            )
        given |= values
        step = given.pop("step", None)
        if step is None:
            step = self.rows[-1]["step"] if self.rows else 0
        row = {"step": int(_number("step", step))}
        row |= {str(name): _number(name, value) for name, value in given.items() if value is not None}
        self.rows.append(row)
        for target in self._targets:
            _log(target, row)
        return info

    def log_to(self, *targets: Any) -> History:
        """Forward every row: existing rows at once, and new rows when they are appended.

        Args:
            *targets: TensorBoard's ``SummaryWriter``, or any object with ``add_scalar(name, value, step)``; a Weights &
                Biases run or module, or any object with ``log(mapping, step=…)``; or a function of a row.

        Returns:
            The history itself.

        Raises:
            TypeError: If a target is none of these.
        """
        for target in targets:
            if not (hasattr(target, "add_scalar") or hasattr(target, "log") or callable(target)):
                raise TypeError(
                    "log_to: targets must have add_scalar(name, value, step), like TensorBoard's SummaryWriter, or "
                    f"log(mapping, step=…), like a Weights & Biases run, or be a function of a row, got {brief(target)}"
                )
        for target in targets:
            for row in self.rows:
                _log(target, row)
            self._targets.append(target)
        return self

    @property
    def columns(self) -> list[str]:
        """The names in all rows, in the order of their first occurrence."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    @overload
    def __getitem__(self, index: str) -> _Floats: ...
    def __getitem__(self, index: int | slice | str) -> Any:
        """Return a row, rows, or the numbers of a column, with NaN where a row has no value."""
        if not isinstance(index, str):
            return self.rows[index]
        if index not in self.columns:
            raise KeyError(f"history: column must be one of {self.columns}, got {index!r}")
        return np.array([row.get(index, math.nan) for row in self.rows], np.float64)

    def __len__(self) -> int:
        return len(self.rows)

    def to_csv(self, path_or_stream: str | os.PathLike[str] | TextStream) -> None:
        """Write the rows as CSV, with enough digits to read the same numbers back.

        Args:
            path_or_stream: A path, or an object with a ``write`` for text.

        Raises:
            OSError: If the file can't be written.
        """
        write_csv(self.rows, path_or_stream)

    def plot(self, *names: str, ax: Axes | None = None) -> Axes:
        """Draw columns over the step with matplotlib.

        Args:
            *names: The columns; without any, all but ``step`` and ``applied``.
            ax: The axes for all columns; None creates a figure with a panel for each.

        Returns:
            The axes, or those of the first panel: ``history.plot().figure.savefig("history.png")``.

        Raises:
            ImportError: If matplotlib is not installed.
            KeyError: If a column does not exist.
            ValueError: If there are no columns.
        """
        names = names or tuple(self._curves())
        if not names:
            raise ValueError("history: no columns to draw yet")
        columns = {name: self[name] for name in names}
        steps = self["step"]
        if ax is None:
            pyplot = matplotlib("matplotlib.pyplot")
            size = (6.4, 1.2 + 2.2 * len(names))
            _, grid = pyplot.subplots(len(names), sharex=True, squeeze=False, figsize=size, layout="constrained")
            panels: list[Axes] = list(grid[:, 0])
        else:
            panels = [ax] * len(names)
        for panel, (name, values) in zip(panels, columns.items(), strict=True):
            present = ~np.isnan(values)
            panel.plot(steps[present], values[present], label=name)
            panel.set_ylabel(name if ax is None else "value")
        if ax is not None:
            ax.legend(fontsize="small")
        panels[-1].set_xlabel("step")
        return panels[0]

    def __repr__(self) -> str:
        last = f" to step {self.rows[-1]['step']}" if self.rows else ""
        return f"<History: {counted(len(self), 'row')}{last}, {', '.join(self.columns) or 'no columns'}>"

    def _repr_html_(self) -> str:
        """Return a curve for each column, with its last value."""
        curves = {name: self[name].tolist() for name in self._curves()}
        images = "".join(f"<div>{html_curve((values, '#1f77b4'))}</div>" for values in curves.values())
        last = [[name, f"{[x for x in values if not math.isnan(x)][-1]:.4g}"] for name, values in curves.items()]
        return html_table(["column", "last"], last) + images

    def _curves(self) -> list[str]:
        return [name for name in self.columns if name not in _NOT_DRAWN]


def _number(name: str, value: Any) -> Any:
    """Return a Python number for a scalar of any library; bools and integers keep their type."""
    if hasattr(value, "item"):
        try:
            value = value.item()
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"history: {name} must be one number, got {type(value).__name__}: {error}") from None
    if not isinstance(value, bool | int | float):
        raise TypeError(f"history: {name} must be a number, got {type(value).__name__}: {value!r:.60}")
    return value


def _log(target: Any, row: dict[str, Any]) -> None:
    step, values = row["step"], {name: value for name, value in row.items() if name != "step"}
    if hasattr(target, "add_scalar"):
        for name, value in values.items():
            target.add_scalar(name, value, step)
    elif hasattr(target, "log"):
        target.log(values, step=step)
    else:
        target(dict(row))
