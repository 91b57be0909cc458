"""Values of options as in configuration files and other libraries."""

import math

import numpy as np
import pytest

import lrcore
from support.cases import same
from support.labels import label


@pytest.mark.parametrize(
    "options",
    [
        {"clip_norm": None, "norm_type": 2.0},
        {"clip_norm": None, "norm_type": np.int64(2)},
        {"skip_nonfinite": False, "max_skips": 10},
        {"clip_norm": None, "norm_type": 2, "skip_nonfinite": False, "max_skips": 10, "no_decay": None, "bounds": None},
    ],
    ids=label,
)
def test_defaults_can_be_given_explicitly_and_have_no_effect(options):
    opt = lrcore.AdamW(np.zeros(1), **options)
    assert opt.options == lrcore.AdamW(np.zeros(1)).options
    assert opt.step(np.ones(1)).grad_norm is None


@pytest.mark.parametrize(
    ("given", "means"),
    [
        ({"norm_type": np.int64(1)}, {"norm_type": 1.0}),
        ({"norm_type": np.float32(math.inf)}, {"norm_type": math.inf}),
        ({"norm_type": "inf"}, {"norm_type": math.inf}),
        ({"no_decay": None}, {"no_decay": ()}),
        pytest.param({"no_decay": {"*norm*", "*bias"}}, {"no_decay": ("*bias", "*norm*")}, id="a set"),
        ({"no_decay": {"*bias": 1}.keys()}, {"no_decay": ("*bias",)}),
    ],
    ids=label,
)
def test_an_option_accepts_equivalent_values(given, means):
    opt = lrcore.AdamW({"bias": np.zeros(1), "norm": np.zeros(1)}, **{"clip_norm": 1.0, **given})
    told = opt.options
    assert {name: told[name] for name in means} == means
    assert [type(told[name]) for name in means] == [type(value) for value in means.values()]


@pytest.mark.parametrize(
    ("bounds", "means"),
    [((None, 1.0), (-math.inf, 1.0)), ((-1, None), (-1.0, math.inf)), ([None, None], (-math.inf, math.inf))],
)
def test_a_bound_may_be_missing(bounds, means):
    weight = np.array([-9.0, 9.0])
    opt = lrcore.SGD([{"params": weight, "bounds": bounds}])
    opt.step([np.zeros(2)])
    assert opt.param_groups[0]["bounds"] == means
    assert weight.tolist() == np.array([-9.0, 9.0]).clip(*means).tolist()


@pytest.mark.parametrize("most", [math.inf, np.float32(math.inf)], ids=label)
@pytest.mark.parametrize("bad", [None, math.inf, math.nan, 1e200])
def test_an_infinite_clip_norm_computes_the_norm_and_clips_nothing(most, bad):
    grad = np.array([3.0, 4.0] if bad is None else [3.0, bad])
    plain, clipped = np.zeros(2), np.zeros(2)
    lrcore.SGD(plain, lr=1.0).step(grad)
    info = lrcore.SGD(clipped, lr=1.0, clip_norm=most).step(grad)
    assert same(clipped, plain)
    np.testing.assert_equal(info.grad_norm, {None: 5.0, math.inf: math.inf, 1e200: 1e200}.get(bad, math.nan))


def test_a_step_is_skipped_whatever_is_clipped():
    opt = lrcore.SGD(np.zeros(2), clip_norm=math.inf, skip_nonfinite=True)
    assert not opt.step(np.array([1.0, math.nan])).applied
    assert opt.step(np.ones(2)).applied
