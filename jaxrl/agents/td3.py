"""Twin delayed deep deterministic policy gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agents.off_policy import Method, off_policy_actor_critic, squared_error, twin_minimum
from jaxrl.agents.sac import bounded_box, init_continuous
from jaxrl.networks import Torso, resolve_torso
from jaxrl.spaces import Space
from jaxrl.types import Agent, Key, Params, Progress, Sample
from jaxrl.value_networks import Actor, StateActionValue, apply_ensemble, apply_network


def next_noise(key: Key, noise: jax.Array, is_first: jax.Array, correlation: jax.Array | float) -> jax.Array:
    """The noise of the next step: standard normal at every step, `correlation^k` alike between steps k apart.

    Args:
      key: consumed.
      noise: [B, D], of the step before.
      is_first: [B], where noise is drawn anew.
      correlation: scalar in [0, 1); may be traced; 0 is white noise.
    Returns:
      [B, D].
    References:
      The Ornstein-Uhlenbeck process in discrete time, as in Lillicrap et al. 2015, arXiv:1509.02971; there the
      deviation grows from 0 at the start of an episode, here it is the same at every step.
    """
    fresh = jax.random.normal(key, noise.shape)
    return jnp.where(is_first[:, None], fresh, correlation * noise + jnp.sqrt(1.0 - correlation**2) * fresh)


def td3(obs_space: Space, action_space: Space, config: Any, hp: Any) -> Agent:
    """A deterministic actor, twin critics, smoothed targets, and an actor that learns every `policy_delay`-th time.

    Args:
      obs_space, action_space: of the environment; a bounded Box.
      config: `TD3Config`.
      hp: `TD3Hparams`; may be traced; noises are in units of half the action's range.
    Returns:
      An `Agent` whose `update` takes a Sample [N], and whose memory is the exploration noise of the last step.
    Raises:
      ValueError: for an action space of another kind.
    References:
      Fujimoto et al. 2018, arXiv:1802.09477. Differs: truncation bootstraps.
    """
    low, high = bounded_box(action_space, "td3")
    center, half = (low + high) / 2, (high - low) / 2
    torso = Torso(config.hidden_sizes, config.activation, resolve_torso(config.torso, obs_space))
    actor = Actor(len(low), torso)
    critic = StateActionValue(1, Torso(config.hidden_sizes, config.activation))

    def policy(params: Params, obs: jax.Array) -> jax.Array:
        return center + half * jnp.tanh(apply_network(actor, params, obs))

    def init(key: Key, obs: jax.Array) -> Params:
        return init_continuous(key, obs, actor, critic, config.num_critics, len(low))

    def act(
        key: Key, state: Any, noise: jax.Array, obs: jax.Array, is_first: jax.Array, explore: bool
    ) -> tuple[jax.Array, jax.Array]:
        action = policy(state.params["actor"], obs)
        if not explore:
            return action, noise
        noise = next_noise(key, noise, is_first, hp.exploration_correlation)
        return jnp.clip(action + hp.exploration_noise * half * noise, low, high), noise

    def critic_loss(params: Params, key: Key, state: Any, batch: Sample) -> Any:
        noise = hp.policy_noise * jax.random.normal(key, batch.action.shape)
        smoothing = half * jnp.clip(noise, -hp.noise_clip, hp.noise_clip)
        action = jnp.clip(policy(state.targets["actor"], batch.final_obs) + smoothing, low, high)
        next_q = twin_minimum(apply_ensemble(critic, state.targets["critic"], batch.final_obs, action))
        values = apply_ensemble(critic, params, batch.obs, batch.action)
        loss, metrics = squared_error(values, batch.reward + batch.discount * next_q)
        return loss, (state.extra, metrics)

    def actor_loss(params: Params, key: Key, state: Any, batch: Sample) -> Any:
        first = jax.tree.map(lambda leaf: leaf[0], state.params["critic"])
        loss = -apply_network(critic, first, batch.obs, policy(params, batch.obs)).mean()
        return loss, ((), {"policy/loss": loss})

    def finish(state: Any, aux: Any, progress: Progress) -> Any:
        return state

    def memory(num_envs: int) -> jax.Array:
        return jnp.zeros((num_envs, len(low)))

    method = Method(init, lambda params: (), act, critic_loss, actor_loss, finish, target_actor=True, memory=memory)
    return off_policy_actor_critic(method, obs_space, config, hp)
