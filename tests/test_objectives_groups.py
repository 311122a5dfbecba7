"""Objectives over whole episodes: which count, group and risk equations by hand, and what masks leave alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from helpers import TINY, assert_trees_close
from scipy import stats
from test_objectives import HP, flat

from jaxrl.objectives import OBJECTIVES, group_objective, risk_ppo_objective
from jaxrl.objectives.episodes import complete_episodes, episode_return, last_steps
from jaxrl.objectives.groups import (
    batch_normalized,
    beta_normalized,
    beta_shapes,
    bnpo_equation,
    from_groups,
    group_centred,
    group_normalized,
    leave_one_out,
    to_groups,
)
from jaxrl.objectives.risk import (
    Quantiles,
    begun_quantiles,
    followed_quantiles,
    moved_quantile,
    rvar_advantage,
    tail_advantage,
)
from jaxrl.ops.distributions import Categorical
from jaxrl.presets import PPOConfig, on_policy_agent
from jaxrl.types import Objective, Progress, Rollout
from jaxrl_envs.probes import Probe

EQUATIONS = {"grpo": group_normalized, "rloo": leave_one_out, "lite_ppo": batch_normalized, "bnpo": bnpo_equation(0.5)}


def experience(reward: Any, done: Any, first: Any = True, seed: int = 0) -> Rollout:
    """A rollout [T, B] of three actions; episodes end where `done`, and `first` says whether step 0 opens one."""
    reward, done = np.asarray(reward, np.float32), np.asarray(done, bool)
    rng = np.random.default_rng(seed)
    is_first = np.concatenate([np.broadcast_to(np.asarray(first, bool), (1, done.shape[1])), done[:-1]])
    logits = jnp.asarray(rng.normal(size=(*reward.shape, 3)), jnp.float32)
    outputs = {"policy": Categorical(logits), "value": jnp.asarray(rng.normal(size=reward.shape), jnp.float32)}
    action = jnp.asarray(rng.integers(3, size=reward.shape), jnp.int32)
    terminated = done & (rng.random(done.shape) < 0.5)
    flags = (jnp.asarray(terminated), jnp.asarray(done & ~terminated), jnp.asarray(is_first))
    return Rollout(None, action, jnp.asarray(reward), *flags, outputs, outputs, ())


def prepared(objective: Objective, rollout: Rollout, state: Any = None) -> tuple[Any, Any]:
    state = objective.init() if state is None else state
    return objective.prepare(state, rollout.extras, rollout.next_extras, rollout, Progress(0, 10))


def gradient(objective: Objective, rollout: Rollout) -> tuple[Any, dict[str, jax.Array]]:
    """By the outputs of the network, and metrics."""
    targets, state = prepared(objective, rollout)
    return jax.grad(lambda o: objective.loss(state, o, flat(targets)), has_aux=True)(flat(rollout.extras))


def counted(*scores: float) -> tuple[jax.Array, jax.Array]:
    return jnp.array([scores]), jnp.ones((1, len(scores)))


# --- Episodes ---


def test_complete_episodes_by_hand() -> None:
    """One that began before, one inside, one unfinished; then one from the first step, and one of a single step."""
    done = np.array([[0, 1, 0, 0, 1, 0], [0, 0, 0, 1, 1, 0]]).T
    reward = np.array([[9, 9, 1, 2, 3, 9], [1, 2, 3, 4, 5, 9]]).T
    rollout = experience(reward, done, first=[False, True])
    np.testing.assert_array_equal(complete_episodes(rollout).T, [[0, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 0]])
    returns = np.asarray(episode_return(rollout) * complete_episodes(rollout)).T
    np.testing.assert_array_equal(returns, [[0, 0, 6, 6, 6, 0], [10, 10, 10, 10, 5, 0]])
    ends = last_steps(rollout, complete_episodes(rollout)).T
    np.testing.assert_array_equal(ends, [[0, 0, 0, 0, 1, 0], [0, 0, 0, 1, 1, 0]])


@pytest.mark.parametrize("seed", range(4))
def test_complete_episodes_are_the_naive_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rollout = experience(rng.normal(size=(20, 5)), rng.random((20, 5)) < 0.2, rng.random(5) < 0.5)
    done = np.asarray(rollout.terminated | rollout.truncated)
    complete, returns = oracles.episodes(np.asarray(rollout.reward), np.asarray(rollout.is_first), done)
    np.testing.assert_array_equal(complete_episodes(rollout), complete)
    np.testing.assert_allclose(episode_return(rollout) * complete, returns, atol=1e-5)
    assert 0 < complete.sum() < complete.size


def test_groups_are_of_neighbours() -> None:
    x = jnp.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(to_groups(x, 2), [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]])
    for size in (1, 2, 4):
        np.testing.assert_array_equal(from_groups(to_groups(x, size), x.shape), x)


# --- Equations ---


def test_group_equations_by_hand() -> None:
    """R = 1, 2, 6: mean 3, population deviation sqrt(14/3)."""
    np.testing.assert_allclose(group_centred(*counted(1, 2, 6))[0], [-2, -1, 3], atol=1e-6)
    expected = np.array([-2, -1, 3]) / np.sqrt(14 / 3)
    np.testing.assert_allclose(group_normalized(*counted(1, 2, 6))[0], expected, atol=1e-5)
    np.testing.assert_allclose(leave_one_out(*counted(1, 2, 6))[0], [1 - 4, 2 - 3.5, 6 - 1.5], atol=1e-6)
    np.testing.assert_allclose(batch_normalized(*counted(1, 2, 6))[0], expected, atol=1e-5)


def test_batch_deviation_is_over_all_groups() -> None:
    score = jnp.array([[0.0, 2.0], [10.0, 20.0]])
    deviation = np.std([0, 2, 10, 20])
    found = batch_normalized(score, jnp.ones((2, 2)))
    np.testing.assert_allclose(found, np.array([[-1, 1], [-5, 5]]) / deviation, atol=1e-5)


def test_leave_one_out_is_the_centred_score_times_n_over_n_minus_one() -> None:
    score = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)
    count = jnp.ones((4, 6)).at[0, 3:].set(0.0)
    num = count.sum(-1, keepdims=True)
    np.testing.assert_allclose(leave_one_out(score, count) * (num - 1) / num, group_centred(score, count), atol=1e-5)
    others = (float((score[1].sum() - score[1, 2]) / 5), float(score[1, 2]))
    assert leave_one_out(score, count)[1, 2] == pytest.approx(others[1] - others[0], abs=1e-5)


@pytest.mark.parametrize("name", EQUATIONS)
@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_equal_single_and_missing_episodes_get_nothing(name: str, scale: float) -> None:
    score = jnp.array([[0.3, 0.3, 0.3], [0.7, 9.0, 9.0], [5.0, 6.0, 7.0], [0.1, 0.7, 0.2]]) * scale
    count = jnp.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    found = EQUATIONS[name](score, count)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(np.asarray(found * count)[:3], 0.0)
    assert jnp.abs(found[3]).max() > 0.0 or (name == "bnpo" and scale > 1)


@pytest.mark.parametrize("name", EQUATIONS)
def test_only_counted_elements_enter_the_statistics(name: str) -> None:
    score, count = jnp.array([[0.0, 1.0, 0.4, 5.0], [1.0, 0.9, 0.2, -7.0]]), jnp.ones((2, 4)).at[:, 3].set(0.0)
    found = EQUATIONS[name](score, count)[:, :3]
    np.testing.assert_allclose(found, EQUATIONS[name](score[:, :3], count[:, :3]), atol=1e-6)


def test_group_normalisation_ignores_shift_and_scale() -> None:
    score, count = counted(0.5, 2.0, -1.0, 3.0)
    np.testing.assert_allclose(group_normalized(7.0 + 50 * score, count), group_normalized(score, count), atol=1e-4)
    # Far from zero no digits are lost, and what is equal stays equal, though in float32 seven times x / 7 is not x.
    equal = counted(*[700_000.3] * 7)
    assert (equal[0].sum() / 7 != equal[0]).any()
    np.testing.assert_array_equal(group_normalized(*equal), 0.0)
    np.testing.assert_allclose(group_normalized(*counted(1e6, 1e6 + 1, 1e6 + 2))[0], [-1.2247, 0, 1.2247], atol=1e-3)


@pytest.mark.parametrize(("equation", "factor"), [(leave_one_out, 1.0), (group_centred, 2 / 3)])
def test_expected_gradient_by_enumeration(equation: Any, factor: float) -> None:
    """All 27 groups of three pulls: leaving one out is unbiased, the group's own mean short by (n-1)/n."""
    policy, reward = np.array([0.5, 0.3, 0.2]), np.array([1.0, 2.0, 0.0])
    pulls = np.stack(np.meshgrid(*[range(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    advantage = np.asarray(equation(jnp.asarray(reward[pulls], jnp.float32), jnp.ones(pulls.shape)))
    score = np.eye(3)[pulls] - policy
    expected = np.einsum("g,gi,gia->a", policy[pulls].prod(-1), advantage, score) / 3
    np.testing.assert_allclose(expected, factor * policy * (reward - policy @ reward), atol=1e-6)


# --- BNPO ---


def test_beta_normalisation_reduces_to_reinforce_and_grpo() -> None:
    success, rate = (
        jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]),
        jnp.array([[0.25], [0.8], [1.0], [0.0]]),
    )
    mixed = np.array([[1], [1], [0], [0]])
    np.testing.assert_allclose(beta_normalized(success, rate, 1.0, 1.0), mixed * (success - rate), atol=1e-6)
    p = np.asarray(rate)
    deviation = np.where(mixed, np.sqrt(p * (1 - p)), 1.0)
    expected = mixed * np.pi / 8 * (np.asarray(success) - p) / deviation
    np.testing.assert_allclose(beta_normalized(success, rate, 1.5, 1.5), expected, atol=1e-6)


def test_beta_normalisation_divides_by_the_density() -> None:
    rate = jnp.linspace(0.05, 0.95, 10)[:, None]
    for alpha, beta in ((1.0, 1.0), (1.7, 2.0), (4.0, 1.2), (30.0, 50.0)):
        weight = np.minimum(1 / stats.beta.pdf(np.asarray(rate, np.float64), alpha, beta), 1e6)
        found = beta_normalized(jnp.ones((10, 1)), rate, alpha, beta)
        np.testing.assert_allclose(found, (1 - np.asarray(rate)) * weight, rtol=1e-3)
    assert np.isfinite(beta_normalized(jnp.ones((10, 1)), rate, 4e4, 4e4)).all()


@pytest.mark.parametrize(
    ("rates", "shapes"),
    [
        ([0.25, 0.75], (1.5, 1.5)),  # p = .5, v = .0625: u = 3, a = b = 1.5
        ([0.2, 0.6], (1 + 2 / 3, 2.0)),  # p = .4, v = .04: u = 5, a = 2, b = 3
        ([0.0, 1.0], (1.0, 1.0)),
        ([0.3, 0.3], (1.0, 1.0)),
    ],
)
def test_beta_shapes_by_hand(rates: list[float], shapes: tuple[float, float]) -> None:
    np.testing.assert_allclose(beta_shapes(jnp.array(rates), jnp.ones(2)), shapes, rtol=1e-5)
    np.testing.assert_allclose(beta_shapes(jnp.array([*rates, 0.9]), jnp.array([1.0, 1.0, 0.0])), shapes, rtol=1e-5)


def test_bnpo_counts_success_above_the_threshold() -> None:
    score, count = counted(10.0, 30.0, 20.0, 20.1)
    np.testing.assert_allclose(bnpo_equation(20.0)(score, count)[0], [-0.5, 0.5, -0.5, 0.5], atol=1e-6)


def test_bnpo_refuses_scaled_rewards() -> None:
    with pytest.raises(ValueError, match="set normalize_reward to False"):
        OBJECTIVES["bnpo"](PPOConfig(objective="bnpo", group_size=2, normalize_reward=True), HP)


# --- The objective around them ---


def test_every_step_has_its_episodes_advantage_and_episodes_count_once() -> None:
    """Returns 0 of three steps and 4 of one: the mean is 2, not 1, and the unfinished steps weigh nothing."""
    rollout = experience([[0], [0], [0], [4], [9]], [[0], [0], [1], [1], [0]])
    targets, zero_fraction = prepared(group_objective(HP, group_centred), rollout)
    np.testing.assert_array_equal(targets.advantage[:, 0], [-2, -2, -2, 2, 0])
    np.testing.assert_array_equal(targets.weight[:, 0], [1, 1, 1, 1, 0])
    assert zero_fraction == 0.0


def test_groups_have_baselines_of_their_own() -> None:
    reward, done = np.array([[1.0, 3.0, 10.0, 20.0, 5.0, 5.0]]), np.ones((1, 6))
    targets, zero_fraction = prepared(group_objective(HP, group_centred, 2), experience(reward, done))
    np.testing.assert_allclose(targets.advantage[0], [-1, 1, -5, 5, 0, 0])
    assert zero_fraction == pytest.approx(1 / 3)
    targets, zero_fraction = prepared(group_objective(HP, group_centred, 0), experience(reward, done))
    np.testing.assert_allclose(targets.advantage[0], reward[0] - reward.mean(), atol=1e-5)
    assert zero_fraction == 0.0


@pytest.mark.parametrize("name", [*EQUATIONS, "risk_ppo"])
def test_incomplete_episodes_change_no_gradient(name: str) -> None:
    """Another environment in which nothing ends, or steps after the last end: the policy learns the same."""
    rng = np.random.default_rng(1)
    objective = OBJECTIVES[name](PPOConfig(), HP.replace(success_return=0.2))
    done = rng.random((12, 3)) < 0.3
    done[-1] = True
    whole = experience(rng.normal(size=(12, 3)), done)
    more = jax.tree.map(lambda x: jnp.concatenate([x, x[:, :1]], 1), whole._replace(obs=None))
    never = jnp.zeros(12, bool)
    more = more._replace(terminated=more.terminated.at[:, 3].set(never), truncated=more.truncated.at[:, 3].set(never))
    more = more._replace(reward=more.reward.at[:, 3].set(1e3))
    (alone, _), (together, metrics) = gradient(objective, whole), gradient(objective, more)
    logits = together["policy"].logits.reshape(12, 4, 3)
    assert jnp.abs(alone["policy"].logits).max() > 1e-3
    np.testing.assert_allclose(logits[:, :3], alone["policy"].logits.reshape(12, 3, 3), atol=1e-6)
    np.testing.assert_array_equal(logits[:, 3], 0.0)
    assert metrics["policy/used_fraction"] == 0.75
    # The critic learns from every step.
    assert (together["value"].reshape(12, 4)[:, 3] != 0.0).all()


@pytest.mark.parametrize("name", [*EQUATIONS, "risk_ppo"])
def test_a_rollout_without_a_whole_episode_teaches_the_policy_nothing(name: str) -> None:
    objective = OBJECTIVES[name](PPOConfig(), HP)
    grads, metrics = gradient(objective, experience(np.ones((5, 2)), np.zeros((5, 2)), first=False))
    np.testing.assert_array_equal(grads["policy"].logits, 0.0)
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["policy/used_fraction"] == 0.0
    assert metrics["policy/entropy"] > 0.1
    assert metrics.get("group/zero_fraction", 1.0) == 1.0


@pytest.mark.parametrize("name", ["grpo", "risk_ppo"])
def test_the_critic_leaves_the_actor_alone(probe: Probe, name: str) -> None:
    """Separate torsos, no bound on the gradient's norm: `vf_coef` changes values and no action probability."""
    config = PPOConfig(**{**TINY, "num_envs": 3, "num_steps": 12, "num_minibatches": 2}, objective=name)
    rng = np.random.default_rng(2)
    experienced = experience(rng.normal(size=(12, 3)), rng.random((12, 3)) < 0.3)
    obs = jnp.asarray(rng.normal(size=(12, 3, 1)), jnp.float32)

    def updated(vf_coef: Any) -> tuple[Any, Any]:
        agent = on_policy_agent(probe, config, HP.replace(vf_coef=vf_coef, max_grad_norm=1e9, learning_rate=1e-2))
        state = agent.init(jax.random.key(0), probe.observation_space(None), probe.action_space(None))
        action, _, extras = jax.vmap(lambda o: agent.act(jax.random.key(2), state, (), o, jnp.zeros(3, bool), True))(
            obs
        )
        rollout = experienced._replace(obs=obs, action=action, extras=extras, next_extras=extras)
        state, _ = agent.update(jax.random.key(3), state, rollout, Progress(0, 10))
        outputs = agent.act(jax.random.key(2), state, (), obs[0], jnp.zeros(3, bool), False)[2]
        return extras["policy"].logits[0], outputs

    update = jax.jit(updated)
    (before, without), (_, outputs) = update(0.0), update(0.5)
    assert jnp.abs(outputs["policy"].logits - before).max() > 1e-4
    np.testing.assert_array_equal(outputs["policy"].logits, without["policy"].logits)
    assert jnp.abs(outputs["value"] - without["value"]).max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_envs": 8, "group_size": 3}, r"num_envs = 8 is not divisible by group_size = 3; use 0 .*, or [24]"),
        ({"group_size": -1}, "group_size = -1: expected an integer >= 0"),
    ],
)
def test_group_sizes_are_checked(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PPOConfig(objective="grpo", **settings)


# --- Risk ---

LEVELS = (0.2, 0.8)


def spread_returns(deviation: float, num: int = 40_001) -> tuple[np.ndarray, np.ndarray]:
    """Returns at the quantiles of N(1, deviation), each as likely, and the score d log p / d deviation."""
    z = stats.norm.ppf((np.arange(num) + 0.5) / num)
    return 1.0 + deviation * z, (z**2 - 1.0) / deviation


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.8), (0.0, 0.5), (0.1, 0.4)])
def test_risk_advantages_are_the_gradients_of_their_measures(low: float, high: float) -> None:
    """E[A score] against finite differences of the mean of the quantiles between the levels, and below the lower."""

    def measures(deviation: float) -> tuple[float, float]:
        returns, _ = spread_returns(deviation)
        a, b = round(low * len(returns)), round(high * len(returns))
        return returns[a:b].mean(), returns[:a].mean() if a else 0.0

    returns, score = spread_returns(2.0)
    q_low, q_high = np.quantile(returns, [low, high])
    rvar = rvar_advantage(jnp.asarray(returns), q_low, q_high, low, high)
    tail = tail_advantage(jnp.asarray(returns), q_low, low)
    assert rvar.max() <= 0.0
    found = [float(np.mean(np.asarray(advantage, np.float64) * score)) for advantage in (rvar, tail)]
    expected = [(up - down) / 2e-3 for up, down in zip(measures(2.001), measures(1.999), strict=True)]
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_all_quantiles_are_reinforce() -> None:
    """Levels 0 and 1: the return itself but for a constant; and the whole objective that of one group."""
    returns = jnp.array([1.0, 4.0, -2.0])
    np.testing.assert_allclose(rvar_advantage(returns, -2.0, 4.0, 0.0, 1.0), returns - 4.0)
    np.testing.assert_array_equal(tail_advantage(returns, -1.0, 0.0), 0.0)
    rng = np.random.default_rng(0)
    rollout = experience(rng.normal(size=(12, 3)), rng.random((12, 3)) < 0.4)
    risk, _ = prepared(risk_ppo_objective(HP.replace(risk_low=0.0, risk_high=1.0)), rollout)
    mean, _ = prepared(group_objective(HP, group_normalized), rollout)
    np.testing.assert_allclose(risk.advantage, mean.advantage, atol=1e-5)


def test_quantiles_follow_by_hand() -> None:
    """q = 1, returns 0, 2, 3, level .5, rate .1: a third lies below, so q rises by .1 (.5 - 1/3)."""
    returns, count = jnp.array([0.0, 2.0, 3.0, 99.0]), jnp.array([1.0, 1.0, 1.0, 0.0])
    assert moved_quantile(1.0, returns, count, 0.5, 0.1) == pytest.approx(1.0 + 0.1 / 6)
    assert moved_quantile(1.0, returns, jnp.zeros(4), 0.5, 0.1) == 1.0
    state = Quantiles(jnp.float32(1.0), jnp.float32(2.5), jnp.bool_(True))
    after = followed_quantiles(state, returns, count, LEVELS, 0.1)
    deviation = np.std([0, 2, 3])
    assert after.low == pytest.approx(1.0 + 0.1 * deviation * (0.2 - 1 / 3))
    assert after.high == pytest.approx(2.5 + 0.1 * deviation * (0.8 - 2 / 3))


def test_quantiles_come_to_rest_at_the_levels() -> None:
    returns, count = jnp.linspace(-5.0, 5.0, 1001), jnp.ones(1001)
    state = Quantiles(jnp.float32(3.0), jnp.float32(3.0), jnp.bool_(True))
    state = jax.lax.fori_loop(0, 400, lambda _, s: followed_quantiles(s, returns, count, LEVELS, 0.1), state)
    np.testing.assert_allclose([state.low, state.high], [-3.0, 3.0], atol=0.05)


def test_quantiles_begin_at_the_first_batch_with_an_episode() -> None:
    start = risk_ppo_objective(HP).init()
    returns = jnp.array([0.0, 1.0, 2.0, 3.0, 4.0, 99.0])
    count = jnp.ones(6).at[5].set(0.0)
    none = begun_quantiles(start, returns, jnp.zeros(6), LEVELS)
    assert (float(none.low), float(none.high), bool(none.started)) == (0.0, 0.0, False)
    begun = begun_quantiles(none, returns, count, LEVELS)
    np.testing.assert_allclose([begun.low, begun.high], [0.8, 3.2], atol=1e-6)
    assert begun.started
    again = begun_quantiles(begun, returns + 50.0, count, LEVELS)
    assert (again.low, again.high) == (begun.low, begun.high)


def test_risk_prefers_the_sure_arm_and_the_mean_the_better_one() -> None:
    """Arm 0 pays .4; arm 1 pays 0 or 1, .5 in the mean. Below the median, the sure arm is worth more."""
    reward = np.array([[0.4], [0.4], [0.0], [1.0]] * 5)
    rollout = experience(reward, np.ones((20, 1)))._replace(action=jnp.array([[0], [0], [1], [1]] * 5, jnp.int32))
    averse, _ = prepared(risk_ppo_objective(HP.replace(risk_low=0.0, risk_high=0.5)), rollout)
    neutral, _ = prepared(group_objective(HP, group_normalized), rollout)
    sure, risky = (np.asarray(rollout.action) == arm for arm in (0, 1))
    assert averse.advantage[sure].mean() > 0.3 > -0.3 > averse.advantage[risky].mean()
    assert neutral.advantage[sure].mean() < 0.0 < neutral.advantage[risky].mean()


def test_state_goes_from_rollout_to_rollout() -> None:
    """The tracker is the state that the next rollout meets; shapes and types stay."""
    objective = risk_ppo_objective(HP)
    rng = np.random.default_rng(0)
    rollout = experience(rng.normal(size=(12, 3)), rng.random((12, 3)) < 0.4)
    _, first = prepared(objective, rollout)
    _, second = prepared(objective, rollout, first)
    assert bool(first.started)
    assert (float(first.low), float(first.high)) != (float(second.low), float(second.high))
    described = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (objective.init(), first, second)]
    assert described[0] == described[1] == described[2]
    assert_trees_close(objective.finish(second, {}, ()), second)
