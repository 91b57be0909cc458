"""Checkpoints: whole or not at all, and a run goes on from one with the same bits."""

import json
import math
import os
import random
import subprocess
import sys
import textwrap
import time
import tracemalloc
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import lrcore
from lrcore import schedules
from lrcore.checkpoint import safetensors
from support.cases import FULL, NAMES, same
from support.labels import label
from support.snapshot import snapshot

RATE = schedules.Cosine(0.1, steps=30).warmup(5)
FACTORIES = {
    "momentum": lambda params: lrcore.SGD(params, lr=RATE, momentum=schedules.Linear(0.5, 0.9, steps=10)),
    "averaged": lambda params: lrcore.Adam(params, lr=RATE, average=lrcore.EMA(0.9, warmup=True), clip_norm=1.0),
    "groups": lambda params: lrcore.Adam(
        [
            {"params": {"w": params["w"]}, "name": "head", "lr": 0.01, "bounds": (-1.0, math.inf)},
            {"params": params["n"]},
        ],
        lr=RATE, betas=(0.8, schedules.Constant(0.99)), clip_value=0.5,
    ),
    **{name: partial(getattr(lrcore, name), **FULL[name]) for name in NAMES},
}  # fmt: skip


def parameters(rng):
    return {
        "w": np.asfortranarray(rng.standard_normal((33, 17))),
        "n": [rng.standard_normal(5).astype(np.float32), np.zeros((4, 6))[:, ::2], np.array(1.5), np.zeros((0, 3))],
    }


def gradients(rng, opt):
    grads = parameters(rng)
    return [{"w": grads["w"]}, grads["n"]] if len(opt.param_groups) > 1 else grads


def leaves(params):
    return [params["w"], *params["n"]]


def trained(factory, steps, seed=0):
    rng = np.random.default_rng(seed)
    params = parameters(rng)
    opt = FACTORIES[factory](params)
    for _ in range(steps):
        opt.step(gradients(rng, opt))
    return opt, params, rng


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_run_goes_on_as_if_it_had_not_stopped(factory, tmp_path):
    opt, params, rng = trained(factory, 7)
    path = lrcore.save(tmp_path / "a.safetensors", opt, rng=rng.bit_generator.state)
    other_params = parameters(np.random.default_rng(9))
    other, other_rng = FACTORIES[factory](other_params), np.random.default_rng()
    other_rng.bit_generator.state = lrcore.load(path, other)["rng"]
    assert snapshot(other, *leaves(other_params)) == snapshot(opt, *leaves(params))
    for _ in range(5):
        opt.step(gradients(rng, opt))
        other.step(gradients(other_rng, other))
    assert snapshot(other, *leaves(other_params), *other.average.values()) == snapshot(
        opt, *leaves(params), *opt.average.values()
    )


SCRIPT = """
    import sys, numpy as np, lrcore
    from lrcore import schedules
    path, steps, level, threads = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    lrcore.set_simd_level(level)
    lrcore.set_num_threads(threads)
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal((700, 900)).astype(np.float32), "b": rng.standard_normal(31).astype(np.float32)}
    opt = lrcore.AdamW(params, lr=schedules.Cosine(0.1, steps=40), clip_norm=1.0, average=lrcore.EMA(0.9))
    if lrcore.latest(path):
        rng.bit_generator.state = lrcore.load(lrcore.latest(path), opt)["rng"]
    for _ in range(steps):
        opt.step({name: rng.standard_normal(w.shape).astype(np.float32) for name, w in params.items()})
    lrcore.save(path, opt, rng=rng.bit_generator.state)
"""


def output_of(script, *arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603


def content(path):
    """All that is in a checkpoint but when it was saved."""
    with safetensors.opened(path) as file:
        description = json.loads(file.text())
        assert description.pop("saved") <= time.time_ns()
        return description, {name: file.array(name).tobytes() for name in file.names()}


@pytest.mark.slow
def test_another_process_with_other_threads_and_instructions_gets_the_same_bits(tmp_path):
    levels = lrcore.simd_levels()
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    output_of(SCRIPT, whole, 9, levels[-1], 2)
    for level, threads in ((levels[0], 3), (levels[-1], 1), (levels[len(levels) // 2], 2)):
        output_of(SCRIPT, parts, 3, level, threads)
    one, other = (folder / "step-0000000009.safetensors" for folder in (whole, parts))
    assert content(one) == content(other)


def test_values_of_ones_own_come_back_as_they_were(tmp_path):
    generator = random.Random(3)  # noqa: S311
    extra = {
        "epoch": 3, "name": "ä", "nothing": None, "yes": True, "nan": math.nan, "inf": -math.inf, "large": 2**130,
        "nested": {"list": [1, (2, 3.5), {"array": np.arange(6).reshape(2, 3).T}], "dict": {}, "tuple": ()},
        "numpy": np.float32(0.5), "flags": np.array([True, False]), "python": generator.getstate(),
        "old": np.random.RandomState(1).get_state(legacy=False), "bytes": bytes(range(256)), "no bytes": b"",
        "keys": {0: "a", "0": "b", -1: {2: [b"c"]}},
    }  # fmt: skip
    opt, *_ = trained("momentum", 1)
    back = lrcore.load(lrcore.save(tmp_path / "a.safetensors", opt, **extra), opt)
    assert back.keys() == extra.keys()
    equal = ("epoch", "name", "nothing", "yes", "inf", "large", "numpy", "bytes", "no bytes", "keys")
    assert {key: back[key] for key in equal} == {key: extra[key] for key in equal}
    assert math.isnan(back["nan"])
    array = back["nested"]["list"][2].pop("array")
    assert array.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert array.dtype == np.arange(1).dtype
    assert back["nested"] == {"list": [1, (2, 3.5), {}], "dict": {}, "tuple": ()}
    back["flags"][0] = False  # an array of one's own
    other = random.Random()  # noqa: S311
    other.setstate(back["python"])
    assert other.random() == generator.random()
    np.random.RandomState(2).set_state(back["old"])


def test_arrays_of_names_that_look_alike_come_back_each_as_its_own(tmp_path):
    params = {"a": np.ones(2), "a/b": np.full(2, 2.0)}
    opt = lrcore.Adam(params)
    opt.step({"a": np.ones(2), "a/b": np.full(2, 3.0)})
    extra = {"a/b": np.array(1.0), "a": {"b": np.array(2.0), "b'": np.array(3.0), 1: np.array(4.0), "1": np.array(5.0)}}
    path = lrcore.save(tmp_path / "a.safetensors", opt, x=extra)
    other_params = {"a": np.zeros(2), "a/b": np.zeros(2)}
    other = lrcore.Adam(other_params)
    assert lrcore.load(path, other)["x"] == extra
    assert snapshot(other, *other_params.values()) == snapshot(opt, *params.values())


def test_tensors_come_back_as_arrays(tmp_path):
    torch = pytest.importorskip("torch")
    opt = lrcore.SGD(np.zeros(1))
    state, weight = torch.get_rng_state(), torch.ones(2, 3, requires_grad=True).T
    path = lrcore.save(tmp_path / "a.safetensors", opt, torch=state, weight=weight)
    back = lrcore.load(path, opt)
    assert back["torch"].tolist() == state.tolist()
    assert same(back["weight"], weight.detach().numpy())
    torch.set_rng_state(torch.from_numpy(back["torch"]))
    for tensor in (torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2, device="meta")):
        with pytest.raises(TypeError, match=r"^extra/mine/0 can't be saved: "):
            lrcore.save(path, opt, mine=[tensor])


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (object(), "object"),
        ({1.5: 2}, "dict"),
        ({"a": [{1, 2}]}, "set"),
        (np.zeros(2, complex), "complex128"),
        (bytearray(), "bytearray"),
    ],
    ids=label,
)
def test_what_cannot_be_saved_is_refused_and_leaves_what_was_there(value, what, tmp_path):
    opt, *_ = trained("momentum", 1)
    path = lrcore.save(tmp_path / "a.safetensors", opt, good=1)
    before = path.read_bytes()
    with pytest.raises(TypeError, match=rf"^extra/mine.*{what}"):
        lrcore.save(path, opt, mine=value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_schedule_of_ones_own_cannot_be_saved(tmp_path):
    class Own(schedules.Schedule):
        def _value(self, step):
            return 0.1 * step

    with pytest.raises(TypeError, match=r"can't be saved: Own is not a class of lrcore.schedules$"):
        lrcore.save(tmp_path / "a.safetensors", lrcore.SGD(np.zeros(1), lr=Own()))


MISMATCHES = {
    "another shape": (lambda: lrcore.Adam({"w": np.zeros(4), "b": np.zeros(2)}), ValueError, "has shape"),
    "another dtype": (lambda: lrcore.Adam({"w": np.zeros(3, np.float32), "b": np.zeros(2)}), TypeError, "has dtype"),
    "a parameter more": (
        lambda: lrcore.Adam({"w": np.zeros(3), "b": np.zeros(2), "c": np.zeros(1)}),
        ValueError,
        r"no weights of \['c'\]",
    ),
    "a parameter less": (lambda: lrcore.Adam({"w": np.zeros(3)}), ValueError, "unexpected"),
    "another optimizer": (lambda: lrcore.SGD({"w": np.zeros(3), "b": np.zeros(2)}), ValueError, "was saved by Adam"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "exception", "message"), MISMATCHES.values(), ids=MISMATCHES)
def test_what_does_not_match_changes_nothing(make, exception, message, tmp_path):
    opt = lrcore.Adam({"w": np.ones(3), "b": np.ones(2)})
    opt.step({"w": np.ones(3), "b": np.ones(2)})
    path = lrcore.save(tmp_path / "a.safetensors", opt)
    other = make()
    before = snapshot(other, *other.params.values())
    with pytest.raises(exception, match=message):
        lrcore.load(path, other)
    assert snapshot(other, *other.params.values()) == before


def test_what_both_sides_have_is_loaded_if_that_is_wanted(tmp_path):
    opt = lrcore.Adam({"w": np.ones(3), "b": np.ones(2)})
    opt.step({"w": np.ones(3), "b": np.ones(2)})
    path = lrcore.save(tmp_path / "a.safetensors", opt)
    other = lrcore.Adam({"w": np.zeros(3), "new": np.full(2, 7.0)})
    lrcore.load(path, other, strict=False)
    assert same(other.params["w"], opt.params["w"])
    assert (other.params["new"] == 7.0).all()


def test_a_read_only_weight_is_refused_before_anything_is_loaded(tmp_path):
    params = {"a": np.ones(2), "b": np.ones(2)}
    opt = lrcore.SGD(params)
    path = lrcore.save(tmp_path / "a.safetensors", opt)
    params["a"][:] = 5.0
    params["b"].flags.writeable = False
    with pytest.raises(ValueError, match="'b' is read-only"):
        lrcore.load(path, opt)
    assert (params["a"] == 5.0).all()


def test_averages_in_place_of_weights_are_not_saved(tmp_path):
    opt, *_ = trained("averaged", 2)
    with opt.averaged(), pytest.raises(RuntimeError, match="the weights are averages now"):
        lrcore.save(tmp_path / "a.safetensors", opt)
    assert not list(tmp_path.iterdir())


def test_no_second_copy_of_the_arrays_is_made(tmp_path):
    n = 4 << 20
    params = {"w": np.zeros(n, np.float32), "f": np.zeros((2048, 1024), np.float32, order="F")}
    opt = lrcore.Adam(params)
    opt.step({name: np.ones_like(array) for name, array in params.items()})
    other = lrcore.Adam({name: np.zeros_like(array) for name, array in params.items()})
    tracemalloc.start()
    path = lrcore.save(tmp_path / "a.safetensors", opt)
    saving = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    lrcore.load(path, other)
    loading = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = sum(array.nbytes for array in params.values())
    assert saving < 16 << 20
    assert loading < 2 * size + (16 << 20)  # the state that it makes
    assert same(other.params["f"], params["f"])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the system to say how much memory there was")
def test_a_file_is_not_in_memory_when_it_is_read(tmp_path):
    size = 128 << 20
    path = lrcore.save(tmp_path / "a.safetensors", lrcore.SGD(np.ones(size // 4, np.float32)))
    script = """
        import sys, numpy as np, lrcore
        def most():
            line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
            return int(line.split()[1]) << 10
        opt = lrcore.SGD(np.ones(int(sys.argv[2]) // 4, np.float32))
        before = most()
        lrcore.load(sys.argv[1], opt)
        print(most() - before)
    """
    assert int(output_of(script, path, size)) < size // 4


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        lrcore.load(Path(tmp_path) / "none.safetensors", lrcore.SGD(np.zeros(1)))


def scheduled(first, /, **more):
    """An optimizer of two groups, of which one has a name."""
    groups = [{"params": {"w": np.zeros(2)}, "lr": first}, {"params": {"b": np.zeros(1)}, "name": "head", **more}]
    return lrcore.AdamW(groups, lr=0.1)


SHORT, LONG = schedules.Cosine(0.1, steps=10), schedules.Cosine(0.1, steps=20)
BETAS = (schedules.Linear(0.8, 0.9, steps=5), 0.999)


@pytest.mark.parametrize("way", ["checkpoint", "state dict"])
def test_a_saved_schedule_that_is_not_that_of_the_program_is_named_and_there_is_a_choice(way, tmp_path):
    saved = scheduled(SHORT, betas=BETAS, weight_decay=0.5)
    path, state_dict = lrcore.save(tmp_path / "a.safetensors", saved), saved.state_dict()

    def loaded(**choice):
        opt = scheduled(LONG, weight_decay=schedules.Linear(0.0, 0.1, steps=4))
        if way == "checkpoint":
            lrcore.load(path, opt, **choice)
        else:
            opt.load_state_dict(state_dict, **choice)
        return [group.hyperparameters for group in opt.param_groups]

    values = [group.hyperparameters for group in saved.param_groups]
    assert loaded(schedules="saved") == values
    own = loaded(schedules="program")
    assert own[0]["lr"] == LONG
    assert (own[1]["betas"], own[1]["weight_decay"]) == ((0.9, 0.999), schedules.Linear(0.0, 0.1, steps=4))
    with pytest.raises(ValueError, match=r'^schedules must be "saved" or "program", got \'mine\'$'):
        loaded(schedules="mine")
    if way == "state dict":
        assert loaded() == values
        return
    with pytest.warns(UserWarning, match="saved schedules replace other ones of the program: ") as said:
        assert loaded() == values
    assert len(said) == 1
    assert said[0].filename == __file__
    text = str(said[0].message)
    assert "betas" not in text  # there the program has numbers, which a checkpoint replaces as ever
    for part in (
        f"lr of param_groups[0]: saved {SHORT!r}, the program's {LONG!r}; ",
        f"weight_decay of param_groups[1] ('head'): saved 0.5, the program's {schedules.Linear(0.0, 0.1, steps=4)!r}. ",
        'schedules="program"',
    ):
        assert part in text


def test_numbers_are_those_that_were_saved_and_equal_schedules_say_nothing(tmp_path):
    path = lrcore.save(tmp_path / "a.safetensors", scheduled(SHORT, lr=0.3))
    for choice in ({}, {"schedules": "program"}, {"schedules": "saved"}):
        opt = scheduled(schedules.Cosine(0.1, steps=10), lr=0.4)
        lrcore.load(path, opt, **choice)
        assert [group["lr"] for group in opt.param_groups] == [SHORT, 0.3]


def test_a_warning_that_is_an_error_leaves_the_optimizer_as_it_was(tmp_path):
    path = lrcore.save(tmp_path / "a.safetensors", scheduled(SHORT))
    opt = scheduled(LONG)
    opt.step([{"w": np.ones(2)}, {"b": np.ones(1)}])
    before = snapshot(opt, opt.param_groups[0].params["w"])
    with pytest.raises(UserWarning):
        lrcore.load(path, opt)
    assert snapshot(opt, opt.param_groups[0].params["w"]) == before


def test_of_many_schedules_some_are_named(tmp_path):
    def make(steps):
        table = schedules.Table(np.linspace(0.1, 0.2, 1000 + steps))
        return lrcore.SGD([{"params": {str(i): np.zeros(1)}, "lr": table} for i in range(30)])

    path = lrcore.save(tmp_path / "a.safetensors", make(1))
    with pytest.warns(UserWarning, match=r"; and 25 more\. ") as said:
        lrcore.load(path, make(2))
    assert len(str(said[0].message)) < 4000


def test_what_is_no_optimizer_or_no_path_is_told_which_call_is_right(tmp_path):
    opt, path = lrcore.SGD({"w": np.zeros(1)}), tmp_path / "run"
    for function in (lrcore.save, lrcore.load):
        call = rf"^lrcore\.{function.__name__}\(path, opt\): "
        for given in (opt.params, None, opt.params["w"], [], 3, lrcore.SGD, opt.state_dict()):
            with pytest.raises(TypeError, match=f"{call}opt must be an optimizer of lrcore, such as .*, got "):
                function(path, given)
        with pytest.raises(TypeError, match=f"{call}the first argument must be a path, got SGD; the path comes first$"):
            function(opt, path)
        for given in (None, b"run", 3, opt.params):
            with pytest.raises(
                TypeError, match=f"{call}the first argument must be a path, got {type(given).__name__}$"
            ):
                function(given, opt)
    with pytest.raises(TypeError, match=r"^lrcore.latest\(folder\): the first argument must be a path, got NoneType$"):
        lrcore.latest(None)
    assert not list(tmp_path.iterdir())


def test_optimizers_of_pytorch_are_saved_by_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    import lrcore.torch

    model = torch.nn.Linear(2, 1)
    for opt in (lrcore.torch.AdamW(model.parameters()), torch.optim.SGD(model.parameters(), lr=0.1)):
        with pytest.raises(
            TypeError, match=rf"{type(opt).__name__} is an optimizer of PyTorch, .*torch\.save\(opt\.state"
        ):
            lrcore.save(tmp_path, opt)
    with pytest.raises(TypeError, match=r"got the module Linear: torch\.save"):
        lrcore.save(tmp_path, model)
    assert not list(tmp_path.iterdir())


def test_the_optimizer_of_an_estimator_is_saved(tmp_path):
    pytest.importorskip("sklearn")
    import lrcore.sklearn

    x, y = np.arange(20.0).reshape(10, 2), np.arange(10.0)
    model = lrcore.sklearn.MLPRegressor(hidden_layer_sizes=3, max_iter=2, tol=0.0, n_iter_no_change=100, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged
        model.fit(x, y)
    with pytest.raises(TypeError, match=r"give MLPRegressor's optimizer_"):
        lrcore.save(tmp_path, model)
    path = lrcore.save(tmp_path, model.optimizer_)
    assert lrcore.load(path, model.optimizer_) == {}
