"""Discovered policy optimisation: a drift in closed form, distilled from a learned one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.objectives.common import gae_advantage
from jaxrl.objectives.host import Slots, assemble, log_importance_ratio
from jaxrl.types import Metrics, Objective


def dpo_drift(
    log_ratio: jax.Array, advantage: jax.Array, alpha: jax.Array | float, beta: jax.Array | float
) -> jax.Array:
    """What DPO takes off `ratio * A`, per element: never negative, and flat at ratio 1.

    `relu((r-1)A - alpha tanh((r-1)A / alpha))` where A >= 0, else `relu(log(r)A - beta tanh(log(r)A / beta))`.

    Args:
      log_ratio: log r, of any shape.
      advantage: of the same shape.
      alpha, beta: > 0; the width of the almost flat parts.
    References:
      Lu et al. 2022, arXiv:2210.05639; constants in purejaxrl's dpo_continuous_action.py.
    """
    good, bad = jnp.expm1(log_ratio) * advantage, log_ratio * advantage
    return jnp.where(
        advantage >= 0.0,
        jax.nn.relu(good - alpha * jnp.tanh(good / alpha)),
        jax.nn.relu(bad - beta * jnp.tanh(bad / beta)),
    )


def dpo_surrogate(
    log_ratio: jax.Array, advantage: jax.Array, alpha: jax.Array | float, beta: jax.Array | float
) -> jax.Array:
    """`ratio A - dpo_drift`, per element, written so that nothing cancels where a good action's ratio is large."""
    plain = jnp.exp(log_ratio) * advantage
    held = advantage + alpha * jnp.tanh(jnp.expm1(log_ratio) * advantage / alpha)
    better = (advantage >= 0.0) & (log_ratio > 0.0)
    return jnp.where(better, held, plain - dpo_drift(log_ratio, advantage, alpha, beta))


def dpo_objective(hp: Any, normalize_advantage: str = "minibatch", clip_value: bool = False) -> Objective:
    """`mean(ratio A - drift)`, a value loss and an entropy bonus.

    Args:
      hp: has `gamma`, `gae_lambda`, `dpo_alpha`, `dpo_beta`, `vf_coef`, `ent_coef`, and with `clip_value` also
        `clip_eps`; numbers, may be traced.
      normalize_advantage, clip_value: as in `ppo_objective`.
    References:
      Lu et al. 2022, arXiv:2210.05639.
    """

    def clip(
        state: Any, log_ratio: jax.Array, advantage: jax.Array, weight: jax.Array | None
    ) -> tuple[jax.Array, Metrics]:
        return dpo_surrogate(log_ratio, advantage, hp.dpo_alpha, hp.dpo_beta), {}

    slots = Slots(gae_advantage(hp), ratio=log_importance_ratio, clip=clip)
    return assemble(hp, slots, normalize_advantage, clip_value)
