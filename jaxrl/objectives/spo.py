"""Simple policy optimisation: a quadratic penalty on the ratio in the place of PPO's clip."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.objectives.common import gae_advantage
from jaxrl.objectives.host import Slots, assemble
from jaxrl.objectives.ppo import clip_metrics, ppo_bounds
from jaxrl.types import Metrics, Objective


def spo_surrogate(ratio: jax.Array, advantage: jax.Array, clip_eps: jax.Array | float) -> jax.Array:
    """`ratio A - |A| / (2 eps) (ratio - 1)^2`, per element: greatest where the ratio is `1 + sign(A) eps`.

    Args:
      ratio, advantage: of one shape.
      clip_eps: > 0; may be traced.
    References:
      Xie et al. 2024, arXiv:2401.16025.
    """
    return ratio * advantage - jnp.abs(advantage) / (2.0 * clip_eps) * jnp.square(ratio - 1.0)


def spo_objective(hp: Any, normalize_advantage: str = "minibatch", clip_value: bool = False) -> Objective:
    """SPO's surrogate, a value loss and an entropy bonus.

    Unlike PPO's, its gradient does not vanish outside the bounds but leads back.

    Args:
      hp: has `gamma`, `gae_lambda`, `clip_eps`, `vf_coef`, `ent_coef`; numbers, may be traced.
      normalize_advantage, clip_value: as in `ppo_objective`.
    References:
      Xie et al. 2024, arXiv:2401.16025.
    """

    def clip(state: Any, ratio: jax.Array, advantage: jax.Array, weight: jax.Array | None) -> tuple[jax.Array, Metrics]:
        return spo_surrogate(ratio, advantage, hp.clip_eps), clip_metrics(ratio, ppo_bounds(hp), weight)

    return assemble(hp, Slots(gae_advantage(hp), clip=clip), normalize_advantage, clip_value)
