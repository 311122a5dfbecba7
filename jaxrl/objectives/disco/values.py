"""Action values of Disco103: categorical, of transformed returns, learnt from Retrace targets."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.objectives.disco.config import DiscoConfig, DiscoState, MovingMoments, Trajectory

_LINEAR = 1e-3  # slope that keeps the transform invertible


class Values(NamedTuple):
    """Numbers of the values along a trajectory, reward units, leaves [T, B] or [T, B, A].

    Attributes:
      value, next_value: of the policy, by the online network.
      target_q: [T, B, A], by the target network.
      q: Retrace target of the action taken.
      advantage, normalized_advantage: of the action taken, over the target network's value of the policy.
      action_advantage, normalized_action_advantage: [T, B, A], of every action, by the target network.
      td, normalized_td: what the online network's action value lacks.
    """

    value: jax.Array
    next_value: jax.Array
    target_q: jax.Array
    q: jax.Array
    advantage: jax.Array
    normalized_advantage: jax.Array
    action_advantage: jax.Array
    normalized_action_advantage: jax.Array
    td: jax.Array
    normalized_td: jax.Array


def compress(x: jax.Array) -> jax.Array:
    """`sign(x) (sqrt(|x| + 1) - 1) + 0.001 x`: returns of any size in a small range.

    References:
      Pohlen et al. 2018, arXiv:1805.11593, sec. 3.2.
    """
    return jnp.sign(x) * (jnp.sqrt(jnp.abs(x) + 1.0) - 1.0) + _LINEAR * x


def expand(x: jax.Array) -> jax.Array:
    """The inverse of `compress`."""
    # The root of a quadratic equation, in the form that does not subtract numbers that are nearly equal.
    constant = _LINEAR + 1.0 + jnp.abs(x)
    root = 2.0 * constant / (jnp.sqrt(1.0 + 4.0 * _LINEAR * constant) + 1.0)
    return jnp.sign(x) * (jnp.square(root) - 1.0)


def bins(config: DiscoConfig) -> jax.Array:
    """[num_bins], equidistant from -max_abs_value to max_abs_value."""
    return jnp.linspace(-config.max_abs_value, config.max_abs_value, config.num_bins)


def two_hot(x: jax.Array, bins: jax.Array) -> jax.Array:
    """Probabilities [..., K] of mean `x` [...], on the two of the equidistant `bins` [K] around it; clipped to them."""
    x = jnp.clip(x, bins[0], bins[-1])[..., None]
    return jnp.maximum(1.0 - jnp.abs(x - bins) / (bins[1] - bins[0]), 0.0)


def expected_value(logits: jax.Array, config: DiscoConfig) -> jax.Array:
    """[...] reward units, from logits [..., num_bins]."""
    return expand(jax.nn.softmax(logits) @ bins(config))


def of_action(x: jax.Array, action: jax.Array) -> jax.Array:
    """`x[..., action, …]`: [N, A, …] and [N] -> [N, …], with as many leading axes as `action` has."""
    mask = action[..., None] == jnp.arange(x.shape[action.ndim])
    return jnp.sum(jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, 0.0), action.ndim)


def retrace(seen: Trajectory, q: jax.Array, next_value: jax.Array, config: DiscoConfig) -> jax.Array:
    """Action values of the online policy from experience of another.

    `G_t = r_t + γ (V(s') + c_{t+1} (G_{t+1} - Q(s_{t+1}, a_{t+1})))`, with `c = λ min(1, π / μ)`; 0 for V behind a
    termination, and no trace behind any end of an episode.

    Args:
      seen: leaves [T, B, …].
      q: [T, B], of the actions taken.
      next_value: [T, B], V of the true successor.
      config: has `gamma` and `trace_lambda`.
    Returns:
      [T, B], reward units.
    References:
      Munos et al. 2016, arXiv:1606.02647, eq. 4. Differs: truncation bootstraps.
    """
    log_ratio = jax.nn.log_softmax(seen.online.pi) - jax.nn.log_softmax(seen.behaviour)
    trace = config.trace_lambda * jnp.minimum(jnp.exp(of_action(log_ratio, seen.action)), 1.0)
    discount = config.gamma * (1.0 - seen.terminated)
    cut = (seen.terminated | seen.truncated).at[-1].set(True)
    later_trace = jnp.where(cut, 0.0, jnp.roll(trace, -1, 0))
    later_q = jnp.roll(q, -1, 0)

    def body(later: jax.Array, step: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        reward, discount, value, trace, q = step
        target = reward + discount * (value + trace * (later - q))
        return target, target

    steps = (seen.reward, discount, next_value, later_trace, later_q)
    return jax.lax.scan(body, jnp.zeros_like(q[0]), steps, reverse=True)[1]


def init_moments() -> MovingMoments:
    """Of nothing yet."""
    return MovingMoments(jnp.float32(0.0), jnp.float32(0.0), jnp.float32(1.0))


def _observe(moments: MovingMoments, x: jax.Array, decay: float) -> MovingMoments:
    mean = decay * moments.mean + (1.0 - decay) * x.mean()
    square = decay * moments.square + (1.0 - decay) * jnp.square(x).mean()
    return MovingMoments(mean, square, moments.decay_product * decay)


def _normalize(moments: MovingMoments, x: jax.Array, eps: float, centre: bool) -> jax.Array:
    debias = 1.0 / (1.0 - moments.decay_product)
    mean = moments.mean * debias
    deviation = jnp.sqrt(jnp.maximum(moments.square * debias - jnp.square(mean), 0.0) + 1e-12)
    return (x - mean * centre) / (deviation + eps)


def disco_values(state: DiscoState, seen: Trajectory, config: DiscoConfig) -> tuple[Values, DiscoState]:
    """Targets of the action value, advantages, and the state whose moments have seen them.

    Args:
      state: of the rule.
      seen: leaves [T, B, …].
      config: static.
    """
    pi, next_pi = jax.nn.softmax(seen.online.pi), jax.nn.softmax(seen.next_online.pi)
    q, next_q, target_q, next_target_q = (
        expected_value(of.q, config) for of in (seen.online, seen.next_online, seen.target, seen.next_target)
    )
    target_value, next_target_value = (pi * target_q).sum(-1), (next_pi * next_target_q).sum(-1)
    goal = retrace(seen, of_action(target_q, seen.action), next_target_value, config)
    advantage, action_advantage = goal - target_value, target_q - target_value[..., None]
    td = goal - of_action(q, seen.action)

    state = dataclasses.replace(
        state,
        advantage=_observe(state.advantage, advantage, config.moment_decay),
        td=_observe(state.td, td, config.moment_decay),
    )
    values = Values(
        value=(pi * q).sum(-1),
        next_value=(next_pi * next_q).sum(-1),
        target_q=target_q,
        q=goal,
        advantage=advantage,
        normalized_advantage=_normalize(state.advantage, advantage, config.moment_eps, centre=True),
        action_advantage=action_advantage,
        normalized_action_advantage=_normalize(state.advantage, action_advantage, config.moment_eps, centre=True),
        td=td,
        normalized_td=_normalize(state.td, td, config.moment_eps, centre=False),
    )
    return values, state
