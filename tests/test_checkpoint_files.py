"""What is in the file of a checkpoint: any damage is found, and the official package reads and writes the same."""

import json
import os
import random

import numpy as np
import pytest

import lrcore
from cases import same
from lrcore import _safetensors
from lrcore.checkpoint import DamagedError
from snapshot import snapshot


def trained(steps=2, size=5):
    params = {"w": np.linspace(-1, 1, size), "b": np.zeros((2, 3), np.float32)}
    opt = lrcore.AdamW(params, lr=lrcore.schedules.Cosine(0.1, steps=30), average=lrcore.EMA(0.9))
    for step in range(steps):
        opt.step({name: np.full_like(array, step + 0.5) for name, array in params.items()})
    return opt, params


def state_of(opt):
    return snapshot(opt, *opt.params.values())


def contents(path):
    """What was written: the description and the arrays."""
    with _safetensors.opened(path) as file:
        return json.loads(file.text()), {name: file.array(name) for name in file.names()}


def raw(header, data=b""):
    """The bytes of a file of any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def assert_damaged_or_the_same(path, content, opt, before):
    path.write_bytes(content)
    try:
        assert lrcore.load(path, opt) == {"note": "x"}
    except DamagedError as error:
        assert "is damaged: " in str(error)  # noqa: PT017
        return True
    finally:
        assert state_of(opt) == before
    return False


def test_any_damage_is_found_or_changes_nothing(tmp_path):
    opt, _ = trained()
    path = lrcore.save(tmp_path / "a.safetensors", opt, note="x")
    content = path.read_bytes()
    before = state_of(opt)
    end_of_header = 8 + int.from_bytes(content[:8], "little")
    rng = random.Random(0)  # noqa: S311
    unfound = []
    for place in range(len(content)):
        for flipped in (1, 32, rng.randrange(1, 256)):
            damaged = content[:place] + bytes([content[place] ^ flipped]) + content[place + 1 :]
            if not assert_damaged_or_the_same(path, damaged, opt, before):
                unfound.append(place)
    # What may change is how the header is written, as a blank after its end is: never a number, a name or a value.
    assert all(content[place] in b' \\"{}:,' and place < end_of_header for place in unfound)
    for length in range(len(content)):
        assert assert_damaged_or_the_same(path, content[:length], opt, before)
    assert assert_damaged_or_the_same(path, content + b" ", opt, before)


@pytest.mark.parametrize("key", ["lrcore", "lrcore.sha256"])
def test_a_checkpoint_has_a_text_and_its_checksum(key, tmp_path):
    opt, _ = trained()
    path = lrcore.save(tmp_path / "a.safetensors", opt)
    content = path.read_bytes()
    path.write_bytes(content.replace(f'"{key}":'.encode(), f'"{key[:-1]}_":'.encode()))
    with pytest.raises(DamagedError, match=r"is damaged: its checksum is another$"):
        lrcore.load(path, opt)


def nested(depth):
    return b"[" * depth + b"]" * depth


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
FOREIGN = {
    "nothing": b"",
    "no header": raw(b""),
    "brackets": raw(nested(50_000)),
    "brackets in an entry": raw(b'{"x":' + nested(50_000) + b"}"),
    "no text": raw(b"\xff\xff"),
    "a list": raw([1]),
    "a number": raw(1),
    "no metadata": raw({"x": ENTRY}, bytes(4)),
    "metadata null": raw({"__metadata__": None, "x": ENTRY}, bytes(4)),
    "metadata of another kind": raw({"__metadata__": ["lrcore"]}),
    "a checksum that is no text": raw({"__metadata__": {"lrcore": "{}", "lrcore.sha256": 5}}),
    "a checksum of something else": raw({"__metadata__": {"lrcore": "{}", "lrcore.sha256": "0" * 64}}),
    "a text alone": raw({"__metadata__": {"lrcore": '{"version": 1}'}}),
    "an entry that is a number": raw({"x": 1}),
    "an entry without a shape": raw({"x": {"dtype": "F32", "data_offsets": [0, 4]}}, bytes(4)),
    "an entry of text": raw({"x": {**ENTRY, "shape": "1"}}, bytes(4)),
    "places of text": raw({"x": {**ENTRY, "data_offsets": ["0", "4"]}}, bytes(4)),
    "a place before the file": raw({"x": {**ENTRY, "data_offsets": [-4, 0]}}),
    "a place that ends before it begins": raw({"x": {"dtype": "BF16", "shape": [], "data_offsets": [4, 0]}}),
    "a dtype that is a list": raw({"x": {**ENTRY, "dtype": ["F32"]}}, bytes(4)),
}


def of_text(text):
    def write(path):
        _safetensors.write(path, {"x": np.zeros(1)}, text)

    return write


OF_VALUES = {
    **{text: of_text(text) for text in ("[1]", "{}", "5", "null", '""', "", "{", '{"version": 1}')},
    "brackets in the text": of_text(nested(50_000).decode()),
}


@pytest.mark.parametrize("write", [*FOREIGN.values(), *OF_VALUES.values()], ids=[*FOREIGN, *OF_VALUES])
def test_what_is_no_checkpoint_is_refused_and_passed_over(write, tmp_path):
    opt, _ = trained()
    path = lrcore.save(tmp_path / "step-1.safetensors", opt)
    other = tmp_path / "step-2.safetensors"
    if isinstance(write, bytes):
        other.write_bytes(write)
    else:
        write(other)
    before = state_of(opt)
    with pytest.raises(ValueError, match=r"is damaged: |is no checkpoint of lrcore"):
        lrcore.load(other, opt)
    with pytest.warns(UserWarning, match="passed over: .*step-2"):
        assert lrcore.latest(tmp_path) == path
    assert state_of(opt) == before


PARTS = {
    "another version": (lambda d: d.update(version=2), "is of version 2; known is 1"),
    "no such schedule": (lambda d: rate(d).update(schedule="Evil"), "there is no schedule 'Evil'"),
    "a schedule of another version": (lambda d: rate(d).update(version=9), "version 9"),
    "another argument": (lambda d: rate(d)["arguments"].update(x=1), "has the arguments"),
    "out of range": (lambda d: d["param_groups"][0]["hyperparameters"].update(lr=-1.0), "lr must be in"),
    "no counts": (lambda d: d.pop("counts"), "is damaged: its description has no 'counts' of type dict"),
    "counts of another kind": (lambda d: d["counts"].update(w=5), "is damaged: its description can't be read"),
    "an array that is not there": (lambda d: d["counts"]["w"]["arrays"].append("x"), "has no array 'state/w/x'"),
    "a group that is none": (lambda d: d["param_groups"].append(1), "is damaged: its description can't be read"),
    "a report that is none": (lambda d: d["reports"].append(1), "is damaged: its description can't be read"),
    "a value of another kind": (lambda d: d["extra"].update(x={"set": []}), r"unknown kind \['set'\]"),
    "a value that is not there": (lambda d: d["extra"].update(x={"array": "extra/x"}), "has no array 'extra/x'"),
    "a dict of no pairs": (lambda d: d["extra"].update(x={"dict": [[1, 2, 3]]}), "is damaged: .* keys and values"),
}  # fmt: skip


def rate(description):
    return description["param_groups"][0]["hyperparameters"]["lr"]


@pytest.mark.parametrize(("change", "message"), PARTS.values(), ids=PARTS)
def test_a_description_of_another_make_is_refused(change, message, tmp_path):
    opt, _ = trained()
    path = lrcore.save(tmp_path / "a.safetensors", opt)
    description, arrays = contents(path)
    change(description)
    _safetensors.write(path, arrays, json.dumps(description))
    before = state_of(opt)
    with pytest.raises(ValueError, match=message):
        lrcore.load(path, opt)
    assert state_of(opt) == before


def test_a_dtype_that_numpy_does_not_have_is_no_damage(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(raw({"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)))
    opt, _ = trained()
    with pytest.raises(ValueError, match=r"is no checkpoint of lrcore, though a safetensors file$"):
        lrcore.load(path, opt)
    with _safetensors.opened(path) as file, pytest.raises(TypeError, match=r": x has dtype BF16; allowed are BOOL, U8"):
        file.array("x")


def test_the_numbers_are_read_only_once_all_is_found_whole(tmp_path, monkeypatch):
    opt, _ = trained()
    path = lrcore.save(tmp_path / "a.safetensors", opt)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    monkeypatch.setattr(_safetensors.File, "fill", lambda *_: pytest.fail("read before all was checked"))
    with pytest.raises(DamagedError):
        lrcore.load(path, opt)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "?", "<i8"])
def test_arrays_of_any_layout_are_written_and_read(order, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(_safetensors, "_PIECE", 64)  # so that there are many
    path = tmp_path / "a.safetensors"
    rng = np.random.default_rng(0)
    shapes = [(), (0,), (3, 0), (1,), (7,), (5, 7), (4, 3, 9)]
    arrays = {str(shape): np.asarray(rng.integers(0, 2, shape), dtype, order=order) for shape in shapes}
    arrays["strided"] = np.arange(60).reshape(6, 10).astype(dtype)[::-2, ::3]
    _safetensors.write(path, arrays, "text")
    with _safetensors.opened(path) as file:
        assert file.text() == "text"
        for name, array in arrays.items():
            into = np.ones_like(array)
            file.fill(name, into)
            assert into.tobytes() == array.tobytes()
            assert file.array(name).tolist() == array.tolist()
            every_second = np.ones((*array.shape, 2), array.dtype)
            file.fill(name, every_second[..., 0])
            assert every_second[..., 0].tolist() == array.tolist()
            assert every_second[..., 1].all()


def test_the_official_package_reads_what_is_written_here(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    opt, params = trained(3)
    path = lrcore.save(tmp_path / "a.safetensors", opt, table=np.arange(10, dtype=np.int16))
    arrays = numpy.load_file(path)
    assert same(arrays["params/w"], params["w"])
    assert same(arrays["state/b/exp_avg"], opt.state["b"]["exp_avg"])
    assert arrays["extra/table"].tolist() == list(range(10))


def test_a_checkpoint_that_the_official_package_wrote_again_is_still_one(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    opt, _ = trained(3)
    path, copy = lrcore.save(tmp_path / "a.safetensors", opt, flags=np.array([True])), tmp_path / "b.safetensors"
    with pytest.importorskip("safetensors").safe_open(path, "np") as file:
        metadata = file.metadata()
    arrays = numpy.load_file(path)
    numpy.save_file(arrays, copy, metadata={**metadata, "mine": "text"})
    assert copy.read_bytes() != path.read_bytes()
    other, _ = trained(0)
    assert lrcore.load(copy, other)["flags"].tolist() == [True]
    assert state_of(other) == state_of(opt)
    arrays["params/w"][0] += 1.0
    numpy.save_file(arrays, copy, metadata=metadata)
    with pytest.raises(DamagedError, match="checksum"):
        lrcore.load(copy, other)


def test_a_file_that_shrinks_while_it_is_read_is_damaged(tmp_path):
    path = tmp_path / "a.safetensors"
    _safetensors.write(path, {"x": np.zeros(100_000)}, "text")
    with _safetensors.opened(path) as file:
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(DamagedError, match="it ends early"):
            file.array("x")
