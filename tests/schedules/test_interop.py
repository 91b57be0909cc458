"""Conversions to and from torch, optax and Keras keep the values."""

import copy
import json
import os
import pickle
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from lrcore import _optional
from lrcore.schedules import (
    WSD,
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    Lambda,
    Linear,
    MultiStep,
    OneCycle,
    Piecewise,
    ReduceOnPlateau,
    Step,
    Table,
    Warmup,
    from_torch,
    to_keras,
    to_optax,
    to_torch,
)
from support.labels import label

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "schedules_interop.md"

FINITE = [
    Constant(0.3),
    Linear(1.0, 0.0, steps=20),
    Linear(1.0, 0.5, steps=0),
    Cosine(0.1, steps=30).warmup(5),
    OneCycle(0.5, steps=25),
    WSD(1.0, 30, 4, 8),
    MultiStep(1.0, [3, 9]),
    Piecewise([(2, 0.0), (10.5, 1.0), (30, 0.5)]),
    Table([0.1, 0.2, 0.05]),
    Linear(0.0, 1.0, steps=5).then(Cosine(1.0, steps=10)) * 0.1,
    Lambda(lambda step: 1.0 / (1 + step), steps=20),
]
ENDLESS = [
    Exponential(0.3, gamma=0.9),
    Step(0.3, step_size=3),
    CosineRestarts(0.3, period=5, factor=1.5),
    Cyclic(0.1, 0.5, up=4, mode="exp_range", gamma=0.9),
    Exponential(0.3, gamma=0.9).warmup(5),
]
FEEDBACK = [
    ReduceOnPlateau(),
    Constant(0.1) * ReduceOnPlateau(),
    (Cosine(0.1, steps=10) * ReduceOnPlateau()).at_least(0.01).warmup(2),
]


def blocks():
    """The Python of the page, with the framework that each needs."""
    for code in re.findall(
        r"^```python fragment\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        yield next(name for name in ("keras", "optax", "torch") if f"import {name}" in code), code


BLOCKS = list(blocks())


# Runs the example of a docstring, which is skipped otherwise, since its framework need not be there.
EXAMPLE = """
import doctest, io
from lrcore.schedules import interop

[test] = doctest.DocTestFinder(recurse=False).find(interop.{name}, "{name}")
assert test.examples
for example in test.examples:
    example.options.pop(doctest.SKIP, None)
output = io.StringIO()
assert not doctest.DocTestRunner().run(test, out=output.write).failed, output.getvalue()
"""

# The frameworks


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def jax():
    pytest.importorskip("optax")
    return pytest.importorskip("jax")


def sgd(torch, *rates, **options):
    """An optimizer with a group for each rate."""
    groups = [{"params": [torch.zeros(2, requires_grad=True)], "lr": rate} for rate in rates or (0.1,)]
    return torch.optim.SGD(groups, lr=0.1, **options)


def rates(opt, name="lr"):
    return [group[name] for group in opt.param_groups]


def walk(opt, scheduler, steps):
    """The rates of the groups at so many steps, from the present one."""
    seen = []
    for _ in range(steps):
        seen.append([float(rate) for rate in rates(opt)])
        opt.step()
        scheduler.step()
    return np.array(seen)


# From torch


def warmed_up(m, opt, milestone=5):
    return m.SequentialLR(opt, [m.LinearLR(opt, 0.1, total_iters=5), m.CosineAnnealingLR(opt, 20)], [milestone])


# PyTorch begins the first part of a sequence within another by a step of its own.
FIRST = {
    "ExponentialLR": lambda m, opt: m.ExponentialLR(opt, 0.9),
    "MultiplicativeLR": lambda m, opt: m.MultiplicativeLR(opt, lambda step: 1.0 - 1.0 / (step + 2)),
    "PolynomialLR": lambda m, opt: m.PolynomialLR(opt, total_iters=20, power=2.0),
    "CosineAnnealingLR": lambda m, opt: m.CosineAnnealingLR(opt, T_max=15, eta_min=0.01),
    "CosineAnnealingLR of a step": lambda m, opt: m.CosineAnnealingLR(opt, T_max=1, eta_min=0.01),
    "CosineAnnealingWarmRestarts": lambda m, opt: m.CosineAnnealingWarmRestarts(opt, T_0=5, T_mult=2, eta_min=0.01),
    "ConstantLR": lambda m, opt: m.ConstantLR(opt, factor=0.25, total_iters=4),
    "MultiStepLR": lambda m, opt: m.MultiStepLR(opt, [0, 3, 9], gamma=0.3),
    "CyclicLR": lambda m, opt: m.CyclicLR(opt, 0.1, 0.4, 5),
    "ScheduleLR": lambda _, opt: to_torch(Cosine(0.1, steps=20).warmup(3), opt),
}
SCHEDULERS = {
    "LambdaLR": lambda m, opt: m.LambdaLR(opt, lambda step: 0.95**step),
    "LambdaLR of several": lambda m, opt: m.LambdaLR(opt, [lambda step, k=k: k / (1 + step) for k in (1, 2)]),
    "MultiplicativeLR": lambda m, opt: m.MultiplicativeLR(opt, lambda step: 1.0 - 1.0 / (step + 2)),
    "StepLR": lambda m, opt: m.StepLR(opt, step_size=7, gamma=0.5),
    "MultiStepLR": lambda m, opt: m.MultiStepLR(opt, [0, 3, 9, 9, 30], gamma=0.3),
    "ConstantLR": lambda m, opt: m.ConstantLR(opt, factor=0.25, total_iters=4),
    "ConstantLR without steps": lambda m, opt: m.ConstantLR(opt, factor=0.25, total_iters=0),
    "LinearLR": lambda m, opt: m.LinearLR(opt, 0.2, 0.7, total_iters=12),
    "LinearLR to 0": lambda m, opt: m.LinearLR(opt, 1.0, 0.0, total_iters=12),
    "LinearLR without steps": lambda m, opt: m.LinearLR(opt, total_iters=0),
    "ExponentialLR": lambda m, opt: m.ExponentialLR(opt, 0.93),
    "PolynomialLR": lambda m, opt: m.PolynomialLR(opt, total_iters=20, power=2.0),
    "CosineAnnealingLR": lambda m, opt: m.CosineAnnealingLR(opt, T_max=15, eta_min=0.01),
    "CosineAnnealingLR that begins below": lambda m, opt: m.CosineAnnealingLR(opt, T_max=15, eta_min=0.5),
    "CosineAnnealingWarmRestarts": lambda m, opt: m.CosineAnnealingWarmRestarts(opt, T_0=5, T_mult=2, eta_min=0.01),
    "CyclicLR": lambda m, opt: m.CyclicLR(opt, 0.1, [0.4, 0.5], step_size_up=6, step_size_down=3),
    "CyclicLR triangular2": lambda m, opt: m.CyclicLR(opt, 0.1, 0.4, step_size_up=5, mode="triangular2"),
    "CyclicLR exp_range": lambda m, opt: m.CyclicLR(opt, 0.1, 0.4, step_size_up=5, mode="exp_range", gamma=0.9),
    "CyclicLR with a scale": lambda m, opt: m.CyclicLR(opt, 0.1, 0.4, step_size_up=5, scale_fn=lambda cycle: 1 / cycle),
    "OneCycleLR": lambda m, opt: m.OneCycleLR(opt, [0.3, 0.7], total_steps=60),
    "OneCycleLR of three phases": lambda m, opt: m.OneCycleLR(
        opt, 0.3, total_steps=60, pct_start=0.25, three_phase=True, anneal_strategy="linear", div_factor=10.0
    ),
    "SequentialLR": lambda m, opt: m.SequentialLR(
        opt, [m.LinearLR(opt, 0.1, total_iters=5), m.CosineAnnealingLR(opt, 20), m.ExponentialLR(opt, 0.9)], [5, 25]
    ),
    "SequentialLR from its second": lambda m, opt: m.SequentialLR(
        opt, [m.ConstantLR(opt), m.StepLR(opt, 4, 0.5), m.LambdaLR(opt, lambda step: 1 / (1 + step))], [0, 10]
    ),
    "SequentialLR into no steps": lambda m, opt: m.SequentialLR(
        opt, [m.StepLR(opt, 2, 0.5), m.ConstantLR(opt, total_iters=0)], [10]
    ),
    "SequentialLR with a skip": lambda m, opt: m.SequentialLR(
        opt, [m.StepLR(opt, 2, 0.5), m.ConstantLR(opt), m.PolynomialLR(opt, 9)], [10, 10]
    ),
    "SequentialLR with products": lambda m, opt: m.SequentialLR(
        opt, [m.ExponentialLR(opt, 0.9), m.MultiplicativeLR(opt, lambda _: 0.99)], [10]
    ),
    "SequentialLR with restarts": lambda m, opt: m.SequentialLR(
        opt, [m.LinearLR(opt), m.CosineAnnealingWarmRestarts(opt, 7, 2)], [5]
    ),
    "SequentialLR into one cycle": lambda m, opt: m.SequentialLR(
        opt, [m.ExponentialLR(opt, 0.9), m.OneCycleLR(opt, 0.5, total_steps=60)], [5]
    ),
    "SequentialLR of cycles": lambda m, opt: m.SequentialLR(
        opt, [m.CyclicLR(opt, 0.1, 0.4, 5), m.CyclicLR(opt, 0.05, 0.2, 4)], [20]
    ),
    "ChainedScheduler": lambda m, opt: m.ChainedScheduler(
        [m.ConstantLR(opt, 0.1, total_iters=20), m.ExponentialLR(opt, 0.9), m.MultiStepLR(opt, [5, 50])]
    ),
    "ChainedScheduler of one": lambda m, opt: m.ChainedScheduler([m.CosineAnnealingLR(opt, 9, eta_min=0.01)]),
    "ChainedScheduler with a cosine": lambda m, opt: m.ChainedScheduler(
        [m.LinearLR(opt, 0.1, total_iters=5), m.CosineAnnealingLR(opt, T_max=25)]
    ),
    "ChainedScheduler within one": lambda m, opt: m.ChainedScheduler(
        [m.ChainedScheduler([m.StepLR(opt, 3), m.LinearLR(opt)]), m.ExponentialLR(opt, 0.9)]
    ),
    "SequentialLR in a ChainedScheduler": lambda m, opt: m.ChainedScheduler([warmed_up(m, opt)]),
    "SequentialLR within one": lambda m, opt: m.SequentialLR(opt, [warmed_up(m, opt), m.ConstantLR(opt, 0.5)], [40]),
    "SequentialLR within one, three deep": lambda m, opt: m.SequentialLR(
        opt, [m.SequentialLR(opt, [warmed_up(m, opt), m.StepLR(opt, 3, 0.5)], [30]), m.ExponentialLR(opt, 0.9)], [40]
    ),
    "SequentialLR whose first part has begun": lambda m, opt: m.SequentialLR(
        opt, [m.SequentialLR(opt, [warmed_up(m, opt, 1), m.StepLR(opt, 3, 0.5)], [9])], []
    ),
    "SequentialLR whose part begins at once": lambda m, opt: m.SequentialLR(
        opt, [m.SequentialLR(opt, [warmed_up(m, opt, 2), m.StepLR(opt, 3, 0.5)], [9])], []
    ),
    "SequentialLR of a ChainedScheduler": lambda m, opt: m.SequentialLR(
        opt, [m.ChainedScheduler([m.LinearLR(opt, total_iters=5), m.CosineAnnealingLR(opt, 9)]), m.StepLR(opt, 9)], [50]
    ),
    "SequentialLR of a ChainedScheduler of one": lambda m, opt: m.SequentialLR(
        opt,
        [m.SequentialLR(opt, [m.ChainedScheduler([warmed_up(m, opt)]), m.StepLR(opt, 9)], [20])],
        [],
    ),
    **{
        f"SequentialLR within one, from {name}": lambda m, opt, make=make: m.SequentialLR(
            opt, [m.SequentialLR(opt, [make(m, opt), m.StepLR(opt, 3, 0.5)], [30]), m.ExponentialLR(opt, 0.9)], [40]
        )
        for name, make in FIRST.items()
    },
    "ScheduleLR": lambda _, opt: to_torch(Cosine(0.1, steps=20).warmup(3), opt),
    "ScheduleLR of several": lambda _, opt: to_torch([Cosine(0.1, steps=20), 0.5], opt),
    "ScheduleLR with ratios": lambda _, opt: to_torch(Cosine(0.1, steps=20), opt, keep_ratios=True),
    "ScheduleLR in a SequentialLR": lambda m, opt: m.SequentialLR(
        opt, [to_torch(Linear(0.0, 1.0, steps=5), opt), to_torch(Cosine(1.0, steps=20), opt)], [5]
    ),
}  # fmt: skip


# PyTorch warns of the steps that it takes itself as it makes a sequence within another.
@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
def test_a_schedule_from_torch_has_torchs_learning_rates(torch, make):
    opt = sgd(torch, 0.1, 0.3, momentum=0.9)
    scheduler = make(torch.optim.lr_scheduler, opt)
    made = from_torch(scheduler)
    seen = walk(opt, scheduler, 60)
    for group, schedule in enumerate(made if isinstance(made, tuple) else (made, made)):
        assert schedule.values(60) == pytest.approx(seen[:, group], rel=1e-12, abs=1e-12)


# PyTorch warns of the steps that it takes itself as it makes a sequence within another.
@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
def test_a_schedule_from_torch_starts_at_the_first_step(torch, make):
    opt = sgd(torch, 0.1, 0.3, momentum=0.9)
    scheduler = make(torch.optim.lr_scheduler, opt)
    before = from_torch(scheduler)
    walk(opt, scheduler, 17)
    after = from_torch(scheduler)
    for first, second in zip(np.ravel(before), np.ravel(after), strict=True):
        assert second.values(60).tolist() == first.values(60).tolist()
    now = [schedule.shift(-17)(0) for schedule in np.ravel(after)]
    assert rates(opt)[: len(now)] == pytest.approx(now)


def test_groups_with_equal_schedules_get_one(torch):
    m = torch.optim.lr_scheduler
    assert from_torch(m.StepLR(sgd(torch, 0.1, 0.1), 30)) == Step(0.1, step_size=30)
    assert from_torch(m.StepLR(sgd(torch, 0.1, 0.3), 30)) == (Step(0.1, step_size=30), Step(0.3, step_size=30))
    assert from_torch(m.CyclicLR(sgd(torch, 0.1, 0.3), 0.1, 0.4, 5, cycle_momentum=False)) == Cyclic(0.1, 0.4, 5, 5)


def test_a_tensor_learning_rate_is_read(torch):
    assert from_torch(torch.optim.lr_scheduler.ExponentialLR(sgd(torch, torch.tensor(0.5)), 0.9)) == Exponential(
        0.5, 0.9
    )


def test_a_plateau_of_torch_reduces_at_the_same_reports(torch):
    opt = sgd(torch, 0.4, 0.8)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        opt, factor=0.5, patience=1, threshold=0.01, cooldown=1, min_lr=[0.03, 0.3]
    )
    made = from_torch(scheduler)
    [plateau, _] = [schedule.a.b for schedule in made]
    tracker = plateau.tracker()
    losses = [1.0, 0.9, 0.9, 0.895, 0.9, 0.9, 0.9, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]
    seen = []
    for loss in losses:
        scheduler.step(loss)
        tracker.report(loss)
        seen.append(tuple(rates(opt)))
        assert seen[-1] == pytest.approx((max(0.4 * tracker.factor, 0.03), max(0.8 * tracker.factor, 0.3)))
    assert len(set(seen)) > 3
    assert from_torch(scheduler)[0](0) == pytest.approx(0.03)


def test_a_subclass_with_the_same_learning_rates_is_supported(torch):
    class Named(torch.optim.lr_scheduler.StepLR):
        def label(self):
            return "steps"

    assert from_torch(Named(sgd(torch), 30)) == Step(0.1, step_size=30)


def refused_from_torch(torch):
    m = torch.optim.lr_scheduler

    class Own(m.StepLR):
        def get_lr(self):
            return [1.0]

    class Direct(m.LRScheduler):
        def get_lr(self):
            return [1.0]

    opt, other, third, fourth = (sgd(torch, momentum=0.9) for _ in range(4))
    known = "from_torch: the scheduler must be one of LambdaLR, MultiplicativeLR, StepLR, "
    yield Own(sgd(torch), 3), TypeError, known
    yield Direct(sgd(torch)), TypeError, known
    yield torch.optim.swa_utils.SWALR(sgd(torch), swa_lr=0.1), TypeError, known
    yield 3, TypeError, known
    yield opt, TypeError, known
    chain = m.ChainedScheduler([m.StepLR(opt, 3), m.LambdaLR(opt, lambda _: 1.0)])
    yield chain, ValueError, "from_torch: a ChainedScheduler with a LambdaLR, which overwrites learning"
    chain = m.ChainedScheduler([m.StepLR(opt, 3), m.CosineAnnealingLR(opt, 9)])
    yield chain, ValueError, "from_torch: a ChainedScheduler with a CosineAnnealingLR and a StepLR that is not back"
    chain = m.ChainedScheduler([m.LinearLR(opt, total_iters=10), m.CosineAnnealingLR(opt, 9)])
    yield chain, ValueError, "from_torch: a ChainedScheduler with a CosineAnnealingLR and a LinearLR that is not back"
    chain = m.ChainedScheduler([m.LinearLR(opt, end_factor=0.5), m.CosineAnnealingLR(opt, 9)])
    yield chain, ValueError, "from_torch: a ChainedScheduler with a CosineAnnealingLR and a LinearLR that is not back"
    chain = m.ChainedScheduler([m.LinearLR(opt), m.CosineAnnealingLR(opt, 9, eta_min=0.1)])
    yield chain, ValueError, "from_torch: a ChainedScheduler with a CosineAnnealingLR that has an eta_min"
    chain = m.ChainedScheduler([warmed_up(m, other), m.LinearLR(other)])
    yield chain, ValueError, "from_torch: a ChainedScheduler with a SequentialLR, which overwrites learning"
    for part in (warmed_up(m, other), m.ChainedScheduler([m.LinearLR(other)])):
        outer = m.SequentialLR(other, [m.StepLR(other, 3), part], [2])
        message = f"from_torch: a {type(part).__name__} within a SequentialLR must be its first part; PyTorch raises"
        yield outer, ValueError, message
        outer.step()
        with pytest.raises(NotImplementedError):
            outer.step()
    parts = [m.StepLR(third, 3), m.ConstantLR(third), m.LinearLR(third)]
    yield m.SequentialLR(third, parts, [9, 4]), ValueError, "from_torch: milestones of a SequentialLR must not fall"
    scheduler = to_torch(Constant(0.9), fourth, name="momentum")
    yield scheduler, ValueError, "from_torch: the scheduler sets 'momentum', not the learning rate"
    scheduler = m.CyclicLR(sgd(torch), 0.5, 0.1, 5, cycle_momentum=False)
    yield scheduler, ValueError, "Cyclic: low must be in [0, 0.1], the high value, got 0.5"


@pytest.mark.filterwarnings("ignore:Detected call of")
def test_schedulers_without_a_schedule_are_refused(torch):
    for scheduler, exception, message in refused_from_torch(torch):
        with pytest.raises(exception, match=f"^{re.escape(message)}"):
            from_torch(scheduler)


# To torch


@pytest.mark.parametrize("schedule", FINITE + ENDLESS, ids=label)
def test_after_k_steps_the_groups_have_the_value_at_k(torch, schedule):
    opt = sgd(torch, 0.1, 0.3)
    scheduler = to_torch(schedule, opt)
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    for k in range(40):
        assert rates(opt) == scheduler.get_last_lr() == [schedule(k)] * 2
        opt.step()
        scheduler.step()


def test_a_run_follows_the_schedule(torch):
    schedule = Cosine(0.1, steps=10).warmup(3)
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    opt = torch.optim.SGD([weight], lr=1.0)
    scheduler = to_torch(schedule, opt)
    expected = np.ones(2)
    for k in range(12):
        opt.zero_grad()
        (weight**2).sum().backward()
        opt.step()
        scheduler.step()
        expected -= schedule(k) * 2.0 * expected
    assert weight.detach().numpy() == pytest.approx(expected, rel=1e-14)


def test_each_group_can_have_its_schedule(torch):
    opt = sgd(torch, 0.1, 0.3)
    seen = walk(opt, to_torch([Linear(1.0, 0.0, steps=5), 0.7], opt), 8)
    assert seen.T.tolist() == [Linear(1.0, 0.0, steps=5).values(8).tolist(), [0.7] * 8]


def test_groups_keep_their_ratios_if_asked(torch):
    opt = sgd(torch, 0.5, 0.25, 0.0)
    seen = walk(opt, to_torch(Linear(1.0, 0.0, steps=5), opt, keep_ratios=True), 8)
    expected = Linear(1.0, 0.0, steps=5).values(8)
    assert seen.T.tolist() == [expected.tolist(), (expected / 2).tolist(), [0.0] * 8]


def test_a_group_that_is_added_later_has_the_schedule_too(torch):
    opt = sgd(torch, 0.5)
    scheduler = to_torch(Linear(1.0, 0.0, steps=4), opt, keep_ratios=True)
    walk(opt, scheduler, 1)
    opt.add_param_group({"params": [torch.zeros(1, requires_grad=True)], "lr": 0.25})
    walk(opt, scheduler, 1)
    assert rates(opt) == [0.5, 0.25]
    walk(opt, scheduler, 1)
    assert rates(opt) == [0.25, 0.125]


def test_other_hyperparameters_follow_a_schedule(torch):
    weight = torch.zeros(2, requires_grad=True)
    opt = torch.optim.AdamW([weight], lr=0.1)
    momentum, decay = Linear(0.85, 0.95, steps=5), Cosine(0.1, steps=8)
    schedulers = [to_torch(momentum, opt, name=("betas", 0)), to_torch(decay, opt, name="weight_decay")]
    for k in range(10):
        assert rates(opt, "betas") == [(momentum(k), 0.999)]
        assert rates(opt, "weight_decay") == [decay(k)]
        assert rates(opt) == schedulers[0].get_last_lr() == [0.1]
        opt.step()
        for scheduler in schedulers:
            scheduler.step()


def test_tensors_in_the_groups_stay_the_same_tensors(torch):
    rate, beta = torch.tensor(0.5), torch.tensor(0.9)
    opt = torch.optim.Adam([torch.zeros(2, requires_grad=True)], lr=rate, betas=(beta, torch.tensor(0.999)))
    schedulers = [to_torch(Linear(1.0, 0.0, 4), opt), to_torch(Linear(0.5, 0.75, 2), opt, name=("betas", 0))]
    assert (rate.item(), beta.item()) == (1.0, 0.5)
    opt.step()
    for scheduler in schedulers:
        scheduler.step()
    assert (rate.item(), beta.item()) == (0.75, 0.625)
    assert opt.param_groups[0]["lr"] is rate
    assert opt.param_groups[0]["betas"][0] is beta
    assert [value.item() for value in schedulers[0].get_last_lr()] == [0.75]


@pytest.mark.parametrize("order", ["scheduler", "scheduler optimizer", "optimizer scheduler"])
def test_a_loaded_state_sets_the_learning_rate_at_once(torch, order, tmp_path):
    schedule = Cosine(0.1, steps=20).warmup(4)
    opt = sgd(torch, 0.5, 0.25)
    scheduler = to_torch(schedule, opt, keep_ratios=True)
    walk(opt, scheduler, 7)
    torch.save({"scheduler": scheduler.state_dict(), "optimizer": opt.state_dict()}, tmp_path / "saved.pt")

    saved = torch.load(tmp_path / "saved.pt", weights_only=True)
    again = sgd(torch, 0.5, 0.25)
    restored = to_torch(schedule, again, keep_ratios=True)
    for name in order.split():
        {"scheduler": restored, "optimizer": again}[name].load_state_dict(saved[name])
    assert rates(again) == restored.get_last_lr() == [schedule(7), schedule(7) / 2]
    assert walk(again, restored, 20).tolist() == walk(opt, scheduler, 20).tolist()


def test_a_loaded_state_is_a_step_of_the_present_schedule(torch):
    opt = sgd(torch)
    old = to_torch(Linear(1.0, 0.0, steps=4), opt)
    walk(opt, old, 2)
    new = to_torch(Linear(8.0, 0.0, steps=4), opt)
    new.load_state_dict(old.state_dict())
    assert rates(opt) == [4.0]


def test_a_loaded_state_sets_other_hyperparameters_too(torch):
    opt, again = sgd(torch), sgd(torch)
    scheduler = to_torch(Linear(0.5, 0.9, steps=4), opt, name="momentum")
    walk(opt, scheduler, 2)
    to_torch(Linear(0.5, 0.9, steps=4), again, name="momentum").load_state_dict(scheduler.state_dict())
    assert (rates(again, "momentum"), rates(again)) == ([0.7], [0.1])


@pytest.mark.parametrize("given", [Warmup(10), [0.1, Warmup(10)], Warmup(10) * Warmup(3)], ids=label)
def test_a_factor_alone_is_no_learning_rate(torch, given):
    with pytest.raises(
        ValueError, match=r"^to_torch: lr must be a value, got .*Warmup\(steps=10\).* multiply a value by it"
    ):
        to_torch(given, sgd(torch, 0.1, 0.3))
    to_torch(Warmup(10), sgd(torch, momentum=0.9), name="momentum")
    to_torch(0.1 * Warmup(10), sgd(torch))


def test_a_run_can_continue_from_a_step(torch):
    opt = sgd(torch, 0.5)
    walk(opt, to_torch(Linear(1.0, 0.0, steps=8), opt), 3)
    scheduler = to_torch(Linear(1.0, 0.0, steps=8), opt, last_epoch=3)
    assert rates(opt) == [0.5]
    assert scheduler.last_epoch == 4


def pickled(value):
    return pickle.loads(pickle.dumps(value))  # noqa: S301


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
def test_a_copy_is_independent(torch, duplicate):
    opt = sgd(torch, momentum=0.9)
    scheduler = to_torch([Cosine(0.1, steps=20)], opt, name="momentum")
    walk(opt, scheduler, 3)
    twin = duplicate(scheduler)
    assert type(twin) is type(scheduler)
    assert twin.optimizer is not opt
    walk(twin.optimizer, twin, 4)
    assert rates(twin.optimizer, "momentum") == [Cosine(0.1, steps=20)(7)]
    assert rates(opt, "momentum") == [Cosine(0.1, steps=20)(3)]


def sequence(torch, opt):
    m = torch.optim.lr_scheduler
    parts = [to_torch(Linear(0.0, 1.0, steps=3), opt), to_torch(Cosine(1.0, steps=9), opt), m.ExponentialLR(opt, 0.5)]
    return m.SequentialLR(opt, parts, [3, 7])


def test_schedules_are_parts_of_a_sequence(torch):
    opt = sgd(torch, 0.5)
    expected = Linear(0.0, 1.0, steps=3).then(Cosine(1.0, steps=9)).then(Exponential(0.5, gamma=0.5), at=7)
    assert walk(opt, sequence(torch, opt), 12)[:, 0].tolist() == expected.values(12).tolist()


@pytest.mark.parametrize("steps", range(10))
def test_a_sequence_resumes_from_its_state_and_the_optimizers(torch, steps):
    opt, again = sgd(torch, 0.5), sgd(torch, 0.5)
    scheduler, restored = sequence(torch, opt), sequence(torch, again)
    walk(opt, scheduler, steps)
    again.load_state_dict(opt.state_dict())
    restored.load_state_dict(scheduler.state_dict())
    assert restored.get_last_lr() == rates(again) == rates(opt)
    assert walk(again, restored, 9).tolist() == walk(opt, scheduler, 9).tolist()


def test_a_schedule_is_the_first_of_a_chain(torch):
    m, opt = torch.optim.lr_scheduler, sgd(torch)
    rate, momentum = Cosine(1.0, steps=9), Linear(0.5, 0.9, steps=4)
    chain = m.ChainedScheduler(
        [to_torch(rate, opt), to_torch(momentum, opt, name="momentum"), m.ConstantLR(opt, 0.5, total_iters=2)]
    )
    assert walk(opt, chain, 6)[2:, 0].tolist() == [rate(2) * 2, *rate.values(range(3, 6))]
    assert rates(opt, "momentum") == [0.9]


def refused_to_torch(torch):
    opt, flat = sgd(torch, 0.1, 0.2, momentum=0.9), sgd(torch, 0.0, 0.1)
    adam = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    yield lambda: to_torch("cosine", opt), TypeError, "to_torch: schedule: a schedule or a number is needed"
    yield lambda: to_torch([0.1, None], opt), TypeError, "to_torch: schedule[1]: a schedule or a number is needed"
    yield lambda: to_torch(0.1, "adam"), TypeError, "to_torch: optimizer must be one of PyTorch, got 'adam'"
    yield lambda: to_torch([0.1], opt), ValueError, "to_torch: there are 2 groups, got 1 schedules"
    yield lambda: to_torch(0.1, opt, name="betas"), ValueError, "to_torch: group 0 has no 'betas'; it has dampening,"
    yield lambda: to_torch(0.1, opt, name=3), TypeError, "to_torch: name must be a string"
    yield lambda: to_torch(0.1, opt, name=("betas", "0")), TypeError, "to_torch: name must be a string"
    yield lambda: to_torch(0.1, opt, name="params"), ValueError, "to_torch: group 0: 'params' has several values"
    yield lambda: to_torch(0.1, adam, name="betas"), ValueError, "to_torch: group 0: 'betas' has several values"
    yield lambda: to_torch(0.1, adam, name=("betas", 2)), ValueError, "to_torch: group 0: 'betas' has no place 2"
    yield lambda: to_torch(0.1, adam, name=("lr", 0)), ValueError, "to_torch: group 0: 'lr' has no place 0"
    momentum = {"name": "momentum", "keep_ratios": True}
    yield lambda: to_torch(0.1, opt, **momentum), ValueError, "to_torch: keep_ratios is for learning rates only"
    yield lambda: to_torch(0.1, flat, keep_ratios=True), ValueError, "to_torch: the first group has the learning rate 0"
    scheduler = to_torch(0.1, sgd(torch))
    yield lambda: scheduler.load_state_dict({"last_epoch": 1}), ValueError, "the state of a ScheduleLR has last_epoch, "
    state = {**scheduler.state_dict(), "last_epoch": "7"}
    yield lambda: scheduler.load_state_dict(state), TypeError, "last_epoch must be a whole number"


def test_bad_arguments_of_to_torch_are_refused_before_anything_is_set(torch):
    for call, exception, message in refused_to_torch(torch):
        with pytest.raises(exception, match=f"^{re.escape(message)}"):
            call()
    opt = sgd(torch, 0.1)
    with pytest.raises(ValueError, match="has no 'betas'"):
        to_torch(0.7, opt, name=("betas", 0))
    assert rates(opt) == [0.1]
    assert "initial_lr" not in opt.param_groups[0]


# To optax


@pytest.mark.parametrize("schedule", FINITE, ids=label)
def test_a_schedule_of_optax_has_the_values_rounded_to_float32(jax, schedule):
    rate = to_optax(schedule)
    expected = schedule.values(60).astype(np.float32)
    assert [np.float32(rate(k)) for k in range(60)] == expected.tolist()
    assert rate(0).dtype == np.float32


@pytest.mark.parametrize("schedule", ENDLESS, ids=label)
def test_a_schedule_without_a_length_stays_after_the_given_steps(jax, schedule):
    expected = schedule.values(30).astype(np.float32)
    rate = to_optax(schedule, steps=30)
    assert [np.float32(rate(k)) for k in range(30)] == expected.tolist()
    assert {float(rate(k)) for k in (29, 30, 10**6, 2**31 - 1, 2**40)} == {float(expected[-1])}


def test_given_steps_end_a_longer_schedule_and_not_a_shorter_one(jax):
    schedule = Linear(1.0, 0.0, steps=8)
    assert [float(to_optax(schedule, steps=5)(k)) for k in (3, 4, 9)] == [schedule(3), schedule(4), schedule(4)]
    assert [float(to_optax(schedule, steps=500)(k)) for k in (4, 8, 400)] == [0.5, 0.0, 0.0]


@pytest.mark.slow
@pytest.mark.parametrize("schedule", FINITE, ids=label)
def test_a_schedule_of_optax_works_when_jax_compiles_it(jax, schedule):
    jnp = jax.numpy
    rate, counts = to_optax(schedule), jnp.arange(50)
    expected = schedule.values(50).astype(np.float32).tolist()
    assert [float(jax.jit(rate)(k)) for k in range(50)] == expected
    assert jax.vmap(rate)(counts).tolist() == expected
    assert jax.jit(jax.vmap(rate))(counts.reshape(5, 10)).ravel().tolist() == expected
    assert jax.lax.scan(lambda k, _: (k + 1, rate(k)), 0, length=50)[1].tolist() == expected
    assert rate(counts).tolist() == expected


def test_a_table_made_in_one_trace_is_there_in_the_next(jax):
    rate = to_optax(Linear(1.0, 0.0, steps=8))
    assert float(jax.jit(lambda k: rate(k) + 1)(2)) == 1.75
    assert float(jax.jit(lambda k: rate(k) * 2)(2)) == 1.5
    assert float(rate(2)) == 0.75


@pytest.mark.parametrize("schedule", FINITE, ids=label)
def test_a_schedule_of_optax_has_every_bit_in_float64(jax, schedule):
    rate = to_optax(schedule)
    assert rate(3).dtype == np.float32
    jax.config.update("jax_enable_x64", True)  # noqa: FBT003
    try:
        assert rate(3).dtype == np.float64
        assert jax.jit(jax.vmap(rate))(np.arange(50)).tolist() == schedule.values(50).tolist()
    finally:
        jax.config.update("jax_enable_x64", False)  # noqa: FBT003
    assert rate(3).dtype == np.float32


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.uint32])
def test_counts_are_whole_numbers_of_any_kind(jax, kind):
    rate = to_optax(Linear(1.0, 0.0, steps=8))
    assert float(rate(kind(2))) == float(jax.jit(rate)(kind(2))) == 0.75
    with pytest.raises(TypeError, match=r"^count must be whole numbers, got an array of float32$"):
        rate(2.0)


def test_optax_uses_the_schedules_learning_rates(jax):
    optax = pytest.importorskip("optax")
    schedule = Cosine(0.1, steps=10).warmup(3)
    tx = optax.sgd(learning_rate=to_optax(schedule))

    def step(carry, _):
        weight, state = carry
        updates, state = tx.update(2.0 * weight, state, weight)
        return (optax.apply_updates(weight, updates), state), None

    weight = jax.numpy.ones(2)
    (weight, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, length=12))((weight, tx.init(weight)))
    expected = np.prod(1.0 - 2.0 * schedule.values(12))
    assert np.asarray(weight) == pytest.approx([expected] * 2, rel=1e-6)


def test_optax_can_inject_the_learning_rate(jax):
    optax = pytest.importorskip("optax")
    schedule = Cosine(0.1, steps=10)
    tx = optax.inject_hyperparams(optax.adam)(learning_rate=to_optax(schedule))
    weight = jax.numpy.ones(2)
    state = tx.init(weight)
    for k in range(4):
        _, state = tx.update(weight, state, weight)
        assert float(state.hyperparams["learning_rate"]) == np.float32(schedule(k))


def test_a_schedule_of_optax_can_be_pickled_and_printed(jax):
    rate = to_optax(Exponential(0.1, 0.9), steps=20)
    rate(3)
    for twin in (pickled(rate), copy.deepcopy(rate)):
        assert float(twin(3)) == float(rate(3))
        assert repr(twin) == repr(rate) == "to_optax(Exponential(start=0.1, gamma=0.9), steps=20)"


# To Keras, in a process for each of two backends, since Keras chooses one when it is imported

# Runs pieces of Python, each by itself, and tells how each ended.
RUN = """
import json, sys, traceback
output = {}
for name, code in json.loads(sys.stdin.read()).items():
    try:
        exec(compile(code, name, "exec"), {"__name__": "__main__"})
        output[name] = ""
    except BaseException:
        output[name] = traceback.format_exc()
print(json.dumps(output))
"""
KERAS = """
import json
import numpy as np
import keras
from lrcore import schedules
from lrcore.schedules import Cosine, Exponential, Lambda, Linear, to_keras
"""
FIT = """
schedule = Cosine(0.1, steps=10).warmup(3)
rates = []

class Rates(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        rates.append(float(self.model.optimizer.learning_rate))

def model_of(rate, optimizer):
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(optimizer(learning_rate=rate), loss="mse")
    return model

x = np.ones((12, 1), "float32")
def fit(model):
    rates.clear()
    model.fit(x, 0 * x, batch_size=1, shuffle=False, verbose=0, callbacks=[Rates()])
    return float(np.ravel(model.get_weights()[0])[0])

model = model_of(to_keras(schedule), keras.optimizers.SGD)
weight = fit(model)
assert rates == schedule.values(12).astype("float32").tolist(), rates
expected = np.prod(1 - 2 * schedule.values(12))
assert abs(weight - expected) < 1e-6 * expected, (weight, expected)

fit(model_of(to_keras(Exponential(0.1, 0.9), steps=20), keras.optimizers.Adam))
assert rates == Exponential(0.1, 0.9).values(12).astype("float32").tolist(), rates
fit(model_of(to_keras(Lambda(lambda step: 0.1 / (1 + step)), steps=20), keras.optimizers.Adam))
assert rates == (0.1 / np.arange(1, 13)).astype("float32").tolist(), rates
fit(model_of(to_keras(0.25), keras.optimizers.Adam))
assert rates == [0.25] * 12, rates
"""
SAVE = """
rate = to_keras(Exponential(0.5, 0.5), steps=3)
assert json.loads(json.dumps(rate.get_config())) == rate.get_config()
twin = type(rate).from_config(rate.get_config())
assert (twin.schedule, twin.steps) == (rate.schedule, rate.steps)
assert [float(twin(k)) for k in range(5)] == [0.5, 0.25, 0.125, 0.125, 0.125]
same = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(rate))
assert same.schedule == rate.schedule
assert repr(rate) == "to_keras(Exponential(start=0.5, gamma=0.5), steps=3)", rate

model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile(keras.optimizers.Adam(learning_rate=rate), loss="mse")
model.fit(np.ones((2, 2)), np.ones((2, 1)), batch_size=1, verbose=0)
model.save("schedule.keras")
"""
LOAD = """
from lrcore.schedules.interop.keras import KerasSchedule

model = keras.models.load_model("schedule.keras")
rate = model.optimizer._learning_rate
assert type(rate) is KerasSchedule
assert (rate.schedule, rate.steps) == (Exponential(0.5, 0.5), 3)
assert float(model.optimizer.learning_rate) == 0.125
"""
PRECISION = """
keras.config.set_floatx("float64")
assert float(to_keras(Linear(0.1, 0.0, steps=7))(3)) == Linear(0.1, 0.0, steps=7)(3)
"""
REFUSE = """
def error_of(call):
    try:
        call()
    except (TypeError, ValueError) as error:
        return str(error)
    raise AssertionError("nothing was raised")

assert error_of(lambda: to_keras(Exponential(0.1, 0.9))).startswith("to_keras: Exponential(")
assert "multiply a value by it" in error_of(lambda: to_keras(schedules.Warmup(10)))
assert "follows what is reported" in error_of(lambda: to_keras(Linear(1, 0, 9) * schedules.ReduceOnPlateau()))
assert "files hold no code" in error_of(to_keras(Lambda(float), steps=3).get_config)
"""


def run_keras(backend, folder, pieces):
    environment = {**os.environ, "KERAS_BACKEND": backend, "KERAS_HOME": str(folder)}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", RUN],
        input=json.dumps(pieces),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """How the pieces of Python ended on each backend; what one saves the other loads, before it has called anything."""
    missing = [name for name in ("keras", "jax", "torch") if find_spec(name) is None]
    if missing:
        pytest.skip(f"there is no {missing[0]}")
    folder = tmp_path_factory.mktemp("keras")
    page = {code: code for module, code in BLOCKS if module == "keras"}
    on_jax = {"fit": KERAS + FIT, "save": KERAS + SAVE, "refuse": KERAS + REFUSE, **page}
    on_jax["example"] = EXAMPLE.format(name="to_keras")
    on_torch = {"load": KERAS + LOAD, "fit": KERAS + FIT, "precision": KERAS + PRECISION}
    return {"jax": run_keras("jax", folder, on_jax), "torch": run_keras("torch", folder, on_torch)}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_keras_uses_the_schedules_learning_rates(ends, backend):
    assert ends[backend]["fit"] == ""


@pytest.mark.slow
def test_a_schedule_of_keras_is_saved_with_a_model_and_loaded_on_another_backend(ends):
    assert ends["jax"]["save"] == ends["torch"]["load"] == ""


@pytest.mark.slow
def test_a_schedule_of_keras_has_every_bit_in_float64(ends):
    assert ends["torch"]["precision"] == ""


@pytest.mark.slow
def test_bad_arguments_of_to_keras_are_refused(ends):
    assert ends["jax"]["refuse"] == ""


# All of them


@pytest.mark.parametrize("schedule", FEEDBACK, ids=label)
def test_a_schedule_with_a_metric_factor_is_refused(torch, jax, schedule):
    for bridge in (
        lambda: to_torch(schedule, sgd(torch)),
        lambda: to_optax(schedule),
        lambda: to_optax(schedule, steps=9),
    ):
        with pytest.raises(ValueError, match=r"^to_\w+.*: ReduceOnPlateau\(\) follows what is reported"):
            bridge()


REFUSED = [
    ({}, Exponential(0.1, 0.9), ValueError, r"to_optax: Exponential\(.*\) has no length; give steps"),
    ({}, Linear(1, 0, 10**7 + 1), ValueError, r"to_optax: Linear\(.*\) has 10000001 steps; give steps"),
    ({"steps": 0}, Constant(1), ValueError, r"to_optax: steps must be >= 1, got 0"),
    ({"steps": 2**31}, Constant(1), ValueError, r"to_optax: steps must be <= 2147483647, got 2147483648"),
    ({"steps": 1.5}, Constant(1), TypeError, r"to_optax: steps must be a whole number >= 1, got 1.5"),
    ({}, "cosine", TypeError, r"to_optax: a schedule or a number is needed, got 'cosine'"),
]


@pytest.mark.parametrize(("options", "schedule", "exception", "message"), REFUSED, ids=[row[3][:40] for row in REFUSED])
def test_schedules_without_a_table_are_refused(jax, options, schedule, exception, message):
    with pytest.raises(exception, match=f"^{message}"):
        to_optax(schedule, **options)


@pytest.mark.parametrize(
    ("module", "call", "install"),
    [
        ("torch", lambda: from_torch(None), _optional.INSTALL_TORCH),
        ("torch", lambda: to_torch(0.1, None), _optional.INSTALL_TORCH),
        ("jax", lambda: to_optax(0.1), "python -m pip install jax optax"),
        ("keras", lambda: to_keras(0.1), "python -m pip install keras"),
    ],
)
def test_a_framework_that_is_missing_is_named(monkeypatch, module, call, install):
    def nowhere(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(_optional, "import_module", nowhere)
    with pytest.raises(ImportError, match=re.escape(f"needs {module}, which is not installed: {install}") + "$"):
        call()


def test_no_framework_is_imported_before_it_is_needed():
    names = "interop.torch", "interop.optax", "interop.keras"
    code = "import sys, importlib\n"
    code += "".join(f"importlib.import_module('lrcore.schedules.{name}')\n" for name in names)
    code += "print({'torch', 'jax', 'optax', 'keras'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("name", "modules"), [("from_torch", ["torch"]), ("to_torch", ["torch"]), ("to_optax", ["jax", "optax"])]
)
def test_the_example_of_a_docstring_is_right(name, modules):
    for module in modules:
        pytest.importorskip(module)
    exec(EXAMPLE.format(name=name), {})  # noqa: S102


@pytest.mark.slow
def test_the_example_of_the_docstring_for_keras_is_right(ends):
    assert ends["jax"]["example"] == ""


@pytest.mark.parametrize(
    ("module", "code"),
    [pytest.param(*block, marks=[pytest.mark.slow] * (block[0] == "keras"), id=block[0]) for block in BLOCKS],
)
def test_the_examples_of_the_page_run(module, code, request):
    if module == "keras":
        assert request.getfixturevalue("ends")["jax"][code] == ""
    else:
        pytest.importorskip(module)
        exec(compile(code, PAGE, "exec"), {"__name__": "__main__"})  # noqa: S102


def test_there_are_examples_for_every_framework():
    assert {module for module, _ in BLOCKS} == {"torch", "optax", "keras"}
