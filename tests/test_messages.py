"""Error messages: suggestions for unknown arguments, and shortened values."""

import functools
import inspect
import warnings

import numpy as np
import pytest

import lrcore
from lrcore import _messages
from lrcore.optim.options import Options
from support.cases import OPTIMIZERS, each_optimizer
from support.rows import each

MEANT = {
    "learning_rate": "lr",
    "learningrate": "lr",
    "Lr": "lr",
    "max_lr": "lr",
    "clip": "clip_norm",
    "max_grad_norm": "clip_norm",
    "max_norm": "clip_norm",
    "gradient_clip_val": "clip_norm",
    "clip_norms": "clip_norm",
    "clipvalue": "clip_value",
    "ema": "average",
    "use_ema": "average",
    "swa": "average",
    "weightdecay": "weight_decay",
    "wd": "weight_decay",
    "l2": "weight_decay",
    "exclude_from_weight_decay": "no_decay",
    "nodecay": "no_decay",
    "skip_nan": "skip_nonfinite",
    "zero_grad": "zero_grads",
    "clamp": "bounds",
    "lr_mult": "lr_scale",
    "statistics": "stats",
}


@pytest.mark.parametrize("name", MEANT)
@pytest.mark.parametrize("make", OPTIMIZERS, ids=lambda make: make.__name__)
def test_an_unknown_argument_gets_a_suggestion(make, name):
    with pytest.raises(TypeError, match=rf"no argument '{name}'.*; did you mean .*'{MEANT[name]}'"):
        make([np.zeros(2)], **{name: 0.1})


@pytest.mark.parametrize(
    ("make", "name", "meant"),
    [
        (lrcore.Adam, "beta1", "'betas' (betas=(0.9, 0.999))"),
        (lrcore.Adam, "epsilon", "'eps'"),
        (lrcore.SGD, "nesterov_momentum", "'nesterov'"),
        (lrcore.SGD, "use_ema", "'average' (average=lrcore.EMA(0.999))"),
    ],
)
def test_arguments_of_a_class_are_suggested(make, name, meant):
    with pytest.raises(TypeError) as caught:
        make([np.zeros(2)], **{name: 0.1})
    assert str(caught.value).endswith(f"; did you mean {meant}?")


def test_the_name_of_another_library_is_suggested():
    with pytest.raises(TypeError, match=r"; did you mean 'alpha'\?$"):
        lrcore.RMSprop([np.zeros(2)], rho=0.9)


def misspelt(optimizer):
    """Arguments of an optimizer: with a letter too many, and long ones without the last word."""
    for name in optimizer._kinds().keys() - Options.__annotations__.keys():
        yield f"{name}s", name
        if name.count("_") > 1:
            yield name.rpartition("_")[0], name


@each_optimizer
@each("name, meant", misspelt)
def test_misspelt_arguments_of_every_class_are_suggested(optimizer, name, meant):
    with pytest.raises(TypeError, match=rf"no argument '{name}'.*; did you mean '{meant}'"):
        optimizer([np.zeros(2)], **{name: 0.1})


def test_arguments_of_other_functions_get_a_hint():
    for name, says in (("loss_scale", "step(grads, grad_scale="), ("warmup_steps", "schedules."), ("fused", "PyTorch")):
        with pytest.raises(TypeError) as caught:
            lrcore.SGD([np.zeros(2)], **{name: 1})
        assert says in str(caught.value)


def test_a_name_without_similar_ones_gets_no_suggestion():
    with pytest.raises(TypeError, match=r"noise_scale$"):
        lrcore.SGD([np.zeros(2)], qqqq=1)


def test_groups_suggest_names():
    with pytest.raises(ValueError, match=r"a group has no 'learning_rate'.*did you mean 'lr'\?$"):
        lrcore.SGD([{"params": [np.zeros(2)], "learning_rate": 0.1}])
    opt = lrcore.Adam([np.zeros(2)])
    with pytest.raises(ValueError, match=r"did you mean 'betas'"):
        opt.param_groups[0]["beta1"] = 0.5
    with pytest.raises(ValueError, match=r"clip_norm is for all groups together"):
        opt.add_param_group({"params": [np.zeros(2)], "clip_norm": 1.0})


def test_every_argument_of_an_optimizer_has_a_synonym():
    known = {name for make in OPTIMIZERS for name in inspect.signature(make).parameters} | {
        *Options.__annotations__,
        "name",
    }
    for meant in _messages._SYNONYMS.values():
        assert any(name in known for name in meant)


def test_the_learning_rate_of_one_group_can_be_set():
    opt = lrcore.SGD([np.zeros(2)], lr=0.1)
    opt.lr = np.float32(0.5)
    assert (opt.lr, type(opt.param_groups[0]["lr"])) == (0.5, float)
    assert opt.step([np.ones(2)]).lr == 0.5
    with pytest.raises(ValueError, match=r"lr must be in"):
        opt.lr = -1.0
    opt.param_groups[0]["lr_scale"] = 0.5
    with pytest.raises(ValueError, match=r"lr_scale, which is 0.5"):
        opt.lr = 0.1
    opt = lrcore.SGD([{"params": [np.zeros(2)], "name": "body"}, {"params": [np.zeros(2)]}], lr=0.1)
    with pytest.raises(ValueError, match=r"there are 'body', 1: set that of one, opt.param_groups\[0\]\[\"lr\"\]"):
        opt.lr = 0.1


LONG = [np.zeros(5000), list(range(5000)), {i: i for i in range(5000)}, "x" * 5000, np.zeros((3, 3)), [np.zeros(5000)]]


@pytest.mark.parametrize("value", LONG, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "call",
    [
        lambda value: lrcore.SGD([np.zeros(2)], lr=value),
        lambda value: lrcore.Adam([np.zeros(2)], betas=value),
        lambda value: lrcore.Adam([np.zeros(2)], betas=(0.9, value)),
        lambda value: lrcore.Adam([np.zeros(2)], amsgrad=value),
        lambda value: lrcore.SGD([np.zeros(2)], bounds=value),
        lambda value: lrcore.SGD([np.zeros(2)], bounds=(value, value)),
        lambda value: lrcore.SGD([np.zeros(2)], decay=value),
        lambda value: lrcore.SGD([np.zeros(2)], clip_norm=value),
        lambda value: lrcore.SGD([np.zeros(2)], clip_norm=1.0, norm_type=value),
        lambda value: lrcore.SGD([np.zeros(2)], skip_nonfinite=True, max_skips=value),
        lambda value: lrcore.SGD([np.zeros(2)], no_decay=5 if isinstance(value, str) else value),
        lambda value: lrcore.SGD([np.zeros(2)], average=value),
        lambda value: lrcore.SGD([np.zeros(2)], noise_scale=value),
        lambda value: lrcore.SGD([{"params": [np.zeros(2)], "name": [value]}]),
        lambda value: lrcore.SGD([np.zeros(2)]).step([np.ones(2)], grad_scale=value),
        lambda value: lrcore.SGD([np.zeros(2)]).report(value),
        lambda value: lrcore.EMA(value),
        lambda value: lrcore.schedules.Constant(value),
        lambda value: lrcore.schedules.Cosine(0.1, value),
        lambda value: lrcore.schedules.Cosine(0.1, 10).warmup(value),
        lambda value: lrcore.schedules.Cosine(0.1, 10)(value) if isinstance(value, str | dict) else 1 / 0,
        lambda value: lrcore.find_lr(lrcore.SGD([np.zeros(2)]), print, [()], value),
        lambda value: lrcore.find_lr(lrcore.SGD([np.zeros(2)]), value, [()]),
        lambda value: lrcore.find_lr(lrcore.SGD([np.zeros(2)]), print, [()], 1e-3, value),
        lambda value: lrcore.find_lr(lrcore.SGD([np.zeros(2)]), print, [()], mode=value),
        lambda value: lrcore.Finder(smoothing=value),
        lambda value: lrcore.NoiseScale(batch=value),
        lambda value: lrcore.layerwise({"a": np.zeros(2)}, decay=value),
        lambda value: lrcore.save("no such folder/file", lrcore.SGD([np.zeros(2)]), keep=value),
    ],
)
def test_no_message_prints_a_whole_array_or_a_long_list(call, value):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((TypeError, ValueError, ZeroDivisionError)) as caught:
            call(value)
    assert len(str(caught.value)) < 800


def test_inputs_and_targets_as_two_arguments_get_a_hint():
    opt = lrcore.SGD({"w": np.zeros(2)})
    with pytest.raises(
        TypeError, match=r"^start must be a number.*got ndarray of shape \(1000,\).*\[\(inputs, targets\)\]"
    ):
        lrcore.find_lr(opt, print, np.zeros((1000, 2)), np.zeros(1000))


ONCE = {
    "generator": lambda arrays: (array for array in arrays),
    "values": lambda arrays: dict(enumerate(arrays)).values(),
    "map": lambda arrays: map(np.asarray, arrays),
    "iterator": iter,
}


@pytest.mark.parametrize("kind", ONCE)
def test_an_iterator_gets_the_hint_to_pass_a_list(kind):
    make, arrays = ONCE[kind], [np.zeros(2), np.zeros(3)]
    for call in (
        lambda: lrcore.SGD(make(arrays)),
        lambda: lrcore.SGD([{"params": make(arrays)}]),
        lambda: lrcore.SGD({"layers": make(arrays)}),
        lambda: lrcore.SGD(arrays).step(make([np.ones(2), np.ones(3)])),
        lambda: lrcore.SGD(arrays).accumulate(make([np.ones(2), np.ones(3)])),
        lambda: lrcore.SGD([{"params": arrays}]).step([make([np.ones(2), np.ones(3)])]),
    ):
        with pytest.raises(TypeError, match=r"list\(\.\.\.\)"):
            call()


def test_a_gradient_of_another_dtype_gets_its_conversion_as_a_hint():
    opt = lrcore.SGD({"w": np.zeros(2, np.float32)})
    says = r'has dtype float64, params\["w"\] has float32; give grads\["w"\]\.astype\(params\["w"\]\.dtype\)$'
    grads, params = {"w": np.ones(2)}, opt.params
    with pytest.raises(TypeError, match=says) as caught:
        opt.step(grads)
    remedy = str(caught.value).partition("; give ")[2]
    opt.step({"w": eval(remedy, {"grads": grads, "params": params})})  # noqa: S307
    assert opt.steps == 1


def test_tensors_and_jax_arrays_get_a_hint_to_their_integration():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"lrcore\.torch"):
        lrcore.SGD([torch.zeros(2)])


def test_the_pytorch_integration_suggests_names():
    torch = pytest.importorskip("torch")
    import lrcore.torch

    weight = torch.nn.Parameter(torch.zeros(2))
    for make in (getattr(lrcore.torch, optimizer.__name__) for optimizer in OPTIMIZERS):
        for name in ("learning_rate", "clip", "max_grad_norm", "ema"):
            with pytest.raises(TypeError, match=rf"no argument '{name}'.*did you mean .*'{MEANT[name]}'"):
                make([weight], **{name: 1.0})
    for name in ("noise", "noise_scal"):
        with pytest.raises(TypeError, match=rf"no argument '{name}'") as caught:
            lrcore.torch.SGD([weight], lr=0.1, **{name: 1.0})
        assert "noise_scale" not in str(caught.value)
    with pytest.raises(TypeError, match=r"^lr must be a number or a schedule, got '1e-3'$"):
        lrcore.torch.AdamW([weight], lr="1e-3")
    with pytest.raises(TypeError, match=r"^from_torch: lr stays as it is in the optimizer"):
        lrcore.torch.from_torch(torch.optim.SGD([weight], lr=0.1), lr=0.5)
    opt = lrcore.torch.SGD([weight], lr=0.1)
    opt.lr = 0.5
    assert (opt.lr, opt.param_groups[0]["lr"]) == (0.5, 0.5)
    opt.add_param_group({"params": [torch.nn.Parameter(torch.zeros(2))]})
    with pytest.raises(ValueError, match="set that of one"):
        opt.lr = 0.5
    assert opt.param_groups[0]["lr"] == 0.5


def test_the_scikit_learn_integration_suggests_names():
    pytest.importorskip("sklearn")
    from lrcore.sklearn import MLPClassifier

    for name, says in (("lr", "learning_rate_init"), ("eps", "'epsilon'"), ("clip_norm", "functools.partial")):
        with pytest.raises(TypeError, match=rf"MLPClassifier has no argument '{name}'.*{says}"):
            MLPClassifier(**{name: 0.1})
    assert functools.reduce(lambda one, _: one, [MLPClassifier(beta_1=0.5).beta_1]) == 0.5
