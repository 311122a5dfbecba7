"""Advantage actor-critic."""

from __future__ import annotations

from typing import Any

import jax

from jaxrl.objectives.common import AdvantageTargets, advantage_targets, no_heads, no_state, standardize, unchanged
from jaxrl.objectives.common import value_loss as value_loss_fn
from jaxrl.types import Metrics, Objective, Progress, Rollout


def a2c_objective(hp: Any, normalize_advantage: str = "none") -> Objective:
    """Policy gradient with advantage estimates, a value loss and an entropy bonus.

    Args:
      hp: has `gamma`, `gae_lambda`, `vf_coef`, `ent_coef`; numbers, may be traced.
      normalize_advantage: "minibatch", "batch" or "none".
    References:
      Mnih et al. 2016, arXiv:1602.01783; sec. 4 with GAE in the place of n-step returns (gae_lambda = 1).
    """

    def prepare(
        state: Any, outputs: dict[str, Any], next_outputs: dict[str, Any], rollout: Rollout, progress: Progress
    ) -> tuple[AdvantageTargets, Any]:
        return advantage_targets(outputs, next_outputs, rollout, hp, normalize_advantage), state

    def loss(state: Any, outputs: dict[str, Any], targets: AdvantageTargets) -> tuple[jax.Array, Metrics]:
        advantage = standardize(targets.advantage) if normalize_advantage == "minibatch" else targets.advantage
        policy_loss = -(advantage * outputs["policy"].log_prob(targets.action)).mean()
        value_loss = value_loss_fn(outputs["value"], targets)
        entropy = outputs["policy"].entropy().mean()
        total = policy_loss + hp.vf_coef * value_loss - hp.ent_coef * entropy
        return total, {"loss/policy": policy_loss, "loss/value": value_loss, "policy/entropy": entropy}

    return Objective(no_heads, no_state, prepare, loss, unchanged)
