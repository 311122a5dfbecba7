"""Policy gradient with V-trace targets and truncated importance weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.objectives.common import Collected
from jaxrl.objectives.host import Slots, assemble, importance_ratio
from jaxrl.ops.returns import vtrace
from jaxrl.types import Objective


def vtrace_objective(hp: Any, normalize_advantage: str = "none", clip_value: bool = False) -> Objective:
    """`mean(min(rho_max, ratio) * A * log pi)`, the weight not differentiated; values follow V-trace targets.

    Targets are computed once per rollout, from the policy that collected it: there the ratios in the trace are 1, and
    the weight in the loss is what corrects later epochs. With ratios other than 1, as from a replay or a delayed
    actor, use `jaxrl.ops.returns.vtrace`.

    Args:
      hp: has `gamma`, `gae_lambda` (1 in the paper), `rho_max`, `vf_coef`, `ent_coef`, and with `clip_value` also
        `clip_eps`; numbers, may be traced.
      normalize_advantage, clip_value: as in `ppo_objective`.
    References:
      Espeholt et al. 2018, arXiv:1802.01561, sec. 4.
    """

    def advantage(state: Any, seen: Collected) -> tuple[jax.Array, jax.Array, Any]:
        values = (seen.outputs["value"], seen.next_outputs["value"])
        ratio = jnp.ones_like(values[0])  # the policy that collected
        target, estimate = vtrace(seen.rollout, *values, ratio, hp.gamma, hp.gae_lambda)
        return estimate, target, state

    def weighted_score(log_prob: jax.Array, old_log_prob: jax.Array) -> jax.Array:
        # The weight corrects for who collected the data; its gradient is no part of the policy gradient.
        rho = jnp.minimum(hp.rho_max, importance_ratio(log_prob, old_log_prob))
        return jax.lax.stop_gradient(rho) * log_prob

    return assemble(hp, Slots(advantage, ratio=weighted_score), normalize_advantage, clip_value)
