"""Recurrent PPO on tasks that only memory solves: a cue is shown at the first step of an episode, and counts later.

Two tasks in one program, chosen by `params.target`. RECALL is the memory probe: the last action must repeat the cue.
PAY pays the cue at every step and cuts episodes anywhere, so that V = ±1 / (1 - gamma), the successor of the last
step included, where the cue is known from memory alone: after a reset it would be worth nothing.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.algorithm import train
from jaxrl.evaluation import evaluate, record
from jaxrl.presets import PPOConfig, PPOHparams, on_policy_agent, ppo
from jaxrl.spaces import Space
from jaxrl.types import Timestep
from jaxrl_envs.probes import ProbeParams, ProbeState, memory_probe

pytestmark = pytest.mark.thorough  # one trained fixture serves the whole file

GAMMA = 0.8
NUM_SEEDS = 5
PROBE = memory_probe()
RECALL, PAY = ProbeParams(target=1.0), ProbeParams(target=0.0)
CONFIG = PPOConfig(
    total_steps=24_000,
    num_envs=8,
    num_steps=20,
    num_epochs=4,
    num_minibatches=2,
    hidden_sizes=(16,),
    memory="gru",
    memory_size=16,
    normalize_advantage="none",
)
HPARAMS = PPOHparams(learning_rate=5e-3, gamma=GAMMA, ent_coef=0.0)


class Cue:
    """The memory probe, or the task that pays."""

    default_params = RECALL

    def reset(self, key: jax.Array, params: ProbeParams) -> tuple[ProbeState, jax.Array]:
        state, obs = PROBE.reset(key, params)
        return state, self._shown(obs, params)

    def step(self, key: jax.Array, state: ProbeState, action: jax.Array, params: ProbeParams) -> Any:
        pays = jnp.asarray(params.target) == 0
        after, recall = PROBE.step(key, state, action, params)
        obs = self._shown(recall.obs, params)
        reward = jnp.where(pays, state.sign, recall.reward)
        truncated = pays & jax.random.bernoulli(key, 0.25)
        return after, Timestep(obs, reward, recall.terminated & ~pays, truncated, final_obs=obs, info={})

    def observation_space(self, params: ProbeParams) -> Space:
        return PROBE.obs_space

    def action_space(self, params: ProbeParams) -> Space:
        return PROBE.single_action_space

    def _shown(self, obs: jax.Array, params: ProbeParams) -> jax.Array:
        """Cue and time; of the task that pays the cue alone, so that what is last differs in nothing."""
        return obs * jnp.stack([1.0, params.target])


ENV = Cue()
AGENT = on_policy_agent(ENV, CONFIG, HPARAMS)


@pytest.fixture(scope="module")
def learned() -> tuple[Any, np.ndarray]:
    """Agent states, leaves [2 tasks, NUM_SEEDS], and mean returns of the last fifth of training."""

    def run(key: jax.Array, target: jax.Array) -> Any:
        params = RECALL.replace(target=target)
        state, metrics = train(key, ppo(ENV, CONFIG, HPARAMS, params), CONFIG.num_updates)
        return state.agent, metrics["episode/return"][-CONFIG.num_updates // 5 :]

    keys, targets = jax.random.split(jax.random.key(0), NUM_SEEDS), jnp.array([RECALL.target, PAY.target])
    states, returns = jax.jit(jax.vmap(jax.vmap(run, (0, None)), (None, 0)))(keys, targets)
    return states, np.nanmean(returns, -1)


def of_task(states: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], states)


def values(states: Any, cue: float, num_steps: int, shows_time: bool) -> np.ndarray:
    """[S, num_steps]: of an episode with this cue, as its observations come in."""

    def one(state: Any) -> jax.Array:
        memory, result = AGENT.memory(1), []
        for t in range(num_steps):
            obs = jnp.array([[cue if t == 0 else 0.0, t / 5 if shows_time else 0.0]])
            _, memory, extras = AGENT.act(jax.random.key(0), state, memory, obs, jnp.array([t == 0]), False)
            result.append(extras["value"][0])
        return jnp.stack(result)

    return np.asarray(jax.jit(jax.vmap(one))(states))


@pytest.mark.thorough
def test_with_memory_the_cue_is_recalled(learned: tuple[Any, np.ndarray]) -> None:
    """Every seed; without memory the expected return is 0 (test_probes_learning.py)."""
    assert learned[1][0].min() > 0.95


@pytest.mark.parametrize("cue", [-1.0, 1.0])
def test_values_after_the_cue_are_the_known_ones(learned: tuple[Any, np.ndarray], cue: float) -> None:
    known = GAMMA ** np.arange(5, -1, -1.0)
    recalled = values(of_task(learned[0], 0), cue, 6, shows_time=True)
    np.testing.assert_allclose(recalled, np.tile(known, (NUM_SEEDS, 1)), atol=0.1)


@pytest.mark.parametrize("cue", [-1.0, 1.0])
def test_truncation_bootstraps_from_the_memory_before_the_reset(learned: tuple[Any, np.ndarray], cue: float) -> None:
    paid = values(of_task(learned[0], 1), cue, 6, shows_time=False)
    np.testing.assert_allclose(paid, cue / (1 - GAMMA), atol=0.1)
    # With the value of a forgotten cue, which is 0, at the cut: the last step would be worth one reward.
    assert np.abs(paid[:, 4]).min() > 1.0 + 3.0


def test_evaluation_carries_memory_through_whole_episodes(learned: tuple[Any, np.ndarray]) -> None:
    def play(state: Any) -> Any:
        return evaluate(jax.random.key(1), AGENT, state, ENV, RECALL, num_episodes=32)

    episodes = jax.jit(jax.vmap(play))(of_task(learned[0], 0))
    assert np.asarray(episodes.ended).all()
    np.testing.assert_array_equal(episodes.lengths, 6)
    np.testing.assert_array_equal(episodes.returns, 1.0)


def test_a_recorded_episode_is_played_with_memory(learned: tuple[Any, np.ndarray]) -> None:
    state = jax.tree.map(lambda leaf: leaf[0, 0], learned[0])
    keys = jax.random.split(jax.random.key(2), 8)
    episodes = jax.jit(jax.vmap(lambda key: record(key, AGENT, state, ENV, RECALL, 6)))(keys)
    cues = np.asarray(episodes["obs"])[:, 0, 0]
    assert set(cues) == {-1.0, 1.0}
    np.testing.assert_array_equal(episodes["action"][:, -1], cues > 0)
    np.testing.assert_array_equal(np.asarray(episodes["reward"]).sum(1), 1.0)
