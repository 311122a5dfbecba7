"""Aggregation: agents that see their own place through noise, and are paid for being together."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.spaces import Box, Space
from jaxrl.types import Key
from jaxrl_envs.mean_field.checks import require_agents, require_choice
from jaxrl_envs.mean_field.model import Swarm
from jaxrl_envs.mean_field.moves import limited
from jaxrl_envs.mean_field.pairs import mean_abs_difference

_START_STD = 0.3


@struct.dataclass
class AggregationParams:
    """Numbers of the task; traced.

    Attributes:
      speed: v_max, length of the longest move.
      noise: standard deviation of each coordinate of a move.
      sensor_noise: standard deviation of each observed coordinate; 0 shows agents where they are.
      action_cost: c_a, per unit of the mean |u| of a coordinate.
      max_steps: after which an episode is truncated.
    """

    speed: float | jax.Array = 0.2
    noise: float | jax.Array = 0.03
    sensor_noise: float | jax.Array = 0.3
    action_cost: float | jax.Array = 0.1
    max_steps: int | jax.Array = 100


@dataclasses.dataclass(frozen=True)
class Aggregation:
    """Agents in the box [-2, 2]^d: `x <- clip(x + v_max u / max(1, |u|) + noise)`.

    They start around the 2^d points (±1, …), equally likely, with standard deviation 0.3 in each coordinate. An agent
    sees its own place, with noise, clipped to the box; memoryless agents have to agree on a place of the box.

    Args:
      dimension: d, 1 to 3.
      reward: "mean", minus the mean L1 distance to the mean place; "pairs", minus the mean L1 distance of two agents.
        Both minus the cost of actions.
    Raises:
      ValueError: for another dimension or reward.
    References:
      After Cui et al. 2024, arXiv:2307.06175, with our numbers; moves as in Cui et al. 2023, arXiv:2303.10665.
    """

    dimension: int = 2
    reward: str = "mean"
    half_width: float = 2.0

    def __post_init__(self) -> None:
        require_choice("reward", self.reward, ("mean", "pairs"))
        if self.dimension not in (1, 2, 3):
            raise ValueError(f"expected dimension 1, 2 or 3, got {self.dimension}")
        if not self.half_width > 0:
            raise ValueError(f"expected half_width > 0, got {self.half_width}")

    @property
    def default_params(self) -> AggregationParams:
        """100 steps."""
        return AggregationParams()

    @property
    def periodic(self) -> tuple[bool, ...]:
        """None is."""
        return (False,) * self.dimension

    def reset(self, key: Key, num_agents: int, params: AggregationParams) -> Swarm:
        """Places, drawn independently."""
        del params
        require_agents(num_agents)
        key_side, key_place = jax.random.split(key)
        middle = jax.random.rademacher(key_side, (num_agents, self.dimension), jnp.float32)
        x = middle + _START_STD * jax.random.normal(key_place, (num_agents, self.dimension))
        return Swarm(self._clip(x), jnp.int32(0))

    def observe(self, key: Key, swarm: Swarm, params: AggregationParams) -> jax.Array:
        """[N, d], where each agent believes to be."""
        return self._clip(swarm.x + params.sensor_noise * jax.random.normal(key, swarm.x.shape))

    def step(
        self, key: Key, swarm: Swarm, action: jax.Array, params: AggregationParams
    ) -> tuple[Swarm, jax.Array, dict[str, jax.Array]]:
        """The swarm after one move; its reward; `spread`, the mean L1 distance to the mean place before it."""
        x = swarm.x
        u = jnp.clip(jnp.asarray(action, jnp.float32).reshape(x.shape), -1.0, 1.0)
        spread = jnp.abs(x - x.mean(0)).sum(1).mean()
        apart = spread if self.reward == "mean" else mean_abs_difference(x).sum()
        reward = -apart - params.action_cost * jnp.abs(u).mean()
        moved = self._clip(x + params.speed * limited(u) + params.noise * jax.random.normal(key, x.shape))
        return swarm.replace(x=moved, time=swarm.time + 1), reward, {"spread": spread}  # type: ignore[attr-defined]

    def state_space(self, params: AggregationParams) -> Space:
        """The box."""
        del params
        return Box(-self.half_width, self.half_width, (self.dimension,))

    def observation_space(self, params: AggregationParams) -> Space:
        """The box."""
        return self.state_space(params)

    def action_space(self, params: AggregationParams) -> Space:
        """The move, in units of the longest along an axis."""
        del params
        return Box(-1.0, 1.0, (self.dimension,))

    def image(self, swarm: Swarm, params: AggregationParams) -> np.ndarray:
        """The first two coordinates of a concrete swarm, [height, width, 3] uint8; on the host."""
        del params
        from jaxrl_envs.mean_field.drawing import swarm_image

        x = np.asarray(swarm.x)
        place = x[:, :2] if self.dimension > 1 else np.concatenate([x, np.zeros_like(x)], axis=1)
        return swarm_image(place, None, self.half_width)

    def _clip(self, x: jax.Array) -> jax.Array:
        return jnp.clip(x, -self.half_width, self.half_width)
