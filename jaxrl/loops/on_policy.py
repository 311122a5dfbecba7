"""The on-policy loop: a rollout, then an update from it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from flax import struct

from jaxrl.algorithm import Algorithm
from jaxrl.env import Environment, autoreset, vectorize
from jaxrl.loops.rollout import Interaction, begin, rollout
from jaxrl.types import Agent, Key, Metrics, Progress, Step


@struct.dataclass
class OnPolicyState:
    """State of `on_policy`: the agent's, and where its environments stand."""

    agent: Any
    interaction: Interaction


def on_policy(
    agent: Agent,
    env: Environment,
    env_params: Any,
    *,
    num_envs: int,
    num_steps: int,
    num_updates: jax.Array | int,
    reset_pool: int | None = None,
) -> Algorithm:
    """Alternates `num_steps` steps in `num_envs` environments with one `agent.update`.

    Args:
      agent: whose `update` takes a Rollout [num_steps, num_envs].
      env: of one instance; it is vectorised and auto-reset here.
      env_params: may be traced.
      num_envs, num_steps: static.
      num_updates: the lifetime that schedules refer to; may be traced.
      reset_pool: draw new episodes from this many first states, renewed before each rollout (see `autoreset`).
    """
    envs = autoreset(vectorize(env, num_envs), reset_pool)

    def init(key: Key) -> OnPolicyState:
        key_agent, key_env = jax.random.split(key)
        agent_state = agent.init(key_agent, env.observation_space(env_params), env.action_space(env_params))
        return OnPolicyState(agent_state, begin(key_env, agent, envs, env_params))

    def step(key: Key, state: OnPolicyState, t: Step) -> tuple[OnPolicyState, Metrics]:
        key_pool, key_rollout, key_update = jax.random.split(key, 3)
        now = state.interaction
        now = dataclasses.replace(now, env_state=envs.refresh(key_pool, now.env_state, env_params))
        # Experience is a constant of whatever is differentiated around this step (a meta-gradient).
        actor = jax.lax.stop_gradient(state.agent)
        now, experience, episodes = rollout(key_rollout, agent, actor, envs, env_params, now, num_steps)
        agent_state, metrics = agent.update(key_update, state.agent, experience, Progress(t, num_updates))
        return OnPolicyState(agent_state, now), metrics | episodes

    return Algorithm(init, step)
