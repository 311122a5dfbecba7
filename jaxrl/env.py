"""The environment protocol, and the wrappers that every family of environments shares.

An environment is pure and acts on one instance; `vectorize` gives it the axis B, `autoreset` starts new episodes:

    env = autoreset(vectorize(time_limit(env, 200), num_envs=8))
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.spaces import Box, Space
from jaxrl.types import Key, Timestep

EnvState = Any
EnvParams = Any


@runtime_checkable
class Environment(Protocol):
    """A pure environment. It never resets itself; `final_obs` equals `obs` until `autoreset` makes them differ.

    `params` is a pytree of arrays or numbers, traced, so levels and physics are swept by `vmap`. An environment of
    thousands of small operations may have an attribute `compiles_slowly = True` (`runtime.step_compile_options`).
    """

    @property
    def default_params(self) -> EnvParams:
        """Parameters as published."""
        ...

    def reset(self, key: Key, params: EnvParams) -> tuple[EnvState, Any]:
        """A first state and its observation."""
        ...

    def step(self, key: Key, state: EnvState, action: jax.Array, params: EnvParams) -> tuple[EnvState, Timestep]:
        """The next state, and what the agent sees of it."""
        ...

    def observation_space(self, params: EnvParams) -> Space:
        """Space of `obs`; static."""
        ...

    def action_space(self, params: EnvParams) -> Space:
        """Space of `action`; static."""
        ...


class _Wrapper:
    """Forwards what a wrapper does not change."""

    def __init__(self, env: Any) -> None:
        self.unwrapped_env = env

    @property
    def default_params(self) -> EnvParams:
        return self.unwrapped_env.default_params

    def observation_space(self, params: EnvParams) -> Space:
        return self.unwrapped_env.observation_space(params)

    def action_space(self, params: EnvParams) -> Space:
        return self.unwrapped_env.action_space(params)

    def __getattr__(self, name: str) -> Any:
        if name == "unwrapped_env":  # not set yet: unpickling or copying
            raise AttributeError(name)
        return getattr(self.unwrapped_env, name)


@struct.dataclass
class TimeLimitState:
    """State of `time_limit`: the inner state, and steps since the reset (int32 scalar)."""

    env_state: Any
    time: jax.Array


class _TimeLimit(_Wrapper):
    def __init__(self, env: Environment, max_steps: int | jax.Array) -> None:
        super().__init__(env)
        self.max_steps = max_steps

    def reset(self, key: Key, params: EnvParams) -> tuple[TimeLimitState, Any]:
        env_state, obs = self.unwrapped_env.reset(key, params)
        return TimeLimitState(env_state, jnp.int32(0)), obs

    def step(
        self, key: Key, state: TimeLimitState, action: jax.Array, params: EnvParams
    ) -> tuple[TimeLimitState, Timestep]:
        env_state, timestep = self.unwrapped_env.step(key, state.env_state, action, params)
        time = state.time + 1
        timestep = timestep._replace(truncated=timestep.truncated | (time >= self.max_steps))
        return TimeLimitState(env_state, time), timestep


def time_limit(env: Environment, max_steps: int | jax.Array) -> Environment:
    """Truncates episodes after `max_steps` steps; termination is left alone.

    Args:
      env: an environment of one instance.
      max_steps: steps, >= 1; may be traced.
    Returns:
      An environment whose `truncated` is set on step number `max_steps` of an episode, and later.
    Raises:
      ValueError: if `max_steps` is a number below 1.
    """
    if isinstance(max_steps, int) and max_steps < 1:
        raise ValueError(f"time_limit needs max_steps >= 1, got {max_steps}")
    return _TimeLimit(env, max_steps)


@struct.dataclass
class FrameStackState:
    """State of `frame_stack`: the inner state, and the last K observations but the newest, side by side."""

    env_state: Any
    earlier: jax.Array


class _FrameStack(_Wrapper):
    def __init__(self, env: Environment, num_frames: int) -> None:
        super().__init__(env)
        self.num_frames = num_frames

    def reset(self, key: Key, params: EnvParams) -> tuple[FrameStackState, jax.Array]:
        env_state, obs = self.unwrapped_env.reset(key, params)
        return self._stacked(env_state, jnp.concatenate([obs] * self.num_frames, -1))

    def step(
        self, key: Key, state: FrameStackState, action: jax.Array, params: EnvParams
    ) -> tuple[FrameStackState, Timestep]:
        env_state, timestep = self.unwrapped_env.step(key, state.env_state, action, params)
        state, obs = self._stacked(env_state, jnp.concatenate([state.earlier, timestep.final_obs], -1))
        return state, timestep._replace(obs=obs, final_obs=obs)

    def observation_space(self, params: EnvParams) -> Box:
        space = self.unwrapped_env.observation_space(params)
        low, high = (np.concatenate([bound] * self.num_frames, -1) for bound in space.bounds())
        if np.ndim(space.low) == 0 and np.ndim(space.high) == 0:
            low, high = space.low, space.high
        return Box(low, high, (*space.shape[:-1], space.shape[-1] * self.num_frames), space.dtype)

    def _stacked(self, env_state: EnvState, frames: jax.Array) -> tuple[FrameStackState, jax.Array]:
        size = frames.shape[-1] // self.num_frames
        return FrameStackState(env_state, frames[..., size:]), frames


def frame_stack(env: Environment, num_frames: int) -> Environment:
    """Shows the last `num_frames` observations instead of one, side by side on the last axis, the newest last.

    An episode begins with its first observation repeated. For images [height, width, channels] the frames are
    channels; replay buffers hold every frame as often as it is shown.

    Args:
      env: an environment of one instance.
      num_frames: >= 1.
    Raises:
      ValueError: if `num_frames` is below 1, or observations are not in a Box of at least one axis.
    """
    if num_frames < 1:
        raise ValueError(f"frame_stack needs num_frames >= 1, got {num_frames}")
    space = env.observation_space(env.default_params)
    if not isinstance(space, Box) or not space.shape:
        raise ValueError(
            f"frame_stack needs observations in a Box of at least one axis, got {space}; use memory = 'gru' instead"
        )
    return _FrameStack(env, num_frames)


class _SignRewards(_Wrapper):
    def reset(self, key: Key, params: EnvParams) -> tuple[EnvState, Any]:
        return self.unwrapped_env.reset(key, params)

    def step(self, key: Key, state: EnvState, action: jax.Array, params: EnvParams) -> tuple[EnvState, Timestep]:
        state, timestep = self.unwrapped_env.step(key, state, action, params)
        return state, timestep._replace(reward=jnp.sign(timestep.reward))


def sign_rewards(env: Environment) -> Environment:
    """Pays the sign of each reward, -1, 0 or 1; `env` is of one instance."""
    return _SignRewards(env)


class _Vectorized(_Wrapper):
    def __init__(self, env: Environment, num_envs: int) -> None:
        super().__init__(env)
        self.num_envs = num_envs

    def reset(self, key: Key, params: EnvParams) -> tuple[EnvState, Any]:
        return jax.vmap(self.unwrapped_env.reset, (0, None))(jax.random.split(key, self.num_envs), params)

    def step(self, key: Key, state: EnvState, action: jax.Array, params: EnvParams) -> tuple[EnvState, Timestep]:
        keys = jax.random.split(key, self.num_envs)
        return jax.vmap(self.unwrapped_env.step, (0, 0, 0, None))(keys, state, action, params)


def vectorize(env: Environment, num_envs: int) -> Any:
    """`num_envs` independent instances side by side: every leaf of state, action and timestep gets a leading axis B.

    Raises:
      ValueError: if `num_envs` is below 1.
    """
    if num_envs < 1:
        raise ValueError(f"vectorize needs num_envs >= 1, got {num_envs}")
    return _Vectorized(env, num_envs)


@struct.dataclass
class AutoresetState:
    """State of `autoreset`: the instances' states, and the pool of first states with their observations, or `()`."""

    env_state: Any
    pool: Any


class _Autoreset(_Wrapper):
    def __init__(self, env: Any, pool: int | None) -> None:
        super().__init__(env)
        self.pool_size = pool
        self._single = env.unwrapped_env

    def reset(self, key: Key, params: EnvParams) -> tuple[AutoresetState, Any]:
        key_reset, key_pool = jax.random.split(key)
        env_state, obs = self.unwrapped_env.reset(key_reset, params)
        return AutoresetState(env_state, self._fresh_pool(key_pool, params)), obs

    def refresh(self, key: Key, state: AutoresetState, params: EnvParams) -> AutoresetState:
        """Draws a new pool; nothing happens without one. Loops call it between rollouts."""
        return dataclasses.replace(state, pool=self._fresh_pool(key, params))

    def step(
        self, key: Key, state: AutoresetState, action: jax.Array, params: EnvParams
    ) -> tuple[AutoresetState, Timestep]:
        # Folded, not split: the key of a reset is then derived inside the branch, and that of a step not at all where
        # the environment is deterministic.
        key_step = jax.random.fold_in(key, 0)
        env_state, timestep = self.unwrapped_env.step(key_step, state.env_state, action, params)
        done = timestep.terminated | timestep.truncated

        def start_over() -> tuple[EnvState, Any]:
            fresh = self._first_states(jax.random.fold_in(key, 1), state.pool, params)

            def select(new: jax.Array, old: jax.Array) -> jax.Array:
                return jnp.where(done.reshape(done.shape + (1,) * (old.ndim - 1)), new.astype(old.dtype), old)

            return jax.tree.map(select, fresh, (env_state, timestep.obs))

        # Most steps end no episode: without the branch each of them would pay for a reset.
        env_state, obs = jax.lax.cond(jnp.any(done), start_over, lambda: (env_state, timestep.obs))
        return dataclasses.replace(state, env_state=env_state), timestep._replace(obs=obs)

    def _fresh_pool(self, key: Key, params: EnvParams) -> Any:
        if self.pool_size is None:
            return ()
        return jax.vmap(self._single.reset, (0, None))(jax.random.split(key, self.pool_size), params)

    def _first_states(self, key: Key, pool: Any, params: EnvParams) -> tuple[EnvState, Any]:
        if self.pool_size is None:
            return self.unwrapped_env.reset(key, params)
        index = jax.random.randint(key, (self.unwrapped_env.num_envs,), 0, self.pool_size)
        return jax.tree.map(lambda leaf: leaf[index], pool)


def autoreset(env: Any, pool: int | None = None) -> Any:
    """Starts a new episode where one ended; `final_obs` keeps the observation before the reset.

    Args:
      env: a vectorised environment, from `vectorize`.
      pool: draw new episodes from this many first states, which `refresh` renews between rollouts, instead of a
        reset at every end; for physics whose reset is as costly as many steps.
    Raises:
      ValueError: if `env` is not vectorised, or `pool` is below 1.
    """
    if not isinstance(env, _Vectorized):
        raise ValueError("autoreset needs a vectorised environment: autoreset(vectorize(env, num_envs))")
    if pool is not None and pool < 1:
        raise ValueError(f"autoreset needs pool >= 1 or None, got {pool}")
    return _Autoreset(env, pool)
