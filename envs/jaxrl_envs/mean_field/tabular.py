"""Swarms over finitely many states: one table description, played by agents or computed exactly.

Axes: X states, Y observations, U actions, N agents. `mu` [X] is the mean field, `joint` [X, U] that of states and
actions together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.spaces import Discrete, Space
from jaxrl.types import Key
from jaxrl_envs.mean_field.model import Swarm


@struct.dataclass
class TabularField:
    """A mean field over finitely many states.

    Attributes:
      mu: [X] float, sums to one.
      time: int32 scalar, steps since the start.
    """

    mu: jax.Array
    time: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class TabularModel:
    """A swarm's law as tables, which may depend on time and mean field. `params` are numbers, traced.

    Attributes:
      name: for messages.
      params: the default numbers; a struct with `max_steps`.
      sizes: (X, Y, U).
      initial: `params -> [X]`.
      observation: `params -> [X, Y]`, what is seen in each state.
      transition: `(time, mu, params) -> [X, U, X]`.
      reward: `(time, mu, joint, params) -> scalar`, the team's, of the mean field before the step.
      individual_reward: `(time, mu, joint, params) -> [X, U]`, an agent's own where the task is a game; or `None`.
    """

    name: str
    params: Any
    sizes: tuple[int, int, int]
    initial: Callable[[Any], jax.Array]
    observation: Callable[[Any], jax.Array]
    transition: Callable[[jax.Array, jax.Array, Any], jax.Array]
    reward: Callable[[jax.Array, jax.Array, jax.Array, Any], jax.Array]
    individual_reward: Callable[[jax.Array, jax.Array, jax.Array, Any], jax.Array] | None = None

    def __repr__(self) -> str:
        return f"TabularModel({self.name})"

    # As a swarm of agents.

    @property
    def default_params(self) -> Any:
        """Numbers of the task."""
        return self.params

    @property
    def periodic(self) -> tuple[bool, ...]:
        """States are integers."""
        return ()

    def state_space(self, params: Any) -> Space:
        """X states."""
        del params
        return Discrete(self.sizes[0])

    def observation_space(self, params: Any) -> Space:
        """Y observations."""
        del params
        return Discrete(self.sizes[1])

    def action_space(self, params: Any) -> Space:
        """U actions."""
        del params
        return Discrete(self.sizes[2])

    def reset(self, key: Key, num_agents: int, params: Any) -> Swarm:
        """Independent draws from the initial distribution."""
        rows = jnp.broadcast_to(self.initial(params), (num_agents, self.sizes[0]))
        return Swarm(_draw(key, rows), jnp.int32(0))

    def observe(self, key: Key, swarm: Swarm, params: Any) -> jax.Array:
        """int32 [N]."""
        return _draw(key, self.observation(params)[swarm.x])

    def step(
        self, key: Key, swarm: Swarm, action: jax.Array, params: Any
    ) -> tuple[Swarm, jax.Array, dict[str, jax.Array]]:
        """The next swarm, the team's reward, and nothing to diagnose."""
        num_states, _, num_actions = self.sizes
        counts = jnp.zeros((num_states, num_actions), jnp.int32).at[swarm.x, action].add(1)
        joint = counts / len(swarm.x)
        mu = joint.sum(1)
        reward = self.reward(swarm.time, mu, joint, params)
        x = _draw(key, self.transition(swarm.time, mu, params)[swarm.x, action])
        return Swarm(x, swarm.time + 1, swarm.shared), reward, {}

    # As a mean field.

    def first_field(self, params: Any) -> TabularField:
        """The initial distribution."""
        return TabularField(self.initial(params), jnp.int32(0))

    def push_forward(
        self, field: TabularField, policy: jax.Array, params: Any
    ) -> tuple[TabularField, jax.Array, jax.Array]:
        """One step of the limit of many agents, by `einsum`; differentiable.

        Args:
          field: before the step.
          policy: [Y, U], each row sums to one.
          params: of the task.
        Returns:
          The next field, the reward, and the joint distribution [X, U] of states and actions.
        """
        joint = field.mu[:, None] * (self.observation(params) @ policy)
        reward = self.reward(field.time, field.mu, joint, params)
        mu = jnp.einsum("xu,xuz->z", joint, self.transition(field.time, field.mu, params))
        return TabularField(mu, field.time + 1), reward, joint

    def fully_observed(self) -> TabularModel:
        """The same task, in which agents see their state."""
        size = self.sizes[0]
        return dataclasses.replace(
            self, sizes=(size, size, self.sizes[2]), observation=lambda params: jnp.eye(size), name=f"{self.name}_full"
        )


def _draw(key: Key, rows: jax.Array) -> jax.Array:
    """int32 [N] from probabilities [N, n], by one uniform number per agent."""
    levels = jnp.cumsum(rows, -1)[:, :-1]
    uniform = jax.random.uniform(key, (len(rows), 1), levels.dtype)
    return jnp.sum(uniform >= levels, -1).astype(jnp.int32)
