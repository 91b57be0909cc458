"""Results: the best setting, sensitivity, tables and plots."""
# ruff: noqa: ARG005  # train functions need not use all arguments

import math
import sys

import pytest

from lrcore import sweeps


def bowl(lr, batch, seed):
    if lr == 1.0 or (lr == 0.1 and batch == 128 and seed % 2):
        return math.nan
    return {"objective": 1 + math.log10(lr / 0.01) ** 2 + batch / 1000 + seed / 2**32 / 100, "epochs": 3}


SPACE = {"lr": sweeps.logspace(1e-4, 1.0, 9), "batch": [32, 128]}


@pytest.fixture(scope="module")
def results():
    return sweeps.sweep(bowl, SPACE, workers=0, progress=False, seeds=4)


def test_best_needs_all_seeds_to_finish():
    def train(lr, seed):
        return math.nan if lr == 2 and seed % 2 else float(lr)

    results = sweeps.sweep(train, {"lr": [3, 2]}, seeds=8, workers=0, progress=False)
    best, other = results.settings
    assert results.best == best
    assert (best.settings, best.mean, best.std, best.seeds, best.status) == ({"lr": 3}, 3.0, 0.0, 8, "finished")
    assert other.statuses["diverged"] + other.seeds == 8
    assert other.status == f"{8 - other.seeds} diverged, {other.seeds} finished"
    assert (other.mean, other.reasons) == (2.0, ("the objective is nan",))


def test_without_finished_settings_best_raises():
    results = sweeps.sweep(lambda x, seed: math.nan, {"x": [1]}, seeds=2, workers=0, progress=False)
    with pytest.raises(ValueError, match="no setting has finished with all its seeds: 2 diverged"):
        _ = results.best
    with pytest.raises(ValueError, match="x: no setting has finished"):
        results.sensitivity("x")
    for budget in (None, 3):
        with pytest.raises(ValueError, match="no setting has finished: there are no runs"):
            sweeps.Results([], minimize=True).sensitivity("x", budget=budget)


def test_the_table_is_sorted_and_shortened(results):
    assert results.table() == str(results)
    lines = results.table().splitlines()
    assert lines[0].split() == ["lr", "batch", "objective", "std", "seeds", "seconds", "status"]
    assert lines[1].split()[:2] == ["0.01", "32"]
    numbers = [float(line.split()[2]) for line in lines[1:19] if line.endswith("finished") and "diverged" not in line]
    assert numbers == sorted(numbers)
    many = sweeps.sweep(lambda x, seed: x, {"x": range(100)}, seeds=1, workers=0, progress=False)
    assert str(many).splitlines()[-1] == "and 60 more settings"


def test_sensitivity_takes_the_other_settings_at_their_best(results):
    found = results.sensitivity("lr", within=0.3)
    assert [point.value for point in found.points] == SPACE["lr"].tolist()
    assert found.points[4].best.settings == {"lr": 0.01, "batch": 32}
    assert found.points[4].over_rest == pytest.approx(1.08, abs=0.01)
    assert found.points[4].best.least <= found.points[4].best.mean <= found.points[4].best.largest
    assert (found.points[-1].best, found.points[-1].complete, found.points[-1].others) == (None, 0, 2)
    assert (found.low, found.high) == (SPACE["lr"][3], SPACE["lr"][5])
    assert found.limit == pytest.approx(1.3 * found.points[4].best.mean)
    assert "within 0.3 of the best from 0.003162 to 0.03162" in str(found)


def test_the_good_range_has_no_gap():
    values = {1: 0.0, 2: 5.0, 3: 0.1, 4: 0.0, 5: 9.0}
    results = sweeps.sweep(lambda x, seed: values[x] - 10, {"x": list(values)}, seeds=1, workers=0, progress=False)
    assert results.sensitivity("x", within=0.02).good == (1,)
    results = sweeps.sweep(lambda x, seed: 10 - values[x], {"x": list(values)}, seeds=1, workers=0, progress=False,
                           minimize=False)  # fmt: skip
    assert results.sensitivity("x", within=0.02).good == (1,)
    assert results.sensitivity("x", within=0.6).good == (1, 2, 3, 4)


def test_values_that_are_not_numbers_have_no_range():
    values = {"adam": 1.0, "sgd": 2.0, "lion": 1.01}
    results = sweeps.sweep(lambda rule, seed: values[rule], {"rule": list(values)}, workers=0, progress=False)
    found = results.sensitivity("rule")
    assert found.good == ("adam", "lion")
    assert str(found).endswith("within 0.05 of the best for adam, lion")


def test_unknown_names_are_rejected(results):
    with pytest.raises(KeyError, match=r"name must be one of \['batch', 'lr'\], got 'momentum'"):
        results.sensitivity("momentum")
    with pytest.raises(ValueError, match=r"budget must be one of \[None\], got 3"):
        results.sensitivity("lr", budget=3)
    with pytest.raises(ValueError, match=r"within must be in \[0, inf\), got -1"):
        results.sensitivity("lr", within=-1)
    with pytest.raises(ValueError, match="x and y must be two different names, got 'lr' twice"):
        results.heatmap("lr", "lr")


def test_the_sensitivity_plot_has_error_bars_and_the_good_range(results):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = results.plot_sensitivity("lr", within=0.3, ax=figure.subplots())
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "lr")
    assert axes.get_ylabel() == "objective, the others at their best"
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert any("± std over seeds" in text for text in texts)
    assert any("within 0.3 of the best: 0.003162 to 0.03162" in text for text in texts)
    assert any("diverged or failed" in text for text in texts)
    figure.canvas.draw()


@pytest.mark.parametrize("values", [[1], [1, 2], ["a", "b"], [(1, 2), (3, 4)], [True, False], [0.0, 100.0]])
def test_any_values_can_be_drawn(values):
    figures = pytest.importorskip("matplotlib.figure")
    results = sweeps.sweep(lambda x, y, seed: float(y), {"x": values, "y": [1, 2]}, workers=0, progress=False)
    for draw in (lambda ax: results.plot_sensitivity("x", ax=ax), lambda ax: results.heatmap("x", "y", ax=ax)):
        figure = figures.Figure()
        assert draw(figure.subplots()).get_xlabel() == "x"
        figure.canvas.draw()


def test_a_heat_map_has_its_numbers_and_crosses(results):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = results.heatmap("lr", "batch", ax=figure.subplots())
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("lr", "batch")
    texts = [text.get_text() for text in axes.texts]
    assert len(texts) == 18
    assert texts.count("×") >= 2
    assert "1.04" in texts
    figure.canvas.draw()


def test_rows_become_a_frame(results):
    pytest.importorskip("pandas")
    frame = results.to_dataframe()
    assert list(frame.columns) == [
        "lr", "batch", "seed_index", "seed", "status", "objective", "epochs", "reason", "seconds", "attempts",
    ]  # fmt: skip
    assert len(frame) == len(results)


def test_without_pandas_and_matplotlib_the_error_says_what_to_install(results, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("pandas", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="pip install pandas"):
        results.to_dataframe()
    with pytest.raises(ImportError, match="pip install matplotlib"):
        results.plot_sensitivity("lr")
    with pytest.raises(ImportError, match="pip install matplotlib"):
        results.heatmap("lr", "batch")
