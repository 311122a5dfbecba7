"""Levels: what the distributions draw, the published levels, the mazes, and drawings as text."""

import dataclasses

import jax
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs.gridworld import (
    DISTRIBUTIONS,
    HANDCRAFTED,
    MAZES,
    GridWorld,
    LevelDistribution,
    grid_random,
    handcrafted,
    level_from_drawing,
    maze,
    optimal_return,
    sample_level,
)


def draw(name, num, seed=0):
    keys = jax.random.split(jax.random.key(seed), num)
    return jax.device_get(jax.jit(jax.vmap(lambda key: sample_level(key, DISTRIBUTIONS[name])))(keys))


@pytest.fixture(scope="module")
def levels():
    return draw("all", 4000)


def test_ranges_of_all(levels):
    assert set(np.unique(levels.side)) == set(range(4, 11))
    number = levels.present.sum(1)
    assert set(np.unique(number)) == {1, 2, 3, 4, 5}
    assert (levels.present == (np.arange(5) < number[:, None])).all()
    assert (levels.kind == np.arange(5)).all()
    assert 20 <= levels.limit.min() <= 21
    assert 740 < levels.limit.max() <= 750
    assert (levels.reward[:, 0] >= 0).all()
    assert (levels.reward[:, 1:] < 0).mean() == pytest.approx(0.5, abs=0.02)
    assert np.abs(levels.reward).max() <= 1
    for p, low, high in ((levels.p_term, 0.01, 1.0), (levels.p_respawn, 0.001, 0.1)):
        assert low <= p.min() < 1.01 * low
        assert 0.99 * high < p.max() <= np.float32(high)
        assert np.log(p).mean() == pytest.approx(np.log(low * high) / 2, abs=0.03)
    assert (levels.lifetime == 1000).all()


def test_log_uniform_limits(levels):
    """The logarithm's quartiles are evenly spaced."""
    expected = np.exp(np.linspace(np.log(20), np.log(751), 5))[1:-1]
    np.testing.assert_allclose(np.quantile(levels.limit, [0.25, 0.5, 0.75]), expected, rtol=0.06)


def test_walls_and_cells_of_all(levels):
    assert (levels.walls.sum(1) == 15).all()
    np.testing.assert_allclose(levels.walls.mean(0), 0.15, atol=0.03)  # five standard deviations
    for i in range(len(levels.side)):
        cells = [int(levels.start[i]), *levels.cell[i][levels.present[i]].tolist()]
        assert len(set(cells)) == len(cells)
        assert max(cells) < levels.side[i] ** 2
        assert not levels.walls[i][cells].any()


def test_start_and_objects_are_uniform_over_free_cells(levels):
    """Their rank among the free cells, as a fraction, has the mean of a uniform number."""
    for which in ("start", "cell"):
        fraction = []
        for i in range(len(levels.side)):
            free = np.flatnonzero(~levels.walls[i][: levels.side[i] ** 2])
            cell = levels.start[i] if which == "start" else levels.cell[i, 0]
            fraction.append((np.searchsorted(free, cell) + 0.5) / len(free))
        assert np.mean(fraction) == pytest.approx(0.5, abs=0.02)
        assert np.var(fraction) == pytest.approx(1 / 12, abs=0.006)


def test_keys_decide(levels):
    again = draw("all", 3)
    key = jax.random.split(jax.random.key(0), 3)[1]
    single = jax.jit(lambda key: sample_level(key, DISTRIBUTIONS["all"]))(key)
    for field in dataclasses.fields(single):
        one, batch = getattr(single, field.name), getattr(again, field.name)
        np.testing.assert_allclose(one, batch[1], rtol=1e-6)
    assert not np.array_equal(levels.walls[0], levels.walls[1])


@pytest.mark.parametrize(
    ("name", "side", "limit", "number", "walls", "lifetime"),
    [
        ("all_vrandlife", (4, 10), (20, 750), (1, 5), {15}, (10, 250)),
        ("small", (4, 6), (20, 100), (1, 3), {7}, (250, 250)),
        ("large", (8, 10), (250, 750), (2, 5), {15}, (2500, 2500)),
        ("debug", (3, 4), (5, 10), (1, 2), {2}, (4, 4)),
        ("debug_vrandlife", (3, 4), (5, 10), (1, 2), {2}, (5, 50)),
        ("mazes", (13, 13), (25, 50), (1, 5), {drawing.count("#") for drawing in MAZES}, (2500, 2500)),
    ],
)
def test_ranges_of_the_others(name, side, limit, number, walls, lifetime):
    levels = draw(name, 300)
    assert (levels.side.min(), levels.side.max()) == side
    assert limit[0] <= levels.limit.min() < levels.limit.max() <= limit[1]
    present = levels.present.sum(1)
    assert (present.min(), present.max()) == number
    assert set(levels.walls.sum(1)) == walls
    assert lifetime[0] <= levels.lifetime.min() <= levels.lifetime.max() <= lifetime[1]
    if name == "all_vrandlife":
        assert np.median(levels.lifetime) == pytest.approx(50, abs=12)  # log-uniform: the geometric mean
    if name == "mazes":
        assert (levels.reward >= 0).all()


def test_crowded_levels_leave_objects_out():
    """Five free cells at most: the start is always free, and what has no room is not there."""
    crowded = LevelDistribution(side=(3, 3), num_walls=5, num_objects=(5, 5))
    keys = jax.random.split(jax.random.key(0), 20)
    levels = jax.device_get(jax.jit(jax.vmap(lambda key: sample_level(key, crowded)))(keys))
    np.testing.assert_array_equal(levels.present, np.tile([True, True, True, False, False], (20, 1)))
    assert not np.take_along_axis(levels.walls, levels.start[:, None], 1).any()


# Published levels and mazes.

PUBLISHED = {
    "dense": (11, [(1, 0, 0.05)] * 2 + [(-1, 0.5, 0.1), (-1, 0, 0.5)], 500),
    "sparse": (13, [(1, 1, 0), (-1, 1, 0)], 50),
    "long_horizon": (11, [(1, 0, 0.01)] * 2 + [(-1, 0.5, 1)] * 2, 1000),
    "longer_horizon": (9, [(1, 0.1, 0.01)] * 2 + [(-1, 0.8, 1)] * 5, 2000),
    "long_dense": (11, [(1, 0, 0.005)] * 4, 2000),
    "rand_dense": (11, [(1, 0, 0.05)] * 2 + [(-1, 0.5, 0.1), (-1, 0, 0.5)], 500),
    "rand_long": (11, [(1, 0, 0.01)] * 2 + [(-1, 0.5, 1)] * 2, 1000),
    "rand_small": (7, [(1, 0, 0.05)] * 2 + [(-1, 0.5, 0.1)] * 2, 500),
    "rand_sparse": (7, [(1, 1, 1)] + [(-1, 1, 1)] * 2, 50),
    "rand_very_dense": (11, [(1, 0, 1)], 2000),
}
PUBLISHED_WALLS = {
    "longer_horizon": {(row, 4) for row in range(9)} - {(1, 4), (7, 4)},
    "long_dense": ({(row, 5) for row in range(11)} - {(0, 5), (7, 5)})
    | ({(4, column) for column in range(11)} - {(4, 2), (4, 8)}),
}


def test_published_levels():
    assert list(HANDCRAFTED) == list(PUBLISHED)
    for name, (side, objects, limit) in PUBLISHED.items():
        env, level = HANDCRAFTED[name], HANDCRAFTED[name].default_params
        assert env.tabular == (not name.startswith("rand_"))
        assert (env.max_side, int(level.side), int(level.limit)) == (side, side, limit)
        table = np.stack([level.reward, level.p_term, level.p_respawn], 1)
        np.testing.assert_array_equal(table, np.array(objects, np.float32))
        assert [level.kind[i] == level.kind[0] for i in range(len(objects))] == [obj == objects[0] for obj in objects]
        walls = {(cell // side, cell % side) for cell in np.flatnonzero(level.walls)}
        if name == "rand_small":
            assert len(walls) == 2
        else:
            assert walls == PUBLISHED_WALLS.get(name, set())
        assert f"grid_{name}" in jaxrl_envs.list_envs()
        assert jaxrl_envs.make(f"grid_{name}") is env


def test_mazes_are_connected_and_their_goals_within_reach():
    assert len(set(MAZES)) == 9
    worlds = [jaxrl_envs.make(f"maze_{index}") for index in range(1, 10)]
    levels = jax.tree.map(lambda *leaves: np.stack(leaves), *(world.default_params for world in worlds))
    returns = jax.jit(jax.vmap(lambda level: optimal_return(level, worlds[0])))(levels)
    np.testing.assert_allclose(returns, 1.0, atol=1e-6)
    for drawing in MAZES:
        cells = {(r, c) for r, row in enumerate(drawing.split()) for c, cell in enumerate(row) if cell != "#"}
        reached, frontier = {(0, 0)}, [(0, 0)]
        while frontier:
            row, column = frontier.pop()
            near = {(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)} & cells - reached
            reached |= near
            frontier += near
        assert reached == cells


def test_drawings():
    level = level_from_drawing("#1. S.. .#0", [(1.0, 0.5, 0.25), (-1.0, 1.0, 0.0)], limit=7, max_objects=3)
    assert (int(level.side), int(level.start), int(level.limit)) == (3, 3, 7)
    np.testing.assert_array_equal(np.flatnonzero(level.walls), [0, 7])
    np.testing.assert_array_equal(level.cell, [8, 1, 0])
    np.testing.assert_array_equal(level.present, [True, True, False])
    np.testing.assert_array_equal(level.kind, [0, 1, 0])
    assert GridWorld(3, 3, 2, level=level).default_params is level


@pytest.mark.parametrize(
    ("drawing", "message"),
    [
        ("S. ..0 ...", "square drawing"),
        ("S. ..", "one '0' in the drawing, got 0"),
        ("SS 0.", "one 'S' in the drawing, got 2"),
        ("Sx 0.", r"got \['x'\]"),
    ],
)
def test_wrong_drawings_are_named(drawing, message):
    with pytest.raises(ValueError, match=message):
        level_from_drawing(drawing, [(1.0, 0.0, 0.0)], limit=5)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="expected one of dense, sparse"):
        handcrafted("densest")
    with pytest.raises(ValueError, match="integer from 1 to 9"):
        maze(10)
    with pytest.raises(ValueError, match="expected one of all, all_shortlife"):
        grid_random("tiny")
    with pytest.raises(ValueError, match="fewer than the 9 cells"):
        LevelDistribution(side=(3, 5), num_walls=9)
    with pytest.raises(ValueError, match=r"p_term = \(0.5, 2\)"):
        LevelDistribution(p_term=(0.5, 2))
    with pytest.raises(ValueError, match="drawings: expected squares of one size"):
        LevelDistribution(drawings=("... ...",))
