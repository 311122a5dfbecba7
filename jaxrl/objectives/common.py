"""What the advantage-based objectives share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.ops.returns import gae
from jaxrl.types import Progress, Rollout

ADVANTAGE_NORMALIZATIONS = ("minibatch", "batch", "none")


class AdvantageTargets(NamedTuple):
    """Targets of one sample or many, leaves [...].

    Attributes:
      action: as sampled.
      log_prob: of `action` under the policy that sampled it.
      advantage: reward units, or standard deviations when normalised over the batch.
      returns: the target of "value".
      value: the prediction at collection.
      weight: of the sample in everything that trains the policy, in [0, 1]; `None` for ones.
      policy: the distribution that sampled `action`; `None` unless a regulariser needs it.
    """

    action: jax.Array
    log_prob: jax.Array
    advantage: jax.Array
    returns: jax.Array
    value: jax.Array
    weight: jax.Array | None = None
    policy: Any = None


class Collected(NamedTuple):
    """What an advantage is estimated from, outside the inner gradient.

    Attributes:
      outputs, next_outputs: of the network at `obs` and at the true successor, leaves [T, B, …].
      rollout: leaves [T, B, …].
      progress: of the lifetime.
      weight: [T, B], of the steps in everything that trains the policy; `None` for ones.
    """

    outputs: dict[str, Any]
    next_outputs: dict[str, Any]
    rollout: Rollout
    progress: Progress
    weight: Any = None


# (state, what was collected) -> (advantage [T, B], value targets [T, B], state)
AdvantageSlot = Callable[[Any, Collected], tuple[jax.Array, jax.Array, Any]]


def gae_advantage(hp: Any) -> AdvantageSlot:
    """The usual advantage slot: GAE, with λ-returns as value targets. `hp` has `gamma` and `gae_lambda`."""

    def advantage(state: Any, seen: Collected) -> tuple[jax.Array, jax.Array, Any]:
        rollout, value, next_value = seen.rollout, seen.outputs["value"], seen.next_outputs["value"]
        flags = (rollout.terminated, rollout.truncated)
        advantage = gae(rollout.reward, *flags, value, next_value, hp.gamma, hp.gae_lambda)
        return advantage, advantage + value, state

    return advantage


def scheduled(advantage: AdvantageSlot, schedule: Callable[[Progress], jax.Array]) -> AdvantageSlot:
    """The same advantage slot, whose state becomes `schedule(progress)`: what the loss may know of the lifetime."""

    def slot(state: Any, seen: Collected) -> tuple[jax.Array, jax.Array, Any]:
        estimate, returns, _ = advantage(state, seen)
        return estimate, returns, schedule(seen.progress)

    return slot


def lifetime_fraction(progress: Progress) -> jax.Array:
    """`n / N` as a float32 scalar: the share of the lifetime that lies behind this update, in [0, 1)."""
    return jnp.asarray(progress.fraction, jnp.float32)


def value_loss(
    value: jax.Array,
    targets: AdvantageTargets,
    clip_eps: jax.Array | float | None = None,
    error_max: jax.Array | float | None = None,
) -> jax.Array:
    """`0.5 mean (V - G)^2`; with `clip_eps`, the larger of that and the same for V held within ±clip_eps of before.

    With `error_max` no square counts for more than that, and what exceeds it teaches nothing.

    References:
      The clipped form is that of OpenAI baselines' ppo2.
    """
    error = jnp.square(value - targets.returns)
    if clip_eps is not None:
        held = targets.value + jnp.clip(value - targets.value, -clip_eps, clip_eps)
        error = jnp.maximum(error, jnp.square(held - targets.returns))
    if error_max is not None:
        error = jnp.minimum(error, error_max)
    return 0.5 * error.mean()


def no_heads(action_space: Any) -> dict[str, int]:
    """For objectives that need only "policy" and "value"."""
    return {}


def no_state() -> tuple[()]:
    """For objectives without a state."""
    return ()


def unchanged(state: Any, outputs: Any, targets: Any) -> Any:
    """A `finish` that does nothing."""
    return state
