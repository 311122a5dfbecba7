"""`check_environment`: does an environment keep the contract that loops, agents and wrappers rely on?"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import Environment, EnvParams, EnvState
from jaxrl.env_recording import Record, compile_quickly, lower_recording
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
      num_steps: steps per instance, >= 4; episodes are cut at half of them, so that a restart is always seen.
      num_envs: instances side by side, >= 2.
      num_eager_steps: uncompiled steps per instance; 0 for physics, whose uncompiled step takes minutes.
      params: parameters to check with; `env.default_params` if None.
      key: typed key of the default kind (threefry); others draw differently under `vmap`. `jax.random.key(0)` if None.
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
    key = jax.random.key(0, impl="threefry2x32") if key is None else key
    if str(jax.random.key_impl(key)) != "threefry2x32":
        raise ValueError(f"check_environment needs a key with impl='threefry2x32', got {jax.random.key_impl(key)}")
    key_reset, key_steps, key_actions = jax.random.split(key, 3)
    _check_interface(env)
    params = env.default_params if params is None else params
    spaces = _check_spaces(env, params)
    _check_types(env, params, spaces)

    keys = jax.random.split(key_steps, (num_envs, num_steps))
    actions = jax.vmap(jax.vmap(spaces[1].sample))(jax.random.split(key_actions, (num_envs, num_steps)))
    if num_eager_steps:
        start = env.reset(key_reset, params)
    else:
        start = compile_quickly(jax.jit(env.reset).lower(key_reset, params))(key_reset, params)
    run = _recording(env, params, start, keys, actions)
    record = run(keys, actions)
    _check_same_again(record, run(keys, actions))
    _check_lanes(record, run(jnp.roll(keys, 1, 0), jnp.roll(actions, 1, 0)))
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
    hint = "return what observation_space declares, or declare what is returned"
    _same_types("obs of reset", spaces[0], obs, hint)
    action = jax.ShapeDtypeStruct(spaces[1].shape, spaces[1].dtype)
    next_state, timestep = _trace("step", env.step, (key, state, action), params, "(state, Timestep)")
    if not isinstance(timestep, Timestep):
        raise ValueError(f"expected step to return (state, Timestep), got (state, {type(timestep).__name__})")
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            name = jax.tree_util.keystr(path)
            raise ValueError(f"expected no key in the state, got one at {name}; use the key that step is given")
    for name in ("obs", "final_obs"):
        _same_types(f"{name} of step", spaces[0], getattr(timestep, name), hint)
    _same_types("reward", jax.ShapeDtypeStruct((), jnp.float32), timestep.reward, "jnp.asarray(reward, jnp.float32)")
    for name in ("terminated", "truncated"):
        hint = "return one boolean per flag, e.g. jnp.array(False)"
        _same_types(name, jax.ShapeDtypeStruct((), jnp.bool_), getattr(timestep, name), hint)
    if not isinstance(timestep.info, dict):
        raise ValueError(f"expected info to be a dict of arrays, got {type(timestep.info).__name__}; use {{}} for none")
    before, after = jax.tree.structure(state), jax.tree.structure(next_state)
    if str(before) != str(after):
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


def _recording(env: Environment, params: EnvParams, start: Any, keys: Key, actions: jax.Array) -> Any:
    try:
        lowered, copies = lower_recording(env, params, start, keys, actions)
    except Exception as error:
        raise ValueError(
            f"expected reset and step to be vmappable over instances and parameters, got {_brief(error)}; "
            "use jax.numpy operations, which vmap understands"
        ) from error
    program = compile_quickly(lowered)
    return lambda keys, actions: jax.device_get(program(keys, actions, copies))


def _check_same_again(record: Record, again: Record) -> None:
    for name, first, second in zip(Record._fields, record, again, strict=True):
        if not np.array_equal(first, second, equal_nan=first.dtype.kind == "f"):
            raise ValueError(
                f"{name}: expected the same numbers from the same key, got others in a second run of one program; "
                "draw every random number from the key, and keep nothing outside the state"
            )


def _check_lanes(record: Record, rolled: Record) -> None:
    for name, first, second in zip(Record._fields, record, rolled, strict=True):
        if not _close(np.roll(first, 1, 0)[:, :_COMPARED_STEPS], second[:, :_COMPARED_STEPS]):
            raise ValueError(
                f"{name}: expected instances side by side (vmap) not to touch each other, got other numbers when "
                "they change places; use operations that act on one instance"
            )


def _check_against_eager(
    env: Environment, params: EnvParams, start: EnvState, actions: jax.Array, record: Record, num_eager_steps: int
) -> None:
    """Steps each instance by itself, without jit, from the same state with the same keys and actions."""
    for lane in range(len(record.reward)):
        state = start
        for t in range(min(num_eager_steps, _COMPARED_STEPS)):
            arguments = (_as_key(record.step_key[lane, t]), state, actions[lane, t], params)
            leaves = jax.tree.leaves(state)
            next_state, timestep = env.step(*arguments)
            if list(map(id, leaves)) != list(map(id, jax.tree.leaves(state))):
                raise ValueError("expected step to leave the state it is given alone, got it changed; build a new one")
            _compare_step(env, arguments, timestep, Record(*(leaf[lane, t] for leaf in record)))
            if record.done[lane, t]:
                break
            state = next_state
    lane, t = np.argwhere(record.done)[0]
    _, obs = env.reset(_as_key(record.reset_key[lane, t]), params)
    if not _close(obs, record.first_obs[lane, t]):
        raise ValueError(_differs("obs of reset", "with and without jit", obs, record.first_obs[lane, t]))


def _as_key(data: np.ndarray) -> Key:
    return jax.random.wrap_key_data(jnp.asarray(data), impl="threefry2x32")


def _compare_step(env: Environment, arguments: tuple[Any, ...], eager: Timestep, record: Record) -> None:
    got = {"obs": record.raw_obs, "reward": record.reward}
    got |= {"terminated": record.terminated, "truncated": record.truncated}
    for name, value in got.items():
        if not _close(getattr(eager, name), value):
            jitted = getattr(jax.jit(env.step)(*arguments)[1], name)
            what = "alone and under vmap" if _close(getattr(eager, name), jitted) else "with and without jit"
            raise ValueError(_differs(f"{name} of step", what, getattr(eager, name), value))


def _differs(name: str, what: str, alone: Any, batched: Any) -> str:
    return (
        f"{name}: expected equal numbers {what}, got {np.asarray(alone)} and {batched}; "
        "read no Python-side state, and draw random numbers from the key, not from numpy"
    )


def _close(expected: Any, got: Any) -> bool:
    expected, got = (np.asarray(x, np.float64) for x in (expected, got))
    return bool(np.allclose(expected, got, rtol=1e-4, atol=1e-5, equal_nan=True))


def _check_values(record: Record, space: Space) -> None:
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


def _check_autoreset(record: Record) -> None:
    done = record.done.reshape(record.done.shape + (1,) * (record.obs.ndim - 2))
    expected = np.where(done, record.first_obs, record.raw_obs)
    if not np.array_equal(record.obs, expected) or not np.array_equal(record.time == 0, record.done):
        raise ValueError("obs under autoreset: expected a first observation after each end, and no other, got another")
    if not np.array_equal(record.final_obs, record.raw_obs):
        raise ValueError("final_obs under autoreset: expected the observation before the reset, got another")
