"""One compiled program that steps an environment under `autoreset` and records all that passes; for `env_checks`."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
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
    """What happened, leaves [T, B, …].

    Attributes:
      reward, terminated, truncated, raw_obs, raw_final_obs: the environment's own answers.
      done, obs, final_obs: the answers of `autoreset`; `done` includes a time limit of half the steps.
      time, first_obs, reset_key: steps since the reset, its observation and its key's data, after the step.
    """

    reward: Any
    terminated: Any
    truncated: Any
    raw_obs: Any
    raw_final_obs: Any
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
    """Notes, in the state and in `info`, what passes through an environment; its action is (step's key, action)."""

    def __init__(self, env: Environment) -> None:
        self.env = env

    def begin(self, env_state: EnvState, obs: Any, key: Key) -> _RecordedState:
        return _RecordedState(env_state, jnp.int32(0), obs, jax.random.key_data(key))

    def reset(self, key: Key, params: EnvParams) -> tuple[_RecordedState, Any]:
        env_state, obs = self.env.reset(key, params)
        return self.begin(env_state, obs, key), obs

    def step(
        self, key: Key, state: _RecordedState, action: tuple[Key, jax.Array], params: EnvParams
    ) -> tuple[_RecordedState, Timestep]:
        del key  # `vectorize` derives it from its place among the instances, which are to be exchanged
        env_state, timestep = self.env.step(action[0], state.env_state, action[1], params)
        seen = (timestep.terminated, timestep.truncated, timestep.obs, timestep.final_obs)
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
) -> Any:
    """Traces the recording; raises whatever the environment raises under `vmap`.

    Args:
      env: an environment of one instance.
      params: its parameters, traced in the program.
      start: what `reset` returned; every instance begins there.
      keys: [T, B] typed keys, one for each step of each instance.
      actions: [T, B, …].
    Returns:
      The lowered program `(keys, actions, params) -> Record`.
    """
    num_steps, num_envs = keys.shape
    recorder: Any = _Recorder(env)
    batched = autoreset(vectorize(time_limit(recorder, num_steps // 2), num_envs))
    first = TimeLimitState(recorder.begin(*start, keys[0, 0]), jnp.int32(0))
    copies = jax.tree.map(lambda leaf: jnp.broadcast_to(jnp.asarray(leaf), (num_envs, *jnp.shape(leaf))), first)

    def run(keys: Key, actions: jax.Array, params: EnvParams) -> Record:
        def step(state: AutoresetState, inputs: tuple[Key, jax.Array]) -> tuple[AutoresetState, Record]:
            state, timestep = batched.step(inputs[0][0], state, inputs, params)
            terminated, truncated, raw_obs, raw_final_obs = timestep.info["seen"]
            episode = state.env_state.env_state
            record = Record(
                reward=timestep.reward,
                terminated=terminated,
                truncated=truncated,
                raw_obs=raw_obs,
                raw_final_obs=raw_final_obs,
                done=timestep.terminated | timestep.truncated,
                obs=timestep.obs,
                final_obs=timestep.final_obs,
                time=episode.time,
                first_obs=episode.first_obs,
                reset_key=episode.reset_key,
            )
            return state, record

        return jax.lax.scan(step, AutoresetState(copies, ()), (keys, actions))[1]

    return jax.jit(run).lower(keys, actions, params)
