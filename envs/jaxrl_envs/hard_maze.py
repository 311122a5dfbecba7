"""The hard maze: a robot that must go away from the goal to reach it. Fitness by distance is deceptive here.

A round robot with six range finders and a radar of the goal drives for 400 steps and is paid only at the last one,
minus its distance to the goal. Everything is deterministic. Walls stop it; they do not end the episode.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.spaces import Box, Space
from jaxrl.types import Key, Timestep

# x1 y1 x2 y2 of each segment.
WALLS = np.array(
    [
        [41, 5, 3, 8], [3, 8, 4, 49], [4, 49, 57, 53], [4, 49, 7, 202], [7, 202, 195, 198], [195, 198, 186, 8],
        [186, 8, 39, 5], [56, 54, 56, 157], [57, 106, 158, 162], [77, 201, 108, 164], [6, 80, 33, 121],
        [192, 146, 87, 91], [56, 55, 133, 30],
    ],
    np.float32,
)  # fmt: skip
# Begin and extent of each wall, x and y apart.
_SEGMENTS = np.concatenate([WALLS[:, :2], WALLS[:, 2:] - WALLS[:, :2]], 1)
START, GOAL = (36.0, 184.0), (31.0, 20.0)
EXTENT = 206.0  # the square that contains everything, from 0
RADIUS = 8.0
REACHED = 10.0  # distance to the goal that counts as solved
_RANGE = 100.0
_FINDERS = np.array([-90.0, -45.0, 0.0, 45.0, 90.0, -180.0], np.float32)
_MAX_SPEED, _ACCELERATION = 3.0, 0.2
_SIDE, _FRAMES = 84, 4


@struct.dataclass
class HardMazeParams:
    """Numbers of the maze; traced.

    Attributes:
      max_steps: after which an episode is over and pays.
    """

    max_steps: int | jax.Array = 400


@struct.dataclass
class HardMazeState:
    """State of the robot.

    Attributes:
      position: [2], in the units of the walls.
      heading: degrees, in [0, 360].
      speed, angular_velocity: units and degrees per step.
      nearest: the smallest distance to the goal so far.
      time: int32, steps since the reset.
      frames: the last four pictures, [84, 84, 4] uint8; `()` with sensors.
    """

    position: jax.Array
    heading: jax.Array
    speed: jax.Array
    angular_velocity: jax.Array
    nearest: jax.Array
    time: jax.Array
    frames: Any = ()


@dataclasses.dataclass(frozen=True)
class HardMaze:
    """The maze, with sensors or seen from above.

    Actions are (turn, speed) in [-0.5, 0.5]: the angular velocity and the speed that the robot takes up, 3 degrees and
    3 units per step at 0.5, at a limited acceleration. Observed are, with sensors, 11 numbers: 1, six distances to the
    next wall within 100, over 100, at -90, -45, 0, 45, 90 and 180 degrees from the heading, and in which of the four
    quarters around the heading the goal lies (ahead, left in its sense of turning, behind, right). With images, the
    last four pictures of walls (64), goal (128) and robot (255) as seen from above, [84, 84, 4].

    Args:
      images: observe pictures instead of the sensors.

    References:
      Lehman & Stanley 2011; as in the release of Such et al. 2017, arXiv:1712.06567. The pictures are ours: theirs were
      not released.
    """

    images: bool = False

    @property
    def default_params(self) -> HardMazeParams:
        """400 steps."""
        return HardMazeParams()

    def reset(self, key: Key, params: HardMazeParams) -> tuple[HardMazeState, jax.Array]:
        """The start, always the same."""
        del key, params
        zero, start = jnp.float32(0.0), jnp.array(START, jnp.float32)
        state = HardMazeState(start, zero, zero, zero, _goal_distance(start), jnp.int32(0))
        if self.images:
            state = dataclasses.replace(state, frames=jnp.repeat(_picture(start)[..., None], _FRAMES, -1))
        return state, self._observe(state)

    def step(
        self, key: Key, state: HardMazeState, action: jax.Array, params: HardMazeParams
    ) -> tuple[HardMazeState, Timestep]:
        """The next state, and what the agent sees of it; nothing is random."""
        del key
        target = 2.0 * _MAX_SPEED * (jnp.clip(jnp.asarray(action, jnp.float32) + 0.5, 0.0, 1.0) - 0.5)
        angular_velocity = _approach(state.angular_velocity, target[0])
        speed = _approach(state.speed, target[1])
        # It moves along the heading that it had before it turned.
        angle = jnp.deg2rad(state.heading)
        wanted = state.position + speed * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        position = jnp.where(_wall_distance(wanted) >= RADIUS, wanted, state.position)
        heading = state.heading + angular_velocity
        heading = jnp.where(heading > 360.0, heading - 360.0, jnp.where(heading < 0.0, heading + 360.0, heading))
        distance, time = _goal_distance(position), state.time + 1
        nearest = jnp.minimum(state.nearest, distance)
        state = HardMazeState(position, heading, speed, angular_velocity, nearest, time, state.frames)
        if self.images:
            state = dataclasses.replace(
                state, frames=jnp.concatenate([state.frames[..., 1:], _picture(position)[..., None]], -1)
            )
        is_last = time >= params.max_steps
        obs = self._observe(state)
        return state, Timestep(obs, jnp.where(is_last, -distance, 0.0), is_last, jnp.array(False), obs, {})

    def observation_space(self, params: HardMazeParams) -> Space:
        """11 numbers in [0, 1], or images."""
        del params
        return Box(0, 255, (_SIDE, _SIDE, _FRAMES), jnp.uint8) if self.images else Box(0.0, 1.0, (11,))

    def action_space(self, params: HardMazeParams) -> Space:
        """Turn and speed."""
        del params
        return Box(-0.5, 0.5, (2,))

    def behaviour(self, state: HardMazeState, params: HardMazeParams) -> jax.Array:
        """[2], where the robot is: the usual characterisation of its behaviour is where it ends up."""
        del params
        return state.position

    def behaviour_bounds(self, params: HardMazeParams) -> tuple[np.ndarray, np.ndarray]:
        """The smallest and the largest behaviour, [2] each."""
        del params
        return np.zeros(2, np.float32), np.full(2, EXTENT, np.float32)

    def image(self, state: HardMazeState, params: HardMazeParams) -> np.ndarray:
        """A picture of the maze, the robot and its heading, [H, W, 3] uint8."""
        from jaxrl_envs.hard_maze_drawing import maze_image

        del params
        return maze_image(np.asarray(state.position), float(state.heading))

    def path_image(self, states: HardMazeState, params: HardMazeParams) -> np.ndarray:
        """The same after states [T, …], with the way that led there."""
        from jaxrl_envs.hard_maze_drawing import maze_image

        del params
        path = np.asarray(states.position)
        return maze_image(path[-1], float(np.asarray(states.heading)[-1]), path=path)

    def _observe(self, state: HardMazeState) -> jax.Array:
        return state.frames if self.images else _sensors(state)


def _approach(value: jax.Array, target: jax.Array) -> jax.Array:
    moved = value + jnp.clip(target - value, -_ACCELERATION, _ACCELERATION)
    return jnp.clip(moved, -_MAX_SPEED, _MAX_SPEED)


def _goal_distance(position: jax.Array) -> jax.Array:
    return jnp.linalg.norm(position - jnp.array(GOAL, jnp.float32))


def _wall_distance(point: jax.Array) -> jax.Array:
    """To the nearest wall; one wall after the other, which compilers make wide operations over robots of."""
    squares = []
    for begin_x, begin_y, along_x, along_y in _SEGMENTS:
        away_x, away_y = point[0] - begin_x, point[1] - begin_y
        share = jnp.clip((away_x * along_x + away_y * along_y) / (along_x**2 + along_y**2), 0.0, 1.0)
        squares.append(jnp.square(away_x - share * along_x) + jnp.square(away_y - share * along_y))
    return jnp.sqrt(functools.reduce(jnp.minimum, squares))


def _sensors(state: HardMazeState) -> jax.Array:
    angles = jnp.deg2rad(state.heading + _FINDERS)
    ray_x, ray_y = jnp.cos(angles), jnp.sin(angles)
    # position + t * ray = begin + u * along, for every wall and ray; parallel ones give no number, which is no hit.
    begin_x, begin_y, along_x, along_y = jnp.asarray(_SEGMENTS.T[:, :, None])
    away_x, away_y = begin_x - state.position[0], begin_y - state.position[1]
    cross = ray_x * along_y - ray_y * along_x
    t = (away_x * along_y - away_y * along_x) / cross
    u = (away_x * ray_y - away_y * ray_x) / cross
    on_wall = jnp.abs(u - 0.5) <= 0.5
    ranges = jnp.min(jnp.where(jnp.where(on_wall, t, -1.0) >= 0.0, t, _RANGE), 0)
    ranges = jnp.minimum(ranges, _RANGE) / _RANGE
    to_goal = jnp.array(GOAL, jnp.float32) - state.position
    bearing = jnp.mod(jnp.rad2deg(jnp.arctan2(to_goal[1], to_goal[0])) - state.heading, 360.0)
    quarter = jnp.floor(jnp.mod(bearing + 45.0, 360.0) / 90.0).astype(jnp.int32)
    return jnp.concatenate([jnp.ones(1), ranges, jnp.arange(4) == quarter])


_PIXELS = (np.stack(np.meshgrid(np.arange(_SIDE), np.arange(_SIDE), indexing="xy"), -1) + 0.5) * (EXTENT / _SIDE)


def _still() -> np.ndarray:
    """Walls and goal, [84, 84] uint8."""
    begin, along = WALLS[:, :2], WALLS[:, 2:] - WALLS[:, :2]
    away = _PIXELS[:, :, None] - begin
    share = np.clip(np.sum(away * along, -1) / np.sum(along**2, -1), 0.0, 1.0)
    distance = np.linalg.norm(away - share[..., None] * along, axis=-1).min(-1)
    picture = np.where(distance <= EXTENT / _SIDE, 64, 0)
    return np.where(np.linalg.norm(_PIXELS - np.array(GOAL), axis=-1) <= RADIUS, 128, picture).astype(np.uint8)


_STILL = _still()


def _picture(position: jax.Array) -> jax.Array:
    """Seen from above, [84, 84] uint8; y downwards."""
    near = jnp.sum(jnp.square(jnp.asarray(_PIXELS, jnp.float32) - position), -1) <= RADIUS**2
    return jnp.where(near, jnp.uint8(255), jnp.asarray(_STILL))


def hard_maze(images: bool = False) -> HardMaze:
    """The hard maze, observed by sensors or as images."""
    return HardMaze(images)
