"""Proximal policy optimisation with the clipped ratio; bounds may be uneven."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.objectives.common import gae_advantage
from jaxrl.objectives.host import Slots, assemble
from jaxrl.ops.statistics import weighted_mean
from jaxrl.types import Metrics, Objective

Bounds = tuple[jax.Array | float, jax.Array | float]  # (low, high) of the ratio


def clipped_surrogate(ratio: jax.Array, advantage: jax.Array, bounds: Bounds) -> jax.Array:
    """The pessimistic bound `min(ratio * A, clip(ratio, low, high) * A)`, per element."""
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, *bounds) * advantage)


def ppo_drift(log_ratio: jax.Array, advantage: jax.Array, clip_eps: jax.Array | float) -> jax.Array:
    """What PPO takes off `ratio * A`, per element: never negative, and flat at ratio 1.

    `relu((r - clip(r, 1 - eps, 1 + eps)) A)`, so that `r A` less it is `clipped_surrogate`.

    Args:
      log_ratio: log r, of any shape.
      advantage: of the same shape.
      clip_eps: > 0.
    References:
      Lu et al. 2022, arXiv:2210.05639, the mirror-learning view of PPO.
    """
    ratio = jnp.exp(log_ratio)
    return jax.nn.relu((ratio - jnp.clip(ratio, 1.0 - clip_eps, 1.0 + clip_eps)) * advantage)


def clip_metrics(ratio: jax.Array, bounds: Bounds, weight: jax.Array | None = None) -> Metrics:
    """Shares of ratios outside the bounds, above and below."""
    up, down = weighted_mean(ratio > bounds[1], weight), weighted_mean(ratio < bounds[0], weight)
    return {
        "policy/clip_fraction": up + down,
        "policy/clip_fraction_up": up,
        "policy/clip_fraction_down": down,
    }


def clip_between(bounds: Bounds) -> Callable[..., tuple[jax.Array, Metrics]]:
    """A clip slot with the same bounds for every batch."""

    def clip(state: Any, ratio: jax.Array, advantage: jax.Array, weight: jax.Array | None) -> tuple[jax.Array, Metrics]:
        return clipped_surrogate(ratio, advantage, bounds), clip_metrics(ratio, bounds, weight)

    return clip


def ppo_bounds(hp: Any) -> Bounds:
    """`(1 - clip_eps, 1 + clip_eps)`."""
    return 1.0 - hp.clip_eps, 1.0 + hp.clip_eps


def ppo_objective(hp: Any, normalize_advantage: str = "minibatch", clip_value: bool = False) -> Objective:
    """PPO's clipped surrogate, a value loss and an entropy bonus.

    Args:
      hp: has `gamma`, `gae_lambda`, `clip_eps`, `vf_coef`, `ent_coef`; numbers, may be traced.
      normalize_advantage: "minibatch", "batch" or "none".
      clip_value: hold the value, too, within ±clip_eps of its old prediction.
    References:
      Schulman et al. 2017, arXiv:1707.06347, eq. 7 and 9.
    """
    return assemble(hp, Slots(gae_advantage(hp), clip=clip_between(ppo_bounds(hp))), normalize_advantage, clip_value)


def clip_higher_objective(hp: Any, normalize_advantage: str = "minibatch", clip_value: bool = False) -> Objective:
    """PPO with a wider bound above: unlikely actions may gain more probability per update.

    Args:
      hp: as in `ppo_objective`, and `clip_eps_high`: the ratio lies in `[1 - clip_eps, 1 + clip_eps_high]`.
      normalize_advantage, clip_value: as in `ppo_objective`.
    References:
      Yu et al. 2025 (DAPO), arXiv:2503.14476, sec. 3.1.
    """
    clip = clip_between((1.0 - hp.clip_eps, 1.0 + hp.clip_eps_high))
    return assemble(hp, Slots(gae_advantage(hp), clip=clip), normalize_advantage, clip_value)
