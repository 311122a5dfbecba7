"""Collective motion and swarms in a changing world, by name: `jaxrl.make_env("jaxrl/mean_field_vicsek")` and the like.

Features and rules have five kernels per coordinate, placed over what agents are and over what they see; four over
headings, two over loads. Numbers are ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxrl_envs.mean_field.agents import SwarmEnv, swarm_env
from jaxrl_envs.mean_field.aggregation import Aggregation
from jaxrl_envs.mean_field.beach import Beach
from jaxrl_envs.mean_field.control import MeanFieldEnv, mean_field
from jaxrl_envs.mean_field.dynamics import particles
from jaxrl_envs.mean_field.features import Features, kernel_basis
from jaxrl_envs.mean_field.foraging import Foraging
from jaxrl_envs.mean_field.kuramoto import Kuramoto
from jaxrl_envs.mean_field.neighbours import Neighbourhood
from jaxrl_envs.mean_field.potential import Potential
from jaxrl_envs.mean_field.rules import decision_rule
from jaxrl_envs.mean_field.topology import Surface
from jaxrl_envs.mean_field.tracking import Formation, TwoGaussians
from jaxrl_envs.mean_field.vicsek import Vicsek


@dataclasses.dataclass(frozen=True)
class _Swarm:
    """A model; centres per coordinate of its states and of what agents see; and is what they see a place in a ring?"""

    make: Callable[..., Any]
    states: int | tuple[int, ...] = 5
    observations: int | tuple[int, ...] = 5
    sees_state: bool = False


_NEAR = ("vicsek", "kuramoto")  # with neighbours, on a surface
_SWARMS = {
    "vicsek": _Swarm(Vicsek, (5, 5, 4)),
    "kuramoto": _Swarm(Kuramoto, (5, 5, 4)),
    "aggregation": _Swarm(Aggregation),
    "two_gaussians": _Swarm(TwoGaussians),
    "formation": _Swarm(Formation),
    "potential": _Swarm(Potential, sees_state=True),
    "beach": _Swarm(Beach),
    "foraging": _Swarm(Foraging, (5, 5, 2), (5, 5, 2)),
}


def make_collective(
    task: str,
    num_agents: int = 200,
    observe_time: str = "none",
    surface: str = "torus",
    neighbourhood: str = "auto",
    num_cells: int = 128,
) -> MeanFieldEnv:
    """A swarm without a known optimum, as mean-field control by particles.

    Args:
      task: vicsek, kuramoto, aggregation, two_gaussians, formation, potential, beach or foraging.
      num_agents: of training; `with_agents` changes it.
      observe_time: as in `mean_field`.
      surface: of vicsek and kuramoto, see `Surface`.
      neighbourhood, num_cells: of vicsek and kuramoto, mode and G of `Neighbourhood`.
    Raises:
      ValueError: for unknown names.
    """
    if task not in _SWARMS:
        raise ValueError(f"task = {task!r}: expected one of {', '.join(_SWARMS)}")
    swarm = _SWARMS[task]
    hood = Neighbourhood(neighbourhood, num_cells)
    model = swarm.make(surface=Surface(surface), hood=hood) if task in _NEAR else swarm.make()
    params = model.default_params
    features = Features(kernel_basis(model.state_space(params), swarm.states, periodic=model.periodic))
    rings = model.periodic if swarm.sees_state else ()
    seen = kernel_basis(model.observation_space(params), swarm.observations, periodic=rings, placement="ends")
    rule = decision_rule(seen, model.action_space(params))
    return mean_field(model, features, rule, particles(num_agents), observe_time=observe_time)


def make_agents(task: str, num_agents: int = 50, **keywords: Any) -> SwarmEnv:
    """The agents of such a swarm as one environment, for the baselines `ippo` and `mappo`.

    Args:
      task, keywords: as in `make_collective`.
      num_agents: N.
    """
    env = make_collective(task, num_agents, **keywords)
    return swarm_env(env.model, num_agents, env.features)
