"""Distributional soft actor-critic with three refinements (DSAC-T)."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agents.off_policy import Method, off_policy_actor_critic, sample_or_mode, smallest
from jaxrl.agents.sac import (
    adapt_temperature,
    bounded_box,
    continuous_networks,
    init_continuous,
    init_temperature,
    squashed_gaussian,
)
from jaxrl.ops.distributions import TanhNormal
from jaxrl.ops.value_distributions import huber
from jaxrl.spaces import Space
from jaxrl.types import Agent, Key, Params, Progress, Sample
from jaxrl.value_networks import apply_ensemble, apply_network

LOG_STD_RANGE = (-20.0, 0.5)
_BIAS = 0.1  # keeps divisions by a variance or deviation from exploding, as in the authors' code
_HUBER = 50.0


@struct.dataclass
class Deviations:
    """Running mean of each critic's deviation, [C], and whether it has seen a batch; beside the temperature."""

    temperature: Any
    running: jax.Array
    initialised: jax.Array


class ReturnTargets(NamedTuple):
    """Targets of one critic, [N]: of its mean, and a bounded sample of the return, of its deviation."""

    mean: Any
    bounded: Any


def return_distribution_loss(
    q: jax.Array, std: jax.Array, targets: ReturnTargets, running: jax.Array, std_half: bool = True
) -> jax.Array:
    """The loss of one critic that predicts a return's mean and deviation; its gradient is what matters, not its value.

    Args:
      q, std: [N], predictions.
      targets: [N].
      running: scalar, the running mean of the critic's deviation, b.
      std_half: measure squared errors with the half of Huber's loss, as the authors' code does: the deviation then
        settles at `sqrt(E[e^2] / 2)`; without, at `sqrt(E[e^2])`.
    Returns:
      Scalar.
    References:
      Duan et al. 2025, arXiv:2310.05858; DSAC-v2 repository, dsac_v2.py.
    """
    stopped = jax.lax.stop_gradient(std)
    weight = jnp.clip(running**2 / (stopped**2 + _BIAS), 0.1, 10.0)
    spread = huber(jax.lax.stop_gradient(q) - targets.bounded, _HUBER) * (1.0 if std_half else 2.0)
    of_mean = huber(q - targets.mean, _HUBER)
    of_std = std * (stopped**2 - spread) / (stopped + _BIAS)
    return (weight * (of_mean + of_std)).mean()


def dsac_t(obs_space: Space, action_space: Space, config: Any, hp: Any) -> Agent:
    """Soft actor-critic whose critics are Gaussians over returns.

    Expected value substitution: means regress on means. Twin distribution learning: samples come from the target
    critic of the smaller mean. Gradient adjustment: errors are bounded and losses weighted by running deviations.

    Args:
      obs_space, action_space: of the environment; a bounded Box.
      config: `DSACTConfig`.
      hp: `DSACTHparams`; may be traced.
    Raises:
      ValueError: for an action space of another kind.
    References:
      Duan et al. 2025, arXiv:2310.05858.
    """
    low, high = bounded_box(action_space, "dsac_t")
    size = len(low)
    actor, critic = continuous_networks(obs_space, size, config, num_outputs=2)

    def policy(params: Params, obs: jax.Array) -> TanhNormal:
        return squashed_gaussian(apply_network(actor, params, obs), low, high, LOG_STD_RANGE)

    def returns(params: Params, obs: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        outputs = apply_ensemble(critic, params, obs, action)
        return outputs[..., 0], jax.nn.softplus(outputs[..., 1])

    def init(key: Key, obs: jax.Array) -> Params:
        return init_continuous(key, obs, actor, critic, config.num_critics, size)

    def init_extra(params: Params) -> Deviations:
        return Deviations(init_temperature(hp.initial_alpha), jnp.ones(config.num_critics), jnp.zeros((), bool))

    def critic_loss(params: Params, key: Key, state: Any, batch: Sample) -> Any:
        key_action, key_return = jax.random.split(key)
        action, log_prob = policy(state.targets["actor"], batch.final_obs).sample_and_log_prob(key_action)
        next_q, next_std = returns(state.targets["critic"], batch.final_obs, action)
        z = jnp.clip(jax.random.normal(key_return, next_q.shape), -3.0, 3.0)
        smaller = jnp.argmin(next_q, 0)[None] == jnp.arange(config.num_critics)[:, None]
        next_sample = jnp.sum(jnp.where(smaller, next_q + z * next_std, 0.0), 0)
        bonus = state.extra.temperature.alpha * log_prob
        target = batch.reward + batch.discount * (next_q.min(0) - bonus)
        target_sample = batch.reward + batch.discount * (next_sample - bonus)

        q, std = returns(params, batch.obs, batch.action)
        now = jax.lax.stop_gradient(std.mean(-1))
        running = jnp.where(state.extra.initialised, state.extra.running + hp.tau_b * (now - state.extra.running), now)
        stopped, bound = jax.lax.stop_gradient(q), 3.0 * running[:, None]
        bounded = stopped + jnp.clip(target_sample - stopped, -bound, bound)
        # Targets are constants of this gradient: only `params` are differentiated, and they come from `state`.
        losses = jax.vmap(return_distribution_loss, (0, 0, ReturnTargets(None, 0), 0, None))(
            q, std, ReturnTargets(target, bounded), running, config.std_half
        )
        extra = dataclasses.replace(state.extra, running=running, initialised=jnp.ones((), bool))
        metrics = {
            "loss/critic": losses.sum(),
            "value/q": q.mean(),
            "value/std": std.mean(),
            "priority": jnp.abs(q - target).mean(0),
        }
        return losses.sum(), (extra, metrics)

    def actor_loss(params: Params, key: Key, state: Any, batch: Sample) -> Any:
        action, log_prob = policy(params, batch.obs).sample_and_log_prob(key)
        alpha = state.extra.temperature.alpha
        loss = (alpha * log_prob - smallest(returns(state.params["critic"], batch.obs, action)[0])).mean()
        entropy = -log_prob.mean()
        return loss, (entropy, {"policy/loss": loss, "policy/entropy": entropy, "policy/temperature": alpha})

    def finish(state: Any, entropy: jax.Array, progress: Progress) -> Any:
        target_entropy = -size * hp.target_entropy_scale
        adapted = adapt_temperature(state.extra.temperature, entropy, target_entropy, hp.alpha_learning_rate)
        return dataclasses.replace(state, extra=dataclasses.replace(state.extra, temperature=adapted))

    method = Method(init, init_extra, sample_or_mode(policy), critic_loss, actor_loss, finish, target_actor=True)
    return off_policy_actor_critic(method, obs_space, config, hp)
