"""Schedules of lrcore as those of Keras."""

from __future__ import annotations

import operator
from functools import cache
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

import numpy as np

from lrcore.schedules.interop import bridged, imported, table_of
from lrcore.schedules.schedule import Schedule, refuse_factor

if TYPE_CHECKING:
    from collections.abc import Mapping


class Tabled:
    """A schedule of lrcore as a schedule of Keras; made by :func:`to_keras <lrcore.schedules.to_keras>`.

    Attributes:
        schedule: The schedule that the values are from.
        steps: The number of steps of its table, if it was given.
    """

    # This is all of KerasSchedule but its base class, without which the module can be imported.

    def __init__(self, schedule: Schedule | float, steps: SupportsIndex | None = None) -> None:
        keras = imported("keras", "to_keras", "keras")
        self.schedule = bridged("to_keras", schedule)
        refuse_factor("to_keras: the learning rate", self.schedule)
        dtype = np.float64 if keras.config.floatx() == "float64" else np.float32
        values = table_of("to_keras", self.schedule, steps).astype(dtype)
        self.steps = None if steps is None else operator.index(steps)
        self._last = len(values) - 1
        self._table = keras.ops.convert_to_tensor(values)

    def __call__(self, step: Any) -> Any:
        """Return the value at a step, as a tensor."""
        ops = imported("keras", "to_keras", "keras").ops
        return ops.take(self._table, ops.clip(step, 0, self._last))

    def get_config(self) -> dict[str, Any]:
        """Return the schedule as JSON, and the steps.

        Raises:
            TypeError: If there is a function in it.
        """
        return {"schedule": self.schedule.to_json(), "steps": self.steps}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return the schedule that :meth:`get_config` described."""
        return cls(Schedule.from_json(config["schedule"]), config["steps"])

    def __repr__(self) -> str:
        steps = "" if self.steps is None else f", steps={self.steps}"
        return f"to_keras({self.schedule!r}{steps})"


@cache
def schedule_class() -> Any:
    """Return the class KerasSchedule, known to Keras by its name in files."""
    keras = imported("keras", "to_keras", "keras")
    bases = (Tabled, keras.optimizers.schedules.LearningRateSchedule)
    made = type("KerasSchedule", bases, {"__module__": __name__, "__doc__": Tabled.__doc__})
    return keras.saving.register_keras_serializable(package="lrcore")(made)


def __getattr__(name: str) -> Any:
    if name == "KerasSchedule":
        return schedule_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "KerasSchedule"])
