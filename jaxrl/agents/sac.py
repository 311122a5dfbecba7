"""Soft actor-critic with a learned temperature, for bounded continuous and for discrete actions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from jaxrl.agents.off_policy import (
    Method,
    off_policy_actor_critic,
    sample_or_mode,
    soft_critic_loss,
    squared_error,
    twin_minimum,
)
from jaxrl.networks import Torso, resolve_torso
from jaxrl.ops.distributions import Categorical, DiagNormal, TanhNormal
from jaxrl.spaces import Box, Discrete, Space
from jaxrl.types import Agent, Key, Metrics, Params, Progress, Sample
from jaxrl.value_networks import ActionValues, Actor, StateActionValue, apply_ensemble, apply_network, init_ensemble


@struct.dataclass
class Temperature:
    """The weight of entropy: its logarithm, and its optimiser's state."""

    log_alpha: jax.Array
    opt_state: Any

    @property
    def alpha(self) -> jax.Array:
        """Scalar > 0, reward units per nat."""
        return jnp.exp(self.log_alpha)


LOG_STD_RANGE = (-20.0, 2.0)
_ALPHA_TX = optax.scale_by_adam()


def init_temperature(initial_alpha: jax.Array | float) -> Temperature:
    """A temperature that starts at `initial_alpha`, > 0; may be traced."""
    log_alpha = jnp.log(jnp.asarray(initial_alpha, jnp.float32))
    return Temperature(log_alpha, _ALPHA_TX.init(log_alpha))


def adapt_temperature(
    temperature: Temperature, entropy: jax.Array, target_entropy: jax.Array | float, learning_rate: jax.Array | float
) -> Temperature:
    """One step of Adam on `alpha * (entropy - target_entropy)` over log alpha: it rises where entropy is too low."""
    gradient = temperature.alpha * (entropy - target_entropy)
    direction, opt_state = _ALPHA_TX.update(gradient, temperature.opt_state)
    return Temperature(temperature.log_alpha - learning_rate * direction, opt_state)


def hold_entropy(target_entropy: jax.Array | float, hp: Any) -> Callable[..., Any]:
    """The `finish` of an agent whose extra is a `Temperature` and whose actor's loss returns the entropy."""

    def finish(state: Any, entropy: jax.Array, progress: Progress) -> Any:
        adapted = adapt_temperature(state.extra, entropy, target_entropy, hp.alpha_learning_rate)
        return dataclasses.replace(state, extra=adapted)

    return finish


def bounded_box(action_space: Space, algorithm: str) -> tuple[np.ndarray, np.ndarray]:
    """The finite bounds of a continuous action space of one axis.

    Raises:
      ValueError: for any other space.
    """
    is_real = jnp.issubdtype(action_space.dtype, jnp.floating)
    if isinstance(action_space, Box) and is_real and len(action_space.shape) == 1 and action_space.is_bounded:
        return action_space.bounds()
    hint = "dqn, sac, ppo or pqn" if isinstance(action_space, Discrete) else "ppo or a2c"
    raise ValueError(
        f"{algorithm} takes a bounded float Box of one axis as action space, got {action_space}; use {hint}"
    )


def squashed_gaussian(outputs: jax.Array, low: Any, high: Any, log_std_range: tuple[float, float]) -> TanhNormal:
    """The policy that an actor's outputs [..., 2 D] describe: means, and log-deviations clipped into a range."""
    mean, log_std = jnp.split(outputs, 2, -1)
    return TanhNormal(DiagNormal(mean, jnp.clip(log_std, *log_std_range)), jnp.asarray(low), jnp.asarray(high))


def continuous_networks(obs_space: Space, size: int, config: Any, num_outputs: int = 1) -> tuple[Any, Any]:
    """The actor with 2 `size` outputs, and one critic."""
    torso = Torso(config.hidden_sizes, config.activation, resolve_torso(config.torso, obs_space))
    return Actor(2 * size, torso), StateActionValue(num_outputs, Torso(config.hidden_sizes, config.activation))


def init_continuous(key: Key, obs: jax.Array, actor: Any, critic: Any, num_critics: int, size: int) -> Params:
    """Parameters of an actor and of `num_critics` critics."""
    key_actor, key_critic = jax.random.split(key)
    blank = jnp.zeros((1, size))
    return {"actor": actor.init(key_actor, obs), "critic": init_ensemble(key_critic, critic, num_critics, obs, blank)}


def sac(obs_space: Space, action_space: Space, config: Any, hp: Any) -> Agent:
    """Soft actor-critic: clipped double critics, a stochastic actor, a temperature that holds a target entropy.

    Args:
      obs_space, action_space: of the environment; a bounded Box, or Discrete.
      config: `SACConfig`.
      hp: `SACHparams`; may be traced.
    Raises:
      ValueError: for an action space of another kind.
    References:
      Haarnoja et al. 2018, arXiv:1812.05905; discrete: Christodoulou 2019, arXiv:1910.07207. Differs: truncation
      bootstraps, and the temperature from before the step serves critics and actor.
    """
    if isinstance(action_space, Discrete):
        method = _discrete(obs_space, action_space, config, hp)
    else:
        method = _continuous(obs_space, action_space, config, hp)
    return off_policy_actor_critic(method, obs_space, config, hp)


def _continuous(obs_space: Space, action_space: Space, config: Any, hp: Any) -> Method:
    low, high = bounded_box(action_space, "sac")
    size = len(low)
    actor, critic = continuous_networks(obs_space, size, config)
    target_entropy = -size * hp.target_entropy_scale

    def policy(params: Params, obs: jax.Array) -> TanhNormal:
        return squashed_gaussian(apply_network(actor, params, obs), low, high, LOG_STD_RANGE)

    def init(key: Key, obs: jax.Array) -> Params:
        return init_continuous(key, obs, actor, critic, config.num_critics, size)

    def actor_loss(params: Params, key: Key, state: Any, batch: Sample) -> Any:
        action, log_prob = policy(params, batch.obs).sample_and_log_prob(key)
        q = twin_minimum(apply_ensemble(critic, state.params["critic"], batch.obs, action))
        loss = (state.extra.alpha * log_prob - q).mean()
        entropy = -log_prob.mean()
        return loss, (entropy, _metrics(loss, entropy, state))

    return Method(
        init=init,
        init_extra=lambda params: init_temperature(hp.initial_alpha),
        act=sample_or_mode(policy),
        critic_loss=soft_critic_loss(critic, policy, lambda extra: extra.alpha),
        actor_loss=actor_loss,
        finish=hold_entropy(target_entropy, hp),
    )


def _discrete(obs_space: Space, action_space: Discrete, config: Any, hp: Any) -> Method:
    torso = Torso(config.hidden_sizes, config.activation, resolve_torso(config.torso, obs_space))
    actor, critic = Actor(action_space.n, torso), ActionValues(action_space.n, 1, torso)
    target_entropy = hp.discrete_target_entropy * np.log(action_space.n)

    def init(key: Key, obs: jax.Array) -> Params:
        key_actor, key_critic = jax.random.split(key)
        return {
            "actor": actor.init(key_actor, obs),
            "critic": init_ensemble(key_critic, critic, config.num_critics, obs),
        }

    def policy(params: Params, obs: jax.Array) -> Categorical:
        return Categorical(apply_network(actor, params, obs))

    def critic_loss(params: Params, key: Key, state: Any, batch: Sample) -> Any:
        next_policy = policy(state.params["actor"], batch.final_obs)
        next_q = twin_minimum(apply_ensemble(critic, state.targets["critic"], batch.final_obs))
        soft_value = next_policy.mean_of(next_q) + state.extra.alpha * next_policy.entropy()
        values = apply_ensemble(critic, params, batch.obs)
        chosen = batch.action[:, None] == jnp.arange(action_space.n)
        taken = jnp.sum(jnp.where(chosen[..., None], values, 0.0), -2)
        loss, metrics = squared_error(taken, batch.reward + batch.discount * soft_value)
        return loss, (state.extra, metrics)

    def actor_loss(params: Params, key: Key, state: Any, batch: Sample) -> Any:
        distribution = policy(params, batch.obs)
        q = twin_minimum(apply_ensemble(critic, state.params["critic"], batch.obs))
        entropy = distribution.entropy().mean()
        loss = -distribution.mean_of(q).mean() - state.extra.alpha * entropy
        return loss, (entropy, _metrics(loss, entropy, state))

    return Method(
        init=init,
        init_extra=lambda params: init_temperature(hp.initial_alpha),
        act=sample_or_mode(policy),
        critic_loss=critic_loss,
        actor_loss=actor_loss,
        finish=hold_entropy(target_entropy, hp),
    )


def _metrics(loss: jax.Array, entropy: jax.Array, state: Any) -> Metrics:
    return {"policy/loss": loss, "policy/entropy": entropy, "policy/temperature": state.extra.alpha}
