"""Grid-worlds: dynamics against a naive loop, values against published numbers and against play."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl.env_checks import check_environment
from jaxrl_envs.gridworld import (
    DISTRIBUTIONS,
    GridWorld,
    Level,
    grid_random,
    optimal_policy,
    optimal_return,
    optimal_values,
    policy_value,
    sample_level,
)
from jaxrl_envs.gridworld.environment import _flip

# side, walls, objects [cell, reward, p_term, p_respawn], limit, optimal return, return of uniform actions; start 0.
CASES = {
    "A": (3, (), [(8, 1, 1, 0)], 4, 1.0, 0.009600),
    "A, too short": (3, (), [(8, 1, 1, 0)], 3, 0.0, 0.0),
    "B": (3, (), [(8, 1, 0, 1)], 10, 4.0, 0.219577),
    "C": (3, (), [(8, -1, 0.5, 0.5)], 10, 0.0, -0.173951),
    "D": (3, (), [(1, 1, 0, 0.05)], 20, 1.859410, 1.026328),
    "E": (4, (), [(2, 1, 0.1, 0.5)], 50, 8.258120, 1.754168),
    "F": (3, (1, 4), [(2, 1, 1, 0)], 8, 1.0, 0.000860),
    "F, too short": (3, (1, 4), [(2, 1, 1, 0)], 5, 0.0, 0.0),
    "G": (3, (), [(2, 1, 0, 0), (6, 0.5, 0, 0)], 6, 1.5, 0.288288),
    "G, shorter": (3, (), [(2, 1, 0, 0), (6, 0.5, 0, 0)], 5, 1.0, 0.236160),
    "H": (3, (), [(1, 1, 1, 0), (8, 1.5, 0, 0.25)], 12, 4.034912, 0.873119),
}
ENV = GridWorld(4, 2, 2)
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1), (0, 0))


def make_level(side, walls, objects, limit, max_side=4, max_objects=2):
    table = np.zeros((max_objects, 4), np.float32)
    table[: len(objects)] = objects
    return Level(
        side=np.int32(side),
        walls=np.isin(np.arange(max_side**2), walls),
        start=np.int32(0),
        cell=table[:, 0].astype(np.int32),
        reward=table[:, 1],
        p_term=table[:, 2],
        p_respawn=table[:, 3],
        kind=np.arange(max_objects, dtype=np.int32),
        present=np.arange(max_objects) < len(objects),
        limit=np.int32(limit),
        lifetime=np.int32(1),
    )


def stacked(levels):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *levels)


LEVELS = stacked([make_level(*case[:4]) for case in CASES.values()])


def draw(name, num, seed):
    keys = jax.random.split(jax.random.key(seed), num)
    return jax.jit(jax.vmap(lambda key: sample_level(key, DISTRIBUTIONS[name])))(keys)


def play(env, level, choose, key, num_steps):
    """One episode, each step's action from `choose(obs, t, key)`: observations, actions, rewards and ends [T]."""
    state, obs = env.reset(key, level)

    def step(carry, inputs):
        (state, obs), (t, key) = carry, inputs
        action = choose(obs, t, key)
        state, timestep = env.step(key, state, action, level)
        return (state, timestep.obs), (obs, action, timestep.reward, timestep.terminated, state)

    inputs = jnp.arange(num_steps), jax.random.split(key, num_steps)
    return jax.lax.scan(step, (state, obs), inputs)[1]


@pytest.mark.parametrize("name", ["grid_rand_small", "grid_random", "maze_3"])
def test_grid_worlds_pass_check_environment(name):
    report = check_environment(jaxrl_envs.make(name), num_steps=40)
    assert report.num_truncated == 0


# Values.


@pytest.fixture(scope="module")
def values():
    """Of the cases, and of 20 drawn levels after them: optimal and uniform returns, optimal ones by steps to go."""
    levels = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), LEVELS, draw("debug", 20, seed=5))
    horizons = jnp.arange(0, 61, 6)

    @jax.jit
    @jax.vmap
    def solve(level):
        by_horizon = jax.vmap(lambda h: optimal_return(level, ENV, h))(horizons)
        uniform = jnp.full((ENV.num_states, 5), 0.2)
        return {
            "optimal": optimal_return(level, ENV),
            "random": policy_value(level, ENV),
            "uniform": policy_value(level, ENV, uniform),
            "by_horizon": by_horizon,
        }

    return SimpleNamespace(**solve(levels), horizons=horizons, levels=levels)


def test_returns_of_the_published_cases(values):
    np.testing.assert_allclose(values.optimal[: len(CASES)], [case[4] for case in CASES.values()], atol=1e-5)
    np.testing.assert_allclose(values.random[: len(CASES)], [case[5] for case in CASES.values()], atol=2e-6)
    np.testing.assert_allclose(values.uniform, values.random, atol=1e-6)  # the same policy, written out


def test_optimal_returns_are_bounded_and_grow_with_the_horizon(values):
    best = np.maximum(values.levels.reward, 0).max(1)[:, None]
    assert (values.by_horizon >= 0).all()
    assert (values.by_horizon <= best * values.horizons + 1e-5).all()
    assert (np.diff(values.by_horizon, axis=1) >= -1e-6).all()
    assert (values.by_horizon[:, 0] == 0).all()
    assert (values.by_horizon[len(CASES) :, -1] > 0.5).any()
    assert (values.optimal >= values.random - 1e-5).all()


def test_play_earns_the_values():
    """Monte Carlo, greedy and uniform, on published cases and on drawn levels with walls: three standard errors."""
    drawn = draw("debug", 4, seed=7)
    levels = jax.tree.map(lambda a, b: jnp.concatenate([a[jnp.array([2, 4, 5, 10])], b]), LEVELS, drawn)
    num_steps = 50

    @jax.jit
    @jax.vmap
    def run(level):
        best = optimal_policy(level, ENV, num_steps)

        def greedy(obs, t, key):
            return best[jnp.clip(level.limit - 1 - t, 0), obs[0].astype(jnp.int32)].astype(jnp.int32)

        def uniform(obs, t, key):
            return jax.random.randint(jax.random.fold_in(key, 1), (), 0, 5)

        def episode_return(choose, key):
            _, _, reward, terminated, _ = play(ENV, level, choose, key, num_steps)
            return jnp.sum(jnp.where(jnp.cumsum(terminated) - terminated == 0, reward, 0.0))

        keys = jax.random.split(jax.random.key(1), 1500)
        returns = [jax.vmap(lambda key, c=choose: episode_return(c, key))(keys) for choose in (greedy, uniform)]
        return jnp.stack(returns), jnp.stack([optimal_return(level, ENV), policy_value(level, ENV)])

    returns, expected = run(levels)
    error = returns.std(-1) / np.sqrt(returns.shape[-1])
    np.testing.assert_array_less(np.abs(returns.mean(-1) - expected), 3 * error + 1e-5)
    assert (error[:, 1] > 0).all()


def test_states_are_indexed_as_observed():
    """The value at every state's index, against the naive recursion from that state; one step to go, then two."""
    level = make_level(3, (4,), [(2, 1.0, 0.5, 0.25), (6, -0.5, 0.0, 0.5)], 9)
    for horizon in (1, 2):
        got = np.asarray(optimal_values(level, ENV, horizon)).reshape(16, 2, 2)
        for cell, exists in itertools.product(set(range(9)) - {4}, itertools.product((0, 1), repeat=2)):
            np.testing.assert_allclose(got[cell][exists], naive_value(level, cell, exists, horizon), atol=1e-6)


def naive_value(level, cell, exists, horizon):
    if horizon == 0:
        return 0.0
    best = -np.inf
    for action in range(5):
        arrived = naive_move(level, cell, action)
        collected = [bool(e and c == arrived) for e, c in zip(exists, level.cell, strict=True)]
        value = float(np.dot(collected, level.reward))
        for later in itertools.product((0, 1), repeat=2):
            p = 1.0
            for i in range(2):
                p_there = 0.0 if collected[i] else 1.0 if exists[i] else float(level.p_respawn[i])
                p *= p_there if later[i] else 1.0 - p_there
            p *= 1.0 - float(np.dot(collected, level.p_term))
            value += p * naive_value(level, arrived, later, horizon - 1) if p else 0.0
        best = max(best, value)
    return best


def naive_move(level, cell, action):
    side = int(level.side)
    row, column = cell // side + MOVES[action][0], cell % side + MOVES[action][1]
    inside = 0 <= row < side and 0 <= column < side
    return row * side + column if inside and not level.walls[row * side + column] else cell


# Dynamics.


def test_steps_equal_a_naive_loop():
    """Levels whose probabilities are 0 or 1, random actions; nothing is left to chance but the actions."""
    num, num_steps = 60, 40
    levels = draw("debug", num, seed=0)
    rng = np.random.default_rng(0)
    certain = {name: rng.integers(0, 2, (num, 2)).astype(np.float32) for name in ("p_term", "p_respawn")}
    levels = jax.device_get(levels.replace(**certain))

    def choose(obs, t, key):
        return jax.random.randint(jax.random.fold_in(key, 1), (), 0, 5)

    keys = jax.random.split(jax.random.key(1), num)
    run = jax.jit(jax.vmap(lambda level, key: play(ENV, level, choose, key, num_steps)[:4]))
    record = jax.device_get(run(levels, keys))
    num_collected = 0
    for i in range(num):
        level = jax.tree.map(lambda leaf, i=i: leaf[i], levels)
        obs, action, reward, terminated = (leaf[i] for leaf in record)
        cell, exists = int(level.start), [bool(p) for p in level.present]
        for t in range(num_steps):
            index = cell * 4 + exists[0] * 2 + exists[1]
            np.testing.assert_allclose(obs[t], [index, 0.001 * t], rtol=1e-6)
            cell = naive_move(level, cell, action[t])
            collected = [exists[j] and level.cell[j] == cell for j in range(2)]
            num_collected += sum(collected)
            exists = [
                (exists[j] or bool(level.present[j] and level.p_respawn[j])) and not collected[j] for j in range(2)
            ]
            np.testing.assert_allclose(reward[t], np.dot(collected, level.reward), rtol=1e-6)
            assert terminated[t] == (np.dot(collected, level.p_term) > 0 or t + 1 >= level.limit)
    assert num_collected > 50


def test_coins_are_fair_and_independent():
    """Three flips of one number, and certain ones among them; the rarest as rare as it should be."""
    p = np.array([0.5, 0.01, 0.1, 0.9, 0.02, 1.0, 0.0])
    num = 400_000
    uniform = jax.random.uniform(jax.random.key(0), (num, 3))
    flips = np.asarray(jax.jit(jax.vmap(lambda u: _flip(u, jnp.array(p, jnp.float32))))(uniform), float)
    together = flips.T @ flips / num
    expected = np.outer(p, p)
    np.fill_diagonal(expected, p)
    np.testing.assert_array_less(np.abs(together - expected), 4 * np.sqrt(expected * (1 - expected) / num) + 1e-9)


@pytest.fixture(scope="module")
def restless():
    """200 steps in 32 levels in which random objects come back at once: cells [N, T, objects] and what was seen."""
    env = grid_random("small", tabular=False)
    levels = draw("small", 32, seed=3)
    levels = levels.replace(p_respawn=jnp.ones((32, 3)), p_term=jnp.zeros((32, 3)), limit=jnp.full(32, 1000))

    def run(level, key):
        return play(env, level, lambda obs, t, k: jax.random.randint(jax.random.fold_in(k, 1), (), 0, 5), key, 200)

    obs, action, reward, _, states = jax.jit(jax.vmap(run))(levels, jax.random.split(jax.random.key(4), 32))
    return env, levels, obs, reward, states


def test_random_objects_stay_off_walls_each_other_and_the_outside(restless):
    _, levels, _, reward, states = restless
    assert (np.asarray(reward) != 0).sum() > 100  # so often one had to come back; about one per 40 steps
    cell, exists = np.asarray(states.cell), np.asarray(states.exists)
    for i in range(32):
        there = cell[i][exists[i]]
        assert not np.asarray(levels.walls)[i][there].any()
        assert there.max() < int(levels.side[i]) ** 2
        rows = [c[e] for c, e in zip(cell[i], exists[i], strict=True)]
        assert all(len(set(row)) == len(row) for row in rows)
    num_moves = (np.diff(cell, axis=1) != 0).sum()
    assert num_moves > 0.7 * (np.asarray(reward) != 0).sum()  # few come back where they were


def test_random_observations_show_agent_and_objects(restless):
    _, levels, obs, _, states = restless
    obs, cells = np.asarray(obs), 36
    assert obs.shape[-1] == cells * 4 + 1
    agent, planes = obs[..., :cells], obs[..., cells:-1].reshape(32, 200, 3, cells)
    assert (agent.sum(-1) == 1).all()
    np.testing.assert_allclose(obs[0, :, -1], 0.001 * np.arange(200), rtol=1e-6)
    # The observation after step t is that before step t + 1.
    at = np.asarray(states.row * levels.side[:, None] + states.column)
    assert (np.argmax(agent[:, 1:], -1) == at[:, :-1]).all()
    for kind in range(3):
        shown = planes[:, 1:, kind].sum(-1)
        np.testing.assert_array_equal(shown, np.asarray(states.exists)[:, :-1, kind])
        where = np.argmax(planes[:, 1:, kind], -1)
        np.testing.assert_array_equal(where[shown > 0], np.asarray(states.cell)[:, :-1, kind][shown > 0])


def test_places_are_uniform_over_what_is_free():
    """Reset of a 2 x 2 level with one wall, the start, two objects: each of the two orders half of the time."""
    env = GridWorld(2, 2, 2, tabular=False)
    level = make_level(2, (1,), [(0, 1, 0, 0), (0, 1, 0, 0)], 5, max_side=2)
    crowded = make_level(2, (1, 3), [(0, 1, 0, 0), (0, 1, 0, 0)], 5, max_side=2)
    reset = jax.vmap(jax.vmap(env.reset, (0, None)), (None, 0))
    states, _ = jax.jit(reset)(jax.random.split(jax.random.key(0), 1000), stacked([level, crowded]))
    cells = np.asarray(states.cell)
    assert set(map(tuple, cells[0].tolist())) == {(2, 3), (3, 2)}
    assert abs((cells[0, :, 0] == 2).mean() - 0.5) < 0.07
    assert (cells[1, :, 0] == 2).all()
    assert np.all(np.asarray(states.exists)[1] == [True, False])  # no room for the second


@pytest.mark.parametrize("tabular", [True, False])
def test_types_do_not_depend_on_double_precision(tabular):
    """So that meta-gradients can be checked in float64 on the same environment."""
    env = GridWorld(4, 2, 2, tabular)

    def run(key):
        level = sample_level(key, DISTRIBUTIONS["debug"])
        state, obs = env.reset(key, level)
        return level, state, obs, env.step(key, state, jnp.int32(0), level)

    single = jax.eval_shape(run, jax.random.key(0))
    with jax.enable_x64(True):
        assert jax.eval_shape(run, jax.random.key(0)) == single


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"< 2\*\*24, got 26214400; use fewer objects, or tabular=False"):
        GridWorld(10, 18, 1)
    with pytest.raises(ValueError, match="max_side >= 2"):
        GridWorld(1, 1, 1)
    with pytest.raises(ValueError, match=r"padded to walls \[25\] and cell \[2\]"):
        GridWorld(5, 2, 2, level=make_level(3, (), [(8, 1, 1, 0)], 5))
    with pytest.raises(ValueError, match="need a tabular GridWorld"):
        optimal_values(make_level(3, (), [(8, 1, 1, 0)], 5), GridWorld(4, 2, 2, tabular=False))
