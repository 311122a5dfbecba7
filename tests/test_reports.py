"""Reports without a browser: numbers, what they load (nothing) and escape (everything), what they refuse."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import assert_trees_equal
from PIL import Image
from report_runs import Page, make_archive, make_other, make_swarm, make_sweep

import jaxrl
from jaxrl.cli import main
from jaxrl.evaluation import record
from jaxrl.plan import make_plan
from jaxrl.plotting import curve, heat_cells, ranking
from jaxrl.presets import PRESETS
from jaxrl.rendering.bodies import Body, Segments, View
from jaxrl.reporting import bootstrap
from jaxrl.reports.about import settings
from jaxrl.reports.archives import _runs, archive_data, spread_places
from jaxrl.reports.build import data_text
from jaxrl.reports.numbers import shorten, shown_metrics
from jaxrl.reports.replays import Recorder, _body_data, choose
from jaxrl.results import Results
from jaxrl.trained import _stream


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reported")
    return {"sweep": make_sweep(folder / "sweep"), "other": make_other(folder / "other")}


@pytest.fixture(scope="module")
def page(runs: dict[str, Path]) -> Page:
    return Page(jaxrl.report(list(runs.values()), runs["sweep"].parent / "both.html").read_text())


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archived") / "run")


@pytest.fixture(scope="module")
def archive_page(archive: Path) -> Page:
    return Page(jaxrl.report(archive, replays=6).read_text())


def rows_of(page: Page, *header: str) -> list[dict[str, str]]:
    """The rows of the first table that has these columns."""
    table = next(table for table in page.tables if set(header) <= set(table[0]))
    return [dict(zip(table[0], row, strict=True)) for row in table[1:]]


def five_digits(values: Any) -> Any:
    return pytest.approx(np.asarray(values, float), rel=1e-4, nan_ok=True)


def numbers(values: list[Any]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])


# ------------------------------------------------------------------------------------------------------- numbers


def test_the_table_is_that_of_the_results(runs: dict[str, Path], page: Page) -> None:
    """Eight settings, the best first, each with its interval; and the headline is the first row."""
    results = Results.load(runs["sweep"])
    estimate = results.iqm()
    order = ranking(estimate)
    rows = rows_of(page, "learning_rate", "clip_eps", "gamma", "IQM", "95 % interval")
    assert len(rows) == 8
    for cell, row in zip(order, rows, strict=True):
        assert float(row["learning_rate"]) == pytest.approx(results.hparams["learning_rate"][cell])
        assert float(row["clip_eps"]) == pytest.approx(results.hparams["clip_eps"][cell])
        assert float(row["gamma"]) == pytest.approx(results.hparams["gamma"][cell])
        assert row["IQM"] == f"{estimate.point[cell]:.4g}"
        assert row["95 % interval"] == f"{estimate.low[cell]:.4g} to {estimate.high[cell]:.4g}"
    best = results.best()
    assert f"{best['iqm']:.4g} [{best['iqm_low']:.4g} to {best['iqm_high']:.4g}]" in page.texts["dd"]
    assert results.label(best["index"]) in page.texts["dd"]


def test_curves_are_those_of_the_figures(runs: dict[str, Path], page: Page) -> None:
    """The IQM over seeds with its interval, and each seed, for every setting of what the run is judged by."""
    results = Results.load(runs["sweep"])
    data = page.data("run-0-data")
    drawn = data["curves"][0]
    assert drawn["name"] == data["metric"] == "episode/return"
    steps, values = curve(results, "episode/return", 100)
    assert drawn["steps"] == steps.tolist()
    assert [cell["cell"] for cell in drawn["cells"]] == ranking(results.iqm())
    for cell in drawn["cells"]:
        expected = bootstrap(values[cell["cell"]])
        for name, bound in zip(("point", "low", "high"), expected, strict=True):
            assert numbers(cell[name]) == five_digits(bound)
        for row, seed in enumerate(("3", "5")):
            assert numbers(cell["seeds"][seed]) == five_digits(values[cell["cell"], row])
    assert {curve["name"] for curve in data["curves"]} >= {"episode/return", "episode/length"}


def test_the_sweep_is_told_by_heat_maps_and_sensitivity(runs: dict[str, Path], page: Page) -> None:
    results = Results.load(runs["sweep"])
    data = page.data("run-0-data")
    order = list(dict.fromkeys(row["hyperparameter"] for row in results.sensitivity()))
    pairs = [(order[0], order[1]), (order[0], order[2]), (order[1], order[2])]
    assert [(pair["x"], pair["y"]) for pair in data["heat"]] == pairs
    for pair in data["heat"]:
        assert pair["cells"] == heat_cells(results, pair["x"], pair["y"]).tolist()
    expected = results.sensitivity()
    assert [row["name"] for row in data["sensitivity"]] == [row["hyperparameter"] for row in expected]
    for drawn, row in zip(data["sensitivity"], expected, strict=True):
        assert numbers([drawn[name] for name in ("iqm", "low", "high", "best")]) == five_digits(
            [row[name] for name in ("iqm", "iqm_low", "iqm_high", "best_iqm")]
        )


def test_a_heat_map_has_the_best_of_all_other_settings() -> None:
    """Two values of a and of b; where b = 1 and a = 2 nothing was run, and c decides between two cells."""
    final = np.array([1.0, 5.0, 3.0, 2.0])[:, None, None]
    settings = {"a": [1, 1, 2, 1], "b": [0, 0, 0, 1], "c": [7, 8, 7, 7]}
    results = Results(settings, np.arange(1), np.arange(1), {"episode/return": final})
    assert heat_cells(results, "a", "b").tolist() == [[1, 2], [3, -1]]
    with pytest.raises(ValueError, match="unknown setting 'd'"):
        heat_cells(results, "a", "d")


def test_runs_in_one_environment_are_compared(runs: dict[str, Path], page: Page) -> None:
    both = [Results.load(runs[name]) for name in ("sweep", "other")]
    rows = rows_of(page, "run", "algorithm", "setting")
    assert [(row["run"], row["algorithm"]) for row in rows] == [("sweep", "ppo"), ("other", "a2c")]
    for row, results in zip(rows, both, strict=True):
        assert row["final episode return, IQM"] == f"{results.best()['iqm']:.4g}"
    drawn = page.data("everything")["comparisons"][0]
    assert drawn["env"] == "CartPole-v1"
    for line, results in zip(drawn["lines"], both, strict=True):
        steps, values = curve(results, "episode/return", 100)
        assert line["x"] == steps.tolist()
        assert numbers(line["point"]) == five_digits(bootstrap(values[results.best()["index"]]).point)
    assert "#run-1" in [attributes.get("href") for tag, attributes in page.elements if tag == "a"]


def test_configuration_and_provenance(runs: dict[str, Path], page: Page) -> None:
    results = Results.load(runs["sweep"])
    rows = {row["setting"]: row for row in rows_of(page, "setting", "value", "origin")}
    assert (rows["learning_rate"]["value"], rows["learning_rate"]["origin"]) == ("0.0001, 0.01", "swept")
    assert (rows["hidden_sizes"]["value"], rows["hidden_sizes"]["origin"]) == ("8x8", "given")
    assert "2 (3, 5)" in page.texts["dd"]
    assert rows["total_steps"]["value"] == "160"
    assert "environment steps of one run" in rows["total_steps"]["meaning"]
    defaults = {row["setting"]: row for row in rows_of(page, "setting", "value", "source")}
    assert defaults["gae_lambda"]["value"] == "0.95"
    facts = page.texts["dd"]
    for name in ("command", "date"):
        assert str(results.info[name]) in facts
    assert any(f"jax {results.info['versions']['jax']}" in fact for fact in facts)
    assert any("bootstrap of the interquartile mean over 2 seeds" in fact for fact in facts)
    assert any("one seed, hence none" in fact for fact in facts)


def test_what_suits_the_environment_is_told_from_what_was_given(archive_page: Page) -> None:
    """Of PointMass the preset says 50 steps, 16 x 16 cells and 64x64; asked were other sizes, and iso_sigma."""
    rows = {row["setting"]: row["origin"] for row in rows_of(archive_page, "setting", "value", "origin")}
    assert {rows[name] for name in ("episode_steps", "grid_shape", "hidden_sizes", "iso_sigma")} == {"given"}
    preset = PRESETS["map_elites"]
    plan = make_plan(
        "map_elites", "jaxrl/point_mass", 1, {"iso_sigma": 0.5}, {}, jaxrl.make_env("point_mass").default_params
    )
    config = {"episode_steps": 50, "grid_shape": [16, 16], "num_ga": 128}
    results = Results(
        {}, [0], [0], {"x": np.zeros((1, 1, 1))}, {"programs": [{"config": config, "numbers": {"iso_sigma": [0.5]}}]}
    )
    found = {row["name"]: (row["value"], row["origin"]) for row in settings(plan, preset, results)}
    assert found["episode_steps"] == ("50", "for jaxrl/point_mass")
    assert found["iso_sigma"] == ("0.5", "given")
    assert found["num_ga"] == ("128", "default")


def test_large_sweeps_are_drawn_in_part() -> None:
    names = ["episode/return", "loss/a", "loss/b", "loss/c", "loss/d", "loss/e", "episode/count"]
    metrics = {name: np.ones((50, 1, 2)) for name in names}
    results = Results({"a": np.arange(50)}, np.arange(1), np.arange(2), metrics)
    assert shown_metrics(results, "loss/e") == ["loss/e", "episode/return", "loss/a"]


# ------------------------------------------------------------------------------------------------------- replays


def test_a_recorded_episode_is_that_of_the_policy(runs: dict[str, Path]) -> None:
    """One program plays all policies of a run as each alone would play."""
    run = jaxrl.load_run(runs["sweep"])
    for cell, seed in ((1, 3), (6, 5)):
        agent, state, params = run.policy(cell, seed)
        rows = record(_stream("render", 0), agent, state, run.env, params, 30)
        length = int(np.argmax(rows["done"])) + 1 if np.any(rows["done"]) else 30
        played = run.record(cell, seed, max_steps=30)
        assert played.trajectory.length == length
        expected = jax.tree.map(lambda leaf, n=length: np.asarray(leaf)[:n], (rows["obs"], rows["action"]))
        np.testing.assert_allclose(played.trajectory.obs, expected[0], atol=1e-5)
        np.testing.assert_array_equal(played.trajectory.action, expected[1])
        assert f"seed {seed}, return {length}.0" in played.caption
    assert len(run._players) == 1


def test_who_is_replayed() -> None:
    """Of 3 settings with 4 seeds: of the best setting the best and the worst seed, then the others' middle seeds."""
    final = np.array([[1.0, 2, 3, 4], [9, 8, 7, 6], [5, 5, 6, 4]])[:, :, None]
    results = Results({"a": np.arange(3)}, np.array([10, 11, 12, 13]), np.arange(1), {"episode/return": final})
    assert choose(results, "episode/return", 4) == [(1, 10), (1, 13), (2, 11), (0, 11)]
    assert choose(results, "episode/return", 1) == [(1, 10)]
    assert choose(results, "episode/return", 3) == [(1, 10), (1, 13), (0, 11)]
    alone = Results({}, results.seeds, results.steps, {"episode/return": final[1:2]})
    assert choose(alone, "episode/return", 2) == [(0, 10), (0, 13)]
    assert choose(alone, "episode/return", 9) == [(0, 10), (0, 11), (0, 12), (0, 13)]


def test_replays_of_the_sweep(runs: dict[str, Path], page: Page) -> None:
    """Four replays; frames are cut from sheets, and the last return is the episode's."""
    data = page.data("run-0-data")
    results = Results.load(runs["sweep"])
    assert [(r["setting"], r["seed"]) for r in data["replays"]] == choose(results, "episode/return", 4)
    for i, replay in enumerate(data["replays"]):
        shown = page.data(f"run-0-film-{i}")
        assert (shown["kind"], shown["width"]) == ("frames", 400)
        assert shown["returns"][-1] == replay["return"] == shown["length"]  # CartPole pays 1 for each step
        assert shown["steps"][-1] == shown["length"] - 1
        sheet = Image.open(io.BytesIO(base64.b64decode(shown["sheets"][0])))
        assert sheet.width == shown["width"] * min(shown["columns"], len(shown["steps"]))


class Noise:
    """An environment whose pictures cannot be compressed."""

    def image(self, state: Any, params: Any) -> np.ndarray:
        return np.random.default_rng(int(state)).integers(0, 255, (120, 160, 3), np.uint8)


def test_films_are_thinned_to_what_a_page_may_hold(runs: dict[str, Path]) -> None:
    """100 frames of noise, megabytes: every k-th is left, the last one among them, at the same speed."""
    from jaxrl.rendering import Trajectory
    from jaxrl.trained import Replay

    run = jaxrl.load_run(runs["sweep"])
    run.env = Noise()
    played = Trajectory(np.arange(100), np.zeros((100, 2)), np.zeros(100), np.ones(100), 100)
    recorder = Recorder(500, 1)
    recorder.max_bytes = 100_000_000
    whole = recorder._frames(run, Replay(played, None, ""))
    recorder.max_bytes = 800_000
    thinned = recorder._frames(run, Replay(played, None, ""))
    assert whole["steps"] == list(range(100))
    stride = thinned["steps"][1] - thinned["steps"][0]
    assert stride > 1
    assert thinned["steps"] == list(range(99, -1, -stride))[::-1]
    assert thinned["milliseconds"] == stride * whole["milliseconds"]
    assert 500_000 < sum(len(sheet) * 3 / 4 for sheet in thinned["sheets"]) <= 840_000
    # The picture itself, without margins: frame 13 stands in the second row of the first sheet.
    sheet = Image.open(io.BytesIO(base64.b64decode(whole["sheets"][0]))).convert("RGB")
    width, height = whole["width"], whole["height"]
    assert (width, height) == (400, 300)
    part = np.asarray(sheet.crop((3 * width, height, 4 * width, 2 * height)), int)
    truth = np.asarray(Image.fromarray(Noise().image(13, None)).resize((400, 300), Image.Resampling.NEAREST), int)
    assert np.abs(part - truth).mean() < 25  # a palette of 256 colours


def test_a_body_is_told_as_lines_and_a_camera() -> None:
    """Two geometries, one of the world; the camera stands where the picture's does."""
    ends = np.arange(3 * 2 * 2 * 3, dtype=float).reshape(3, 2, 2, 3) / 7
    segments = Segments(ends, np.array([0.1, 0.25]), np.array([-1, 0]), [(0, 128, 255), (1, 2, 3)])
    e, a = np.radians(22.0), np.radians(-60.0)
    aslant = View(np.zeros(3), np.zeros(3), np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)]))
    focus = np.arange(9, dtype=float).reshape(3, 3)
    told = _body_data(Body(segments, aslant, focus, -0.5, 20.0), [0, 2])
    for name, truth in (("ends", ends[[0, 2]]), ("focus", focus[[0, 2]])):
        found = np.frombuffer(base64.b64decode(told[name]), "<f4")
        np.testing.assert_allclose(found, truth.ravel(), rtol=1e-6)
    assert (told["azimuth"], told["elevation"], told["level"]) == (-60.0, 22.0, -0.5)
    assert told["colours"] == ["#0080ff", "#010203"]
    assert (told["radius"], told["moves"]) == ([0.1, 0.25], [False, True])
    above = _body_data(Body(segments, aslant._replace(near=np.array([0.0, 0.0, 1.0])), focus, None, 20.0), [0])
    assert (above["azimuth"], above["elevation"]) == (-90.0, 90.0)


# ------------------------------------------------------------------------------------------------------- archives


def test_the_map_of_an_archive(archive: Path, archive_page: Page) -> None:
    """Every pixel is the place of the archive that it says; numbers are the archive's."""
    data = archive_page.data("run-0-data")
    results = Results.load(archive)
    order = np.argsort(-results.final()[0], kind="stable")
    assert [shown["seed"] for shown in data["archives"]] == results.seeds[order].tolist()
    for shown in data["archives"]:
        held = jaxrl.load_run(archive).state(0, shown["seed"]).archive
        kept = np.flatnonzero(held.occupied)
        assert shown["places"] == kept.tolist()
        assert shown["fitness"] == five_digits(np.asarray(held.fitness)[kept])
        assert np.array(shown["descriptors"]) == five_digits(np.asarray(held.descriptors)[kept])
        runs = np.array(shown["maps"][0]["runs"]).reshape(-1, 2)
        cells = np.repeat(runs[:, 0], runs[:, 1]).reshape(160, 160)
        assert set(cells.ravel()) - {-1} == set(kept)
        # 40 x 40 squares of 4 pixels over [-1, 1]^2: the place of a pixel is that of the nearest centroid.
        for column, row in ((2, 2), (77, 81), (158, 3)):
            point = (np.array([column, row]) + 0.5) / 80 - 1
            nearest = int(np.square(np.asarray(held.centroids) - point).sum(1).argmin())
            assert cells[row, column] == (nearest if held.occupied[nearest] else -1)


def test_replays_of_cells_do_what_the_archive_says(archive: Path, archive_page: Page) -> None:
    data = archive_page.data("run-0-data")
    first = data["archives"][0]
    fitness = dict(zip(first["places"], first["fitness"], strict=True))
    assert len({replay["place"] for replay in data["replays"]}) == len(data["replays"]) == 6
    assert {replay["seed"] for replay in data["replays"]} == {first["seed"]}
    fittest = sorted(fitness.values())[-3:]
    assert sorted(fitness[replay["place"]] for replay in data["replays"])[-3:] == fittest
    for replay in data["replays"]:
        assert replay["return"] == pytest.approx(fitness[replay["place"]], rel=0.1)
        assert f"in cell {replay['place']}" in replay["caption"]


def test_an_even_spread_of_an_archive() -> None:
    """On a line: the fittest two stand at the left; then whoever is farthest from all that were chosen."""
    from jaxrl.qd.archive import Archive

    descriptors = np.array([[0.0], [0.1], [0.2], [0.6], [1.0], [0.9]])
    fitness = np.array([5.0, 6.0, 1.0, 2.0, 3.0, -np.inf])
    held: Any = Archive(np.zeros(6), fitness, descriptors, descriptors)
    low, high = np.zeros(1), np.ones(1)
    assert spread_places(held, low, high, 4) == [1, 0, 4, 3]
    assert spread_places(held, low, high, 99) == [1, 0, 4, 3, 2]
    assert spread_places(held, low, high, 0) == []
    # A descriptor of one number is mapped, too: the five at the left half of their gaps, nobody at 0.9.
    runs = archive_data(held, low, high)["maps"][0]["runs"]
    cells = np.repeat(runs[::2], runs[1::2]).reshape(160, 160)
    assert (cells == cells[0]).all()
    assert [int(cells[0, round(160 * x)]) for x in (0.01, 0.12, 0.3, 0.5, 0.9, 0.99)] == [0, 1, 2, 3, -1, 4]


def test_runs_of_equal_pixels() -> None:
    assert _runs(np.array([[1, 1, -1], [-1, 2, 2]])) == [1, 2, -1, 2, 2, 2]


@pytest.mark.thorough
def test_a_swarm_is_filmed(tmp_path: Path) -> None:
    path = make_swarm(tmp_path / "swarm")
    page = Page(jaxrl.report(path, replays=1).read_text())
    shown = page.data("run-0-film-0")
    assert (shown["kind"], shown["width"], shown["height"], shown["length"]) == ("frames", 300, 300, 6)
    results = Results.load(path)
    assert f"{results.best()['iqm']:.4g}" in page.texts["dd"]
    env = jaxrl.load_run(path)
    state = jax.tree.map(lambda leaf: leaf[2], env.record().trajectory.states)
    sheet = Image.open(io.BytesIO(base64.b64decode(shown["sheets"][0]))).convert("RGB")
    drawn = np.asarray(sheet.crop((600, 0, 900, 300)), int)
    truth = np.asarray(env.env.image(state.env_state if hasattr(state, "env_state") else state, env.policy()[2]), int)
    assert np.abs(drawn - truth).mean() < 3  # but for the palette


# ------------------------------------------------------------------------------------------- network and escaping


def check_offline(page: Page) -> None:
    """Nothing refers to anything but the page itself, and its policy forbids everything else, too."""
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form", "image", "use")
        assert "src" not in attributes
        assert "srcset" not in attributes
        assert str(attributes.get("href", "#")).startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    style = page.texts["style"][0]
    assert not re.search(r"url\(|@import|https?:", style)
    script = page.scripts[""]
    assert not re.search(
        r"https?://(?!www\.w3\.org/2000/svg)|import\(|importScripts|fetch\(|XMLHttpRequest|WebSocket|innerHTML|eval\(",
        script,
    )
    policy = next(a["content"] or "" for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy


def test_nothing_is_loaded(page: Page, archive_page: Page) -> None:
    for parsed in (page, archive_page):
        check_offline(parsed)
        # The page's script, its data, and one element of data for each run and each film.
        assert all(
            name == "" or a.get("type") == "application/json"
            for t, a in parsed.elements
            if t == "script"
            for name in [a.get("id", "")]
        )


EVIL = '</script><script>alert(1)</script><img src=x onerror="alert(2)">&{{7*7}}\''


def test_what_users_write_is_text(runs: dict[str, Path], tmp_path: Path) -> None:
    """A directory, a command, a version and values of settings that would all like to be markup."""
    directory = tmp_path / EVIL.replace("/", "∕")
    shutil.copytree(runs["sweep"], directory)
    results = Results.load(directory)
    values = results.hparams["gamma"].astype(object)
    hparams = {**results.hparams, "gamma": [f"{EVIL}{value}" for value in values]}
    info = {**results.info, "command": EVIL, "commit": EVIL, "versions": {"jaxrl": EVIL}, "device": {"kind": EVIL}}
    Results(hparams, results.seeds, results.steps, results.metrics, results.config, info).save(directory)
    page = Page(jaxrl.report([directory, runs["other"]], tmp_path / "page.html", replays=1).read_text())
    check_offline(page)
    assert directory.name in page.texts["h2"]
    assert EVIL in page.texts["dd"]
    assert f"jaxrl {EVIL}" in page.texts["dd"]
    assert page.data("run-0-data")["name"] == directory.name
    assert {row["values"]["gamma"] for row in page.data("run-0-data")["settings"]} == set(hparams["gamma"])
    assert any(f"gamma={hparams['gamma'][0]}" in cell for table in page.tables for row in table for cell in row)
    num_films = sum(name.endswith(("film-0", "film-1")) for name in page.scripts)
    assert len(page.scripts) == 1 + 1 + 2 + num_films


def test_data_cannot_end_its_element() -> None:
    text = str(data_text({"a": EVIL, "b": [float("nan"), np.float32(2)], "c": "\u2028"}))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": EVIL, "b": [None, 2.0], "c": "\u2028"}
    assert shorten([[1.23456789, np.nan], [np.inf, -2e-9]]) == [[1.2346, None], [None, -2e-9]]


# ------------------------------------------------------------------------------------------- what is refused, options


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["report", *args])
    assert end.value.code == 2
    return capsys.readouterr().err


def test_what_is_no_run_is_refused(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = str(runs["sweep"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert "report needs at least one run directory" in refused(capsys)
    assert "nowhere holds no run: there is no such directory" in refused(capsys, str(tmp_path / "nowhere"))
    assert "it is a file, and runs are directories" in refused(capsys, str(tmp_path / "file"))
    assert "run.json is missing" in refused(capsys, str(tmp_path / "empty"))
    assert f"there are runs in it, {runs['other']}, {sweep}; name those" in refused(capsys, str(runs["sweep"].parent))
    assert "is given twice" in refused(capsys, sweep, sweep)
    assert "a report is an .html file, got 'a.pdf'; rename it to a.html" in refused(capsys, sweep, "--out", "a.pdf")
    (tmp_path / "a.html").mkdir()
    assert "is a directory" in refused(capsys, sweep, "--out", str(tmp_path / "a.html"))
    assert "replays = -1: expected at least 0" in refused(capsys, sweep, "--replays", "-1")
    assert "max_steps = 0: expected at least 1" in refused(capsys, sweep, "--max-steps", "0")
    assert "unknown metric 'nothing'" in refused(capsys, sweep, "--metric", "nothing")


def test_damaged_and_unfinished_runs_are_refused(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(runs["other"], tmp_path / "cut")
    (tmp_path / "cut" / "results.npz").write_bytes((runs["other"] / "results.npz").read_bytes()[:200])
    assert "cannot be read" in refused(capsys, str(tmp_path / "cut"))
    (tmp_path / "cut" / "results.npz").unlink()
    assert "has not finished; `jaxrl resume" in refused(capsys, str(tmp_path / "cut"))
    (tmp_path / "cut" / "run.json").write_text('{"format": 1')
    assert "run.json is damaged" in refused(capsys, str(tmp_path / "cut"))
    shutil.copytree(runs["other"], tmp_path / "policies")
    for checkpoint in (tmp_path / "policies" / "program_00").rglob("*.npz"):
        if "metrics" not in checkpoint.name:
            checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    assert "damaged" in refused(capsys, str(tmp_path / "policies"))
    assert not (tmp_path / "policies" / "report.html").exists()


def test_the_command_says_where_the_page_is(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Without replays, judged by another metric; by default in the run's directory."""
    main(["report", str(runs["sweep"]), "--replays", "0", "--metric", "episode/length"])
    said = capsys.readouterr().out
    path = runs["sweep"] / "report.html"
    assert said == f"{path} ({path.stat().st_size / 1e6:.1f} MB)\n"
    page = Page(path.read_text())
    data = page.data("run-0-data")
    assert data["replays"] == []
    assert data["metric"] == "episode/length"
    results = Results.load(runs["sweep"])
    assert rows_of(page, "learning_rate", "IQM")[0]["IQM"] == f"{results.best('episode/length')['iqm']:.4g}"
    assert not any(name.startswith("run-0-film") for name in page.scripts)


@pytest.mark.thorough
def test_a_run_that_learns_a_rule_has_no_policy(tmp_path: Path) -> None:
    settings = {"total_steps": 4096, "num_lifetimes": 2, "lifetime_batch": 2, "num_envs": 2, "width": 4, "num_inner": 2}
    jaxrl.run("lpg", "jaxrl/grid_small", settings=settings, out=tmp_path / "rule", progress=False)
    page = Page(jaxrl.report(tmp_path / "rule").read_text())
    assert page.data("run-0-data")["replays"] == []
    assert any("a rule by which agents learn" in text for text in page.texts["p"])


@pytest.mark.thorough
def test_two_reports_of_a_run_are_the_same(runs: dict[str, Path], tmp_path: Path) -> None:
    pages = [Page(jaxrl.report(runs["sweep"], tmp_path / f"{i}.html", replays=2).read_text()) for i in range(2)]
    del pages[0].scripts[""], pages[1].scripts[""]
    assert_trees_equal(pages[0].data("run-0-film-0")["returns"], pages[1].data("run-0-film-0")["returns"])
    assert pages[0].scripts == pages[1].scripts
