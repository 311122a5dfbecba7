"""The actor-critic's first update, taken apart: schedules, optimisers, and the statistics that belong to the agent."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from helpers import TINY, assert_trees_close, assert_trees_equal

from jaxrl.ops.statistics import RunningMoments
from jaxrl.presets import PPOConfig, PPOHparams, on_policy_agent
from jaxrl.spaces import Box, Discrete
from jaxrl.types import Agent, Progress, Rollout
from jaxrl_envs.probes import Probe, truncation_probe

T, B = 6, 3
# Unclipped gradients, one step: what an update does is then plain.
HP = PPOHparams(gamma=0.9, gae_lambda=0.8, max_grad_norm=1e6, learning_rate=1e-2)
ONE_STEP = {**TINY, "num_envs": B, "num_steps": T, "num_epochs": 1, "num_minibatches": 1}
KEYS = jax.random.split(jax.random.key(0), 4)


class Wide(Probe):
    """The truncation probe with observations of two numbers, to be normalised."""

    def observation_space(self, params: Any) -> Box:
        return Box(-jnp.inf, jnp.inf, (2,))


def make(hp: PPOHparams = HP, **settings: Any) -> Agent:
    probe = truncation_probe()
    env = Wide(**{field.name: getattr(probe, field.name) for field in dataclasses.fields(probe)})
    return on_policy_agent(env, PPOConfig(**{**ONE_STEP, **settings}), hp)


def experience(seed: int = 0) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    terminated, truncated = rng.random((2, T, B)) < 0.2
    is_first = np.concatenate([np.ones((1, B), bool), (terminated | truncated)[:-1]])
    return {
        "obs": jnp.asarray(rng.normal([50.0, -3.0], [10.0, 0.1], (T, B, 2)), jnp.float32),
        "reward": jnp.asarray(rng.normal(2.0, 5.0, (T, B)), jnp.float32),
        "terminated": jnp.asarray(terminated),
        "truncated": jnp.asarray(truncated),
        "is_first": jnp.asarray(is_first),
    }


def update(agent: Agent, state: Any, done: int = 0, **changes: Any) -> tuple[Any, Any]:
    """Collects outputs at the observations, as a loop does, and updates once."""

    def run(state: Any, data: dict[str, jax.Array]) -> tuple[Any, Any]:
        def act(obs: jax.Array, key: jax.Array) -> Any:
            action, _, extras = agent.act(key, state, (), obs, jnp.zeros(B, bool), True)
            return action, extras

        action, extras = jax.vmap(act)(data["obs"], jax.random.split(KEYS[1], T))
        next_extras = jax.tree.map(lambda leaf: jnp.roll(leaf, -1, axis=0), extras)
        rollout = Rollout(**data, action=action, extras=extras, next_extras=next_extras, memory=())
        return agent.update(KEYS[2], state, rollout, Progress(done, 10))

    return jax.jit(run)(state, {**experience(), **changes})


def init(agent: Agent) -> Any:
    return jax.jit(lambda key: agent.init(key, Box(-jnp.inf, jnp.inf, (2,)), Discrete(2)))(KEYS[0])


def movement(before: Any, after: Any) -> Any:
    return jax.tree.map(lambda a, b: np.asarray(b) - np.asarray(a), before.params, after.params)


@pytest.mark.parametrize(("anneal", "share"), [(True, 0.2), (False, 1.0)])
def test_the_learning_rate_falls_linearly(anneal: bool, share: float) -> None:
    """Eight updates of ten done: the same step, a fifth as long; or as long, where it is not annealed."""
    agent = make(anneal_learning_rate=anneal)
    state = init(agent)
    first, late = (movement(state, update(agent, state, done)[0]) for done in (0, 8))
    expected = jax.tree.map(lambda leaf: share * leaf, first)
    assert_trees_close(late, expected, atol=1e-6, rtol=1e-3)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(first)) > 1e-3


def test_the_first_step_of_each_optimizer() -> None:
    """Adam moves every parameter by lr·g/(|g| + eps); RMSProp by lr·g/(sqrt(0.01)·|g| + eps): ten times as far."""
    moved = {}
    for optimizer in ("adam", "rmsprop"):
        agent = make(optimizer=optimizer)
        state = init(agent)
        moved[optimizer] = movement(state, update(agent, state)[0])
    for adam, rmsprop in zip(*(jax.tree.leaves(moved[name]) for name in ("adam", "rmsprop")), strict=True):
        large = np.abs(adam) > 9.99e-3  # where eps does not matter
        np.testing.assert_allclose(np.abs(adam[large]), 1e-2, rtol=1e-2)
        np.testing.assert_allclose(rmsprop[large], 10 * adam[large], rtol=2e-2)
    assert sum((np.abs(leaf) > 9.99e-3).sum() for leaf in jax.tree.leaves(moved["adam"])) > 50


def test_gradients_are_clipped_by_their_global_norm() -> None:
    """RMSProp after one step: the second moments say what gradient came through the clip."""
    moments = {}
    for max_norm in (1e6, 0.5):
        agent = make(HP.replace(max_grad_norm=max_norm), optimizer="rmsprop")
        state, metrics = update(agent, init(agent))
        (vector,) = (leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim == 1)
        moments[max_norm] = np.asarray(vector) / 0.01  # squared gradients
        assert metrics["grad_norm"] > 1.0  # before the clip
        norm = np.sqrt(moments[max_norm].sum())
        assert norm == pytest.approx(min(max_norm, float(metrics["grad_norm"])), rel=1e-4)
    ratio = moments[0.5] / np.maximum(moments[1e6], 1e-30)
    kept = moments[1e6] > 1e-8
    np.testing.assert_allclose(ratio[kept], ratio[kept][0], rtol=1e-3)  # a norm, not an element-wise clip


def test_observations_are_normalised_with_one_snapshot_per_update() -> None:
    """The moments of the rollout count from the next update on: within one, the old policy is the old policy."""
    agent = make(normalize_obs=True)
    state = init(agent)
    after, metrics = update(agent, state)
    assert abs(float(metrics["policy/approx_kl"])) < 1e-6
    obs = np.asarray(experience()["obs"]).reshape(-1, 2)
    np.testing.assert_allclose(after.obs_moments.mean, obs.mean(0), rtol=1e-4)
    np.testing.assert_allclose(after.obs_moments.var, obs.var(0), rtol=2e-2)
    again, metrics = update(agent, after)
    assert abs(float(metrics["policy/approx_kl"])) < 1e-6
    np.testing.assert_allclose(again.obs_moments.count, 2 * len(obs), atol=1e-2)


def test_normalised_observations_are_what_the_network_sees() -> None:
    """An agent with moments at an observation answers as one without them at the standardised observation."""
    agent, plain = make(normalize_obs=True), make()
    state = init(agent)
    moments = RunningMoments(jnp.array([50.0, -3.0]), jnp.array([100.0, 0.01]), jnp.float32(10.0))
    state = state.replace(obs_moments=moments)
    obs = experience()["obs"][0]
    never = jnp.zeros(B, bool)
    seen = agent.act(KEYS[3], state, (), obs, never, False)[2]
    standard = (obs - moments.mean) / jnp.array([10.0, 0.1])
    expected = plain.act(KEYS[3], state.replace(obs_moments=()), (), standard, never, False)[2]
    assert_trees_close(seen, expected, atol=1e-5)
    raw = plain.act(KEYS[3], state.replace(obs_moments=()), (), obs, never, False)[2]
    assert np.abs(np.asarray(raw["value"] - seen["value"])).max() > 1e-2


def test_rewards_are_scaled_by_the_deviation_of_discounted_returns() -> None:
    """The same update as without scaling on rewards that were divided beforehand; and the scaler runs on."""
    agent, plain = make(normalize_reward=True), make()
    state = init(agent)
    data = {name: np.asarray(value) for name, value in experience().items()}
    returns = oracles.discounted_return_so_far(data["reward"], data["is_first"], np.zeros(B), 0.9)
    after, metrics = update(agent, state)
    scaled = jnp.asarray(data["reward"] / returns.std(), jnp.float32)
    expected, expected_metrics = update(plain, state.replace(reward_scaler=()), reward=scaled)
    assert_trees_close(after.params, expected.params, atol=1e-5, rtol=1e-3)
    assert metrics["loss/value"] == pytest.approx(float(expected_metrics["loss/value"]), rel=1e-3)
    _, unscaled = update(plain, state.replace(reward_scaler=()))
    assert abs(float(unscaled["loss/value"] - metrics["loss/value"])) > 1.0
    np.testing.assert_allclose(after.reward_scaler.returns, returns[-1], rtol=1e-4)
    np.testing.assert_allclose(after.reward_scaler.moments.mean, returns.mean(), rtol=1e-3)
    # The next rollout begins inside the episodes that this one left unfinished.
    second = {**data, "is_first": np.zeros((T, B), bool)}
    longer = oracles.discounted_return_so_far(data["reward"], second["is_first"], returns[-1], 0.9)
    again, _ = update(agent, after, is_first=jnp.asarray(second["is_first"]))
    np.testing.assert_allclose(again.reward_scaler.returns, longer[-1], rtol=1e-4)
    both = np.concatenate([returns, longer])
    np.testing.assert_allclose(again.reward_scaler.moments.var, both.var(), rtol=1e-3)


def test_a_learning_rate_of_zero_changes_only_the_statistics() -> None:
    agent = make(HP.replace(learning_rate=0.0), normalize_obs=True)
    state = init(agent)
    after, _ = update(agent, state)
    assert_trees_equal(after.params, state.params)
    assert float(after.obs_moments.count) > 1.0


def test_greedy_actions_are_the_mode_and_exploring_ones_vary() -> None:
    agent = make()
    state = init(agent)
    obs, never = experience()["obs"][0], jnp.zeros(B, bool)
    keys = jax.random.split(KEYS[3], 50)

    def actions(explore: bool) -> np.ndarray:
        return np.asarray(jax.vmap(lambda key: agent.act(key, state, (), obs, never, explore)[0])(keys))

    outputs = agent.act(KEYS[3], state, (), obs, never, False)[2]
    np.testing.assert_array_equal(actions(False), np.tile(np.argmax(outputs["policy"].logits, -1), (50, 1)))
    assert set(np.unique(actions(True))) == {0, 1}
