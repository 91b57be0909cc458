"""Schedules as schedules of Keras."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

import numpy as np

from lrcore.schedules.interop import TableLookup, imported
from lrcore.schedules.schedule import Schedule, refuse_factor

if TYPE_CHECKING:
    from collections.abc import Mapping


class TableSchedule(TableLookup):
    """A schedule of Keras that looks up a table; made by :func:`to_keras <lrcore.schedules.to_keras>`.

    Attributes:
        schedule: The schedule of the values.
        steps: The number of steps in the table, if it was given.
    """

    # KerasSchedule without its base class, so that the module can be imported without Keras.

    _maker = "to_keras"

    def __init__(self, schedule: Schedule | float, steps: SupportsIndex | None = None) -> None:
        super().__init__(schedule, steps)
        refuse_factor("to_keras: the learning rate", self.schedule)
        keras = imported("keras", "to_keras", "keras")
        dtype = np.float64 if keras.config.floatx() == "float64" else np.float32
        self._table = keras.ops.convert_to_tensor(self._values.astype(dtype))

    def __call__(self, step: Any) -> Any:
        """Return the value at a step, as a tensor."""
        ops = imported("keras", "to_keras", "keras").ops
        return ops.take(self._table, ops.clip(step, 0, len(self._values) - 1))

    def get_config(self) -> dict[str, Any]:
        """Return the schedule as JSON and the number of steps, or raise a TypeError if it contains a function."""
        return {"schedule": self.schedule.to_json(), "steps": self.steps}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return the schedule that :meth:`get_config` described."""
        return cls(Schedule.from_json(config["schedule"]), config["steps"])


@cache
def schedule_class() -> Any:
    """Return the class KerasSchedule, registered for saved models."""
    keras = imported("keras", "to_keras", "keras")
    bases = (TableSchedule, keras.optimizers.schedules.LearningRateSchedule)
    made = type("KerasSchedule", bases, {"__module__": __name__, "__doc__": TableSchedule.__doc__})
    return keras.saving.register_keras_serializable(package="lrcore")(made)


def __getattr__(name: str) -> Any:
    if name == "KerasSchedule":
        return schedule_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "KerasSchedule"])
