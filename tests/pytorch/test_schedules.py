"""Schedules of lrcore and schedulers of PyTorch: the values that groups show, and those that steps use."""

import copy
import warnings

import pytest

import lrcore
from lrcore import schedules
from support.networks import assert_same_weights, backward, network, take_step, train_network, train_with_both, vector
from support.optimizer_pairs import torch

SCHEDULERS = {
    "StepLR": lambda lr, opt: lr.StepLR(opt, 2),
    "CosineAnnealingLR": lambda lr, opt: lr.CosineAnnealingLR(opt, 10),
    "SequentialLR": lambda lr, opt: lr.SequentialLR(opt, [lr.LinearLR(opt), lr.ExponentialLR(opt, 0.8)], [3]),
    "ChainedScheduler": lambda lr, opt: lr.ChainedScheduler([lr.LinearLR(opt), lr.ExponentialLR(opt, 0.8)]),
    "OneCycleLR": lambda lr, opt: lr.OneCycleLR(opt, 0.1, total_steps=12),
    "CyclicLR": lambda lr, opt: lr.CyclicLR(opt, 0.01, 0.1, step_size_up=3),
    "LambdaLR": lambda lr, opt: lr.LambdaLR(opt, lambda epoch: 0.9**epoch),
    "CosineAnnealingWarmRestarts": lambda lr, opt: lr.CosineAnnealingWarmRestarts(opt, 4),
    "ReduceLROnPlateau": lambda lr, opt: lr.ReduceLROnPlateau(opt, patience=1),
    "SWALR": lambda _, opt: torch.optim.swa_utils.SWALR(opt, swa_lr=0.05, anneal_epochs=4),
}


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
@pytest.mark.parametrize("name", ["SGD", "AdamW"])  # schedulers that cycle need momentum or betas
def test_schedulers_of_torch_move_the_rates(name, make):
    def act(model, opt):
        scheduler = make(torch.optim.lr_scheduler, opt)
        for _ in range(10):
            train_network(model, opt, 1)
            scheduler.step(*([1.0] if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) else []))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # SequentialLR warns of itself, with any optimizer.
        warnings.filterwarnings("ignore", message="The epoch parameter in `scheduler.step()`")
        assert_same_weights(*train_with_both(name, act))


def test_schedules_are_seen_in_the_groups_and_match_those_of_torch():
    expected, model = network(batch_norm=True), network(batch_norm=True)
    torchs = torch.optim.SGD(expected.parameters(), 0.1, 0.9, foreach=False)
    rate = schedules.Cosine(0.1, steps=10)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(torchs, 10)
    ours = lrcore.torch.SGD(model.parameters(), rate, 0.9)
    for number in range(10):
        backward(expected)
        backward(model)
        assert ours.param_groups[0]["lr"] == rate(number) == pytest.approx(torchs.param_groups[0]["lr"], abs=1e-15)
        torchs.step()
        ours.step()
        assert ours.info.lr == rate(number)
        scheduler.step()
    assert_same_weights(expected, model)
    assert ours.steps == 10


def test_any_hyperparameter_and_any_group_may_have_a_schedule():
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    beta = schedules.Linear(0.5, 0.9, steps=4)
    groups = [{"params": weights[:1], "betas": (beta, 0.99)}, {"params": weights[1:], "lr": schedules.Constant(0.5)}]
    opt = lrcore.torch.Adam(groups, weight_decay=schedules.Linear(0.0, 1.0, steps=4))
    for number in range(4):
        for weight in weights:
            weight.grad = torch.ones(2)
        assert opt.param_groups[0]["betas"] == (beta(number), 0.99)
        assert opt.param_groups[1]["lr"] == 0.5
        assert [group["weight_decay"] for group in opt.param_groups] == [number / 4] * 2
        opt.step()
    opt.param_groups[0]["lr"] = schedules.Constant(0.25)
    opt.step()
    assert opt.param_groups[0]["lr"] == 0.25


def test_a_schedule_and_a_scheduler_of_torch_are_one_too_many():
    model = network(batch_norm=True)
    opt = lrcore.torch.SGD(model.parameters(), schedules.Linear(0.1, 0.0, steps=10))
    scheduler = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
    backward(model)
    opt.step()
    scheduler.step()
    with pytest.raises(ValueError, match=r"lr follows Linear\(.*was set to 0.045.*give one of both"):
        opt.step()


def test_lrcores_schedules_drive_any_optimizer_of_torch():
    weight = torch.nn.Parameter(torch.ones(2))
    opt = torch.optim.NAdam([weight], lr=1.0)
    rate = schedules.Cosine(0.1, steps=10).warmup(2)
    scheduler = schedules.to_torch(rate, opt)
    for number in range(5):
        assert opt.param_groups[0]["lr"] == rate(number)
        weight.grad = torch.ones(2)
        opt.step()
        scheduler.step()


def test_reports_reach_the_schedules():
    weight = torch.nn.Parameter(torch.ones(2))
    rate = schedules.Constant(0.1) * schedules.ReduceOnPlateau(factor=0.5, patience=0)
    opt = lrcore.torch.SGD([weight], rate)
    weight.grad = torch.ones(2)
    opt.step()
    assert [opt.report(loss) for loss in (1.0, 2.0)] == [False, True]
    opt.step()
    assert opt.info.lr == 0.05
    again = lrcore.torch.SGD([weight], rate)
    again.load_state_dict(opt.state_dict())
    again.step()
    assert again.info.lr == 0.05
    assert again.report(3.0)


def test_a_schedule_stays_with_its_group():
    params = [vector(), vector()]
    groups = [{"params": params[:1], "lr": schedules.Linear(1.0, 0.0, steps=10)}, {"params": params[1:], "lr": 0.5}]
    opt = lrcore.torch.SGD(groups)
    opt.param_groups.reverse()
    for _ in range(3):
        take_step(opt)
    assert [group["lr"] for group in opt.param_groups] == [0.5, 0.7]


def test_a_rate_set_by_hand_beside_a_schedule_is_refused_at_once():
    opt = lrcore.torch.SGD([vector()], lr=schedules.Constant(0.5))
    opt.param_groups[0]["lr"] = 0.01
    with pytest.raises(ValueError, match="give one of both"):
        take_step(opt)
    opt.param_groups[0]["lr"] = schedules.Constant(0.25)
    take_step(opt)
    assert opt.info.lr == 0.25


def weight():
    return torch.nn.Parameter(torch.ones(2))


def shown(opt):
    return [group["lr"] for group in opt.param_groups]


RATE = schedules.Linear(1.0, 0.0, steps=8)


def test_a_logger_sees_before_a_step_the_rate_that_it_uses():
    opt, read, hooked, used = lrcore.torch.SGD([weight()], lr=RATE), [], [], []
    opt.register_step_pre_hook(lambda own, *_: hooked.append(own.param_groups[0]["lr"]))
    for _ in range(8):
        read.append(opt.param_groups[0]["lr"])
        take_step(opt)
        used.append(opt.info.lr)
    assert read == hooked == used == RATE.values(8).tolist()
    assert shown(opt) == [0.0]


def test_it_is_the_next_rate_whatever_came_between():
    rate = RATE * schedules.ReduceOnPlateau(factor=0.5, patience=0)
    opt = lrcore.torch.SGD([weight()], lr=rate)
    for act in (
        take_step,
        lambda own: own.report(1.0),
        lambda own: own.report(2.0),
        take_step,
        lambda own: setattr(own, "steps", 5),
        lambda own: own.load_state_dict(copy.deepcopy(own.state_dict())),
        lambda own: own.add_param_group({"params": [weight()]}),
        lambda own: own.report(3.0),
        take_step,
        lambda own: own.load_state_dict(copy.deepcopy(own.state_dict())),
        lambda own: setattr(own, "steps", 3),
    ):
        act(opt)
        read = shown(opt)
        twin = copy.deepcopy(opt)
        take_step(twin)
        assert twin.info.lr == read[0]
        assert shown(twin)[0] == pytest.approx(read[0] - (RATE(0) - RATE(1)) * read[0] / RATE(opt.steps))
        assert shown(opt) == read


def test_a_number_that_was_set_beside_a_schedule_is_not_written_over():
    opt = lrcore.torch.SGD([weight()], lr=RATE)
    take_step(opt)
    opt.param_groups[0]["lr"] = 0.3
    opt.steps = 4
    assert shown(opt) == [0.3]
    with pytest.raises(ValueError, match="give one of both"):
        take_step(opt)


def test_other_edits_hold_whatever_is_shown_meanwhile():
    opt = lrcore.torch.SGD([weight()], lr=RATE * schedules.ReduceOnPlateau())
    take_step(opt)
    opt.param_groups[0]["weight_decay"] = 1.0
    opt.param_groups[0]["params"][0].data.fill_(2.0)
    opt.report(1.0)
    opt.steps = 0
    take_step(opt)
    assert opt.param_groups[0]["params"][0].tolist() == [-1.0, -1.0]


def test_an_error_of_a_schedule_is_raised_by_the_step_that_needs_it():
    def rate(number):
        if number == 2:
            raise ZeroDivisionError
        return 0.5

    opt = lrcore.torch.SGD([weight()], lr=schedules.Lambda(rate))
    take_step(opt)
    take_step(opt)
    assert opt.param_groups[0]["params"][0].tolist() == [0.0, 0.0]
    with pytest.raises(ZeroDivisionError):
        take_step(opt)
    assert (opt.steps, opt.info.step) == (2, 2)


@pytest.mark.slow
def test_lightnings_monitor_logs_the_rate_of_the_step():
    lightning = pytest.importorskip("lightning")
    used, logged = [], []

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch):
            return self.layer(batch[0]).sum()

        def configure_optimizers(self):
            return lrcore.torch.SGD(self.parameters(), lr=RATE)

    class Monitor(lightning.Callback):
        def on_train_batch_start(self, trainer, *_):
            logged.append(trainer.optimizers[0].param_groups[0]["lr"])

        def on_train_batch_end(self, trainer, *_):
            used.append(trainer.optimizers[0].info.lr)

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(4, 2)), 1)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=4, enable_model_summary=False, callbacks=[Monitor()], **options
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's, of workers and of its own modules
        trainer.fit(Module(), loader)
    assert logged == used == RATE.values(4).tolist()
