"""The host that objectives are assembled from, and what every registered objective must satisfy."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close
from test_objectives import HP, flat, random_rollout

from jaxrl.algorithm import train
from jaxrl.objectives import OBJECTIVES, Slots, assemble
from jaxrl.objectives.common import AdvantageTargets, Collected, gae_advantage
from jaxrl.objectives.host import approximate_kl, importance_ratio
from jaxrl.ops.distributions import Categorical
from jaxrl.ops.statistics import weighted_mean
from jaxrl.presets import PPOConfig, PPOHparams, on_policy_agent, ppo
from jaxrl.spaces import Box, Discrete
from jaxrl.types import Progress, Rollout, Timestep

CLIPPED = {"ppo", "clip_higher", "ppo_clip_kl", "spo", "bapo", "empg", "grpo", "rloo", "lite_ppo", "bnpo", "risk_ppo"}
OF_EPISODES = {"grpo", "rloo", "lite_ppo", "bnpo", "risk_ppo"}


def learn_once(name: str, hp: PPOHparams, rollout: Rollout, later: dict[str, Any]) -> dict[str, Any]:
    """All parts of an objective in the order of an update: gradients at outputs `later` than those that collected."""
    objective = OBJECTIVES[name](PPOConfig(), hp)
    targets, state = objective.prepare(
        objective.init(), rollout.extras, rollout.next_extras, rollout, Progress(jnp.int32(2), 10)
    )

    def loss(outputs: dict[str, Any]) -> tuple[jax.Array, Any]:
        return objective.loss(state, outputs, flat(targets))

    (total, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(flat(later))
    return {
        "loss": total,
        "metrics": metrics,
        "gradient": gradient,
        "advantage": targets.advantage,
        "state": objective.finish(state, flat(later), flat(targets)),
    }


def settings() -> PPOHparams:
    """Every number of the defaults, and nine tenths of it; leaves [2]."""
    return jax.tree.map(lambda x: jnp.array([x, 0.9 * x], jnp.float32), PPOHparams())


@pytest.mark.quick("ppo", "ppo_adaptive_kl", "risk_ppo")
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_is_a_pure_function_of_its_numbers(name: str) -> None:
    """jit = no jit; `vmap` over all hyperparameters = one by one; a reward of a million keeps everything finite."""
    _, _, rollout = random_rollout(seed=3)
    later = random_rollout(seed=4)[0]
    hps = settings()
    one = jax.jit(lambda hp, rollout: learn_once(name, hp, rollout, later))
    both = jax.jit(jax.vmap(lambda hp: learn_once(name, hp, rollout, later)))(hps)
    for i in range(2):
        hp = jax.tree.map(lambda x: x[i], hps)  # noqa: B023
        assert_trees_close(jax.tree.map(lambda x: x[i], both), one(hp, rollout), atol=1e-5)  # noqa: B023
    with jax.disable_jit():
        plain = learn_once(name, jax.tree.map(lambda x: x[0], hps), rollout, later)
    assert_trees_close(plain, jax.tree.map(lambda x: x[0], both), atol=1e-5)
    assert jnp.abs(plain["gradient"]["policy"].logits).max() > 1e-4
    difference = jax.tree.map(lambda x: jnp.abs(x[0] - x[1]).max(), both["gradient"])
    assert max(jax.tree.leaves(difference)) > 1e-6

    huge = rollout._replace(reward=rollout.reward.at[2].set(1e6))
    for leaf in jax.tree.leaves(one(jax.tree.map(lambda x: x[0], hps), huge)):
        assert np.isfinite(leaf).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_logs_and_survives_far_policies(name: str) -> None:
    """Continuous actions; log-ratios of hundreds, either way, give finite gradients."""
    _, _, rollout = random_rollout(discrete=False, seed=5)
    far = random_rollout(discrete=False, seed=6)[0]
    far = {**far, "policy": far["policy"].replace(log_std=far["policy"].log_std - 3.0)}
    log_ratio = far["policy"].log_prob(rollout.action) - rollout.extras["policy"].log_prob(rollout.action)
    assert log_ratio.min() < -200.0
    wide = {**far, "policy": far["policy"].replace(log_std=far["policy"].log_std + 6.0)}
    swapped = rollout._replace(extras={**rollout.extras, "policy": far["policy"]})
    for experience, later in ((rollout, far), (swapped, wide)):
        found = learn_once(name, HP, experience, later)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
        metrics = found["metrics"]
        assert {value.shape for value in metrics.values()} == {()}
        assert {"loss/policy", "loss/value", "policy/entropy", "policy/approx_kl"} <= set(metrics)
        up, down = (metrics.get(f"policy/clip_fraction_{side}") for side in ("up", "down"))
        assert (up is not None and down is not None) == (name in CLIPPED)
        if up is not None:
            assert metrics["policy/clip_fraction"] == pytest.approx(float(up + down))
        assert ("policy/used_fraction" in metrics) == (name in OF_EPISODES)
        assert ("group/zero_fraction" in metrics) == (name in OF_EPISODES - {"risk_ppo"})
        assert ("policy/positive_share" in metrics) == (name == "bapo")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_states_keep_their_shapes_and_types(name: str) -> None:
    """A state is the carry of a scan."""
    _, _, rollout = random_rollout()
    state = OBJECTIVES[name](PPOConfig(), HP).init()
    after = learn_once(name, HP, rollout, rollout.extras)["state"]
    described = [jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), s) for s in (state, after)]
    assert described[0] == described[1]


# --- The host itself ---


def test_weighted_mean_by_hand() -> None:
    x, weight = jnp.array([1.0, 4.0, 100.0]), jnp.array([1.0, 0.5, 0.0])
    assert weighted_mean(x) == 35.0
    assert weighted_mean(x, weight) == pytest.approx(2.0)
    assert weighted_mean(x, jnp.zeros(3)) == 0.0


def test_ratio_and_its_kl_by_hand() -> None:
    log_ratio = jnp.array([0.2, 0.0, 500.0, -500.0])
    ratio, slope = jax.vmap(jax.value_and_grad(importance_ratio), (0, None))(log_ratio, 0.0)
    np.testing.assert_allclose(ratio, np.exp([0.2, 0.0, 20.0, -20.0]), rtol=1e-5)
    np.testing.assert_allclose(slope, [np.exp(0.2), 1.0, 0.0, 0.0], rtol=1e-5)
    np.testing.assert_allclose(approximate_kl(log_ratio[:2], jnp.zeros(2)), [0.0214028, 0.0], atol=1e-6)


def test_every_slot_is_used() -> None:
    """Our own, in state 7, on two samples: -mean w (7 * 2 ratio A) + mean w 3 + .7 value loss - .03 mean w H."""

    def advantage(state: Any, seen: Collected) -> Any:
        reward = seen.rollout.reward
        return reward * seen.weight, reward + 1.0, state + seen.progress.update

    slots = Slots(
        advantage,
        ratio=lambda log_prob, old: 2.0 * jnp.exp(log_prob - old),
        clip=lambda state, ratio, advantage, weight: (state * ratio * advantage, {"policy/mine": ratio.max()}),
        regulariser=lambda state, policy, targets: (jnp.full(2, 3.0), {"policy/old": targets.policy.logits.max()}),
        mask=lambda rollout: jnp.array([[1.0], [0.5]]),
        init=lambda: jnp.int32(5),
        finish=lambda state, outputs, targets: state + 100,
        report=lambda state: {"policy/state": state},
    )
    objective = assemble(HP, slots)
    logits = jnp.log(jnp.array([[[0.5, 0.5]], [[0.9, 0.1]]]))
    outputs = {"policy": Categorical(logits), "value": jnp.zeros((2, 1))}
    action, reward = jnp.array([[0], [1]]), jnp.array([[1.0], [4.0]])
    rollout = Rollout(None, action, reward, None, None, None, outputs, outputs, ())  # type: ignore[arg-type]
    targets, state = objective.prepare(objective.init(), outputs, outputs, rollout, Progress(2, 10))
    assert (int(state), int(objective.finish(state, {}, targets))) == (7, 107)
    total, metrics = objective.loss(state, flat(outputs), flat(targets))
    weight = np.array([1.0, 0.5]) / 1.5
    entropy = np.array([np.log(2), -0.9 * np.log(0.9) - 0.1 * np.log(0.1)])
    expected = -7.0 * weight @ [2.0, 4.0] + 3.0 + 0.7 * 0.5 * np.mean([4.0, 25.0]) - 0.03 * weight @ entropy
    assert total == pytest.approx(expected, abs=1e-5)
    assert metrics["policy/entropy"] == pytest.approx(entropy.mean(), abs=1e-6)
    assert metrics["policy/used_fraction"] == 0.75
    assert (metrics["policy/mine"], metrics["policy/state"]) == (2.0, 7)
    assert metrics["policy/old"] == pytest.approx(np.log(0.9))


def test_weights_are_shares_of_a_sample() -> None:
    """Weight 0 is as if the sample were not there; equal weights are as if there were none."""
    now, after, rollout = random_rollout()
    later = flat(random_rollout(seed=1)[0])

    def gradient(mask: Any, size: int) -> Any:
        objective = assemble(HP, Slots(gae_advantage(HP), mask=mask), "minibatch")
        targets, state = objective.prepare((), now, after, rollout, Progress(0, 10))
        part = jax.tree.map(lambda x: x[:size], (later, flat(targets)))
        return jax.grad(lambda o: objective.loss(state, o, part[1])[0])(part[0])["policy"].logits

    half = gradient(lambda rollout: jnp.full(rollout.reward.shape, 0.5), 18)
    np.testing.assert_allclose(half, gradient(None, 18), atol=1e-6)
    first = gradient(lambda rollout: jnp.where(jnp.arange(6)[:, None] < 3, 1.0, 0.0) * jnp.ones((6, 3)), 18)
    np.testing.assert_allclose(first[:9], gradient(None, 9), atol=1e-6)
    np.testing.assert_array_equal(first[9:], 0.0)


def test_targets_hold_only_what_is_needed() -> None:
    """No mask, no old distribution: nothing more is shuffled than PPO needs."""
    now, after, rollout = random_rollout()
    for name in ("a2c", "ppo", "bapo", "vtrace"):
        targets, _ = OBJECTIVES[name](PPOConfig(), HP).prepare((), now, after, rollout, Progress(0, 10))
        assert isinstance(targets, AdvantageTargets)
        assert targets.weight is None
        assert targets.policy is None
    targets, _ = OBJECTIVES["mdpo"](PPOConfig(), HP).prepare((), now, after, rollout, Progress(0, 10))
    np.testing.assert_array_equal(targets.policy.logits, now["policy"].logits)


# --- Learning ---


class Bandit:
    """Three arms that pay 0, 1 and .5; one step."""

    default_params = 0.0

    def reset(self, key: jax.Array, params: Any) -> tuple[jax.Array, jax.Array]:
        return jnp.int32(0), jnp.zeros(1)

    def step(self, key: jax.Array, state: jax.Array, action: jax.Array, params: Any) -> tuple[jax.Array, Timestep]:
        reward = jnp.array([0.0, 1.0, 0.5])[action]
        return state, Timestep(jnp.zeros(1), reward, jnp.bool_(True), jnp.bool_(False), jnp.zeros(1), {})

    def observation_space(self, params: Any) -> Box:
        return Box(0.0, 1.0, (1,))

    def action_space(self, params: Any) -> Discrete:
        return Discrete(3)


BANDIT = PPOConfig(
    total_steps=64 * 30, num_envs=16, num_steps=4, num_epochs=2, num_minibatches=2, hidden_sizes=(8,), group_size=4
)


@pytest.mark.quick("ppo", "grpo", "vtrace")
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_learns_the_best_arm(name: str) -> None:
    """30 updates of the actual loop."""
    config = dataclasses.replace(
        BANDIT, objective=name, **({"num_epochs": 1, "num_minibatches": 1} if name == "a2c" else {})
    )
    hp = PPOHparams(learning_rate=3e-2, ent_coef=0.0, success_return=0.75)
    state, metrics = jax.jit(lambda key: train(key, ppo(Bandit(), config, hp), config.num_updates))(jax.random.key(0))
    agent, first = on_policy_agent(Bandit(), config, hp), jnp.zeros(1, bool)
    policy = agent.act(jax.random.key(1), state.agent, (), jnp.zeros((1, 1)), first, False)[2]["policy"]
    assert jax.nn.softmax(policy.logits)[0, 1] > 0.9
    assert metrics["episode/return"][0] < 0.8
