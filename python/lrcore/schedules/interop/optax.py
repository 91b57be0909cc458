"""Schedules as schedules of optax."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from lrcore.schedules.interop import TableLookup, imported

if TYPE_CHECKING:
    from lrcore.schedules.schedule import Schedule


class OptaxSchedule(TableLookup):
    """A JAX function from the step count to the value; made by :func:`to_optax <lrcore.schedules.to_optax>`.

    Attributes:
        schedule: The schedule of the values.
        steps: The number of steps in the table, if it was given.
    """

    _maker = "to_optax"

    def __init__(self, schedule: Schedule | float, steps: SupportsIndex | None = None) -> None:
        super().__init__(schedule, steps)
        self._tables: dict[np.dtype[Any], Any] = {}

    def __call__(self, count: Any) -> Any:
        """Return the values at a count or an array of counts, or raise a TypeError if they are not integers."""
        jnp = imported("jax.numpy", "to_optax", "jax optax")
        if isinstance(count, int):
            count = min(count, len(self._values) - 1)
        count = jnp.asarray(count)
        if not jnp.issubdtype(count.dtype, jnp.integer):
            raise TypeError(f"count must be whole numbers, got an array of {count.dtype}")
        return jnp.take(self._table(), count, mode="clip")

    def _table(self) -> Any:
        """Return the values on the device, in JAX's present dtype for float64."""
        jax = imported("jax", "to_optax", "jax optax")
        dtype = jax.dtypes.canonicalize_dtype(np.float64)
        if dtype not in self._tables:
            # Otherwise an array made while a function is traced would belong to that trace and be invalid in the next.
            with jax.ensure_compile_time_eval():
                self._tables[dtype] = jax.numpy.asarray(self._values.astype(dtype))
        return self._tables[dtype]

    def __reduce__(self) -> tuple[type[OptaxSchedule], tuple[Schedule, int | None]]:
        return OptaxSchedule, (self.schedule, self.steps)
