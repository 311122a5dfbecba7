"""Objectives: numbers worked out by hand, and identities between them, down to the agent's first update."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from helpers import TINY, assert_trees_close

from jaxrl.agents.actor_critic import actor_critic
from jaxrl.objectives import OBJECTIVES, a2c_objective, ppo_objective
from jaxrl.objectives.common import AdvantageTargets, value_loss
from jaxrl.objectives.ppo import clipped_surrogate
from jaxrl.ops.distributions import Categorical, DiagNormal
from jaxrl.ops.statistics import standardize
from jaxrl.presets import PPOConfig, PPOHparams, on_policy_agent
from jaxrl.spaces import Discrete
from jaxrl.types import Progress, Rollout
from jaxrl_envs.probes import Probe

HP = PPOHparams(gamma=0.9, gae_lambda=0.8, clip_eps=0.2, vf_coef=0.7, ent_coef=0.03)
T, B = 6, 3


def random_rollout(discrete: bool = True, seed: int = 0) -> tuple[dict[str, Any], dict[str, Any], Rollout]:
    """A rollout and the outputs that a network gave on the way and at the successors."""
    rng = np.random.default_rng(seed)

    def outputs() -> dict[str, Any]:
        a, b = (jnp.asarray(rng.normal(size=(T, B, 3)), jnp.float32) for _ in range(2))
        return {
            "policy": Categorical(a) if discrete else DiagNormal(a, 0.3 * b),
            "value": jnp.asarray(rng.normal(size=(T, B)), jnp.float32),
        }

    now, after = outputs(), outputs()
    terminated, truncated = (jnp.asarray(rng.random((T, B)) < 0.2) for _ in range(2))
    is_first = jnp.concatenate([jnp.ones((1, B), bool), (terminated | truncated)[:-1]])
    reward = jnp.asarray(rng.normal(size=(T, B)), jnp.float32)
    action = now["policy"].sample(jax.random.key(seed))
    rollout = Rollout(jnp.zeros((T, B, 1)), action, reward, terminated, truncated, is_first, now, after, ())
    return now, after, rollout


def flat(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"), [(1.5, 1.0, -1.2), (1.5, -1.0, 1.5), (0.5, 1.0, -0.5), (0.5, -1.0, 0.8)]
)
def test_clipped_surrogate_by_hand(ratio: float, advantage: float, loss: float) -> None:
    assert -clipped_surrogate(jnp.float32(ratio), jnp.float32(advantage), (0.8, 1.2)) == pytest.approx(loss, abs=1e-6)


def test_clipped_surrogate_has_no_gradient_where_it_holds_back() -> None:
    slope = jax.grad(lambda ratio, advantage: clipped_surrogate(ratio, advantage, (0.8, 1.2)))
    assert slope(1.5, 1.0) == 0.0  # already likelier: no further
    assert slope(1.5, -1.0) == -1.0
    assert slope(0.5, 1.0) == 1.0
    assert slope(0.5, -1.0) == 0.0


def test_value_loss_by_hand() -> None:
    targets = AdvantageTargets(*[jnp.zeros(1)] * 3, returns=jnp.array([3.0]), value=jnp.array([1.0]))
    assert value_loss(jnp.array([2.0]), targets, 0.2) == pytest.approx(1.62, abs=1e-6)
    assert value_loss(jnp.array([2.0]), targets) == pytest.approx(0.5, abs=1e-6)
    # The larger error counts, per element before the mean.
    two = AdvantageTargets(*[jnp.zeros(2)] * 3, returns=jnp.array([3.0, 0.0]), value=jnp.array([1.0, 1.0]))
    assert value_loss(jnp.array([2.0, 2.0]), two, 0.2) == pytest.approx(0.5 * (3.24 + 4.0) / 2, abs=1e-6)


@pytest.mark.parametrize("objective", [ppo_objective, a2c_objective])
def test_first_gradient_by_hand(objective: Any) -> None:
    """Logits [.1, -.2, .3], action 1, advantage 2: the same gradient from A2C and from PPO at the old policy."""
    logits, action = jnp.array([[0.1, -0.2, 0.3]]), jnp.array([1])
    old = Categorical(logits).log_prob(action)
    targets = AdvantageTargets(action, old, jnp.array([2.0]), jnp.zeros(1), jnp.zeros(1))
    learner = objective(HP.replace(ent_coef=0.0), "none")

    def loss(logits: jax.Array) -> jax.Array:
        return learner.loss((), {"policy": Categorical(logits), "value": jnp.zeros(1)}, targets)[0]

    np.testing.assert_allclose(jax.grad(loss)(logits)[0], [0.675169, -1.499823, 0.824653], atol=2e-6)


@pytest.mark.parametrize("normalize", ["none", "batch", "minibatch"])
@pytest.mark.parametrize("discrete", [True, False])
def test_first_ppo_gradient_is_a2cs(discrete: bool, normalize: str) -> None:
    now, after, rollout = random_rollout(discrete)
    gradients = []
    for objective in (ppo_objective, a2c_objective):
        learner = objective(HP, normalize)
        targets, state = learner.prepare(learner.init(), now, after, rollout, Progress(0, 10))

        def loss(outputs: Any, learner: Any = learner, targets: Any = targets, state: Any = state) -> jax.Array:
            return learner.loss(state, outputs, flat(targets))[0]

        gradients.append(jax.jit(jax.grad(loss))(flat(now)))
    assert_trees_close(gradients[0], gradients[1], atol=1e-7)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradients[0])) > 1e-2


def test_targets_are_gae_and_lambda_returns() -> None:
    now, after, rollout = random_rollout()
    targets, _ = ppo_objective(HP, "none").prepare((), now, after, rollout, Progress(0, 10))
    arrays = (rollout.reward, rollout.terminated, rollout.truncated, now["value"], after["value"])
    advantage = oracles.gae(*map(np.asarray, arrays), 0.9, 0.8)
    np.testing.assert_allclose(targets.advantage, advantage, atol=1e-5)
    np.testing.assert_allclose(targets.returns, advantage + np.asarray(now["value"]), atol=1e-5)
    np.testing.assert_array_equal(targets.value, now["value"])
    np.testing.assert_array_equal(targets.log_prob, now["policy"].log_prob(rollout.action))


@pytest.mark.parametrize("objective", [ppo_objective, a2c_objective])
def test_normalisation_of_advantages(objective: Any) -> None:
    """Over the batch once, in `prepare`; over a minibatch in `loss`; returns in the reward's units either way."""
    now, after, rollout = random_rollout()
    raw, _ = objective(HP, "none").prepare((), now, after, rollout, Progress(0, 10))
    batch, _ = objective(HP, "batch").prepare((), now, after, rollout, Progress(0, 10))
    minibatch, _ = objective(HP, "minibatch").prepare((), now, after, rollout, Progress(0, 10))
    np.testing.assert_allclose(batch.advantage, oracles.standardize(np.asarray(raw.advantage)), atol=1e-5)
    np.testing.assert_array_equal(minibatch.advantage, raw.advantage)
    np.testing.assert_array_equal(batch.returns, raw.returns)
    half = jax.tree.map(lambda leaf: leaf[:9], (flat(now), flat(raw)))
    by_hand = half[1]._replace(advantage=jnp.asarray(oracles.standardize(np.asarray(half[1].advantage)), jnp.float32))
    loss = objective(HP, "minibatch").loss((), *half)[0]
    assert loss == pytest.approx(float(objective(HP, "none").loss((), half[0], by_hand)[0]), abs=1e-5)
    assert abs(float(loss - objective(HP, "none").loss((), *half)[0])) > 1e-3


def test_equal_advantages_stay_finite() -> None:
    assert np.asarray(standardize(jnp.full(8, 3.0))).tolist() == [0.0] * 8


def test_standardising_counts_elements_by_weight() -> None:
    x, weight = jnp.array([1.0, 3.0, 100.0, 5.0]), jnp.array([1.0, 0.5, 0.0, 0.5])
    repeated = oracles.standardize(np.array([1.0, 1.0, 3.0, 5.0]))
    np.testing.assert_allclose(standardize(x, weight)[jnp.array([0, 0, 1, 3])], repeated, atol=1e-6)
    np.testing.assert_array_equal(standardize(x, jnp.zeros(4)) * 0.0, np.zeros(4))  # finite


def test_loss_and_metrics_by_hand() -> None:
    """One sample, log ratio 0.2: surrogate, k3 estimate of the KL, clip fraction, and how the parts add up."""
    logits, action = jnp.array([[0.1, -0.2, 0.3]]), jnp.array([1])
    now = Categorical(logits)
    targets = AdvantageTargets(action, now.log_prob(action) - 0.2, jnp.array([2.0]), jnp.array([3.0]), jnp.array([1.0]))
    total, metrics = ppo_objective(HP, "none", clip_value=True).loss(
        (), {"policy": now, "value": jnp.array([2.0])}, targets
    )
    entropy = float(now.entropy()[0])
    assert metrics["loss/policy"] == pytest.approx(-2.4, abs=1e-5)  # exp(0.2) = 1.2214 is held at 1.2
    assert metrics["loss/value"] == pytest.approx(1.62, abs=1e-5)
    assert metrics["policy/entropy"] == pytest.approx(entropy, abs=1e-6)
    assert metrics["policy/approx_kl"] == pytest.approx(0.0214028, abs=1e-6)
    assert metrics["policy/clip_fraction"] == metrics["policy/clip_fraction_up"] == 1.0
    assert metrics["policy/clip_fraction_down"] == 0.0
    assert total == pytest.approx(-2.4 + 0.7 * 1.62 - 0.03 * entropy, abs=1e-5)


def test_value_clipping_is_off_unless_asked_for() -> None:
    config = PPOConfig(**TINY)
    targets = AdvantageTargets(jnp.array([0]), jnp.zeros(1), jnp.ones(1), jnp.array([3.0]), jnp.array([1.0]))
    outputs = {"policy": Categorical(jnp.zeros((1, 2))), "value": jnp.array([2.0])}
    for clip_value, expected in ((False, 0.5), (True, 1.62)):
        objective = OBJECTIVES["ppo"](dataclasses.replace(config, clip_value=clip_value), HP)
        assert objective.loss((), outputs, targets)[1]["loss/value"] == pytest.approx(expected, abs=1e-6)


def first_update(objective: str, probe: Probe, state: Any = None, **settings: Any) -> tuple[Any, Any, Any]:
    """The agent's state before and after its first update on a random rollout, and the metrics."""
    config = PPOConfig(**{**TINY, "num_envs": B, "num_steps": T, "num_minibatches": 1, **settings}, objective=objective)
    agent = on_policy_agent(probe, config, HP)
    obs = jax.random.normal(jax.random.key(1), (T, B, 1))
    spaces = (probe.observation_space(None), probe.action_space(None))
    before = agent.init(jax.random.key(0), *spaces)

    def update(state: Any) -> tuple[Any, Any]:
        action, _, extras = jax.vmap(lambda o: agent.act(jax.random.key(2), state, (), o, jnp.zeros(B, bool), True))(
            obs
        )
        _, _, rollout = random_rollout()
        rollout = rollout._replace(obs=obs, action=action, extras=extras, next_extras=extras)
        return agent.update(jax.random.key(3), state, rollout, Progress(0, 10))

    return before, *jax.jit(update)(before)


def test_first_update_of_the_ppo_agent_is_the_a2c_agents(probe: Probe) -> None:
    before, after_ppo, metrics = first_update("ppo", probe, num_epochs=1)
    _, after_a2c, _ = first_update("a2c", probe, num_epochs=1)
    assert_trees_close(after_ppo.params, after_a2c.params, atol=1e-7)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), before.params, after_ppo.params)
    assert max(jax.tree.leaves(moved)) > 1e-5
    # The ratio is 1 before the first step, so that the clip is never seen by it.
    assert abs(float(metrics["policy/approx_kl"])) < 1e-6
    assert metrics["policy/clip_fraction"] == 0.0


def test_later_epochs_move_away_from_the_old_policy(probe: Probe) -> None:
    _, _, metrics = first_update("ppo", probe, num_epochs=4)
    assert metrics["policy/approx_kl"] > 1e-8


def test_observations_that_are_no_numbers_are_not_normalised() -> None:
    config = PPOConfig(**TINY, normalize_obs=True)
    with pytest.raises(ValueError, match="normalize_obs = True needs observations in a Box"):
        actor_critic(ppo_objective(HP), Discrete(3), Discrete(2), config, HP)
