"""Twin delayed deep deterministic policy gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.agents.off_policy import Method, off_policy_actor_critic, squared_error, twin_minimum
from jaxrl.agents.sac import bounded_box, init_continuous
from jaxrl.networks import HIDDEN_GAIN, Torso, initializer, resolve_torso
from jaxrl.spaces import Space
from jaxrl.types import Agent, Key, Params, Progress, Sample
from jaxrl.value_networks import Actor, StateActionValue, apply_ensemble, apply_network

View = Callable[[jax.Array], jax.Array]


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


class TD3Networks(NamedTuple):
    """What `td3` computes with.

    Attributes:
      actor: network; `critic`: network of one critic.
      policy: `(actor_params, obs [N, …]) -> action [N, A]`, as the environment takes it.
      value: `(state, obs [N, …], action [N, A]) -> [N]`, the first critic's.
    """

    actor: Actor
    critic: StateActionValue
    policy: Callable[[Params, jax.Array], jax.Array]
    value: Callable[[Any, jax.Array, jax.Array], jax.Array]


def td3_networks(obs_space: Space, action_space: Space, config: Any, view: View = lambda obs: obs) -> TD3Networks:
    """Networks of `td3`, for whoever ascends its critic or evaluates policies of the actor's form."""
    low, high = bounded_box(action_space, "td3")
    center, half = (low + high) / 2, (high - low) / 2
    hidden = initializer(config.initializer, HIDDEN_GAIN)
    torso = Torso(config.hidden_sizes, config.activation, resolve_torso(config.torso, obs_space), kernel_init=hidden)
    actor = Actor(len(low), torso, initializer(config.initializer, 0.01))
    sizes = config.critic_hidden_sizes or config.hidden_sizes
    of_critic = Torso(sizes, config.activation, kernel_init=hidden)
    critic = StateActionValue(1, of_critic, initializer(config.initializer, 1.0))

    def policy(params: Params, obs: jax.Array) -> jax.Array:
        return center + half * jnp.tanh(apply_network(actor, params, view(obs)))

    def value(state: Any, obs: jax.Array, action: jax.Array) -> jax.Array:
        first = jax.tree.map(lambda leaf: leaf[0], state.params["critic"])
        return apply_network(critic, first, obs, action)[..., 0]

    return TD3Networks(actor, critic, policy, value)


def td3(obs_space: Space, action_space: Space, config: Any, hp: Any, view: View = lambda obs: obs) -> Agent:
    """A deterministic actor, twin critics, smoothed targets, and an actor that learns every `policy_delay`-th time.

    Args:
      obs_space, action_space: of the environment; a bounded Box.
      config: `TD3Config`.
      hp: `TD3Hparams`; may be traced; noises are in units of half the action's range.
      view: what the actor sees of an observation [N, …], of the same shape; critics see all of it.
    Returns:
      An `Agent` whose `update` takes a Sample [N], and whose memory is the exploration noise of the last step.
    Raises:
      ValueError: for an action space of another kind.
    References:
      Fujimoto et al. 2018, arXiv:1802.09477. Differs: truncation bootstraps.
    """
    low, high = bounded_box(action_space, "td3")
    half = (high - low) / 2
    actor, critic, policy, value = td3_networks(obs_space, action_space, config, view)

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
        loss, metrics = squared_error(values, batch.reward + batch.discount * next_q, batch.weight)
        return loss, (state.extra, metrics)

    def actor_loss(params: Params, key: Key, state: Any, batch: Sample) -> Any:
        loss = -value(state, batch.obs, policy(params, batch.obs)).mean()
        return loss, ((), {"policy/loss": loss})

    def finish(state: Any, aux: Any, progress: Progress) -> Any:
        return state

    def memory(num_envs: int) -> jax.Array:
        return jnp.zeros((num_envs, len(low)))

    method = Method(
        init, lambda params: (), act, critic_loss, actor_loss, finish,
        target_actor=True, memory=memory, eager_targets=config.critic_targets == "every",
    )  # fmt: skip
    return off_policy_actor_critic(method, obs_space, config, hp)
