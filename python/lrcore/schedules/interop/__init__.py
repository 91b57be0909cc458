"""Schedules of lrcore in the training loops of other frameworks, and torch's schedulers as schedules.

A framework is imported by the first call that needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, SupportsIndex

from lrcore import _optional
from lrcore._messages import brief
from lrcore._ranges import check_count
from lrcore._text import counted
from lrcore.schedules.metrics import metric_factors
from lrcore.schedules.schedule import as_schedule, constant_from

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lrcore.schedules.schedule import Floats, Schedule

__all__ = ["from_torch", "to_keras", "to_optax", "to_torch"]

# A longer table is made only of a schedule whose user gave the number of its steps.
_LONGEST = 10_000_000
# The most steps that a count of 32 bits, as optax and Keras have it, comes to.
_MOST = 2**31 - 1


def from_torch(scheduler: Any) -> Schedule | tuple[Schedule, ...]:
    """Return the schedule that a live scheduler of ``torch.optim.lr_scheduler`` follows, from its beginning.

    ``schedule(k)`` is the rate after ``k`` calls of ``scheduler.step()``, however often it has been called. To go on
    from where it is, begin later: ``schedule.shift(-scheduler.last_epoch)``. What is read are the scheduler's
    arguments and its ``base_lrs``; the rates in the groups, which anyone may have changed, are not.

    Known are the classes of ``torch.optim.lr_scheduler``, subclasses of them that leave the rate alone, and what
    :func:`to_torch` returns. A few have more to say:

    * ``ReduceLROnPlateau`` becomes ``(Constant(rate) * ReduceOnPlateau(…)).at_least(min_lr)``, and begins anew at the
      present rate of the group: torch keeps neither the first one nor, in a schedule, what was reported.
    * ``ChainedScheduler`` becomes a product. One with a scheduler that overwrites the rate (``LambdaLR``, ``CyclicLR``,
      ``OneCycleLR``, ``CosineAnnealingWarmRestarts``) or bends it (``CosineAnnealingLR`` with ``eta_min``, or with a
      scheduler that is not back at 1 by ``T_max``) is no product, and refused.
    * ``SequentialLR`` becomes :meth:`then <lrcore.schedules.Schedule.then>`. Its first part may itself be a sequence or
      a chain, at any depth: the schedule has PyTorch's values, whose milestones in a sequence within another come one
      step early for each level. As a later part either is refused, since PyTorch raises a ``NotImplementedError``
      where it begins.
    * ``CyclicLR`` and ``OneCycleLR`` may also cycle the momentum; the schedule is that of the rate alone, and
      :meth:`OneCycle.momentum <lrcore.schedules.OneCycle.momentum>` is its partner.

    Args:
        scheduler: The scheduler.

    Returns:
        One schedule if all groups of the optimizer have the same, otherwise a tuple of one for each group.

    Raises:
        TypeError: If it is no scheduler of a known class, or of a subclass that computes rates by itself.
        ValueError: If no schedule has its rates: negative ones, or one of the cases above.
        ImportError: If PyTorch is not installed.

    Examples:
        >>> import torch  # doctest: +SKIP
        >>> from lrcore import schedules
        >>> opt = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1)  # doctest: +SKIP
        >>> scheduler = torch.optim.lr_scheduler.StepLR(opt, step_size=30)  # doctest: +SKIP
        >>> schedules.from_torch(scheduler)  # doctest: +SKIP
        Step(start=0.1, step_size=30)

    Note:
        Torch computes most rates from the ones before, and so collects rounding errors; the schedule has the closed
        form. A schedule of ``MultiplicativeLR`` or ``LambdaLR`` holds its function, and has no JSON.
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
    """Return a scheduler of PyTorch that gives an optimizer of PyTorch the values of a schedule.

    After ``k`` calls of ``scheduler.step()`` the groups have ``schedule(k)``; step 0 is set at once. It is a real
    ``LRScheduler``: it can be pickled, copied, saved by ``state_dict`` (which also loads with ``weights_only=True``),
    and be a part of ``SequentialLR`` or ``ChainedScheduler``.

    Since values are pure functions of the step, ``load_state_dict`` sets the right ones at once, whether or not the
    optimizer was loaded, before or after. Only where the scheduler is a part of a ``SequentialLR`` they come from the
    optimizer, which is then to be loaded too, as torch's own are. The state is a place in the course, not the course:
    the schedule is made anew by the program, and may have changed.

    Args:
        schedule: The schedule, or a number, for all groups, also those that are added later; or a sequence of one for
            each group.
        optimizer: An optimizer of PyTorch.
        name: The hyperparameter in the groups: ``"lr"``, ``"momentum"``, ``"weight_decay"`` and the like, or the name
            and the place in a pair, as ``("betas", 0)``. ``get_last_lr()`` returns the rates all the same.
        keep_ratios: Whether each group gets the values times its ``initial_lr`` over that of the first group, so that
            groups keep the ratios of the rates that they were made with. Otherwise all get the same.
        last_epoch: The step at which a training stopped that goes on; −1 begins. Torch then wants ``initial_lr`` in
            the groups. ``load_state_dict`` is simpler.

    Returns:
        The scheduler, of the class ``lrcore.schedules.interop.torch.ScheduleLR``.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If the schedule follows reports, or is a factor alone as ``"lr"``, groups and schedules differ in
            number, a group has no such hyperparameter, or ratios are to be kept of anything but rates above 0.
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
        Torch's schedulers multiply the rate that was there. This one overwrites it: in a ``ChainedScheduler`` it comes
        first; a product of schedules is better. The order of ``optimizer.step()`` and ``scheduler.step()`` is torch's.
    """
    imported("torch", "to_torch", "torch")
    from lrcore.schedules.interop.torch import scheduler_of

    return scheduler_of(schedule, optimizer, name=name, keep_ratios=keep_ratios, last_epoch=last_epoch)


def to_optax(schedule: Schedule | float, *, steps: SupportsIndex | None = None) -> Callable[[Any], Any]:
    """Return a schedule of optax: a function of JAX from the count of steps to the value.

    It works under ``jit``, ``vmap`` and ``lax.scan``, with a count that is traced. Values are those of ``schedule``, in
    float64 if JAX has ``jax_enable_x64`` set, otherwise rounded to float32.

    It is a table, made once: 4 or 8 bytes for each step on the device, where it is a constant of what is compiled, so
    400 kB for 100,000 steps, and 8 bytes on the host. JAX can't run the formulas themselves, which are written for
    Python and NumPy, and writing each again would let them part. To call back into Python with every step
    (``jax.pure_callback``) would need no table, but it holds up the device, and keeps a program from being exported or
    cached.

    Args:
        schedule: The schedule, or a number.
        steps: How many steps the table has, if not those of the schedule's length: all that a training will take. From
            there on the value of the last one stays. A schedule without a length needs it, but a constant, and one
            longer than 10 million steps.

    Returns:
        The function. It takes a whole number, or an array of them.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If the schedule follows reports, has no length or a very long one and ``steps`` is left out, or
            ``steps`` is out of range.
        ImportError: If JAX is not installed.

    Examples:
        >>> import jax, optax  # doctest: +SKIP
        >>> from lrcore import schedules
        >>> rate = schedules.to_optax(schedules.Linear(0.5, 0.0, steps=4))  # doctest: +SKIP
        >>> tx = optax.sgd(learning_rate=rate)  # doctest: +SKIP
        >>> print(jax.jit(rate)(1))  # doctest: +SKIP
        0.375
    """
    imported("jax", "to_optax", "jax optax")
    from lrcore.schedules.interop.optax import OptaxSchedule

    return OptaxSchedule(schedule, steps)


def to_keras(schedule: Schedule | float, *, steps: SupportsIndex | None = None) -> Any:
    """Return a schedule of Keras, for the ``learning_rate`` of its optimizers, on every backend.

    Like :func:`to_optax` it is a table, made once, since a compiled training step has no number to ask Python with: 4
    bytes for each step, or 8 if Keras' ``floatx`` is float64.

    It is saved with a model as the JSON of the schedule. The class is registered by the first call of this function; a
    program that only loads a model imports it first: ``from lrcore.schedules.interop.keras import KerasSchedule``.

    Args:
        schedule: The schedule, or a number.
        steps: How many steps the table has, if not those of the schedule's length: all that a training will take. From
            there on the value of the last one stays. A schedule without a length needs it, but a constant, and one
            longer than 10 million steps.

    Returns:
        The schedule, of the class ``lrcore.schedules.interop.keras.KerasSchedule``, which is a
        ``keras.optimizers.schedules.LearningRateSchedule``.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If the schedule follows reports or is a factor alone, has no length or a very long one and ``steps``
            is left out, or ``steps`` is out of range.
        ImportError: If Keras is not installed.

    Examples:
        >>> import keras  # doctest: +SKIP
        >>> from lrcore import schedules
        >>> rate = schedules.to_keras(schedules.Linear(0.5, 0.0, steps=4))  # doctest: +SKIP
        >>> opt = keras.optimizers.SGD(learning_rate=rate)  # doctest: +SKIP
        >>> float(opt.learning_rate)  # doctest: +SKIP
        0.5

    Note:
        A schedule with a function in it trains, but can't be saved: files hold no code.
    """
    imported("keras", "to_keras", "keras")
    from lrcore.schedules.interop.keras import schedule_class

    return schedule_class()(schedule, steps)


def imported(module: str, needed_by: str, packages: str) -> Any:
    """Return a module of a framework, or say how to install it."""
    install = _optional.INSTALL_TORCH if packages == "torch" else f"python -m pip install {packages}"
    message = f"{needed_by} needs {module}, which is not installed: {install}"
    return _optional.imported(module, message)


def bridged(where: str, schedule: Any) -> Schedule:
    """Return the schedule, or a number as one, if it is a function of the step alone."""
    made = as_schedule(where, schedule)
    for part in metric_factors(made):
        raise ValueError(
            f"{where}: {brief(part)} follows what is reported to an optimizer of lrcore, not the step alone"
        )
    return made


def table_of(where: str, schedule: Schedule, steps: SupportsIndex | None) -> Floats:
    """Return the values up to the one that stays, or raise if one is below 0."""
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
        raise ValueError(f"{where}: {brief(schedule)} has no length; give steps, all that a training will take")
    if last > _LONGEST:
        raise ValueError(
            f"{where}: {brief(schedule)} has {counted(last, 'step')}; give steps, all that a training will take"
        )
    return schedule.values(last + 1)
