"""Objectives of actor-critics, and the table of those that are known by name.

Most are assembled from five slots by `jaxrl.objectives.host`; any `Objective` will do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxrl.objectives.a2c import a2c_objective
from jaxrl.objectives.bapo import bapo_objective
from jaxrl.objectives.dpo import dpo_objective
from jaxrl.objectives.empg import empg_objective
from jaxrl.objectives.groups import (
    Equation,
    batch_normalized,
    bnpo_equation,
    group_normalized,
    group_objective,
    leave_one_out,
)
from jaxrl.objectives.host import Slots, assemble
from jaxrl.objectives.kl import mdpo_objective, ppo_adaptive_kl_objective, ppo_clip_kl_objective, ppo_kl_objective
from jaxrl.objectives.lpo import lpo_objective
from jaxrl.objectives.ppo import clip_higher_objective, ppo_objective
from jaxrl.objectives.risk import risk_ppo_objective
from jaxrl.objectives.spo import spo_objective
from jaxrl.objectives.vtrace import vtrace_objective
from jaxrl.types import Objective

Make = Callable[[Any, Any], Objective]  # (config, hparams) -> Objective


def _with_critic(make: Callable[..., Objective]) -> Make:
    return lambda config, hp: make(hp, config.normalize_advantage, config.clip_value)


def _of_groups(equation: Equation) -> Make:
    return lambda config, hp: group_objective(hp, equation, config.group_size, config.clip_value)


def _bnpo(config: Any, hp: Any) -> Objective:
    if config.normalize_reward:
        raise ValueError(
            "objective = 'bnpo' compares returns with success_return, in the environment's units; "
            "set normalize_reward to False"
        )
    return group_objective(hp, bnpo_equation(hp.success_return), config.group_size, config.clip_value)


OBJECTIVES: dict[str, Make] = {
    "a2c": lambda config, hp: a2c_objective(hp, config.normalize_advantage),
    "ppo": _with_critic(ppo_objective),
    "clip_higher": _with_critic(clip_higher_objective),
    "bapo": _with_critic(bapo_objective),
    "spo": _with_critic(spo_objective),
    "ppo_kl": _with_critic(ppo_kl_objective),
    "ppo_adaptive_kl": _with_critic(ppo_adaptive_kl_objective),
    "ppo_clip_kl": _with_critic(ppo_clip_kl_objective),
    "mdpo": _with_critic(mdpo_objective),
    "dpo": _with_critic(dpo_objective),
    "vtrace": _with_critic(vtrace_objective),
    "empg": _with_critic(empg_objective),
    "grpo": _of_groups(group_normalized),
    "rloo": _of_groups(leave_one_out),
    "lite_ppo": _of_groups(batch_normalized),
    "bnpo": _bnpo,
    "risk_ppo": lambda config, hp: risk_ppo_objective(hp, config.clip_value),
}

__all__ = [
    "OBJECTIVES",
    "Slots",
    "a2c_objective",
    "assemble",
    "bapo_objective",
    "clip_higher_objective",
    "dpo_objective",
    "empg_objective",
    "group_objective",
    "lpo_objective",
    "mdpo_objective",
    "ppo_adaptive_kl_objective",
    "ppo_clip_kl_objective",
    "ppo_kl_objective",
    "ppo_objective",
    "risk_ppo_objective",
    "spo_objective",
    "vtrace_objective",
]
