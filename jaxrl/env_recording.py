"""One compiled program that steps an environment under `autoreset` and records all that passes; for `env_checks`."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.env import (
    AutoresetState,
    Environment,
    EnvParams,
    EnvState,
    TimeLimitState,
    autoreset,
    time_limit,
    vectorize,
)
from jaxrl.types import Key, Timestep

# The program runs for milliseconds, so it is compiled as quickly as XLA can on a CPU: in a third of the time.
_QUICK_COMPILE = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


class Record(NamedTuple):
    """What happened, leaves [B, T, …].

    Attributes:
      reward, terminated, truncated, raw_obs, raw_final_obs: the environment's own answers.
      step_key: data of the key that its step was given.
      done, obs, final_obs: the answers of `autoreset`; `done` includes a time limit of half the steps.
      time, first_obs, reset_key: steps since the reset, its observation and key data, after the step.
    """

    reward: Any
    terminated: Any
    truncated: Any
    raw_obs: Any
    raw_final_obs: Any
    step_key: Any
    done: Any
    obs: Any
    final_obs: Any
    time: Any
    first_obs: Any
    reset_key: Any


@struct.dataclass
class _RecordedState:
    """The state, with what the current episode began with."""

    env_state: Any
    time: jax.Array
    first_obs: Any
    reset_key: jax.Array


class _Recorder:
    """Notes, in the state and in `info`, what passes through an environment."""

    def __init__(self, env: Environment) -> None:
        self.env = env

    def begin(self, env_state: EnvState, obs: Any, key: Key) -> _RecordedState:
        return _RecordedState(env_state, jnp.int32(0), obs, jax.random.key_data(key))

    def reset(self, key: Key, params: EnvParams) -> tuple[_RecordedState, Any]:
        env_state, obs = self.env.reset(key, params)
        return self.begin(env_state, obs, key), obs

    def step(
        self, key: Key, state: _RecordedState, action: jax.Array, params: EnvParams
    ) -> tuple[_RecordedState, Timestep]:
        env_state, timestep = self.env.step(key, state.env_state, action, params)
        seen = (timestep.terminated, timestep.truncated, timestep.obs, timestep.final_obs, jax.random.key_data(key))
        state = dataclasses.replace(state, env_state=env_state, time=state.time + 1)
        return state, timestep._replace(info={"seen": seen})


def compile_quickly(lowered: Any) -> Any:
    """Compiles what runs once; on a CPU without optimisation."""
    if jax.default_backend() != "cpu":
        return lowered.compile()
    try:
        return lowered.compile(compiler_options=_QUICK_COMPILE)
    except Exception:  # an option that another version of XLA does not have
        return lowered.compile()


def lower_recording(
    env: Environment, params: EnvParams, start: tuple[EnvState, Any], keys: Key, actions: jax.Array
) -> tuple[Any, EnvParams]:
    """Traces the recording, vmapped over instances; raises whatever the environment raises under `vmap`.

    Args:
      env: an environment of one instance.
      params: its parameters; every instance gets its own copy.
      start: what `reset` returned; every instance begins there.
      keys: [B, T] typed keys.
      actions: [B, T, …].
    Returns:
      The lowered program `(keys, actions, copies) -> Record`, and the copies, leaves [B, …].
    """
    num_envs, num_steps = keys.shape
    recorder: Any = _Recorder(env)
    single = autoreset(vectorize(time_limit(recorder, num_steps // 2), 1))
    first = TimeLimitState(recorder.begin(*start, keys[0, 0]), jnp.int32(0))
    first_states = AutoresetState(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], first), ())

    def run(keys: Key, actions: jax.Array, params: EnvParams) -> Record:
        def step(state: AutoresetState, inputs: tuple[Key, jax.Array]) -> tuple[AutoresetState, Record]:
            key, action = inputs
            state, timestep = single.step(key, state, action[None], params)
            terminated, truncated, raw_obs, raw_final_obs, step_key = timestep.info["seen"]
            episode = state.env_state.env_state
            record = Record(
                reward=timestep.reward,
                terminated=terminated,
                truncated=truncated,
                raw_obs=raw_obs,
                raw_final_obs=raw_final_obs,
                step_key=step_key,
                done=timestep.terminated | timestep.truncated,
                obs=timestep.obs,
                final_obs=timestep.final_obs,
                time=episode.time,
                first_obs=episode.first_obs,
                reset_key=episode.reset_key,
            )
            return state, jax.tree.map(lambda leaf: leaf[0], record)

        return jax.lax.scan(step, first_states, (keys, actions))[1]

    copies = jax.tree.map(lambda leaf: jnp.broadcast_to(jnp.asarray(leaf), (num_envs, *np.shape(leaf))), params)
    return jax.jit(jax.vmap(run)).lower(keys, actions, copies), copies
