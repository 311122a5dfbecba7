"""Finite mean-field tasks, their exact dynamics, their games and their solvers (oracles O3, O7 to O11)."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_envs.mean_field import games, tasks
from jaxrl_envs.mean_field.features import OneHotBasis
from jaxrl_envs.mean_field.model import Swarm
from jaxrl_envs.mean_field.rules import FiniteRule
from jaxrl_envs.mean_field.tabular import TabularField, TabularModel

MF3_POLICY = np.array([[0.7, 0.3], [0.4, 0.6]])
KEY = jax.random.key(0)


def as_xi(policy: Any) -> jax.Array:
    return jnp.log(jnp.asarray(policy, float)).ravel()


def exact_flow(model: TabularModel, policy: Any, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    field, params = model.first_field(model.params), model.params
    mus, rewards = [field.mu], []
    for _ in range(num_steps):
        field, reward, _ = model.push_forward(field, jnp.asarray(policy, float), params)
        mus.append(field.mu)
        rewards.append(reward)
    return np.stack(mus), np.stack(rewards)


def swarms(model: TabularModel, policy: Any, num_agents: int, num_steps: int, num_swarms: int) -> Any:
    """States [num_swarms, T + 1, N] and rewards [num_swarms, T] of swarms that follow one decision rule."""
    rule, xi, params = FiniteRule(OneHotBasis(model.sizes[1]), model.sizes[2]), as_xi(policy), model.params

    def play(key: jax.Array) -> Any:
        def step(swarm: Swarm, key: jax.Array) -> Any:
            key_observe, key_act, key_move = jax.random.split(key, 3)
            action = rule.sample(key_act, xi, model.observe(key_observe, swarm, params))
            after, reward, _ = model.step(key_move, swarm, action, params)
            return after, (after.x, reward)

        key_reset, key_steps = jax.random.split(key)
        first = model.reset(key_reset, num_agents, params)
        _, (xs, rewards) = jax.lax.scan(step, first, jax.random.split(key_steps, num_steps))
        return jnp.concatenate([first.x[None], xs]), rewards

    return jax.jit(jax.vmap(play))(jax.random.split(KEY, num_swarms))


# O3


def test_push_forward_by_hand() -> None:
    with jax.enable_x64(True):
        mus, rewards = exact_flow(tasks.tabular_mf3(), MF3_POLICY, 3)
    expected = [
        [0.5, 0.3, 0.2],
        [0.385536, 0.337632, 0.276832],
        [0.34823774, 0.33035838, 0.32140388],
        [0.33806686, 0.32281691, 0.33911623],
    ]
    np.testing.assert_allclose(mus, expected, atol=6e-9)
    np.testing.assert_allclose(rewards, -(np.array(expected)[:3, 2] ** 2), atol=1e-8)


@pytest.mark.thorough
def test_swarms_approach_the_mean_field_at_the_rate_of_chaos() -> None:
    sizes, target = [10, 30, 100, 300, 1000], 0.33911623
    errors = []
    for num in sizes:
        states, _ = swarms(tasks.tabular_mf3(), MF3_POLICY, num, 3, 2500)
        errors.append(float(np.abs((np.asarray(states[:, 3]) == 2).mean(1) - target).mean()))
    np.testing.assert_allclose(errors, [0.126, 0.0708, 0.0394, 0.0216, 0.01186], rtol=0.06)
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert abs(slope + 0.514) < 0.03


def test_one_step_of_a_swarm_has_the_exact_mean_and_variance() -> None:
    model, params = tasks.tabular_mf3(), tasks.TaskParams()
    swarm = Swarm(jnp.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 0]), jnp.int32(0))
    rule, xi = FiniteRule(OneHotBasis(2), 2), as_xi(MF3_POLICY)

    def shares(key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 3)
        action = rule.sample(keys[0], xi, model.observe(keys[1], swarm, params))
        return jnp.bincount(model.step(keys[2], swarm, action, params)[0].x, length=3) / 10

    found = np.asarray(jax.jit(jax.vmap(shares))(jax.random.split(KEY, 40_000)))
    mu = np.bincount(np.asarray(swarm.x), minlength=3) / 10
    seen = model.observation(params) @ MF3_POLICY
    moves = np.einsum("xu,xuz->xz", seen, model.transition(jnp.int32(0), jnp.asarray(mu), params))
    np.testing.assert_allclose(
        model.push_forward(TabularField(jnp.asarray(mu), 0), MF3_POLICY, params)[0].mu, mu @ moves, atol=1e-6
    )
    p = moves[np.asarray(swarm.x)]
    variance = (p * (1 - p)).sum(0) / 100
    assert (np.abs(found.mean(0) - mu @ moves) < 4 * np.sqrt(variance / 4e4)).all()
    np.testing.assert_allclose(found.var(0), variance, rtol=0.03)


# O7, O8


def test_anti_crowding_needs_chance() -> None:
    model = tasks.anti_crowding()
    uniform, certain = np.full((2, 2), 0.5), np.array([[0.0, 1.0], [0.0, 1.0]])
    np.testing.assert_allclose(exact_flow(model, uniform, 1)[1], [-0.5])
    np.testing.assert_allclose(exact_flow(model, certain, 1)[1], [-1.0])
    _, rewards = swarms(model, uniform, 10, 1, 20_000)
    spread = float(rewards.std()) / np.sqrt(2e4)
    assert abs(float(rewards.mean()) + 0.55) < 4 * spread


def test_pigou_tells_the_team_from_the_equilibrium() -> None:
    model = tasks.pigou()
    costs = [-exact_flow(model, [[p, 1 - p]] * 2, 1)[1][0] for p in np.linspace(0.0, 1.0, 101)]
    assert np.argmin(costs) == 50
    np.testing.assert_allclose([costs[50], costs[100]], [0.75, 1.0], atol=1e-6)
    params = model.params
    nash, team = (jnp.tile(jnp.array([p, 1 - p]), (1, 2, 1)) for p in (1.0, 0.5))
    np.testing.assert_allclose(games.exploitability(model, nash, params), 0.0, atol=1e-6)
    np.testing.assert_allclose(games.exploitability(model, team, params), 0.25, atol=1e-6)
    solution = jax.jit(lambda p: games.mirror_descent(model, 1, 400, p, 1.0))(params)
    assert float(solution.policy[0, 0, 0]) > 0.98
    played = jax.jit(lambda p: games.fictitious_play(model, 1, 200, p))(params)
    assert float(played.policy[0, 0, 0]) > 0.98
    assert float(played.exploitability[-1]) < 0.01


# O9


def two_room_next(mu1: np.ndarray, a0: float, a1: float, q: float = 0.8) -> np.ndarray:
    """Share in the second room after one step, by hand: who is in it sees 1 with probability q."""
    leave = q * a1 + (1 - q) * a0
    enter = q * a0 + (1 - q) * a1
    return mu1 * (1 - leave) + (1 - mu1) * enter


def test_two_rooms_by_hand() -> None:
    model = tasks.two_room()
    for a0, a1 in itertools.product([0.0, 0.3, 1.0], repeat=2):
        mus, rewards = exact_flow(model, [[1 - a0, a0], [1 - a1, a1]], 3)
        share = 0.5
        for t in range(3):
            np.testing.assert_allclose(rewards[t], -((share - 0.7) ** 2), atol=1e-6)
            share = two_room_next(share, a0, a1)
            np.testing.assert_allclose(mus[t + 1, 1], share, atol=1e-6)
        np.testing.assert_allclose(mus[1, 1], 0.5 + 0.6 * (a0 - a1) / 2, atol=1e-6)


def test_two_rooms_need_chance() -> None:
    model = tasks.two_room()
    best = exact_flow(model, [[1 / 3, 2 / 3], [1.0, 0.0]], 1)[0][1, 1]
    np.testing.assert_allclose(best, 0.7, atol=1e-6)
    reached = {round(float(exact_flow(model, [[1 - a, a], [1 - b, b]], 1)[0][1, 1]), 6) for a in (0, 1) for b in (0, 1)}
    assert reached == {0.2, 0.5, 0.8}
    # With a1 = 0, mu' = mu + a0 (q - mu): the share never passes q.
    np.testing.assert_allclose(exact_flow(model, [[0.0, 1.0], [1.0, 0.0]], 60)[0][-1, 1], 0.8, atol=1e-6)


@pytest.mark.parametrize(("num", "expected"), [(10, -0.02095), (100, -0.002105)])
def test_two_rooms_of_few_agents(num: int, expected: float) -> None:
    """One exact step, then a reward of -0.21 / N; the simulated figures of the specification within their noise."""
    _, rewards = swarms(tasks.two_room(), [[1 / 3, 2 / 3], [1.0, 0.0]], num, 2, 20_000)
    second = np.asarray(rewards[:, 1])
    # Starts are drawn, so that given them shares are not 0.7 in the mean; over starts they are, with variance 0.21 / N.
    assert abs(second.mean() + 0.21 / num) < 4 * second.std() / np.sqrt(2e4)
    assert abs(second.mean() - expected) < 0.05 * abs(expected)


def test_dynamic_programming_equals_the_best_open_loop() -> None:
    """Values on a grid of mean fields, over rules that may look at it, against all sequences of rules that may not."""
    levels = np.linspace(0.0, 1.0, 7)
    rules = list(itertools.product(levels, repeat=2))
    horizon, share = 3, 0.7
    shares = np.linspace(0.0, 1.0, 2001)
    value = np.zeros_like(shares)
    for _ in range(horizon):
        after = np.stack([two_room_next(shares, *rule) for rule in rules])
        value = -((shares - share) ** 2) + np.interp(after, shares, value).max(0)
    model, params = tasks.two_room(), tasks.TwoRoomParams()

    def total(sequence: jax.Array) -> jax.Array:
        def step(field: TabularField, ab: jax.Array) -> Any:
            field, reward, _ = model.push_forward(field, jnp.stack([1.0 - ab, ab], -1), params)
            return field, reward

        return jax.lax.scan(step, model.first_field(params), sequence)[1].sum()

    # The last rule earns nothing any more.
    pairs = np.array([[*pair, (0.0, 0.0)] for pair in itertools.product(rules, repeat=horizon - 1)])
    best = float(jax.jit(jax.vmap(total))(jnp.asarray(pairs)).max())
    np.testing.assert_allclose(best, np.interp(0.5, shares, value), atol=2e-4)
    np.testing.assert_allclose(best, -0.04, atol=2e-4)


# O10


@pytest.mark.parametrize("name", ["tabular_mf3", "two_room"])
def test_gradients_through_the_exact_dynamics_are_finite_differences(name: str) -> None:
    with jax.enable_x64(True):
        model = getattr(tasks, name)()
        rule = FiniteRule(OneHotBasis(2), 2)

        def total(xi: jax.Array) -> jax.Array:
            def step(field: TabularField, _: None) -> Any:
                field, reward, _ = model.push_forward(field, rule.probabilities(xi, jnp.arange(2)), model.params)
                return field, reward

            return jax.lax.scan(step, model.first_field(model.params), None, 4)[1].sum()

        xi = as_xi([[0.7, 0.3], [0.4, 0.6]])
        gradient, step = jax.grad(total)(xi), 1e-5
        numeric = [(total(xi.at[i].add(step)) - total(xi.at[i].add(-step))) / (2 * step) for i in range(4)]
        np.testing.assert_allclose(gradient, numeric, atol=1e-8)
        assert float(jnp.abs(gradient).max()) > 1e-3


@pytest.mark.thorough
def test_score_function_gradients_of_swarms_approach_the_exact_one() -> None:
    """REINFORCE with all agents' scores: its mean over swarms is biased by about 1 / N."""
    model, params = tasks.two_room(), tasks.TwoRoomParams()
    rule, num_steps = FiniteRule(OneHotBasis(2), 2), 2

    def exact_total(xi: jax.Array) -> jax.Array:
        def step(field: TabularField, _: None) -> Any:
            field, reward, _ = model.push_forward(field, rule.probabilities(xi, jnp.arange(2)), params)
            return field, reward

        return jax.lax.scan(step, model.first_field(params), None, num_steps)[1].sum()

    def estimate(key: jax.Array, xi: jax.Array, num: int) -> jax.Array:
        def log_prob_and_return(xi: jax.Array) -> tuple[jax.Array, jax.Array]:
            keys = jax.random.split(key, (num_steps, 3))
            swarm, log_prob, total = model.reset(jax.random.fold_in(key, 7), num, params), 0.0, 0.0
            for t in range(num_steps):
                seen = model.observe(keys[t, 0], swarm, params)
                action = rule.sample(keys[t, 1], jax.lax.stop_gradient(xi), seen)
                log_prob += jnp.log(rule.probabilities(xi, seen)[jnp.arange(num), action]).sum()
                swarm, reward, _ = model.step(keys[t, 2], swarm, action, params)
                total += reward
            return log_prob, total

        score, total = jax.grad(log_prob_and_return, has_aux=True)(xi)
        return score * (total + 0.09)  # a baseline changes no mean

    xi = as_xi([[0.45, 0.55], [0.9, 0.1]])
    exact, bias, noise = jax.grad(exact_total)(xi), [], []
    for num, count in ((2, 200_000), (4, 200_000), (16, 100_000)):
        found = jax.jit(jax.vmap(estimate, (0, None, None)), static_argnums=2)(jax.random.split(KEY, count), xi, num)
        difference = np.asarray(found.mean(0) - exact)
        noise.append(float(jnp.linalg.norm(found.std(0)) / np.sqrt(count)))
        bias.append(float(np.linalg.norm(difference)))
    assert bias[0] > 10 * noise[0]
    assert 1.5 < bias[0] / bias[1] < 2.6
    assert bias[2] < bias[0] / 8 + 3 * noise[2]


# O11


@pytest.fixture(scope="module")
def solved() -> dict[str, Any]:
    with jax.enable_x64(True):
        game = tasks.crowd_modelling()

        def all_of_them(params: Any) -> dict[str, jax.Array]:
            return {
                "uniform": games.exploitability(game, games.uniform_policy(game, 10), params),
                "fictitious_play": games.fictitious_play(game, 10, 10, params).exploitability,
                "fixed_point": games.fixed_point(game, 10, 10, params).exploitability,
                "mirror_descent": games.mirror_descent(game, 10, 200, params, 0.5).exploitability,
            }

        return jax.tree.map(np.asarray, jax.jit(all_of_them)(game.params))


def fictitious_play_by_hand(num_iterations: int) -> list[float]:
    """Exploitabilities, by loops over places, previous moves, moves and noise; rewards as they are written."""
    steps, places, moves = range(10), range(10), (-1, 0, 1)

    def flow(policy: np.ndarray) -> np.ndarray:
        mu = np.zeros((11, 10))
        mu[0] = 0.1
        for t, x, u, noise in itertools.product(steps, places, range(3), moves):
            mu[t + 1, (x + moves[u] + noise) % 10] += mu[t, x] * policy[t, x, u] / 3
        return mu

    def values(mu: np.ndarray, policy: np.ndarray | None) -> tuple[np.ndarray, float]:
        """Q(t, x, previous move, move), and the mean value at the start, where nobody has moved."""
        v, q = np.zeros((11, 10, 3)), np.zeros((10, 10, 3, 3))
        for t, x, before in itertools.product(reversed(steps), places, range(3)):
            reward = 1 - abs(x - 5) / 5 - np.log(mu[t, x] + 1e-25) - abs(moves[before]) / 10
            for u in range(3):
                q[t, x, before, u] = reward + sum(v[t + 1, (x + moves[u] + noise) % 10, u] / 3 for noise in moves)
            v[t, x, before] = q[t, x, before].max() if policy is None else q[t, x, before] @ policy[t, x]
        return q, v[0, :, 1].mean()

    policy, gaps = np.full((10, 10, 3), 1 / 3), []
    for k in range(1, num_iterations + 1):
        mu = flow(policy)
        response = np.eye(3)[np.round(values(mu, None)[0][:, :, 1], 10).argmax(-1)]
        old, new = (k / (k + 1) * mu[:10])[..., None], (flow(response)[:10] / (k + 1))[..., None]
        policy = (old * policy + new * response) / (old + new)
        mu = flow(policy)
        gaps.append(values(mu, None)[1] - values(mu, policy)[1])
    return gaps


def test_crowd_modelling_the_correct_game(solved: dict[str, Any]) -> None:
    np.testing.assert_allclose(solved["uniform"], 2.78668242, atol=5e-9)
    # With exact ties; those left to rounding, this is 0.26747 or 0.26750, as the sums happen to be ordered.
    np.testing.assert_allclose(solved["fictitious_play"], fictitious_play_by_hand(10), atol=1e-10)
    np.testing.assert_allclose(solved["fictitious_play"][-1], 0.33659824, atol=5e-9)
    np.testing.assert_allclose(solved["fixed_point"][-1], 54.51257149, atol=5e-9)
    assert solved["mirror_descent"][-1] < 0.01 < solved["mirror_descent"][0]  # it converges, as theory has it


def aliased(game: TabularModel, order: Any) -> TabularModel:
    """The move's cost as a table over (t, x): that of whoever reached the place first."""

    def individual(time: jax.Array, mu: jax.Array, joint: jax.Array, params: Any) -> jax.Array:
        own = game.individual_reward(time, mu, joint, params)  # type: ignore[misc]
        moved = jnp.asarray(np.array([0.1, 0.0, 0.1])) * (time + 1 < 10)
        return own + moved - jnp.asarray(order)[time][:, None]

    import dataclasses

    return dataclasses.replace(game, individual_reward=individual)


def first_visitors() -> np.ndarray:
    """[10, 10]: the cost of the previous move of the first visitor of (t, x), depth first, moves and noise in order."""
    cost, seen = np.zeros((10, 10)), set()

    def visit(t: int, x: int, move: int) -> None:
        if t == 10 or (t, x) in seen:
            return
        seen.add((t, x))
        cost[t, x] = abs(move) / 10
        for chosen in (-1, 0, 1):
            for noise in (-1, 0, 1):
                visit(t + 1, (x + chosen + noise) % 10, chosen)

    for x in range(10):
        visit(0, x, 0)
    return cost


def test_crowd_modelling_as_openspiel_has_it() -> None:
    """A cross-check of all solvers with published code: the same game with its cache's aliasing of the move's cost."""
    with jax.enable_x64(True):
        game, params = aliased(tasks.crowd_modelling(), first_visitors()), tasks.TaskParams(10)
        uniform = games.exploitability(game, games.uniform_policy(game, 10), params)
        np.testing.assert_allclose(uniform, 2.81353655, atol=5e-8)
        played = jax.jit(lambda p: games.fictitious_play(game, 10, 10, p))(params)
        np.testing.assert_allclose(played.exploitability[-1], 0.99080326, atol=5e-8)
        fixed = jax.jit(lambda p: games.fixed_point(game, 10, 10, p))(params)
        np.testing.assert_allclose(fixed.exploitability[-1], 55.7451018, atol=5e-7)
        soft = jax.jit(lambda p: games.fixed_point(game, 10, 10, p, 10.0))(params)
        np.testing.assert_allclose(soft.exploitability[-1], 2.421, atol=5e-4)
        descent = jax.jit(lambda p: games.mirror_descent(game, 10, 10, p, 0.01))(params)
        # OpenSpiel's Munchausen form, which is the same in exact arithmetic; its plain one, 2.27303, sums otherwise.
        np.testing.assert_allclose(descent.exploitability[-1], 2.27366, atol=5e-6)


def test_games_are_swept_by_vmap() -> None:
    game = tasks.crowd_modelling()
    run = jax.jit(lambda rate: games.mirror_descent(game, 10, 20, game.params, rate).exploitability)
    rates = jnp.array([0.01, 0.1])
    swept = jax.vmap(run)(rates)
    np.testing.assert_allclose(swept, jnp.stack([run(rate) for rate in rates]), rtol=1e-4)
    assert float(swept[1, -1]) < float(swept[0, -1])


def test_a_team_is_no_game() -> None:
    with pytest.raises(ValueError, match="no individual_reward"):
        games.exploitability(tasks.two_room(), jnp.full((1, 2, 2), 0.5), tasks.TwoRoomParams())


def test_equilibrium_and_optimum_agree_where_crowds_are_all_that_counts() -> None:
    """With rewards -log mu alone both are uniform; a flow of the uniform policy on a ring is uniform."""
    game = tasks.crowd_modelling()
    mu = games.flow(game, games.uniform_policy(game, 10), game.params).mu
    np.testing.assert_allclose(mu, 0.1, atol=1e-6)
