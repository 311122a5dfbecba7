"""Off-policy mirror descent policy optimisation."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agents.off_policy import Method, every, off_policy_actor_critic, sample_or_mode, soft_critic_loss
from jaxrl.agents.sac import LOG_STD_RANGE, bounded_box, continuous_networks, init_continuous, squashed_gaussian
from jaxrl.ops.distributions import TanhNormal
from jaxrl.spaces import Space
from jaxrl.types import Agent, Key, Params, Progress, Sample
from jaxrl.value_networks import apply_network

_REGULARISATION = 1e-3  # of means and log-deviations, in the authors' code


def mdpo_off(obs_space: Space, action_space: Space, config: Any, hp: Any) -> Agent:
    """Every `old_policy_period` updates a proximal problem: climb Q, near the policy of the period's beginning.

    Args:
      obs_space, action_space: of the environment; a bounded Box.
      config: `MDPOOffConfig`.
      hp: `MDPOOffHparams`: `kl_coef` is 1/t, `entropy_coef` the fixed temperature; may be traced.
    Raises:
      ValueError: for an action space of another kind.
    References:
      Tomar et al. 2022, arXiv:2005.09814, and its repository. Differs: actions are sampled in training, and values
      come from target critics instead of a network of their own.
    """
    low, high = bounded_box(action_space, "mdpo_off")
    size = len(low)
    actor, critic = continuous_networks(obs_space, size, config)

    def policy(params: Params, obs: jax.Array) -> TanhNormal:
        return squashed_gaussian(apply_network(actor, params, obs), low, high, LOG_STD_RANGE)

    def init(key: Key, obs: jax.Array) -> Params:
        return init_continuous(key, obs, actor, critic, config.num_critics, size)

    def actor_loss(params: Params, key: Key, state: Any, batch: Sample) -> Any:
        now, old = policy(params, batch.obs), policy(state.extra, batch.obs)
        u = now.sample_base(key)
        log_prob, old_log_prob = now.log_prob_base(u), old.log_prob_base(u)
        first = jax.tree.map(lambda leaf: leaf[0], state.params["critic"])
        q = apply_network(critic, first, batch.obs, now.to_action(u))[:, 0]
        loss = (hp.kl_coef * log_prob + (hp.entropy_coef - hp.kl_coef) * old_log_prob - q).mean()
        size_of_outputs = jnp.square(now.base.mean).mean() + jnp.square(now.base.log_std).mean()
        metrics = {
            "policy/loss": loss,
            "policy/entropy": -log_prob.mean(),
            "policy/kl_to_old": (log_prob - old_log_prob).mean(),
        }
        return loss + _REGULARISATION * size_of_outputs, ((), metrics)

    def finish(state: Any, aux: Any, progress: Progress) -> Any:
        def renew(state: Any) -> tuple[Any, dict[str, jax.Array]]:
            return dataclasses.replace(state, extra=state.params["actor"]), {}

        # After the actor's last update of a period, counted in updates of the critics; the period is a multiple of
        # the actor's delay.
        return every(config.old_policy_period, progress.update + config.policy_delay, renew, state)[0]

    def init_extra(params: Params) -> Params:
        return jax.tree.map(jnp.copy, params["actor"])

    critic_loss = soft_critic_loss(critic, policy, lambda extra: hp.entropy_coef)
    method = Method(init, init_extra, sample_or_mode(policy), critic_loss, actor_loss, finish)
    return off_policy_actor_critic(method, obs_space, config, hp)
