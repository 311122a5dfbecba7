"""Mean-field control by name: what `jaxrl.make_env("jaxrl/mean_field_two_room")` and the like make."""

from __future__ import annotations

import importlib
from typing import Any

from jaxrl_envs.mean_field.agents import SwarmEnv, swarm_env
from jaxrl_envs.mean_field.control import MeanFieldEnv, mean_field
from jaxrl_envs.mean_field.dynamics import exact, gaussian, particles
from jaxrl_envs.mean_field.features import Features, MomentFeatures, histogram_basis, kernel_basis
from jaxrl_envs.mean_field.lq import LQModel, LQParams
from jaxrl_envs.mean_field.rules import AffineRule, decision_rule

_TABLES = ("two_room", "anti_crowding", "pigou", "tabular_mf3", "crowd_modelling")
PARAMETRISATIONS = ("kernel", "histogram", "m3fc_reference")
DYNAMICS = ("particles", "exact", "gaussian")
_LQ_BOUNDS = ((-3.0,), (3.0,))


def make_mean_field(
    task: str,
    dynamics: str = "particles",
    num_agents: int = 200,
    observe_time: str = "none",
    full: bool = False,
    parametrisation: str = "kernel",
) -> MeanFieldEnv:
    """A task with known answers, as mean-field control.

    Args:
      task: two_room, anti_crowding, pigou, tabular_mf3, crowd_modelling or lq.
      dynamics: "particles", or the limit of many agents: "exact" of tables, "gaussian" of lq.
      num_agents: of particles.
      observe_time: as in `mean_field`.
      full: agents see their own state.
      parametrisation: of features and rules of lq: 5 kernels, "histogram" (7 bins), or "m3fc_reference" (7 bins, and
        rules that are squashed twice); tables have one row per state in any case.
    Raises:
      ValueError: for unknown names, or dynamics that the task does not have.
    """
    choices = (("dynamics", dynamics, DYNAMICS), ("parametrisation", parametrisation, PARAMETRISATIONS))
    for name, value, known in choices:
        if value not in known:
            raise ValueError(f"{name} = {value!r}: expected one of {', '.join(known)}")
    chosen = {"particles": particles(num_agents), "exact": exact(), "gaussian": gaussian()}[dynamics]
    keywords: dict[str, Any] = {"observe_time": observe_time, "fully_observed": full}
    if task in _TABLES:
        model = getattr(importlib.import_module("jaxrl_envs.mean_field.tasks"), task)()
        return mean_field(model, None, None, chosen, **keywords)
    if task != "lq":
        raise ValueError(f"task = {task!r}: expected one of {', '.join((*_TABLES, 'lq'))}")
    lq = LQModel(start=LQParams(obs_noise=0.0 if full else 0.5))
    space = lq.state_space(lq.default_params)
    if dynamics == "gaussian":
        return mean_field(lq, MomentFeatures(1), AffineRule(), chosen, **keywords)
    bins = histogram_basis(space, 7, bounds=_LQ_BOUNDS)
    soft = parametrisation == "kernel"
    features = Features(kernel_basis(space, 5, bounds=_LQ_BOUNDS) if soft else bins)
    basis = kernel_basis(space, 5, bounds=_LQ_BOUNDS, placement="ends") if soft else bins
    squash = "m3fc_reference" if parametrisation == "m3fc_reference" else "tanh"
    rule = decision_rule(basis, lq.action_space(lq.default_params), squash=squash)
    return mean_field(lq, features, rule, chosen, **keywords)


def make_swarm(task: str, num_agents: int = 20, full: bool = False) -> SwarmEnv:
    """The agents of a task as one environment, for the baselines `ippo` and `mappo`.

    Args:
      task, full: as in `make_mean_field`.
      num_agents: N.
    """
    env = make_mean_field(task, num_agents=num_agents, full=full)
    return swarm_env(env.model, num_agents, env.features)
