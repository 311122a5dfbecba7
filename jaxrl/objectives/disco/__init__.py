"""Disco103, an update rule that was discovered by meta-learning, from its published meta-parameters."""

from __future__ import annotations

from jaxrl.objectives.disco.config import DiscoConfig, DiscoState, DiscoTargets, Predictions, Trajectory
from jaxrl.objectives.disco.network import init_disco
from jaxrl.objectives.disco.rule import (
    disco_loss,
    disco_losses,
    disco_objective,
    disco_targets,
    init_disco_state,
)
from jaxrl.objectives.disco.weights import disco103_params, is_disco103, load_disco103

__all__ = [
    "DiscoConfig",
    "DiscoState",
    "DiscoTargets",
    "Predictions",
    "Trajectory",
    "disco103_params",
    "disco_loss",
    "disco_losses",
    "disco_objective",
    "disco_targets",
    "init_disco",
    "init_disco_state",
    "is_disco103",
    "load_disco103",
]
