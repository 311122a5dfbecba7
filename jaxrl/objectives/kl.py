"""Objectives held back by a KL divergence from the old policy, in closed form, instead of a clip."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.objectives.common import AdvantageTargets, gae_advantage, scheduled
from jaxrl.objectives.host import Slots, assemble
from jaxrl.objectives.ppo import clip_between, ppo_bounds
from jaxrl.ops.statistics import weighted_mean
from jaxrl.types import Metrics, Objective, Progress

_KL_COEF_BOUNDS = (2.0**-20, 2.0**20)


def adapted_kl_coef(coef: jax.Array | float, kl: jax.Array | float, target: jax.Array | float) -> jax.Array:
    """Half the weight where the divergence is below target / 1.5, twice where above 1.5 target.

    Held within 2^-20 … 2^20: a weight that has underflowed to 0 could never double again.

    References:
      Schulman et al. 2017, arXiv:1707.06347, sec. 4. Differs: the bounds.
    """
    factor = jnp.where(kl < target / 1.5, 0.5, jnp.where(kl > 1.5 * target, 2.0, 1.0))
    return jnp.clip(coef * factor, *_KL_COEF_BOUNDS)


def mirror_descent_step_size(progress: Progress) -> jax.Array:
    """`t_k = 1 - k/K`, at least 1/K: update k of K, from 0."""
    return jnp.maximum(1.0 - progress.fraction, 1.0 / progress.num_updates).astype(jnp.float32)


def ppo_kl_objective(hp: Any, normalize_advantage: str = "minibatch", clip_value: bool = False) -> Objective:
    """`mean(ratio A) - kl_coef * KL(old || new)`, with a fixed weight.

    Args:
      hp: has `gamma`, `gae_lambda`, `kl_coef`, `vf_coef`, `ent_coef`, and with `clip_value` also `clip_eps`; numbers,
        may be traced.
      normalize_advantage, clip_value: as in `ppo_objective`.
    References:
      Schulman et al. 2017, arXiv:1707.06347, sec. 4; the fixed weight is Stoix's.
    """

    def penalty(state: Any, policy: Any, targets: AdvantageTargets) -> tuple[jax.Array, Metrics]:
        kl = targets.policy.kl(policy)
        return hp.kl_coef * kl, {"policy/kl": weighted_mean(kl, targets.weight)}

    return assemble(hp, Slots(gae_advantage(hp), regulariser=penalty), normalize_advantage, clip_value)


def ppo_adaptive_kl_objective(hp: Any, normalize_advantage: str = "minibatch", clip_value: bool = False) -> Objective:
    """`mean(ratio A) - beta * KL(old || new)`; beta, the state, follows the divergence (`adapted_kl_coef`).

    That is the one between the policy that collected and the one after the update, over the whole rollout.

    Args:
      hp: as in `ppo_kl_objective` with, for `kl_coef`, `kl_coef_init` (beta of the first update) and `kl_target`.
      normalize_advantage, clip_value: as in `ppo_objective`.
    References:
      Schulman et al. 2017, arXiv:1707.06347, sec. 4.
    """

    def init() -> jax.Array:
        return jnp.asarray(hp.kl_coef_init, jnp.float32)

    def penalty(coef: jax.Array, policy: Any, targets: AdvantageTargets) -> tuple[jax.Array, Metrics]:
        kl = targets.policy.kl(policy)
        return coef * kl, {"policy/kl": weighted_mean(kl, targets.weight)}

    def finish(coef: jax.Array, outputs: dict[str, Any], targets: AdvantageTargets) -> jax.Array:
        kl = weighted_mean(targets.policy.kl(outputs["policy"]), targets.weight)
        return adapted_kl_coef(coef, kl, hp.kl_target)

    slots = Slots(
        gae_advantage(hp), regulariser=penalty, init=init, finish=finish, report=lambda coef: {"policy/kl_coef": coef}
    )
    return assemble(hp, slots, normalize_advantage, clip_value)


def rllib_kl_coef(coef: jax.Array | float, kl: jax.Array | float, target: jax.Array | float) -> jax.Array:
    """Half the weight where the divergence is below half the target, half more where above twice the target."""
    factor = jnp.where(kl < 0.5 * target, 0.5, jnp.where(kl > 2.0 * target, 1.5, 1.0))
    return jnp.clip(coef * factor, *_KL_COEF_BOUNDS)


def ppo_clip_kl_objective(hp: Any, normalize_advantage: str = "batch", clip_value: bool = False) -> Objective:
    """The clipped ratio and an adaptive penalty on KL(old || new) at once, and a bound on the value's squared error.

    Args:
      hp: as in `ppo_adaptive_kl_objective`, with `clip_eps` and `value_error_max`.
      normalize_advantage, clip_value: as in `ppo_objective`.
    References:
      RLlib 1.8's PPO. Differs: bounds on the weight, which is led by the divergence over the whole rollout.
    """

    def penalty(coef: jax.Array, policy: Any, targets: AdvantageTargets) -> tuple[jax.Array, Metrics]:
        kl = targets.policy.kl(policy)
        return coef * kl, {"policy/kl": weighted_mean(kl, targets.weight)}

    def finish(coef: jax.Array, outputs: dict[str, Any], targets: AdvantageTargets) -> jax.Array:
        return rllib_kl_coef(coef, weighted_mean(targets.policy.kl(outputs["policy"]), targets.weight), hp.kl_target)

    slots = Slots(
        gae_advantage(hp),
        clip=clip_between(ppo_bounds(hp)),
        regulariser=penalty,
        init=lambda: jnp.asarray(hp.kl_coef_init, jnp.float32),
        finish=finish,
        report=lambda coef: {"policy/kl_coef": coef},
        value_error_max=hp.value_error_max,
    )
    return assemble(hp, slots, normalize_advantage, clip_value)


def mdpo_objective(hp: Any, normalize_advantage: str = "batch", clip_value: bool = False) -> Objective:
    """On-policy mirror descent: `mean(ratio A) - KL(new || old) / t_k`, without a clip.

    t_k (`mirror_descent_step_size`) is the state: it falls from 1 to 1/K over a run, so that the policy moves less and
    less. Note the order in the divergence, which is not that of `ppo_kl_objective`.

    Args:
      hp: has `gamma`, `gae_lambda`, `vf_coef`, `ent_coef`, and with `clip_value` also `clip_eps`; numbers, may be
        traced.
      normalize_advantage, clip_value: as in `ppo_objective`.
    References:
      Tomar et al. 2020, arXiv:2005.09814, on-policy. Differs: their code's t_k starts at 1 + 1/K.
    """
    return assemble(
        hp,
        Slots(
            scheduled(gae_advantage(hp), mirror_descent_step_size),
            regulariser=_mirror_penalty,
            init=lambda: jnp.float32(1.0),
            report=lambda step_size: {"policy/step_size": step_size},
        ),
        normalize_advantage,
        clip_value,
    )


def _mirror_penalty(step_size: jax.Array, policy: Any, targets: AdvantageTargets) -> tuple[jax.Array, Metrics]:
    kl = policy.kl(targets.policy)
    return kl / step_size, {"policy/kl": weighted_mean(kl, targets.weight)}
