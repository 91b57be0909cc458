"""Schedules of lrcore as those of optax."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from lrcore.schedules.interop import bridged, imported, table_of

if TYPE_CHECKING:
    from lrcore.schedules.schedule import Schedule


class OptaxSchedule:
    """A function from the count of steps to the value, for JAX; made by :func:`to_optax <lrcore.schedules.to_optax>`.

    Attributes:
        schedule: The schedule that the values are from.
        steps: The number of steps of its table, if it was given.
    """

    def __init__(self, schedule: Schedule | float, steps: SupportsIndex | None = None) -> None:
        self.schedule = bridged("to_optax", schedule)
        self._values = table_of("to_optax", self.schedule, steps)
        self.steps = None if steps is None else operator.index(steps)
        self._tables: dict[np.dtype[Any], Any] = {}

    def __call__(self, count: Any) -> Any:
        """Return the values at a count, or at an array of them.

        Raises:
            TypeError: If they are not whole numbers.
        """
        jnp = imported("jax.numpy", "to_optax", "jax optax")
        if isinstance(count, int):
            count = min(count, len(self._values) - 1)
        count = jnp.asarray(count)
        if not jnp.issubdtype(count.dtype, jnp.integer):
            raise TypeError(f"count must be whole numbers, got an array of {count.dtype}")
        return jnp.take(self._table(), count, mode="clip")

    def _table(self) -> Any:
        """Return the values on the device, in the dtype that JAX has at present."""
        jax = imported("jax", "to_optax", "jax optax")
        dtype = jax.dtypes.canonicalize_dtype(np.float64)
        if dtype not in self._tables:
            # While a function is traced an array would otherwise be a part of that trace, and not be there in the next.
            with jax.ensure_compile_time_eval():
                self._tables[dtype] = jax.numpy.asarray(self._values.astype(dtype))
        return self._tables[dtype]

    def __reduce__(self) -> tuple[type[OptaxSchedule], tuple[Schedule, int | None]]:
        return OptaxSchedule, (self.schedule, self.steps)

    def __repr__(self) -> str:
        steps = "" if self.steps is None else f", steps={self.steps}"
        return f"to_optax({self.schedule!r}{steps})"
