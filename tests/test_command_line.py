"""The command line: ``python -m lrcore``."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest

import lrcore
from lrcore import info
from lrcore.__main__ import main
from lrcore.bench import cpu_load, grid, peers, table
from lrcore.bench.timing import Times, digits

SHORT = ["--seconds", "0.5", "--sizes", "1000,2Ki"]


def run(*arguments, **environment):
    """Run a command as a process, without the LRCORE_ variables of this one."""
    command = [sys.executable, "-m", "lrcore", *map(str, arguments)]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("LRCORE_")}
    return subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False,
        env=variables | {"PYTHONUTF8": "1"} | environment,
    )  # fmt: skip


def run_here(capsys, *arguments):
    """Run a command in this process; return its status, output and errors."""
    try:
        status = main([*map(str, arguments)])
    except SystemExit as error:
        status = error.code
    return status, *capsys.readouterr()


def test_without_a_command_help_is_printed(capsys):
    status, output, errors = run_here(capsys)
    assert (status, errors) == (0, "")
    assert "info" in output
    assert "bench" in output


def test_version_is_the_packages(capsys):
    assert run_here(capsys, "--version") == (0, f"lrcore {lrcore.__version__}\n", "")


@pytest.mark.slow
def test_info_prints_a_line_for_each_fact():
    done = run("info")
    assert (done.returncode, done.stderr) == (0, "")
    labels = [line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert labels == ["lrcore", "Python", "NumPy", "platform", "SIMD", "threads", "CPU", "memory", *info.FEATURES] or (
        "memory" not in labels
    )


@pytest.mark.slow
def test_info_as_json_agrees_with_the_package():
    done = run("info", "--json")
    found = json.loads(done.stdout)
    assert found["lrcore"] == lrcore.__version__
    assert found["simd"]["available"] == lrcore.simd_levels()
    assert found["simd"]["used"] == lrcore.simd_levels()[-1]
    assert set(found["features"]) == set(info.FEATURES)
    for name, feature in found["features"].items():
        assert (feature["version"] is None) == (find_spec(name) is None)


@pytest.mark.slow
def test_info_names_the_variables_in_effect():
    found = run("info", LRCORE_NUM_THREADS="3", LRCORE_SIMD="baseline").stdout
    assert "3: LRCORE_NUM_THREADS=3" in found
    assert "baseline, by LRCORE_SIMD=baseline" in found


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity can be set only on Linux")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_info_names_affinity_as_the_reason():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        threads = json.loads(run("info", "--json").stdout)["threads"]
    finally:
        os.sched_setaffinity(0, before)
    assert threads["used"] == threads["affinity"] == 1
    assert "affinity" in threads["reason"]


@pytest.mark.parametrize(
    ("used", "cores", "allowed", "quota", "wanted", "reason"),
    [
        (4, 4, 4, None, None, "one per core"),
        (4, 4, 4, 8.0, None, "one per core"),
        (2, 4, 2, None, None, "2 of 4 cores (affinity)"),
        (1, 8, 8, 1.5, None, "quota is 1.5 cores, of 8"),
        (1, 8, 8, 0.5, None, "quota is 0.5 cores"),
        (3, 4, 4, None, "3", "LRCORE_NUM_THREADS=3"),
        (2, 4, 4, None, "3", "set_num_threads(2)"),
    ],
)
def test_the_reason_for_the_number_of_threads(used, cores, allowed, quota, wanted, reason):
    assert reason in info._reason(used, cores, allowed, quota, wanted)


@pytest.mark.parametrize(
    ("line", "files", "quota"),
    [
        ("0::/job", {"job/cpu.max": "150000 100000"}, 1.5),
        ("0::/job/step", {"job/cpu.max": "300000 100000", "job/step/cpu.max": "max 100000"}, 3.0),
        ("0::/elsewhere", {"cpu.max": "50000 100000"}, 0.5),
        ("4:cpu,cpuacct:/job", {"cpu/job/cpu.cfs_quota_us": "200000", "cpu/job/cpu.cfs_period_us": "100000"}, 2.0),
        ("4:cpu,cpuacct:/a", {"cpu,cpuacct/cpu.cfs_quota_us": "50000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 0.5),
        ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "100000 100000", "cpu.max": "max 100000"}, 1.0),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("4:memory:/job", {"cpu.max": "50000 100000"}, None),
    ],
)
def test_the_quota_of_a_control_group(line, files, quota, tmp_path, monkeypatch):
    for name, text in {"proc/self/cgroup": line, **{f"groups/{name}": text for name, text in files.items()}}.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    monkeypatch.setattr(info, "PROCESS", tmp_path / "proc")
    monkeypatch.setattr(info, "CGROUPS", tmp_path / "groups")
    assert info.cgroup_quota() == quota


@pytest.mark.slow
def test_a_short_bench_prints_a_table_and_writes_json(tmp_path):
    file = tmp_path / "times.json"
    done = run("bench", *SHORT, "--json", file)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(file.read_text(encoding="utf-8"))
    assert not found["interrupted"]
    assert found["machine"]["simd"]["used"] == lrcore.simd_levels()[-1]
    for cell in found["cells"]:
        assert f"{cell['optimizer']}  " in done.stdout
        assert cell["weights"] in {1000, 2048}
        assert {"lrcore", "NumPy out="} <= set(cell["seconds"])
        assert ("roofline" in cell["seconds"]) == peers.has_probes() == (cell["of_roofline"] is not None)
        assert len({len(times) for times in cell["seconds"].values()}) == 1
        for spread in cell["ratio_to"].values():
            assert 0 < spread["low"] <= spread["median"] <= spread["high"]
    named = len(found["cells"]) + len(found["left_out"])
    assert named == 2 * len(grid.CHOSEN)
    assert found["cells"]


@pytest.mark.slow
def test_every_competitor_of_the_bench_computes_the_same_update():
    missing = grid.find_peers().missing
    assert [why for name, why in missing.items() if "(" in name and name != "torch fused (RMSprop)"] == []


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs matplotlib")
@pytest.mark.slow
def test_a_short_bench_draws(tmp_path):
    file = tmp_path / "times.svg"
    assert run("bench", *SHORT, "--plot", file).returncode == 0
    assert "ns per weight" in file.read_text(encoding="utf-8") or file.stat().st_size > 10_000


@pytest.mark.slow
def test_a_plot_without_matplotlib_names_the_package(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['matplotlib'] = None")
    done = run("bench", "--plot", tmp_path / "times.png", PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    assert done.returncode == 2
    assert "argument --plot: plots need matplotlib, which is not installed: pip install matplotlib" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send SIGINT to one child")
def test_an_interrupted_bench_prints_its_results(tmp_path):
    file = tmp_path / "times.json"
    command = [sys.executable, "-m", "lrcore", "bench", "--seconds", "600", "--sizes", "1Ki", "--json", str(file)]
    # A shell that runs the tests in the background makes its children ignore SIGINT.
    restore_sigint = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": restore_sigint}
    process = subprocess.Popen(command, text=True, **pipes)  # noqa: S603
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    assert "interrupted" in output or not output  # no output if it had not started to measure
    if output:
        assert json.loads(file.read_text(encoding="utf-8"))["interrupted"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "invalid choice: 'nothing'"),
        (["info", "more"], "unrecognized arguments: more"),
        (["bench", "--seconds", "0"], "argument --seconds: must be a number of seconds above 0, got '0'"),
        (["bench", "--seconds", "nan"], "got 'nan'"),
        (["bench", "--seconds", "inf"], "got 'inf'"),
        (["bench", "--seconds", "soon"], "got 'soon'"),
        (["bench", "--seconds"], "argument --seconds: expected one argument"),
        (["bench", "--sizes", ""], "argument --sizes: must be numbers of weights like 300000, 64Ki or 16Mi, got ''"),
        (["bench", "--sizes", "1Ki,-1"], "got '-1'"),
        (["bench", "--sizes", "0"], "got '0'"),
        (["bench", "--sizes", "64Gi"], "got '64Gi'"),
        (["bench", "--json", ""], "argument --json: must be a file, got ''"),
        (["bench", "--json", "."], "argument --json: must be a file, got '.'"),
        (["bench", "--json", "no/such/times.json"], "argument --json: there is no folder 'no/such'"),
        (["bench", "--plot", "no/such/times.png"], "argument --plot: there is no folder 'no/such'"),
        (["bench", "--sec", "1"], "unrecognized arguments: --sec 1"),
    ],
)
def test_a_bad_argument_is_named(arguments, message, capsys):
    status, output, errors = run_here(capsys, *arguments)
    assert (status, output) == (2, "")
    assert message in errors


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs matplotlib")
def test_a_plot_of_an_unknown_format_is_rejected(tmp_path, capsys):
    status, _, errors = run_here(capsys, "bench", "--plot", tmp_path / "times.doc")
    assert status == 2
    assert "argument --plot: the name must end in one of" in errors


@pytest.mark.slow
def test_importing_lrcore_does_not_import_the_commands():
    code = "import sys, lrcore; print([name for name in sys.modules if name.startswith('lrcore')])"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout  # noqa: S603
    assert "lrcore.optim" in names
    assert "lrcore.bench" not in names
    assert "lrcore.info" not in names


PIPED = {
    "help": ["--help"],
    "info": ["info"],
    "info as JSON": ["info", "--json"],
    "schedule": ["schedule", "Constant(1)", "--csv", "-", "--steps", "20000"],
    "bench": ["bench", "--seconds", "0.1", "--sizes", "8"],
    "sweep": ["sweep", "{train}:train", "--space", "lr=1,2", "--workers", "0"],
    "bad arguments": ["nothing"],
}


def command_of(arguments, tmp_path):
    train = tmp_path / "train.py"
    train.write_text("def train(lr, seed):\n    return lr\n", encoding="utf-8")
    return [sys.executable, "-m", "lrcore", *(argument.format(train=train) for argument in arguments)]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX pipes")
@pytest.mark.parametrize("arguments", PIPED.values(), ids=PIPED)
def test_a_reader_may_close_the_pipe_early(arguments, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    command = command_of(arguments, tmp_path)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120, check=False)  # noqa: S603
    os.close(writing)
    if arguments == ["nothing"]:
        assert done.returncode == 2
    else:
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [PIPED["info"], PIPED["schedule"], PIPED["sweep"]], ids=["info", "csv", "sweep"])
def test_output_that_cannot_be_written_is_an_error_without_a_traceback(arguments, tmp_path):
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(  # noqa: S603
            command_of(arguments, tmp_path), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode in (1, 2)
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [("LRCORE_NUM_THREADS", "many"), ("LRCORE_NUM_THREADS", "-1"), ("LRCORE_SIMD", "mmx")],
)
@pytest.mark.parametrize("command", ["info", "--help"])
def test_a_bad_variable_is_named(name, value, command):
    done = run(command, **{name: value})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"python -m lrcore: error: {name}={value!r}: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.000412345, "0.000412"), (0.99996, "1.00"), (1.234, "1.23"), (98.76, "98.8"), (12345.6, "12346"), (0.0, "0")],
)
def test_numbers_have_three_significant_digits(value, text):
    assert digits(value) == text


def test_a_busy_machine_and_an_exceeded_roofline_are_reported():
    workload = grid.CHOSEN[0]
    steady, noisy = Times((1.0, 1.0, 1.0)), Times((0.5, 1.0, 1.5))
    results = grid.Measurements(peers.Peers({"NumPy out=": peers.LRCORE}, {}), others=0.02)
    times = {"lrcore": steady, "roofline": Times((0.5,) * 3), "NumPy out=": Times((3e3,) * 3)}
    results.cells = [grid.Comparison(workload, 999_999_999_999, times)]
    lines = list(table.lines(results, info.gather()))
    assert not any("warning" in line for line in lines)
    (row,) = [line.split() for line in lines if line.startswith("999999999999")]
    assert row[1:5] == ["1000000", "0.00100", "50%", "0.000333"]
    results.cells = [grid.Comparison(workload, 8, {"lrcore": noisy, "roofline": Times((2.0, 2.0, 2.0))})]
    results.others = 0.6
    text = "\n".join(table.lines(results, info.gather()))
    assert "warning: the machine is busy: other programs used 60% of its cores" in text
    assert "warning: times vary by 50% between rounds" in text
    assert text.count("≥100%") == 2
    assert "200%" not in text


def test_the_load_of_others_is_a_share(monkeypatch, tmp_path):
    assert cpu_load.share_of_others() is None or 0.0 <= cpu_load.share_of_others() <= 1.0
    ticks = iter([(100, 200), (130, 300)])
    monkeypatch.setattr(cpu_load, "_ticks", lambda: next(ticks))
    assert cpu_load.share_of_others() == pytest.approx(0.7)


def test_ratios_are_taken_round_by_round():
    found = Times((1.0, 2.0, 3.0)).over(Times((2.0, 4.0, 6.0)))
    low, high = found.quartiles
    assert (low, found.median, high) == (0.5, 0.5, 0.5)
