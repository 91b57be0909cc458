"""The table of a drop-in's parameters, patterns of no_decay, and models that are not the optimizer's."""

import warnings

import pytest

torch = pytest.importorskip("torch")

import lrcore.torch  # noqa: E402


def model_of(*layers):
    return torch.nn.Sequential(*(layers or (torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))))


def test_a_summary_shows_what_decays_and_what_state_takes():
    model = model_of()
    opt = lrcore.torch.AdamW(
        model.named_parameters(), lr=0.1, weight_decay=0.25, no_decay=["bias", "1.weight"], average=lrcore.EMA(0.9)
    )
    model(torch.ones(1, 3)).square().sum().backward()
    model[1].bias.grad = None
    opt.step()
    rows = opt.summary().rows
    assert [(row.name, row.shape, row.dtype, row.group) for row in rows] == [
        ("0.weight", (2, 3), "float32", "0"),
        ("0.bias", (2,), "float32", "0"),
        ("1.weight", (2,), "float32", "0"),
        ("1.bias", (2,), "float32", "0"),
    ]
    assert [(row.lr, row.decay) for row in rows] == [(0.1, 0.25), (0.1, 0.0), (0.1, 0.0), (0.1, 0.0)]
    assert [row.state_bytes for row in rows] == [80, 32, 32, 0]
    assert opt.memory() == (48, 104, 40, 192)
    assert "total: 4 parameters, 1 with weight decay" in str(opt.summary())


def test_a_summary_of_lazy_parameters_and_of_unnamed_ones():
    model = torch.nn.LazyLinear(2)
    rows = lrcore.torch.SGD(model.parameters(), lr=0.1).summary().rows
    assert [(row.shape, row.state_bytes) for row in rows] == [((), 0), ((), 0)]
    rows = lrcore.torch.SGD(model_of().parameters(), lr=0.1).summary().rows
    assert [row.shape for row in rows] == [(2, 3), (2,), (2,), (2,)]


def test_patterns_of_no_decay_match_after_dots_and_are_warned_of_once():
    model = model_of()
    with pytest.warns(UserWarning, match=r"'LayerNorm.weight' matches no parameter") as caught:
        opt = lrcore.torch.AdamW(model.named_parameters(), no_decay=["bias", "LayerNorm.weight"])
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.step()
        opt.add_param_group({"params": list(model_of().named_parameters())})
        opt.step()
    assert [row.decay for row in opt.summary().rows] == [0.01, 0.0, 0.01, 0.0] * 2


def test_find_lr_refuses_a_model_that_is_not_the_optimizers():
    model, other = model_of(), model_of()
    batches = [(torch.ones(4, 3), torch.zeros(4, 2))]
    for opt in (lrcore.torch.SGD(other.parameters(), lr=0.1), torch.optim.SGD(other.parameters(), lr=0.1)):
        with pytest.raises(ValueError, match="none of them is one of the model's 4"):
            lrcore.torch.find_lr(model, opt, torch.nn.functional.mse_loss, batches, progress=False)
    head = torch.optim.SGD(model[1].parameters(), lr=0.1)
    lrcore.torch.find_lr(model, head, torch.nn.functional.mse_loss, batches, steps=10, progress=False)
    with pytest.raises(TypeError, match=r"the batches are one argument"):
        lrcore.torch.find_lr(model, head, torch.nn.functional.mse_loss, torch.ones(4, 3), torch.zeros(4, 2))
    with pytest.raises(TypeError, match="model must be a module"):
        lrcore.torch.find_lr(model.parameters(), head, torch.nn.functional.mse_loss, batches)
