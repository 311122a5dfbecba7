"""Return and advantage estimators. Time is the leading axis; one reverse scan serves them all.

Termination sets the value of the future to zero, termination or truncation cuts the trace, and bootstrapping reads
the value of the true successor, never that of the observation after a reset.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.types import Rollout


def discounted_sum(delta: jax.Array, decay: jax.Array, unroll: int = 4) -> jax.Array:
    """The recursion under every estimator: `x_t = delta_t + decay_t * x_{t+1}`, with `x_T = 0`.

    Args:
      delta: [T, …] float.
      decay: [T, …] float.
      unroll: steps per iteration of the loop; changes speed only.
    Returns:
      [T, …] float, in the units of `delta`.
    """

    def body(carry: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta_t, decay_t = inputs
        carry = delta_t + decay_t * carry
        return carry, carry

    return jax.lax.scan(body, jnp.zeros_like(delta[0]), (delta, decay), reverse=True, unroll=unroll)[1]


def gae(
    reward: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    gamma: jax.Array | float,
    gae_lambda: jax.Array | float,
) -> jax.Array:
    """Generalised advantage estimates.

    Args:
      reward: [T, B] float, reward units of the environment.
      terminated, truncated: [T, B] bool.
      value, next_value: [T, B], V(obs_t) and V(final_obs_t).
      gamma, gae_lambda: scalars in [0, 1]; may be traced.
    Returns:
      [T, B] advantages, same units as reward; `advantage + value` is the λ-return.
    Raises:
      ValueError: if the shapes differ.
    References:
      Schulman et al. 2016, arXiv:1506.02438, sec. 3. Differs: truncation bootstraps from V(final_obs).
    """
    _check_shapes(reward=reward, terminated=terminated, truncated=truncated, value=value, next_value=next_value)
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value
    return discounted_sum(delta, jnp.where(terminated | truncated, 0.0, gamma * gae_lambda))


def lambda_return(
    reward: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    next_value: jax.Array,
    gamma: jax.Array | float,
    gae_lambda: jax.Array | float,
) -> jax.Array:
    """λ-returns, where no value of the observation acted on is at hand (as in Q(λ)).

    Args:
      reward: [T, B] float.
      terminated, truncated: [T, B] bool.
      next_value: [T, B], V(final_obs_t).
      gamma, gae_lambda: scalars in [0, 1]; may be traced.
    Returns:
      [T, B]; the last step bootstraps from its `next_value` alone.
    Raises:
      ValueError: if the shapes differ.
    References:
      Sutton & Barto 2018, eq. 12.18; equals `gae + value` when `next_value` is the shifted `value`.
    """
    _check_shapes(reward=reward, terminated=terminated, truncated=truncated, next_value=next_value)
    trace = jnp.where(terminated | truncated, 0.0, gae_lambda).at[-1].set(0.0)
    bootstrap = jnp.where(terminated, 0.0, next_value)
    return discounted_sum(reward + gamma * (1.0 - trace) * bootstrap, gamma * trace)


def vtrace(
    rollout: Rollout,
    value: jax.Array,
    next_value: jax.Array,
    ratio: jax.Array,
    gamma: jax.Array | float,
    gae_lambda: jax.Array | float,
    rho_max: jax.Array | float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """V-trace: value targets and advantages of a target policy, from the experience of another.

    Args:
      rollout: of which `reward`, `terminated` and `truncated` are read, [T, B].
      value, next_value: [T, B], V(obs_t) and V(final_obs_t).
      ratio: [T, B], probability of the action under the target policy over that under the behaviour policy.
      gamma, gae_lambda: scalars in [0, 1]; may be traced. The paper's trace has gae_lambda = 1.
      rho_max: scalar > 0, cap of the ratio in TD errors and advantages; in the trace it is capped at 1.
    Returns:
      Value targets and advantages, [T, B] each, in the units of reward. With ratio 1 and gae_lambda 1 the targets are
      `gae + value`.
    Raises:
      ValueError: if the shapes differ.
    References:
      Espeholt et al. 2018, arXiv:1802.01561, sec. 4.1. Differs: truncation bootstraps from V(final_obs).
    """
    reward, terminated, truncated = rollout.reward, rollout.terminated, rollout.truncated
    _check_shapes(
        reward=reward, terminated=terminated, truncated=truncated, value=value, next_value=next_value, ratio=ratio
    )
    done = terminated | truncated
    rho = jnp.minimum(rho_max, ratio)
    bootstrap = jnp.where(terminated, 0.0, next_value)
    delta = rho * (reward + gamma * bootstrap - value)
    target = value + discounted_sum(delta, jnp.where(done, 0.0, gamma * gae_lambda * jnp.minimum(1.0, ratio)))
    # What follows the last step, or an end, is outside of the trace: its value is the successor's own.
    outside = done.at[-1].set(True)
    next_target = jnp.where(outside, bootstrap, jnp.roll(target, -1, axis=0))
    return target, rho * (reward + gamma * next_target - value)


def retrace(
    rollout: Rollout,
    value: jax.Array,
    next_value: jax.Array,
    ratio: jax.Array,
    gamma: jax.Array | float,
    gae_lambda: jax.Array | float,
) -> jax.Array:
    """Retrace(λ): targets of action values under a target policy, from the experience of another.

    Args:
      rollout: of which `reward`, `terminated` and `truncated` are read, [T, B].
      value: [T, B], Q(obs_t, action_t).
      next_value: [T, B], the target policy's mean of Q(final_obs_t, ·).
      ratio: [T, B], probability of the action under the target policy over that under the behaviour policy.
      gamma, gae_lambda: scalars in [0, 1]; may be traced.
    Returns:
      [T, B] targets of `value`, in the units of reward.
    Raises:
      ValueError: if the shapes differ.
    References:
      Munos et al. 2016, arXiv:1606.02647, eq. 3 and 4 (unverified). Differs: truncation bootstraps from final_obs.
    """
    reward, terminated, truncated = rollout.reward, rollout.terminated, rollout.truncated
    _check_shapes(
        reward=reward, terminated=terminated, truncated=truncated, value=value, next_value=next_value, ratio=ratio
    )
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value
    # What follows step t was brought about by the next action; behind the last step nothing is added.
    of_next = jnp.roll(jnp.minimum(1.0, ratio), -1, axis=0)
    return value + discounted_sum(delta, jnp.where(terminated | truncated, 0.0, gamma * gae_lambda * of_next))


def discounted_return_so_far(
    reward: jax.Array, is_first: jax.Array, before: jax.Array, gamma: jax.Array | float
) -> jax.Array:
    """`R_t = r_t + gamma * R_{t-1}`, starting again at each episode; what reward scaling measures.

    Args:
      reward: [T, B] float.
      is_first: [T, B] bool, step t opens an episode.
      before: [B], R at the step before the first.
      gamma: scalar in [0, 1].
    Returns:
      [T, B].
    """

    def body(carry: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reward_t, first_t = inputs
        carry = reward_t + gamma * jnp.where(first_t, 0.0, carry)
        return carry, carry

    return jax.lax.scan(body, before, (reward, is_first))[1]


def _check_shapes(**arrays: jax.Array) -> None:
    shapes = {name: jnp.shape(array) for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"expected arrays of one shape [T, B], got {shapes}")
