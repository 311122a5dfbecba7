"""Swarms in a changing world: two crowds of users, and a formation around a leader.

What all agents have in common is in `Swarm.shared`, and `shared_features` gives it as numbers, for who directs the
swarm. An agent sees its own place. A leader (major agent) has no rule of its own: each agent's action ends with a vote
for the leader's move, and the leader does the mean of the votes, so that a shared decision rule directs it as well.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.spaces import Box, Space
from jaxrl.types import Key
from jaxrl_envs.mean_field.checks import require_positive
from jaxrl_envs.mean_field.led import (
    HALF_WIDTH,
    Led,
    TrackingParams,
    led_features,
    moved_places,
    next_target,
    places_image,
    require_dimension,
    uniform_places,
)
from jaxrl_envs.mean_field.model import Swarm
from jaxrl_envs.mean_field.moves import limited, split_votes
from jaxrl_envs.mean_field.transport import transport_1d, transport_sinkhorn


@dataclasses.dataclass(frozen=True)
class TwoGaussians:
    """Agents that follow users from one place to the other and back ("2G"); nobody leads.

    At each step `num_users` users are drawn anew, `(1 + cos(2 pi t / period)) / 2` of them around (-1, 0) and the rest
    around (1, 0). The team is paid minus the transport cost from agents to users: exact by sorting in one dimension,
    in two Sinkhorn's approximation of it (the published task has the exact cost there).

    Args:
      dimension: 1 or 2.
      num_users: M.
      num_iterations: Sinkhorn's.
    Raises:
      ValueError: for another dimension, or no users.
    References:
      Cui et al. 2023, arXiv:2303.10665, and its public code's numbers.
    """

    dimension: int = 2
    num_users: int = 100
    num_iterations: int = 100

    def __post_init__(self) -> None:
        require_dimension(self.dimension)
        require_positive(num_users=self.num_users, num_iterations=self.num_iterations)

    @property
    def default_params(self) -> TrackingParams:
        """Noise 0.03, 100 steps."""
        return TrackingParams(noise=0.03)

    @property
    def periodic(self) -> tuple[bool, ...]:
        """None is."""
        return (False,) * self.dimension

    def reset(self, key: Key, num_agents: int, params: TrackingParams) -> Swarm:
        """Agents uniform in the box, and the first users."""
        key_place, key_users = jax.random.split(key)
        x = uniform_places(key_place, num_agents, self.dimension)
        return Swarm(x, jnp.int32(0), self._users(key_users, jnp.int32(0), params))

    def observe(self, key: Key, swarm: Swarm, params: TrackingParams) -> jax.Array:
        """[N, d], each agent's place."""
        del key, params
        return swarm.x

    def step(
        self, key: Key, swarm: Swarm, action: jax.Array, params: TrackingParams
    ) -> tuple[Swarm, jax.Array, dict[str, jax.Array]]:
        """The swarm after one move, and the next users; the reward; `transport`, the cost."""
        key_move, key_users = jax.random.split(key)
        cost = _transport(swarm.x, swarm.shared, params.epsilon, self.num_iterations)
        x = moved_places(key_move, swarm.x, limited(jnp.asarray(action, jnp.float32).reshape(swarm.x.shape)), params)
        time = swarm.time + 1
        return Swarm(x, time, self._users(key_users, time, params)), -cost, {"transport": cost}

    def shared_features(self, swarm: Swarm, params: TrackingParams) -> jax.Array:
        """[2], cosine and sine of the time within the cycle."""
        angle = 2 * np.pi * swarm.time / params.period
        return jnp.stack([jnp.cos(angle), jnp.sin(angle)])

    def state_space(self, params: TrackingParams) -> Space:
        """The box."""
        del params
        return Box(-HALF_WIDTH, HALF_WIDTH, (self.dimension,))

    def observation_space(self, params: TrackingParams) -> Space:
        """The box."""
        return self.state_space(params)

    def action_space(self, params: TrackingParams) -> Space:
        """The move, in units of the longest."""
        del params
        return Box(-1.0, 1.0, (self.dimension,))

    def image(self, swarm: Swarm, params: TrackingParams) -> np.ndarray:
        """Agents, and users as dark points; [height, width, 3] uint8, on the host."""
        del params
        return places_image(np.asarray(swarm.x), np.asarray(swarm.shared))

    def _users(self, key: Key, time: jax.Array, params: TrackingParams) -> jax.Array:
        share = (1 + jnp.cos(2 * np.pi * time / params.period)) / 2
        left = jnp.arange(self.num_users) < jnp.floor(self.num_users * share + 1e-4)
        centre = jnp.where(left, -1.0, 1.0)[:, None] * (jnp.arange(self.dimension) == 0)
        spread = jnp.sqrt(params.user_variance) * jax.random.normal(key, (self.num_users, self.dimension))
        return jnp.clip(centre + spread, -HALF_WIDTH, HALF_WIDTH)


@dataclasses.dataclass(frozen=True)
class Formation:
    """Agents around a leader, who has a moving target.

    The team is paid minus the transport cost from agents to users, drawn anew around the leader at each step, and minus
    the leader's distance to the target. An action is the agent's move and its vote for the leader's.

    Args:
      dimension: 1 or 2.
      num_users: M.
      num_iterations: Sinkhorn's, in two dimensions.
    Raises:
      ValueError: for another dimension, or no users.
    References:
      Cui et al. 2023, arXiv:2303.10665, and its public code's numbers. Differs: the leader follows votes; Sinkhorn's
      cost in two dimensions, for the exact one.
    """

    dimension: int = 2
    num_users: int = 300
    num_iterations: int = 100

    def __post_init__(self) -> None:
        require_dimension(self.dimension)
        require_positive(num_users=self.num_users, num_iterations=self.num_iterations)

    @property
    def default_params(self) -> TrackingParams:
        """User variance 0.3, no noise, 100 steps."""
        return TrackingParams(user_variance=0.3)

    @property
    def periodic(self) -> tuple[bool, ...]:
        """None is."""
        return (False,) * self.dimension

    def reset(self, key: Key, num_agents: int, params: TrackingParams) -> Swarm:
        """Agents and leader uniform in the box, the target near its middle."""
        key_place, key_leader, key_target, key_users = jax.random.split(key, 4)
        x = uniform_places(key_place, num_agents, self.dimension)
        leader = uniform_places(key_leader, 1, self.dimension)[0]
        target = next_target(key_target, jnp.zeros(self.dimension), params)
        return Swarm(x, jnp.int32(0), Led(leader, target, self._users(key_users, leader, params)))

    def observe(self, key: Key, swarm: Swarm, params: TrackingParams) -> jax.Array:
        """[N, d], each agent's place."""
        del key, params
        return swarm.x

    def step(
        self, key: Key, swarm: Swarm, action: jax.Array, params: TrackingParams
    ) -> tuple[Swarm, jax.Array, dict[str, jax.Array]]:
        """Agents and leader after one move, the next target and users; the reward; its two parts."""
        key_move, key_leader, key_target, key_users = jax.random.split(key, 4)
        shared, num = swarm.shared, swarm.x.shape[0]
        cost = _transport(swarm.x, shared.users, params.epsilon, self.num_iterations)
        distance = jnp.linalg.norm(shared.leader - shared.target)
        move, vote = split_votes(action, num, self.dimension)
        x, leader = moved_places(key_move, swarm.x, move, params), moved_places(key_leader, shared.leader, vote, params)
        target = next_target(key_target, shared.target, params)
        shared = Led(leader, target, self._users(key_users, leader, params))
        return Swarm(x, swarm.time + 1, shared), -cost - distance, {"transport": cost, "distance": distance}

    def shared_features(self, swarm: Swarm, params: TrackingParams) -> jax.Array:
        """[2 d], leader and target, in units of half the box."""
        del params
        return led_features(swarm)

    def state_space(self, params: TrackingParams) -> Space:
        """The box."""
        del params
        return Box(-HALF_WIDTH, HALF_WIDTH, (self.dimension,))

    def observation_space(self, params: TrackingParams) -> Space:
        """The box."""
        return self.state_space(params)

    def action_space(self, params: TrackingParams) -> Space:
        """The agent's move and its vote for the leader's, in units of the longest."""
        del params
        return Box(-1.0, 1.0, (2 * self.dimension,))

    def image(self, swarm: Swarm, params: TrackingParams) -> np.ndarray:
        """Agents; leader and target as dark points; [height, width, 3] uint8, on the host."""
        del params
        return places_image(np.asarray(swarm.x), np.stack([swarm.shared.leader, swarm.shared.target]))

    def _users(self, key: Key, leader: jax.Array, params: TrackingParams) -> jax.Array:
        spread = jax.random.normal(key, (self.num_users, self.dimension))
        return jnp.clip(leader + jnp.sqrt(params.user_variance) * spread, -HALF_WIDTH, HALF_WIDTH)


def _transport(x: jax.Array, users: jax.Array, epsilon: float | jax.Array, num_iterations: int) -> jax.Array:
    if x.shape[1] == 1:
        return transport_1d(x[:, 0], users[:, 0])
    return transport_sinkhorn(x, users, epsilon, num_iterations)
