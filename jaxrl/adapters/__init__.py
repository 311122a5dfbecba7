"""Environments by name. Each family's package is imported when one of its environments is made, not before."""

from __future__ import annotations

import functools
import importlib
import sys
from typing import TYPE_CHECKING, Any

from jaxrl.settings import suggest

if TYPE_CHECKING:
    from jaxrl.env import Environment

__all__ = ["full_name", "list_envs", "make_env", "to_gymnax"]

# Written out, because asking the packages would import them; tests compare the tables with their registries.
GYMNAX_ENVS = (
    "CartPole-v1",
    "Pendulum-v1",
    "Acrobot-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Asterix-MinAtar",
    "Breakout-MinAtar",
    "Freeway-MinAtar",
    "Seaquest-MinAtar",
    "SpaceInvaders-MinAtar",
    "Catch-bsuite",
    "DeepSea-bsuite",
    "MemoryChain-bsuite",
    "UmbrellaChain-bsuite",
    "DiscountingChain-bsuite",
    "MNISTBandit-bsuite",
    "SimpleBandit-bsuite",
    "FourRooms-misc",
    "MetaMaze-misc",
    "PointRobot-misc",
    "BernoulliBandit-misc",
    "GaussianBandit-misc",
    "Reacher-misc",
    "Swimmer-misc",
    "Pong-misc",
    "FrozenLake-misc",
)
BRAX_ENVS = (
    "ant",
    "fast",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_pendulum",
    "inverted_double_pendulum",
    "pusher",
    "reacher",
    "swimmer",
    "walker2d",
)
# Tasks of quality-diversity over Brax's environments.
BRAX_TASKS = (
    "walker2d_uni",
    "halfcheetah_uni",
    "hopper_uni",
    "ant_uni",
    "humanoid_uni",
    "ant_omni",
    "anttrap_omni",
    "humanoid_omni",
    "hexapod_omni",
)


def list_envs() -> tuple[str, ...]:
    """Every name that `make_env` knows: Gymnax's ids, "brax/…" and "jaxrl/…".

    Environments that you registered with `gymnax.register` are among them.
    """
    registration = sys.modules.get("gymnax.registration")
    registered = [name for name in getattr(registration, "registered_envs", ()) if name not in GYMNAX_ENVS]
    own = _own_package().list_envs()
    of_brax = (f"brax/{name}" for name in (*BRAX_ENVS, *BRAX_TASKS))
    return (*GYMNAX_ENVS, *registered, *of_brax, *(f"jaxrl/{name}" for name in own))


def full_name(name: str) -> str:
    """`name`, with its family before it where that was left out and only one has it: "ant" is "brax/ant"."""
    known = list_envs()
    found = [full for full in known if full.rpartition("/")[2] == name] if isinstance(name, str) else []
    return found[0] if name not in known and len(found) == 1 else name


def make_env(name: str, **constructor_kwargs: Any) -> Environment:
    """The environment with this name.

    The same name and arguments give the same object, so that nothing compiled for it is compiled again.

    Args:
      name: one of `list_envs()`, e.g. "CartPole-v1", "Breakout-MinAtar", "brax/ant" or "jaxrl/probe_memory"; or its
        last part, if no other name has it. "brax/spring/ant" is "brax/ant" with `backend="spring"`.
      **constructor_kwargs: static arguments of that environment, e.g. `size=16` for "DeepSea-bsuite", `backend` and
        `episode_length` for Brax. Numbers that may vary within a program are fields of `env.default_params` instead.
    Returns:
      An environment of one instance, without automatic resets.
    Raises:
      ValueError: if the name is unknown, or an argument does not fit the environment.
    """
    if not isinstance(name, str):
        raise ValueError(f"make_env: expected the name of an environment, got {name!r}; an environment needs no making")
    name = full_name(name)
    if name.startswith("brax/") and name.count("/") == 2:
        family, backend, short = name.split("/")
        if constructor_kwargs.get("backend", backend) != backend:
            raise ValueError(
                f"{name}: the name says backend = {backend!r}, got backend = {constructor_kwargs['backend']!r}"
            )
        return make_env(f"{family}/{short}", **{**constructor_kwargs, "backend": backend})
    if name not in list_envs():
        raise ValueError(suggest("environment", name, list_envs(), "(all: jaxrl.list_envs(), or `jaxrl list envs`)"))
    arguments = tuple(sorted(constructor_kwargs.items()))
    try:
        hash(arguments)
    except TypeError:  # arrays and lists: a new environment each time
        return _make(name, arguments)
    return _make_once(name, arguments)


def _make(name: str, arguments: tuple[tuple[str, Any], ...]) -> Environment:
    family, _, short = name.rpartition("/")
    if family == "brax" and short in BRAX_TASKS:
        return importlib.import_module("jaxrl.adapters.brax_tasks").make_brax_task(short, **dict(arguments))
    if family == "brax":
        return importlib.import_module("jaxrl.adapters.brax").make_brax(short, **dict(arguments))
    if family == "jaxrl":
        return _own_package().make(short, **dict(arguments))
    return importlib.import_module("jaxrl.adapters.gymnax").make_gymnax(name, **dict(arguments))


_make_once = functools.lru_cache(maxsize=None, typed=True)(_make)


def _own_package() -> Any:
    # By name: nothing in jaxrl depends on the environments that ship beside it.
    return importlib.import_module("jaxrl_envs")


def __getattr__(name: str) -> Any:
    if name == "to_gymnax":
        return importlib.import_module("jaxrl.adapters.gymnax").to_gymnax
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
