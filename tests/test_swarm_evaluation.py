"""N-sweeps of a policy against closed forms: means, pairs, and what the modes share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.agents.policy import player
from jaxrl.ops.distributions import DiagNormal
from jaxrl.presets import find_preset
from jaxrl.swarm_evaluation import AGENT_MODES, decentralized, evaluate_swarm, evaluate_swarms, swarm_table
from jaxrl.types import Agent
from jaxrl_envs.mean_field.collective import make_agents
from jaxrl_envs.mean_field.control import MeanFieldState
from jaxrl_envs.mean_field.dynamics import exact
from jaxrl_envs.mean_field.registry import make_mean_field, make_swarm
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


def single_agents(policy: Any) -> Agent:
    """Agents of a swarm with `policy(rows [B, N, d]) -> actions [B, N, ...]`."""
    return player(lambda _, obs: policy(obs), lambda key: ())


def uniform(num_actions: int) -> Agent:
    """Single agents that choose at random where they explore, and the first action elsewhere."""

    def act(key: Any, state: Any, memory: Any, obs: jax.Array, is_first: jax.Array, explore: bool) -> Any:
        drawn = jax.random.randint(key, obs.shape[:2], 0, num_actions)
        return drawn if explore else jnp.zeros_like(drawn), memory, {}

    return Agent(lambda *_: (), lambda num: (), act, lambda *a: (a[1], {}))


def naive_costs(num_agents: int, gain: float, num_episodes: int) -> np.ndarray:
    """Discounted costs [E] of the linear-quadratic swarm whose agents do u = -gain y, in a plain loop."""
    rng = np.random.default_rng(0)
    shape = (num_episodes, num_agents)
    x, total = 1.5 + np.sqrt(0.4) * rng.standard_normal(shape), np.zeros(num_episodes)
    for t in range(21):
        m = x.mean(1, keepdims=True)
        u = np.clip(-gain * (x + 0.5 * rng.standard_normal(shape)), -4.0, 4.0)
        mean_u = u.mean(1, keepdims=True)
        actions = (0.3 * u**2).mean(1) + 0.1 * mean_u[:, 0] ** 2 if t < 20 else 0.0
        total += 0.95**t * ((x**2).mean(1) + 0.5 * m[:, 0] ** 2 + actions)
        x = x - 0.1 * m + 0.5 * u + 0.1 * mean_u + 0.2 * rng.standard_normal(shape)
    return total


@pytest.mark.quick("0.0")
@pytest.mark.parametrize("gain", [0.0, 0.8])
def test_single_agents_are_a_plain_loop(gain: float) -> None:
    agent, sizes = single_agents(lambda obs: -gain * obs[..., :1]), (1, 3, 10)
    env = make_swarm("lq", 2)
    found = evaluate_swarm(
        jax.random.key(0), agent, (), env, sizes, ("decentral_greedy",), num_episodes=400, gamma=0.95, many=10
    )
    assert found.plan is None
    for size, row in zip(sizes, found.returns["decentral_greedy"], strict=True):
        costs = naive_costs(size, gain, 4000)
        assert abs(row.mean() + costs.mean()) < 4 * np.hypot(row.std() / np.sqrt(400), costs.std() / np.sqrt(4000))
        np.testing.assert_allclose(row.std(), costs.std(), rtol=0.2)
    np.testing.assert_array_equal(found.limit["decentral_greedy"], found.returns["decentral_greedy"][2])
    assert [row["num_agents"] for row in found.rows()] == [1, 3, 10, None]


@pytest.mark.thorough
def test_uniform_agents_pay_what_chance_pays() -> None:
    """Ten steps of (1/2 - 0.7)^2 and the variance 1/(4N) of a share; and in one room, all pay 1 exactly."""
    sizes = (2, 10)
    found = evaluate_swarm(
        jax.random.key(1), uniform(2), (), make_swarm("two_room"), sizes, AGENT_MODES[:1], num_episodes=400, many=10
    )
    for size, row in zip(sizes, found.returns["decentral_sampled"], strict=True):
        assert abs(row.mean() + 10 * (0.04 + 0.25 / size)) < 4 * row.std() / np.sqrt(400)
    env = make_swarm("anti_crowding")
    crowd = evaluate_swarm(jax.random.key(1), uniform(2), (), env, sizes, num_episodes=200, many=10)
    assert list(crowd.returns) == list(AGENT_MODES)
    np.testing.assert_array_equal(crowd.returns["decentral_greedy"], -1.0)
    for size, row in zip(sizes, crowd.returns["decentral_sampled"], strict=True):
        assert abs(row.mean() + 0.5 + 0.5 / size) < 4 * row.std() / np.sqrt(200)
    # A swarm of two meets the first two agents of a swarm of ten: their draws are the same.
    three = evaluate_swarm(jax.random.key(1), uniform(2), (), env, (9, 10), AGENT_MODES[:1], num_episodes=200, many=9)
    assert np.corrcoef(three.returns["decentral_sampled"])[0, 1] > 0.6


def test_rules_and_single_agents_meet_the_same_noise() -> None:
    """Agents that rest cost the same in every episode, whether a rule makes them rest or their own policy."""
    how = {"sizes": (1, 3, 8), "num_episodes": 5, "gamma": 0.95, "many": 8}
    # A mean and a deviation at each of five centres: none.
    rule = fixed_policy([0.0, -40.0] * 5, 1e-12)
    of_rules = evaluate_swarm(jax.random.key(2), rule, (), make_mean_field("lq"), modes=("central_greedy",), **how)
    rest = single_agents(lambda obs: jnp.zeros((*obs.shape[:2], 1)))
    of_agents = evaluate_swarm(jax.random.key(2), rest, (), make_swarm("lq"), modes=("decentral_greedy",), **how)
    np.testing.assert_allclose(of_agents.returns["decentral_greedy"], of_rules.returns["central_greedy"], rtol=1e-5)
    gap = of_agents.gap("decentral_greedy", "central_greedy", of_rules)
    assert all(abs(row["mean"]) < 1e-3 and row["high"] - row["low"] < 1e-3 for row in gap)
    table = swarm_table({"rest": of_agents, "rule": of_rules})
    assert [(row["policy"], row["num_agents"]) for row in table] == [
        (name, size) for name in ("rest", "rule") for size in (1, 3, 8, None)
    ]
    few = evaluate_swarm(jax.random.key(2), rest, (), make_swarm("lq"), (1,), num_episodes=5, many=1)
    with pytest.raises(ValueError, match="same sizes and episodes"):
        of_rules.gap("central_greedy", "decentral_greedy", few)


@pytest.mark.quick("two_room", "formation")
@pytest.mark.parametrize("task", ["two_room", "formation", "vicsek", "beach"])
def test_single_agents_see_what_they_saw_in_training(task: str) -> None:
    env = make_swarm(task, 4) if task == "two_room" else make_agents(task, 4)
    params = env.default_params
    state, rows = env.reset(jax.random.key(0), params)
    upper = env.governed_by(lambda key, rows: rows)
    obs = upper.observe(MeanFieldState(state.swarm, jnp.int32(0)), params)
    assert upper.action_space(params).shape == obs.shape
    np.testing.assert_allclose(upper.rule.sample(jax.random.key(1), obs, state.seen), rows, atol=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("preset", ["ippo", "mappo"])
def test_what_few_agents_learnt_is_played_by_any_number(preset: str) -> None:
    """Two states of the preset, in a sweep: in the smallest swarm a step is the agent's own, by hand."""
    chosen, env = find_preset(preset), make_swarm("anti_crowding", 3)
    agent = chosen.agent(env, chosen.config, chosen.hparams, None)
    spaces = env.observation_space(None), env.action_space(None)
    states = jax.vmap(lambda key: agent.init(key, *spaces))(jax.random.split(jax.random.key(0), 2))
    both = evaluate_swarms(
        jax.random.key(1), agent, states, env, (1, 5), ("decentral_greedy",), num_episodes=30, many=5
    )
    for i, found in enumerate(both):
        state = jax.tree.map(lambda leaf, i=i: leaf[i], states)
        # An agent sees its room and chooses one, which is all that counts: shares of those that start in each.
        rows = jnp.concatenate([jnp.eye(2), jnp.ones((2, 2))], 1)[None]
        action, _, _ = agent.act(jax.random.key(0), state, (), rows, jnp.zeros(1, bool), False)
        alike = bool(action[0, 0] == action[0, 1])
        np.testing.assert_allclose(found.returns["decentral_greedy"][0], -1.0)
        split = found.returns["decentral_greedy"][1]
        assert (split == -1.0).all() if alike else split.max() > -0.6


def test_mistakes_are_named() -> None:
    env, policy = make_mean_field("two_room"), fixed_policy([0.0] * 4, 1.0)
    with pytest.raises(ValueError, match="central, decentral_sampled"):
        evaluate_swarm(jax.random.key(0), policy, (), env, (2,), ("best",))
    with pytest.raises(ValueError, match="sizes >= 1"):
        evaluate_swarm(jax.random.key(0), policy, (), env, (0,))
    with pytest.raises(ValueError, match="environment with agents"):
        evaluate_swarm(jax.random.key(0), policy, (), constant_probe(), (2,))
    agents, own = make_swarm("two_room"), uniform(2)
    with pytest.raises(ValueError, match="decentral_sampled, decentral_greedy"):
        evaluate_swarm(jax.random.key(0), own, (), agents, (2,), ("central",))
    with pytest.raises(ValueError, match="set `many`"):
        evaluate_swarm(jax.random.key(0), own, (), agents, (2,), limit=env.with_dynamics(exact()))
    with pytest.raises(ValueError, match="without memory"):
        evaluate_swarm(jax.random.key(0), own._replace(memory=jnp.zeros), (), agents, (2,))
