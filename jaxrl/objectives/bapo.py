"""Balanced policy optimisation: clip bounds, uneven and found per batch, that let enough good actions through."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.objectives.common import gae_advantage
from jaxrl.objectives.host import Slots, assemble
from jaxrl.objectives.ppo import Bounds, clip_metrics, clipped_surrogate
from jaxrl.types import Metrics, Objective

HIGH_STEP, LOW_STEP = 0.05, 0.02


def positive_share(
    ratio: jax.Array, advantage: jax.Array, bounds: Bounds, weight: jax.Array | None = None
) -> jax.Array:
    """Share of the samples with A > 0 in `|ratio * A|`, of those that are not clipped: the others have no gradient.

    Returns:
      Scalar in [0, 1]; 1 where nothing has a gradient, and there is nothing to balance.
    """
    free = jnp.where(advantage > 0.0, ratio <= bounds[1], ratio >= bounds[0])
    part = jnp.where(free, jnp.abs(ratio * advantage), 0.0) * (1.0 if weight is None else weight)
    positive, total = jnp.where(advantage > 0.0, part, 0.0).sum(), part.sum()
    return jnp.where(total > 0.0, positive / jnp.where(total > 0.0, total, 1.0), 1.0)


def balanced_bounds(
    ratio: jax.Array,
    advantage: jax.Array,
    start: Bounds,
    limit: Bounds,
    target: jax.Array | float,
    weight: jax.Array | None = None,
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """The first bounds at which `positive_share` reaches a target: the upper is raised to its limit, then the lower.

    A higher upper bound lets in good actions that have become likelier, a higher lower bound keeps out bad ones that
    have become unlikelier: neither can lower the share.

    Args:
      ratio, advantage: of any shape.
      start: bounds to begin with, kept if the target is met.
      limit: no bound goes further, whatever the share is then; the search ends after
        `ceil((limit - start) / step)` steps for both bounds together, of `HIGH_STEP` and `LOW_STEP`.
      target: in [0, 1].
      weight: of each sample; `None` for ones.
    Returns:
      The bounds, and the share under them.
    """
    start_low, start_high = start
    # A limit below its start means that this bound does not move.
    limit_low, limit_high = jnp.maximum(start_low, limit[0]), jnp.maximum(start_high, limit[1])
    # The thousandth of a step absorbs rounding: 0.3 / 0.02 is 15 steps, not 16.
    num_low = jnp.ceil((limit_low - start_low) / LOW_STEP - 1e-3).astype(jnp.int32)
    num_high = jnp.ceil((limit_high - start_high) / HIGH_STEP - 1e-3).astype(jnp.int32)

    def bounds_after(trips: jax.Array | int) -> tuple[jax.Array, jax.Array]:
        low = start_low + LOW_STEP * jnp.maximum(trips - num_high, 0)
        high = start_high + HIGH_STEP * jnp.minimum(trips, num_high)
        return jnp.minimum(low, limit_low), jnp.minimum(high, limit_high)

    def unmet(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
        trips, share = carry
        return (share < target) & (trips < num_high + num_low)

    def widen(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        trips = carry[0] + 1
        return trips, positive_share(ratio, advantage, bounds_after(trips), weight)

    first = (jnp.int32(0), positive_share(ratio, advantage, bounds_after(0), weight))
    trips, share = jax.lax.while_loop(unmet, widen, first)
    return bounds_after(trips), share


def bapo_objective(hp: Any, normalize_advantage: str = "minibatch", clip_value: bool = False) -> Objective:
    """PPO's clipped surrogate between bounds that `balanced_bounds` finds for every minibatch.

    Args:
      hp: has `bapo_target`; `bapo_low`, `bapo_high`, where the bounds start; `bapo_low_max`, `bapo_high_max`; and
        `gamma`, `gae_lambda`, `vf_coef`, `ent_coef`, with `clip_value` also `clip_eps`; numbers, may be traced.
      normalize_advantage, clip_value: as in `ppo_objective`.
    References:
      Xi et al. 2025, arXiv:2510.18927, with the paper's constants and order (upper bound first), not those of the
      released code, and without its dual clip. Differs: clipped samples do not count in the share.
    """

    def clip(state: Any, ratio: jax.Array, advantage: jax.Array, weight: jax.Array | None) -> tuple[jax.Array, Metrics]:
        # The bounds are data of the surrogate: no gradient through the search, which has none in reverse.
        fixed = jax.lax.stop_gradient((ratio, advantage))
        start, limit = (hp.bapo_low, hp.bapo_high), (hp.bapo_low_max, hp.bapo_high_max)
        bounds, share = balanced_bounds(*fixed, start, limit, hp.bapo_target, weight)
        metrics = clip_metrics(ratio, bounds, weight) | {
            "policy/positive_share": share,
            "policy/clip_low": bounds[0],
            "policy/clip_high": bounds[1],
        }
        return clipped_surrogate(ratio, advantage, bounds), metrics

    return assemble(hp, Slots(gae_advantage(hp), clip=clip), normalize_advantage, clip_value)
