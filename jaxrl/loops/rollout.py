"""The one rollout: an agent and a vectorised environment, for a fixed number of steps; on-policy or for replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.ops.distributions import to_environment
from jaxrl.types import Agent, Key, Metrics, Rollout, Timestep, Transition

Answer = tuple[jax.Array, Any, Timestep]  # the policy's action, the agent's extras, and the environment's timestep


@struct.dataclass
class Interaction:
    """Where an agent and its environments stand, leaves [B, …].

    Attributes:
      env_state: of the auto-resetting environment.
      obs: to act on next.
      is_first: bool, `obs` opens an episode.
      memory: the agent's.
      episode_return, episode_length: of the episodes under way, float32 and int32.
    """

    env_state: Any
    obs: Any
    is_first: jax.Array
    memory: Any
    episode_return: jax.Array
    episode_length: jax.Array


def begin(key: Key, agent: Agent, env: Any, env_params: Any) -> Interaction:
    """First states of all environments of `env`, an auto-resetting vectorised environment."""
    env_state, obs = env.reset(key, env_params)
    num = env.num_envs
    zeros = jnp.zeros(num)
    return Interaction(env_state, obs, jnp.ones(num, bool), agent.memory(num), zeros, zeros.astype(jnp.int32))


def interact(
    keys: Key, agent: Agent, agent_state: Any, env: Any, env_params: Any, now: Interaction, explore: bool
) -> tuple[Interaction, jax.Array, Any, Timestep]:
    """One step in every environment.

    Args:
      keys: [2], for the agent and for the environment: drawn by the loop for all steps at once, since a split inside
        each step costs as much as stepping a small environment.
      agent, agent_state, env, env_params, now: as in `rollout`.
      explore: sample, or take the mode.
    Returns:
      The interaction after it, the policy's action, the agent's extras, and the timestep.
    """
    key_act, key_env = keys
    action, memory, extras = agent.act(key_act, agent_state, now.memory, now.obs, now.is_first, explore)
    applied = to_environment(env.action_space(env_params), action)
    env_state, timestep = env.step(key_env, now.env_state, applied, env_params)
    done = timestep.terminated | timestep.truncated
    after = Interaction(
        env_state=env_state,
        obs=timestep.obs,
        is_first=done,
        memory=memory,
        episode_return=jnp.where(now.is_first, 0.0, now.episode_return) + timestep.reward,
        episode_length=jnp.where(now.is_first, 0, now.episode_length) + 1,
    )
    return after, action, extras, timestep


def rollout(  # noqa: PLR0913 - who plays where, and for how long
    key: Key,
    agent: Agent,
    agent_state: Any,
    env: Any,
    env_params: Any,
    now: Interaction,
    num_steps: int,
    unroll: int = 1,
) -> tuple[Interaction, Rollout, Metrics]:
    """`num_steps` steps of exploration in every environment, episodes running on from call to call.

    What the agent says of a successor is what it says of the next observation, save where the episode was cut: there
    it is asked about `final_obs`, with its memory before the reset. Those steps are few, so the question is inside
    a branch (which a `vmap` over seeds turns into a select). Where it terminated, only an agent that `reads_terminal`
    is asked.

    Args:
      key: consumed.
      agent, agent_state: who plays.
      env, env_params: auto-resetting and vectorised.
      now: where they stand.
      num_steps: static.
      unroll: steps that are compiled side by side: fewer turns of the loop, for a longer compilation. With 4 small
        environments on a CPU, 4 instead of 1 made whole updates about a tenth quicker, and compiled a fifth longer.
    Returns:
      The interaction after it; the rollout, leaves [T, B, …]; and "episode/return", "episode/length" (means over
      the episodes that ended, NaN if none did) and "episode/count".
    """
    first = now

    def row(now: Interaction, after: Interaction, answer: Answer, is_last: jax.Array, key: Key) -> Any:
        action, extras, timestep = answer
        ask = timestep.truncated | is_last
        if agent.reads_terminal:
            ask = ask | timestep.terminated

        def final_extras() -> Any:
            never = jnp.zeros_like(ask)
            return agent.act(key, agent_state, after.memory, timestep.final_obs, never, True)[2]

        final = jax.lax.cond(jnp.any(ask), final_extras, lambda: jax.tree.map(jnp.zeros_like, extras))
        return now.obs, action, timestep.reward, timestep.terminated, timestep.truncated, extras, final

    now, rows, metrics = _steps(key, agent, agent_state, env, env_params, now, num_steps, row, unroll)
    obs, action, reward, terminated, truncated, extras, final = rows
    done = terminated | truncated
    is_first = jnp.concatenate([first.is_first[None], done[:-1]])
    ask = (done if agent.reads_terminal else truncated).at[-1].set(True)

    def successor(of_final: jax.Array, of_obs: jax.Array) -> jax.Array:
        mask = ask.reshape(ask.shape + (1,) * (of_obs.ndim - 2))
        return jnp.where(mask, of_final, jnp.roll(of_obs, -1, axis=0))

    next_extras = jax.tree.map(successor, final, extras)
    experience = Rollout(obs, action, reward, terminated, truncated, is_first, extras, next_extras, first.memory)
    return now, experience, metrics


def transitions(
    key: Key, agent: Agent, agent_state: Any, env: Any, env_params: Any, now: Interaction, num_steps: int
) -> tuple[Interaction, Transition, Metrics]:
    """`num_steps` steps of exploration, as `rollout`, in the form that replay buffers store: leaves [T, B, …]."""

    def row(now: Interaction, after: Interaction, answer: Answer, is_last: jax.Array, key: Key) -> Transition:
        action, _, step = answer
        return Transition(now.obs, action, step.reward, step.terminated, step.truncated, step.final_obs)

    return _steps(key, agent, agent_state, env, env_params, now, num_steps, row)


def _steps(  # noqa: PLR0913 - `rollout`'s, and what is kept of a step
    key: Key,
    agent: Agent,
    agent_state: Any,
    env: Any,
    env_params: Any,
    now: Interaction,
    num_steps: int,
    row: Callable[[Interaction, Interaction, Answer, jax.Array, Key], Any],
    unroll: int = 1,
) -> tuple[Interaction, Any, Metrics]:
    """The one scan over environment steps; `row(before, after, answer, is_last, key)` says what is kept of each."""

    def body(carry: tuple[Interaction, Any], inputs: tuple[Key, jax.Array]) -> tuple[tuple[Interaction, Any], Any]:
        now, (returns, lengths, count) = carry
        keys, is_last = inputs
        after, action, extras, timestep = interact(keys[:2], agent, agent_state, env, env_params, now, True)
        # Sums over finished episodes travel in the carry: what is stacked costs a write per step.
        ended = after.is_first
        finished = (
            returns + jnp.where(ended, after.episode_return, 0.0),
            lengths + jnp.where(ended, after.episode_length, 0),
            count + ended,
        )
        return (after, finished), row(now, after, (action, extras, timestep), is_last, keys[2])

    is_last = jnp.arange(num_steps) == num_steps - 1
    zeros = jnp.zeros_like(now.episode_length)
    nothing = (jnp.zeros_like(now.episode_return), zeros, zeros)
    inputs = (jax.random.split(key, (num_steps, 3)), is_last)
    (now, finished), rows = jax.lax.scan(body, (now, nothing), inputs, unroll=unroll)
    returns, lengths, count = (total.sum() for total in finished)
    return now, rows, episode_metrics(count, returns, lengths)


def episode_metrics(count: jax.Array, returns: jax.Array, lengths: jax.Array) -> Metrics:
    """Means over `count` finished episodes, from their sums; NaN where there is none."""
    ended = jnp.maximum(count, 1)
    return {
        "episode/return": jnp.where(count > 0, returns / ended, jnp.nan),
        "episode/length": jnp.where(count > 0, lengths / ended, jnp.nan),
        "episode/count": count.astype(jnp.float32),
    }
