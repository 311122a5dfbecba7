"""Probabilistic mixture of experts: soft actor-critic whose policy is a gated mixture of Gaussians.

A reconstruction: only the paper's abstract was at hand. What is ours is said where it stands.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agents.off_policy import Method, off_policy_actor_critic, sample_or_mode, soft_critic_loss, twin_minimum
from jaxrl.agents.sac import (
    LOG_STD_RANGE,
    bounded_box,
    hold_entropy,
    init_continuous,
    init_temperature,
    squashed_gaussian,
)
from jaxrl.networks import Torso, resolve_torso
from jaxrl.ops.distributions import Categorical, TanhMixture
from jaxrl.spaces import Space
from jaxrl.types import Agent, Key, Params, Sample
from jaxrl.value_networks import Actor, StateActionValue, apply_ensemble, apply_network

ROUTINGS = ("frequency", "score", "gumbel")
WEIGHTINGS = ("gate", "uniform", "best")


def frequency_loss(weights: jax.Array, values: jax.Array) -> jax.Array:
    """`mean sum_i (w_i - v_i)^2` with v the one-hot best: the gate learns how often each primitive is best.

    Args:
      weights: [N, K], the gate's.
      values: [N, K], one sampled action's value per primitive; a constant of the gradient.
    """
    best = jax.nn.one_hot(jnp.argmax(values, -1), values.shape[-1])
    return jnp.square(weights - best).sum(-1).mean()


def pmoe(obs_space: Space, action_space: Space, config: Any, hp: Any) -> Agent:
    """SAC with a mixture policy.

    Each primitive climbs the critic with a sample of its own; the gate learns apart from them, by `config.routing`:
    "frequency" (the paper's), "score" (the exact policy gradient of the gate, over the sampled actions) or "gumbel"
    (a relaxed choice between them, straight through). Entropy is the mixture's, from a sample.

    Args:
      obs_space, action_space: of the environment; a bounded Box.
      config: `PMOEConfig`.
      hp: `PMOEHparams`; may be traced.
    Raises:
      ValueError: for an action space of another kind.
    References:
      Ren et al. 2021, arXiv:2104.09122; reconstructed from its abstract, the weighting of primitives is ours.
    """
    low, high = bounded_box(action_space, "pmoe")
    size, num = len(low), config.num_primitives
    torso = Torso(config.hidden_sizes, config.activation, resolve_torso(config.torso, obs_space))
    actor = Actor(num * (2 * size + 1), torso)
    critic = StateActionValue(1, Torso(config.hidden_sizes, config.activation))
    # Primitives that begin alike would stay alike where the gate treats them alike: means begin apart.
    spread = jnp.concatenate([jnp.ones(size), jnp.zeros(size)]) * jnp.linspace(-1.0, 1.0, num)[:, None]

    def policy(params: Params, obs: jax.Array) -> TanhMixture:
        outputs = apply_network(actor, params, obs)
        of_primitives = outputs[..., num:].reshape(*outputs.shape[:-1], num, 2 * size) + spread
        return TanhMixture(Categorical(outputs[..., :num]), squashed_gaussian(of_primitives, low, high, LOG_STD_RANGE))

    def init(key: Key, obs: jax.Array) -> Params:
        return init_continuous(key, obs, actor, critic, config.num_critics, size)

    def value(params: Params, obs: jax.Array, action: jax.Array) -> jax.Array:
        return twin_minimum(apply_ensemble(critic, params, obs, action))

    def actor_loss(params: Params, key: Key, state: Any, batch: Sample) -> Any:
        key_sample, key_gate = jax.random.split(key)
        mixture = policy(params, batch.obs)
        weights = jax.nn.softmax(mixture.gate.logits)
        # Primitives see the gate as it is, so that their gradient does not reach it.
        fixed_gate = TanhMixture(Categorical(jax.lax.stop_gradient(mixture.gate.logits)), mixture.primitives)
        u = mixture.primitives.sample_base(key_sample)  # [N, K, D], one of each primitive
        log_prob = jax.vmap(fixed_gate.log_prob_base, -2, -1)(u)
        actions = mixture.primitives.to_action(u)
        of_actions = jax.vmap(lambda action: value(state.params["critic"], batch.obs, action), -2, -1)
        values = of_actions(actions)
        soft = values - state.extra.alpha * log_prob

        share = _shares(config.weighting, jax.lax.stop_gradient(weights), values)
        primitive_loss = -(share * soft).sum(-1).mean()

        def value_of_mixed(shares: jax.Array) -> jax.Array:
            mixed = (shares[..., None] * jax.lax.stop_gradient(actions)).sum(-2)
            return value(state.params["critic"], batch.obs, mixed)

        logits, temperature = mixture.gate.logits, hp.gumbel_temperature
        losses = {
            "frequency": lambda: frequency_loss(weights, values),
            # The gate's own entropy is in log_prob's log-weights, whose expected score is zero.
            "score": lambda: -(weights * jax.lax.stop_gradient(soft)).sum(-1).mean(),
            "gumbel": lambda: -value_of_mixed(_straight_through(key_gate, logits, temperature)).mean(),
        }
        gate_loss = losses[config.routing]()
        entropy = -(jax.lax.stop_gradient(weights) * log_prob).sum(-1).mean()
        metrics = {
            "policy/loss": primitive_loss,
            "policy/gate_loss": gate_loss,
            "policy/entropy": entropy,
            "policy/gate_entropy": mixture.gate.entropy().mean(),
            "policy/gate_largest_share": weights.mean(0).max(),
            "policy/temperature": state.extra.alpha,
        }
        return primitive_loss + hp.gate_coef * gate_loss, (entropy, metrics)

    method = Method(
        init=init,
        init_extra=lambda params: init_temperature(hp.initial_alpha),
        act=sample_or_mode(policy),
        critic_loss=soft_critic_loss(critic, policy, lambda extra: extra.alpha),
        actor_loss=actor_loss,
        finish=hold_entropy(-size * hp.target_entropy_scale, hp),
    )
    return off_policy_actor_critic(method, obs_space, config, hp)


def _shares(weighting: str, weights: jax.Array, values: jax.Array) -> jax.Array:
    """How much each primitive's loss counts, [N, K], constants."""
    num = weights.shape[-1]
    if weighting == "gate":
        return weights
    if weighting == "uniform":
        return jnp.full_like(weights, 1.0 / num)
    return jax.nn.one_hot(jnp.argmax(values, -1), num)


def _straight_through(key: Key, logits: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """A one-hot choice [N, K] whose gradient is that of the Gumbel-softmax relaxation."""
    noisy = (jax.nn.log_softmax(logits) + jax.random.gumbel(key, logits.shape)) / temperature
    relaxed = jax.nn.softmax(noisy)
    hard = jax.nn.one_hot(jnp.argmax(noisy, -1), logits.shape[-1])
    return hard + relaxed - jax.lax.stop_gradient(relaxed)
