"""What can be told of an environment without running it: interface, spaces, structures and dtypes; for `env_checks`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.env import Environment, EnvParams
from jaxrl.spaces import Box, Discrete, Indexed, MultiDiscrete, Space
from jaxrl.types import Timestep

_METHODS = ("reset", "step", "observation_space", "action_space")


def check_interface(env: Any) -> None:
    """Methods, instance, hash and the kinds of parameters."""
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


def check_spaces(env: Environment, params: EnvParams) -> tuple[Space, Space]:
    """Returns the spaces of observation and action, which are static."""

    def spaces_of(params: EnvParams) -> tuple[Space, Space]:
        return env.observation_space(params), env.action_space(params)

    spaces = spaces_of(env.default_params)
    actions = (Discrete, MultiDiscrete, Box)
    for name, space, kinds in (
        ("observation_space", spaces[0], (*actions, Indexed)),
        ("action_space", spaces[1], actions),
    ):
        if not isinstance(space, kinds):
            listed = ", ".join(kind.__name__ for kind in kinds[:-1])
            raise ValueError(f"expected {name} to be a {listed} or {kinds[-1].__name__} of jaxrl.spaces, got {space!r}")
    again = spaces_of(env.default_params)
    if again != spaces:
        raise ValueError(f"expected the same spaces at every call, got {spaces} and then {again}")
    traced: list[Any] = []
    try:
        jax.eval_shape(lambda params: traced.extend(spaces_of(params)), env.default_params)
    except Exception as error:
        raise ValueError(
            f"expected spaces that need no concrete parameters, got {brief(error)}; "
            "spaces are static: compute them from the constructor's arguments"
        ) from error
    if tuple(traced) != spaces:
        raise ValueError(f"expected the same spaces under tracing, got {spaces} outside and {tuple(traced)} inside jit")
    return spaces_of(params)


def check_types(env: Environment, params: EnvParams, spaces: tuple[Space, Space]) -> None:
    """Structures, shapes and dtypes of all that `reset` and `step` return."""
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
    """The types that `function` returns, under abstract arguments and a batch of two sets of parameters."""
    batch = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * 2), params)
    side_by_side = jax.vmap(function, (*(None for _ in arguments), 0), axis_size=2)
    try:
        result = jax.eval_shape(side_by_side, *arguments, batch)
    except Exception as error:
        what, fix = _what_fails(function, arguments, params)
        raise ValueError(f"expected {name} to {what}, got {brief(error)}; {fix}") from error
    if not (isinstance(result, tuple) and len(result) == 2):
        raise ValueError(f"expected {name} to return {returns}, got {type(result).__name__}")
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), result)


def _what_fails(function: Any, arguments: tuple[Any, ...], params: EnvParams) -> tuple[str, str]:
    """What a function that cannot be traced side by side fails at first, and the fix."""
    try:
        jax.eval_shape(lambda *arguments: function(*arguments, params), *arguments)
    except Exception:
        fix = "use jnp.where or lax.cond instead of `if` on arrays, and jnp instead of numpy"
        return "be traceable", fix
    try:
        jax.eval_shape(function, *arguments, params)
    except Exception:
        fix = "use jnp.where instead of `if` on a parameter, or make it an argument of the constructor"
        return "accept traced parameters", fix
    return "be vmappable over parameters", "use jax.numpy operations, which vmap understands"


def _same_types(name: str, expected: Any, got: Any, fix: str) -> None:
    if not hasattr(got, "shape"):
        raise ValueError(f"{name}: expected one array, got {jax.tree.structure(got)}; {fix}")
    if (tuple(got.shape), got.dtype) != (tuple(expected.shape), expected.dtype):
        raise ValueError(
            f"{name}: expected shape {tuple(expected.shape)} and dtype {expected.dtype}, "
            f"got {tuple(got.shape)} and {got.dtype}; {fix}"
        )


def brief(error: Exception) -> str:
    """The first line of an error."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
