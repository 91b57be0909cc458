"""Checkpoints: whole or not at all, and a run goes on from one with the same bits."""

import math
import os
import random
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import lrcore
from cases import same
from lrcore import _safetensors, schedules
from lrcore.checkpoint import DamagedError
from snapshot import snapshot

RATE = schedules.Cosine(0.1, steps=30).warmup(5)
FACTORIES = {
    "SGD": lambda params: lrcore.SGD(params, lr=RATE, momentum=schedules.Linear(0.5, 0.9, steps=10)),
    "AdamW": lambda params: lrcore.AdamW(params, lr=RATE, average=lrcore.EMA(0.9, warmup=True), clip_norm=1.0),
    "groups": lambda params: lrcore.Adam(
        [
            {"params": {"w": params["w"]}, "name": "head", "lr": 0.01, "bounds": (-1.0, math.inf)},
            {"params": params["n"]},
        ],
        lr=RATE, betas=(0.8, schedules.Constant(0.99)), clip_value=0.5,
    ),
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


def run_script(*arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(SCRIPT), *map(str, arguments)]
    subprocess.run(command, check=True, env=environment)  # noqa: S603


def test_another_process_with_other_threads_and_instructions_gets_the_same_bits(tmp_path):
    levels = lrcore.simd_levels()
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_script(whole, 9, levels[-1], 2)
    for level, threads in ((levels[0], 3), (levels[-1], 1), (levels[len(levels) // 2], 2)):
        run_script(parts, 3, level, threads)
    one, other = (_safetensors.read(folder / "step-0000000009.safetensors") for folder in (whole, parts))
    assert one.metadata == other.metadata
    assert one.arrays.keys() == other.arrays.keys()
    assert all(same(one.arrays[name], other.arrays[name]) for name in one.arrays)


def test_values_of_ones_own_come_back_as_they_were(tmp_path):
    generator = random.Random(3)  # noqa: S311
    extra = {
        "epoch": 3, "name": "ä", "nothing": None, "yes": True, "nan": math.nan, "inf": -math.inf, "large": 2**130,
        "nested": {"list": [1, (2, 3.5), {"array": np.arange(6).reshape(2, 3).T}], "dict": {}, "tuple": ()},
        "numpy": np.float32(0.5), "flags": np.array([True, False]), "python": generator.getstate(),
        "old": np.random.RandomState(1).get_state(legacy=False),
    }  # fmt: skip
    opt, *_ = trained("SGD", 1)
    back = lrcore.load(lrcore.save(tmp_path / "a.safetensors", opt, **extra), opt)
    assert back.keys() == extra.keys()
    assert {key: back[key] for key in ("epoch", "name", "nothing", "yes", "inf", "large", "numpy")} == {
        key: extra[key] for key in ("epoch", "name", "nothing", "yes", "inf", "large", "numpy")
    }
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


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (object(), "object"),
        ({1: 2}, "dict"),
        ({"a": [{1, 2}]}, "set"),
        (np.zeros(2, complex), "complex128"),
        (b"", "bytes"),
    ],
    ids=str,
)
def test_what_cannot_be_saved_is_refused_and_leaves_what_was_there(value, what, tmp_path):
    opt, *_ = trained("SGD", 1)
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

    with pytest.raises(TypeError, match=r"can't be saved: Own is no class of lrcore.schedules$"):
        lrcore.save(tmp_path / "a.safetensors", lrcore.SGD(np.zeros(1), lr=Own()))


def test_any_damage_is_found(tmp_path):
    opt, params, _ = trained("AdamW", 2)
    path = lrcore.save(tmp_path / "a.safetensors", opt, note="x" * 50)
    content = path.read_bytes()
    before = snapshot(opt, *leaves(params))
    rng = random.Random(0)  # noqa: S311
    places = [*range(16), *rng.sample(range(len(content)), 150), len(content) - 1]
    for place in places:
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :])
        with pytest.raises(DamagedError, match="is damaged: "):
            lrcore.load(path, opt)
    for length in [0, 1, 7, 8, 9, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(DamagedError, match="is damaged: "):
            lrcore.load(path, opt)
    path.write_bytes(content + b" ")
    with pytest.raises(DamagedError, match="is damaged: "):
        lrcore.load(path, opt)
    assert snapshot(opt, *leaves(params)) == before


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
    opt, *_ = trained("AdamW", 2)
    with opt.averaged(), pytest.raises(RuntimeError, match="the weights are averages now"):
        lrcore.save(tmp_path / "a.safetensors", opt)
    assert not list(tmp_path.iterdir())


def test_the_oldest_checkpoints_go(tmp_path):
    params = {"w": np.zeros(1)}
    opt = lrcore.SGD(params)
    other = lrcore.save(tmp_path / "best.safetensors", opt)
    for step in range(1, 13):
        opt.step({"w": np.ones(1)})
        path = lrcore.save(tmp_path, opt, keep=3)
        os.utime(path, ns=(step * 10**9, step * 10**9))
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["best.safetensors", *(f"step-{step:010d}.safetensors" for step in (10, 11, 12))]
    assert lrcore.latest(tmp_path) == other  # it was written last, as far as the clock of this test goes
    with pytest.raises(ValueError, match=r"^keep must be >= 1, got 0$"):
        lrcore.save(tmp_path, opt, keep=0)


def test_the_latest_whole_checkpoint_is_found_and_others_are_named(tmp_path):
    assert lrcore.latest(tmp_path) is None
    opt = lrcore.SGD({"w": np.zeros(100)})
    paths = []
    for step in range(1, 5):
        opt.step({"w": np.ones(100)})
        paths.append(lrcore.save(tmp_path, opt))
        os.utime(paths[-1], ns=(step * 10**9, step * 10**9))
    assert lrcore.latest(str(tmp_path)) == paths[3]
    paths[3].write_bytes(paths[3].read_bytes()[:-1])
    _safetensors.write(tmp_path / "other.safetensors", {"x": np.zeros(1)}, {})
    (tmp_path / f".{paths[0].name}.1.partial").write_bytes(b"half")
    with pytest.warns(UserWarning, match="passed over|unfinished") as said:
        assert lrcore.latest(tmp_path) == paths[2]
    said = " ".join(str(warning.message) for warning in said)
    assert "is damaged" in said
    assert "is no checkpoint of lrcore" in said
    assert "is unfinished" in said


def test_what_a_killed_process_left_goes_with_the_next_save(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f".step-1.safetensors.{gone.pid}.partial"
    own = tmp_path / f".step-1.safetensors.{os.getppid()}.partial"
    left.write_bytes(b"")
    own.write_bytes(b"")
    lrcore.save(tmp_path, lrcore.SGD(np.zeros(1)))
    assert not left.exists()
    assert own.exists()


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


def test_the_official_package_reads_what_is_written_here(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    opt, params, _ = trained("AdamW", 3)
    path = lrcore.save(tmp_path / "a.safetensors", opt, table=np.arange(10, dtype=np.int16))
    arrays = numpy.load_file(path)
    assert same(arrays["params/w"], params["w"])
    assert same(arrays["state/n.0/exp_avg"], opt.state["n.0"]["exp_avg"])
    assert arrays["extra/table"].tolist() == list(range(10))
    with pytest.importorskip("safetensors").safe_open(path, "np") as file:
        assert "lrcore" in file.metadata()


def test_what_the_official_package_writes_is_read_here(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "a.safetensors"
    arrays = {
        name: np.arange(24).reshape(2, 3, 4).astype(dtype)
        for name, dtype in (("a", np.float32), ("b", np.float64), ("c", np.int8), ("d", bool), ("e", np.float16))
    }
    arrays["empty"], arrays["scalar"] = np.zeros((0, 3)), np.array(2.5)
    numpy.save_file(arrays, path, {"mine": "text"})
    contents = _safetensors.read(path)
    assert contents.metadata == {"mine": "text"}
    assert contents.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert contents.arrays[name].shape == array.shape
        assert contents.arrays[name].tolist() == array.tolist()
    # A checkpoint that went through it is still one, without its checksum.
    opt, params, _ = trained("SGD", 3)
    saved = lrcore.save(tmp_path / "b.safetensors", opt)
    metadata = {"lrcore": _safetensors.read(saved).metadata["lrcore"]}
    numpy.save_file({name: np.array(array) for name, array in _safetensors.read(saved).arrays.items()}, path, metadata)
    other_params = parameters(np.random.default_rng(5))
    other = FACTORIES["SGD"](other_params)
    lrcore.load(path, other)
    assert snapshot(other, *leaves(other_params)) == snapshot(opt, *leaves(params))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=2), "is of version 2; known is 1"),
        (
            lambda d: d["param_groups"][0]["hyperparameters"]["lr"].update(schedule="Evil"),
            "there is no schedule 'Evil'",
        ),
        (lambda d: d["param_groups"][0]["hyperparameters"]["lr"].update(version=9), "version 9"),
        (lambda d: d["param_groups"][0]["hyperparameters"]["lr"]["arguments"].update(x=1), "has the arguments"),
        (lambda d: d["param_groups"][0]["hyperparameters"].update(lr=-1.0), "lr must be in"),
    ],
)
def test_a_file_of_another_make_is_refused(change, message, tmp_path):
    import json

    opt, params, _ = trained("SGD", 2)
    path = lrcore.save(tmp_path / "a.safetensors", opt)
    contents = _safetensors.read(path)
    description = json.loads(contents.metadata["lrcore"])
    change(description)
    arrays = {name: np.array(array) for name, array in contents.arrays.items()}
    _safetensors.write(path, arrays, {"lrcore": json.dumps(description)})
    before = snapshot(opt, *leaves(params))
    with pytest.raises(ValueError, match=message):
        lrcore.load(path, opt)
    assert snapshot(opt, *leaves(params)) == before


def test_a_folder_is_a_place_for_checkpoints(tmp_path):
    opt, *_ = trained("SGD", 2)
    path = lrcore.save(tmp_path / "new" / "run", opt)
    assert path == tmp_path / "new" / "run" / "step-0000000002.safetensors"
    other = FACTORIES["SGD"](parameters(np.random.default_rng(5)))
    lrcore.load(path.parent, other)
    assert other.steps == 2
    with pytest.raises(FileNotFoundError, match=r"has no whole checkpoint$"):
        lrcore.load(tmp_path, other)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        lrcore.load(Path(tmp_path) / "none.safetensors", lrcore.SGD(np.zeros(1)))
