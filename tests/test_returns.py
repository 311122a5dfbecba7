"""Return estimators against numbers worked out by hand, and naive loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxrl.ops.returns import discounted_return_so_far, discounted_sum, gae, lambda_return, retrace, vtrace
from jaxrl.types import Rollout

NUM_STEPS, NUM_ENVS = 7, 3

REWARD = [1.0, 0.0, 2.0, -1.0, 0.5]
VALUE = [0.5, 0.4, 0.3, 0.2, 0.1]
NEXT_VALUE = [0.4, 0.7, 0.2, 9.0, 0.6]  # the 9 stands behind a termination and must not matter
TERMINATED = [False, False, False, True, False]
TRUNCATED = [False, True, False, False, False]


def columns(*values: Any) -> list[jax.Array]:
    """One environment: [T] -> [T, 1]."""
    return [jnp.array(value)[:, None] for value in values]


def flags() -> Any:
    return arrays(bool, (NUM_STEPS, NUM_ENVS))


def floats() -> Any:
    return arrays(np.float32, (NUM_STEPS, NUM_ENVS), elements=st.floats(-10, 10, width=32))


def unit() -> Any:
    return st.sampled_from([0.0, 0.5, 0.9, 1.0])


jitted_gae = jax.jit(gae)
jitted_lambda_return = jax.jit(lambda_return)


def test_gae_by_hand() -> None:
    advantage = gae(*columns(REWARD, TERMINATED, TRUNCATED, VALUE, NEXT_VALUE), 0.9, 0.8)[:, 0]
    np.testing.assert_allclose(advantage, [1.0256, 0.23, 1.016, -1.2, 0.94], atol=1e-6)
    np.testing.assert_allclose(advantage + jnp.array(VALUE), [1.5256, 0.63, 1.316, -1.0, 1.04], atol=1e-6)


def test_gae_does_not_take_truncation_for_termination() -> None:
    wrong = [0.572, -0.4, 1.016, -1.2, 0.94]  # the numbers of that bug, which several libraries have
    advantage = gae(*columns(REWARD, TERMINATED, TRUNCATED, VALUE, NEXT_VALUE), 0.9, 0.8)[:, 0]
    assert np.abs(np.asarray(advantage)[:2] - np.array(wrong)[:2]).min() > 0.4
    done = np.array(TERMINATED) | np.array(TRUNCATED)
    cut = gae(*columns(REWARD, done, np.zeros(5, bool), VALUE, [0.4, 0.3, 0.2, 0.1, 0.6]), 0.9, 0.8)[:, 0]
    np.testing.assert_allclose(cut, wrong, atol=1e-6)


def test_termination_wins_where_both_flags_are_set() -> None:
    both = gae(*columns([1.0, 5.0], [True, False], [True, False], [0.5, 0.0], [7.0, 0.0]), 0.9, 0.8)[:, 0]
    np.testing.assert_allclose(both, [0.5, 5.0], atol=1e-6)


@given(floats(), flags(), flags(), floats(), floats(), unit(), unit())
def test_gae_is_the_naive_loop(
    reward: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    value: np.ndarray,
    next_value: np.ndarray,
    gamma: float,
    lam: float,
) -> None:
    arguments = (reward, terminated, truncated, value, next_value, gamma, lam)
    np.testing.assert_allclose(jitted_gae(*arguments), oracles.gae(*arguments), atol=2e-4, rtol=1e-4)


@given(floats(), flags(), flags(), floats(), unit(), unit())
def test_lambda_return_is_the_naive_mixture(
    reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, next_value: np.ndarray, gamma: float, lam: float
) -> None:
    arguments = (reward, terminated, truncated, next_value, gamma, lam)
    np.testing.assert_allclose(
        jitted_lambda_return(*arguments), oracles.lambda_return(*arguments), atol=2e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("terminated_at", "truncated_at", "next_value", "expected"),
    [
        (None, None, [2.0, 3.0, 4.0], [3.889, 4.42, 4.6]),
        (None, 1, [2.0, 5.0, 4.0], [4.375, 5.5, 4.6]),
        (1, None, [2.0, 3.0, 4.0], [2.35, 1.0, 4.6]),
        (1, 1, [2.0, 5.0, 4.0], [2.35, 1.0, 4.6]),
    ],
)
def test_lambda_return_by_hand(
    terminated_at: int | None, truncated_at: int | None, next_value: list[float], expected: list[float]
) -> None:
    terminated, truncated = (np.arange(3) == (-1 if at is None else at) for at in (terminated_at, truncated_at))
    returns = lambda_return(*columns([1.0, 1.0, 1.0], terminated, truncated, next_value), 0.9, 0.5)[:, 0]
    np.testing.assert_allclose(returns, expected, atol=1e-5)


def test_lambda_return_is_gae_plus_value() -> None:
    """Where V(final_obs_t) is V(obs_{t+1}), except at truncations, whose successors are not in the rollout."""
    rng = np.random.default_rng(0)
    value = rng.normal(size=(NUM_STEPS + 1, NUM_ENVS)).astype(np.float32)
    reward = rng.normal(size=(NUM_STEPS, NUM_ENVS)).astype(np.float32)
    terminated, truncated = rng.random((2, NUM_STEPS, NUM_ENVS)) < 0.25
    next_value = np.where(truncated, rng.normal(size=reward.shape), value[1:]).astype(np.float32)
    advantage = gae(reward, terminated, truncated, value[:-1], next_value, 0.9, 0.7)
    returns = lambda_return(reward, terminated, truncated, next_value, 0.9, 0.7)
    np.testing.assert_allclose(returns, advantage + value[:-1], atol=1e-5)


def test_reward_scaling_starts_again_with_each_episode() -> None:
    """R = [1, 1.9, 2.71, 1]: the reward at the end still belongs to the episode that ends, unlike in PureJaxRL."""
    done = np.array([False, False, True, False])
    is_first = np.concatenate([[True], done[:-1]])
    returns = discounted_return_so_far(jnp.ones((4, 1)), jnp.array(is_first)[:, None], jnp.zeros(1), 0.9)[:, 0]
    np.testing.assert_allclose(returns, [1.0, 1.9, 2.71, 1.0], atol=1e-6)


def test_discounted_return_so_far_runs_on_from_rollout_to_rollout() -> None:
    rng = np.random.default_rng(1)
    reward, is_first = rng.normal(size=(8, 3)), rng.random((8, 3)) < 0.3
    is_first[4] = [False, True, False]
    before = np.array([2.0, -1.0, 0.5])
    whole = discounted_return_so_far(jnp.array(reward), jnp.array(is_first), jnp.array(before), 0.9)
    np.testing.assert_allclose(whole, oracles.discounted_return_so_far(reward, is_first, before, 0.9), atol=1e-5)
    half = discounted_return_so_far(jnp.array(reward[:4]), jnp.array(is_first[:4]), jnp.array(before), 0.9)
    rest = discounted_return_so_far(jnp.array(reward[4:]), jnp.array(is_first[4:]), half[-1], 0.9)
    np.testing.assert_allclose(rest, whole[4:], atol=1e-5)


@pytest.mark.parametrize("unroll", [1, 3, 16])
def test_discounted_sum_by_hand(unroll: int) -> None:
    result = discounted_sum(jnp.array([1.0, 2.0, 4.0, 8.0]), jnp.array([0.5, 0.0, 0.25, 100.0]), unroll)
    np.testing.assert_array_equal(result, [2.0, 2.0, 6.0, 8.0])


def test_gradients_reach_gamma() -> None:
    """Discounts may be traced and differentiated, as meta-learning does: d/dγ of r0 + γ(r1 + γ n1)."""

    def first_return(gamma: jax.Array) -> jax.Array:
        none = jnp.zeros((2, 1), bool)
        return lambda_return(*columns([1.0, 2.0]), none, none, *columns([50.0, 3.0]), gamma, 1.0)[0, 0]

    assert jax.grad(first_return)(0.5) == pytest.approx(2.0 + 2 * 0.5 * 3.0)


@pytest.mark.parametrize("estimator", [gae, lambda_return])
def test_different_shapes_are_refused(estimator: Callable[..., Any]) -> None:
    num = 5 if estimator is gae else 4
    good = [jnp.zeros((4, 2))] * num
    for i in range(num):
        with pytest.raises(ValueError, match=r"one shape \[T, B\].*\(4, 1\)"):
            estimator(*good[:i], jnp.zeros((4, 1)), *good[i + 1 :], 0.9, 0.9)


def experience(reward: Any, terminated: Any, truncated: Any) -> Rollout:
    arrays = (jnp.asarray(x) for x in (reward, terminated, truncated))
    return Rollout(None, None, *arrays, None, None, None, None)


@pytest.mark.parametrize(
    ("ratio", "targets", "advantage"),
    [
        ([0.5, 2.0, 1.5], [0.70435, -0.657, -0.73], [-0.29565, -1.157, -0.53]),
        ([1.0, 1.0, 1.0], [0.4087, -0.657, -0.73], [-0.5913, -1.157, -0.53]),
    ],
)
def test_vtrace_by_hand(ratio: list[float], targets: list[float], advantage: list[float]) -> None:
    reward, never = columns([1.0, 0.0, -1.0], [False] * 3)
    value, next_value, rho = columns([1.0, 0.5, -0.2], [0.5, -0.2, 0.3], ratio)
    found = vtrace(experience(reward, never, never), value, next_value, rho, 0.9, 1.0)
    np.testing.assert_allclose(found[0][:, 0], targets, atol=1e-6)
    np.testing.assert_allclose(found[1][:, 0], advantage, atol=1e-6)


def random_experience() -> tuple[Rollout, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    reward, value, next_value = rng.normal(size=(3, NUM_STEPS, NUM_ENVS)).astype(np.float32)
    terminated, truncated = rng.random((2, NUM_STEPS, NUM_ENVS)) < 0.2
    ratio = np.exp(rng.normal(size=reward.shape)).astype(np.float32)
    return experience(reward, terminated, truncated), value, next_value, ratio


@pytest.mark.parametrize("lam", [1.0, 0.7])
def test_vtrace_on_policy_is_gae_plus_value(lam: float) -> None:
    steps, value, next_value, ratio = random_experience()
    advantage = gae(steps.reward, steps.terminated, steps.truncated, value, next_value, 0.9, lam)
    targets, _ = vtrace(steps, value, next_value, np.ones_like(ratio), 0.9, lam)
    np.testing.assert_allclose(targets, advantage + value, atol=1e-5)


def test_vtrace_is_the_naive_loop() -> None:
    steps, value, next_value, ratio = random_experience()
    flags = (np.asarray(steps.terminated), np.asarray(steps.truncated))
    expected = oracles.vtrace(flags, np.asarray(steps.reward), (value, next_value), ratio, (0.9, 0.8))
    targets, advantage = vtrace(steps, value, next_value, ratio, 0.9, 0.8)
    np.testing.assert_allclose(targets, expected, atol=1e-5)
    for t, b in np.ndindex(*ratio.shape):
        ends = t == NUM_STEPS - 1 or flags[0][t, b] or flags[1][t, b]
        after = 0.0 if flags[0][t, b] else next_value[t, b] if ends else expected[t + 1, b]
        by_hand = min(1.0, ratio[t, b]) * (float(steps.reward[t, b]) + 0.9 * after - value[t, b])
        assert advantage[t, b] == pytest.approx(by_hand, abs=1e-5)


def test_vtrace_caps_td_errors_and_trace_apart() -> None:
    """Two steps, ratio 3: TD errors count thrice or twice as `rho_max` says, the trace once."""
    reward, never, zero, ratio = columns([1.0, 10.0], [False] * 2, [0.0, 0.0], [3.0, 3.0])
    for rho_max, expected in ((5.0, 33.0), (2.0, 22.0), (0.5, 5.5)):
        targets, _ = vtrace(experience(reward, never, never), zero, zero, ratio, 1.0, 1.0, rho_max)
        assert targets[0, 0] == pytest.approx(expected)


def test_retrace_by_hand() -> None:
    reward, never = columns([1.0, 0.0, -1.0], [False] * 3)
    value, next_value, ratio = columns([1.0, 0.5, 0.2], [0.6, 0.3, 0.4], [0.5, 2.0, 1.5])
    targets = retrace(experience(reward, never, never), value, next_value, ratio, 0.9, 0.9)
    np.testing.assert_allclose(targets[:, 0], [0.802576, -0.4104, -0.64], atol=1e-6)


def test_retrace_is_the_naive_loop() -> None:
    """The trace is weighed by the next action's ratio, and cut by ends of either kind."""
    steps, value, next_value, ratio = random_experience()
    reward, terminated, truncated = (np.asarray(x) for x in (steps.reward, steps.terminated, steps.truncated))
    targets = retrace(steps, value, next_value, ratio, 0.9, 0.8)
    for b in range(NUM_ENVS):
        error = 0.0
        for t in reversed(range(NUM_STEPS)):
            going_on = t < NUM_STEPS - 1 and not (terminated[t, b] or truncated[t, b])
            trace = 0.9 * 0.8 * min(1.0, ratio[t + 1, b]) if going_on else 0.0
            bootstrap = 0.0 if terminated[t, b] else 0.9 * next_value[t, b]
            error = reward[t, b] + bootstrap - value[t, b] + trace * error
            assert targets[t, b] == pytest.approx(value[t, b] + error, abs=1e-5)


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_all_estimators_agree_on_policy(lam: float) -> None:
    """With ratio 1, and successors valued by the same function; without a trace each is one step and a bootstrap."""
    steps, value, next_value, ratio = random_experience()
    done = np.asarray(steps.terminated | steps.truncated)
    next_value = np.where(done | (np.arange(NUM_STEPS) == NUM_STEPS - 1)[:, None], next_value, np.roll(value, -1, 0))
    flags, ones = (steps.terminated, steps.truncated), np.ones_like(ratio)
    expected = gae(steps.reward, *flags, value, next_value, 0.9, lam) + value
    found = {
        "lambda-return": lambda_return(steps.reward, *flags, next_value, 0.9, lam),
        "V-trace": vtrace(steps, value, next_value, ones, 0.9, lam)[0],
        "Retrace": retrace(steps, value, next_value, ones, 0.9, lam),
    }
    for name, targets in found.items():
        np.testing.assert_allclose(targets, expected, atol=1e-5, err_msg=name)
    if lam == 0.0:
        one_step = np.asarray(steps.reward) + 0.9 * np.where(steps.terminated, 0.0, next_value)
        np.testing.assert_allclose(expected, one_step, atol=1e-5)


def test_advantages_are_not_those_of_brax() -> None:
    """Brax's PPO adds the λ-return of the next step to the reward, and leaves truncated steps without an advantage."""
    values = np.array([*VALUE, NEXT_VALUE[-1]])
    going_on, kept = 1.0 - np.array(TERMINATED), 1.0 - np.array(TRUNCATED)
    targets, error = np.array(values), 0.0
    for t in reversed(range(5)):
        delta = (REWARD[t] + 0.9 * going_on[t] * values[t + 1] - values[t]) * kept[t]
        error = delta + 0.9 * 0.8 * going_on[t] * kept[t] * error
        targets[t] = values[t] + error
    theirs = (np.array(REWARD) + 0.9 * going_on * targets[1:] - values[:-1]) * kept
    np.testing.assert_allclose(targets[:-1], [1.36, 0.4, 1.316, -1.0, 1.04], atol=1e-9)
    np.testing.assert_allclose(theirs, [0.86, 0.0, 0.8, -1.2, 0.94], atol=1e-9)
    ours = np.asarray(gae(*columns(REWARD, TERMINATED, TRUNCATED, VALUE, NEXT_VALUE), 0.9, 0.8)[:, 0])
    np.testing.assert_allclose(ours[3:], theirs[3:], atol=1e-6)
    assert np.abs(ours - theirs)[:3].min() > 0.1


@pytest.mark.parametrize("estimator", [vtrace, retrace])
def test_off_policy_estimators_refuse_different_shapes(estimator: Callable[..., Any]) -> None:
    steps, value, next_value, ratio = random_experience()
    with pytest.raises(ValueError, match=r"one shape \[T, B\]"):
        estimator(steps, value, next_value, ratio[:, :1], 0.9, 0.9)
