"""Advantages relative to a group of episodes, without a critic: GRPO, RLOO, Lite PPO, BNPO.

A group is the complete episodes (`jaxrl.objectives.episodes`) of `group_size` neighbouring environments, and every
step of an episode gets the episode's advantage. Statistics are over episodes, each counted once; losses average over
steps. The episodes of a group share a baseline though they start from different states, unless the environment always
starts in the same one: where starts differ in worth, the baseline is only part of what a critic would know.

The equations take [G, n] arrays, `count` 1 for elements that are an episode and 0 for others: those get an advantage,
too, but no weight in any statistic. A group of one episode gets 0, and so do groups of equal episodes, exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import betaln

from jaxrl.objectives.common import Collected, gae_advantage
from jaxrl.objectives.episodes import complete_episodes, episode_return, last_steps
from jaxrl.objectives.host import Slots, assemble
from jaxrl.objectives.ppo import clip_between, ppo_bounds
from jaxrl.types import Objective

_MAX_BNPO_WEIGHT = 1e6
_MIN_RATE_VARIANCE = 1e-6  # below, the moments are rounding, and the two shapes of the Beta too large for float32

Equation = Callable[[jax.Array, jax.Array], jax.Array]  # (score [G, n], count [G, n]) -> advantage [G, n]


def group_centred(score: jax.Array, count: jax.Array) -> jax.Array:
    """`R_i - mean R` of the group.

    The smallest score is taken off first, so that equal scores give exactly 0 however large they are.
    """
    num = count.sum(-1, keepdims=True)
    lowest = jnp.where(count > 0, score, jnp.inf).min(-1, keepdims=True)
    shifted = score - jnp.where(num > 0, lowest, 0.0)
    return shifted - (count * shifted).sum(-1, keepdims=True) / jnp.maximum(num, 1.0)


def group_normalized(score: jax.Array, count: jax.Array) -> jax.Array:
    """GRPO: `(R_i - mean R) / (std R + 1e-6)` of the group, population standard deviation.

    References:
      Shao et al. 2024, arXiv:2402.03300, sec. 4.1. Differs, as an objective: no divergence from a reference policy, and
      steps have equal weights, where theirs have those of short episodes more.
    """
    centred = group_centred(score, count)
    num = jnp.maximum(count.sum(-1, keepdims=True), 1.0)
    return centred / (jnp.sqrt((count * centred**2).sum(-1, keepdims=True) / num) + 1e-6)


def leave_one_out(score: jax.Array, count: jax.Array) -> jax.Array:
    """RLOO: `R_i` minus the mean of the group's others, `n / (n-1) * (R_i - mean R)`.

    References:
      Ahmadian et al. 2024, arXiv:2402.14740.
    """
    num = count.sum(-1, keepdims=True)
    return group_centred(score, count) * jnp.where(num > 1, num / jnp.maximum(num - 1.0, 1.0), 0.0)


def batch_normalized(score: jax.Array, count: jax.Array) -> jax.Array:
    """Lite PPO: `(R_i - mean R of the group) / (std R of all groups + 1e-6)`.

    References:
      Liu et al. 2025, arXiv:2508.08221; the loss, too, averages over steps.
    """
    overall = group_centred(score.reshape(1, -1), count.reshape(1, -1)).reshape(score.shape)
    variance = (count * overall**2).sum() / jnp.maximum(count.sum(), 1.0)
    return group_centred(score, count) / (jnp.sqrt(variance) + 1e-6)


def beta_shapes(rate: jax.Array, counted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """BNPO's (alpha, beta): `1 + a/3` and `1 + b/3` for the Beta(a, b) with the moments of the success rates.

    Args:
      rate: [G], success rates in [0, 1].
      counted: [G], 1 for groups that have episodes.
    Returns:
      Two scalars >= 1; (1, 1), the uniform, where all rates are the same.
    """
    num = jnp.maximum(counted.sum(), 1.0)
    mean = (counted * rate).sum() / num
    variance = (counted * (rate - mean) ** 2).sum() / num
    spread = variance > _MIN_RATE_VARIANCE
    u = jnp.where(spread, mean * (1.0 - mean) / jnp.where(spread, variance, 1.0) - 1.0, 0.0)
    return jnp.maximum(1.0, 1.0 + u * mean / 3.0), jnp.maximum(1.0, 1.0 + u * (1.0 - mean) / 3.0)


def beta_normalized(
    success: jax.Array, rate: jax.Array, alpha: jax.Array | float, beta: jax.Array | float
) -> jax.Array:
    """BNPO: `(R_i - p) / Beta(p; alpha, beta)` for R_i in {0, 1} and the group's success rate p.

    Groups in which all fail or all succeed get 0; the weight is at most 1e6.

    References:
      Xiao et al. 2025, arXiv:2506.02864.
    """
    mixed = (rate > 0.0) & (rate < 1.0)
    p = jnp.where(mixed, rate, 0.5)
    log_density = (alpha - 1.0) * jnp.log(p) + (beta - 1.0) * jnp.log1p(-p) - betaln(alpha, beta)
    weight = jnp.exp(jnp.minimum(-log_density, jnp.log(_MAX_BNPO_WEIGHT)))
    return jnp.where(mixed, (success - rate) * weight, 0.0)


def bnpo_equation(success_return: jax.Array | float) -> Equation:
    """`beta_normalized` of the episodes whose return exceeds `success_return`, over their rates in all groups."""

    def equation(score: jax.Array, count: jax.Array) -> jax.Array:
        success = (score > success_return).astype(jnp.float32)
        num = count.sum(-1, keepdims=True)
        rate = (count * success).sum(-1, keepdims=True) / jnp.maximum(num, 1.0)
        alpha, beta = beta_shapes(rate[:, 0], (num[:, 0] > 0).astype(jnp.float32))
        return beta_normalized(success, rate, alpha, beta)

    return equation


def group_objective(hp: Any, equation: Equation, group_size: int = 0, clip_value: bool = False) -> Objective:
    """PPO's clipped surrogate with advantages from groups of episodes.

    The critic is trained as ever, for its metrics; it does not enter the advantages, and they are not normalised
    further. The state is the share of groups whose advantages are all 0: "group/zero_fraction".

    Args:
      hp: has `gamma`, `gae_lambda` (both of the critic alone), `clip_eps`, `vf_coef`, `ent_coef`; numbers, may be
        traced.
      equation: `group_normalized`, `leave_one_out`, `batch_normalized`, `bnpo_equation(…)`.
      group_size: neighbouring environments per group, a divisor of their number; 0 for all.
      clip_value: as in `ppo_objective`.
    """
    critic = gae_advantage(hp)

    def advantage(state: Any, seen: Collected) -> tuple[jax.Array, jax.Array, Any]:
        _, returns, _ = critic((), seen)
        rollout, weight = seen.rollout, seen.weight
        size = group_size or weight.shape[1]
        count = to_groups(last_steps(rollout, weight), size)
        estimate = equation(to_groups(episode_return(rollout), size), count)
        flat = jnp.all(count * estimate == 0.0, axis=-1)
        return weight * from_groups(estimate, weight.shape), returns, flat.mean()

    slots = Slots(
        advantage,
        clip=clip_between(ppo_bounds(hp)),
        mask=complete_episodes,
        init=lambda: jnp.float32(0.0),
        report=lambda flat: {"group/zero_fraction": flat},
    )
    return assemble(hp, slots, "none", clip_value)


def to_groups(x: jax.Array, size: int) -> jax.Array:
    """[T, B] -> [B / size, T * size]."""
    return x.reshape(x.shape[0], -1, size).swapaxes(0, 1).reshape(-1, x.shape[0] * size)


def from_groups(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The inverse of `to_groups`, for [T, B] = `shape`."""
    return x.reshape(x.shape[0], shape[0], -1).swapaxes(0, 1).reshape(shape)
