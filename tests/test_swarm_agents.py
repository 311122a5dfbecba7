"""Agents of a swarm with shared parameters: what they see, and that they learn as so many environments would."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY, assert_trees_close

import jaxrl_envs
from jaxrl.agents.swarm import shared_by_swarm
from jaxrl.algorithm import train
from jaxrl.env_checks import check_environment
from jaxrl.evaluation import evaluate
from jaxrl.presets import PPOConfig, PPOHparams, find_preset, on_policy_agent
from jaxrl.types import Progress, Rollout
from jaxrl_envs.mean_field.registry import make_swarm
from jaxrl_envs.probes import constant_probe


@pytest.mark.quick("swarm_lq", "swarm_two_room")
@pytest.mark.parametrize("name", [name for name in jaxrl_envs.list_envs() if name.startswith("swarm_")])
def test_swarms_pass_check_environment(name: str) -> None:
    check_environment(jaxrl_envs.make(name, num_agents=3), num_steps=45)


def test_a_row_is_what_the_agent_sees_and_then_the_population() -> None:
    env = make_swarm("two_room", 4)
    state, obs = env.reset(jax.random.key(0), env.default_params)
    assert env.num_own == 2
    np.testing.assert_array_equal(obs[:, :2], np.eye(2)[np.asarray(state.seen)])
    share = float(np.mean(np.asarray(state.swarm.x) == 1))
    np.testing.assert_allclose(obs[:, 2:], np.tile([2 * (1 - share), 2 * share], (4, 1)), atol=1e-6)
    _, timestep = env.step(jax.random.key(1), state, jnp.zeros(4, jnp.int32), env.default_params)
    np.testing.assert_allclose(timestep.reward, -((share - 0.7) ** 2), atol=1e-6)
    assert env.with_agents(9).num_agents == 9


def agents(preset: str) -> Any:
    env = make_swarm("two_room", 3)
    agent = find_preset(preset).agent(env, PPOConfig(**TINY), PPOHparams(), None)
    state = agent.init(jax.random.key(0), env.observation_space(None), env.action_space(None))
    return (
        agent,
        jax.jit(lambda state, obs: agent.act(jax.random.key(1), state, (), obs, jnp.zeros(2, bool), True)),
        state,
    )


@pytest.mark.parametrize("preset", ["ippo", "mappo"])
def test_actors_see_their_own_and_only_a_central_critic_the_population(preset: str) -> None:
    _, act, state = agents(preset)
    obs = jax.random.uniform(jax.random.key(2), (2, 3, 4))
    elsewhere = obs.at[..., 2:].add(1.0)
    (_, _, one), (_, _, other) = act(state, obs), act(state, elsewhere)
    np.testing.assert_array_equal(one["policy"].logits, other["policy"].logits)
    assert one["value"].shape == (2, 3)
    moved = float(jnp.abs(one["value"] - other["value"]).min())
    assert moved > 1e-3 if preset == "mappo" else moved == 0.0
    # Agents that see the same do the same in distribution: parameters are shared.
    _, _, same = act(state, jnp.broadcast_to(obs[:, :1], obs.shape))
    np.testing.assert_allclose(same["policy"].logits - same["policy"].logits[:, :1], 0.0, atol=1e-6)


@pytest.mark.thorough
def test_an_update_is_that_of_as_many_environments() -> None:
    """A rollout [T, B] of 3 agents each teaches what the same rows, laid out as [T, 3 B], teach the plain agent."""
    env = make_swarm("two_room", 3)
    whole, single = env.agent_observation_space(None), env.agent_action_space(None)

    class One:
        default_params = None
        observation_space = staticmethod(lambda params: whole)
        action_space = staticmethod(lambda params: single)

    plain = on_policy_agent(One(), PPOConfig(**TINY), PPOHparams())  # type: ignore[arg-type]
    wide = shared_by_swarm(plain, (whole, single))
    state = plain.init(jax.random.key(0), whole, single)
    keys = jax.random.split(jax.random.key(1), 4)
    obs = jax.random.uniform(keys[0], (8, 2, 3, 4))
    flags, reward = jax.random.bernoulli(keys[1], 0.3, (3, 8, 2)), jax.random.normal(keys[2], (8, 2))

    def rollout(agent: Any, obs: Any, flags: Any, reward: Any) -> Rollout:
        act = jax.vmap(lambda key, obs, first: agent.act(key, state, (), obs, first, True))
        action, _, extras = act(jax.random.split(keys[3], 8), obs, flags[2])
        return Rollout(obs, action, reward, *flags, extras, jax.tree.map(lambda leaf: leaf[::-1], extras), ())

    progress = Progress(0, 10)
    of_swarm, _ = jax.jit(wide.update)(keys[3], state, rollout(wide, obs, flags, reward), progress)
    lanes = (obs.reshape(8, 6, 4), jnp.repeat(flags, 3, 2), jnp.repeat(reward, 3, 1))
    of_lanes, _ = jax.jit(plain.update)(keys[3], state, rollout(plain, *lanes), progress)
    assert_trees_close(of_swarm, of_lanes, atol=1e-6)
    assert not np.allclose(jax.tree.leaves(of_swarm.params)[0], jax.tree.leaves(state.params)[0])


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["ippo", "mappo"])
def test_agents_learn_where_to_be(preset: str) -> None:
    """Uniform choices of ten agents pay -0.04 - 0.25 / 10 in each of ten steps, -0.65 in all."""
    chosen, env = find_preset(preset), make_swarm("two_room", 10)
    config = dataclasses.replace(chosen.config, total_steps=20_000, num_envs=8, num_steps=20, hidden_sizes=(32,))
    hp = chosen.hparams.replace(learning_rate=2e-3)
    algorithm, agent = chosen.make(env, config, hp, None), chosen.agent(env, config, hp, None)
    state, metrics = jax.jit(lambda key: train(key, algorithm, config.num_updates))(jax.random.key(0))
    episodes = evaluate(jax.random.key(1), agent, state.agent, env, env.default_params, 100, explore=True)
    assert float(episodes.returns.mean()) > -0.45
    assert float(metrics["episode/return"][0]) == pytest.approx(-0.65, abs=0.15)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="environment of agents"):
        find_preset("ippo").agent(constant_probe(), PPOConfig(), PPOHparams(), None)
    with pytest.raises(ValueError, match="agents of a swarm have none"):
        find_preset("mappo").agent(make_swarm("two_room", 2), PPOConfig(memory="gru"), PPOHparams(), None)
    with pytest.raises(ValueError, match="torso of the policy's own"):
        PPOConfig(policy_inputs=2, shared_torso=True)
    with pytest.raises(ValueError, match="num_agents >= 1"):
        make_swarm("two_room", 0)
