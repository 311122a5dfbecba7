"""A changing world that a swarm shares: numbers, a leader with a target, users; what its tasks have in common.

The box is [-2, 2]^d.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.types import Key
from jaxrl_envs.mean_field.checks import require_agents

HALF_WIDTH = 2.0


@struct.dataclass
class TrackingParams:
    """Numbers of the tasks; traced.

    Attributes:
      speed: v_max, length of the longest move.
      noise: standard deviation of each coordinate of a move.
      epsilon: of the transport cost, see `transport_sinkhorn`; squared length.
      period: steps of a cycle of `TwoGaussians`.
      target_decay, target_variance: the target's next place is normal around `decay` times its place.
      user_variance: of users around the centres (`TwoGaussians`) or around the leader (`Formation`).
      reach: how near an agent must be to push (`Potential`).
      max_steps: after which an episode is truncated.
    """

    speed: float | jax.Array = 0.2
    noise: float | jax.Array = 0.0
    epsilon: float | jax.Array = 0.03
    period: float | jax.Array = 50.0
    target_decay: float | jax.Array = 0.95
    target_variance: float | jax.Array = 0.02
    user_variance: float | jax.Array = 0.05
    reach: float | jax.Array = 1.0
    max_steps: int | jax.Array = 100


@struct.dataclass
class Led:
    """A leader at `leader` [d], its target [d], and users [M, d] (`()` where there are none)."""

    leader: jax.Array
    target: jax.Array
    users: Any = ()


def led_features(swarm: Any) -> jax.Array:
    """[2 d], leader and target of a swarm that is led, in units of half the box."""
    return jnp.concatenate([swarm.shared.leader, swarm.shared.target]) / HALF_WIDTH


def require_dimension(dimension: int) -> None:
    """Raises ValueError unless it is 1 or 2."""
    if dimension not in (1, 2):
        raise ValueError(f"expected dimension 1 or 2, got {dimension}")


def uniform_places(key: Key, num: int, dimension: int) -> jax.Array:
    """Uniform in the box, [num, dimension]; a ValueError for nobody."""
    require_agents(num)
    return jax.random.uniform(key, (num, dimension), minval=-HALF_WIDTH, maxval=HALF_WIDTH)


def moved_places(key: Key, x: jax.Array, move: jax.Array, params: TrackingParams) -> jax.Array:
    """After moves of at most 1, scaled and with noise; clipped to the box."""
    return jnp.clip(x + params.speed * move + params.noise * jax.random.normal(key, x.shape), -HALF_WIDTH, HALF_WIDTH)


def wrapped(x: jax.Array) -> jax.Array:
    """In the box, whose opposite ends are one."""
    return jnp.mod(x + HALF_WIDTH, 2 * HALF_WIDTH) - HALF_WIDTH


def next_target(key: Key, target: jax.Array, params: TrackingParams) -> jax.Array:
    """Where a target is a step later."""
    spread = jnp.sqrt(params.target_variance) * jax.random.normal(key, target.shape)
    return jnp.clip(params.target_decay * target + spread, -HALF_WIDTH, HALF_WIDTH)


def places_image(x: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Agents [N, d], and points [M, d] with a dark core; [height, width, 3] uint8."""
    from jaxrl_envs.mean_field.drawing import swarm_image

    place, dark = (p if p.shape[1] == 2 else np.concatenate([p, np.zeros_like(p)], axis=1) for p in (x, points))
    marked = np.arange(len(place) + len(dark)) >= len(place)
    return swarm_image(np.concatenate([place, dark]), None, HALF_WIDTH, marked=marked)
