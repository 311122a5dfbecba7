"""Risk-sensitive advantages from quantiles of the episodes' returns."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.objectives.common import Collected, gae_advantage
from jaxrl.objectives.episodes import complete_episodes, episode_return, last_steps
from jaxrl.objectives.groups import group_normalized
from jaxrl.objectives.host import Slots, assemble
from jaxrl.objectives.ppo import clip_between, ppo_bounds
from jaxrl.types import Metrics, Objective


@struct.dataclass
class Quantiles:
    """Estimates of two quantiles of the return; scalars.

    Attributes:
      low, high: reward units.
      started: bool, a complete episode has been seen.
    """

    low: jax.Array
    high: jax.Array
    started: jax.Array


def rvar_advantage(
    returns: jax.Array, q_low: jax.Array, q_high: jax.Array, low: jax.Array | float, high: jax.Array | float
) -> jax.Array:
    """`(clip(R, q_low, q_high) - q_high) / (high - low)`, never positive.

    Its product with the score is the gradient of the range value at risk, the mean of the quantiles between the
    levels `low` and `high`.
    """
    return (jnp.clip(returns, q_low, q_high) - q_high) / jnp.maximum(high - low, 1e-6)


def tail_advantage(returns: jax.Array, q_low: jax.Array, low: jax.Array | float) -> jax.Array:
    """`(min(R, q_low) - q_low) / low`: the same for the mean of the quantiles below `low`; 0 where `low` is 0."""
    tail = jnp.minimum(returns, q_low) - q_low
    return jnp.where(low > 0.0, tail / jnp.where(low > 0.0, low, 1.0), 0.0)


def moved_quantile(
    quantile: jax.Array, returns: jax.Array, count: jax.Array, level: jax.Array | float, rate: jax.Array | float
) -> jax.Array:
    """`q + rate * (level - mean 1{R < q})` over the counted returns; the level's quantile is where it rests."""
    below = (count * (returns < quantile)).sum() / jnp.maximum(count.sum(), 1.0)
    return quantile + jnp.where(count.sum() > 0, rate * (level - below), 0.0)


def followed_quantiles(
    state: Quantiles, returns: jax.Array, count: jax.Array, levels: tuple[Any, Any], rate: jax.Array | float
) -> Quantiles:
    """Both estimates after a batch of counted returns, by `moved_quantile`.

    Args:
      state: before the batch.
      returns, count: of one shape.
      levels: of `low` and `high`.
      rate: in standard deviations of the batch, so that it means the same whatever the unit of rewards.
    """
    spread = jnp.sqrt((count * (returns - _mean(returns, count)) ** 2).sum() / jnp.maximum(count.sum(), 1.0))
    low, high = (
        moved_quantile(quantile, returns, count, level, rate * spread)
        for quantile, level in zip((state.low, state.high), levels, strict=True)
    )
    return Quantiles(low, high, state.started)


def begun_quantiles(state: Quantiles, returns: jax.Array, count: jax.Array, levels: tuple[Any, Any]) -> Quantiles:
    """The estimates as they are or, before the first complete episode, the quantiles of this batch."""
    counted, any_counted = jnp.where(count > 0, returns, jnp.nan), (count > 0).any()
    low, high = (
        jnp.where(state.started | ~any_counted, before, jnp.nanquantile(counted, level))
        for before, level in zip((state.low, state.high), levels, strict=True)
    )
    return Quantiles(low, high, state.started | any_counted)


def risk_ppo_objective(hp: Any, clip_value: bool = False) -> Objective:
    """PPO's clipped surrogate for a distortion of the return: its worse quantiles count, or count more.

    The advantage of an episode, and of all its steps, is `rvar_advantage + risk_tail * tail_advantage`, standardised
    over the complete episodes. `risk_tail = 0` is the range value at risk between the two levels, which ignores what
    lies outside; `risk_tail > 0` the mixed form, in which the worst outcomes weigh most. Levels 0 and 1 give REINFORCE.
    The state holds the two quantiles, which start at those of the first batch and then follow.

    Args:
      hp: has `risk_low`, `risk_high`, `risk_tail`, `risk_rate`, `gamma`, `gae_lambda` (both of the critic alone),
        `clip_eps`, `vf_coef`, `ent_coef`; numbers, may be traced.
      clip_value: as in `ppo_objective`.
    References:
      Ren et al. 2025 (RiskPO), arXiv:2510.00911. Differs: single episodes instead of bundles; advantages are centred
      (only a baseline; theirs are divided by the deviation alone); the tracker's rate is in deviations of the return.
    """
    critic = gae_advantage(hp)

    def advantage(state: Quantiles, seen: Collected) -> tuple[jax.Array, jax.Array, Quantiles]:
        _, targets, _ = critic((), seen)
        rollout, weight = seen.rollout, seen.weight
        returns, count = episode_return(rollout), last_steps(rollout, weight)
        levels = (hp.risk_low, hp.risk_high)
        state = begun_quantiles(state, returns, count, levels)
        estimate = rvar_advantage(returns, state.low, state.high, *levels)
        estimate += hp.risk_tail * tail_advantage(returns, state.low, hp.risk_low)
        standardised = group_normalized(estimate.reshape(1, -1), count.reshape(1, -1)).reshape(estimate.shape)
        return weight * standardised, targets, followed_quantiles(state, returns, count, levels, hp.risk_rate)

    def report(state: Quantiles) -> Metrics:
        return {"risk/quantile_low": state.low, "risk/quantile_high": state.high}

    slots = Slots(
        advantage,
        clip=clip_between(ppo_bounds(hp)),
        mask=complete_episodes,
        init=lambda: Quantiles(jnp.float32(0.0), jnp.float32(0.0), jnp.bool_(False)),
        report=report,
    )
    return assemble(hp, slots, "none", clip_value)


def _mean(x: jax.Array, count: jax.Array) -> jax.Array:
    return (count * x).sum() / jnp.maximum(count.sum(), 1.0)
