"""The hard maze against numbers of the published simulator, its pictures, and the environment's contract."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl.env_checks import check_environment
from jaxrl_envs.hard_maze import GOAL, START, WALLS, HardMaze, HardMazeParams, hard_maze
from jaxrl_envs.hard_maze_drawing import maze_image

KEY, ENV = jax.random.key(0), hard_maze()
PARAMS = ENV.default_params


@jax.jit
def drive(actions: jax.Array) -> tuple[Any, Any]:
    """States and timesteps after each action, leaves [T, …]."""
    state, _ = ENV.reset(KEY, PARAMS)

    def body(state: Any, action: jax.Array) -> Any:
        state, timestep = ENV.step(KEY, state, action, PARAMS)
        return state, (state, timestep)

    return jax.lax.scan(body, state, actions)[1]


def constant(turn: float, speed: float) -> tuple[Any, Any]:
    return drive(jnp.tile(jnp.array([turn, speed]), (400, 1)))


def distance(states: Any) -> np.ndarray:
    return np.linalg.norm(np.asarray(states.position) - np.array(GOAL), axis=-1)


def test_first_observation() -> None:
    _, obs = ENV.reset(KEY, PARAMS)
    expected = [1, 1, 0.815560, 0.552432, 0.240711, 0.173830, 0.293529, 0, 0, 0, 1]
    np.testing.assert_allclose(obs, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(np.subtract(START, GOAL)), 164.0762, atol=1e-4)


def test_standing_still_pays_minus_the_distance_at_the_end() -> None:
    _, timesteps = constant(0.0, 0.0)
    np.testing.assert_array_equal(timesteps.reward[:-1], 0.0)
    np.testing.assert_allclose(timesteps.reward[-1], -164.0762, atol=1e-4)
    assert np.asarray(timesteps.terminated).tolist() == [False] * 399 + [True]
    assert not timesteps.truncated.any()


def test_straight_into_a_wall() -> None:
    states, timesteps = constant(0.0, 0.5)
    np.testing.assert_allclose(np.asarray(states.position)[[9, 99, 399]], [[47, 184], [78, 184], [78, 184]], atol=1e-4)
    moved = np.diff(np.asarray(states.position)[:, 0], prepend=START[0]) > 0
    assert 400 - moved.sum() == 379
    np.testing.assert_allclose(timesteps.reward[-1], -170.6019, atol=1e-4)
    assert float(states.speed[-1]) == 3.0  # kept, though the wall stops it


def test_a_slow_turn() -> None:
    states, _ = constant(0.02, 0.3)
    np.testing.assert_allclose(
        np.asarray(states.position)[[9, 99]], [[46.7990, 184.1344], [79.1728, 185.3894]], atol=1e-4
    )
    np.testing.assert_allclose(states.heading[np.array([9, 99, 399])], [1.2, 12.0, 48.0], atol=1e-3)
    np.testing.assert_allclose(states.speed[9], 1.8, atol=1e-5)
    np.testing.assert_allclose(distance(states)[-1], 172.2622, atol=1e-4)


def test_a_wavy_drive() -> None:
    steps = np.arange(400)
    actions = np.stack([np.where(steps // 20 % 2 == 0, 0.1, -0.1), np.where(steps % 100 < 70, 0.5, -0.2)], -1)
    states, _ = drive(jnp.asarray(actions, jnp.float32))
    np.testing.assert_allclose(states.position[99], [61.8014, 186.9049], atol=2e-3)
    np.testing.assert_allclose(states.heading[99], 11.4, atol=1e-3)
    np.testing.assert_allclose(states.speed[99], -1.2, atol=1e-4)


def test_range_finders_by_bisection() -> None:
    """From places and headings drawn at random: the first point of the ray that a wall is within a hair of."""
    rng = np.random.default_rng(0)
    begin, along = WALLS[:, :2].astype(np.float64), (WALLS[:, 2:] - WALLS[:, :2]).astype(np.float64)

    def wall_distance(points: np.ndarray) -> np.ndarray:
        away = points[:, None] - begin
        share = np.clip((away * along).sum(-1) / (along**2).sum(-1), 0, 1)
        return np.linalg.norm(away - share[..., None] * along, axis=-1).min(-1)

    for _ in range(5):
        position, heading = rng.uniform(30, 170, 2), rng.uniform(0, 360)
        state, _ = ENV.reset(KEY, PARAMS)
        state = state.replace(position=jnp.asarray(position, jnp.float32), heading=jnp.float32(heading))
        seen = np.asarray(ENV._observe(state))[1:7] * 100
        for angle, found in zip(np.deg2rad(heading + np.array([-90, -45, 0, 45, 90, 180])), seen, strict=True):
            steps = np.linspace(0, 100, 20_001)
            near = wall_distance(position + steps[:, None] * [np.cos(angle), np.sin(angle)]) < 0.0051
            first = steps[near.argmax()] if near.any() else 100.0
            assert abs(found - first) < 0.25 or (found - first >= 0 and found - first < 1.5), (position, heading)


def test_goal_radar() -> None:
    state, _ = ENV.reset(KEY, PARAMS)
    bearing = np.rad2deg(np.arctan2(GOAL[1] - START[1], GOAL[0] - START[0])) % 360
    for offset, quarter in (
        (0, 0),
        (44, 0),
        (-44, 0),
        (46, 1),
        (90, 1),
        (134, 1),
        (136, 2),
        (180, 2),
        (-46, 3),
        (-134, 3),
    ):
        seen = ENV._observe(state.replace(heading=jnp.float32((bearing - offset) % 360)))[7:]
        np.testing.assert_array_equal(seen, np.eye(4)[quarter])


def test_length_is_a_parameter() -> None:
    state, _ = ENV.reset(KEY, PARAMS)
    _, timestep = jax.jit(ENV.step)(KEY, state, jnp.zeros(2), HardMazeParams(max_steps=1))
    assert bool(timestep.terminated)
    np.testing.assert_allclose(timestep.reward, -164.0762, atol=1e-4)


@pytest.mark.parametrize("name", ["hard_maze", "hard_maze_images"])
def test_check_environment(name: str) -> None:
    env = jaxrl_envs.make(name)
    report = check_environment(env, num_steps=60, params=HardMazeParams(max_steps=25))
    assert report.num_terminated > 0
    assert report.num_truncated == 0


def test_pictures_observed() -> None:
    """Four frames, the newest last; the robot is where it is, and hides what is below."""
    env = HardMaze(images=True)
    state, obs = env.reset(KEY, PARAMS)
    assert (obs.shape, obs.dtype) == ((84, 84, 4), jnp.uint8)
    assert set(np.unique(obs)) == {0, 64, 128, 255}
    for i in range(4):
        np.testing.assert_array_equal(obs[..., i], obs[..., 0])
    step = jax.jit(env.step)
    for _ in range(12):
        state, timestep = step(KEY, state, jnp.array([0.0, 0.5]), PARAMS)
    frames = np.asarray(timestep.obs)
    assert (frames[..., 3] != frames[..., 0]).any()
    unit = 206.0 / 84
    rows, columns = np.nonzero(frames[..., 3] == 255)
    centre = [(columns.mean() + 0.5) * unit, (rows.mean() + 0.5) * unit]
    np.testing.assert_allclose(centre, state.position, atol=1.5)
    assert abs(len(rows) * unit**2 - np.pi * 8**2) < 20
    same, _ = drive(jnp.tile(jnp.array([0.0, 0.5]), (12, 1)))
    np.testing.assert_allclose(same.position[-1], state.position, atol=1e-4)


def test_drawing() -> None:
    state, _ = ENV.reset(KEY, PARAMS)
    picture = ENV.image(state, PARAMS)
    assert (picture.shape, picture.dtype) == ((300, 300, 3), np.uint8)
    scale = 300 / 206.0
    x, y = (round(c * scale) for c in GOAL)
    np.testing.assert_array_equal(picture[y, x], (46, 139, 87))
    left = picture[round(START[1] * scale), round((START[0] - 5) * scale)]
    np.testing.assert_array_equal(left, (37, 99, 175))
    way = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)
    way = way.replace(position=jnp.array([[100.0, 100.0], [150.0, 180.0]]), heading=jnp.array([0.0, 90.0]))
    expected = maze_image([150, 180], 90.0, path=[[100, 100], [150, 180]])
    np.testing.assert_array_equal(ENV.path_image(way, PARAMS), expected)
    marked = maze_image(path=[[100, 100], [150, 180]], ends=[[20, 150]])
    np.testing.assert_array_equal(marked[round(150 * scale), round(20 * scale)], (230, 120, 40))
    assert (marked[round(140 * scale), round(125 * scale)] < 250).any()
