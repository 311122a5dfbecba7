"""`check_environment`: does an environment keep the contract that loops, agents and wrappers rely on?"""

from __future__ import annotations

import itertools
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
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space
from jaxrl.types import Key, Timestep

_METHODS = ("reset", "step", "observation_space", "action_space")
_COMPARED_STEPS = 3  # floats may differ in the last bit between programs, and chaos then takes over


class EnvironmentReport(NamedTuple):
    """What `check_environment` saw under random actions.

    Attributes:
      num_steps: transitions, over all instances.
      num_terminated, num_truncated: how many of them the environment itself ended, either way; a step with both flags
        counts in both.
      min_reward, max_reward: range of the reward.
    """

    num_steps: int
    num_terminated: int
    num_truncated: int
    min_reward: float
    max_reward: float


def check_environment(
    env: Environment,
    *,
    num_steps: int = 200,
    num_envs: int = 4,
    num_eager_steps: int = 2,
    params: EnvParams | None = None,
    key: Key | None = None,
) -> EnvironmentReport:
    """Checks that an environment can be trained on, under random actions; compiles one program.

    Checked: spaces are static, hashable and always the same; shapes and dtypes of observation, reward and flags;
    the state has one structure; nothing depends on Python-side state; parameters may be traced and vmapped;
    compiled and uncompiled code agree, and so do instances alone and side by side; the same key gives the same
    numbers; observations lie in their space; rewards are finite; `final_obs` is `obs`, and under `autoreset` it stays
    the observation before the reset while `obs` restarts.

    Args:
      env: an environment of one instance, without `vectorize` and `autoreset`.
      num_steps: steps per instance, >= 4; at half of them all instances are reset, so that the restart is seen.
      num_envs: instances side by side, >= 2.
      num_eager_steps: uncompiled steps per instance; 0 for physics, whose uncompiled step takes minutes.
      params: parameters to check with; `env.default_params` if None.
      key: typed key; `jax.random.key(0)` if None.
    Returns:
      A short account of the episodes seen.
    Raises:
      ValueError: naming what was expected, what came and the fix.
    """
    if num_steps < 4 or num_envs < 2 or num_eager_steps < 0:
        raise ValueError(
            "check_environment needs num_steps >= 4, num_envs >= 2 and num_eager_steps >= 0, "
            f"got {num_steps}, {num_envs} and {num_eager_steps}"
        )
    key_reset, key_steps, key_actions = jax.random.split(jax.random.key(0) if key is None else key, 3)
    _check_interface(env)
    params = env.default_params if params is None else params
    spaces = _check_spaces(env, params)
    _check_types(env, params, spaces)

    start = (env.reset if num_eager_steps else jax.jit(env.reset))(key_reset, params)
    keys = jax.random.split(key_steps, (num_envs, num_steps))
    actions = jax.vmap(jax.vmap(spaces[1].sample))(jax.random.split(key_actions, (num_envs, num_steps)))
    run = _compile(env, params, start, num_steps, num_envs)
    record = jax.device_get(run(keys, actions))
    _check_same_again(record, jax.device_get(run(keys, actions)))
    _check_lanes(record, jax.device_get(run(jnp.roll(keys, 1, 0), jnp.roll(actions, 1, 0))))
    if num_eager_steps:
        _check_against_eager(env, params, start[0], actions, record, num_eager_steps)
    _check_values(record, spaces[0])
    _check_autoreset(record)
    return EnvironmentReport(
        num_steps=num_steps * num_envs,
        num_terminated=int(np.sum(record.terminated)),
        num_truncated=int(np.sum(record.truncated)),
        min_reward=float(np.min(record.reward)),
        max_reward=float(np.max(record.reward)),
    )


# What can be told without running anything.


def _check_interface(env: Any) -> None:
    missing = [name for name in (*_METHODS, "default_params") if not hasattr(env, name)]
    if missing:
        raise ValueError(f"expected the Environment protocol, got {env!r} without {', '.join(missing)}; add them")
    if hasattr(env, "num_envs"):
        raise ValueError("expected an environment of one instance, got a vectorised one; check it before `vectorize`")
    try:
        hash(env)
    except TypeError as error:
        raise ValueError(f"expected a hashable environment, got {error}; define __hash__ or drop __eq__") from error
    for path, leaf in jax.tree_util.tree_leaves_with_path(env.default_params):
        if not isinstance(leaf, (bool, int, float, np.ndarray, np.generic, jax.Array)):
            name = jax.tree_util.keystr(path)
            raise ValueError(
                f"expected numbers and arrays in default_params, got {type(leaf).__name__} at {name}; "
                "give static choices to the constructor instead"
            )


def _check_spaces(env: Environment, params: EnvParams) -> tuple[Space, Space]:
    def spaces_of(params: EnvParams) -> tuple[Space, Space]:
        return env.observation_space(params), env.action_space(params)

    spaces = spaces_of(params)
    for name, space in zip(("observation_space", "action_space"), spaces, strict=True):
        if not isinstance(space, (Discrete, MultiDiscrete, Box)):
            raise ValueError(f"expected {name} to be a Discrete, MultiDiscrete or Box of jaxrl.spaces, got {space!r}")
        hash(space)
    again = spaces_of(params)
    if again != spaces:
        raise ValueError(f"expected the same spaces at every call, got {spaces} and then {again}")
    traced: list[Any] = []
    try:
        jax.eval_shape(lambda params: traced.extend(spaces_of(params)), params)
    except Exception as error:
        raise ValueError(
            f"expected spaces that need no concrete parameters, got {_brief(error)}; "
            "spaces are static: compute them from the constructor's arguments"
        ) from error
    if tuple(traced) != spaces:
        raise ValueError(f"expected the same spaces under tracing, got {spaces} outside and {tuple(traced)} inside jit")
    return spaces


def _check_types(env: Environment, params: EnvParams, spaces: tuple[Space, Space]) -> None:
    key = jax.random.key(0)
    state, obs = _trace("reset", env.reset, (key,), params, "(state, obs)")
    action = jax.ShapeDtypeStruct(spaces[1].shape, spaces[1].dtype)
    next_state, timestep = _trace("step", env.step, (key, state, action), params, "(state, Timestep)")
    if not isinstance(timestep, Timestep):
        raise ValueError(f"expected step to return (state, Timestep), got (state, {type(timestep).__name__})")
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            name = jax.tree_util.keystr(path)
            raise ValueError(f"expected no key in the state, got one at {name}; use the key that step is given")
    _same_types("obs of reset", spaces[0], obs, "return what observation_space declares, or declare what is returned")
    for name in ("obs", "final_obs"):
        hint = "return what observation_space declares, or declare what is returned"
        _same_types(f"{name} of step", spaces[0], getattr(timestep, name), hint)
    _same_types("reward", jax.ShapeDtypeStruct((), jnp.float32), timestep.reward, "jnp.asarray(reward, jnp.float32)")
    for name in ("terminated", "truncated"):
        hint = "return one boolean per flag, e.g. jnp.array(False)"
        _same_types(name, jax.ShapeDtypeStruct((), jnp.bool_), getattr(timestep, name), hint)
    if not isinstance(timestep.info, dict):
        raise ValueError(f"expected info to be a dict of arrays, got {type(timestep.info).__name__}; use {{}} for none")
    before, after = jax.tree.structure(state), jax.tree.structure(next_state)
    if before != after:
        raise ValueError(f"expected one structure of the state, got {before} from reset and {after} from step")
    leaves = zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(next_state), strict=True)
    for (path, first), later in leaves:
        hint = "lax.scan needs equal types: cast them in reset"
        _same_types(f"state{jax.tree_util.keystr(path)} after step, as after reset", first, later, hint)


def _trace(name: str, function: Any, arguments: tuple[Any, ...], params: EnvParams, returns: str) -> tuple[Any, Any]:
    """The types that `function` returns, under abstract arguments."""
    try:
        result = jax.eval_shape(function, *arguments, params)
    except Exception as error:
        try:
            jax.eval_shape(lambda *arguments: function(*arguments, params), *arguments)
        except Exception:
            raise ValueError(
                f"expected {name} to be traceable, got {_brief(error)}; "
                "use jnp.where or lax.cond instead of `if` on arrays, and jnp instead of numpy"
            ) from error
        raise ValueError(
            f"expected {name} to accept traced parameters, got {_brief(error)}; "
            "use jnp.where instead of `if` on a parameter, or make it an argument of the constructor"
        ) from error
    if not (isinstance(result, tuple) and len(result) == 2):
        raise ValueError(f"expected {name} to return {returns}, got {type(result).__name__}")
    return result


def _same_types(name: str, expected: Any, got: Any, fix: str) -> None:
    if not hasattr(got, "shape"):
        raise ValueError(f"{name}: expected one array, got {jax.tree.structure(got)}; {fix}")
    if (tuple(got.shape), got.dtype) != (tuple(expected.shape), expected.dtype):
        raise ValueError(
            f"{name}: expected shape {tuple(expected.shape)} and dtype {expected.dtype}, "
            f"got {tuple(got.shape)} and {got.dtype}; {fix}"
        )


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


# What one compiled program tells.


class _Record(NamedTuple):
    """Leaves [num_envs, num_steps, …]: what the environment answered (raw), and what `autoreset` made of it."""

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
    """The state with what the current episode began with."""

    env_state: Any
    time: jax.Array
    first_obs: Any
    reset_key: jax.Array


class _Recorder:
    """Notes, in the state and in `info`, what passes through an environment."""

    def __init__(self, env: Environment) -> None:
        self.env = env

    def reset(self, key: Key, params: EnvParams) -> tuple[_RecordedState, Any]:
        env_state, obs = self.env.reset(key, params)
        return self.begin(env_state, obs, key), obs

    def begin(self, env_state: EnvState, obs: Any, key: Key) -> _RecordedState:
        return _RecordedState(env_state, jnp.int32(0), obs, jax.random.key_data(key))

    def step(
        self, key: Key, state: _RecordedState, action: jax.Array, params: EnvParams
    ) -> tuple[_RecordedState, Timestep]:
        env_state, timestep = self.env.step(key, state.env_state, action, params)
        seen = (timestep.terminated, timestep.truncated, timestep.obs, timestep.final_obs, jax.random.key_data(key))
        return state.replace(env_state=env_state, time=state.time + 1), timestep._replace(info={"seen": seen})


def _compile(env: Environment, params: EnvParams, start: tuple[EnvState, Any], num_steps: int, num_envs: int) -> Any:
    """(keys, actions) -> _Record; every instance begins at `start`, with its own copy of the parameters."""
    recorder: Any = _Recorder(env)
    single = autoreset(vectorize(time_limit(recorder, num_steps // 2), 1))
    first = TimeLimitState(recorder.begin(*start, jax.random.key(0)), jnp.int32(0))
    state = AutoresetState(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], first), ())

    def run(keys: Key, actions: jax.Array, params: EnvParams) -> _Record:
        def step(state: AutoresetState, inputs: tuple[Key, jax.Array]) -> tuple[AutoresetState, _Record]:
            key, action = inputs
            state, timestep = single.step(key, state, action[None], params)
            terminated, truncated, obs, final_obs, step_key = timestep.info["seen"]
            episode = state.env_state.env_state
            record = _Record(
                timestep.reward, terminated, truncated, obs, final_obs, step_key,
                timestep.terminated | timestep.truncated, timestep.obs, timestep.final_obs,
                episode.time, episode.first_obs, episode.reset_key,
            )  # fmt: skip
            return state, jax.tree.map(lambda leaf: leaf[0], record)

        return jax.lax.scan(step, state, (keys, actions))[1]

    copies = jax.tree.map(lambda leaf: jnp.broadcast_to(jnp.asarray(leaf), (num_envs, *np.shape(leaf))), params)
    try:
        compiled = jax.jit(jax.vmap(run)).lower(
            jax.random.split(jax.random.key(0), (num_envs, num_steps)),
            jnp.zeros((num_envs, num_steps, *env.action_space(params).shape), env.action_space(params).dtype),
            copies,
        )
    except Exception as error:
        raise ValueError(
            f"expected reset and step to be vmappable over instances and parameters, got {_brief(error)}; "
            "use jax.numpy operations, which vmap understands"
        ) from error
    program = compiled.compile()
    return lambda keys, actions: program(keys, actions, copies)


def _fields(record: _Record) -> Any:
    return zip(_Record._fields, record, strict=True)


def _check_same_again(record: _Record, again: _Record) -> None:
    for (name, first), second in zip(_fields(record), again, strict=True):
        if not np.array_equal(first, second, equal_nan=first.dtype.kind == "f"):
            raise ValueError(
                f"{name}: expected the same numbers from the same key, got others in a second run of one program; "
                "draw every random number from the key, and keep nothing outside the state"
            )


def _check_lanes(record: _Record, rolled: _Record) -> None:
    for (name, first), second in zip(_fields(record), rolled, strict=True):
        expected, got = (x[:, :_COMPARED_STEPS] for x in (np.roll(first, 1, 0), second))
        if not _close(expected, got):
            raise ValueError(
                f"{name}: expected instances side by side (vmap) not to touch each other, got other numbers when "
                "they change places; use operations that act on one instance"
            )


def _check_against_eager(
    env: Environment, params: EnvParams, start: EnvState, actions: jax.Array, record: _Record, num_eager_steps: int
) -> None:
    """Steps each instance alone, without jit, from the same state with the same keys and actions."""
    for lane in range(len(record.reward)):
        state = start
        for t in range(min(num_eager_steps, _COMPARED_STEPS)):
            key = jax.random.wrap_key_data(record.step_key[lane, t])
            state_before, (state, eager) = state, env.step(key, state, actions[lane, t], params)
            batched = (record.raw_obs, record.reward, record.terminated, record.truncated)
            alone = (eager.obs, eager.reward, eager.terminated, eager.truncated)
            for name, expected, got in zip(("obs", "reward", "terminated", "truncated"), alone, batched, strict=True):
                if not _close(np.asarray(expected), got[lane, t]):
                    jitted = jax.jit(env.step)(key, state_before, actions[lane, t], params)[1]
                    agrees = _close(np.asarray(expected), np.asarray(getattr(jitted, name)))
                    what = "alone and under vmap" if agrees else "with and without jit"
                    raise ValueError(
                        f"{name}: expected equal numbers {what}, got {np.asarray(expected)} and {got[lane, t]} at step "
                        f"{t}; read no Python-side state, and draw random numbers from the key, not from numpy"
                    )
            if record.done[lane, t]:
                break
    lane, t = np.argwhere(record.done)[0]
    obs = env.reset(jax.random.wrap_key_data(record.reset_key[lane, t]), params)[1]
    if not _close(np.asarray(obs), record.first_obs[lane, t]):
        raise ValueError(
            f"obs of reset: expected equal numbers with and without jit, got {record.first_obs[lane, t]} and "
            f"{np.asarray(obs)}; read no Python-side state, and draw random numbers from the key, not from numpy"
        )


def _close(expected: np.ndarray, got: np.ndarray) -> bool:
    return bool(np.allclose(np.asarray(expected, np.float64), np.asarray(got, np.float64), 1e-4, 1e-5, equal_nan=True))


def _check_values(record: _Record, space: Space) -> None:
    for name in ("raw_obs", "first_obs"):
        obs = getattr(record, name)
        inside = _contained(space, obs)
        if not inside.all():
            where = tuple(int(i) for i in np.argwhere(~inside)[0])
            source = "step" if name == "raw_obs" else "reset"
            raise ValueError(
                f"obs of {source}: expected elements of {space}, got {obs[where]} at entry {where[2:]}; "
                "widen observation_space or correct the observation"
            )
    if not np.isfinite(record.reward).all():
        lane, t = np.argwhere(~np.isfinite(record.reward))[0]
        raise ValueError(f"reward: expected finite numbers, got {record.reward[lane, t]} at step {t}")
    if not np.array_equal(record.raw_obs, record.raw_final_obs):
        raise ValueError(
            "final_obs: expected the same as obs, got another; an environment never resets itself (autoreset does), "
            "so both are the successor of the observation acted on"
        )


def _contained(space: Space, x: np.ndarray) -> np.ndarray:
    """Bool, entry by entry; floats may stick out by rounding."""
    if isinstance(space, Discrete):
        return (x >= 0) & (x < space.n)
    if isinstance(space, MultiDiscrete):
        return (x >= 0) & (x < np.asarray(space.nvec))
    low, high = space.bounds()
    slack = 1e-4 if np.issubdtype(x.dtype, np.floating) else 0.0
    low, high = (b + sign * slack * np.maximum(1.0, np.abs(b)) for b, sign in ((low, -1), (high, 1)))
    return (x >= low) & (x <= high)


def _check_autoreset(record: _Record) -> None:
    lanes, steps = record.done.shape
    for lane, t in itertools.product(range(lanes), range(steps)):
        expected = record.first_obs if record.done[lane, t] else record.raw_obs
        restarted = record.time[lane, t] == 0
        if restarted != record.done[lane, t] or not np.array_equal(record.obs[lane, t], expected[lane, t]):
            raise ValueError(
                f"obs under autoreset: expected {'a first' if record.done[lane, t] else 'the next'} observation, "
                f"{expected[lane, t]}, got {record.obs[lane, t]} at step {t}"
            )
    if not np.array_equal(record.final_obs, record.raw_obs):
        raise ValueError("final_obs under autoreset: expected the observation before the reset, got another")
