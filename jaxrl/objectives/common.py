"""What the advantage-based objectives share."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.ops.returns import gae
from jaxrl.types import Rollout

ADVANTAGE_NORMALIZATIONS = ("minibatch", "batch", "none")


class AdvantageTargets(NamedTuple):
    """Targets of one sample or many, leaves [...].

    Attributes:
      action: as sampled.
      log_prob: of `action` under the policy that sampled it.
      advantage: reward units, or standard deviations when normalised over the batch.
      returns: the λ-return, the target of "value".
      value: the prediction at collection.
    """

    action: jax.Array
    log_prob: jax.Array
    advantage: jax.Array
    returns: jax.Array
    value: jax.Array


def advantage_targets(
    outputs: dict[str, Any], next_outputs: dict[str, Any], rollout: Rollout, hp: Any, normalization: str
) -> AdvantageTargets:
    """GAE over a rollout. `hp` has `gamma` and `gae_lambda`; `normalization` as in `standardize`."""
    value, next_value = outputs["value"], next_outputs["value"]
    advantage = gae(rollout.reward, rollout.terminated, rollout.truncated, value, next_value, hp.gamma, hp.gae_lambda)
    returns = advantage + value
    if normalization == "batch":
        advantage = standardize(advantage)
    return AdvantageTargets(rollout.action, outputs["policy"].log_prob(rollout.action), advantage, returns, value)


def standardize(x: jax.Array) -> jax.Array:
    """Mean 0 and standard deviation 1 over all elements."""
    return (x - x.mean()) / (x.std() + 1e-8)


def value_loss(value: jax.Array, targets: AdvantageTargets, clip_eps: jax.Array | float | None = None) -> jax.Array:
    """`0.5 mean (V - G)^2`; with `clip_eps`, the larger of that and the same for V held within ±clip_eps of before.

    References:
      The clipped form is that of OpenAI baselines' ppo2.
    """
    error = jnp.square(value - targets.returns)
    if clip_eps is not None:
        held = targets.value + jnp.clip(value - targets.value, -clip_eps, clip_eps)
        error = jnp.maximum(error, jnp.square(held - targets.returns))
    return 0.5 * error.mean()


def no_heads(action_space: Any) -> dict[str, int]:
    """For objectives that need only "policy" and "value"."""
    return {}


def no_state() -> tuple[()]:
    """For objectives without a state."""
    return ()


def unchanged(state: Any, metrics: Any) -> Any:
    """A `finish` that does nothing."""
    return state
