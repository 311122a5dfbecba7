"""The off-policy loop: a few steps, into the buffer, and a fixed number of updates from it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.algorithm import Algorithm
from jaxrl.buffers import Buffer
from jaxrl.env import Environment, autoreset, vectorize
from jaxrl.loops.rollout import Interaction, begin, transitions
from jaxrl.spaces import Space
from jaxrl.types import Agent, Key, Metrics, Progress, Sample, Step


@struct.dataclass
class OffPolicyState:
    """State of `off_policy`: the agent's, where its environments stand, and what it remembers."""

    agent: Any
    interaction: Interaction
    buffer: Any


def uniform_agent(action_space: Space) -> Agent:
    """An agent that learns nothing and acts at random, uniformly where the action space is bounded."""

    def act(
        key: Key, state: Any, memory: Any, obs: Any, is_first: jax.Array, explore: bool
    ) -> tuple[jax.Array, Any, tuple[()]]:
        keys = jax.random.split(key, is_first.shape[0])
        return jax.vmap(action_space.sample)(keys), memory, ()

    def update(key: Key, state: Any, experience: Any, progress: Progress) -> tuple[Any, Metrics]:
        return state, {}

    return Agent(lambda key, obs_space, action_space: (), lambda num_envs: (), act, update)


def off_policy(  # noqa: PLR0913 - the fixed ratio of data to updates
    agent: Agent,
    env: Environment,
    env_params: Any,
    buffer: Buffer,
    *,
    num_envs: int,
    num_steps: int,
    num_gradient_steps: int,
    num_updates: int,
    fill_steps: int,
    reset_pool: int | None = None,
) -> Algorithm:
    """Alternates `num_steps` steps in `num_envs` environments with `num_gradient_steps` updates from the buffer.

    The batches of one iteration are drawn together, before its first update: one gather instead of many, and under
    prioritised replay the priorities of the iteration before.

    Args:
      agent: whose `update` takes a Sample [N]; its progress counts gradient steps.
      env: of one instance; it is vectorised and auto-reset here.
      env_params: may be traced.
      buffer: made for `num_envs` and `num_steps`.
      num_envs, num_steps, num_gradient_steps: static, the fixed ratio of data to updates.
      num_updates: iterations of the lifetime that schedules refer to.
      fill_steps: transitions of uniformly random actions that `init` fills the buffer with; rounded up to whole
        blocks of `num_envs * num_steps`.
      reset_pool: draw new episodes from this many first states, renewed before each iteration (see `autoreset`).
    """
    envs = autoreset(vectorize(env, num_envs), reset_pool)
    fill_rows = -(-fill_steps // (num_envs * num_steps)) * num_steps
    warm_up = uniform_agent(env.action_space(env_params))

    def init(key: Key) -> OffPolicyState:
        key_agent, key_env, key_fill = jax.random.split(key, 3)
        agent_state = agent.init(key_agent, env.observation_space(env_params), env.action_space(env_params))
        now = begin(key_env, warm_up, envs, env_params)
        now, experience, _ = transitions(key_fill, warm_up, (), envs, env_params, now, fill_rows)
        now = dataclasses.replace(now, memory=agent.memory(num_envs))
        state = buffer.init(jax.tree.map(lambda leaf: leaf[0, 0], experience))
        return OffPolicyState(agent.observe(agent_state, experience), now, buffer.add(state, experience))

    def step(key: Key, state: OffPolicyState, t: Step) -> tuple[OffPolicyState, Metrics]:
        key_pool, key_collect, key_sample, key_update = jax.random.split(key, 4)
        now = state.interaction
        now = dataclasses.replace(now, env_state=envs.refresh(key_pool, now.env_state, env_params))
        now, experience, episodes = transitions(key_collect, agent, state.agent, envs, env_params, now, num_steps)
        remembered = buffer.add(state.buffer, experience)
        samples = jax.vmap(buffer.sample, (0, None))(jax.random.split(key_sample, num_gradient_steps), remembered)
        index = t * num_gradient_steps + jnp.arange(num_gradient_steps)
        lifetime = num_updates * num_gradient_steps

        def body(agent_state: Any, inputs: tuple[Key, Sample, Step]) -> tuple[Any, Metrics]:
            key, sample, i = inputs
            agent_state, metrics = agent.update(key, agent_state, sample, Progress(i, lifetime))
            return agent_state, metrics

        agent_state = agent.observe(state.agent, experience)
        keys = jax.random.split(key_update, num_gradient_steps)
        agent_state, metrics = jax.lax.scan(body, agent_state, (keys, samples, index))
        if "priority" in metrics:
            remembered = buffer.update(remembered, samples.index.ravel(), metrics["priority"].ravel())
        averages = {name: _average(name, value) for name, value in metrics.items() if name != "priority"}
        return OffPolicyState(agent_state, now, remembered), averages | episodes

    return Algorithm(init, step)


def _average(name: str, value: jax.Array) -> jax.Array:
    """Over gradient steps; those that did not concern the actor are left out, but a broken loss stays visible."""
    return value.mean(0) if name.startswith("loss/") else jnp.nanmean(value, 0)
