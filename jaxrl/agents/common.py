"""What several agents share: exploration, and the statistics of observations and rewards in an agent's state."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.networks import encode
from jaxrl.ops.returns import discounted_return_so_far
from jaxrl.ops.statistics import RunningMoments, init_moments, normalize, scale, update_moments
from jaxrl.spaces import Box, Space
from jaxrl.types import Key, Rollout, Transition


def epsilon_greedy(key: Key, q_values: jax.Array, epsilon: jax.Array | float) -> jax.Array:
    """The action of highest value, or, with probability `epsilon`, a uniform one (which may be the same).

    Args:
      key: consumed.
      q_values: [..., A].
      epsilon: scalar or [...], in [0, 1]; may be traced.
    Returns:
      [...] int32; ties go to the lowest index.
    """
    num_actions = q_values.shape[-1]
    coin, uniform = jax.random.uniform(key, (2, *q_values.shape[:-1]))  # one draw for both
    random_action = (uniform * num_actions).astype(jnp.int32)
    return jnp.where(coin < epsilon, random_action, jnp.argmax(q_values, -1).astype(jnp.int32))


def epsilon_at(fraction: jax.Array | float, hp: Any) -> jax.Array:
    """Share of random actions after a `fraction` of the lifetime.

    Args:
      fraction: in [0, 1].
      hp: has `epsilon_start` and `epsilon_end`, between which it moves linearly during the first
        `exploration_fraction` of the lifetime; with 0, it is the former for one rollout.
    Returns:
      float32 scalar.
    """
    share = jnp.clip(fraction / jnp.maximum(hp.exploration_fraction, 1e-8), 0.0, 1.0)
    return jnp.asarray(hp.epsilon_start + share * (hp.epsilon_end - hp.epsilon_start), jnp.float32)


@struct.dataclass
class RewardScaler:
    """What divides rewards: moments of the discounted return so far, and that return at the last step, [B]."""

    moments: RunningMoments
    returns: jax.Array


def init_obs_moments(config: Any, obs_space: Space) -> Any:
    """Moments of observations, or `()` where `config.normalize_obs` is off."""
    return init_moments(obs_space.shape) if config.normalize_obs else ()


def init_reward_scaler(config: Any) -> Any:
    """A scaler of the rewards of `config.num_envs` environments, or `()` where `config.normalize_reward` is off."""
    return RewardScaler(init_moments(()), jnp.zeros(config.num_envs)) if config.normalize_reward else ()


def scale_rewards(scaler: Any, rollout: Rollout, gamma: jax.Array | float) -> tuple[Any, Rollout]:
    """Divides rewards by the deviation of discounted returns, this rollout's included.

    Args:
      scaler: a `RewardScaler`, or `()`, which leaves rewards alone.
      rollout: leaves [T, B, …].
      gamma: scalar in [0, 1]; may be traced.
    Returns:
      The scaler that has seen the rollout, and the rollout with scaled rewards.
    """
    if not isinstance(scaler, RewardScaler):
        return scaler, rollout
    returns = discounted_return_so_far(rollout.reward, rollout.is_first, scaler.returns, gamma)
    moments = update_moments(scaler.moments, returns)
    return RewardScaler(moments, returns[-1]), rollout._replace(reward=scale(moments, rollout.reward))


def check_normalizable(config: Any, obs_space: Space) -> None:
    """Raises ValueError where `config.normalize_obs` is on and observations are no numbers."""
    if config.normalize_obs and not isinstance(obs_space, Box):
        raise ValueError(f"normalize_obs = True needs observations in a Box, got {obs_space}; set it to False")


@struct.dataclass
class Normalizers:
    """Statistics of an off-policy agent: raw data go into the buffer and are normalised when sampled.

    Attributes:
      obs: running moments, or `()`.
      reward: a `RewardScaler` whose `returns` are 0 after an episode's end, or `()`.
    """

    obs: Any
    reward: Any

    def scale_reward(self, reward: jax.Array) -> jax.Array:
        """Divided by the deviation of discounted returns, where rewards are scaled; n-step sums as a whole."""
        return scale(self.reward.moments, reward) if isinstance(self.reward, RewardScaler) else reward


def init_normalizers(config: Any, obs_space: Space) -> Normalizers:
    """As `config.normalize_obs` and `config.normalize_reward` say."""
    return Normalizers(init_obs_moments(config, obs_space), init_reward_scaler(config))


def normalized(normalizers: Normalizers, obs_space: Space, obs: jax.Array) -> jax.Array:
    """Observations [N, …] as a network takes them."""
    x = normalize(normalizers.obs, obs) if isinstance(normalizers.obs, RunningMoments) else obs
    return encode(obs_space, x)


def observe(normalizers: Normalizers, experience: Transition, gamma: jax.Array | float) -> Normalizers:
    """Statistics that have seen new transitions [T, B, …], each once."""
    obs, scaler = normalizers.obs, normalizers.reward
    if isinstance(obs, RunningMoments):
        obs = update_moments(obs, experience.obs)
    if isinstance(scaler, RewardScaler):
        done = experience.terminated | experience.truncated
        is_first = jnp.concatenate([jnp.zeros_like(done[:1]), done[:-1]])
        returns = discounted_return_so_far(experience.reward, is_first, scaler.returns, gamma)
        scaler = RewardScaler(update_moments(scaler.moments, returns), jnp.where(done[-1], 0.0, returns[-1]))
    return Normalizers(obs, scaler)
