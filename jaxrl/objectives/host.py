"""The host of policy-gradient objectives: one value loss, one entropy bonus, and five slots for what differs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.objectives.common import AdvantageSlot, AdvantageTargets, Collected, no_heads, no_state, unchanged
from jaxrl.objectives.common import value_loss as value_loss_fn
from jaxrl.ops.statistics import standardize, weighted_mean
from jaxrl.types import Metrics, Objective, Progress, Rollout

_MAX_LOG_RATIO = 20.0


def log_importance_ratio(log_prob: jax.Array, old_log_prob: jax.Array) -> jax.Array:
    """`log(pi / pi_old)` per element, held within ±20: beyond, its gradient is zero."""
    return jnp.clip(log_prob - old_log_prob, -_MAX_LOG_RATIO, _MAX_LOG_RATIO)


def importance_ratio(log_prob: jax.Array, old_log_prob: jax.Array) -> jax.Array:
    """`pi / pi_old` per element, held within e^±20: beyond, its gradient is zero instead of infinite."""
    return jnp.exp(log_importance_ratio(log_prob, old_log_prob))


def score(log_prob: jax.Array, old_log_prob: jax.Array) -> jax.Array:
    """`log pi` per element in the place of the ratio: `score * A` has the gradient of REINFORCE."""
    return log_prob


def unclipped(
    state: Any, ratio: jax.Array, advantage: jax.Array, weight: jax.Array | None
) -> tuple[jax.Array, Metrics]:
    """`ratio * A` per element."""
    return ratio * advantage, {}


def no_report(state: Any) -> Metrics:
    """For objectives whose state is not worth a metric."""
    return {}


class Slots(NamedTuple):
    """What an objective is assembled from; pure functions. Numbers that they close over may be traced.

    Attributes:
      advantage: `(state, Collected) -> (advantage, value targets, state)`, both [T, B]; outside the inner gradient.
      ratio: `(log_prob, old_log_prob) -> [N]`, what `clip` sees of the two: the ratio, its logarithm, a score.
      clip: `(state, ratio, advantage, weight) -> (what is maximised [N], Metrics)`; the state as `advantage` left it.
        Where it clips, it does so between explicit bounds (low, high) on the ratio.
      regulariser: `(state, policy, targets) -> (penalty [N], Metrics)`, or `None`; its targets hold the old policy.
      mask: `rollout -> [T, B]`, the weight in [0, 1] of each step in everything that trains the policy; `None` for
        ones. Values are learnt at every step.
      init, finish: of the state, as in `Objective`.
      report: `state -> Metrics`.
      value_error_max: bound of the value's squared error, or `None`.
    """

    advantage: AdvantageSlot
    ratio: Callable[[jax.Array, jax.Array], jax.Array] = importance_ratio
    clip: Callable[..., tuple[jax.Array, Metrics]] = unclipped
    regulariser: Callable[..., tuple[jax.Array, Metrics]] | None = None
    mask: Callable[[Rollout], jax.Array] | None = None
    init: Callable[[], Any] = no_state
    finish: Callable[[Any, Any, Any], Any] = unchanged
    report: Callable[[Any], Metrics] = no_report
    value_error_max: jax.Array | float | None = None


def assemble(hp: Any, slots: Slots, normalize_advantage: str = "none", clip_value: bool = False) -> Objective:
    """An objective from its slots.

    The loss is `-mean(clip) + mean(regulariser) - ent_coef * mean(entropy) + vf_coef * value loss`, means weighted by
    the mask. With separate torsos the value loss leaves the policy's gradient alone; the agent's bound on the global
    norm of the gradient still sees both.

    Args:
      hp: has `vf_coef`, `ent_coef`, and with `clip_value` also `clip_eps`; numbers, may be traced.
      slots: what the objective is made of.
      normalize_advantage: "minibatch", "batch" or "none".
      clip_value: hold the value within ±clip_eps of its old prediction.
    """

    def prepare(
        state: Any, outputs: dict[str, Any], next_outputs: dict[str, Any], rollout: Rollout, progress: Progress
    ) -> tuple[AdvantageTargets, Any]:
        weight = slots.mask(rollout) if slots.mask else None
        advantage, returns, state = slots.advantage(state, Collected(outputs, next_outputs, rollout, progress, weight))
        if normalize_advantage == "batch":
            advantage = standardize(advantage, weight)
        policy, value = outputs["policy"], outputs["value"]
        log_prob = policy.log_prob(rollout.action)
        kept = policy if slots.regulariser else None
        return AdvantageTargets(rollout.action, log_prob, advantage, returns, value, weight, kept), state

    def loss(state: Any, outputs: dict[str, Any], targets: AdvantageTargets) -> tuple[jax.Array, Metrics]:
        policy, weight, advantage = outputs["policy"], targets.weight, targets.advantage
        if normalize_advantage == "minibatch":
            advantage = standardize(advantage, weight)
        log_prob = policy.log_prob(targets.action)
        gain, clip_metrics = slots.clip(state, slots.ratio(log_prob, targets.log_prob), advantage, weight)
        policy_loss = -weighted_mean(gain, weight)
        value_loss = value_loss_fn(
            outputs["value"], targets, hp.clip_eps if clip_value else None, slots.value_error_max
        )
        entropy = policy.entropy()
        total = policy_loss + hp.vf_coef * value_loss - hp.ent_coef * weighted_mean(entropy, weight)
        metrics = {
            "loss/policy": policy_loss,
            "loss/value": value_loss,
            "policy/entropy": entropy.mean(),
            "policy/approx_kl": approximate_kl(log_prob, targets.log_prob).mean(),
            **clip_metrics,
            **slots.report(state),
        }
        if slots.regulariser:
            penalty, more = slots.regulariser(state, policy, targets)
            total, metrics = total + weighted_mean(penalty, weight), metrics | more
        if weight is not None:
            metrics["policy/used_fraction"] = weight.mean()
        return total, metrics

    return Objective(no_heads, slots.init, prepare, loss, slots.finish)


def approximate_kl(log_prob: jax.Array, old_log_prob: jax.Array) -> jax.Array:
    """Estimate of KL(old || new) per element from the old policy's samples: never negative, unbiased in the mean.

    References:
      Schulman 2020, "Approximating KL divergence", k3.
    """
    return importance_ratio(log_prob, old_log_prob) - 1.0 - (log_prob - old_log_prob)
