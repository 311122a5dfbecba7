"""Discovered policy optimisation: a drift in closed form, distilled from a learned one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.objectives.common import gae_advantage
from jaxrl.objectives.host import Slots, assemble
from jaxrl.types import Metrics, Objective


def dpo_drift(ratio: jax.Array, advantage: jax.Array, alpha: jax.Array | float, beta: jax.Array | float) -> jax.Array:
    """What DPO takes off `ratio * A`, per element: never negative, and flat at ratio 1.

    `relu((r-1)A - alpha tanh((r-1)A / alpha))` where A >= 0, else `relu(log(r)A - beta tanh(log(r)A / beta))`.

    Args:
      ratio: > 0, of any shape.
      advantage: of the same shape.
      alpha, beta: > 0; the width of the almost flat parts.
    References:
      Lu et al. 2022, arXiv:2210.05639; constants in purejaxrl's dpo_continuous_action.py.
    """
    log_ratio = jnp.log(jnp.maximum(ratio, jnp.finfo(jnp.float32).tiny))
    good, bad = (ratio - 1.0) * advantage, log_ratio * advantage
    return jnp.where(
        advantage >= 0.0,
        jax.nn.relu(good - alpha * jnp.tanh(good / alpha)),
        jax.nn.relu(bad - beta * jnp.tanh(bad / beta)),
    )


def dpo_objective(hp: Any, normalize_advantage: str = "minibatch", clip_value: bool = False) -> Objective:
    """`mean(ratio A - drift)`, a value loss and an entropy bonus.

    Args:
      hp: has `gamma`, `gae_lambda`, `dpo_alpha`, `dpo_beta`, `vf_coef`, `ent_coef`, and with `clip_value` also
        `clip_eps`; numbers, may be traced.
      normalize_advantage, clip_value: as in `ppo_objective`.
    References:
      Lu et al. 2022, arXiv:2210.05639.
    """

    def clip(ratio: jax.Array, advantage: jax.Array, weight: jax.Array | None) -> tuple[jax.Array, Metrics]:
        return ratio * advantage - dpo_drift(ratio, advantage, hp.dpo_alpha, hp.dpo_beta), {}

    return assemble(hp, Slots(gae_advantage(hp), clip=clip), normalize_advantage, clip_value)
