"""Brax's environments as ours. Neither `brax.training` nor Brax's wrappers are used: jax 0.10 broke both."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import inspect
import io
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.env import Environment, EnvState, time_limit
from jaxrl.spaces import Box, Space
from jaxrl.types import Key, Timestep

_BACKENDS = ("generalized", "positional", "spring", "mjx")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides the warnings about Brax's own age and about how it reads MJX's data, which no user can act on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Brax System, piplines", category=UserWarning)
        warnings.filterwarnings("ignore", message="Accessing `.*` directly from `Data`", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="JAXopt is no longer maintained", category=DeprecationWarning)
        yield


@contextlib.contextmanager
def _quiet_mujoco() -> Iterator[None]:
    """Drops one message about the half-cheetah's XML, for which MuJoCo also leaves MUJOCO_LOG.TXT where it runs."""
    mujoco = importlib.import_module("mujoco")
    previous = mujoco.get_mju_user_warning()
    messages: list[str] = []
    mujoco.set_mju_user_warning(messages.append)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)
    for message in messages:
        if "settotalmass" not in message:
            warnings.warn(message, stacklevel=4)


def _import_brax() -> Any:
    """Imports `brax.envs`; MJX prints two lines about its optional Warp kernels, which are dropped."""
    printed = io.StringIO()
    try:
        with quiet(), contextlib.redirect_stdout(printed):
            return importlib.import_module("brax.envs")
    finally:
        for line in printed.getvalue().splitlines(keepends=True):
            if not line.startswith("Failed to import "):
                sys.stdout.write(line)


def _repair_fluid() -> None:
    """Gives `brax.fluid` the `clip(a_min=...)` that jax 0.10 removed: without it the swimmer cannot take a step."""
    if "a_min" in inspect.signature(jnp.clip).parameters:
        return
    numpy = ModuleType("jax.numpy")
    numpy.__dict__.update(vars(jnp))
    numpy.__dict__["clip"] = lambda x, a_min=None, a_max=None: jnp.clip(x, a_min, a_max)
    importlib.import_module("brax.fluid").__dict__["jp"] = numpy


_brax_envs = _import_brax()
_repair_fluid()


@struct.dataclass
class BraxParams:
    """Physics, as factors on the published values; traced, so bodies are randomised by `vmap`.

    Attributes:
      gravity: factor on gravity.
      gear: factor on the strength of every actuator.
      friction: factor on the friction of every geometry.
    """

    gravity: float | jax.Array = 1.0
    gear: float | jax.Array = 1.0
    friction: float | jax.Array = 1.0


def _scaled(sys: Any, params: BraxParams) -> Any:
    """The physical system under `params`; MJX reads its own copies of gravity and gear."""
    return sys.replace(
        gravity=sys.gravity * params.gravity,
        opt=sys.opt.replace(gravity=sys.opt.gravity * params.gravity),
        actuator=sys.actuator.replace(gear=sys.actuator.gear * params.gear),
        actuator_gear=sys.actuator_gear * params.gear,
        geom_friction=sys.geom_friction * params.friction,
    )


class BraxEnvironment:
    """A Brax environment as one of ours, without an episode limit: `make_brax` adds it.

    The state is Brax's own `State`; `terminated` is its `done`, and `info` its metrics.

    Args:
      env: a Brax environment without wrappers.
    """

    compiles_slowly = True

    def __init__(self, env: Any) -> None:
        self.brax_env = env

    def __repr__(self) -> str:
        return f"BraxEnvironment({type(self.brax_env).__name__})"

    @functools.cached_property
    def default_params(self) -> BraxParams:
        """The published physics."""
        return BraxParams()

    @functools.partial(jax.jit, static_argnums=0, inline=True)
    def reset(self, key: Key, params: BraxParams) -> tuple[EnvState, jax.Array]:
        """A first state and its observation."""
        with quiet():
            state = self._with_params(params).reset(jax.random.key_data(key))
        state = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), state)
        return state, state.obs

    # `jit` keeps what was traced, here and in what is made of it: thousands of operations are traced once, and not for
    # each program, for each of its loops and again under `vmap`. Inlined, since XLA rounds otherwise in a function of
    # its own.
    @functools.partial(jax.jit, static_argnums=0, inline=True)
    def step(self, key: Key, state: EnvState, action: jax.Array, params: BraxParams) -> tuple[EnvState, Timestep]:
        """The next state, and what the agent sees of it. The physics draw no random numbers."""
        del key
        own = jax.tree.map(lambda leaf: leaf, state)  # Brax writes into the state's dictionaries
        with quiet():
            answer = self._with_params(params).step(own, action)
        # Some environments add entries on their first step; the state keeps those that reset gave it.
        answer = answer.replace(
            metrics={name: answer.metrics[name] for name in state.metrics},
            info={name: answer.info[name] for name in state.info},
        )
        answer = jax.tree.map(lambda leaf, old: jnp.asarray(leaf, old.dtype), answer, state)
        timestep = Timestep(
            obs=answer.obs,
            reward=jnp.asarray(answer.reward, jnp.float32),
            terminated=jnp.asarray(answer.done, bool),
            truncated=jnp.array(False),
            final_obs=answer.obs,
            info=dict(answer.metrics),
        )
        return answer, timestep

    def observation_space(self, params: BraxParams) -> Space:
        """Space of `obs`, unbounded; static."""
        del params
        return self._obs_space

    def action_space(self, params: BraxParams) -> Space:
        """Space of `action`, [-1, 1] in every entry; static."""
        del params
        return Box(-1.0, 1.0, (int(self.brax_env.action_size),))

    @functools.cached_property
    def _obs_space(self) -> Space:
        with quiet():  # Brax's own `observation_size` would run a reset, uncompiled
            obs = jax.eval_shape(self.brax_env.reset, jax.random.key_data(jax.random.key(0))).obs
        if not hasattr(obs, "shape"):
            raise ValueError(f"expected observations in one array, got {sorted(obs)}; choose obs_mode='ndarray'")
        return Box(-jnp.inf, jnp.inf, obs.shape, obs.dtype)

    def _with_params(self, params: BraxParams) -> Any:
        if not hasattr(self.brax_env, "sys"):  # "fast" has no body
            return self.brax_env
        env = copy.copy(self.brax_env)
        env.sys = _scaled(env.sys, params)
        return env


def make_brax(name: str, episode_length: int = 1000, **constructor_kwargs: Any) -> Environment:
    """The Brax environment `name` under a `time_limit`; `make_env` calls this.

    Args:
      name: without the prefix, e.g. "ant".
      episode_length: steps after which an episode is truncated.
      **constructor_kwargs: Brax's own, e.g. `backend`: "generalized" (default), "positional", "spring" or "mjx".
    Raises:
      ValueError: if the name, the backend or another argument is unknown.
    """
    env_class = _brax_envs._envs.get(name)
    if env_class is None:
        raise ValueError(f"Brax has no environment {name!r}; `jaxrl.list_envs()` names those that exist")
    backend = constructor_kwargs.get("backend", "generalized")
    if backend not in _BACKENDS:
        raise ValueError(f"brax/{name}: expected backend to be one of {', '.join(_BACKENDS)}, got {backend!r}")
    signature = inspect.signature(env_class)
    known = {parameter for parameter in signature.parameters if parameter != "kwargs"} | {
        "backend",
        "n_frames",
        "debug",
    }
    unknown = sorted(set(constructor_kwargs) - known)
    if unknown:
        raise ValueError(f"brax/{name} takes the arguments {', '.join(sorted(known))}; got {', '.join(unknown)}")
    with quiet(), _quiet_mujoco():
        return time_limit(BraxEnvironment(env_class(**constructor_kwargs)), episode_length)


def viewer_page(system: Any, states: list[Any], height: int) -> str:
    """A page with Brax's own viewer.

    Args:
      system: the physical system of an environment, its `sys`.
      states: have the bodies' poses as `x.pos` and `x.rot`.
      height: of the viewer, in pixels.
    """
    return importlib.import_module("brax.io.html").render(system, states, height=height)
