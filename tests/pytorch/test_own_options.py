"""Keys of a group are the program's; lrcore's options for a group stand under a key of their own."""

import copy
import pickle
import warnings

import pytest

import lrcore
from lrcore import schedules
from lrcore.torch.optimizer import DropIn
from support.counterparts import take_over
from support.networks import take_step, vector
from support.optimizer_pairs import (
    FULL,
    Pair,
    assert_same,
    copied_groups,
    counterpart,
    drop_ins,
    give,
    gradients,
    named,
    parameter,
    parameters,
    torch,
    train,
    weights_of,
)
from support.schedule_peers import timm_schedulers

# Values with which each option of lrcore would move weights elsewhere, or fail.
BARE = {
    "lr_scale": 0.01,
    "clip_value": 1e-3,
    "bounds": (-0.1, 0.1),
    "zero_grads": True,
    "decay": "cautious",
    "clip_norm": 1e-3,
    "norm_type": 1,
    "skip_nonfinite": True,
    "max_skips": 1,
    "no_decay": ["*"],
    "average": 0.9,
    "stats": True,
    "noise_scale": "none",
}
quietly = pytest.mark.filterwarnings("ignore:param_groups.* has .*program's")


def with_keys(keys=BARE):
    return [{"params": parameters(), **keys}, {"params": [parameter(5)], "lr": 0.03}]


@named
@quietly
def test_no_key_of_a_group_acts_however_it_came(name):
    pair = Pair(name, with_keys(), **FULL[name])
    for opt in pair.both:
        opt.add_param_group({"params": [parameter(2, seed=4)], **BARE})
        opt.param_groups[1].update(BARE)
    pair.train(range(6))
    pair.assert_agree()
    for own, other in zip(*(opt.param_groups for opt in pair.both), strict=True):
        assert own.keys() == other.keys()
        assert all(own[key] == value for key, value in BARE.items())


@named
@quietly
@pytest.mark.parametrize(
    "go_on",
    [
        copy.deepcopy,
        lambda opt: pickle.loads(pickle.dumps(opt)),  # noqa: S301
        lambda opt: opt if isinstance(opt, DropIn) else take_over(opt),
    ],
    ids=["copy", "pickle", "from_torch"],
)
def test_no_key_acts_in_a_copy(name, go_on):
    ours = counterpart(name)(with_keys(), **FULL[name])
    pair = Pair(name, with_keys(), **FULL[name])
    pair.ours = go_on(ours if "take_over" in str(go_on.__code__.co_names) else pair.ours)
    pair.train(range(6))
    pair.assert_agree()


@named
def test_no_key_of_a_checkpoint_acts(name):
    pair = Pair(name, parameters(), **FULL[name])
    pair.train(range(3))
    saved = copy.deepcopy(pair.theirs.state_dict())
    saved["param_groups"][0].update(BARE)
    for opt in pair.both:
        opt.load_state_dict(copy.deepcopy(saved))
        opt.param_groups[0].update(foreach=False)
    pair.train(range(3, 6))
    pair.assert_agree()


@named
def test_arguments_for_lrcore_leave_no_keys_in_groups(name):
    options = {"clip_value": 0.5, "bounds": (-9.0, 9.0), "lr_scale": 0.5, "decay": "independent", "zero_grads": False}
    opt = getattr(drop_ins, name)(parameters(), **options)
    other = counterpart(name)(parameters())
    taken = take_over(counterpart(name)(parameters()), **options)
    for one in (opt, taken):
        assert one.param_groups[0].keys() == other.param_groups[0].keys()
        assert one.state_dict()["param_groups"][0].keys() == other.state_dict()["param_groups"][0].keys()
        # What from_torch calls, PyTorch's __setstate__, adds one.
        assert one.defaults.keys() | {"differentiable"} == other.defaults.keys() | {"differentiable"}


@pytest.mark.parametrize("how", ["constructor", "from_torch", "copy", "checkpoint"])
def test_timms_layer_decay_and_scheduler_have_pytorchs_numbers(how):
    timm = timm_schedulers()
    groups = [
        {"params": [parameter(3, seed=layer)], "lr_scale": 0.1 ** (4 - layer), "weight_decay": 0.05}
        for layer in range(5)
    ]
    pair = Pair("AdamW", groups, lr=1e-2)
    if how == "from_torch":
        pair.ours = lrcore.torch.from_torch(torch.optim.AdamW(copied_groups(groups), lr=1e-2))
    if how == "copy":
        pair.ours = pickle.loads(pickle.dumps(copy.deepcopy(pair.ours)))  # noqa: S301
    followers = [timm.CosineLRScheduler(opt, t_initial=8, warmup_t=2, warmup_lr_init=1e-5) for opt in pair.both]
    for epoch in range(8):
        if how == "checkpoint" and epoch == 4:
            saved = copy.deepcopy(pair.theirs.state_dict())
            for opt in pair.both:
                opt.load_state_dict(copy.deepcopy(saved))
        pair.train([epoch])
        for follower in followers:
            follower.step(epoch + 1)
    pair.assert_agree()
    for own, other in zip(*(opt.param_groups for opt in pair.both), strict=True):
        assert (own["lr"], own["lr_scale"]) == (other["lr"], other["lr_scale"])


def test_options_of_one_group_act_on_it_alone_and_may_be_edited():
    first, second = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2))
    groups = [{"params": [first], "lrcore": {"clip_value": 0.5, "lr_scale": 0.5}}, {"params": [second]}]
    opt = drop_ins.SGD(groups, lr=1.0, clip_value=2.0)

    def moved():
        for weight in (first, second):
            weight.data.zero_()
            weight.grad = torch.full((2,), 3.0)
        opt.step()
        return -first[0].item(), -second[0].item()

    assert moved() == (0.25, 2.0)
    own = opt.param_groups[0]["lrcore"]
    own["lr_scale"] = torch.tensor(1.0)
    assert moved() == (0.5, 2.0)
    own["lr_scale"].fill_(3.0)
    assert moved() == (1.5, 2.0)
    del own["clip_value"]
    assert moved() == (6.0, 2.0)
    own["bounds"] = [-1.0, 1.0]
    assert moved() == (1.0, 2.0)
    own["bounds"][0] = -4.0
    assert moved() == (4.0, 2.0)
    opt.param_groups[1]["lrcore"] = {"clip_value": None}
    assert moved() == (4.0, 3.0)
    del opt.param_groups[0]["lrcore"]
    assert moved() == (2.0, 3.0)


@pytest.mark.parametrize("make", [list, lambda layers: dict(zip(("in", "body", "out"), layers, strict=True))])
def test_layerwise_makes_groups_of_tensors_too(make):
    layers = [[torch.nn.Parameter(torch.zeros(1)) for _ in range(2)] for _ in range(3)]
    opt = drop_ins.SGD(lrcore.layerwise(make(layers), decay=0.5), lr=1.0)
    give(opt, [torch.ones(1)] * 6)
    opt.step()
    assert [-param.item() for param in weights_of(opt)] == [0.25, 0.25, 0.5, 0.5, 1.0, 1.0]
    assert [group.get("name") for group in opt.param_groups] == (
        ["in", "body", "out"] if make is not list else [None] * 3
    )


def test_an_option_of_a_group_may_be_a_schedule():
    weight = torch.nn.Parameter(torch.zeros(1))
    scale = schedules.Linear(1.0, 0.0, steps=4)
    opt = drop_ins.SGD([{"params": [weight], "lrcore": {"lr_scale": scale}}], lr=1.0)
    rates = []
    for number in range(4):
        if number == 2:
            saved = opt.state_dict()
            opt = copy.deepcopy(opt)
            opt.load_state_dict(saved)
        train(opt, [number])
        rates.append(opt.info.lr)
    assert rates == [1.0, 0.75, 0.5, 0.25]
    opt.param_groups[0]["lrcore"]["lr_scale"] = 0.125
    with pytest.raises(ValueError, match=r"lr_scale follows Linear.* give one of both"):
        train(opt, [4])
    opt.param_groups[0]["lrcore"].pop("lr_scale")
    train(opt, [5])
    assert opt.info.lr == 1.0


def test_groups_may_share_a_dictionary_with_a_schedule():
    own = {"lr_scale": schedules.Linear(1.0, 0.0, steps=4)}
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    opt = drop_ins.SGD([{"params": [weight], "lrcore": own} for weight in weights[:2]], lr=1.0)
    opt.add_param_group({"params": weights[2:], "lrcore": own})
    for weight in weights:
        weight.grad = torch.ones(1)
    for _ in range(2):
        opt.step()
    assert [weight.item() for weight in weights] == [-1.75] * 3
    assert [group["lrcore"]["lr_scale"] for group in opt.param_groups] == [0.5] * 3


def test_options_of_a_group_go_through_state_dicts_as_they_were():
    groups = [{"params": parameters(), "lrcore": {"clip_value": 1e-3}}]
    opt = drop_ins.SGD(groups, lr=0.1)
    saved = opt.state_dict()
    opt.param_groups[0]["lrcore"]["clip_value"] = 2.0
    assert saved["param_groups"][0]["lrcore"] == {"clip_value": 1e-3}
    twin = drop_ins.SGD(copied_groups(parameters()), lr=0.1)
    twin.load_state_dict(saved)
    opt.load_state_dict(torch.optim.SGD(parameters(), lr=0.1).state_dict())
    opt.param_groups[0]["lrcore"]["clip_value"] = 1e-3
    for one in (opt, twin):
        give(one, gradients(one, 0))
        one.step()
    assert_same(opt, twin)


WRONG = [
    (
        {"clip_norm": 1.0},
        ValueError,
        r"has no 'clip_norm'; .* give clip_norm=… to the optimizer",
    ),
    ({"average": lrcore.EMA(0.9)}, ValueError, r"average is for all groups together"),
    (
        {"clip": 1.0},
        ValueError,
        r"has no 'clip'; it has decay, clip_value, bounds, zero_grads, lr_scale",
    ),
    ({"clip_value": -1.0}, ValueError, r"clip_value must be in \(0, inf\), got -1.0"),
    ({"decay": "none"}, ValueError, r"decay must be one of"),
    ([("clip_value", 1.0)], TypeError, r'group\["lrcore"\] must be a dict of options'),
    (None, TypeError, r'group\["lrcore"\] must be a dict of options'),
]


@pytest.mark.parametrize(("own", "error", "message"), WRONG, ids=str)
def test_wrong_options_of_a_group_are_refused_wherever_they_come_from(own, error, message):
    with pytest.raises(error, match=message):
        drop_ins.SGD([{"params": parameters(), "lrcore": own}], lr=0.1)
    opt = drop_ins.SGD(parameters(), lr=0.1)
    before = [param.detach().clone() for param in weights_of(opt)]
    with pytest.raises(error, match=message):
        opt.add_param_group({"params": [parameter(5)], "lrcore": own})
    opt.param_groups[0]["lrcore"] = own
    for _ in range(2):
        with pytest.raises(error, match=message):
            train(opt, [0])
    torch.testing.assert_close(before, [param.detach() for param in weights_of(opt)], rtol=0, atol=0)
    del opt.param_groups[0]["lrcore"]
    train(opt, [0])
    other = torch.optim.SGD([{"params": parameters(), "lrcore": own}], lr=0.1)
    with pytest.raises(error, match=message):
        drop_ins.from_torch(other)


def test_keys_that_are_spelt_like_options_are_named_when_a_group_is_added():
    keys = {"clip_value": 1.0, "stats": True, "lr_scale": 0.5, "history": []}
    message = (
        r"^param_groups\[1\] has 'clip_value', 'stats': the keys of a group are the program's, and lrcore does not read"
        r' these; .* into param_groups\[1\]\["lrcore"\] for clip_value and arguments of the optimizer for stats$'
    )
    opt = drop_ins.SGD([{"params": parameters(), "lr_scale": 0.5}], lr=0.1)
    with pytest.warns(UserWarning, match=message) as seen:
        opt.add_param_group({"params": [parameter(5)], **keys})
    assert [warning.filename for warning in seen] == [__file__]
    with pytest.warns(UserWarning, match=r"^param_groups\[0\] has 'bounds'"):
        drop_ins.from_torch(torch.optim.SGD([{"params": parameters(), "bounds": 1}], lr=0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(opt, range(2))
        opt.load_state_dict(opt.state_dict())
        copy.deepcopy(opt)


def test_a_rate_that_is_set_takes_the_place_of_a_schedule():
    weight = torch.nn.Parameter(torch.zeros(1))
    opt = drop_ins.SGD([weight], lr=schedules.Linear(1.0, 0.0, steps=4), momentum=schedules.Linear(0.0, 0.5, steps=4))
    weight.grad = torch.ones(1)
    opt.step()
    for rate, shown in ((0.5, [0.5, 0.5]), (schedules.Linear(0.5, 0.0, steps=4), [0.25, 0.125])):
        opt.lr = rate
        assert opt.lr == shown[0]
        for expected in shown:
            opt.step()
            assert opt.info.lr == expected
        if rate == 0.5:
            opt.steps = 2
    assert opt.param_groups[0]["momentum"] == 0.5
    with pytest.raises(ValueError, match=r"lr must be in \[0, inf\), got -1.0"):
        opt.lr = -1.0
    assert opt.lr == 0.0


def test_an_option_that_is_taken_out_of_a_group_ends():
    param = vector(0.0)
    opt = lrcore.torch.SGD([{"params": [param], "lrcore": {"clip_value": 0.1}}], lr=1.0)
    take_step(opt)
    del opt.param_groups[0]["lrcore"]["clip_value"]
    take_step(opt)
    assert param.item() == pytest.approx(-1.1)
