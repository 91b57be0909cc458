"""Conversions between schedules of lrcore and those of PyTorch, optax and Keras.

A framework is imported by the first call that needs it.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, ClassVar, SupportsIndex

from lrcore import _optional
from lrcore._messages import brief
from lrcore._ranges import check_count
from lrcore._text import counted
from lrcore.schedules.metrics import metric_factors
from lrcore.schedules.schedule import Floats, Schedule, as_schedule, constant_from

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


__all__ = ["from_torch", "to_keras", "to_optax", "to_torch"]

# A longer table needs an explicit number of steps.
_LONGEST = 10_000_000
# The largest step of optax and Keras, which count in 32 bits.
_MOST = 2**31 - 1


def from_torch(scheduler: Any) -> Schedule | tuple[Schedule, ...]:
    """Return the schedule of a live ``torch.optim.lr_scheduler`` object, from its first step.

    ``schedule(k)`` is the learning rate after ``k`` calls of ``scheduler.step()``, no matter how often it has been
    called so far. To continue from its present step, use ``schedule.shift(-scheduler.last_epoch)``. The scheduler's
    arguments and ``base_lrs`` are read; the learning rates in the groups, which may have been edited, are not.

    Supported are the classes of ``torch.optim.lr_scheduler``, subclasses that compute the same learning rates, and the
    result of :func:`to_torch`. Special cases:

    * ``ReduceLROnPlateau`` becomes ``(Constant(lr) * ReduceOnPlateau(…)).at_least(min_lr)`` and restarts from the
      group's present learning rate: torch does not keep the first one, and a schedule does not keep metrics.
    * ``ChainedScheduler`` becomes a product. An error if one of its schedulers overwrites the learning rate
      (``LambdaLR``, ``CyclicLR``, ``OneCycleLR``, ``CosineAnnealingWarmRestarts``) or is no factor
      (``CosineAnnealingLR`` with ``eta_min``, or with a scheduler that is not back at 1 by ``T_max``).
    * ``SequentialLR`` becomes :meth:`then <lrcore.schedules.Schedule.then>`. Its first part can be a sequence or chain,
      at any depth; the schedule has PyTorch's values, whose milestones in a nested sequence come one step early for
      each level. An error if a later part is one, for which PyTorch raises a ``NotImplementedError`` where it begins.
    * ``CyclicLR`` and ``OneCycleLR`` can also cycle the momentum. The schedule is that of the learning rate;
      :meth:`OneCycle.momentum <lrcore.schedules.OneCycle.momentum>` is that of the momentum.

    Args:
        scheduler: The scheduler.

    Returns:
        One schedule if it is the same for all groups of the optimizer, else a tuple with one for each group.

    Raises:
        TypeError: If it is not of a supported class.
        ValueError: If no schedule has its learning rates: negative ones, or one of the cases above.
        ImportError: If PyTorch is not installed.

    Examples:
        >>> import torch  # doctest: +SKIP
        >>> from lrcore import schedules
        >>> opt = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1)  # doctest: +SKIP
        >>> scheduler = torch.optim.lr_scheduler.StepLR(opt, step_size=30)  # doctest: +SKIP
        >>> schedules.from_torch(scheduler)  # doctest: +SKIP
        Step(start=0.1, step_size=30)

    Note:
        Torch computes most learning rates from the previous ones and accumulates rounding errors; the schedule has the
        closed form. A schedule of ``MultiplicativeLR`` or ``LambdaLR`` contains its function, and has no JSON.
    """
    imported("torch", "from_torch", "torch")
    from lrcore.schedules.interop.schedulers import schedule_of

    return schedule_of(scheduler)


def to_torch(
    schedule: Schedule | float | Sequence[Schedule | float],
    optimizer: Any,
    *,
    name: str | tuple[str, int] = "lr",
    keep_ratios: bool = False,
    last_epoch: int = -1,
) -> Any:
    """Return a PyTorch scheduler that sets a hyperparameter of a PyTorch optimizer to a schedule's values.

    After ``k`` calls of ``scheduler.step()`` the groups have ``schedule(k)``; step 0 is set at once. It is an
    ``LRScheduler``: it can be pickled, copied, saved by ``state_dict`` (also for ``weights_only=True``), and be a part
    of ``SequentialLR`` or ``ChainedScheduler``.

    ``load_state_dict`` sets the values of the loaded step at once, whether the optimizer is loaded before, after or not
    at all. Only within a ``SequentialLR`` the optimizer has to be loaded too, as for torch's own schedulers. The state
    is the step, not the schedule, which the program makes again and can have changed.

    Args:
        schedule: A schedule or number for all groups, including those added later; or a sequence with one for each.
        optimizer: A PyTorch optimizer.
        name: The hyperparameter in the groups: ``"lr"``, ``"momentum"``, ``"weight_decay"``, …, or a name and an index,
            such as ``("betas", 0)``. ``get_last_lr()`` always returns the learning rates.
        keep_ratios: Whether to multiply each group's values by its ``initial_lr`` over that of the first group, so that
            the groups keep the ratios of their learning rates.
        last_epoch: The last step of the run to continue; −1 starts. Torch then needs ``initial_lr`` in the groups;
            ``load_state_dict`` is simpler.

    Returns:
        The scheduler, of the class ``lrcore.schedules.interop.torch.ScheduleLR``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the schedule depends on a metric, or is only a factor for ``"lr"``; if the numbers of groups and
            schedules differ, a group has no such hyperparameter, or ``keep_ratios`` is set for anything but positive
            learning rates.
        ImportError: If PyTorch is not installed.

    Examples:
        >>> import torch  # doctest: +SKIP
        >>> from lrcore import schedules
        >>> opt = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1)  # doctest: +SKIP
        >>> scheduler = schedules.to_torch(schedules.Linear(0.5, 0.0, steps=10), opt)  # doctest: +SKIP
        >>> opt.step()  # doctest: +SKIP
        >>> scheduler.step()  # doctest: +SKIP
        >>> opt.param_groups[0]["lr"]  # doctest: +SKIP
        0.45

    Note:
        Torch's schedulers multiply the present learning rate; this one overwrites it, so in a ``ChainedScheduler`` it
        has to be the first. A product of schedules is better. Call ``optimizer.step()`` before ``scheduler.step()``.
    """
    imported("torch", "to_torch", "torch")
    from lrcore.schedules.interop.torch import scheduler_of

    return scheduler_of(schedule, optimizer, name=name, keep_ratios=keep_ratios, last_epoch=last_epoch)


def to_optax(schedule: Schedule | float, *, steps: SupportsIndex | None = None) -> Callable[[Any], Any]:
    """Return an optax schedule: a JAX function from the step count to the value.

    It works under ``jit``, ``vmap`` and ``lax.scan`` with a traced count. Values are those of ``schedule``, in float64
    if ``jax_enable_x64`` is set, otherwise rounded to float32.

    The function looks up a table that is computed once: 4 or 8 bytes per step on the device, where it is a constant of
    the compiled program (400 kB for 100,000 steps), and 8 bytes on the host. JAX cannot run the formulas, which are
    Python and NumPy; a second implementation could differ. ``jax.pure_callback`` would need no table, but it blocks the
    device in every step, and prevents exporting and caching the program.

    Args:
        schedule: The schedule, or a number.
        steps: The number of steps in the table: all that the run will take. The last value stays. None is the
            schedule's length. Required for a schedule without a length, unless it is constant, and above 10 million
            steps.

    Returns:
        The function. It takes an integer or an array of integers.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the schedule depends on a metric, ``steps`` is required but None, or ``steps`` is out of range.
        ImportError: If JAX is not installed.

    Examples:
        >>> import jax, optax  # doctest: +SKIP
        >>> from lrcore import schedules
        >>> lr = schedules.to_optax(schedules.Linear(0.5, 0.0, steps=4))  # doctest: +SKIP
        >>> tx = optax.sgd(learning_rate=lr)  # doctest: +SKIP
        >>> print(jax.jit(lr)(1))  # doctest: +SKIP
        0.375
    """
    imported("jax", "to_optax", "jax optax")
    from lrcore.schedules.interop.optax import OptaxSchedule

    return OptaxSchedule(schedule, steps)


def to_keras(schedule: Schedule | float, *, steps: SupportsIndex | None = None) -> Any:
    """Return a Keras schedule for the ``learning_rate`` of Keras optimizers, on every backend.

    Like :func:`to_optax` it looks up a table, since a compiled training step cannot call Python: 4 bytes per step, or 8
    if Keras' ``floatx`` is float64.

    A saved model contains the JSON of the schedule. The first call of this function registers the class; a program that
    only loads a model has to import it first: ``from lrcore.schedules.interop.keras import KerasSchedule``.

    Args:
        schedule: The schedule, or a number.
        steps: The number of steps in the table, as for :func:`to_optax`.

    Returns:
        The schedule, of the class ``lrcore.schedules.interop.keras.KerasSchedule``, a subclass of
        ``keras.optimizers.schedules.LearningRateSchedule``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the schedule depends on a metric or is only a factor, ``steps`` is required but None, or
            ``steps`` is out of range.
        ImportError: If Keras is not installed.

    Examples:
        >>> import keras  # doctest: +SKIP
        >>> from lrcore import schedules
        >>> lr = schedules.to_keras(schedules.Linear(0.5, 0.0, steps=4))  # doctest: +SKIP
        >>> opt = keras.optimizers.SGD(learning_rate=lr)  # doctest: +SKIP
        >>> float(opt.learning_rate)  # doctest: +SKIP
        0.5

    Note:
        A model whose schedule contains a function can be trained, but not saved: files contain no code.
    """
    imported("keras", "to_keras", "keras")
    from lrcore.schedules.interop.keras import schedule_class

    return schedule_class()(schedule, steps)


def imported(module: str, needed_by: str, packages: str) -> Any:
    """Return a module of a framework, or raise an ImportError that says how to install it."""
    install = _optional.INSTALL_TORCH if packages == "torch" else f"python -m pip install {packages}"
    message = f"{needed_by} needs {module}, which is not installed: {install}"
    return _optional.imported(module, message)


def bridged(where: str, schedule: Any) -> Schedule:
    """Return the schedule, or a number as a Constant, or raise if it depends on a metric."""
    made = as_schedule(where, schedule)
    for part in metric_factors(made):
        raise ValueError(
            f"{where}: {brief(part)} follows what is reported to an optimizer of lrcore, not the step alone"
        )
    return made


class TableLookup:
    """A schedule of another library that looks up a table of values.

    Attributes:
        schedule: The schedule of the values.
        steps: The number of steps in the table, if it was given.
    """

    # The function of `lrcore.schedules` that makes it.
    _maker: ClassVar[str]

    def __init__(self, schedule: Schedule | float, steps: SupportsIndex | None = None) -> None:
        self.schedule = bridged(self._maker, schedule)
        self._values = table_of(self._maker, self.schedule, steps)
        self.steps = None if steps is None else operator.index(steps)

    def __repr__(self) -> str:
        steps = "" if self.steps is None else f", steps={self.steps}"
        return f"{self._maker}({self.schedule!r}{steps})"


def table_of(where: str, schedule: Schedule, steps: SupportsIndex | None) -> Floats:
    """Return the values up to the constant one, or raise if one is negative."""
    values = _values_of(where, schedule, steps)
    if len(values) and (least := values.min()) < 0.0:
        at = int(values.argmin())
        raise ValueError(
            f"{where}: a value must be in [0, inf), got {least} at step {at}; .at_least(0.0) keeps it there"
        )
    return values


def _values_of(where: str, schedule: Schedule, steps: SupportsIndex | None) -> Floats:
    last = constant_from(schedule)
    if steps is not None:
        count = check_count(f"{where}: steps", steps, least=1, most=_MOST)
        return schedule.values(count if last is None else min(count, last + 1))
    if last is None:
        raise ValueError(f"{where}: {brief(schedule)} has no length; give steps, all that a run will take")
    if last > _LONGEST:
        raise ValueError(
            f"{where}: {brief(schedule)} has {counted(last, 'step')}; give steps, all that a run will take"
        )
    return schedule.values(last + 1)
