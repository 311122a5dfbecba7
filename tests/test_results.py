"""Results: every summary against numbers worked out by hand, and files that come back as they were."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxrl import files, plotting
from jaxrl.provenance import provenance
from jaxrl.results import Results

NAN = np.nan


def grid_results(num_points: int = 20) -> Results:
    """2 learning rates x 2 optimisers, 4 seeds; the final return of setting h and seed s is 100 h + s."""
    final = 100.0 * np.arange(4)[:, None] + np.arange(4)
    returns = final[..., None] * np.linspace(0, 1, num_points)
    returns[..., -2:] = final[..., None]
    return Results(
        hparams={"learning_rate": np.array([1e-3, 1e-3, 1e-2, 1e-2]), "optimiser": ["sgd", "adam", "sgd", "adam"]},
        seeds=np.arange(4),
        steps=100 * np.arange(1, num_points + 1),
        metrics={"episode/return": returns, "loss/policy": np.zeros_like(returns)},
        config={"algorithm": "ppo", "env": "CartPole-v1", "gamma": 0.99},
        info={"command": "jaxrl sweep", "wall_seconds": 3.0, "versions": {"jaxrl": "0.1.0"}, "install_seconds": 60.0},
    )


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"metric a has shape \(1, 2, 3\), expected \(1, 2, 4\)"):
        Results({}, np.arange(2), np.arange(4), {"a": np.zeros((1, 2, 3))})
    with pytest.raises(ValueError, match="setting x has shape"):
        Results({"y": [1, 2], "x": [1]}, [0], [1], {"a": np.zeros((2, 1, 1))})


def test_settings_are_numbers_or_strings() -> None:
    results = Results(
        {"lr": [1e-3, 1e-2], "sizes": [(64,), (64, 64)], "clip": [None, 0.2], "flag": [True, False]},
        [0],
        [1],
        {"a": np.zeros((2, 1, 1))},
    )
    assert results.setting(0) == {"lr": 1e-3, "sizes": "(64,)", "clip": "None", "flag": True}
    assert results.label(1) == "lr=0.01, sizes=(64, 64), clip=0.2, flag=False"
    assert Results({"lr": [1e-3, 1e-2], "eps": [1, 1]}, [0], [1], {"a": np.zeros((2, 1, 1))}).label(0) == "lr=0.001"


def test_final_weighs_by_episodes_and_skips_absent_points() -> None:
    returns = np.array([[[9.0, 9.0, 10.0, 40.0], [9.0, 9.0, NAN, 5.0], [9.0, 9.0, NAN, NAN], [9.0, 9.0, NAN, 7.0]]])
    count = np.array([[[1, 1, 1, 2], [1, 1, 0, 3], [1, 1, 0, 0], [1, 1, 1, 1]]])
    results = Results({}, np.arange(4), np.arange(4), {"episode/return": returns, "episode/count": count})
    # (10 + 2 * 40) / 3; one point only; no episode, so the last before; an episode whose return is NaN is not absent.
    np.testing.assert_allclose(results.final(window=0.5), [[30.0, 5.0, 9.0, NAN]])
    np.testing.assert_allclose(results.final(window=0.01), [[40.0, 5.0, 9.0, 7.0]])
    unweighted = Results({}, np.arange(4), np.arange(4), {"eval/return": returns})
    np.testing.assert_allclose(unweighted.final("eval/return", 0.5), [[25.0, 5.0, 9.0, 7.0]])


def test_a_diverged_seed_has_no_final_value() -> None:
    """Evaluated at every other point; the second seed is lost before the last evaluation, the first is not."""
    evaluation = np.array([[[NAN, 1.0, NAN, 2.0], [NAN, 900.0, NAN, NAN]]])
    loss = np.array([[[4.0, 3.0, 2.0, 1.0], [4.0, 3.0, NAN, NAN]]])
    results = Results({}, np.arange(2), np.arange(4), {"evaluation/return": evaluation, "loss/policy": loss})
    np.testing.assert_allclose(results.final("evaluation/return", 0.5), [[2.0, NAN]])
    np.testing.assert_allclose(results.final("loss/policy", 0.5), [[1.5, NAN]])
    assert np.isnan(results.iqm("evaluation/return").point).all()
    # A cell of another algorithm, which has no such loss, is not one that diverged.
    two = {name: np.concatenate([values, np.full_like(values, NAN)]) for name, values in results.metrics.items()}
    two["episode/return"] = np.zeros((2, 2, 4))
    other = Results({"x": [1, 2]}, np.arange(2), np.arange(4), two, {"missing_metrics": {"loss/policy": [1]}})
    np.testing.assert_array_equal(other.weights("loss/policy")[1], 0.0)


def test_settings_with_fewer_rows_are_judged_by_their_own() -> None:
    """Two programs on one axis: rows that a setting does not have are neither divergence nor its last tenth."""
    returns = np.array([[[1.0, 2.0, 3.0, 4.0]], [[NAN, 7.0, NAN, NAN]]])
    loss = np.array([[[0.1, 0.1, 0.1, 0.1]], [[NAN, 0.2, NAN, NAN]]])
    results = Results({"num_envs": [4, 8]}, [0], np.arange(4), {"episode/return": returns, "loss/value": loss})
    np.testing.assert_allclose(results.final(), [[4.0], [7.0]])
    assert not results.diverged.any()
    broken = Results({"a": [1]}, [0], np.arange(2), {"episode/return": np.ones((1, 1, 2)), "loss/v": [[[0.1, NAN]]]})
    np.testing.assert_array_equal(broken.diverged_at, [[1]])


def test_a_loss_that_a_program_does_not_have_is_no_divergence() -> None:
    metrics = {"episode/count": np.ones((2, 1, 2)), "loss/kl": np.array([[[0.1, 0.1]], [[NAN, NAN]]])}
    assert Results({"a": [1, 2]}, [0], np.arange(2), metrics).diverged.tolist() == [[False], [True]]
    named = Results({"a": [1, 2]}, [0], np.arange(2), metrics, {"missing_metrics": {"loss/kl": [1]}})
    assert not named.diverged.any()


def test_window_is_a_tenth_of_the_points() -> None:
    values = np.arange(30.0).reshape(1, 1, 30)
    results = Results({}, [0], np.arange(30), {"a": values})
    assert results.final("a") == 28.0  # the mean of 27, 28, 29
    with pytest.raises(ValueError, match="window = 0"):
        results.final("a", 0)
    with pytest.raises(ValueError, match="unknown metric 'b'; expected one of a"):
        results.final("b")


def test_iqm_and_best() -> None:
    results = grid_results()
    point, low, high = results.iqm()
    np.testing.assert_allclose(point, [1.5, 101.5, 201.5, 301.5])  # the middle two of 4 seeds
    assert ((low < point) & (point < high)).all()
    assert results.best() == {
        "hyperparameters": {"learning_rate": 0.01, "optimiser": "adam"},
        "iqm": 301.5,
        "iqm_low": low[3],
        "iqm_high": high[3],
        "index": 3,
    }


def test_a_seed_without_value_cannot_win() -> None:
    results = grid_results()
    results.metrics["episode/return"][3, 0] = NAN
    assert np.isnan(results.iqm().point[3])
    assert results.best()["index"] == 2
    results.metrics["episode/return"][:, 0] = NAN
    with pytest.raises(ValueError, match="no setting has a final episode/return for all seeds"):
        results.best()
    assert results.summary()["best"] is None


def test_diverged() -> None:
    results = grid_results(num_points=3)
    assert not results.diverged.any()
    results.metrics["loss/policy"][1, 2, 1:] = NAN
    results.metrics["loss/policy"][2, 0, 0] = np.inf
    results.metrics["episode/return"][0, 0] = NAN  # absent is not diverged
    expected = np.full((4, 4), -1)
    expected[1, 2], expected[2, 0] = 200, 100
    np.testing.assert_array_equal(results.diverged_at, expected)
    np.testing.assert_array_equal(results.diverged, expected > 0)


def test_sensitivity_orders_settings_by_their_effect() -> None:
    rows = grid_results().sensitivity()
    assert [(row["hyperparameter"], row["value"]) for row in rows] == [
        ("learning_rate", 0.001),
        ("learning_rate", 0.01),
        ("optimiser", "sgd"),
        ("optimiser", "adam"),
    ]
    # 0 1 2 3 100 101 102 103 without the two lowest and the two highest
    assert rows[0]["iqm"] == (2 + 3 + 100 + 101) / 4
    assert rows[0]["best_iqm"] == 101.5
    assert rows[3]["best_iqm"] == 301.5
    assert rows[0]["iqm_low"] < rows[0]["iqm"] < rows[0]["iqm_high"]


def test_summary_has_the_documented_keys() -> None:
    summary = grid_results().summary()
    assert summary["algorithm"] == "ppo"
    assert summary["env"] == "CartPole-v1"
    assert (summary["num_settings"], summary["num_seeds"], summary["num_env_steps"]) == (4, 4, 2000)
    assert summary["best"]["hyperparameters"] == {"learning_rate": 0.01, "optimiser": "adam"}
    assert {"iqm", "iqm_low", "iqm_high"} <= summary["best"].keys()
    assert (summary["wall_seconds"], summary["compile_seconds"], summary["install_seconds"]) == (3.0, None, 60.0)
    assert {"steps_per_second", "versions", "device", "command"} <= summary.keys()
    assert json.loads(json.dumps(files.to_json(summary), allow_nan=False)) == summary


def test_dataframe_and_xarray_are_labelled() -> None:
    results = grid_results(num_points=3)
    frame = results.to_dataframe()
    assert list(frame.columns) == ["learning_rate", "optimiser", "seed", "step", "episode/return", "loss/policy"]
    assert len(frame) == 4 * 4 * 3
    row = frame[(frame.learning_rate == 1e-2) & (frame.optimiser == "sgd") & (frame.seed == 3) & (frame.step == 300)]
    assert row["episode/return"].item() == 203.0
    dataset = results.to_xarray()
    assert dataset["episode/return"].dims == ("setting", "seed", "step")
    assert dataset["episode/return"].sel(seed=3, step=300)[2].item() == 203.0
    assert dataset["optimiser"].values.tolist() == ["sgd", "adam", "sgd", "adam"]


def test_files_come_back_as_they_were(tmp_path: Path) -> None:
    results = grid_results()
    results.save(tmp_path / "run")
    loaded = Results.load(tmp_path / "run")
    for name in ("hparams", "metrics"):
        assert getattr(loaded, name).keys() == getattr(results, name).keys()
        for key, values in getattr(results, name).items():
            np.testing.assert_array_equal(getattr(loaded, name)[key], values)
    np.testing.assert_array_equal(loaded.seeds, results.seeds)
    np.testing.assert_array_equal(loaded.steps, results.steps)
    assert loaded.summary() == results.summary()


def test_unreadable_results_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no results"):
        Results.load(tmp_path)
    grid_results().save(tmp_path)
    npz = tmp_path / "results.npz"
    npz.write_bytes(npz.read_bytes()[:500])
    with pytest.raises(ValueError, match=f"results in {tmp_path} cannot be read"):
        Results.load(tmp_path)
    grid_results().save(tmp_path)
    (tmp_path / "results.json").write_text('{"version": 2, "config": {}, "info": {}}')
    with pytest.raises(ValueError, match="format version 2, expected 1; upgrade jaxrl"):
        Results.load(tmp_path)


def test_json_is_strict() -> None:
    data = {"a": NAN, "b": np.float32(np.inf), "c": (1, np.arange(2)), "d": {3: True}, "e": Path("x"), "f": None}
    assert files.to_json(data) == {"a": None, "b": "inf", "c": [1, [0, 1]], "d": {"3": True}, "e": "x", "f": None}


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", 1)

    def fail() -> None:
        with files.atomic_write(tmp_path / "a.json") as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert files.read_json(tmp_path / "a.json") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_curve_averages_and_carries_forward() -> None:
    returns = np.array([[[NAN, NAN, 10.0, 40.0, NAN, NAN], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]])
    count = np.array([[[0, 0, 1, 2, 0, 0], [1] * 6]])
    results = Results({}, [0, 1], 10 * np.arange(1, 7), {"episode/return": returns, "episode/count": count})
    steps, values = plotting.curve(results, max_points=3)
    np.testing.assert_array_equal(steps, [20, 40, 60])
    np.testing.assert_allclose(values, [[[NAN, 30.0, 30.0], [1.5, 3.5, 5.5]]])


def test_figures(tmp_path: Path) -> None:
    results = grid_results()
    figure = results.plot(tmp_path / "new" / "curves.png", max_lines=2)
    assert (tmp_path / "new" / "curves.png").stat().st_size > 10_000
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[0].startswith("learning_rate=0.01, optimiser=adam\n301.5 [")
    assert labels[2] == "2 other settings"
    assert len(figure.axes[0].lines) == 5  # two named, two grey, and the grey one of the legend
    assert "jaxrl sweep" in figure.get_supxlabel()
    assert "4 seeds" in figure.get_supxlabel()

    cells = results.heatmap("learning_rate", "optimiser", tmp_path / "heat.svg")
    assert (tmp_path / "heat.svg").exists()
    np.testing.assert_allclose(cells.axes[0].images[0].get_array(), [[1.5, 201.5], [101.5, 301.5]])
    with pytest.raises(ValueError, match="unknown setting 'gamma'"):
        results.heatmap("gamma", "optimiser")
    with pytest.raises(ValueError, match="two different settings"):
        results.heatmap("optimiser", "optimiser")

    both = plotting.compare({"ours": results, "theirs": results}, tmp_path / "compare.png")
    assert len(both.axes[0].lines) == 2
    with pytest.raises(ValueError, match="1 to 8 runs, got 0"):
        plotting.compare({})


def test_figures_of_a_single_run_that_failed() -> None:
    results = Results({}, [0], [1, 2], {"episode/return": np.full((1, 1, 2), NAN), "loss/a": np.full((1, 1, 2), NAN)})
    assert [text.get_text() for text in results.plot().legends[0].get_texts()] == ["no value"]
    assert results.table().row_count == 1
    assert len(plotting.compare({"failed": results}).axes[0].lines) == 1


def test_table_is_sorted() -> None:
    from rich.console import Console

    results = grid_results()
    results.metrics["loss/policy"][0, 1] = NAN
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(results.table())
    lines = [line.split() for line in console.export_text().splitlines() if "sgd" in line or "adam" in line]
    assert [line[5] for line in lines] == ["301.5", "201.5", "101.5", "1.5"]
    assert "1 of 4" in " ".join(lines[-1])


def test_provenance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAXRL_INSTALL_SECONDS", "63")
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/jaxrl", "sweep", "ppo", "--set", "a b"])
    found = provenance()
    assert found["command"] == "jaxrl sweep ppo --set 'a b'"
    assert found["install_seconds"] == 63
    assert {"jax", "flax", "python"} <= found["versions"].keys()
    assert found["device"].keys() == {"platform", "kind", "count"}


def test_statistics_and_figures_stay_light() -> None:
    """Opening results must not wait for JAX, nor importing them for pandas and matplotlib."""
    script = "import sys, jaxrl.results, jaxrl.plotting; print([m for m in sys.modules if m in sys.argv[1:]])"
    heavy = ["jax", "flax", "pandas", "matplotlib", "rich", "xarray"]
    found = subprocess.run([sys.executable, "-c", script, *heavy], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
