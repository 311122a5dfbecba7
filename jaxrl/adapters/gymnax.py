"""Gymnax's environments as ours, and ours as Gymnax's."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl.env import Environment, EnvParams, EnvState
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space
from jaxrl.types import Key, Timestep

# Gymnax imports these for its `render` methods alone; with what they import they take three quarters of its import.
_PLOTTING = ("seaborn", "matplotlib", "matplotlib.pyplot", "matplotlib.colors")


class _Deferred(ModuleType):
    """Stands in for a module until one of its attributes is used, then hands over to the real one."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or sys.modules.get(self.__name__) is self:
            raise AttributeError(f"module {self.__name__!r} is not imported yet; it has no attribute {name!r}")
        return getattr(importlib.import_module(self.__name__), name)


def _import_without_plotting(name: str) -> Any:
    """Imports a module of Gymnax while the plotting modules that are not there yet are stand-ins.

    The stand-ins leave `sys.modules` afterwards, so a later `import matplotlib` finds the real one; those that Gymnax
    keeps import it when a `render` method touches them.
    """
    stand_ins = {module: _Deferred(module) for module in _PLOTTING if module not in sys.modules}
    for module, stand_in in stand_ins.items():
        stand_in.__path__ = []  # so that the import system looks for submodules, and finds the stand-ins
        parent, _, child = module.rpartition(".")
        if parent in stand_ins:
            setattr(stand_ins[parent], child, stand_in)
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module(name)
    finally:
        for module, stand_in in stand_ins.items():
            if sys.modules.get(module) is stand_in:
                del sys.modules[module]


_registration = _import_without_plotting("gymnax.registration")
_spaces = importlib.import_module("gymnax.environments.spaces")
_GymnaxBase: Any = importlib.import_module("gymnax.environments.environment").Environment
_GymnaxSpace: Any = _spaces.Space

# Bounds that Gymnax 1.0.1 publishes and its observations leave: (entries, at most this low, at least this high).
_WIDER_BOUNDS: dict[str, tuple[tuple[Any, float, float], ...]] = {
    "GaussianBandit": ((0, -np.inf, np.inf), (3, -1.0, 1.0)),  # the last reward; time, normalised to [-1, 1]
    "MemoryChain": ((slice(2, None), -1.0, 1.0),),  # the context's bits are -1 and 1
    "MetaMaze": ((-2, -np.inf, np.inf), (-1, -1.0, 1.0)),  # the last reward, 10 at the goal; time
    "MNISTBandit": ((slice(None), -1.0, 1.0),),  # pixels pass through int8
}


def _strong(tree: Any) -> Any:
    """Arrays instead of Python numbers, so that a state has the same types after `reset` as after `step`."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), tree)


def _like(tree: Any, example: Any) -> Any:
    return jax.tree.map(lambda leaf, old: jnp.asarray(leaf, old.dtype), tree, example)


def _convert_space(space: Any, dtype: Any, wider: tuple[tuple[Any, float, float], ...] = ()) -> Space:
    if isinstance(space, _spaces.Discrete):
        return Discrete(int(space.n))
    if isinstance(space, _spaces.Box):
        shape = tuple(int(s) for s in np.atleast_1d(np.asarray(space.shape, np.int64)))
        low, high = (np.broadcast_to(np.asarray(b, np.float64), shape).copy() for b in (space.low, space.high))
        for entries, lowest, highest in wider:
            low[entries] = np.minimum(low[entries], lowest)
            high[entries] = np.maximum(high[entries], highest)
        scalar = low.size > 0 and np.all(low == low.flat[0]) and np.all(high == high.flat[0])
        return Box(low.flat[0], high.flat[0], shape, dtype) if scalar else Box(low, high, shape, dtype)
    raise ValueError(
        f"expected a Gymnax space of type Discrete or Box, got {type(space).__name__}; "
        "wrap the environment so that observation and action are single arrays"
    )


class GymnaxEnvironment:
    """A Gymnax environment as one of ours: raw transitions, no reset inside `step`.

    Its parameters are Gymnax's own `EnvParams`, every field of which may be traced and vmapped, the episode limit
    `max_steps_in_episode` included: `truncated` is Gymnax's own. Observations keep the dtype that Gymnax returns,
    which is not always the one it declares. Spaces are static: those of `params` where they are concrete and of the
    default shapes, else those of `default_params`.

    Args:
      env: a Gymnax environment, e.g. `gymnax.make("CartPole-v1")[0]`, or one of your own.
    """

    def __init__(self, env: Any) -> None:
        self.gymnax_env = env
        self._default_spaces: dict[str, Space] = {}

    def __repr__(self) -> str:
        return f"GymnaxEnvironment({self.gymnax_env.name})"

    @functools.cached_property
    def default_params(self) -> EnvParams:
        """Parameters as published, an instance of the Gymnax environment's `EnvParams`."""
        return self.gymnax_env.default_params

    def reset(self, key: Key, params: EnvParams) -> tuple[EnvState, Any]:
        """A first state and its observation."""
        obs, state = self.gymnax_env.reset_env(key, params)
        return _strong(state), _strong(obs)

    def step(self, key: Key, state: EnvState, action: jax.Array, params: EnvParams) -> tuple[EnvState, Timestep]:
        """The next state, and what the agent sees of it."""
        obs, next_state, reward, terminated, info = self.gymnax_env.step_env(key, state, action, params)
        next_state = _like(next_state, state)
        obs = _strong(obs)
        timestep = Timestep(
            obs=obs,
            reward=jnp.asarray(reward, jnp.float32),
            terminated=jnp.asarray(terminated, bool),
            truncated=jnp.asarray(self.gymnax_env.is_truncated(next_state, params), bool),
            final_obs=obs,
            info=_strong(dict(info)),
        )
        return next_state, timestep

    def observation_space(self, params: EnvParams) -> Space:
        """Space of `obs`; static."""
        return self._space("observation_space", params)

    def action_space(self, params: EnvParams) -> Space:
        """Space of `action`; static."""
        return self._space("action_space", params)

    def _space(self, kind: str, params: EnvParams) -> Space:
        if params is self.default_params or not self._is_plain(params):
            if kind not in self._default_spaces:
                self._default_spaces[kind] = self._compute_space(kind, self.default_params)
            return self._default_spaces[kind]
        return self._compute_space(kind, params)

    def _is_plain(self, params: EnvParams) -> bool:
        leaves, defaults = jax.tree.leaves(params), jax.tree.leaves(self.default_params)
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
        return not traced and [np.shape(leaf) for leaf in leaves] == [np.shape(leaf) for leaf in defaults]

    def _compute_space(self, kind: str, params: EnvParams) -> Space:
        with jax.ensure_compile_time_eval():  # Gymnax computes bounds with jnp, which a surrounding trace would capture
            space = getattr(self.gymnax_env, kind)(params)
            if kind == "action_space":
                return _convert_space(space, getattr(space, "dtype", None))
        return _convert_space(space, self._obs_dtype, _WIDER_BOUNDS.get(type(self.gymnax_env).__name__, ()))

    @functools.cached_property
    def _obs_dtype(self) -> Any:
        obs, _ = jax.eval_shape(self.gymnax_env.reset_env, jax.random.key(0), self.default_params)
        return getattr(obs, "dtype", None)


def make_gymnax(name: str, **constructor_kwargs: Any) -> GymnaxEnvironment:
    """The Gymnax environment with this id; `make_env` calls this.

    Raises:
      ValueError: if the id is unknown, an argument does not fit, or MNISTBandit's download fails.
    """
    factory = _registration._registry.get(name)
    if factory is None:
        raise ValueError(f"{name!r} is not registered in Gymnax; `jaxrl.list_envs()` names those that are")
    signature = inspect.signature(factory)
    try:
        signature.bind(**constructor_kwargs)
    except TypeError as error:
        raise ValueError(f"{name} takes the arguments {signature}: {error}") from error
    if name != "MNISTBandit-bsuite":
        return GymnaxEnvironment(factory(**constructor_kwargs))
    try:
        return GymnaxEnvironment(factory(**constructor_kwargs))
    except Exception as error:
        raise ValueError(
            f"MNISTBandit-bsuite downloads MNIST into /tmp/mnist when it is built, and that failed: {error!r}; "
            "connect to the internet, or put the four idx .gz files there (delete any that are cut short)"
        ) from error


@struct.dataclass
class ToGymnaxState:
    """State of `to_gymnax`: the inner state, and the flag that Gymnax asks the state for."""

    env_state: Any
    truncated: jax.Array


class _MultiDiscrete(_GymnaxSpace):
    """Gymnax has no space for vectors of integers: ours, under its base class."""

    def __init__(self, space: MultiDiscrete) -> None:
        self.shape, self.dtype, self.sample, self.contains = space.shape, space.dtype, space.sample, space.contains


class _ToGymnax(_GymnaxBase):
    def __init__(self, env: Environment) -> None:
        super().__init__()
        self.jaxrl_env = env

    @property
    def default_params(self) -> EnvParams:
        return self.jaxrl_env.default_params

    @property
    def name(self) -> str:
        return repr(self.jaxrl_env)

    @property
    def num_actions(self) -> int:
        space = self.jaxrl_env.action_space(self.default_params)
        return space.n if isinstance(space, Discrete) else int(np.prod(space.shape))

    def reset_env(self, key: Key, params: EnvParams) -> tuple[Any, ToGymnaxState]:
        env_state, obs = self.jaxrl_env.reset(key, params)
        return obs, ToGymnaxState(env_state, jnp.array(False))

    def step_env(
        self, key: Key, state: ToGymnaxState, action: Any, params: EnvParams
    ) -> tuple[Any, ToGymnaxState, jax.Array, jax.Array, dict[str, Any]]:
        env_state, timestep = self.jaxrl_env.step(key, state.env_state, action, params)
        next_state = ToGymnaxState(env_state, timestep.truncated)
        return timestep.obs, next_state, timestep.reward, timestep.terminated, timestep.info

    def is_truncated(self, state: ToGymnaxState, params: EnvParams) -> jax.Array:
        del params
        return state.truncated

    def action_space(self, params: EnvParams | None = None) -> Any:
        return self._to_space(self.jaxrl_env.action_space(self.default_params if params is None else params))

    def observation_space(self, params: EnvParams | None = None) -> Any:
        return self._to_space(self.jaxrl_env.observation_space(self.default_params if params is None else params))

    @staticmethod
    def _to_space(space: Space) -> Any:
        if isinstance(space, Discrete):
            return _spaces.Discrete(space.n)
        if isinstance(space, MultiDiscrete):
            return _MultiDiscrete(space)
        low, high = space.bounds()
        return _spaces.Box(low, high, space.shape, space.dtype)


def to_gymnax(env: Environment) -> Any:
    """Makes one of our environments a Gymnax environment, for Gymnax's wrappers and the code written for it.

    Args:
      env: an environment of one instance, neither vectorised nor with `autoreset`.
    Returns:
      A `gymnax.environments.environment.Environment`: `reset(key, params) -> (obs, state)` and
      `step(key, state, action, params) -> (obs, state, reward, terminated, truncated, info)`, which resets itself
      and keeps the observation before the reset in `info["final_observation"]`; `default_params` and the two spaces.
    Raises:
      ValueError: if `env` is vectorised.
    """
    if hasattr(env, "num_envs"):
        raise ValueError(
            "to_gymnax expects an environment of one instance, got a vectorised one; "
            "pass the environment itself and vmap Gymnax's reset and step"
        )
    return _ToGymnax(env)
