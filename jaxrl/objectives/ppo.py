"""Proximal policy optimisation with the clipped ratio."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.objectives.common import AdvantageTargets, advantage_targets, no_heads, no_state, standardize, unchanged
from jaxrl.objectives.common import value_loss as value_loss_fn
from jaxrl.types import Metrics, Objective, Progress, Rollout


def clipped_surrogate(ratio: jax.Array, advantage: jax.Array, clip_eps: jax.Array | float) -> jax.Array:
    """The pessimistic bound `min(ratio * A, clip(ratio, 1 - eps, 1 + eps) * A)`, per element."""
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip_eps, 1.0 + clip_eps) * advantage)


def ppo_objective(hp: Any, normalize_advantage: str = "minibatch", clip_value: bool = False) -> Objective:
    """PPO's clipped surrogate, a value loss and an entropy bonus.

    Args:
      hp: has `gamma`, `gae_lambda`, `clip_eps`, `vf_coef`, `ent_coef`; numbers, may be traced.
      normalize_advantage: "minibatch", "batch" or "none".
      clip_value: hold the value, too, within ±clip_eps of its old prediction.
    References:
      Schulman et al. 2017, arXiv:1707.06347, eq. 7 and 9.
    """

    def prepare(
        state: Any, outputs: dict[str, Any], next_outputs: dict[str, Any], rollout: Rollout, progress: Progress
    ) -> tuple[AdvantageTargets, Any]:
        return advantage_targets(outputs, next_outputs, rollout, hp, normalize_advantage), state

    def loss(state: Any, outputs: dict[str, Any], targets: AdvantageTargets) -> tuple[jax.Array, Metrics]:
        advantage = standardize(targets.advantage) if normalize_advantage == "minibatch" else targets.advantage
        log_ratio = outputs["policy"].log_prob(targets.action) - targets.log_prob
        ratio = jnp.exp(log_ratio)
        policy_loss = -clipped_surrogate(ratio, advantage, hp.clip_eps).mean()
        value_loss = value_loss_fn(outputs["value"], targets, hp.clip_eps if clip_value else None)
        entropy = outputs["policy"].entropy().mean()
        total = policy_loss + hp.vf_coef * value_loss - hp.ent_coef * entropy
        return total, {
            "loss/policy": policy_loss,
            "loss/value": value_loss,
            "policy/entropy": entropy,
            # The estimator of Schulman's "Approximating KL divergence": never negative, unbiased at the old policy.
            "policy/approx_kl": (ratio - 1.0 - log_ratio).mean(),
            "policy/clip_fraction": (jnp.abs(ratio - 1.0) > hp.clip_eps).mean(),
        }

    return Objective(no_heads, no_state, prepare, loss, unchanged)
