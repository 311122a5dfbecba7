"""`check_environment`: does an environment keep the contract that loops, agents and wrappers rely on?"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import Environment, EnvParams, EnvState
from jaxrl.env_recording import Record, compile_quickly, lower_recording
from jaxrl.env_signature import brief, check_interface, check_spaces, check_types
from jaxrl.spaces import Discrete, Indexed, MultiDiscrete, Space
from jaxrl.types import Key, Timestep

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
    check_interface(env)
    params = env.default_params if params is None else params
    spaces = check_spaces(env, params)
    check_types(env, params, spaces)

    keys = jax.random.split(key_steps, (num_steps, num_envs))
    actions = jax.vmap(jax.vmap(spaces[1].sample))(jax.random.split(key_actions, (num_steps, num_envs)))
    if num_eager_steps:
        start = env.reset(key_reset, params)
    else:
        start = compile_quickly(jax.jit(env.reset).lower(key_reset, params))(key_reset, params)
    run = _recording(env, params, start, keys, actions)
    record = run(keys, actions)
    _check_same_again(record, run(keys, actions))
    _check_lanes(record, run(jnp.roll(keys, 1, 1), jnp.roll(actions, 1, 1)))
    if num_eager_steps:
        _check_against_eager(env, params, start[0], (keys, actions), record, num_eager_steps)
    _check_values(record, spaces[0])
    _check_autoreset(record)
    return EnvironmentReport(
        num_steps=num_steps * num_envs,
        num_terminated=int(np.sum(record.terminated)),
        num_truncated=int(np.sum(record.truncated)),
        min_reward=float(np.min(record.reward)),
        max_reward=float(np.max(record.reward)),
    )


def _recording(env: Environment, params: EnvParams, start: Any, keys: Key, actions: jax.Array) -> Any:
    try:
        lowered = lower_recording(env, params, start, keys, actions)
    except Exception as error:
        raise ValueError(
            f"expected reset and step to be vmappable over instances, got {brief(error)}; "
            "use jax.numpy operations, which vmap understands"
        ) from error
    program = compile_quickly(lowered)
    return lambda keys, actions: jax.device_get(program(keys, actions, params))


def _check_same_again(record: Record, again: Record) -> None:
    for name, first, second in zip(Record._fields, record, again, strict=True):
        if not np.array_equal(first, second, equal_nan=first.dtype.kind == "f"):
            raise ValueError(
                f"{name}: expected the same numbers from the same key, got others in a second run of one program; "
                "draw every random number from the key, and keep nothing outside the state"
            )


def _check_lanes(record: Record, exchanged: Record) -> None:
    """`exchanged` ran with each instance's keys and actions moved to the next; resets drew other keys."""
    first_episode = np.roll(np.cumsum(record.done, 0) - record.done == 0, 1, 1)[:_COMPARED_STEPS]
    for name in ("raw_obs", "reward", "terminated", "truncated"):
        expected, got = np.roll(getattr(record, name), 1, 1), getattr(exchanged, name)
        if not _close(expected[:_COMPARED_STEPS][first_episode], got[:_COMPARED_STEPS][first_episode]):
            raise ValueError(
                f"{name}: expected instances side by side (vmap) not to touch each other, got other numbers when "
                "they change places; use operations that act on one instance"
            )


def _check_against_eager(
    env: Environment, params: EnvParams, start: EnvState, inputs: Any, record: Record, num_eager_steps: int
) -> None:
    """Steps each instance by itself, without jit, from the same state with the same keys and actions."""
    for lane in range(record.reward.shape[1]):
        state = start
        for t in range(min(num_eager_steps, _COMPARED_STEPS)):
            arguments = (inputs[0][t, lane], state, inputs[1][t, lane], params)
            leaves = jax.tree.leaves(state)
            next_state, timestep = env.step(*arguments)
            if list(map(id, leaves)) != list(map(id, jax.tree.leaves(state))):
                raise ValueError("expected step to leave the state it is given alone, got it changed; build a new one")
            _compare_step(env, arguments, timestep, Record(*(leaf[t, lane] for leaf in record)))
            if record.done[t, lane]:
                break
            state = next_state
    t, lane = np.argwhere(record.done)[0]
    _, obs = env.reset(_as_key(record.reset_key[t, lane]), params)
    if not _close(obs, record.first_obs[t, lane]):
        raise ValueError(_differs("obs of reset", "with and without jit", obs, record.first_obs[t, lane]))


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
        t, lane = np.argwhere(~np.isfinite(record.reward))[0]
        raise ValueError(f"reward: expected finite numbers, got {record.reward[t, lane]} at step {t}")
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
    if isinstance(space, Indexed):  # an index is exact
        whole = (np.arange(x.shape[-1]) > 0) | (x == np.floor(x))
        return (x >= low) & (x <= high) & whole
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
