"""A swarm that pushes a leader towards a moving target."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.spaces import Box, Space
from jaxrl.types import Key
from jaxrl_envs.mean_field.led import (
    HALF_WIDTH,
    Led,
    TrackingParams,
    led_features,
    next_target,
    places_image,
    require_dimension,
    uniform_places,
    wrapped,
)
from jaxrl_envs.mean_field.model import Swarm
from jaxrl_envs.mean_field.moves import limited


@dataclasses.dataclass(frozen=True)
class Potential:
    """Agents on a ring (or torus) of length 4 that push a leader towards its target.

    An agent nearer than `reach` pushes the leader away from itself, by `speed / 2 * (reach - distance)`, the mean over
    all agents. The team is paid minus the distance, straight, from leader to target.

    Args:
      dimension: 1 or 2.
    Raises:
      ValueError: for another dimension.
    References:
      Cui et al. 2023, arXiv:2303.10665, and its public code's numbers. Differs: in two dimensions the nearest image of
      the leader is that of each coordinate.
    """

    dimension: int = 1

    def __post_init__(self) -> None:
        require_dimension(self.dimension)

    @property
    def default_params(self) -> TrackingParams:
        """Target decay 0.99, variance 0.005, no noise, 100 steps."""
        return TrackingParams(target_decay=0.99, target_variance=0.005)

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Every coordinate."""
        return (True,) * self.dimension

    def reset(self, key: Key, num_agents: int, params: TrackingParams) -> Swarm:
        """Agents and leader uniform, the target near the middle."""
        key_place, key_leader, key_target = jax.random.split(key, 3)
        x = uniform_places(key_place, num_agents, self.dimension)
        leader = uniform_places(key_leader, 1, self.dimension)[0]
        return Swarm(x, jnp.int32(0), Led(leader, next_target(key_target, jnp.zeros(self.dimension), params)))

    def observe(self, key: Key, swarm: Swarm, params: TrackingParams) -> jax.Array:
        """[N, d], each agent's place."""
        del key, params
        return swarm.x

    def step(
        self, key: Key, swarm: Swarm, action: jax.Array, params: TrackingParams
    ) -> tuple[Swarm, jax.Array, dict[str, jax.Array]]:
        """Agents after one move, the leader after their push, the next target; the reward; `distance`."""
        key_move, key_leader, key_target = jax.random.split(key, 3)
        x, shared = swarm.x, swarm.shared
        distance = jnp.linalg.norm(shared.leader - shared.target)
        away = wrapped(shared.leader - x)
        length = jnp.linalg.norm(away, axis=1, keepdims=True)
        push = jnp.mean(jnp.maximum(params.reach - length, 0.0) * away / (length + 1e-10), axis=0)
        move = limited(jnp.asarray(action, jnp.float32).reshape(x.shape))
        x = wrapped(x + params.speed * move + params.noise * jax.random.normal(key_move, x.shape))
        shake = params.noise * jax.random.normal(key_leader, (self.dimension,))
        leader = wrapped(shared.leader + params.speed / 2 * push + shake)
        shared = Led(leader, next_target(key_target, shared.target, params))
        return Swarm(x, swarm.time + 1, shared), -distance, {"distance": distance}

    def shared_features(self, swarm: Swarm, params: TrackingParams) -> jax.Array:
        """[2 d], leader and target, in units of half the ring."""
        del params
        return led_features(swarm)

    def state_space(self, params: TrackingParams) -> Space:
        """The ring, or torus."""
        del params
        return Box(-HALF_WIDTH, HALF_WIDTH, (self.dimension,))

    def observation_space(self, params: TrackingParams) -> Space:
        """The ring, or torus."""
        return self.state_space(params)

    def action_space(self, params: TrackingParams) -> Space:
        """The move, in units of the longest."""
        del params
        return Box(-1.0, 1.0, (self.dimension,))

    def image(self, swarm: Swarm, params: TrackingParams) -> np.ndarray:
        """Agents; leader and target as dark points; [height, width, 3] uint8, on the host."""
        del params
        return places_image(np.asarray(swarm.x), np.stack([swarm.shared.leader, swarm.shared.target]))
