"""What is in the file of a checkpoint: any damage is found, and the official package reads and writes the same."""

import gc
import json
import math
import os
import random
import warnings

import numpy as np
import pytest

import lrcore
from lrcore.checkpoint import DamagedError, safetensors
from support.cases import same
from support.snapshot import snapshot


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
    with safetensors.opened(path) as file:
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


@pytest.mark.slow
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
    with pytest.raises(DamagedError, match=r"is damaged: its checksum does not match$"):
        lrcore.load(path, opt)


def nested(depth):
    return b"[" * depth + b"]" * depth


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HUGE = 10**4000
FOREIGN = {
    "a shape of many huge numbers": raw({"x": {**ENTRY, "shape": [HUGE] * 2000}}, bytes(4)),
    "a shape of many axes": raw({"x": {**ENTRY, "shape": [1] * 100_000}}, bytes(4)),
    "a shape that no address space has": raw({"x": {**ENTRY, "shape": [2**62, 2**62, 0], "data_offsets": [0, 0]}}),
    "huge places": raw({"x": {**ENTRY, "data_offsets": [HUGE, HUGE + 4]}}, bytes(4)),
    "a place of 1e999": raw(b'{"x":{"dtype":"F32","shape":[1e999],"data_offsets":[0,1e999]}}', bytes(4)),
    "places that are true": raw({"x": {"dtype": "U8", "shape": [True], "data_offsets": [False, True]}}, bytes(1)),
    "one place for many arrays": raw({str(i): ENTRY for i in range(1000)}, bytes(4)),
    "a gap": raw({"x": ENTRY, "y": {**ENTRY, "data_offsets": [8, 12]}}, bytes(12)),
    "a header of many lists": raw(b"[" + b"[]," * 100_000 + b"[]]"),
    "a shape of many numbers": raw(
        b'{"x":{"dtype":"F32","shape":[' + b"1," * 100_000 + b'1],"data_offsets":[0,4]}}', bytes(4)
    ),
    "a name of two arrays": raw(b'{"x":%b,"x":%b}' % (2 * (json.dumps(ENTRY).encode(),)), bytes(4)),
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
        safetensors.write(path, {"x": np.zeros(1)}, text)

    return write


OF_VALUES = {
    **{text: of_text(text) for text in ("[1]", "{}", "5", "null", '""', "", "{", '{"version": 1}')},
    "brackets in the text": of_text(nested(50_000).decode()),
}


@pytest.mark.parametrize(
    "write",
    [pytest.param(write, id=name) for name, write in (FOREIGN | OF_VALUES).items()],
)
def test_what_is_no_checkpoint_is_refused_and_passed_over(write, tmp_path):
    opt, _ = trained()
    path = lrcore.save(tmp_path / "step-1.safetensors", opt)
    other = tmp_path / "step-2.safetensors"
    if isinstance(write, bytes):
        other.write_bytes(write)
    else:
        write(other)
    # Newer than the checkpoint: the clock of file times lags behind that of processes by some milliseconds.
    later = other.stat().st_mtime_ns + 10**9
    os.utime(other, ns=(later, later))
    before = state_of(opt)
    with pytest.raises(ValueError, match=r"is damaged: |not a checkpoint of lrcore"):
        lrcore.load(other, opt)
    with pytest.warns(UserWarning, match="passed over: .*step-2"):
        assert lrcore.latest(tmp_path) == path
    assert state_of(opt) == before


@pytest.mark.parametrize(
    ("limit", "message"),
    [("_MOST_BRACKETS", "lists and dicts, where 10 are allowed"), ("_MOST_COMMAS", "commas, where 10 are allowed")],
)
def test_a_description_of_too_many_parts_is_not_parsed(limit, message, tmp_path, monkeypatch):
    opt, _ = trained()
    path = lrcore.save(tmp_path / "a.safetensors", opt, values=[[i] for i in range(20)])
    monkeypatch.setattr(safetensors, limit, 10)
    with pytest.raises(DamagedError, match=f"its description can't be read \\(it has [0-9]+ {message}"):
        lrcore.load(path, opt)


@pytest.mark.parametrize(
    "saved", ["1e999", "NaN", "-Infinity", "1e300", "9" * 4000, "-1", "null", "true", '"1"', "[[]]", "{}"]
)
def test_a_time_of_any_kind_breaks_neither_latest_nor_save(saved, tmp_path):
    opt, _ = trained()
    first = lrcore.save(tmp_path, opt)
    description, arrays = contents(first)
    text = json.dumps({**description, "saved": "HERE"}).replace('"HERE"', saved)
    safetensors.write(tmp_path / "step-0000000001.safetensors", arrays, text)
    opt.step({name: np.ones_like(array) for name, array in opt.params.items()})
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "passed over: .*is damaged: its description (has no 'saved' of type int|can't be read)"
        )
        assert lrcore.latest(tmp_path) is not None
        newest = lrcore.save(tmp_path, opt, keep=1)
        assert lrcore.latest(tmp_path) == newest
    assert not first.exists()


def test_a_header_that_could_not_be_read_again_is_not_written(tmp_path, monkeypatch):
    opt, _ = trained()
    path = lrcore.save(tmp_path / "run", opt)
    before = path.read_bytes()
    for limit, most, value in (
        ("_LARGEST_HEADER", 20_000, {f"{i:04}": "x" * 20 for i in range(1000)}),
        ("_MOST_BRACKETS", 500, [[i] for i in range(500)]),
        ("_MOST_COMMAS", 500, [str(i) for i in range(500)]),
    ):
        monkeypatch.setattr(safetensors, limit, most)
        for folder in ("run", "new"):
            with pytest.raises(
                ValueError, match=rf"was not written, .*, where {most} are allowed\. Save values of many"
            ):
                lrcore.save(tmp_path / folder, opt, keep=1, mine=value)
        lrcore.save(tmp_path / "fits", opt, mine=value[:3] if isinstance(value, list) else 0)
    assert path.read_bytes() == before
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["fits", "run"]


@pytest.mark.parametrize(
    "schedule", [lrcore.schedules.Table(np.linspace(0.1, 0.2, 50_000)), "betas"], ids=["lr", "betas"]
)
def test_long_lists_of_numbers_are_arrays(schedule, tmp_path):
    lists = {
        "losses": [0.5, math.nan, -0.0, math.inf] * 25_000,
        "from 0": [0, *np.linspace(1.0, 0.0, 100_000).tolist(), 7],
        "steps": list(range(100_000)),
        "flags": [True, False] * 50_000,
        "tuple": tuple(range(-(2**63), 2**63, 2**55)),
        "large": [2**64 + i for i in range(100)],
        "very large": [2**53 + 1, 0.5] * 100,
        "mixed": [1, 2.5, None, "a", True] * 20,
        "numpy": list(np.arange(100, dtype=np.int16)),
        "text": "ä\ud800" * 1000,
        "integer": -(10**5000),
        10**5000: {"nested": [1.5] * 100},
    }
    betas = (lrcore.schedules.Table([0.5 + i / 1000 for i in range(200)]), 0.9)
    options = {"betas": betas} if schedule == "betas" else {"lr": schedule}
    opt = lrcore.Adam({"w": np.zeros(3)}, **options)
    path = lrcore.save(tmp_path / "a.safetensors", opt, lists=lists)
    assert int.from_bytes(path.read_bytes()[:8], "little") < 16_000
    other = lrcore.Adam({"w": np.zeros(3)}, **options)
    back = lrcore.load(path, other)["lists"]
    assert other.param_groups[0].hyperparameters == opt.param_groups[0].hyperparameters
    assert back.keys() == lists.keys()
    for key, value in lists.items():
        assert type(back[key]) is type(value)
        if key == "numpy":
            assert set(map(type, back[key])) == {int}
        elif isinstance(value, list | tuple):
            assert list(map(type, back[key])) == list(map(type, value))
        assert repr(back[key]) == repr(value) if key == "losses" else back[key] == value


def test_values_that_are_nested_too_deep_are_refused(tmp_path):
    opt, _ = trained()
    deep: object = 1
    for level in range(100):
        deep = [deep] if level % 2 else {"a": deep}
    back = lrcore.load(lrcore.save(tmp_path / "a.safetensors", opt, deep=deep), opt)
    assert back == {"deep": deep}
    endless: list[object] = []
    endless.append(endless)
    for value in (endless, [deep]):
        with pytest.raises(ValueError, match=r"^extra/mine/0.* can't be saved: it is nested deeper than 100 levels$"):
            lrcore.save(tmp_path / "b.safetensors", opt, mine=value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_an_array_belongs_to_one_value(tmp_path):
    """Else a file of a few MB could ask for any amount of memory."""
    opt, _ = trained()
    path = lrcore.save(tmp_path / "a.safetensors", opt, x=np.zeros(10))
    description, arrays = contents(path)
    description["extra"] |= {"y": description["extra"]["x"]}
    safetensors.write(path, arrays, json.dumps(description))
    with pytest.raises(DamagedError, match="has the array 'extra/x' twice"):
        lrcore.load(path, opt)


def test_a_file_is_whole_whatever_is_written_to_the_arrays_meanwhile(tmp_path, monkeypatch):
    """What is hashed and what is written are one copy, also where an array is changed between one and the other."""
    params = {"w": np.zeros(1000), "f": np.zeros((20, 30)).T}
    opt = lrcore.SGD(params)
    monkeypatch.setattr(safetensors, "_PIECE", 512)
    copied = safetensors._copied

    def changing(*given):
        for value, piece in enumerate(copied(*given)):
            params["w"][...], params["f"][...] = value, value
            yield piece
            params["w"][...], params["f"][...] = -value, -value

    monkeypatch.setattr(safetensors, "_copied", changing)
    path = lrcore.save(tmp_path / "a.safetensors", opt)
    monkeypatch.undo()
    lrcore.load(path, opt)
    assert len(np.unique(params["w"])) > 5
    assert len(np.unique(params["f"])) > 3


def test_an_array_that_gets_another_size_while_it_is_saved_is_an_error(tmp_path, monkeypatch):
    array = np.zeros(10)
    monkeypatch.setattr(safetensors, "_pieces", lambda *_: iter([memoryview(bytes(72))]))
    with pytest.raises(RuntimeError, match=r"^x was resized while it was being saved$"):
        safetensors.write(tmp_path / "a.safetensors", {"x": array}, "text")
    assert not list(tmp_path.iterdir())


PARTS = {
    "a schedule that can't be made": (lambda d: rate(d)["arguments"].update(steps=math.inf), "is damaged: "),
    "a list of lists in place of a name": (lambda d: d["extra"].update(x={"numbers": ["x"]}), "unknown kind"),
    "digits that are none": (lambda d: d["extra"].update(x={"integer": "x"}), "is damaged: "),
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


@pytest.mark.parametrize("missing", ["accumulated.batches", "accumulated.weight", "accumulated.squares"])
def test_a_part_of_the_accumulated_gradients_is_refused(missing, tmp_path):
    opt, params = trained()
    opt.accumulate({name: np.ones_like(array) for name, array in params.items()})
    path = lrcore.save(tmp_path / "a.safetensors", opt)
    description, arrays = contents(path)
    del description[missing]
    safetensors.write(path, arrays, json.dumps(description))
    before = state_of(opt)
    with pytest.raises(ValueError, match=rf"^accumulated\['{missing[12:]}'\] is missing beside accumulated\["):
        lrcore.load(path, opt)
    assert state_of(opt) == before


def rate(description):
    return description["param_groups"][0]["hyperparameters"]["lr"]


@pytest.mark.parametrize(("change", "message"), PARTS.values(), ids=PARTS)
def test_a_description_of_another_make_is_refused(change, message, tmp_path):
    opt, _ = trained()
    path = lrcore.save(tmp_path / "a.safetensors", opt)
    description, arrays = contents(path)
    change(description)
    safetensors.write(path, arrays, json.dumps(description))
    before = state_of(opt)
    with pytest.raises(ValueError, match=message):
        lrcore.load(path, opt)
    assert state_of(opt) == before


def test_a_dtype_that_numpy_does_not_have_is_no_damage(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(raw({"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)))
    opt, _ = trained()
    with pytest.raises(ValueError, match=r"is a safetensors file, but not a checkpoint of lrcore$"):
        lrcore.load(path, opt)
    with safetensors.opened(path) as file, pytest.raises(TypeError, match=r": x has dtype BF16; allowed are BOOL, U8"):
        file.array("x")


def test_the_numbers_are_read_only_once_all_is_found_whole(tmp_path, monkeypatch):
    opt, _ = trained()
    path = lrcore.save(tmp_path / "a.safetensors", opt)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    monkeypatch.setattr(safetensors.File, "fill", lambda *_: pytest.fail("read before all was checked"))
    with pytest.raises(DamagedError):
        lrcore.load(path, opt)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "?", "<i8"])
def test_arrays_of_any_layout_are_written_and_read(order, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors, "_PIECE", 64)  # so that there are many
    path = tmp_path / "a.safetensors"
    rng = np.random.default_rng(0)
    shapes = [(), (0,), (3, 0), (1,), (7,), (5, 7), (4, 3, 9)]
    arrays = {str(shape): np.asarray(rng.integers(0, 2, shape), dtype, order=order) for shape in shapes}
    arrays["strided"] = np.arange(60).reshape(6, 10).astype(dtype)[::-2, ::3]
    safetensors.write(path, arrays, "text")
    with safetensors.opened(path) as file:
        assert file.text() == "text"
        for name, array in arrays.items():
            into = np.ones_like(array)
            file.fill(file.rows([name]), [into])
            assert into.tobytes() == array.tobytes()
            assert file.array(name).tolist() == array.tolist()
            every_second = np.ones((*array.shape, 2), array.dtype)
            file.fill(file.rows([name]), [every_second[..., 0]])
            assert every_second[..., 0].tolist() == array.tolist()
            assert every_second[..., 1].all()


def test_byte_order_is_no_part_of_what_the_checksum_is_of(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.write(path, {name: np.arange(3, dtype=order) for name, order in (("a", ">f4"), ("b", "<f4"))}, "text")
    with safetensors.opened(path) as file:
        assert file.text() == "text"
        assert file.array("a").tolist() == file.array("b").tolist() == [0.0, 1.0, 2.0]


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
    safetensors.write(path, {"x": np.zeros(100_000)}, "text")
    with safetensors.opened(path) as file:
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(DamagedError, match="it ends early"):
            file.array("x")


def test_arrays_may_be_named_like_the_parts_of_an_entry(tmp_path):
    path = tmp_path / "a.safetensors"
    arrays = {name: np.arange(3.0) for name in ("dtype", "shape", "data_offsets")}
    safetensors.write(path, arrays, "text")
    with safetensors.opened(path) as file:
        assert file.text() == "text"
        assert sorted(file.names()) == ["data_offsets", "dtype", "shape"]
        assert file.array("shape").tolist() == [0.0, 1.0, 2.0]


def test_names_of_any_characters_are_read_in_any_order(tmp_path):
    path = tmp_path / "a.safetensors"
    arrays = {
        name: np.full(2, i) for i, name in enumerate(('"', "\\", "\n", "ä", "\ud800", "\udfff", "\U0001f600", ""))
    }
    safetensors.write(path, arrays, "text")
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    path.write_bytes(raw(dict(reversed(header.items())), content[end:]))
    with safetensors.opened(path) as file:
        assert file.text() == "text"
        assert list(file.names()) == sorted(arrays)
        assert [file.array(name).tolist() for name in arrays] == [array.tolist() for array in arrays.values()]


@pytest.mark.parametrize(
    "shape", [[True, 4], [1.0, 4], [1, [4]], [1, {"dtype": "F32", "shape": [], "data_offsets": []}]]
)
def test_a_shape_of_other_numbers_is_damage_also_after_an_equal_one(shape, tmp_path):
    path = tmp_path / "a.safetensors"
    entry = {"dtype": "F32", "shape": [1, 4], "data_offsets": [0, 16]}
    header = {"a": entry, "b": {**entry, "shape": shape, "data_offsets": [16, 32]}}
    path.write_bytes(raw(header, bytes(32)))
    with pytest.raises(lrcore.checkpoint.DamagedError, match="entry 'b' must have a valid dtype"):
        lrcore.load(path, lrcore.SGD({"a": np.zeros((1, 4), np.float32)}))


@pytest.mark.parametrize("is_enabled", [True, False])
def test_the_garbage_collector_is_as_before(is_enabled, tmp_path):
    opt = lrcore.SGD({"w": np.zeros(3)})
    (gc.enable if is_enabled else gc.disable)()
    try:
        lrcore.load(lrcore.save(tmp_path, opt), opt)
        opt.load_state_dict(opt.state_dict())
        with pytest.raises(ValueError, match="has no 'optimizer'"):
            opt.load_state_dict({})
        assert gc.isenabled() is is_enabled
    finally:
        gc.enable()
