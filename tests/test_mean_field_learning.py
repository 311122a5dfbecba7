"""Mean-field control is learnt: by gradients through exact dynamics to known optima, by PPO on swarms near them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_mean_field_lq import GAMMA, PARTIAL

from jaxrl.algorithm import init, sweep, train
from jaxrl.evaluation import evaluate
from jaxrl.objectives import ppo_adaptive_kl_objective, ppo_clip_kl_objective, ppo_objective
from jaxrl.objectives.common import AdvantageTargets, value_loss
from jaxrl.objectives.kl import rllib_kl_coef
from jaxrl.ops.distributions import DiagNormal
from jaxrl.presets import PPOConfig, find_preset
from jaxrl.presets.mean_field import MFCPGConfig, MFCPGHparams, mfc_pg, mfc_pg_agent
from jaxrl_envs.mean_field.lq import LQParams, lq_solution
from jaxrl_envs.mean_field.registry import make_mean_field
from jaxrl_envs.probes import continuous_probe


def test_mfc_pg_reaches_the_lq_table() -> None:
    """From zero gains, six levels of noise in one program, each to 1e-4 of the best affine rule."""
    env = make_mean_field("lq", "gaussian")
    config = MFCPGConfig(total_steps=21 * 1500, num_steps=21)

    def run(noise: jax.Array) -> Any:
        params = LQParams(obs_noise=noise)
        state, metrics = train(
            jax.random.key(0), mfc_pg(env, config, MFCPGHparams(gamma=GAMMA), params), config.num_updates
        )
        return state.agent.params, -metrics["episode/discounted_return"]

    plans, costs = jax.jit(jax.vmap(run))(jnp.array(list(PARTIAL)))
    np.testing.assert_allclose(costs[:, 0], 24.1599160550, rtol=1e-5)
    for plan, cost, (best, first_gain) in zip(plans, costs[:, -1], PARTIAL.values(), strict=True):
        assert abs(float(cost) - best) < 1e-4
        assert abs(float(plan[0, 0]) - first_gain) < 2e-3
    deviation, _, _ = lq_solution(LQParams(), GAMMA, 20)
    np.testing.assert_allclose(plans[0, :19, 0], deviation.gain[:19], atol=5e-3)  # the last ones hardly count


@pytest.mark.parametrize(("task", "optimum"), [("two_room", -0.04), ("anti_crowding", -0.5), ("pigou", -0.75)])
@pytest.mark.parametrize("policy", ["open_loop", "network"])
def test_mfc_pg_solves_tables(task: str, optimum: float, policy: str) -> None:
    """From far away: the plan that a run begins with is uniform, which of the last two tasks is the optimum."""
    env = make_mean_field(task, "exact")
    config = MFCPGConfig(total_steps=10 * 400, num_steps=10, policy=policy, hidden_sizes=(8,))
    algorithm = mfc_pg(env, config, MFCPGHparams(learning_rate=0.1 if policy == "open_loop" else 0.02))
    key_shift, key = jax.random.split(jax.random.key(0))

    def run(key: Any) -> Any:
        state = init(key, algorithm)
        leaves, structure = jax.tree.flatten(state.agent.params)
        keys = jax.random.split(key_shift, len(leaves))
        moved = [leaf + jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
        state = state.replace(agent=state.agent.replace(params=jax.tree.unflatten(structure, moved)))
        return train(key, algorithm, config.num_updates, state)[1]["episode/return"]

    returns = jax.jit(run)(key)
    assert returns[0] < optimum - 0.02
    assert returns[-1] == pytest.approx(optimum, abs=1e-4 if policy == "open_loop" else 2e-3)


def test_the_gradient_is_that_of_a_known_reward() -> None:
    """One step of plain gradient descent on `-(a - 0.5)^2`: from 0 to the learning rate."""
    env, config = (
        continuous_probe(),
        MFCPGConfig(total_steps=2, num_steps=2, optimizer="sgd", anneal_learning_rate=False),
    )
    algorithm = mfc_pg(env, config, MFCPGHparams(learning_rate=0.1))
    state, metrics = train(jax.random.key(0), algorithm, 1)
    np.testing.assert_allclose(state.agent.params, [[0.1], [0.0]], atol=1e-7)  # nothing is paid after the end
    np.testing.assert_allclose(metrics["episode/return"], -0.25)
    np.testing.assert_allclose(metrics["grad_norm"], 1.0)
    _, metrics = train(jax.random.key(0), mfc_pg(env, config, MFCPGHparams(0.1, max_grad_norm=0.5)), 2)
    np.testing.assert_allclose(metrics["episode/return"], [-0.25, -0.2025], atol=1e-6)


def test_plans_are_played_from_the_start_of_each_episode() -> None:
    env, config = make_mean_field("two_room", "exact"), MFCPGConfig(total_steps=10, num_steps=3)
    agent = mfc_pg_agent(env, config, MFCPGHparams())
    state = agent.init(jax.random.key(0), env.observation_space(None), env.action_space(None))
    state = state.replace(params=jnp.arange(12.0).reshape(3, 4))
    memory, obs = agent.memory(2), jnp.zeros((2, 2))
    for flags, rows in (
        ([True, True], [0, 0]),
        ([False, True], [1, 0]),
        ([False, False], [2, 1]),
        ([False, False], [2, 2]),
    ):
        action, memory, _ = agent.act(jax.random.key(0), state, memory, obs, jnp.array(flags), False)
        np.testing.assert_array_equal(action[:, 0], 4.0 * np.array(rows))


@pytest.mark.thorough
@pytest.mark.parametrize(("task", "optimum"), [("two_room", -0.04), ("anti_crowding", -0.5)])
def test_dec_pomfppo_comes_near_the_optimum(task: str, optimum: float) -> None:
    """Trained with 200 agents, judged in the limit of many; two seeds."""
    preset = find_preset("dec_pomfppo")
    sizes: dict[str, Any] = {"total_steps": 60_000, "num_envs": 40, "num_steps": 10, "hidden_sizes": (32,)}
    config, hp = dataclasses.replace(preset.config, **sizes), preset.hparams.replace(learning_rate=2e-3)
    env, limit = make_mean_field(task), make_mean_field(task, "exact")
    agent = preset.agent(env, config, hp, None)
    keys = jax.random.split(jax.random.key(0), 2)
    state, _ = jax.jit(
        lambda keys, hp: sweep(lambda hp: preset.make(env, config, hp, None), hp, keys, config.num_updates)
    )(keys, jax.tree.map(lambda leaf: jnp.full(1, leaf), hp))
    play = jax.jit(jax.vmap(lambda state: evaluate(jax.random.key(1), agent, state, limit, limit.default_params, 1)))
    returns = play(jax.tree.map(lambda leaf: leaf[0], state.agent)).returns[:, 0]
    assert (returns > optimum - 0.02).all()
    assert (returns <= optimum + 1e-5).all()


def test_the_reference_settings_are_the_published_table() -> None:
    preset = find_preset("m3fc_reference")
    config, hp = preset.config, preset.hparams
    assert (config.num_envs * config.num_steps, config.num_epochs) == (24_000, 8)
    assert config.num_envs * config.num_steps // config.num_minibatches == 4_000
    assert config.num_updates == 5_000
    assert (config.hidden_sizes, config.activation, config.shared_torso) == ((256, 256), "tanh", False)
    assert (config.initializer, config.state_std, config.anneal_learning_rate) == ("normc", True, False)
    numbers = (hp.gamma, hp.gae_lambda, hp.learning_rate, hp.clip_eps, hp.ent_coef, hp.kl_coef_init, hp.kl_target)
    assert numbers == (0.99, 1.0, 5e-5, 0.2, 0.0, 0.2, 0.03)
    assert (0.5 * hp.vf_coef, hp.value_error_max) == (1.0, 10.0)
    env = make_mean_field("lq", num_agents=300, parametrisation="m3fc_reference")
    assert env.features.num == 7
    assert env.rule.squash == "m3fc_reference"
    assert env.rule.num_params == 14


def test_the_references_network_starts_as_rllibs() -> None:
    """Columns of weights of length 1, of heads 0.01; the deviation is a head, and about 1 at first."""
    preset, env = find_preset("m3fc_reference"), make_mean_field("lq", num_agents=2)
    config = dataclasses.replace(preset.config, hidden_sizes=(16, 16))
    agent = preset.agent(env, config, preset.hparams, None)
    state = agent.init(jax.random.key(0), env.observation_space(None), env.action_space(None))
    layers = state.params["params"]
    for torso in ("torso", "critic_torso"):
        for layer in layers[torso].values():
            np.testing.assert_allclose(np.linalg.norm(layer["kernel"], axis=0), 1.0, rtol=1e-5)
    for head in ("head_policy", "head_log_std", "head_value"):
        np.testing.assert_allclose(np.linalg.norm(layers[head]["kernel"], axis=0), 0.01, rtol=1e-5)
    obs = jnp.stack([jnp.zeros(5), 3.0 * jnp.ones(5)])
    _, _, extras = agent.act(jax.random.key(0), state, (), obs, jnp.zeros(2, bool), True)
    log_std = extras["policy"].log_std
    assert log_std.shape == (2, 10)
    assert 1e-4 < float(jnp.abs(log_std[0] - log_std[1]).max()) < 0.1


def test_clip_and_adaptive_penalty_at_once() -> None:
    """RLlib's rule for the weight, and its bound on the value's error, whose gradient vanishes beyond."""
    for kl, expected in ((0.01, 0.1), (0.02, 0.2), (0.05, 0.2), (0.07, 0.3)):
        np.testing.assert_allclose(rllib_kl_coef(0.2, kl, 0.03), expected, rtol=1e-6)
    targets = AdvantageTargets(*(jnp.zeros(2) for _ in range(3)), returns=jnp.array([1.0, 100.0]), value=jnp.zeros(2))
    loss, slope = jax.value_and_grad(lambda v: value_loss(v, targets, None, 10.0))(jnp.zeros(2))
    np.testing.assert_allclose(loss, 0.25 * (1.0 + 10.0))
    np.testing.assert_allclose(slope, [-0.5, 0.0])
    hp = find_preset("m3fc_reference").hparams
    both, clipped, held = (
        make(hp, "none") for make in (ppo_clip_kl_objective, ppo_objective, ppo_adaptive_kl_objective)
    )
    old, new = DiagNormal(jnp.zeros((3, 1)), jnp.zeros((3, 1))), DiagNormal(jnp.full((3, 1), 0.3), jnp.zeros((3, 1)))
    action, advantage = jnp.array([[2.0], [0.5], [-1.0]]), jnp.array([1.0, -1.0, 2.0])
    data = AdvantageTargets(action, old.log_prob(action), advantage, jnp.ones(3), jnp.zeros(3), None, old)
    outputs = {"policy": new, "value": jnp.zeros(3)}
    losses = [objective.loss(objective.init(), outputs, data)[0] for objective in (both, clipped)]
    # KL between Gaussians of deviation 1 whose means are 0.3 apart: 0.045.
    np.testing.assert_allclose(losses[0] - losses[1], 0.2 * 0.045, rtol=1e-4)
    assert float(held.loss(held.init(), outputs, data)[0]) != pytest.approx(float(losses[0]))


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="mean_field_lq_full"):
        find_preset("mfc_ppo").make(make_mean_field("two_room"))
    with pytest.raises(ValueError, match="less than one update"):
        MFCPGConfig(total_steps=3)
    with pytest.raises(ValueError, match="one Gaussian"):
        PPOConfig(state_std=True, num_primitives=2)
    with pytest.raises(ValueError, match="orthogonal, normc"):
        PPOConfig(initializer="zeros")
    with pytest.raises(ValueError, match="open_loop, network"):
        MFCPGConfig(policy="table")
