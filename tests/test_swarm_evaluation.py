"""N-sweeps of a policy against closed forms: means, pairs, and what the modes share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.ops.distributions import DiagNormal
from jaxrl.swarm_evaluation import decentralized, evaluate_swarm
from jaxrl.types import Agent
from jaxrl_envs.mean_field.dynamics import exact
from jaxrl_envs.mean_field.registry import make_mean_field
from jaxrl_envs.probes import constant_probe


def fixed_policy(mean: Any, std: float) -> Agent:
    """A Gaussian over decision rules that sees nothing."""

    def act(key: Any, state: Any, memory: Any, obs: jax.Array, is_first: jax.Array, explore: bool) -> Any:
        policy = DiagNormal(jnp.tile(jnp.asarray(mean, jnp.float32), (len(obs), 1)), jnp.full(len(mean), jnp.log(std)))
        return policy.sample(key) if explore else policy.mode(), memory, {}

    return Agent(lambda *_: (), lambda num: (), act, lambda *a: (a[1], {}))


@pytest.mark.thorough
def test_anti_crowding_by_hand() -> None:
    """Uniform rules pay -1/2 - 1/(2N); rules that one draw decides for all pay about -1, of one's own about -1/2."""
    env = make_mean_field("anti_crowding")
    limit = env.with_dynamics(exact())
    sizes, modes = (2, 10, 100), ("central", "decentral_sampled", "open_loop", "central_greedy")
    sharp = fixed_policy([0.0] * 4, 1000.0)
    found = evaluate_swarm(jax.random.key(0), sharp, (), env, sizes, modes, num_episodes=800, limit=limit)
    np.testing.assert_array_equal(found.plan, np.zeros((1, 4)))
    for mode in ("open_loop", "central_greedy"):
        for size, row in zip(sizes, found.returns[mode], strict=True):
            expected = -0.5 - 0.5 / size
            assert abs(row.mean() - expected) < 4 * row.std() / np.sqrt(800)
        np.testing.assert_allclose(found.limit[mode], -0.5)
    # A draw for all: each of the two observations decides for one of the rooms. Same room, -1; else as the agents are.
    np.testing.assert_allclose(found.limit["central"].mean(), -0.75, atol=0.05)
    own = found.returns["decentral_sampled"]
    assert abs(own[1].mean() + 0.55) < 4 * own[1].std() / np.sqrt(800)
    assert abs(found.limit["decentral_sampled"].mean() + 0.5) < 0.001
    gap = found.gap("open_loop", "central")[2]
    assert gap["low"] > 0.2
    rows = found.rows()
    assert len(rows) == 4 * 4
    assert [row["num_agents"] for row in rows[:4]] == [2, 10, 100, None]
    assert all(row["low"] <= row["mean"] <= row["high"] for row in rows)


@pytest.mark.thorough
def test_sizes_and_modes_are_paired() -> None:
    """A policy without chance is the same in all modes, to the last episode; and swarms of near sizes go alike."""
    env = make_mean_field("lq")
    policy = fixed_policy(0.3 * np.arange(10), 1e-12)
    modes = ("central", "decentral_sampled", "open_loop")
    found = evaluate_swarm(
        jax.random.key(1), policy, (), env, (40, 41), modes, num_episodes=12, gamma=0.95, max_agents=99
    )
    for mode in modes[1:]:
        np.testing.assert_allclose(found.returns[mode], found.returns["central"], rtol=1e-4)
    both = found.returns["central"]
    assert np.corrcoef(both)[0, 1] > 0.95
    assert both.std() > 0.1


def test_discounting_and_the_gaussian_limit() -> None:
    limit = make_mean_field("lq", "gaussian")
    # No control costs 14.247718 in deviation plus the mean's; with T = 20 and gamma = 0.95 24.159916 in all.
    policy, how = fixed_policy([0.0, 0.0], 1e-12), {"num_episodes": 40, "gamma": 0.95}
    found = evaluate_swarm(jax.random.key(0), policy, (), limit, (500,), ("open_loop",), limit=limit, **how)
    np.testing.assert_allclose(found.limit["open_loop"], -24.159916, rtol=1e-5)
    row = found.returns["open_loop"][0]
    assert abs(row.mean() + 24.159916) < 4 * row.std() / np.sqrt(40) + 0.2


def test_agents_draw_their_own_rules() -> None:
    agent = decentralized(fixed_policy([0.0, 0.0, 0.0], 1.0), 5)
    obs, flags = jnp.zeros((2, 7)), jnp.zeros(2, bool)
    action, _, _ = agent.act(jax.random.key(0), (), agent.memory(2), obs, flags, True)
    assert action.shape == (2, 5, 3)
    assert len(np.unique(action)) == 30
    larger = decentralized(fixed_policy([0.0, 0.0, 0.0], 1.0), 9)
    more, _, _ = larger.act(jax.random.key(0), (), larger.memory(2), obs, flags, True)
    np.testing.assert_array_equal(more[:, :5], action)


def test_mistakes_are_named() -> None:
    env, policy = make_mean_field("two_room"), fixed_policy([0.0] * 4, 1.0)
    with pytest.raises(ValueError, match="central, decentral_sampled"):
        evaluate_swarm(jax.random.key(0), policy, (), env, (2,), ("best",))
    with pytest.raises(ValueError, match="sizes >= 1"):
        evaluate_swarm(jax.random.key(0), policy, (), env, (0,))
    with pytest.raises(ValueError, match="environment with agents"):
        evaluate_swarm(jax.random.key(0), policy, (), constant_probe(), (2,))
