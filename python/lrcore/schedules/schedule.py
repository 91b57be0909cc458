"""What a schedule is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, SupportsIndex

from lrcore._ranges import check_count

if TYPE_CHECKING:
    from lrcore.schedules.warmup import WarmedUp


class Schedule(ABC):
    """A hyperparameter as a pure function of the step.

    A schedule is a frozen value: it can be compared, hashed, printed and pickled, needs no optimizer, and is the same
    function after a restart. The ``k``-th step of an optimizer, from 0, uses ``schedule(k)``.
    """

    __slots__ = ()

    def __call__(self, step: SupportsIndex) -> float:
        """Return the value at a step.

        Args:
            step: The number of the step, from 0. Past the end of the schedule its last value stays.

        Raises:
            TypeError: If the step is not a whole number.
            ValueError: If the step is negative.
        """
        if type(step) is not int or step < 0:
            step = check_count("step", step)
        return self._value(step)

    @property
    def length(self) -> int | None:
        """The step from which on the value stays the same, if the schedule has one."""
        return None

    @property
    def peak(self) -> float:
        """The largest value that it takes at any step.

        Raises:
            ValueError: If there is none, since the values grow for ever.
        """
        return self._peak()

    def warmup(self, steps: int) -> WarmedUp:
        """Rise to the first value over a number of steps, then go on from there.

        Step ``k`` of the warm-up is ``first · (k + 1) / steps``, so that no step is wasted at a rate of 0. A schedule
        with a length keeps it: what follows is fitted into the steps that remain. One without a length is delayed.

        Args:
            steps: The length of the warm-up; 0 changes nothing.

        Raises:
            ValueError: If the warm-up is negative, or longer than the schedule.

        Examples:
            >>> from lrcore import schedules
            >>> rate = schedules.Cosine(0.1, steps=100).warmup(10)
            >>> [round(rate(step), 3) for step in (0, 1, 9, 10, 100)]
            [0.01, 0.02, 0.1, 0.1, 0.0]

        References:
            Goyal et al., *Accurate, Large Minibatch SGD* (2017), section 2.2.

        Note:
            optax and transformers also count the warm-up in the length; Keras does not. PyTorch's ``LinearLR`` starts
            at a factor of its own.
        """
        from lrcore.schedules.warmup import WarmedUp

        return WarmedUp(self, steps)

    @abstractmethod
    def _value(self, step: int) -> float:
        """Return the value at a step that has been checked."""

    def _peak(self) -> float:
        """Return the largest value, or raise."""
        if self.length is None:
            raise ValueError(f"the largest value of {self!r} is not known, since it has no length")
        return max(self._value(step) for step in range(self.length + 1))

    def _shortened(self, steps: int) -> Schedule:
        """Return the same course in that many steps fewer; a schedule without a length is itself."""
        del steps
        return self
