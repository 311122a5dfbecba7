"""Whole episodes inside a rollout, for objectives that compare returns instead of trusting a critic.

An episode is complete if it began and ended within the rollout; steps of the others are masked. `num_steps` must
therefore be longer than episodes, else little or nothing is learnt from ("policy/used_fraction" tells how much), and
short episodes count for more than they should: a long one is more often cut by the rollout's ends.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.ops.returns import discounted_return_so_far, discounted_sum
from jaxrl.types import Rollout


def complete_episodes(rollout: Rollout) -> jax.Array:
    """[T, B] float32, 1 at every step of an episode that began and ended (terminated or truncated) in the rollout."""
    done = rollout.terminated | rollout.truncated
    began = jax.lax.cummax(rollout.is_first.astype(jnp.float32), axis=0)
    ends = jax.lax.cummax(done.astype(jnp.float32), axis=0, reverse=True)
    return began * ends


def episode_return(rollout: Rollout) -> jax.Array:
    """[T, B] undiscounted sum of the rewards of the step's episode; meaningful only where it is complete."""
    done = rollout.terminated | rollout.truncated
    so_far = discounted_return_so_far(rollout.reward, rollout.is_first, jnp.zeros_like(rollout.reward[0]), 1.0)
    return discounted_sum(jnp.where(done, so_far, 0.0), jnp.where(done, 0.0, 1.0))


def last_steps(rollout: Rollout, complete: jax.Array) -> jax.Array:
    """[T, B] float32, 1 at the last step of each complete episode: sums under it count every episode once."""
    return complete * (rollout.terminated | rollout.truncated)
