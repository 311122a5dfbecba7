"""Soft actor-critic against numbers worked out by hand, soft value iteration, and the temperature's fixed point."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import ChainEnv, ChainParams, chain_values
from tiny_agents import constant

from jaxrl.agents.off_policy import smallest
from jaxrl.agents.sac import Temperature, adapt_temperature, init_temperature
from jaxrl.algorithm import train
from jaxrl.presets import PRESETS, SACConfig, SACHparams, sac
from jaxrl.types import Progress, Sample
from jaxrl_envs import probes

CONFIG = SACConfig(
    total_steps=8 * 420, num_envs=8, num_gradient_steps=4, batch_size=64, buffer_size=4096, fill_steps=160,
    hidden_sizes=(),
)  # fmt: skip


@pytest.mark.parametrize(("entropy", "gradient"), [(3.0, 0.8), (-2.0, -0.2)])
def test_temperature_gradient_by_hand(entropy: float, gradient: float) -> None:
    """Target -1, alpha .2: it falls where entropy is above, and rises where it is below."""
    before = init_temperature(0.2)
    after = adapt_temperature(before, jnp.float32(entropy), -1.0, 0.01)
    assert isinstance(after, Temperature)
    first_moment: Any = after.opt_state
    assert first_moment.mu == pytest.approx(0.1 * gradient, rel=1e-5)
    assert float(before.alpha) == pytest.approx(0.2, rel=1e-6)
    # Adam's first step is of the learning rate.
    assert float(after.log_alpha - before.log_alpha) == pytest.approx(-0.01 * np.sign(gradient), rel=1e-4)


def test_soft_value_of_discrete_actions_by_hand() -> None:
    """Q = 1 and 2, probabilities .25 and .75, alpha .2: V = 1.8624670; and the smaller critic counts."""
    env = ChainEnv()
    hparams = SACHparams(critic_learning_rate=0.0, actor_learning_rate=0.0, initial_alpha=0.2)
    agent = PRESETS["sac"].agent(env, CONFIG, hparams)
    state = agent.init(jax.random.key(0), env.observation_space(ChainParams()), env.action_space(ChainParams()))
    actor = constant(state.params["actor"], np.log([0.25, 0.75]).tolist())
    critic = constant(state.params["critic"], [[0.0, 0.0]] * 2)
    target = constant(state.params["critic"], [[1.0, 2.0], [1.5, 2.5]])
    state = state.replace(params={"actor": actor, "critic": critic}, targets={"critic": target})
    state_of = jnp.zeros(1, jnp.int32)
    sample = Sample(state_of, state_of, jnp.zeros(1), jnp.ones(1), state_of, jnp.ones(1), state_of)
    _, metrics = agent.update(jax.random.key(0), state, sample, Progress(0, 1))
    assert metrics["priority"][0] == pytest.approx(1.8624670, abs=1e-6)
    assert metrics["loss/critic"] == pytest.approx(1.8624670**2, rel=1e-6)  # half of the square, for two critics
    assert metrics["policy/entropy"] == pytest.approx(-0.25 * np.log(0.25) - 0.75 * np.log(0.75), rel=1e-5)


def test_the_soft_chain_is_solved_at_a_fixed_temperature() -> None:
    """As one run, and cut every two steps from anywhere: the values of soft value iteration, and their policy."""
    alpha = 0.1
    hparams = SACHparams(
        gamma=0.9, actor_learning_rate=0.03, critic_learning_rate=0.03, alpha_learning_rate=0.0, tau=0.1,
        initial_alpha=alpha,
    )  # fmt: skip

    def run(key: jax.Array, params: ChainParams) -> Any:
        return train(key, sac(ChainEnv(), CONFIG, hparams, params), CONFIG.num_updates)[0].agent

    params = ChainParams(jnp.array([1_000_000, 2]), jnp.array([False, True]))
    states = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 2), params)
    expected = chain_values(0.9, alpha)
    critic = states.params["critic"]["params"]["head_q"]
    q = np.asarray(critic["kernel"] + critic["bias"][:, :, None])  # [2 runs, 2 critics, 3, 2]
    np.testing.assert_allclose(q, np.broadcast_to(expected, q.shape), atol=0.02)
    actor = states.params["actor"]["params"]["head_policy"]
    policy = jax.nn.softmax(actor["kernel"] + actor["bias"][:, None], -1)
    wanted = np.asarray(jax.nn.softmax(expected / alpha, -1))
    np.testing.assert_allclose(policy, np.broadcast_to(wanted, policy.shape), atol=0.05)


def settled(env: Any, config: SACConfig, hparams: SACHparams, reward: float) -> tuple[float, float]:
    """Entropy and temperature at the end of training, means over four seeds and the last tenth."""
    params = dataclasses.replace(env.default_params, reward=reward)

    def run(key: jax.Array) -> Any:
        return train(key, sac(env, config, hparams, params), config.num_updates)[1]

    metrics = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 4))
    last = config.num_updates // 10
    return tuple(float(metrics[f"policy/{name}"][:, -last:].mean()) for name in ("entropy", "temperature"))  # type: ignore[return-value]


def test_entropy_settles_at_its_target_for_discrete_actions() -> None:
    """Q is -1 and 1: the policy of entropy .7 log 2 is softmax(Q / alpha) for one alpha, and this is it."""
    entropy, temperature = settled(
        probes.action_probe(),
        CONFIG,
        SACHparams(actor_learning_rate=0.03, critic_learning_rate=0.03, alpha_learning_rate=0.03, initial_alpha=0.2),
        1.0,
    )
    target = 0.7 * np.log(2)
    p = scipy.optimize.brentq(lambda p: -p * np.log(p) - (1 - p) * np.log(1 - p) - target, 0.5, 1 - 1e-9)
    assert entropy == pytest.approx(target, abs=0.02)
    assert temperature == pytest.approx(2 / np.log(p / (1 - p)), rel=0.1)


@pytest.mark.thorough
def test_entropy_settles_at_its_target_for_continuous_actions() -> None:
    """Reward -10 (a - .5)^2: a Gaussian of entropy -1 is the best at temperature 20 sigma^2."""
    config = dataclasses.replace(
        CONFIG, hidden_sizes=(32,), activation="tanh", total_steps=8 * 820, batch_size=128, num_gradient_steps=2
    )
    hparams = SACHparams(
        actor_learning_rate=5e-3, critic_learning_rate=1e-2, alpha_learning_rate=1e-2, initial_alpha=0.5
    )
    entropy, temperature = settled(probes.continuous_probe(), config, hparams, 10.0)
    sigma = np.exp(-1 - 0.5 * np.log(2 * np.pi * np.e))
    assert entropy == pytest.approx(-1.0, abs=0.1)
    assert temperature == pytest.approx(20 * sigma**2, rel=0.3)


def test_the_smallest_of_critics_and_its_gradient() -> None:
    values = jnp.array([[1.0, 5.0, 3.0], [2.0, 4.0, 3.0], [3.0, 6.0, 3.5]])
    np.testing.assert_array_equal(smallest(values), [1.0, 4.0, 3.0])
    gradient = jax.grad(lambda values: (jnp.arange(1.0, 4.0) * smallest(values)).sum())(values)
    np.testing.assert_array_equal(gradient[:, :2], [[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    assert gradient[:, 2].sum() == 3.0  # at a tie it goes to one of them
