"""Archives from the command line: progress, what runs are judged by, a kill in between, the best individual played."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import assert_trees_equal, interrupted

import jaxrl
from experiments.dcg_map_elites import SCALES, asked
from jaxrl.cli import main
from jaxrl.execution import Options
from jaxrl.progress import _score

TINY: dict[str, Any] = {
    "total_steps": 4 * 8 * 10, "episode_steps": 10, "num_initial": 8, "num_ga": 4, "num_pg": 2, "num_injected": 2,
    "num_agent_updates": 3, "num_pg_steps": 2, "batch_size": 8, "buffer_size": 200, "hidden_sizes": (8,),
    "critic_hidden_sizes": (8,), "grid_shape": (40, 40),
}  # fmt: skip


def test_progress_shows_archives() -> None:
    rows = {
        "episode/return": np.ones((2, 3)),
        "episode/count": np.ones((2, 3)),
        "archive/coverage": np.array([[0.0, 0.1, 0.2], [0.1, 0.2, 0.3]]),
        "archive/qd_score": np.array([[0.0, 0.0, 1000.0], [0.0, 0.0, 3000.0]]),
        "archive/max_fitness": np.array([[0.0, 0.0, 5.0], [0.0, 0.0, 6.0]]),
    }
    assert _score(rows, ["a", "b"]) == "coverage 25.0 %, QD score 2,000, max fitness 5.5"


@pytest.mark.thorough
def test_a_killed_run_ends_as_if_nothing_had_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Archive, agent and buffer bit for bit; and its fittest individual can be played and drawn."""
    ask = {"seeds": 2, "settings": TINY, "options": Options(num_chunks=2), "progress": False}
    whole = jaxrl.run("dcrl_map_elites", "point_mass", out=tmp_path / "whole", **ask)
    with interrupted(monkeypatch):
        jaxrl.run("dcrl_map_elites", "point_mass", out=tmp_path / "cut", **ask)
    rest = jaxrl.resume(tmp_path / "cut", progress=False)
    assert_trees_equal(dict(rest.metrics), dict(whole.metrics))
    one, other = (jaxrl.load_run(tmp_path / name) for name in ("whole", "cut"))
    assert_trees_equal(other._parts[0].restore(0), one._parts[0].restore(0))
    assert whole.judged_by == "archive/qd_score"
    summary = whole.summary()
    assert summary["metric"] == "archive/qd_score"
    assert summary["env"] == "jaxrl/point_mass"
    assert summary["best"]["iqm"] == pytest.approx(whole.metrics["archive/qd_score"][0, :, -1].mean(), rel=1e-6)
    assert whole.steps[0] == (8 + 8) * 10
    played = one.evaluate(4, seed=1)
    best = whole.metrics["archive/max_fitness"][0, 1, -1]
    # Of another start, in episodes as long as those of training.
    assert (played.lengths == 10).all()
    assert played.ended.all()
    assert played.returns.max() == pytest.approx(best, rel=0.1)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of MAP-Elites whose individuals go to different places: large steps, and force that lasts."""
    path = tmp_path_factory.mktemp("qd") / "run"
    settings = {
        "total_steps": 3 * 32 * 50, "num_initial": 32, "num_ga": 32, "iso_sigma": 0.5, "hidden_sizes": (4,),
        "episode_steps": 40,
    }  # fmt: skip
    jaxrl.run("map_elites", "point_mass", out=path, seeds=2, settings=settings, progress=False)
    return path


def test_the_individual_of_a_chosen_cell_is_played(filled: Path) -> None:
    """What it does again, from almost the same start, is what the archive says of it."""
    run = jaxrl.load_run(filled)
    archive = run.state(seed=1).archive
    kept = np.flatnonzero(archive.occupied)
    assert len(kept) >= 3
    cell = kept[np.abs(np.asarray(archive.descriptors)[kept]).max(1).argmax()]  # the one that goes farthest
    asked = np.asarray(archive.centroids)[cell]
    _, genotype, _ = run.policy(seed=1, descriptor=asked)
    assert_trees_equal(genotype, jax.tree.map(lambda leaf: leaf[cell], archive.genotypes))
    played = run.evaluate(8, seed=1, descriptor=asked)
    assert played.returns.mean() == pytest.approx(float(archive.fitness[cell]), rel=0.1)
    fittest = run.evaluate(8, seed=1)
    assert fittest.returns.mean() == pytest.approx(float(archive.fitness.max()), rel=0.1)


def test_its_replay_says_who_it_is(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["render", str(filled), "--descriptor", "-1,1", "--out", str(tmp_path / "there.html")])
    page = (tmp_path / "there.html").read_text()
    assert "in cell" in page
    assert "descriptor (" in page
    assert "cut after" not in page
    assert capsys.readouterr().out.strip().endswith("there.html")
    main(["evaluate", str(filled), "--descriptor", "-1,1", "--episodes", "2"])
    assert "length mean 40.0" in capsys.readouterr().out


def test_a_point_is_drawn_with_its_way() -> None:
    """From the middle to the right upper corner of [-1, 1]^2, in a picture whose margins are 3 % of 300 pixels."""
    env = jaxrl.make_env("point_mass")
    state, _ = env.reset(jax.random.key(0), env.default_params)
    states = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), state)
    states = states.replace(position=np.array([[0.0, 0.0], [0.5, 0.5]]))
    picture = env.path_image(states, env.default_params)
    assert picture.shape == (300, 300, 3)
    blue, paper = (37, 99, 175), (255, 255, 255)
    at = lambda x, y: tuple(picture[round(150 - 141 * y), round(150 + 141 * x)].tolist())  # noqa: E731
    assert at(0.5, 0.5) == blue
    assert at(0.25, 0.25) == (150, 185, 225)
    assert at(-0.5, 0.5) == at(0.5, -0.5) == at(-0.25, -0.25) == paper
    alone = env.image(jax.tree.map(lambda leaf: leaf[1], states), env.default_params)
    assert tuple(alone[round(150 - 141 * 0.25), round(150 + 141 * 0.25)]) == paper


def test_what_nobody_does_is_refused(filled: Path, tmp_path: Path) -> None:
    run = jaxrl.load_run(filled)
    with pytest.raises(ValueError, match=r"descriptor = \[1.0\]: expected 2 finite numbers"):
        run.policy(descriptor=[1.0])
    with pytest.raises(ValueError, match="expected 2 finite numbers"):
        run.policy(descriptor=[np.nan, 0.0])
    with pytest.raises(SystemExit):
        main(["render", str(filled), "--descriptor", "left"])
    settings = {"total_steps": 64, "num_envs": 4, "num_steps": 16, "num_minibatches": 1, "hidden_sizes": (4,)}
    jaxrl.run("ppo", "jaxrl/point_mass", out=tmp_path / "ppo", settings=settings, progress=False)
    with pytest.raises(ValueError, match="fills no archive; map_elites"):
        jaxrl.load_run(tmp_path / "ppo").policy(descriptor=[0.0, 0.0])


@pytest.mark.slow
def test_being_told_where_to_go_fills_the_archive() -> None:
    """Three seeds of 1,984 episodes: coverage of DCRL-ME above 60 %, then PGA-ME, then ME."""
    coverage = {}
    for preset in ("map_elites", "pga_map_elites", "dcrl_map_elites"):
        settings = asked(preset, "jaxrl/point_mass", SCALES["cpu"]["jaxrl/point_mass"]).all_settings
        found = jaxrl.run(preset, "jaxrl/point_mass", seeds=3, settings=settings, progress=False)
        coverage[preset] = found.metrics["archive/coverage"][0, :, -1].mean()
    assert coverage["dcrl_map_elites"] >= 0.6
    assert coverage["dcrl_map_elites"] > coverage["pga_map_elites"] > coverage["map_elites"]
