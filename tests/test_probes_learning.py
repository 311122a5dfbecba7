"""PPO and every off-policy agent on the probes, whose values are known exactly: do they learn the right ones?

All probes with the same spaces are trained in one program: `Many` steps every probe and keeps the answer of the one
that its parameters name, so that `vmap` runs over probes and seeds.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import jaxrl
from jaxrl.algorithm import train
from jaxrl.networks import Torso
from jaxrl.presets import PRESETS, PPOConfig, PPOHparams, on_policy_agent, ppo
from jaxrl.spaces import Box, Discrete
from jaxrl.value_networks import ActionValues, StateActionValue, apply_ensemble, apply_network
from jaxrl_envs import probes

GAMMA = 0.8
NUM_SEEDS = 3
CONFIG = PPOConfig(
    total_steps=4096,
    num_envs=8,
    num_steps=16,
    num_epochs=4,
    num_minibatches=4,
    hidden_sizes=(16, 16),
    anneal_learning_rate=True,
)
HPARAMS = PPOHparams(learning_rate=2e-2, gamma=GAMMA, gae_lambda=0.9, ent_coef=0.0)

PROBES = {
    "constant": probes.constant_probe(),
    "observation": probes.observation_probe(),
    "discount": probes.discount_probe(),
    "action": probes.action_probe(),
    "contextual": probes.contextual_probe(),
    "truncation": probes.truncation_probe(),
    "termination": probes.termination_probe(),
}
NAMES = list(PROBES)


@struct.dataclass
class Which:
    index: int | jax.Array = 0


class Many:
    """The probe number `params.index` of `names`; those whose actions do not matter take any actions."""

    default_params = Which()

    def __init__(self, names: list[str] = NAMES, actions: Any = Discrete(2)) -> None:
        self.probes, self.actions = [PROBES[name] for name in names], actions

    def reset(self, key: jax.Array, params: Which) -> Any:
        return _pick(params.index, [probe.reset(key, probe.default_params) for probe in self.probes])

    def step(self, key: jax.Array, state: Any, action: jax.Array, params: Which) -> Any:
        answers = [probe.step(key, state, action, probe.default_params) for probe in self.probes]
        return _pick(params.index, answers)

    def observation_space(self, params: Which) -> Box:
        return Box(-1.0, 1.0, (1,))

    def action_space(self, params: Which) -> Any:
        return self.actions


def _pick(index: jax.Array, answers: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves])[index], *answers)


@pytest.fixture(scope="module")
def learned() -> dict[str, Any]:
    """{probe: its agent states, leaves [NUM_SEEDS]}."""

    def run(index: jax.Array, key: jax.Array) -> Any:
        return train(key, ppo(Many(), CONFIG, HPARAMS, Which(index)), CONFIG.num_updates)[0].agent

    keys = jax.random.split(jax.random.key(0), NUM_SEEDS)
    states = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(jnp.arange(len(NAMES)), keys)
    return {name: jax.tree.map(lambda leaf: leaf[i], states) for i, name in enumerate(NAMES)}  # noqa: B023


def observations(name: str) -> np.ndarray:
    """Every observation of a probe, [N, 1]."""
    values = {"observation": [-1, 1], "contextual": [-1, 1], "discount": [0, 1], "termination": np.arange(5) / 5}
    return np.array(values.get(name, [0]), np.float32)[:, None]


def predictions(env: Any, config: PPOConfig, states: Any, obs: np.ndarray) -> tuple[np.ndarray, Any]:
    """Values [S, N], and policies."""
    agent = on_policy_agent(env, config, HPARAMS)
    first = jnp.zeros(len(obs), bool)

    def one(state: Any) -> Any:
        return agent.act(jax.random.key(0), state, (), jnp.asarray(obs), first, False)[2]

    outputs = jax.jit(jax.vmap(one))(states)
    return np.asarray(outputs["value"]), outputs["policy"]


def known_values(name: str) -> np.ndarray:
    probe = PROBES[name]
    return np.array([float(probe.value(obs, GAMMA, probe.default_params)) for obs in observations(name)])


@pytest.mark.parametrize("name", NAMES)
def test_values_are_the_known_ones(learned: dict[str, Any], name: str) -> None:
    values, _ = predictions(Many(), CONFIG, learned[name], observations(name))
    known = known_values(name)
    tolerance = 0.03 * max(1.0, np.abs(known).max())
    np.testing.assert_allclose(values, np.tile(known, (NUM_SEEDS, 1)), atol=tolerance)


def test_truncation_bootstraps_and_termination_does_not(learned: dict[str, Any]) -> None:
    """Reward 1 per step over five steps: worth 1 / (1 - gamma) if the end is a cut, less the nearer it is if real."""
    endless, _ = predictions(Many(), CONFIG, learned["truncation"], observations("truncation"))
    ending, _ = predictions(Many(), CONFIG, learned["termination"], observations("termination"))
    np.testing.assert_allclose(endless, 1 / (1 - GAMMA), atol=0.25)
    np.testing.assert_allclose(ending[:, -1], 1.0, atol=0.25)
    np.testing.assert_allclose(ending[:, 0], (1 - GAMMA**5) / (1 - GAMMA), atol=0.25)
    # What a learner that took truncation for termination could reach at most: the value of the first of five steps.
    assert endless.min() > (1 - GAMMA**5) / (1 - GAMMA) + 0.5


@pytest.mark.parametrize("name", ["action", "contextual"])
def test_policies_choose_the_right_action(learned: dict[str, Any], name: str) -> None:
    obs = observations(name)
    _, policy = predictions(Many(), CONFIG, learned[name], obs)
    right = np.where(obs[:, 0] >= 0, 1, 0)
    probabilities = np.exp(np.asarray(policy.log_prob(jnp.tile(right, (NUM_SEEDS, 1)))))
    assert probabilities.min() > 0.95


def test_the_right_continuous_action_is_found() -> None:
    env = probes.continuous_probe()
    config = dataclasses.replace(CONFIG, total_steps=8192)

    def run(key: jax.Array) -> Any:
        return train(key, ppo(env, config, HPARAMS), config.num_updates)[0].agent

    states = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), NUM_SEEDS))
    values, policy = predictions(env, config, states, np.zeros((1, 1), np.float32))
    np.testing.assert_allclose(policy.mode()[:, 0, 0], env.default_params.target, atol=0.1)
    # The value is that of the policy as it still explores: at most 0, the spread's square below it.
    np.testing.assert_allclose(values, 0.0, atol=0.15)


def test_without_memory_the_cue_is_worth_nothing() -> None:
    """The probe that no feed-forward agent solves: a learner that seems to, sees what it should not."""
    env = probes.memory_probe()

    def run(key: jax.Array) -> Any:
        state, metrics = train(key, ppo(env, CONFIG, HPARAMS), CONFIG.num_updates)
        return state.agent, metrics["episode/return"]

    _, returns = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), NUM_SEEDS))
    np.testing.assert_allclose(np.nanmean(returns, axis=1), 0.0, atol=0.15)


def off_policy_values(name: str, names: list[str]) -> list[np.ndarray]:
    """Of an agent without an entropy bonus, after training on each probe: V [2 seeds, N] at every observation."""
    preset, discrete = PRESETS[name.split()[0]], name in ("dqn", "sac discrete")
    config = dataclasses.replace(
        preset.config, total_steps=8 * 520, num_envs=8, num_gradient_steps=4, batch_size=64, buffer_size=4096,
        fill_steps=160, hidden_sizes=(16, 16), activation="tanh",
    )  # fmt: skip
    wanted = {
        "learning_rate": 1e-2, "critic_learning_rate": 1e-2, "alpha_learning_rate": 0.0, "initial_alpha": 1e-6,
        "entropy_coef": 0.0, "tau": 0.05, "gamma": GAMMA,
    }  # fmt: skip
    known = {field.name for field in dataclasses.fields(preset.hparams)}
    hparams = preset.hparams.replace(**{k: v for k, v in wanted.items() if k in known})
    env = Many(names, Discrete(2) if discrete else Box(-1.0, 1.0, (1,)))

    def run(index: jax.Array, key: jax.Array) -> Any:
        return train(key, preset.make(env, config, hparams, Which(index)), config.num_updates)[0].agent.params

    keys = jax.random.split(jax.random.key(0), 2)
    params = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(jnp.arange(len(names)), keys)
    torso = Torso(config.hidden_sizes, config.activation)

    def value(params: Any, obs: jax.Array) -> jax.Array:
        if name == "dqn":
            return apply_network(ActionValues(2, 1, torso, config.dueling), params, obs)[..., 0].max(-1)
        if discrete:
            return apply_ensemble(ActionValues(2, 1, torso), params["critic"], obs)[..., 0].mean((0, 2))
        critic = StateActionValue(2 if name == "dsac_t" else 1, torso)
        actions = jnp.zeros((len(obs), 1))
        return apply_ensemble(critic, params["critic"], obs, actions)[..., 0].mean(0)

    everywhere = jax.jit(jax.vmap(jax.vmap(value, (0, None)), (0, None)))
    return [np.asarray(everywhere(params, jnp.asarray(observations(n))))[i] for i, n in enumerate(names)]


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["sac", "sac discrete", "td3", "dsac_t", "mdpo_off", "pmoe"])
def test_truncation_bootstraps_and_termination_does_not_off_policy(name: str) -> None:
    endless, ending = off_policy_values(name, ["truncation", "termination"])
    np.testing.assert_allclose(endless, 1 / (1 - GAMMA), atol=0.25)
    np.testing.assert_allclose(ending, np.tile(known_values("termination"), (2, 1)), atol=0.25)


@pytest.mark.thorough
def test_deep_q_learning_finds_the_known_values() -> None:
    for name, values in zip(NAMES, off_policy_values("dqn", NAMES), strict=True):
        known = known_values(name)
        tolerance = 0.03 * max(1.0, np.abs(known).max())
        np.testing.assert_allclose(values, np.tile(known, (2, 1)), atol=tolerance, err_msg=name)


@pytest.mark.slow
def test_cartpole_is_solved() -> None:
    """The demonstration's best setting: interquartile mean of the last tenth of training, over eight seeds."""
    results = jaxrl.run(
        "ppo", "CartPole-v1", seeds=8, settings={"total_steps": 102_400, "learning_rate": 3e-3}, progress=False
    )
    assert results.iqm().point[0] >= 475
