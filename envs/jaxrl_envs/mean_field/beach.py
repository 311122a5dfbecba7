"""Beach: agents that want to be near a bar but not in a crowd, and a bar that follows its own target."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.spaces import Discrete, Space
from jaxrl.types import Key
from jaxrl_envs.mean_field.checks import require_agents
from jaxrl_envs.mean_field.model import Swarm


@struct.dataclass
class BeachParams:
    """Numbers of the task; traced.

    Attributes:
      agent_cost: per step of distance from an agent to the bar.
      bar_cost: per step of distance from the bar to its target.
      crowd_cost: times the number of cells, per probability that two agents share a cell.
      p_move: probability that the target takes a random action.
      max_steps: after which an episode is truncated.
    """

    agent_cost: float | jax.Array = 1.0
    bar_cost: float | jax.Array = 0.3
    crowd_cost: float | jax.Array = 0.06
    p_move: float | jax.Array = 0.2
    max_steps: int | jax.Array = 200


@struct.dataclass
class BeachShared:
    """Cells [d] int32 of the bar and of its target."""

    bar: jax.Array
    target: jax.Array


@dataclasses.dataclass(frozen=True)
class Beach:
    """Agents on a ring or torus of cells around a bar, the major agent.

    A move is one of stay, back and forth along each axis. An agent's action is its move and its vote for the bar's,
    `move * num_moves + vote`; the bar's move is that of a vote drawn from all, so that a shared rule directs it as its
    own rule would. The team is paid minus the mean L1 distance to the bar, minus that from bar to target, minus the
    crowding `crowd_cost * cells * sum mu^2`, all around the ring.

    Args:
      side: cells along each axis.
      dimension: 1 or 2.
    Raises:
      ValueError: for a side below 2 or another dimension.
    References:
      Cui et al. 2023, arXiv:2303.10665, and its public code's numbers. Differs: the bar follows a vote.
    """

    side: int = 5
    dimension: int = 2

    def __post_init__(self) -> None:
        if self.side < 2 or self.dimension not in (1, 2):
            raise ValueError(f"expected side >= 2 and dimension 1 or 2, got {self.side} and {self.dimension}")

    @property
    def num_cells(self) -> int:
        """States of an agent."""
        return self.side**self.dimension

    @property
    def num_moves(self) -> int:
        """Stay, and two along each axis."""
        return 2 * self.dimension + 1

    @property
    def default_params(self) -> BeachParams:
        """200 steps."""
        return BeachParams()

    @property
    def periodic(self) -> tuple[bool, ...]:
        """States are finite."""
        return ()

    def reset(self, key: Key, num_agents: int, params: BeachParams) -> Swarm:
        """Agents and bar uniform; the target where the bar is, or one random move away."""
        require_agents(num_agents)
        key_agents, key_bar, key_target = jax.random.split(key, 3)
        x = jax.random.randint(key_agents, (num_agents,), 0, self.num_cells)
        bar = jax.random.randint(key_bar, (self.dimension,), 0, self.side)
        return Swarm(x, jnp.int32(0), BeachShared(bar, self._drift(key_target, bar, params)))

    def observe(self, key: Key, swarm: Swarm, params: BeachParams) -> jax.Array:
        """[N] int32, each agent's cell."""
        del key, params
        return swarm.x

    def step(
        self, key: Key, swarm: Swarm, action: jax.Array, params: BeachParams
    ) -> tuple[Swarm, jax.Array, dict[str, jax.Array]]:
        """Agents and bar after one move, and the target; the reward; the mean distance to the bar, and the crowding."""
        key_vote, key_target = jax.random.split(key)
        num, shared = swarm.x.shape[0], swarm.shared
        action = jnp.asarray(action, jnp.int32).reshape(num)
        cells = self._cells(swarm.x)
        distance = self._distance(cells, shared.bar).mean()
        share = jnp.zeros(self.num_cells, jnp.int32).at[swarm.x].add(1) / num
        crowding = self.num_cells * jnp.sum(jnp.square(share))
        off_target = self._distance(shared.bar, shared.target)
        reward = -params.agent_cost * distance - params.bar_cost * off_target - params.crowd_cost * crowding
        votes = jnp.zeros(self.num_moves, jnp.int32).at[action % self.num_moves].add(1)
        vote = jnp.sum(jax.random.randint(key_vote, (), 0, num) >= jnp.cumsum(votes))
        cells = (cells + self._directions()[action // self.num_moves]) % self.side
        bar = (shared.bar + self._directions()[vote]) % self.side
        shared = BeachShared(bar, self._drift(key_target, shared.target, params))
        info = {"distance": distance, "crowding": crowding}
        return Swarm(self._flat(cells), swarm.time + 1, shared), reward, info

    def shared_features(self, swarm: Swarm, params: BeachParams) -> jax.Array:
        """[2 cells], one-hot cells of the bar and of its target."""
        del params
        places = jnp.stack([self._flat(swarm.shared.bar), self._flat(swarm.shared.target)])
        return jax.nn.one_hot(places, self.num_cells).ravel()

    def state_space(self, params: BeachParams) -> Space:
        """Cells, the last axis counting fastest."""
        del params
        return Discrete(self.num_cells)

    def observation_space(self, params: BeachParams) -> Space:
        """Cells."""
        return self.state_space(params)

    def action_space(self, params: BeachParams) -> Space:
        """Pairs of a move and a vote."""
        del params
        return Discrete(self.num_moves**2)

    def _directions(self) -> jax.Array:
        steps = np.concatenate([[sign * np.eye(self.dimension, dtype=np.int32)[a]] for a in range(self.dimension)
                                for sign in (-1, 1)])  # fmt: skip
        return jnp.asarray(np.concatenate([np.zeros((1, self.dimension), np.int32), steps]))

    def _drift(self, key: Key, target: jax.Array, params: BeachParams) -> jax.Array:
        key_whether, key_which = jax.random.split(key)
        move = self._directions()[jax.random.randint(key_which, (), 0, self.num_moves)]
        return jnp.where(jax.random.uniform(key_whether) < params.p_move, (target + move) % self.side, target)

    def _cells(self, x: jax.Array) -> jax.Array:
        """[..., d] from [...] flat."""
        return jnp.stack([x // self.side**a % self.side for a in reversed(range(self.dimension))], axis=-1)

    def _flat(self, cells: jax.Array) -> jax.Array:
        weights = self.side ** np.arange(self.dimension)[::-1]
        return jnp.sum(cells * weights.astype(np.int32), axis=-1)

    def _distance(self, a: jax.Array, b: jax.Array) -> jax.Array:
        apart = jnp.abs(a - b)
        return jnp.sum(jnp.minimum(apart, self.side - apart), axis=-1).astype(jnp.float32)
