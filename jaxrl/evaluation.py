"""Playing a policy without learning: returns of whole episodes, and the record of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.env import Environment, vectorize
from jaxrl.loops.rollout import begin, interact
from jaxrl.ops.distributions import to_environment
from jaxrl.types import Agent, Key, Timestep, Transition


class Moment(NamedTuple):
    """One step of one episode.

    Attributes:
      time: int32, steps before it.
      obs: acted on.
      action: as the environment took it.
      env_state: after it.
      timestep: the environment's answer.
    """

    time: jax.Array
    obs: Any
    action: jax.Array
    env_state: Any
    timestep: Timestep


class Gather(NamedTuple):
    """What is made of the steps of an episode while it is played, so that nothing need be stored.

    Attributes:
      init: `(moment) -> gathered`, before the first step; the moment has the right shapes and holds zeros.
      add: `(gathered, moment) -> gathered`, for each step of the episode, its last one included.
    """

    init: Callable[[Moment], Any]
    add: Callable[[Any, Moment], Any]


class Episodes(NamedTuple):
    """Whole episodes, leaves [N].

    Attributes:
      returns: float32, undiscounted.
      lengths: int32, steps.
      ended: bool; false where `max_steps` came first.
      gathered: what was made of the steps, leaves [N, …]; `()` where nobody asked.
    """

    returns: jax.Array
    lengths: jax.Array
    ended: jax.Array
    gathered: Any = ()


def evaluate(  # noqa: PLR0913 - whose policy, where, how much: nothing that belongs together
    key: Key,
    agent: Agent,
    agent_state: Any,
    env: Environment,
    env_params: Any,
    num_episodes: int,
    max_steps: int = 100_000,
    explore: bool = False,
    gather: Gather | None = None,
) -> Episodes:
    """Plays episodes side by side until all have ended; one episode counts per environment, the first.

    Args:
      key: consumed.
      agent, agent_state: who plays.
      env, env_params: of one instance, without automatic resets.
      num_episodes: static, at least 1.
      max_steps: a bound for environments that never end; may be traced.
      explore: sample actions instead of taking the mode.
      gather: what is made of the steps.
    Returns:
      `Episodes`, leaves [num_episodes].
    """
    start, step = _game(key, agent, agent_state, env, env_params, (num_episodes, explore, gather))

    def unfinished(carry: Any) -> jax.Array:
        time, (_, episodes) = carry
        return (time < max_steps) & ~jnp.all(episodes.ended)

    def body(carry: Any) -> Any:
        time, standing = carry
        return time + 1, step(standing, time)[0]

    return jax.lax.while_loop(unfinished, body, (jnp.int32(0), start))[1][1]


def evaluate_transitions(  # noqa: PLR0913 - as `evaluate`
    key: Key,
    agent: Agent,
    agent_state: Any,
    env: Environment,
    env_params: Any,
    num_episodes: int,
    max_steps: int,
    explore: bool = False,
    gather: Gather | None = None,
) -> tuple[Episodes, Transition, jax.Array]:
    """As `evaluate`, and every transition: for learners that ask for them, since the memory grows with the steps.

    Returns:
      The same `Episodes`; transitions, leaves [max_steps, num_episodes, …], actions as the environment took them; and
      which of them belong to an episode, bool [max_steps, num_episodes].
    """
    start, step = _game(key, agent, agent_state, env, env_params, (num_episodes, explore, gather))

    def body(standing: Any, time: jax.Array) -> tuple[Any, Any]:
        running = ~standing[1].ended
        standing, moment = step(standing, time)
        answer = moment.timestep
        row = (moment.obs, moment.action, answer.reward, answer.terminated, answer.truncated, answer.final_obs)
        return standing, (Transition(*row), running)

    (_, episodes), (rows, played) = jax.lax.scan(body, start, jnp.arange(max_steps))
    return episodes, rows, played


def _game(
    key: Key, agent: Agent, agent_state: Any, env: Environment, env_params: Any, how: tuple[int, bool, Gather | None]
) -> tuple[Any, Callable[[Any, jax.Array], tuple[Any, Moment]]]:
    """Where the first step finds everything, and that step: `(standing, time) -> (standing, moment [N])`."""
    num_episodes, explore, gather = how
    envs = vectorize(env, num_episodes)
    action_space = env.action_space(env_params)
    key_reset, key_steps = jax.random.split(key)

    def move(now: Any, time: jax.Array) -> tuple[Any, Moment]:
        keys = jax.random.split(jax.random.fold_in(key_steps, time))
        after, action, _, timestep = interact(keys, agent, agent_state, envs, env_params, now, explore)
        # Nothing resets here, so memory must not be reset either: an ended environment just runs on, uncounted.
        after = dataclasses.replace(after, is_first=jnp.zeros_like(after.is_first))
        times = jnp.full(num_episodes, time)
        return after, Moment(times, now.obs, to_environment(action_space, action), after.env_state, timestep)

    def step(standing: Any, time: jax.Array) -> tuple[Any, Moment]:
        now, episodes = standing
        now, moment = move(now, time)
        running = ~episodes.ended
        gathered = episodes.gathered
        if gather is not None:
            gathered = jax.tree.map(
                lambda new, old: jnp.where(running.reshape(-1, *[1] * (new.ndim - 1)), new, old),
                jax.vmap(gather.add)(gathered, moment),
                gathered,
            )
        played = Episodes(
            episodes.returns + jnp.where(running, moment.timestep.reward, 0.0),
            episodes.lengths + running,
            episodes.ended | moment.timestep.terminated | moment.timestep.truncated,
            gathered,
        )
        return (now, played), moment

    first = begin(key_reset, agent, envs, env_params)
    zeros = jnp.zeros(num_episodes)
    gathered = ()
    if gather is not None:
        shapes = jax.eval_shape(lambda now: move(now, jnp.int32(0))[1], first)
        gathered = jax.vmap(gather.init)(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))
    return (first, Episodes(zeros, zeros.astype(jnp.int32), zeros > 0, gathered)), step


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
