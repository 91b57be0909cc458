"""What loggers read in groups that follow schedules: the numbers of the next step."""

import copy
import warnings

import pytest

torch = pytest.importorskip("torch", minversion="2.10")

import lrcore.torch  # noqa: E402
from lrcore import schedules  # noqa: E402


def weight():
    return torch.nn.Parameter(torch.ones(2))


def step(opt):
    for group in opt.param_groups:
        for param in group["params"]:
            param.grad = torch.ones_like(param)
    opt.step()


def shown(opt):
    return [group["lr"] for group in opt.param_groups]


RATE = schedules.Linear(1.0, 0.0, steps=8)


def test_a_logger_sees_before_a_step_the_rate_that_it_uses():
    opt, read, hooked, used = lrcore.torch.SGD([weight()], lr=RATE), [], [], []
    opt.register_step_pre_hook(lambda own, *_: hooked.append(own.param_groups[0]["lr"]))
    for _ in range(8):
        read.append(opt.param_groups[0]["lr"])
        step(opt)
        used.append(opt.info.lr)
    assert read == hooked == used == RATE.values(8).tolist()
    assert shown(opt) == [0.0]


def test_it_is_the_next_rate_whatever_came_between():
    rate = RATE * schedules.ReduceOnPlateau(factor=0.5, patience=0)
    opt = lrcore.torch.SGD([weight()], lr=rate)
    for act in (
        step,
        lambda own: own.report(1.0),
        lambda own: own.report(2.0),
        step,
        lambda own: setattr(own, "steps", 5),
        lambda own: own.load_state_dict(copy.deepcopy(own.state_dict())),
        lambda own: own.add_param_group({"params": [weight()]}),
        lambda own: own.report(3.0),
        step,
        lambda own: own.load_state_dict(copy.deepcopy(own.state_dict())),
        lambda own: setattr(own, "steps", 3),
    ):
        act(opt)
        read = shown(opt)
        twin = copy.deepcopy(opt)
        step(twin)
        assert twin.info.lr == read[0]
        assert shown(twin)[0] == pytest.approx(read[0] - (RATE(0) - RATE(1)) * read[0] / RATE(opt.steps))
        assert shown(opt) == read


def test_a_number_that_was_set_beside_a_schedule_is_not_written_over():
    opt = lrcore.torch.SGD([weight()], lr=RATE)
    step(opt)
    opt.param_groups[0]["lr"] = 0.3
    opt.steps = 4
    assert shown(opt) == [0.3]
    with pytest.raises(ValueError, match="give one of both"):
        step(opt)


def test_other_edits_hold_whatever_is_shown_meanwhile():
    opt = lrcore.torch.SGD([weight()], lr=RATE * schedules.ReduceOnPlateau())
    step(opt)
    opt.param_groups[0]["weight_decay"] = 1.0
    opt.param_groups[0]["params"][0].data.fill_(2.0)
    opt.report(1.0)
    opt.steps = 0
    step(opt)
    assert opt.param_groups[0]["params"][0].tolist() == [-1.0, -1.0]


def test_an_error_of_a_schedule_is_raised_by_the_step_that_needs_it():
    def rate(number):
        if number == 2:
            raise ZeroDivisionError
        return 0.5

    opt = lrcore.torch.SGD([weight()], lr=schedules.Lambda(rate))
    step(opt)
    step(opt)
    assert opt.param_groups[0]["params"][0].tolist() == [0.0, 0.0]
    with pytest.raises(ZeroDivisionError):
        step(opt)
    assert (opt.steps, opt.info.step) == (2, 2)


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
