"""Collective motion by name: the contract, what is shared, pictures, and who sees what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxrl
import jaxrl_envs
from jaxrl.swarm_evaluation import evaluate_swarm
from jaxrl_envs.mean_field.collective import make_agents, make_collective
from jaxrl_envs.mean_field.neighbours import Neighbourhood, neighbour_sums
from jaxrl_envs.mean_field.topology import Surface

SIZES = {  # features and shared numbers, rules: by hand from centres, actions and `shared_features`
    "vicsek": (100, 50), "kuramoto": (100, 50), "aggregation": (25, 100), "two_gaussians": (25 + 2, 100),
    "formation": (25 + 4, 200), "potential": (5 + 2, 10), "beach": (25 + 50, 625), "foraging": (50 + 17, 400),
}  # fmt: skip


@pytest.mark.parametrize("task", SIZES)
def test_sizes_and_who_sees_what(task: str) -> None:
    env = make_collective(task, 6)
    params = env.default_params
    num_seen, num_rule = SIZES[task]
    assert env.observation_space(params).shape == (num_seen,)
    assert env.action_space(params).shape == (num_rule,)
    state, obs = env.reset(jax.random.key(0), params)
    swarm = state.field
    shared = env.model.shared_features(swarm, params) if hasattr(env.model, "shared_features") else jnp.zeros(0)
    np.testing.assert_allclose(obs, np.concatenate([env.features(swarm.x), shared]), rtol=1e-6)
    agents = make_agents(task, 6)
    found, rows = agents.reset(jax.random.key(0), params)
    own = np.eye(25)[np.asarray(found.seen)] if task == "beach" else np.asarray(found.seen)
    same = agents.model.shared_features(found.swarm, params) if len(shared) else jnp.zeros(0)
    np.testing.assert_allclose(
        rows[:, : agents.num_own], np.concatenate([own, np.tile(same, (6, 1))], 1), rtol=1e-6, atol=1e-7
    )
    np.testing.assert_allclose(rows[0, agents.num_own :], agents.features(found.swarm.x), rtol=1e-6)


def test_a_uniform_swarm_has_even_features() -> None:
    env = make_collective("vicsek", 40_000)
    _, obs = env.reset(jax.random.key(0), env.default_params)
    np.testing.assert_allclose(obs, np.ones(100), atol=0.15)  # 400 agents in each: a twentieth, and edges


def test_auto_is_exact_for_few_and_a_grid_for_many() -> None:
    surface, auto = Surface("torus"), Neighbourhood("auto", 32)
    for num, mode in ((40, "exact"), (2_500, "grid")):
        place = jax.random.uniform(jax.random.key(0), (num, 2), minval=-2.0, maxval=2.0)
        heading = jax.random.uniform(jax.random.key(1), (num,), maxval=6.0)
        found, expected = (neighbour_sums(h, surface, place, heading, 0.5) for h in (auto, Neighbourhood(mode, 32)))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["vicsek", "beach"])
def test_states_are_drawn_by_their_model(name: str) -> None:
    for env in (make_collective(name, 5), make_agents(name, 5)):
        params = env.default_params
        state, _ = env.reset(jax.random.key(0), params)
        if name == "beach":
            assert env.image is None
            continue
        assert env.image is not None
        picture = env.image(state, params)
        swarm = state.field if hasattr(state, "field") else state.swarm
        np.testing.assert_array_equal(picture, env.model.image(swarm, params))
        assert picture.dtype == np.uint8


@pytest.mark.thorough
def test_a_trained_swarm_is_filmed_and_played_by_seven(tmp_path: Path) -> None:
    """What a user does: train, render, and let seven agents play."""
    settings: dict[str, Any] = {"num_envs": 2, "num_steps": 4, "total_steps": 16, "hidden_sizes": (4,)}
    settings |= {"num_minibatches": 2, "env.max_steps": 6}
    jaxrl.run("dec_pomfppo", "jaxrl/mean_field_kuramoto", settings=settings, out=tmp_path / "run", progress=False)
    run = jaxrl.load_run(tmp_path / "run")
    with Image.open(run.render(tmp_path / "swarm.gif", max_steps=5)) as film:
        assert getattr(film, "n_frames", 1) >= 5
        colours = film.convert("RGB").getcolors(1 << 20)
    assert colours is not None
    assert len(colours) > 50  # two hundred phases have many hues
    agent, state, params = run.policy()
    found = evaluate_swarm(
        jax.random.key(0), agent, state, run.env, (7,), ("central",), num_episodes=2, env_params=params,
        limit=run.env.with_agents(9),
    )  # fmt: skip
    assert found.returns["central"].shape == (1, 2)
    assert (found.returns["central"] < 0.0).all()


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="expected one of vicsek"):
        make_collective("boids")
    with pytest.raises(ValueError, match="mode"):
        jaxrl_envs.make("mean_field_vicsek", neighbourhood="near")
