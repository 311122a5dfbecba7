"""One agent's learner for a whole swarm: all agents share its parameters, and learn from the team's reward."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.spaces import Space
from jaxrl.types import Agent, Key, Metrics, Progress, Rollout


def shared_by_swarm(agent: Agent, spaces: tuple[Space, Space], num_seen: int | None = None) -> Agent:
    """A swarm of any number N of agents as the batch of an on-policy agent without memory.

    Args:
      agent: of one agent of the swarm.
      spaces: of its observations and actions.
      num_seen: of each agent's observation only so many entries are handed on; `None` for all.
    Returns:
      An `Agent` of observations [B, N, …] and actions [B, N, …] in an environment with one reward: to `agent` that is
      B * N environments with the same rewards and ends.
    """

    def flat(leaf: jax.Array, axis: int) -> jax.Array:
        """[…, B, N, …] -> […, B * N, …]."""
        return leaf.reshape(*leaf.shape[:axis], -1, *leaf.shape[axis + 2 :])

    def init(key: Key, obs_space: Space, action_space: Space) -> Any:
        del obs_space, action_space
        return agent.init(key, *spaces)

    def act(
        key: Key, state: Any, memory: Any, obs: jax.Array, is_first: jax.Array, explore: bool
    ) -> tuple[jax.Array, Any, Any]:
        seen = flat(obs[..., :num_seen], 0)
        action, _, extras = agent.act(key, state, (), seen, jnp.repeat(is_first, obs.shape[1]), explore)
        wide = jax.tree.map(lambda leaf: leaf.reshape(*obs.shape[:2], *leaf.shape[1:]), (action, extras))
        return wide[0], memory, wide[1]

    def update(key: Key, state: Any, rollout: Rollout, progress: Progress) -> tuple[Any, Metrics]:
        extras, next_extras, action = jax.tree.map(
            lambda leaf: flat(leaf, 1), (rollout.extras, rollout.next_extras, rollout.action)
        )
        reward, terminated, truncated, is_first = (
            jnp.repeat(part, rollout.obs.shape[2], 1)
            for part in (rollout.reward, rollout.terminated, rollout.truncated, rollout.is_first)
        )
        obs = flat(rollout.obs[..., :num_seen], 1)
        ends = (terminated, truncated, is_first)
        return agent.update(key, state, Rollout(obs, action, reward, *ends, extras, next_extras, ()), progress)

    return agent._replace(init=init, memory=lambda num_envs: (), act=act, update=update)
