"""summary() and memory(): the table of an optimizer's parameters."""

import lrcore.torch
from support.networks import network_with_layer_norm, torch


def test_a_summary_shows_what_decays_and_what_state_takes():
    model = network_with_layer_norm()
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
    rows = lrcore.torch.SGD(network_with_layer_norm().parameters(), lr=0.1).summary().rows
    assert [row.shape for row in rows] == [(2, 3), (2,), (2,), (2,)]
