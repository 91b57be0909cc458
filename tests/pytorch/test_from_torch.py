"""from_torch: lrcore's optimizer takes over from PyTorch's."""

import warnings
from collections import defaultdict

import pytest

import lrcore
from support.counterparts import take_over
from support.networks import assert_same_weights, network, take_step, train_network, vector
from support.optimizer_pairs import FULL, counterpart, for_loop, named, torch


@named
def test_from_torch_goes_on_with_groups_state_and_schedulers(name):
    def act(model, opt, turns_at=None):
        scheduler = torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)
        for number in range(6):
            if number == turns_at:
                opt = take_over(opt)
            train_network(model, opt, 1)
            scheduler.step()
        return opt

    expected, model = network(), network()
    act(expected, counterpart(name)(expected.parameters(), **FULL[name], **for_loop(name)))
    before = counterpart(name)(model.parameters(), **FULL[name], **for_loop(name))
    after = act(model, before, turns_at=3)
    assert type(after) is getattr(lrcore.torch, name)
    assert isinstance(after, getattr(torch.optim, name, torch.optim.Optimizer))
    assert_same_weights(expected, model)
    # Either may take the next step.
    before.step()
    after.step()


def test_from_torch_refuses_others():
    weight = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(
        TypeError, match=r"from_torch takes torch\.optim\.SGD, .*, got torch\.optim\.adadelta\.Adadelta"
    ):
        lrcore.torch.from_torch(torch.optim.Adadelta([weight]))
    sharing = torch.optim.Adam([weight], capturable=True)
    with pytest.raises(ValueError, match="capturable=True is not offered here"):
        lrcore.torch.from_torch(sharing)
    assert type(sharing.state) is defaultdict


def test_a_state_that_is_loaded_reaches_whoever_shares_the_groups():
    before = torch.optim.AdamW([vector()], lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(before, 1, 0.5)
    opt = lrcore.torch.from_torch(before, clip_norm=1.0)
    opt.load_state_dict(opt.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        take_step(opt)
        scheduler.step()
    assert opt.param_groups[0]["lr"] == before.param_groups[0]["lr"] == 0.05
