"""The names of ``timm.scheduler``: its classes, and the short names of ``create_scheduler_v2``.

A step is an epoch, or an update if ``t_in_epochs`` or ``step_on_epochs`` is false. A warm-up rises from a value of its
own. The length includes it, unless ``warmup_prefix`` puts it before.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from lrcore import schedules
from lrcore._messages import brief
from lrcore.schedules.compat import Maker, Whole, accepting, check_positive, check_table, makers_in, torch, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lrcore.schedules.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """The arguments of a class of timm that most have in common."""

    lr: float
    warmup_t: Whole = 0
    warmup_lr_init: float = 0.0

    def schedule(self) -> Schedule:
        """Return the schedule."""
        raise NotImplementedError

    def _after_warmup(self, schedule: Schedule, *, prefix: bool = True, target: float | None = None) -> Schedule:
        """Return the schedule after the warm-up, which is included in it unless it is a prefix."""
        if self.warmup_t:
            rise = schedules.Linear(self.warmup_lr_init, self.lr if target is None else target, self.warmup_t)
            return rise.then(schedule if prefix else schedule.shift(-self.warmup_t), at=self.warmup_t)
        # After each step timm asks for the value of the next one, so the first step has the optimizer's.
        return schedule if schedule(0) == self.lr else schedules.Constant(self.lr).then(schedule.shift(-1), at=1)


@dataclass(frozen=True, kw_only=True)
class CyclicScheduler(Scheduler):
    """Cycles of growing length and falling height, and ``lr_min`` after them."""

    t_initial: float
    lr_min: float = 0.0
    cycle_mul: float = 1.0
    cycle_decay: float = 1.0
    cycle_limit: Whole = 1
    warmup_prefix: bool = False

    def _cycle(self, peak: float, steps: int) -> Schedule:
        """Return one cycle, from its peak to ``lr_min``."""
        raise NotImplementedError

    def _within(self, peak: float, fraction: float) -> float:
        """Return the value of a cycle at a fraction of its length."""
        return self._cycle(peak, 1)._value(fraction)

    def schedule(self) -> Schedule:
        """Return the cycles, after the warm-up."""
        return self._after_warmup(self._cycles(), prefix=self.warmup_prefix)

    def _lengths(self) -> list[float]:
        """Return the length of each cycle."""
        return [self.t_initial * self.cycle_mul**i for i in range(self.cycle_limit)]

    def _cycles(self) -> Schedule:
        check_positive("t_initial", self.t_initial)
        peaks = [self.lr * self.cycle_decay**i for i in range(self.cycle_limit)]
        lengths = self._lengths()
        if any(length % 1 for length in lengths):
            return self._table(peaks, lengths)
        schedule: Schedule = schedules.Constant(self.lr_min)
        begin = 0
        for i, (peak, given) in enumerate(zip(peaks, lengths, strict=True)):
            length = whole(f"t_initial * cycle_mul**{i}", given)
            cycle = self._cycle(peak, length)
            schedule = schedule.then(cycle, at=begin) if i else cycle
            begin += length
        return schedule

    def _table(self, peaks: Sequence[float], lengths: Sequence[float]) -> Schedule:
        """Return a table of cycles that begin at fractional steps."""
        check_table("cycles that begin between steps", sum(lengths))
        table: list[float] = []
        begin = 0.0
        for peak, length in zip(peaks, lengths, strict=True):
            steps = range(len(table), math.ceil(begin + length))
            table += [self._within(peak, (t - begin) / length) for t in steps]
            begin += length
        return schedules.Table((*table, self.lr_min))


@dataclass(frozen=True, kw_only=True)
class CosineLRScheduler(CyclicScheduler):
    """A Cosine, or a Piecewise of several."""

    k_decay: float = 1.0

    def _cycle(self, peak: float, steps: int) -> Schedule:
        return schedules.Cosine(peak, steps, self.lr_min, k=self.k_decay)

    def _cycles(self) -> Schedule:
        if self.k_decay != 1.0 or self.cycle_limit <= 1:
            return super()._cycles()
        check_positive("t_initial", self.t_initial)
        points: list[tuple[float, float]] = []
        begin: float = 0
        for i in range(self.cycle_limit):
            end = begin + self.t_initial * self.cycle_mul**i
            points += [(begin, self.lr * self.cycle_decay**i), (end, self.lr_min)]
            begin = end
        return schedules.Piecewise(tuple(points), "cosine")


@dataclass(frozen=True, kw_only=True)
class TanhLRScheduler(CyclicScheduler):
    """A Tanh for each cycle."""

    lb: float = -7.0
    ub: float = 3.0

    def _cycle(self, peak: float, steps: int) -> Schedule:
        return schedules.Tanh(peak, steps, self.lr_min, self.lb, self.ub)

    def schedule(self) -> Schedule:
        """Return the cycles, after a warm-up that rises to their value, unlike that of the other classes."""
        if not self.lb < self.ub:
            raise ValueError(f"lb must be less than ub, got {brief(self.lb)} and {self.ub!r}")
        cycles = self._cycles()
        target = self.lr if self.warmup_prefix else cycles(self.warmup_t)
        return self._after_warmup(cycles, prefix=self.warmup_prefix, target=target)


@dataclass(frozen=True, kw_only=True)
class PolyLRScheduler(CyclicScheduler):
    """A Polynomial for each cycle; with ``k_decay`` a Table."""

    power: float = 0.5
    k_decay: float = 1.0

    def _cycle(self, peak: float, steps: int) -> Schedule:
        if self.power == 0.0:
            return schedules.Constant(peak).then(self.lr_min, at=steps)
        if self.k_decay == 1.0:
            return schedules.Polynomial(peak, steps, self.lr_min, self.power)
        return schedules.Table(tuple(self._within(peak, t / steps) for t in range(steps + 1)))

    def _cycles(self) -> Schedule:
        if self.k_decay != 1.0:
            check_table("cycles with k_decay", sum(self._lengths()))
        return super()._cycles()

    def _within(self, peak: float, fraction: float) -> float:
        return float(self.lr_min + (peak - self.lr_min) * (1 - fraction**self.k_decay) ** self.power)


@dataclass(frozen=True, kw_only=True)
class StepLRScheduler(Scheduler):
    """A Step, whose length can be fractional."""

    decay_t: float
    decay_rate: float = 1.0
    warmup_prefix: bool = True

    def schedule(self) -> Schedule:
        """Return the schedule."""
        check_positive("decay_t", self.decay_t)
        is_whole = self.decay_t % 1 == 0
        schedule = schedules.Step(self.lr, int(self.decay_t) if is_whole else 1, self.decay_rate)
        return self._after_warmup(schedule if is_whole else schedule.stretch(self.decay_t), prefix=self.warmup_prefix)


@dataclass(frozen=True, kw_only=True)
class MultiStepLRScheduler(Scheduler):
    """A MultiStep whose milestones are one step earlier."""

    decay_t: Sequence[float]
    decay_rate: float = 1.0
    warmup_prefix: bool = True

    def schedule(self) -> Schedule:
        """Return the schedule."""
        if list(self.decay_t) != sorted(self.decay_t):
            raise ValueError(f"decay_t must be sorted, got {list(self.decay_t)}: timm searches it by halves")
        milestones = tuple(max(math.ceil(at) - 1, 0) for at in self.decay_t)
        return self._after_warmup(schedules.MultiStep(self.lr, milestones, self.decay_rate), prefix=self.warmup_prefix)


@dataclass(frozen=True, kw_only=True)
class PlateauLRScheduler(Scheduler):
    """Torch's, after a Linear. timm ignores the metric during the warm-up: report only after it."""

    decay_rate: float = 0.1
    patience_t: int = 10
    threshold: float = 1e-4
    cooldown_t: int = 0
    lr_min: float = 0.0
    mode: str = "max"

    def schedule(self) -> Schedule:
        """Return the schedule."""
        plateau = torch.ReduceLROnPlateau(
            lr=self.lr,
            mode=self.mode,
            factor=self.decay_rate,
            patience=self.patience_t,
            threshold=self.threshold,
            cooldown=self.cooldown_t,
            min_lr=self.lr_min,
        )
        return self._after_warmup(plateau)


@dataclass(frozen=True, kw_only=True)
class WSDLRScheduler(Scheduler):
    """A Linear, a Constant or InverseSqrt, and a decay; a Table for shapes that have no class."""

    t_initial: Whole
    decay_t: Whole
    lr_min: float = 0.0
    stable_fn: str = "constant"
    stable_timescale: float | None = None
    stable_power: float = 0.5
    decay_fn: str = "1-sqrt"
    decay_power: float = 0.5
    decay_ratio: float = 0.1

    def schedule(self) -> Schedule:
        """Return the schedule."""
        if not 0 < self.decay_t <= self.t_initial:
            raise ValueError(f"decay_t must be in [1, {self.t_initial}], t_initial, got {brief(self.decay_t)}")
        if not 0.0 < self.decay_ratio < 1.0 or not self.decay_power > 0.0:
            raise ValueError(
                f"decay_ratio must be in (0, 1) and decay_power > 0, got {brief(self.decay_ratio)} and "
                f"{self.decay_power!r}"
            )
        begin, lr_min = self.t_initial - self.decay_t, self.lr_min
        if self.stable_fn == "constant":
            top = max(self.lr, lr_min)
            return self._after_warmup(schedules.Constant(top).then(self._decay(top, lr_min), at=begin))
        stable = self._stable()
        if lr_min:
            stable = stable.at_least(lr_min)
        end = stable.shift(-begin) * self._decay(1.0, 0.0)
        if lr_min:
            # lr_min + (stable − lr_min) · f is stable · f + lr_min · (1 − f).
            end = end + self._decay(0.0, 1.0) * lr_min
        return self._after_warmup(stable.then(end, at=begin))

    def _stable(self) -> Schedule:
        shape, power = self.stable_fn, self.stable_power
        timescale = self.warmup_t if self.stable_timescale is None else self.stable_timescale
        if shape not in ("rsqrt", "power"):
            raise ValueError(f"stable_fn must be 'constant', 'rsqrt' or 'power', got {brief(shape)}")
        if not timescale > 0:
            raise ValueError(f"stable_timescale, or else warmup_t, must be > 0, got {brief(timescale)}")
        if shape == "rsqrt" or power == 0.5:
            return schedules.InverseSqrt(self.lr, timescale)
        check_positive("stable_power", power)
        check_table("a stable phase with stable_power", self.t_initial)
        return schedules.Table(tuple(self.lr * (1.0 + t / timescale) ** -power for t in range(self.t_initial + 1)))

    def _decay(self, start: float, end: float) -> Schedule:
        """Return the decay from one value to another."""
        steps, shape, power, ratio = self.decay_t, self.decay_fn, self.decay_power, self.decay_ratio
        if shape == "linear" or (shape == "power" and power == 1.0):
            return schedules.Linear(start, end, steps)
        if shape == "1-sqrt" or (shape == "power" and power == 0.5):
            return schedules.Sqrt(start, steps, end)
        if shape == "cosine":
            return schedules.Cosine(start, steps, end)
        if shape not in ("power", "exp"):
            raise ValueError(f"decay_fn must be 'linear', '1-sqrt', 'cosine', 'power' or 'exp', got {brief(shape)}")
        check_table(f"a decay with decay_fn={shape!r}", steps)
        done = [t / steps for t in range(steps + 1)]
        left = [1.0 - p**power if shape == "power" else (ratio**p - ratio) / (1.0 - ratio) for p in done]
        return schedules.Table(tuple(end + (start - end) * share for share in left))


def create_scheduler_v2(
    *,
    lr: float,
    sched: str = "cosine",
    num_epochs: float = 300,
    decay_epochs: float | None = None,
    decay_milestones: Sequence[int] = (90, 180, 270),
    patience_epochs: int = 10,
    decay_rate: float = 0.1,
    min_lr: float = 0.0,
    warmup_lr: float = 1e-5,
    warmup_epochs: Whole = 0,
    warmup_prefix: bool = False,
    cycle_mul: float = 1.0,
    cycle_decay: float = 0.1,
    cycle_limit: Whole = 1,
    k_decay: float = 1.0,
    decay_fn: str | None = None,
    stable_timescale: float | None = None,
    plateau_mode: str = "max",
    step_on_epochs: bool = True,
    updates_per_epoch: Whole = 0,
) -> Schedule:
    """Return the schedule of the class that ``sched`` stands for, with the arguments that it has."""
    if not step_on_epochs and not updates_per_epoch > 0:
        raise ValueError(f"updates_per_epoch must be > 0 where step_on_epochs is false, got {brief(updates_per_epoch)}")
    unit = 1 if step_on_epochs else updates_per_epoch
    steps, warmup = num_epochs * unit, warmup_epochs * unit
    common: dict[str, Any] = {"lr": lr, "warmup_t": warmup, "warmup_lr_init": warmup_lr}
    prefixed: dict[str, Any] = {**common, "warmup_prefix": warmup_prefix}
    cycles = {"lr_min": min_lr, "cycle_mul": cycle_mul, "cycle_decay": cycle_decay, "cycle_limit": cycle_limit}
    cyclic: dict[str, Any] = {"t_initial": steps, **cycles, **prefixed}
    if sched == "none":
        return schedules.Constant(lr)
    if sched not in _SHORT:
        raise ValueError(f"there is no sched {sched!r}; there are {', '.join(_SHORT)}, none")
    if sched == "plateau" and unit != 1:
        raise ValueError("plateau steps only in epochs")
    every = (90 if decay_epochs is None else decay_epochs) * unit
    makers: dict[str, Callable[[], Scheduler]] = {
        "cosine": lambda: CosineLRScheduler(k_decay=k_decay, **cyclic),
        "tanh": lambda: TanhLRScheduler(**cyclic),
        "poly": lambda: PolyLRScheduler(power=decay_rate, k_decay=k_decay, **cyclic),
        "step": lambda: StepLRScheduler(decay_t=every, decay_rate=decay_rate, **prefixed),
        "multistep": lambda: MultiStepLRScheduler(
            decay_t=[at * unit for at in decay_milestones], decay_rate=decay_rate, **prefixed
        ),
        "constant": lambda: StepLRScheduler(decay_t=1, **prefixed),
        "plateau": lambda: PlateauLRScheduler(
            decay_rate=decay_rate, patience_t=patience_epochs, lr_min=min_lr, mode=plateau_mode, **common
        ),
    }
    if sched in makers:
        return makers[sched]().schedule()
    steps -= 0 if warmup_prefix else warmup
    length = 0.2 if decay_epochs is None else decay_epochs
    return WSDLRScheduler(
        t_initial=whole("num_epochs", steps),
        decay_t=round(length * (steps if 0 < length < 1 else unit)),
        lr_min=min_lr,
        stable_fn="rsqrt" if sched == "rsqrt" else "constant",
        stable_timescale=None if stable_timescale is None else stable_timescale * unit,
        decay_fn=decay_fn or ("linear" if sched == "rsqrt" else "1-sqrt"),
        **common,
    ).schedule()


_SHORT = ("cosine", "tanh", "step", "multistep", "poly", "plateau", "wsd", "rsqrt", "constant")


def _without_noise(maker: Maker, name: str, **ignored: Any) -> Maker:
    """Return a function that also accepts the arguments of noise, of which the first must be None."""
    reason = "noise comes from a generator of torch"
    noise = {"noise_pct": 0.67, "noise_std": 1.0, "noise_seed": 42}
    return accepting(maker, fixed={name: None}, reason=reason, **noise, **ignored)


def _maker(kind: Callable[..., Scheduler]) -> Maker:
    """Return a function from the arguments of a class to its schedule."""

    def made(**given: Any) -> Schedule:
        return kind(**given).schedule()

    made.__signature__ = inspect.signature(kind)  # type: ignore[attr-defined]
    other = {"noise_type": "normal"} if kind is PlateauLRScheduler else {"t_in_epochs": True}
    return _without_noise(made, "noise_range_t", **other, initialize=True)


REFUSED: dict[str, str] = {}

NAMES: dict[str, Maker] = {
    **{name: _maker(kind) for name, kind in makers_in(globals()).items() if name.endswith("LRScheduler")},
    "create_scheduler_v2": _without_noise(create_scheduler_v2, "noise", cooldown_epochs=0),
    # The short names have the arguments of `create_scheduler_v2`.
    **{name: _without_noise(partial(create_scheduler_v2, sched=name), "noise", cooldown_epochs=0) for name in _SHORT},
}
