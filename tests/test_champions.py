"""Evolved policies by name: a run from the command's side, its champion as a file, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_equal

import jaxrl
from jaxrl.champions import Champion, load_champion, save_champion
from jaxrl.evaluation import evaluate
from jaxrl.evo.seeds import SeedGenome, quantize, seed_codec
from jaxrl.presets import PRESETS
from jaxrl.presets.neuroevolution import DeepGAConfig, network_codec
from jaxrl.presets.strategies import NoveltyESConfig, OpenESConfig
from jaxrl_envs import probes

SETTINGS: dict[str, Any] = {
    "population": 12, "num_parents": 4, "elite_pool": 0, "eval_episodes": 2, "max_episode_steps": 4,
    "hidden_sizes": (3,), "total_steps": 13 * 2 * 4 * 6, "sigma": 0.3,
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("champions") / "run"
    jaxrl.run("deep_ga", "jaxrl/probe_continuous", seeds=1, settings=SETTINGS, out=out, progress=False)
    return out


def test_a_champion_is_rebuilt_from_its_file(finished: Path, tmp_path: Path) -> None:
    """The parameters of the run, bit for bit, from the seeds alone; and it plays."""
    run = jaxrl.load_run(finished)
    save_champion(tmp_path / "champion.npz", run.champion())
    champion = load_champion(tmp_path / "champion.npz")
    assert (champion.algorithm, champion.env) == ("deep_ga", "jaxrl/probe_continuous")
    assert len(champion.genome.seeds) > 1
    _, state, _ = run.policy()
    assert_trees_equal(champion.params(), state.params)
    agent, rebuilt, env, env_params = champion.policy()
    played = evaluate(jax.random.key(0), agent, rebuilt, env, env_params, 2)
    np.testing.assert_allclose(played.returns, champion.fitness, rtol=1e-5)
    assert champion.fitness > -0.05  # an action within 0.22 of the best


def test_metrics_of_a_run(finished: Path) -> None:
    results = jaxrl.load_run(finished).results
    best = results.metrics["elite/fitness"][0, 0]
    assert (np.diff(best) >= 0).all()
    np.testing.assert_array_equal(results.metrics["episode/return"], results.metrics["elite/fitness"])
    assert {"fitness/best", "fitness/median", "fitness/mean", "evolution/steps"} <= set(results.metrics)
    np.testing.assert_array_equal(results.metrics["evolution/steps"], 26.0)  # one step per episode: early stops count


def test_four_million_parameters_of_a_hundred_generations_in_two_kilobytes(tmp_path: Path) -> None:
    """With one power and with a schedule of them, whose file is larger by 4 bytes each."""
    codec = seed_codec({"w": jax.ShapeDtypeStruct((4_052_658,), jnp.float32)})
    seeds = np.asarray(jax.random.bits(jax.random.key(0), (101,), jnp.uint32))
    for powers, size in ((np.full(100, 0.002), 2048), (0.002 * 0.99 ** np.arange(100), 2048 + 400)):
        genome = SeedGenome(seeds, np.concatenate([[0.0], quantize(powers)]).astype(np.float32), np.int32(101))
        champion = Champion(genome, "deep_ga", "Breakout-MinAtar", {"hidden_sizes": (512,)}, codec.header, 12.5)
        path = tmp_path / "champion.npz"
        save_champion(path, champion)
        assert path.stat().st_size < size
        again = load_champion(path)
        for found, expected in zip(again.genome, genome, strict=True):
            np.testing.assert_array_equal(found, expected)
        assert again.codec == codec.header


def test_what_does_not_fit_is_refused(finished: Path, tmp_path: Path) -> None:
    champion = jaxrl.load_run(finished).champion()
    other = network_codec(probes.continuous_probe(), dataclasses.replace(champion.config(), hidden_sizes=(4,)))
    with pytest.raises(ValueError, match="another network .*size: here 13, in the genome 10"):
        champion.params(other)
    with pytest.raises(ValueError, match=r"ends in \.npz"):
        save_champion(tmp_path / "champion.txt", champion)
    longer = champion._replace(genome=champion.genome._replace(length=np.int32(99)))
    with pytest.raises(ValueError, match="expected a genome of 99 seeds"):
        save_champion(tmp_path / "c.npz", longer)
    jaxrl.checkpoint.save(tmp_path / "other.npz", {"seeds": np.zeros(3)})
    with pytest.raises(ValueError, match="holds no champion"):
        load_champion(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DeepGAConfig(population=10, elite_pool=3), "num_parents = 20: expected at most population = 10"),
        (lambda: DeepGAConfig(selection="both"), "selection = 'both'"),
        (lambda: DeepGAConfig(total_steps=1000), "less than one generation; use at least"),
        (lambda: DeepGAConfig(torso="resnet"), "torso = 'resnet'"),
        (lambda: OpenESConfig(population=7), "expected pairs; use 8"),
        (lambda: OpenESConfig(population=8, noise_batch=3), "not divisible by noise_batch = 3"),
        (lambda: NoveltyESConfig(num_policies=0), "num_policies = 0"),
        (lambda: jaxrl.run("deep_ga", "CartPole-v1", settings={"sigma": 0.0}), "sigma = 0"),
        (lambda: jaxrl.run("open_es", "CartPole-v1", settings={"sigma": -0.1}), r"sigma = -0\.1"),
        (lambda: jaxrl.run("evosax", "CartPole-v1", settings={"strategy": "CMAES2"}), "unknown evosax algorithm"),
        (lambda: jaxrl.run("ars", "CartPole-v1", settings={"population": 7}), "refuses population = 7"),
    ],
)
def test_bad_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_settings_of_the_papers() -> None:
    """Spec 1.2: Atari's, Humanoid's and the image maze's numbers."""
    atari = PRESETS["deep_ga"]
    assert (atari.config.population, atari.config.num_parents, atari.hparams.sigma) == (1000, 20, 0.002)
    assert (atari.config.elite_pool, atari.config.elite_episodes, atari.config.eval_episodes) == (10, 30, 1)
    humanoid = atari.overrides["brax"]
    wanted = {"population": 12_500, "num_parents": 625, "elite_pool": 0, "eval_episodes": 5, "sigma": 0.00224}
    assert wanted.items() <= humanoid.items()
    maze = PRESETS["novelty_search"]
    assert (maze.config.population, maze.config.num_parents, maze.hparams.sigma) == (20_000, 61, 0.005)
    assert (maze.config.num_neighbours, maze.hparams.archive_probability) == (25, 0.01)
    dataclasses.replace(atari.config, num_parents=0)  # random search
    images = {**maze.overrides["jaxrl"], **maze.overrides["jaxrl/hard_maze_images"]}
    wanted = {"population": 20_000, "num_parents": 61, "sigma": 0.005, "selection": "novelty", "torso": "dqn"}
    assert wanted.items() <= images.items()


def test_the_network_of_the_image_maze() -> None:
    """DQN's, with two outputs for turn and speed: 4,044,450 parameters, as 4,044,963 with three actions."""
    env, preset = jaxrl.make_env("jaxrl/hard_maze_images"), PRESETS["novelty_search"]
    known = {field.name for field in dataclasses.fields(DeepGAConfig)}
    settings = {n: v for n, v in preset.overrides["jaxrl/hard_maze_images"].items() if n in known}
    assert network_codec(env, dataclasses.replace(preset.config, **settings)).size == 4_044_450
