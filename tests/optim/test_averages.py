"""Averages can be read, swapped in and saved, and are always swapped back."""

import copy
import pickle
from collections.abc import Sequence

import numpy as np
import pytest

import lrcore
from lrcore._restoring import put_back
from lrcore.optim.averages import swapped
from support.cases import same
from support.snapshot import snapshot


def trained(steps=4, **options):
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal((5, 3)), "b": rng.standard_normal(3), "idle": np.ones(2)}
    opt = lrcore.Adam(params, lr=0.1, **{"average": lrcore.EMA(0.5), **options})
    for _ in range(steps):
        opt.step({"w": rng.standard_normal((5, 3)), "b": rng.standard_normal(3), "idle": None})
    return opt


def test_weights_are_averages_within_the_block_and_restored_after_it():
    opt = trained()
    before = snapshot(opt, *opt.params.values())
    with opt.averaged() as inside:
        assert inside is opt
        assert same(opt.params["w"], opt.average["w"])
        assert (opt.params["idle"] == 1.0).all()
    assert snapshot(opt, *opt.params.values()) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_weights_are_restored_after_an_exception(error):
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


def test_training_is_refused_within_the_block():
    opt = trained()
    grads = {"w": np.ones((5, 3)), "b": None, "idle": None}
    with opt.averaged():
        with pytest.raises(RuntimeError, match=r"the weights are averages now"):
            opt.step(grads)
        with pytest.raises(RuntimeError, match=r"the weights are averages now"), opt.averaged():
            pass
    assert opt.step(grads).applied


def test_averages_are_read_only():
    opt = trained()
    assert opt.average.keys() == {"w", "b"}
    with pytest.raises(ValueError, match="read-only"):
        opt.average["w"][...] = 0.0
    assert lrcore.SGD(np.zeros(1), average=lrcore.EMA()).average == {}


def test_averaged_without_averages_is_an_error():
    with pytest.raises(ValueError, match=r"^SGD was made without an average"), lrcore.SGD(np.zeros(1)).averaged():
        pass


@pytest.mark.parametrize("average", [lrcore.EMA(0.9, warmup=True), lrcore.SWA(start=2, every=3)], ids=str)
@pytest.mark.parametrize("way", ["state_dict", "pickle", "deepcopy"])
def test_averages_resume_from_saved_state(average, way):
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


def test_an_average_without_its_count_is_not_loaded():
    opt = trained()
    saved = opt.state_dict()
    del saved["state"]["w"]["averaged"]
    with pytest.raises(ValueError, match=r"^state\['w'\] must have both 'average' and 'averaged', or neither$"):
        opt.load_state_dict(saved)


@pytest.mark.parametrize("make", [lambda: lrcore.EMA(1.0), lambda: lrcore.EMA(-0.1), lambda: lrcore.EMA(float("nan"))])
def test_an_invalid_decay_is_refused(make):
    with pytest.raises(ValueError, match=r"^EMA: decay must be in \[0, 1\)"):
        make()


@pytest.mark.parametrize("name", ["start", "every"])
def test_an_invalid_count_is_refused(name):
    with pytest.raises(ValueError, match=f"^SWA: {name} must be >= 1, got 0$"):
        lrcore.SWA(**{name: 0})
    with pytest.raises(TypeError, match=f"^SWA: {name} must be a whole number"):
        lrcore.SWA(**{name: 1.5})


def averaging(*names, steps=3):
    """An optimizer with weights of these names, which differ from their averages."""
    opt = lrcore.SGD({name: np.ones((2, 3)) for name in names}, lr=1.0, average=lrcore.EMA(0.5))
    for _ in range(steps):
        opt.step({name: np.ones((2, 3)) for name in names})
    return opt


def read_only(array):
    array.flags.writeable = False


def reshaped(array):
    array.resize(6, refcheck=False)


def enlarged(array):
    array.resize((4, 2, 3), refcheck=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (read_only, r"^the weight 'b' is read-only, so its average can't be put in its place$"),
        (reshaped, r"^the weight 'b' has shape \(6,\), its average has \(2, 3\)$"),
        (enlarged, r"^the weight 'b' has shape \(4, 2, 3\), its average has \(2, 3\)$"),
    ],
)
def test_nothing_is_swapped_in_if_one_weight_cannot_be(change, message):
    opt = averaging("a", "b", "c")
    change(opt.params["b"])
    before = {name: array.copy() for name, array in opt.params.items()}
    for _ in range(2):
        with pytest.raises(ValueError, match=message), opt.averaged():
            pass
        for name, array in opt.params.items():
            assert same(array, before[name]), name


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (read_only, ".*read-only$"),
        (reshaped, r"its shape was \(2, 3\), and is \(6,\) now$"),
        (enlarged, r"its shape was \(2, 3\), and is \(4, 2, 3\) now$"),
    ],
)
def test_every_weight_that_can_be_restored_is(change, why):
    opt = averaging("a", "b", "c", "d")
    before = {name: array.copy() for name, array in opt.params.items()}

    def evaluate():
        with opt.averaged():
            change(opt.params["d"])
            change(opt.params["b"])

    message = "(?m)^the weight 'd' could not be put back and holds its average: "
    with pytest.raises(RuntimeError, match=message + why) as caught:
        evaluate()
    assert [note[:44] for note in caught.value.__notes__] == ["and: the weight 'b' could not be put back an"]
    assert same(opt.params["a"], before["a"])
    assert same(opt.params["c"], before["c"])


@pytest.mark.parametrize("call", range(1, 7))
def test_ctrl_c_while_weights_are_swapped_leaves_none_of_them_swapped(call):
    """The first three writes swap three averages in, the next three restore the weights."""
    weights, averages = ([np.full(2, value) for value in values] for values in ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)))
    calls = []

    def fill(array, values):
        calls.append(1)
        if len(calls) == call:
            array[:1] = 7.0
            raise KeyboardInterrupt
        array[...] = values

    def evaluate():
        with swapped(list(zip("abc", weights, averages, strict=True)), fill=fill):
            assert call > 3
            assert [array.tolist() for array in weights] == [[4.0, 4.0], [5.0, 5.0], [6.0, 6.0]]

    with pytest.raises(KeyboardInterrupt):
        evaluate()
    assert [array.tolist() for array in weights] == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]


@pytest.mark.parametrize("place", ["put_back", "the lock"])
def test_ctrl_c_around_the_swap_does_not_leave_steps_refused(place, monkeypatch):
    """Ctrl-C can arrive between a call and the first line of the function."""
    opt = averaging("a", "b")
    before = snapshot(opt, *opt.params.values())

    def interrupted(restores, pressed=[]):  # noqa: B006 (it remembers)
        if not pressed:
            pressed.append(True)
            raise KeyboardInterrupt
        put_back(restores)

    class Lock:
        def __enter__(self):
            pass

        def __exit__(self, *_):
            opt._lock = lock
            raise KeyboardInterrupt

    def evaluate():
        with opt.averaged():
            pass

    lock = opt._lock
    if place == "put_back":
        monkeypatch.setattr("lrcore.optim.averages.put_back", interrupted)
    else:
        opt._lock = Lock()
    with pytest.raises(KeyboardInterrupt):
        evaluate()
    assert snapshot(opt, *opt.params.values()) == before
    assert opt.step({name: np.ones((2, 3)) for name in "ab"}).applied


WAYS = {
    "pickle": pickle.dumps,
    "deepcopy": copy.deepcopy,
    "state_dict": lambda opt: opt.state_dict(),
    "load_state_dict": lambda opt: opt.load_state_dict({}),
    "save": lambda opt: lrcore.save("/dev/null/nowhere", opt),
    "load": lambda opt: opt.load_state_dict({}, strict=False),
    "accumulate": lambda opt: opt.accumulate({"w": np.ones((5, 3)), "b": None, "idle": None}),
    "add_param_group": lambda opt: opt.add_param_group({"params": {"more": np.ones(1)}}),
    "find_lr": lambda opt: lrcore.find_lr(opt, lambda *_: 1.0, [1.0]),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_averages_are_not_saved_as_weights(way):
    opt = trained()
    before = snapshot(opt, *opt.params.values())
    with opt.averaged(), pytest.raises(RuntimeError, match=r"^the weights are averages now"):
        way(opt)
    assert snapshot(opt, *opt.params.values()) == before


def test_buffers_are_restored():
    opt = trained()
    running = {"mean": np.full(3, -0.0), "more": [np.arange(4.0).reshape(2, 2).T]}
    before = [array.tobytes() for array in (running["mean"], *running["more"])]
    with opt.averaged(buffers=running):
        running["mean"][...] = 1.0
        running["more"][0][...] = np.nan
    assert [array.tobytes() for array in (running["mean"], *running["more"])] == before
    with pytest.raises(
        TypeError, match=r"^buffers\['mean'\] must be an array, or a sequence or mapping of arrays, got f"
    ):
        opt.averaged(buffers={"mean": 1.0}).__enter__()
    running["mean"].flags.writeable = False
    with pytest.raises(ValueError, match=r"^buffers\['mean'\] is read-only"):
        opt.averaged(buffers=running).__enter__()
    opt.step({"w": np.ones((5, 3)), "b": None, "idle": None})


def test_averages_are_exported_in_the_structure_of_the_parameters():
    class Fresh(Sequence):
        """A sequence that creates new views at each access."""

        def __init__(self, array):
            self.array = array

        def __getitem__(self, i):
            return self.array[range(len(self))[i] :][:1]

        def __len__(self):
            return 2

    params = {
        "a": np.zeros((2, 3), order="F"), "b": [np.zeros(2), (np.zeros(0), np.zeros(()))], "c": Fresh(np.zeros(2)),
    }  # fmt: skip
    opt = lrcore.SGD(params, lr=1.0, average=lrcore.EMA(0.5))
    grads = {"a": -np.ones((2, 3)), "b": [None, (np.zeros(0), np.array(-2.0))], "c": [np.ones(1), np.full(1, 2.0)]}
    for _ in range(2):
        opt.step(grads)
    exported = opt.averaged_params()
    assert exported["a"].tolist() == opt.average["a"].tolist() == [[1.5] * 3] * 2
    assert exported["a"].flags.f_contiguous
    assert [array.tolist() for array in (exported["b"][0], *exported["b"][1])] == [[0.0, 0.0], [], 3.0]
    assert [array.tolist() for array in exported["c"]] == [[-1.5], [-3.0]]
    exported["a"][...] = 7.0  # they are copies
    assert opt.average["a"][0, 0] == 1.5
    again = lrcore.SGD(opt.averaged_params(), lr=1.0)
    assert again.params["a"][0, 0] == 1.5
    opt.add_param_group({"params": np.ones(1), "name": "more"})
    body, more = opt.averaged_params()
    assert body["params"]["a"][0, 0] == 1.5
    assert (more["name"], more["params"].tolist()) == ("more", [1.0])
    with pytest.raises(ValueError, match="made without an average"):
        lrcore.SGD([np.zeros(1)], lr=1.0).averaged_params()
