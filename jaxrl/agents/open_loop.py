"""An agent that follows a plan: one action per time step, whatever it sees."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.spaces import Box, Space
from jaxrl.types import Agent, Key, Metrics


@struct.dataclass
class OpenLoopState:
    """State of `open_loop`: the plan, `params` [T, …]."""

    params: jax.Array


def open_loop(action_space: Space, num_steps: int) -> Agent:
    """Plays the t-th row of a plan at the t-th step of an episode, and its last row from then on.

    Its memory is the time, int32 [B].

    Args:
      action_space: a Box; plans start at zero, or at the nearest bound.
      num_steps: T.
    Returns:
      An `Agent` with state `OpenLoopState`; `update` changes nothing.
    Raises:
      ValueError: for other spaces.
    """
    if not isinstance(action_space, Box):
        raise ValueError(f"open_loop plans real actions, in a Box, got {action_space}; use dec_pomfppo or ppo")

    def init(key: Key, obs_space: Space, action_space: Space) -> OpenLoopState:
        del key
        assert isinstance(action_space, Box)
        low, high = action_space.bounds()
        return OpenLoopState(jnp.clip(jnp.zeros((num_steps, *action_space.shape)), low, high))

    def act(
        key: Key, state: OpenLoopState, memory: jax.Array, obs: jax.Array, is_first: jax.Array, explore: bool
    ) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        del key, obs, explore
        time = jnp.where(is_first, 0, memory)
        return state.params[jnp.minimum(time, num_steps - 1)], time + 1, {}

    def update(key: Key, state: OpenLoopState, data: Any, progress: Any) -> tuple[OpenLoopState, Metrics]:
        return state, {}

    return Agent(init, lambda num_envs: jnp.zeros(num_envs, jnp.int32), act, update)
