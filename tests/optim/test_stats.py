"""Step statistics: access as attributes and dictionaries, export to pandas, TensorBoard, JSON and pickle."""

import copy
import json
import pickle
import warnings

import numpy as np
import pytest

import lrcore

COLUMNS = ["weight_norm", "grad_norm", "update_norm", "update_ratio", "update_max", "zeros", "nonfinite"]


def step_info():
    params = {"w": np.ones(4), "layer": {"b": np.zeros(2)}}
    grads = {"w": np.ones(4), "layer": {"b": np.array([0.0, 3.0])}}
    return lrcore.SGD(params, lr=0.5, stats=True).step(grads)


def test_param_stats_are_a_dictionary_with_attributes():
    row = step_info().stats["w"]
    assert row.update_norm == row["update_norm"] == 1.0
    assert [getattr(row, name) for name in row] == list(row.values()) == [2.0, 2.0, 1.0, 0.5, 0.5, 0.0, 0.0]
    assert list(row) == COLUMNS
    assert isinstance(row, dict)
    assert repr(row).startswith("ParamStats(weight_norm=2.0, grad_norm=2.0, ")
    assert eval(repr(row), {"ParamStats": lrcore.ParamStats}) == row  # noqa: S307 (input from this test)
    with pytest.raises(AttributeError, match="update_nrom"):
        _ = row.update_nrom
    with pytest.raises(AttributeError):
        row.update_norm = 3.0


def test_step_stats_convert_to_a_data_frame():
    pandas = pytest.importorskip("pandas")
    stats = step_info().stats
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        columns, rows = pandas.DataFrame(stats), pandas.DataFrame.from_dict(stats, orient="index")
        listed = pandas.DataFrame(stats.rows()).set_index("name")
    assert list(columns.columns) == ["w", "layer.b"]
    assert list(columns.index) == COLUMNS
    assert columns["layer.b"].tolist() == list(stats["layer.b"].values())
    assert columns.dtypes.tolist() == [np.float64] * 2
    for frame in (rows, listed):
        assert frame.index.tolist() == ["w", "layer.b"]
        assert frame.equals(columns.T[frame.columns])


def test_step_stats_can_be_written_to_tensorboard():
    """Uses the same operations as ``SummaryWriter.add_scalars``."""
    info, written = step_info(), {}

    def add_scalars(main_tag, tag_scalar_dict, global_step):
        written.update({(f"{main_tag}/{tag}", global_step): float(value) for tag, value in tag_scalar_dict.items()})

    for name, row in info.stats.items():
        add_scalars(name, row, info.step)
    assert written == {(tag, 1): value for tag, value in info.stats.scalars()}
    assert written["layer.b/update_norm", 1] == 1.5


def test_step_stats_can_be_serialised_as_json():
    assert json.loads(json.dumps(step_info().stats))["w"]["update_ratio"] == 0.5


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda info: pickle.loads(pickle.dumps(info))])  # noqa: S301
@pytest.mark.parametrize("is_computed", [False, True])
def test_a_step_info_can_be_copied(copied, is_computed):
    info = step_info()
    if is_computed:
        assert info.stats
    other = copied(info)
    assert (other, other.stats) == (info, info.stats)
    assert type(other.stats) is lrcore.StepStats
    assert type(other.stats["w"]) is lrcore.ParamStats


def test_the_repr_of_a_step_info_omits_its_stats():
    info = step_info()
    assert repr(info) == "StepInfo(applied=True, step=1, lr=0.5, grad_norm=None)"
    assert isinstance(info, lrcore.StepInfo)
    assert info.stats is info.stats
    assert info._replace(lr=1.0).stats is None


def test_stats_read_after_later_steps_are_of_their_own_step():
    opt = lrcore.SGD({"w": np.ones(1)}, lr=1.0, stats=True)
    infos = [opt.step({"w": np.full(1, grad)}) for grad in (1.0, 2.0)]
    opt.add_param_group({"params": {"b": np.ones(1)}})
    assert [info.stats["w"].grad_norm for info in infos] == [1.0, 2.0]
    assert list(infos[0].stats) == ["w"]


def test_the_stats_of_a_skipped_step_are_empty():
    """A loop over the stats therefore needs no special case."""
    opt = lrcore.SGD({"w": np.ones(2), "b": np.ones(1)}, stats=True, skip_nonfinite=True)
    skipped = opt.step({"w": np.array([1.0, np.nan]), "b": np.ones(1)})
    assert not skipped.applied
    assert skipped.stats == {}
    assert str(skipped.stats).split() == COLUMNS
    assert repr(skipped) == "StepInfo(applied=False, step=0, lr=0.001, grad_norm=nan)"
    assert list(opt.step({"w": None, "b": np.ones(1)}).stats) == ["b"]
