"""Objectives of actor-critics: each file one, and the table of those that are known by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxrl.objectives.a2c import a2c_objective
from jaxrl.objectives.ppo import ppo_objective
from jaxrl.types import Objective

# name -> (config, hparams) -> Objective
OBJECTIVES: dict[str, Callable[[Any, Any], Objective]] = {
    "a2c": lambda config, hp: a2c_objective(hp, config.normalize_advantage),
    "ppo": lambda config, hp: ppo_objective(hp, config.normalize_advantage, config.clip_value),
}

__all__ = ["OBJECTIVES", "a2c_objective", "ppo_objective"]
