"""Options of all groups: clipping, skipped steps, zeroed gradients, statistics, decay by name."""

import copy
import math
import warnings

import pytest

import lrcore
from support.networks import assert_same_weights, backward, network, network_with_layer_norm
from support.optimizer_pairs import torch


@pytest.mark.parametrize("norm", [1.0, 2.0, math.inf])
def test_clip_norm_is_clip_grad_norm_and_leaves_gradients(norm):
    # Behind a batch norm the gradient of a bias is rounding, which Adam blows up.
    expected, model = network(), network()
    torchs = torch.optim.AdamW(expected.parameters(), foreach=False)
    ours = lrcore.torch.AdamW(model.parameters(), clip_norm=0.05, norm_type=norm)
    for _ in range(5):
        backward(expected)
        backward(model)
        found = torch.nn.utils.clip_grad_norm_(expected.parameters(), 0.05, norm_type=norm)
        before = [param.grad.clone() for param in model.parameters()]
        torchs.step()
        ours.step()
        assert ours.info.grad_norm == pytest.approx(found.item(), rel=1e-12)
        assert all(torch.equal(param.grad, grad) for param, grad in zip(model.parameters(), before, strict=True))
    assert_same_weights(expected, model)


def test_clip_value_is_clip_grad_value():
    expected, model = network(batch_norm=True), network(batch_norm=True)
    torchs = torch.optim.SGD(expected.parameters(), 0.1, 0.9, foreach=False)
    ours = lrcore.torch.SGD(model.parameters(), 0.1, 0.9, clip_value=0.01)
    for _ in range(5):
        backward(expected)
        backward(model)
        torch.nn.utils.clip_grad_value_(expected.parameters(), 0.01)
        torchs.step()
        ours.step()
    assert_same_weights(expected, model)


def test_gradients_that_are_not_finite_leave_all_as_it_was():
    model = network(batch_norm=True)
    opt = lrcore.torch.AdamW(model.named_parameters(), skip_nonfinite=True, max_skips=3)
    backward(model)
    opt.step()
    backward(model)
    before = copy.deepcopy((model.state_dict(), opt.state_dict()["state"]))
    model[3].bias.grad[1] = math.nan
    opt.step()
    opt.step()
    assert (opt.info.applied, opt.skipped, opt.steps) == (False, 2, 1)
    torch.testing.assert_close((model.state_dict(), opt.state_dict()["state"]), before, rtol=0, atol=0)
    with pytest.raises(FloatingPointError, match=r"the gradient of '3.bias' is nan at index \(1,\)"):
        opt.step()


def test_a_complex_gradient_that_is_not_finite_is_named_with_both_parts(recwarn):
    weight = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    opt = lrcore.torch.SGD([weight], lr=0.1, skip_nonfinite=True, max_skips=2)
    weight.grad = torch.tensor([1.0, complex(0.0, math.nan)])
    opt.step()
    with pytest.raises(FloatingPointError, match=r"^2 steps in a row .* is (\(0\+nanj\)|nanj) at index \(1,\)$"):
        opt.step()
    assert not recwarn


def test_zero_grads_and_stats_come_with_the_step():
    model = network(batch_norm=True)
    opt = lrcore.torch.AdamW(model.named_parameters(), zero_grads=True, stats=True)
    backward(model)
    norm = model[0].weight.grad.norm().item()
    version = model[0].weight.grad._version
    opt.step()
    assert all(not param.grad.any() for param in model.parameters())
    assert model[0].weight.grad._version == version + 1
    assert opt.info.stats["0.weight"].grad_norm == pytest.approx(norm, rel=1e-12)


def test_no_decay_matches_names():
    model, expected = network(batch_norm=True), network(batch_norm=True)
    for one in (model, expected):
        one[1] = torch.nn.Identity()  # behind a batch norm the gradient of a bias is rounding, which Adam blows up
    opt = lrcore.torch.AdamW(model.named_parameters(), weight_decay=0.5, no_decay=["*bias"])
    decayed = [expected[0].weight, expected[3].weight]
    rest = [param for param in expected.parameters() if all(param is not one for one in decayed)]
    groups = [{"params": decayed, "weight_decay": 0.5}, {"params": rest, "weight_decay": 0.0}]
    torchs = torch.optim.AdamW(groups, foreach=False)
    for _ in range(3):
        backward(model)
        backward(expected)
        opt.step()
        torchs.step()
    assert_same_weights(expected, model)


def test_patterns_of_no_decay_match_after_dots_and_are_warned_of_once():
    model = network_with_layer_norm()
    with pytest.warns(UserWarning, match=r"'LayerNorm.weight' matches no parameter") as caught:
        opt = lrcore.torch.AdamW(model.named_parameters(), no_decay=["bias", "LayerNorm.weight"])
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.step()
        opt.add_param_group({"params": list(network_with_layer_norm().named_parameters())})
        opt.step()
    assert [row.decay for row in opt.summary().rows] == [0.01, 0.0, 0.01, 0.0] * 2
