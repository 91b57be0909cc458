"""Arguments that are refused by name."""

import copy

import pytest

import lrcore
from support.optimizer_pairs import NAMES, drop_ins, parameters, torch, train, values_of


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda w: lrcore.torch.Adam([w], capturable=True), ValueError, "capturable=True is not offered here"),
        (lambda w: lrcore.torch.SGD([w], differentiable=True), ValueError, "differentiable=True is not offered here"),
        (
            lambda w: lrcore.torch.Adam([torch.nn.Parameter(w.detach().to("meta"))]),
            ValueError,
            "is on the device meta; allowed is the CPU",
        ),
        (
            lambda w: lrcore.torch.Adam([torch.nn.Parameter(w.detach().bfloat16())]),
            TypeError,
            "has torch.bfloat16; allowed are",
        ),
        (
            lambda w: lrcore.torch.Adam([torch.nn.Parameter(w.detach().half())]),
            TypeError,
            "has torch.float16; allowed are",
        ),
        (lambda w: lrcore.torch.Adam([w], clip=1.0), TypeError, "Adam has no argument 'clip'; its options are"),
        (lambda w: lrcore.torch.Adam([w], lr=-1.0), ValueError, "Invalid learning rate: -1.0"),
        (lambda w: lrcore.torch.Adam([w], no_decay=["*bias"]), ValueError, "give model.named_parameters"),
        (lambda w: lrcore.torch.Adam([w], clip_norm=-1.0), ValueError, "clip_norm must be in"),
        (lambda w: lrcore.torch.Adam([{"params": [w], "eps": -1.0}]), ValueError, "eps must be in"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(make, error, message):
    with pytest.raises(error, match=message):
        make(torch.nn.Parameter(torch.ones(3)))


@pytest.mark.parametrize(
    ("name", "flag"),
    [(name, flag) for name in NAMES for flag in ("differentiable", "capturable")],
)
def test_a_flag_that_is_not_offered_is_refused_at_the_step_too(name, flag):
    opt = getattr(drop_ins, name)(parameters())
    train(opt, [0])
    opt.param_groups[0][flag] = True
    before = values_of(opt)
    with pytest.raises(ValueError, match=f"{flag}=True is not offered here"):
        train(opt, [1])
    torch.testing.assert_close(before, values_of(opt), rtol=0, atol=0)
    opt.param_groups[0][flag] = False
    saved = copy.deepcopy(opt.state_dict())
    saved["param_groups"][0][flag] = True
    opt.load_state_dict(saved)
    with pytest.raises(ValueError, match=f"{flag}=True is not offered here"):
        train(opt, [1])
