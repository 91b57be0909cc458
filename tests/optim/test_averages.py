"""Averages: read, swapped in, always swapped back, saved."""

import copy
import pickle

import numpy as np
import pytest

import lrcore
from cases import same
from snapshot import snapshot


def trained(steps=4, **options):
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal((5, 3)), "b": rng.standard_normal(3), "idle": np.ones(2)}
    opt = lrcore.Adam(params, lr=0.1, **{"average": lrcore.EMA(0.5), **options})
    for _ in range(steps):
        opt.step({"w": rng.standard_normal((5, 3)), "b": rng.standard_normal(3), "idle": None})
    return opt


def test_weights_are_averages_within_the_block_and_themselves_after_it():
    opt = trained()
    before = snapshot(opt, *opt.params.values())
    with opt.averaged() as inside:
        assert inside is opt
        assert same(opt.params["w"], opt.average["w"])
        assert (opt.params["idle"] == 1.0).all()
    assert snapshot(opt, *opt.params.values()) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_they_come_back_after_an_exception(error):
    opt = trained()
    before = snapshot(opt, *opt.params.values())

    def evaluate():
        with opt.averaged():
            opt.params["w"][...] = 7.0
            raise error

    with pytest.raises(error):
        evaluate()
    assert snapshot(opt, *opt.params.values()) == before
    opt.step({"w": np.ones((5, 3)), "b": None, "idle": None})


def test_within_the_block_nothing_is_trained():
    opt = trained()
    grads = {"w": np.ones((5, 3)), "b": None, "idle": None}
    with opt.averaged():
        with pytest.raises(RuntimeError, match=r"the weights are averages now"):
            opt.step(grads)
        with pytest.raises(RuntimeError, match=r"the weights are averages now"), opt.averaged():
            pass
    assert opt.step(grads).applied


def test_averages_can_be_read_and_not_written():
    opt = trained()
    assert opt.average.keys() == {"w", "b"}
    with pytest.raises(ValueError, match="read-only"):
        opt.average["w"][...] = 0.0
    assert lrcore.SGD(np.zeros(1), average=lrcore.EMA()).average == {}


def test_an_optimizer_without_averages_says_so():
    with pytest.raises(ValueError, match=r"^SGD was made without an average"), lrcore.SGD(np.zeros(1)).averaged():
        pass


@pytest.mark.parametrize("average", [lrcore.EMA(0.9, warmup=True), lrcore.SWA(start=2, every=3)], ids=str)
@pytest.mark.parametrize("way", ["state_dict", "pickle", "deepcopy"])
def test_averages_go_on_where_they_were(average, way):
    opt = trained(5, average=average)
    if way == "state_dict":
        params = {name: array.copy() for name, array in opt.params.items()}
        other = lrcore.Adam(params, average=average)
        other.load_state_dict(pickle.loads(pickle.dumps(opt.state_dict())))  # noqa: S301
    else:
        other = pickle.loads(pickle.dumps(opt)) if way == "pickle" else copy.deepcopy(opt)  # noqa: S301
    rng = np.random.default_rng(1)
    for _ in range(5):
        grads = {"w": rng.standard_normal((5, 3)), "b": None, "idle": rng.standard_normal(2)}
        opt.step(grads)
        other.step(grads)
    assert opt.average.keys() == other.average.keys()
    for name in opt.average:
        assert same(opt.average[name], other.average[name])
        assert same(opt.params[name], other.params[name])


def test_half_an_average_is_not_loaded():
    opt = trained()
    saved = opt.state_dict()
    del saved["state"]["w"]["averaged"]
    with pytest.raises(ValueError, match=r"^state\['w'\] must have both 'average' and 'averaged', or neither$"):
        opt.load_state_dict(saved)


@pytest.mark.parametrize("make", [lambda: lrcore.EMA(1.0), lambda: lrcore.EMA(-0.1), lambda: lrcore.EMA(float("nan"))])
def test_a_bad_share_is_refused(make):
    with pytest.raises(ValueError, match=r"^EMA: decay must be in \[0, 1\)"):
        make()


@pytest.mark.parametrize("name", ["start", "every"])
def test_a_bad_count_is_refused(name):
    with pytest.raises(ValueError, match=f"^SWA: {name} must be >= 1, got 0$"):
        lrcore.SWA(**{name: 0})
    with pytest.raises(TypeError, match=f"^SWA: {name} must be a whole number"):
        lrcore.SWA(**{name: 1.5})
