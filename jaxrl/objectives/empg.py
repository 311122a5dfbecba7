"""Entropy-modulated policy gradients: sure steps learn more, and leading to sure steps is rewarded."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.objectives.common import Collected, gae_advantage
from jaxrl.objectives.host import Slots, assemble
from jaxrl.objectives.ppo import clip_between, ppo_bounds
from jaxrl.ops.statistics import standardize, weighted_mean
from jaxrl.types import Objective


def entropy_modulated(
    advantage: jax.Array,
    entropy: jax.Array,
    next_entropy: jax.Array,
    terminated: jax.Array,
    rates: tuple[Any, Any],
    bonus: jax.Array | float,
) -> jax.Array:
    """`A g(H_t) + bonus f(H_{t+1})`, centred over the batch.

    `g = exp(-k h)` divided by its mean, `f = exp(-k' h)`, and h is the entropy between the smallest (0) and the
    largest (1) of the batch. Where nothing follows, f is its mean over the other steps.

    Args:
      advantage, entropy, next_entropy: of one shape; entropies in nats, at a step and at its successor.
      terminated: bool, of that shape.
      rates: (k, k').
      bonus: in the units of `advantage`.
    References:
      Wang et al. 2025, arXiv:2509.09265.
    """
    low, high = entropy.min(), entropy.max()

    def relative(x: jax.Array) -> jax.Array:
        return jnp.clip((x - low) / jnp.maximum(high - low, 1e-8), 0.0, 1.0)

    scale = jnp.exp(-rates[0] * relative(entropy))
    clarity = jnp.exp(-rates[1] * relative(next_entropy))
    going_on = 1.0 - terminated.astype(jnp.float32)
    clarity = jnp.where(terminated, weighted_mean(clarity, going_on), clarity)
    modulated = advantage * scale / scale.mean() + bonus * clarity
    return modulated - modulated.mean()


def empg_objective(hp: Any, normalize_advantage: str = "minibatch", clip_value: bool = False) -> Objective:
    """PPO's clipped surrogate with advantages scaled by how sure the policy was (`entropy_modulated`).

    Advantages are standardised over the batch before it, unless `normalize_advantage` is "none". A Gaussian policy
    whose deviation does not depend on the observation has one entropy everywhere: nothing is modulated then.

    Args:
      hp: has `empg_k`, `empg_bonus_k`, `empg_bonus`, `gamma`, `gae_lambda`, `clip_eps`, `vf_coef`, `ent_coef`;
        numbers, may be traced.
      normalize_advantage, clip_value: as in `ppo_objective`.
    References:
      Wang et al. 2025, arXiv:2509.09265. Differs: GAE in the place of one return per task.
    """
    critic = gae_advantage(hp)

    def advantage(state: Any, seen: Collected) -> tuple[jax.Array, jax.Array, Any]:
        estimate, returns, state = critic(state, seen)
        if normalize_advantage != "none":
            estimate = standardize(estimate)
        entropies = (seen.outputs["policy"].entropy(), seen.next_outputs["policy"].entropy())
        rates = (hp.empg_k, hp.empg_bonus_k)
        return entropy_modulated(estimate, *entropies, seen.rollout.terminated, rates, hp.empg_bonus), returns, state

    return assemble(hp, Slots(advantage, clip=clip_between(ppo_bounds(hp))), normalize_advantage, clip_value)
