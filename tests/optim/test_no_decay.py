"""The parameters matched by no_decay, and the warnings for patterns without a match."""

import copy
import pickle
import warnings

import numpy as np
import pytest

import lrcore

NAMES = [
    "bias",
    "encoder.layer.0.attention.output.LayerNorm.weight",
    "encoder.layer.0.attention.output.LayerNorm.bias",
    "encoder.layer.0.dense.weight",
    "encoder.layer.0.dense.bias",
    "encoder.norm1.weight",
    "debias",
    "bias.extra",
    "w[0]",
    "layers[1].w",
    "pos_embed",
]


def free(patterns, names=NAMES):
    """Return the names of parameters that a step with zero gradients does not change."""
    params = {name: np.ones(1) for name in names}
    opt = lrcore.AdamW(params, lr=1.0, weight_decay=0.5, no_decay=patterns)
    rows = opt.summary().rows
    opt.step({name: np.zeros(1) for name in names})
    still = [name for name, array in params.items() if array[0] == 1.0]
    assert [row.name for row in rows if row.decay == 0.0] == still
    return still


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("bias", ["bias", NAMES[2], NAMES[4]]),
        (["bias", "LayerNorm.weight"], ["bias", NAMES[1], NAMES[2], NAMES[4]]),
        (["LayerNorm.*"], NAMES[1:3]),
        (["layer.0.dense.weight"], [NAMES[3]]),
        (["norm?.weight"], [NAMES[5]]),
        (["*norm*"], [NAMES[5]]),
        (["*orm*"], [NAMES[1], NAMES[2], NAMES[5]]),
        (["w[0]"], ["w[0]"]),
        (["layers[1].w"], ["layers[1].w"]),
        (["[wp]*_embed"], ["pos_embed"]),
        (dict.fromkeys(["pos_embed", "debias"]).keys(), ["debias", "pos_embed"]),
        (["*"], NAMES),
        ([], []),
    ],
    ids=str,
)
def test_a_pattern_matches_a_name_or_its_part_after_a_dot(patterns, expected):
    assert free(patterns) == expected


def test_an_exact_name_with_brackets_matches_after_a_dot():
    assert free(["w[0]"], ["block.w[0]", "block.w1"]) == ["block.w[0]"]


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("biass", "did you mean 'bias'"),
        ("LayerNorm.wieght", "did you mean 'LayerNorm.weight'"),
        ("layernorm", r"'\*LayerNorm\*' matches 2, such as 'encoder.layer.0.attention"),
        ("embed", r"'\*embed\*' matches 1, such as 'pos_embed'"),
        ("xyzzy", "there are 'bias', 'encoder"),
        ("", "matches no parameter"),
    ],
)
def test_a_pattern_without_a_match_raises_a_warning_with_a_suggestion(pattern, says):
    with pytest.warns(UserWarning, match=says) as caught:
        lrcore.AdamW({name: np.ones(1) for name in NAMES}, no_decay=["bias", pattern])
    (warning,) = caught
    assert f"the pattern {pattern!r} matches no parameter" in str(warning.message)
    assert warning.filename == __file__


def test_all_groups_are_checked_before_a_warning():
    groups = [{"params": {"w": np.ones(1)}}, {"params": {"bias": np.ones(1)}}]
    lrcore.AdamW(groups, no_decay=["bias"])


def test_a_warning_is_not_repeated():
    with pytest.warns(UserWarning, match="norm"):
        opt = lrcore.AdamW({"w": np.ones(1)}, no_decay=["norm"], weight_decay=0.5, lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.add_param_group({"params": {"norm": np.ones(1)}})
        for same in (opt, pickle.loads(pickle.dumps(opt)), copy.deepcopy(opt)):  # noqa: S301
            same.step({"w": np.zeros(1), "norm": np.zeros(1)})
            assert [row.decay for row in same.summary().rows] == [0.5, 0.0]
            assert same.params[1]["params"]["norm"][0] == 1.0
