"""Playing a policy without learning: returns of whole episodes, and the record of one."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.env import Environment, vectorize
from jaxrl.loops.rollout import begin, interact
from jaxrl.ops.distributions import to_environment
from jaxrl.types import Agent, Key


class Episodes(NamedTuple):
    """Whole episodes, leaves [N].

    Attributes:
      returns: float32, undiscounted.
      lengths: int32, steps.
      ended: bool; false where `max_steps` came first.
    """

    returns: jax.Array
    lengths: jax.Array
    ended: jax.Array


def evaluate(  # noqa: PLR0913 - whose policy, where, how much: nothing that belongs together
    key: Key,
    agent: Agent,
    agent_state: Any,
    env: Environment,
    env_params: Any,
    num_episodes: int,
    max_steps: int = 100_000,
    explore: bool = False,
) -> Episodes:
    """Plays episodes side by side until all have ended; one episode counts per environment, the first.

    Args:
      key: consumed.
      agent, agent_state: who plays.
      env, env_params: of one instance, without automatic resets.
      num_episodes: static, at least 1.
      max_steps: a bound for environments that never end.
      explore: sample actions instead of taking the mode.
    Returns:
      `Episodes`, leaves [num_episodes].
    """
    envs = vectorize(env, num_episodes)
    key_reset, key_steps = jax.random.split(key)

    def unfinished(carry: tuple[Any, Any, Episodes]) -> jax.Array:
        step, _, episodes = carry
        return (step < max_steps) & ~jnp.all(episodes.ended)

    def body(carry: tuple[Any, Any, Episodes]) -> tuple[Any, Any, Episodes]:
        step, now, episodes = carry
        keys = jax.random.split(jax.random.fold_in(key_steps, step))
        now, _, _, timestep = interact(keys, agent, agent_state, envs, env_params, now, explore)
        # Nothing resets here, so memory must not be reset either: an ended environment just runs on, uncounted.
        now = dataclasses.replace(now, is_first=jnp.zeros_like(now.is_first))
        running = ~episodes.ended
        return (
            step + 1,
            now,
            Episodes(
                episodes.returns + jnp.where(running, timestep.reward, 0.0),
                episodes.lengths + running,
                episodes.ended | timestep.terminated | timestep.truncated,
            ),
        )

    zeros = jnp.zeros(num_episodes)
    start = Episodes(zeros, zeros.astype(jnp.int32), zeros > 0)
    first = begin(key_reset, agent, envs, env_params)
    return jax.lax.while_loop(unfinished, body, (jnp.int32(0), first, start))[2]


def record(
    key: Key, agent: Agent, agent_state: Any, env: Environment, env_params: Any, num_steps: int, explore: bool = False
) -> dict[str, Any]:
    """`num_steps` steps of one environment, for pictures.

    Returns:
      "states" and "obs" before each step, "action" as the environment took it, "reward", "done" after it; leaves
      [num_steps, …]. What follows the first "done" belongs to no episode.
    """
    envs = vectorize(env, 1)
    key_reset, key_steps = jax.random.split(key)

    def body(now: Any, keys: Key) -> tuple[Any, dict[str, Any]]:
        after, action, _, timestep = interact(keys, agent, agent_state, envs, env_params, now, explore)
        row = {
            "states": now.env_state,
            "obs": now.obs,
            "action": to_environment(env.action_space(env_params), action),
            "reward": timestep.reward,
            "done": timestep.terminated | timestep.truncated,
        }
        return dataclasses.replace(after, is_first=jnp.zeros_like(after.is_first)), jax.tree.map(
            lambda leaf: leaf[0], row
        )

    now = begin(key_reset, agent, envs, env_params)
    return jax.lax.scan(body, now, jax.random.split(key_steps, (num_steps, 2)))[1]
