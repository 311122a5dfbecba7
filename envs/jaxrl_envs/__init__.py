"""Environments that ship with jaxrl; `jaxrl.make_env("jaxrl/<name>")` makes them by name."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrl.env import Environment

_GRID_LEVELS = (
    "dense",
    "sparse",
    "long_horizon",
    "longer_horizon",
    "long_dense",
    "rand_dense",
    "rand_long",
    "rand_small",
    "rand_sparse",
    "rand_very_dense",
)
_GRID_DISTRIBUTIONS = (
    "all",
    "all_shortlife",
    "all_randlife",
    "all_vrandlife",
    "small",
    "medium",
    "large",
    "debug",
    "debug_vrandlife",
    "mazes",
)
_MEAN_FIELDS = ("two_room", "anti_crowding", "pigou", "tabular_mf3", "crowd_modelling", "lq")
_SWARMS = (
    "vicsek", "kuramoto", "aggregation", "two_gaussians", "formation", "potential", "beach", "foraging",
)  # fmt: skip
_CHAINS = ("short", "short_noisy", "long", "long_noisy", "distractor")

# name: module, constructor and what it is given. Modules are imported when one of their environments is made.
_ENVS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "probe_constant": ("probes", "constant_probe", {}),
    "probe_observation": ("probes", "observation_probe", {}),
    "probe_discount": ("probes", "discount_probe", {}),
    "probe_action": ("probes", "action_probe", {}),
    "probe_contextual": ("probes", "contextual_probe", {}),
    "probe_truncation": ("probes", "truncation_probe", {}),
    "probe_termination": ("probes", "termination_probe", {}),
    "probe_continuous": ("probes", "continuous_probe", {}),
    "probe_memory": ("probes", "memory_probe", {}),
    **{f"grid_{name}": ("gridworld", "handcrafted", {"name": name}) for name in _GRID_LEVELS},
    "grid_handcrafted": ("gridworld", "handcrafted_set", {}),
    "grid_random": ("gridworld", "grid_random", {}),
    **{f"grid_{name}": ("gridworld", "grid_random", {"distribution": name}) for name in _GRID_DISTRIBUTIONS},
    **{f"maze_{i}": ("gridworld", "maze", {"index": i}) for i in range(1, 10)},
    "point_mass": ("point_mass", "point_mass", {}),
    **{f"chain_{name}": ("chains", "chain", {"variant": name}) for name in _CHAINS},
    "hard_maze": ("hard_maze", "hard_maze", {}),
    "hard_maze_images": ("hard_maze", "hard_maze", {"images": True}),
    **{f"mean_field_{name}": ("mean_field.registry", "make_mean_field", {"task": name}) for name in _MEAN_FIELDS},
    **{
        f"mean_field_{name}_full": ("mean_field.registry", "make_mean_field", {"task": name, "full": True})
        for name in _MEAN_FIELDS
    },
    **{f"swarm_{name}": ("mean_field.registry", "make_swarm", {"task": name}) for name in _MEAN_FIELDS},
    **{f"mean_field_{name}": ("mean_field.collective", "make_collective", {"task": name}) for name in _SWARMS},
    **{f"swarm_{name}": ("mean_field.collective", "make_agents", {"task": name}) for name in _SWARMS},
}


def list_envs() -> tuple[str, ...]:
    """Every name that `make` knows, without the prefix "jaxrl/"."""
    return tuple(_ENVS)


def make(name: str, **constructor_kwargs: Any) -> Environment:
    """An environment.

    Args:
      name: one of `list_envs()`.
      **constructor_kwargs: the constructor's own arguments.
    Raises:
      ValueError: if the name is unknown, or an argument does not fit.
    """
    if name not in _ENVS:
        nearest = difflib.get_close_matches(name, _ENVS, n=3, cutoff=0.4) or list(_ENVS)
        raise ValueError(
            f"unknown environment {name!r}; expected one such as {', '.join(nearest)} (jaxrl_envs.list_envs())"
        )
    module, constructor, fixed = _ENVS[name]
    build = getattr(importlib.import_module(f"jaxrl_envs.{module}"), constructor)
    try:
        return build(**fixed, **constructor_kwargs)
    except TypeError as error:
        raise ValueError(f"jaxrl/{name}: {error}; see help(jaxrl_envs.{module}.{constructor})") from error
