"""PointMass-Omni: a point that may go anywhere and is paid for sparing its forces; for quality-diversity."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.spaces import Box, Space
from jaxrl.types import Key, Timestep

_SPREAD, _FRICTION, _FORCE, _STEP = 0.01, 0.9, 0.05, 0.1
_PIXELS = 300  # of its picture, drawn twice as large and averaged down
_PAPER, _EDGE, _GRID, _PATH, _POINT = (255, 255, 255), (120, 128, 136), (232, 235, 238), (150, 185, 225), (37, 99, 175)


@struct.dataclass
class PointMassParams:
    """Numbers of the task; traced.

    Attributes:
      max_steps: after which an episode is truncated.
    """

    max_steps: int | jax.Array = 50


@struct.dataclass
class PointMassState:
    """Position and velocity, [2] each; the position before the last step; int32 steps since the reset."""

    position: jax.Array
    velocity: jax.Array
    previous: jax.Array
    time: jax.Array


@dataclasses.dataclass(frozen=True)
class PointMass:
    """A point in [-1, 1]^2 that starts near the middle, at rest.

    `v <- 0.9 v + 0.05 a; p <- clip(p + 0.1 v)`, a in [-1, 1]^2. Each step pays `1 - 0.5 mean(a^2)`, in [0.5, 1].
    Observed is (p, v). Behaviour is where the point is before its last step.
    """

    @property
    def default_params(self) -> PointMassParams:
        """50 steps."""
        return PointMassParams()

    def reset(self, key: Key, params: PointMassParams) -> tuple[PointMassState, jax.Array]:
        """A first state and its observation."""
        del params
        position = _SPREAD * jax.random.normal(key, (2,))
        state = PointMassState(position, jnp.zeros(2), position, jnp.int32(0))
        return state, self._observe(state)

    def step(
        self, key: Key, state: PointMassState, action: jax.Array, params: PointMassParams
    ) -> tuple[PointMassState, Timestep]:
        """The next state, and what the agent sees of it; nothing is random."""
        del key
        force = jnp.clip(jnp.asarray(action, jnp.float32), -1.0, 1.0)
        velocity = _FRICTION * state.velocity + _FORCE * force
        position = jnp.clip(state.position + _STEP * velocity, -1.0, 1.0)
        reward = 1.0 - 0.5 * jnp.square(force).mean()
        state = PointMassState(position, velocity, state.position, state.time + 1)
        obs = self._observe(state)
        return state, Timestep(obs, reward, jnp.array(False), state.time >= params.max_steps, obs, {})

    def observation_space(self, params: PointMassParams) -> Space:
        """Position in [-1, 1], velocity in [-0.5, 0.5]."""
        del params
        return Box((-1.0, -1.0, -0.5, -0.5), (1.0, 1.0, 0.5, 0.5), (4,))

    def action_space(self, params: PointMassParams) -> Space:
        """Force."""
        del params
        return Box(-1.0, 1.0, (2,))

    def behaviour(self, state: PointMassState, params: PointMassParams) -> jax.Array:
        """[2], where the point was before the step that led to `state`."""
        del params
        return state.previous

    def behaviour_bounds(self, params: PointMassParams) -> tuple[np.ndarray, np.ndarray]:
        """The smallest and the largest behaviour, [2] each."""
        del params
        return np.full(2, -1.0, np.float32), np.full(2, 1.0, np.float32)

    def image(self, state: PointMassState, params: PointMassParams) -> np.ndarray:
        """Where the point is in its square, y upwards, [300, 300, 3] uint8; on the host."""
        return self.path_image(jax.tree.map(lambda leaf: np.asarray(leaf)[None], state), params)

    def path_image(self, states: PointMassState, params: PointMassParams) -> np.ndarray:
        """The same after states [T, …], with the way that led there."""
        from PIL import Image, ImageDraw

        del params
        picture = Image.new("RGB", (2 * _PIXELS, 2 * _PIXELS), _PAPER)
        draw = ImageDraw.Draw(picture)
        unit = 0.94 * _PIXELS
        at = [(_PIXELS + unit * float(x), _PIXELS - unit * float(y)) for x, y in np.asarray(states.position)]
        edge = (_PIXELS - unit, _PIXELS + unit)
        draw.rectangle((edge[0], edge[0], edge[1], edge[1]), None, _EDGE, 3)
        for line in (((_PIXELS, edge[0]), (_PIXELS, edge[1])), ((edge[0], _PIXELS), (edge[1], _PIXELS))):
            draw.line(line, _GRID, 2)
        draw.line(at, _PATH, 5, joint="curve")
        x, y = at[-1]
        draw.ellipse((x - 13, y - 13, x + 13, y + 13), _POINT)
        return np.asarray(picture.reduce(2))

    @staticmethod
    def _observe(state: PointMassState) -> jax.Array:
        return jnp.concatenate([state.position, state.velocity])


def point_mass() -> PointMass:
    """The task as it is."""
    return PointMass()
